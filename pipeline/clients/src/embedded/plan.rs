//! What `smartpulse plan` says of a table of the embedded database, and whether its triggers are there.

use super::connection::Failure;
use super::rows::TableInfo;
use crate::database::{CaptureMode, CapturePlan, Kept, ModePlan};
use rusqlite::Connection;
use std::time::Duration;

/// The triggers without which changes go unrecorded.
const TRIGGERS: [&str; 3] = ["log_insert", "log_update", "log_delete"];

/// Why changes of a table are not recorded, where its triggers are gone.
///
/// # Errors
/// SQLite's.
pub(super) fn missing_triggers(connection: &Connection, info: &TableInfo) -> Result<Option<String>, Failure> {
    let table = &info.table.name;
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2")?;
    let mut missing = Vec::new();
    for trigger in TRIGGERS.map(|part| format!("{table}_{part}")) {
        if !statement.exists([&trigger, table])? {
            missing.push(trigger);
        }
    }
    Ok((!missing.is_empty()).then(|| {
        format!("triggers of {table} are missing: {}; `smartpulse dev database` makes them", missing.join(", "))
    }))
}

/// What the capture of a table needs and gives.
///
/// # Errors
/// SQLite's.
pub(super) fn plan(
    connection: &Connection,
    info: &TableInfo,
    retention: Duration,
    rows_max: u32,
) -> Result<CapturePlan, Failure> {
    let table = &info.table.name;
    let enabled = !info.table.capture.is_empty();
    let missing = if enabled { missing_triggers(connection, info)? } else { None };
    let mut statements = Vec::new();
    if !enabled {
        statements
            .push(format!("-- no SQL: name {table} among `captured_tables` of the resource (settings), then run"));
    }
    if !enabled || missing.is_some() {
        statements.push("-- smartpulse dev database".to_owned());
    }
    let mut notes = vec![format!("the log keeps at most the newest {rows_max} changes, whatever the retention says")];
    notes.extend(missing);
    if info.version.is_none() {
        notes.push(format!("{table} has no column VersionId, without which it cannot be captured"));
    }
    let mode = |mode, retention, loses: &str| ModePlan {
        mode,
        enabled,
        latency_floor: "half the poll interval: a change can be seen as soon as it is committed".to_owned(),
        retention,
        loses: loses.to_owned(),
        missing_rights: Vec::new(),
        statements: statements.clone(),
    };
    Ok(CapturePlan {
        table: table.clone(),
        server: format!("SQLite {}, embedded", rusqlite::version()),
        modes: vec![
            mode(CaptureMode::Cdc, Kept::For(retention), "nothing"),
            mode(
                CaptureMode::ChangeTracking,
                Kept::ForGood,
                "versions that are overwritten between two polls, and the images of deleted rows",
            ),
        ],
        notes,
    })
}
