//! What capture tells of itself, per table, with the labels `pipeline`, `source` and `table`. Each says one thing:
//!
//! | metric | meaning |
//! | --- | --- |
//! | `capture_lag_seconds` | how old the newest captured change was; 0 when a poll found nothing left; while polls fail, how long ago everything was captured |
//! | `capture_stalled` | 1 when polls or the ledger have failed, hung or been blocked by a changed schema for more than `stall_after_ms`. "No changes" is not stalled |
//! | `capture_job_stopped` | 1 when the database itself records no changes at present, so that polls find nothing and seem well |
//! | `capture_runway_seconds` | how long until clean-up passes our position; `+Inf` when it never does, `NaN` when the login may not know |
//! | `capture_lease_held` | 1 when this instance captures the table, 0 when it stands by |
//! | `capture_epoch` | the number of the last lease that was ours |
//! | `capture_position_lost_total` | how often clean-up had passed the position, so that a new snapshot was taken |
//! | `capture_deletes_untold_total` | deletes that could not be told, because the table left no tombstones where it should have: they are among the dead letters |
//! | `capture_interruptions_total` | how often capture was interrupted, by failures or by a changed schema; "capture resumes" in the log says for how long |

use super::Table;
use prometheus::core::{AtomicF64, AtomicI64, GenericGauge, GenericGaugeVec};
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use smartpulse_clients::database::{CaptureHealth, Kept};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Position, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often the signals that depend on the time are set.
const TICK: Duration = Duration::from_secs(1);

/// How often the database is asked how capture is doing: it reads a few catalogue tables.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

type Gauge = GenericGauge<AtomicF64>;
type IntGauge = GenericGauge<AtomicI64>;

/// The families of one source.
pub(super) struct Families {
    lag: GaugeVec,
    stalled: IntGaugeVec,
    job_stopped: IntGaugeVec,
    runway: GenericGaugeVec<AtomicF64>,
    lease_held: IntGaugeVec,
    epoch: IntGaugeVec,
    position_lost: IntCounterVec,
    deletes_untold: IntCounterVec,
    interruptions: IntCounterVec,
}

impl Families {
    /// Registers the metrics of a source.
    pub(super) fn register(pipeline: &str, source: &str, registry: &Registry) -> Result<Self> {
        let opts = |name: &str, help: &str| {
            Opts::new(name, help).const_label("pipeline", pipeline).const_label("source", source)
        };
        let of = &["table"];
        let families = || -> prometheus::Result<Self> {
            let families = Self {
                lag: GaugeVec::new(opts("capture_lag_seconds", "age of the newest captured change"), of)?,
                stalled: IntGaugeVec::new(opts("capture_stalled", "1 when capture has failed or been blocked"), of)?,
                job_stopped: IntGaugeVec::new(
                    opts("capture_job_stopped", "1 when the database records no changes"),
                    of,
                )?,
                runway: GaugeVec::new(opts("capture_runway_seconds", "time until clean-up passes the position"), of)?,
                lease_held: IntGaugeVec::new(
                    opts("capture_lease_held", "1 when this instance captures the table"),
                    of,
                )?,
                epoch: IntGaugeVec::new(opts("capture_epoch", "number of the last capture lease"), of)?,
                position_lost: IntCounterVec::new(
                    opts("capture_position_lost_total", "positions that clean-up had passed"),
                    of,
                )?,
                deletes_untold: IntCounterVec::new(
                    opts("capture_deletes_untold_total", "deletes that left no tombstone and could not be told"),
                    of,
                )?,
                interruptions: IntCounterVec::new(
                    opts("capture_interruptions_total", "interruptions of capture by failures"),
                    of,
                )?,
            };
            registry.register(Box::new(families.lag.clone()))?;
            registry.register(Box::new(families.stalled.clone()))?;
            registry.register(Box::new(families.job_stopped.clone()))?;
            registry.register(Box::new(families.runway.clone()))?;
            registry.register(Box::new(families.lease_held.clone()))?;
            registry.register(Box::new(families.epoch.clone()))?;
            registry.register(Box::new(families.position_lost.clone()))?;
            registry.register(Box::new(families.deletes_untold.clone()))?;
            registry.register(Box::new(families.interruptions.clone()))?;
            Ok(families)
        };
        families().map_err(|error| Error::fatal("the metrics of capture cannot be registered").because(error))
    }

    /// The signals of one table.
    pub(super) fn table(&self, name: &str, stall_after: Duration) -> Signals {
        let of = &[name];
        Signals {
            lag: self.lag.with_label_values(of),
            stalled: self.stalled.with_label_values(of),
            job_stopped: self.job_stopped.with_label_values(of),
            runway: self.runway.with_label_values(of),
            lease_held: self.lease_held.with_label_values(of),
            epoch: self.epoch.with_label_values(of),
            position_lost: self.position_lost.with_label_values(of),
            deletes_untold: self.deletes_untold.with_label_values(of),
            interruptions: self.interruptions.with_label_values(of),
            stall_after,
            state: Mutex::default(),
        }
    }
}

/// The signals of one table.
pub(super) struct Signals {
    lag: Gauge,
    stalled: IntGauge,
    job_stopped: IntGauge,
    runway: Gauge,
    lease_held: IntGauge,
    epoch: IntGauge,
    position_lost: IntCounter,
    deletes_untold: IntCounter,
    interruptions: IntCounter,
    stall_after: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The start of the first poll that no successful one has followed.
    polling_since: Option<Instant>,
    /// When polls began to fail.
    failing_since: Option<Instant>,
    /// When the ledger ceased to answer.
    ledger_away_since: Option<Instant>,
    /// Since when nothing was captured, where the lease has ended under a poll and it is not known yet why: poll and keeper
    /// notice its end at one moment, and whether the ledger is away is for the keeper to say.
    ended_since: Option<Instant>,
    /// When a poll last found everything captured.
    caught_up: Option<Instant>,
    /// Where the stream is.
    stream: Option<Position>,
}

impl Signals {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poll begins.
    pub(super) fn poll_begins(&self) {
        let now = Instant::now();
        self.state().polling_since.get_or_insert(now);
    }

    /// A poll failed.
    pub(super) fn poll_failed(&self) {
        let mut state = self.state();
        if state.failing_since.is_none() {
            state.failing_since = state.polling_since.or_else(|| Some(Instant::now()));
            self.interruptions.inc();
        }
    }

    /// The lease has ended under a poll: an interruption only when the ledger is away.
    pub(super) fn lease_ended(&self) {
        let mut state = self.state();
        if state.ledger_away_since.is_none() {
            let polling_since = state.polling_since.take();
            state.ended_since = polling_since.or_else(|| Some(Instant::now()));
        } else if state.failing_since.is_none() {
            state.failing_since = state.ledger_away_since;
            self.interruptions.inc();
        }
    }

    /// Another instance captures the table.
    pub(super) fn standing_by(&self) {
        let mut state = self.state();
        (state.ledger_away_since, state.polling_since) = (None, None);
        (state.failing_since, state.ended_since) = (None, None);
    }

    /// A poll succeeded: for how long capture was interrupted, where it was.
    pub(super) fn poll_succeeded(&self) -> Option<Duration> {
        let mut state = self.state();
        (state.polling_since, state.ended_since) = (None, None);
        state.failing_since.take().map(|since| since.elapsed())
    }

    /// What the last poll brought: the commit time of its newest change, and where the stream is.
    pub(super) fn captured(&self, newest: Option<Timestamp>, caught_up: bool, stream: Option<Position>) {
        match newest {
            Some(commit) => self.lag.set(Timestamp::now().millis_since(commit) as f64 / 1e3),
            None if caught_up => self.lag.set(0.0),
            None => {}
        }
        let mut state = self.state();
        if caught_up {
            state.caught_up = Some(Instant::now());
        }
        if stream.is_some() {
            state.stream = stream;
        }
    }

    pub(super) fn ledger_is_away(&self) {
        let mut state = self.state();
        state.ledger_away_since.get_or_insert_with(Instant::now);
        if let Some(since) = state.ended_since.take()
            && state.failing_since.is_none()
        {
            state.failing_since = Some(since);
            self.interruptions.inc();
        }
    }

    pub(super) fn ledger_answers(&self) {
        self.state().ledger_away_since = None;
    }

    /// The lease is ours under this number, or not ours.
    pub(super) fn lease(&self, epoch: Option<u64>) {
        self.lease_held.set(i64::from(epoch.is_some()));
        if let Some(epoch) = epoch {
            self.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        } else {
            // Whoever has it now knows better.
            self.lag.set(0.0);
            self.job_stopped.set(0);
        }
    }

    pub(super) fn position_lost(&self) {
        self.position_lost.inc();
    }

    pub(super) fn deletes_untold(&self, count: u64) {
        self.deletes_untold.inc_by(count);
    }

    /// Sets what depends on the time.
    fn tick(&self) {
        let state = self.state();
        let trouble = [state.polling_since, state.ledger_away_since].into_iter().flatten().min();
        let stalled = trouble.is_some_and(|since| since.elapsed() >= self.stall_after);
        self.stalled.set(i64::from(stalled));
        if state.failing_since.is_some()
            && let Some(caught_up) = state.caught_up
        {
            self.lag.set(caught_up.elapsed().as_secs_f64());
        }
    }

    fn health(&self, table: &str, health: &CaptureHealth) {
        self.runway.set(match health.runway {
            Kept::For(runway) => runway.as_secs_f64(),
            Kept::ForGood => f64::INFINITY,
            Kept::Unknown => f64::NAN,
        });
        let before = self.job_stopped.get() == 1;
        self.job_stopped.set(i64::from(health.stopped.is_some()));
        match &health.stopped {
            Some(reason) if !before => {
                tracing::error!(table, reason, "the database records no changes: nothing is captured until it does");
            }
            None if before => tracing::info!(table, "the database records changes again"),
            _ => {}
        }
    }
}

/// Keeps the signals of a table until the source ends.
pub(super) async fn watch(table: Arc<Table>) {
    let mut asked: Option<Instant> = None;
    loop {
        tokio::time::sleep(TICK).await;
        table.signals.tick();
        let stream = table.signals.state().stream.clone();
        let Some(stream) = stream.filter(|_| table.signals.lease_held.get() == 1) else { continue };
        if asked.is_some_and(|asked| asked.elapsed() < HEALTH_INTERVAL) {
            continue;
        }
        asked = Some(Instant::now());
        // Beside the clock, which must not stand still while the database hangs.
        let answer = table.database.capture_health(&table.name, table.mode, &stream);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                health = &mut answer => {
                    match health {
                        Ok(health) => table.signals.health(&table.name, &health),
                        Err(error) => tracing::debug!(
                            table = table.name, error = error.chain(), "the health of capture is not known"
                        ),
                    }
                    break;
                }
                () = tokio::time::sleep(TICK) => table.signals.tick(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals() -> Signals {
        let families = Families::register("p", "c", &Registry::new()).unwrap();
        families.table("T", Duration::from_secs(1))
    }

    #[test]
    fn a_lease_that_ends_with_the_ledger_away_interrupts_capture_whoever_notices_first() {
        for poll_first in [true, false] {
            let signals = signals();
            signals.poll_begins();
            if poll_first {
                signals.lease_ended();
                signals.ledger_is_away();
            } else {
                signals.ledger_is_away();
                signals.lease_ended();
            }
            signals.ledger_is_away();
            assert_eq!(signals.interruptions.get(), 1, "{poll_first}");
            signals.ledger_answers();
            assert!(signals.poll_succeeded().is_some(), "{poll_first}");
        }
    }

    #[test]
    fn a_runway_that_is_not_known_is_told_from_one_without_end() {
        let signals = signals();
        for (runway, is) in [(Kept::For(Duration::from_secs(5)), "5"), (Kept::ForGood, "inf"), (Kept::Unknown, "NaN")] {
            signals.health("T", &CaptureHealth { stopped: None, runway });
            assert_eq!(signals.runway.get().to_string(), is);
        }
    }

    #[test]
    fn a_lease_that_another_took_is_no_interruption() {
        let signals = signals();
        signals.poll_begins();
        signals.lease_ended();
        signals.standing_by();
        signals.ledger_is_away();
        assert_eq!(signals.interruptions.get(), 0);
        assert!(signals.poll_succeeded().is_none());
    }
}
