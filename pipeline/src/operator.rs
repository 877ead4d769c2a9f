//! Operators: synchronous steps between a source and its sinks.
//!
//! Contract:
//! - No I/O, no clock, no waiting: time comes with the batch. What an operator holds back (a `batch` window) it
//!   declares by [`Operator::deadline`], and the runtime calls [`Operator::flush`].
//! - Order is kept: events of one key leave in the order in which they came.
//! - The ack of a batch leaves with its events. An event that is dropped on purpose is counted through
//!   [`Output::drop_event`]; the batch goes on without it, even when it is empty, because its state and its ack
//!   are still due.
//! - Keyed state is declared, not fetched: before `process` the runtime restores every key of the batch that
//!   [`Keyed::holds`] denies, all in one round trip.

use crate::event::{Batch, Event, Key};
use crate::state::KeyState;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why an operator is asked to let go of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Its deadline has come.
    Deadline,
    /// Whatever comes after it has nothing to do.
    SinkIdle,
    /// The input has ended.
    End,
}

/// A running operator.
pub trait Operator: Send + Sync {
    /// Handles a batch and puts what follows from it on `out`.
    fn process(&mut self, batch: Batch, out: &mut Output);

    /// When [`Flush::Deadline`] is due, if anything is held.
    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    /// True while something is held that should go out as soon as everything behind has nothing to do. Such an
    /// operator lets go of it at [`Flush::SinkIdle`].
    fn eager(&self) -> bool {
        false
    }

    /// Lets go of what is held.
    fn flush(&mut self, _why: Flush, _out: &mut Output) {}

    /// The operator's keyed state, if it has any.
    fn keyed(&mut self) -> Option<&mut dyn Keyed> {
        None
    }
}

/// Memory per section and key that the runtime fills.
pub trait Keyed {
    /// Whether the key needs no restoring.
    fn holds(&self, section: &str, key: &str) -> bool;
    /// Takes over what was durable of the key; nothing when it is unknown.
    fn restore(&mut self, section: &Arc<str>, key: &Key, state: Option<&KeyState>);
}

/// The output port that every operator but `fan_out` uses.
pub const DEFAULT_PORT: usize = 0;

/// What an operator has done with a batch.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) batches: Vec<(usize, Batch)>,
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    pub(crate) noted: BTreeMap<&'static str, u64>,
    pub(crate) rejected: Vec<(Event, String)>,
}

impl Output {
    /// Passes a batch on.
    pub fn emit(&mut self, batch: Batch) {
        self.batches.push((DEFAULT_PORT, batch));
    }

    /// Passes a batch on through a port, by its place in [`crate::registry::OperatorConfig::ports`].
    pub fn emit_to(&mut self, port: usize, batch: Batch) {
        self.batches.push((port, batch));
    }

    /// Counts an event that was dropped on purpose, by reason.
    pub fn drop_event(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// Counts something worth knowing that dropped nothing, such as a gap.
    pub fn note(&mut self, what: &'static str) {
        *self.noted.entry(what).or_default() += 1;
    }

    /// Sends an event to the dead letters with the reason.
    pub fn reject(&mut self, event: Event, reason: String) {
        self.rejected.push((event, reason));
    }

    /// The batches that were passed on, for tests of operators.
    #[must_use]
    pub fn into_batches(self) -> Vec<Batch> {
        self.batches.into_iter().map(|(_, batch)| batch).collect()
    }

    /// Why events were refused, for tests of operators.
    #[must_use]
    pub fn rejections(&self) -> Vec<&str> {
        self.rejected.iter().map(|(_, reason)| reason.as_str()).collect()
    }

    /// How many events were dropped for a reason, for tests of operators.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> u64 {
        self.dropped.get(reason).copied().unwrap_or(0)
    }

    /// How often something was noted, for tests of operators.
    #[must_use]
    pub fn noted(&self, what: &str) -> u64 {
        self.noted.get(what).copied().unwrap_or(0)
    }
}
