//! The SQL Server database resource.

use crate::catalogue::Catalogue;
use crate::config::SqlServerConfig;
use crate::pool::{Pool, Server};
use prometheus::Registry;
use smartpulse_clients::metrics::DatabaseMetrics;
use smartpulse_pipeline::error::Result;
use std::sync::Arc;

// For the parts in `capture`, `ledger` and `plan`, which the resource expects as:
// - `capture::Capture::new(Arc<Context>)` with `async fn head(&self, table: &str, mode)`,
//   `changes(&self, table: &str, mode, after: &Position, limit: usize)` and `health(&self, table: &str, mode, position)`,
//   each giving a `smartpulse_pipeline::error::Result`;
// - `plan::capture_plan(context: &Context, table: &str) -> Result<CapturePlan>`;
// - `ledger::SqlServerLedger::new(Arc<Context>)`, a `Ledger`.

/// What the parts of the resource share.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub config: SqlServerConfig,
    /// For reads and writes, `pool_max` connections.
    pub pool: Pool,
    /// For capture and the ledger, so that neither waits for reads: one connection per captured table and one more.
    pub capture_pool: Pool,
    /// The tables.
    pub catalogue: Catalogue,
    /// What is measured, by the name of the query.
    pub metrics: DatabaseMetrics,
}

impl Context {
    /// What these settings come to. Nothing is opened.
    ///
    /// # Errors
    /// Fatal when the settings contradict each other or the metrics are refused.
    pub fn new(name: &str, config: &SqlServerConfig, registry: &Registry) -> Result<Arc<Self>> {
        let server = Server::new(config.connect()?);
        Ok(Arc::new(Self {
            pool: Pool::new(Arc::clone(&server), config.pool_max as usize),
            capture_pool: Pool::new(server, config.captured_tables.len() + 1),
            catalogue: Catalogue::new(config),
            metrics: DatabaseMetrics::register(name, registry)?,
            config: config.clone(),
        }))
    }
}
