//! What happens to a message that was given back too often.
//!
//! It is published to the subscription's dead-letter topic, with its key, its payload and its properties, and with what
//! an operator asks first: why, and where it came from. The names of origin are those of the Java client. The
//! subscription `<subscription>-dlq` of that topic keeps it.

use crate::bus::create_subscription;
use crate::config::PulsarConfig;
use crate::ids::Place;
use crate::link::Link;
use crate::producer::Producers;
use smartpulse_clients::bus::{InitialPosition, Message, Outgoing, Subscribe, SubscriptionType};
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The property that tells why.
pub const REASON: &str = "reason";
/// The property that tells from which topic.
pub const TOPIC: &str = "REAL_TOPIC";
/// The property that tells through which subscription.
pub const SUBSCRIPTION: &str = "REAL_SUBSCRIPTION";
/// The property that tells which message, as `ledger:entry:partition`.
pub const MESSAGE: &str = "ORIGIN_MESSAGE_ID";

/// The dead letters of one subscription.
pub(crate) struct DeadLetters {
    link: Arc<Link>,
    config: PulsarConfig,
    /// Where they go.
    topic: String,
    /// Which subscription they come from.
    subscription: String,
    /// Done once the topic has a subscription.
    kept: OnceCell<()>,
    /// How often a message may be given back.
    pub(crate) max_redeliveries: u32,
}

impl DeadLetters {
    pub(crate) fn new(link: Arc<Link>, config: &PulsarConfig, subscribe: &Subscribe) -> Self {
        Self {
            topic: config.dead_letter_topic(&subscribe.topic, &subscribe.subscription),
            subscription: subscribe.subscription.clone(),
            kept: OnceCell::new(),
            max_redeliveries: config.max_redeliveries,
            config: config.clone(),
            link,
        }
    }

    /// Sees to it that letters stay until somebody takes them. A broker whose namespace has no retention drops at once what
    /// nobody is subscribed to.
    async fn keep(&self) -> Result<()> {
        let subscribe = Subscribe {
            topic: self.topic.clone(),
            subscription: format!("{}-dlq", self.subscription),
            kind: SubscriptionType::Shared,
            initial: InitialPosition::Earliest,
            durable: true,
        };
        create_subscription(&self.link, &self.config, &subscribe).await
    }

    /// Puts a message away; it is there when this returns, and may be acked.
    ///
    /// # Errors
    /// As [`Producers::publish`] says.
    pub(crate) async fn put(&self, producers: &Producers, message: &Message, place: Place, nacks: u32) -> Result<()> {
        let reason = format!("given back {nacks} times, more than max_redeliveries ({})", self.max_redeliveries);
        tracing::warn!(topic = %message.topic, subscription = self.subscription, reason, to = self.topic, "dead letter");
        let mut properties = message.properties.clone();
        for (name, value) in [
            (REASON, reason),
            (TOPIC, message.topic.to_string()),
            (SUBSCRIPTION, self.subscription.clone()),
            (MESSAGE, format!("{}:{}:{}", place.ledger, place.entry, place.partition)),
        ] {
            properties.insert(name.to_owned(), value);
        }
        self.kept.get_or_try_init(|| self.keep()).await?;
        let letter = Outgoing { key: message.key.clone(), payload: message.payload.clone(), properties };
        producers.publish(&self.topic, vec![letter]).await
    }
}
