//! `cdc`: the committed changes of database tables: first a snapshot, then the stream.
//!
//! Output: per table, every change once in commit order, with the full row (of a delete: the last image where
//! the mode keeps one). Tables are independent: each has its own position, lease and schedule, and none waits for
//! another. Rows of a snapshot are marked, so that they heal state and notify nobody.
//!
//! Among several instances one captures a table: the holder of its lease, which is the row that holds its position.
//! Nothing is published without the lease; events carry its number (the epoch), and lower ones than seen are
//! refused downstream, so that what a paused holder still had in its hands does not count.
//!
//! The hand-over has no gap, and no row overtakes a change: the stream's start is noted before the scan begins; a scanned
//! page (of rows, of tombstones, of remembered keys) is held until the stream has come to a moment after its reading, and
//! of the page only those keys go out that the stream did not tell of. So no change is ever told only as a marked row.
//! (The idea is that of DBLog's watermarks, Andreakis and Papapanagiotou, 2019.) Where the stream is behind what was
//! committed, as far as SQL Server's capture job is in mode `cdc`, each page waits as long as that: `changes_max` says how
//! many rows wait at once. Changes are told meanwhile.
//!
//! A position that clean-up has passed is never skipped silently: it is logged, counted, and healed by a new snapshot,
//! which also tells of rows that vanished (from the tombstones; of a table without, from the keys that capture
//! remembers, at the last version + 1). Positions are committed after everything up to them is durable downstream. Cost
//! to the database: one poll per table and interval; the interval grows in stages while nothing changes, where a poll
//! costs the database anything.
//!
//! What it tells of itself: see `cdc/signals.rs`.

mod events;
mod lease;
mod memory;
mod position;
mod run;
mod signals;
mod step;

pub use position::request_resnapshot;

use async_trait::async_trait;
use lease::{Keeper, Lease, Order};
use memory::Memory;
use position::{CdcCommitter, Phase, Text};
use run::{CdcSource, TableState};
use schemars::JsonSchema;
use serde::Deserialize;
use signals::{Families, Signals};
use smartpulse_clients::database::{self, CaptureMode, SharedDatabase};
use smartpulse_clients::ledger::{SharedLedger, StoreLedger};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::BuiltSource;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Captures the committed changes of database tables: a snapshot first, then the stream.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CdcConfig {
    /// The database resource.
    database: String,
    /// The tables by name, each with the section that its entities are of.
    tables: BTreeMap<String, TableConfig>,
    /// `cdc` (the default) gives every change; `change_tracking` gives net changes, which costs the database
    /// less and collapses several updates of a row into one; `auto` takes `cdc` where the table is enabled for it, else
    /// `change_tracking`, and logs which.
    #[serde(default)]
    mode: Mode,
    /// Whether a table without a position is scanned first: `initial` (the default) or `never`, which starts
    /// with the changes that come from now on.
    #[serde(default)]
    snapshot: Snapshot,
    /// What happens when captured changes get another shape, on SQL Server when a capture instance with other columns takes
    /// over (a column that is only added to the table, or one captured by `change_tracking`, is simply in later documents:
    /// ask for a snapshot to have it in all): `block` (the default): its
    /// capture waits, and says so, until somebody has decided; `switch`: it goes on in the new shape; `resnapshot`: it
    /// goes on with a new snapshot.
    #[serde(default)]
    on_schema_change: OnSchemaChange,
    /// How often the database is asked while changes come, in milliseconds, 1 to 5000; by default as the database
    /// suggests: 10 embedded, 50 for SQL Server.
    #[serde(default)]
    #[schemars(range(min = 1, max = 5_000))]
    poll_interval_ms: Option<u64>,
    /// How often it is asked when nothing has changed for a while, where asking costs the database anything; by
    /// default after 1 s every 50 ms, after 10 s every 100 ms, after 100 s every 200 ms. Any change resets it.
    #[serde(default = "default_stages")]
    idle_stages: Vec<IdleStage>,
    /// Changes taken at once, 1 to 10000; 500 by default.
    #[serde(default = "default_changes")]
    #[schemars(range(min = 1, max = 10_000))]
    changes_max: usize,
    /// For how long an instance has a table to itself without renewing, in milliseconds, 1000 to 60000; 3000 by default. It
    /// renews every third of it; after a crash another instance takes over at its end. Where only one instance can
    /// capture (the embedded database) it only paces what is looked at now and then, such as requests for snapshots.
    #[serde(default = "default_lease")]
    #[schemars(range(min = 1_000, max = 60_000))]
    lease_ms: u64,
    /// After how long without a successful poll a table counts as stalled, in milliseconds; 10000 by default.
    #[serde(default = "default_stall")]
    #[schemars(range(min = 1_000, max = 3_600_000))]
    stall_after_ms: u64,
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

/// How changes are captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Net changes.
    ChangeTracking,
    /// Every change.
    #[default]
    Cdc,
    /// Every change where the table is enabled for it, else net changes.
    Auto,
}

/// What happens when a table gets another shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSchemaChange {
    /// Its capture waits for somebody.
    #[default]
    Block,
    /// It goes on in the new shape.
    Switch,
    /// It goes on with a new snapshot.
    Resnapshot,
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

fn default_stages() -> Vec<IdleStage> {
    [(1, 50), (10, 100), (100, 200)].map(|(after_s, interval_ms)| IdleStage { after_s, interval_ms }).to_vec()
}

fn default_changes() -> usize {
    500
}

fn default_lease() -> u64 {
    3_000
}

fn default_stall() -> u64 {
    10_000
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

/// A captured table, as its turns, its keeper and the committer share it.
struct Table {
    name: String,
    section: Arc<str>,
    /// Under what its position and lease are kept: `<pipeline>/<source>/<table>`.
    id: String,
    mode: CaptureMode,
    database: SharedDatabase,
    settings: CdcConfig,
    lease: Arc<Lease>,
    /// Where the table leaves no tombstones.
    memory: Option<Memory>,
    signals: Arc<Signals>,
}

impl Table {
    /// A new snapshot that also tells of what vanished, with the stream from here.
    fn anew(&self, stream: Text) -> Phase {
        match self.memory {
            // What vanished is told behind the rows.
            Some(_) => Phase::Snapshot { stream, after: None },
            None => Phase::Sweep { stream, after: None },
        }
    }
}

#[async_trait]
impl SourceConfig for CdcConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let database: SharedDatabase = cx.resource(&self.database).await?;
        let families = Families::register(cx.pipeline, cx.component, cx.resources.registry())?;
        let shared = database.ledger();
        let is_shared = shared.is_some();
        let ledger: SharedLedger = shared.unwrap_or_else(|| Arc::new(StoreLedger::new(cx.store.clone())));
        let orders = Arc::new(watch::Sender::new(Order::Wait));
        let mut tables = BTreeMap::new();
        let mut keepers = Vec::new();
        for (name, config) in &self.tables {
            let catalogued = database.table(name).await?;
            let mode = self.mode_of(&catalogued)?;
            let id = format!("{}/{name}", cx.position_id());
            let memory = (!catalogued.tombstones).then(|| Memory::new(cx.store.clone(), &id));
            if memory.is_some() && is_shared {
                tracing::warn!(
                    table = name,
                    "the table leaves no tombstones: which keys it has is remembered by this instance only, so that after \
                     another one took over deletes may go untold; give it the triggers of versions.sql"
                );
            }
            let (lease, signals) =
                (Arc::new(Lease::new()), Arc::new(families.table(name, Duration::from_millis(self.stall_after_ms))));
            let keeper = Keeper {
                table: name.clone(),
                id: id.clone(),
                lease: lease.clone(),
                signals: signals.clone(),
                ledger: ledger.clone(),
                holder: holder(cx),
                term: Duration::from_millis(self.lease_ms),
                shared: is_shared,
                orders: orders.subscribe(),
            };
            keepers.push(tokio::spawn(keeper.run()));
            let table = Table {
                name: name.clone(),
                section: config.section.as_str().into(),
                id,
                mode,
                database: database.clone(),
                settings: self.clone(),
                lease,
                memory,
                signals,
            };
            tables.insert(name.clone(), Arc::new(table));
        }
        let source = CdcSource {
            tables: tables.values().cloned().map(TableState::new).collect(),
            orders: orders.clone(),
            poll_interval: self.poll_interval_ms.map_or(database.poll_interval(), Duration::from_millis),
            idle_stages: self.idle_stages.clone(),
        };
        let committer = CdcCommitter { tables, orders, keepers };
        Ok(BuiltSource { source: Box::new(source), committer: Some(Box::new(committer)) })
    }
}

impl CdcConfig {
    /// The database resource.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The names of the captured tables.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// How they are to be captured.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The mode that a table is captured in.
    fn mode_of(&self, table: &database::Table) -> Result<CaptureMode> {
        let enabled = |mode| table.capture.contains(&mode);
        let name = &table.name;
        let (mode, wanted) = match self.mode {
            Mode::Cdc => (CaptureMode::Cdc, "cdc"),
            Mode::ChangeTracking => (CaptureMode::ChangeTracking, "change_tracking"),
            Mode::Auto if enabled(CaptureMode::Cdc) => {
                tracing::info!(table = name, "captured in mode cdc: the table is enabled for it");
                (CaptureMode::Cdc, "cdc")
            }
            Mode::Auto => {
                if enabled(CaptureMode::ChangeTracking) {
                    tracing::info!(table = name, "captured in mode change_tracking: the table is not enabled for cdc");
                }
                (CaptureMode::ChangeTracking, "cdc or change_tracking")
            }
        };
        if enabled(mode) {
            return Ok(mode);
        }
        Err(Error::fatal(format!(
            "table {name} of `{}` is not enabled for mode {wanted}; `smartpulse plan FILE` says what enables it",
            self.database
        )))
    }
}

/// Who holds a lease: the same for all tables of a process, and no other process's.
fn holder(cx: &BuildContext<'_>) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "host".to_owned());
    let random = cx.instance.simple().to_string();
    // A host's name has at most 255 characters, and the ledger room for 200.
    let host: String = host.trim().chars().take(150).collect();
    format!("{host}:{}:{}", std::process::id(), &random[..8])
}
