//! `cdc`: the committed changes of database tables: first a snapshot, then the stream.
//!
//! Output: per table, every change once in commit order, with the full row (of a delete: the last image where
//! the mode keeps one). Tables are independent: each has its own position, and none waits for another. Rows of a
//! snapshot are marked, so that they heal state and notify nobody.
//!
//! The hand-over has no gap, and no row overtakes a change: the stream's start is noted before the scan begins; with
//! each scanned page the stream is read up to a moment after the page was, and of the page only those rows go out
//! that did not change in between. (The idea is that of DBLog's watermarks, Andreakis and Papapanagiotou, 2019.)
//! So no change is ever told only as a marked row.
//!
//! A position that clean-up has passed is never skipped silently: it is logged, counted (`position_lost`), and
//! healed by a new snapshot, which also tells of rows that vanished (from the tombstones). Positions are
//! committed after everything up to them is durable downstream. Cost to the database: one poll per table and
//! interval; the interval grows in stages while nothing changes, where a poll costs the database anything.

mod events;
mod position;

pub use position::{is_capture_position, request_resnapshot};

use async_trait::async_trait;
use events::{Events, TableState, changed, page, scanned, vanished};
use position::{CdcCommitter, Phase, Text, forget_request, next_epoch, request_id};
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::database::{CaptureMode, Poll, SharedDatabase};
use smartpulse_pipeline::Position;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Emission, Source, SourceContext};
use smartpulse_pipeline::state::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest poll interval, whatever the stages say: a change is never older than this when it is found.
const INTERVAL_MAX_MS: u64 = 5_000;

/// How often a running source looks whether a new snapshot was asked for.
const REQUEST_POLL: Duration = Duration::from_secs(1);

/// The wait after a failed poll: doubled up to the longest.
const FAILURE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Captures the committed changes of database tables: a snapshot first, then the stream.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CdcConfig {
    /// The database resource.
    database: String,
    /// The tables by name, each with the section that its entities are of.
    tables: BTreeMap<String, TableConfig>,
    /// `cdc` (the default) gives every change; `change_tracking` gives net changes, which costs the database
    /// less and collapses several updates of a row into one.
    #[serde(default = "default_mode")]
    mode: CaptureMode,
    /// Whether a table without a position is scanned first: `initial` (the default) or `never`, which starts
    /// with the changes that come from now on.
    #[serde(default)]
    snapshot: Snapshot,
    /// How often the database is asked while changes come, in milliseconds, 1 to 5000; 10 by default.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 1, max = 5_000))]
    poll_interval_ms: u64,
    /// How often it is asked when nothing has changed for a while, where asking costs the database anything; by
    /// default after 1 s every 50 ms, after 10 s every 100 ms, after 100 s every 200 ms. Any change resets it.
    #[serde(default = "default_stages")]
    idle_stages: Vec<IdleStage>,
    /// Changes taken at once, 1 to 10000; 500 by default.
    #[serde(default = "default_changes")]
    #[schemars(range(min = 1, max = 10_000))]
    changes_max: usize,
}

/// A captured table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// The section of its entities, such as `forecast`: it names topic and channel further down.
    section: String,
}

/// Whether a table without a position is scanned first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Snapshot {
    /// Scan, then stream.
    #[default]
    Initial,
    /// Stream from now on.
    Never,
}

/// A slower poll after a time without changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdleStage {
    /// Seconds without a change.
    after_s: u64,
    /// The interval from then on, in milliseconds, 1 to 5000.
    #[schemars(range(min = 1, max = 5_000))]
    interval_ms: u64,
}

fn default_mode() -> CaptureMode {
    CaptureMode::Cdc
}

fn default_interval() -> u64 {
    10
}

fn default_stages() -> Vec<IdleStage> {
    [(1, 50), (10, 100), (100, 200)].map(|(after_s, interval_ms)| IdleStage { after_s, interval_ms }).to_vec()
}

fn default_changes() -> usize {
    500
}

impl Config for CdcConfig {
    const TYPE: &'static str = "cdc";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
        if self.tables.is_empty() {
            let help = "name at least one, such as `Forecasts: { section: forecast }`";
            check.problem("tables", "there are no tables", Some(help.to_owned()));
        }
        let mut sections: BTreeMap<&str, &str> = BTreeMap::new();
        for (table, config) in &self.tables {
            if !is_identifier(table) {
                check.problem(
                    &format!("tables.{table}"),
                    format!("`{table}` cannot be a table's name"),
                    Some("use letters, digits and underscores, at most 128, beginning with a letter or `_`".to_owned()),
                );
            }
            if !smartpulse_config::is_id(&config.section) {
                check.problem(
                    &format!("tables.{table}.section"),
                    format!("`{}` cannot be a section", config.section),
                    Some("use lower-case letters, digits and underscores, beginning with a letter".to_owned()),
                );
            }
            if let Some(other) = sections.insert(&config.section, table) {
                check.problem(
                    &format!("tables.{table}.section"),
                    format!("`{other}` has the section `{}` already", config.section),
                    Some("keys are unique within a section: give each table one of its own".to_owned()),
                );
            }
        }
        if !self.idle_stages.is_sorted_by(|a, b| a.after_s <= b.after_s && a.interval_ms <= b.interval_ms) {
            let help = "list them by rising after_s, with intervals that grow";
            check.problem("idle_stages", "the stages are out of order", Some(help.to_owned()));
        }
    }
}

fn is_identifier(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[async_trait]
impl SourceConfig for CdcConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let database: SharedDatabase = cx.resource(&self.database).await?;
        let id = cx.position_id();
        let mut tables = Vec::new();
        for (name, config) in &self.tables {
            let table = database.table(name).await?;
            if !table.capture.contains(&self.mode) {
                let mode = match self.mode {
                    CaptureMode::Cdc => "cdc",
                    CaptureMode::ChangeTracking => "change_tracking",
                };
                return Err(Error::fatal(format!(
                    "table {name} of `{}` is not enabled for mode {mode}; enable it in the database's settings",
                    self.database
                )));
            }
            let position_id = format!("{id}/{name}");
            let phase = match cx.store.position(&position_id).await? {
                Some(position) => Some(Phase::from_position(&position).ok_or_else(|| {
                    Error::fatal(format!("the stored position of {position_id} cannot be read: {position}")).because(
                        "it was written by another version; reset it with `smartpulse position reset`".to_owned(),
                    )
                })?),
                None => None,
            };
            tables.push(TableState {
                epoch: next_epoch(cx.store.as_ref(), &self.database, name).await?,
                name: name.clone(),
                section: config.section.as_str().into(),
                position_id,
                phase,
                taken: None,
            });
        }
        let committer = CdcCommitter { store: cx.store.clone() };
        let source = CdcSource { config: self.clone(), database, store: cx.store.clone(), id, tables };
        Ok(BuiltSource { source: Box::new(source), committer: Some(Box::new(committer)) })
    }
}

struct CdcSource {
    config: CdcConfig,
    database: SharedDatabase,
    store: Arc<dyn Store>,
    id: String,
    tables: Vec<TableState>,
}

/// What one step of one table gave.
struct Step {
    emission: Emission,
    next: Phase,
    /// True when there is more to be had at once.
    more: bool,
    /// True when the stream's place was cleaned up.
    position_lost: bool,
}

#[async_trait]
impl Source for CdcSource {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        let mut last_change = Instant::now();
        let mut last_request = Instant::now();
        let mut failure = FAILURE.0;
        loop {
            let mut more = false;
            for at in 0..self.tables.len() {
                match cx.next(self.step(at)).await? {
                    None => return Ok(()),
                    Some(Ok(step)) => {
                        failure = FAILURE.0;
                        more |= step.more;
                        if self.tables[at].phase.as_ref() == Some(&step.next) {
                            continue;
                        }
                        last_change = Instant::now();
                        if step.position_lost {
                            cx.metrics().note("position_lost", 1);
                        }
                        self.tables[at].phase = Some(step.next);
                        cx.emit(step.emission).await?;
                    }
                    Some(Err(error)) if matches!(error.kind(), ErrorKind::Fatal | ErrorKind::Rejected) => {
                        return Err(error);
                    }
                    Some(Err(error)) => {
                        let table = &self.tables[at].name;
                        tracing::warn!(table, error = error.chain(), ?failure, "capture is held up; trying again");
                        cx.metrics().retries.inc();
                        if cx.next(tokio::time::sleep(failure)).await?.is_none() {
                            return Ok(());
                        }
                        failure = (failure * 2).min(FAILURE.1);
                    }
                }
            }
            if last_request.elapsed() >= REQUEST_POLL {
                last_request = Instant::now();
                self.take_requests(cx).await?;
            }
            if !more && cx.next(tokio::time::sleep(self.interval(last_change.elapsed()))).await?.is_none() {
                return Ok(());
            }
        }
    }
}

impl CdcSource {
    /// How long to wait after a round that found everything read.
    fn interval(&self, idle: Duration) -> Duration {
        let base = self.config.poll_interval_ms;
        let stages: &[IdleStage] = if self.database.idle_poll_is_free() { &[] } else { &self.config.idle_stages };
        let stage = stages.iter().rev().find(|stage| idle >= Duration::from_secs(stage.after_s));
        Duration::from_millis(stage.map_or(base, |stage| stage.interval_ms.max(base)).min(INTERVAL_MAX_MS))
    }

    /// One page of one table.
    async fn step(&self, at: usize) -> Result<Step> {
        let table = &self.tables[at];
        let (name, limit) = (table.name.as_str(), self.config.changes_max);
        let Some(phase) = table.phase.clone() else {
            // Committed before anything else is, so that the stream's start is never noted again.
            let stream = Text::of(&self.database.head(name, self.config.mode).await?);
            return match self.config.snapshot {
                // Keys may have gone between a position that was reset and now.
                Snapshot::Initial if table.epoch > 1 => self.moved(table, Phase::Sweep { stream, after: None }),
                Snapshot::Initial => self.moved(table, Phase::Snapshot { stream, after: None }),
                Snapshot::Never => self.moved(table, Phase::Stream { stream }),
            };
        };
        match phase {
            Phase::Sweep { stream, after } => {
                let gone = self.database.tombstones(name, after.as_deref(), limit).await?;
                let next = match gone.last() {
                    Some(last) if gone.len() >= limit => Phase::Sweep { stream, after: Some(last.key.to_string()) },
                    _ => Phase::Snapshot { stream, after: None },
                };
                let events = gone.into_iter().map(|tombstone| vanished(table, tombstone)).collect();
                page(table, Events { events, ..Events::default() }, next, true)
            }
            Phase::Snapshot { stream, after } => self.snapshot(table, stream, after).await,
            Phase::Stream { stream } => {
                let (events, next, more) = match self.changes(table, &stream).await? {
                    Streamed::Changes(events, next, more) => (events, next, more),
                    Streamed::Lost(step) => return Ok(step),
                };
                page(table, events, Phase::Stream { stream: next }, more)
            }
        }
    }

    /// A page of rows between two readings of the stream.
    async fn snapshot(&self, table: &TableState, stream: Text, after: Option<String>) -> Result<Step> {
        let limit = self.config.changes_max;
        let (mut events, stream, more) = match self.changes(table, &stream).await? {
            Streamed::Changes(events, next, more) => (events, next, more),
            Streamed::Lost(step) => return Ok(step),
        };
        if more {
            return page(table, events, Phase::Snapshot { stream, after }, true);
        }
        let rows = self.database.scan(&table.name, after.as_deref(), limit).await?;
        let (meanwhile, stream, more) = match self.changes(table, &stream).await? {
            Streamed::Changes(events, next, more) => (events, next, more),
            Streamed::Lost(step) => return Ok(step),
        };
        if more {
            // What changed since the page was read is not all known: the page is read again.
            events.append(meanwhile);
            return page(table, events, Phase::Snapshot { stream, after }, true);
        }
        let last = (rows.len() >= limit).then(|| rows.last().map(|row| row.key.to_string())).flatten();
        for row in rows.into_iter().filter(|row| !meanwhile.is_about(&row.key)) {
            events.push(table, scanned(table, &row), &row.key, row.document);
        }
        events.append(meanwhile);
        let next = match last {
            Some(last) => Phase::Snapshot { stream, after: Some(last) },
            None => {
                tracing::info!(table = table.name, "snapshot complete; streaming");
                Phase::Stream { stream }
            }
        };
        page(table, events, next, true)
    }

    /// What was committed after a position.
    async fn changes(&self, table: &TableState, after: &Text) -> Result<Streamed> {
        let (name, limit) = (table.name.as_str(), self.config.changes_max);
        match self.database.changes(name, self.config.mode, &after.position(), limit).await? {
            Poll::Changes(found) => {
                let mut events = Events::default();
                for change in found.changes {
                    let (key, document) = (change.key.clone(), change.document.clone().unwrap_or_default());
                    events.push(table, changed(table, change), &key, document);
                }
                Ok(Streamed::Changes(events, Text::of(&found.next), found.more))
            }
            Poll::SchemaChanged(change) => {
                Err(Error::unavailable(format!("table {name} has changed: {}", change.reason)))
            }
            Poll::PositionLost(reason) => {
                tracing::error!(
                    table = name,
                    reason,
                    "changes were cleaned up before they were captured; taking a new snapshot, which tells of what vanished"
                );
                let stream = Text::of(&self.database.head(name, self.config.mode).await?);
                let mut step = self.moved(table, Phase::Sweep { stream, after: None })?;
                step.position_lost = true;
                Ok(Streamed::Lost(step))
            }
        }
    }

    fn moved(&self, table: &TableState, next: Phase) -> Result<Step> {
        page(table, Events::default(), next, true)
    }

    /// Starts over what someone asked a new snapshot of. The stream goes on from where it is: what it has not brought
    /// yet it still brings.
    async fn take_requests(&mut self, cx: &mut SourceContext) -> Result<()> {
        if let Some(request) = self.requested(&self.id).await {
            for table in &self.tables {
                if let Err(error) = self.store.commit_position(&request_id(&table.position_id), &request).await {
                    tracing::warn!(error = error.chain(), "a request for a snapshot is taken later");
                    return Ok(());
                }
            }
            forget_request(self.store.as_ref(), &self.id).await;
        }
        for at in 0..self.tables.len() {
            let Some(request) = self.requested(&self.tables[at].position_id).await else { continue };
            let table = &self.tables[at];
            let stream = match &table.phase {
                _ if table.taken.as_ref() == Some(&request) => continue,
                // It begins with one anyway.
                None => continue,
                Some(Phase::Sweep { stream, .. } | Phase::Snapshot { stream, .. } | Phase::Stream { stream }) => {
                    stream.clone()
                }
            };
            tracing::info!(table = table.name, "taking a new snapshot, as asked");
            cx.metrics().note("resnapshot", 1);
            let step = self.moved(table, Phase::Sweep { stream, after: None })?;
            self.tables[at].phase = Some(step.next);
            self.tables[at].taken = Some(request);
            cx.emit(step.emission).await?;
        }
        Ok(())
    }

    async fn requested(&self, id: &str) -> Option<Position> {
        self.store.position(&request_id(id)).await.ok().flatten()
    }
}

/// What the stream gave.
enum Streamed {
    Changes(Events, Text, bool),
    Lost(Step),
}
