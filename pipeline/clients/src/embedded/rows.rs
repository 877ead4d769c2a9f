//! Tables as the catalogue knows them, and the one way from a row to its document and from JSON to a row.
//!
//! A document is a JSON object with the columns in table order, names in camelCase. Floats are the shortest
//! text that reads back as the same double; texts (ids, times) are as stored; NULL is `null`; `bit` is a boolean.
//! Forecasts have the computed member `variance` (supply - demand, `null` when either is) after `supply`.
//! Scan, capture and read all come through [`TableInfo::document`], so that one row has one spelling.

use super::connection::Failure;
use crate::database::{CaptureMode, Column, Table};
use bytes::Bytes;
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Map, Value};
use smartpulse_pipeline::error::{Error, ErrorKind};
use smartpulse_pipeline::{Key, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// The longest name of a table or column; SQL Server's limit, give or take.
const IDENTIFIER_LENGTH_MAX: usize = 128;

/// True for `^[A-Za-z_][A-Za-z0-9_]{0,127}$`.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= IDENTIFIER_LENGTH_MAX
}

/// The name as SQL takes it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `CompanyId` to `companyId`, `OSVersion` to `osVersion`: of a leading run of capitals the last stays one when
/// it begins a word.
fn camel_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let run = letters.iter().take_while(|c| c.is_uppercase()).count();
    let lowered = if run > 1 && run < letters.len() { run - 1 } else { run };
    letters.iter().enumerate().map(|(i, c)| if i < lowered { c.to_ascii_lowercase() } else { *c }).collect()
}

/// What a column's values are, from its declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uuid,
    Time,
    Float,
    Integer,
    Bit,
    Text,
}

impl Kind {
    fn of(declared_type: &str) -> Self {
        let name = declared_type.split('(').next().unwrap_or("").trim().to_ascii_lowercase();
        match name.as_str() {
            "uniqueidentifier" => Self::Uuid,
            "datetime2" | "datetime" | "datetimeoffset" => Self::Time,
            "float" | "real" | "double" => Self::Float,
            "bigint" | "int" | "integer" | "smallint" | "tinyint" => Self::Integer,
            "bit" | "boolean" => Self::Bit,
            _ => Self::Text,
        }
    }
}

/// A table and how its rows are read and written.
#[derive(Debug)]
pub(super) struct TableInfo {
    pub table: Table,
    /// Which column is the key.
    pub key: usize,
    pub key_name: String,
    /// Which column is `VersionId`, where there is one.
    pub version: Option<usize>,
    /// The columns as a list for SELECT.
    pub columns_sql: String,
    kinds: Vec<Kind>,
    /// What stands before each value: `,"member":`.
    prefixes: Vec<Box<[u8]>>,
    /// The columns that `variance` is made from; it follows the second.
    variance: Option<(usize, usize)>,
}

impl TableInfo {
    /// Reads the catalogue.
    ///
    /// # Errors
    /// Rejected when the name is none, or no table has it: the error lists the tables there are.
    pub fn load(connection: &Connection, name: &str) -> Result<Self, Failure> {
        if !is_identifier(name) {
            let message =
                format!("{name:?} is no table name: letters, digits and _ only, {IDENTIFIER_LENGTH_MAX} at most");
            return Err(Failure::Own(Error::rejected(message)));
        }
        let tables = tables(connection)?;
        if !tables.iter().any(|t| t == name) {
            let known =
                if tables.is_empty() { "none: its schema is not created yet".to_owned() } else { tables.join(", ") };
            return Err(Failure::Own(Error::rejected(format!("no table {name}; the database has {known}"))));
        }
        let mut statement =
            connection.prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_info(?1) ORDER BY cid")?;
        let mut columns = Vec::new();
        let mut keys = Vec::new();
        let mut rows = statement.query([name])?;
        while let Some(row) = rows.next()? {
            let column: String = row.get(0)?;
            if row.get::<_, i64>(3)? > 0 {
                keys.push(columns.len());
            }
            columns.push(Column {
                member: camel_case(&column),
                name: column,
                declared_type: row.get(1)?,
                nullable: !row.get::<_, bool>(2)?,
            });
        }
        let &[key] = keys.as_slice() else {
            let message = format!("table {name} has a primary key of {} columns; one is needed", keys.len());
            return Err(Failure::Own(Error::rejected(message)));
        };
        let place = |wanted: &str| columns.iter().position(|c| c.name == wanted);
        let variance = if name == "Forecasts" { place("Demand").zip(place("Supply")) } else { None };
        let captured: Option<i64> = connection
            .query_row("SELECT 1 FROM smartpulse_capture WHERE TableName = ?1", [name], |row| row.get(0))
            .optional()?;
        let capture = match captured {
            Some(_) => vec![CaptureMode::ChangeTracking, CaptureMode::Cdc],
            None => Vec::new(),
        };
        Ok(Self {
            key,
            key_name: columns.get(key).map(|c| c.name.clone()).unwrap_or_default(),
            version: place("VersionId"),
            columns_sql: columns.iter().map(|c| quote(&c.name)).collect::<Vec<_>>().join(", "),
            kinds: columns.iter().map(|c| Kind::of(&c.declared_type)).collect(),
            prefixes: columns.iter().enumerate().map(|(i, c)| prefix(i, &c.member)).collect(),
            variance,
            table: Table { name: name.to_owned(), columns, capture, tombstones: true },
        })
    }

    /// The document of a row whose columns, in table order, start at `offset`.
    ///
    /// # Errors
    /// Rejected when a value has no JSON form: a float that is not finite, bytes, a text that is not UTF-8.
    pub fn document(&self, row: &rusqlite::Row<'_>, offset: usize) -> Result<Bytes, Failure> {
        let mut json = Vec::with_capacity(self.prefixes.len() * 40);
        json.push(b'{');
        for (i, (before, kind)) in self.prefixes.iter().zip(&self.kinds).enumerate() {
            json.extend_from_slice(before);
            let value = row.get_ref(offset + i)?;
            write_value(&mut json, *kind, value).map_err(|why| self.unspeakable(row, offset, i, why))?;
            if let Some((demand, supply)) = self.variance
                && supply == i
            {
                let difference = number(value).zip(number(row.get_ref(offset + demand)?)).map(|(s, d)| s - d);
                json.extend_from_slice(b",\"variance\":");
                // A difference beyond the range of a double has no JSON form either, and is derived anyway.
                write_json(&mut json, &difference.filter(|d| d.is_finite()));
            }
        }
        json.push(b'}');
        Ok(json.into())
    }

    /// The key of a row whose columns start at `offset`.
    ///
    /// # Errors
    /// Rejected when the key is neither a text nor an integer.
    pub fn key(&self, row: &rusqlite::Row<'_>, offset: usize) -> Result<Key, Failure> {
        match row.get_ref(offset + self.key)? {
            ValueRef::Text(text) => {
                Ok(std::str::from_utf8(text).map_err(|e| Error::rejected("key is not UTF-8").because(e))?.into())
            }
            ValueRef::Integer(number) => Ok(number.to_string().into()),
            _ => {
                Err(Failure::Own(Error::rejected(format!("a key of {} is neither text nor integer", self.table.name))))
            }
        }
    }

    /// The version of a row whose columns start at `offset`; 0 where the table has none.
    ///
    /// # Errors
    /// SQLite's.
    pub fn version(&self, row: &rusqlite::Row<'_>, offset: usize) -> Result<i64, Failure> {
        Ok(self.version.map_or(Ok(0), |version| row.get(offset + version))?)
    }

    /// The document of a row, or why it has none.
    ///
    /// # Errors
    /// SQLite's.
    pub fn image(&self, row: &rusqlite::Row<'_>, offset: usize) -> Result<(Option<Bytes>, Option<String>), Failure> {
        match self.document(row, offset) {
            Ok(document) => Ok((Some(document), None)),
            Err(Failure::Own(error)) if error.kind() == ErrorKind::Rejected => Ok((None, Some(error.chain()))),
            Err(failure) => Err(failure),
        }
    }

    /// The row as a scan gives it: without a document where it has no JSON form.
    ///
    /// # Errors
    /// SQLite's.
    pub fn scanned(&self, row: &rusqlite::Row<'_>) -> Result<crate::database::Row, Failure> {
        let (document, unreadable) = self.image(row, 0)?;
        let (key, version) = (self.key(row, 0)?, self.version(row, 0)?);
        Ok(crate::database::Row { key, version, document: document.unwrap_or_default(), unreadable })
    }

    /// The row as the contract gives it.
    ///
    /// # Errors
    /// As [`Self::document`].
    pub fn row(&self, row: &rusqlite::Row<'_>, offset: usize) -> Result<crate::database::Row, Failure> {
        Ok(crate::database::Row {
            key: self.key(row, offset)?,
            version: self.version(row, offset)?,
            document: self.document(row, offset)?,
            unreadable: None,
        })
    }

    /// The columns and values of JSON members, ids in lower case and times in the one form that sorts.
    ///
    /// # Errors
    /// Rejected for a member that is no column (the nearest is named) or a value that the column cannot hold.
    pub fn values(&self, members: &Map<String, Value>) -> Result<Vec<(&str, SqlValue)>, Error> {
        members
            .iter()
            .map(|(member, value)| {
                let place = self.table.columns.iter().position(|c| c.member == *member);
                let found = place.and_then(|i| self.table.columns.get(i).zip(self.kinds.get(i)));
                let (column, kind) = found.ok_or_else(|| self.unknown_member(member))?;
                let value = to_sql(*kind, value).ok_or_else(|| {
                    let shown = value.to_string();
                    let shown: String = shown.chars().take(60).collect();
                    let expected = column.declared_type.as_str();
                    Error::rejected(format!("{member} is {expected} and cannot be {shown}"))
                })?;
                Ok((column.name.as_str(), value))
            })
            .collect()
    }

    fn unknown_member(&self, member: &str) -> Error {
        if self.variance.is_some() && member == "variance" {
            return Error::rejected("variance is computed from supply and demand and cannot be set");
        }
        let members = self.table.columns.iter().map(|c| c.member.as_str());
        let near =
            members.clone().max_by(|a, b| strsim::jaro_winkler(a, member).total_cmp(&strsim::jaro_winkler(b, member)));
        let hint = match near {
            Some(near) if strsim::jaro_winkler(near, member) > 0.8 => format!("did you mean {near}?"),
            _ => format!("it has {}", members.collect::<Vec<_>>().join(", ")),
        };
        Error::rejected(format!("{} has no member {member:?}; {hint}", self.table.name))
    }

    fn unspeakable(&self, row: &rusqlite::Row<'_>, offset: usize, column: usize, why: &str) -> Failure {
        let key = self.key(row, offset).unwrap_or_else(|_| "?".into());
        let column = self.table.columns.get(column).map_or("?", |c| c.name.as_str());
        Failure::Own(Error::rejected(format!("{column} of {} {key} {why}", self.table.name)))
    }
}

/// Tables, read again when the schema has changed.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    tables: Mutex<HashMap<String, (i64, Arc<TableInfo>)>>,
}

impl Catalogue {
    /// The table named so.
    ///
    /// # Errors
    /// As [`TableInfo::load`].
    pub fn get(&self, connection: &Connection, name: &str) -> Result<Arc<TableInfo>, Failure> {
        let version: i64 = connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        let known = self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((at, info)) = known
            && at == version
        {
            return Ok(info);
        }
        let info = Arc::new(TableInfo::load(connection, name)?);
        // Bounded by the tables that exist: an unknown name is an error above.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(name.to_owned(), (version, Arc::clone(&info)));
        Ok(info)
    }
}

/// The tables that pipelines may name: not SQLite's own and not those that capture keeps.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'
         AND name NOT GLOB 'smartpulse_*' AND name NOT GLOB 'ct_*' AND name NOT GLOB 'cdc_*_CT' ORDER BY name",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn prefix(place: usize, member: &str) -> Box<[u8]> {
    let mut text = if place == 0 { Vec::new() } else { vec![b','] };
    write_json(&mut text, member);
    text.push(b':');
    text.into()
}

fn write_json<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("writing a scalar to memory cannot fail");
}

fn number(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Real(number) => Some(number),
        ValueRef::Integer(number) => Some(number as f64),
        _ => None,
    }
}

fn write_value(json: &mut Vec<u8>, kind: Kind, value: ValueRef<'_>) -> Result<(), &'static str> {
    match (kind, value) {
        (_, ValueRef::Null) => json.extend_from_slice(b"null"),
        (Kind::Bit, ValueRef::Integer(number)) => write_json(json, &(number != 0)),
        (Kind::Float, ValueRef::Integer(number)) => write_json(json, &(number as f64)),
        (_, ValueRef::Integer(number)) => write_json(json, &number),
        (_, ValueRef::Real(number)) if !number.is_finite() => return Err("is not a finite number"),
        (_, ValueRef::Real(number)) => write_json(json, &number),
        (_, ValueRef::Text(text)) => write_json(json, std::str::from_utf8(text).map_err(|_| "is not UTF-8")?),
        (_, ValueRef::Blob(_)) => return Err("is bytes, which a document cannot hold"),
    }
    Ok(())
}

fn to_sql(kind: Kind, value: &Value) -> Option<SqlValue> {
    Some(match (kind, value) {
        (_, Value::Null) => SqlValue::Null,
        (Kind::Uuid, Value::String(text)) => SqlValue::Text(Uuid::try_parse(text).ok()?.hyphenated().to_string()),
        (Kind::Time, Value::String(text)) => SqlValue::Text(text.parse::<Timestamp>().ok()?.to_string()),
        (Kind::Text, Value::String(text)) => SqlValue::Text(text.clone()),
        (Kind::Float, Value::Number(number)) => SqlValue::Real(number.as_f64().filter(|f| f.is_finite())?),
        (Kind::Integer, Value::Number(number)) => SqlValue::Integer(number.as_i64()?),
        (Kind::Bit, Value::Bool(bit)) => SqlValue::Integer(i64::from(*bit)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_camel_case() {
        for (name, member) in [
            ("Id", "id"),
            ("CompanyId", "companyId"),
            ("CapacityMw", "capacityMw"),
            ("OSVersion", "osVersion"),
            ("ID", "id"),
            ("already", "already"),
        ] {
            assert_eq!(camel_case(name), member);
        }
    }

    #[test]
    fn table_names_are_plain() {
        for (name, good) in [
            ("Forecasts", true),
            ("_x1", true),
            ("1x", false),
            ("", false),
            ("a b", false),
            ("a\"; DROP TABLE Forecasts; --", false),
            ("Ä", false),
        ] {
            assert_eq!(is_identifier(name), good, "{name}");
        }
        assert!(is_identifier(&"x".repeat(128)) && !is_identifier(&"x".repeat(129)));
    }

    #[test]
    fn values_have_one_spelling() {
        for (kind, value, json) in [
            (Kind::Float, ValueRef::Real(0.1 + 0.2), "0.30000000000000004"),
            (Kind::Float, ValueRef::Integer(5), "5.0"),
            (Kind::Float, ValueRef::Real(f64::MIN_POSITIVE), "2.2250738585072014e-308"),
            (Kind::Integer, ValueRef::Integer(i64::MAX), "9223372036854775807"),
            (Kind::Bit, ValueRef::Integer(1), "true"),
            (Kind::Text, ValueRef::Text("a\"\n\u{1f600}".as_bytes()), "\"a\\\"\\n\u{1f600}\""),
            (Kind::Text, ValueRef::Null, "null"),
        ] {
            let mut out = Vec::new();
            write_value(&mut out, kind, value).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), json);
        }
        assert!(write_value(&mut Vec::new(), Kind::Float, ValueRef::Real(f64::INFINITY)).is_err());
        assert!(write_value(&mut Vec::new(), Kind::Text, ValueRef::Text(b"\xff")).is_err());
    }
}
