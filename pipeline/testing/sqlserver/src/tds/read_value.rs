//! Values from the client to the server.

use super::read::{Cursor, Malformed, Read, from_utf16};
use super::text;
use super::types::{Layout, WireType, time_bytes};
use crate::value::{SqlType, Value};
use chrono::{Days, NaiveDate, NaiveDateTime, NaiveTime};
use uuid::Uuid;

const DAY_NANOS: u64 = 24 * 60 * 60 * 1_000_000_000;

/// Reads a value of a declared type, as a parameter has it.
///
/// # Errors
/// What cannot be a value of this type.
pub fn read(from: &mut Cursor<'_>, wire: &WireType) -> Read<Value> {
    let bytes = match wire.layout {
        Layout::Nothing => return Ok(Value::Null),
        Layout::Fixed(length) => from.take(length.into())?,
        Layout::Short => match from.u8()? {
            0 => return Ok(Value::Null),
            length => from.take(length.into())?,
        },
        Layout::Long => match from.u16()? {
            u16::MAX => return Ok(Value::Null),
            length => from.take(length.into())?,
        },
        Layout::Old => match from.u32()? {
            u32::MAX => return Ok(Value::Null),
            length => from.take(length as usize)?,
        },
        Layout::Chunks => {
            return match chunks(from)? {
                Some(bytes) => value(&bytes, wire),
                None => Ok(Value::Null),
            };
        }
    };
    value(bytes, wire)
}

/// Reads a value of a bulk load: the types of old have a pointer and a time stamp before them there.
///
/// # Errors
/// What cannot be a value of this type.
pub fn read_bulk(from: &mut Cursor<'_>, wire: &WireType) -> Read<Value> {
    if wire.layout == Layout::Old {
        let pointer = from.u8()?;
        if pointer == 0 {
            return Ok(Value::Null);
        }
        from.take(usize::from(pointer) + 8)?;
    }
    read(from, wire)
}

fn chunks(from: &mut Cursor<'_>) -> Read<Option<Vec<u8>>> {
    const UNKNOWN: u64 = u64::MAX - 1;
    let total = match from.u64()? {
        u64::MAX => return Ok(None),
        UNKNOWN => None,
        total => Some(total),
    };
    let mut bytes = Vec::new();
    loop {
        match from.u32()? {
            0 => break,
            length => bytes.extend_from_slice(from.take(length as usize)?),
        }
    }
    if total.is_some_and(|total| total != bytes.len() as u64) {
        return Err(Malformed::new("A value is not as long as it said it was."));
    }
    Ok(Some(bytes))
}

fn value(bytes: &[u8], wire: &WireType) -> Read<Value> {
    let mut from = Cursor::new(bytes);
    let value = match wire.sql_type {
        SqlType::Bit => Value::Bit(from.u8()? != 0),
        SqlType::TinyInt => Value::Int(from.u8()?.into()),
        SqlType::SmallInt => Value::Int(i16::from_le_bytes(from.array()?).into()),
        SqlType::Int => Value::Int(i32::from_le_bytes(from.array()?).into()),
        SqlType::BigInt => Value::Int(i64::from_le_bytes(from.array()?)),
        SqlType::Real => Value::Float(f32::from_le_bytes(from.array()?).into()),
        SqlType::Float => Value::Float(f64::from_le_bytes(from.array()?)),
        SqlType::Money if bytes.len() == 4 => Value::Decimal(i32::from_le_bytes(from.array()?).into(), 4),
        SqlType::Money => {
            let (high, low) = (i32::from_le_bytes(from.array()?), from.u32()?);
            Value::Decimal(i128::from(high) << 32 | i128::from(low), 4)
        }
        SqlType::Decimal(_, scale) => {
            let positive = from.u8()? != 0;
            let magnitude = from.take(bytes.len().saturating_sub(1).min(16))?;
            let number = magnitude.iter().rev().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
            let number = i128::try_from(number).map_err(|_| out_of_range("decimal"))?;
            Value::Decimal(if positive { number } else { -number }, scale)
        }
        SqlType::UniqueIdentifier => Value::Guid(Uuid::from_bytes_le(from.array()?)),
        SqlType::Date => Value::Date(date(&mut from)?),
        SqlType::Time(scale) => Value::Time(time(&mut from, bytes.len(), scale)?),
        SqlType::DateTime2(scale) => {
            let time = time(&mut from, bytes.len().saturating_sub(3), scale)?;
            Value::DateTime(date(&mut from)?.and_time(time))
        }
        SqlType::DateTimeOffset(scale) => {
            let time = time(&mut from, bytes.len().saturating_sub(5), scale)?;
            let utc = date(&mut from)?.and_time(time);
            match i16::from_le_bytes(from.array()?) {
                minutes @ -840..=840 => Value::DateTimeOffset(utc, minutes),
                _ => return Err(out_of_range("datetimeoffset")),
            }
        }
        SqlType::DateTime => Value::DateTime(datetime(&mut from)?),
        SqlType::SmallDateTime => {
            let (day, minute) = (from.u16()?, from.u16()?);
            Value::DateTime(since_1900(day.into(), u64::from(minute) * 60_000_000_000)?)
        }
        SqlType::Char(_) | SqlType::VarChar(_) => return Ok(Value::Text(text::decode(bytes))),
        SqlType::NChar(_) | SqlType::NVarChar(_) => {
            if !bytes.len().is_multiple_of(2) {
                return Err(Malformed::new("A text of half a character."));
            }
            return Ok(Value::Text(from_utf16(bytes)));
        }
        SqlType::Binary(_) | SqlType::VarBinary(_) => return Ok(Value::Bytes(bytes.to_vec())),
    };
    if from.is_empty() { Ok(value) } else { Err(Malformed::new("A value is longer than its type.")) }
}

fn date(from: &mut Cursor<'_>) -> Read<NaiveDate> {
    let days = from.uint(3)?;
    if days > 3_652_058 {
        return Err(out_of_range("date"));
    }
    NaiveDate::from_num_days_from_ce_opt(days as i32 + 1).ok_or_else(|| out_of_range("date"))
}

fn time(from: &mut Cursor<'_>, length: usize, scale: u8) -> Read<NaiveTime> {
    if length != usize::from(time_bytes(scale)) {
        return Err(out_of_range("time"));
    }
    let units = from.uint(length)?;
    let nanos = units.saturating_mul(10_u64.pow(u32::from(9 - scale.min(7))));
    of_nanos(nanos).ok_or_else(|| out_of_range("time"))
}

fn of_nanos(nanos: u64) -> Option<NaiveTime> {
    if nanos >= DAY_NANOS {
        return None;
    }
    NaiveTime::from_num_seconds_from_midnight_opt((nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32)
}

fn datetime(from: &mut Cursor<'_>) -> Read<NaiveDateTime> {
    let day = i32::from_le_bytes(from.array()?);
    let ticks = u64::from(from.u32()?);
    // Servers show these to the millisecond: 3 1/3 ms are rounded.
    let millis = (ticks * 10 + 1) / 3;
    since_1900(day.into(), millis * 1_000_000)
}

fn since_1900(day: i64, nanos: u64) -> Read<NaiveDateTime> {
    let start = NaiveDate::from_ymd_opt(1900, 1, 1);
    let date = start.and_then(|start| match day {
        0.. => start.checked_add_days(Days::new(day.unsigned_abs())),
        _ => start.checked_sub_days(Days::new(day.unsigned_abs())),
    });
    match (date, of_nanos(nanos)) {
        (Some(date), Some(time)) => Ok(date.and_time(time)),
        _ => Err(out_of_range("datetime")),
    }
}

fn out_of_range(name: &str) -> Malformed {
    Malformed { text: format!("The supplied value is not a valid instance of data type {name}."), number: 8023 }
}

#[cfg(test)]
mod tests {
    use super::super::{types, write_value};
    use super::*;

    fn there_and_back(sql_type: SqlType, value: &Value) {
        for nullable in [true, false] {
            let mut out = Vec::new();
            types::write(&mut out, sql_type, nullable);
            write_value::write(&mut out, sql_type, nullable, value).unwrap();
            let mut cursor = Cursor::new(&out);
            let wire = types::read(&mut cursor).unwrap();
            assert_eq!(read(&mut cursor, &wire).as_ref(), Ok(value), "{sql_type:?}");
            assert!(cursor.is_empty());
        }
    }

    #[test]
    fn values_come_back() {
        let moment = NaiveDate::from_ymd_opt(2025, 11, 21).unwrap().and_hms_nano_opt(23, 59, 58, 123_456_700).unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        for (sql_type, value) in [
            (SqlType::Bit, Value::Bit(true)),
            (SqlType::TinyInt, Value::Int(255)),
            (SqlType::SmallInt, Value::Int(-32_768)),
            (SqlType::Int, Value::Int(-1)),
            (SqlType::BigInt, Value::Int(i64::MIN)),
            (SqlType::Float, Value::Float(0.1)),
            (SqlType::Real, Value::Float(0.5)),
            (SqlType::Decimal(38, 2), Value::Decimal(-(10_i128.pow(37)), 2)),
            (SqlType::Money, Value::Decimal(-1, 4)),
            (SqlType::Money, Value::Decimal(5_000_000_001, 4)),
            (SqlType::UniqueIdentifier, Value::Guid(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))),
            (SqlType::Date, Value::Date(moment.date())),
            (SqlType::Date, Value::Date(NaiveDate::from_ymd_opt(9999, 12, 31).unwrap())),
            (SqlType::Date, Value::Date(NaiveDate::from_ymd_opt(1, 1, 1).unwrap())),
            (SqlType::Time(7), Value::Time(moment.time())),
            (SqlType::DateTime2(7), Value::DateTime(moment)),
            (SqlType::DateTimeOffset(7), Value::DateTimeOffset(moment, -330)),
            (SqlType::VarChar(None), text("Grüße")),
            (SqlType::VarChar(Some(10)), text("")),
            (SqlType::NVarChar(None), text("日本 🎉")),
            (SqlType::NVarChar(None), text("")),
            (SqlType::NVarChar(Some(10)), text("日本 🎉")),
            (SqlType::Binary(3), Value::Bytes(vec![0, 1, 255])),
            (SqlType::VarBinary(None), Value::Bytes(vec![7; 100_000])),
        ] {
            there_and_back(sql_type, &value);
        }
    }

    #[test]
    fn a_datetime_is_rounded_to_its_ticks() {
        let at = |nanos| NaiveDate::from_ymd_opt(2025, 1, 1).unwrap().and_hms_nano_opt(23, 59, 59, nanos).unwrap();
        for (given, kept) in [(990_000_000, 990_000_000), (992_000_000, 993_000_000), (995_000_000, 997_000_000)] {
            let mut out = Vec::new();
            write_value::write(&mut out, SqlType::DateTime, false, &Value::DateTime(at(given))).unwrap();
            let wire = WireType { sql_type: SqlType::DateTime, layout: Layout::Fixed(8) };
            assert_eq!(read(&mut Cursor::new(&out), &wire), Ok(Value::DateTime(at(kept))));
        }
        let mut out = Vec::new();
        write_value::write(&mut out, SqlType::DateTime, false, &Value::DateTime(at(999_000_000))).unwrap();
        assert_eq!(out[4..], [0; 4], "the next day begins");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let types = (0..=255_u8).flat_map(|id| [[id, 4, 0, 0, 0, 0, 0, 0], [id, 16, 7, 3, 0, 0, 0, 0]]);
        for declared in types {
            let Ok(wire) = types::read(&mut Cursor::new(&declared)) else { continue };
            for byte in [0, 1, 3, 8, 16, 254, 255] {
                for count in 0..40 {
                    let _ = read(&mut Cursor::new(&vec![byte; count]), &wire);
                    let _ = read_bulk(&mut Cursor::new(&vec![byte; count]), &wire);
                }
            }
        }
    }
}
