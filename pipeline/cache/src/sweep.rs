//! Sweeps: what an instance holds is compared with the shared counters, slowly, whether or not anything is amiss. A key
//! that is behind at two looks has missed a message that nobody noticed, and is loaded again. Deletes are not compared:
//! nobody is answered from one.

use crate::cache::{Cache, Inner};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The time between two looks: long enough for every message that is on its way.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// Keys that one look compares: 10,000 documents are through in 20 s, and a look takes Redis some milliseconds.
const KEYS_AT_ONCE: usize = 1_000;

/// Where a sweep is.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The keys that are still to be looked at in this round.
    keys: Vec<Key>,
    /// What was behind at the last look, with the version that was held.
    behind: HashMap<Key, i64>,
}

impl Sweep {
    /// One look; gives how many keys were repaired.
    ///
    /// # Errors
    /// When the counters cannot be read; the next look goes on where this one was.
    pub async fn look(&mut self, cache: &Cache) -> Result<usize> {
        let inner = &*cache.inner;
        let Some(shared) = &inner.shared else { return Ok(0) };
        if self.keys.is_empty() {
            self.keys = inner.documents.keys();
        }
        let rest = self.keys.len().saturating_sub(KEYS_AT_ONCE);
        let mut keys = self.keys.split_off(rest);
        let suspects = std::mem::take(&mut self.behind);
        // A suspect may be in this part of the round, too.
        keys.retain(|key| !suspects.contains_key(key));
        keys.extend(suspects.keys().cloned());
        let counters = match shared.counters(&keys).await {
            Ok(counters) => counters,
            Err(error) => {
                self.keys.extend(keys);
                self.behind = suspects;
                return Err(error);
            }
        };
        inner.metrics.swept.inc_by(keys.len() as u64);
        let mut repaired = 0;
        for (key, counter) in keys.into_iter().zip(counters) {
            let (Some(counter), Some(held)) = (counter, inner.documents.document(&key)) else { continue };
            let held = held.version;
            if held >= counter {
                continue;
            }
            // The same version at two looks: nothing is on its way.
            if suspects.get(&key) == Some(&held) {
                inner.wants(&key, counter);
                if cache.load_in_background(&key) {
                    tracing::warn!(key = &*key, held, counter, "a held document lagged twice; it is loaded again");
                    inner.metrics.repaired_by_sweep.inc();
                    repaired += 1;
                    continue;
                }
            }
            self.behind.insert(key, held);
        }
        Ok(repaired)
    }
}

/// Sweeps until the cache is dropped.
pub(crate) async fn run(cache: Weak<Inner>) {
    let mut sweep = Sweep::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = cache.upgrade() else { return };
        if let Err(error) = sweep.look(&Cache { inner: Arc::clone(&inner) }).await {
            tracing::debug!(error = error.chain(), "no sweep");
        }
    }
}
