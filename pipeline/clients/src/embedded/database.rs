//! The embedded database: one SQLite file that any program may write.
//!
//! Contract: that of [`Database`]. Versions, tombstones and both capture modes are kept by triggers
//! (`config/sql/sqlite/capture.sql`), so they hold whoever writes, with these limits:
//! - `REPLACE` of a live row is one UPDATE; where the writer has set `recursive_triggers`, SQLite shows it as
//!   a DELETE and an INSERT, and so it is logged, each with its own version.
//! - `RETURNING` shows a row before its version was bumped.
//! - The log is kept for `retention_hours` and at most `log_rows_max` rows; a position below is lost, explicitly.
//!   It is cleaned in small steps while this resource writes or polls.
//!
//! Concurrency: WAL; one writer connection, `readers` for reads, one for capture. Another process that
//! holds the write lock is waited for, 5 s at most. Reads never wait for writers.
//!
//! Queries in the metrics: `ping`, `schema`, `table`, `head`, `changes`, `health`, `plan`, `tombstones`, `scan`, `get`, `list`,
//! `write`, `insert`, `clean`, `devices`, `remove_device`, `claim_mails`, `settle_mails`, and those
//! of `notifications.rs`.

use super::capture::{self, CaptureSlot};
use super::connection::{Failure, Opener, Pool, Synchronous};
use super::delivery::SqliteDelivery;
use super::migrate;
use super::plan;
use super::rows::{Catalogue, TableInfo};
use super::statements::{self, insert_absent, list, read_row, write_one};
use crate::database::{
    CaptureHealth, CaptureMode, CapturePlan, Database, ForecastQuery, Inserted, Kept, LogQuery, Page, Poll, Row, Table,
    Tombstone, Write, Written,
};
use crate::delivery::SharedDelivery;
use crate::metrics::DatabaseMetrics;
use crate::notifications::SharedNotifications;
use async_trait::async_trait;
use prometheus::Registry;
use rusqlite::{Connection, TransactionBehavior};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::{Key, Position, Timestamp};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// How often the log is looked at for rows to clean. One step cleans 2,000 rows and the next follows at once while
/// there are more, so that this bounds idle cost, not the speed of cleaning.
const CLEAN_INTERVAL_MS: i64 = 10_000;

/// An embedded SQLite database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SqliteConfig {
    /// The file, relative to the data folder (an absolute path is taken as it is). Created when it is missing.
    /// Default `main.db`.
    pub path: String,
    /// The tables whose changes are captured, in both modes. Each needs a primary key of one column and a `VersionId`.
    /// Default `[Forecasts, ProductionUnits]`.
    pub captured_tables: Vec<String>,
    /// How long the full-image log is kept, in hours. A consumer that was away for longer takes a new snapshot.
    /// Default 48, like SQL Server's change tracking; 0 keeps nothing that `log_rows_max` does not.
    pub retention_hours: u32,
    /// How many rows the full-image log keeps at most, the newest. Bounds the file: about 300 bytes per row of
    /// `Forecasts`. Default 5,000,000.
    pub log_rows_max: u32,
    /// How many reads run at the same time. Default 4, at least 1.
    pub readers: u32,
    /// `normal`: a commit survives the death of the process; `full`: also the loss of power, at a disk flush
    /// per commit. Default `normal`.
    pub synchronous: Synchronous,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            path: "main.db".to_owned(),
            captured_tables: vec!["Forecasts".to_owned(), "ProductionUnits".to_owned()],
            retention_hours: 48,
            log_rows_max: 5_000_000,
            readers: 4,
            synchronous: Synchronous::Normal,
        }
    }
}

/// The running database resource.
#[derive(Debug)]
pub struct SqliteDatabase {
    config: SqliteConfig,
    file: PathBuf,
    writer: Pool<Connection>,
    readers: Pool<Connection>,
    capture: Pool<CaptureSlot>,
    catalogue: Arc<Catalogue>,
    metrics: DatabaseMetrics,
    /// When the log is to be looked at again, in milliseconds since 1970.
    clean_at: AtomicI64,
}

impl SqliteDatabase {
    /// The resource named `name`. The file and its folder are created by the first call.
    ///
    /// # Errors
    /// Fatal when the metrics are refused.
    pub fn open(name: &str, config: &SqliteConfig, data_dir: &Path, registry: &Registry) -> Result<Self> {
        let opener = Opener::new(data_dir.join(&config.path), config.synchronous);
        Ok(Self {
            config: config.clone(),
            file: opener.path().to_owned(),
            writer: Pool::new(opener.clone(), 1),
            readers: Pool::new(opener.clone(), config.readers.max(1) as usize),
            capture: Pool::new(opener, 1),
            catalogue: Arc::default(),
            metrics: DatabaseMetrics::register(name, registry)?,
            clean_at: AtomicI64::new(0),
        })
    }

    /// What it has measured so far.
    #[must_use]
    pub fn metrics(&self) -> &DatabaseMetrics {
        &self.metrics
    }

    /// Cleans the logs now, down to what the settings keep.
    ///
    /// # Errors
    /// As [`super::connection::classify`] says.
    pub async fn clean(&self) -> Result<()> {
        for table in &self.config.captured_tables {
            while self.clean_step(table).await? {}
        }
        Ok(())
    }

    async fn clean_step(&self, table: &str) -> Result<bool> {
        let start = Instant::now();
        let before = Timestamp::now().as_millis() - i64::from(self.config.retention_hours) * 3_600_000;
        let rows_max = i64::from(self.config.log_rows_max);
        let (catalogue, table) = (Arc::clone(&self.catalogue), table.to_owned());
        let more = self
            .writer
            .run("clean", move |connection| {
                let info = catalogue.get(connection, &table)?;
                capture::prune(connection, &info, Timestamp::from_millis(before), rows_max)
            })
            .await?;
        self.metrics.observe("clean", start);
        Ok(more)
    }

    /// Cleans a step of the table's log when it is time. A failure only delays it: the call that brought us here
    /// has succeeded already.
    async fn clean_when_due(&self, table: &str) {
        let now = Timestamp::now().as_millis();
        let due = self.clean_at.load(Ordering::Relaxed);
        let next = now + CLEAN_INTERVAL_MS;
        if now < due || self.clean_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        match self.clean_step(table).await {
            Ok(true) => self.clean_at.store(0, Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => tracing::warn!(table, error = error.chain(), "the capture log could not be cleaned"),
        }
    }

    /// What is told to people, on the same connections.
    fn people(&self) -> SqliteDelivery {
        let (writer, readers) = (self.writer.clone(), self.readers.clone());
        SqliteDelivery::new(writer, readers, Arc::clone(&self.catalogue), self.metrics.clone())
    }

    async fn read<R: Send + 'static>(
        &self,
        query: &'static str,
        table: &str,
        work: impl FnOnce(&mut Connection, &TableInfo) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R> {
        let start = Instant::now();
        let (catalogue, table) = (Arc::clone(&self.catalogue), table.to_owned());
        let result = self
            .readers
            .run(query, move |connection| {
                let info = catalogue.get(connection, &table)?;
                work(connection, &info)
            })
            .await;
        self.metrics.observe(query, start);
        result
    }
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn ping(&self) -> Result<()> {
        let start = Instant::now();
        let result = self
            .readers
            .run("ping", |connection| Ok(connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?))
            .await;
        self.metrics.observe("ping", start);
        result
    }

    async fn create_schema(&self) -> Result<()> {
        let start = Instant::now();
        let captured = self.config.captured_tables.clone();
        let result =
            self.writer.run("create the schema", move |connection| migrate::create_schema(connection, &captured)).await;
        self.metrics.observe("schema", start);
        result
    }

    async fn table(&self, name: &str) -> Result<Table> {
        self.read("table", name, |_, info| Ok(info.table.clone())).await
    }

    async fn head(&self, table: &str, _mode: CaptureMode) -> Result<Position> {
        self.read("head", table, capture::head).await
    }

    async fn changes(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Result<Poll> {
        let start = Instant::now();
        let (catalogue, name, from) = (Arc::clone(&self.catalogue), table.to_owned(), after.clone());
        let (poll, read) = self
            .capture
            .run("changes", move |slot| {
                let (version, nothing) = slot.nothing_new(&name, mode, &from)?;
                if nothing {
                    let page = crate::database::ChangePage { changes: Vec::new(), next: from, more: false };
                    return Ok((Poll::Changes(page), false));
                }
                let info = catalogue.get(&slot.connection, &name)?;
                let poll = capture::changes(&mut slot.connection, &info, mode, &from, limit)?;
                if matches!(&poll, Poll::Changes(page) if page.changes.is_empty() && !page.more) {
                    slot.note_empty(&name, mode, version, &from);
                }
                Ok((poll, true))
            })
            .await?;
        if read {
            self.metrics.observe("changes", start);
        }
        self.clean_when_due(table).await;
        Ok(poll)
    }

    fn idle_poll_is_free(&self) -> bool {
        // An empty poll reads `PRAGMA data_version`, a counter in shared memory.
        true
    }

    fn delivery(&self) -> Option<SharedDelivery> {
        Some(Arc::new(self.people()))
    }

    fn notifications(&self) -> Option<SharedNotifications> {
        Some(Arc::new(self.people()))
    }

    async fn tombstones(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Tombstone>> {
        let after = after.unwrap_or_default().to_owned();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read("tombstones", table, move |connection, info| {
            let sql =
                "SELECT Id, VersionId, DeletedAt FROM Tombstones WHERE Section = ?1 AND Id > ?2 ORDER BY Id LIMIT ?3";
            let section = migrate::section(&info.table.name);
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(rusqlite::params![section, after, limit], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?))
            })?;
            rows.map(|row| {
                let (key, version, time) = row?;
                let deleted_at = time.parse().map_err(|error| {
                    Error::rejected(format!("DeletedAt of tombstone {key} is {time:?}, not RFC 3339")).because(error)
                })?;
                Ok(Tombstone { key: key.into(), version, deleted_at })
            })
            .collect()
        })
        .await
    }

    async fn scan(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Row>> {
        let after = after.map(str::to_owned);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read("scan", table, move |connection, info| statements::scan(connection, info, after.as_deref(), limit))
            .await
    }

    async fn get(&self, table: &str, keys: &[Key]) -> Result<Vec<Row>> {
        let keys = keys.to_vec();
        self.read("get", table, move |connection, info| {
            let transaction = connection.transaction()?;
            let mut rows = Vec::with_capacity(keys.len());
            for key in &keys {
                rows.extend(read_row(&transaction, info, key)?);
            }
            Ok(rows)
        })
        .await
    }

    async fn list_forecasts(&self, query: &ForecastQuery) -> Result<Page> {
        let query = query.clone();
        self.read("list", "Forecasts", move |connection, info| list(connection, info, &query)).await
    }

    async fn capture_health(&self, table: &str, mode: CaptureMode, position: &Position) -> Result<CaptureHealth> {
        let position = position.clone();
        let retention = Duration::from_secs(u64::from(self.config.retention_hours) * 3_600);
        self.read("health", table, move |connection, info| {
            let stopped = plan::missing_triggers(connection, info)?;
            let oldest = capture::next_commit(connection, info, &position)?;
            let runway = match (mode, oldest) {
                (CaptureMode::ChangeTracking, _) => Kept::ForGood,
                (CaptureMode::Cdc, None) => Kept::For(retention),
                (CaptureMode::Cdc, Some(time)) => {
                    let age = Duration::from_millis(Timestamp::now().millis_since(time));
                    Kept::For(retention.saturating_sub(age))
                }
            };
            Ok(CaptureHealth { stopped, runway })
        })
        .await
    }

    async fn capture_plan(&self, table: &str) -> Result<CapturePlan> {
        let retention = Duration::from_secs(u64::from(self.config.retention_hours) * 3_600);
        let rows_max = self.config.log_rows_max;
        // Opening would make it; who only asks leaves nothing behind.
        if !self.file.exists() {
            return Err(Error::rejected(format!(
                "there is no database at {} yet; the first start of a pipeline makes it",
                self.file.display()
            )));
        }
        self.read("plan", table, move |connection, info| plan::plan(connection, info, retention, rows_max)).await
    }

    async fn insert_absent(&self, table: &str, rows: &[Map<String, Value>]) -> Result<Inserted> {
        let start = Instant::now();
        let (catalogue, name, rows) = (Arc::clone(&self.catalogue), table.to_owned(), rows.to_vec());
        let result = self
            .writer
            .run("insert", move |connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let info = catalogue.get(&transaction, &name)?;
                let mut outcome = Inserted::default();
                for (number, row) in rows.iter().enumerate() {
                    match insert_absent(&transaction, &info, row).map_err(|failure| in_row(failure, number, &name))? {
                        true => outcome.inserted += 1,
                        false => outcome.present += 1,
                    }
                }
                transaction.commit()?;
                Ok(outcome)
            })
            .await;
        self.metrics.observe("insert", start);
        if result.is_ok() && self.config.captured_tables.iter().any(|t| t == table) {
            self.clean_when_due(table).await;
        }
        result
    }

    async fn logs(&self, query: &LogQuery) -> Result<Vec<Row>> {
        let query = query.clone();
        self.read("logs", "Logs", move |connection, info| statements::logs(connection, info, &query)).await
    }

    async fn prune_logs(&self, before: Timestamp, rows_max: u32) -> Result<u64> {
        let start = Instant::now();
        let removed = self
            .writer
            .run("clean the logs", move |connection| statements::prune_logs(connection, before, rows_max))
            .await;
        self.metrics.observe("clean", start);
        removed
    }

    async fn write(&self, table: &str, writes: Vec<Write>) -> Result<Vec<Written>> {
        let start = Instant::now();
        let (catalogue, name) = (Arc::clone(&self.catalogue), table.to_owned());
        let result = self
            .writer
            .run("write", move |connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let info = catalogue.get(&transaction, &name)?;
                let written =
                    writes.iter().map(|write| write_one(&transaction, &info, write)).collect::<Result<Vec<_>, _>>()?;
                transaction.commit()?;
                Ok(written)
            })
            .await;
        self.metrics.observe("write", start);
        if result.is_ok() && self.config.captured_tables.iter().any(|t| t == table) {
            self.clean_when_due(table).await;
        }
        result
    }
}

/// A row that is at fault, by its place in the batch.
fn in_row(failure: Failure, number: usize, table: &str) -> Failure {
    let error = failure.into_error("insert");
    match error.kind() {
        ErrorKind::Rejected => {
            Failure::Own(Error::rejected(format!("row {number} cannot be inserted into {table}")).because(error))
        }
        _ => Failure::Own(error),
    }
}
