//! The settings of an instance: what every key means.
//!
//! No field has a default in code. The defaults are the values of `default.yaml`, which is compiled in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::layers::{self, LoadOptions};
use crate::located::Located;
use crate::node::Node;
use crate::retry::RetryPolicies;
use crate::secret::Secret;

mod api;

pub use api::{ApiSettings, AuthKey, AuthSettings, ClaimNames, RateSettings, StreamSettings};

/// Everything an instance can be told, apart from its pipelines.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the environment, which selects the file `<environment>.yaml`. Chosen by `--env`,
    /// `SMARTPULSE_ENV` or `SMARTPULSE__ENVIRONMENT`; default `development`.
    pub environment: String,
    /// What stands for `{partition}` in the names of topics and channels, and in every DataChanged message: installations that
    /// share a Redis differ in it. Default `production`.
    #[schemars(length(min = 1, max = 64))]
    pub partition: String,
    /// Folder of everything that embedded resources keep: databases, positions, logs. Relative to the
    /// working folder. Default `./data`.
    pub data_dir: PathBuf,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Where traces go.
    pub traces: TraceSettings,
    /// The HTTP API.
    pub api: ApiSettings,
    /// What people are told.
    pub notifications: NotificationSettings,
    /// The cache tiers.
    pub cache: CacheSettings,
    /// The runtime of pipelines.
    pub runtime: RuntimeSettings,
    /// The player, which feeds recorded data through the database.
    pub player: PlayerSettings,
    /// Named retry policies. Built in: `redis` (100 times 50 ms), `exponential` (100, 200, 400, 800 ms with
    /// jitter) and `transient_sql` (3 times, up to 30 s). A key of the same name overrides one.
    pub retries: RetryPolicies,
    /// What the resource names in pipelines stand for. Typed by the registry, not here.
    #[serde(skip)]
    pub resources: BTreeMap<String, ResourceSpec>,
}

/// What is logged.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Least severe level, or directives per module such as `info,smartpulse=debug`. Default
    /// `info,smartpulse=debug`; staging `info`; production `warn`.
    #[schemars(length(min = 1, max = 1_000))]
    pub level: String,
    /// Form of a line. Default `text`.
    pub format: LogFormat,
    /// What is kept in the table `Logs` of the main database, where `smartpulse logs` and SQL find it.
    pub table: LogTableSettings,
}

/// The log table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogTableSettings {
    /// Least severe level that is kept, whatever `log.level` shows; `off` keeps nothing. Default `warn`.
    pub level: LogTableLevel,
    /// How long a line is kept, in days. Default 30.
    #[schemars(range(min = 1, max = 3_650))]
    pub days: u32,
    /// Lines kept at most, of all instances together; the oldest go. Default 100,000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub rows_max: u32,
}

/// The least severe level of the log table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogTableLevel {
    /// Nothing.
    Off,
    /// Loss, or what somebody has to look after.
    Error,
    /// What went wrong and heals by itself, too.
    Warn,
    /// What was done, too.
    Info,
    /// Every step, too.
    Debug,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// Traces, by OTLP over HTTP (OpenTelemetry protocol, binary protobuf).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// The collector's address, such as `http://127.0.0.1:4318`; spans are posted to `/v1/traces` there. Default empty: nothing
    /// is traced.
    #[schemars(length(max = 2_000))]
    pub endpoint: String,
    /// Share of changes and of requests that are traced, 0 to 1; all instances take the same changes. Default 0.01;
    /// development 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// Sent along as `Authorization`, such as `Bearer ...`. Default none.
    pub authorization: Option<Secret>,
}

/// What people are told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationSettings {
    /// The API's page `/unsubscribe` as people reach it, such as `https://app.example/unsubscribe`: mails have a link to it, by
    /// which they are switched off without logging in. Default empty: no links; development `http://127.0.0.1:8080/unsubscribe`.
    #[schemars(length(max = 2_000))]
    pub unsubscribe_url: String,
    /// What signs these links, 32 bytes at least, the same in all instances. Another one makes links of mails that were sent
    /// worthless. Default none: in development a secret that everybody knows; elsewhere there are no links without it.
    pub unsubscribe_secret: Option<Secret>,
    /// Who is told by mail of errors that are logged.
    pub operators: OperatorSettings,
}

/// The operators, who are told of errors by mail: of what the log table keeps, by `mail_sender`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorSettings {
    /// Their addresses. Default none: nobody is told.
    #[schemars(length(max = 20))]
    pub mail_to: Vec<String>,
    /// Different errors that an instance tells in an hour; each is told once an hour anyway. Default 20.
    #[schemars(range(min = 1, max = 10_000))]
    pub per_hour: u32,
}

/// The cache tiers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// How long a document is answered from memory (L1) without asking again, in seconds, 60 to 3,600; every
    /// change renews it. Default 60; staging 300; production 3,600.
    #[schemars(range(min = 60, max = 3_600))]
    pub l1_ttl_s: u64,
    /// Memory of the documents (L1), in bytes; the least used leave. Default 67,108,864; 0 turns the tier off.
    pub l1_bytes_max: u64,
    /// How long a query result (L2) is answered unless something in it changes, in seconds. Default 60; staging
    /// 300; production 3,600.
    #[schemars(range(min = 1, max = 86_400))]
    pub l2_ttl_s: u64,
    /// Query results kept (L2); the least used leave. Default 100,000; 0 turns the tier off.
    pub l2_entries_max: u64,
    /// Documents loaded at start, by ascending key. Default 10,000; 0 starts cold.
    #[schemars(range(max = 1_000_000))]
    pub warm_entries_max: u64,
    /// Longest wait for one tier, in milliseconds, before the next is asked. Default 5,000.
    #[schemars(range(min = 1, max = 60_000))]
    pub tier_timeout_ms: u64,
}

/// The runtime of pipelines.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSettings {
    /// Batches held between a source and a sink; a full channel makes the source wait. Default 16.
    #[schemars(range(min = 1, max = 65_536))]
    pub channel_batches: usize,
    /// Longest event document, in bytes; longer ones go to the dead letters. Default 1,048,576.
    #[schemars(range(min = 1_024, max = 67_108_864))]
    pub document_bytes_max: usize,
    /// Longest a shutdown waits for events under way, in milliseconds; what is left is delivered again after
    /// the next start. Default 30,000; 0 does not wait.
    #[schemars(range(max = 600_000))]
    pub drain_timeout_ms: u64,
    /// Threads that run pipelines. Default 0: as many as the machine has processors.
    #[schemars(range(max = 1_024))]
    pub worker_threads: usize,
}

/// The player.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlayerSettings {
    /// Changes written to the database per second. Default 200; 0 plays none.
    #[schemars(range(max = 1_000_000))]
    pub changes_per_second: u64,
}

/// A resource, as written: typed by the registry as components are.
#[derive(Clone, Debug)]
pub struct ResourceSpec {
    /// The name that pipelines use.
    pub name: String,
    /// Its `type`.
    pub type_name: String,
    /// The mapping without `type`: what the type's own schema is checked against.
    pub params: Node,
    /// The whole resource, for later problems; its path is such as `resources.main_db`.
    pub located: Located,
}

impl Settings {
    /// Reads all layers.
    ///
    /// # Errors
    /// Every problem of every layer.
    pub fn load(options: &LoadOptions) -> Result<Self, Diagnostics> {
        layers::load(options)
    }

    /// The JSON Schema of a settings file: nothing is required, for every layer is partial, and each field
    /// has its default from `default.yaml`. `resources` are any mappings here; the registry knows better.
    pub fn schema() -> Schema {
        layers::layer_schema()
    }
}

impl Default for Settings {
    /// The built-in defaults.
    ///
    /// # Panics
    /// If `default.yaml`, which is compiled in, is wrong. A test loads it.
    fn default() -> Self {
        Self::load(&LoadOptions::default()).expect("the built-in settings are valid")
    }
}
