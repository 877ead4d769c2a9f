//! A database between capture and the embedded one, with faults, a shared ledger, and what SQL Server is like and SQLite
//! is not.

use async_trait::async_trait;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use smartpulse_clients::database::{
    CaptureHealth, CaptureMode, CapturePlan, Database, ForecastQuery, Inserted, Kept, Page, Poll, Row, SchemaChange,
    SharedDatabase, Table, Tombstone, Write, Written,
};
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_clients::ledger::SharedLedger;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{Config, ResourceConfig, ResourceContext};
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::{Key, Operation, Position};
use smartpulse_testing::{MemoryLedger, PATIENCE, Rig, uuid, within};
use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What the database does to capture.
#[derive(Default)]
pub struct Script {
    /// Tables whose polls fail.
    pub failing: Mutex<BTreeSet<String>>,
    /// Tables whose polls do not end.
    pub hanging: Mutex<BTreeSet<String>>,
    /// Where the table's shape changed; later positions are of the new shape.
    pub reshaped_at: Mutex<Option<Position>>,
    /// Tables leave no tombstones, and deletes come without a version.
    pub forgetful: Mutex<bool>,
    /// What is enabled, where it is not everything.
    pub modes: Mutex<Option<Vec<CaptureMode>>>,
    /// Why nothing is recorded.
    pub stopped: Mutex<Option<String>>,
    /// Polls so far, by mode.
    pub polled: Mutex<Vec<CaptureMode>>,
}

pub struct Scripted {
    inner: SqliteDatabase,
    script: Arc<Script>,
    ledger: Option<Arc<MemoryLedger>>,
}

const NEW_SHAPE: &str = "new:";

#[async_trait]
impl Database for Scripted {
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn create_schema(&self) -> Result<()> {
        self.inner.create_schema().await
    }
    async fn table(&self, name: &str) -> Result<Table> {
        let mut table = self.inner.table(name).await?;
        table.tombstones = !*self.script.forgetful.lock().unwrap();
        if let Some(modes) = &*self.script.modes.lock().unwrap() {
            table.capture.clone_from(modes);
        }
        Ok(table)
    }
    async fn head(&self, table: &str, mode: CaptureMode) -> Result<Position> {
        self.inner.head(table, mode).await
    }
    async fn changes(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Result<Poll> {
        self.script.polled.lock().unwrap().push(mode);
        while self.script.hanging.lock().unwrap().contains(table) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if self.script.failing.lock().unwrap().contains(table) {
            return Err(Error::unavailable("the database is away, says the test"));
        }
        let text = after.to_string();
        let (inner, new) = match text.strip_prefix(NEW_SHAPE) {
            Some(inner) => (Position::from(inner.to_owned()), true),
            None => (after.clone(), false),
        };
        if !new && self.script.reshaped_at.lock().unwrap().as_ref() == Some(&inner) {
            let next = Position::from(format!("{NEW_SHAPE}{inner}"));
            return Ok(Poll::SchemaChanged(SchemaChange { reason: "it got the column Price".to_owned(), next }));
        }
        let mut poll = self.inner.changes(table, mode, &inner, limit).await?;
        if let Poll::Changes(page) = &mut poll {
            let forgetful = *self.script.forgetful.lock().unwrap();
            for change in &mut page.changes {
                if forgetful && change.operation == Operation::Delete {
                    (change.version, change.document) = (0, None);
                }
                if new {
                    change.position = Position::from(format!("{NEW_SHAPE}{}", change.position));
                }
            }
            if new {
                page.next = Position::from(format!("{NEW_SHAPE}{}", page.next));
            }
        }
        Ok(poll)
    }
    fn poll_interval(&self) -> Duration {
        Duration::from_millis(5)
    }
    async fn capture_health(&self, _: &str, _: CaptureMode, _: &Position) -> Result<CaptureHealth> {
        let stopped = self.script.stopped.lock().unwrap().clone();
        Ok(CaptureHealth { stopped, runway: Kept::For(Duration::from_secs(3_600)) })
    }
    async fn capture_plan(&self, table: &str) -> Result<CapturePlan> {
        self.inner.capture_plan(table).await
    }
    fn ledger(&self) -> Option<SharedLedger> {
        self.ledger.clone().map(|ledger| ledger as SharedLedger)
    }
    async fn tombstones(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Tombstone>> {
        assert!(!*self.script.forgetful.lock().unwrap(), "there are none");
        self.inner.tombstones(table, after, limit).await
    }
    async fn scan(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Row>> {
        self.inner.scan(table, after, limit).await
    }
    async fn get(&self, table: &str, keys: &[Key]) -> Result<Vec<Row>> {
        self.inner.get(table, keys).await
    }
    async fn list_forecasts(&self, query: &ForecastQuery) -> Result<Page> {
        self.inner.list_forecasts(query).await
    }
    async fn write(&self, table: &str, writes: Vec<Write>) -> Result<Vec<Written>> {
        self.inner.write(table, writes).await
    }
    async fn insert_absent(&self, table: &str, rows: &[Map<String, Value>]) -> Result<Inserted> {
        self.inner.insert_absent(table, rows).await
    }
}

/// Databases that settings can name by number.
static DATABASES: Mutex<Option<HashMap<u64, SharedDatabase>>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Debug, Deserialize, JsonSchema)]
struct ScriptedConfig {
    number: u64,
}

impl Config for ScriptedConfig {
    const TYPE: &'static str = "scripted";
}

#[async_trait]
impl ResourceConfig for ScriptedConfig {
    const KIND: &'static str = "database";

    async fn build(&self, _: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database = DATABASES.lock().unwrap().as_ref().and_then(|all| all.get(&self.number).cloned());
        Ok(Arc::new(database.expect("the test made it")))
    }
}

/// One process: a rig with a store of its own, on a database that it shares with others.
pub struct Instance {
    pub rig: Rig,
    pub script: Arc<Script>,
    pub ledger: Arc<MemoryLedger>,
}

/// A database that several instances capture, and another program that writes it.
pub struct Site {
    folder: TempDir,
    ledger: MemoryLedger,
    pub writer: Connection,
}

impl Site {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        SqliteDatabase::open("w", &SqliteConfig::default(), folder.path(), &registry)
            .unwrap()
            .create_schema()
            .await
            .unwrap();
        let writer = Connection::open(folder.path().join("main.db")).unwrap();
        writer.busy_timeout(PATIENCE).unwrap();
        Self { folder, ledger: MemoryLedger::default(), writer }
    }

    /// A process that captures from the database, with a ledger in it.
    pub fn instance(&self) -> Instance {
        self.instance_with(Arc::new(MemoryStore::new()))
    }

    pub fn instance_with(&self, store: Arc<dyn Store>) -> Instance {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (script, ledger) = (Arc::new(Script::default()), Arc::new(self.ledger.connect()));
        let registry = prometheus::Registry::new();
        let inner = SqliteDatabase::open("db", &SqliteConfig::default(), self.folder.path(), &registry).unwrap();
        let database = Scripted { inner, script: script.clone(), ledger: Some(ledger.clone()) };
        DATABASES.lock().unwrap().get_or_insert_default().insert(number, Arc::new(database));
        let number = format!("resources.db.number={number}");
        let mut rig = Rig::new(store, &["resources.db.type=scripted", &number], |registry| {
            registry.resource::<ScriptedConfig>();
            smartpulse_sources::register(registry);
            smartpulse_operators::register(registry);
        });
        rig.instance = uuid::Uuid::new_v4();
        Instance { rig, script, ledger }
    }

    pub fn insert(&self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            let sql = "INSERT INTO Forecasts (Id, CompanyId, ProductionUnitId, ForecastDate, Demand)
                       VALUES (?1, ?2, ?2, '2016-06-01T00:00:00.000Z', 1.0)";
            assert_eq!(self.writer.execute(sql, [uuid(id), uuid(7)]).unwrap(), 1);
        }
    }

    pub fn insert_unit(&self, id: u64) {
        let sql = "INSERT INTO ProductionUnits (Id, CompanyId, ProviderId, Name, Kind, CapacityMw)
                   VALUES (?1, ?2, ?2, 'U', 'wind', 9.0)";
        assert_eq!(self.writer.execute(sql, [uuid(id), uuid(7)]).unwrap(), 1);
    }

    pub fn update(&self, id: u64) {
        let sql = "UPDATE Forecasts SET Demand = Demand + 1 WHERE Id = ?1";
        assert_eq!(self.writer.execute(sql, [uuid(id)]).unwrap(), 1);
    }

    pub fn delete(&self, id: u64) {
        assert_eq!(self.writer.execute("DELETE FROM Forecasts WHERE Id = ?1", [uuid(id)]).unwrap(), 1);
    }
}

impl Instance {
    /// What the sink was told: number, version, operation, and whether of a snapshot.
    pub fn told(&self) -> Vec<(u64, i64, Operation, bool)> {
        let events = self.rig.probe.events.lock().unwrap();
        events.iter().map(|event| (number(&event.key), event.version, event.operation, event.snapshot)).collect()
    }

    pub fn forget(&self) {
        self.rig.probe.events.lock().unwrap().clear();
    }

    pub fn epochs(&self) -> BTreeSet<u64> {
        self.rig.probe.events.lock().unwrap().iter().map(|event| event.epoch).collect()
    }

    pub async fn until_told(&self, id: u64, version: i64) {
        let told = |told: &(u64, i64, Operation, bool)| (told.0, told.1) == (id, version);
        self.rig.probe.until(&format!("{id} at {version} is told"), |_| self.told().iter().any(told)).await;
    }

    pub async fn until_metric(&self, name: &str, table: &str, holds: impl Fn(f64) -> bool) {
        let holds = async {
            while !self.rig.metric(name, &[table]).is_some_and(&holds) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(&format!("{name} of {table}"), holds).await;
    }

    pub async fn until_polled(&self, times: usize) {
        let before = self.script.polled.lock().unwrap().len();
        let polled = async {
            while self.script.polled.lock().unwrap().len() < before + times {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within("polls", polled).await;
    }
}

pub fn number(key: &str) -> u64 {
    u64::from_str_radix(key.rsplit('-').next().unwrap(), 16).unwrap()
}
