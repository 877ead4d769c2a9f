//! `push`: tells the devices of users.
//!
//! Input: events whose document is a notification ([`PushMessage`]): `id`, `userId`, `title`, `body`, and perhaps `url`,
//! `data`, `ttl`, `urgency`, `topic`, `deviceType`. All devices of all users of a batch are told at once, as many per service
//! as the resource `push_services` says. An event is done when each device of its user has been told or is gone; a user
//! without devices is told nothing, and counted (`no_device`).
//!
//! What the services answer (CONTRACTS 7): 201 is sent; 404, 410 and what says that a token is none remove the device; 429,
//! 5xx, time-outs and cuts are tried again as the sink's policy says, not before `Retry-After`; what can never succeed is
//! refused with the reason. An outage of a known service holds the stream; that of another costs its messages their tries. What is older
//! than its `ttl` is set aside.
//!
//! Delivery: at least once, and to a device that was told once it is not sent again while others of the batch are tried again;
//! after a crash the batch under way is. Whoever receives it knows it by its id. With a `ledger` each attempt is kept there, and
//! what was told before, by whichever process, is passed over and counted (`told_before`).

use crate::message::PushMessage;
use crate::outcome::Outcome;
use crate::pusher::{Pusher, SharedPusher};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::deliveries::{Attempt, DeliveryLedger, Round};
use smartpulse_clients::delivery::Device;
use smartpulse_clients::notifications::Channel;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::telemetry::ComponentMetrics;
use smartpulse_pipeline::{Batch, Event, Operation, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Users whose devices are looked up at once.
const LOOKUPS: usize = 8;

/// Tells the devices of users: Web Push and FCM.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushConfig {
    /// The resource of type `push_services`.
    push: String,
    /// Devices told at once, over all services, 1 to 10000; 128 by default.
    #[serde(default = "concurrency_default")]
    #[schemars(range(min = 1, max = 10_000))]
    concurrency: usize,
    /// The database resource whose table `NotificationDeliveries` keeps what was told; none by default. Each document then says in
    /// `delivery` which delivery it is.
    #[serde(default)]
    ledger: Option<String>,
}

fn concurrency_default() -> usize {
    128
}

impl Config for PushConfig {
    const TYPE: &'static str = "push";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("push", &self.push, "push");
        if let Some(ledger) = &self.ledger {
            check.resource("ledger", ledger, "database");
        }
    }
}

#[async_trait]
impl SinkConfig for PushConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let pusher: SharedPusher = cx.resource(&self.push).await?;
        let ledger = DeliveryLedger::open(cx, self.ledger.as_deref(), Channel::PushNotification).await?;
        Ok(Box::new(PushSink { pusher, concurrency: self.concurrency, ledger, metrics: cx.metrics.clone() }))
    }
}

struct PushSink {
    pusher: Arc<Pusher>,
    concurrency: usize,
    ledger: Option<DeliveryLedger>,
    metrics: Arc<ComponentMetrics>,
}

/// A message on its way, and its place in the batch.
struct Due {
    index: usize,
    message: PushMessage,
    /// What is left of its time.
    ttl: u32,
}

/// What became of a batch so far.
#[derive(Default)]
struct Tally {
    rejected: Vec<Rejected>,
    again: Option<(String, Duration)>,
    away: Option<String>,
    /// What the ledger is told, by place.
    reports: BTreeMap<usize, Report>,
}

/// What became of one message.
#[derive(Default)]
struct Report {
    sent: bool,
    /// Why it has not ended: the first device's reason.
    open: Option<&'static str>,
    /// Whether a service is away: nobody was asked, as often as it is tried, and there is nothing to keep.
    away: bool,
    /// Each device.
    devices: Vec<String>,
}

impl Report {
    fn add(&mut self, device: &Device, outcome: &Outcome) {
        self.sent |= *outcome == Outcome::Sent;
        self.away |= matches!(outcome, Outcome::Away(_));
        let reason = match outcome {
            Outcome::Sent => None,
            Outcome::Gone(reason) => Some(reason),
            Outcome::Refused(reason) | Outcome::Later { reason, .. } | Outcome::Away(reason) => {
                self.open = self.open.or(Some(outcome.status()));
                Some(reason)
            }
        };
        let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        self.devices.push(format!("device {}: {}{reason}", device.id, outcome.status()));
    }

    /// As the ledger has it.
    fn attempt(&self, round: &Round<'_>, index: usize) -> Option<Attempt> {
        let outcome = match self.open {
            _ if self.away => return None,
            Some(open) => open,
            None if self.sent => "sent",
            None if self.devices.is_empty() => "no_device",
            None => "gone",
        };
        let detail = (!self.devices.is_empty()).then(|| self.devices.join("; "));
        let attempt = round.attempt(index, outcome, detail)?;
        Some(if self.open.is_none() { attempt.last() } else { attempt })
    }
}

impl Tally {
    fn add(&mut self, index: usize, device: &Device, outcome: Outcome) {
        self.reports.entry(index).or_default().add(device, &outcome);
        match outcome {
            Outcome::Sent | Outcome::Gone(_) => {}
            Outcome::Refused(reason) => {
                let reason = format!("device {}: {reason}", device.id);
                match self.rejected.iter_mut().find(|rejected| rejected.index == index) {
                    Some(rejected) => rejected.reason = format!("{}; {reason}", rejected.reason),
                    None => self.rejected.push(Rejected { index, reason }),
                }
            }
            Outcome::Later { reason, after } => {
                let least = self.again.as_ref().map_or(Duration::ZERO, |(_, least)| *least);
                self.again = Some((format!("device {}: {reason}", device.id), least.max(after.unwrap_or_default())));
            }
            Outcome::Away(reason) => self.away = Some(reason),
        }
    }

    /// Another try comes first: whatever is refused is refused again then, and what was sent is not sent again.
    fn end(self) -> Result<Vec<Rejected>> {
        match (self.again, self.away) {
            (Some((reason, least)), _) => Err(Error::transient(reason).retry_after(Some(least))),
            (None, Some(reason)) => Err(Error::unavailable(reason)),
            (None, None) => Ok(self.rejected),
        }
    }
}

#[async_trait]
impl Sink for PushSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        let mut round = DeliveryLedger::begin(self.ledger.as_ref(), batch).await?;
        let mut tally = Tally::default();
        let mut due = Vec::new();
        let now = Timestamp::now();
        for (index, event) in batch.events.iter().enumerate().filter(|(index, _)| round.is_due(*index)) {
            match read(event, now) {
                Ok((message, ttl)) => due.push(Due { index, message, ttl }),
                Err(reason) => tally.rejected.push(Rejected { index, reason }),
            }
        }
        let mut attempts: Vec<Attempt> = tally.rejected.iter().filter_map(|rejected| round.refused(rejected)).collect();
        tally.rejected.append(&mut round.rejected);
        let lookups: Vec<_> = due.into_iter().map(|due| with_devices(Arc::clone(&self.pusher), due)).collect();
        let found: Vec<Result<(Arc<Due>, Vec<Device>)>> =
            stream::iter(lookups).buffer_unordered(LOOKUPS).collect().await;
        let mut jobs = Vec::new();
        for result in found {
            let (due, devices) = result?;
            if devices.is_empty() {
                self.metrics.note("no_device", 1);
                tally.reports.entry(due.index).or_default();
            }
            let job = |device| tell(Arc::clone(&self.pusher), Arc::clone(&due), device);
            jobs.extend(devices.into_iter().map(job));
        }
        let told = stream::iter(jobs);
        let mut told = std::pin::pin!(told.buffer_unordered(self.concurrency));
        let mut failed = None;
        while let Some((index, device, outcome)) = told.next().await {
            match outcome {
                Ok(outcome) => {
                    self.metrics.note(outcome.status(), 1);
                    tally.add(index, &device, outcome);
                }
                // The others are told all the same.
                Err(error) => {
                    tally.reports.entry(index).or_default().open = Some("failed");
                    failed = Some(error);
                }
            }
        }
        attempts.extend(tally.reports.iter().filter_map(|(index, report)| report.attempt(&round, *index)));
        round.record(&attempts).await?;
        self.metrics.note("told_before", round.told_before);
        failed.map_or_else(|| tally.end(), Err)
    }
}

async fn with_devices(pusher: Arc<Pusher>, due: Due) -> Result<(Arc<Due>, Vec<Device>)> {
    let devices = pusher.devices(due.message.user_id, due.message.device_type).await?;
    Ok((Arc::new(due), devices))
}

async fn tell(pusher: Arc<Pusher>, due: Arc<Due>, device: Device) -> (usize, Device, Result<Outcome>) {
    let outcome = pusher.tell(&device, &due.message, due.ttl).await;
    (due.index, device, outcome)
}

/// The message of an event, and how many seconds are left of it.
fn read(event: &Event, now: Timestamp) -> Result<(PushMessage, u32), String> {
    if event.operation == Operation::Delete {
        return Err("a delete is no notification".to_owned());
    }
    let document = event.document.as_ref().ok_or("the event has no document to tell")?;
    let message = PushMessage::parse(document.bytes())?;
    let age = event.commit_time.map_or(0, |time| now.millis_since(time) / 1_000);
    let left = u64::from(message.ttl).checked_sub(age).and_then(|left| u32::try_from(left).ok());
    let ttl = left.ok_or_else(|| format!("it is {age} s old, and its ttl is {} s", message.ttl))?;
    Ok((message, ttl))
}
