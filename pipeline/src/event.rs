//! What flows through a graph: events, in batches.

use crate::ack::Ack;
use crate::state::PendingState;
use crate::time::Timestamp;
use crate::trace::TraceContext;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smartpulse_json::Document;
use std::sync::Arc;

/// An entity's identity within its section. Cheap to clone.
pub type Key = Arc<str>;

/// What a change did to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// The row is new, or was unknown.
    Insert,
    /// The row has other values.
    Update,
    /// The row is gone.
    Delete,
}

/// A patch from the previous version to this one, in the wire form of `PatchItems`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// A JSON array of `{"Op":...,"Path":...,"Value":...}`.
    pub items: Bytes,
    /// True when the one operation sets or removes the whole document: it needs no base.
    pub whole: bool,
}

/// One version of one entity.
#[derive(Debug, Clone)]
pub struct Event {
    /// The kind of entity: `forecast`, `unit`; for a plain message, its topic.
    pub section: Arc<str>,
    /// The entity.
    pub key: Key,
    /// Its version; versions of a key rise by one with every committed write.
    pub version: i64,
    /// The version that this one follows, once `detect_gap` has said so.
    pub previous_version: Option<i64>,
    /// What happened.
    pub operation: Operation,
    /// The full document. Of a delete: the last image where the source keeps one.
    pub document: Option<Document>,
    /// The document at `previous_version`, once `diff` has found it.
    pub previous: Option<Document>,
    /// The patch from `previous_version` to `version`, once `diff` has made it.
    pub patch: Option<Patch>,
    /// When the database committed it.
    pub commit_time: Option<Timestamp>,
    /// When capture read it.
    pub capture_time: Option<Timestamp>,
    /// True for a row of a snapshot: it heals state and notifies nobody.
    pub snapshot: bool,
    /// The capture lease's number.
    pub epoch: u64,
    /// Where capture found it.
    pub position: Option<Bytes>,
    /// True when the document at this very version must be taken over even by one who has another document
    /// of the same version.
    pub resync: bool,
    /// Its place in its trace, where that is kept; see [`crate::trace`].
    pub trace: Option<TraceContext>,
}

impl Event {
    /// An event that carries a full document; everything else is unset.
    #[must_use]
    pub fn new(section: Arc<str>, key: Key, version: i64, operation: Operation, document: Option<Document>) -> Self {
        Self {
            section,
            key,
            version,
            previous_version: None,
            operation,
            document,
            previous: None,
            patch: None,
            commit_time: None,
            capture_time: None,
            snapshot: false,
            epoch: 0,
            position: None,
            resync: false,
            trace: None,
        }
    }
}

/// Events and the one ack for all of them: the only thing on channels.
#[derive(Debug)]
pub struct Batch {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Resolves when every effect of these events is durable.
    pub ack: Ack,
    /// When the batch was taken in: the clock of operators.
    pub time: Timestamp,
    /// True when the input may have lost events before this batch (a pub/sub that reconnected): whoever holds
    /// copies must not trust them any more.
    pub after_loss: bool,
    /// The keyed state that becomes durable with the batch. Kept by the runtime; it outlives events that are
    /// dropped further down.
    pub(crate) state: Vec<PendingState>,
}

impl Batch {
    /// A batch of events under one ack.
    #[must_use]
    pub fn new(events: Vec<Event>, ack: Ack, time: Timestamp) -> Self {
        Self { events, ack, time, after_loss: false, state: Vec::new() }
    }

    /// Appends a later batch; both acks and both states are now due together.
    pub fn join(&mut self, mut later: Self) {
        self.events.append(&mut later.events);
        self.state.append(&mut later.state);
        self.after_loss |= later.after_loss;
        self.ack.join(later.ack);
    }

    /// The batch in pieces of `size` events, the last one with what is left, if only an empty list. Each piece holds a
    /// share of the ack; the state goes with the last, so that it is never durable before all of the batch is.
    #[must_use]
    pub fn into_pieces(mut self, size: usize) -> Vec<Self> {
        if self.events.len() < size {
            return vec![self];
        }
        let mut events = std::mem::take(&mut self.events).into_iter();
        let mut pieces = Vec::with_capacity(events.len() / size + 1);
        while events.len() >= size {
            pieces.push(self.with_events(events.by_ref().take(size).collect()));
            // Only the first piece comes right after the loss.
            self.after_loss = false;
        }
        self.events = events.collect();
        pieces.push(self);
        pieces
    }

    /// A copy for another output, with a share of the ack. State stays with the original: a stateful chain ends
    /// in one sink.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            events: self.events.clone(),
            ack: self.ack.share(),
            time: self.time,
            after_loss: self.after_loss,
            state: Vec::new(),
        }
    }

    /// The same batch with other events.
    #[must_use]
    pub fn with_events(&self, events: Vec<Event>) -> Self {
        Self { events, ..self.copy_empty() }
    }

    /// Nothing is left to do but to resolve the ack.
    pub(crate) fn is_settled(&self) -> bool {
        self.events.is_empty() && self.state.is_empty() && !self.after_loss
    }

    fn copy_empty(&self) -> Self {
        Self {
            events: Vec::new(),
            ack: self.ack.share(),
            time: self.time,
            after_loss: self.after_loss,
            state: Vec::new(),
        }
    }
}
