//! Change tracking, change data capture, and the agent's jobs.

use super::super::catalog::DATABASE;
use super::super::errors::Result;
use super::super::functions::lock;
use super::super::track::lsn_bytes;
use super::super::{convert, repr};
use super::{ColumnOf, Look, NAME, View, WORD, flag, number, text};
use crate::value::SqlType::{BigInt, Bit, DateTime, Int, NVarChar, SmallInt, TinyInt, UniqueIdentifier};
use crate::value::{SqlType, Value};
use rusqlite::Connection;
use rusqlite::types::Value as Cell;

type Rows = fn(&Look<'_>, &Connection) -> Result<Vec<Vec<Cell>>>;

const STATE: &str = "VIEW DATABASE STATE";

const fn view(
    name: &'static str,
    physical: &'static str,
    object_id: i64,
    columns: &'static [ColumnOf],
    permission: Option<&'static str>,
    rows: Rows,
) -> View {
    View { database: None, schema: "sys", name, physical, object_id, columns, rows, permission, grows: None }
}

impl View {
    /// See [`View::grows`].
    const fn growing(mut self, column: (&'static str, &'static str)) -> Self {
        self.grows = Some(column);
        self
    }
}

const fn agent(
    name: &'static str,
    physical: &'static str,
    object_id: i64,
    columns: &'static [ColumnOf],
    rows: Rows,
) -> View {
    View {
        database: Some("msdb"),
        schema: "dbo",
        name,
        physical,
        object_id,
        columns,
        rows,
        permission: Some("SELECT MSDB"),
        grows: None,
    }
}

/// The number of the capture job in the agent's tables.
const CAPTURE_JOB: &str = "5b7f1d9e-6c1f-4b61-9d25-0e4f6a1c9a01";
const CLEANUP_JOB: &str = "5b7f1d9e-6c1f-4b61-9d25-0e4f6a1c9a02";

fn job(id: &str) -> Cell {
    id.parse().map_or(Cell::Null, |guid| repr::encode(Value::Guid(guid)))
}

/// A moment in the server's zone, as `datetime`.
fn local(look: &Look<'_>, utc: i64) -> Cell {
    if utc == 0 {
        return Cell::Null;
    }
    let ticks = utc + i64::from(look.core.offset_minutes()) * 60 * repr::TICKS_PER_SECOND;
    let value = Value::DateTime(repr::from_ticks(ticks));
    convert::convert(value, SqlType::DateTime2(7), DateTime, 0, convert::Excess::Cut).map_or(Cell::Null, repr::encode)
}

fn lsn_text(lsn: i64) -> Cell {
    let bytes = convert::hex(&lsn_bytes(lsn));
    text(format!("{}:{}:{}", &bytes[..8], &bytes[8..16], &bytes[16..]).to_lowercase())
}

pub(super) const VIEWS: &[View] = &[
    view(
        "change_tracking_databases",
        "sv_change_tracking_databases",
        -301,
        &[
            ("database_id", Int, false),
            ("is_auto_cleanup_on", TinyInt, true),
            ("retention_period", Int, true),
            ("retention_period_units", TinyInt, true),
            ("retention_period_units_desc", WORD, true),
            ("max_cleanup_version", BigInt, true),
        ],
        None,
        |look, _| {
            let options = &look.catalog.options;
            if !options.change_tracking {
                return Ok(Vec::new());
            }
            let units = match options.retention_units {
                1 => "MINUTES",
                2 => "HOURS",
                _ => "DAYS",
            };
            Ok(vec![vec![
                number(5),
                flag(options.auto_cleanup),
                number(options.retention),
                number(i64::from(options.retention_units)),
                text(units),
                Cell::Null,
            ]])
        },
    ),
    view(
        "change_tracking_tables",
        "sv_change_tracking_tables",
        -302,
        &[
            ("object_id", Int, false),
            ("is_track_columns_updated_on", Bit, false),
            ("min_valid_version", BigInt, true),
            ("begin_version", BigInt, true),
            ("cleanup_version", BigInt, true),
        ],
        None,
        |look, connection| {
            let mut statement =
                connection.prepare_cached("SELECT object_id, begun, cleanup, min_valid FROM sp_ct_table")?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let (id, begun, cleanup, valid): (i64, i64, i64, i64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                if look.catalog.tables.contains_key(&id) {
                    out.push(vec![number(id), flag(false), number(valid), number(begun), number(cleanup)]);
                }
            }
            Ok(out)
        },
    ),
    view(
        "dm_tran_commit_table",
        "sv_dm_tran_commit_table",
        -303,
        &[
            ("commit_ts", BigInt, false),
            ("xdes_id", BigInt, false),
            ("commit_lbn", BigInt, false),
            ("commit_csn", BigInt, false),
            ("commit_time", DateTime, false),
        ],
        Some(STATE),
        |look, connection| {
            let mut statement = connection.prepare_cached(
                "SELECT ts, time FROM sp_commit WHERE ts > (SELECT ifnull(max(c1), 0) FROM temp.sv_dm_tran_commit_table)",
            )?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let (ts, time): (i64, i64) = (row.get(0)?, row.get(1)?);
                out.push(vec![number(ts), number(ts + 1000), number(ts), number(ts), local(look, time)]);
            }
            Ok(out)
        },
    )
    .growing(("sp_commit", "ts")),
    view(
        "dm_cdc_log_scan_sessions",
        "sv_dm_cdc_log_scan_sessions",
        -304,
        &[
            ("session_id", Int, false),
            ("start_time", DateTime, true),
            ("end_time", DateTime, true),
            ("duration", BigInt, true),
            ("scan_phase", NVarChar(Some(200)), true),
            ("error_count", Int, true),
            ("start_lsn", NVarChar(Some(23)), true),
            ("current_lsn", NVarChar(Some(23)), true),
            ("end_lsn", NVarChar(Some(23)), true),
            ("tran_count", BigInt, true),
            ("last_commit_lsn", NVarChar(Some(23)), true),
            ("last_commit_time", DateTime, true),
            ("log_record_count", BigInt, true),
            ("schema_change_count", Int, true),
            ("command_count", BigInt, true),
            ("first_begin_cdc_lsn", NVarChar(Some(23)), true),
            ("last_commit_cdc_lsn", NVarChar(Some(23)), true),
            ("last_commit_cdc_time", DateTime, true),
            ("latency", Int, true),
            ("empty_scan_count", Int, true),
            ("failed_sessions_count", Int, true),
        ],
        Some(STATE),
        |look, _| {
            let scans = lock(&look.core.job).scans.clone();
            Ok(scans
                .iter()
                .map(|scan| {
                    let latency =
                        if scan.last_commit > 0 { (scan.ended - scan.last_commit) / repr::TICKS_PER_SECOND } else { 0 };
                    vec![
                        number(scan.id),
                        local(look, scan.began),
                        local(look, scan.ended),
                        number((scan.ended - scan.began) / repr::TICKS_PER_SECOND),
                        text("Done"),
                        number(0),
                        lsn_text(scan.last_lsn),
                        lsn_text(scan.last_lsn),
                        lsn_text(scan.last_lsn),
                        number(scan.transactions),
                        lsn_text(scan.last_lsn),
                        local(look, scan.last_commit),
                        number(scan.commands),
                        number(0),
                        number(scan.commands),
                        lsn_text(scan.last_lsn),
                        lsn_text(scan.last_lsn),
                        local(look, scan.last_commit),
                        number(latency),
                        flag(scan.transactions == 0),
                        number(0),
                    ]
                })
                .collect())
        },
    ),
    agent(
        "cdc_jobs",
        "sv_cdc_jobs",
        -305,
        &[
            ("database_id", Int, false),
            ("job_type", NVarChar(Some(20)), false),
            ("job_id", UniqueIdentifier, true),
            ("maxtrans", Int, true),
            ("maxscans", Int, true),
            ("continuous", Bit, true),
            ("pollinginterval", BigInt, true),
            ("retention", BigInt, true),
            ("threshold", BigInt, true),
        ],
        |look, connection| {
            if !look.catalog.options.cdc {
                return Ok(Vec::new());
            }
            let mut statement = connection.prepare_cached(
                "SELECT name, maxtrans, maxscans, continuous, polling, retention, threshold FROM sp_job",
            )?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let name: String = row.get(0)?;
                let id = job(if name == "capture" { CAPTURE_JOB } else { CLEANUP_JOB });
                let mut cells = vec![number(5), text(name), id];
                for at in 1..7 {
                    cells.push(repr::cell(row.get_ref(at)?));
                }
                out.push(cells);
            }
            Ok(out)
        },
    ),
    agent(
        "sysjobs",
        "sv_sysjobs",
        -306,
        &[
            ("job_id", UniqueIdentifier, false),
            ("name", NAME, false),
            ("enabled", TinyInt, false),
            ("description", NVarChar(Some(512)), true),
            ("category_id", Int, false),
        ],
        |look, _| {
            if !look.catalog.options.cdc {
                return Ok(Vec::new());
            }
            Ok([("capture", CAPTURE_JOB, "CDC Log Scan Job", 16), ("cleanup", CLEANUP_JOB, "CDC Cleanup Job", 17)]
                .map(|(kind, id, description, category)| {
                    vec![
                        job(id),
                        text(format!("cdc.{DATABASE}_{kind}")),
                        number(1),
                        text(description),
                        number(category),
                    ]
                })
                .to_vec())
        },
    ),
    agent(
        "sysjobactivity",
        "sv_sysjobactivity",
        -307,
        &[
            ("session_id", Int, false),
            ("job_id", UniqueIdentifier, false),
            ("run_requested_date", DateTime, true),
            ("start_execution_date", DateTime, true),
            ("last_executed_step_id", Int, true),
            ("last_executed_step_date", DateTime, true),
            ("stop_execution_date", DateTime, true),
            ("job_history_id", Int, true),
        ],
        |look, _| {
            if !look.catalog.options.cdc {
                return Ok(Vec::new());
            }
            let state = lock(&look.core.job);
            let (started, stopped) = (state.started, state.stopped);
            drop(state);
            Ok(vec![vec![
                number(1),
                job(CAPTURE_JOB),
                local(look, started),
                local(look, started),
                number(1),
                local(look, started),
                stopped.map_or(Cell::Null, |stopped| local(look, stopped)),
                Cell::Null,
            ]])
        },
    ),
    agent(
        "syssessions",
        "sv_syssessions",
        -308,
        &[("session_id", Int, false), ("agent_start_date", DateTime, false)],
        |look, _| Ok(vec![vec![number(1), local(look, look.core.started)]]),
    ),
    view(
        "dm_server_services",
        "sv_dm_server_services",
        -309,
        &[
            ("servicename", NVarChar(Some(256)), false),
            ("status", Int, true),
            ("status_desc", NVarChar(Some(256)), false),
            ("startup_type", SmallInt, true),
        ],
        None,
        |_, _| {
            Ok(["SQL Server (MSSQLSERVER)", "SQL Server Agent (MSSQLSERVER)"]
                .map(|name| vec![text(name), number(4), text("Running"), number(2)])
                .to_vec())
        },
    ),
    view(
        "dm_cdc_errors",
        "sv_dm_cdc_errors",
        -310,
        &[
            ("session_id", Int, false),
            ("phase_number", Int, false),
            ("entry_time", DateTime, false),
            ("error_number", Int, true),
            ("error_message", NVarChar(Some(1024)), true),
        ],
        Some(STATE),
        |_, _| Ok(Vec::new()),
    ),
];
