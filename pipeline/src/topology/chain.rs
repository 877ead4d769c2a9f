//! A linear run of operators, called inline in the task that feeds it.
//!
//! A chain ends in channels: to sinks, or to another stage where the graph merges or runs in lanes.
//! Sending waits while a channel is full; that is all the back-pressure there is, and all that is needed.

use crate::error::{Error, Result};
use crate::event::{Batch, Event, Key};
use crate::message::encode_event;
use crate::operator::{Flush, Operator, Output};
use crate::source::Unreadable;
use crate::state::{DeadLetter, KeyState, Origin, PendingState, Store, chain_name};
use crate::telemetry::ComponentMetrics;
use crate::time::Timestamp;
use crate::trace;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, mpsc};

/// Where a batch goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// An operator of this chain.
    Node(usize),
    /// A channel out of this chain.
    Channel(usize),
}

/// An operator in its place.
pub(crate) struct Node {
    pub component: Arc<str>,
    pub operator: Box<dyn Operator>,
    pub metrics: Arc<ComponentMetrics>,
    /// By port, where its batches go.
    pub outputs: Vec<Vec<Target>>,
    /// Under what the operator's keyed state is kept, `<pipeline>/<operator>`: directly connected stateful operators
    /// share that of the first.
    pub state_chain: Option<Arc<str>>,
    /// True for the first one of those: what leaves it is what becomes durable with the ack.
    pub captures_state: bool,
}

/// A channel to a stage, in as many lanes as the stage has.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub lanes: Vec<Lane>,
}

/// One lane of a channel.
#[derive(Clone)]
pub(crate) struct Lane {
    pub sender: mpsc::Sender<Batch>,
    pub gate: Arc<Gate>,
}

/// Counts the batches that are in a channel or being handled behind it, and tells when there are none.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pending: AtomicUsize,
    idle: Notify,
}

impl Gate {
    fn enter(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// A batch has been handled.
    pub fn leave(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// The number of batches behind the gate.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    async fn until_idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.pending() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Where events that go wrong are described.
#[derive(Clone)]
pub(crate) struct Desk {
    pub pipeline: Arc<str>,
    pub component: Arc<str>,
    pub store: Arc<dyn Store>,
    pub metrics: Arc<ComponentMetrics>,
    /// False for a run that starts fresh: it keeps its state in memory, and has no dead letters to take in again.
    pub durable: bool,
}

impl Desk {
    /// The letter of an event that `component` refused, a sink or an operator as `origin` says.
    pub fn letter(
        &self,
        component: &str,
        origin: Origin,
        event: &Event,
        reason: &str,
        attempts: u32,
        time: Timestamp,
    ) -> DeadLetter {
        DeadLetter {
            pipeline: self.pipeline.to_string(),
            component: component.to_owned(),
            reason: reason.to_owned(),
            attempts,
            section: Some(event.section.to_string()),
            key: Some(event.key.to_string()),
            version: Some(event.version),
            operation: Some(event.operation),
            time,
            origin: if self.durable { origin } else { Origin::Run },
            payload: encode_event(event),
        }
    }

    /// Stores letters durably, waiting while the store is away: an event is never lost between two homes.
    pub async fn put(&self, letters: Vec<DeadLetter>) -> Result<()> {
        let Some(letter) = letters.first() else { return Ok(()) };
        // One line for all of them: a file of bad lines must not become a log of as many.
        tracing::warn!(
            component = letter.component,
            count = letters.len(),
            key = letter.key,
            version = letter.version,
            reason = letter.reason,
            "set aside (the first is described); see `smartpulse dlq list`"
        );
        super::retry::until_durable("dead letters", || self.store.put_dead_letters(&letters)).await
    }
}

/// The run of operators behind one input.
pub(crate) struct Chain {
    pub desk: Desk,
    pub nodes: Vec<Node>,
    pub entry: Vec<Target>,
    pub outlets: Vec<Outlet>,
    /// Reused for every call of an operator.
    output: Output,
}

impl Chain {
    pub fn new(desk: Desk, nodes: Vec<Node>, entry: Vec<Target>, outlets: Vec<Outlet>) -> Self {
        Self { desk, nodes, entry, outlets, output: Output::default() }
    }

    /// Runs a batch down the chain.
    pub async fn run(&mut self, batch: Batch) -> Result<()> {
        let mut work = VecDeque::new();
        spread(batch, &self.entry, &mut work);
        self.work_off(work).await
    }

    async fn work_off(&mut self, mut work: VecDeque<(Target, Batch)>) -> Result<()> {
        while let Some((target, batch)) = work.pop_front() {
            match target {
                Target::Node(index) => {
                    let mut batch = batch;
                    self.restore(index, &batch).await?;
                    let node = &mut self.nodes[index];
                    node.metrics.events_in.inc_by(batch.events.len() as u64);
                    node.metrics.batch_events.observe(batch.events.len() as f64);
                    let mut output = std::mem::take(&mut self.output);
                    let begun = trace::begin(node.metrics.spans.as_ref(), &mut batch);
                    let started = std::time::Instant::now();
                    node.operator.process(batch, &mut output);
                    node.metrics.latency_seconds.observe(started.elapsed().as_secs_f64());
                    if let (Some(spans), Some(begun)) = (&node.metrics.spans, begun) {
                        spans.end(begun, |_, _| false);
                    }
                    self.collect(index, output, &mut work).await?;
                }
                Target::Channel(index) => self.send(index, batch).await?,
            }
        }
        Ok(())
    }

    /// Takes over what an operator put out.
    async fn collect(&mut self, index: usize, mut output: Output, work: &mut VecDeque<(Target, Batch)>) -> Result<()> {
        let node = &self.nodes[index];
        for (reason, count) in std::mem::take(&mut output.dropped) {
            node.metrics.drop_events(reason, count);
        }
        for (what, count) in std::mem::take(&mut output.noted) {
            node.metrics.note(what, count);
        }
        if !output.rejected.is_empty() {
            let letters: Vec<DeadLetter> = output
                .rejected
                .drain(..)
                .map(|(event, reason)| {
                    self.desk.letter(&node.component, Origin::Operator, &event, &reason, 1, Timestamp::now())
                })
                .collect();
            node.metrics.dead_letters.inc_by(letters.len() as u64);
            self.desk.put(letters).await?;
        }
        let node = &self.nodes[index];
        for (port, mut batch) in output.batches.drain(..) {
            // Two documents under one version: somebody writes past the triggers. One line for a batch.
            if node.captures_state
                && let Some(event) = batch.events.iter().find(|event| event.resync)
            {
                tracing::warn!(
                    component = %node.component,
                    section = %event.section,
                    key = %event.key,
                    version = event.version,
                    "a version came again with another document, which is taken over; does something write past the triggers?"
                );
            }
            node.metrics.events_out.inc_by(batch.events.len() as u64);
            if let (true, true, Some(chain)) = (self.desk.durable, node.captures_state, &node.state_chain) {
                batch.state.extend(batch.events.iter().map(|event| state_of(chain, event)));
            }
            match node.outputs.get(port) {
                Some(targets) => spread(batch, targets, work),
                None => batch.ack.delivered(),
            }
        }
        self.output = output;
        Ok(())
    }

    /// Restores the keyed state that an operator lacks for a batch, in one round trip.
    async fn restore(&mut self, index: usize, batch: &Batch) -> Result<()> {
        let node = &mut self.nodes[index];
        let (true, Some(chain)) = (self.desk.durable, &node.state_chain) else { return Ok(()) };
        let Some(keyed) = node.operator.keyed() else { return Ok(()) };
        let mut missing: BTreeMap<Arc<str>, Vec<Key>> = BTreeMap::new();
        for event in &batch.events {
            if !keyed.holds(&event.section, &event.key) {
                missing.entry(event.section.clone()).or_default().push(event.key.clone());
            }
        }
        let chain = chain.clone();
        for (section, mut keys) in missing {
            keys.sort_unstable();
            keys.dedup();
            let name = chain_name(&chain, &section);
            let states =
                super::retry::until_durable("keyed state", || self.desk.store.load_state(&name, &keys)).await?;
            // Borrowed anew: the operator must not be borrowed across the wait.
            if let Some(keyed) = self.nodes[index].operator.keyed() {
                for (key, state) in keys.iter().zip(&states) {
                    keyed.restore(&section, key, state.as_ref());
                }
            }
        }
        Ok(())
    }

    async fn send(&self, index: usize, batch: Batch) -> Result<()> {
        let outlet = &self.outlets[index];
        if batch.is_settled() {
            batch.ack.delivered();
            return Ok(());
        }
        if let [lane] = outlet.lanes.as_slice() {
            return lane.send(batch).await;
        }
        for (lane, part) in outlet.lanes.iter().zip(split_by_key(batch, outlet.lanes.len())) {
            if part.is_settled() {
                part.ack.delivered();
            } else {
                lane.send(part).await?;
            }
        }
        Ok(())
    }

    /// When an operator of the chain wants to be flushed.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.nodes.iter().filter_map(|node| node.operator.deadline()).min()
    }

    /// Flushes the operators whose deadline has come.
    pub async fn flush_due(&mut self) -> Result<()> {
        let now = Timestamp::now();
        for index in 0..self.nodes.len() {
            if self.nodes[index].operator.deadline().is_some_and(|deadline| deadline <= now) {
                self.flush(index, Flush::Deadline).await?;
            }
        }
        Ok(())
    }

    /// Resolves when something is held that could go out at once because everything behind is idle.
    pub async fn sink_idle(&self) {
        if !self.nodes.iter().any(|node| node.operator.eager()) {
            return std::future::pending().await;
        }
        for outlet in &self.outlets {
            for lane in &outlet.lanes {
                lane.gate.until_idle().await;
            }
        }
    }

    /// Flushes what is held for a sink that has nothing to do.
    pub async fn flush_idle(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            if self.nodes[index].operator.eager() {
                self.flush(index, Flush::SinkIdle).await?;
            }
        }
        Ok(())
    }

    /// Lets go of the channels: what is behind them ends when it has handled what it was given.
    pub fn hang_up(&mut self) {
        self.outlets.clear();
    }

    /// Flushes everything, in order: what an operator lets go passes through those after it first.
    pub async fn end(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            self.flush(index, Flush::End).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, index: usize, why: Flush) -> Result<()> {
        let mut output = std::mem::take(&mut self.output);
        self.nodes[index].operator.flush(why, &mut output);
        let mut work = VecDeque::new();
        self.collect(index, output, &mut work).await?;
        self.work_off(work).await
    }

    /// The letter of input that could not be read.
    pub fn letter_of_input(&self, input: Unreadable, time: Timestamp) -> DeadLetter {
        DeadLetter {
            pipeline: self.desk.pipeline.to_string(),
            component: self.desk.component.to_string(),
            reason: input.reason,
            attempts: 1,
            section: None,
            key: input.key,
            version: None,
            operation: None,
            time,
            origin: input.origin,
            payload: input.payload,
        }
    }

    /// The letter of an event that may not enter the chain at all.
    pub fn letter_of_event(&self, event: &Event, reason: &str, time: Timestamp) -> DeadLetter {
        self.desk.letter(&self.desk.component, Origin::Operator, event, reason, 1, time)
    }

    /// Stores dead letters of the chain's own component.
    pub async fn put_dead_letters(&self, letters: Vec<DeadLetter>) -> Result<()> {
        self.desk.metrics.dead_letters.inc_by(letters.len() as u64);
        self.desk.put(letters).await
    }
}

impl Lane {
    async fn send(&self, batch: Batch) -> Result<()> {
        self.gate.enter();
        self.sender.send(batch).await.map_err(|_| {
            self.gate.leave();
            Error::fatal(CHAIN_BROKEN)
        })
    }
}

/// Said by every task upstream of the one that failed; the failure itself is reported instead of it.
pub(crate) const CHAIN_BROKEN: &str = "a component downstream has stopped";

fn spread(batch: Batch, targets: &[Target], work: &mut VecDeque<(Target, Batch)>) {
    match targets.split_last() {
        None => batch.ack.delivered(),
        Some((last, others)) => {
            work.extend(others.iter().map(|target| (*target, batch.copy())));
            work.push_back((*last, batch));
        }
    }
}

fn state_of(chain: &Arc<str>, event: &Event) -> PendingState {
    let document = match event.operation {
        crate::Operation::Delete => None,
        _ => event.document.as_ref().map(|document| document.bytes().clone()),
    };
    let state = KeyState { key: event.key.clone(), version: event.version, document };
    PendingState { chain: chain.clone(), section: event.section.clone(), state }
}

/// Splits a batch by key hash, so that each key always takes the same lane.
fn split_by_key(mut batch: Batch, lanes: usize) -> Vec<Batch> {
    let hasher = BuildHasherDefault::<rustc_hash::FxHasher>::default();
    let lane_of = |key: &str| (hasher.hash_one(key) >> 32) as usize % lanes;
    let events = std::mem::take(&mut batch.events);
    let state = std::mem::take(&mut batch.state);
    let mut parts: Vec<Batch> = (1..lanes).map(|_| batch.copy()).collect();
    parts.push(batch);
    for event in events {
        parts[lane_of(&event.key)].events.push(event);
    }
    for entry in state {
        parts[lane_of(&entry.state.key)].state.push(entry);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::AckQueue;
    use crate::event::Operation;

    #[test]
    fn lanes_keep_the_order_of_a_key_and_the_ack_waits_for_all_of_them() {
        let mut acks = AckQueue::default();
        let events: Vec<Event> = (0..100)
            .map(|n| Event::new("s".into(), format!("k{}", n % 10).into(), n / 10 + 1, Operation::Update, None))
            .collect();
        let batch = Batch::new(events, acks.issue(Some(vec![1].into())), Timestamp::from_millis(0));
        let parts = split_by_key(batch, 4);
        assert_eq!(parts.len(), 4);
        assert_eq!(parts.iter().map(|part| part.events.len()).sum::<usize>(), 100);
        for key in 0..10 {
            let key = format!("k{key}");
            let lanes: Vec<_> = parts.iter().filter(|part| part.events.iter().any(|e| *e.key == *key)).collect();
            assert_eq!(lanes.len(), 1, "a key takes one lane");
            let versions: Vec<i64> = lanes[0].events.iter().filter(|e| *e.key == *key).map(|e| e.version).collect();
            assert_eq!(versions, (1..=10).collect::<Vec<_>>());
        }
        let mut parts = parts.into_iter();
        let last = parts.next().unwrap();
        parts.for_each(|part| part.ack.delivered());
        assert_eq!(acks.settled(), Ok(vec![]));
        last.ack.delivered();
        assert_eq!(acks.settled(), Ok(vec![vec![1].into()]));
    }
}
