//! Values as documents spell them.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use smartpulse_pipeline::error::Result;
use std::fmt::Write as _;
use tiberius::ColumnData;
use tiberius::time::Time;
use uuid::Uuid;

/// Days from 0001-01-01, where `date` begins, to 1900-01-01, where `datetime` does.
const DAYS_TO_1900: i64 = 693_595;

fn date(days: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(days + 1).ok()?)
}

fn clock(time: Time) -> Option<NaiveTime> {
    let unit = 10_u64.checked_pow(9_u32.checked_sub(u32::from(time.scale()))?)?;
    let nanos = time.increments().checked_mul(unit)?;
    NaiveTime::from_num_seconds_from_midnight_opt(
        u32::try_from(nanos / 1_000_000_000).ok()?,
        u32::try_from(nanos % 1_000_000_000).ok()?,
    )
}

/// A value that is a point in time, in UTC.
pub(super) fn date_time(value: &ColumnData<'static>) -> Option<NaiveDateTime> {
    match value {
        ColumnData::DateTime2(Some(t)) => Some(date(i64::from(t.date().days()))?.and_time(clock(t.time())?)),
        // The wire has the time in UTC, and beside it the offset.
        ColumnData::DateTimeOffset(Some(t)) => {
            let t = t.datetime2();
            Some(date(i64::from(t.date().days()))?.and_time(clock(t.time())?))
        }
        ColumnData::DateTime(Some(t)) => {
            // Units of 1/300 s, which the server shows rounded to milliseconds.
            let millis = (i64::from(t.seconds_fragments()) * 10 + 1) / 3;
            let midnight = date(i64::from(t.days()) + DAYS_TO_1900)?.and_time(NaiveTime::MIN);
            midnight.checked_add_signed(chrono::TimeDelta::milliseconds(millis))
        }
        // The second number is minutes, whatever `tiberius` calls it.
        ColumnData::SmallDateTime(Some(t)) => {
            let midnight = date(i64::from(t.days()) + DAYS_TO_1900)?.and_time(NaiveTime::MIN);
            midnight.checked_add_signed(chrono::TimeDelta::minutes(i64::from(t.seconds_fragments())))
        }
        _ => None,
    }
}

/// A double, from any type of number that has one.
pub(super) fn number(value: &ColumnData<'static>) -> Option<f64> {
    match value {
        ColumnData::F64(number) => *number,
        ColumnData::F32(number) => number.map(f64::from),
        ColumnData::I64(number) => number.map(|n| n as f64),
        ColumnData::I32(number) => number.map(f64::from),
        ColumnData::Numeric(number) => number.map(f64::from),
        _ => None,
    }
}

pub(super) fn write_json<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("writing a scalar to memory cannot fail");
}

pub(super) fn prefix(place: usize, member: &str) -> Box<[u8]> {
    let mut text = if place == 0 { Vec::new() } else { vec![b','] };
    write_json(&mut text, member);
    text.push(b':');
    text.into()
}

pub(super) fn write_value(json: &mut Vec<u8>, value: &ColumnData<'static>) -> Result<(), &'static str> {
    const NO_TIME: &str = "is a time beyond what can be told";
    match value {
        ColumnData::Guid(Some(id)) => {
            let mut buffer = Uuid::encode_buffer();
            json.push(b'"');
            json.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
            json.push(b'"');
        }
        ColumnData::F64(Some(number)) if !number.is_finite() => return Err("is not a finite number"),
        ColumnData::F32(Some(number)) if !number.is_finite() => return Err("is not a finite number"),
        ColumnData::F64(Some(number)) => write_json(json, number),
        ColumnData::F32(Some(number)) => write_json(json, number),
        ColumnData::I64(Some(number)) => write_json(json, number),
        ColumnData::I32(Some(number)) => write_json(json, number),
        ColumnData::I16(Some(number)) => write_json(json, number),
        ColumnData::U8(Some(number)) => write_json(json, number),
        ColumnData::Bit(Some(bit)) => write_json(json, bit),
        ColumnData::String(Some(text)) => write_json(json, text.as_ref()),
        ColumnData::Xml(Some(xml)) => write_json(json, &xml.to_string()),
        ColumnData::Numeric(Some(number)) => write_decimal(json, number.value(), number.scale()),
        ColumnData::Binary(Some(bytes)) => {
            json.extend_from_slice(b"\"0x");
            for byte in bytes.iter() {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0') as u8;
                json.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            }
            json.push(b'"');
        }
        ColumnData::Date(Some(day)) => {
            write_json(json, &date(i64::from(day.days())).ok_or(NO_TIME)?.to_string());
        }
        ColumnData::Time(Some(time)) => {
            // With the digits that the column has.
            let scale = usize::from(time.scale().min(7));
            let time = clock(*time).ok_or(NO_TIME)?;
            let mut text = time.format("%H:%M:%S").to_string();
            if scale > 0 {
                let digits = format!("{:09}", time.nanosecond());
                let _ = write!(text, ".{}", digits.get(..scale).unwrap_or_default());
            }
            write_json(json, &text);
        }
        ColumnData::DateTime2(Some(_))
        | ColumnData::DateTimeOffset(Some(_))
        | ColumnData::DateTime(Some(_))
        | ColumnData::SmallDateTime(Some(_)) => write_time(json, date_time(value).ok_or(NO_TIME)?),
        _ => json.extend_from_slice(b"null"),
    }
    Ok(())
}

/// `"2016-02-29T23:59:59.999Z"`, digit by digit: rows have several of them, and formatting machinery costs more than the
/// rest of the row.
fn write_time(json: &mut Vec<u8>, time: NaiveDateTime) {
    fn digits(json: &mut Vec<u8>, number: u32, count: u32) {
        for place in (0..count).rev() {
            json.push(b'0' + u8::try_from(number / 10_u32.pow(place) % 10).unwrap_or(0));
        }
    }
    json.push(b'"');
    digits(json, u32::try_from(time.year()).unwrap_or(0), 4);
    for (before, number, count) in [
        (b'-', time.month(), 2),
        (b'-', time.day(), 2),
        (b'T', time.hour(), 2),
        (b':', time.minute(), 2),
        (b':', time.second(), 2),
        (b'.', time.nanosecond() / 1_000_000 % 1_000, 3),
    ] {
        json.push(before);
        digits(json, number, count);
    }
    json.extend_from_slice(b"Z\"");
}

/// All digits, as the column has them: `12.50` of a `decimal(9,2)`.
fn write_decimal(json: &mut Vec<u8>, value: i128, scale: u8) {
    let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    if value < 0 {
        json.push(b'-');
    }
    json.extend_from_slice(whole.as_bytes());
    if !fraction.is_empty() {
        json.push(b'.');
        json.extend_from_slice(fraction.as_bytes());
    }
}
