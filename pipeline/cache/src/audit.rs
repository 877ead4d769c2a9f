//! The audit: the shared counters are compared with the database, a page at a time, by one instance. A row that is ahead
//! of its counter at two looks was never published (its event is a dead letter, say); it is published whole.
//!
//! One instance has the duty at a time, by a simple lock in Redis that runs out: that two have it for a moment does no
//! harm, for publishing compares versions. A counter ahead of its row is told to people: the database went back.

use crate::cache::Inner;
use crate::cache::parse;
use smartpulse_clients::pubsub::{Outcome, Publication, Publisher, SharedPubSub};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

/// The time between two pages: the slowest of all readers of the database.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// Rows in a page.
const PAGE_ROWS: usize = 500;

/// How long the duty is held beyond a look: an instance that dies is followed by another after this.
const DUTY_TERM: Duration = Duration::from_secs(15);

/// What the audit walks over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Walk {
    #[default]
    Rows,
    Tombstones,
}

/// One that audits.
pub struct Auditor {
    pubsub: SharedPubSub,
    publisher: Publisher,
    walk: Walk,
    after: Option<Key>,
    /// What was ahead of its counter at the last look.
    ahead: HashMap<Key, i64>,
}

impl Auditor {
    /// Publishes what was missed over `pubsub`.
    #[must_use]
    pub fn new(pubsub: SharedPubSub, publisher: Publisher) -> Self {
        Self { pubsub, publisher, walk: Walk::Rows, after: None, ahead: HashMap::new() }
    }

    /// Looks at a page of the cache's table; gives how many keys were published.
    ///
    /// # Errors
    /// When the database or Redis cannot be asked; the next look goes on where this one was.
    pub async fn look(&mut self, cache: &crate::Cache) -> Result<usize> {
        self.look_at(&cache.inner).await
    }

    async fn look_at(&mut self, inner: &Inner) -> Result<usize> {
        let Some(shared) = &inner.shared else { return Ok(0) };
        let duty = format!("audit:{}", inner.config.section);
        if !shared.documents().hold_duty(&duty, DUTY_TERM).await? {
            return Ok(0);
        }
        let repaired = self.repair(inner).await?;
        let table = inner.config.table.as_str();
        let after = self.after.as_deref();
        let page: Vec<(Key, i64)> = match self.walk {
            Walk::Rows => {
                let rows = inner.ask(inner.database.scan(table, after, PAGE_ROWS)).await?;
                rows.into_iter().map(|row| (row.key, row.version)).collect()
            }
            Walk::Tombstones => {
                let tombstones = inner.ask(inner.database.tombstones(table, after, PAGE_ROWS)).await?;
                tombstones.into_iter().map(|tombstone| (tombstone.key, tombstone.version)).collect()
            }
        };
        let keys: Vec<Key> = page.iter().map(|(key, _)| key.clone()).collect();
        let counters = shared.counters(&keys).await?;
        self.after = page.last().filter(|_| page.len() == PAGE_ROWS).map(|(key, _)| key.clone());
        for ((key, version), counter) in page.into_iter().zip(counters) {
            // An unknown counter is not wrong: the key's next event has it read anew.
            match counter {
                Some(counter) if counter < version => {
                    self.ahead.insert(key, version);
                }
                Some(counter) if counter > version && self.walk == Walk::Rows => {
                    tracing::debug!(key = &*key, version, counter, "a row is behind its counter: changed meanwhile?");
                }
                _ => {}
            }
        }
        if self.after.is_none() {
            self.walk = if self.walk == Walk::Rows { Walk::Tombstones } else { Walk::Rows };
        }
        Ok(repaired)
    }

    /// Publishes what was ahead at the last look and still is.
    async fn repair(&mut self, inner: &Inner) -> Result<usize> {
        if self.ahead.is_empty() {
            return Ok(0);
        }
        let Some(shared) = &inner.shared else { return Ok(0) };
        let keys: Vec<Key> = self.ahead.keys().cloned().collect();
        let counters = shared.counters(&keys).await?;
        let behind = |key: &Key, counter: Option<i64>| counter.is_some_and(|counter| counter < self.ahead[key]);
        let keys: Vec<Key> =
            keys.into_iter().zip(counters).filter(|(key, counter)| behind(key, *counter)).map(|(key, _)| key).collect();
        let rows = inner.ask(inner.database.get(&inner.config.table, &keys)).await?;
        let mut publications: Vec<Publication> = Vec::with_capacity(keys.len());
        for key in &keys {
            let row = rows.iter().find(|row| row.key == *key);
            let (version, document) = match row {
                Some(row) => (row.version, Some(parse(key, &row.document)?)),
                None => (self.ahead[key], None),
            };
            publications.push(self.publisher.whole(self.channel(key), key, version, document.as_ref()));
        }
        let outcomes = self.pubsub.publish(&publications).await?;
        self.ahead.clear();
        let repaired = outcomes.iter().filter(|outcome| **outcome != Outcome::Stale).count();
        if repaired > 0 {
            tracing::warn!(repaired, section = inner.config.section, "rows that were never published are published");
            inner.metrics.repaired_by_audit.inc_by(repaired as u64);
        }
        Ok(repaired)
    }

    fn channel(&self, key: &Key) -> std::sync::Arc<str> {
        format!("__dataChanged:{}:{}:{key}", self.publisher.partition, self.publisher.section).into()
    }
}

/// Audits until the cache is dropped.
pub(crate) async fn run(cache: Weak<Inner>, mut auditor: Auditor) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = cache.upgrade() else { return };
        if let Err(error) = auditor.look_at(&inner).await {
            tracing::debug!(error = error.chain(), "no audit");
        }
    }
}
