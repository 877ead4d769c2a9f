//! L1: the entries, bounded by bytes. All that knows `moka` of documents is here.

use crate::decide::{Entry, Held};
use moka::ops::compute::Op;
use moka::sync::Cache;
use smartpulse_pipeline::Key;
use std::sync::Arc;
use std::time::Duration;

/// What an entry takes beyond its key and its text: the map's node, its place in the queues, the spans of the
/// document's members. Measured as roughly this; the bound on bytes is a bound on memory only with it.
const ENTRY_OVERHEAD_BYTES: usize = 400;

/// The entries of one cache.
pub(crate) struct Documents {
    entries: Cache<Key, Entry>,
}

impl Documents {
    /// Entries live for `time_to_live` after they were last written; the least used go when they exceed
    /// `bytes_max`.
    pub(crate) fn new(bytes_max: u64, time_to_live: Duration) -> Self {
        let weigh = |key: &Key, entry: &Entry| {
            let text = match entry {
                Entry::Document(held) => held.document.memory(),
                Entry::Tombstone(_) => 0,
            };
            u32::try_from(key.len() + text + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder().max_capacity(bytes_max).weigher(weigh).time_to_live(time_to_live).build();
        Self { entries }
    }

    /// What is held of a key; a read counts as a use.
    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key)
    }

    /// The keys of which anything is held.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.entries.iter().map(|(key, _)| Key::clone(&key)).collect()
    }

    /// The held document of a key.
    pub(crate) fn document(&self, key: &str) -> Option<Arc<Held>> {
        match self.get(key) {
            Some(Entry::Document(held)) => Some(held),
            Some(Entry::Tombstone(_)) | None => None,
        }
    }

    /// Replaces an entry by what `decide` makes of it; `None` leaves it. Calls for one key run one after the
    /// other, and each sees what the one before left.
    pub(crate) fn update<T>(&self, key: &Key, decide: impl FnOnce(Option<&Entry>) -> (Option<Entry>, T)) -> T {
        let mut outcome = None;
        let _ = self.entries.entry_by_ref(key).and_compute_with(|entry| {
            let entry = entry.map(moka::Entry::into_value);
            let (next, decided) = decide(entry.as_ref());
            outcome = Some(decided);
            next.map_or(Op::Nop, Op::Put)
        });
        outcome.expect("and_compute_with calls its closure once")
    }

    /// How many entries there are, and what they weigh in bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}
