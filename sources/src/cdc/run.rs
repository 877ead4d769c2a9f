//! The source at work: every table takes turns of its own, one at a time, and this emits what they give.
//!
//! A turn is a task: waiting until it is due, or for the lease, then one step. So a table that hangs, fails or waits holds
//! up no other. A turn whose lease ended is thrown away, whatever it has read.

use super::lease::{Holding, Order};
use super::position::{Commit, Phase};
use super::step::{Held, Reader, Step};
use super::{IdleStage, Table, signals};
use async_trait::async_trait;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::source::{Emission, Source, SourceContext};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The longest poll interval, whatever the stages say: a change is never older than this when it is found.
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// The wait after a failed poll: doubled up to the longest.
const FAILURE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How often a table that waits for somebody looks whether it still has to.
const BLOCKED_POLL: Duration = Duration::from_secs(1);

/// How often it says so.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// A table between its turns.
pub(super) struct TableState {
    table: Arc<Table>,
    epoch: u64,
    known: bool,
    /// None until the source has decided where to start.
    phase: Option<Phase>,
    /// A page of its scan that waits for the stream.
    held: Option<Held>,
    /// Emissions so far.
    sequence: u64,
    last_change: Instant,
    failure: Duration,
    told: Option<Instant>,
}

impl TableState {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self {
            table,
            epoch: 0,
            known: false,
            phase: None,
            held: None,
            sequence: 0,
            last_change: Instant::now(),
            failure: FAILURE.0,
            told: None,
        }
    }

    /// True once a minute.
    fn tells(&mut self) -> bool {
        let tells = self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN);
        if tells {
            self.told = Some(Instant::now());
        }
        tells
    }
}

pub(super) struct CdcSource {
    pub(super) tables: Vec<TableState>,
    pub(super) orders: Arc<watch::Sender<Order>>,
    pub(super) poll_interval: Duration,
    pub(super) idle_stages: Vec<IdleStage>,
}

/// What a turn gave.
enum Outcome {
    Leased(Holding),
    LeaseEnded,
    Stepped(Box<Step>),
    Failed(Error),
}

type Turns = JoinSet<(usize, Outcome)>;

#[async_trait]
impl Source for CdcSource {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        self.orders.send_if_modified(|order| {
            let waits = *order == Order::Wait;
            if waits {
                *order = Order::Work;
            }
            waits
        });
        let mut turns = Turns::new();
        let mut watches = JoinSet::new();
        for at in 0..self.tables.len() {
            watches.spawn(signals::watch(self.tables[at].table.clone()));
            self.await_lease(at, &mut turns);
        }
        while let Some(turn) = cx.next(turns.join_next()).await? {
            let turn = turn.ok_or_else(|| Error::fatal("no table has a turn"))?;
            let (at, outcome) = turn.map_err(|panic| Error::fatal("a capture task panicked").because(panic))?;
            self.take(at, outcome, cx, &mut turns).await?;
        }
        Ok(())
    }
}

impl CdcSource {
    /// Goes on from what a turn gave, and begins the table's next one.
    async fn take(&mut self, at: usize, outcome: Outcome, cx: &mut SourceContext, turns: &mut Turns) -> Result<()> {
        match outcome {
            Outcome::Leased(held) => {
                self.start(at, &held)?;
                self.take_request(at, cx).await?;
                self.begin(at, Duration::ZERO, turns);
            }
            Outcome::LeaseEnded => {
                self.tables[at].table.signals.lease_ended();
                self.await_lease(at, turns);
            }
            Outcome::Stepped(step) => {
                let state = &self.tables[at];
                if !state.table.lease.holds(state.epoch) {
                    state.table.signals.lease_ended();
                    self.await_lease(at, turns);
                    return Ok(());
                }
                let wait = self.stepped(at, *step, cx).await?;
                self.take_request(at, cx).await?;
                self.begin(at, wait, turns);
            }
            Outcome::Failed(error) if error.kind() == ErrorKind::Fatal => return Err(error),
            Outcome::Failed(error) => {
                cx.metrics().retries.inc();
                let state = &mut self.tables[at];
                state.table.signals.poll_failed();
                let (table, error, failure) = (&state.table.name, error.chain(), state.failure);
                tracing::warn!(table, error, ?failure, "capture of the table is held up; trying again");
                state.failure = (failure * 2).min(FAILURE.1);
                self.begin(at, failure, turns);
            }
        }
        Ok(())
    }

    /// Takes up where the last holder of the lease was.
    fn start(&mut self, at: usize, held: &Holding) -> Result<()> {
        let state = &mut self.tables[at];
        (state.epoch, state.known, state.held) = (held.epoch, held.known, None);
        state.phase = match &held.position {
            None => None,
            Some(position) => Some(Phase::from_position(position).ok_or_else(|| {
                let id = &state.table.id;
                Error::fatal(format!(
                    "the position of {id} is no capture's: {position}; `smartpulse position reset {id}` starts over"
                ))
            })?),
        };
        state.last_change = Instant::now();
        Ok(())
    }

    /// Emits what a step gave, and says how long the table then waits.
    async fn stepped(&mut self, at: usize, step: Step, cx: &mut SourceContext) -> Result<Duration> {
        let state = &mut self.tables[at];
        state.failure = FAILURE.0;
        let Step { events, unreadable, next, held, more, position_lost, blocked, unknown_deletes, untold_deletes } =
            step;
        state.held = held;
        if let Some(reason) = blocked {
            state.table.signals.poll_failed();
            if state.tells() {
                tracing::error!(
                    table = state.table.name,
                    reason,
                    "the table has another shape, and its capture waits (on_schema_change: block): see to those who read \
                     its events, then set on_schema_change to `switch` (go on) or `resnapshot` (scan it again) and restart"
                );
            }
            return Ok(BLOCKED_POLL);
        }
        if let Some(away) = state.table.signals.poll_succeeded() {
            tracing::info!(table = state.table.name, away_s = away.as_secs_f64(), "capture resumes");
        }
        state.told = None;
        if position_lost {
            cx.metrics().note("position_lost", 1);
            state.table.signals.position_lost();
        }
        if unknown_deletes > 0 {
            cx.metrics().note("unknown_delete", unknown_deletes);
        }
        if untold_deletes > 0 {
            state.table.signals.deletes_untold(untold_deletes);
            tracing::error!(
                table = state.table.name,
                deletes = untold_deletes,
                "rows were deleted and left no tombstones: their deletes are among the dead letters; see that the triggers of \
                 versions.sql are there and enabled, then start again"
            );
        }
        let newest = events.last().and_then(|event| event.commit_time);
        let stream = Some(next.stream().position());
        state.table.signals.captured(newest, !more && matches!(next, Phase::Stream { .. }), stream);
        // A position alone moves with any change in the database.
        if !events.is_empty() || !unreadable.is_empty() {
            state.last_change = Instant::now();
        }
        if state.phase.as_ref() != Some(&next) {
            let first = state.phase.is_none();
            state.phase = Some(next);
            if first && let Some(request) = state.table.lease.request() {
                // It begins with a snapshot anyway.
                state.table.lease.take_request(request, state.sequence + 1);
            }
            emit(state, Emission { events, unreadable, ..Emission::default() }, cx).await?;
        }
        let idle = self.tables[at].last_change.elapsed();
        Ok(if more { Duration::ZERO } else { self.interval(at, idle) })
    }

    /// Starts over what someone asked a new snapshot of. The stream goes on from where it is: what it has not brought
    /// yet it still brings.
    async fn take_request(&mut self, at: usize, cx: &mut SourceContext) -> Result<()> {
        let state = &mut self.tables[at];
        let (Some(request), Some(phase)) = (state.table.lease.request(), &state.phase) else { return Ok(()) };
        tracing::info!(table = state.table.name, "taking a new snapshot, as asked");
        cx.metrics().note("resnapshot", 1);
        (state.phase, state.held) = (Some(state.table.anew(phase.stream().clone())), None);
        state.table.lease.take_request(request, state.sequence + 1);
        emit(state, Emission::default(), cx).await
    }

    /// How long to wait after a round that found everything read.
    fn interval(&self, at: usize, idle: Duration) -> Duration {
        let free = self.tables[at].table.database.idle_poll_is_free();
        let stages: &[IdleStage] = if free { &[] } else { &self.idle_stages };
        let stage = stages.iter().rev().find(|stage| idle >= Duration::from_secs(stage.after_s));
        let interval = stage.map_or(Duration::ZERO, |stage| Duration::from_millis(stage.interval_ms));
        interval.max(self.poll_interval).min(INTERVAL_MAX)
    }

    fn await_lease(&self, at: usize, turns: &mut Turns) {
        let table = self.tables[at].table.clone();
        turns.spawn(async move {
            let outcome = table.lease.held().await.map_or_else(Outcome::Failed, Outcome::Leased);
            (at, outcome)
        });
    }

    /// The table's next step, after a wait.
    fn begin(&mut self, at: usize, wait: Duration, turns: &mut Turns) {
        let TableState { table, epoch, known, phase, held, .. } = &mut self.tables[at];
        let (table, epoch, known, phase, held) = (table.clone(), *epoch, *known, phase.clone(), held.take());
        turns.spawn(async move {
            let stepping = async {
                if !wait.is_zero() {
                    sleep(wait).await;
                }
                table.signals.poll_begins();
                let reader = Reader { table: &table, epoch, known };
                let step = reader.step(phase, held).await;
                step.map_or_else(Outcome::Failed, |step| Outcome::Stepped(Box::new(step)))
            };
            (at, unless_ended(stepping, table.lease.lost(epoch)).await)
        });
    }
}

/// The outcome of a step, unless its lease ends before.
async fn unless_ended(step: impl Future<Output = Outcome>, ended: impl Future<Output = ()>) -> Outcome {
    tokio::select! {
        biased;
        () = ended => Outcome::LeaseEnded,
        outcome = step => outcome,
    }
}

/// Emits with the position of the table's phase.
async fn emit(state: &mut TableState, mut emission: Emission, cx: &mut SourceContext) -> Result<()> {
    let Some(phase) = &state.phase else { return Ok(()) };
    state.sequence += 1;
    let (epoch, sequence) = (state.epoch, state.sequence);
    let commit = Commit { epoch, sequence, phase: phase.to_position()? };
    emission.position = Some(commit.to_position(&state.table.name));
    if let Some(memory) = &state.table.memory {
        memory.note(sequence, &emission.events);
    }
    cx.emit(emission).await
}
