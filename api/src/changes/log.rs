//! The retained changes: a bounded log that streams read at their own pace.
//!
//! Nothing is queued per client. A client has a place in the log; one that falls behind its oldest entry is told so, and
//! starts over with whole documents. So memory is bounded by the log, however slow or many the clients are.

use super::entry::Entry;
use smartpulse_clients::bus::MessageId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// What the retained changes may take in memory.
const BYTES_MAX: usize = 64 << 20;

/// The log.
pub(super) struct Log {
    inner: RwLock<Inner>,
    head: watch::Sender<u64>,
    entries_max: usize,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The place of the oldest entry.
    start: u64,
    places: HashMap<Box<str>, u64>,
}

/// What there is to read at a place.
#[derive(Debug)]
pub(super) enum Read {
    /// Entries, and the place after them; none at the head.
    Entries(Vec<Arc<Entry>>, u64),
    /// The place is older than the oldest entry.
    Behind,
}

impl Log {
    pub fn new(entries_max: usize) -> Self {
        Self { inner: RwLock::default(), head: watch::Sender::new(0), entries_max: entries_max.max(1) }
    }

    /// Appends; gives the messages of the entries that left.
    pub fn append(&self, entries: Vec<Entry>) -> Vec<MessageId> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let mut left = Vec::new();
        for entry in entries {
            inner.bytes += entry.bytes();
            let place = inner.start + inner.entries.len() as u64;
            inner.places.insert(entry.cursor.clone(), place);
            inner.entries.push_back(Arc::new(entry));
        }
        while inner.entries.len() > self.entries_max || inner.bytes > BYTES_MAX {
            let Some(entry) = inner.entries.pop_front() else { break };
            inner.bytes -= entry.bytes();
            inner.start += 1;
            inner.places.remove(&entry.cursor);
            left.push(entry.message.clone());
        }
        let head = inner.start + inner.entries.len() as u64;
        drop(inner);
        self.head.send_replace(head);
        left
    }

    /// The place after the newest entry.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Hears when the head moves.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The place after the entry with that cursor.
    pub fn after(&self, cursor: &str) -> Option<u64> {
        self.inner().places.get(cursor).map(|place| place + 1)
    }

    /// The place of the oldest entry: who is before it is behind.
    pub fn start(&self) -> u64 {
        self.inner().start
    }

    /// At most `max` entries from a place on.
    pub fn read(&self, place: u64, max: usize) -> Read {
        let inner = self.inner();
        let Some(skip) = place.checked_sub(inner.start) else { return Read::Behind };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let entries: Vec<_> = inner.entries.iter().skip(skip).take(max).cloned().collect();
        let next = place + entries.len() as u64;
        Read::Entries(entries, next)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.inner().entries.len()
    }

    /// As if so many entries had come and left.
    #[cfg(test)]
    pub fn leave(&self, entries: u64) {
        self.inner.write().unwrap().start += entries;
    }

    fn inner(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Source;
    use super::*;
    use bytes::Bytes;
    use smartpulse_json::Document;
    use smartpulse_pipeline::{Event, Operation};

    fn entry(n: u8) -> Entry {
        let source = Source { instance: "i".into(), partition: "p".into(), section: "s".into() };
        let document = Document::parse(Bytes::from_static(b"{}")).unwrap();
        let event = Event::new("s".into(), "k".into(), i64::from(n) + 1, Operation::Update, Some(document));
        Entry::of(&source, &event, None, None, MessageId(Bytes::copy_from_slice(&[n]))).unwrap().0
    }

    fn versions(read: Read) -> Option<Vec<i64>> {
        match read {
            Read::Entries(entries, _) => Some(entries.iter().map(|entry| entry.version).collect()),
            Read::Behind => None,
        }
    }

    #[test]
    fn a_place_is_kept_until_its_next_entry_has_left() {
        let log = Log::new(3);
        assert_eq!(versions(log.read(0, 10)), Some(vec![]));
        assert!(log.append(vec![entry(0), entry(1), entry(2)]).is_empty());
        assert_eq!((log.after("00"), log.after("02"), log.after("07")), (Some(1), Some(3), None));
        assert_eq!(versions(log.read(1, 1)), Some(vec![2]));
        assert_eq!(log.append(vec![entry(3)]), vec![MessageId(Bytes::from_static(&[0]))]);
        assert_eq!(versions(log.read(0, 10)), None, "the first entry has left");
        assert_eq!(versions(log.read(1, 10)), Some(vec![2, 3, 4]));
        assert_eq!(versions(log.read(4, 10)), Some(vec![]));
        assert_eq!((log.after("00"), log.start(), log.head(), log.len()), (None, 1, 4, 3));
    }
}
