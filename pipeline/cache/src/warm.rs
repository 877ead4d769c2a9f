//! The first fill: rows are scanned into L1 before readers come.

use crate::cache::{Cache, Level};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::{Error, Result};
use std::sync::atomic::Ordering;

/// How many rows one page of the scan has: some hundred kilobytes, some milliseconds.
const PAGE_ROWS: usize = 1_000;

/// How full L1 is filled, in tenths: warming must not push out what readers or patches brought meanwhile.
const FULL_TENTHS: u64 = 9;

impl Cache {
    /// Scans at most `limit` rows into L1 and gives how many it read. Changes that arrive meanwhile win over
    /// what was scanned. May be called again, not twice at a time.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer; `Rejected` if a scan is running already.
    pub async fn warm(&self, limit: usize) -> Result<usize> {
        let inner = &*self.inner;
        let mut after: Option<Key> = None;
        let mut read = 0;
        while read < limit {
            let watch =
                inner.flights.watch_scan().ok_or_else(|| Error::rejected("the cache is being warmed already"))?;
            let generation = inner.generation();
            let rows = (limit - read).min(PAGE_ROWS);
            let page = inner.ask(inner.database.scan(&inner.config.table, after.as_deref(), rows)).await?;
            let last = page.len() < rows;
            read += page.len();
            after = page.last().map(|row| row.key.clone());
            if watch.overflowed() {
                tracing::debug!(section = inner.config.section, "too much changed while a page was read to keep it");
            } else {
                for row in page.into_iter().filter(|row| row.unreadable.is_none()) {
                    let key = row.key.clone();
                    inner.fill(&key, Some(row), Level::L4, generation, |_| inner.flights.floor(&key))?;
                }
            }
            let (_, bytes) = inner.documents.size();
            if last || bytes >= inner.config.l1_bytes_max / 10 * FULL_TENTHS {
                break;
            }
        }
        inner.warm.store(true, Ordering::Release);
        Ok(read)
    }

    /// True once [`Cache::warm`] has come to its end.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.inner.warm.load(Ordering::Acquire)
    }
}
