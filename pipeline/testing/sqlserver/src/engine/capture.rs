//! The capture job: it takes committed transactions from the log into the change tables. And the clean-up of both kinds.

use super::catalog::Catalog;
use super::errors::{Reach, Result, fault};
use super::functions::lock;
use super::track::{self, lsn_bytes};
use super::{Core, clock, convert, repr};
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OptionalExtension};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The writer's name of the job.
const JOB: i64 = -1;

/// Scans that `sys.dm_cdc_log_scan_sessions` shows.
const SCANS_MAX: usize = 100;

/// One scan of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CaptureRun {
    /// Its number.
    pub id: i64,
    /// When it began, in units of 100 ns since the year 1, UTC.
    pub began: i64,
    /// When it ended.
    pub ended: i64,
    /// Transactions that it took.
    pub transactions: i64,
    /// Records that it took.
    pub commands: i64,
    /// The last LSN that it has seen.
    pub last_lsn: i64,
    /// When the last transaction that it took was committed; 0 for none.
    pub last_commit: i64,
}

/// Starts the job's thread; it ends with the server.
pub(crate) fn start(core: &Arc<Core>) -> io::Result<()> {
    let weak = Arc::downgrade(core);
    std::thread::Builder::new().name("capture job".to_owned()).spawn(move || work(&weak))?;
    Ok(())
}

/// How long the thread sleeps at most, so that it notices the server's end.
const NAP: Duration = Duration::from_millis(200);

fn work(weak: &Weak<Core>) {
    let mut connection = None;
    let mut waited = Duration::ZERO;
    loop {
        let Some(core) = weak.upgrade() else { return };
        if connection.is_none() {
            connection = core.connect().ok();
        }
        let Some(look) = connection.as_ref().filter(|_| core.catalog().options.cdc) else {
            drop(core);
            std::thread::sleep(NAP / 4);
            continue;
        };
        let polling = polling(&core, look);
        if waited >= polling && lock(&core.job).running {
            waited = Duration::ZERO;
            if let Err(fault) = scan_with(&core, look, false)
                && fault.reach != Reach::Cancelled
            {
                tracing::warn!(error = %fault.text, "the capture job of the stand-in failed");
            }
            continue;
        }
        drop(core);
        let nap = NAP.min(polling.saturating_sub(waited)).max(Duration::from_millis(2));
        std::thread::sleep(nap);
        waited += nap;
    }
}

fn polling(core: &Core, connection: &Connection) -> Duration {
    if let Some(polling) = core.settings().polling {
        return polling.max(Duration::from_millis(1));
    }
    let seconds = connection
        .prepare_cached("SELECT polling FROM sp_job WHERE name = 'capture'")
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)))
        .unwrap_or(5);
    // An interval of 0 means without a pause.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(5)).max(Duration::from_millis(5))
}

/// A moment as `cdc.lsn_time_mapping` has it: the server's local time, as `datetime`.
fn local(core: &Core, ticks: i64) -> Cell {
    let ticks = ticks + i64::from(core.offset_minutes()) * 60 * repr::TICKS_PER_SECOND;
    let value = Value::DateTime(repr::from_ticks(ticks));
    convert::convert(value, SqlType::DateTime2(7), SqlType::DateTime, 0, convert::Excess::Cut)
        .map_or(Cell::Null, repr::encode)
}

/// Runs as the writer, in one transaction.
pub(super) fn as_writer<T>(core: &Core, writer: i64, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let connection = core.connect()?;
    connection.create_collation("CI", repr::compare_text)?;
    core.begin_write(writer, None, None)?;
    let result =
        connection.execute_batch("BEGIN IMMEDIATE").map_err(Into::into).and_then(|()| work(&connection)).and_then(
            |value| {
                connection.execute_batch("COMMIT")?;
                Ok(value)
            },
        );
    if result.is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    core.end_write(writer);
    result
}

/// One scan of the log, by somebody else than the job's thread.
pub(crate) fn scan(core: &Core, now: bool) -> Result<CaptureRun> {
    scan_with(core, &core.connect()?, now)
}

/// One scan: `maxtrans` times `maxscans` transactions at most, none younger than the delay unless `now` is wanted.
fn scan_with(core: &Core, look: &Connection, now: bool) -> Result<CaptureRun> {
    let began = clock::utc_ticks();
    let (delay, idle_mark) = {
        let settings = core.settings();
        (settings.capture_delay, settings.idle_mark)
    };
    let ticks = |duration: Duration| i64::try_from(duration.as_micros() * 10).unwrap_or(i64::MAX);
    let limit_time = if now { i64::MAX } else { began - ticks(delay) };
    let catalog = core.catalog();
    let physical = |name: &str| catalog.table("cdc", name).map(|table| table.physical.clone());
    let (Some(mapping), Some(tables)) = (physical("lsn_time_mapping"), physical("change_tables")) else {
        return Ok(CaptureRun::default());
    };
    if !now && !anything(look, &mapping, limit_time, began - ticks(idle_mark))? {
        return Ok(note(core, CaptureRun { began, ended: clock::utc_ticks(), ..CaptureRun::default() }));
    }
    let run = as_writer(core, JOB, |connection| {
        // The catalogue may have changed before it was our turn.
        let catalog = core.catalog();
        let most: i64 = connection
            .query_row("SELECT maxtrans * maxscans FROM sp_job WHERE name = 'capture'", [], |row| row.get(0))
            .optional()?
            .unwrap_or(5000);
        let most = if now { i64::MAX } else { most };
        let mut run = CaptureRun { began, ..CaptureRun::default() };
        {
            let mut statement = connection
                .prepare("SELECT lsn, began, ended, commands FROM sp_log_tx WHERE ended <= ?1 ORDER BY lsn LIMIT ?2")?;
            let mut insert = connection
                .prepare(&format!("INSERT INTO {mapping} (c1, c2, c3, c4, c5) VALUES (?1, ?2, ?3, ?4, ?1)"))?;
            let mut rows = statement.query([limit_time, most])?;
            while let Some(row) = rows.next()? {
                let (lsn, began, ended, commands): (i64, i64, i64, i64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                run.last_lsn = lsn;
                if commands < 0 {
                    // The record of an instance being made: it begins here.
                    connection.execute(
                        &format!("UPDATE {tables} SET c5 = ?1 WHERE c1 = ?2 AND c5 IS NULL"),
                        rusqlite::params![lsn_bytes(lsn).to_vec(), -commands],
                    )?;
                    continue;
                }
                run.transactions += 1;
                run.commands += commands;
                run.last_commit = ended;
                let transaction = lsn.to_be_bytes()[..].to_vec();
                insert.execute(rusqlite::params![
                    lsn_bytes(lsn).to_vec(),
                    local(core, began),
                    local(core, ended),
                    [vec![0, 0], transaction].concat()
                ])?;
            }
        }
        if run.last_lsn > 0 {
            for instance in catalog.tables.values().flat_map(|table| &table.instances) {
                move_rows(connection, &catalog, instance, run.last_lsn)?;
            }
            connection.execute("DELETE FROM sp_log_tx WHERE lsn <= ?1", [run.last_lsn])?;
        }
        if run.transactions == 0 {
            mark_idle(core, connection, &mapping, began, if now { 0 } else { ticks(idle_mark) })?;
        }
        Ok(run)
    })?;
    Ok(note(core, CaptureRun { ended: clock::utc_ticks(), ..run }))
}

/// Whether a scan would do something, found out without the writer's turn.
fn anything(connection: &Connection, mapping: &str, limit_time: i64, idle_since: i64) -> Result<bool> {
    let waiting: bool =
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM sp_log_tx WHERE ended <= ?1)", [limit_time], |row| row.get(0))?;
    if waiting {
        return Ok(true);
    }
    let last: Option<Vec<u8>> =
        connection.query_row(&format!("SELECT max(c1) FROM {mapping}"), [], |row| row.get(0))?;
    let lsn: i64 = connection.query_row("SELECT value FROM sp_state WHERE name = 'lsn'", [], |row| row.get(0))?;
    let marked: i64 = state(connection, "idle_mark")?;
    Ok(last.map_or(0, |last| track::lsn_number(&last)) <= lsn && marked <= idle_since)
}

fn state(connection: &Connection, name: &str) -> Result<i64> {
    Ok(connection
        .query_row("SELECT value FROM sp_state WHERE name = ?1", [name], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}

/// Says in the time mapping how far the log has been read, when nothing was captured for a while.
fn mark_idle(core: &Core, connection: &Connection, mapping: &str, now: i64, interval: i64) -> Result<()> {
    let behind: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM sp_log_tx)", [], |row| row.get(0))?;
    if behind || state(connection, "idle_mark")? > now - interval {
        return Ok(());
    }
    connection.execute("INSERT OR REPLACE INTO sp_state (name, value) VALUES ('idle_mark', ?1)", [now])?;
    let lsn = track::next_lsn(connection)?;
    let time = local(core, now);
    connection.execute(
        &format!("INSERT INTO {mapping} (c1, c2, c3, c4, c5) VALUES (?1, ?2, ?2, x'00', ?1)"),
        rusqlite::params![lsn_bytes(lsn).to_vec(), time],
    )?;
    Ok(())
}

fn move_rows(connection: &Connection, catalog: &Catalog, instance: &super::catalog::Instance, last: i64) -> Result<()> {
    let Some(table) = catalog.tables.get(&instance.table) else { return Ok(()) };
    let columns = table.columns.iter().map(|column| format!("c{}", column.id)).collect::<Vec<_>>().join(", ");
    connection.execute(
        &format!(
            "INSERT INTO {} ({columns}) SELECT {columns} FROM {} WHERE lsn <= ?1 ORDER BY rowid",
            table.physical, instance.log
        ),
        [last],
    )?;
    connection.execute(&format!("DELETE FROM {} WHERE lsn <= ?1", instance.log), [last])?;
    Ok(())
}

fn note(core: &Core, run: CaptureRun) -> CaptureRun {
    let mut job = lock(&core.job);
    let id = job.scans.last().map_or(1, |last| last.id + 1);
    let run = CaptureRun { id, ..run };
    // Empty scans one after another are one line, as in the view.
    match job.scans.last_mut() {
        Some(last) if last.transactions == 0 && run.transactions == 0 => {
            *last = CaptureRun { id: last.id, began: last.began, ..run }
        }
        _ => job.scans.push(run),
    }
    if job.scans.len() > SCANS_MAX {
        job.scans.remove(0);
    }
    run
}

/// Change tracking forgets changes up to a version, or what is older than the retention.
pub(crate) fn clean_up_ct(core: &Core, version: Option<i64>) -> Result<()> {
    let catalog = core.catalog();
    let options = &catalog.options;
    as_writer(core, JOB, |connection| {
        let version = match version {
            Some(version) => version,
            None => {
                let before = clock::utc_ticks() - track::retention_ticks(options.retention, options.retention_units);
                connection
                    .query_row("SELECT ifnull(max(ts), 0) FROM sp_commit WHERE time < ?1", [before], |row| row.get(0))?
            }
        };
        for table in catalog.tables.values().filter(|table| table.change_tracking) {
            track::clean_up(connection, table.id, version)?;
        }
        connection.execute("DELETE FROM sp_commit WHERE ts <= ?1", [version])?;
        Ok(())
    })
}

/// An instance, or every one, forgets changes below an LSN.
pub(crate) fn clean_up_cdc(core: &Core, instance: Option<&str>, lsn: &[u8; 10]) -> Result<()> {
    as_writer(core, JOB, |connection| clean_up_instances(core, connection, instance, lsn))
}

/// The same, within a transaction.
pub(crate) fn clean_up_instances(
    core: &Core,
    connection: &Connection,
    instance: Option<&str>,
    lsn: &[u8; 10],
) -> Result<()> {
    let catalog = core.catalog();
    let Some(tables) = catalog.table("cdc", "change_tables") else {
        return Err(fault(22901, 16, "The database 'smartpulse' is not enabled for Change Data Capture."));
    };
    let wanted = |name: &str| instance.is_none_or(|instance| super::catalog::same(instance, name));
    for instance in catalog.tables.values().flat_map(|table| &table.instances).filter(|instance| wanted(&instance.name))
    {
        let Some(table) = catalog.tables.get(&instance.table) else { continue };
        connection.execute(&format!("DELETE FROM {} WHERE c1 < ?1", table.physical), [&lsn[..]])?;
        connection.execute(
            &format!("UPDATE {} SET c5 = ?1 WHERE c1 = ?2 AND c5 < ?1", tables.physical),
            rusqlite::params![&lsn[..], instance.table],
        )?;
    }
    if let Some(mapping) = catalog.table("cdc", "lsn_time_mapping") {
        let least: Option<Vec<u8>> =
            connection.query_row(&format!("SELECT min(c5) FROM {}", tables.physical), [], |row| row.get(0))?;
        if let Some(least) = least {
            connection.execute(
                &format!("DELETE FROM {0} WHERE c1 < ?1 AND c1 <> (SELECT max(c1) FROM {0})", mapping.physical),
                [least],
            )?;
        }
    }
    Ok(())
}

/// What the clean-up jobs do.
pub(crate) fn clean_up_by_retention(core: &Core) -> Result<()> {
    clean_up_ct(core, None)?;
    let catalog = core.catalog();
    let Some(mapping) = catalog.table("cdc", "lsn_time_mapping").filter(|_| catalog.options.cdc) else { return Ok(()) };
    let connection = core.connect()?;
    let minutes: i64 = connection
        .query_row("SELECT retention FROM sp_job WHERE name = 'cleanup'", [], |row| row.get(0))
        .optional()?
        .unwrap_or(4320);
    let before = clock::local_ticks(core.offset_minutes()) - track::retention_ticks(minutes, 1);
    let lsn: Option<Vec<u8>> =
        connection.query_row(&format!("SELECT min(c1) FROM {} WHERE c3 >= ?1", mapping.physical), [before], |row| {
            row.get(0)
        })?;
    match lsn.and_then(|lsn| <[u8; 10]>::try_from(lsn).ok()) {
        Some(lsn) => clean_up_cdc(core, None, &lsn),
        None => Ok(()),
    }
}
