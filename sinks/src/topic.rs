//! `topic`: publishes events to a bus topic.
//!
//! Input: events with documents. `payload: change` publishes the captured-change envelope, `payload: document`
//! the document as it is, with its version, section and commit time as properties. The message key is the
//! event's key, so that order per key is kept. A batch is durable when all its messages are. Repeated after an
//! error, it may publish messages twice: ids and versions are the same, and consumers drop what they have seen.

use crate::channel::{NameTemplate, check_name};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::bus::{Outgoing, SharedBus};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::message::encode_change;
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::trace::TRACEPARENT;
use smartpulse_pipeline::{Batch, Event};
use std::collections::BTreeMap;

/// Publishes events to a bus topic.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicConfig {
    /// The bus resource.
    bus: String,
    /// The topic; `{section}`, `{key}` and `{partition}` are filled in from the event, as in `cdc:{section}s`.
    topic: String,
    /// What messages hold: `change` (captured changes; the default for topics that begin with `cdc:`) or
    /// `document`.
    #[serde(default)]
    payload: Option<Payload>,
}

/// What messages hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Captured-change envelopes.
    Change,
    /// Plain JSON documents.
    Document,
}

impl Config for TopicConfig {
    const TYPE: &'static str = "topic";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("bus", &self.bus, "bus");
        check_name("topic", &self.topic, check);
    }
}

#[async_trait]
impl SinkConfig for TopicConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let by_name = if self.topic.starts_with("cdc:") { Payload::Change } else { Payload::Document };
        Ok(Box::new(TopicSink {
            bus: cx.resource(&self.bus).await?,
            topic: NameTemplate::parse(&self.topic).map_err(Error::fatal)?,
            payload: self.payload.unwrap_or(by_name),
            partition: cx.settings.partition.clone(),
        }))
    }
}

struct TopicSink {
    bus: SharedBus,
    topic: NameTemplate,
    payload: Payload,
    partition: String,
}

#[async_trait]
impl Sink for TopicSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        let mut rejected = Vec::new();
        let mut topics: BTreeMap<String, Vec<Outgoing>> = BTreeMap::new();
        for (index, event) in batch.events.iter().enumerate() {
            match self.message(event) {
                Some(message) => topics.entry(self.topic.name(event, &self.partition)).or_default().push(message),
                None => rejected.push(Rejected { index, reason: "the event has no document to publish".to_owned() }),
            }
        }
        for (topic, messages) in topics {
            self.bus.publish(&topic, messages).await?;
        }
        Ok(rejected)
    }
}

impl TopicSink {
    fn message(&self, event: &Event) -> Option<Outgoing> {
        let payload = match self.payload {
            Payload::Change => encode_change(event),
            Payload::Document => event.document.as_ref()?.bytes().clone(),
        };
        let mut properties = BTreeMap::from([
            ("section".to_owned(), event.section.to_string()),
            ("version".to_owned(), event.version.to_string()),
        ]);
        if let Some(time) = event.commit_time {
            properties.insert("commit-time".to_owned(), time.to_string());
        }
        if let Some(place) = event.trace {
            properties.insert(TRACEPARENT.to_owned(), place.to_string());
        }
        Some(Outgoing { key: Some(event.key.to_string()), payload, properties })
    }
}
