//! What happens to a message that was given back too often.
//!
//! It is published to the subscription's dead-letter topic, with its key, its payload and its properties, and with what
//! an operator asks first: why, and where it came from. The names of origin are those of the Java client.

use crate::ids::Place;
use crate::producer::Producers;
use smartpulse_clients::bus::{Message, Outgoing};
use smartpulse_pipeline::error::Result;

/// The property that tells why.
pub const REASON: &str = "reason";
/// The property that tells from which topic.
pub const TOPIC: &str = "REAL_TOPIC";
/// The property that tells through which subscription.
pub const SUBSCRIPTION: &str = "REAL_SUBSCRIPTION";
/// The property that tells which message, as `ledger:entry:partition`.
pub const MESSAGE: &str = "ORIGIN_MESSAGE_ID";

/// The dead letters of one subscription.
pub struct DeadLetters {
    /// Where they go.
    pub topic: String,
    /// Which subscription they come from.
    pub subscription: String,
    /// How often a message may be given back.
    pub max_redeliveries: u32,
}

impl DeadLetters {
    /// Puts a message away; it is there when this returns, and may be acked.
    ///
    /// # Errors
    /// As [`Producers::publish`] says.
    pub async fn put(&self, producers: &Producers, message: &Message, place: Place, nacks: u32) -> Result<()> {
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
        let letter = Outgoing { key: message.key.clone(), payload: message.payload.clone(), properties };
        producers.publish(&self.topic, vec![letter]).await
    }
}
