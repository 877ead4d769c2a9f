//! What changes the cache from outside: changes, invalidations, own writes, losses.

use crate::cache::{Cache, Inner, Level, parse};
use crate::decide::{self, Applied, Content, Entry, Floor};
use crate::flights::Via;
use crate::lists::tags;
use crate::news::Told;
use bytes::Bytes;
use smartpulse_clients::database::{Row, Write, Written};
use smartpulse_json::{Patched, apply};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Key, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

/// A change of one key, as a DataChanged message carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The entity.
    pub key: Key,
    /// Its version.
    pub version: i64,
    /// The version that the patch was made from.
    pub previous_version: Option<i64>,
    /// `PatchItems`: a JSON array of `{"Op":...,"Path":...,"Value":...}`.
    pub items: Bytes,
    /// True if the one operation sets or removes the whole document, so that no base is needed.
    pub whole: bool,
    /// When it was committed, if that is known.
    pub commit_time: Option<Timestamp>,
}

/// The news that something changed, without what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invalidation {
    /// The entity and its version, where it is one of the cached section. Of another section (a unit whose
    /// place in the hierarchy changed) only the tags count.
    pub entity: Option<(Key, i64)>,
    /// Whose lists go; without any, all lists go.
    pub tags: Vec<String>,
}

impl Cache {
    /// Offers a change to L1. Lists are left to the invalidation that is derived from the same change: a patch
    /// does not say in which lists the document was.
    pub fn apply(&self, change: &Change) -> Applied {
        let inner = &*self.inner;
        let content = content(change);
        let gone = matches!(content, Content::Removal);
        inner.flights.raise(&change.key, Floor { version: change.version, gone });
        let (applied, held) = inner.documents.update(&change.key, |entry| {
            let (next, applied) = decide::change(entry, change.version, content, inner.freshness(inner.generation()));
            let held = next.as_ref().map_or(change.version, Entry::version);
            (next, (applied, held))
        });
        inner.metrics.applied(applied);
        match applied {
            Applied::Patched | Applied::Replaced | Applied::Removed => {
                // A delete may be held under a later version, which an invalidation has promised.
                inner.tell(&change.key, held);
                if let Some(commit_time) = change.commit_time {
                    inner.metrics.commit_to_cache.observe(Timestamp::now().millis_since(commit_time) as f64 / 1e3);
                }
            }
            // Where there is no room for it, its next reader loads it.
            Applied::Reload => _ = self.load_in_background(&change.key),
            Applied::Stale | Applied::Absent => {}
        }
        if let Some(observer) = &inner.config.observer {
            observer(&change.key, change.version, applied);
        }
        applied
    }

    /// Lets go of documents older than the invalidation's version and of the lists of its tags. A document
    /// that a patch brought to that version already stays.
    pub fn evict_older(&self, invalidation: &Invalidation) {
        let inner = &*self.inner;
        if let Some((key, version)) = &invalidation.entity {
            inner.wants(key, *version);
            if let Some(shared) = &inner.shared {
                shared.note(key, *version);
            }
        }
        inner.lists.drop_tags(invalidation.tags.iter().map(String::as_str));
    }

    /// Messages may have been lost: nothing that is held, or being loaded, counts as fresh any more. It is
    /// kept as a base for patches, which name the version they need, and as the last resort of readers.
    pub fn lost(&self) {
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
        self.inner.lists.drop_tags([]);
        // Nobody listening is no error.
        let _ = self.inner.news.send(Told::Lost);
    }

    /// Writes one row to the database and returns when readers of this instance see it. Goes on to the end
    /// even if the caller does not wait for it.
    ///
    /// The cache writes, not its caller, because a change of the same row by somebody else may arrive between
    /// the commit and the moment it is kept: the key is watched from before the commit on.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer; whether the write was committed is then unknown, and
    /// what was held of the key is no longer fresh. What else the database says.
    pub async fn write(&self, write: Write) -> Result<Written> {
        let key = key_of(&write)?;
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.write_through(&key, write).await });
        task.await.map_err(|error| Error::fatal("the write was given up").because(error))?
    }

    /// Loads a key for nobody in particular; false when too much is being loaded already.
    pub(crate) fn load_in_background(&self, key: &Key) -> bool {
        let permit = Arc::clone(&self.inner.background).try_acquire_owned();
        permit.map(|permit| self.load_with(permit, key)).is_ok()
    }

    /// Loads a key for nobody in particular, when there is room for it.
    pub(crate) async fn load_in_turn(&self, key: &Key) {
        if let Ok(permit) = Arc::clone(&self.inner.background).acquire_owned().await {
            self.load_with(permit, key);
        }
    }

    fn load_with(&self, permit: OwnedSemaphorePermit, key: &Key) {
        let mut landing = self.take_off(key, Via::Tiers);
        tokio::spawn(async move {
            let _ = landing.wait_for(Option::is_some).await;
            drop(permit);
        });
    }
}

impl Inner {
    /// A version of the key exists that is not held.
    pub(crate) fn wants(&self, key: &Key, version: i64) {
        self.flights.raise(key, Floor { version, gone: false });
        self.documents.update(key, |entry| (decide::invalidate(entry, version), ()));
    }

    async fn write_through(&self, key: &Key, write: Write) -> Result<Written> {
        // An open circuit is respected. A write is no probe, for the outcome of one that failed is unknown: a ping is.
        if self.circuit.is_open() {
            self.ask(self.database.ping()).await?;
        }
        let _watch = self.flights.watch(key);
        let generation = self.generation();
        let deletes = matches!(write, Write::Delete { .. });
        let moves = match &write {
            Write::Update { members, .. } => {
                members.contains_key("companyId") || members.contains_key("productionUnitId")
            }
            Write::Insert { .. } | Write::Delete { .. } => false,
        };
        let written = timeout(self.config.tier_timeout, self.database.write(&self.config.table, vec![write])).await;
        let written = match written {
            Ok(Ok(written)) => written.into_iter().next(),
            Ok(Err(error)) => {
                self.doubt(key);
                return Err(error);
            }
            Err(_) => {
                self.circuit.failed(Instant::now());
                self.doubt(key);
                let waited = self.config.tier_timeout.as_millis();
                return Err(Error::unavailable(format!("the database did not answer within {waited} ms")));
            }
        };
        match written.ok_or_else(|| Error::fatal("the database gave no outcome for a write"))? {
            Written::Done(row) => {
                self.store(key, &row, deletes, moves, generation)?;
                Ok(Written::Done(row))
            }
            Written::VersionMismatch(version) => {
                self.wants(key, version);
                Ok(Written::VersionMismatch(version))
            }
            Written::NotFound => {
                self.doubt(key);
                Ok(Written::NotFound)
            }
            Written::Exists => Ok(Written::Exists),
        }
    }

    /// Keeps what was just committed, unless something newer came meanwhile, and drops the lists it was in and
    /// is in.
    fn store(&self, key: &Key, row: &Row, deletes: bool, moves: bool, generation: u64) -> Result<()> {
        self.flights.raise(key, Floor { version: row.version, gone: deletes });
        if let Some(shared) = &self.shared {
            shared.note(key, row.version);
        }
        let document = parse(key, &row.document);
        let before = self.documents.document(key);
        if deletes {
            let freshness = self.freshness(generation);
            let held = self.documents.update(key, |entry| {
                let (next, applied) = decide::change(entry, row.version, Content::Removal, freshness);
                let held = next.as_ref().map(Entry::version).filter(|_| applied == Applied::Removed);
                (next, held)
            });
            if let Some(version) = held {
                self.tell(key, version);
            }
        } else {
            let offered = self.offer(key, Some(row.clone()), Level::L4, generation, |_| self.flights.floor(key))?;
            if let Some(version) = offered.after.filter(|after| offered.before.is_none_or(|before| before < *after)) {
                self.tell(key, version);
            }
        }
        // Where the row was before is known from what is held; not known of a row that moved unseen.
        let known = before.is_some() || !moves;
        match &document {
            Ok(document) if known => {
                let old = before.iter().flat_map(|held| tags(&held.document));
                let all: Vec<String> = tags(document).chain(old).collect();
                self.lists.drop_tags(all.iter().map(String::as_str));
            }
            _ => self.lists.drop_tags([]),
        }
        Ok(())
    }

    /// What is held of the key may not be the truth: the next reader asks the database.
    fn doubt(&self, key: &Key) {
        self.documents.update(key, |entry| (decide::doubt(entry, Instant::now()), ()));
        self.lists.drop_tags([]);
    }
}

fn content(change: &Change) -> Content<'_> {
    if !change.whole {
        return Content::Patch { previous_version: change.previous_version, items: &change.items };
    }
    match apply(None, &change.items) {
        Ok(Patched::Document(document)) => Content::Document(document),
        Ok(Patched::Removed) => Content::Removal,
        Err(error) => {
            tracing::warn!(key = &*change.key, version = change.version, %error, "unreadable whole document");
            Content::Unreadable
        }
    }
}

fn key_of(write: &Write) -> Result<Key> {
    match write {
        Write::Update { key, .. } | Write::Delete { key, .. } => Ok(Arc::clone(key)),
        Write::Insert { members } => match members.get("id").and_then(serde_json::Value::as_str) {
            Some(id) => Ok(Arc::from(id)),
            None => Err(Error::rejected("an insert needs a member `id` with a text")),
        },
    }
}
