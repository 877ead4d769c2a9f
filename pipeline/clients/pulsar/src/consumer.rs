//! The two halves of a consumer that callers hold: one receives, the other acks.

use crate::deliveries::Deliveries;
use crate::ids::Place;
use crate::polling::Command;
use async_trait::async_trait;
use smartpulse_clients::bus::{Acker, Consumer, Message, MessageId, SubscriptionType};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// One consumer's time on its subscription.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    /// The receiving half is gone: what is left of it makes room for the next.
    abandoned: AtomicBool,
    finish: Notify,
    ended: watch::Sender<bool>,
}

impl Tenure {
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Resolves when the task is to finish.
    pub(crate) async fn told_to_finish(&self) {
        self.finish.notified().await;
    }

    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Tells the task to finish, and waits until it has.
    pub(crate) async fn finish(&self) {
        self.finish.notify_one();
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// The receiving half.
pub(crate) struct PulsarConsumer {
    pub(crate) messages: mpsc::Receiver<Result<Message>>,
    /// Why there will be no more messages.
    pub(crate) failed: Option<Error>,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) acker: Arc<PulsarAcker>,
    pub(crate) tenure: Arc<Tenure>,
}

impl Drop for PulsarConsumer {
    fn drop(&mut self) {
        self.tenure.abandoned.store(true, Ordering::Release);
    }
}

#[async_trait]
impl Consumer for PulsarConsumer {
    async fn receive(&mut self, max: usize) -> Result<Vec<Message>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut received = Vec::new();
        if self.messages.recv_many(&mut received, max.max(1)).await == 0 {
            return Err(Error::unavailable("the consumer has failed; subscribe again"));
        }
        let mut messages = Vec::with_capacity(received.len());
        for item in received {
            match item {
                Ok(mut message) => {
                    if let Some(place) = Place::decode(&message.id) {
                        message.redeliveries = self.deliveries.hand_out(place);
                    }
                    messages.push(message);
                }
                Err(error) if messages.is_empty() => return Err(error),
                Err(error) => self.failed = Some(error),
            }
        }
        Ok(messages)
    }

    fn acker(&self) -> Arc<dyn Acker> {
        Arc::clone(&self.acker) as Arc<dyn Acker>
    }
}

/// The acking half.
pub(crate) struct PulsarAcker {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) kind: SubscriptionType,
}

fn gone() -> Error {
    Error::unavailable("the consumer is gone; its messages come again, and are acked then")
}

fn places(ids: &[MessageId]) -> Result<Vec<Place>> {
    let place = |id| Place::decode(id).ok_or_else(|| Error::rejected("an id that is not of a pulsar message"));
    ids.iter().map(place).collect()
}

#[async_trait]
impl Acker for PulsarAcker {
    async fn ack(&self, ids: &[MessageId]) -> Result<()> {
        let (done, acked) = oneshot::channel();
        self.commands.send(Command::Ack(places(ids)?, done)).await.map_err(|_| gone())?;
        acked.await.unwrap_or_else(|_| Err(gone()))
    }

    async fn nack(&self, ids: &[MessageId], delay: Duration) -> Result<()> {
        if self.kind != SubscriptionType::Shared {
            return Err(Error::rejected(
                "only messages of a shared subscription are given back: elsewhere order counts; try again in process",
            ));
        }
        self.commands.send(Command::Nack(places(ids)?, delay)).await.map_err(|_| gone())
    }
}
