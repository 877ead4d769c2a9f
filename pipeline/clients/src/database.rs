//! The database that holds the truth: capture of its changes, reads and writes.
//!
//! Contract:
//! - A row's `VersionId` rises by exactly one with every committed write, whoever writes, and goes on over
//!   deletes and re-creations.
//! - [`Database::changes`] gives every change committed after a position once per position, in commit order,
//!   never an uncommitted one. In `cdc` mode nothing collapses; in `change_tracking` mode one net change per key.
//! - A position taken by [`Database::head`] *before* a scan, and streamed from after it, misses nothing.
//! - Documents of one row are spelled identically (same bytes) by scan, capture and read.

use crate::delivery::SharedDelivery;
use crate::ledger::SharedLedger;
use crate::notifications::SharedNotifications;
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::{Key, Operation, Position, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// How changes are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMode {
    /// Net changes: one per key since the position, with the row as it is now. Cheapest; collapses updates.
    ChangeTracking,
    /// Every change with its full image; nothing collapses.
    Cdc,
}

/// A table as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name, as spelled in the catalogue.
    pub name: String,
    /// Its columns, in order, with their declared types.
    pub columns: Vec<Column>,
    /// The captured modes that are enabled on it.
    pub capture: Vec<CaptureMode>,
    /// True when whatever removes a row leaves a tombstone. Of another table, capture itself remembers which keys there
    /// are, so that a repeated snapshot can tell of those that vanished.
    pub tombstones: bool,
}

/// A column as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name in the database, PascalCase.
    pub name: String,
    /// Its name in documents, camelCase.
    pub member: String,
    /// The declared type, as the catalogue spells it.
    pub declared_type: String,
    /// Whether NULL is allowed.
    pub nullable: bool,
}

/// A row with its key and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entity, as documents spell it.
    pub key: Key,
    /// Its `VersionId`.
    pub version: i64,
    /// The full row as a JSON object in camelCase, columns in table order, computed members included.
    pub document: Bytes,
    /// Of a scan: why the row has no JSON form (a text that is not UTF-8, say), and so no document. One such row must
    /// not hold up its neighbours.
    pub unreadable: Option<String>,
}

/// What is left of a deleted row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The entity.
    pub key: Key,
    /// The version of its delete.
    pub version: i64,
    /// When it was deleted.
    pub deleted_at: Timestamp,
}

/// One captured change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The entity.
    pub key: Key,
    /// Its `VersionId` after the change; of a delete: the tombstone's, or 0 where the database does not know it, because
    /// its table leaves no tombstones. Whoever remembers the row's last version then adds one.
    pub version: i64,
    /// What happened.
    pub operation: Operation,
    /// The full row after the change. Of a delete: the last image where the mode keeps one.
    pub document: Option<Bytes>,
    /// Why the row has no JSON form, and so no document, where that is so.
    pub unreadable: Option<String>,
    /// When it was committed.
    pub commit_time: Timestamp,
    /// Capture from here does not repeat this change.
    pub position: Position,
}

/// What one poll found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePage {
    /// Changes in commit order, at most as many as asked for.
    pub changes: Vec<Change>,
    /// Where the next poll starts; equal to the given position when nothing happened.
    pub next: Position,
    /// True when more changes are known to wait.
    pub more: bool,
}

/// A moment in what the database has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark(pub Vec<u8>);

/// What a poll may find instead of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poll {
    /// The changes after the position.
    Changes(ChangePage),
    /// Clean-up has passed the position: what happened since can only be had by a new snapshot.
    PositionLost(String),
    /// Everything that was captured of the table in its old shape was given; from here on it has another one.
    SchemaChanged(SchemaChange),
}

/// A captured table has another shape from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// What changed, for a person.
    pub reason: String,
    /// Where capture goes on in the new shape. The position that was polled stays good for asking again.
    pub next: Position,
}

/// How a table's capture is doing, as the database itself sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureHealth {
    /// Why the database records no changes at present (a stopped capture job, say), although nothing says that there
    /// are none.
    pub stopped: Option<String>,
    /// How long until clean-up passes the position.
    pub runway: Kept,
}

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kept {
    /// For so long.
    For(Duration),
    /// Nothing cleans it.
    ForGood,
    /// The login may not see what would tell.
    Unknown,
}

/// What `smartpulse plan` says of a table's capture. Nothing was written to find it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapturePlan {
    /// The table.
    pub table: String,
    /// What kind of database answers, with its version.
    pub server: String,
    /// Each mode that the database knows.
    pub modes: Vec<ModePlan>,
    /// What else one should know of the table.
    pub notes: Vec<String>,
}

/// One mode of a table's capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModePlan {
    /// Which.
    pub mode: CaptureMode,
    /// Whether it is enabled.
    pub enabled: bool,
    /// How old a change is when it can be seen at the earliest, and why.
    pub latency_floor: String,
    /// How long changes are kept.
    pub retention: Kept,
    /// What the mode does not tell.
    pub loses: String,
    /// Rights that the login lacks.
    pub missing_rights: Vec<String>,
    /// The statements that somebody with the rights must run, in order; none when everything is as it should be.
    pub statements: Vec<String>,
}

/// What became of rows that were inserted where absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inserted {
    /// Rows that are new.
    pub inserted: usize,
    /// Rows whose `Id` was there already, which changed nothing.
    pub present: usize,
}

/// What to list of the forecasts; newest `forecastDate` first, then by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ForecastQuery {
    /// Only these companies', each once and in order; of none of them, nothing.
    pub companies: Option<Arc<[Box<str>]>>,
    /// Only this unit's.
    pub production_unit_id: Option<String>,
    /// Only with `forecastDate` at or after this, RFC 3339 UTC with milliseconds.
    pub from: Option<String>,
    /// Only with `forecastDate` before this.
    pub to: Option<String>,
    /// How many to pass over.
    pub skip: u32,
    /// How many to give at most.
    pub take: u32,
}

/// What to read of the table `Logs`; newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only lines of these levels.
    pub levels: Vec<&'static str>,
    /// Only lines of then or later.
    pub since: Option<Timestamp>,
    /// Only lines of this component.
    pub component: Option<String>,
    /// How many to give at most.
    pub limit: usize,
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many rows match in all.
    pub total: u64,
    /// The rows of the page.
    pub rows: Vec<Row>,
}

/// A write of one row. Members are camelCase names of columns; values are JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A new row; `id` is among the members.
    Insert {
        /// The columns that are set.
        members: Map<String, Value>,
    },
    /// Sets members of an existing row.
    Update {
        /// Which row.
        key: Key,
        /// Only if the row has this version.
        expected_version: Option<i64>,
        /// The columns that are set.
        members: Map<String, Value>,
    },
    /// Removes a row.
    Delete {
        /// Which row.
        key: Key,
        /// Only if the row has this version.
        expected_version: Option<i64>,
    },
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Committed. The row after it (of a delete: the key and the tombstone's version with the last image).
    Done(Row),
    /// There is no such row.
    NotFound,
    /// The row has another version than expected: this one.
    VersionMismatch(i64),
    /// The insert's id exists already.
    Exists,
}

/// A database resource.
#[async_trait]
pub trait Database: Send + Sync {
    /// Answers when the database does.
    async fn ping(&self) -> Result<()>;
    /// Creates what is missing of the schema, triggers and capture, and migrates an older one.
    async fn create_schema(&self) -> Result<()>;
    /// The table as the catalogue knows it; an error names the tables there are.
    async fn table(&self, name: &str) -> Result<Table>;

    /// The position after the newest committed change of the table.
    async fn head(&self, table: &str, mode: CaptureMode) -> Result<Position>;
    /// The changes after a position, at most `limit`.
    async fn changes(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Result<Poll>;
    /// Marks this moment, where [`Self::changes`] may be behind what was committed. Nothing where it never is.
    async fn watermark(&self, _mode: CaptureMode) -> Result<Option<Watermark>> {
        Ok(None)
    }
    /// Whether [`Self::changes`], asked from now on, gives everything that was committed before the mark was made.
    async fn has_captured(&self, _mark: &Watermark) -> Result<bool> {
        Ok(true)
    }
    /// True when a poll that finds nothing costs the database nothing, so that capture need not slow down while
    /// nothing changes.
    fn idle_poll_is_free(&self) -> bool {
        false
    }
    /// How often capture polls while changes come, where the YAML does not say.
    fn poll_interval(&self) -> Duration {
        Duration::from_millis(10)
    }
    /// How the capture of a table is doing for someone at this position. Asked every few seconds.
    async fn capture_health(&self, table: &str, mode: CaptureMode, position: &Position) -> Result<CaptureHealth>;
    /// What a table's capture needs and gives. Writes nothing.
    async fn capture_plan(&self, table: &str) -> Result<CapturePlan>;
    /// Where capture keeps its place when several instances may capture: beside the data. Nothing where the state
    /// file of the one instance does.
    fn ledger(&self) -> Option<SharedLedger> {
        None
    }
    /// The devices and the mail queue, where the database has them.
    fn delivery(&self) -> Option<SharedDelivery> {
        None
    }
    /// Users, their preferences and inboxes, where the database has them.
    fn notifications(&self) -> Option<SharedNotifications> {
        None
    }
    /// The tombstones of a table's section by ascending key in the database's own order, starting after `after`, at most `limit`: what a
    /// repeated snapshot needs to tell of rows that vanished unseen.
    async fn tombstones(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Tombstone>>;
    /// Rows by ascending key in the database's own order, starting after `after`, at most `limit`; fewer than `limit`
    /// means the end.
    async fn scan(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Row>>;

    /// The rows of `keys` that exist, in no particular order.
    async fn get(&self, table: &str, keys: &[Key]) -> Result<Vec<Row>>;
    /// A page of forecasts.
    async fn list_forecasts(&self, query: &ForecastQuery) -> Result<Page>;
    /// Writes, in order, in one transaction: all or nothing is committed when it fails, and each outcome is
    /// given when it succeeds (a `NotFound` among them changes nothing and stops nothing).
    async fn write(&self, table: &str, writes: Vec<Write>) -> Result<Vec<Written>>;
    /// Inserts rows whose `Id` is absent, in one transaction and in bulk where the database can: all or nothing. Of
    /// rows with one `Id` the first counts. The table needs no `VersionId`.
    ///
    /// Rejected when a row can never be inserted: then the caller finds out which by giving them one by one.
    async fn insert_absent(&self, table: &str, rows: &[Map<String, Value>]) -> Result<Inserted>;
    /// Lines of the table `Logs`, newest first.
    async fn logs(&self, _query: &LogQuery) -> Result<Vec<Row>> {
        Err(Error::fatal("this database keeps no logs"))
    }
    /// Removes a step of what the table `Logs` need not keep: lines of `before` and earlier, and those beyond the newest
    /// `rows_max`. How many went; none when there is nothing left to remove.
    async fn prune_logs(&self, _before: Timestamp, _rows_max: u32) -> Result<u64> {
        Ok(0)
    }
}

/// A shared database resource.
pub type SharedDatabase = Arc<dyn Database>;

/// The text up to a number of UTF-16 units: what a column of that many characters holds in SQL Server.
#[must_use]
pub fn cut(text: &str, units: usize) -> &str {
    let mut room = units;
    let end = text.char_indices().find(|(_, c)| match room.checked_sub(c.len_utf16()) {
        Some(left) => {
            room = left;
            false
        }
        None => true,
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// Inserts rows where their id is absent, and says which can never go in, by their places, with the database's reason.
///
/// A batch that is refused is halved until the bad rows stand alone: each of a batch of n costs about 2 log2 n further calls.
/// Rows go in in their order, so that of two with one id the first counts.
///
/// # Errors
/// The database's, but for refusals.
pub async fn insert_each(
    database: &dyn Database,
    table: &str,
    rows: &[Map<String, Value>],
) -> Result<Vec<(usize, String)>> {
    let mut refused = Vec::new();
    // Pieces that wait, the first on top.
    let whole = 0..rows.len();
    let mut pieces = vec![whole];
    while let Some(piece) = pieces.pop() {
        let Some(part) = rows.get(piece.clone()).filter(|part| !part.is_empty()) else { continue };
        match database.insert_absent(table, part).await {
            Ok(_) => {}
            Err(error) if error.kind() != ErrorKind::Rejected => return Err(error),
            Err(error) if part.len() == 1 => refused.push((piece.start, error.chain())),
            Err(_) => {
                let middle = piece.start + part.len() / 2;
                pieces.extend([middle..piece.end, piece.start..middle]);
            }
        }
    }
    Ok(refused)
}
