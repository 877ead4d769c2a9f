//! What every database resource measures: how many queries it ran and how long they took, by the query's name.
//!
//! `database_queries_total{database,query}` counts what really went to the database: a poll that found nothing
//! committed, or a read that a cache answered, is not in it. `database_query_duration_seconds{database,query}`
//! is the histogram of the same queries.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use smartpulse_pipeline::error::{Error, Result};
use std::time::Instant;

/// From a lookup in a warm page cache, 50 microseconds, to a remote query that is about to time out, 5 s.
const BUCKETS_S: [f64; 12] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// The metrics of one database resource. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DatabaseMetrics {
    queries: IntCounterVec,
    duration: HistogramVec,
}

impl DatabaseMetrics {
    /// Registers the metrics of the resource named `database`; those of an earlier resource of this name end.
    ///
    /// # Errors
    /// Fatal when the registry refuses them.
    pub fn register(database: &str, registry: &Registry) -> Result<Self> {
        let refused = |e| Error::fatal("cannot register the metrics of a database").because(e);
        let queries =
            Opts::new("database_queries_total", "Queries that went to the database.").const_label("database", database);
        let duration = HistogramOpts::new("database_query_duration_seconds", "Time of a query, in seconds.")
            .const_label("database", database)
            .buckets(BUCKETS_S.to_vec());
        let metrics = Self {
            queries: IntCounterVec::new(queries, &["query"]).map_err(refused)?,
            duration: HistogramVec::new(duration, &["query"]).map_err(refused)?,
        };
        replace(registry, metrics.queries.clone()).map_err(refused)?;
        replace(registry, metrics.duration.clone()).map_err(refused)?;
        Ok(metrics)
    }

    /// Counts a query that started at `start` and has ended now.
    pub fn observe(&self, query: &str, start: Instant) {
        self.queries.with_label_values(&[query]).inc();
        self.duration.with_label_values(&[query]).observe(start.elapsed().as_secs_f64());
    }

    /// How many queries of this name there were.
    #[must_use]
    pub fn count(&self, query: &str) -> u64 {
        self.queries.with_label_values(&[query]).get()
    }
}

/// A resource that is opened again within one process has the same series.
fn replace(registry: &Registry, collector: impl Collector + Clone + 'static) -> prometheus::Result<()> {
    match registry.register(Box::new(collector.clone())) {
        Err(prometheus::Error::AlreadyReg) => {
            registry.unregister(Box::new(collector.clone()))?;
            registry.register(Box::new(collector))
        }
        result => result,
    }
}
