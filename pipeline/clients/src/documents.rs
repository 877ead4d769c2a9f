//! The documents that all instances share, each beside its version counter.
//!
//! Contract:
//! - A document is given only if its version is the counter's and nothing newer is known to exist.
//! - Filling never moves a counter, and is refused unless the document's version is the counter's. A refused fill of a
//!   newer version is remembered: until the counter reaches it, no older document is given.
//! - Nobody depends on it: what is lost here is read from the database again.

use async_trait::async_trait;
use bytes::Bytes;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::time::Duration;

/// What is shared of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// Its document at the counter's version.
    Document {
        /// The version.
        version: i64,
        /// The document's text.
        document: Bytes,
    },
    /// It is deleted, since this version.
    Gone {
        /// The version.
        version: i64,
    },
    /// Nothing that could be answered with.
    Nothing,
}

/// Shared documents and their counters.
#[async_trait]
pub trait SharedDocuments: Send + Sync {
    /// What is shared of a key, unless it was written longer ago than `age_max`.
    async fn get(&self, section: &str, key: &str, age_max: Duration) -> Result<Shared>;

    /// Offers a document that was read from the database; true if it is now shared.
    async fn fill(&self, section: &str, key: &str, version: i64, document: &Bytes) -> Result<bool>;

    /// Tells that versions exist: older documents are given no more.
    async fn note(&self, section: &str, versions: &[(Key, i64)]) -> Result<()>;

    /// The counters of keys, in their order; nothing where one is unknown.
    async fn counters(&self, section: &str, keys: &[Key]) -> Result<Vec<Option<i64>>>;

    /// Lets go of documents that nobody wrote for a day, of at most about `keys_max` keys that are looked at, starting
    /// at a cursor; 0 is the beginning, and the end.
    async fn expire(&self, section: &str, cursor: u64, keys_max: usize) -> Result<(u64, usize)>;

    /// True if this instance has, or just got, the duty `name` for the next `term`. One instance has it at a time,
    /// unless clocks or processes stand still: a duty must do no harm when done twice.
    async fn hold_duty(&self, name: &str, term: Duration) -> Result<bool>;
}
