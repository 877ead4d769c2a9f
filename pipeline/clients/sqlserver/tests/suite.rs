//! SQL Server passes the suite that every database must pass: on the stand-in, and on the server that
//! `SMARTPULSE_SQLSERVER_URL` names (an ADO connection string of a login that may create databases).

mod common;

use async_trait::async_trait;
#[cfg(feature = "real-server")]
use common::URL;
use common::{Server, open, settings, stand_in};
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use smartpulse_clients::database::{
    CaptureHealth, CaptureMode, CapturePlan, Database, ForecastQuery, Inserted, LogQuery, Page, Poll, Row,
    SharedDatabase, Table, Tombstone, Write, Written,
};
use smartpulse_clients::delivery::SharedDelivery;
use smartpulse_clients::ledger::SharedLedger;
use smartpulse_clients::notifications::SharedNotifications;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::{Key, Position, Timestamp};
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_testing::{DatabaseFixture, database_suite, delivery_suite, notifications_suite};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

/// Cleans what was captured before the newest transaction.
const CLEAN_UP: &str = "DECLARE @lsn binary(10) = (SELECT MAX([__$start_lsn]) FROM [cdc].[dbo_Forecasts_CT]);
EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_Forecasts', @low_water_mark = @lsn, @threshold = 4999;";

struct Fixture(Server);

#[async_trait]
impl DatabaseFixture for Fixture {
    async fn open(&self) -> SharedDatabase {
        let engine = self.0.engine.clone();
        let scan: Scan = Arc::new(move || {
            let engine = engine.clone();
            Box::pin(async move {
                tokio::task::spawn_blocking(move || engine.run_capture_now()).await.unwrap().unwrap();
            })
        });
        Arc::new(Scanned { database: common::database(&self.0).await, scan })
    }

    async fn clean_up(&self, _: &SharedDatabase) -> bool {
        common::sql(&open(&settings(&self.0.url())), CLEAN_UP).await.unwrap();
        true
    }

    fn idle_positions_move(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_server_conforms() {
    database_suite(|| Fixture(stand_in())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_and_mails_of_a_stand_in_conform() {
    delivery_suite(|| Fixture(stand_in())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_a_stand_in_conform() {
    notifications_suite(|| Fixture(stand_in())).await;
}

/// A database of its own on a real server, dropped in the end; or, where the login may create none, the one that the
/// connection string names, emptied before each case.
struct Real {
    admin: String,
    name: String,
    /// Whether it has a database of its own; found out by the first who opens it.
    own: OnceCell<bool>,
}

/// Empties the tables that the suite writes to.
const EMPTY: &str = "DELETE FROM dbo.Forecasts; DELETE FROM dbo.ProductionUnits; DELETE FROM dbo.Tombstones;
    DELETE FROM dbo.Notifications; DELETE FROM dbo.NheaMailQueue; DELETE FROM dbo.Logs;
    DELETE FROM dbo.SysUser; DELETE FROM dbo.SysUserDeviceInfo; DELETE FROM dbo.NotificationPreferences;
    DELETE FROM dbo.NotificationQuiet; DELETE FROM dbo.NotificationDeliveries;";

impl Real {
    fn new(admin: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("smartpulse_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { admin: admin.to_owned(), name, own: OnceCell::new() }
    }

    /// Makes the database, or empties the one there is.
    async fn prepare(&self) -> bool {
        let admin = open(&settings(&self.admin));
        if common::sql(&admin, &format!("CREATE DATABASE [{}];", self.name)).await.is_ok() {
            return true;
        }
        admin.create_schema().await.unwrap();
        common::sql(&admin, EMPTY).await.unwrap();
        false
    }

    /// The connection string, with the database of its own in place of the one it names.
    fn url(&self) -> String {
        if self.own.get() != Some(&true) {
            return self.admin.clone();
        }
        let other = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            !["database", "initial catalog", ""].contains(&name.as_str())
        };
        let pairs: Vec<&str> = self.admin.split(';').filter(other).collect();
        format!("{};Database={}", pairs.join(";"), self.name)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.own.get() != Some(&true) {
            return;
        }
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let batch =
                format!("ALTER DATABASE [{name}] SET SINGLE_USER WITH ROLLBACK IMMEDIATE; DROP DATABASE [{name}];");
            runtime.block_on(async { common::sql(&open(&settings(&admin)), &batch).await.map(|_| ()) })
        });
        if !dropped.join().is_ok_and(|result| result.is_ok()) {
            eprintln!("the test database {} could not be dropped", self.name);
        }
    }
}

#[async_trait]
impl DatabaseFixture for Real {
    async fn open(&self) -> SharedDatabase {
        self.own.get_or_init(|| self.prepare()).await;
        let database = open(&settings(&self.url()));
        database.create_schema().await.unwrap();
        let _ = common::sql(&database, "EXEC sys.sp_cdc_stop_job @job_type = N'capture';").await;
        let own = Arc::new(open(&settings(&self.url())));
        let scan: Scan = Arc::new(move || {
            let own = Arc::clone(&own);
            Box::pin(async move {
                common::sql(&own, "EXEC sys.sp_cdc_scan @maxtrans = 10000, @maxscans = 100, @continuous = 0;")
                    .await
                    .unwrap();
            })
        });
        Arc::new(Scanned { database, scan })
    }

    async fn clean_up(&self, _: &SharedDatabase) -> bool {
        common::sql(&open(&settings(&self.url())), CLEAN_UP).await.unwrap();
        true
    }

    fn records_changes(&self) -> bool {
        false
    }

    fn idle_positions_move(&self) -> bool {
        true
    }
}

/// Scans the log.
type Scan = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A database whose log is scanned before each look at it: the capture job would come by every five seconds.
struct Scanned {
    database: SqlServerDatabase,
    scan: Scan,
}

impl Scanned {
    async fn scan_log(&self, mode: CaptureMode) {
        if mode == CaptureMode::Cdc {
            (self.scan)().await;
        }
    }
}

#[async_trait]
impl Database for Scanned {
    async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    async fn create_schema(&self) -> Result<()> {
        self.database.create_schema().await
    }

    async fn table(&self, name: &str) -> Result<Table> {
        self.database.table(name).await
    }

    async fn head(&self, table: &str, mode: CaptureMode) -> Result<Position> {
        self.scan_log(mode).await;
        self.database.head(table, mode).await
    }

    async fn changes(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Result<Poll> {
        self.scan_log(mode).await;
        self.database.changes(table, mode, after, limit).await
    }

    async fn capture_health(&self, table: &str, mode: CaptureMode, position: &Position) -> Result<CaptureHealth> {
        self.database.capture_health(table, mode, position).await
    }

    async fn capture_plan(&self, table: &str) -> Result<CapturePlan> {
        self.database.capture_plan(table).await
    }

    fn ledger(&self) -> Option<SharedLedger> {
        self.database.ledger()
    }

    fn delivery(&self) -> Option<SharedDelivery> {
        self.database.delivery()
    }

    fn notifications(&self) -> Option<SharedNotifications> {
        self.database.notifications()
    }

    async fn tombstones(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Tombstone>> {
        self.database.tombstones(table, after, limit).await
    }

    async fn scan(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Row>> {
        self.database.scan(table, after, limit).await
    }

    async fn get(&self, table: &str, keys: &[Key]) -> Result<Vec<Row>> {
        self.database.get(table, keys).await
    }

    async fn list_forecasts(&self, query: &ForecastQuery) -> Result<Page> {
        self.database.list_forecasts(query).await
    }

    async fn write(&self, table: &str, writes: Vec<Write>) -> Result<Vec<Written>> {
        self.database.write(table, writes).await
    }

    async fn insert_absent(&self, table: &str, rows: &[Map<String, Value>]) -> Result<Inserted> {
        self.database.insert_absent(table, rows).await
    }

    async fn logs(&self, query: &LogQuery) -> Result<Vec<Row>> {
        self.database.logs(query).await
    }

    async fn prune_logs(&self, before: Timestamp, rows_max: u32) -> Result<u64> {
        self.database.prune_logs(before, rows_max).await
    }
}

/// What is run against a real server is run here too, so that it works when there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_named_by_its_connection_string_conforms() {
    let server = stand_in();
    let url = server.url();
    database_suite(|| Real::new(&url)).await;
}

/// There is none where this is developed: a feature of its own, so that no test passes for want of a server.
#[cfg(feature = "real-server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_sql_server_conforms() {
    let admin = std::env::var(URL).unwrap_or_else(|_| panic!("{URL} names no server"));
    database_suite(|| Real::new(&admin)).await;
    delivery_suite(|| Real::new(&admin)).await;
    notifications_suite(|| Real::new(&admin)).await;
}
