//! From the bus to the log: captured changes become entries, in order, each version once.
//!
//! The subscription is durable, and a message is acked when its entry leaves the log. So after a restart the bus
//! delivers what the log held, cursors that clients kept are found again, and they go on where they were.

use super::Feed;
use super::entry::{Entry, Known, cursor};
use smartpulse_clients::bus::{Acker, InitialPosition, Message, SharedBus, Subscribe, SubscriptionType};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::message::decode_change;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The topic of captured changes.
const TOPIC: &str = "cdc:forecasts";

/// One subscription per data folder, for as many clients as there are.
const SUBSCRIPTION: &str = "productionforecast-changes";

/// The messages that are taken at once.
const BATCH: usize = 500;

/// How long nothing must come for the log to be as it was before a restart.
const QUIET: Duration = Duration::from_millis(200);

/// How long the bus is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(1);

impl Feed {
    /// Fills the log until `stop` is told.
    pub(crate) async fn run(self: Arc<Self>, bus: SharedBus, mut stop: watch::Receiver<bool>) {
        loop {
            let outcome = tokio::select! {
                outcome = self.consume(&bus) => outcome,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = outcome {
                tracing::warn!(error = error.chain(), "changes are not heard: the bus failed");
                self.readiness.degraded("changes", "the bus does not answer");
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn consume(&self, bus: &SharedBus) -> Result<()> {
        let started = Timestamp::now();
        let subscribe = Subscribe {
            topic: TOPIC.to_owned(),
            subscription: SUBSCRIPTION.to_owned(),
            kind: SubscriptionType::Exclusive,
            initial: InitialPosition::Latest,
            durable: true,
        };
        let mut consumer = bus.subscribe(subscribe).await?;
        let acker = consumer.acker();
        self.readiness.recovered("changes");
        while !*self.caught_up.borrow() {
            match timeout(QUIET, consumer.receive(BATCH)).await {
                Ok(messages) => {
                    let messages = messages?;
                    let live = messages.last().is_some_and(|message| message.publish_time >= started);
                    self.take(acker.as_ref(), messages).await?;
                    if live {
                        self.caught_up.send_replace(true);
                    }
                }
                Err(_) => drop(self.caught_up.send_replace(true)),
            }
        }
        loop {
            let messages = consumer.receive(BATCH).await?;
            self.take(acker.as_ref(), messages).await?;
        }
    }

    /// Appends what is new, and acks what cannot be resumed from any more.
    async fn take(&self, acker: &dyn Acker, messages: Vec<Message>) -> Result<()> {
        let mut done = Vec::new();
        let mut entries = Vec::new();
        for message in messages {
            // After the bus was away it delivers again what the log holds: that is acked when it leaves the log.
            if self.log.after(&cursor(&message.id)).is_some() {
                continue;
            }
            let event = match decode_change(&message.payload) {
                Ok(event) => event,
                Err(error) => {
                    tracing::warn!(error = error.chain(), "an unreadable change is passed over");
                    done.push(message.id);
                    continue;
                }
            };
            let known = self.known.get(&event.key);
            match Entry::of(&self.source, &event, known.as_deref(), message.id.clone()) {
                Some((entry, known)) => {
                    self.known.insert(event.key.clone(), Arc::new(known));
                    entries.push(entry);
                }
                None => done.push(message.id),
            }
        }
        done.extend(self.log.append(entries));
        self.metrics.retained.set(i64::try_from(self.log.len()).unwrap_or(i64::MAX));
        if done.is_empty() { Ok(()) } else { acker.ack(&done).await }
    }
}

/// What is known of a key takes this much in memory.
pub(super) fn weigh(key: &smartpulse_pipeline::Key, known: &Arc<Known>) -> u32 {
    let document = known.document.as_ref().map_or(0, smartpulse_json::Document::len);
    u32::try_from(key.len() + document + 400).unwrap_or(u32::MAX)
}
