//! The store of a bounded run, which starts fresh and leaves nothing behind.
//!
//! Contract: that of [`Store`], for as long as the process lives. Dead letters may be handed to a durable store, so
//! that what a run could not handle outlives it; otherwise at most [`DEAD_LETTERS_MAX`] are kept, and more are refused
//! as unavailable.

use super::store::{DEAD_LETTERS_MAX, fingerprint};
use async_trait::async_trait;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::event::Key;
use smartpulse_pipeline::state::{DeadLetter, DeadLetterFilter, KeyState, Store, StoredDeadLetter, StoredPosition};
use smartpulse_pipeline::{Position, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    dead_letters: Option<Arc<dyn Store>>,
}

#[derive(Default)]
struct State {
    positions: BTreeMap<String, (Position, Timestamp)>,
    chains: HashMap<String, HashMap<Key, KeyState>>,
    dead_letters: BTreeMap<i64, ([u8; 16], StoredDeadLetter)>,
    last_letter: i64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose dead letters are those of `durable`.
    #[must_use]
    pub fn with_dead_letters(durable: Arc<dyn Store>) -> Self {
        Self { state: Mutex::default(), dead_letters: Some(durable) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn position(&self, id: &str) -> Result<Option<Position>> {
        Ok(self.state().positions.get(id).map(|(position, _)| position.clone()))
    }

    async fn commit_position(&self, id: &str, position: &Position) -> Result<()> {
        self.state().positions.insert(id.to_owned(), (position.clone(), Timestamp::now()));
        Ok(())
    }

    async fn reset_position(&self, id: &str) -> Result<usize> {
        let mut state = self.state();
        let before = state.positions.len();
        state
            .positions
            .retain(|kept, _| kept != id && !kept.strip_prefix(id).is_some_and(|rest| rest.starts_with('/')));
        Ok(before - state.positions.len())
    }

    async fn positions(&self) -> Result<Vec<StoredPosition>> {
        let state = self.state();
        let stored = |(id, (position, updated_at)): (&String, &(Position, Timestamp))| StoredPosition {
            id: id.clone(),
            position: position.clone(),
            updated_at: *updated_at,
        };
        Ok(state.positions.iter().map(stored).collect())
    }

    async fn load_state(&self, chain: &str, keys: &[Key]) -> Result<Vec<Option<KeyState>>> {
        let state = self.state();
        let chain = state.chains.get(chain);
        Ok(keys.iter().map(|key| chain?.get(key).cloned()).collect())
    }

    async fn commit_state(&self, chain: &str, entries: &[KeyState]) -> Result<()> {
        let mut state = self.state();
        let chain = state.chains.entry(chain.to_owned()).or_default();
        for entry in entries {
            if chain.get(&entry.key).is_none_or(|kept| kept.version <= entry.version) {
                chain.insert(Key::clone(&entry.key), entry.clone());
            }
        }
        Ok(())
    }

    async fn state_page(&self, chain: &str, after: Option<&str>, limit: usize) -> Result<Vec<KeyState>> {
        let state = self.state();
        let Some(chain) = state.chains.get(chain) else { return Ok(Vec::new()) };
        let mut page: Vec<&KeyState> =
            chain.values().filter(|kept| after.is_none_or(|after| &*kept.key > after)).collect();
        page.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(page.into_iter().take(limit).cloned().collect())
    }

    async fn reset_state(&self, chain: &str) -> Result<()> {
        self.state().chains.remove(chain);
        Ok(())
    }

    async fn put_dead_letters(&self, letters: &[DeadLetter]) -> Result<()> {
        if let Some(durable) = &self.dead_letters {
            return durable.put_dead_letters(letters).await;
        }
        let mut state = self.state();
        let known: HashMap<[u8; 16], i64> = state.dead_letters.iter().map(|(id, (print, _))| (*print, *id)).collect();
        let new = letters.iter().filter(|letter| !known.contains_key(&fingerprint(letter))).count();
        if state.dead_letters.len() + new > DEAD_LETTERS_MAX {
            return Err(Error::unavailable(format!(
                "the store holds {DEAD_LETTERS_MAX} dead letters and takes no more"
            )));
        }
        let mut known = known;
        for letter in letters {
            let print = fingerprint(letter);
            let id = match known.get(&print) {
                Some(id) => *id,
                None => {
                    state.last_letter += 1;
                    state.last_letter
                }
            };
            known.insert(print, id);
            let stored = StoredDeadLetter { id, replay_requested: false, letter: letter.clone() };
            state.dead_letters.insert(id, (print, stored));
        }
        Ok(())
    }

    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<StoredDeadLetter>> {
        if let Some(durable) = &self.dead_letters {
            return durable.dead_letters(filter).await;
        }
        let wanted = |stored: &&StoredDeadLetter| {
            filter.pipeline.as_ref().is_none_or(|pipeline| *pipeline == stored.letter.pipeline)
                && filter.component.as_ref().is_none_or(|component| *component == stored.letter.component)
        };
        let state = self.state();
        let newest_first = state.dead_letters.values().rev().map(|(_, stored)| stored);
        Ok(newest_first.filter(wanted).take(filter.limit).cloned().collect())
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<StoredDeadLetter>> {
        if let Some(durable) = &self.dead_letters {
            return durable.dead_letter(id).await;
        }
        Ok(self.state().dead_letters.get(&id).map(|(_, stored)| stored.clone()))
    }

    async fn request_replay(&self, id: i64) -> Result<bool> {
        if let Some(durable) = &self.dead_letters {
            return durable.request_replay(id).await;
        }
        let mut state = self.state();
        let Some((_, stored)) = state.dead_letters.get_mut(&id) else { return Ok(false) };
        stored.replay_requested = true;
        Ok(true)
    }

    async fn requested_replays(&self, pipeline: &str, component: &str, limit: usize) -> Result<Vec<StoredDeadLetter>> {
        if let Some(durable) = &self.dead_letters {
            return durable.requested_replays(pipeline, component, limit).await;
        }
        let state = self.state();
        let requested = state.dead_letters.values().map(|(_, stored)| stored);
        let requested = requested.filter(|stored| {
            stored.replay_requested && stored.letter.pipeline == pipeline && stored.letter.component == component
        });
        Ok(requested.take(limit).cloned().collect())
    }

    async fn remove_dead_letters(&self, ids: &[i64]) -> Result<usize> {
        if let Some(durable) = &self.dead_letters {
            return durable.remove_dead_letters(ids).await;
        }
        let mut state = self.state();
        Ok(ids.iter().filter(|id| state.dead_letters.remove(id).is_some()).count())
    }

    async fn remove_replayed(&self, ids: &[i64]) -> Result<usize> {
        if let Some(durable) = &self.dead_letters {
            return durable.remove_replayed(ids).await;
        }
        let letters = &mut self.state().dead_letters;
        let requested = |id: &&i64| letters.get(id).is_some_and(|(_, stored)| stored.replay_requested);
        let replayed: Vec<i64> = ids.iter().filter(requested).copied().collect();
        Ok(replayed.iter().filter(|id| letters.remove(id).is_some()).count())
    }
}
