//! L3: the documents that all instances share. Never needed: while it is away it is skipped, at the cost of one
//! time-out, and what could not be told to it is repaired by sweeps.

use crate::circuit::Circuit;
use crate::config::CacheConfig;
use bytes::Bytes;
use smartpulse_clients::documents::{Shared, SharedDocuments};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Versions that wait to be noted. Beyond it they are dropped: a document that should have gone is then answered until
/// the next change reaches the counter, or for [`SharedConfig::age_max`].
const NOTES_MAX: usize = 10_000;

/// Notes that go out at once.
const NOTES_AT_ONCE: usize = 256;

/// The documents that instances share.
#[derive(Clone)]
pub struct SharedConfig {
    /// Where they are.
    pub documents: Arc<dyn SharedDocuments>,
    /// How long one is answered after it was last written: 300 s to 3,600 s, as L3 is defined.
    pub age_max: Duration,
}

/// The tier as the cache sees it.
pub(crate) struct SharedTier {
    config: SharedConfig,
    section: Arc<str>,
    circuit: Arc<Circuit>,
    timeout: Duration,
    notes: mpsc::Sender<(Key, i64)>,
}

impl SharedTier {
    pub(crate) fn new(shared: SharedConfig, config: &CacheConfig) -> Self {
        let (notes, waiting) = mpsc::channel(NOTES_MAX);
        let tier = Self {
            config: shared,
            section: config.section.as_str().into(),
            circuit: Arc::new(Circuit::new(config.probe_interval, config.tier_timeout)),
            timeout: config.tier_timeout,
            notes,
        };
        // Ends with the tier, which holds the sender.
        tokio::spawn(note_all(
            waiting,
            Arc::clone(&tier.config.documents),
            Arc::clone(&tier.section),
            Arc::clone(&tier.circuit),
            tier.timeout,
        ));
        tier
    }

    /// What is shared of a key; nothing while the tier is away.
    pub(crate) async fn get(&self, key: &Key) -> Shared {
        let question = self.config.documents.get(&self.section, key, self.config.age_max);
        self.ask(question).await.unwrap_or(Shared::Nothing)
    }

    /// Offers what was read from the database.
    pub(crate) async fn fill(&self, key: &Key, version: i64, document: &Bytes) {
        // Who reads does not care whether it worked.
        let _ = self.ask(self.config.documents.fill(&self.section, key, version, document)).await;
    }

    /// Tells, soon, that a version exists.
    pub(crate) fn note(&self, key: &Key, version: i64) {
        if !self.circuit.is_open() {
            let _ = self.notes.try_send((key.clone(), version));
        }
    }

    /// The shared counters of keys.
    pub(crate) async fn counters(&self, keys: &[Key]) -> Result<Vec<Option<i64>>> {
        self.ask(self.config.documents.counters(&self.section, keys)).await
    }

    /// The documents themselves, for what is slow and rare.
    pub(crate) fn documents(&self) -> &Arc<dyn SharedDocuments> {
        &self.config.documents
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        ask(&self.circuit, self.timeout, question).await
    }
}

async fn ask<T>(circuit: &Circuit, wait: Duration, question: impl Future<Output = Result<T>>) -> Result<T> {
    if !circuit.admit(Instant::now()) {
        return Err(Error::unavailable("the shared documents did not answer before and are being skipped"));
    }
    let answer = timeout(wait, question)
        .await
        .unwrap_or_else(|_| Err(Error::unavailable("the shared documents did not answer in time")));
    match &answer {
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            if !circuit.is_open() {
                tracing::warn!(error = error.chain(), "shared documents are away: reads go to the database");
            }
            circuit.failed(Instant::now());
        }
        _ => circuit.succeeded(),
    }
    answer
}

async fn note_all(
    mut waiting: mpsc::Receiver<(Key, i64)>,
    documents: Arc<dyn SharedDocuments>,
    section: Arc<str>,
    circuit: Arc<Circuit>,
    wait: Duration,
) {
    let mut notes = Vec::new();
    while waiting.recv_many(&mut notes, NOTES_AT_ONCE).await > 0 {
        // While the tier is away nobody is answered from it either.
        let _ = ask(&circuit, wait, documents.note(&section, &notes)).await;
        notes.clear();
    }
}
