//! News of what this instance's cache takes over, for derived state: from changes, own writes and loads alike.

use crate::cache::Cache;
use crate::decide::Entry;
use bytes::Bytes;
use smartpulse_pipeline::Key;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// News that one follower may be behind; beyond it, it is told that it missed some.
pub(crate) const NEWS_MAX: usize = 4_096;

/// What the cache tells: no more than where to look.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// The key is held at this version now.
    Taken(Key, i64),
    /// Messages may have been lost.
    Lost,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// This is its document now.
    Changed {
        /// The entity.
        key: Key,
        /// The document's version.
        version: i64,
        /// The document's text.
        document: Bytes,
    },
    /// It is deleted.
    Deleted {
        /// The entity.
        key: Key,
        /// The delete's version.
        version: i64,
    },
    /// Changes may have been missed: what was derived from earlier ones is not to be trusted.
    Lost,
}

/// Hears of everything that a cache takes over from now on. Versions of a key rise, each is told once (again only where it
/// was pushed out of memory meanwhile), and of several in quick succession only the newest.
pub struct Follower {
    cache: Cache,
    told: Receiver<Told>,
}

impl Cache {
    /// Follows what is taken over from now on.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower { cache: self.clone(), told: self.inner.news.subscribe() }
    }
}

impl Follower {
    /// Waits for the next news.
    pub async fn next(&mut self) -> News {
        loop {
            let (key, version) = match self.told.recv().await {
                Ok(Told::Taken(key, version)) => (key, version),
                Ok(Told::Lost) => return News::Lost,
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "changes came faster than they were followed");
                    return News::Lost;
                }
                // The cache tells, and is held here.
                Err(RecvError::Closed) => std::future::pending().await,
            };
            match self.cache.inner.documents.get(&key) {
                // The newer one tells of itself.
                Some(entry) if entry.version() > version => {}
                Some(Entry::Document(held)) => {
                    let document = held.document.bytes().clone();
                    return News::Changed { key, version: held.version, document };
                }
                Some(Entry::Tombstone(version)) => return News::Deleted { key, version },
                // Pushed out since.
                None => match self.cache.get(&key).await {
                    Ok(Some(hit)) => {
                        return News::Changed { key, version: hit.version, document: hit.document.bytes().clone() };
                    }
                    // Deleted since: that change comes next.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(key = &*key, error = error.chain(), "what was taken over is not to be had");
                        return News::Lost;
                    }
                },
            }
        }
    }
}
