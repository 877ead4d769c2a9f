//! What the runtime keeps durably: positions, keyed state and dead letters, behind one trait.
//!
//! Keyed state is recoverable, never trusted. It belongs to a *chain*, `<pipeline>/<operator>/<section>`, and holds,
//! per key, the last version that left the operator and whose effect is durable, with its document. It is
//! committed after the sink and before the position, so that a crash in between repeats an idempotent effect and
//! never loses one.

use crate::error::Result;
use crate::event::{Key, Operation};
use crate::position::Position;
use crate::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The last version of a key whose effect is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// The entity.
    pub key: Key,
    /// Its version.
    pub version: i64,
    /// Its document at that version; none for a deleted entity.
    pub document: Option<Bytes>,
}

/// A key's state on its way to the store, with the events whose effect has to be durable first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingState {
    /// The chain without its section: `<pipeline>/<operator>`.
    pub chain: Arc<str>,
    /// The entity's section.
    pub section: Arc<str>,
    /// What becomes durable.
    pub state: KeyState,
}

/// The name under which a chain's state of one section is kept.
pub(crate) fn chain_name(chain: &str, section: &str) -> String {
    format!("{chain}/{section}")
}

/// An event that could not be handled, with all that is needed to see why and to try again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The pipeline's name.
    pub pipeline: String,
    /// The component that refused it.
    pub component: String,
    /// Why, in one line, with the cause chain.
    pub reason: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// The entity's section, where the event could be read that far.
    pub section: Option<String>,
    /// The entity, where the event could be read that far.
    pub key: Option<String>,
    /// Its version, where the event could be read that far.
    pub version: Option<i64>,
    /// The operation, where the event could be read that far.
    pub operation: Option<Operation>,
    /// When it was set aside.
    pub time: Timestamp,
    /// How it is handed in again.
    pub origin: Origin,
    /// What is handed in: see [`Origin`].
    #[serde(skip)]
    pub payload: Bytes,
}

/// Where a replayed dead letter goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The payload is an encoded event ([`crate::message::encode_event`]); the running graph hands it to the
    /// sink that refused it. Sinks are idempotent per key and version, so this is safe at any time.
    Sink,
    /// The payload is an encoded event that an operator refused: mend the pipeline and let the source give it
    /// again (`smartpulse resnapshot`, or `smartpulse position reset`).
    Operator,
    /// The payload is a message that could not be read; it is published to this topic again.
    Topic {
        /// The resource that the topic is on.
        bus: String,
        /// Its name.
        topic: String,
    },
    /// The payload is an encoded event that a bounded run refused. Such a run takes nothing in again: mend what was wrong, and
    /// run it again.
    Run,
    /// The input was a file: mend the file and run again.
    File(String),
    /// The input was a pub/sub channel, which keeps nothing: the next version of the key brings it up to date.
    Channel(String),
}

/// A stored dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredDeadLetter {
    /// Its number in the store.
    pub id: i64,
    /// True while it waits for the running graph to take it in again.
    pub replay_requested: bool,
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
}

/// Which dead letters to list.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Only those of this pipeline.
    pub pipeline: Option<String>,
    /// Only those of this component.
    pub component: Option<String>,
    /// At most so many, newest first.
    pub limit: usize,
}

/// A stored position, as `smartpulse position show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    /// The owner, `<pipeline>/<source>` with a further `/<table>` where it has several.
    pub id: String,
    /// Where it is.
    pub position: Position,
    /// When it was last committed.
    pub updated_at: Timestamp,
}

/// The durable memory of a running graph.
///
/// All calls are safe to repeat. An implementation bounds what it keeps of dead letters and says how.
#[async_trait]
pub trait Store: Send + Sync {
    /// The position of `id`, if one was committed.
    async fn position(&self, id: &str) -> Result<Option<Position>>;
    /// Replaces the position of `id`.
    async fn commit_position(&self, id: &str, position: &Position) -> Result<()>;
    /// Forgets the positions of `id` and of everything below it (`id/...`), and says how many they were.
    async fn reset_position(&self, id: &str) -> Result<usize>;
    /// All positions, by id.
    async fn positions(&self) -> Result<Vec<StoredPosition>>;

    /// The states of `keys` in `chain`, in one round trip, in the order of `keys`.
    async fn load_state(&self, chain: &str, keys: &[Key]) -> Result<Vec<Option<KeyState>>>;
    /// Stores states in one transaction; an entry with a version below the stored one changes nothing. One of the
    /// same version replaces it: a resync has another document.
    async fn commit_state(&self, chain: &str, entries: &[KeyState]) -> Result<()>;
    /// The states of `chain` by ascending key (as bytes), starting after `after`, at most `limit`; fewer than `limit` means
    /// the end.
    async fn state_page(&self, chain: &str, after: Option<&str>, limit: usize) -> Result<Vec<KeyState>>;
    /// Forgets the state of `chain`.
    async fn reset_state(&self, chain: &str) -> Result<()>;

    /// Stores dead letters durably; the same letter (pipeline, component, key, version, payload) once: when it
    /// is there already, its reason, attempts and time are renewed and a request for its replay is withdrawn.
    async fn put_dead_letters(&self, letters: &[DeadLetter]) -> Result<()>;
    /// Lists dead letters, newest first.
    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<StoredDeadLetter>>;
    /// One dead letter.
    async fn dead_letter(&self, id: i64) -> Result<Option<StoredDeadLetter>>;
    /// Asks the running graph to take the letter in again; false when there is none such.
    async fn request_replay(&self, id: i64) -> Result<bool>;
    /// The letters of a component whose replay was requested, oldest first, at most `limit`.
    async fn requested_replays(&self, pipeline: &str, component: &str, limit: usize) -> Result<Vec<StoredDeadLetter>>;
    /// Removes letters, and says how many they were.
    async fn remove_dead_letters(&self, ids: &[i64]) -> Result<usize>;
    /// Removes those of the letters whose replay is still requested, and says how many they were: one that failed again in the
    /// meantime stays.
    async fn remove_replayed(&self, ids: &[i64]) -> Result<usize>;
}
