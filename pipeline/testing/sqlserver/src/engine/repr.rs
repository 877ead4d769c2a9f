//! Values as SQLite keeps them, so that SQLite itself compares and sorts them as SQL Server does.
//!
//! | type | kept as |
//! | --- | --- |
//! | bit and integers | INTEGER |
//! | float, real | REAL |
//! | decimal, money | BLOB of 16: the unscaled number, sign bit flipped, big-endian (the scale is the type's) |
//! | uniqueidentifier | BLOB of 16 in the order in which SQL Server compares its bytes |
//! | date, datetime, datetime2 | INTEGER: units of 100 ns since the year 1 |
//! | time | INTEGER: units of 100 ns since midnight |
//! | datetimeoffset | BLOB of 10: UTC as above, then the offset in minutes |
//! | text | TEXT, compared with the collation `CI` |
//! | binary | BLOB |

use crate::value::{SqlType, Value};
use chrono::{Duration, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use rusqlite::types::{Value as Cell, ValueRef};
use uuid::Uuid;

/// Units of 100 ns.
pub(crate) const TICKS_PER_SECOND: i64 = 10_000_000;
pub(crate) const TICKS_PER_DAY: i64 = 86_400 * TICKS_PER_SECOND;

/// Where byte `at` of what is kept stands in the GUID's own layout (little-endian groups): last six bytes first.
const GUID_ORDER: [usize; 16] = [10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3];

pub(crate) fn guid_to_bytes(guid: &Uuid) -> [u8; 16] {
    let layout = guid.to_bytes_le();
    GUID_ORDER.map(|at| layout[at])
}

pub(crate) fn guid_from_bytes(bytes: &[u8]) -> Uuid {
    let mut layout = [0; 16];
    for (from, at) in bytes.iter().zip(GUID_ORDER) {
        layout[at] = *from;
    }
    Uuid::from_bytes_le(layout)
}

pub(crate) fn decimal_to_bytes(unscaled: i128) -> [u8; 16] {
    (unscaled.cast_unsigned() ^ (1 << 127)).to_be_bytes()
}

pub(crate) fn decimal_from_bytes(bytes: &[u8]) -> i128 {
    let bytes: [u8; 16] = bytes.try_into().unwrap_or_default();
    (u128::from_be_bytes(bytes) ^ (1 << 127)).cast_signed()
}

fn epoch() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default().and_time(NaiveTime::MIN)
}

pub(crate) fn ticks(time: NaiveDateTime) -> i64 {
    let days = (time.date() - epoch().date()).num_days();
    days * TICKS_PER_DAY + time_ticks(time.time())
}

pub(crate) fn time_ticks(time: NaiveTime) -> i64 {
    i64::from(time.num_seconds_from_midnight()) * TICKS_PER_SECOND + i64::from(time.nanosecond().min(999_999_999) / 100)
}

pub(crate) fn from_ticks(ticks: i64) -> NaiveDateTime {
    epoch()
        + Duration::days(ticks.div_euclid(TICKS_PER_DAY))
        + Duration::microseconds(ticks.rem_euclid(TICKS_PER_DAY) / 10)
        + Duration::nanoseconds(ticks.rem_euclid(10) * 100)
}

pub(crate) fn time_from_ticks(ticks: i64) -> NaiveTime {
    from_ticks(ticks.rem_euclid(TICKS_PER_DAY)).time()
}

/// A value, already of its type, as SQLite keeps it.
pub(crate) fn encode(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bit(bit) => Cell::Integer(i64::from(bit)),
        Value::Int(number) => Cell::Integer(number),
        Value::Float(number) => Cell::Real(number),
        Value::Decimal(unscaled, _) => Cell::Blob(decimal_to_bytes(unscaled).to_vec()),
        Value::Text(text) => Cell::Text(text),
        Value::Bytes(bytes) => Cell::Blob(bytes),
        Value::Guid(guid) => Cell::Blob(guid_to_bytes(&guid).to_vec()),
        Value::Date(date) => Cell::Integer(ticks(date.and_time(NaiveTime::MIN))),
        Value::Time(time) => Cell::Integer(time_ticks(time)),
        Value::DateTime(time) => Cell::Integer(ticks(time)),
        Value::DateTimeOffset(utc, offset) => {
            let mut bytes = ticks(utc).to_be_bytes().to_vec();
            bytes.extend((offset.cast_unsigned() ^ 0x8000).to_be_bytes());
            Cell::Blob(bytes)
        }
    }
}

/// What SQLite keeps, as a value of its type. A kind that does not fit the type is NULL: expressions are typed before
/// they run, so none appears.
pub(crate) fn decode(cell: ValueRef<'_>, sql_type: SqlType) -> Value {
    match (cell, sql_type) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(number), SqlType::Bit) => Value::Bit(number != 0),
        (ValueRef::Integer(number), SqlType::Date) => Value::Date(from_ticks(number).date()),
        (ValueRef::Integer(number), SqlType::Time(_)) => Value::Time(time_from_ticks(number)),
        (ValueRef::Integer(number), SqlType::DateTime | SqlType::DateTime2(_) | SqlType::SmallDateTime) => {
            Value::DateTime(from_ticks(number))
        }
        (ValueRef::Integer(number), SqlType::Float | SqlType::Real) => Value::Float(number as f64),
        (ValueRef::Integer(number), _) => Value::Int(number),
        (ValueRef::Real(number), SqlType::Float | SqlType::Real) => Value::Float(number),
        (ValueRef::Real(number), _) => Value::Int(number as i64),
        (ValueRef::Text(text), _) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        (ValueRef::Blob(bytes), SqlType::UniqueIdentifier) => Value::Guid(guid_from_bytes(bytes)),
        (ValueRef::Blob(bytes), SqlType::Decimal(_, scale)) => Value::Decimal(decimal_from_bytes(bytes), scale),
        (ValueRef::Blob(bytes), SqlType::Money) => Value::Decimal(decimal_from_bytes(bytes), 4),
        (ValueRef::Blob(bytes), SqlType::DateTimeOffset(_)) if bytes.len() == 10 => {
            let utc = i64::from_be_bytes(bytes[..8].try_into().unwrap_or_default());
            let offset = u16::from_be_bytes(bytes[8..].try_into().unwrap_or_default()) ^ 0x8000;
            Value::DateTimeOffset(from_ticks(utc), offset.cast_signed())
        }
        (ValueRef::Blob(bytes), _) => Value::Bytes(bytes.to_vec()),
    }
}

/// Orders text as the default collation does: without case, trailing blanks not counted.
pub(crate) fn compare_text(a: &str, b: &str) -> std::cmp::Ordering {
    let (a, b) = (a.trim_end_matches(' '), b.trim_end_matches(' '));
    if a.is_ascii() && b.is_ascii() {
        return a.bytes().map(|byte| byte.to_ascii_lowercase()).cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    a.chars().flat_map(char::to_lowercase).cmp(b.chars().flat_map(char::to_lowercase))
}

/// What SQLite gives, taken out of its row.
pub(crate) fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    }
}
