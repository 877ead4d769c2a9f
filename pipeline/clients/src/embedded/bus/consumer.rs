//! The receiving side: subscriptions as consumers of this process share them, consumers and ackers.

use super::ledger::{Claim, Ledger, Unsaved};
use super::{Inner, Topic, tables};
use crate::bus::{Acker, Consumer, Message, MessageId, SubscriptionType};
use async_trait::async_trait;
use smartpulse_pipeline::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// How many messages one read loads ahead. A read costs about 50 microseconds beyond its rows.
const FILL_ROWS: usize = 1_000;

/// The payload bytes after which a read stops. With messages of at most 1 MiB, memory per subscription stays below twice this.
const FILL_BYTES: usize = 8 << 20;

/// The longest delay of a nack; longer ones are cut. It keeps time arithmetic in range.
const NACK_DELAY_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A subscription that was opened in this process.
#[derive(Debug)]
pub(super) struct Subscription {
    pub name: String,
    /// Its row, when it is durable.
    pub id: Option<i64>,
    pub topic: Arc<Topic>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    kind: SubscriptionType,
    consumers: usize,
    last_consumer: u64,
}

impl Subscription {
    pub fn new(name: &str, id: Option<i64>, topic: Arc<Topic>, ledger: Ledger) -> Self {
        let state = State { ledger, kind: SubscriptionType::Exclusive, consumers: 0, last_consumer: 0 };
        Self { name: name.to_owned(), id, topic, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything at or below is acked.
    pub fn cursor(&self) -> i64 {
        self.state().ledger.cursor()
    }

    pub fn has_consumers(&self) -> bool {
        self.state().consumers > 0
    }

    /// Makes every waiting consumer look again.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Admits a consumer.
    ///
    /// # Errors
    /// Unavailable when the subscription is taken: it may be free later.
    pub fn admit(&self, kind: SubscriptionType) -> Result<u64> {
        let mut state = self.state();
        let (name, topic) = (&self.name, &self.topic.name);
        if state.consumers > 0 && (kind == SubscriptionType::Exclusive || state.kind != kind) {
            let held = match state.kind {
                SubscriptionType::Exclusive => "exclusive and has a consumer",
                _ => "shared and has consumers",
            };
            return Err(Error::unavailable(format!("subscription {name} of topic {topic} is {held}")));
        }
        state.kind = kind;
        state.consumers += 1;
        state.last_consumer += 1;
        Ok(state.last_consumer)
    }

    pub fn take_unsaved(&self) -> Option<Unsaved> {
        self.state().ledger.take_unsaved()
    }

    pub fn not_saved(&self, unsaved: Unsaved) {
        self.state().ledger.not_saved(unsaved);
    }
}

/// A consumer of the embedded bus.
#[derive(Debug)]
pub(super) struct EmbeddedConsumer {
    pub bus: Arc<Inner>,
    pub subscription: Arc<Subscription>,
    pub number: u64,
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn receive(&mut self, max: usize) -> Result<Vec<Message>> {
        loop {
            // Registered before looking, so that a change between looking and waiting is not missed.
            let changed = self.subscription.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let newest = self.subscription.topic.newest();
            let claim =
                self.subscription.state().ledger.claim(self.number, max.max(1), newest, FILL_ROWS, Instant::now());
            match claim {
                Claim::Messages(messages) => return Ok(messages),
                Claim::Fill { returned, after } => self.fill(returned, after.map(|after| (after, newest))).await?,
                Claim::Wait(None) => changed.await,
                Claim::Wait(Some(due)) => {
                    // Either way it looks again.
                    let _ = tokio::time::timeout_at(due.into(), changed).await;
                }
            }
        }
    }

    fn acker(&self) -> Arc<dyn Acker> {
        Arc::new(EmbeddedAcker {
            bus: Arc::clone(&self.bus),
            subscription: Arc::clone(&self.subscription),
            number: self.number,
        })
    }
}

impl EmbeddedConsumer {
    async fn fill(&self, returned: Vec<i64>, unread: Option<(i64, i64)>) -> Result<()> {
        let fill = Fill { subscription: Arc::clone(&self.subscription), returned };
        let load = move |connection: &mut rusqlite::Connection| {
            let topic = &fill.subscription.topic;
            let (messages, read_to) =
                tables::load(connection, (topic.id, &topic.name), &fill.returned, unread, FILL_ROWS, FILL_BYTES)?;
            fill.subscription.state().ledger.filled(&fill.returned, messages, read_to);
            Ok(())
        };
        self.bus.file.readers.run("read the bus", load).await
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let last = {
            let mut state = self.subscription.state();
            state.ledger.release(self.number);
            state.consumers -= 1;
            state.consumers == 0
        };
        if last && self.subscription.id.is_none() {
            self.subscription.topic.forget(&self.subscription);
        }
        self.subscription.wake();
    }
}

/// A read under way. It ends when this is dropped, wherever the future that wanted it has gone.
struct Fill {
    subscription: Arc<Subscription>,
    returned: Vec<i64>,
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.subscription.state().ledger.fill_ended();
        self.subscription.wake();
    }
}

#[derive(Debug)]
struct EmbeddedAcker {
    bus: Arc<Inner>,
    subscription: Arc<Subscription>,
    number: u64,
}

#[async_trait]
impl Acker for EmbeddedAcker {
    async fn ack(&self, ids: &[MessageId]) -> Result<()> {
        self.subscription.state().ledger.ack(&numbers(ids)?);
        // Acks may have made room to read on.
        self.subscription.wake();
        self.save().await
    }

    async fn nack(&self, ids: &[MessageId], delay: Duration) -> Result<()> {
        let due = Instant::now() + delay.min(NACK_DELAY_MAX);
        self.subscription.state().ledger.nack(self.number, &numbers(ids)?, due);
        self.subscription.wake();
        self.save().await
    }
}

impl EmbeddedAcker {
    /// Returns when what this subscription has to save is durable. Whoever gets the turn saves for all who wait.
    async fn save(&self) -> Result<()> {
        if self.subscription.id.is_none() {
            return Ok(());
        }
        self.bus.to_save([Arc::clone(&self.subscription)]);
        let closed = |_| Error::fatal("the bus is closed");
        let turn = Arc::clone(&self.bus.saving).acquire_owned().await.map_err(closed)?;
        let subscriptions = std::mem::take(&mut *self.bus.unsaved());
        if subscriptions.is_empty() {
            return Ok(());
        }
        let mut saving = Saving { bus: Arc::clone(&self.bus), subscriptions, taken: Vec::new(), _turn: turn };
        let save = move |connection: &mut rusqlite::Connection| {
            for subscription in &saving.subscriptions {
                if let (Some(id), Some(unsaved)) = (subscription.id, subscription.take_unsaved()) {
                    saving.taken.push((Arc::clone(subscription), id, unsaved));
                }
            }
            let changes: Vec<_> = saving.taken.iter().map(|(_, id, unsaved)| (*id, unsaved.clone())).collect();
            if !changes.is_empty() {
                tables::save(connection, &changes)?;
            }
            saving.subscriptions.clear();
            saving.taken.clear();
            Ok(())
        };
        self.bus.file.writer.run("save acks", save).await
    }
}

/// A turn at saving. What it still holds when it is dropped was not saved, and is left to the next turn.
struct Saving {
    bus: Arc<Inner>,
    subscriptions: Vec<Arc<Subscription>>,
    taken: Vec<(Arc<Subscription>, i64, Unsaved)>,
    // Released after the rest was put back: fields are dropped after `drop`.
    _turn: OwnedSemaphorePermit,
}

impl Drop for Saving {
    fn drop(&mut self) {
        for (subscription, _, unsaved) in self.taken.drain(..) {
            subscription.not_saved(unsaved);
        }
        self.bus.to_save(self.subscriptions.drain(..));
    }
}

fn numbers(ids: &[MessageId]) -> Result<Vec<i64>> {
    let number = |id: &MessageId| {
        let bytes: Option<[u8; 8]> = id.0.as_ref().try_into().ok();
        bytes.map(i64::from_be_bytes).ok_or_else(|| Error::rejected("a message id is not one of the embedded bus"))
    };
    ids.iter().map(number).collect()
}
