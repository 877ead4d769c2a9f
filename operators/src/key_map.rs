//! Memory of an operator per section and key, bounded where it can be restored.

use rustc_hash::FxHashMap;
use smartpulse_pipeline::Key;
use std::sync::Arc;

/// What an operator remembers at most, where the runtime can restore the rest: beyond it, keys that were not seen for
/// as long are forgotten, which costs one load when they come again.
const BYTES_MAX: usize = 256 << 20;

/// What a key costs besides its value: two pointers, the key's text and the table's share.
const ENTRY_BYTES: usize = 128;

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

impl<V> KeyMap<V> {
    /// `restorable` is false in a run that starts fresh, where nothing may be forgotten.
    pub fn new(restorable: bool) -> Self {
        let bytes_max = if restorable { BYTES_MAX } else { usize::MAX };
        Self { sections: Vec::new(), young_bytes: 0, bytes_max }
    }

    /// Whether the key's state is known, be it that there is none.
    pub fn holds(&self, section: &str, key: &str) -> bool {
        self.section(section).is_some_and(|g| g.young.contains_key(key) || g.old.contains_key(key))
    }

    /// The state of a key.
    pub fn get(&self, section: &str, key: &str) -> Option<&V> {
        let generations = self.section(section)?;
        generations.young.get(key).or_else(|| generations.old.get(key))?.as_ref()
    }

    /// Sets the state of a key; none says that it is known to have none. `bytes` is the value's size.
    pub fn set(&mut self, section: &Arc<str>, key: &Key, value: Option<V>, bytes: usize) {
        let at = match self.sections.iter().position(|(name, _)| name == section) {
            Some(at) => at,
            None => {
                let generations = Generations { young: FxHashMap::default(), old: FxHashMap::default() };
                self.sections.push((section.clone(), generations));
                self.sections.len() - 1
            }
        };
        let generations = &mut self.sections[at].1;
        if let Some(held) = generations.young.get_mut(&**key) {
            *held = value;
            return;
        }
        generations.old.remove(&**key);
        generations.young.insert(key.clone(), value);
        self.young_bytes += ENTRY_BYTES + bytes;
        if self.young_bytes > self.bytes_max / 2 {
            for (_, generations) in &mut self.sections {
                generations.old = std::mem::take(&mut generations.young);
            }
            self.young_bytes = 0;
        }
    }

    fn section(&self, section: &str) -> Option<&Generations<V>> {
        // One or two sections: a search is quicker than a hash.
        self.sections.iter().find(|(name, _)| **name == *section).map(|(_, generations)| generations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(bytes_max: usize) -> KeyMap<i64> {
        KeyMap { bytes_max, ..KeyMap::new(true) }
    }

    #[test]
    fn the_same_key_of_two_sections_is_two_keys() {
        let mut map = map(usize::MAX);
        let (forecast, unit): (Arc<str>, Arc<str>) = ("forecast".into(), "unit".into());
        map.set(&forecast, &"1".into(), Some(7), 8);
        assert_eq!((map.get("forecast", "1"), map.get("unit", "1")), (Some(&7), None));
        assert!(!map.holds("unit", "1"));
        map.set(&unit, &"1".into(), None, 0);
        assert!(map.holds("unit", "1"));
    }

    #[test]
    fn what_was_used_lately_stays_and_what_was_not_is_forgotten() {
        let mut map = map(20 * ENTRY_BYTES);
        let section: Arc<str> = "s".into();
        for n in 0..1000 {
            map.set(&section, &n.to_string().into(), Some(n), 0);
            map.set(&section, &"often".into(), Some(n), 0);
            assert_eq!(map.get("s", "often"), Some(&n));
            assert_eq!(map.get("s", &n.to_string()), Some(&n), "just set");
        }
        assert!(!map.holds("s", "0"));
        let held: usize = map.sections.iter().map(|(_, g)| g.young.len() + g.old.len()).sum();
        assert!(held <= 22, "{held}");
    }
}
