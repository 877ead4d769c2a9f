//! What a subscription has given out in this process and not seen acked.
//!
//! The client does not say how often the broker delivered a message before, so it is counted here, over all consumers
//! that this process has had of the subscription. Another process counts on its own.

use crate::ids::Place;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Messages that are remembered, at most. More are never out at once: a graph's channels are shorter. Beyond it the oldest
/// is forgotten and counts as new.
const DELIVERIES_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy, Default)]
struct Delivery {
    handed_out: u32,
    nacked: u32,
}

/// The deliveries of one subscription.
#[derive(Debug, Default)]
pub struct Deliveries(Mutex<BTreeMap<Place, Delivery>>);

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Delivery>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a message is handed out; gives how often it was before.
    pub fn hand_out(&self, place: Place) -> u32 {
        let mut deliveries = self.lock();
        let delivery = deliveries.entry(place).or_default();
        let before = delivery.handed_out;
        delivery.handed_out = before.saturating_add(1);
        while deliveries.len() > DELIVERIES_MAX {
            deliveries.pop_first();
        }
        before
    }

    /// Notes that a message was given back.
    pub fn nack(&self, place: Place) {
        let mut deliveries = self.lock();
        let delivery = deliveries.entry(place).or_default();
        delivery.nacked = delivery.nacked.saturating_add(1);
    }

    /// How often a message was given back.
    pub fn nacks(&self, place: Place) -> u32 {
        self.lock().get(&place).map_or(0, |delivery| delivery.nacked)
    }

    /// Forgets a message that is done.
    pub fn ack(&self, place: Place) {
        self.lock().remove(&place);
    }

    /// How many messages are out.
    pub fn out(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(entry: u64) -> Place {
        Place { ledger: 1, entry, partition: -1, batch_index: -1, batch_size: 0 }
    }

    #[test]
    fn deliveries_are_counted_until_the_ack() {
        let deliveries = Deliveries::default();
        assert_eq!((deliveries.hand_out(place(1)), deliveries.hand_out(place(1)), deliveries.out()), (0, 1, 1));
        deliveries.nack(place(1));
        assert_eq!((deliveries.nacks(place(1)), deliveries.nacks(place(2))), (1, 0));
        deliveries.ack(place(1));
        assert_eq!((deliveries.hand_out(place(1)), deliveries.nacks(place(1))), (0, 0));
    }

    #[test]
    fn the_oldest_is_forgotten_beyond_the_limit() {
        let deliveries = Deliveries::default();
        for entry in 0..=DELIVERIES_MAX as u64 {
            deliveries.hand_out(place(entry));
        }
        assert_eq!(deliveries.out(), DELIVERIES_MAX);
        assert_eq!(deliveries.hand_out(place(1)), 1);
    }
}
