//! What capture remembers: where each table is, and requests for new snapshots.

use super::Table;
use super::lease::Order;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use smartpulse_clients::ledger::Ledger;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::source::Committer;
use smartpulse_pipeline::{Position, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Asks for a new snapshot of what a capture source reads: `<pipeline>/<source>`, or one table of it,
/// `<pipeline>/<source>/<table>`; says of how many tables. A running source takes it up within about a second (a third
/// of its lease), another at its next start.
///
/// # Errors
/// When the request cannot be stored.
pub async fn request_resnapshot(ledger: &dyn Ledger, id: &str) -> Result<usize> {
    // Told apart by its time from one that was taken before.
    let request = Timestamp::now().to_string();
    let below = format!("{id}/");
    let mut tables = 0;
    for entry in ledger.entries().await? {
        if (entry.id == id || entry.id.starts_with(&below)) && ledger.request_snapshot(&entry.id, &request).await? {
            tables += 1;
        }
    }
    Ok(tables)
}

/// Where a table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(super) enum Phase {
    /// Telling of what vanished, before rows are scanned again, and streaming beside it.
    Sweep { stream: Text, after: Option<String> },
    /// Scanning rows behind a key, and streaming beside it.
    Snapshot { stream: Text, after: Option<String> },
    /// After the scan of a table without tombstones: telling of remembered keys that are not there any more, and
    /// streaming beside it.
    Vanish { stream: Text, after: Option<String> },
    /// Streaming from here.
    Stream { stream: Text },
}

/// A position of the database as text in ours, so that `position show` can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn of(position: &Position) -> Self {
        Self(match std::str::from_utf8(position.as_bytes()) {
            Ok(text) if !text.starts_with("0x") => text.to_owned(),
            _ => position.as_bytes().iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        })
    }

    pub(super) fn position(&self) -> Position {
        let hex = self.0.strip_prefix("0x").and_then(|digits| {
            let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
            pairs.collect::<Option<Vec<u8>>>()
        });
        match hex {
            Some(bytes) => Position::from(bytes),
            None => Position::from(self.0.clone()),
        }
    }
}

impl Phase {
    pub(super) fn from_position(position: &Position) -> Option<Self> {
        serde_json::from_slice(position.as_bytes()).ok()
    }

    /// The place of the stream.
    pub(super) fn stream(&self) -> &Text {
        match self {
            Self::Sweep { stream, .. }
            | Self::Snapshot { stream, .. }
            | Self::Vanish { stream, .. }
            | Self::Stream { stream } => stream,
        }
    }

    /// The same place with the stream elsewhere.
    pub(super) fn with_stream(mut self, place: Text) -> Self {
        match &mut self {
            Self::Sweep { stream, .. }
            | Self::Snapshot { stream, .. }
            | Self::Vanish { stream, .. }
            | Self::Stream { stream } => *stream = place,
        }
        self
    }

    /// As the ledger keeps it.
    pub(super) fn to_position(&self) -> Result<Position> {
        let phase =
            serde_json::to_string(self).map_err(|error| Error::fatal("a position cannot be written").because(error))?;
        Ok(Position::from(phase))
    }
}

/// What is committed of one table when an emission is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    /// The number of the lease that it was captured under.
    pub(super) epoch: u64,
    /// The emission's number among those of the table.
    pub(super) sequence: u64,
    /// The phase, as the ledger keeps it.
    pub(super) phase: Position,
}

impl Commit {
    /// As a position of the source: the table's name, the numbers and the phase, by spaces.
    pub(super) fn to_position(&self, table: &str) -> Position {
        let mut bytes = format!("{table} {} {} ", self.epoch, self.sequence).into_bytes();
        bytes.extend_from_slice(self.phase.as_bytes());
        Position::from(bytes)
    }

    pub(super) fn from_position(position: &Position) -> Option<(&str, Self)> {
        let text = std::str::from_utf8(position.as_bytes()).ok()?;
        let mut parts = text.splitn(4, ' ');
        let table = parts.next()?;
        let (epoch, sequence) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((table, Self { epoch, sequence, phase: Position::from(parts.next()?.to_owned()) }))
    }
}

/// Hands the position of each table to its keeper, after the table's memory.
pub(super) struct CdcCommitter {
    pub(super) tables: BTreeMap<String, Arc<Table>>,
    pub(super) orders: Arc<watch::Sender<Order>>,
    pub(super) keepers: Vec<JoinHandle<()>>,
}

#[async_trait]
impl Committer for CdcCommitter {
    async fn commit(&mut self, positions: &[Position]) -> Result<()> {
        // Only the last one of each table counts.
        let mut latest: BTreeMap<&str, Commit> = BTreeMap::new();
        for position in positions {
            let (table, commit) = Commit::from_position(position)
                .ok_or_else(|| Error::fatal(format!("{position} is no position of a captured table")))?;
            latest.insert(table, commit);
        }
        for (name, commit) in latest {
            let Some(table) = self.tables.get(name) else { continue };
            if let Some(memory) = &table.memory {
                memory.commit(commit.sequence).await?;
            }
            table.lease.commit(commit);
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.orders.send_replace(Order::Close);
        for keeper in self.keepers.drain(..) {
            keeper.await.map_err(|panic| Error::fatal("the keeper of a capture lease panicked").because(panic))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_any_bytes_come_back_from_their_text() {
        for bytes in [&b"seq:12"[..], &[0, 1, 255], b"0xyz", b""] {
            let position = Position::from(bytes.to_vec());
            assert_eq!(Text::of(&position).position(), position);
        }
    }

    #[test]
    fn a_phase_and_a_commit_come_back_from_their_positions() {
        let phase = Phase::Snapshot { stream: Text("seq:1".into()), after: Some("k k".into()) };
        let kept = phase.to_position().unwrap();
        assert_eq!(kept.to_string(), r#"{"phase":"snapshot","stream":"seq:1","after":"k k"}"#);
        assert_eq!(Phase::from_position(&kept), Some(phase));
        let commit = Commit { epoch: 7, sequence: 12, phase: kept };
        let position = commit.to_position("Forecasts");
        assert_eq!(Commit::from_position(&position), Some(("Forecasts", commit)));
        assert_eq!(Commit::from_position(&Position::from("Forecasts 7 x {}")), None);
    }
}
