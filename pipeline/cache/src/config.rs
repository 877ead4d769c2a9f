//! What a cache may hold, for how long, and how long it waits.

use crate::decide::Applied;
use crate::shared::SharedConfig;
use smartpulse_config::CacheSettings;
use smartpulse_pipeline::Key;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Told of every change that was offered to the cache and what became of it, after it did. Called on the
/// thread that applies: it must be quick.
pub type Observer = Arc<dyn Fn(&Key, i64, Applied) + Send + Sync>;

/// The settings of a [`Cache`](crate::Cache).
#[derive(Clone)]
pub struct CacheConfig {
    /// The kind of entity that is cached; names the cache in logs. Default `forecast`.
    pub section: String,
    /// The table that rows are loaded from. Default `Forecasts`.
    pub table: String,
    /// How long a document is answered without asking anybody; every patch renews it. Default 60 s.
    pub l1_ttl: Duration,
    /// What the documents may take in memory, keys and overhead included. Default 256 MiB.
    pub l1_bytes_max: u64,
    /// How long a query result is answered unless one of its tags changes. Default 60 s.
    pub l2_ttl: Duration,
    /// How many query results are kept. Default 100,000; 0 keeps none.
    pub l2_entries_max: u64,
    /// What the query results may take in memory: a count alone would not bound it, as a page holds up to 500
    /// documents. Default 64 MiB.
    pub l2_bytes_max: u64,
    /// How long beyond its time an entry is kept, to be served marked stale when the database is away.
    /// Default 1 h.
    pub stale_grace: Duration,
    /// How long a tier may take to answer. Default 5 s.
    pub tier_timeout: Duration,
    /// How long a tier that failed is skipped before one request tries it again. Default 1 s.
    pub probe_interval: Duration,
    /// The documents that instances share (L3). Default none.
    pub shared: Option<SharedConfig>,
    /// Who is told of applied changes. Default nobody.
    pub observer: Option<Observer>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            section: "forecast".to_owned(),
            table: "Forecasts".to_owned(),
            l1_ttl: Duration::from_secs(60),
            l1_bytes_max: 256 << 20,
            l2_ttl: Duration::from_secs(60),
            l2_entries_max: 100_000,
            l2_bytes_max: 64 << 20,
            stale_grace: Duration::from_secs(3600),
            tier_timeout: Duration::from_secs(5),
            probe_interval: Duration::from_secs(1),
            shared: None,
            observer: None,
        }
    }
}

/// What the settings say of the cache of forecasts; the rest as by default.
impl From<&CacheSettings> for CacheConfig {
    fn from(settings: &CacheSettings) -> Self {
        Self {
            l1_ttl: Duration::from_secs(settings.l1_ttl_s),
            l1_bytes_max: settings.l1_bytes_max,
            l2_ttl: Duration::from_secs(settings.l2_ttl_s),
            l2_entries_max: settings.l2_entries_max,
            tier_timeout: Duration::from_millis(settings.tier_timeout_ms),
            ..Self::default()
        }
    }
}

impl fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheConfig")
            .field("section", &self.section)
            .field("table", &self.table)
            .field("l1_ttl", &self.l1_ttl)
            .field("l1_bytes_max", &self.l1_bytes_max)
            .field("l2_ttl", &self.l2_ttl)
            .field("l2_entries_max", &self.l2_entries_max)
            .field("l2_bytes_max", &self.l2_bytes_max)
            .field("stale_grace", &self.stale_grace)
            .field("tier_timeout", &self.tier_timeout)
            .field("probe_interval", &self.probe_interval)
            .finish_non_exhaustive()
    }
}
