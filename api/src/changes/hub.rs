//! From the bus to the log: captured changes become entries, in order, each version once.
//!
//! The subscription is durable, and a message is acked when its entry leaves the log. So after a restart the bus
//! delivers what the log held, cursors that clients kept are found again, and they go on where they were.
//!
//! Whose each forecast is, is read from the database between subscribing and the first message: of a change that is heard
//! from then on it is known whom to tell.

use super::entry::{Entry, Known, Owner, company, cursor};
use super::snapshot::PAGE_TIMEOUT;
use super::{Feed, OWNERS_MAX, TABLE};
use moka::ops::compute::Op;
use smartpulse_clients::bus::{Acker, InitialPosition, Message, SharedBus, Subscribe, SubscriptionType, TAKEN};
use smartpulse_json::Document;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::message::decode_change;
use smartpulse_pipeline::{Key, Operation, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The topic of captured changes.
const TOPIC: &str = "cdc:forecasts";

/// The subscription of an instance, for as many clients as there are.
const SUBSCRIPTION: &str = "productionforecast-changes";

/// The messages that are taken at once.
const BATCH: usize = 500;

/// The rows that are read at once.
const SCAN_ROWS: usize = 500;

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
                tracing::warn!(error = error.chain(), "changes are not heard");
                // Everybody may read readiness; addresses are for the log.
                let why = if error.to_string().contains(TAKEN) {
                    "the subscription is taken; instances that share a bus need a name each: api.streams.instance"
                } else {
                    "they are not heard"
                };
                self.readiness.degraded("changes", why);
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
            subscription: self.subscription.clone(),
            kind: SubscriptionType::Exclusive,
            initial: InitialPosition::Latest,
            durable: true,
        };
        let mut consumer = bus.subscribe(subscribe).await?;
        let acker = consumer.acker();
        if !*self.caught_up.borrow() {
            self.learn_all().await?;
        }
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

    /// Learns whose every forecast is.
    async fn learn_all(&self) -> Result<()> {
        let mut after: Option<Key> = None;
        for _ in 0..OWNERS_MAX.div_ceil(SCAN_ROWS as u64) {
            let scan = timeout(PAGE_TIMEOUT, self.database.scan(TABLE, after.as_deref(), SCAN_ROWS)).await;
            let rows = scan.map_err(|_| Error::unavailable("the database does not tell whose the forecasts are"))??;
            for row in rows.iter().filter(|row| row.unreadable.is_none()) {
                let company = Document::parse(row.document.clone()).ok().as_ref().and_then(company);
                self.learn(&row.key, row.version, company);
            }
            if rows.len() < SCAN_ROWS {
                break;
            }
            after = rows.into_iter().next_back().map(|row| row.key);
        }
        Ok(())
    }

    /// Takes in whose a forecast was when it was read. What was heard counts more.
    pub(super) fn learn(&self, key: &Key, version: i64, company: Option<Arc<str>>) {
        self.owners.entry_by_ref(key).and_compute_with(|known| match known.map(|known| known.into_value()) {
            Some(known) if known.heard || known.version >= version => Op::Nop,
            _ => Op::Put(Owner { version, company, heard: false }),
        });
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
            // What a holder of the capture lease publishes who has lost it is refused.
            if event.epoch < self.epoch.fetch_max(event.epoch, Ordering::Relaxed) {
                done.push(message.id);
                continue;
            }
            let (owner, known) = (self.owners.get(&event.key), self.known.get(&event.key));
            match Entry::of(&self.source, &event, owner.as_ref(), known.as_deref(), message.id.clone()) {
                Some((entry, owner)) => {
                    self.owners.entry_by_ref(&event.key).and_upsert_with(|_| owner);
                    match event.document.filter(|_| event.operation != Operation::Delete) {
                        Some(document) => {
                            let known = Known { version: event.version, document: document.detach() };
                            self.known.insert(event.key, Arc::new(known));
                        }
                        None => self.known.invalidate(&event.key),
                    }
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

/// The subscription of the instance of that name; of the only one without a name.
pub(super) fn subscription(instance: &str) -> String {
    if instance.is_empty() { SUBSCRIPTION.to_owned() } else { format!("{SUBSCRIPTION}-{instance}") }
}

/// What is known of a key takes this much in memory.
pub(super) fn weigh(key: &Key, known: &Arc<Known>) -> u32 {
    u32::try_from(key.len() + known.document.memory() + 400).unwrap_or(u32::MAX)
}
