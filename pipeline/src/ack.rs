//! Acks: how a source learns that everything it emitted up to a position is durable.
//!
//! A source's batch starts with one [`Ack`]. Operators may drop events (the ack stays), merge batches (the
//! acks join) or copy a batch to several outputs (the ack is cloned). When the last holder is done the batch
//! resolves: delivered if everyone said so, failed if anyone let go without saying so. [`AckQueue`] gives
//! resolutions back in the order of emission, so that a position is never ahead of its batch.

use crate::position::Position;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// A share in the duty to make a batch's effects durable.
#[derive(Debug)]
pub struct Ack {
    shares: Vec<Arc<Share>>,
    delivered: bool,
}

#[derive(Debug)]
struct Share {
    number: u64,
    failed: AtomicBool,
    resolved: mpsc::UnboundedSender<Resolution>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resolution {
    number: u64,
    delivered: bool,
}

impl Ack {
    /// An ack that nobody waits for.
    #[must_use]
    pub fn none() -> Self {
        Self { shares: Vec::new(), delivered: false }
    }

    /// Every effect of the batch is durable, as far as this holder is concerned.
    pub fn delivered(mut self) {
        self.delivered = true;
    }

    /// Takes over the duties of another ack.
    pub fn join(&mut self, mut other: Self) {
        self.shares.append(&mut other.shares);
    }

    /// Another holder of the same duty, for a copy of the batch.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { shares: self.shares.clone(), delivered: false }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.delivered {
            for share in &self.shares {
                share.failed.store(true, Ordering::Release);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // The source may have gone first, at an abort: nobody is left to tell.
        let _ = self.resolved.send(Resolution { number: self.number, delivered: !self.failed.load(Ordering::Acquire) });
    }
}

/// Hands out the acks of one source and gives their positions back in order.
///
/// The queue itself is bounded by what is in flight: batches in channels, in operators and in sinks, all of
/// which are bounded.
#[derive(Debug)]
pub struct AckQueue {
    next: u64,
    waiting: VecDeque<Waiting>,
    resolved: mpsc::UnboundedReceiver<Resolution>,
    sender: mpsc::UnboundedSender<Resolution>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    position: Option<Position>,
    delivered: Option<bool>,
}

impl Default for AckQueue {
    fn default() -> Self {
        let (sender, resolved) = mpsc::unbounded_channel();
        Self { next: 0, waiting: VecDeque::new(), resolved, sender }
    }
}

impl AckQueue {
    /// The ack of the next batch; `position` is what may be committed once it and all before it are delivered.
    pub fn issue(&mut self, position: Option<Position>) -> Ack {
        let number = self.next;
        self.next += 1;
        self.waiting.push_back(Waiting { number, position, delivered: None });
        let share = Share { number, failed: AtomicBool::new(false), resolved: self.sender.clone() };
        Ack { shares: vec![Arc::new(share)], delivered: false }
    }

    /// How many batches are not resolved in order yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Waits for the next resolution. Cancel-safe.
    pub async fn resolution(&mut self) {
        if let Some(resolution) = self.resolved.recv().await {
            self.note(resolution);
        }
    }

    /// The positions that can be committed now, in order.
    ///
    /// # Errors
    /// `Err(positions)` when a batch failed: those before it can be committed, nothing after it may be.
    pub fn settled(&mut self) -> Result<Vec<Position>, Vec<Position>> {
        while let Ok(resolution) = self.resolved.try_recv() {
            self.note(resolution);
        }
        let mut positions = Vec::new();
        while let Some(front) = self.waiting.front() {
            match front.delivered {
                None => break,
                Some(false) => return Err(positions),
                Some(true) => {
                    if let Some(position) = self.waiting.pop_front().and_then(|w| w.position) {
                        positions.push(position);
                    }
                }
            }
        }
        Ok(positions)
    }

    fn note(&mut self, resolution: Resolution) {
        // Numbers are consecutive, so the place in the queue is the distance from its front.
        let Some(front) = self.waiting.front().map(|w| w.number) else { return };
        let place = usize::try_from(resolution.number.wrapping_sub(front)).unwrap_or(usize::MAX);
        if let Some(waiting) = self.waiting.get_mut(place) {
            waiting.delivered = Some(resolution.delivered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(n: u8) -> Position {
        Position::from(vec![n])
    }

    #[test]
    fn positions_settle_in_order_whatever_the_order_of_acks() {
        let mut queue = AckQueue::default();
        let first = queue.issue(Some(position(1)));
        let second = queue.issue(Some(position(2)));
        second.delivered();
        assert_eq!(queue.settled(), Ok(vec![]));
        first.delivered();
        assert_eq!(queue.settled(), Ok(vec![position(1), position(2)]));
        assert_eq!(queue.in_flight(), 0);
    }

    #[test]
    fn an_ack_that_is_let_go_fails_its_batch_and_holds_all_later_ones() {
        let mut queue = AckQueue::default();
        let first = queue.issue(Some(position(1)));
        let second = queue.issue(Some(position(2)));
        let third = queue.issue(Some(position(3)));
        first.delivered();
        drop(second);
        third.delivered();
        assert_eq!(queue.settled(), Err(vec![position(1)]));
        assert_eq!(queue.settled(), Err(vec![]));
    }

    #[test]
    fn a_shared_ack_waits_for_every_holder_and_a_joined_one_resolves_all() {
        let mut queue = AckQueue::default();
        let first = queue.issue(Some(position(1)));
        let copy = first.share();
        first.delivered();
        assert_eq!(queue.settled(), Ok(vec![]));
        let mut merged = queue.issue(Some(position(2)));
        merged.join(copy);
        merged.delivered();
        assert_eq!(queue.settled(), Ok(vec![position(1), position(2)]));
    }

    #[test]
    fn one_failing_holder_among_several_fails_the_batch() {
        let mut queue = AckQueue::default();
        let first = queue.issue(Some(position(1)));
        let copy = first.share();
        drop(copy);
        first.delivered();
        assert_eq!(queue.settled(), Err(vec![]));
    }
}
