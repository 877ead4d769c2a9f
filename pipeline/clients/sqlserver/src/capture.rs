//! Capture of changes, in both of SQL Server's ways.
//!
//! - [`position`]: where capture is. [`fold`] and [`instances`]: what rows of change tables mean, and which table is read;
//!   both pure.
//! - [`change_tracking`], [`cdc`]: the polls. [`health`]: how capture is doing.
//!
//! Contract: that of [`Database`](smartpulse_clients::database::Database). Beyond it:
//! - A poll that finds nothing is one statement, without a transaction and without a look at the table.
//! - What a poll reads is of one moment where the database allows SNAPSHOT isolation, and converges where it does not.
//! - Memory is bounded by the page that is asked for, however large a transaction is.
//! - Commit times are the server's, in UTC. The server keeps them in its own local time, and converts with the offset that is
//!   in force now: about an hour a year they are an hour off, and never later than now. Those of change tracking need VIEW
//!   SERVER STATE (Azure SQL: VIEW DATABASE STATE): with less, those of the newest changes are when they were found.
//! - A row whose document cannot be told is given as such; it holds up nothing.

pub mod cdc;
pub mod change_tracking;
pub mod fold;
pub mod health;
pub mod instances;
pub mod position;

use crate::catalogue::TableInfo;
use crate::connection::{Connection, Param};
use crate::database::Context;
use crate::errors::Outcome;
use crate::retrying;
use crate::rows;
use crate::statements::capture as sql;
use fold::Rules;
use instances::{Captured, Instance, InstanceShape, Next};
use position::InstanceId;
use smartpulse_clients::database::{CaptureHealth, CaptureMode, Poll, Watermark};
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::{Position, Timestamp};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tiberius::{ColumnData, Row};

/// `EngineEdition` of Azure SQL Database.
pub(crate) const AZURE: i64 = 5;

/// What SQL Server answers when a right is missing.
const NO_RIGHT: [u32; 4] = [229, 297, 300, 371];

/// Capture from one database.
#[derive(Debug)]
pub struct Capture {
    cx: Arc<Context>,
    azure: OnceLock<bool>,
    /// Whether the login may ask when change-tracking versions were committed; found out at the first poll.
    commit_times: AtomicBool,
    /// By table and instance. Bounded by the captured tables, with two instances each.
    shapes: Mutex<HashMap<String, Vec<Known>>>,
}

/// What is known of a capture instance, as long as what is known of the table holds.
#[derive(Debug, Clone)]
struct Known {
    id: InstanceId,
    table: Arc<TableInfo>,
    shape: Arc<InstanceShape>,
    rules: Rules,
}

impl Capture {
    /// Capture from this database. Nothing is opened.
    #[must_use]
    pub fn new(cx: Arc<Context>) -> Self {
        Self { cx, azure: OnceLock::new(), commit_times: AtomicBool::new(true), shapes: Mutex::default() }
    }

    /// The position after the newest committed change.
    ///
    /// # Errors
    /// As the contract says; fatal where the mode is not enabled, with what to do.
    pub async fn head(&self, table: &str, mode: CaptureMode) -> Result<Position> {
        retrying!(self.cx.capture_pool, "head", c => self.head_on(c, table, mode).await.map_err(|f| self.cx.catalogue.learn(table, f)))
    }

    /// The changes after a position.
    ///
    /// # Errors
    /// As the contract says; fatal where the mode is not enabled, with what to do.
    pub async fn changes(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Result<Poll> {
        retrying!(self.cx.capture_pool, "changes", c => self.changes_on(c, table, mode, after, limit).await.map_err(|f| self.cx.catalogue.learn(table, f)))
    }

    /// Marks this moment, where the stream may be behind what was committed.
    ///
    /// # Errors
    /// As the contract says; fatal where there is nothing to write the mark to.
    pub async fn watermark(&self, mode: CaptureMode) -> Result<Option<Watermark>> {
        match mode {
            CaptureMode::ChangeTracking => Ok(None),
            CaptureMode::Cdc => retrying!(self.cx.capture_pool, "watermark", c => cdc::mark(c).await).map(Some),
        }
    }

    /// Whether the stream has come past a mark.
    ///
    /// # Errors
    /// As the contract says.
    pub async fn has_captured(&self, mark: &Watermark) -> Result<bool> {
        retrying!(self.cx.capture_pool, "watermark", c => cdc::is_past(c, mark).await)
    }

    /// How capture is doing for someone at a position.
    ///
    /// # Errors
    /// As the contract says.
    pub async fn health(&self, table: &str, mode: CaptureMode, position: &Position) -> Result<CaptureHealth> {
        retrying!(self.cx.pool, "health", c => health::read(self, c, mode, position).await.map_err(|f| self.cx.catalogue.learn(table, f)))
    }

    async fn head_on(&self, connection: &mut Connection, table: &str, mode: CaptureMode) -> Outcome<Position> {
        match mode {
            CaptureMode::ChangeTracking => change_tracking::head(self, connection, table).await,
            CaptureMode::Cdc => cdc::head(self, connection, table).await,
        }
    }

    async fn changes_on(
        &self,
        connection: &mut Connection,
        table: &str,
        mode: CaptureMode,
        after: &Position,
        limit: usize,
    ) -> Outcome<Poll> {
        match mode {
            CaptureMode::Cdc => cdc::poll(self, connection, table, after, limit).await,
            CaptureMode::ChangeTracking => {
                match change_tracking::poll(self, connection, table, after, limit).await {
                    // The right to commit times was taken away, or is not what the server says it is.
                    Err(failure)
                        if failure.number().is_some_and(|number| NO_RIGHT.contains(&number))
                            && self.commit_times.swap(false, Ordering::Relaxed) =>
                    {
                        Err(failure.worth_another_try())
                    }
                    outcome => outcome,
                }
            }
        }
    }

    /// Whether Azure SQL Database answers. Asked once.
    async fn azure(&self, connection: &mut Connection) -> Outcome<bool> {
        if let Some(azure) = self.azure.get() {
            return Ok(*azure);
        }
        let found = connection.rows("looking up the server", sql::SERVER, &[]).await?;
        let azure = found.first().and_then(|row| rows::integer(row, 0)) == Some(AZURE);
        if found.first().and_then(|row| rows::integer(row, 1)) != Some(1) {
            self.commit_times.store(false, Ordering::Relaxed);
        }
        Ok(*self.azure.get_or_init(|| azure))
    }

    /// Whether the table may have got other columns since it was looked at: another instance tells of its rows from here on.
    fn is_outdated(&self, table: &TableInfo, next: &Next) -> bool {
        let shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        match next {
            Next::Idle => false,
            Next::Changed { .. } | Next::Lost(_) => true,
            Next::Read { instance, .. } => {
                let known = shapes.get(&table.table.name);
                known.is_none_or(|known| known.iter().all(|known| known.id != instance.id))
            }
        }
    }

    /// The columns of a capture instance, and the rules of its table's versions.
    async fn known(&self, connection: &mut Connection, table: &Arc<TableInfo>, instance: &Instance) -> Outcome<Known> {
        let lock = || self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lock().get(&table.table.name).and_then(|k| k.iter().find(|k| k.id == instance.id)).cloned();
        if let Some(known) = before.as_ref().filter(|known| Arc::ptr_eq(&known.table, table)) {
            return Ok(known.clone());
        }
        let found =
            connection.rows("looking up captured columns", sql::CDC_COLUMNS, &[Param::int(instance.id.object)]).await?;
        let captured = found.iter().map(|row| captured(table, row)).collect();
        let triggers = connection.rows("looking up triggers", sql::TRIGGERED, &[Param::int(table.object_id)]).await?;
        let shape = InstanceShape::new(table, &instance.name, captured)?;
        let rules = Rules {
            bumped: triggers.first().and_then(|row| rows::integer(row, 0)).unwrap_or(0) > 0,
            tombstones: table.table.tombstones,
        };
        if before.is_none_or(|known| known.shape.absent != shape.absent) && !shape.absent.is_empty() {
            tracing::warn!(
                table = table.table.name,
                instance = instance.name,
                absent = shape.absent.join(", "),
                "the capture instance does not have all columns: documents of changes lack them until a new one is made"
            );
        }
        let known = Known { id: instance.id, table: Arc::clone(table), shape: Arc::new(shape), rules };
        let mut shapes = lock();
        let kept = shapes.entry(table.table.name.clone()).or_default();
        kept.retain(|other| other.id != instance.id);
        if kept.len() > 1 {
            kept.remove(0);
        }
        kept.push(known.clone());
        Ok(known)
    }
}

fn captured(table: &TableInfo, row: &Row) -> Captured {
    let number = |place| rows::integer(row, place).and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let column = table.columns.iter().find(|column| column.id == number(1));
    Captured {
        name: rows::text(row, 0).unwrap_or_default().to_owned(),
        column: number(1),
        ordinal: number(2),
        computed: number(3) != 0,
        partial: column.is_some_and(|column| {
            column.sql_type.ends_with("(max)") || matches!(column.sql_type.as_str(), "text" | "ntext" | "image" | "xml")
        }),
    }
}

/// The server's clock: what it shows in local time, and what that is in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Now.
    pub now: Timestamp,
    /// How far local time is ahead of UTC.
    pub offset_minutes: i64,
}

impl Clock {
    /// From a `datetimeoffset` of now.
    fn read(row: &Row, place: usize) -> Self {
        let offset_minutes = match row.get_column_data(place) {
            Ok(ColumnData::DateTimeOffset(Some(time))) => i64::from(time.offset()),
            _ => 0,
        };
        Self { now: rows::time(row, place).unwrap_or_else(Timestamp::now), offset_minutes }
    }

    /// A local time of the server in UTC. Never later than now: where the clocks went back since, it would be.
    #[must_use]
    pub fn utc(&self, local: Timestamp) -> Timestamp {
        Timestamp::from_millis(local.as_millis() - self.offset_minutes * 60_000).min(self.now)
    }

    /// The commit time at a place of a row; now where it has none.
    fn commit_time(&self, row: &Row, place: usize) -> Timestamp {
        rows::time(row, place).map_or(self.now, |local| self.utc(local))
    }
}

/// The incarnation of the database, from the recovery fork and the broker's id at two places of a row.
fn incarnation(row: &Row, place: usize) -> String {
    let id = |place| match row.get_column_data(place) {
        Ok(ColumnData::Guid(id)) => id.map(|id| id.to_string()),
        _ => None,
    };
    // Without the right to see the fork the other is all that there is: a restore keeps it, and only one that lost what was
    // read is noticed then.
    id(place).or_else(|| id(place + 1)).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_18_times_of_the_server_are_local_and_told_in_utc() {
        let noon = 1_767_265_200_000; // 2026-01-01T11:00:00Z
        let clock = Clock { now: Timestamp::from_millis(noon), offset_minutes: 60 };
        let local = Timestamp::from_millis(noon + 3_600_000 - 1_500);
        assert_eq!(clock.utc(local), Timestamp::from_millis(noon - 1_500));
        let west = Clock { offset_minutes: -210, ..clock };
        assert_eq!(west.utc(Timestamp::from_millis(noon - 210 * 60_000 - 7)), Timestamp::from_millis(noon - 7));
        // The clocks went back by an hour between the commit and now.
        let before = Timestamp::from_millis(noon + 2 * 3_600_000 - 1_000);
        assert_eq!(clock.utc(before), clock.now);
    }
}
