//! Redis as a pub/sub resource, with the version counters and the documents that instances share.
//!
//! What is kept, per entity, is one hash `<section>:<key>`, such as `forecast:<id>`:
//!
//! | field | |
//! | --- | --- |
//! | `VersionId:latest` | the counter; only publishing writes it |
//! | `json`, `VersionId:json` | the document and its version; gone a day after the last write |
//! | `expires_at_ms` | when the document is to go, by the server's clock |
//! | `tombstone` | `1` if the entity was deleted at the counter's version |
//! | `VersionId:noted` | the newest version that is known to exist but was not published yet |
//! | `generation` | the life of the data that the counter was written in; in another one it is unknown |
//! | `kept_until_ms` | when the hash goes, by the server's clock, to within an hour |
//!
//! Hashes live 8 days after their last publication, longer than the bus keeps messages. Beside them:
//! `smartpulse:generation`, which tells one life of the data from the next; `smartpulse:publisher:<instance>:<channels>`,
//! the sequence of a publisher; `smartpulse:duty:<name>`, who has a duty; `smartpulse:channel:<channel>`, the counter of a
//! channel that is not an entity's `__dataChanged:<partition>:<section>:<key>`, without a document. The hash of an entity
//! names no partition: each partition needs a Redis, or a database number, of its own.
//!
//! - [`PubSub`]: a change is compared, stored and published by one script, some
//!   dozens of changes per call. Receivers notice lost messages by their numbers, by the publishers' heartbeat
//!   (`__publisherSeq:<channels>`, every 2 s) and by a link that does not answer a PING; then they are told.
//! - [`SharedDocuments`]: the same hashes, read and filled by caches.
//!
//! Invariants: a counter never goes back within a generation. A Redis that lost its data, or came back with older data
//! (it was killed between two saves, or a replica that lagged took over), begins a new one: that it is older is noticed by
//! whoever published what it forgot, with his next publication or heartbeat; not if he died with it. While
//! Redis is away nothing waits for it: calls fail at once with what is wrong, until it answers again. One server or a
//! primary with replicas, not yet Redis Cluster: a call of the script names keys of several slots.

#![warn(missing_docs)]

mod config;
mod documents;
mod errors;
mod heartbeat;
mod link;
mod names;
mod publish;
mod scripts;
mod subscribe;
mod track;

use async_trait::async_trait;
use link::Link;
use redis::Client;
use scripts::Scripts;
use smartpulse_clients::documents::SharedDocuments;
use smartpulse_clients::pubsub::{Outcome, PubSub, Publication, Subscriber};
use smartpulse_pipeline::error::Result;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub use config::{RedisConfig, register};

/// The running resource. Cheap to clone; clones are the same one.
#[derive(Clone)]
pub struct RedisPubSub {
    inner: Arc<Inner>,
}

struct Inner {
    config: RedisConfig,
    client: Client,
    /// This process, as messages name it.
    instance: Arc<str>,
    scripts: Scripts,
    /// How many changes one call of the script takes at most.
    call_changes_max: usize,
    /// For publishing, which may send megabytes.
    publishing: Link,
    /// For everything else, which must not wait behind them.
    asking: Link,
    /// What was published to since the start, and the highest number that Redis told of it.
    streams: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl RedisPubSub {
    /// The Redis of the settings, for the process `instance`. Nothing is connected before it is used.
    ///
    /// # Errors
    /// Fatal when the settings make no sense.
    pub fn open(config: &RedisConfig, instance: &str) -> Result<Self> {
        Self::open_with_calls_of(publish::CALL_CHANGES_MAX, config, instance)
    }

    /// The same with another number of changes per call of the script, to measure what that is worth.
    ///
    /// # Errors
    /// Those of [`RedisPubSub::open`].
    pub fn open_with_calls_of(changes: usize, config: &RedisConfig, instance: &str) -> Result<Self> {
        let client = config.client()?;
        let inner = Inner {
            config: config.clone(),
            instance: instance.into(),
            scripts: Scripts::new(),
            call_changes_max: changes.max(1),
            publishing: Link::new(client.clone(), config),
            asking: Link::new(client.clone(), config),
            streams: Mutex::default(),
            client,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl PubSub for RedisPubSub {
    async fn ping(&self) -> Result<()> {
        let ping = |mut connection| async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        self.inner.asking.ask("ping", ping).await
    }

    async fn publish(&self, publications: &[Publication]) -> Result<Vec<Outcome>> {
        self.inner.publish(publications).await
    }

    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscriber>> {
        subscribe::subscribe(&self.inner, pattern).await
    }

    fn documents(&self) -> Option<Arc<dyn SharedDocuments>> {
        Some(Arc::new(self.clone()))
    }
}
