//! `cache`: brings this instance's cache up to date.
//!
//! `mode: apply` takes DataChanged events (from `pubsub`): a patch is applied only to the very version it was
//! made from, a whole document replaces an older one, anything else loads the key again. `mode: evict` takes
//! invalidations: documents older than the version leave, and so do the lists of the tags. Both are idempotent,
//! keep versions from going back, and touch memory only.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_cache::{Change, Invalidation, SharedCache};
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::{Batch, Event};
use std::sync::Arc;

/// Brings this instance's cache up to date.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// The cache resource.
    cache: String,
    /// `apply` (the default) takes changes over; `evict` lets go of what an invalidation names.
    #[serde(default)]
    mode: Mode,
}

/// What the sink does with the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Take changes over.
    #[default]
    Apply,
    /// Let go of what is older.
    Evict,
}

impl Config for CacheConfig {
    const TYPE: &'static str = "cache";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("cache", &self.cache, "cache");
    }
}

#[async_trait]
impl SinkConfig for CacheConfig {
    const NEWEST_ONLY: bool = true;

    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let cache: Arc<SharedCache> = cx.resource(&self.cache).await?;
        let section = cache.section();
        Ok(Box::new(CacheSink { cache, section, mode: self.mode }))
    }
}

struct CacheSink {
    cache: Arc<SharedCache>,
    section: Arc<str>,
    mode: Mode,
}

#[async_trait]
impl Sink for CacheSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        if batch.after_loss {
            self.cache.lost();
        }
        let mut rejected = Vec::new();
        for (index, event) in batch.events.iter().enumerate() {
            let done = match self.mode {
                Mode::Apply => self.apply(event),
                Mode::Evict => self.evict(event),
            };
            if let Err(reason) = done {
                rejected.push(Rejected { index, reason });
            }
        }
        Ok(rejected)
    }
}

impl CacheSink {
    fn apply(&self, event: &Event) -> Result<(), String> {
        if event.section != self.section {
            return Err(format!("a change of section `{}`, but the cache holds `{}`", event.section, self.section));
        }
        let patch = event.patch.as_ref().ok_or("the event has no patch: `mode: apply` takes DataChanged events")?;
        self.cache.apply(&Change {
            key: event.key.clone(),
            version: event.version,
            previous_version: event.previous_version,
            items: patch.items.clone(),
            whole: patch.whole,
            commit_time: event.commit_time,
        });
        Ok(())
    }

    fn evict(&self, event: &Event) -> Result<(), String> {
        let document = event.document.as_ref().ok_or("the event has no document")?;
        let message: InvalidationMessage =
            serde_json::from_slice(document.bytes()).map_err(|error| format!("not an invalidation: {error}"))?;
        let ours = message.entity_type.eq_ignore_ascii_case(&self.section);
        self.cache.evict_older(&Invalidation {
            entity: ours.then(|| (message.entity_id.into(), message.version_id)),
            tags: message.tags,
        });
        Ok(())
    }
}

/// What is read of an invalidation; other members are additive.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InvalidationMessage {
    entity_id: String,
    entity_type: String,
    version_id: i64,
    #[serde(default)]
    tags: Vec<String>,
}
