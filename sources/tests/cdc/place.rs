//! The embedded database, captured, with another program as the writer.

use rusqlite::Connection;
use serde_json::{Value, json};
use smartpulse_clients::database::Database;
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_clients::ledger::StoreLedger;
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::{Error, Event, Operation};
use smartpulse_sources::request_resnapshot;
use smartpulse_testing::{Graph, PATIENCE, Probe, Rig, uuid, within};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub const FORECASTS: &str = "tables: { Forecasts: { section: forecast } }";

pub const BOTH: &str = "tables: { Forecasts: { section: forecast }, ProductionUnits: { section: unit } }";

/// Captures straight into the probe; `settings` are the source's own.
pub fn plain(settings: &str) -> String {
    format!(
        "name: p\nsources: {{ c: {{ type: cdc, database: main_db, {settings} }} }}\nsinks: {{ k: {{ type: probe, inputs: [c] }} }}\n"
    )
}

/// The same with the version check in between.
pub fn checked(settings: &str) -> String {
    let behind = "operators: { o: { type: detect_gap, inputs: [c] } }\nsinks: { k: { type: probe, inputs: [o] } }";
    plain(settings).replace("sinks: { k: { type: probe, inputs: [c] } }", behind)
}

/// A database, a rig on it, and another program that writes it.
pub struct Place {
    pub folder: TempDir,
    pub rig: Rig,
    pub writer: Connection,
}

impl Place {
    pub async fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new())).await
    }

    pub async fn with(store: Arc<dyn Store>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        open(&folder, &SqliteConfig::default()).create_schema().await.unwrap();
        let data_dir = format!("data_dir={}", folder.path().display());
        let rig = Rig::new(store, &[&data_dir], |registry| {
            smartpulse_clients::register(registry);
            smartpulse_sources::register(registry);
            smartpulse_operators::register(registry);
        });
        let writer = Connection::open(folder.path().join("main.db")).unwrap();
        writer.busy_timeout(PATIENCE).unwrap();
        Self { folder, rig, writer }
    }

    pub fn probe(&self) -> &Probe {
        &self.rig.probe
    }

    pub fn insert(&self, ids: impl IntoIterator<Item = u64>) {
        self.writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        for id in ids {
            self.execute(
                "INSERT INTO Forecasts (Id, CompanyId, ProductionUnitId, ForecastDate, Demand, CreatedAt, UpdatedAt)
                 VALUES (?1, ?2, ?2, '2016-06-01T00:00:00.000Z', 1.0, '2016-06-01T00:00:00.000Z', '2016-06-01T00:00:00.000Z')",
                &[&uuid(id), &uuid(7)],
            );
        }
        self.writer.execute_batch("COMMIT").unwrap();
    }

    pub fn insert_unit(&self, id: u64) {
        let sql = "INSERT INTO ProductionUnits (Id, CompanyId, ProviderId, Name, Kind, CapacityMw) VALUES (?1, ?2, ?2, 'U', 'wind', 9.0)";
        self.execute(sql, &[&uuid(id), &uuid(7)]);
    }

    pub fn update(&self, id: u64, demand: f64) {
        self.execute("UPDATE Forecasts SET Demand = ?2 WHERE Id = ?1", &[&uuid(id), &demand]);
    }

    pub fn delete(&self, id: u64) {
        self.execute("DELETE FROM Forecasts WHERE Id = ?1", &[&uuid(id)]);
    }

    pub fn execute(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) {
        assert_eq!(self.writer.execute(sql, values).unwrap(), 1, "{sql}");
    }

    /// Another process that keeps one row of each log of `tables`: clean-up has then passed older positions.
    pub async fn clean(&self, tables: &[&str]) {
        let captured_tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let config = SqliteConfig { log_rows_max: 1, captured_tables, ..SqliteConfig::default() };
        open(&self.folder, &config).clean().await.unwrap();
    }

    /// Captures a forecast and a unit; what was told of them is forgotten.
    pub async fn start_both(&self) -> Graph {
        self.insert([1]);
        self.insert_unit(101);
        let graph = self.rig.start(&plain(BOTH)).await;
        self.until_caught_up("Forecasts").await;
        self.until_caught_up("ProductionUnits").await;
        self.forget();
        graph
    }

    /// Waits until a table's stream has committed everything that the database has logged of it.
    pub async fn until_caught_up(&self, table: &str) {
        let newest = || -> i64 {
            let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1";
            self.writer.query_row(sql, [format!("cdc_{table}_CT")], |row| row.get(0)).unwrap()
        };
        let caught_up = async {
            loop {
                let position = self.position(table).await;
                let after = position["stream"].as_str().unwrap_or_default().to_owned();
                if position["phase"] == "stream" && after.starts_with(&format!("seq:{}@", newest())) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within("the end of the log", caught_up).await;
    }

    /// The committed position of a table; null when there is none.
    pub async fn position(&self, table: &str) -> Value {
        let position = self.rig.store.position(&format!("p/c/{table}")).await.unwrap();
        position.map_or(Value::Null, |position| serde_json::from_slice(position.as_bytes()).unwrap())
    }

    /// Asks for a new snapshot, as a tool does: of how many tables.
    pub async fn resnapshot(&self, id: &str) -> usize {
        request_resnapshot(&StoreLedger::new(self.rig.store.clone()), id).await.unwrap()
    }

    /// What the sink was told: number, version, operation, and whether of a snapshot.
    pub fn told(&self) -> Vec<(u64, i64, Operation, bool)> {
        self.events().iter().map(|event| (number(event), event.version, event.operation, event.snapshot)).collect()
    }

    pub fn events(&self) -> Vec<Event> {
        self.probe().events.lock().unwrap().clone()
    }

    pub async fn until_told(&self, count: usize) {
        self.probe().until(&format!("{count} events are told"), |p| p.events.lock().unwrap().len() >= count).await;
    }

    pub fn forget(&self) {
        self.probe().events.lock().unwrap().clear();
    }

    /// From now on the sink is away.
    pub fn hold(&self) {
        (0..1_000).for_each(|_| self.probe().fail("k", Error::unavailable("held by the test")));
    }

    pub fn held(&self) -> usize {
        self.probe().failures.lock().unwrap().get("k").map_or(0, |failures| failures.len())
    }

    pub async fn until_sink_is_tried(&self, times: usize) {
        let before = self.held();
        self.probe().until("the sink is tried", |_| self.held() + times <= before).await;
    }

    pub fn release(&self) {
        self.probe().failures.lock().unwrap().clear();
    }
}

pub fn open(folder: &TempDir, config: &SqliteConfig) -> SqliteDatabase {
    SqliteDatabase::open("writer", config, folder.path(), &prometheus::Registry::new()).unwrap()
}

/// The number that a key was made from.
pub fn number(event: &Event) -> u64 {
    u64::from_str_radix(event.key.rsplit('-').next().unwrap(), 16).unwrap()
}

pub fn document(event: &Event) -> Value {
    serde_json::from_str(event.document.as_ref().expect("a document").as_str()).unwrap()
}

pub fn forecast(id: u64, version: i64, demand: f64) -> Value {
    json!({
        "id": uuid(id), "companyId": uuid(7), "productionUnitId": uuid(7), "forecastDate": "2016-06-01T00:00:00.000Z",
        "demand": demand, "supply": null, "variance": null, "confidenceLevel": 1.0, "status": "Draft",
        "createdAt": "2016-06-01T00:00:00.000Z", "updatedAt": "2016-06-01T00:00:00.000Z", "updatedBy": null,
        "updatedVia": null, "versionId": version,
    })
}
