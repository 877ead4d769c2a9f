//! The durable bus: topics with subscriptions, acks, redelivery and retention. What cannot be handled is the runtime's
//! business, which sets it aside with its reason, whatever the bus.
//!
//! Contract:
//! - A published message is durable when `publish` returns, and has the order of publication within its topic.
//! - A subscription, once created, gets every message published after it was (or all retained ones, when it
//!   starts at the earliest), at least once: what is not acked is delivered again to the next consumer.
//! - Exclusive: one consumer; messages in order. A second consumer is refused. Shared: several consumers, each
//!   message to one of them; a nacked one comes again after its delay with a higher redelivery count.
//! - Acks are by message. A consumer that is dropped gives back what it has not acked. An ack may be lost with a
//!   connection, and then the message comes again: what is done with it must bear that.
//! - A consumer that fails is dropped and opened again. Of a subscription that is not durable, messages may be missing
//!   then: a bus that reconnects by itself has to fail such a consumer all the same.

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::Result;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// The key that order is kept for.
    pub key: Option<String>,
    /// The payload.
    pub payload: Bytes,
    /// Properties that travel beside the payload.
    pub properties: BTreeMap<String, String>,
}

/// What an error says that refuses a consumer because of others. It is `Unavailable`, for the subscription may be free later.
pub const TAKEN: &str = "it is taken";

/// The identity of a message within its topic: opaque, ordered only by the bus itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub Bytes);

/// A delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its identity, for acks.
    pub id: MessageId,
    /// The topic it came from.
    pub topic: Arc<str>,
    /// Its key.
    pub key: Option<String>,
    /// Its payload.
    pub payload: Bytes,
    /// Its properties.
    pub properties: BTreeMap<String, String>,
    /// When it was published.
    pub publish_time: Timestamp,
    /// How often it was delivered before, as far as this process knows.
    pub redeliveries: u32,
}

/// How consumers share a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionType {
    /// One consumer, in order.
    #[default]
    Exclusive,
    /// Several consumers, each message to one of them, no order.
    Shared,
    /// Several consumers, one at a time, in order; a standby takes over. Embedded, where one process has the bus, the same
    /// as exclusive.
    Failover,
    /// Several consumers, order per key. Pulsar only.
    KeyShared,
}

/// Where a new subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InitialPosition {
    /// At the oldest retained message.
    #[default]
    Earliest,
    /// After the newest message.
    Latest,
}

/// What to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The topic.
    pub topic: String,
    /// The subscription's name.
    pub subscription: String,
    /// How consumers share it.
    pub kind: SubscriptionType,
    /// Where it starts when it is new.
    pub initial: InitialPosition,
    /// A durable subscription outlives its consumers; another ends with its last one.
    pub durable: bool,
}

/// A bus resource.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Answers when the bus does.
    async fn ping(&self) -> Result<()>;
    /// Publishes in order and returns when all messages are durable.
    async fn publish(&self, topic: &str, messages: Vec<Outgoing>) -> Result<()>;
    /// Opens a consumer, and creates the subscription if it is new.
    async fn subscribe(&self, subscribe: Subscribe) -> Result<Box<dyn Consumer>>;
    /// Creates a durable subscription without consuming, so that nothing published from now on escapes it.
    async fn create_subscription(&self, subscribe: &Subscribe) -> Result<()>;
}

/// The receiving half of a subscription.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for at least one message and gives at most `max`. Dropping the future loses nothing.
    async fn receive(&mut self, max: usize) -> Result<Vec<Message>>;
    /// A handle that acks what this consumer received, from any task.
    fn acker(&self) -> Arc<dyn Acker>;
}

/// Acks what a consumer received.
#[async_trait]
pub trait Acker: Send + Sync {
    /// These messages are done.
    async fn ack(&self, ids: &[MessageId]) -> Result<()>;
    /// These messages are to come again after `delay`. Of shared subscriptions only: where order counts a bus may refuse,
    /// since what follows is already on its way.
    async fn nack(&self, ids: &[MessageId], delay: Duration) -> Result<()>;
}

/// A shared bus resource.
pub type SharedBus = Arc<dyn Bus>;
