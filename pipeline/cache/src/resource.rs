//! The cache as a resource that YAML and API name, with the news of what it applied.

use crate::{Applied, Cache, CacheConfig};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Check, Config, Registry, ResourceConfig, ResourceContext};
use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Changes that a slow listener may be behind; beyond it, it is told that it missed some.
const NEWS_MAX: usize = 4096;

/// What the cache did with a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedChange {
    /// The entity.
    pub key: Key,
    /// The change's version.
    pub version: i64,
    /// What became of it.
    pub applied: Applied,
}

/// A cache that several parts of a process share.
pub struct SharedCache {
    cache: Cache,
    section: Arc<str>,
    news: broadcast::Sender<AppliedChange>,
}

impl SharedCache {
    /// Hears of every change that is offered from now on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<AppliedChange> {
        self.news.subscribe()
    }

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
    }
}

#[async_trait]
impl ResourceConfig for CacheResourceConfig {
    const KIND: &'static str = "cache";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database: SharedDatabase = cx.resources.get(&self.database).await?;
        let (news, _) = broadcast::channel(NEWS_MAX);
        let teller = news.clone();
        let config = CacheConfig {
            section: self.section.clone(),
            table: self.table.clone(),
            observer: Some(Arc::new(move |key, version, applied| {
                // Nobody listening is no error.
                let _ = teller.send(AppliedChange { key: key.clone(), version, applied });
            })),
            ..CacheConfig::from(&cx.settings.cache)
        };
        let cache = Cache::new(config, database, cx.registry)?;
        let shared = Arc::new(SharedCache { cache, section: self.section.as_str().into(), news });
        Ok(Arc::new(shared))
    }
}

/// Registers the resource of this crate.
pub fn register(registry: &mut Registry) {
    registry.resource::<CacheResourceConfig>();
}
