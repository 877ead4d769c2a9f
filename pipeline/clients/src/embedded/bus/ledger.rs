//! What one subscription has read, handed out and seen acked: pure bookkeeping, no I/O and no clock.
//!
//! Ids rise within a topic but are not consecutive. Everything at or below `cursor` is acked; everything above
//! `read_to` is unread; in between a message is either acked or *unsettled*, in exactly one [`Place`].

use crate::bus::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// How many messages may be unsettled: handed out, waiting for a retry, or loaded. Pulsar's default for unacked
/// messages. At the limit nothing new is read until some are acked.
pub const UNSETTLED_MAX: usize = 50_000;

/// How many acks may lie beyond an unacked message. At the limit nothing new is read until that one is acked: the
/// alternative is a set, in memory and on disk, that grows as long as one consumer is stuck.
pub const ACKED_BEYOND_MAX: usize = 100_000;

/// Where an unsettled message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Loaded, in `ready`.
    Ready,
    /// To be loaded again, in `returned`.
    Returned,
    /// Handed to a consumer.
    Held(u64),
    /// Nacked until then, in `delayed`.
    Delayed(Instant),
}

/// The bookkeeping of one subscription.
#[derive(Debug, Default)]
pub struct Ledger {
    cursor: i64,
    read_to: i64,
    acked: BTreeSet<i64>,
    unsettled: BTreeMap<i64, Place>,
    ready: BTreeMap<i64, Message>,
    returned: BTreeSet<i64>,
    delayed: BTreeSet<(Instant, i64)>,
    redeliveries: BTreeMap<i64, u32>,
    filling: bool,
    unsaved: Unsaved,
    saved_cursor: i64,
}

/// What changed since it was last made durable.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Unsaved {
    /// Everything at or below is acked.
    pub cursor: i64,
    /// Newly acked, above the cursor.
    pub acked: BTreeSet<i64>,
    /// New redelivery counts.
    pub redeliveries: BTreeMap<i64, u32>,
}

/// What a consumer that asks for messages should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Take these.
    Messages(Vec<Message>),
    /// Load these ids again, then read on after `read_to` unless it is none; then call [`Ledger::filled`].
    Fill {
        /// Handed back by someone.
        returned: Vec<i64>,
        /// Where unread messages start.
        after: Option<i64>,
    },
    /// Wait for a change, or until a nacked message is due.
    Wait(Option<Instant>),
}

impl Ledger {
    /// The bookkeeping of a subscription as it was saved.
    #[must_use]
    pub fn new(cursor: i64, acked: BTreeSet<i64>, redeliveries: BTreeMap<i64, u32>) -> Self {
        Self { cursor, read_to: cursor, acked, redeliveries, saved_cursor: cursor, ..Self::default() }
    }

    /// Everything at or below is acked.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    /// Hands at most `max` messages to `consumer`, lowest id first; `newest` is the topic's newest id.
    pub fn claim(&mut self, consumer: u64, max: usize, newest: i64, fill_max: usize, now: Instant) -> Claim {
        while let Some(&(due, id)) = self.delayed.first()
            && due <= now
        {
            self.delayed.pop_first();
            self.give_back(id);
        }
        let mut messages = Vec::new();
        while messages.len() < max
            && let Some((&id, _)) = self.ready.first_key_value()
            && self.returned.first().is_none_or(|returned| id < *returned)
            && let Some(mut message) = self.ready.remove(&id)
        {
            message.redeliveries = self.redeliveries.get(&id).copied().unwrap_or(0);
            self.unsettled.insert(id, Place::Held(consumer));
            messages.push(message);
        }
        if !messages.is_empty() {
            return Claim::Messages(messages);
        }
        let room = self.unsettled.len() < UNSETTLED_MAX && self.acked.len() < ACKED_BEYOND_MAX;
        let after = (self.read_to < newest && room).then_some(self.read_to);
        if max == 0 || self.filling || (self.returned.is_empty() && after.is_none()) {
            return Claim::Wait(self.delayed.first().map(|(due, _)| *due));
        }
        self.filling = true;
        let returned: Vec<i64> = self.returned.iter().take(fill_max).copied().collect();
        // Reading on while some are yet to be loaded again would load what cannot be handed out before them.
        let after = after.filter(|_| returned.len() == self.returned.len() && returned.len() < fill_max);
        Claim::Fill { returned, after }
    }

    /// Takes in what a fill loaded: of `returned` those found in `messages`, and new messages up to `read_to`.
    pub fn filled(&mut self, returned: &[i64], messages: Vec<(i64, Message)>, read_to: i64) {
        let mut missing: BTreeSet<i64> = returned.iter().copied().collect();
        for (id, message) in messages {
            missing.remove(&id);
            let wanted = match self.unsettled.get(&id) {
                Some(Place::Returned) => self.returned.remove(&id),
                Some(_) => false,
                None => id > self.read_to && !self.acked.contains(&id),
            };
            if wanted {
                self.unsettled.insert(id, Place::Ready);
                self.ready.insert(id, message);
            }
        }
        // Retention removes only what is acked, so a message that is gone needs no redelivery.
        let missing: Vec<i64> = missing.into_iter().filter(|id| self.returned.contains(id)).collect();
        self.read_to = self.read_to.max(read_to);
        self.ack(&missing);
    }

    /// Ends a fill, successful or not.
    pub fn fill_ended(&mut self) {
        self.filling = false;
    }

    /// These are done, whoever holds them: an ack says that the effect is durable.
    pub fn ack(&mut self, ids: &[i64]) {
        let mut done = Vec::with_capacity(ids.len());
        for &id in ids {
            if let Some(place) = self.unsettled.remove(&id) {
                self.leave(id, place);
                self.redeliveries.remove(&id);
                self.unsaved.redeliveries.remove(&id);
                done.push(id);
            }
        }
        // What is not unsettled and was read is acked.
        let cursor = self.unsettled.first_key_value().map_or(self.read_to, |(first, _)| first - 1);
        self.cursor = self.cursor.max(cursor);
        for id in done.into_iter().filter(|id| *id > self.cursor) {
            self.acked.insert(id);
            self.unsaved.acked.insert(id);
        }
        for set in [&mut self.acked, &mut self.unsaved.acked] {
            while set.first().is_some_and(|first| *first <= self.cursor) {
                set.pop_first();
            }
        }
    }

    /// These come again, not before `due`, if `consumer` holds them.
    pub fn nack(&mut self, consumer: u64, ids: &[i64], due: Instant) {
        for &id in ids {
            if self.unsettled.get(&id) == Some(&Place::Held(consumer)) {
                self.count(id);
                self.unsettled.insert(id, Place::Delayed(due));
                self.delayed.insert((due, id));
            }
        }
    }

    /// The consumer is gone: what it holds comes again at once.
    pub fn release(&mut self, consumer: u64) {
        let held: Vec<i64> =
            self.unsettled.iter().filter(|(_, p)| **p == Place::Held(consumer)).map(|(id, _)| *id).collect();
        for id in held {
            self.count(id);
            self.give_back(id);
        }
    }

    /// What is to be made durable, if anything; it counts as saved until [`Self::not_saved`].
    pub fn take_unsaved(&mut self) -> Option<Unsaved> {
        if self.cursor == self.saved_cursor && self.unsaved.acked.is_empty() && self.unsaved.redeliveries.is_empty() {
            return None;
        }
        self.saved_cursor = self.cursor;
        self.unsaved.cursor = self.cursor;
        Some(std::mem::take(&mut self.unsaved))
    }

    /// Takes back what could not be made durable.
    pub fn not_saved(&mut self, unsaved: Unsaved) {
        // Below any cursor, so that the next take sees a difference.
        self.saved_cursor = i64::MIN;
        self.unsaved.acked.extend(unsaved.acked);
        for (id, count) in unsaved.redeliveries {
            self.unsaved.redeliveries.entry(id).or_insert(count);
        }
    }

    fn give_back(&mut self, id: i64) {
        self.unsettled.insert(id, Place::Returned);
        self.returned.insert(id);
    }

    fn count(&mut self, id: i64) {
        let count = self.redeliveries.entry(id).or_default();
        *count = count.saturating_add(1);
        self.unsaved.redeliveries.insert(id, *count);
    }

    fn leave(&mut self, id: i64, place: Place) {
        match place {
            Place::Ready => drop(self.ready.remove(&id)),
            Place::Returned => drop(self.returned.remove(&id)),
            Place::Delayed(due) => drop(self.delayed.remove(&(due, id))),
            Place::Held(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::MessageId;
    use bytes::Bytes;
    use smartpulse_pipeline::Timestamp;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn message(id: i64) -> (i64, Message) {
        let message = Message {
            id: MessageId(Bytes::copy_from_slice(&id.to_be_bytes())),
            topic: "t".into(),
            key: None,
            payload: Bytes::new(),
            properties: BTreeMap::new(),
            publish_time: Timestamp::from_millis(0),
            redeliveries: 0,
        };
        (id, message)
    }

    fn filled(ids: &[i64]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.filled(&[], ids.iter().map(|id| message(*id)).collect(), *ids.last().unwrap());
        ledger
    }

    fn ids(claim: Claim) -> Vec<i64> {
        match claim {
            Claim::Messages(messages) => {
                messages.iter().map(|m| i64::from_be_bytes(m.id.0[..].try_into().unwrap())).collect()
            }
            other => panic!("no messages but {other:?}"),
        }
    }

    #[test]
    fn the_cursor_follows_the_oldest_unacked_message_over_gaps_between_ids() {
        let mut ledger = filled(&[2, 5, 9]);
        let now = Instant::now();
        assert_eq!(ids(ledger.claim(1, 10, 9, 10, now)), [2, 5, 9]);
        ledger.ack(&[5]);
        let expected = Unsaved { cursor: 1, acked: BTreeSet::from([5]), ..Unsaved::default() };
        assert_eq!(ledger.take_unsaved(), Some(expected));
        ledger.ack(&[2]);
        assert_eq!(ledger.cursor(), 8);
        ledger.ack(&[9, 9, 1, 77]);
        assert_eq!(ledger.take_unsaved(), Some(Unsaved { cursor: 9, ..Unsaved::default() }));
        assert_eq!(ledger.take_unsaved(), None);
    }

    #[test]
    fn what_a_consumer_held_comes_again_in_order_and_before_what_follows() {
        let mut ledger = filled(&[1, 2, 3, 4]);
        let now = Instant::now();
        assert_eq!(ids(ledger.claim(1, 2, 4, 10, now)), [1, 2]);
        ledger.release(1);
        assert_eq!(ledger.claim(2, 10, 4, 10, now), Claim::Fill { returned: vec![1, 2], after: None });
        assert_eq!(ledger.claim(3, 10, 4, 10, now), Claim::Wait(None), "one fill at a time");
        ledger.filled(&[1, 2], vec![message(1), message(2)], 0);
        ledger.fill_ended();
        let Claim::Messages(again) = ledger.claim(2, 10, 4, 10, now) else { panic!() };
        assert_eq!(again.iter().map(|m| m.redeliveries).collect::<Vec<_>>(), [1, 1, 0, 0]);
    }

    #[test]
    fn a_nacked_message_waits_and_a_stranger_cannot_nack() {
        let mut ledger = filled(&[1, 2]);
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        assert_eq!(ids(ledger.claim(1, 1, 2, 10, now)), [1]);
        ledger.nack(2, &[1], due);
        ledger.nack(1, &[1], due);
        assert_eq!(ids(ledger.claim(1, 1, 2, 10, now)), [2]);
        assert_eq!(ledger.claim(1, 1, 2, 10, now), Claim::Wait(Some(due)));
        assert_eq!(ledger.claim(1, 1, 2, 10, due), Claim::Fill { returned: vec![1], after: None });
        // A late ack of what was handed back is an ack all the same.
        ledger.ack(&[1, 2]);
        assert_eq!(ledger.cursor(), 2);
    }

    #[test]
    fn what_could_not_be_saved_is_taken_again() {
        let mut ledger = filled(&[1, 2, 3]);
        ledger.claim(1, 3, 3, 10, Instant::now());
        ledger.ack(&[1, 3]);
        let unsaved = ledger.take_unsaved().unwrap();
        ledger.not_saved(unsaved.clone());
        assert_eq!(ledger.take_unsaved(), Some(unsaved));
    }

    #[test]
    fn reading_stops_while_too_many_are_unsettled() {
        let all: Vec<i64> = (1..=UNSETTLED_MAX as i64).collect();
        let mut ledger = filled(&all);
        let newest = UNSETTLED_MAX as i64 + 10;
        let now = Instant::now();
        assert_eq!(ids(ledger.claim(1, usize::MAX, newest, 10, now)).len(), UNSETTLED_MAX);
        assert_eq!(ledger.claim(1, 1, newest, 10, now), Claim::Wait(None));
        ledger.ack(&[1]);
        let after = Some(UNSETTLED_MAX as i64);
        assert_eq!(ledger.claim(1, 1, newest, 10, now), Claim::Fill { returned: vec![], after });
    }
}
