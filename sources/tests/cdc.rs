//! What `cdc` promises, held against the embedded database, with another program as the writer.

use rusqlite::Connection;
use serde_json::{Value, json};
use smartpulse_clients::database::Database;
use smartpulse_clients::embedded::{
    DataFolder, MemoryStore, SqliteConfig, SqliteDatabase, SqliteStore, StateConfig, StateFile,
};
use smartpulse_clients::ledger::{Ledger, StoreLedger};
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::{Error, Event, Operation};
use smartpulse_sources::request_resnapshot;
use smartpulse_testing::{PATIENCE, Probe, Rig, uuid, within};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

use Operation::{Delete, Insert, Update};

const FORECASTS: &str = "tables: { Forecasts: { section: forecast } }";
const BOTH: &str = "tables: { Forecasts: { section: forecast }, ProductionUnits: { section: unit } }";

/// Captures straight into the probe; `settings` are the source's own.
fn plain(settings: &str) -> String {
    format!(
        "name: p\nsources: {{ c: {{ type: cdc, database: main_db, {settings} }} }}\nsinks: {{ k: {{ type: probe, inputs: [c] }} }}\n"
    )
}

/// The same with the version check in between.
fn checked(settings: &str) -> String {
    let behind = "operators: { o: { type: detect_gap, inputs: [c] } }\nsinks: { k: { type: probe, inputs: [o] } }";
    plain(settings).replace("sinks: { k: { type: probe, inputs: [c] } }", behind)
}

/// A database, a rig on it, and another program that writes it.
struct Place {
    folder: TempDir,
    rig: Rig,
    writer: Connection,
}

impl Place {
    async fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new())).await
    }

    async fn with(store: Arc<dyn Store>) -> Self {
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

    fn probe(&self) -> &Probe {
        &self.rig.probe
    }

    fn insert(&self, ids: impl IntoIterator<Item = u64>) {
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

    fn insert_unit(&self, id: u64) {
        let sql = "INSERT INTO ProductionUnits (Id, CompanyId, ProviderId, Name, Kind, CapacityMw) VALUES (?1, ?2, ?2, 'U', 'wind', 9.0)";
        self.execute(sql, &[&uuid(id), &uuid(7)]);
    }

    fn update(&self, id: u64, demand: f64) {
        self.execute("UPDATE Forecasts SET Demand = ?2 WHERE Id = ?1", &[&uuid(id), &demand]);
    }

    fn delete(&self, id: u64) {
        self.execute("DELETE FROM Forecasts WHERE Id = ?1", &[&uuid(id)]);
    }

    fn execute(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) {
        assert_eq!(self.writer.execute(sql, values).unwrap(), 1, "{sql}");
    }

    /// Another process that keeps one row of each log of `tables`: clean-up has then passed older positions.
    async fn clean(&self, tables: &[&str]) {
        let captured_tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let config = SqliteConfig { log_rows_max: 1, captured_tables, ..SqliteConfig::default() };
        open(&self.folder, &config).clean().await.unwrap();
    }

    /// Waits until a table's stream has committed everything that the database has logged of it.
    async fn until_caught_up(&self, table: &str) {
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
    async fn position(&self, table: &str) -> Value {
        let position = self.rig.store.position(&format!("p/c/{table}")).await.unwrap();
        position.map_or(Value::Null, |position| serde_json::from_slice(position.as_bytes()).unwrap())
    }

    /// Asks for a new snapshot, as a tool does: of how many tables.
    async fn resnapshot(&self, id: &str) -> usize {
        request_resnapshot(&StoreLedger::new(self.rig.store.clone()), id).await.unwrap()
    }

    /// What the sink was told: number, version, operation, and whether of a snapshot.
    fn told(&self) -> Vec<(u64, i64, Operation, bool)> {
        self.events().iter().map(|event| (number(event), event.version, event.operation, event.snapshot)).collect()
    }

    fn events(&self) -> Vec<Event> {
        self.probe().events.lock().unwrap().clone()
    }

    async fn until_told(&self, count: usize) {
        self.probe().until(&format!("{count} events are told"), |p| p.events.lock().unwrap().len() >= count).await;
    }

    fn forget(&self) {
        self.probe().events.lock().unwrap().clear();
    }

    /// From now on the sink is away.
    fn hold(&self) {
        (0..1_000).for_each(|_| self.probe().fail("k", Error::unavailable("held by the test")));
    }

    fn held(&self) -> usize {
        self.probe().failures.lock().unwrap().get("k").map_or(0, |failures| failures.len())
    }

    async fn until_sink_is_tried(&self, times: usize) {
        let before = self.held();
        self.probe().until("the sink is tried", |_| self.held() + times <= before).await;
    }

    fn release(&self) {
        self.probe().failures.lock().unwrap().clear();
    }
}

fn open(folder: &TempDir, config: &SqliteConfig) -> SqliteDatabase {
    SqliteDatabase::open("writer", config, folder.path(), &prometheus::Registry::new()).unwrap()
}

/// The number that a key was made from.
fn number(event: &Event) -> u64 {
    u64::from_str_radix(event.key.rsplit('-').next().unwrap(), 16).unwrap()
}

fn document(event: &Event) -> Value {
    serde_json::from_str(event.document.as_ref().expect("a document").as_str()).unwrap()
}

fn forecast(id: u64, version: i64, demand: f64) -> Value {
    json!({
        "id": uuid(id), "companyId": uuid(7), "productionUnitId": uuid(7), "forecastDate": "2016-06-01T00:00:00.000Z",
        "demand": demand, "supply": null, "variance": null, "confidenceLevel": 1.0, "status": "Draft",
        "createdAt": "2016-06-01T00:00:00.000Z", "updatedAt": "2016-06-01T00:00:00.000Z", "updatedBy": null,
        "updatedVia": null, "versionId": version,
    })
}

#[tokio::test]
async fn a_snapshot_comes_first_and_marked_and_then_every_change_once_in_order_with_its_full_row() {
    let place = Place::new().await;
    place.insert(1..=3);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_told(3).await;
    place.until_caught_up("Forecasts").await;
    place.update(1, 2.0);
    place.insert([4]);
    place.delete(2);
    place.insert([2]);
    place.update(1, 3.0);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();

    let expected = [
        (1, 1, Insert, true, 1.0),
        (2, 1, Insert, true, 1.0),
        (3, 1, Insert, true, 1.0),
        (1, 2, Update, false, 2.0),
        (4, 1, Insert, false, 1.0),
        (2, 2, Delete, false, 1.0),
        (2, 3, Insert, false, 1.0),
        (1, 3, Update, false, 3.0),
    ];
    assert_eq!(place.told(), expected.map(|(id, version, operation, snapshot, _)| (id, version, operation, snapshot)));
    for (event, (id, version, _, snapshot, demand)) in place.events().iter().zip(expected) {
        // Of a delete: the last image with the tombstone's version.
        assert_eq!(document(event), forecast(id, version, demand));
        assert_eq!((&*event.section, event.epoch), ("forecast", place.events()[0].epoch));
        assert!(event.commit_time.is_some());
        assert_eq!(event.position.is_some(), !snapshot, "{event:?}");
    }
}

/// Changes while the scan stands still between its first pages: of rows before, behind and ahead of it.
async fn change_during_the_snapshot(place: &Place, yaml: &str) -> smartpulse_pipeline::topology::Summary {
    place.insert(1..=30);
    place.hold();
    let graph = place.rig.start(yaml).await;
    // The first page is at the sink; full channels keep the scan from its last pages.
    place.until_sink_is_tried(1).await;
    assert_eq!(place.position("Forecasts").await["phase"], "snapshot");
    place.update(1, 2.0);
    place.insert([0]);
    place.delete(2);
    place.delete(29);
    place.update(30, 2.0);
    place.insert([31]);
    place.release();
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap()
}

#[tokio::test]
async fn changes_committed_while_the_snapshot_is_read_follow_it_without_a_gap() {
    let place = Place::new().await;
    change_during_the_snapshot(&place, &plain(&format!("changes_max: 2, {FORECASTS}"))).await;
    let told = place.told();
    let streamed: Vec<_> = told.iter().filter(|(.., snapshot)| !snapshot).copied().collect();
    let changes = [(1, 2, Update), (0, 1, Insert), (2, 2, Delete), (29, 2, Delete), (30, 2, Update), (31, 1, Insert)];
    assert_eq!(streamed, changes.map(|(id, version, operation)| (id, version, operation, false)));
    let scanned: Vec<(u64, i64)> =
        told.iter().filter(|(.., snapshot)| *snapshot).map(|(id, version, ..)| (*id, *version)).collect();
    let mut expected: Vec<(u64, i64)> = (1..=28).map(|id| (id, 1)).collect();
    expected.extend([(30, 2), (31, 1)]);
    assert_eq!(scanned, expected, "each row once, in the order of keys, as it was when it was read");
    // No row overtakes a change: what was changed is told as a change first.
    for (id, version, ..) in &changes[4..] {
        let first = told.iter().find(|told| (told.0, told.1) == (*id, *version)).unwrap();
        assert!(!first.3, "{first:?}");
    }
}

#[tokio::test]
async fn what_was_scanned_and_comes_again_passes_the_version_check_once() {
    let place = Place::new().await;
    let summary = change_during_the_snapshot(&place, &checked(&format!("changes_max: 2, {FORECASTS}"))).await;
    let mut versions: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for (id, version, ..) in place.told() {
        versions.entry(id).or_default().push(version);
    }
    for (id, versions) in versions {
        let expected: &[i64] = match id {
            1 | 2 => &[1, 2],
            29 | 30 => &[2],
            _ => &[1],
        };
        assert_eq!(versions, expected, "of {id}");
    }
    assert_eq!((summary.noted("gap"), summary.noted("conflict")), (0, 0), "one row has one spelling");
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_snapshot_goes_on_where_it_was() {
    let place = Place::new().await;
    place.insert(1..=1_500);
    let yaml = plain(&format!("changes_max: 2, {FORECASTS}"));

    // A crash once everything written is committed.
    let graph = place.rig.start(&yaml).await;
    place.until_told(10).await;
    place.hold();
    place.until_sink_is_tried(1).await;
    let last = place.events().last().unwrap().key.to_string();
    let committed = async {
        while place.position("Forecasts").await["after"] != *last {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("the commit of what was written", committed).await;
    graph.crash().await;
    place.release();
    let before = place.told().len();
    assert!(before < 1_000, "the crash comes too late to be in the middle: {before}");

    // A stop: what is on its way is written first.
    let graph = place.rig.start(&yaml).await;
    place.until_told(before + 10).await;
    place.hold();
    place.until_sink_is_tried(1).await;
    place.release();
    graph.stop().await.unwrap();
    assert!(place.told().len() < 1_400, "the stop comes too late to be in the middle");
    assert_eq!(place.position("Forecasts").await["phase"], "snapshot");

    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    let expected: Vec<_> = (1..=1_500).map(|id| (id, 1, Insert, true)).collect();
    assert_eq!(place.told(), expected);
}

#[tokio::test]
async fn a_restart_in_the_stream_repeats_nothing_committed_and_a_crash_loses_nothing() {
    let place = Place::new().await;
    place.insert([1]);
    let yaml = plain(FORECASTS);
    let graph = place.rig.start(&yaml).await;
    place.update(1, 2.0);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    place.forget();

    // While nobody captures.
    place.update(1, 3.0);
    place.insert([2]);
    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    assert_eq!(place.told(), [(1, 3, Update, false), (2, 1, Insert, false)]);

    // Captured, and not written when the process dies.
    place.hold();
    place.update(1, 4.0);
    place.delete(2);
    place.until_sink_is_tried(1).await;
    graph.crash().await;
    place.release();
    place.forget();
    place.update(1, 5.0);
    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(1, 4, Update, false), (2, 2, Delete, false), (1, 5, Update, false)]);
}

/// Rows change and vanish while the graph is down, and the log forgets about it.
async fn lose_the_position(place: &Place, yaml: &str) -> smartpulse_pipeline::topology::Summary {
    place.insert(1..=7);
    let graph = place.rig.start(yaml).await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    place.forget();

    [2, 4, 5].into_iter().for_each(|id| place.delete(id));
    place.insert([4]);
    place.update(1, 2.0);
    place.update(1, 3.0);
    place.update(3, 2.0);
    place.insert([8]);
    place.clean(&["Forecasts"]).await;
    let graph = place.rig.start(yaml).await;
    place.until_caught_up("Forecasts").await;
    place.update(1, 4.0);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap()
}

#[tokio::test]
async fn a_position_that_clean_up_has_passed_leads_to_a_new_snapshot_that_also_tells_of_vanished_rows() {
    let place = Place::new().await;
    // Two at a time, so that tombstones and rows take several pages.
    let summary = lose_the_position(&place, &plain(&format!("changes_max: 2, {FORECASTS}"))).await;
    let expected = [
        (2, 2, Delete, true),
        (4, 2, Delete, true),
        (5, 2, Delete, true),
        (1, 3, Insert, true),
        (3, 2, Insert, true),
        (4, 3, Insert, true),
        (6, 1, Insert, true),
        (7, 1, Insert, true),
        (8, 1, Insert, true),
        (1, 4, Update, false),
    ];
    assert_eq!(place.told(), expected);
    for event in place.events().iter().filter(|event| event.operation != Delete) {
        let demand = event.version.to_string().parse().unwrap();
        let demand = if number(event) == 4 { 1.0 } else { demand };
        assert_eq!(document(event), forecast(number(event), event.version, demand));
    }
    assert_eq!(summary.noted("position_lost"), 1, "it is counted");
}

#[tokio::test]
async fn after_a_lost_position_only_what_differs_passes_the_version_check_and_no_version_goes_back() {
    let place = Place::new().await;
    let summary = lose_the_position(&place, &checked(&format!("changes_max: 2, {FORECASTS}"))).await;
    let expected = [
        (2, 2, Delete, true),
        (4, 2, Delete, true),
        (5, 2, Delete, true),
        (1, 3, Insert, true),
        (3, 2, Insert, true),
        (4, 3, Insert, true),
        (8, 1, Insert, true),
        (1, 4, Update, false),
    ];
    assert_eq!(place.told(), expected);
    assert_eq!((summary.noted("gap"), summary.noted("conflict")), (1, 0), "version 2 of the first was never seen");
}

#[tokio::test]
async fn a_table_that_lost_its_position_is_scanned_again_alone() {
    let place = Place::new().await;
    place.insert([1]);
    place.insert_unit(101);
    let graph = place.rig.start(&plain(BOTH)).await;
    place.until_caught_up("Forecasts").await;
    place.until_caught_up("ProductionUnits").await;
    graph.stop().await.unwrap();
    place.forget();
    place.update(1, 2.0);
    place.insert_unit(102);
    place.insert_unit(103);
    place.clean(&["ProductionUnits"]).await;
    let graph = place.rig.start(&plain(BOTH)).await;
    place.until_caught_up("ProductionUnits").await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    let mut told = place.told();
    told.sort_by_key(|(id, ..)| *id);
    assert_eq!(told, [(1, 2, Update, false), (101, 1, Insert, true), (102, 1, Insert, true), (103, 1, Insert, true)]);
}

#[tokio::test]
async fn a_snapshot_that_is_asked_for_is_taken_within_a_second_or_so_of_that_table_only() {
    let place = Place::new().await;
    place.insert([1]);
    place.insert_unit(101);
    let graph = place.rig.start(&plain(BOTH)).await;
    place.until_told(2).await;
    place.until_caught_up("Forecasts").await;
    place.until_caught_up("ProductionUnits").await;

    let asked = Instant::now();
    place.forget();
    assert!(place.resnapshot("p/c/ProductionUnits").await >= 1);
    place.until_told(1).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    until_forgotten(&place, "p/c/ProductionUnits").await;
    place.until_caught_up("ProductionUnits").await;
    place.update(1, 2.0);
    place.until_told(2).await;
    assert_eq!(place.told(), [(101, 1, Insert, true), (1, 2, Update, false)]);

    place.forget();
    assert!(place.resnapshot("p/c").await >= 1);
    place.until_told(2).await;
    until_forgotten(&place, "p/c/Forecasts").await;
    until_forgotten(&place, "p/c/ProductionUnits").await;
    place.until_caught_up("Forecasts").await;
    place.until_caught_up("ProductionUnits").await;
    graph.stop().await.unwrap();
    let mut told = place.told();
    told.sort_by_key(|(id, ..)| *id);
    assert_eq!(told, [(1, 2, Insert, true), (101, 1, Insert, true)]);
}

#[tokio::test]
async fn a_snapshot_that_was_asked_for_before_a_start_is_taken_and_tells_of_vanished_rows() {
    let place = Place::new().await;
    place.insert([1, 2]);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.delete(2);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    place.forget();
    assert!(place.resnapshot("p/c/Forecasts").await >= 1);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_told(2).await;
    until_forgotten(&place, "p/c/Forecasts").await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(2, 2, Delete, true), (1, 1, Insert, true)]);
}

async fn until_forgotten(place: &Place, id: &str) {
    let request = format!("{id}#resnapshot");
    let forgotten = async {
        while place.rig.store.position(&request).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("the end of the request", forgotten).await;
}

#[tokio::test]
async fn a_snapshot_that_is_asked_for_skips_no_change_that_was_not_captured_yet() {
    let place = Place::new().await;
    place.insert([1]);
    let yaml = plain(&format!("changes_max: 2, {FORECASTS}"));
    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    place.hold();
    (2..=60).for_each(|version| place.update(1, f64::from(version)));
    place.until_sink_is_tried(1).await;
    assert!(place.resnapshot("p/c/Forecasts").await >= 1);
    // The waits between tries double from 100 ms: after five the source looks for requests before it reads on.
    place.until_sink_is_tried(4).await;
    place.release();
    until_forgotten(&place, "p/c/Forecasts").await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    let streamed: Vec<i64> = place.told().iter().filter(|(.., snapshot)| !snapshot).map(|told| told.1).collect();
    assert_eq!(streamed, (2..=60).collect::<Vec<_>>());
    assert_eq!(place.told().iter().filter(|(.., snapshot)| *snapshot).count(), 2, "the first and the one asked for");
}

#[tokio::test]
async fn a_crash_does_not_lose_the_request_for_a_snapshot() {
    let place = Place::new().await;
    place.insert([1]);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_caught_up("Forecasts").await;
    place.hold();
    place.update(1, 2.0);
    place.until_sink_is_tried(1).await;
    assert!(place.resnapshot("p/c/Forecasts").await >= 1);
    // More than a second: the source has taken the request up, and what it emits cannot be committed.
    place.until_sink_is_tried(4).await;
    graph.crash().await;
    place.release();
    place.forget();
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.probe().until("the snapshot is taken", |p| p.events.lock().unwrap().iter().any(|e| e.snapshot)).await;
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn net_changes_collapse_in_mode_change_tracking_and_nothing_collapses_in_mode_cdc() {
    let net = [(3, 2, Delete), (1, 4, Update), (4, 3, Insert), (5, 2, Delete)];
    let all = [
        (1, 2, Update),
        (3, 2, Delete),
        (1, 3, Update),
        (4, 1, Insert),
        (1, 4, Update),
        (4, 2, Update),
        (4, 3, Update),
        (5, 1, Insert),
        (5, 2, Delete),
    ];
    for (mode, expected) in [("change_tracking", &net[..]), ("cdc", &all[..])] {
        let place = Place::new().await;
        place.insert(1..=3);
        let yaml = plain(&format!("mode: {mode}, {FORECASTS}"));
        let graph = place.rig.start(&yaml).await;
        place.until_caught_up("Forecasts").await;
        graph.stop().await.unwrap();
        place.forget();
        place.update(1, 2.0);
        place.delete(3);
        place.update(1, 3.0);
        place.insert([4]);
        place.update(1, 4.0);
        place.update(4, 2.0);
        place.update(4, 3.0);
        place.insert([5]);
        place.delete(5);
        let graph = place.rig.start(&yaml).await;
        place.until_caught_up("Forecasts").await;
        graph.stop().await.unwrap();
        let expected: Vec<_> = expected.iter().map(|(id, version, op)| (*id, *version, *op, false)).collect();
        assert_eq!(place.told(), expected, "{mode}");
        let first = place.events().into_iter().rfind(|event| number(event) == 1).unwrap();
        assert_eq!(document(&first), forecast(1, 4, 4.0), "{mode}");
    }
}

#[tokio::test]
async fn a_row_without_a_json_form_is_set_aside_and_neither_its_table_nor_another_waits_for_it() {
    let place = Place::new().await;
    place.insert([1]);
    place.insert_unit(101);
    let graph = place.rig.start(&plain(BOTH)).await;
    place.until_caught_up("Forecasts").await;
    place.until_caught_up("ProductionUnits").await;
    place.forget();
    // SQLite lets a text be any bytes.
    place.execute("UPDATE ProductionUnits SET Name = CAST(x'ff' AS TEXT) WHERE Id = ?1", &[&uuid(101)]);
    place.insert_unit(102);
    place.update(1, 2.0);
    place.until_told(2).await;
    graph.stop().await.unwrap();
    let mut told = place.told();
    told.sort_by_key(|(id, ..)| *id);
    assert_eq!(told, [(1, 2, Update, false), (102, 1, Insert, false)]);
}

#[tokio::test]
async fn the_epoch_rises_with_every_start_and_resetting_the_position_does_not_lower_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::open(&DataFolder::beside(folder.path()).unwrap(), &StateConfig::default()).await.unwrap();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new()), Arc::new(SqliteStore::new(file))];
    for store in stores {
        let place = Place::with(store).await;
        place.insert([1]);
        let mut last = 0;
        for start in 1..=4_u64 {
            if start == 3 {
                assert_eq!(StoreLedger::new(place.rig.store.clone()).reset("p/c").await.unwrap(), 1);
            }
            place.forget();
            let graph = place.rig.start(&plain(FORECASTS)).await;
            place.update(1, start as f64 + 1.0);
            place.until_caught_up("Forecasts").await;
            graph.stop().await.unwrap();
            let events = place.events();
            let epoch = events[0].epoch;
            assert!(epoch > last, "{epoch} after {last}");
            assert!(events.iter().all(|event| event.epoch == epoch), "{events:?}");
            last = epoch;
            let scanned = events.iter().filter(|event| event.snapshot).count();
            assert_eq!(scanned, usize::from(start == 1 || start == 3), "in start {start}");
        }
    }
}

#[tokio::test]
async fn every_row_of_a_first_snapshot_of_completed_forecasts_is_marked() {
    let place = Place::new().await;
    place.insert(1..=1_200);
    place.writer.execute("UPDATE Forecasts SET Status = 'Completed'", []).unwrap();
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_caught_up("Forecasts").await;
    assert_eq!(place.told(), (1..=1_200).map(|id| (id, 2, Insert, true)).collect::<Vec<_>>());
    assert!(place.events().iter().all(|event| document(event)["status"] == "Completed"));
    place.forget();
    place.update(1, 2.0);
    place.until_told(1).await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(1, 3, Update, false)]);
}

#[tokio::test]
async fn without_a_snapshot_only_changes_from_now_on_are_told() {
    let place = Place::new().await;
    place.insert([1, 2]);
    let graph = place.rig.start(&plain(&format!("snapshot: never, {FORECASTS}"))).await;
    place.until_caught_up("Forecasts").await;
    place.update(2, 2.0);
    place.until_told(1).await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(2, 2, Update, false)]);
}

#[tokio::test]
async fn bad_configuration_is_refused_with_its_place() {
    let place = Place::new().await;
    let check = |settings: &str, expected: &[&str]| {
        let yaml = format!(
            "name: p\nsources:\n  c:\n    type: cdc\n    database: main_db\n    {settings}\nsinks: {{ k: {{ type: probe, inputs: [c] }} }}\n"
        );
        let problems = place.rig.problems(&yaml);
        for expected in expected {
            assert!(problems.contains(expected), "{settings}: {expected} is not in\n{problems}");
        }
    };
    check("tables: {}", &["there are no tables", "p.yaml:6:"]);
    check(
        "tables: { Forecasts: { section: x }, ProductionUnits: { section: x } }",
        &["`Forecasts` has the section `x` already", "give each table one of its own", "p.yaml:6:"],
    );
    check(
        &format!(
            "{FORECASTS}\n    idle_stages: [{{ after_s: 10, interval_ms: 50 }}, {{ after_s: 1, interval_ms: 100 }}]"
        ),
        &["the stages are out of order", "p.yaml:7:"],
    );
    check(
        &format!(
            "{FORECASTS}\n    idle_stages: [{{ after_s: 1, interval_ms: 100 }}, {{ after_s: 10, interval_ms: 50 }}]"
        ),
        &["the stages are out of order", "p.yaml:7:"],
    );
    check("tables: { \"Fore;casts\": { section: x } }", &["`Fore;casts` cannot be a table's name", "p.yaml:6:"]);
    check("tables: { Forecasts: { section: Fore-cast } }", &["`Fore-cast` cannot be a section", "p.yaml:6:"]);
    check(&format!("{FORECASTS}\n    mode: cdd"), &["unknown value `cdd`", "did you mean `cdc`?", "p.yaml:7:11"]);
    check(&format!("{FORECASTS}\n    changes_max: 0"), &["changes_max", "p.yaml:7:"]);
    check(&format!("{FORECASTS}\n    poll_interval_ms: 6000"), &["poll_interval_ms", "p.yaml:7:"]);
}

#[tokio::test]
async fn a_table_that_is_not_there_or_not_captured_is_refused_with_what_there_is() {
    for (tables, expected) in [
        ("tables: { Forecast: { section: f } }", "no table Forecast; the database has Forecasts, "),
        ("tables: { SysUser: { section: f } }", "table SysUser of `main_db` is not enabled for mode cdc"),
    ] {
        let place = Place::new().await;
        let yaml = plain(tables);
        let building = tokio::task::LocalSet::new();
        let panic = building
            .run_until(async move { tokio::task::spawn_local(async move { place.rig.start(&yaml).await }).await })
            .await
            .err()
            .expect("the graph cannot be built")
            .into_panic();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(expected), "{message}");
    }
}
