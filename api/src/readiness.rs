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
    /// Every part that was looked at, with what is wrong with it.
    degraded: BTreeMap<String, Option<String>>,
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
        self.state().degraded.insert(part.to_owned(), Some(reason.to_owned()));
    }

    /// The part is there.
    pub fn recovered(&self, part: &str) {
        self.state().degraded.insert(part.to_owned(), None);
    }

    /// The parts that are still starting, by name.
    #[must_use]
    pub fn starting(&self) -> Vec<String> {
        self.state().starting.iter().cloned().collect()
    }

    /// The parts that are degraded, by name, and why.
    #[must_use]
    pub fn degradations(&self) -> Vec<(String, String)> {
        let state = self.state();
        state.degraded.iter().filter_map(|(part, reason)| Some((part.clone(), reason.clone()?))).collect()
    }

    /// The parts that were looked at, as Prometheus text.
    pub(crate) fn metrics(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        if !state.degraded.is_empty() {
            text.push_str("# HELP instance_degraded 1 while a part is away and the instance does without it\n");
            text.push_str("# TYPE instance_degraded gauge\n");
        }
        for (part, reason) in &state.degraded {
            text.push_str(&format!("instance_degraded{{part=\"{part}\"}} {}\n", u8::from(reason.is_some())));
        }
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_degraded_is_named_until_it_is_back() {
        let readiness = Readiness::default();
        assert_eq!(readiness.metrics(), "");
        readiness.recovered("bus");
        readiness.degraded("pubsub", "it does not answer");
        assert_eq!(readiness.degradations(), [("pubsub".to_owned(), "it does not answer".to_owned())]);
        let series =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        let expected = ["instance_degraded{part=\"bus\"} 0", "instance_degraded{part=\"pubsub\"} 1"];
        assert_eq!(series(&readiness.metrics()), expected);
        readiness.recovered("pubsub");
        assert_eq!(readiness.degradations(), []);
    }
}
