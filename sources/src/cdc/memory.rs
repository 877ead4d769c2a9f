//! Which keys a table has, and at which versions: kept for tables that leave no tombstones.
//!
//! A delete of such a table comes without a version, and rows may vanish without a trace (TRUNCATE, or while nobody
//! captured). So capture itself remembers, in a chain of the state store: a document (an empty one) for a key that there
//! is, none for one that is gone. Entries are committed with the position, just before it; what is still on its way is
//! remembered here.
//!
//! The memory belongs to the instance. Where several instances may capture, a table should leave tombstones.

use bytes::Bytes;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::state::{KeyState, Store};
use smartpulse_pipeline::{Event, Key, Operation};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) version: i64,
    pub(super) there: bool,
}

/// The memory of one table.
pub(super) struct Memory {
    store: Arc<dyn Store>,
    chain: String,
    underway: Mutex<Underway>,
}

#[derive(Default)]
struct Underway {
    /// By emission, in order. Bounded by what is in flight.
    emissions: VecDeque<(u64, Vec<(Key, Known)>)>,
    /// The newest of them by key, with its emission.
    newest: HashMap<Key, (u64, Known)>,
}

impl Memory {
    pub(super) fn new(store: Arc<dyn Store>, id: &str) -> Self {
        Self { store, chain: format!("{id}#keys"), underway: Mutex::default() }
    }

    fn underway(&self) -> MutexGuard<'_, Underway> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of keys, in their order.
    pub(super) async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Known>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // Before those on their way are looked at: an entry moves from there to the store, never back.
        let mut known: Vec<Option<Known>> = {
            let underway = self.underway();
            keys.iter().map(|key| underway.newest.get(key).map(|(_, known)| *known)).collect()
        };
        let stored = self.store.load_state(&self.chain, keys).await?;
        for (known, stored) in known.iter_mut().zip(stored) {
            *known = known.or_else(|| stored.as_ref().map(known_of));
        }
        Ok(known)
    }

    /// A page of keys that there are, with their versions, by key; and where the next page starts, where there is one.
    pub(super) async fn page(&self, after: Option<&str>, limit: usize) -> Result<(Vec<(Key, i64)>, Option<String>)> {
        let page = self.store.state_page(&self.chain, after, limit).await?;
        let last = if page.len() < limit { None } else { page.last().map(|state| state.key.to_string()) };
        let underway = self.underway();
        let there = page.iter().filter_map(|state| {
            let known = underway.newest.get(&state.key).map_or_else(|| known_of(state), |(_, known)| *known);
            known.there.then(|| (state.key.clone(), known.version))
        });
        Ok((there.collect(), last))
    }

    /// Remembers what goes out with an emission.
    pub(super) fn note(&self, emission: u64, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let known = |event: &Event| Known { version: event.version, there: event.operation != Operation::Delete };
        let entries: Vec<(Key, Known)> = events.iter().map(|event| (event.key.clone(), known(event))).collect();
        let mut underway = self.underway();
        for (key, known) in &entries {
            underway.newest.insert(key.clone(), (emission, *known));
        }
        underway.emissions.push_back((emission, entries));
    }

    /// Makes durable what went out up to an emission.
    pub(super) async fn commit(&self, emission: u64) -> Result<()> {
        let mut states: HashMap<Key, Known> = HashMap::new();
        {
            let underway = self.underway();
            for (_, entries) in underway.emissions.iter().take_while(|(number, _)| *number <= emission) {
                states.extend(entries.iter().cloned());
            }
        }
        if states.is_empty() {
            return Ok(());
        }
        let states: Vec<KeyState> = states
            .into_iter()
            .map(|(key, Known { version, there })| KeyState { key, version, document: there.then(Bytes::new) })
            .collect();
        self.store.commit_state(&self.chain, &states).await?;
        let mut underway = self.underway();
        while underway.emissions.front().is_some_and(|(number, _)| *number <= emission) {
            let Some((number, entries)) = underway.emissions.pop_front() else { break };
            for (key, _) in entries {
                if underway.newest.get(&key).is_some_and(|(newest, _)| *newest == number) {
                    underway.newest.remove(&key);
                }
            }
        }
        Ok(())
    }
}

fn known_of(state: &KeyState) -> Known {
    Known { version: state.version, there: state.document.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_clients::embedded::MemoryStore;

    fn event(key: &str, version: i64, operation: Operation) -> Event {
        Event::new("s".into(), key.into(), version, operation, None)
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_known_and_only_what_was_committed_is_durable() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let memory = Memory::new(store.clone(), "p/s/T");
        memory.note(1, &[event("a", 1, Operation::Insert), event("b", 5, Operation::Update)]);
        memory.note(2, &[event("a", 2, Operation::Delete), event("c", 1, Operation::Insert)]);
        let keys: Vec<Key> = ["a", "b", "c", "d"].map(Key::from).to_vec();
        let known = |version, there| Some(Known { version, there });
        let all = [known(2, false), known(5, true), known(1, true), None];
        assert_eq!(memory.load(&keys).await.unwrap(), all);
        memory.commit(1).await.unwrap();
        assert_eq!(memory.load(&keys).await.unwrap(), all);
        assert_eq!(memory.page(None, 10).await.unwrap(), (vec![("b".into(), 5)], None), "a is on its way to be gone");

        let restarted = Memory::new(store.clone(), "p/s/T");
        assert_eq!(restarted.load(&keys).await.unwrap(), [known(1, true), known(5, true), None, None]);
        memory.commit(2).await.unwrap();
        let restarted = Memory::new(store, "p/s/T");
        assert_eq!(restarted.load(&keys).await.unwrap(), all);
        assert_eq!(restarted.page(None, 2).await.unwrap(), (vec![("b".into(), 5)], Some("b".into())));
        assert_eq!(restarted.page(Some("b"), 2).await.unwrap(), (vec![("c".into(), 1)], None));
    }
}
