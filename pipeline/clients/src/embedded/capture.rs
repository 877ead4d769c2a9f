//! Capture from the tables that the triggers keep: `ct_<table>` for net changes, `cdc_<table>_CT` for all.
//!
//! A position is `seq:<number>@<incarnation>`: the sequence number of the last change taken, and the random id that
//! the database got when it was created, so that a position of another file is noticed. Numbers are assigned in
//! commit order (SQLite has one writer at a time), so nothing can appear below a number that was read.
//!
//! Position lost: another incarnation; a number above the newest (the file was restored from an older copy; one
//! that regrew past the number is not noticed); in `cdc` mode, a number below the cleaned part of the log. Net changes
//! are never cleaned.
//!
//! Cost: a poll with nothing new reads the `data_version` of the file (shared memory) and no table. The commit time of
//! a change is that of its statement.

use super::connection::{Failure, Opener, Slot};
use super::rows::{TableInfo, quote};
use crate::database::{CaptureMode, Change, ChangePage, Poll};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Operation, Position, Timestamp};
use std::collections::HashMap;

/// How many rows of the log one clean-up transaction looks at: a few milliseconds of the writer's time.
const PRUNE_STEP_ROWS: i64 = 2_000;

/// The connection that polls, with what its last empty polls saw.
#[derive(Debug)]
pub(super) struct CaptureSlot {
    pub connection: Connection,
    /// By table and mode: the `data_version` before an empty poll, and the position it was empty after.
    /// Meaningful for this connection only. Bounded by the tables there are.
    empty: HashMap<(String, CaptureMode), (i64, Position)>,
}

impl Slot for CaptureSlot {
    fn open(opener: &Opener) -> Result<Self> {
        Ok(Self { connection: opener.open()?, empty: HashMap::new() })
    }
}

impl CaptureSlot {
    /// The `data_version`, and whether a poll of this table after this position is known to be empty at it.
    pub fn nothing_new(&self, table: &str, mode: CaptureMode, after: &Position) -> Result<(i64, bool), Failure> {
        let version: i64 = self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let seen = self.empty.get(&(table.to_owned(), mode));
        Ok((version, seen.is_some_and(|(at, position)| *at == version && position == after)))
    }

    /// Remembers that nothing came after a position at a `data_version`.
    pub fn note_empty(&mut self, table: &str, mode: CaptureMode, version: i64, after: &Position) {
        self.empty.insert((table.to_owned(), mode), (version, after.clone()));
    }
}

/// The position after the newest committed change.
///
/// # Errors
/// Rejected when the table is not captured.
pub(super) fn head(connection: &mut Connection, info: &TableInfo) -> Result<Position, Failure> {
    let transaction = connection.transaction()?;
    let edges = Edges::read(&transaction, info)?;
    Ok(edges.position(edges.newest))
}

/// The changes after a position.
///
/// # Errors
/// Rejected when the table is not captured or an image has no JSON form.
pub(super) fn changes(
    connection: &mut Connection,
    info: &TableInfo,
    mode: CaptureMode,
    after: &Position,
    limit: usize,
) -> Result<Poll, Failure> {
    let transaction = connection.transaction()?;
    let edges = Edges::read(&transaction, info)?;
    let from = match edges.check(mode, after) {
        Ok(from) => from,
        Err(why) => return Ok(Poll::PositionLost(why)),
    };
    let sql = select(info, mode);
    let mut statement = transaction.prepare_cached(&sql)?;
    // One more than asked for tells whether more wait.
    let mut rows = statement.query([from, i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)])?;
    let mut changes = Vec::new();
    let mut more = false;
    while let Some(row) = rows.next()? {
        if changes.len() == limit {
            more = true;
            break;
        }
        changes.push(match mode {
            CaptureMode::Cdc => logged(row, info, &edges)?,
            CaptureMode::ChangeTracking => net(row, info, &edges, from)?,
        });
    }
    let next = changes.last().map_or_else(|| after.clone(), |change| change.position.clone());
    Ok(Poll::Changes(ChangePage { changes, next, more }))
}

/// When the first change after a position was committed, as far as the log goes; none when there is no such change.
///
/// # Errors
/// Rejected when the table is not captured.
pub(super) fn next_commit(
    connection: &mut Connection,
    info: &TableInfo,
    after: &Position,
) -> Result<Option<Timestamp>, Failure> {
    let transaction = connection.transaction()?;
    // Of a position that is lost already: the oldest that is left.
    let from = Edges::read(&transaction, info)?.check(CaptureMode::Cdc, after).unwrap_or(0);
    let log = quote(&format!("cdc_{}_CT", info.table.name));
    let sql = format!("SELECT __commit_time FROM {log} WHERE __seq > ?1 ORDER BY __seq LIMIT 1");
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query([from])?;
    rows.next()?.map(|row| commit_time(row, 0)).transpose()
}

/// Cleans one step of the log: what is older than `before` or beyond the newest `rows_max`. True when there may be more.
///
/// # Errors
/// SQLite's.
pub(super) fn prune(
    connection: &mut Connection,
    info: &TableInfo,
    before: Timestamp,
    rows_max: i64,
) -> Result<bool, Failure> {
    let log = quote(&format!("cdc_{}_CT", info.table.name));
    let edge = {
        let newest = newest(connection, info)?;
        let before = before.to_string();
        let sql = format!("SELECT __seq, __commit_time FROM {log} ORDER BY __seq LIMIT ?1");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([PRUNE_STEP_ROWS])?;
        let (mut edge, mut seen, mut kept) = (None, 0, false);
        while let Some(row) = rows.next()? {
            let (seq, time): (i64, String) = (row.get(0)?, row.get(1)?);
            if time >= before && seq > newest.saturating_sub(rows_max) {
                kept = true;
                break;
            }
            edge = Some(seq);
            seen += 1;
        }
        edge.map(|edge| (edge, seen == PRUNE_STEP_ROWS && !kept))
    };
    let Some((edge, more)) = edge else { return Ok(false) };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(&format!("DELETE FROM {log} WHERE __seq <= ?1"), [edge])?;
    transaction.execute(
        "UPDATE smartpulse_capture SET PrunedTo = max(PrunedTo, ?1) WHERE TableName = ?2",
        rusqlite::params![edge, info.table.name],
    )?;
    transaction.commit()?;
    Ok(more)
}

/// The last image of a deleted row, with the tombstone's version: what its log row holds.
///
/// # Errors
/// SQLite's.
pub(super) fn last_logged(
    connection: &Connection,
    info: &TableInfo,
    key: &str,
) -> Result<Option<crate::database::Row>, Failure> {
    let (log, tracked, name) = (
        quote(&format!("cdc_{}_CT", info.table.name)),
        quote(&format!("ct_{}", info.table.name)),
        quote(&info.key_name),
    );
    let sql =
        format!("SELECT {} FROM {log} WHERE __seq = (SELECT __seq FROM {tracked} WHERE {name} = ?1)", info.columns_sql);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([key])?;
    rows.next()?.map(|row| info.row(row, 0)).transpose()
}

/// What positions can be: read in the same transaction as the changes.
struct Edges {
    incarnation: String,
    newest: i64,
    pruned_to: i64,
}

impl Edges {
    fn read(transaction: &Transaction<'_>, info: &TableInfo) -> Result<Self, Failure> {
        let pruned_to: Option<i64> = transaction
            .prepare_cached("SELECT PrunedTo FROM smartpulse_capture WHERE TableName = ?1")?
            .query_row([&info.table.name], |row| row.get(0))
            .optional()?;
        let pruned_to = pruned_to.ok_or_else(|| {
            let table = &info.table.name;
            Error::rejected(format!("table {table} is not captured: name it among the database's captured_tables"))
        })?;
        let incarnation = transaction
            .prepare_cached("SELECT Incarnation FROM smartpulse_database")?
            .query_row([], |row| row.get(0))?;
        Ok(Self { incarnation, newest: newest(transaction, info)?, pruned_to })
    }

    fn position(&self, seq: i64) -> Position {
        Position::from(format!("seq:{seq}@{}", self.incarnation))
    }

    /// The sequence number of a position, or why it is lost.
    fn check(&self, mode: CaptureMode, position: &Position) -> Result<i64, String> {
        let parsed = std::str::from_utf8(position.as_bytes())
            .ok()
            .and_then(|text| text.strip_prefix("seq:")?.split_once('@'))
            .and_then(|(seq, incarnation)| Some((seq.parse::<i64>().ok()?, incarnation)));
        let Some((seq, incarnation)) = parsed else {
            return Err(format!("position {position} is not one of an embedded database"));
        };
        if incarnation != self.incarnation {
            return Err(format!("position {position} was taken in another database than {}", self.incarnation));
        }
        if seq > self.newest {
            return Err(format!(
                "position {position} is above the newest change {}: an older copy was restored",
                self.newest
            ));
        }
        if mode == CaptureMode::Cdc && seq < self.pruned_to {
            return Err(format!(
                "position {position} is in the part of the log, up to {}, that was cleaned",
                self.pruned_to
            ));
        }
        Ok(seq)
    }
}

/// The sequence number of the newest change: AUTOINCREMENT keeps it, whatever is cleaned.
fn newest(connection: &Connection, info: &TableInfo) -> Result<i64, Failure> {
    let newest: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?
        .query_row([format!("cdc_{}_CT", info.table.name)], |row| row.get(0))
        .optional()?;
    Ok(newest.unwrap_or(0))
}

fn select(info: &TableInfo, mode: CaptureMode) -> String {
    let table = &info.table.name;
    match mode {
        CaptureMode::Cdc => format!(
            "SELECT __seq, __operation, __commit_time, {} FROM {} WHERE __seq > ?1 ORDER BY __seq LIMIT ?2",
            info.columns_sql,
            quote(&format!("cdc_{table}_CT"))
        ),
        CaptureMode::ChangeTracking => {
            let key = quote(&info.key_name);
            let columns: Vec<String> = info.table.columns.iter().map(|c| format!("t.{}", quote(&c.name))).collect();
            format!(
                "SELECT ct.__seq, ct.__operation, ct.__commit_time, ct.__created_seq, ct.VersionId, ct.{key}, {}
                 FROM {} AS ct LEFT JOIN {} AS t ON t.{key} = ct.{key}
                 WHERE ct.__seq > ?1 ORDER BY ct.__seq LIMIT ?2",
                columns.join(", "),
                quote(&format!("ct_{table}")),
                quote(table)
            )
        }
    }
}

fn logged(row: &Row<'_>, info: &TableInfo, edges: &Edges) -> Result<Change, Failure> {
    let operation = match row.get_ref(1)? {
        ValueRef::Text(b"INSERT") => Operation::Insert,
        ValueRef::Text(b"DELETE") => Operation::Delete,
        _ => Operation::Update,
    };
    let (document, unreadable) = info.image(row, 3)?;
    Ok(Change {
        key: info.key(row, 3)?,
        version: info.version(row, 3)?,
        operation,
        document,
        unreadable,
        commit_time: commit_time(row, 2)?,
        position: edges.position(row.get(0)?),
    })
}

/// The operation is relative to the position: an INSERT when the row was (last) created after it.
fn net(row: &Row<'_>, info: &TableInfo, edges: &Edges, from: i64) -> Result<Change, Failure> {
    const COLUMNS: usize = 6;
    let deleted = matches!(row.get_ref(1)?, ValueRef::Text(b"DELETE"));
    let created: i64 = row.get(3)?;
    let (operation, key, (document, unreadable)) = if deleted {
        (Operation::Delete, row.get::<_, String>(5)?.into(), (None, None))
    } else {
        let operation = if created > from { Operation::Insert } else { Operation::Update };
        (operation, info.key(row, COLUMNS)?, info.image(row, COLUMNS)?)
    };
    Ok(Change {
        key,
        version: row.get(4)?,
        operation,
        document,
        unreadable,
        commit_time: commit_time(row, 2)?,
        position: edges.position(row.get(0)?),
    })
}

fn commit_time(row: &Row<'_>, column: usize) -> Result<Timestamp, Failure> {
    let text: String = row.get(column)?;
    Ok(text.parse().map_err(|e| Error::fatal(format!("the log has the commit time {text:?}")).because(e))?)
}
