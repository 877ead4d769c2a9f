//! The schema of the embedded database: creation, migration, and the triggers that capture its tables.
//!
//! `PRAGMA user_version` is the schema's version. A file of a later version than this program knows is refused
//! rather than guessed at. The triggers of a captured table are generated from its columns and made anew when
//! these, or the template, have changed; columns that were added to the table are added to its log.

use super::connection::Failure;
use super::rows::{TableInfo, is_identifier, quote};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use smartpulse_pipeline::error::Error;

const SCHEMA: &str = include_str!("../../../../config/sql/sqlite/schema.sql");
const MAIL: &str = include_str!("../../../../config/sql/sqlite/mail.sql");
const UNSUBSCRIBE: &str = include_str!("../../../../config/sql/sqlite/unsubscribe.sql");
const CAPTURE: &str = include_str!("../../../../config/sql/sqlite/capture.sql");

/// Brings a file to `latest` by running `scripts[version]` for each version that it lacks.
///
/// # Errors
/// Fatal when the file has a later version; otherwise SQLite's.
pub(super) fn migrate(connection: &mut Connection, what: &str, scripts: &[&str]) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let latest = i64::try_from(scripts.len()).unwrap_or(i64::MAX);
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > latest {
        return Err(Failure::Own(Error::fatal(format!(
            "{what} has schema version {version}, and this program knows {latest} at most: use a later program"
        ))));
    }
    for script in scripts.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(script)?;
    }
    if version < latest {
        transaction.pragma_update(None, "user_version", latest)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Creates or migrates the database and the capture of `captured`.
///
/// # Errors
/// Fatal for a later schema version, or for a captured table that is not there or lacks what capture needs.
pub(super) fn create_schema(connection: &mut Connection, captured: &[String]) -> Result<(), Failure> {
    // One script that makes whatever is missing leads to versions 1, 2, 4 and 5, which only added tables.
    migrate(connection, "the database", &[SCHEMA, SCHEMA, MAIL, SCHEMA, SCHEMA, UNSUBSCRIBE])?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for name in captured {
        ensure_capture(&transaction, name)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The section of a table's entities, as tombstones name it.
pub(super) fn section(table: &str) -> &str {
    match table {
        "Forecasts" => "forecast",
        "ProductionUnits" => "unit",
        other => other,
    }
}

fn ensure_capture(connection: &Connection, name: &str) -> Result<(), Failure> {
    let info = TableInfo::load(connection, name)?;
    let Some(version) = info.version else {
        let message = format!("table {name} cannot be captured: it has no column VersionId");
        return Err(Failure::Own(Error::fatal(message)));
    };
    let columns = &info.table.columns;
    // The template quotes names but cannot escape them.
    if let Some(odd) = columns.iter().find(|c| !is_identifier(&c.name)) {
        let message = format!("table {name} cannot be captured: its column {:?} is no plain name", odd.name);
        return Err(Failure::Own(Error::fatal(message)));
    }
    let list = |one: &dyn Fn(usize, &str) -> String| {
        columns.iter().enumerate().map(|(i, c)| one(i, &c.name)).collect::<Vec<_>>().join(", ")
    };
    let definition =
        |i: usize, name: &str| format!("{} {}", quote(name), columns.get(i).map_or("", |c| c.declared_type.as_str()));
    let old = |i: usize, name: &str| {
        if i == version { "ct.VersionId + 1".to_owned() } else { format!("OLD.{}", quote(name)) }
    };
    let sql = CAPTURE
        .replace("{table}", name)
        .replace("{section}", section(name))
        .replace("{key}", &info.key_name)
        .replace("{key_type}", columns.get(info.key).map_or("", |c| c.declared_type.as_str()))
        .replace("{definitions}", &list(&definition))
        .replace("{columns}", &list(&|_, name| quote(name)))
        .replace("{new}", &list(&|_, name| format!("NEW.{}", quote(name))))
        .replace("{old}", &list(&old));
    let kept: Option<String> = connection
        .query_row("SELECT Triggers FROM smartpulse_capture WHERE TableName = ?1", [name], |row| row.get(0))
        .optional()?;
    if kept.as_ref() == Some(&sql) {
        return Ok(());
    }
    if kept.is_some() {
        add_columns_to_the_log(connection, &info)?;
    }
    connection.execute_batch(&sql)?;
    connection.execute(
        "INSERT INTO smartpulse_capture (TableName, Triggers) VALUES (?1, ?2)
         ON CONFLICT (TableName) DO UPDATE SET Triggers = excluded.Triggers",
        [name, &sql],
    )?;
    Ok(())
}

fn add_columns_to_the_log(connection: &Connection, info: &TableInfo) -> Result<(), Failure> {
    let log = format!("cdc_{}_CT", info.table.name);
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let present = statement.query_map([&log], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    for column in info.table.columns.iter().filter(|c| !present.contains(&c.name)) {
        let (log, name) = (quote(&log), quote(&column.name));
        connection.execute_batch(&format!("ALTER TABLE {log} ADD COLUMN {name} {}", column.declared_type))?;
    }
    Ok(())
}
