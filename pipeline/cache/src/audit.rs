//! The audit: the shared counters are compared with the database, a page at a time, by one instance. A row that is ahead
//! of its counter at two looks, while the counter stands still, was never published (its event is a dead letter, say); it
//! is published whole, on the entity's `__dataChanged` channel. A row that cannot be read is passed over, and the others of
//! its page are not.
//!
//! One instance has the duty at a time, by a simple lock in Redis that runs out: that two have it for a moment does no
//! harm, for publishing compares versions. A counter ahead of its row is no fault here: the row changed meanwhile.

use crate::cache::{Inner, parse};
use smartpulse_clients::database::Row;
use smartpulse_clients::pubsub::{Outcome, Publication, Publisher, SharedPubSub};
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
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
    ahead: HashMap<Key, Ahead>,
}

/// A row that is ahead of its counter.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    version: i64,
    counter: i64,
}

/// What the database has of a key.
enum Found {
    Row {
        version: i64,
        document: Document,
    },
    Nothing,
    /// It says so, or what it gave is no document.
    Unreadable(Error),
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
        let ahead = std::mem::take(&mut self.ahead);
        let repaired = match self.repair(inner, &ahead).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.ahead = ahead;
                return Err(error);
            }
            // Whatever else it was, it must not keep the audit from the other keys: the next round finds it again.
            repaired => repaired?,
        };
        let table = inner.config.table.as_str();
        let after = self.after.as_deref();
        // A row that cannot be read has no version.
        let page: Vec<(Key, Option<i64>)> = match self.walk {
            Walk::Rows => {
                let rows = inner.ask(inner.database.scan(table, after, PAGE_ROWS)).await?;
                rows.into_iter().map(|row| (row.key, Some(row.version).filter(|_| row.unreadable.is_none()))).collect()
            }
            Walk::Tombstones => {
                let tombstones = inner.ask(inner.database.tombstones(table, after, PAGE_ROWS)).await?;
                tombstones.into_iter().map(|tombstone| (tombstone.key, Some(tombstone.version))).collect()
            }
        };
        let keys: Vec<Key> = page.iter().map(|(key, _)| key.clone()).collect();
        let counters = shared.counters(&keys).await?;
        self.after = page.last().filter(|_| page.len() == PAGE_ROWS).map(|(key, _)| key.clone());
        for ((key, version), counter) in page.into_iter().zip(counters) {
            // An unknown counter is not wrong: the key's next event has it read anew.
            if let (Some(version), Some(counter)) = (version, counter)
                && counter < version
            {
                self.ahead.insert(key, Ahead { version, counter });
            }
        }
        if self.after.is_none() {
            self.walk = if self.walk == Walk::Rows { Walk::Tombstones } else { Walk::Rows };
        }
        Ok(repaired)
    }

    /// Publishes what was ahead at the last look and still is.
    async fn repair(&self, inner: &Inner, ahead: &HashMap<Key, Ahead>) -> Result<usize> {
        let Some(shared) = inner.shared.as_ref().filter(|_| !ahead.is_empty()) else { return Ok(0) };
        let keys: Vec<Key> = ahead.keys().cloned().collect();
        let counters = shared.counters(&keys).await?;
        // A counter that moved is that of a change on its way.
        let stuck = keys.into_iter().zip(counters).filter(|(key, counter)| *counter == Some(ahead[key].counter));
        let mut publications: Vec<Publication> = Vec::new();
        for (key, found) in read(inner, stuck.map(|(key, _)| key).collect()).await? {
            let (version, document) = match found {
                Found::Row { version, document } => (version, Some(document)),
                Found::Nothing => (ahead[&key].version, None),
                Found::Unreadable(error) => {
                    tracing::warn!(key = &*key, error = error.chain(), "a row that was never published cannot be read");
                    continue;
                }
            };
            let channel = self.publisher.channel(&key);
            publications.push(self.publisher.whole(channel, &key, version, document.as_ref()));
        }
        let outcomes = self.pubsub.publish(&publications).await?;
        let repaired = outcomes.iter().filter(|outcome| **outcome != Outcome::Stale).count();
        if repaired > 0 {
            tracing::warn!(repaired, section = inner.config.section, "rows that were never published are published");
            inner.metrics.repaired_by_audit.inc_by(repaired as u64);
        }
        Ok(repaired)
    }
}

/// Reads keys, each by itself where all at once are refused: one that cannot be read does not hide the others.
async fn read(inner: &Inner, keys: Vec<Key>) -> Result<Vec<(Key, Found)>> {
    let table = inner.config.table.as_str();
    let mut found = Vec::with_capacity(keys.len());
    match inner.ask(inner.database.get(table, &keys)).await {
        Ok(rows) => {
            for key in keys {
                let row = rows.iter().find(|row| row.key == key);
                found.push((key.clone(), row.map_or(Found::Nothing, |row| of_row(&key, row))));
            }
        }
        Err(error) if error.kind() == ErrorKind::Rejected => {
            for key in keys {
                let row = match inner.ask(inner.database.get(table, std::slice::from_ref(&key))).await {
                    Ok(rows) => rows.first().map_or(Found::Nothing, |row| of_row(&key, row)),
                    Err(error) if error.kind() == ErrorKind::Rejected => Found::Unreadable(error),
                    Err(error) => return Err(error),
                };
                found.push((key, row));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(found)
}

fn of_row(key: &Key, row: &Row) -> Found {
    match parse(key, &row.document) {
        Ok(document) => Found::Row { version: row.version, document },
        Err(error) => Found::Unreadable(error),
    }
}

/// Audits until the cache is dropped.
pub(crate) async fn run(cache: Weak<Inner>, mut auditor: Auditor) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = cache.upgrade() else { return };
        if let Err(error) = auditor.look_at(&inner).await {
            match error.kind() {
                ErrorKind::Unavailable => tracing::debug!(error = error.chain(), "no audit"),
                _ => tracing::warn!(error = error.chain(), "the audit failed; it goes on with the next page"),
            }
        }
    }
}
