//! Faults on request: a test arms one, the server commits it, and the handle counts how often it did.
//!
//! ```no_run
//! # fn test(server: &smartpulse_stand_in::server::StandIn) {
//! use smartpulse_stand_in::faults::{Fault, Failure};
//! let lost = server.faults().arm(Fault::break_after_rows(500).on("FROM [dbo].[Forecasts]"));
//! let victim = server.faults().arm(Fault::fail(Failure::deadlock()).on("UPDATE").times(2));
//! // ... the program under test runs ...
//! assert_eq!((lost.struck(), victim.struck()), (1, 2));
//! # }
//! ```
//!
//! A fault strikes once unless it says otherwise. Nothing is ever duplicated: a statement runs once or not at all.

use crate::session::Message;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The connection is lost after so many rows of the answer.
    BreakAfterRows(u64),
    /// The connection is lost before the statement runs.
    BreakBefore,
    /// The connection is lost after the statement ran and before its answer: did it happen?
    BreakAfter,
    /// The connection is lost after so many bytes of a bulk load.
    BreakBulk(usize),
    /// The statement waits before it runs.
    Delay(Duration),
    /// The statement does not run but fails.
    Fail(Failure),
    /// The login fails.
    FailLogin(Failure),
}

/// An error to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its number.
    pub number: i32,
    /// Its severity: from 20 on the connection ends.
    pub class: u8,
    /// Its text.
    pub text: String,
    /// Whether the transaction is rolled back.
    pub rolls_back: bool,
}

impl Failure {
    /// An error of severity 16 that leaves the transaction open.
    pub fn new(number: i32, text: impl Into<String>) -> Self {
        Failure { number, class: 16, text: text.into(), rolls_back: false }
    }

    /// 1205: chosen as the victim of a deadlock; the transaction is rolled back.
    pub fn deadlock() -> Self {
        let text = "Transaction (Process ID 51) was deadlocked on lock resources with another process and has been \
                    chosen as the deadlock victim. Rerun the transaction.";
        Failure { number: 1205, class: 13, text: text.to_owned(), rolls_back: true }
    }

    /// 40501: Azure SQL is busy, with the advice to wait ten seconds.
    pub fn busy() -> Self {
        let text = "The service is currently busy. Retry the request after 10 seconds. Incident ID: 0. Code: 0.";
        Failure { number: 40_501, class: 20, text: text.to_owned(), rolls_back: true }
    }

    /// 10928: the limit of requests is reached.
    pub fn throttled() -> Self {
        let text = "Resource ID: 1. The request limit for the database is 60 and has been reached.";
        Failure { number: 10_928, class: 20, text: text.to_owned(), rolls_back: true }
    }

    /// 3952: snapshot isolation is not allowed in the database.
    pub fn no_snapshot() -> Self {
        let text = "Snapshot isolation transaction failed accessing database 'smartpulse' because snapshot isolation is \
                    not allowed in this database. Use ALTER DATABASE to allow snapshot isolation.";
        Failure { number: 3952, class: 16, text: text.to_owned(), rolls_back: false }
    }

    /// 1222: the time to wait for a lock is over.
    pub fn lock_timeout() -> Self {
        Failure {
            number: 1222,
            class: 16,
            text: "Lock request time out period exceeded.".to_owned(),
            rolls_back: false,
        }
    }

    /// 18456: the login failed.
    pub fn login() -> Self {
        Failure { number: 18_456, class: 14, text: "Login failed for user 'sa'.".to_owned(), rolls_back: false }
    }

    pub(crate) fn message(&self) -> Message {
        let (number, class, text) = (self.number, self.class, self.text.clone());
        Message { number, state: 1, class, text, procedure: String::new(), line: 1 }
    }
}

/// A fault to arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    action: Action,
    text: String,
    times: u64,
}

impl Fault {
    /// This, at the next statement.
    pub fn new(action: Action) -> Self {
        Fault { action, text: String::new(), times: 1 }
    }

    /// The connection is lost after so many rows.
    pub fn break_after_rows(rows: u64) -> Self {
        Fault::new(Action::BreakAfterRows(rows))
    }

    /// The connection is lost before the statement runs.
    pub fn break_before() -> Self {
        Fault::new(Action::BreakBefore)
    }

    /// The connection is lost after the statement ran and before its answer.
    pub fn break_after() -> Self {
        Fault::new(Action::BreakAfter)
    }

    /// The connection is lost in the middle of a bulk load.
    pub fn break_bulk(bytes: usize) -> Self {
        Fault::new(Action::BreakBulk(bytes))
    }

    /// The statement waits.
    pub fn delay(time: Duration) -> Self {
        Fault::new(Action::Delay(time))
    }

    /// The statement fails.
    pub fn fail(failure: Failure) -> Self {
        Fault::new(Action::Fail(failure))
    }

    /// The login fails.
    pub fn fail_login(failure: Failure) -> Self {
        Fault::new(Action::FailLogin(failure))
    }

    /// Only at statements with this text in them, in any case of letters. A call's text is its procedure's name; that
    /// of `sp_executesql` and of remembered statements is the statement; those of the transaction manager are
    /// `BEGIN TRANSACTION`, `COMMIT TRANSACTION` and `ROLLBACK TRANSACTION`; that of a bulk load is its `INSERT BULK`;
    /// that of a login is the application's name.
    #[must_use]
    pub fn on(mut self, text: &str) -> Self {
        self.text = text.to_lowercase();
        self
    }

    /// So often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Every time, until it is disarmed.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }
}

/// An armed fault.
#[derive(Debug, Clone)]
pub struct Armed {
    fault: Arc<Fault>,
    struck: Arc<AtomicU64>,
}

impl Armed {
    /// How often it struck.
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::SeqCst)
    }

    /// What it does.
    pub fn action(&self) -> &Action {
        &self.fault.action
    }

    /// Counts a strike; false when it has struck often enough.
    pub(crate) fn strike(&self) -> bool {
        let more = |struck| (struck < self.fault.times).then(|| struck + 1);
        self.struck.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    pub(crate) fn breaks_after_row(&self, row: u64) -> bool {
        matches!(self.fault.action, Action::BreakAfterRows(rows) if rows == row) && self.strike()
    }

    fn matches(&self, statement: &str) -> bool {
        self.struck() < self.fault.times && (self.fault.text.is_empty() || statement.contains(&self.fault.text))
    }
}

/// What the network is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Network {
    /// What is sent is swallowed, and nothing is answered.
    pub blackhole: bool,
    /// New connections are refused.
    pub refuse: bool,
}

/// The faults of a server.
#[derive(Debug)]
pub struct Faults {
    armed: Mutex<Vec<Armed>>,
    network: watch::Sender<Network>,
}

impl Default for Faults {
    fn default() -> Self {
        Faults { armed: Mutex::default(), network: watch::Sender::new(Network::default()) }
    }
}

impl Faults {
    /// Arms a fault. Of several that match a statement, those armed first strike first.
    pub fn arm(&self, fault: Fault) -> Armed {
        let armed = Armed { fault: Arc::new(fault), struck: Arc::default() };
        self.lock().push(armed.clone());
        armed
    }

    /// Disarms a fault; it keeps its count.
    pub fn disarm(&self, fault: &Armed) {
        self.lock().retain(|armed| !Arc::ptr_eq(&armed.fault, &fault.fault));
    }

    /// Disarms all, and repairs the network.
    pub fn clear(&self) {
        self.lock().clear();
        self.network.send_replace(Network::default());
    }

    /// From now on the server takes what it is sent and answers nothing; new connections are taken and hear nothing.
    /// What was under way is finished, but its answer stays in the server until the blackhole ends. What arrives during
    /// it never runs: its connection is closed when the blackhole ends.
    pub fn begin_blackhole(&self) {
        self.network.send_modify(|network| network.blackhole = true);
    }

    /// The blackhole ends.
    pub fn end_blackhole(&self) {
        self.network.send_modify(|network| network.blackhole = false);
    }

    /// New connections are refused, or no longer. Those that exist live on.
    pub fn refuse_connections(&self, refuse: bool) {
        self.network.send_modify(|network| network.refuse = refuse);
    }

    pub(crate) fn network(&self) -> watch::Receiver<Network> {
        self.network.subscribe()
    }

    /// The faults that may strike at a statement.
    pub(crate) fn at(&self, statement: &str) -> Vec<Armed> {
        let mut armed = self.lock();
        armed.retain(|fault| fault.struck() < fault.fault.times);
        if armed.is_empty() {
            return Vec::new();
        }
        let statement = statement.to_lowercase();
        armed.iter().filter(|fault| fault.matches(&statement)).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_where_it_matches_and_as_often_as_it_says() {
        let faults = Faults::default();
        let armed = faults.arm(Fault::fail(Failure::deadlock()).on("Update [dbo]").times(2));
        assert!(faults.at("SELECT 1").is_empty());
        for expected in [true, true, false] {
            let at = faults.at("UPDATE [dbo].[T] SET a = 1");
            assert_eq!(at.first().is_some_and(Armed::strike), expected);
        }
        assert_eq!(armed.struck(), 2);
    }
}
