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
//! the sequence of a publisher (in a cluster both once per slot, as `smartpulse:{n}:generation`, where `n` lies in it); `smartpulse:duty:<name>`, who has a duty; `smartpulse:channel:<channel>`, the counter of a
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
//! a server is away nothing waits for it: calls fail at once with what is wrong, until it answers again.
//!
//! A single server is a cluster of one node, whose data is one part; in a Redis Cluster each slot is a part, with a
//! generation and numbers of its own, so that what one script call does is in one slot, lost with one node and moved to
//! another as a whole. What follows from it for others: messages are numbered per publisher, section *and slot*, which is
//! then named (`PublisherSlot`, before `PublisherSeq`); messages of different keys may overtake each other; and while the
//! keys of a slot are moved, changes of that slot wait. Subscribers listen to any one node, and hear themselves through
//! every other each second, or go elsewhere. (The `cluster-async` of the crate `redis` refuses pipelines across slots, and
//! does not say which node a call went to: hence the routing is here.)

#![warn(missing_docs)]

mod config;
mod documents;
mod errors;
mod heartbeat;
mod link;
mod map;
mod names;
mod nodes;
mod publish;
mod scripts;
mod slots;
mod subscribe;
mod told;
mod track;

use async_trait::async_trait;
use futures::future::try_join_all;
use nodes::{Lane, Nodes};
use smartpulse_clients::documents::SharedDocuments;
use smartpulse_clients::pubsub::{Outcome, PubSub, Publication, Subscriber};
use smartpulse_pipeline::error::Result;
use std::sync::{Arc, Mutex};
use told::Told;

pub use config::{RedisConfig, register};

/// The running resource. Cheap to clone; clones are the same one.
#[derive(Clone)]
pub struct RedisPubSub {
    inner: Arc<Inner>,
}

struct Inner {
    config: RedisConfig,
    /// This process, as messages name it.
    instance: Arc<str>,
    nodes: Arc<Nodes>,
    /// How many changes one call of the script takes at most.
    call_changes_max: usize,
    told: Mutex<Told>,
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
        let inner = Inner {
            config: config.clone(),
            instance: instance.into(),
            nodes: Arc::new(Nodes::new(config)?),
            call_changes_max: changes.max(1),
            told: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl PubSub for RedisPubSub {
    async fn ping(&self) -> Result<()> {
        let ping = |mut connection| async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        let map = self.inner.nodes.map().await?;
        try_join_all(map.primaries.iter().map(|node| node.ask(Lane::Asking, "ping", ping))).await.map(drop)
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
