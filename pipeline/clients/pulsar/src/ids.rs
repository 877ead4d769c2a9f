//! Message ids as bytes, and batches of other clients.
//!
//! We send unbatched. Java's producers batch, and then one ledger entry holds many messages; acking one of them by its
//! entry would ack them all. So the entry is acked when all of its messages are.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pulsar::proto::MessageIdData;
use smartpulse_clients::bus::MessageId;
use std::collections::BTreeMap;

/// Foreign batches that are partly acked, at most. Beyond it the oldest is forgotten: it comes again as a whole.
const BATCHES_MAX: usize = 10_000;

/// A message's place. Ordered as the bus delivers within a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The ledger that holds the entry.
    pub ledger: u64,
    /// The entry in its ledger.
    pub entry: u64,
    /// The topic's partition; -1 without partitions.
    pub partition: i32,
    /// The message's place in a batch; -1 outside one.
    pub batch_index: i32,
    /// How many messages the batch has; 0 outside one.
    pub batch_size: i32,
}

impl Place {
    /// The place of a delivered message.
    #[must_use]
    pub fn of(id: &MessageIdData, batch_size: Option<i32>) -> Self {
        Self {
            ledger: id.ledger_id,
            entry: id.entry_id,
            partition: id.partition.unwrap_or(-1),
            batch_index: id.batch_index.unwrap_or(-1),
            batch_size: batch_size.unwrap_or(0),
        }
    }

    /// The opaque form that callers hold.
    #[must_use]
    pub fn encode(self) -> MessageId {
        let mut bytes = BytesMut::with_capacity(28);
        bytes.put_u64(self.ledger);
        bytes.put_u64(self.entry);
        bytes.put_i32(self.partition);
        bytes.put_i32(self.batch_index);
        bytes.put_i32(self.batch_size);
        MessageId(bytes.freeze())
    }

    /// The place of an opaque id; none for one of another bus.
    #[must_use]
    pub fn decode(id: &MessageId) -> Option<Self> {
        let mut bytes: Bytes = id.0.clone();
        (bytes.len() == 28).then(|| Self {
            ledger: bytes.get_u64(),
            entry: bytes.get_u64(),
            partition: bytes.get_i32(),
            batch_index: bytes.get_i32(),
            batch_size: bytes.get_i32(),
        })
    }

    /// The entry as the broker acks it.
    #[must_use]
    pub fn entry(self) -> MessageIdData {
        MessageIdData {
            ledger_id: self.ledger,
            entry_id: self.entry,
            partition: Some(self.partition),
            ..MessageIdData::default()
        }
    }
}

/// Batches of other clients that are partly acked.
#[derive(Debug, Default)]
pub struct Batches {
    /// Which messages of an entry are done.
    done: BTreeMap<(u64, u64, i32), Vec<bool>>,
}

impl Batches {
    /// Whether the entry can be acked, now that this message is done.
    pub fn acked(&mut self, place: Place) -> bool {
        let (Ok(index), Ok(size)) = (usize::try_from(place.batch_index), usize::try_from(place.batch_size)) else {
            return true;
        };
        if size <= 1 || index >= size {
            return true;
        }
        let entry = (place.ledger, place.entry, place.partition);
        let done = self.done.entry(entry).or_insert_with(|| vec![false; size]);
        if let Some(message) = done.get_mut(index) {
            *message = true;
        }
        let complete = done.iter().all(|message| *message);
        if complete {
            self.done.remove(&entry);
        }
        while self.done.len() > BATCHES_MAX {
            self.done.pop_first();
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(entry: u64, batch_index: i32, batch_size: i32) -> Place {
        Place { ledger: 7, entry, partition: -1, batch_index, batch_size }
    }

    #[test]
    fn an_id_comes_back_from_its_bytes() {
        for place in [place(0, -1, 0), place(u64::MAX, 3, 9)] {
            assert_eq!(Place::decode(&place.encode()), Some(place));
        }
        assert_eq!(Place::decode(&MessageId(Bytes::from_static(b"7"))), None);
    }

    #[test]
    fn an_entry_is_acked_with_its_last_message() {
        let mut batches = Batches::default();
        assert!(batches.acked(place(1, -1, 0)), "outside a batch");
        for (index, complete) in [(2, false), (0, false), (0, false), (1, true)] {
            assert_eq!(batches.acked(place(2, index, 3)), complete, "{index}");
        }
        assert!(batches.done.is_empty());
    }

    #[test]
    fn forgotten_batches_bound_the_memory() {
        let mut batches = Batches::default();
        for entry in 0..BATCHES_MAX as u64 + 5 {
            assert!(!batches.acked(place(entry, 0, 2)));
        }
        assert_eq!(batches.done.len(), BATCHES_MAX);
        assert!(!batches.acked(place(0, 1, 2)), "it was forgotten, and comes again as a whole");
    }
}
