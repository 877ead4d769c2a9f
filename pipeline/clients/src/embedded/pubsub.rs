//! The embedded pub/sub: fan-out and version counters within one process.
//!
//! Contract: that of [`PubSub`]. Publications are serialised by one lock, which is never held while waiting, so
//! compare, store and publish are one step and all subscribers see one order.
//!
//! Bounds: at most `counters_max` counters; when a new channel would exceed that all are forgotten, after which the
//! next publication of each channel carries the whole document. Each subscriber queues at most
//! `queue_messages_max` messages and [`INBOX_BYTES_MAX`](crate::pubsub::INBOX_BYTES_MAX) bytes; the oldest are dropped, and it is told.

use crate::pubsub::{InboxSender, Outcome, PubSub, Publication, Subscriber, inbox, open_object};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An in-process pub/sub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PubSubConfig {
    /// How many version counters are kept, one per channel. Beyond it all are forgotten, and each channel's next
    /// message carries the whole document. Default 2,000,000 (about 200 bytes each); 0 means that every message is whole.
    pub counters_max: u32,
    /// How many messages wait for one subscriber. Beyond it the oldest is dropped and the subscriber is told that it
    /// missed some. Default 65,536, which is a second of full load; at least 1.
    pub queue_messages_max: u32,
}

impl Default for PubSubConfig {
    fn default() -> Self {
        Self { counters_max: 2_000_000, queue_messages_max: 65_536 }
    }
}

/// The running pub/sub resource. Cheap to clone; clones are the same one.
#[derive(Debug, Clone)]
pub struct EmbeddedPubSub {
    config: PubSubConfig,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    counters: HashMap<Arc<str>, i64>,
    /// Per section: who listens to one misses nothing of another.
    publisher_seq: HashMap<Arc<str>, u64>,
    subscribers: Vec<Subscription>,
}

#[derive(Debug)]
struct Subscription {
    pattern: Box<str>,
    inbox: InboxSender,
}

impl EmbeddedPubSub {
    /// A pub/sub without counters or subscribers.
    #[must_use]
    pub fn new(config: &PubSubConfig) -> Self {
        Self { config: config.clone(), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PubSub for EmbeddedPubSub {
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, publications: &[Publication]) -> Result<Vec<Outcome>> {
        // All or nothing: a message that cannot carry its number is found before anything is counted.
        for publication in publications {
            open_object(&publication.patch)?;
            open_object(&publication.whole)?;
        }
        let mut state = self.state();
        let counters_max = self.config.counters_max as usize;
        publications.iter().map(|publication| state.publish(publication, counters_max)).collect()
    }

    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscriber>> {
        let (sender, inbox) = inbox((self.config.queue_messages_max as usize).max(1));
        let mut state = self.state();
        state.subscribers.retain(|subscription| !subscription.inbox.is_closed());
        state.subscribers.push(Subscription { pattern: pattern.into(), inbox: sender });
        Ok(Box::new(inbox))
    }
}

impl State {
    fn publish(&mut self, publication: &Publication, counters_max: usize) -> Result<Outcome> {
        let stored = self.counters.get(&publication.channel).copied();
        let outcome = publication.outcome(stored);
        let message = match outcome {
            Outcome::Stale | Outcome::Unknown => return Ok(outcome),
            Outcome::Patch => &publication.patch,
            Outcome::Whole => &publication.whole,
        };
        if stored.is_none() && self.counters.len() >= counters_max {
            self.counters.clear();
        }
        if counters_max > 0 {
            self.counters.insert(Arc::clone(&publication.channel), publication.version);
        }
        let publisher_seq = self.publisher_seq.entry(Arc::clone(&publication.section)).or_default();
        *publisher_seq += 1;
        let payload = number(message, *publisher_seq)?;
        for subscriber in &self.subscribers {
            if matches(&subscriber.pattern, &publication.channel) {
                subscriber.inbox.push(Arc::clone(&publication.channel), payload.clone());
            }
        }
        Ok(outcome)
    }
}

/// The message with its number as the last member.
fn number(message: &[u8], publisher_seq: u64) -> Result<Bytes> {
    let open = open_object(message)?;
    let comma = if open.trim_ascii_end().ends_with(b"{") && open.trim_ascii().len() == 1 { "" } else { "," };
    let mut numbered = Vec::with_capacity(open.len() + 40);
    numbered.extend_from_slice(open);
    numbered.extend_from_slice(format!("{comma}\"PublisherSeq\":{publisher_seq}}}").as_bytes());
    Ok(numbered.into())
}

/// True when `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        // The leftmost place leaves the most text for the parts to come.
        let Some(place) = text.find(part) else { return false };
        text = text.get(place + part.len()..).unwrap_or("");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a:*", "a:", true),
            ("a:*", "a:b:c", true),
            ("a:*", "b:a:", false),
            ("*:c", "a:b:c", true),
            ("a:*:c", "a:c", false),
            ("a:*:c", "a:b:c", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "ac", false),
            ("a*aa", "aa", false),
            ("[a]", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_number_is_the_last_member() {
        for (message, expected) in [
            ("{\"a\":1}", "{\"a\":1,\"PublisherSeq\":7}"),
            ("{}", "{\"PublisherSeq\":7}"),
            (" { } \n", " { \"PublisherSeq\":7}"),
            ("{\"a\":{}}\n", "{\"a\":{},\"PublisherSeq\":7}"),
            ("{\"a\":\"{\"}", "{\"a\":\"{\",\"PublisherSeq\":7}"),
        ] {
            assert_eq!(number(message.as_bytes(), 7).unwrap(), expected);
        }
        for wrong in ["", "[]", "{", "}", "7"] {
            assert!(number(wrong.as_bytes(), 7).is_err(), "{wrong}");
        }
    }
}
