//! The ledger of captured tables, in the database that they are in: `dbo.SmartPulseCapture`.
//!
//! Contract: that of [`Ledger`]. Each call is one round trip whose only effect is one conditional UPDATE, so that sending it
//! again after a lost answer does no harm: taking a lease again as the same holder gives a higher epoch, and all else
//! ends where it began. Terms are measured by the server's clock alone. It survives a restore of the database together with
//! the positions: those are then of another incarnation, and epochs go on above all that were ever given.

use crate::connection::Param;
use crate::database::Context;
use crate::retrying;
use crate::rows;
use crate::statements::ledger as sql;
use async_trait::async_trait;
use smartpulse_clients::ledger::{Held, Lease, Ledger, LedgerEntry, Renewed};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Position, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tiberius::{ColumnData, Row};

/// The longest term, as `DATEADD` takes it: 24 days.
const TERM_MAX_MS: i32 = i32::MAX;

/// The longest position: that of the column.
const POSITION_MAX: usize = 4_000;

/// A ledger in SQL Server.
#[derive(Debug)]
pub struct SqlServerLedger {
    cx: Arc<Context>,
}

impl SqlServerLedger {
    /// The ledger of this database. Nothing is opened.
    #[must_use]
    pub fn new(cx: Arc<Context>) -> Self {
        Self { cx }
    }

    /// One call, and its results.
    async fn call(&self, what: &'static str, sql: &str, params: &[Param]) -> Result<Vec<Vec<Row>>> {
        let start = std::time::Instant::now();
        let result = retrying!(self.cx.ledger_pool, what, c => c.query(what, sql, params).await);
        self.cx.metrics.observe(what, start);
        result
    }

    async fn rows(&self, what: &'static str, sql: &str, params: &[Param]) -> Result<Vec<Row>> {
        Ok(self.call(what, sql, params).await?.into_iter().next().unwrap_or_default())
    }
}

fn millis(term: Duration) -> Param {
    Param::int(i32::try_from(term.as_millis()).unwrap_or(TERM_MAX_MS))
}

fn epoch(epoch: u64) -> Param {
    Param::bigint(i64::try_from(epoch).unwrap_or(i64::MAX))
}

fn position(row: &Row, place: usize) -> Option<Position> {
    rows::bytes(row, place).map(|bytes| Position::from(bytes.to_vec()))
}

#[async_trait]
impl Ledger for SqlServerLedger {
    async fn take(&self, id: &str, holder: &str, term: Duration) -> Result<Lease> {
        let params = [Param::text(id), Param::text(holder), millis(term)];
        let results = self.call("lease", sql::TAKE, &params).await?;
        let mut results = results.into_iter();
        let (taken, held) = (results.next().unwrap_or_default(), results.next().unwrap_or_default());
        if let Some(row) = taken.first() {
            let epoch = rows::integer(row, 0).and_then(|epoch| u64::try_from(epoch).ok());
            let epoch = epoch.ok_or_else(|| Error::fatal(format!("the ledger's epoch of {id} is no number")))?;
            return Ok(Lease::Held(Held { epoch, position: position(row, 1) }));
        }
        let row = held.first().ok_or_else(|| Error::transient(format!("the ledger's row of {id} is gone")))?;
        let remaining = rows::integer(row, 1).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        let holder = rows::text(row, 0).unwrap_or_default().to_owned();
        Ok(Lease::HeldBy { holder, remaining: Duration::from_millis(remaining) })
    }

    async fn renew(&self, id: &str, number: u64, term: Duration, position: Option<&Position>) -> Result<Renewed> {
        if let Some(position) = position.filter(|position| position.as_bytes().len() > POSITION_MAX) {
            let length = position.as_bytes().len();
            return Err(Error::fatal(format!(
                "the position of {id} has {length} bytes, and the ledger keeps {POSITION_MAX}: is its key that long?"
            )));
        }
        let bytes = match position {
            Some(position) => Param::bytes(position.as_bytes().to_vec()),
            None => Param(ColumnData::Binary(None)),
        };
        let params = [Param::text(id), epoch(number), millis(term), bytes];
        let rows = self.rows("lease", sql::RENEW, &params).await?;
        Ok(match rows.first() {
            Some(row) => Renewed::Held { snapshot_request: rows::text(row, 0).map(str::to_owned) },
            None => Renewed::Lost,
        })
    }

    async fn release(&self, id: &str, number: u64) -> Result<()> {
        self.call("lease", sql::RELEASE, &[Param::text(id), epoch(number)]).await.map(|_| ())
    }

    async fn request_snapshot(&self, id: &str, request: &str) -> Result<bool> {
        Ok(!self.rows("ledger", sql::REQUEST, &[Param::text(id), Param::text(request)]).await?.is_empty())
    }

    async fn forget_request(&self, id: &str, request: &str) -> Result<()> {
        self.call("ledger", sql::FORGET, &[Param::text(id), Param::text(request)]).await.map(|_| ())
    }

    async fn reset(&self, id: &str) -> Result<usize> {
        let params = [Param::text(id), Param::text(format!("{id}/"))];
        Ok(self.rows("ledger", sql::RESET, &params).await?.len())
    }

    async fn entries(&self) -> Result<Vec<LedgerEntry>> {
        let found = self.rows("ledger", sql::ENTRIES, &[]).await?;
        let entry = |row: &Row| LedgerEntry {
            id: rows::text(row, 0).unwrap_or_default().to_owned(),
            epoch: rows::integer(row, 1).and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0),
            holder: rows::text(row, 2).map(str::to_owned),
            position: position(row, 3),
            updated_at: rows::time(row, 4).unwrap_or_else(Timestamp::now),
        };
        let mut entries: Vec<LedgerEntry> = found.iter().map(entry).collect();
        // By id as we compare it, not as the server's collation does.
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(entries)
    }
}
