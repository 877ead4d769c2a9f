//! What capture remembers: where each table is, the numbers of its leases, and requests for new snapshots.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::source::Committer;
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::{Position, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Under what the number of the last capture lease of a table is kept: beside the positions, so that resetting one
/// never lowers it, and by table, so that a renamed pipeline goes on counting.
pub(super) fn epoch_id(database: &str, table: &str) -> String {
    format!("epoch#{database}/{table}")
}

/// Whether a stored position is one of a captured table.
#[must_use]
pub fn is_capture_position(position: &Position) -> bool {
    Phase::from_position(position).is_some()
}

/// Takes the next number of a table's capture lease: every start has a higher one.
pub(super) async fn next_epoch(store: &dyn Store, database: &str, table: &str) -> Result<u64> {
    let id = epoch_id(database, table);
    let last = store.position(&id).await?;
    let last: u64 = last.and_then(|position| position.to_string().parse().ok()).unwrap_or(0);
    store.commit_position(&id, &Position::from((last + 1).to_string())).await?;
    Ok(last + 1)
}

/// Asks for a new snapshot of what a capture source reads: `<pipeline>/<source>`, or one table of it,
/// `<pipeline>/<source>/<table>`. A running source takes it up within a second, another at its next start.
///
/// # Errors
/// When the request cannot be stored.
pub async fn request_resnapshot(store: &dyn Store, id: &str) -> Result<()> {
    // Told apart by its time from one that was taken before.
    store.commit_position(&request_id(id), &Position::from(Timestamp::now().to_string())).await
}

pub(super) fn request_id(id: &str) -> String {
    format!("{id}#resnapshot")
}

/// Where a table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(super) enum Phase {
    /// Telling of what vanished, before rows are scanned again. The stream waits at its place.
    Sweep { stream: Text, after: Option<String> },
    /// Scanning rows behind a key, and streaming beside it.
    Snapshot { stream: Text, after: Option<String> },
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

    /// As a position of a table: its id, a line break, the phase.
    pub(super) fn to_position(&self, id: &str) -> Result<Position> {
        let phase =
            serde_json::to_string(self).map_err(|error| Error::fatal("a position cannot be written").because(error))?;
        Ok(Position::from(format!("{id}\n{phase}")))
    }
}

pub(super) async fn forget_request(store: &dyn Store, id: &str) {
    if let Err(error) = store.reset_position(&request_id(id)).await {
        tracing::warn!(error = error.chain(), "a request for a snapshot is still noted; it will be taken again");
    }
}

/// Commits the position of each table apart.
pub(super) struct CdcCommitter {
    pub(super) store: Arc<dyn Store>,
}

#[async_trait]
impl Committer for CdcCommitter {
    async fn commit(&mut self, positions: &[Position]) -> Result<()> {
        // Only the last one of each table counts, but for the sweeps that answer requests.
        let mut latest: BTreeMap<&str, &str> = BTreeMap::new();
        let mut swept: Vec<&str> = Vec::new();
        for position in positions {
            let text = std::str::from_utf8(position.as_bytes())
                .map_err(|error| Error::fatal("a position is not text").because(error))?;
            if let Some((id, phase)) = text.split_once('\n') {
                if matches!(serde_json::from_str(phase), Ok(Phase::Sweep { after: None, .. })) {
                    swept.push(id);
                }
                latest.insert(id, phase);
            }
        }
        for (id, phase) in latest {
            self.store.commit_position(id, &Position::from(phase.to_owned())).await?;
        }
        // Now, and not when they were taken: a crash in between must not lose a request.
        for id in swept {
            forget_request(self.store.as_ref(), id).await;
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
    fn a_phase_comes_back_from_its_position() {
        let phase = Phase::Snapshot { stream: Text("seq:1".into()), after: Some("k".into()) };
        let position = phase.to_position("p/s/T").unwrap();
        let text = position.to_string();
        assert!(text.starts_with("0x") || text.starts_with("p/s/T"));
        let (id, rest) = std::str::from_utf8(position.as_bytes()).unwrap().split_once('\n').unwrap();
        assert_eq!(id, "p/s/T");
        assert_eq!(Phase::from_position(&Position::from(rest.to_owned())), Some(phase));
    }
}
