//! The player over an embedded database.

use super::*;
use serde_json::{Map, Value};
use smartpulse_clients::database::{
    CaptureHealth, CaptureMode, CapturePlan, Change, ChangePage, ForecastQuery, Inserted, Page, Poll, Row, Table,
    Tombstone,
};
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_config::{Diagnostics, LoadOptions, PipelineSpec, Settings, SourceText};
use smartpulse_pipeline::Position;
use smartpulse_pipeline::registry::{Registry, ResourceConfig, ResourceContext, Resources};
use smartpulse_pipeline::telemetry::Telemetry;
use smartpulse_pipeline::topology::{Blueprint, BuildEnv, Built, Summary};
use smartpulse_testing::{PATIENCE, within};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use uuid::Uuid;

#[test]
fn the_pace_is_exact_and_makes_up_for_a_stall_in_bounded_bursts() {
    let check = |per_second: u64, at_ms: &[u64], expected: &[u64]| {
        let mut pace = Pace { per_second, given: 0 };
        let due: Vec<u64> = at_ms.iter().map(|&ms| pace.due(Duration::from_millis(ms))).collect();
        assert_eq!(due, expected, "{per_second}/s at {at_ms:?} ms");
    };
    check(200, &[0, 10, 20, 30], &[0, 2, 2, 2]);
    check(200, &[0, 11, 24, 30], &[0, 2, 2, 2]);
    check(3, &[0, 333, 334, 660, 670, 1_000], &[0, 0, 1, 0, 1, 1]);
    check(1, &[999, 1_000, 1_010, 5_000, 5_010], &[0, 1, 0, 1, 0]);
    // 250 ms away: 50 are due, 20 at a time.
    check(200, &[250, 260, 270, 280, 290], &[20, 20, 14, 2, 2]);
    // A minute away: a second's worth is made up for, and no more.
    let catching_up: Vec<u64> = (0..12).map(|tick| 60_000 + tick * 10).collect();
    check(200, &catching_up, &[20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 2]);
    check(1_000_000, &[10, 20, 50, 60], &[10_000; 4]);
}

#[test]
fn an_hour_of_uneven_ticks_loses_nothing() {
    let mut pace = Pace { per_second: 333, given: 0 };
    // Ticks of 7 to 12 ms, over an hour.
    let mut elapsed = Duration::ZERO;
    let mut total = 0;
    for tick in 0.. {
        if elapsed >= Duration::from_secs(3_600) {
            break;
        }
        elapsed += Duration::from_millis(7 + tick % 6);
        total += pace.due(elapsed);
    }
    assert_eq!(total, pace.within(elapsed));
}

#[test]
fn the_tape_begins_again_or_ends() {
    let tape = |repeat| Tape { series: Series::week(), at: 18_814, repeat };
    let mut looping = tape(true);
    assert_eq!((looping.take(4), looping.ended()), (vec![18_814, 18_815, 0, 1], false));
    let mut once = tape(false);
    assert!(!once.ended());
    assert_eq!((once.take(4), once.ended()), (vec![18_814, 18_815], true));
    assert_eq!(once.take(1), Vec::<usize>::new());
}

/// A database that fails so many writes before it works.
struct Failing {
    inner: SharedDatabase,
    failures: AtomicU32,
}

#[async_trait]
impl Database for Failing {
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn create_schema(&self) -> Result<()> {
        self.inner.create_schema().await
    }
    async fn table(&self, name: &str) -> Result<Table> {
        self.inner.table(name).await
    }
    async fn head(&self, table: &str, mode: CaptureMode) -> Result<Position> {
        self.inner.head(table, mode).await
    }
    async fn changes(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Result<Poll> {
        self.inner.changes(table, mode, after, limit).await
    }
    async fn capture_health(&self, table: &str, mode: CaptureMode, position: &Position) -> Result<CaptureHealth> {
        self.inner.capture_health(table, mode, position).await
    }
    async fn capture_plan(&self, table: &str) -> Result<CapturePlan> {
        self.inner.capture_plan(table).await
    }
    async fn insert_absent(&self, table: &str, rows: &[Map<String, Value>]) -> Result<Inserted> {
        self.inner.insert_absent(table, rows).await
    }
    async fn tombstones(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<Tombstone>> {
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
        let failing = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match failing {
            Ok(_) => Err(Error::unavailable("the database is away")),
            Err(_) => self.inner.write(table, writes).await,
        }
    }
}

/// The resource `failing`: an embedded database, once it works.
#[derive(Debug, Deserialize, JsonSchema)]
struct FailingConfig {
    failures: u32,
}

impl Config for FailingConfig {
    const TYPE: &'static str = "failing";
}

#[async_trait]
impl ResourceConfig for FailingConfig {
    const KIND: &'static str = "database";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let config = SqliteConfig::default();
        let inner = Arc::new(SqliteDatabase::open(cx.name, &config, &cx.data_dir, cx.registry)?);
        let database: SharedDatabase = Arc::new(Failing { inner, failures: AtomicU32::new(self.failures) });
        Ok(Arc::new(database))
    }
}

/// A graph of players over an embedded database of its own.
struct Stage {
    graph: Built,
    env: BuildEnv,
    database: SharedDatabase,
    _folder: TempDir,
}

impl Stage {
    async fn new(sources: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sets = ["main.type=failing", "main.failures=0", "away.type=failing", "away.failures=1"];
        let sets = sets.map(|set| format!("resources.{set}")).to_vec();
        let mut settings = Settings::load(&LoadOptions { sets, ..LoadOptions::default() }).unwrap();
        settings.data_dir = folder.path().to_owned();
        settings.resources.retain(|name, _| name == "main" || name == "away");
        let settings = Arc::new(settings);
        let mut registry = Registry::default();
        registry.source::<PlayerConfig>().resource::<FailingConfig>();
        let (resources, declared) = Resources::declare(&registry, &settings, &Default::default(), Uuid::nil()).unwrap();
        let env = BuildEnv {
            settings: settings.clone(),
            store: Arc::new(MemoryStore::new()),
            resources: Arc::new(resources),
            telemetry: Telemetry::register(&Default::default()).unwrap(),
            instance: Uuid::nil(),
        };
        let text = format!("name: play\nsources:\n{sources}");
        let mut diagnostics = Diagnostics::new();
        let spec = PipelineSpec::parse(&SourceText::file("play.yaml", &text), &|_| None, &mut diagnostics).unwrap();
        let blueprint = Blueprint::check(&spec, &registry, &declared, &settings, &mut diagnostics);
        let blueprint = blueprint.unwrap_or_else(|| panic!("{diagnostics:?}"));
        let graph = blueprint.build(&env).await.unwrap();
        let database: SharedDatabase = env.resources.get("main").await.unwrap();
        Self { graph, env, database, _folder: folder }
    }

    /// Plays until a source has written so many changes; gives what happened and all changes of the table.
    async fn play_until(self, source: &str, count: u64) -> (Summary, Vec<Change>) {
        let mode = CaptureMode::Cdc;
        let head = self.database.head(FORECASTS, mode).await.unwrap();
        let written = self.env.telemetry.component("play", source, "source").events_out.clone();
        let enough = async {
            while written.get() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let summary = within("playing", Built::start(vec![self.graph]).wait(enough, PATIENCE)).await.unwrap();
        let mut changes = Vec::new();
        let mut after = head;
        loop {
            let poll = self.database.changes(FORECASTS, mode, &after, 10_000).await.unwrap();
            let Poll::Changes(ChangePage { changes: page, next, more }) = poll else { panic!("{poll:?}") };
            changes.extend(page);
            after = next;
            if !more {
                return (summary, changes);
            }
        }
    }
}

/// Demands that the week was played from its start, change for change of each key, whose first version is
/// `first`.
fn check_changes(changes: &[Change], first: i64, since: Timestamp) {
    let week = Series::week();
    let mut expected: HashMap<&Key, VecDeque<Revision<'_>>> = HashMap::new();
    for revision in week.revisions() {
        expected.entry(revision.forecast_id).or_default().push_back(revision);
    }
    for change in changes {
        let revision = expected.get_mut(&change.key).and_then(VecDeque::pop_front).unwrap();
        assert_eq!(change.version, revision.quarter as i64 + first);
        let document: Map<String, Value> = serde_json::from_slice(change.document.as_ref().unwrap()).unwrap();
        assert_eq!(document["demand"], revision.demand);
        assert_eq!(document["supply"], revision.supply);
        assert_eq!(document["confidenceLevel"], revision.confidence);
        assert_eq!(document["status"], revision.status);
        assert_eq!(document["updatedVia"], "player");
        assert_eq!(document["createdAt"], revision.forecast_date.to_string());
        let updated_at: Timestamp = document["updatedAt"].as_str().unwrap().parse().unwrap();
        assert!(since <= updated_at && updated_at <= Timestamp::now(), "{updated_at}");
    }
}

#[tokio::test]
async fn every_change_is_a_revision_in_time_order_and_a_version() {
    let stage = Stage::new("  week: { type: player, database: main, changes_per_second: 5000 }").await;
    stage.database.create_schema().await.unwrap();
    load_week(stage.database.as_ref()).await.unwrap();
    let since = Timestamp::now();
    // Beyond a day, so that a status is `Completed`.
    let (summary, changes) = stage.play_until("week", 2_700).await;
    assert!(changes.len() >= 2_700);
    assert_eq!(summary.sum("source", |totals| totals.events_out), changes.len() as u64);
    let week = Series::week();
    let in_time_order = week.revisions().map(|revision| revision.forecast_id).take(changes.len());
    assert!(changes.iter().map(|change| &change.key).eq(in_time_order));
    check_changes(&changes, 2, since);
}

#[tokio::test]
async fn missing_forecasts_are_inserted() {
    let stage = Stage::new("  week: { type: player, database: main, changes_per_second: 5000 }").await;
    stage.database.create_schema().await.unwrap();
    let since = Timestamp::now();
    let (summary, changes) = stage.play_until("week", 200).await;
    assert_eq!(summary.sum("source", |totals| totals.events_out), changes.len() as u64);
    check_changes(&changes, 1, since);
}

#[tokio::test]
async fn a_rate_of_0_writes_nothing_and_stops_when_told() {
    let still = "  still: { type: player, database: main, changes_per_second: 0 }\n";
    let moving = "  moving: { type: player, database: main, changes_per_second: 1000 }";
    let stage = Stage::new(&format!("{still}{moving}")).await;
    stage.database.create_schema().await.unwrap();
    let (summary, changes) = stage.play_until("moving", 50).await;
    let written: Vec<u64> = summary.components.iter().map(|component| component.totals.events_out).collect();
    assert_eq!(written, [0, changes.len() as u64]);
}

#[tokio::test]
async fn the_rate_of_the_settings_holds_and_an_outage_is_waited_out() {
    let stage = Stage::new("  week: { type: player, database: away }").await;
    stage.database.create_schema().await.unwrap();
    let retries = stage.env.telemetry.component("play", "week", "source").retries.clone();
    let (since, start) = (Timestamp::now(), Instant::now());
    let (_, changes) = stage.play_until("week", 60).await;
    assert_eq!(retries.get(), 1);
    assert!(changes.len() as f64 <= start.elapsed().as_secs_f64() * 200.0, "{} changes", changes.len());
    check_changes(&changes, 1, since);
}

#[tokio::test]
async fn a_database_without_the_table_ends_the_player() {
    let stage = Stage::new("  week: { type: player, database: main }").await;
    let ended = Built::start(vec![stage.graph]).wait(std::future::pending(), PATIENCE);
    let error = within("the end", ended).await.unwrap_err();
    assert!(error.chain().contains("the player cannot write: no table Forecasts"), "{}", error.chain());
}

#[tokio::test]
async fn the_week_is_loaded_once() {
    let stage = Stage::new("  week: { type: player, database: main, changes_per_second: 0 }").await;
    let database = stage.database.as_ref();
    database.create_schema().await.unwrap();
    let first = load_week(database).await.unwrap();
    assert_eq!((first.units_inserted, first.forecasts_inserted), (28, 196));
    assert_eq!((first.company_ids.len(), first.unit_ids.len(), first.forecast_ids.len()), (4, 28, 196));
    let before = database.scan(FORECASTS, None, 1_000).await.unwrap();
    let again = load_week(database).await.unwrap();
    assert_eq!(again, Loaded { units_inserted: 0, forecasts_inserted: 0, ..first.clone() });
    assert_eq!(database.scan(FORECASTS, None, 1_000).await.unwrap(), before);

    let mut loaded: Vec<&Key> = before.iter().map(|row| &row.key).collect();
    loaded.sort_by_key(|key| first.forecast_ids.iter().position(|id| id == *key));
    assert!(loaded.into_iter().eq(&first.forecast_ids));
    let row = before.iter().find(|row| row.key == first.forecast_ids[0]).unwrap();
    let mut document = Vec::new();
    Series::week().revision(0).unwrap().write_document(1, &mut document);
    assert_eq!(row.document, document);
    let units = database.get(UNITS, &first.unit_ids[27..]).await.unwrap();
    let unit: Map<String, Value> = serde_json::from_slice(&units[0].document).unwrap();
    assert_eq!((&unit["name"], &unit["kind"]), (&"Hydro3".into(), &"hydro".into()));
    assert_eq!((&unit["companyId"], unit["capacityMw"].as_f64()), (&(*first.company_ids[3]).into(), Some(15.0)));
}
