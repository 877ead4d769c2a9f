//! `data_changed`: what this instance's cache has just taken over, for derived state.
//!
//! Output: one event per change that the cache applied, with the document as the cache holds it then; a delete
//! without one. Versions of a key rise, but some may be missing: several changes in quick succession give one
//! event with the newest document. Nothing is committed, and what happens while nobody listens, or while the
//! document is neither in memory nor to be had from the database, is not told.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_cache::{Applied, AppliedChange, SharedCache};
use smartpulse_json::Document;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Emission, Source, SourceContext};
use smartpulse_pipeline::{Event, Operation};
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Gives what this instance's cache has just taken over.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataChangedConfig {
    /// The cache resource.
    cache: String,
}

impl Config for DataChangedConfig {
    const TYPE: &'static str = "data_changed";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("cache", &self.cache, "cache");
    }
}

#[async_trait]
impl SourceConfig for DataChangedConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let cache: Arc<SharedCache> = cx.resource(&self.cache).await?;
        let changes = cache.changes();
        Ok(BuiltSource::forgetful(DataChangedSource { cache, changes }))
    }
}

struct DataChangedSource {
    cache: Arc<SharedCache>,
    changes: Receiver<AppliedChange>,
}

#[async_trait]
impl Source for DataChangedSource {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        loop {
            let mut emission = Emission::default();
            match cx.next(self.changes.recv()).await? {
                None => return Ok(()),
                Some(Ok(change)) => match change.applied {
                    Applied::Patched | Applied::Replaced | Applied::Removed => {
                        emission.events.extend(self.event(&change).await?);
                    }
                    Applied::Stale | Applied::Absent | Applied::Reload => continue,
                },
                Some(Err(RecvError::Lagged(missed))) => {
                    tracing::warn!(missed, "changes came faster than they were read");
                    emission.after_loss = true;
                }
                Some(Err(RecvError::Closed)) => return Err(Error::fatal("the cache is gone")),
            }
            cx.emit(emission).await?;
        }
    }
}

impl DataChangedSource {
    async fn event(&self, change: &AppliedChange) -> Result<Option<Event>> {
        let section = self.cache.section();
        if change.applied == Applied::Removed {
            return Ok(Some(Event::new(section, change.key.clone(), change.version, Operation::Delete, None)));
        }
        let hit = match self.cache.get(&change.key).await {
            Ok(Some(hit)) => hit,
            // Deleted since: that change comes next.
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(key = %change.key, error = error.chain(), "a change is not told: its document is not to be had");
                return Ok(None);
            }
        };
        let document = Document::parse(hit.document)
            .map_err(|error| Error::rejected("the cache holds no JSON document").because(error))?;
        Ok(Some(Event::new(section, change.key.clone(), hit.version, Operation::Update, Some(document))))
    }
}
