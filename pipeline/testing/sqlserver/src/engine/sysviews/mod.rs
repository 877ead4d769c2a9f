//! Views of the system. Each is filled, when a statement names it, into a temporary table of the session.

mod capture;
mod information;
mod keys;
mod schema;
mod server;

use super::Core;
use super::catalog::{Catalog, DATABASE, same};
use super::errors::{Result, fault};
use super::types;
use crate::value::SqlType;
use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use std::collections::HashSet;

/// The version that the server says it is: SQL Server 2017.
pub(crate) const PRODUCT_VERSION: &str = "14.0.1000.169";
/// The default collation.
pub(crate) const COLLATION: &str = "SQL_Latin1_General_CP1_CI_AS";

pub(crate) fn version() -> String {
    format!("Microsoft SQL Server 2017 (RTM) - {PRODUCT_VERSION} (X64) - stand-in for tests, not by Microsoft")
}

pub(super) type ColumnOf = (&'static str, SqlType, bool);

pub(super) const NAME: SqlType = SqlType::NVarChar(Some(128));
pub(super) const WORD: SqlType = SqlType::NVarChar(Some(60));

/// What filling a view looks at.
pub(crate) struct Look<'l> {
    pub core: &'l Core,
    pub catalog: &'l Catalog,
    pub session: i64,
    pub login: &'l str,
    pub denied: &'l HashSet<String>,
}

/// A view.
pub(crate) struct View {
    database: Option<&'static str>,
    schema: &'static str,
    name: &'static str,
    /// Its name in SQLite.
    pub physical: &'static str,
    pub object_id: i64,
    pub columns: &'static [ColumnOf],
    rows: fn(&Look<'_>, &Connection) -> Result<Vec<Vec<Cell>>>,
    /// The permission that it asks for.
    permission: Option<&'static str>,
    /// The column that its first one is, as (table, column), where rows never change and come with rising numbers: a session that
    /// looks again gets the new ones only.
    grows: Option<(&'static str, &'static str)>,
}

fn all() -> impl Iterator<Item = &'static View> {
    schema::VIEWS.iter().chain(keys::VIEWS).chain(information::VIEWS).chain(server::VIEWS).chain(capture::VIEWS)
}

/// The view of that name.
pub(crate) fn find(database: &str, schema: &str, name: &str) -> Option<&'static View> {
    all().find(|view| {
        same(view.name, name) && same(view.schema, schema) && view.database.is_none_or(|own| same(own, database))
    })
}

/// Fills a view for the statement that is about to run.
pub(crate) fn fill(connection: &Connection, physical: &str, look: &Look<'_>) -> Result<()> {
    let Some(view) = all().find(|view| view.physical == physical) else { return Ok(()) };
    if let Some(permission) = view.permission
        && look.denied.contains(permission)
    {
        return Err(fault(
            300,
            14,
            format!("{permission} permission was denied on object '{DATABASE}', database '{DATABASE}'."),
        ));
    }
    let columns = view
        .columns
        .iter()
        .enumerate()
        .map(|(at, (_, sql_type, _))| {
            format!("c{}{}", at + 1, if types::is_text(*sql_type) { " COLLATE CI" } else { "" })
        })
        .collect::<Vec<_>>()
        .join(", ");
    let columns = if view.grows.is_some() { columns.replacen("c1", "c1 INTEGER PRIMARY KEY", 1) } else { columns };
    connection.execute_batch(&format!("CREATE TEMP TABLE IF NOT EXISTS {physical} ({columns})"))?;
    // What is not there any more goes; without `grows` all of it.
    let gone = view.grows.map_or_else(String::new, |(table, column)| {
        format!(
            " WHERE c1 < (SELECT ifnull(min({column}), 0) FROM {table}) OR c1 > (SELECT ifnull(max({column}), 0) FROM {table})"
        )
    });
    connection.prepare_cached(&format!("DELETE FROM temp.{physical}{gone}"))?.execute([])?;
    let rows = (view.rows)(look, connection)?;
    let marks = (1..=view.columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    let mut insert = connection.prepare_cached(&format!("INSERT INTO temp.{physical} VALUES ({marks})"))?;
    for row in rows {
        insert.execute(rusqlite::params_from_iter(row))?;
    }
    Ok(())
}

pub(super) fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

pub(super) fn number(number: i64) -> Cell {
    Cell::Integer(number)
}

pub(super) fn flag(flag: bool) -> Cell {
    Cell::Integer(i64::from(flag))
}

pub(super) fn count(count: usize) -> Cell {
    Cell::Integer(i64::try_from(count).unwrap_or(0))
}

/// System types: name, `system_type_id`, `user_type_id`.
pub(super) const TYPES: &[(&str, i64, i64)] = &[
    ("uniqueidentifier", 36, 36),
    ("date", 40, 40),
    ("time", 41, 41),
    ("datetime2", 42, 42),
    ("datetimeoffset", 43, 43),
    ("tinyint", 48, 48),
    ("smallint", 52, 52),
    ("int", 56, 56),
    ("smalldatetime", 58, 58),
    ("real", 59, 59),
    ("money", 60, 60),
    ("datetime", 61, 61),
    ("float", 62, 62),
    ("bit", 104, 104),
    ("decimal", 106, 106),
    ("bigint", 127, 127),
    ("varbinary", 165, 165),
    ("varchar", 167, 167),
    ("binary", 173, 173),
    ("char", 175, 175),
    ("nvarchar", 231, 231),
    ("nchar", 239, 239),
    ("sysname", 231, 256),
];

pub(super) fn system_type(sql_type: SqlType) -> i64 {
    let name = types::name(sql_type);
    TYPES.iter().find(|(known, ..)| *known == name).map_or(0, |(_, id, _)| *id)
}

pub(crate) fn type_name(id: i64) -> Option<&'static str> {
    TYPES.iter().find(|(_, _, user)| *user == id).map(|(name, ..)| *name)
}

pub(crate) fn type_id(name: &str) -> Option<i64> {
    TYPES.iter().find(|(known, ..)| same(known, name)).map(|(_, _, id)| *id)
}

/// `max_length` in bytes; -1 for max.
pub(crate) fn max_length(sql_type: SqlType) -> i64 {
    match sql_type {
        SqlType::Bit | SqlType::TinyInt => 1,
        SqlType::SmallInt => 2,
        SqlType::Int | SqlType::Real | SqlType::SmallDateTime => 4,
        SqlType::Date => 3,
        SqlType::UniqueIdentifier => 16,
        SqlType::Decimal(precision, _) => match precision {
            0..=9 => 5,
            10..=19 => 9,
            20..=28 => 13,
            _ => 17,
        },
        SqlType::Time(scale) => 3 + i64::from(scale > 2) + i64::from(scale > 4),
        SqlType::DateTime2(scale) => 6 + i64::from(scale > 2) + i64::from(scale > 4),
        SqlType::DateTimeOffset(scale) => 8 + i64::from(scale > 2) + i64::from(scale > 4),
        SqlType::BigInt | SqlType::Float | SqlType::Money | SqlType::DateTime => 8,
        sql_type if types::is_max(sql_type) => -1,
        sql_type => types::length(sql_type).map_or(-1, i64::from) * if types::is_national(sql_type) { 2 } else { 1 },
    }
}

pub(crate) fn precision(sql_type: SqlType) -> i64 {
    match sql_type {
        SqlType::Bit => 1,
        SqlType::Float => 53,
        SqlType::Real => 24,
        SqlType::Decimal(precision, _) => i64::from(precision),
        SqlType::Money => 19,
        SqlType::Date => 10,
        SqlType::DateTime => 23,
        SqlType::SmallDateTime => 16,
        SqlType::DateTime2(scale) => 19 + i64::from(scale) + i64::from(scale > 0),
        SqlType::DateTimeOffset(scale) => 26 + i64::from(scale) + i64::from(scale > 0),
        SqlType::Time(scale) => 8 + i64::from(scale) + i64::from(scale > 0),
        sql_type if types::is_integer(sql_type) => i64::from(types::integer_digits(sql_type)),
        _ => 0,
    }
}

pub(crate) fn scale(sql_type: SqlType) -> i64 {
    match sql_type {
        SqlType::Decimal(_, scale)
        | SqlType::Time(scale)
        | SqlType::DateTime2(scale)
        | SqlType::DateTimeOffset(scale) => i64::from(scale),
        SqlType::Money => 4,
        SqlType::DateTime => 3,
        _ => 0,
    }
}

/// Length in characters; -1 for max.
pub(crate) fn characters(sql_type: SqlType) -> i64 {
    if types::is_max(sql_type) { -1 } else { types::length(sql_type).map_or(-1, i64::from) }
}
