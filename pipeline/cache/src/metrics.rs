//! What is measured of a cache.

use crate::cache::{Inner, Level};
use crate::decide::Applied;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Weak;

/// From a commit on the same machine (well below 1 ms) to the limit that is promised (3 s) and beyond.
/// Fine up to 30 ms, where a poll of 10 ms puts nearly all of them.
const COMMIT_TO_CACHE_SECONDS: [f64; 24] = [
    0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.012, 0.014, 0.017, 0.02, 0.025, 0.03, 0.05, 0.1, 0.2, 0.5,
    1.0, 2.0, 3.0, 5.0, 10.0, 30.0,
];

/// The counters of one cache. One cache per registry.
pub(crate) struct Metrics {
    hits: [IntCounter; 4],
    misses: [IntCounter; 4],
    applied: [IntCounter; Applied::ALL.len()],
    pub stale: IntCounter,
    pub swept: IntCounter,
    pub repaired_by_sweep: IntCounter,
    pub repaired_by_audit: IntCounter,
    pub commit_to_cache: Histogram,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let counters = |name: &str, help: &str, label: &str| -> Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label]).map_err(refused)?;
            registry.register(Box::new(counters.clone())).map_err(refused)?;
            Ok(counters)
        };
        let hits = counters("cache_hits_total", "Reads that a tier answered", "level")?;
        let misses = counters("cache_misses_total", "Reads that a tier could not answer", "level")?;
        let applied = counters("cache_applied_total", "Changes offered to the cache, by outcome", "outcome")?;
        let stale = IntCounter::new("cache_stale_total", "Reads answered with a stale copy").map_err(refused)?;
        registry.register(Box::new(stale.clone())).map_err(refused)?;
        let swept = IntCounter::new("cache_swept_total", "Held keys that were compared with their shared counter")
            .map_err(refused)?;
        registry.register(Box::new(swept.clone())).map_err(refused)?;
        let repaired = counters("cache_repaired_total", "Keys that lagged twice and were repaired", "by")?;
        let commit_to_cache = Histogram::with_opts(
            HistogramOpts::new("commit_to_cache_seconds", "From a change's commit until readers see it")
                .buckets(COMMIT_TO_CACHE_SECONDS.to_vec()),
        )
        .map_err(refused)?;
        registry.register(Box::new(commit_to_cache.clone())).map_err(refused)?;
        Ok(Self {
            hits: Level::ALL.map(|level| hits.with_label_values(&[level.as_str()])),
            misses: Level::ALL.map(|level| misses.with_label_values(&[level.as_str()])),
            applied: Applied::ALL.map(|applied_as| applied.with_label_values(&[applied_as.as_str()])),
            stale,
            swept,
            repaired_by_sweep: repaired.with_label_values(&["sweep"]),
            repaired_by_audit: repaired.with_label_values(&["audit"]),
            commit_to_cache,
        })
    }

    pub(crate) fn hit(&self, level: Level) {
        self.hits[level as usize].inc();
    }

    pub(crate) fn miss(&self, level: Level) {
        self.misses[level as usize].inc();
    }

    pub(crate) fn applied(&self, applied: Applied) {
        self.applied[applied as usize].inc();
    }
}

/// What the tiers hold, looked up when somebody asks.
pub(crate) struct Sizes {
    cache: Weak<Inner>,
    entries: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl Sizes {
    pub(crate) fn register(cache: Weak<Inner>, registry: &Registry) -> Result<()> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["level"]).map_err(refused);
        let sizes = Self {
            cache,
            entries: gauge("cache_entries", "Entries that a tier holds")?,
            bytes: gauge("cache_bytes", "What the entries of a tier weigh, in bytes")?,
        };
        registry.register(Box::new(sizes)).map_err(refused)
    }
}

impl Collector for Sizes {
    fn desc(&self) -> Vec<&Desc> {
        [self.entries.desc(), self.bytes.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(cache) = self.cache.upgrade() {
            for (level, (entries, bytes)) in [(Level::L1, cache.documents.size()), (Level::L2, cache.lists.size())] {
                let labels = [level.as_str()];
                self.entries.with_label_values(&labels).set(i64::try_from(entries).unwrap_or(i64::MAX));
                self.bytes.with_label_values(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
        [self.entries.collect(), self.bytes.collect()].concat()
    }
}

fn refused(error: prometheus::Error) -> Error {
    Error::fatal("the cache's metrics could not be registered").because(error)
}
