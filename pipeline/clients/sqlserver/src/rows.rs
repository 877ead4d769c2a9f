//! From a row of the server to its document, and from JSON to parameters.
//!
//! A document is a JSON object with the columns in table order, names in camelCase, spelled as the embedded database
//! spells it: ids in lower case, times as RFC 3339 UTC with milliseconds, floats as the shortest text that reads back
//! as the same number, `null` for NULL. `Forecasts` has the computed member `variance` (supply - demand) after `supply`.
//! Beyond what that database has: `decimal` and `money` are numbers with all their digits, `date` is `2016-02-29`,
//! `time` is `23:59:59.9999999`, binary values are `0x` and hexadecimal.
//!
//! A key is the text of its column as documents spell it; of a key of several columns the JSON array of them, such as
//! `["north",7]`, because no character is free to be a separator and an array has one spelling. Scan, capture and
//! read all come through [`Shape`], so that one row has one document and one key.
//!
//! Half a surrogate pair in an `nvarchar` becomes U+FFFD: it has no UTF-8 form, and one row must not hold up the rest.

use crate::catalogue::{ColumnInfo, Kind};
use crate::connection::Param;
use bytes::Bytes;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use serde_json::Value;
use smartpulse_clients::database::Row as Entity;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Key, Timestamp};
use std::borrow::Cow;
use std::fmt::Write as _;
use tiberius::time::{Date, DateTime2, Time};
use tiberius::{ColumnData, Row};
use uuid::Uuid;

/// Days from 0001-01-01, where `date` begins, to 1900-01-01, where `datetime` does.
const DAYS_TO_1900: i64 = 693_595;

/// Which columns a result has, and what its rows become. A table has one for its present columns; a capture instance
/// has one of its own.
#[derive(Debug, Clone)]
pub struct Shape {
    table: String,
    columns: Vec<String>,
    key: Vec<usize>,
    version: Option<usize>,
    /// What stands before each value: `,"member":`.
    prefixes: Vec<Box<[u8]>>,
    /// The columns that `variance` is made from; it follows the second.
    variance: Option<(usize, usize)>,
}

impl Shape {
    /// The shape of rows of `table` with these columns, in this order, of which `key` is the key.
    ///
    /// # Errors
    /// Rejected when a column of the key is not among them.
    pub fn new(table: &str, columns: &[ColumnInfo], key: &[&str]) -> Result<Self> {
        let place = |wanted: &str| columns.iter().position(|c| c.name == wanted);
        let key = key
            .iter()
            .map(|name| place(name).ok_or_else(|| Error::rejected(format!("{table} has no key column {name} here"))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            key,
            version: place("VersionId"),
            prefixes: columns.iter().enumerate().map(|(i, c)| prefix(i, &c.member)).collect(),
            variance: if table == "Forecasts" { place("Demand").zip(place("Supply")) } else { None },
            columns: columns.iter().map(|c| c.name.clone()).collect(),
            table: table.to_owned(),
        })
    }

    /// How many columns it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether it takes none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether `VersionId` is among the columns.
    #[must_use]
    pub fn is_versioned(&self) -> bool {
        self.version.is_some()
    }

    /// The document of a row whose columns start at `offset`. `version` replaces the row's `VersionId`: the last image
    /// of a deleted row has the version of its delete.
    ///
    /// # Errors
    /// Rejected when a value has no JSON form.
    pub fn document(&self, row: &Row, offset: usize, version: Option<i64>) -> Result<Bytes> {
        let mut json = Vec::with_capacity(self.prefixes.len() * 40);
        json.push(b'{');
        for (i, before) in self.prefixes.iter().enumerate() {
            json.extend_from_slice(before);
            match version.filter(|_| self.version == Some(i)) {
                Some(version) => write_json(&mut json, &version),
                None => write_value(&mut json, value(row, offset + i)?)
                    .map_err(|why| self.unspeakable(row, offset, i, why))?,
            }
            if let Some((demand, supply)) = self.variance
                && supply == i
            {
                let numbers = number(value(row, offset + supply)?).zip(number(value(row, offset + demand)?));
                json.extend_from_slice(b",\"variance\":");
                // A difference beyond the range of a double has no JSON form, and is derived anyway.
                write_json(&mut json, &numbers.map(|(s, d)| s - d).filter(|v| v.is_finite()));
            }
        }
        json.push(b'}');
        Ok(json.into())
    }

    /// The document of a row, or why it has none.
    #[must_use]
    pub fn image(&self, row: &Row, offset: usize, version: Option<i64>) -> (Option<Bytes>, Option<String>) {
        match self.document(row, offset, version) {
            Ok(document) => (Some(document), None),
            Err(error) => (None, Some(error.chain())),
        }
    }

    /// The key of a row whose columns start at `offset`.
    ///
    /// # Errors
    /// Rejected when a value cannot be a key.
    pub fn key(&self, row: &Row, offset: usize) -> Result<Key> {
        let values = self.key.iter().map(|place| value(row, offset + place)).collect::<Result<Vec<_>>>()?;
        spell_key(&values).ok_or_else(|| Error::rejected(format!("a key of {} is NULL or of no key type", self.table)))
    }

    /// The version of a row whose columns start at `offset`; 0 where the table has none.
    ///
    /// # Errors
    /// Rejected when it is NULL.
    pub fn version(&self, row: &Row, offset: usize) -> Result<i64> {
        let Some(place) = self.version else { return Ok(0) };
        integer(row, offset + place)
            .ok_or_else(|| Error::rejected(format!("VersionId of a row of {} is NULL", self.table)))
    }

    /// The row as the contract gives it: where it has no JSON form, without a document and with the reason.
    ///
    /// # Errors
    /// Rejected when the key cannot be read.
    pub fn entity(&self, row: &Row, offset: usize) -> Result<Entity> {
        if row.len() < offset + self.len() {
            let text = "the server gave fewer columns of a row than were asked for";
            return Err(Error::fatal(format!("{text}: {} of {}", row.len(), self.table)));
        }
        let key = self.key(row, offset)?;
        let (version, broken) = match self.version(row, offset) {
            Ok(version) => (version, None),
            Err(error) => (0, Some(error.chain())),
        };
        let (document, unreadable) = self.image(row, offset, None);
        let unreadable = broken.or(unreadable);
        let document = document.filter(|_| unreadable.is_none()).unwrap_or_default();
        Ok(Entity { key, version, document, unreadable })
    }

    fn unspeakable(&self, row: &Row, offset: usize, column: usize, why: &str) -> Error {
        let key = self.key(row, offset).unwrap_or_else(|_| "?".into());
        let column = self.columns.get(column).map_or("?", String::as_str);
        Error::rejected(format!("{column} of {} {key} {why}", self.table))
    }
}

/// The value at a place.
///
/// # Errors
/// Fatal when the row is shorter: the statement and its reader do not fit.
pub fn value(row: &Row, place: usize) -> Result<&ColumnData<'static>> {
    row.get_column_data(place).map_err(|_| {
        Error::fatal(format!("the server gave {} columns where more than {place} were asked for", row.len()))
    })
}

/// The integer at a place, of whatever width; nothing for NULL and other types.
#[must_use]
pub fn integer(row: &Row, place: usize) -> Option<i64> {
    match row.get_column_data(place).ok()? {
        ColumnData::I64(number) => *number,
        ColumnData::I32(number) => number.map(i64::from),
        ColumnData::I16(number) => number.map(i64::from),
        ColumnData::U8(number) => number.map(i64::from),
        ColumnData::Bit(bit) => bit.map(i64::from),
        _ => None,
    }
}

/// The text at a place; nothing for NULL and other types.
#[must_use]
pub fn text(row: &Row, place: usize) -> Option<&str> {
    match row.get_column_data(place).ok()? {
        ColumnData::String(text) => text.as_deref(),
        _ => None,
    }
}

/// The bytes at a place; nothing for NULL and other types.
#[must_use]
pub fn bytes(row: &Row, place: usize) -> Option<&[u8]> {
    match row.get_column_data(place).ok()? {
        ColumnData::Binary(bytes) => bytes.as_deref(),
        _ => None,
    }
}

/// The time at a place, taken as UTC where the type has no offset; nothing for NULL and other types.
#[must_use]
pub fn time(row: &Row, place: usize) -> Option<Timestamp> {
    Some(Timestamp::from_millis(date_time(row.get_column_data(place).ok()?)?.and_utc().timestamp_millis()))
}

/// The spelling of a key with these values; nothing when one is NULL or of a type that cannot be one.
#[must_use]
pub fn spell_key(values: &[&ColumnData<'static>]) -> Option<Key> {
    if let [value] = values {
        return match value {
            ColumnData::Guid(Some(id)) => {
                let mut buffer = Uuid::encode_buffer();
                Some(Key::from(&*id.hyphenated().encode_lower(&mut buffer)))
            }
            ColumnData::String(Some(text)) => Some(Key::from(text.as_ref())),
            other => key_number(other).map(|number| number.to_string().into()),
        };
    }
    let mut json = vec![b'['];
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        match value {
            ColumnData::Guid(Some(id)) => write_json(&mut json, &id.hyphenated().to_string()),
            ColumnData::String(Some(text)) => write_json(&mut json, text.as_ref()),
            other => write_json(&mut json, &key_number(other)?),
        }
    }
    json.push(b']');
    String::from_utf8(json).ok().map(Into::into)
}

/// The parameters that a key stands for; nothing when no row of a table with these key columns can have it.
#[must_use]
pub fn parse_key(columns: &[&ColumnInfo], key: &str) -> Option<Vec<Param>> {
    if let [column] = columns {
        return Some(vec![key_part(column, &Value::from(key), true)?]);
    }
    let Ok(Value::Array(parts)) = serde_json::from_str::<Value>(key) else { return None };
    if parts.len() != columns.len() {
        return None;
    }
    columns.iter().zip(&parts).map(|(column, part)| key_part(column, part, false)).collect()
}

fn key_part(column: &ColumnInfo, part: &Value, alone: bool) -> Option<Param> {
    Some(match (column.kind, part) {
        // The server would cut it to the column's length, and find another row.
        (Kind::Text, Value::String(text)) if column.length.is_some_and(|most| text.encode_utf16().count() > most) => {
            return None;
        }
        (Kind::Uuid, Value::String(text)) => Param(ColumnData::Guid(Some(Uuid::try_parse(text).ok()?))),
        (Kind::Integer, Value::String(text)) if alone => Param::bigint(text.parse().ok()?),
        (Kind::Integer, Value::Number(number)) => Param::bigint(number.as_i64()?),
        (Kind::Text, Value::String(text)) => Param::text(text.clone()),
        _ => return None,
    })
}

fn key_number(value: &ColumnData<'static>) -> Option<i64> {
    match value {
        ColumnData::I64(number) => *number,
        ColumnData::I32(number) => number.map(i64::from),
        ColumnData::I16(number) => number.map(i64::from),
        ColumnData::U8(number) => number.map(i64::from),
        _ => None,
    }
}

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

fn string(text: String) -> ColumnData<'static> {
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

fn to_date_time(text: &str) -> Option<DateTime2> {
    let utc = DateTime::parse_from_rfc3339(text).ok()?.naive_utc();
    let days =
        u32::try_from(i64::from(utc.num_days_from_ce()) - 1).ok().filter(|_| (1..=9999).contains(&utc.year()))?;
    // Milliseconds are what documents have; a leap second counts as the one before.
    let millis = u64::from(utc.num_seconds_from_midnight()) * 1_000 + u64::from(utc.nanosecond() / 1_000_000).min(999);
    Some(DateTime2::new(Date::new(days), Time::new(millis, 3)))
}

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
fn date_time(value: &ColumnData<'static>) -> Option<NaiveDateTime> {
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
fn number(value: &ColumnData<'static>) -> Option<f64> {
    match value {
        ColumnData::F64(number) => *number,
        ColumnData::F32(number) => number.map(f64::from),
        ColumnData::I64(number) => number.map(|n| n as f64),
        ColumnData::I32(number) => number.map(f64::from),
        ColumnData::Numeric(number) => number.map(f64::from),
        _ => None,
    }
}

fn write_json<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("writing a scalar to memory cannot fail");
}

fn prefix(place: usize, member: &str) -> Box<[u8]> {
    let mut text = if place == 0 { Vec::new() } else { vec![b','] };
    write_json(&mut text, member);
    text.push(b':');
    text.into()
}

fn write_value(json: &mut Vec<u8>, value: &ColumnData<'static>) -> Result<(), &'static str> {
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

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?;
    let digits = digits.is_ascii().then_some(digits.as_bytes()).filter(|d| d.len() % 2 == 0)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect()
}

#[cfg(test)]
mod tests;
