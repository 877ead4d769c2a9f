//! The embedded bus: topics and subscriptions on tables of `smartpulse.db`.
//!
//! Contract: that of [`Bus`], for exclusive and shared subscriptions. A failover subscription is an exclusive one here: one
//! process has the bus, and there is nobody to fail over to. Key-shared is Pulsar's and refused.
//! - `publish` is one transaction. Other processes may publish into the file too; what they publish is
//!   noticed within [`WATCH_INTERVAL`].
//! - Consumers of a subscription live in one process (the data folder's lock sees to that); no time limit
//!   is put on an ack. A consumer that is dropped gives back what it holds.
//! - An ack is durable when it returns; acks that come together share a transaction. An ack that fails is kept, and saved
//!   with the next. Redelivery counts survive a restart, the delay of a nack does not.
//! - A non-durable subscription is kept in memory and ends with its last consumer.
//!
//! Retention, per topic: a message acked by all durable subscriptions (and by the live non-durable ones) goes
//! after `retention_hours`, or earlier when the topic exceeds `retention_bytes_max`. One that is not acked is never
//! removed: the file grows up to `file_bytes_max` or the end of the disk, and then publishing is unavailable.

mod consumer;
mod ledger;
mod tables;

use self::consumer::{EmbeddedConsumer, Subscription};
use self::ledger::Ledger;
use super::state_file::StateFile;
use crate::bus::{Bus, Consumer, InitialPosition, Outgoing, Subscribe, SubscriptionType};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How often the file is looked at for what other processes published: a fifth of what counts as fresh.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// How often retention is applied.
const CLEAN_INTERVAL: Duration = Duration::from_secs(10);

/// Topics that one bus serves. They are named in YAML; more come from a mistake such as a topic per key.
const TOPICS_MAX: usize = 10_000;

/// An embedded bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// How long a message is kept after all durable subscriptions have acked it, in hours since its publication.
    /// Default 168 (7 days); 0 removes it soon after the last ack.
    pub retention_hours: u32,
    /// How many bytes a topic keeps at most of messages that are acked by all; the oldest go first. Messages not yet
    /// acked are never removed. Default 1 GiB.
    pub retention_bytes_max: u64,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self { retention_hours: 168, retention_bytes_max: 1 << 30 }
    }
}

/// The running bus resource. Cheap to clone; clones are the same bus.
#[derive(Debug, Clone)]
pub struct EmbeddedBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: StateFile,
    config: BusConfig,
    topics: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
    /// Subscriptions with something to save, each once.
    unsaved: Mutex<Vec<Arc<Subscription>>>,
    saving: Arc<Semaphore>,
}

#[derive(Debug)]
struct Topic {
    id: i64,
    name: Arc<str>,
    /// The newest committed message that this process knows of.
    newest: AtomicI64,
    subscriptions: Mutex<HashMap<String, Arc<Subscription>>>,
}

impl EmbeddedBus {
    /// The bus on a state file. Must be called within a Tokio runtime, on which it watches the file until
    /// the last clone and the last consumer are gone.
    #[must_use]
    pub fn open(file: StateFile, config: &BusConfig) -> Self {
        let inner = Arc::new(Inner {
            file,
            config: config.clone(),
            topics: Mutex::default(),
            unsaved: Mutex::default(),
            saving: Arc::new(Semaphore::new(1)),
        });
        tokio::spawn(watch(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// Forgets a durable subscription that nobody will consume any more, so that retention can remove what it
    /// has not acked. False when there is none such.
    ///
    /// # Errors
    /// Rejected while it has consumers.
    pub async fn delete_subscription(&self, topic: &str, name: &str) -> Result<bool> {
        let topic = self.inner.topic(topic).await?;
        {
            let mut subscriptions = topic.subscriptions();
            if subscriptions.get(name).is_some_and(|s| s.has_consumers()) {
                return Err(Error::rejected(format!("subscription {name} of topic {} has consumers", topic.name)));
            }
            subscriptions.remove(name);
        }
        let name = name.to_owned();
        let delete =
            move |connection: &mut rusqlite::Connection| tables::delete_subscription(connection, topic.id, &name);
        self.inner.file.writer.run("delete a subscription", delete).await
    }

    /// Applies retention now.
    ///
    /// # Errors
    /// As [`super::connection::classify`] says.
    pub async fn clean(&self) -> Result<()> {
        self.inner.clean().await
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn ping(&self) -> Result<()> {
        let count = |connection: &mut rusqlite::Connection| {
            Ok(connection.query_row("SELECT count(*) FROM bus_topics", [], |_| Ok(()))?)
        };
        self.inner.file.readers.run("ping the bus", count).await
    }

    async fn publish(&self, topic: &str, messages: Vec<Outgoing>) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let topic = self.inner.topic(topic).await?;
        let append = move |connection: &mut rusqlite::Connection| {
            let last = tables::append(connection, topic.id, &messages)?;
            // Here and not after the await: the caller may have gone, and the messages are there all the same.
            topic.advance(last);
            Ok(())
        };
        self.inner.file.writer.run("publish", append).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Box<dyn Consumer>> {
        check(&subscribe)?;
        let topic = self.inner.topic(&subscribe.topic).await?;
        loop {
            let subscription = self.inner.subscription(&topic, &subscribe).await?;
            let number = subscription.admit(match subscribe.kind {
                SubscriptionType::Failover => SubscriptionType::Exclusive,
                kind => kind,
            })?;
            let consumer = EmbeddedConsumer { bus: Arc::clone(&self.inner), subscription, number };
            // The last consumer of a non-durable subscription may have ended it since it was found.
            if topic.has(&consumer.subscription) {
                return Ok(Box::new(consumer));
            }
        }
    }

    async fn create_subscription(&self, subscribe: &Subscribe) -> Result<()> {
        check(subscribe)?;
        if !subscribe.durable {
            let name = &subscribe.subscription;
            return Err(Error::rejected(format!("subscription {name} is not durable: it begins with its consumer")));
        }
        let topic = self.inner.topic(&subscribe.topic).await?;
        self.inner.subscription(&topic, subscribe).await?;
        Ok(())
    }
}

fn check(subscribe: &Subscribe) -> Result<()> {
    match subscribe.kind {
        SubscriptionType::Exclusive | SubscriptionType::Failover | SubscriptionType::Shared => Ok(()),
        SubscriptionType::KeyShared => Err(Error::fatal(format!(
            "subscription {} is key_shared, which needs Pulsar; the embedded bus has exclusive, failover and shared",
            subscribe.subscription
        ))),
    }
}

impl Inner {
    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsaved(&self) -> MutexGuard<'_, Vec<Arc<Subscription>>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_save(&self, subscriptions: impl IntoIterator<Item = Arc<Subscription>>) {
        let mut unsaved = self.unsaved();
        for subscription in subscriptions {
            if !unsaved.iter().any(|known| Arc::ptr_eq(known, &subscription)) {
                unsaved.push(subscription);
            }
        }
    }

    async fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        {
            let topics = self.topics();
            if let Some(topic) = topics.get(name) {
                return Ok(Arc::clone(topic));
            }
            if topics.len() >= TOPICS_MAX {
                return Err(Error::rejected(format!("the bus has {TOPICS_MAX} topics and takes no {name:?}")));
            }
        }
        let name: Arc<str> = name.into();
        let wanted = Arc::clone(&name);
        let open = move |connection: &mut rusqlite::Connection| tables::open_topic(connection, &wanted);
        let (id, newest) = self.file.writer.run("open a topic", open).await?;
        let opened = || {
            let newest = AtomicI64::new(newest);
            Arc::new(Topic { id, name: Arc::clone(&name), newest, subscriptions: Mutex::default() })
        };
        Ok(Arc::clone(self.topics().entry(Arc::clone(&name)).or_insert_with(opened)))
    }

    async fn subscription(&self, topic: &Arc<Topic>, subscribe: &Subscribe) -> Result<Arc<Subscription>> {
        let name = subscribe.subscription.clone();
        let known = topic.subscriptions().get(&name).cloned();
        if let Some(known) = known {
            if known.id.is_some() != subscribe.durable {
                let other = if subscribe.durable { "not durable" } else { "durable" };
                return Err(Error::rejected(format!(
                    "subscription {name} of topic {} exists and is {other}",
                    topic.name
                )));
            }
            return Ok(known);
        }
        let (id, ledger) = if subscribe.durable {
            let (wanted, topic, initial) = (name.clone(), topic.id, subscribe.initial);
            let open = move |connection: &mut rusqlite::Connection| {
                tables::open_subscription(connection, topic, &wanted, initial)
            };
            let (id, ledger) = self.file.writer.run("open a subscription", open).await?;
            (Some(id), ledger)
        } else {
            let id = topic.id;
            let start = match subscribe.initial {
                InitialPosition::Earliest => 0,
                InitialPosition::Latest => {
                    self.file
                        .readers
                        .run("open a subscription", move |connection| tables::newest(connection, id))
                        .await?
                }
            };
            (None, Ledger::new(start, Default::default(), Default::default()))
        };
        let opened = || Arc::new(Subscription::new(&name, id, Arc::clone(topic), ledger));
        Ok(Arc::clone(topic.subscriptions().entry(name.clone()).or_insert_with(opened)))
    }

    async fn clean(&self) -> Result<()> {
        let topics: Vec<Arc<Topic>> = self.topics().values().cloned().collect();
        let age = i64::from(self.config.retention_hours) * 3_600_000;
        for topic in topics {
            let id = topic.id;
            loop {
                let retention = tables::Retention {
                    before: Timestamp::from_millis(Timestamp::now().as_millis() - age),
                    bytes_max: i64::try_from(self.config.retention_bytes_max).unwrap_or(i64::MAX),
                    floor: topic.floor(),
                };
                let step = move |connection: &mut rusqlite::Connection| tables::clean(connection, id, retention);
                if !self.file.writer.run("clean the bus", step).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Learns what other processes published. `seen` is the file's version at the last look.
    async fn look(&self, seen: Option<i64>) -> Result<i64> {
        let topics: Vec<Arc<Topic>> = self.topics().values().cloned().collect();
        let look = move |connection: &mut rusqlite::Connection| {
            let version: i64 = connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
            if seen != Some(version) {
                for topic in topics {
                    topic.advance(tables::newest(connection, topic.id)?);
                }
            }
            Ok(version)
        };
        self.file.watcher.run("watch the bus", look).await
    }
}

impl Topic {
    fn subscriptions(&self) -> MutexGuard<'_, HashMap<String, Arc<Subscription>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> i64 {
        self.newest.load(Ordering::Acquire)
    }

    fn advance(&self, newest: i64) {
        if self.newest.fetch_max(newest, Ordering::AcqRel) < newest {
            for subscription in self.subscriptions().values() {
                subscription.wake();
            }
        }
    }

    /// What every live non-durable subscription has acked.
    fn floor(&self) -> i64 {
        let subscriptions = self.subscriptions();
        let cursors = subscriptions.values().filter(|s| s.id.is_none()).map(|s| s.cursor());
        cursors.min().unwrap_or(i64::MAX)
    }

    fn has(&self, subscription: &Arc<Subscription>) -> bool {
        self.subscriptions().get(&subscription.name).is_some_and(|s| Arc::ptr_eq(s, subscription))
    }

    fn forget(&self, subscription: &Arc<Subscription>) {
        let mut subscriptions = self.subscriptions();
        // Another consumer may have come, or another subscription taken the name.
        if subscriptions.get(&subscription.name).is_some_and(|s| Arc::ptr_eq(s, subscription) && !s.has_consumers()) {
            subscriptions.remove(&subscription.name);
        }
    }
}

/// Looks at the file and applies retention until the bus is gone.
async fn watch(bus: Weak<Inner>) {
    let mut seen = None;
    let mut cleaned = Instant::now();
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let Some(bus) = bus.upgrade() else { return };
        // A version belongs to a connection, which an error may have ended.
        seen = match bus.look(seen).await {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::warn!(error = error.chain(), "the bus could not be watched");
                None
            }
        };
        if cleaned.elapsed() >= CLEAN_INTERVAL {
            cleaned = Instant::now();
            if let Err(error) = bus.clean().await {
                tracing::warn!(error = error.chain(), "retention could not be applied to the bus");
            }
        }
    }
}
