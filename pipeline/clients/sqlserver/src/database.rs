//! The SQL Server database resource.
//!
//! Contract: that of [`Database`]. Versions and tombstones are kept by triggers (`config/sql/sqlserver/versions.sql`), so they
//! hold whoever writes.
//!
//! What fails because another was in the way (deadlock, lock time-out, a connection that a restart took away) is tried three
//! times in all, within 30 s: reads, and transactions of which nothing has remained. A write whose COMMIT was sent and
//! not answered is in doubt: the error says so, and it is not tried again.
//!
//! Queries in the metrics: `ping`, `schema`, `table`, `head`, `changes`, `tombstones`, `scan`, `get`, `list`, `write`,
//! `insert_absent`, `watermark`, `health`, `plan`, `lease`, `ledger`, `devices`, `remove_device`, `claim_mails`, `settle_mails`,
//! `users`, `switched_off`, `switch`, `claim_quiet`, `inbox`, `inbox_after`, `unread`, `mark_read`, `add_device`, `deliveries`.

use crate::capture::Capture;
use crate::catalogue::Catalogue;
use crate::config::SqlServerConfig;
use crate::delivery::SqlServerDelivery;
use crate::ledger::SqlServerLedger;
use crate::pool::{Pool, Server};
use crate::{bulk, plan, read, retrying, schema, write};
use async_trait::async_trait;
use prometheus::Registry;
use serde_json::{Map, Value};
use smartpulse_clients::database::{
    CaptureHealth, CaptureMode, CapturePlan, Database, ForecastQuery, Inserted, LogQuery, Page, Poll, Row, Table,
    Tombstone, Watermark, Write, Written,
};
use smartpulse_clients::delivery::SharedDelivery;
use smartpulse_clients::ledger::SharedLedger;
use smartpulse_clients::metrics::DatabaseMetrics;
use smartpulse_clients::notifications::SharedNotifications;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::{Key, Position, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often capture polls while changes come: half of it is the least latency, and a poll of a quiet table costs the
/// server about 0.1 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How many connections the ledger has: a call takes a round trip, and each captured table makes one about every second.
const LEDGER_CONNECTIONS: usize = 2;

/// What reads or writes many rows may take so many times longer than another statement.
const TIMEOUTS: u32 = 6;

/// What the parts of the resource share.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub config: SqlServerConfig,
    /// For reads and writes, `pool_max` connections.
    pub pool: Pool,
    /// For capture, so that it does not wait for reads: one connection per captured table and one more. How capture is doing is
    /// asked with those of reads: it may have to wait for locks of others.
    pub capture_pool: Pool,
    /// For the ledger alone: a lease that is renewed late is lost, whatever else goes on.
    pub ledger_pool: Pool,
    /// The tables.
    pub catalogue: Catalogue,
    /// What is measured, by the name of the query.
    pub metrics: DatabaseMetrics,
}

impl Context {
    /// What these settings come to. Nothing is opened.
    ///
    /// # Errors
    /// Fatal when the settings contradict each other or the metrics are refused.
    pub fn new(name: &str, config: &SqlServerConfig, registry: &Registry) -> Result<Arc<Self>> {
        let server = Server::new(config.connect()?);
        Ok(Arc::new(Self {
            pool: Pool::new(Arc::clone(&server), config.pool_max as usize),
            capture_pool: Pool::new(Arc::clone(&server), config.captured_tables.len() + 1),
            ledger_pool: Pool::new(server, LEDGER_CONNECTIONS),
            catalogue: Catalogue::new(config),
            metrics: DatabaseMetrics::register(name, registry)?,
            config: config.clone(),
        }))
    }

    /// How long one batch, or one page of a table or of its changes, may take.
    #[must_use]
    pub fn batch_timeout(&self) -> Duration {
        Duration::from_millis(self.config.command_timeout_ms) * TIMEOUTS
    }
}

/// The running database resource.
#[derive(Debug)]
pub struct SqlServerDatabase {
    cx: Arc<Context>,
    capture: Capture,
    ledger: Arc<SqlServerLedger>,
}

impl SqlServerDatabase {
    /// The resource named `name`. The first call connects.
    ///
    /// # Errors
    /// Fatal when the settings contradict each other or the metrics are refused.
    pub fn open(name: &str, config: &SqlServerConfig, registry: &Registry) -> Result<Self> {
        let cx = Context::new(name, config, registry)?;
        let ledger = Arc::new(SqlServerLedger::new(Arc::clone(&cx)));
        Ok(Self { capture: Capture::new(Arc::clone(&cx)), ledger, cx })
    }

    /// What its parts share.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.cx
    }

    /// What it has measured so far.
    #[must_use]
    pub fn metrics(&self) -> &DatabaseMetrics {
        &self.cx.metrics
    }

    /// Counts a query, whatever became of it.
    async fn measured<T>(&self, query: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let result = work.await;
        self.cx.metrics.observe(query, start);
        result
    }
}

/// A call on a table with a pooled connection: what is known of the table is read again when it proves out of date.
macro_rules! on_table {
    ($self:ident, $query:literal, $table:expr, $connection:ident => $work:expr) => {
        $self
            .measured($query, async {
                retrying!($self.cx.pool, $query, $connection => $work.await.map_err(|f| $self.cx.catalogue.learn($table, f)))
            })
            .await
    };
}

#[async_trait]
impl Database for SqlServerDatabase {
    async fn ping(&self) -> Result<()> {
        self.measured("ping", async { retrying!(self.cx.pool, "ping", c => read::ping(c).await) }).await
    }

    async fn create_schema(&self) -> Result<()> {
        self.measured("schema", async { retrying!(self.cx.pool, "schema", c => schema::create(&self.cx, c).await) })
            .await
    }

    async fn table(&self, name: &str) -> Result<Table> {
        let info = on_table!(self, "table", name, c => self.cx.catalogue.get(c, name))?;
        Ok(info.table.clone())
    }

    async fn head(&self, table: &str, mode: CaptureMode) -> Result<Position> {
        self.measured("head", self.capture.head(table, mode)).await
    }

    async fn changes(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Result<Poll> {
        self.measured("changes", self.capture.changes(table, mode, after, limit)).await
    }

    async fn watermark(&self, mode: CaptureMode) -> Result<Option<Watermark>> {
        self.measured("watermark", self.capture.watermark(mode)).await
    }

    async fn has_captured(&self, mark: &Watermark) -> Result<bool> {
        self.measured("watermark", self.capture.has_captured(mark)).await
    }

    fn poll_interval(&self) -> Duration {
        POLL_INTERVAL
    }

    async fn capture_health(&self, table: &str, mode: CaptureMode, position: &Position) -> Result<CaptureHealth> {
        self.measured("health", self.capture.health(table, mode, position)).await
    }

    async fn capture_plan(&self, table: &str) -> Result<CapturePlan> {
        self.measured("plan", plan::capture_plan(&self.cx, table)).await
    }

    fn ledger(&self) -> Option<SharedLedger> {
        let ledger: SharedLedger = self.ledger.clone();
        Some(ledger)
    }

    fn delivery(&self) -> Option<SharedDelivery> {
        Some(Arc::new(SqlServerDelivery::new(Arc::clone(&self.cx))))
    }

    fn notifications(&self) -> Option<SharedNotifications> {
        Some(Arc::new(SqlServerDelivery::new(Arc::clone(&self.cx))))
    }

    async fn tombstones(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Tombstone>> {
        on_table!(self, "tombstones", table, c => read::tombstones(&self.cx, c, table, after, limit))
    }

    async fn scan(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Row>> {
        on_table!(self, "scan", table, c => read::scan(&self.cx, c, table, after, limit))
    }

    async fn get(&self, table: &str, keys: &[Key]) -> Result<Vec<Row>> {
        on_table!(self, "get", table, c => read::get(&self.cx, c, table, keys))
    }

    async fn list_forecasts(&self, query: &ForecastQuery) -> Result<Page> {
        on_table!(self, "list", "Forecasts", c => read::list(&self.cx, c, query))
    }

    async fn write(&self, table: &str, writes: Vec<Write>) -> Result<Vec<Written>> {
        on_table!(self, "write", table, c => write::write(&self.cx, c, table, &writes))
    }

    async fn logs(&self, query: &LogQuery) -> Result<Vec<Row>> {
        on_table!(self, "logs", "Logs", c => read::logs(&self.cx, c, query))
    }

    async fn prune_logs(&self, before: Timestamp, rows_max: u32) -> Result<u64> {
        on_table!(self, "logs", "Logs", c => read::prune_logs(c, before, rows_max))
    }

    async fn insert_absent(&self, table: &str, rows: &[Map<String, Value>]) -> Result<Inserted> {
        on_table!(self, "insert_absent", table, c => bulk::insert_absent(&self.cx, c, table, rows))
    }
}
