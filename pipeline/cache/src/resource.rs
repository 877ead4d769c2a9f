//! The cache as a resource that YAML and API name.

use crate::audit::{self, Auditor};
use crate::{Cache, CacheConfig, SharedConfig, maintain, sweep};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::pubsub::{Publisher, SharedPubSub};
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Check, Config, Registry, ResourceConfig, ResourceContext};
use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// A cache that several parts of a process share.
pub struct SharedCache {
    cache: Cache,
    section: Arc<str>,
}

impl SharedCache {
    /// The kind of entity that is cached.
    #[must_use]
    pub fn section(&self) -> Arc<str> {
        self.section.clone()
    }

    /// The cache itself; clones share it.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl Deref for SharedCache {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.cache
    }
}

/// The materialized cache of one table in front of its database. Sizes and times are those of the settings under
/// `cache`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheResourceConfig {
    /// The database resource that misses are loaded from.
    database: String,
    /// The table; `Forecasts` by default.
    #[serde(default = "default_table")]
    table: String,
    /// The section of its entities; `forecast` by default.
    #[serde(default = "default_section")]
    section: String,
    /// The pub/sub resource whose documents all instances share (L3), where it keeps any: Redis does, the embedded one
    /// does not. With it this instance also sweeps, and takes its turn at the audit. Default none.
    #[serde(default)]
    shared: Option<String>,
    /// How long a shared document is answered after it was last written, in seconds, 300 to 3,600. Default 300.
    #[serde(default = "default_shared_ttl_s")]
    #[schemars(range(min = 300, max = 3_600))]
    shared_ttl_s: u64,
}

fn default_shared_ttl_s() -> u64 {
    300
}

fn default_table() -> String {
    "Forecasts".to_owned()
}

fn default_section() -> String {
    "forecast".to_owned()
}

impl Config for CacheResourceConfig {
    const TYPE: &'static str = "cache";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
        if let Some(shared) = &self.shared {
            check.resource("shared", shared, "pubsub");
        }
    }
}

#[async_trait]
impl ResourceConfig for CacheResourceConfig {
    const KIND: &'static str = "cache";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database: SharedDatabase = cx.resources.get(&self.database).await?;
        let pubsub: Option<SharedPubSub> = match &self.shared {
            Some(name) => Some(cx.resources.get(name).await?),
            None => None,
        };
        let documents = pubsub.as_ref().and_then(|pubsub| pubsub.documents());
        let config = CacheConfig {
            section: self.section.clone(),
            table: self.table.clone(),
            shared: documents
                .map(|documents| SharedConfig { documents, age_max: Duration::from_secs(self.shared_ttl_s) }),
            ..CacheConfig::from(&cx.settings.cache)
        };
        let cache = Cache::new(config, database, cx.registry)?;
        if let Some(pubsub) = pubsub.filter(|_| cache.inner.shared.is_some()) {
            let publisher = Publisher {
                instance: cx.instance.to_string().into(),
                partition: cx.settings.partition.as_str().into(),
                section: self.section.as_str().into(),
            };
            tokio::spawn(sweep::run(Arc::downgrade(&cache.inner)));
            tokio::spawn(audit::run(Arc::downgrade(&cache.inner), Auditor::new(pubsub, publisher)));
        }
        // This and the others end with the cache.
        tokio::spawn(maintain::run(Arc::downgrade(&cache.inner)));
        let shared = Arc::new(SharedCache { cache, section: self.section.as_str().into() });
        Ok(Arc::new(shared))
    }
}

/// Registers the resource of this crate.
pub fn register(registry: &mut Registry) {
    registry.resource::<CacheResourceConfig>();
}
