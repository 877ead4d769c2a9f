//! JSON values as parameters with exact types.

use crate::catalogue::{ColumnInfo, Kind};
use crate::connection::Param;
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Timelike};
use serde_json::Value;
use std::borrow::Cow;
use tiberius::ColumnData;
use tiberius::time::{Date, DateTime2, Time};
use uuid::Uuid;

/// The parameter for a JSON value in a column, with the type that [`ColumnInfo::holder`] declares; nothing when the
/// column cannot hold it.
#[must_use]
pub fn to_param(column: &ColumnInfo, value: &Value) -> Option<Param> {
    Some(Param(match (column.kind, value) {
        (Kind::Uuid, Value::Null) => ColumnData::Guid(None),
        (Kind::Uuid, Value::String(text)) => ColumnData::Guid(Some(Uuid::try_parse(text).ok()?)),
        (Kind::Time | Kind::TimeOffset, Value::Null) => ColumnData::DateTime2(None),
        (Kind::Time | Kind::TimeOffset, Value::String(text)) => ColumnData::DateTime2(Some(to_date_time(text)?)),
        (Kind::Float, Value::Null) => ColumnData::F64(None),
        (Kind::Float, Value::Number(number)) => ColumnData::F64(Some(number.as_f64().filter(|f| f.is_finite())?)),
        (Kind::Integer, Value::Null) => ColumnData::I64(None),
        (Kind::Integer, Value::Number(number)) => ColumnData::I64(Some(number.as_i64()?)),
        (Kind::Bit, Value::Null) => ColumnData::Bit(None),
        (Kind::Bit, Value::Bool(bit)) => ColumnData::Bit(Some(*bit)),
        (Kind::Bytes, Value::Null) => ColumnData::Binary(None),
        (Kind::Bytes, Value::String(text)) => ColumnData::Binary(Some(Cow::Owned(from_hex(text)?))),
        (Kind::Other, _) => return None,
        (_, Value::Null) => ColumnData::String(None),
        (Kind::Text | Kind::Xml, Value::String(text)) => string(text.clone()),
        (Kind::Decimal, Value::Number(number)) => string(plain_number(number)?),
        (Kind::Date, Value::String(text)) => string(text.parse::<NaiveDate>().ok()?.to_string()),
        (Kind::Clock, Value::String(text)) => string(text.parse::<NaiveTime>().ok()?.to_string()),
        _ => return None,
    }))
}

/// NULL as [`to_param`] gives it.
pub(crate) fn null(column: &ColumnInfo) -> ColumnData<'static> {
    to_param(column, &Value::Null).map_or(ColumnData::String(None), |param| param.0)
}

pub(super) fn string(text: String) -> ColumnData<'static> {
    ColumnData::String(Some(Cow::Owned(text)))
}

/// A number without an exponent, which a conversion to `decimal` refuses.
fn plain_number(number: &serde_json::Number) -> Option<String> {
    let text = number.to_string();
    if !text.contains(['e', 'E']) {
        return Some(text);
    }
    let number = number.as_f64()?;
    // No `decimal` has more digits. Rust writes a float without an exponent, with the fewest digits that tell it.
    (number.abs() < 1e38).then(|| number.to_string())
}

/// A time, RFC 3339, as `datetime2(3)`.
pub(crate) fn to_date_time(text: &str) -> Option<DateTime2> {
    let utc = DateTime::parse_from_rfc3339(text).ok()?.naive_utc();
    let days =
        u32::try_from(i64::from(utc.num_days_from_ce()) - 1).ok().filter(|_| (1..=9999).contains(&utc.year()))?;
    // Milliseconds are what documents have; a leap second counts as the one before.
    let millis = u64::from(utc.num_seconds_from_midnight()) * 1_000 + u64::from(utc.nanosecond() / 1_000_000).min(999);
    Some(DateTime2::new(Date::new(days), Time::new(millis, 3)))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?;
    let digits = digits.is_ascii().then_some(digits.as_bytes()).filter(|d| d.len() % 2 == 0)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect()
}
