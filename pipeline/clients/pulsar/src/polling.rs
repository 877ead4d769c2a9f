//! The task that owns the client's consumer: it polls, acks, gives back, and watches.
//!
//! The client runs one loop per consumer, which stops while nobody takes the next message, acks and questions included.
//! So whatever is asked of it here takes messages off its hands meanwhile, into a bounded overflow.

use crate::dead_letter::DeadLetters;
use crate::deliveries::Deliveries;
use crate::errors::explain;
use crate::ids::{Batches, Place};
use crate::link::{Client, Link};
use crate::names::partition;
use crate::producer::Producers;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use pulsar::consumer::Message as Delivered;
use pulsar::proto::CommandConsumerStatsResponse as Stats;
use pulsar::{Consumer, Error as PulsarError, TokioExecutor};
use smartpulse_clients::bus::{Message, Subscribe, SubscriptionType};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

pub(crate) type RawConsumer = Consumer<Vec<u8>, TokioExecutor>;
type Item = Option<Result<Delivered<Vec<u8>>, PulsarError>>;

/// How often the broker is asked about the consumer: a fan-out that silently missed messages is stale for this long.
const WATCH: Duration = Duration::from_secs(2);

/// Every which look asks for partitions that were added: producers learn of them within a minute, and use them.
const PARTITIONS_EVERY: u32 = 5;

/// A backlog that does not move for this long, while the broker may send, is a hang.
const HANG: Duration = Duration::from_secs(10);

/// How long acks are taken after the consumer was dropped: longer than a shutdown drains.
const LINGER: Duration = Duration::from_secs(60);

/// The first wait for an answer before messages are taken off the client's hands. It doubles.
const FIRST_PATIENCE: Duration = Duration::from_millis(20);

/// Messages that may be taken off the client's hands beyond what the caller has asked for.
const OVERFLOW_MAX: usize = 4_096;

/// What an acker asks for.
pub(crate) enum Command {
    /// These are done.
    Ack(Vec<Place>, oneshot::Sender<Result<()>>),
    /// These are to come again.
    Nack(Vec<Place>, Duration),
}

/// The task's state.
pub(crate) struct Polling {
    pub(crate) consumer: RawConsumer,
    pub(crate) subscribe: Subscribe,
    /// The topic as the caller calls it, and as Pulsar does.
    pub(crate) topic: (Arc<str>, String),
    pub(crate) patience: Duration,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) producers: Arc<Producers>,
    pub(crate) link: Arc<Link>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) output: mpsc::Sender<Result<Message>>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) overflow: VecDeque<Item>,
    pub(crate) batches: Batches,
    pub(crate) delayed: BTreeMap<(Instant, u64), Place>,
    pub(crate) delayed_count: u64,
    /// How many the topic had when it was subscribed to; 0 where it has none.
    pub(crate) partitions: u32,
    pub(crate) looks: u32,
    /// When the broker took the consumer in, per partition: it changes when the client subscribes anew.
    pub(crate) connected_since: Vec<Option<String>>,
    /// The last message of each partition.
    pub(crate) last: HashMap<i32, Place>,
    pub(crate) heard: Instant,
}

impl Polling {
    /// Learns what the consumer consists of.
    pub(crate) async fn open(&mut self) -> Result<()> {
        self.partitions = self.count_partitions().await?;
        self.look().await
    }

    async fn count_partitions(&self) -> Result<u32> {
        let topic = self.topic.1.clone();
        let count = async |client: Client| client.lookup_partitioned_topic_number(topic).await;
        self.link.call(&self.tried("ask about the partitions"), count).await
    }

    /// Serves until the consumer is dropped or fails, and then takes acks until `finish`.
    pub(crate) async fn run(mut self, finish: impl Future<Output = ()>) {
        match self.serve().await {
            Ok(()) => self.linger(finish).await,
            Err(error) => {
                // Acks have to fail now, and come again on the next consumer.
                drop(self.commands);
                let _ = self.output.send(Err(error)).await;
            }
        }
    }

    async fn serve(&mut self) -> Result<()> {
        let mut watch = tokio::time::interval_at(Instant::now() + WATCH, WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let output = self.output.clone();
        loop {
            let due = self.delayed.first_key_value().map(|((due, _), _)| *due);
            tokio::select! {
                biased;
                () = output.closed() => return Ok(()),
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await?,
                    None => return Ok(()),
                },
                () = sleep_until(due) => self.give_back().await?,
                _ = watch.tick() => {
                    // A caller that takes nothing may hold everything up: that is no hang.
                    if output.capacity() > 0 {
                        self.look().await?;
                    }
                }
                next = next(&output, &mut self.overflow, &mut self.consumer) => match next {
                    Some((place, item)) => self.deliver(place, item).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Takes acks of a consumer that was dropped, and makes sure that the broker has them.
    async fn linger(&mut self, finish: impl Future<Output = ()>) {
        tokio::pin!(finish);
        let deadline = Instant::now() + LINGER;
        let mut finishing = false;
        while !finishing {
            let command = tokio::select! {
                biased;
                command = self.commands.recv() => command,
                () = &mut finish => {
                    finishing = true;
                    self.commands.close();
                    continue;
                }
                () = tokio::time::sleep_until(deadline) => None,
            };
            match command {
                Some(command) => self.obey_now(command).await,
                None => finishing = true,
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            self.obey_now(command).await;
        }
        if let Err(error) = self.ask(async |consumer| consumer.get_stats().await.map(drop)).await {
            tracing::debug!(topic = %self.topic.0, error = error.chain(), "the last acks may not have arrived");
        }
        // Closed here and not by dropping it, so that the next consumer is let in when this returns.
        let _ = self.ask(async |consumer| consumer.close().await).await;
    }

    async fn obey_now(&mut self, command: Command) {
        if let Command::Ack(places, done) = command {
            let acked = match self.ack(&places).await {
                Ok(()) => self.ask(async |consumer| consumer.get_stats().await.map(drop)).await,
                Err(error) => Err(error),
            };
            let _ = done.send(acked);
        }
    }

    async fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Ack(places, done) => {
                let acked = self.ack(&places).await;
                if acked.is_ok() {
                    let _ = done.send(Ok(()));
                }
                acked
            }
            Command::Nack(places, delay) => {
                let due = Instant::now() + delay;
                for place in places {
                    self.deliveries.nack(place);
                    self.delayed_count += 1;
                    self.delayed.insert((due, self.delayed_count), place);
                }
                Ok(())
            }
        }
    }

    async fn ack(&mut self, places: &[Place]) -> Result<()> {
        for place in places {
            self.deliveries.ack(*place);
            if self.batches.acked(*place) {
                let topic = partition(&self.topic.1, Some(place.partition));
                let acked = self.consumer.ack_with_id(&topic, place.entry()).await;
                acked.map_err(|error| explain(&self.tried("ack"), &error.into()))?;
            }
        }
        Ok(())
    }

    async fn give_back(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            let place = first.remove();
            let topic = partition(&self.topic.1, Some(place.partition));
            let nacked = self.consumer.nack_with_id(&topic, place.entry()).await;
            nacked.map_err(|error| explain(&self.tried("give a message back"), &error.into()))?;
        }
        Ok(())
    }

    async fn deliver(&mut self, room: mpsc::OwnedPermit<Result<Message>>, item: Item) -> Result<()> {
        let delivered = match item {
            Some(Ok(delivered)) => delivered,
            Some(Err(error)) => return Err(explain(&self.tried("consume"), &error)),
            None => return Err(Error::unavailable(format!("cannot {}: the stream has ended", self.tried("consume")))),
        };
        self.heard = Instant::now();
        let place = Place::of(delivered.message_id(), delivered.message_id.batch_size);
        let known_last = self.last.insert(place.partition, place);
        if !self.subscribe.durable
            && let Some(last) = known_last
            && is_in_order(self.subscribe.kind)
        {
            if place.ledger != last.ledger {
                // The topic may only have begun a new ledger, or it may have moved and we may have subscribed anew.
                self.look().await?;
            } else if place.entry > last.entry + 1 {
                return Err(self.missed());
            }
        }
        let message = self.message(delivered, place);
        let nacks = self.deliveries.nacks(place);
        if nacks > self.dead_letters.max_redeliveries {
            self.dead_letters.put(&self.producers, &message, place, nacks).await?;
            return self.ack(&[place]).await;
        }
        room.send(Ok(message));
        Ok(())
    }

    fn message(&self, delivered: Delivered<Vec<u8>>, place: Place) -> Message {
        let key = match delivered.key_bytes() {
            Ok(key) => key.and_then(|key| String::from_utf8(key).ok()),
            Err(_) => delivered.key(),
        };
        let metadata = delivered.payload.metadata;
        Message {
            id: place.encode(),
            topic: Arc::clone(&self.topic.0),
            key,
            payload: Bytes::from(delivered.payload.data),
            properties: metadata.properties.into_iter().map(|pair| (pair.key, pair.value)).collect(),
            publish_time: Timestamp::from_millis(i64::try_from(metadata.publish_time).unwrap_or(i64::MAX)),
            redeliveries: 0,
        }
    }

    /// Asks the broker about the consumer, and fails when it is no longer what it was.
    pub(crate) async fn look(&mut self) -> Result<()> {
        let stats = self.ask(async |consumer| consumer.get_stats().await).await?;
        if let Some(unknown) = stats.iter().find(|stats| stats.error_code.is_some()) {
            let reason = unknown.error_message.clone().unwrap_or_default();
            return Err(Error::unavailable(format!("cannot {}: the broker lost the consumer", self.tried("consume")))
                .because(reason));
        }
        // A partition whose stream ended leaves the client's consumer without a word, as does one that was added.
        if stats.len() < self.partitions.max(1) as usize {
            return Err(Error::unavailable(format!(
                "cannot {}: a partition is not consumed any more",
                self.tried("consume")
            )));
        }
        self.looks += 1;
        if self.looks.is_multiple_of(PARTITIONS_EVERY) && self.count_partitions().await? != self.partitions {
            return Err(Error::unavailable(format!("cannot {}: partitions were added", self.tried("consume"))));
        }
        let since: Vec<Option<String>> = stats.iter().map(|stats| stats.connected_since.clone()).collect();
        let known = std::mem::replace(&mut self.connected_since, since);
        if !known.is_empty() && known != self.connected_since {
            tracing::debug!(topic = %self.topic.0, "the client subscribed anew");
            if !self.subscribe.durable {
                return Err(self.missed());
            }
        }
        if self.subscribe.kind == SubscriptionType::Exclusive && self.hangs(&stats) {
            return Err(Error::unavailable(format!(
                "cannot {}: nothing came for {HANG:?} although there is a backlog",
                self.tried("consume")
            )));
        }
        Ok(())
    }

    /// Only an exclusive consumer knows that the backlog is its own.
    fn hangs(&self, stats: &[Stats]) -> bool {
        let backlog: u64 = stats.iter().filter_map(|stats| stats.msg_backlog).sum();
        let permits: u64 = stats.iter().filter_map(|stats| stats.available_permits).sum();
        let queued = self.output.max_capacity() - self.output.capacity();
        let ours = (self.deliveries.out() + self.overflow.len() + queued) as u64;
        self.heard.elapsed() > HANG && backlog > ours && permits > 0
    }

    fn missed(&self) -> Error {
        let (topic, subscription) = (&self.topic.0, &self.subscribe.subscription);
        Error::unavailable(format!(
            "messages of {topic} may have been missed: {subscription} is not durable and was cut off"
        ))
    }

    fn tried(&self, what: &str) -> String {
        format!("{what} from {} as {}", self.topic.0, self.subscribe.subscription)
    }

    /// Asks something of the client's consumer, and takes messages off its hands while it has no answer.
    async fn ask<T>(&mut self, question: impl AsyncFn(&mut RawConsumer) -> Result<T, PulsarError>) -> Result<T> {
        let tried = self.tried("ask about");
        ask(&mut self.consumer, &mut self.overflow, self.patience, &tried, question).await
    }
}

/// Waits for room, and then for a message to put there; nothing when the caller is gone.
async fn next(
    output: &mpsc::Sender<Result<Message>>,
    overflow: &mut VecDeque<Item>,
    consumer: &mut RawConsumer,
) -> Option<(mpsc::OwnedPermit<Result<Message>>, Item)> {
    let room = output.clone().reserve_owned().await.ok()?;
    let item = match overflow.pop_front() {
        Some(item) => item,
        None => consumer.next().await,
    };
    Some((room, item))
}

/// Asks something of a consumer for at most `patience`. What it delivers meanwhile is put into the overflow.
pub(crate) async fn ask<T>(
    consumer: &mut RawConsumer,
    overflow: &mut VecDeque<Item>,
    patience: Duration,
    tried: &str,
    question: impl AsyncFn(&mut RawConsumer) -> Result<T, PulsarError>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    let mut wait = FIRST_PATIENCE;
    loop {
        match tokio::time::timeout(wait, question(consumer)).await {
            Ok(answered) => return answered.map_err(|error| explain(tried, &error)),
            Err(_) if Instant::now() >= deadline => {
                return Err(Error::unavailable(format!("cannot {tried}: pulsar did not answer within {patience:?}")));
            }
            Err(_) => wait *= 2,
        }
        while overflow.len() < OVERFLOW_MAX
            && let Some(item) = consumer.next().now_or_never()
        {
            let ended = item.is_none();
            overflow.push_back(item);
            if ended {
                return Err(Error::unavailable(format!("cannot {tried}: the stream has ended")));
            }
        }
    }
}

/// Whether the broker keeps the order of all messages of a partition.
fn is_in_order(kind: SubscriptionType) -> bool {
    matches!(kind, SubscriptionType::Exclusive | SubscriptionType::Failover)
}

/// Waits for a point in time; for ever when there is none.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
