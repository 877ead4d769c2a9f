//! From a row of the server to its document, and from JSON to parameters.
//!
//! A document is a JSON object with the columns in table order, names in camelCase, spelled as the embedded database
//! spells it: ids in lower case, times as RFC 3339 UTC with milliseconds, floats as the shortest text that reads back
//! as the same number, `null` for NULL. `Forecasts` has the computed member `variance` (supply - demand) after `supply`.
//! Beyond what that database has: `decimal` values are numbers with all their digits, `money` with 15 of them, `date` is `2016-02-29`,
//! `time` is `23:59:59.9999999`, binary values are `0x` and hexadecimal.
//!
//! A key is the text of its column as documents spell it; of a key of several columns the JSON array of them, such as
//! `["north",7]`, because no character is free to be a separator and an array has one spelling. Scan, capture and
//! read all come through [`Shape`], so that one row has one document and one key.
//!
//! Half a surrogate pair in an `nvarchar` becomes U+FFFD: it has no UTF-8 form, and one row must not hold up the rest.

mod json;
mod params;

pub use params::to_param;
pub(crate) use params::{null, to_date_time};

use crate::catalogue::{ColumnInfo, Kind};
use crate::connection::Param;
use bytes::Bytes;
use json::{date_time, number, prefix, write_json, write_value};
use serde_json::Value;
use smartpulse_clients::database::Row as Entity;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Key, Timestamp};
use tiberius::{ColumnData, Row};
use uuid::Uuid;

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

#[cfg(test)]
mod tests;
