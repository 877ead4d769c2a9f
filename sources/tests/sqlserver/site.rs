//! A stand-in with the product's schema, processes that capture from it over TDS, and another program that writes it.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::database::{CaptureMode, Database, SharedDatabase};
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_clients::ledger::LedgerEntry;
use smartpulse_config::Secret;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{Config, ResourceConfig, ResourceContext};
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::{Operation, Position};
use smartpulse_sqlserver::config::SqlServerConfig;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_stand_in::server::{Options, StandIn};
use smartpulse_stand_in::session::{Output, Session};
use smartpulse_testing::{Rig, uuid, within};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const MODES: [CaptureMode; 2] = [CaptureMode::ChangeTracking, CaptureMode::Cdc];

pub const FORECASTS: &str = "tables: { Forecasts: { section: forecast } }";

/// How often the capture job looks at the log.
const JOB_POLLING: Duration = Duration::from_millis(20);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Captures straight into the probe; `settings` are the source's own.
pub fn plain(mode: CaptureMode, settings: &str) -> String {
    let mode = match mode {
        CaptureMode::ChangeTracking => "change_tracking",
        CaptureMode::Cdc => "cdc",
    };
    format!(
        "name: p\nsources: {{ c: {{ type: cdc, database: db, mode: {mode}, {settings} }} }}\nsinks: {{ k: {{ type: probe, inputs: [c] }} }}\n"
    )
}

/// The same with the version check in between.
pub fn checked(mode: CaptureMode, settings: &str) -> String {
    let behind = "operators: { o: { type: detect_gap, inputs: [c] } }\nsinks: { k: { type: probe, inputs: [o] } }";
    plain(mode, settings).replace("sinks: { k: { type: probe, inputs: [c] } }", behind)
}

/// The product's resource on a port of this machine; a new one, with connections of its own, for every graph.
#[derive(Debug, Deserialize, JsonSchema)]
struct AtPort {
    port: u16,
}

impl Config for AtPort {
    const TYPE: &'static str = "at_port";
}

#[async_trait]
impl ResourceConfig for AtPort {
    const KIND: &'static str = "database";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database: SharedDatabase = Arc::new(SqlServerDatabase::open(cx.name, &settings(self.port), cx.registry)?);
        Ok(Arc::new(database))
    }
}

/// With the time-outs that a user gets.
fn settings(port: u16) -> SqlServerConfig {
    SqlServerConfig {
        host: Some("127.0.0.1".to_owned()),
        port,
        user: Some("sa".to_owned()),
        password: Some(Secret::new("Stand-in-1")),
        trust_server_certificate: true,
        ..SqlServerConfig::default()
    }
}

/// Runs what blocks.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

pub struct Site {
    pub server: Arc<StandIn>,
    /// A client of the test's own.
    pub tool: SqlServerDatabase,
    /// Another program, which writes whatever the network is like.
    writer: Arc<Mutex<Box<dyn Session>>>,
}

impl Site {
    pub async fn new() -> Self {
        let server = Arc::new(blocking(|| StandIn::start(Options::default()).unwrap()).await);
        server.engine().set_capture_polling(Some(JOB_POLLING));
        let patient = SqlServerConfig {
            connect_timeout_ms: 30_000,
            command_timeout_ms: 30_000,
            ..settings(server.address().port())
        };
        let tool = SqlServerDatabase::open("tool", &patient, &prometheus::Registry::new()).unwrap();
        tool.create_schema().await.unwrap();
        let writer = Arc::new(Mutex::new(server.engine().session("sa").unwrap()));
        let site = Self { server, tool, writer };
        site.run("USE [smartpulse];").await;
        site
    }

    /// A process that captures from the server.
    pub fn process(&self) -> Process {
        self.process_at(self.server.address().port(), Arc::new(MemoryStore::new()))
    }

    /// The same, with its way to the server and a durable memory.
    pub fn process_at(&self, port: u16, store: Arc<dyn Store>) -> Process {
        let port = format!("resources.db.port={port}");
        let mut rig = Rig::new(store, &["resources.db.type=at_port", &port], |registry| {
            registry.resource::<AtPort>();
            smartpulse_sources::register(registry);
            smartpulse_operators::register(registry);
        });
        rig.instance = uuid::Uuid::new_v4();
        Process { rig }
    }

    /// Runs a batch as somebody else would.
    pub async fn run(&self, batch: impl Into<String>) {
        let (writer, batch) = (Arc::clone(&self.writer), batch.into());
        blocking(move || {
            let mut errors = Vec::new();
            writer.lock().unwrap().batch(&batch, &[], &AtomicBool::new(false), &mut |piece| {
                if let Output::Message(message) = piece
                    && message.class > 10
                {
                    errors.push(message.text);
                }
                true
            });
            assert!(errors.is_empty(), "{batch}: {errors:?}");
        })
        .await;
    }

    pub async fn insert(&self, ids: impl IntoIterator<Item = u64>) {
        let row = |id| format!("('{}', '{}', '{}', '2016-06-01', 1.0)", uuid(id), uuid(7), uuid(8));
        let rows: Vec<String> = ids.into_iter().map(row).collect();
        let into = "INSERT INTO dbo.Forecasts (Id, CompanyId, ProductionUnitId, ForecastDate, Demand) VALUES";
        self.run(format!("{into} {};", rows.join(", "))).await;
    }

    pub async fn update(&self, id: u64) {
        self.run(format!("UPDATE dbo.Forecasts SET Demand = Demand + 1 WHERE Id = '{}';", uuid(id))).await;
    }

    pub async fn delete(&self, id: u64) {
        self.run(format!("DELETE FROM dbo.Forecasts WHERE Id = '{}';", uuid(id))).await;
    }

    /// Lets the capture job read the log up to now.
    pub async fn scan(&self) {
        let server = Arc::clone(&self.server);
        blocking(move || server.engine().run_capture_now().unwrap()).await;
    }

    pub async fn head(&self, table: &str, mode: CaptureMode) -> Position {
        self.tool.head(table, mode).await.unwrap()
    }

    /// The row of the ledger of the only captured table.
    pub async fn entry(&self) -> Option<LedgerEntry> {
        let ledger = self.tool.ledger().unwrap();
        ledger.entries().await.unwrap().into_iter().next()
    }

    /// The committed position of the only captured table, as JSON.
    pub async fn position(&self) -> String {
        let entry = self.entry().await;
        entry.and_then(|entry| entry.position).map(|position| position.to_string()).unwrap_or_default()
    }

    /// Waits until the committed position is one that `holds` takes.
    pub async fn until_position(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let holds = async {
            while !holds(&self.position().await) {
                tokio::time::sleep(LOOK).await;
            }
        };
        within(what, holds).await;
    }

    pub async fn until_streaming(&self) {
        self.until_position("the end of the snapshot", |position| position.starts_with(r#"{"phase":"stream""#)).await;
    }

    /// Waits until the ledger was written so often.
    pub async fn until_renewed(&self, times: usize) {
        let mut seen = BTreeSet::new();
        let renewed = async {
            while seen.len() <= times {
                seen.extend(self.entry().await.map(|entry| entry.updated_at));
                tokio::time::sleep(LOOK).await;
            }
        };
        within("renewals", renewed).await;
    }
}

/// A process that captures: its graphs, its sink, its metrics.
pub struct Process {
    pub rig: Rig,
}

impl Process {
    /// What the sink was told: number, version, operation, and whether of a snapshot.
    pub fn told(&self) -> Vec<(u64, i64, Operation, bool)> {
        let events = self.rig.probe.events.lock().unwrap();
        events.iter().map(|event| (number(&event.key), event.version, event.operation, event.snapshot)).collect()
    }

    pub fn forget(&self) {
        self.rig.probe.events.lock().unwrap().clear();
    }

    /// The versions of a key, in the order in which they were told.
    pub fn versions(&self, id: u64) -> Vec<i64> {
        self.told().iter().filter(|told| told.0 == id).map(|told| told.1).collect()
    }

    pub async fn until_told(&self, id: u64, version: i64) {
        let told = || self.told().iter().any(|told| (told.0, told.1) == (id, version));
        self.rig.probe.until(&format!("{id} at {version} is told"), |_| told()).await;
    }

    pub fn metric(&self, name: &str) -> f64 {
        self.rig.metric(name, &[]).unwrap_or_default()
    }

    pub async fn until_metric(&self, name: &str, value: f64) {
        let holds = async {
            while (self.metric(name) - value).abs() > f64::EPSILON {
                tokio::time::sleep(LOOK).await;
            }
        };
        within(&format!("{name} is {value}"), holds).await;
    }

    /// From now on the sink is away.
    pub fn hold(&self) {
        (0..10_000).for_each(|_| self.rig.probe.fail("k", Error::unavailable("held by the test")));
    }

    pub async fn until_sink_is_tried(&self) {
        let held = || self.rig.probe.failures.lock().unwrap().get("k").map_or(0, |failures| failures.len());
        let before = held();
        self.rig.probe.until("the sink is tried", |_| held() < before).await;
    }

    pub fn release(&self) {
        self.rig.probe.failures.lock().unwrap().clear();
    }
}

pub fn number(key: &str) -> u64 {
    u64::from_str_radix(key.rsplit('-').next().unwrap(), 16).unwrap()
}
