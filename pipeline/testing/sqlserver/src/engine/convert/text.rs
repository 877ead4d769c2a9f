//! Text and bytes.

use super::super::errors::{Result, fault};
use super::super::repr::{self};
use super::super::types;
use super::clash;
use super::numbers::{decimal_text, rescale};
use super::times::{fraction, time_text};
use super::{Excess, TOO_LONG};
use crate::value::{SqlType, Value};
use chrono::{Duration, NaiveTime, Timelike};

pub(super) fn fit_text(mut text: String, to: SqlType, excess: Excess) -> Result<String> {
    let Some(length) = types::length(to).map(usize::from).filter(|_| !types::is_max(to)) else { return Ok(text) };
    // A byte is never less than a character of UTF-16, so most texts need not be counted.
    if text.len() > length {
        let units = |c: char| if types::is_national(to) { c.len_utf16() } else { 1 };
        let mut room = length;
        let cut = text.char_indices().find(|(_, c)| {
            let fits = units(*c) <= room;
            room = room.saturating_sub(units(*c));
            !fits
        });
        if let Some((cut, _)) = cut {
            let blank = text[cut..].chars().all(|c| c == ' ');
            if excess == Excess::Refuse && !blank {
                return Err(fault(TOO_LONG, 16, text[..cut].to_owned()));
            }
            text.truncate(cut);
        }
    }
    if matches!(to, SqlType::Char(_) | SqlType::NChar(_)) {
        let missing = length.saturating_sub(text.chars().count());
        text.extend(std::iter::repeat_n(' ', missing));
    }
    Ok(text)
}

pub(super) fn fit_bytes(mut bytes: Vec<u8>, to: SqlType, excess: Excess) -> Result<Vec<u8>> {
    let Some(length) = types::length(to).map(usize::from).filter(|_| !types::is_max(to)) else { return Ok(bytes) };
    if bytes.len() > length {
        if excess == Excess::Refuse {
            return Err(fault(TOO_LONG, 16, hex(&bytes[..length])));
        }
        bytes.truncate(length);
    }
    if matches!(to, SqlType::Binary(_)) {
        bytes.resize(length, 0);
    }
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 == 1 || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()).collect()
}

pub(super) fn to_text(value: Value, from: SqlType, to: SqlType, style: i64) -> Result<String> {
    Ok(match value {
        Value::Text(text) => text,
        Value::Bit(bit) => u8::from(bit).to_string(),
        Value::Int(number) => {
            let text = number.to_string();
            if types::length(to).is_some_and(|length| text.len() > usize::from(length)) && !types::is_max(to) {
                return Ok("*".to_owned());
            }
            text
        }
        Value::Decimal(unscaled, scale) if from == SqlType::Money => {
            decimal_text(rescale(unscaled, scale, 2).unwrap_or(unscaled), 2)
        }
        Value::Decimal(unscaled, scale) => decimal_text(unscaled, scale),
        Value::Float(number) => float_text(number, style),
        Value::Guid(guid) => guid.hyphenated().to_string().to_uppercase(),
        Value::Date(date) => match style {
            101 | 103 | 104 | 112 => time_text(date.and_time(NaiveTime::MIN), 0, style, false),
            _ => date.format("%Y-%m-%d").to_string(),
        },
        Value::Time(time) => {
            let scale = if let SqlType::Time(scale) = from { scale } else { 7 };
            format!(
                "{:02}:{:02}:{:02}{}",
                time.hour(),
                time.minute(),
                time.second(),
                fraction(repr::time_ticks(time), scale)
            )
        }
        Value::DateTime(time) => match from {
            SqlType::DateTime2(scale) => time_text(time, scale, style, false),
            SqlType::SmallDateTime => time_text(time, 0, style, true),
            _ => time_text(time, 3, style, true),
        },
        Value::DateTimeOffset(utc, offset) => {
            let scale = if let SqlType::DateTimeOffset(scale) = from { scale } else { 7 };
            if style == 127 {
                return Ok(time_text(utc, scale, 127, false));
            }
            let local = utc + Duration::minutes(i64::from(offset));
            let sign = if offset < 0 { '-' } else { '+' };
            let minutes = offset.unsigned_abs();
            let gap = if style == 126 { "" } else { " " };
            format!("{}{gap}{sign}{:02}:{:02}", time_text(local, scale, style, false), minutes / 60, minutes % 60)
        }
        Value::Bytes(bytes) => match style {
            1 => format!("0x{}", hex(&bytes)),
            2 => hex(&bytes),
            _ if types::is_national(to) => {
                let units: Vec<u16> = bytes
                    .chunks(2)
                    .map(|pair| u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
                    .collect();
                String::from_utf16_lossy(&units)
            }
            _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
        },
        Value::Null => String::new(),
    })
}

/// `float` as text: six digits by default, sixteen with style 1, seventeen with style 3.
pub(super) fn float_text(number: f64, style: i64) -> String {
    let scientific = |digits: usize| {
        let text = format!("{number:.*e}", digits - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:03}", exponent.abs())
    };
    match style {
        1 => scientific(8),
        2 => scientific(16),
        3 => scientific(17),
        _ if number == 0.0 => "0".to_owned(),
        _ => {
            let exponent = number.abs().log10().floor() as i32;
            if (-5..6).contains(&exponent) {
                let decimals = usize::try_from(5 - exponent).unwrap_or(0);
                let text = format!("{number:.decimals$}");
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
            } else {
                let text = scientific(6);
                match text.split_once('e') {
                    Some((mantissa, rest)) => {
                        format!("{}e{rest}", mantissa.trim_end_matches('0').trim_end_matches('.'))
                    }
                    None => text,
                }
            }
        }
    }
}

pub(super) fn to_bytes(value: Value, from: SqlType, to: SqlType, style: i64) -> Result<Vec<u8>> {
    Ok(match value {
        Value::Bytes(bytes) => bytes,
        Value::Text(text) if style == 1 || style == 2 => {
            let digits =
                if style == 1 { text.strip_prefix("0x").or(text.strip_prefix("0X")) } else { Some(text.as_str()) };
            match digits.and_then(unhex) {
                Some(bytes) => bytes,
                None => {
                    return Err(fault(
                        8114,
                        16,
                        format!("Error converting data type {} to varbinary.", types::name(from)),
                    ));
                }
            }
        }
        Value::Text(text) if types::is_national(from) => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Value::Text(text) => text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect(),
        Value::Int(number) => {
            let width = match from {
                SqlType::TinyInt => 1,
                SqlType::SmallInt => 2,
                SqlType::BigInt => 8,
                _ => 4,
            };
            let bytes = number.to_be_bytes();
            left_fit(&bytes[8 - width..], to)
        }
        Value::Bit(bit) => left_fit(&[u8::from(bit)], to),
        Value::Guid(guid) => guid.to_bytes_le().to_vec(),
        _ => return Err(clash(from, to)),
    })
}

/// Numbers keep their low bytes: padded and cut on the left.
pub(super) fn left_fit(bytes: &[u8], to: SqlType) -> Vec<u8> {
    let length = types::length(to).map_or(bytes.len(), usize::from);
    if types::is_max(to) {
        return bytes.to_vec();
    }
    if bytes.len() >= length {
        return bytes[bytes.len() - length..].to_vec();
    }
    if matches!(to, SqlType::Binary(_)) {
        let mut padded = vec![0; length - bytes.len()];
        padded.extend(bytes);
        return padded;
    }
    bytes.to_vec()
}
