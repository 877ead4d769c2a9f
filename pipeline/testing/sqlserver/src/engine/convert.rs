//! Conversions between types: CAST, CONVERT with styles, and what assignment does.

use super::errors::{Result, fault};
use super::repr::{self, TICKS_PER_DAY};
use super::types;
use crate::value::{SqlType, Value};
use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use uuid::Uuid;

/// What happens to text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// CAST and variables cut it.
    Cut,
    /// A column refuses it; the caller knows the column's name.
    Refuse,
}

fn overflow(to: SqlType) -> Box<super::errors::Fault> {
    fault(8115, 16, format!("Arithmetic overflow error converting expression to data type {}.", types::name(to)))
}

fn clash(from: SqlType, to: SqlType) -> Box<super::errors::Fault> {
    fault(
        529,
        16,
        format!("Explicit conversion from data type {} to {} is not allowed.", types::name(from), types::name(to)),
    )
}

/// Converts a value.
pub(crate) fn convert(value: Value, from: SqlType, to: SqlType, style: i64, excess: Excess) -> Result<Value> {
    if value == Value::Null {
        return Ok(Value::Null);
    }
    if from == to && !types::is_text(to) && !types::is_binary(to) {
        return Ok(value);
    }
    match to {
        SqlType::Bit => to_bit(value, from),
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => to_integer(value, from, to),
        SqlType::Float | SqlType::Real => to_float(value, from, to),
        SqlType::Decimal(..) | SqlType::Money => to_decimal(value, from, to),
        SqlType::UniqueIdentifier => to_guid(value, from),
        SqlType::Date
        | SqlType::Time(_)
        | SqlType::DateTime
        | SqlType::SmallDateTime
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_) => to_time(value, from, to),
        SqlType::Char(_) | SqlType::VarChar(_) | SqlType::NChar(_) | SqlType::NVarChar(_) => {
            let text = to_text(value, from, to, style)?;
            fit_text(text, to, excess).map(Value::Text)
        }
        SqlType::Binary(_) | SqlType::VarBinary(_) => {
            let bytes = to_bytes(value, from, to, style)?;
            fit_bytes(bytes, to, excess).map(Value::Bytes)
        }
    }
}

/// Text that is too long, before it is known for which column.
pub(crate) const TOO_LONG: i32 = 2628;

fn fit_text(mut text: String, to: SqlType, excess: Excess) -> Result<String> {
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

fn fit_bytes(mut bytes: Vec<u8>, to: SqlType, excess: Excess) -> Result<Vec<u8>> {
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

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 == 1 || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()).collect()
}

fn to_bit(value: Value, from: SqlType) -> Result<Value> {
    Ok(Value::Bit(match value {
        Value::Bit(bit) => bit,
        Value::Int(number) => number != 0,
        Value::Float(number) => number != 0.0,
        Value::Decimal(unscaled, _) => unscaled != 0,
        Value::Text(text) => match text.trim() {
            word if word.eq_ignore_ascii_case("true") => true,
            word if word.eq_ignore_ascii_case("false") || word.is_empty() => false,
            number => match number.parse::<i64>() {
                Ok(number) => number != 0,
                Err(_) => return Err(not_converted(from, &text, SqlType::Bit)),
            },
        },
        Value::Bytes(bytes) => bytes.iter().any(|byte| *byte != 0),
        _ => return Err(clash(from, SqlType::Bit)),
    }))
}

fn not_converted(from: SqlType, text: &str, to: SqlType) -> Box<super::errors::Fault> {
    match to {
        SqlType::Bit | SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => fault(
            245,
            16,
            format!(
                "Conversion failed when converting the {} value '{text}' to data type {}.",
                types::name(from),
                types::name(to)
            ),
        ),
        _ => {
            let to = if matches!(to, SqlType::Decimal(..)) { "numeric" } else { types::name(to) };
            fault(8114, 16, format!("Error converting data type {} to {to}.", types::name(from)))
                .reaching(super::errors::Reach::Transaction)
        }
    }
}

fn in_range(number: i128, to: SqlType) -> Result<Value> {
    let (low, high) = match to {
        SqlType::TinyInt => (0, 255),
        SqlType::SmallInt => (i128::from(i16::MIN), i128::from(i16::MAX)),
        SqlType::Int => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    if !(low..=high).contains(&number) {
        return Err(match to {
            SqlType::TinyInt | SqlType::SmallInt => fault(
                220,
                16,
                format!("Arithmetic overflow error for data type {}, value = {number}.", types::name(to)),
            ),
            _ => overflow(to),
        });
    }
    Ok(Value::Int(i64::try_from(number).unwrap_or_default()))
}

fn to_integer(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
    let number = match value {
        Value::Bit(bit) => i128::from(bit),
        Value::Int(number) => i128::from(number),
        Value::Float(number) if number.is_finite() && number.abs() < 1e37 => number.trunc() as i128,
        Value::Float(_) => return Err(overflow(to)),
        Value::Decimal(unscaled, scale) => unscaled / power(scale),
        Value::Text(text) => {
            let trimmed = text.trim();
            match trimmed.strip_prefix('+').unwrap_or(trimmed).parse::<i128>() {
                Ok(number) => {
                    return in_range(number, to).map_err(|error| match to {
                        SqlType::Int => fault(
                            248,
                            16,
                            format!(
                                "The conversion of the {} value '{text}' overflowed an int column.",
                                types::name(from)
                            ),
                        ),
                        _ => error,
                    });
                }
                Err(_) if trimmed.is_empty() => 0,
                Err(_) => return Err(not_converted(from, &text, to)),
            }
        }
        Value::Bytes(bytes) => {
            let width = match to {
                SqlType::TinyInt => 1,
                SqlType::SmallInt => 2,
                SqlType::Int => 4,
                _ => 8,
            };
            let tail = &bytes[bytes.len().saturating_sub(width)..];
            let number = tail.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
            match to {
                SqlType::TinyInt => i128::from(number),
                SqlType::SmallInt => i128::from(number as u16 as i16),
                SqlType::Int => i128::from(number as u32 as i32),
                _ => i128::from(number.cast_signed()),
            }
        }
        Value::DateTime(time) if matches!(from, SqlType::DateTime | SqlType::SmallDateTime) => {
            i128::from((repr::ticks(time) - base_1900()).div_euclid(TICKS_PER_DAY))
        }
        _ => return Err(clash(from, to)),
    };
    in_range(number, to)
}

fn base_1900() -> i64 {
    NaiveDate::from_ymd_opt(1900, 1, 1).map_or(0, |date| repr::ticks(date.and_time(NaiveTime::MIN)))
}

fn to_float(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
    let number = match value {
        Value::Bit(bit) => f64::from(u8::from(bit)),
        Value::Int(number) => number as f64,
        Value::Float(number) => number,
        Value::Decimal(unscaled, scale) => decimal_text(unscaled, scale).parse().unwrap_or(0.0),
        Value::Text(text) => match text.trim() {
            "" => 0.0,
            word => match word.parse::<f64>() {
                Ok(number) if number.is_finite() && !word.ends_with(['n', 'N', 'y', 'Y', 'f', 'F']) => number,
                _ => return Err(not_converted(from, &text, to)),
            },
        },
        _ => return Err(clash(from, to)),
    };
    if to == SqlType::Real {
        let single = number as f32;
        if single.is_infinite() && number.is_finite() {
            return Err(overflow(to));
        }
        return Ok(Value::Float(f64::from(single)));
    }
    Ok(Value::Float(number))
}

pub(crate) fn power(scale: u8) -> i128 {
    10_i128.pow(u32::from(scale.min(38)))
}

/// The number with another scale, rounded half away from zero.
pub(crate) fn rescale(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return unscaled.checked_mul(power(to - from));
    }
    let divisor = power(from - to);
    let (quotient, rest) = (unscaled / divisor, unscaled % divisor);
    Some(if rest.unsigned_abs() * 2 >= divisor.unsigned_abs() { quotient + unscaled.signum() } else { quotient })
}

pub(crate) fn decimal_text(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, rest) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

pub(crate) fn parse_decimal(text: &str) -> Option<(i128, u8)> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = rest.split_once('.').unwrap_or((rest, ""));
    if whole.is_empty() && part.is_empty() || !(whole.bytes().chain(part.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = u8::try_from(part.len()).ok()?;
    let digits = format!("{whole}{part}");
    let number: i128 = digits.parse().ok()?;
    Some((sign * number, scale))
}

fn to_decimal(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
    let (precision, scale) = types::decimal(to).unwrap_or((38, 0));
    let name = if matches!(to, SqlType::Money) { "money" } else { "numeric" };
    let too_big =
        || fault(8115, 16, format!("Arithmetic overflow error converting {} to data type {name}.", types::name(from)));
    let unscaled = match value {
        Value::Bit(bit) => rescale(i128::from(bit), 0, scale),
        Value::Int(number) => rescale(i128::from(number), 0, scale),
        Value::Decimal(unscaled, old) => rescale(unscaled, old, scale),
        Value::Float(number) => {
            // Seventeen digits are all that a float holds.
            let text = format!("{number:.*}", usize::from(scale) + 1);
            match parse_decimal(&text) {
                Some((unscaled, old)) => rescale(unscaled, old, scale),
                None => return Err(too_big()),
            }
        }
        Value::Text(text) => match parse_decimal(text.trim()) {
            Some((unscaled, old)) => rescale(unscaled, old, scale),
            None => return Err(not_converted(from, &text, to)),
        },
        _ => return Err(clash(from, to)),
    };
    match unscaled {
        Some(unscaled) if unscaled.unsigned_abs() < power(precision).unsigned_abs() => {
            Ok(Value::Decimal(unscaled, scale))
        }
        _ => Err(too_big()),
    }
}

fn to_guid(value: Value, from: SqlType) -> Result<Value> {
    match value {
        Value::Guid(guid) => Ok(Value::Guid(guid)),
        Value::Text(text) => {
            let trimmed = text.trim_start_matches('{');
            let start: String = trimmed.chars().take(36).collect();
            if start.len() == 36
                && start.as_bytes()[8] == b'-'
                && let Ok(guid) = Uuid::try_parse(&start)
            {
                return Ok(Value::Guid(guid));
            }
            Err(fault(8169, 16, "Conversion failed when converting from a character string to uniqueidentifier.")
                .state(2))
        }
        Value::Bytes(mut bytes) => {
            bytes.resize(16, 0);
            let bytes: [u8; 16] = bytes.try_into().unwrap_or_default();
            Ok(Value::Guid(Uuid::from_bytes_le(bytes)))
        }
        _ => Err(fault(
            206,
            16,
            format!("Operand type clash: {} is incompatible with uniqueidentifier", types::name(from)),
        )
        .state(2)),
    }
}

/// Rounds units of 100 ns to a scale.
fn round_ticks(ticks: i64, scale: u8) -> i64 {
    let unit = 10_i64.pow(u32::from(7 - scale.min(7)));
    (ticks + unit / 2).div_euclid(unit) * unit
}

/// `datetime` counts in 1/300 s, which shows as .000, .003 and .007.
fn round_datetime(ticks: i64) -> i64 {
    let second = ticks.div_euclid(repr::TICKS_PER_SECOND);
    let rest = ticks.rem_euclid(repr::TICKS_PER_SECOND);
    let thirds = (rest * 300 + repr::TICKS_PER_SECOND / 2) / repr::TICKS_PER_SECOND;
    let milliseconds = (thirds * 10 + 1) / 3;
    second * repr::TICKS_PER_SECOND + milliseconds * 10_000
}

fn to_time(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
    let (ticks, offset) = match value {
        Value::Date(date) => (repr::ticks(date.and_time(NaiveTime::MIN)), None),
        Value::Time(time) => (base_1900() + repr::time_ticks(time), None),
        Value::DateTime(time) => (repr::ticks(time), None),
        Value::DateTimeOffset(utc, offset) => (repr::ticks(utc) + i64::from(offset) * 600_000_000, Some(offset)),
        Value::Text(text) => {
            let parsed = parse_time(text.trim());
            match parsed {
                Some((local, offset)) => (repr::ticks(local), offset),
                None => {
                    return Err(fault(
                        241,
                        16,
                        "Conversion failed when converting date and/or time from character string.",
                    ));
                }
            }
        }
        Value::Int(number) if matches!(to, SqlType::DateTime | SqlType::SmallDateTime) => {
            (base_1900() + number * TICKS_PER_DAY, None)
        }
        Value::Int(_) | Value::Float(_) | Value::Decimal(..) | Value::Bit(_) => {
            return Err(fault(
                206,
                16,
                format!("Operand type clash: {} is incompatible with {}", types::name(from), types::name(to)),
            ));
        }
        _ => return Err(clash(from, to)),
    };
    let day = ticks.div_euclid(TICKS_PER_DAY) * TICKS_PER_DAY;
    Ok(match to {
        SqlType::Date => Value::Date(repr::from_ticks(day).date()),
        SqlType::Time(scale) => Value::Time(repr::time_from_ticks(round_ticks(ticks - day, scale))),
        SqlType::DateTime => Value::DateTime(repr::from_ticks(round_datetime(ticks))),
        SqlType::SmallDateTime => {
            let minute = 60 * repr::TICKS_PER_SECOND;
            Value::DateTime(repr::from_ticks((ticks + minute / 2).div_euclid(minute) * minute))
        }
        SqlType::DateTime2(scale) => Value::DateTime(repr::from_ticks(round_ticks(ticks, scale))),
        SqlType::DateTimeOffset(scale) => {
            let offset = offset.unwrap_or(0);
            Value::DateTimeOffset(repr::from_ticks(round_ticks(ticks, scale) - i64::from(offset) * 600_000_000), offset)
        }
        _ => return Err(clash(from, to)),
    })
}

/// Reads the formats that do not depend on a language: `2025-11-12`, `20251112`, with `T` or blank and a time, a fraction
/// of up to seven digits, and `Z` or an offset.
fn parse_time(text: &str) -> Option<(NaiveDateTime, Option<i16>)> {
    let (date, rest) = match text.as_bytes() {
        [a, b, c, d, b'-' | b'/', ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) => {
            let date = text.get(..10)?;
            let mut parts = date.split(['-', '/']);
            let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
            (NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?, text.get(10..)?)
        }
        bytes if bytes.len() >= 8 && bytes[..8].iter().all(u8::is_ascii_digit) => {
            let date =
                NaiveDate::from_ymd_opt(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..8].parse().ok()?)?;
            (date, &text[8..])
        }
        [] => return Some((NaiveDate::from_ymd_opt(1900, 1, 1)?.and_time(NaiveTime::MIN), None)),
        _ => (NaiveDate::from_ymd_opt(1900, 1, 1)?, text),
    };
    let mut rest = rest.trim_start_matches(['T', ' ']).trim_end();
    if rest.is_empty() {
        return Some((date.and_time(NaiveTime::MIN), None));
    }
    let mut offset = None;
    if let Some(front) = rest.strip_suffix(['Z', 'z']) {
        (rest, offset) = (front, Some(0));
    } else if let Some(at) = rest.rfind(['+', '-']) {
        let (hours, minutes) = rest[at + 1..].split_once(':')?;
        let minutes = hours.parse::<i16>().ok()? * 60 + minutes.parse::<i16>().ok()?;
        offset = Some(if rest.as_bytes()[at] == b'-' { -minutes } else { minutes });
        rest = rest[..at].trim_end();
    }
    let mut parts = rest.split(':');
    let hour = parts.next()?.parse::<u32>().ok()?;
    let minute = parts.next()?.parse::<u32>().ok()?;
    let seconds = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse::<u32>().ok()?;
    let time = NaiveTime::from_hms_nano_opt(hour, minute, second.parse().ok()?, nanos)?;
    Some((date.and_time(time), offset))
}

fn fraction(ticks: i64, scale: u8) -> String {
    if scale == 0 {
        return String::new();
    }
    let digits = format!("{:07}", ticks.rem_euclid(repr::TICKS_PER_SECOND));
    format!(".{}", &digits[..usize::from(scale.min(7))])
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn time_text(time: NaiveDateTime, scale: u8, style: i64, old: bool) -> String {
    let ticks = repr::ticks(time);
    let clock =
        |scale| format!("{:02}:{:02}:{:02}{}", time.hour(), time.minute(), time.second(), fraction(ticks, scale));
    let (year, month, day) = (time.year(), time.month(), time.day());
    let date = format!("{year:04}-{month:02}-{day:02}");
    match style {
        // `datetime` speaks as it did in 1989.
        0 | 100 if old => {
            let (afternoon, hour) = time.hour12();
            let half = if afternoon { "PM" } else { "AM" };
            format!("{} {day:>2} {year} {hour:>2}:{:02}{half}", MONTHS[month as usize - 1], time.minute())
        }
        23 => date,
        101 => format!("{month:02}/{day:02}/{year:04}"),
        103 => format!("{day:02}/{month:02}/{year:04}"),
        104 => format!("{day:02}.{month:02}.{year:04}"),
        108 | 8 => clock(0),
        112 => format!("{year:04}{month:02}{day:02}"),
        114 => format!("{}:{}", clock(0), &fraction(ticks, 3)[1..]),
        20 | 120 => format!("{date} {}", clock(0)),
        126 => format!("{date}T{}", clock(scale)),
        127 => format!("{date}T{}Z", clock(scale)),
        _ => format!("{date} {}", clock(scale)),
    }
}

fn to_text(value: Value, from: SqlType, to: SqlType, style: i64) -> Result<String> {
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
fn float_text(number: f64, style: i64) -> String {
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

fn to_bytes(value: Value, from: SqlType, to: SqlType, style: i64) -> Result<Vec<u8>> {
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
fn left_fit(bytes: &[u8], to: SqlType) -> Vec<u8> {
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
