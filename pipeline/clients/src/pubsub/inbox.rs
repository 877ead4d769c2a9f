//! What waits for one subscriber: bounded, never blocking who publishes. What exceeds the bounds is dropped from the
//! front, and the subscriber is told before it gets what came after.

use super::{Delivery, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use smartpulse_pipeline::error::Result;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

/// The payload bytes that one subscriber's inbox holds at most. Payloads may be shared between inboxes, so this bounds
/// what one slow subscriber keeps alive.
pub const INBOX_BYTES_MAX: usize = 64 << 20;

/// An inbox of at most `messages_max` messages.
#[must_use]
pub fn inbox(messages_max: usize) -> (InboxSender, Inbox) {
    let queue = Arc::new(Queue { waiting: Mutex::default(), arrived: Notify::new(), messages_max });
    (InboxSender { queue: Arc::downgrade(&queue) }, Inbox { queue })
}

/// The end that messages are put into.
#[derive(Debug, Clone)]
pub struct InboxSender {
    queue: Weak<Queue>,
}

/// The end that a subscriber holds.
#[derive(Debug)]
pub struct Inbox {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    messages_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Messages were dropped from the front since the last receive.
    dropped: bool,
}

impl InboxSender {
    /// Puts a message in.
    pub fn push(&self, channel: Arc<str>, payload: Bytes) {
        self.put(Delivery::Message { channel, payload });
    }

    /// Tells the subscriber that messages may be missing between what was put in before and what comes.
    pub fn lost(&self) {
        self.put(Delivery::Lost);
    }

    /// True when the subscriber has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.strong_count() == 0
    }

    fn put(&self, delivery: Delivery) {
        let Some(queue) = self.queue.upgrade() else { return };
        let mut waiting = queue.lock();
        if delivery == Delivery::Lost && waiting.deliveries.back() == Some(&Delivery::Lost) {
            return;
        }
        waiting.bytes += size(&delivery);
        waiting.deliveries.push_back(delivery);
        while waiting.deliveries.len() > queue.messages_max || waiting.bytes > INBOX_BYTES_MAX {
            let Some(dropped) = waiting.deliveries.pop_front() else { break };
            waiting.bytes -= size(&dropped);
            waiting.dropped = true;
        }
        drop(waiting);
        queue.arrived.notify_one();
    }
}

impl Inbox {
    fn take(&self, max: usize) -> Vec<Delivery> {
        let mut waiting = self.queue.lock();
        let mut deliveries = Vec::with_capacity(max.min(waiting.deliveries.len() + 1));
        // Dropped from the front, so the loss lies before everything that waits.
        if waiting.dropped {
            waiting.dropped = false;
            deliveries.push(Delivery::Lost);
        }
        while deliveries.len() < max.max(1)
            && let Some(delivery) = waiting.deliveries.pop_front()
        {
            waiting.bytes -= size(&delivery);
            deliveries.push(delivery);
        }
        deliveries
    }
}

#[async_trait]
impl Subscriber for Inbox {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            // A push after this leaves a permit, so that waiting returns at once.
            let deliveries = self.take(max);
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            self.queue.arrived.notified().await;
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Message { payload, .. } => payload.len(),
        Delivery::Lost => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u8) -> Delivery {
        Delivery::Message { channel: "c".into(), payload: Bytes::from(vec![n]) }
    }

    #[tokio::test]
    async fn a_loss_stands_where_it_happened() {
        let (sender, mut inbox) = inbox(3);
        sender.push("c".into(), Bytes::from_static(&[1]));
        sender.lost();
        sender.lost();
        sender.push("c".into(), Bytes::from_static(&[2]));
        assert_eq!(inbox.receive(10).await.unwrap(), [message(1), Delivery::Lost, message(2)]);
        for n in 3..=6 {
            sender.push("c".into(), Bytes::copy_from_slice(&[n]));
        }
        assert_eq!(inbox.receive(2).await.unwrap(), [Delivery::Lost, message(4)]);
        drop(inbox);
        assert!(sender.is_closed());
    }
}
