//! `pubsub`: broadcasts changes as DataChanged messages.
//!
//! Input: events with patches (put `diff` before it). Each is published once, in version order per key: its
//! patch when the shared counter stands at the version before, its whole document otherwise, nothing when the
//! counter is at that version already. Compare, store and publish are one step of the pub/sub system, so that
//! restarts, replicas and redelivery are harmless. Counted: `patch`, `whole`, `stale`, and with `database` `refilled`:
//! where instances share documents, a key whose counter is lost is read from there before its events are judged.

use crate::channel::{NameTemplate, check_name};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::pubsub::{Outcome, Publication, SharedPubSub, document_in};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::message::{DataChanged, encode_data_changed};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::telemetry::ComponentMetrics;
use smartpulse_pipeline::{Batch, Event, Operation, Patch};
use std::sync::Arc;

mod refill;

use refill::Refill;

/// Broadcasts changes as DataChanged messages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PubSubConfig {
    /// The pub/sub resource.
    pubsub: String,
    /// The channel; `{partition}`, `{section}` and `{key}` are filled in, as in
    /// `__dataChanged:production:forecast:{key}`.
    channel: String,
    /// The database resource that a key is read from again when the pub/sub system lost its counter; it matters where
    /// instances share documents (Redis). Default none: an event whose counter is lost is broadcast whole as it is.
    #[serde(default)]
    database: Option<String>,
    /// The table of the keys in that database. Default `Forecasts`.
    #[serde(default)]
    table: Option<String>,
    /// The section of the keys in that table. Default `forecast`, that of `Forecasts`. Events of another section are not read
    /// again: they are broadcast as without a database.
    #[serde(default)]
    section: Option<String>,
}

/// The table that a key is read from when none is named, and its section.
const TABLE: (&str, &str) = ("Forecasts", "forecast");

impl Config for PubSubConfig {
    const TYPE: &'static str = "pubsub";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("pubsub", &self.pubsub, "pubsub");
        check_name("channel", &self.channel, check);
        if !self.channel.contains("{key}") {
            let help = "versions are compared per channel: end it with `{key}`";
            check.problem("channel", "the channel is the same for all keys", Some(help.to_owned()));
        }
        match (&self.database, &self.table) {
            (Some(database), table) => {
                check.resource("database", database, "database");
                if table.as_deref().is_some_and(|table| table != TABLE.0) && self.section.is_none() {
                    let help = "name the `section` of the events whose keys are in it, such as `unit`";
                    check.problem("table", "a table without its section", Some(help.to_owned()));
                }
            }
            (None, Some(_)) => {
                let help = "name the `database` that it is in, or leave it out";
                check.problem("table", "a table without a database", Some(help.to_owned()));
            }
            (None, None) => {}
        }
    }
}

#[async_trait]
impl SinkConfig for PubSubConfig {
    const RETRY: &'static str = "redis";
    const NEWEST_ONLY: bool = true;

    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let pubsub: SharedPubSub = cx.resource(&self.pubsub).await?;
        let partition: Arc<str> = cx.settings.partition.as_str().into();
        let instance: Arc<str> = cx.instance.to_string().into();
        let refill = match &self.database {
            Some(database) if pubsub.documents().is_some() => Some(Refill {
                database: cx.resource(database).await?,
                table: self.table.clone().unwrap_or_else(|| TABLE.0.to_owned()),
                instance: instance.clone(),
                partition: partition.clone(),
            }),
            _ => None,
        };
        Ok(Box::new(PubSubSink {
            pubsub,
            channel: NameTemplate::parse(&self.channel).map_err(Error::fatal)?,
            partition,
            instance,
            refill,
            refilled: self.section.as_deref().unwrap_or(TABLE.1).into(),
            metrics: cx.metrics.clone(),
        }))
    }
}

struct PubSubSink {
    pubsub: SharedPubSub,
    channel: NameTemplate,
    partition: Arc<str>,
    instance: Arc<str>,
    refill: Option<Refill>,
    /// The section whose keys it knows.
    refilled: Arc<str>,
    metrics: Arc<ComponentMetrics>,
}

#[async_trait]
impl Sink for PubSubSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        let mut rejected = Vec::new();
        let mut publications = Vec::with_capacity(batch.events.len());
        for (index, event) in batch.events.iter().enumerate() {
            match self.publication(event) {
                Ok(publication) => publications.push(publication),
                Err(reason) => rejected.push(Rejected { index, reason: reason.to_owned() }),
            }
        }
        let mut outcomes = self.pubsub.publish(&publications).await?;
        if let Some(refill) = &self.refill {
            let refilled = refill.settle(&self.pubsub, &publications, &mut outcomes).await?;
            if refilled > 0 {
                self.metrics.note("refilled", refilled as u64);
            }
        }
        for outcome in outcomes {
            self.metrics.note(
                match outcome {
                    Outcome::Patch => "patch",
                    Outcome::Whole => "whole",
                    Outcome::Stale | Outcome::Unknown => "stale",
                },
                1,
            );
        }
        Ok(rejected)
    }
}

impl PubSubSink {
    fn publication(&self, event: &Event) -> Result<Publication, &'static str> {
        let patch = event.patch.clone().ok_or("the event has no patch: put `diff` before this sink")?;
        let message = |patch: Patch| {
            encode_data_changed(&DataChanged {
                data_manager_id: self.instance.clone(),
                partition: self.partition.clone(),
                section: event.section.clone(),
                key: event.key.clone(),
                version: event.version,
                change_time: event
                    .commit_time
                    .unwrap_or(event.capture_time.unwrap_or(smartpulse_pipeline::Timestamp::from_millis(0))),
                patch,
                previous_version: event.previous_version,
            })
        };
        let whole = if patch.whole { None } else { Some(message(whole_patch(event)?)) };
        let patch = message(patch);
        let whole = whole.unwrap_or_else(|| patch.clone());
        let document = event.document.as_ref().filter(|_| event.operation != Operation::Delete);
        Ok(Publication {
            channel: self.channel.name(event, &self.partition).into(),
            section: event.section.clone(),
            key: event.key.clone(),
            version: event.version,
            previous_version: event.previous_version,
            document: document.and_then(|document| document_in(&whole, document)),
            whole,
            patch,
            known_only: self.refill.is_some() && event.section == self.refilled,
            resync: event.resync,
        })
    }
}

/// The one operation that sets the whole document.
fn whole_patch(event: &Event) -> Result<Patch, &'static str> {
    let mut items = Vec::new();
    match (&event.document, event.operation) {
        (_, Operation::Delete) => smartpulse_json::whole_remove(&mut items),
        (Some(document), _) => smartpulse_json::whole_replace(document, &mut items),
        (None, _) => return Err("the event has a patch but no document"),
    }
    Ok(Patch { items: Bytes::from(items), whole: true })
}
