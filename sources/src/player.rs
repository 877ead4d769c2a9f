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
mod tests;
