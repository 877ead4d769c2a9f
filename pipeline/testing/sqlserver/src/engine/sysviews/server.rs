//! Databases, sessions, principals.

use super::super::catalog::{DATABASE, DATABASES};
use super::super::errors::Result;
use super::super::repr;
use super::{COLLATION, ColumnOf, Look, NAME, View, WORD, flag, number, text};
use crate::value::SqlType::{Bit, DateTime, Int, NVarChar, SmallInt, TinyInt, UniqueIdentifier};
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OptionalExtension};

const fn view(
    name: &'static str,
    physical: &'static str,
    object_id: i64,
    columns: &'static [ColumnOf],
    rows: fn(&Look<'_>, &Connection) -> Result<Vec<Vec<Cell>>>,
) -> View {
    View { database: None, schema: "sys", name, physical, object_id, columns, rows, permission: None, grows: None }
}

/// A GUID that the database keeps.
fn guid(connection: &Connection, name: &str) -> Result<Cell> {
    let kept: Option<String> =
        connection.query_row("SELECT value FROM sp_meta WHERE name = ?1", [name], |row| row.get(0)).optional()?;
    let guid = kept.and_then(|text| text.parse().ok());
    Ok(guid.map_or(Cell::Null, |guid| repr::encode(Value::Guid(guid))))
}

fn created(connection: &Connection) -> Result<i64> {
    Ok(connection
        .query_row("SELECT value FROM sp_state WHERE name = 'created'", [], |row| row.get(0))
        .optional()?
        .unwrap_or(0)
        / 10_000
        * 10_000)
}

pub(super) const VIEWS: &[View] = &[
    view(
        "databases",
        "sv_databases",
        -201,
        &[
            ("name", NAME, false),
            ("database_id", Int, false),
            ("create_date", DateTime, false),
            ("compatibility_level", TinyInt, false),
            ("collation_name", NAME, true),
            ("user_access_desc", WORD, true),
            ("is_read_only", Bit, true),
            ("state", TinyInt, true),
            ("state_desc", WORD, true),
            ("snapshot_isolation_state", TinyInt, true),
            ("snapshot_isolation_state_desc", WORD, true),
            ("is_read_committed_snapshot_on", Bit, true),
            ("recovery_model_desc", WORD, true),
            ("is_recursive_triggers_on", Bit, true),
            ("is_cdc_enabled", Bit, false),
            ("service_broker_guid", UniqueIdentifier, false),
            ("is_broker_enabled", Bit, false),
        ],
        |look, connection| {
            let options = &look.catalog.options;
            let created = created(connection)?;
            let mut rows = Vec::new();
            for (name, id) in DATABASES {
                let own = name == DATABASE;
                let snapshot = (own && options.snapshot_isolation) || matches!(name, "master" | "msdb");
                rows.push(vec![
                    text(name),
                    number(id),
                    number(created),
                    number(140),
                    text(COLLATION),
                    text("MULTI_USER"),
                    flag(false),
                    number(0),
                    text("ONLINE"),
                    flag(snapshot),
                    text(if snapshot { "ON" } else { "OFF" }),
                    flag(own && options.read_committed_snapshot),
                    text("FULL"),
                    flag(own && options.recursive_triggers),
                    flag(own && options.cdc),
                    guid(connection, "service_broker_guid")?,
                    flag(own),
                ]);
            }
            Ok(rows)
        },
    ),
    view(
        "database_recovery_status",
        "sv_database_recovery_status",
        -202,
        &[
            ("database_id", Int, false),
            ("database_guid", UniqueIdentifier, true),
            ("family_guid", UniqueIdentifier, true),
            ("last_log_backup_lsn", SqlType::Decimal(25, 0), true),
            ("recovery_fork_guid", UniqueIdentifier, true),
            ("first_recovery_fork_guid", UniqueIdentifier, true),
            ("fork_point_lsn", SqlType::Decimal(25, 0), true),
        ],
        |_, connection| {
            Ok(vec![vec![
                number(5),
                guid(connection, "service_broker_guid")?,
                guid(connection, "family_guid")?,
                Cell::Null,
                guid(connection, "recovery_fork_guid")?,
                Cell::Null,
                Cell::Null,
            ]])
        },
    ),
    view(
        "dm_exec_sessions",
        "sv_dm_exec_sessions",
        -203,
        &[
            ("session_id", SmallInt, false),
            ("login_name", NAME, false),
            ("host_name", NAME, true),
            ("program_name", NAME, true),
            ("status", NVarChar(Some(30)), false),
            ("database_id", SmallInt, false),
            ("is_user_process", Bit, false),
        ],
        |look, _| {
            Ok(vec![vec![
                number(look.session),
                text(look.login),
                text("STAND-IN-CLIENT"),
                text("client"),
                text("running"),
                number(5),
                flag(true),
            ]])
        },
    ),
    view(
        "dm_os_sys_info",
        "sv_dm_os_sys_info",
        -204,
        &[("sqlserver_start_time", DateTime, false), ("cpu_count", Int, false)],
        |look, _| Ok(vec![vec![number(look.core.started / 10_000 * 10_000), number(2)]]),
    ),
    view(
        "database_principals",
        "sv_database_principals",
        -205,
        &[
            ("name", NAME, false),
            ("principal_id", Int, false),
            ("type", SqlType::Char(1), false),
            ("type_desc", WORD, true),
        ],
        |_, _| {
            let principals = [
                ("public", 0, "R", "DATABASE_ROLE"),
                ("dbo", 1, "S", "SQL_USER"),
                ("guest", 2, "S", "SQL_USER"),
                ("db_owner", 16384, "R", "DATABASE_ROLE"),
            ];
            Ok(principals.map(|(name, id, kind, desc)| vec![text(name), number(id), text(kind), text(desc)]).to_vec())
        },
    ),
];
