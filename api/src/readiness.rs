//! What has to be ready before requests are sent here, and what is missing since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The parts of an instance: which of them are still starting, which are degraded.
#[derive(Debug, Default)]
pub struct Readiness {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    starting: BTreeSet<String>,
    degraded: BTreeMap<String, String>,
}

impl Readiness {
    /// All of these parts are starting.
    #[must_use]
    pub fn new<T: Into<String>>(parts: impl IntoIterator<Item = T>) -> Self {
        let starting = parts.into_iter().map(Into::into).collect();
        Self { state: Mutex::new(State { starting, degraded: BTreeMap::new() }) }
    }

    /// The part is up; for good, as far as starting goes.
    pub fn ready(&self, part: &str) {
        self.state().starting.remove(part);
    }

    /// The part is away or impaired; the instance does without it.
    pub fn degraded(&self, part: &str, reason: &str) {
        self.state().degraded.insert(part.to_owned(), reason.to_owned());
    }

    /// The part is back.
    pub fn recovered(&self, part: &str) {
        self.state().degraded.remove(part);
    }

    /// The parts that are still starting, by name.
    #[must_use]
    pub fn starting(&self) -> Vec<String> {
        self.state().starting.iter().cloned().collect()
    }

    /// The parts that are degraded, by name, and why.
    #[must_use]
    pub fn degradations(&self) -> Vec<(String, String)> {
        self.state().degraded.iter().map(|(part, reason)| (part.clone(), reason.clone())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
