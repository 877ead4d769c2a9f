//! What is done every five minutes: documents that wait for a newer version and did not get it are loaded, and shared
//! documents that nobody wrote for a day are let go.

use crate::cache::{Cache, Inner};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The time between two rounds.
const INTERVAL: Duration = Duration::from_secs(300);

/// How long a document may wait for the change that it was told of.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Shared keys that are looked at in one step, and the pause between two: Redis hardly notices.
const KEYS_AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// How long the duty is held: as long as a round may take.
const DUTY_TERM: Duration = Duration::from_secs(240);

/// Maintains until the cache is dropped.
pub(crate) async fn run(cache: Weak<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = cache.upgrade() else { return };
        let waiting = inner.waiting();
        drop(inner);
        tokio::time::sleep(WAIT_MAX).await;
        let Some(inner) = cache.upgrade() else { return };
        Cache { inner }.maintain(&waiting).await;
    }
}

impl Cache {
    /// One round: loads what has been waiting since `waiting` was made.
    async fn maintain(&self, waiting: &[Key]) {
        for key in waiting.iter().filter(|key| self.inner.waits(key)) {
            self.load_in_turn(key).await;
        }
        match self.expire_shared().await {
            Ok(0) => {}
            Ok(dropped) => tracing::debug!(dropped, "shared documents that nobody wrote for a day are gone"),
            Err(error) => tracing::debug!(error = error.chain(), "no maintenance"),
        }
    }
}

impl Inner {
    fn waits(&self, key: &Key) -> bool {
        self.documents.document(key).is_some_and(|held| held.wanted > held.version)
    }

    fn waiting(&self) -> Vec<Key> {
        self.documents.keys().into_iter().filter(|key| self.waits(key)).collect()
    }
}

impl Cache {
    /// Lets go of shared documents past their time, if this instance has the duty; gives how many.
    async fn expire_shared(&self) -> Result<usize> {
        let inner = Arc::clone(&self.inner);
        let Some(shared) = &inner.shared else { return Ok(0) };
        let section = inner.config.section.as_str();
        if !shared.documents().hold_duty(&format!("expire:{section}"), DUTY_TERM).await? {
            return Ok(0);
        }
        let (mut cursor, mut dropped) = (0, 0);
        loop {
            let (next, gone) = shared.documents().expire(section, cursor, KEYS_AT_ONCE).await?;
            (cursor, dropped) = (next, dropped + gone);
            if cursor == 0 {
                return Ok(dropped);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests;
