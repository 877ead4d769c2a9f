//! The task of a sink: write, retry, set aside, make state durable, resolve the ack. In this order.

use super::chain::{Desk, Gate};
use super::retry::{Backoff, RETRY_AFTER_MAX, until_durable};
use crate::ack::Ack;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Batch, Event};
use crate::message::decode_event;
use crate::sink::Sink;
use crate::state::{DeadLetter, KeyState, Origin, PendingState, chain_name};
use crate::time::Timestamp;
use crate::trace;
use smartpulse_config::RetryPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often a sink looks for dead letters that were asked to be replayed: a person waits for it.
const REPLAY_POLL: Duration = Duration::from_secs(1);

/// Letters that are taken in again at once.
const REPLAYS_MAX: usize = 100;

pub(crate) struct SinkTask {
    pub sink: Box<dyn Sink>,
    pub receiver: mpsc::Receiver<Batch>,
    pub gate: Arc<Gate>,
    pub desk: Desk,
    pub policy: RetryPolicy,
    /// For a sink that only cares for the newest version of a key: where the keyed state before it is kept.
    pub state_chains: Vec<Arc<str>>,
}

impl SinkTask {
    pub async fn run(mut self) -> Result<()> {
        let mut replay = tokio::time::interval(REPLAY_POLL);
        replay.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // First, or a sink that always has something to do would never come to it.
                _ = replay.tick(), if self.desk.durable => self.replay().await?,
                batch = self.receiver.recv() => match batch {
                    Some(batch) => {
                        self.desk.metrics.queue_batches.set(self.receiver.len() as i64);
                        self.handle(batch).await?;
                        self.gate.leave();
                    }
                    None => return self.sink.close().await,
                },
            }
        }
    }

    async fn handle(&mut self, mut batch: Batch) -> Result<()> {
        let started = Instant::now();
        let begun = trace::begin(self.desk.metrics.spans.as_ref(), &mut batch);
        let metrics = &self.desk.metrics;
        metrics.events_in.inc_by(batch.events.len() as u64);
        metrics.batch_events.observe(batch.events.len() as f64);
        let letters =
            if batch.events.is_empty() && !batch.after_loss { Vec::new() } else { self.write(&batch).await? };
        self.desk.metrics.events_out.inc_by((batch.events.len() - letters.len()) as u64);
        if let (Some(spans), Some(begun)) = (&self.desk.metrics.spans, begun) {
            let of = |letter: &DeadLetter, key: &str, version| {
                letter.key.as_deref() == Some(key) && letter.version == Some(version)
            };
            spans.end(begun, |key, version| letters.iter().any(|letter| of(letter, key, version)));
        }
        self.set_aside(letters).await?;
        self.commit_state(&batch.state).await?;
        batch.ack.delivered();
        self.desk.metrics.latency_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn set_aside(&mut self, letters: Vec<DeadLetter>) -> Result<()> {
        self.desk.metrics.dead_letters.inc_by(letters.len() as u64);
        self.desk.put(letters).await
    }

    async fn commit_state(&mut self, pending: &[PendingState]) -> Result<()> {
        let mut chains: BTreeMap<(&str, &str), Vec<KeyState>> = BTreeMap::new();
        for entry in pending {
            chains.entry((&entry.chain, &entry.section)).or_default().push(entry.state.clone());
        }
        for ((chain, section), states) in chains {
            let name = chain_name(chain, section);
            until_durable("keyed state", || self.desk.store.commit_state(&name, &states)).await?;
        }
        Ok(())
    }

    /// Whether a later version of the event's key has gone through already.
    async fn is_superseded(&mut self, event: &Event) -> Result<bool> {
        let keys = [event.key.clone()];
        for chain in &self.state_chains {
            let name = chain_name(chain, &event.section);
            let states = until_durable("keyed state", || self.desk.store.load_state(&name, &keys)).await?;
            if states.iter().flatten().any(|state| state.version > event.version) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a batch and gives the letters of the events that were refused.
    async fn write(&mut self, batch: &Batch) -> Result<Vec<DeadLetter>> {
        match self.attempt(batch, Tries::Policy).await? {
            Attempt::Written(letters) => Ok(letters),
            // One event may be at fault for all: each gets its own chance. When the first alone does not get through
            // either, the rest gets one try each until one does: a sink that is out of order costs two policies, not
            // one for every event.
            Attempt::Refused(..) if batch.events.len() > 1 => {
                let mut letters = Vec::new();
                let mut tries = Tries::Policy;
                for event in &batch.events {
                    let single = Batch::new(vec![event.clone()], Ack::none(), batch.time);
                    match self.attempt(&single, tries).await? {
                        Attempt::Written(more) => {
                            tries = Tries::Policy;
                            letters.extend(more);
                        }
                        Attempt::Refused(error, attempts) => {
                            // A refusal is an answer: only a sink that keeps failing is out of order.
                            tries = if error.kind() == ErrorKind::Transient { Tries::One } else { Tries::Policy };
                            letters.extend(self.letters(&single, &error.chain(), attempts));
                        }
                    }
                }
                Ok(letters)
            }
            Attempt::Refused(error, attempts) => Ok(self.letters(batch, &error.chain(), attempts)),
        }
    }

    fn letters(&self, batch: &Batch, reason: &str, attempts: u32) -> Vec<DeadLetter> {
        batch.events.iter().map(|event| self.letter(event, reason, attempts)).collect()
    }

    fn letter(&self, event: &Event, reason: &str, attempts: u32) -> DeadLetter {
        self.desk.letter(&self.desk.component, Origin::Sink, event, reason, attempts, Timestamp::now())
    }

    /// Tries as often as `tries` says. An outage does not count as a try: it is waited for.
    async fn attempt(&mut self, batch: &Batch, tries: Tries) -> Result<Attempt> {
        let mut backoff = Backoff::new(&self.policy);
        let mut outage: Option<Instant> = None;
        loop {
            let error = match self.sink.write(batch).await {
                Ok(rejected) => {
                    if let Some(since) = outage {
                        tracing::info!(component = %self.desk.component, outage = ?since.elapsed(), "sink recovered");
                    }
                    let letters = rejected
                        .iter()
                        .filter_map(|refused| {
                            let event = batch.events.get(refused.index)?;
                            Some(self.letter(event, &refused.reason, backoff.attempts()))
                        })
                        .collect();
                    return Ok(Attempt::Written(letters));
                }
                Err(error) => error,
            };
            let delay = match error.kind() {
                ErrorKind::Fatal => return Err(self.fatal(error)),
                ErrorKind::Rejected => return Ok(Attempt::Refused(error, backoff.attempts())),
                ErrorKind::Transient => match tries.delay(&mut backoff) {
                    Some(delay) => delay,
                    None => return Ok(Attempt::Refused(error, backoff.attempts())),
                },
                ErrorKind::Unavailable => {
                    if outage.is_none() {
                        tracing::warn!(component = %self.desk.component, error = error.chain(), "sink is away; waiting for it");
                        outage = Some(Instant::now());
                    }
                    backoff.outage_delay()
                }
            };
            let delay = delay.max(error.least_wait().min(RETRY_AFTER_MAX));
            self.desk.metrics.retries.inc();
            // What waits behind an outage is told while it lasts.
            self.desk.metrics.queue_batches.set(self.receiver.len() as i64);
            tracing::debug!(component = %self.desk.component, error = error.chain(), ?delay, "retrying");
            tokio::time::sleep(delay).await;
        }
    }

    fn fatal(&self, error: Error) -> Error {
        Error::fatal(format!("sink {} of pipeline {} failed", self.desk.component, self.desk.pipeline)).because(error)
    }

    /// Takes in dead letters that someone asked to replay.
    async fn replay(&mut self) -> Result<()> {
        let (pipeline, component) = (self.desk.pipeline.clone(), self.desk.component.clone());
        let requested = match self.desk.store.requested_replays(&pipeline, &component, REPLAYS_MAX).await {
            Ok(requested) => requested,
            Err(error) => {
                // Not worth stopping for: the next look comes in a second.
                tracing::warn!(error = error.chain(), "cannot look for dead letters to replay");
                return Ok(());
            }
        };
        for stored in requested.into_iter().filter(|stored| stored.letter.origin == Origin::Sink) {
            let event = match decode_event(&stored.letter.payload) {
                Ok(event) => event,
                Err(error) => {
                    let letter = DeadLetter { reason: error.chain(), ..stored.letter };
                    self.set_aside(vec![letter]).await?;
                    continue;
                }
            };
            if self.is_superseded(&event).await? {
                tracing::info!(%component, id = stored.id, key = %event.key, "dead letter superseded by a later version");
                let done = [stored.id];
                until_durable("dead letters", || self.desk.store.remove_dead_letters(&done)).await?;
                continue;
            }
            let batch = Batch::new(vec![event], Ack::none(), Timestamp::now());
            self.desk.metrics.events_in.inc();
            let letters = self.write(&batch).await?;
            if letters.is_empty() {
                self.desk.metrics.events_out.inc();
                let done = [stored.id];
                until_durable("dead letters", || self.desk.store.remove_dead_letters(&done)).await?;
                tracing::info!(component = %self.desk.component, id = stored.id, "dead letter replayed");
            } else {
                self.set_aside(letters).await?;
            }
        }
        Ok(())
    }
}

/// How often a write that fails for a moment is tried.
#[derive(Clone, Copy)]
enum Tries {
    /// As often as the sink's policy says.
    Policy,
    One,
}

impl Tries {
    /// The wait before the next try, or none when it was the last.
    fn delay(self, backoff: &mut Backoff<'_>) -> Option<Duration> {
        match self {
            Self::Policy => backoff.next_delay(),
            Self::One => None,
        }
    }
}

enum Attempt {
    Written(Vec<DeadLetter>),
    Refused(Error, u32),
}
