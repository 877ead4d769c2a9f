//! `data_changed`: what this instance's cache has just taken over, for derived state.
//!
//! Output: one event per version that the cache took over by a change, a write of this instance or a load that found
//! something newer than what was held, with the document as the cache holds it then; a delete without one. Versions of a
//! key rise, but some may be missing: several changes in quick succession give one event with the newest document. An
//! invalidation alone changes nothing that is held; what it announces is told when it is taken over. Nothing is
//! committed; when changes may have been missed, the next batch says so (`after_loss`).

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_cache::{Follower, News, SharedCache};
use smartpulse_json::Document;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Emission, Source, SourceContext};
use smartpulse_pipeline::{Event, Operation};
use std::sync::Arc;

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
        Ok(BuiltSource::forgetful(DataChangedSource { section: cache.section(), news: cache.follow() }))
    }
}

struct DataChangedSource {
    section: Arc<str>,
    news: Follower,
}

#[async_trait]
impl Source for DataChangedSource {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        while let Some(news) = cx.next(self.news.next()).await? {
            cx.emit(self.emission(news)?).await?;
        }
        Ok(())
    }
}

impl DataChangedSource {
    fn emission(&self, news: News) -> Result<Emission> {
        let event =
            |key, version, operation, document| Event::new(self.section.clone(), key, version, operation, document);
        Ok(match news {
            News::Lost => Emission { after_loss: true, ..Emission::default() },
            News::Deleted { key, version } => {
                Emission { events: vec![event(key, version, Operation::Delete, None)], ..Emission::default() }
            }
            News::Changed { key, version, document } => {
                let document = Document::parse(document)
                    .map_err(|error| Error::rejected("the cache holds no JSON document").because(error))?;
                Emission { events: vec![event(key, version, Operation::Update, Some(document))], ..Emission::default() }
            }
        })
    }
}
