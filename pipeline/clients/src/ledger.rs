//! Where capture keeps its place, and who may move it: one row per captured table with the position and the number of
//! the lease (the epoch).
//!
//! Contract:
//! - At most one holder has the lease of an id at a time, by the ledger's own clock. Each taking over has a higher
//!   epoch than all before it, also after the ledger was restored from an older copy.
//! - A position is committed by the newest epoch only. A holder that was paused, and that another has followed, learns
//!   of it at its next commit or renewal, and what it published meanwhile has a lower epoch, which is refused
//!   downstream.

use async_trait::async_trait;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::{Position, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// What asking for a lease gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// It is ours.
    Held(Held),
    /// Another has it.
    HeldBy {
        /// Who.
        holder: String,
        /// How long it is still good, unless it is renewed.
        remaining: Duration,
    },
}

/// A lease that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub epoch: u64,
    /// Where the last holder was; none at first.
    pub position: Option<Position>,
}

/// What renewing or committing gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// The lease is still ours.
    Held {
        /// A snapshot that somebody asked for and that has not begun: told apart by its text.
        snapshot_request: Option<String>,
    },
    /// Another has taken over: nothing was changed, and the caller must stop capturing.
    Lost,
}

/// A row of the ledger, as `smartpulse position show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// `<pipeline>/<source>/<table>`.
    pub id: String,
    /// The number of the last lease.
    pub epoch: u64,
    /// Who holds it, where somebody does.
    pub holder: Option<String>,
    /// Where capture is.
    pub position: Option<Position>,
    /// When the row was last written.
    pub updated_at: Timestamp,
}

/// A ledger of captured tables.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Takes the lease of `id` for `term` when nobody else holds it. Taking it again as the same holder raises the
    /// epoch too.
    async fn take(&self, id: &str, holder: &str, term: Duration) -> Result<Lease>;
    /// Holds on to the lease for another `term`, and commits a position where one is given, in one step.
    async fn renew(&self, id: &str, epoch: u64, term: Duration, position: Option<&Position>) -> Result<Renewed>;
    /// Gives the lease back, so that a standby need not wait for its end. Nothing happens when it is not ours.
    async fn release(&self, id: &str, epoch: u64) -> Result<()>;
    /// Notes that a new snapshot is wanted of an id that was captured before; false when there is none such.
    async fn request_snapshot(&self, id: &str, request: &str) -> Result<bool>;
    /// Forgets a request, when it still is this one.
    async fn forget_request(&self, id: &str, request: &str) -> Result<()>;
    /// Forgets the positions of `id` and of everything below it (`id/...`), never the epochs, and says how many they
    /// were.
    async fn reset(&self, id: &str) -> Result<usize>;
    /// All rows, by id.
    async fn entries(&self) -> Result<Vec<LedgerEntry>>;
}

/// A shared ledger.
pub type SharedLedger = Arc<dyn Ledger>;

/// The ledger of a single instance, in its state store: nobody else can want the lease.
pub struct StoreLedger {
    store: Arc<dyn Store>,
}
