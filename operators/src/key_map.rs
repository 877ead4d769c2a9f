//! Per-key memory of an operator, bounded where it can be restored.

use rustc_hash::FxHashMap;
use smartpulse_pipeline::Key;

/// Keys that an operator remembers at most when the runtime can restore them: about 100 MB of bookkeeping.
/// Beyond it everything is forgotten at once, which costs one load per key and nothing else.
const KEYS_MAX: usize = 1_000_000;

/// A map by key that forgets when it is full, if forgetting is harmless.
pub(crate) struct KeyMap<V> {
    entries: FxHashMap<Key, Option<V>>,
    restorable: bool,
}

impl<V> KeyMap<V> {
    /// `restorable` is false in a run that starts fresh, where nothing may be forgotten.
    pub fn new(restorable: bool) -> Self {
        Self { entries: FxHashMap::default(), restorable }
    }

    /// Whether the key's state is known, be it that there is none.
    pub fn holds(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The state of a key.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key)?.as_ref()
    }

    /// The state of a key, to be changed in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.entries.get_mut(key)?.as_mut()
    }

    /// Sets the state of a key; none says that it is known to have none.
    pub fn set(&mut self, key: &Key, value: Option<V>) {
        if self.restorable && self.entries.len() >= KEYS_MAX && !self.entries.contains_key(key) {
            self.entries.clear();
        }
        self.entries.insert(key.clone(), value);
    }
}
