//! The fast, forgetful fan-out between instances, with the shared version counters that guard it.
//!
//! Contract:
//! - Versions of a key on a channel only rise: a publication at or below the stored version does nothing, one
//!   that follows the stored version publishes its patch, any other newer one (or one whose counter is unknown)
//!   publishes the whole document. Compare, store and publish are one step.
//! - A subscriber gets the messages of a channel in the order of publication. It may miss some; it is then told
//!   ([`Delivery::Lost`]) before the next message.
//! - `PublisherSeq` rises by one with every message that a publisher really sent to the channels of one section.

use crate::documents::SharedDocuments;
use async_trait::async_trait;
use bytes::Bytes;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::Result;
use std::ops::Range;
use std::sync::Arc;

mod inbox;
mod whole;

pub use inbox::{INBOX_BYTES_MAX, Inbox, InboxSender, inbox};
pub use whole::{Publisher, document_in, open_object};

/// A change to broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The channel, as in `__dataChanged:production:forecast:<key>`. Counters are kept per channel;
    /// the document, where instances share any, beside that of the `__dataChanged` channel.
    pub channel: Arc<str>,
    /// The kind of entity: with the key the name under which its counter and document are shared.
    pub section: Arc<str>,
    /// The entity.
    pub key: Key,
    /// Its version.
    pub version: i64,
    /// The version that the patch applies to.
    pub previous_version: Option<i64>,
    /// The message with the patch: a JSON object, to which the member `PublisherSeq` is appended.
    pub patch: Bytes,
    /// The message with the whole document, likewise. Equal to `patch` where the patch is whole.
    pub whole: Bytes,
    /// Where in `whole` the document itself stands; nothing for a delete.
    pub document: Option<Range<usize>>,
    /// True to publish the whole document even at the stored version.
    pub resync: bool,
    /// True to publish nothing where the counter is unknown: the key has to be read from the database first.
    pub known_only: bool,
}

impl Publication {
    /// What becomes of it when the counter stands at `stored`: the rule that every implementation follows.
    #[must_use]
    pub fn outcome(&self, stored: Option<i64>) -> Outcome {
        match stored {
            None if self.known_only => Outcome::Unknown,
            None => Outcome::Whole,
            Some(stored) if self.version < stored => Outcome::Stale,
            Some(stored) if self.version == stored && !self.resync => Outcome::Stale,
            Some(stored) if self.previous_version == Some(stored) && !self.resync => Outcome::Patch,
            Some(_) => Outcome::Whole,
        }
    }
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The patch was published.
    Patch,
    /// The whole document was published.
    Whole,
    /// Nothing: the stored version is the same or newer.
    Stale,
    /// Nothing: the counter is unknown, and the publication was for a known one only.
    Unknown,
}

/// What a subscriber receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A message.
    Message {
        /// The channel it was published on.
        channel: Arc<str>,
        /// The message.
        payload: Bytes,
    },
    /// Messages may have been missed: copies made from earlier ones are not to be trusted.
    Lost,
}

/// A pub/sub resource.
#[async_trait]
pub trait PubSub: Send + Sync {
    /// Answers when the system does.
    async fn ping(&self) -> Result<()>;
    /// Publishes in order; outcomes are in the order of `publications`.
    async fn publish(&self, publications: &[Publication]) -> Result<Vec<Outcome>>;
    /// Subscribes to all channels that match `pattern`, in which `*` stands for any text.
    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscriber>>;
    /// The documents that are kept beside the counters, where instances share them.
    fn documents(&self) -> Option<Arc<dyn SharedDocuments>> {
        None
    }
}

/// The receiving half of a subscription.
#[async_trait]
pub trait Subscriber: Send {
    /// Waits for at least one delivery and gives at most `max`. Dropping the future loses nothing.
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>>;
}

/// A shared pub/sub resource.
pub type SharedPubSub = Arc<dyn PubSub>;
