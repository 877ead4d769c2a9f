//! Memory of an operator per section and key, bounded where it can be restored.

use rustc_hash::FxHashMap;
use smartpulse_pipeline::Key;
use std::sync::Arc;

/// What an operator remembers at most, where the runtime can restore the rest: beyond it, keys that were not seen for
/// as long are forgotten, which costs one load when they come again.
const BYTES_MAX: usize = 256 << 20;

/// What a key costs besides its value: two pointers, the key's text and the table's share.
const ENTRY_BYTES: usize = 128;

/// Knows its size.
pub(crate) trait Weigh {
    /// What it holds in memory, besides [`ENTRY_BYTES`].
    fn bytes(&self) -> usize;
}

/// A map by section and key in two generations. When the young one is full it becomes the old one, and what was in
/// that is forgotten: so nothing that was used lately goes, least of all what is still on its way to the sink.
pub(crate) struct KeyMap<V> {
    sections: Vec<(Arc<str>, Generations<V>)>,
    young_bytes: usize,
    bytes_max: usize,
}

struct Generations<V> {
    young: FxHashMap<Key, Option<V>>,
    old: FxHashMap<Key, Option<V>>,
}

impl<V: Weigh> KeyMap<V> {
    /// `restorable` is false in a run that starts fresh, where nothing may be forgotten.
    pub fn new(restorable: bool) -> Self {
        let bytes_max = if restorable { BYTES_MAX } else { usize::MAX };
        Self { sections: Vec::new(), young_bytes: 0, bytes_max }
    }

    /// Whether the key's state is known, be it that there is none.
    pub fn holds(&self, section: &str, key: &str) -> bool {
        self.section(section).is_some_and(|g| g.young.contains_key(key) || g.old.contains_key(key))
    }

    /// The state of a key, to be changed in place.
    pub fn get_mut(&mut self, section: &Arc<str>, key: &Key) -> Option<&mut V> {
        let at = self.position(section)?;
        if self.sections[at].1.old.is_empty() {
            return self.sections[at].1.young.get_mut(&**key)?.as_mut();
        }
        // Twice the same look-up where the key is young, which the borrow checker does not let us keep.
        if !self.sections[at].1.young.contains_key(&**key) {
            let state = self.sections[at].1.old.remove(&**key)?;
            self.insert(at, key, state);
        }
        self.sections[at].1.young.get_mut(&**key)?.as_mut()
    }

    /// Sets the state of a key that is not held; none says that it is known to have none.
    pub fn set(&mut self, section: &Arc<str>, key: &Key, value: Option<V>) {
        let at = self.position(section).unwrap_or_else(|| {
            let generations = Generations { young: FxHashMap::default(), old: FxHashMap::default() };
            self.sections.push((section.clone(), generations));
            self.sections.len() - 1
        });
        self.sections[at].1.old.remove(&**key);
        self.insert(at, key, value);
    }

    /// Counts what a value changed in place has grown by.
    pub fn grew(&mut self, bytes: usize) {
        self.young_bytes += bytes;
    }

    fn insert(&mut self, at: usize, key: &Key, value: Option<V>) {
        if self.young_bytes > self.bytes_max / 2 {
            for (_, generations) in &mut self.sections {
                generations.old = std::mem::take(&mut generations.young);
            }
            self.young_bytes = 0;
        }
        self.young_bytes += ENTRY_BYTES + value.as_ref().map_or(0, Weigh::bytes);
        self.sections[at].1.young.insert(key.clone(), value);
    }

    fn position(&self, section: &Arc<str>) -> Option<usize> {
        // One or two sections, and nearly always the very same text: a search is quicker than a hash.
        self.sections.iter().position(|(name, _)| Arc::ptr_eq(name, section) || name == section)
    }

    fn section(&self, section: &str) -> Option<&Generations<V>> {
        self.sections.iter().find(|(name, _)| **name == *section).map(|(_, generations)| generations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for i64 {
        fn bytes(&self) -> usize {
            8
        }
    }

    fn map(bytes_max: usize) -> KeyMap<i64> {
        KeyMap { bytes_max, ..KeyMap::new(true) }
    }

    #[test]
    fn the_same_key_of_two_sections_is_two_keys() {
        let mut map = map(usize::MAX);
        let (forecast, unit): (Arc<str>, Arc<str>) = ("forecast".into(), "unit".into());
        map.set(&forecast, &"1".into(), Some(7));
        assert_eq!(map.get_mut(&forecast, &"1".into()), Some(&mut 7));
        assert_eq!(map.get_mut(&unit, &"1".into()), None);
        assert!(!map.holds("unit", "1"));
        map.set(&unit, &"1".into(), None);
        assert!(map.holds("unit", "1"));
    }

    #[test]
    fn what_was_used_lately_stays_and_what_was_not_is_forgotten() {
        let mut map = map(20 * ENTRY_BYTES);
        let section: Arc<str> = "s".into();
        let often: Key = "often".into();
        map.set(&section, &often, Some(-1));
        for n in 0..1000 {
            let key: Key = n.to_string().into();
            map.set(&section, &key, Some(n));
            *map.get_mut(&section, &often).unwrap() = n;
            assert_eq!(map.get_mut(&section, &key), Some(&mut n.clone()), "just set");
        }
        assert_eq!(map.get_mut(&section, &often), Some(&mut 999));
        assert!(!map.holds("s", "0"));
        let held: usize = map.sections.iter().map(|(_, g)| g.young.len() + g.old.len()).sum();
        assert!(held <= 24, "{held}");
    }

    struct Heavy(usize);

    impl Weigh for Heavy {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn what_is_used_again_and_again_counts_again() {
        let mut map: KeyMap<Heavy> = KeyMap { bytes_max: 10_000, ..KeyMap::new(true) };
        let section: Arc<str> = "s".into();
        for n in 0..400 {
            let key: Key = (n % 40).to_string().into();
            if map.get_mut(&section, &key).is_none() {
                map.set(&section, &key, Some(Heavy(1_000)));
            }
            let held: usize = map.sections.iter().map(|(_, g)| g.young.len() + g.old.len()).sum();
            assert!(held * 1_000 <= 12_000, "{held} values of 1,000 bytes");
        }
    }

    #[test]
    fn growth_in_place_counts() {
        let mut map = map(20 * ENTRY_BYTES);
        let section: Arc<str> = "s".into();
        map.set(&section, &"a".into(), Some(1));
        map.grew(100 * ENTRY_BYTES);
        map.set(&section, &"b".into(), Some(1));
        map.grew(100 * ENTRY_BYTES);
        map.set(&section, &"c".into(), Some(1));
        assert!(!map.holds("s", "a") && map.holds("s", "b"));
    }
}
