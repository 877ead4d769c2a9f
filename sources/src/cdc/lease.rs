//! Who captures a table: its lease, and the task that takes it, renews it, and commits positions with it.
//!
//! The keeper alone speaks to the ledger once the graph runs, so that positions are committed in their order. It renews a
//! third of the way through each term, also while a full graph holds the source up. A table captures only while the
//! lease is good by this process's own monotonic clock, counted from before it was asked for: a process that was paused, or
//! that the ledger does not answer, stops by itself before another may begin.

use super::position::Commit;
use super::signals::Signals;
use smartpulse_clients::ledger::{Lease as Asked, Renewed, SharedLedger};
use smartpulse_pipeline::Position;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How often a standby asks for the lease: what a hand-over costs at most beyond the rest of a term.
const STANDBY_ASK: Duration = Duration::from_millis(500);

/// How often positions are committed in a ledger that is a database: each commit is a small transaction there.
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// How long the last commit and the release are tried at the end: beyond it positions come again after the restart, and
/// a standby waits for the end of the term.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How often the same trouble with the ledger is told.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What the keepers of a source are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The graph is not running yet.
    Wait,
    /// Take the lease and hold on to it.
    Work,
    /// Commit what is left, let go of the lease, end.
    Close,
}

/// A lease that is ours.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    pub(super) epoch: u64,
    /// Where the last holder was.
    pub(super) position: Option<Position>,
    /// Whether the table was captured before, so that keys may have gone since.
    pub(super) known: bool,
    /// Until when it is good by our own clock; none where nobody else can take it.
    until: Option<Instant>,
}

#[derive(Debug, Clone)]
enum State {
    Away,
    Held(Holding),
    Failed(Arc<Error>),
}

/// What keeper, source and committer share of a table's lease.
pub(super) struct Lease {
    state: watch::Sender<State>,
    book: Mutex<Book>,
    wake: Notify,
}

#[derive(Default)]
struct Book {
    /// What is to be committed next.
    pending: Option<Commit>,
    /// A request for a snapshot that nobody has finished answering.
    request: Option<String>,
    /// The request that was taken last, and the emission whose commit answers it.
    taken: Option<(String, u64)>,
}

impl Lease {
    pub(super) fn new() -> Self {
        Self { state: watch::Sender::new(State::Away), book: Mutex::default(), wake: Notify::new() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lease of this number is ours and good at this moment.
    pub(super) fn holds(&self, epoch: u64) -> bool {
        match &*self.state.borrow() {
            State::Held(held) => held.epoch == epoch && held.until.is_none_or(|until| Instant::now() < until),
            _ => false,
        }
    }

    /// Waits until the lease is ours.
    ///
    /// # Errors
    /// When it can never be.
    pub(super) async fn held(&self) -> Result<Holding> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Held(held) if held.until.is_none_or(|until| Instant::now() < until) => return Ok(held.clone()),
                State::Failed(error) => return Err(Error::new(error.kind(), error.chain())),
                _ => {}
            }
            // The sender lives as long as we do.
            let _ = state.changed().await;
        }
    }

    /// Waits until the lease of this number is not ours any more.
    pub(super) async fn lost(&self, epoch: u64) {
        let mut state = self.state.subscribe();
        loop {
            let until = match &*state.borrow_and_update() {
                State::Held(held) if held.epoch == epoch => held.until,
                _ => return,
            };
            let end = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = state.changed() => {}
                () = end => return,
            }
        }
    }

    /// Has a position committed soon.
    pub(super) fn commit(&self, commit: Commit) {
        self.book().pending = Some(commit);
        self.wake.notify_one();
    }

    /// The request for a snapshot that is to be taken now.
    pub(super) fn request(&self) -> Option<String> {
        let book = self.book();
        let taken = book.taken.as_ref().map(|(request, _)| request);
        book.request.clone().filter(|request| taken != Some(request))
    }

    /// Notes that a request is answered once this emission is committed. Until then it stays in the ledger, so that a
    /// crash does not lose it.
    pub(super) fn take_request(&self, request: String, sequence: u64) {
        self.book().taken = Some((request, sequence));
    }
}

/// The task that keeps the lease of one table.
pub(super) struct Keeper {
    pub(super) table: String,
    pub(super) id: String,
    pub(super) lease: Arc<Lease>,
    pub(super) signals: Arc<Signals>,
    pub(super) ledger: SharedLedger,
    pub(super) holder: String,
    pub(super) term: Duration,
    /// False for the ledger of a single instance: then the term only paces the renewals.
    pub(super) shared: bool,
    pub(super) orders: watch::Receiver<Order>,
}

/// Why a lease is not held any longer.
enum End {
    /// The source has ended.
    Closed,
    /// It is to be taken again.
    LetGo,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        if self.orders.wait_for(|order| *order != Order::Wait).await.is_err() {
            return;
        }
        let mut known = None;
        loop {
            let Some((held, asked)) = self.take(&mut known).await else { return };
            self.signals.lease(Some(held.epoch));
            let end = self.hold(held, asked).await;
            self.lease.state.send_if_modified(|state| {
                let held = matches!(state, State::Held(_));
                if held {
                    *state = State::Away;
                }
                held
            });
            self.signals.lease(None);
            if matches!(end, End::Closed) {
                return;
            }
        }
    }

    /// Asks until the lease is ours; nothing when the source ends before.
    async fn take(&mut self, known: &mut Option<bool>) -> Option<(Holding, Instant)> {
        let mut holding: Option<String> = None;
        let mut told: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            let answer = tokio::select! {
                biased;
                () = closing(&mut self.orders) => return None,
                answer = bounded(self.term, ask(&self.ledger, &self.id, &self.holder, self.term, known)) => answer,
            };
            match answer {
                Ok(Asked::Held(held)) => {
                    self.signals.ledger_answers();
                    tracing::info!(table = self.table, epoch = held.epoch, "the capture lease is ours");
                    let known = known.unwrap_or(true);
                    let until = self.shared.then_some(asked + self.term);
                    return Some((Holding { epoch: held.epoch, position: held.position, known, until }, asked));
                }
                Ok(Asked::HeldBy { holder, .. }) => {
                    self.signals.standing_by();
                    *known = Some(true);
                    if holding.as_ref() != Some(&holder) {
                        tracing::info!(table = self.table, holder, "another instance captures this table; standing by");
                        holding = Some(holder);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Fatal => {
                    self.lease.state.send_replace(State::Failed(Arc::new(error)));
                    return None;
                }
                Err(error) => {
                    self.signals.ledger_is_away();
                    if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                        tracing::warn!(
                            table = self.table,
                            error = error.chain(),
                            "the capture lease cannot be asked for"
                        );
                        told = Some(Instant::now());
                    }
                }
            }
            tokio::select! {
                biased;
                () = closing(&mut self.orders) => return None,
                () = sleep(STANDBY_ASK) => {}
            }
        }
    }

    /// Renews and commits until the lease is lost or the source ends.
    async fn hold(&mut self, mut held: Holding, asked: Instant) -> End {
        let commit_interval = if self.shared { COMMIT_INTERVAL } else { Duration::ZERO };
        let mut renew_at = asked + self.term / 3;
        let mut commit_at = Instant::now();
        // The snapshot that was to answer it may never have been committed.
        self.lease.book().taken = None;
        self.lease.state.send_replace(State::Held(held.clone()));
        loop {
            let pending = {
                let mut book = self.lease.book();
                // What was emitted under an older lease is not ours to commit.
                book.pending.take_if(|commit| commit.epoch != held.epoch);
                book.pending.is_some()
            };
            let next = if pending { renew_at.min(commit_at) } else { renew_at };
            tokio::select! {
                biased;
                closed = closing_or_dropped(&mut self.orders) => {
                    if closed {
                        self.close(&held).await;
                    }
                    return End::Closed;
                }
                () = sleep_until(next) => {}
                () = self.lease.wake.notified() => continue,
            }
            let now = Instant::now();
            let rest = held.until.map_or(self.term, |until| until.saturating_duration_since(now));
            match bounded(rest, self.renew(held.epoch)).await {
                Ok(true) => {
                    held.until = self.shared.then_some(now + self.term);
                    self.lease.state.send_replace(State::Held(held.clone()));
                    self.signals.ledger_answers();
                    renew_at = now + self.term / 3;
                    commit_at = now + commit_interval;
                }
                Ok(false) => {
                    tracing::warn!(
                        table = self.table,
                        epoch = held.epoch,
                        "another instance has taken the capture lease; this one stops capturing the table"
                    );
                    return End::LetGo;
                }
                Err(error) if error.kind() == ErrorKind::Fatal => {
                    self.lease.state.send_replace(State::Failed(Arc::new(error)));
                    return End::Closed;
                }
                Err(error) => {
                    self.signals.ledger_is_away();
                    let out = held.until.is_some_and(|until| Instant::now() >= until);
                    let error = error.chain();
                    if out {
                        tracing::warn!(
                            table = self.table,
                            epoch = held.epoch,
                            error,
                            "the capture lease ran out while the ledger was away; capture goes on when it is back"
                        );
                        return End::LetGo;
                    }
                    tracing::debug!(table = self.table, error, "the capture lease was not renewed; trying again");
                    renew_at = Instant::now() + self.term / 10;
                    commit_at = renew_at;
                }
            }
        }
    }

    /// Renews with what is to be committed; false when the lease is lost.
    async fn renew(&self, epoch: u64) -> Result<bool> {
        let pending = self.lease.book().pending.clone();
        let position = pending.as_ref().map(|commit| &commit.phase);
        let Renewed::Held { snapshot_request } = self.ledger.renew(&self.id, epoch, self.term, position).await? else {
            return Ok(false);
        };
        let answered = {
            let mut book = self.lease.book();
            if let Some(done) = &pending
                && book.pending.as_ref().is_some_and(|newest| newest.sequence <= done.sequence)
            {
                book.pending = None;
            }
            let committed = pending.as_ref().map_or(0, |commit| commit.sequence);
            book.request = snapshot_request;
            // Compared with what is asked for now: a later request is not answered by an earlier snapshot.
            book.taken.as_ref().filter(|(_, sequence)| *sequence <= committed).map(|(request, _)| request.clone())
        };
        if let Some(request) = answered {
            self.ledger.forget_request(&self.id, &request).await?;
            let mut book = self.lease.book();
            book.request = book.request.take().filter(|asked| *asked != request);
            book.taken = None;
        }
        Ok(true)
    }

    /// The last commit, and the release.
    async fn close(&self, held: &Holding) {
        let closing = async {
            let mut delay = Duration::from_millis(50);
            loop {
                match self.close_once(held.epoch).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(table = self.table, error = error.chain(), "the last commit failed"),
                }
                sleep(delay).await;
                delay *= 2;
            }
        };
        if timeout(CLOSE_PATIENCE, closing).await.is_err() {
            tracing::warn!(
                table = self.table,
                "the last position could not be committed: what follows the one before comes again after the restart"
            );
        }
    }

    async fn close_once(&self, epoch: u64) -> Result<()> {
        if self.lease.book().pending.is_some() {
            self.renew(epoch).await?;
        }
        self.ledger.release(&self.id, epoch).await
    }
}

/// Asks once. Whether the table was captured before is found out first: taking the lease makes its row.
async fn ask(ledger: &SharedLedger, id: &str, holder: &str, term: Duration, known: &mut Option<bool>) -> Result<Asked> {
    if known.is_none() {
        *known = Some(ledger.entries().await?.iter().any(|entry| entry.id == id));
    }
    ledger.take(id, holder, term).await
}

async fn bounded<T>(limit: Duration, future: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::unavailable(format!("the ledger did not answer within {limit:?}"));
    timeout(limit, future).await.map_err(late)?
}

async fn closing(orders: &mut watch::Receiver<Order>) {
    closing_or_dropped(orders).await;
}

/// True when told to close, false when nobody can tell any more.
async fn closing_or_dropped(orders: &mut watch::Receiver<Order>) -> bool {
    orders.wait_for(|order| *order == Order::Close).await.is_ok()
}
