//! Sources: where events come from.
//!
//! Contract:
//! - [`Source::run`] reads, and emits batches with the position that may be committed once they are durable. It
//!   waits only inside [`SourceContext::next`], which is where shutdown, flushes and commits happen.
//! - A position reaches [`Committer::commit`] only when its batch and all batches before it were delivered. A
//!   source that starts again starts at its last committed position, so that events come at least once.
//! - Input that cannot be read is not skipped silently: it is emitted as rejected and goes to the dead letters.

use crate::ack::AckQueue;
use crate::error::{Error, Result};
use crate::event::{Batch, Event};
use crate::position::Position;
use crate::state::{DeadLetter, Origin};
use crate::telemetry::ComponentMetrics;
use crate::time::Timestamp;
use crate::topology::chain::Chain;
use async_trait::async_trait;
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// A running source.
#[async_trait]
pub trait Source: Send {
    /// Emits events until the input ends or the context says to stop.
    ///
    /// # Errors
    /// When the source cannot go on. An outage of its input is not an error: it waits and tries again.
    async fn run(self: Box<Self>, cx: &mut SourceContext) -> Result<()>;
}

/// Makes positions durable.
#[async_trait]
pub trait Committer: Send {
    /// Commits positions, given in the order of emission. May be repeated.
    ///
    /// # Errors
    /// When they could not be made durable now; the runtime tries again.
    async fn commit(&mut self, positions: &[Position]) -> Result<()>;

    /// Called once after the last commit: makes durable what was held back, and lets go of what the source held.
    ///
    /// # Errors
    /// When something could not be made durable: it comes again after the restart.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What `build` makes of a source's configuration.
pub struct BuiltSource {
    /// The reading half.
    pub source: Box<dyn Source>,
    /// The committing half; none where there is nothing to remember.
    pub committer: Option<Box<dyn Committer>>,
}

impl BuiltSource {
    /// A source that remembers nothing.
    #[must_use]
    pub fn forgetful(source: impl Source + 'static) -> Self {
        Self { source: Box::new(source), committer: None }
    }
}

/// Input that could not be read as an event.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// What it was.
    pub payload: Bytes,
    /// Why it could not be read.
    pub reason: String,
    /// The key, where it is known.
    pub key: Option<String>,
    /// Where it is handed in again.
    pub origin: Origin,
}

/// What a source emits at once.
#[derive(Debug, Default)]
pub struct Emission {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Input that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// What may be committed when all of it is durable.
    pub position: Option<Position>,
    /// See [`Batch::after_loss`].
    pub after_loss: bool,
}

/// Said by a source whose committer has ended; why it did is reported instead of it.
pub(crate) const COMMITTER_GONE: &str = "positions are not committed any more";

/// What the runtime gives a running source.
pub struct SourceContext {
    pub(crate) chain: Chain,
    pub(crate) acks: AckQueue,
    pub(crate) committer: Option<mpsc::Sender<Vec<Position>>>,
    pub(crate) shutdown: watch::Receiver<bool>,
    pub(crate) metrics: Arc<ComponentMetrics>,
    pub(crate) document_bytes_max: usize,
}

impl SourceContext {
    /// Waits for the source's next input; nothing when the source is to stop.
    ///
    /// The future is dropped when the source is to stop, so it must be cancel-safe.
    ///
    /// # Errors
    /// When a batch could not be delivered, so that going on would lose it.
    pub async fn next<T>(&mut self, input: impl Future<Output = T>) -> Result<Option<T>> {
        tokio::pin!(input);
        loop {
            self.settle().await?;
            let deadline = self.chain.deadline();
            tokio::select! {
                biased;
                () = stopped(&mut self.shutdown) => return Ok(None),
                () = self.acks.resolution() => {}
                // Before the input: a window's deadline holds even when the input never pauses.
                () = sleep_until(deadline) => self.chain.flush_due().await?,
                value = &mut input => return Ok(Some(value)),
                () = self.chain.sink_idle() => self.chain.flush_idle().await?,
            }
        }
    }

    /// Sends events down the chain, waiting while it is full.
    ///
    /// # Errors
    /// When the chain is broken: the topology is stopping with an error.
    pub async fn emit(&mut self, emission: Emission) -> Result<()> {
        let Emission { mut events, unreadable, position, after_loss } = emission;
        let now = Timestamp::now();
        let mut letters: Vec<DeadLetter> =
            unreadable.into_iter().map(|input| self.chain.letter_of_input(input, now)).collect();
        let limit = self.document_bytes_max;
        events.retain(|event| {
            let size = event.document.as_ref().map_or(0, |document| document.bytes().len());
            if size > limit {
                let reason = format!(
                    "the document has {size} bytes, more than runtime.document_bytes_max ({limit}); raise it or shrink the row"
                );
                letters.push(self.chain.letter_of_event(event, &reason, now));
            }
            size <= limit
        });
        self.metrics.events_out.inc_by(events.len() as u64);
        if let Some(commit) = events.last().and_then(|event| event.commit_time) {
            self.metrics.lag_seconds.set(now.millis_since(commit) as f64 / 1e3);
        }
        self.chain.put_dead_letters(letters).await?;
        let ack = self.acks.issue(position);
        let mut batch = Batch::new(events, ack, now);
        batch.after_loss = after_loss;
        let begun = self.metrics.spans.as_ref().map(|spans| (spans, spans.arrive(&mut batch.events)));
        self.chain.run(batch).await?;
        if let Some((spans, begun)) = begun {
            spans.end(begun, |_, _| false);
        }
        self.settle().await
    }

    /// The source's metrics, for lag that only it can know.
    #[must_use]
    pub fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }

    /// Sends what has settled to the committer.
    async fn settle(&mut self) -> Result<()> {
        let (positions, failed) = match self.acks.settled() {
            Ok(positions) => (positions, false),
            Err(positions) => (positions, true),
        };
        if let (Some(committer), false) = (&self.committer, positions.is_empty()) {
            committer.send(positions).await.map_err(|_| Error::fatal(COMMITTER_GONE))?;
        }
        if failed {
            return Err(Error::fatal("a batch was not delivered; stopping, so that it comes again after the restart"));
        }
        Ok(())
    }

    /// Flushes the chain at the end of the input and waits until everything is durable and committed.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.chain.end().await?;
        // Before the acks are waited for: a stage behind a channel lets go of a window only when its input ends.
        self.chain.hang_up();
        loop {
            self.settle().await?;
            if self.acks.in_flight() == 0 {
                return Ok(());
            }
            self.acks.resolution().await;
        }
    }
}

/// Waits until the sources are told to stop.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // The topology being gone is a reason to stop as well.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Waits for a point in time; for ever when there is none.
pub(crate) async fn sleep_until(deadline: Option<Timestamp>) {
    match deadline {
        Some(deadline) => {
            let wait = deadline.millis_since(Timestamp::now());
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}
