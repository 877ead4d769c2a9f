//! The embedded pub/sub: fan-out and version counters within one process.
//!
//! Contract: that of [`PubSub`]. Publications are serialised by one lock, which is never held while waiting, so
//! compare, store and publish are one step and all subscribers see one order.
//!
//! Bounds: at most `counters_max` counters; when a new channel would exceed that all are forgotten, after which the
//! next publication of each channel carries the whole document. Each subscriber queues at most
//! `queue_messages_max` messages and [`QUEUE_BYTES_MAX`] bytes; the oldest are dropped, and it is told.

use crate::pubsub::{Delivery, Outcome, PubSub, Publication, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

/// The payload bytes that one subscriber's queue holds at most. Payloads are shared between queues, so this bounds what
/// one slow subscriber keeps alive.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

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
    publisher_seq: u64,
    subscribers: Vec<Subscription>,
}

#[derive(Debug)]
struct Subscription {
    pattern: Box<str>,
    queue: Weak<Queue>,
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
        let queue = Arc::new(Queue::new((self.config.queue_messages_max as usize).max(1)));
        let subscription = Subscription { pattern: pattern.into(), queue: Arc::downgrade(&queue) };
        let mut state = self.state();
        state.subscribers.retain(|s| s.queue.strong_count() > 0);
        state.subscribers.push(subscription);
        Ok(Box::new(EmbeddedSubscriber { queue }))
    }
}

impl State {
    fn publish(&mut self, publication: &Publication, counters_max: usize) -> Result<Outcome> {
        let stored = self.counters.get(&publication.channel).copied();
        let outcome = decide(stored, publication);
        let message = match outcome {
            Outcome::Stale => return Ok(outcome),
            Outcome::Patch => &publication.patch,
            Outcome::Whole => &publication.whole,
        };
        if stored.is_none() && self.counters.len() >= counters_max {
            self.counters.clear();
        }
        if counters_max > 0 {
            self.counters.insert(Arc::clone(&publication.channel), publication.version);
        }
        self.publisher_seq += 1;
        let payload = number(message, self.publisher_seq)?;
        for subscriber in &self.subscribers {
            if matches(&subscriber.pattern, &publication.channel)
                && let Some(queue) = subscriber.queue.upgrade()
            {
                queue.push(Arc::clone(&publication.channel), payload.clone());
            }
        }
        Ok(outcome)
    }
}

/// What a publication does, from the stored version alone.
fn decide(stored: Option<i64>, publication: &Publication) -> Outcome {
    match stored {
        Some(stored) if publication.version < stored => Outcome::Stale,
        Some(stored) if publication.version == stored && !publication.resync => Outcome::Stale,
        Some(stored) if publication.previous_version == Some(stored) && !publication.resync => Outcome::Patch,
        _ => Outcome::Whole,
    }
}

/// The message without its closing brace.
fn open_object(message: &[u8]) -> Result<&[u8]> {
    message
        .trim_ascii_end()
        .strip_suffix(b"}")
        .filter(|open| open.trim_ascii_start().starts_with(b"{"))
        .ok_or_else(|| Error::rejected("a message to publish is no JSON object"))
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

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    messages_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(Arc<str>, Bytes)>,
    bytes: usize,
    /// Messages were dropped from the front since the last receive.
    lost: bool,
}

impl Queue {
    fn new(messages_max: usize) -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new(), messages_max }
    }

    fn push(&self, channel: Arc<str>, payload: Bytes) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += payload.len();
        waiting.messages.push_back((channel, payload));
        while waiting.messages.len() > self.messages_max || waiting.bytes > QUEUE_BYTES_MAX {
            let Some((_, dropped)) = waiting.messages.pop_front() else { break };
            waiting.bytes -= dropped.len();
            waiting.lost = true;
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    fn pop(&self, max: usize) -> Vec<Delivery> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut deliveries = Vec::with_capacity(max.min(waiting.messages.len() + 1));
        // Dropped from the front, so the loss lies before everything that waits.
        if waiting.lost {
            waiting.lost = false;
            deliveries.push(Delivery::Lost);
        }
        while deliveries.len() < max.max(1)
            && let Some((channel, payload)) = waiting.messages.pop_front()
        {
            waiting.bytes -= payload.len();
            deliveries.push(Delivery::Message { channel, payload });
        }
        deliveries
    }
}

#[derive(Debug)]
struct EmbeddedSubscriber {
    queue: Arc<Queue>,
}

#[async_trait]
impl Subscriber for EmbeddedSubscriber {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            // A push after this pop leaves a permit, so that waiting returns at once.
            let deliveries = self.queue.pop(max);
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            self.queue.arrived.notified().await;
        }
    }
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
