//! The resource type that settings can name: `sqlserver`.

use crate::config::SqlServerConfig;
use crate::database::SqlServerDatabase;
use async_trait::async_trait;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Check, Config, Registry, ResourceConfig, ResourceContext};
use std::any::Any;
use std::sync::Arc;

/// Registers the resource type of this crate.
pub fn register(registry: &mut Registry) {
    registry.resource::<SqlServerConfig>();
}

impl Config for SqlServerConfig {
    const TYPE: &'static str = "sqlserver";

    fn validate(&self, check: &mut Check<'_>) {
        self.check(check);
    }
}

#[async_trait]
impl ResourceConfig for SqlServerConfig {
    const KIND: &'static str = "database";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database: SharedDatabase = Arc::new(SqlServerDatabase::open(cx.name, self, cx.registry)?);
        Ok(Arc::new(database))
    }
}
