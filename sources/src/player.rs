//! `player`: plays a week of real production data through SQL, as any other writer would.
//!
//! Output: none; its effect is on the table `Forecasts`, where each revision is one committed UPDATE, in time order,
//! the first of the week again after the last. It sets `demand`, `supply`, `confidenceLevel`, `status`, `updatedAt`
//! (the wall clock) and `updatedVia` (`player`); a forecast that is missing is inserted, which may come a little late
//! among those of other keys, never among its own. It expects no version, so it never loses a race, and members of
//! other writers stay.
//!
//! Rate: steady, exact over seconds. Every 10 ms those that are due are written in one transaction. A stall is made up
//! for, 100 ms of changes per tick at most; what an outage has kept back for more than a second is not. An outage of
//! the database is waited out and the same changes are written again; where their first commit was only unheard of,
//! their versions rise twice.
//! At shutdown the transaction under way may end, so that what is counted is what was committed.

use crate::real_data::{Revision, Series, UPDATED_VIA};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use smartpulse_clients::database::{Database, SharedDatabase, Write, Written};
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Source, SourceContext};
use smartpulse_pipeline::{Key, Timestamp};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Where forecasts and units are kept.
const FORECASTS: &str = "Forecasts";
const UNITS: &str = "ProductionUnits";

/// How often due changes are written: at 200 per second two at a time, so that the stream looks steady.
const TICK: Duration = Duration::from_millis(10);

/// What one transaction makes up for at most after a stall: more than a slow commit takes, so that the player never
/// falls behind for good, and still a batch like any other to the pipelines behind.
const BURST: Duration = Duration::from_millis(100);

/// What is due for longer than this is not made up for: an outage must not end in a flood.
const BACKLOG: Duration = Duration::from_secs(1);

/// The most changes of one transaction, whatever the rate: what the highest one has due per tick.
const WRITES_MAX: u64 = 10_000;

/// The wait after a failed write: doubled up to the longest.
const FAILURE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long the transaction under way may take to end once the player is to stop.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Rows that are loaded in one transaction.
const LOAD_ROWS: usize = 100;

/// Plays a week of real production data through SQL, at a steady rate. Emits nothing: capture sees its changes as
/// it sees any other writer's.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlayerConfig {
    /// The database resource.
    database: String,
    /// Changes written per second, 0 to 1000000; by default what the settings say (`player.changes_per_second`).
    /// 0 plays none.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    changes_per_second: Option<u32>,
    /// Whether the week begins again when it has ended; true by default.
    #[serde(default = "yes", rename = "loop")]
    repeat: bool,
}

fn yes() -> bool {
    true
}

impl Config for PlayerConfig {
    const TYPE: &'static str = "player";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
    }
}

#[async_trait]
impl SourceConfig for PlayerConfig {
    const EMITS: bool = false;

    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let database: SharedDatabase = cx.resource(&self.database).await?;
        let per_second = self.changes_per_second.map_or(cx.settings.player.changes_per_second, u64::from);
        let tape = Tape { series: Series::week(), at: 0, repeat: self.repeat };
        Ok(BuiltSource::forgetful(Player { database, per_second, tape }))
    }
}

struct Player {
    database: SharedDatabase,
    per_second: u64,
    tape: Tape,
}

#[async_trait]
impl Source for Player {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        if self.per_second == 0 {
            cx.next(std::future::pending::<()>()).await?;
            return Ok(());
        }
        let mut pace = Pace { per_second: self.per_second, given: 0 };
        let start = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        // The pace looks at the clock, so that missed ticks need not come again.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.tape.ended() {
            if cx.next(ticks.tick()).await?.is_none() {
                return Ok(());
            }
            let places = self.tape.take(pace.due(start.elapsed()));
            if !places.is_empty() && self.play(cx, &places).await?.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Player {
    /// Writes the revisions at these places, in order; nothing when the player is to stop.
    async fn play(&self, cx: &mut SourceContext, places: &[usize]) -> Result<Option<()>> {
        let revisions: Vec<Revision<'_>> = places.iter().filter_map(|&at| self.tape.series.revision(at)).collect();
        let update = |revision: &Revision<'_>, now| Write::Update {
            key: revision.forecast_id.clone(),
            expected_version: None,
            members: revised(revision, now),
        };
        let updates = |now| revisions.iter().map(|revision| update(revision, now)).collect();
        let Some(written) = self.write(cx, updates).await? else { return Ok(None) };
        let missing: Vec<&Revision<'_>> = revisions
            .iter()
            .zip(&written)
            .filter_map(|(revision, written)| (*written == Written::NotFound).then_some(revision))
            .collect();
        if missing.is_empty() {
            return Ok(Some(()));
        }
        let inserts = |now| {
            let mut seen = HashSet::new();
            let first = missing.iter().map(|revision| (revision, seen.insert(revision.forecast_id)));
            first
                .map(|(revision, first)| match first {
                    true => Write::Insert { members: created(revision, now) },
                    false => update(revision, now),
                })
                .collect()
        };
        // One that another writer has inserted meanwhile is left to that writer: its next revision comes soon.
        Ok(self.write(cx, inserts).await?.map(|_| ()))
    }

    /// Commits what `writes` makes of the time and counts it, waiting while the database is away; nothing when the
    /// player is to stop.
    async fn write(
        &self,
        cx: &mut SourceContext,
        writes: impl Fn(Timestamp) -> Vec<Write>,
    ) -> Result<Option<Vec<Written>>> {
        let mut wait = FAILURE.0;
        loop {
            let mut writing = self.database.write(FORECASTS, writes(Timestamp::now()));
            let written = match cx.next(&mut writing).await? {
                Some(written) => written,
                None => match tokio::time::timeout(LAST_WRITE, writing).await {
                    Ok(written) => written,
                    Err(_) => return Ok(None),
                },
            };
            match written {
                Ok(written) => {
                    let done = written.iter().filter(|written| matches!(written, Written::Done(_))).count();
                    cx.metrics().events_out.inc_by(done as u64);
                    return Ok(Some(written));
                }
                Err(error) if matches!(error.kind(), ErrorKind::Fatal | ErrorKind::Rejected) => {
                    return Err(Error::fatal("the player cannot write").because(error));
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), ?wait, "the player is held up; trying again");
                    cx.metrics().retries.inc();
                    if cx.next(tokio::time::sleep(wait)).await?.is_none() {
                        return Ok(None);
                    }
                    wait = (wait * 2).min(FAILURE.1);
                }
            }
        }
    }
}

/// What is played, and how far it is.
struct Tape {
    series: Series,
    at: usize,
    repeat: bool,
}

impl Tape {
    /// True when there is nothing more to take.
    fn ended(&self) -> bool {
        self.at == self.series.revision_count() && !self.repeat
    }

    /// The places of the next `count` revisions; fewer at the end.
    fn take(&mut self, count: u64) -> Vec<usize> {
        let mut places = Vec::new();
        for _ in 0..count {
            if self.at == self.series.revision_count() {
                if !self.repeat {
                    break;
                }
                self.at = 0;
            }
            places.push(self.at);
            self.at += 1;
        }
        places
    }
}

/// How many changes are due, from the time since the start: nothing adds up to a drift.
struct Pace {
    per_second: u64,
    /// How many were due so far: given out, or too late.
    given: u64,
}

impl Pace {
    /// How many are to be written now, `elapsed` after the start.
    fn due(&mut self, elapsed: Duration) -> u64 {
        let now = self.within(elapsed);
        self.given = self.given.max(now.saturating_sub(self.within(BACKLOG)));
        let due = (now - self.given).min(self.within(BURST).clamp(1, WRITES_MAX));
        self.given += due;
        due
    }

    /// How many are due within a time.
    fn within(&self, time: Duration) -> u64 {
        // 128 bits: a million per second, in nanoseconds, would overflow 64 within hours.
        u64::try_from(u128::from(self.per_second) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

/// The members of an update to this revision.
pub(crate) fn revised(revision: &Revision<'_>, updated_at: Timestamp) -> Map<String, Value> {
    members([
        ("demand", revision.demand.into()),
        ("supply", revision.supply.into()),
        ("confidenceLevel", revision.confidence.into()),
        ("status", revision.status.into()),
        ("updatedAt", updated_at.to_string().into()),
        ("updatedVia", UPDATED_VIA.into()),
    ])
}

/// The members of a new forecast as of this revision, created at its day's first quarter-hour.
pub(crate) fn created(revision: &Revision<'_>, updated_at: Timestamp) -> Map<String, Value> {
    let mut all = members([
        ("id", revision.forecast_id.as_ref().into()),
        ("companyId", revision.unit.company_id.as_ref().into()),
        ("productionUnitId", revision.unit.id.as_ref().into()),
        ("forecastDate", revision.forecast_date.to_string().into()),
        ("createdAt", revision.forecast_date.to_string().into()),
    ]);
    all.extend(revised(revision, updated_at));
    all
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the demo's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// How many units were missing and are there now.
    pub units_inserted: usize,
    /// How many forecasts were missing and are there now.
    pub forecasts_inserted: usize,
    /// The companies, in the order of the data.
    pub company_ids: Vec<Key>,
    /// The units, in the order of the data: `PV1` first.
    pub unit_ids: Vec<Key>,
    /// The forecasts, by day and unit: that of `PV1` for 2016-06-06 first.
    pub forecast_ids: Vec<Key>,
}

/// Makes the demo's data: 28 units, and their 196 forecasts as of the first quarter-hour of their days. Rows that
/// exist are left as they are, so that it may be called at every start. The schema must exist.
///
/// # Errors
/// The database's; rows of earlier batches are there then.
pub async fn load_week(database: &dyn Database) -> Result<Loaded> {
    let week = Series::week();
    let mut company_ids: Vec<Key> = week.units().iter().map(|unit| unit.company_id.clone()).collect();
    // A company's units stand together.
    company_ids.dedup();
    let units = week.units().iter().map(|unit| {
        members([
            ("id", unit.id.as_ref().into()),
            ("companyId", unit.company_id.as_ref().into()),
            ("providerId", unit.provider_id.as_ref().into()),
            ("name", unit.name.as_str().into()),
            ("kind", unit.kind.into()),
            ("capacityMw", unit.capacity_mw.into()),
        ])
    });
    let forecasts = week.first_revisions().map(|revision| created(&revision, revision.updated_at));
    Ok(Loaded {
        units_inserted: insert(database, UNITS, units.collect()).await?,
        forecasts_inserted: insert(database, FORECASTS, forecasts.collect()).await?,
        company_ids,
        unit_ids: week.units().iter().map(|unit| unit.id.clone()).collect(),
        forecast_ids: week.first_revisions().map(|revision| revision.forecast_id.clone()).collect(),
    })
}

/// Inserts the rows that are missing and gives their number.
async fn insert(database: &dyn Database, table: &str, mut rows: Vec<Map<String, Value>>) -> Result<usize> {
    let mut inserted = 0;
    while !rows.is_empty() {
        let later = rows.split_off(rows.len().min(LOAD_ROWS));
        let writes = rows.into_iter().map(|members| Write::Insert { members }).collect();
        let written = database.write(table, writes).await?;
        inserted += written.iter().filter(|written| matches!(written, Written::Done(_))).count();
        rows = later;
    }
    Ok(inserted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_clients::database::{
        CaptureMode, Change, ChangePage, ForecastQuery, Page, Poll, Row, Table, Tombstone,
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
            let (resources, declared) =
                Resources::declare(&registry, &settings, &Default::default(), Uuid::nil()).unwrap();
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
}
