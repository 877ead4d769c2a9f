//! Values from the server to the client (MS-TDS 2.2.5.5).

use super::text;
use super::types::{decimal_bytes, time_bytes};
use crate::value::{SqlType, Value};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime, Timelike};

/// A value that is not of its column's type: a fault of whoever made the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch;

const NANOS: u64 = 1_000_000_000;
const DAY_TICKS: u64 = 24 * 60 * 60 * 300;

/// Writes a value of a column of this type, which [`super::types::write`] has declared with the same `nullable`.
///
/// # Errors
/// The value is not one of this type, or is NULL where there is none.
pub fn write(out: &mut Vec<u8>, sql_type: SqlType, nullable: bool, value: &Value) -> Result<(), Mismatch> {
    if matches!(value, Value::Null) {
        return null(out, sql_type, nullable);
    }
    match sql_type {
        SqlType::Bit => fixed(out, nullable, &[u8::from(integer(value)? != 0)]),
        SqlType::TinyInt => fixed(out, nullable, &u8::try_from(integer(value)?).or(Err(Mismatch))?.to_le_bytes()),
        SqlType::SmallInt => fixed(out, nullable, &i16::try_from(integer(value)?).or(Err(Mismatch))?.to_le_bytes()),
        SqlType::Int => fixed(out, nullable, &i32::try_from(integer(value)?).or(Err(Mismatch))?.to_le_bytes()),
        SqlType::BigInt => fixed(out, nullable, &integer(value)?.to_le_bytes()),
        SqlType::Real => fixed(out, nullable, &(float(value)? as f32).to_le_bytes()),
        SqlType::Float => fixed(out, nullable, &float(value)?.to_le_bytes()),
        SqlType::Money => {
            let units = i64::try_from(scaled(value, 4)?).or(Err(Mismatch))?;
            let (high, low) = ((units >> 32) as i32, units as u32);
            fixed(out, nullable, &[high.to_le_bytes(), low.to_le_bytes()].concat());
        }
        SqlType::Decimal(precision, scale) => decimal(out, precision, scaled(value, scale)?)?,
        SqlType::UniqueIdentifier => match value {
            Value::Guid(guid) => fixed(out, true, &guid.to_bytes_le()),
            _ => return Err(Mismatch),
        },
        SqlType::Date => fixed(out, true, &days(date(value)?)?),
        SqlType::Time(scale) => fixed(out, true, &time(time_of(value)?, scale)),
        SqlType::DateTime2(scale) => {
            let moment = moment(value)?;
            fixed(out, true, &[&time(moment.time(), scale)[..], &days(moment.date())?].concat());
        }
        SqlType::DateTimeOffset(scale) => {
            let (utc, minutes) = match value {
                Value::DateTimeOffset(utc, minutes) => (*utc, *minutes),
                other => (moment(other)?, 0),
            };
            let parts = [&time(utc.time(), scale)[..], &days(utc.date())?, &minutes.to_le_bytes()];
            fixed(out, true, &parts.concat());
        }
        SqlType::DateTime => fixed(out, nullable, &datetime(moment(value)?)?),
        SqlType::SmallDateTime => fixed(out, nullable, &small_datetime(moment(value)?)?),
        SqlType::Char(_) | SqlType::VarChar(Some(_)) => long(out, &text::encode(characters(value)?))?,
        SqlType::VarChar(None) => chunks(out, &text::encode(characters(value)?)),
        SqlType::NChar(_) | SqlType::NVarChar(Some(_)) => long_utf16(out, characters(value)?)?,
        SqlType::NVarChar(None) => chunks(out, &utf16(characters(value)?)),
        SqlType::Binary(_) | SqlType::VarBinary(Some(_)) => long(out, bytes(value)?)?,
        SqlType::VarBinary(None) => chunks(out, bytes(value)?),
    }
    Ok(())
}

/// UTF-16, the low byte first.
pub fn utf16(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    push_utf16(&mut out, text);
    out
}

fn push_utf16(out: &mut Vec<u8>, text: &str) {
    for unit in text.encode_utf16() {
        out.extend_from_slice(&unit.to_le_bytes());
    }
}

fn null(out: &mut Vec<u8>, sql_type: SqlType, nullable: bool) -> Result<(), Mismatch> {
    match sql_type {
        SqlType::VarChar(None) | SqlType::NVarChar(None) | SqlType::VarBinary(None) => {
            out.extend_from_slice(&u64::MAX.to_le_bytes());
        }
        SqlType::Char(_)
        | SqlType::VarChar(_)
        | SqlType::NChar(_)
        | SqlType::NVarChar(_)
        | SqlType::Binary(_)
        | SqlType::VarBinary(_) => out.extend_from_slice(&u16::MAX.to_le_bytes()),
        SqlType::Decimal(..)
        | SqlType::UniqueIdentifier
        | SqlType::Date
        | SqlType::Time(_)
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_) => out.push(0),
        _ if nullable => out.push(0),
        _ => return Err(Mismatch),
    }
    Ok(())
}

/// A value of few bytes: its length before it, unless its type has a fixed one.
fn fixed(out: &mut Vec<u8>, length: bool, bytes: &[u8]) {
    if length {
        out.push(bytes.len() as u8);
    }
    out.extend_from_slice(bytes);
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Mismatch> {
    let length = u16::try_from(bytes.len()).or(Err(Mismatch))?;
    if length == u16::MAX {
        return Err(Mismatch);
    }
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Like [`long`], without a copy on the way: most of what a row has is such text.
fn long_utf16(out: &mut Vec<u8>, text: &str) -> Result<(), Mismatch> {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    push_utf16(out, text);
    let length = u16::try_from(out.len() - start - 2).or(Err(Mismatch))?;
    if length == u16::MAX {
        return Err(Mismatch);
    }
    out[start..start + 2].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn chunks(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    if !bytes.is_empty() {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
}

fn integer(value: &Value) -> Result<i64, Mismatch> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::Bit(bit) => Ok(i64::from(*bit)),
        _ => Err(Mismatch),
    }
}

fn float(value: &Value) -> Result<f64, Mismatch> {
    match value {
        Value::Float(number) => Ok(*number),
        Value::Int(number) => Ok(*number as f64),
        _ => Err(Mismatch),
    }
}

/// The unscaled number at this scale.
fn scaled(value: &Value, scale: u8) -> Result<i128, Mismatch> {
    let (number, has) = match value {
        Value::Decimal(number, has) => (*number, *has),
        Value::Int(number) => (i128::from(*number), 0),
        _ => return Err(Mismatch),
    };
    if has <= scale {
        let factor = 10_i128.checked_pow(u32::from(scale - has)).ok_or(Mismatch)?;
        return number.checked_mul(factor).ok_or(Mismatch);
    }
    let factor = 10_i128.checked_pow(u32::from(has - scale)).ok_or(Mismatch)?;
    // Half away from zero, as SQL Server rounds.
    let (whole, rest) = (number / factor, number % factor);
    Ok(if rest.abs() >= factor - rest.abs() { whole + number.signum() } else { whole })
}

fn decimal(out: &mut Vec<u8>, precision: u8, number: i128) -> Result<(), Mismatch> {
    let length = decimal_bytes(precision);
    let magnitude = number.unsigned_abs().to_le_bytes();
    let (kept, cut) = magnitude.split_at(usize::from(length - 1));
    if cut.iter().any(|byte| *byte != 0) {
        return Err(Mismatch);
    }
    out.extend_from_slice(&[length, u8::from(number >= 0)]);
    out.extend_from_slice(kept);
    Ok(())
}

fn characters(value: &Value) -> Result<&str, Mismatch> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(Mismatch),
    }
}

fn bytes(value: &Value) -> Result<&[u8], Mismatch> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(Mismatch),
    }
}

fn date(value: &Value) -> Result<NaiveDate, Mismatch> {
    match value {
        Value::Date(date) => Ok(*date),
        Value::DateTime(moment) => Ok(moment.date()),
        _ => Err(Mismatch),
    }
}

fn time_of(value: &Value) -> Result<NaiveTime, Mismatch> {
    match value {
        Value::Time(time) => Ok(*time),
        Value::DateTime(moment) => Ok(moment.time()),
        _ => Err(Mismatch),
    }
}

fn moment(value: &Value) -> Result<NaiveDateTime, Mismatch> {
    match value {
        Value::DateTime(moment) => Ok(*moment),
        Value::Date(date) => Ok(date.and_time(NaiveTime::MIN)),
        _ => Err(Mismatch),
    }
}

/// Days since the first of January of the year 1.
fn days(date: NaiveDate) -> Result<[u8; 3], Mismatch> {
    use chrono::Datelike;
    match u32::try_from(date.num_days_from_ce() - 1) {
        Ok(days @ 0..=3_652_058) => Ok([days as u8, (days >> 8) as u8, (days >> 16) as u8]),
        _ => Err(Mismatch),
    }
}

fn nanos(time: NaiveTime) -> u64 {
    u64::from(time.num_seconds_from_midnight()) * NANOS + u64::from(time.nanosecond()).min(NANOS - 1)
}

fn time(time: NaiveTime, scale: u8) -> Vec<u8> {
    let units = nanos(time) / 10_u64.pow(u32::from(9 - scale.min(7)));
    units.to_le_bytes()[..usize::from(time_bytes(scale))].to_vec()
}

/// Days since 1900 and three-hundredths of a second.
fn datetime(moment: NaiveDateTime) -> Result<[u8; 8], Mismatch> {
    let mut day = since_1900(moment.date())?;
    let mut ticks = (nanos(moment.time()) * 3 + 5_000_000) / 10_000_000;
    if ticks >= DAY_TICKS {
        (day, ticks) = (day + 1, 0);
    }
    let mut out = [0; 8];
    out[..4].copy_from_slice(&day.to_le_bytes());
    out[4..].copy_from_slice(&(ticks as u32).to_le_bytes());
    Ok(out)
}

/// Days since 1900 and minutes.
fn small_datetime(moment: NaiveDateTime) -> Result<[u8; 4], Mismatch> {
    let day = u16::try_from(since_1900(moment.date())?).or(Err(Mismatch))?;
    let minute = (moment.time().num_seconds_from_midnight() / 60) as u16;
    let [a, b] = day.to_le_bytes();
    let [c, d] = minute.to_le_bytes();
    Ok([a, b, c, d])
}

fn since_1900(date: NaiveDate) -> Result<i32, Mismatch> {
    let start = NaiveDate::from_ymd_opt(1900, 1, 1).ok_or(Mismatch)?;
    i32::try_from((date - start).num_days()).or(Err(Mismatch))
}
