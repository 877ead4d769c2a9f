//! A ledger that several instances share, in memory, with faults: what a database's ledger is to capture.

use async_trait::async_trait;
use smartpulse_clients::ledger::{Held, Lease, Ledger, LedgerEntry, Renewed, next_epoch};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Position, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A shared ledger in memory. Clones are other processes' connections to the same one, with faults of their own.
#[derive(Default)]
pub struct MemoryLedger {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
    away: AtomicBool,
    hangs: AtomicBool,
    commits: AtomicUsize,
}

struct Row {
    epoch: u64,
    holder: Option<String>,
    until: Instant,
    position: Option<Position>,
    request: Option<String>,
    updated_at: Timestamp,
}

impl MemoryLedger {
    /// Another connection to the same rows.
    #[must_use]
    pub fn connect(&self) -> Self {
        Self { rows: self.rows.clone(), ..Self::default() }
    }

    /// From now on every call fails at once, or succeeds again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// From now on no call ends, or all do again.
    pub fn set_hanging(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// How many positions were committed through this connection.
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    async fn rows(&self) -> Result<MutexGuard<'_, BTreeMap<String, Row>>> {
        while self.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the ledger is away, says the test"));
        }
        Ok(self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn take(&self, id: &str, holder: &str, term: Duration) -> Result<Lease> {
        let mut rows = self.rows().await?;
        let now = Instant::now();
        let row = rows.entry(id.to_owned()).or_insert_with(|| Row {
            epoch: 0,
            holder: None,
            until: now,
            position: None,
            request: None,
            updated_at: Timestamp::now(),
        });
        if let Some(other) = row.holder.as_ref().filter(|other| *other != holder && row.until > now) {
            return Ok(Lease::HeldBy { holder: other.clone(), remaining: row.until - now });
        }
        row.epoch = next_epoch(row.epoch, Timestamp::now());
        (row.holder, row.until) = (Some(holder.to_owned()), now + term);
        Ok(Lease::Held(Held { epoch: row.epoch, position: row.position.clone() }))
    }

    async fn renew(&self, id: &str, epoch: u64, term: Duration, position: Option<&Position>) -> Result<Renewed> {
        let mut rows = self.rows().await?;
        let Some(row) = rows.get_mut(id).filter(|row| row.epoch == epoch && row.holder.is_some()) else {
            return Ok(Renewed::Lost);
        };
        row.until = Instant::now() + term;
        if let Some(position) = position {
            (row.position, row.updated_at) = (Some(position.clone()), Timestamp::now());
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Renewed::Held { snapshot_request: row.request.clone() })
    }

    async fn release(&self, id: &str, epoch: u64) -> Result<()> {
        if let Some(row) = self.rows().await?.get_mut(id).filter(|row| row.epoch == epoch) {
            row.holder = None;
        }
        Ok(())
    }

    async fn request_snapshot(&self, id: &str, request: &str) -> Result<bool> {
        let mut rows = self.rows().await?;
        let Some(row) = rows.get_mut(id) else { return Ok(false) };
        row.request = Some(request.to_owned());
        Ok(true)
    }

    async fn forget_request(&self, id: &str, request: &str) -> Result<()> {
        if let Some(row) = self.rows().await?.get_mut(id) {
            row.request.take_if(|kept| kept == request);
        }
        Ok(())
    }

    async fn reset(&self, id: &str) -> Result<usize> {
        let below = format!("{id}/");
        let mut rows = self.rows().await?;
        let named = rows.iter_mut().filter(|(kept, _)| *kept == id || kept.starts_with(&below));
        Ok(named.filter_map(|(_, row)| row.position.take()).count())
    }

    async fn entries(&self) -> Result<Vec<LedgerEntry>> {
        let rows = self.rows().await?;
        let now = Instant::now();
        let entry = |(id, row): (&String, &Row)| LedgerEntry {
            id: id.clone(),
            epoch: row.epoch,
            holder: row.holder.clone().filter(|_| row.until > now),
            position: row.position.clone(),
            updated_at: row.updated_at,
        };
        Ok(rows.iter().map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LedgerFixture, ledger_suite};
    use smartpulse_clients::ledger::SharedLedger;

    #[async_trait]
    impl LedgerFixture for MemoryLedger {
        async fn open(&self) -> SharedLedger {
            Arc::new(self.connect())
        }
    }

    #[tokio::test]
    async fn it_conforms() {
        ledger_suite(MemoryLedger::default).await;
    }
}
