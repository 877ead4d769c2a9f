//! Dates and times, and GUIDs.

use super::super::errors::{Result, fault};
use super::super::repr::{self, TICKS_PER_DAY};
use super::super::types;
use super::clash;
use super::numbers::base_1900;
use crate::value::{SqlType, Value};
use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use uuid::Uuid;

pub(super) fn to_guid(value: Value, from: SqlType) -> Result<Value> {
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
pub(super) fn round_ticks(ticks: i64, scale: u8) -> i64 {
    let unit = 10_i64.pow(u32::from(7 - scale.min(7)));
    (ticks + unit / 2).div_euclid(unit) * unit
}

/// `datetime` counts in 1/300 s, which shows as .000, .003 and .007.
pub(super) fn round_datetime(ticks: i64) -> i64 {
    let second = ticks.div_euclid(repr::TICKS_PER_SECOND);
    let rest = ticks.rem_euclid(repr::TICKS_PER_SECOND);
    let thirds = (rest * 300 + repr::TICKS_PER_SECOND / 2) / repr::TICKS_PER_SECOND;
    let milliseconds = (thirds * 10 + 1) / 3;
    second * repr::TICKS_PER_SECOND + milliseconds * 10_000
}

pub(super) fn to_time(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
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
pub(super) fn parse_time(text: &str) -> Option<(NaiveDateTime, Option<i16>)> {
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

pub(super) fn fraction(ticks: i64, scale: u8) -> String {
    if scale == 0 {
        return String::new();
    }
    let digits = format!("{:07}", ticks.rem_euclid(repr::TICKS_PER_SECOND));
    format!(".{}", &digits[..usize::from(scale.min(7))])
}

pub(super) const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

pub(super) fn time_text(time: NaiveDateTime, scale: u8, style: i64, old: bool) -> String {
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
