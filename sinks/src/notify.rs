//! `notify`: addresses notification requests, a message per person and channel.
//!
//! Input: events whose document is a request ([`NotificationRequest`]), from rules or from other programs. Output: messages on a
//! bus topic, with the user as key:
//!
//! ```json
//! { "id": "UUIDv5(rule, entity, version, channel, user)", "rule": "...", "entity": "...", "version": 7, "channel": "Email",
//!   "userId": "...", "to": "anna@example.com", "displayName": "Anna", "title": "...", "body": "...", "type": "...",
//!   "url": "...", "templateId": "notification", "data": {}, "unsubscribeUrl": "of mails, where the settings have a page",
//!   "createdAt": "..." }
//! ```
//!
//! Who is told: the users of the audience, page by page; not by a channel that they switched off (`switched_off`), and not within
//! the quiet period of the rule (`quiet`), which is kept in the database, so that the same request told again is told to the
//! same people, with the same ids. Requests that cannot be read, and those to a user who is not there, are refused with the
//! reason; an audience of nobody is counted (`nobody`).
//!
//! Delivery: at least once; a batch is done when all its messages are durable. Who there is, and what they switched off, is
//! remembered for `directory_ms`: so long a change of it may take.
//! Cost: two queries per page of people and `directory_ms`, one write per page where a quiet period is asked for, and one
//! publication per 1,000 messages or 4 MiB.

mod directory;
mod request;

pub use directory::{Directory, Person};
pub use request::{NotificationRequest, Tell};

use crate::channel::{NameTemplate, check_name};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;
use smartpulse_clients::bus::{Outgoing, SharedBus};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::notifications::{Audience, Quiet, SharedNotifications, USERS_MAX};
use smartpulse_clients::unsubscribe::Unsubscribe;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::message::Channel;
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::telemetry::ComponentMetrics;
use smartpulse_pipeline::trace::TRACEPARENT;
use smartpulse_pipeline::{Batch, Event, Operation, Timestamp};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What is published at once, in messages and bytes: an audience may be large, and each of its people gets a copy of the data.
const PUBLISHED_MAX: usize = 1_000;
const PUBLISHED_BYTES_MAX: usize = 4 << 20;

/// Addresses notification requests: a message per person and channel.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// The database resource with the users, their preferences and quiet periods.
    database: String,
    /// The bus resource.
    bus: String,
    /// The topic of the messages, such as `notification:deliveries`.
    topic: String,
    /// How long is remembered who there is and what they switched off, in milliseconds, 0 to 600000; 5000 by default.
    #[serde(default = "directory_default")]
    #[schemars(range(max = 600_000))]
    directory_ms: u64,
}

fn directory_default() -> u64 {
    5_000
}

impl Config for NotifyConfig {
    const TYPE: &'static str = "notify";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
        check.resource("bus", &self.bus, "bus");
        check_name("topic", &self.topic, check);
    }
}

#[async_trait]
impl SinkConfig for NotifyConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let database: SharedDatabase = cx.resource(&self.database).await?;
        let notifications = database.notifications();
        let notifications =
            notifications.ok_or_else(|| Error::fatal(format!("the database {} knows no users", self.database)))?;
        Ok(Box::new(Notify {
            directory: Directory::new(notifications.clone(), Duration::from_millis(self.directory_ms)),
            notifications,
            bus: cx.resource(&self.bus).await?,
            topic: NameTemplate::parse(&self.topic).map_err(Error::fatal)?,
            partition: cx.settings.partition.clone(),
            unsubscribe: Unsubscribe::new(&cx.settings.notifications, &cx.settings.environment)?,
            metrics: cx.metrics.clone(),
        }))
    }
}

struct Notify {
    directory: Directory,
    notifications: SharedNotifications,
    bus: SharedBus,
    topic: NameTemplate,
    partition: String,
    unsubscribe: Option<Unsubscribe>,
    metrics: Arc<ComponentMetrics>,
}

/// Messages that wait to be published, by topic.
#[derive(Default)]
struct Outbox {
    topics: BTreeMap<String, Vec<Outgoing>>,
    messages: usize,
    bytes: usize,
}

#[async_trait]
impl Sink for Notify {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        let (mut rejected, mut outbox) = (Vec::new(), Outbox::default());
        for (index, event) in batch.events.iter().enumerate() {
            match read(event) {
                Ok((request, audience)) => {
                    let found = self.address(event, &request, &audience, batch.time, &mut outbox).await?;
                    if !found && matches!(audience, Audience::User(_)) {
                        rejected.push(Rejected { index, reason: "there is no user with the id in tell".to_owned() });
                    }
                }
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        self.publish(&mut outbox).await?;
        Ok(rejected)
    }
}

impl Notify {
    /// Puts the messages of a request into the outbox, and says whether there is anybody in its audience.
    async fn address(
        &mut self,
        event: &Event,
        request: &NotificationRequest,
        audience: &Audience,
        now: Timestamp,
        outbox: &mut Outbox,
    ) -> Result<bool> {
        let (channels, none) = (request.channels(), Map::new());
        let (data, time) = (request.data.as_ref().unwrap_or(&none), event.commit_time.unwrap_or(now));
        let topic = self.topic.name(event, &self.partition);
        let mut after = None;
        loop {
            let page = self.directory.page(audience, after).await?;
            let Some(last) = page.last() else { break };
            let reached = |person: &&Person| channels.iter().any(|channel| !person.off.contains(channel));
            let alone = self.quiet(request, page.iter().filter(reached)).await?;
            for person in page.iter().filter(reached).filter(|person| !alone.contains(&person.user.id)) {
                for channel in channels.iter().filter(|channel| !person.off.contains(channel)) {
                    let mut message = request.message(&person.user, *channel, data, time);
                    if let (Channel::Email, Some(unsubscribe)) = (*channel, &self.unsubscribe) {
                        message.unsubscribe_url = Some(unsubscribe.link(person.user.id, *channel));
                    }
                    let payload = serde_json::to_vec(&message)
                        .map_err(|error| Error::rejected("the message has no JSON form").because(error))?;
                    outbox.put(&topic, outgoing(event, person.user.id, time, payload));
                }
                if outbox.messages >= PUBLISHED_MAX || outbox.bytes >= PUBLISHED_BYTES_MAX {
                    self.publish(outbox).await?;
                }
            }
            let off: usize = page.iter().map(|p| channels.iter().filter(|c| p.off.contains(c)).count()).sum();
            self.metrics.note("switched_off", off as u64);
            self.metrics.note("quiet", alone.len() as u64);
            after = Some(last.user.id);
            if page.len() < USERS_MAX {
                break;
            }
        }
        if after.is_none() {
            self.metrics.note("nobody", 1);
        }
        Ok(after.is_some())
    }

    /// Whom the rule leaves alone at present.
    async fn quiet(
        &self,
        request: &NotificationRequest,
        people: impl Iterator<Item = &Person>,
    ) -> Result<HashSet<Uuid>> {
        let Some(period) = request.quiet() else { return Ok(HashSet::new()) };
        let ids: Vec<Uuid> = people.map(|person| person.user.id).collect();
        let event = request.event();
        let quiet = Quiet { rule: &request.rule, event: &event, period };
        let told = self.notifications.claim_quiet(quiet, &ids).await?;
        let told: HashSet<Uuid> = told.into_iter().collect();
        Ok(ids.into_iter().filter(|id| !told.contains(id)).collect())
    }

    async fn publish(&self, outbox: &mut Outbox) -> Result<()> {
        let messages = outbox.messages as u64;
        for (topic, messages) in std::mem::take(outbox).topics {
            self.bus.publish(&topic, messages).await?;
        }
        self.metrics.note("addressed", messages);
        Ok(())
    }
}

impl Outbox {
    fn put(&mut self, topic: &str, message: Outgoing) {
        self.messages += 1;
        self.bytes += message.payload.len();
        match self.topics.get_mut(topic) {
            Some(messages) => messages.push(message),
            None => drop(self.topics.insert(topic.to_owned(), vec![message])),
        }
    }
}

fn outgoing(event: &Event, user: Uuid, time: Timestamp, payload: Vec<u8>) -> Outgoing {
    let mut properties = BTreeMap::from([
        ("section".to_owned(), "notification".to_owned()),
        ("version".to_owned(), event.version.to_string()),
        ("commit-time".to_owned(), time.to_string()),
    ]);
    if let Some(place) = event.trace {
        properties.insert(TRACEPARENT.to_owned(), place.to_string());
    }
    Outgoing { key: Some(user.to_string()), payload: Bytes::from(payload), properties }
}

fn read(event: &Event) -> Result<(NotificationRequest, Audience), String> {
    if event.operation == Operation::Delete {
        return Err("a delete is no request".to_owned());
    }
    let document = event.document.as_ref().ok_or("the event has no document, and so no request")?;
    let request = NotificationRequest::parse(document.bytes())?;
    let audience = request.audience()?;
    Ok((request, audience))
}
