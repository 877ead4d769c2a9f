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
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::{Error, Result};
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

/// The ledger of a single instance, in its state store: nobody else can want the lease, so it is always granted.
///
/// The number of the last lease of `p/s/t` is kept under `lease#p/s/t`, which resetting the position of `p/s/t` or
/// of `p/s` leaves alone; a request for a snapshot under `p/s/t#resnapshot`. One process works with them at a time: the
/// data folder's lock sees to it.
pub struct StoreLedger {
    store: Arc<dyn Store>,
}

/// What is kept of a lease.
#[derive(Serialize, Deserialize)]
struct Kept {
    epoch: u64,
    holder: Option<String>,
}

/// From when epochs count at least the seconds: a lease that is taken after an older copy of the ledger came back is
/// still above all that were given since the copy, unless there was more than one a second.
const EPOCHS_FROM: i64 = 1_704_067_200_000; // 2024-01-01

/// The number of a lease that follows `last`.
#[must_use]
pub fn next_epoch(last: u64, now: Timestamp) -> u64 {
    let seconds = u64::try_from((now.as_millis() - EPOCHS_FROM) / 1_000).unwrap_or(0);
    seconds.max(last + 1)
}

const LEASE: &str = "lease#";
const REQUEST: &str = "#resnapshot";

impl StoreLedger {
    /// The ledger in a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    async fn kept(&self, id: &str) -> Result<Option<Kept>> {
        let kept = self.store.position(&format!("{LEASE}{id}")).await?;
        Ok(kept.and_then(|kept| serde_json::from_slice(kept.as_bytes()).ok()))
    }

    async fn keep(&self, id: &str, kept: &Kept) -> Result<()> {
        let text =
            serde_json::to_vec(kept).map_err(|error| Error::fatal("a lease cannot be written").because(error))?;
        self.store.commit_position(&format!("{LEASE}{id}"), &Position::from(text)).await
    }

    async fn request(&self, id: &str) -> Result<Option<String>> {
        Ok(self.store.position(&format!("{id}{REQUEST}")).await?.map(|request| request.to_string()))
    }
}

#[async_trait]
impl Ledger for StoreLedger {
    async fn take(&self, id: &str, holder: &str, _term: Duration) -> Result<Lease> {
        let last = self.kept(id).await?.map_or(0, |kept| kept.epoch);
        let epoch = next_epoch(last, Timestamp::now());
        self.keep(id, &Kept { epoch, holder: Some(holder.to_owned()) }).await?;
        Ok(Lease::Held(Held { epoch, position: self.store.position(id).await? }))
    }

    async fn renew(&self, id: &str, epoch: u64, _term: Duration, position: Option<&Position>) -> Result<Renewed> {
        if self.kept(id).await?.is_none_or(|kept| kept.epoch != epoch || kept.holder.is_none()) {
            return Ok(Renewed::Lost);
        }
        if let Some(position) = position {
            self.store.commit_position(id, position).await?;
        }
        Ok(Renewed::Held { snapshot_request: self.request(id).await? })
    }

    async fn release(&self, id: &str, epoch: u64) -> Result<()> {
        match self.kept(id).await? {
            Some(kept) if kept.epoch == epoch => self.keep(id, &Kept { epoch, holder: None }).await,
            _ => Ok(()),
        }
    }

    async fn request_snapshot(&self, id: &str, request: &str) -> Result<bool> {
        if self.kept(id).await?.is_none() && self.store.position(id).await?.is_none() {
            return Ok(false);
        }
        self.store.commit_position(&format!("{id}{REQUEST}"), &Position::from(request.to_owned())).await?;
        Ok(true)
    }

    async fn forget_request(&self, id: &str, request: &str) -> Result<()> {
        if self.request(id).await?.as_deref() == Some(request) {
            self.store.reset_position(&format!("{id}{REQUEST}")).await?;
        }
        Ok(())
    }

    async fn reset(&self, id: &str) -> Result<usize> {
        // What lies below an id is forgotten with it: requests of its tables are no positions.
        let below = format!("{id}/");
        let stored = self.store.positions().await?;
        let count = stored
            .iter()
            .filter(|stored| !stored.id.contains('#') && (stored.id == id || stored.id.starts_with(&below)));
        let count = count.count();
        self.store.reset_position(id).await?;
        Ok(count)
    }

    async fn entries(&self) -> Result<Vec<LedgerEntry>> {
        let stored = self.store.positions().await?;
        let mut entries = Vec::new();
        for lease in &stored {
            let Some(id) = lease.id.strip_prefix(LEASE) else { continue };
            let Ok(kept) = serde_json::from_slice::<Kept>(lease.position.as_bytes()) else { continue };
            let at = stored.iter().find(|stored| stored.id == id);
            entries.push(LedgerEntry {
                id: id.to_owned(),
                epoch: kept.epoch,
                holder: kept.holder,
                position: at.map(|at| at.position.clone()),
                updated_at: at.map_or(lease.updated_at, |at| at.updated_at),
            });
        }
        Ok(entries)
    }
}
