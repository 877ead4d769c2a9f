//! What is alive in a server: stopping waits until nothing is.

use crate::session::{Column, Message, Parameter, Session, Sink};
use crate::value::Value;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Counts what is alive.
#[derive(Debug, Default)]
pub(super) struct Alive {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub listeners: usize,
    pub connections: usize,
    pub sessions: usize,
}

type Which = fn(&mut Counts) -> &mut usize;

/// One of what is alive.
pub(super) struct Count {
    alive: Arc<Alive>,
    which: Which,
}

impl Alive {
    pub fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(self: &Arc<Self>, which: Which) -> Count {
        *which(&mut self.lock()) += 1;
        self.changed.notify_all();
        Count { alive: self.clone(), which }
    }

    pub fn wait(&self, until: impl Fn(&Counts) -> bool, most: Duration) -> bool {
        let end = Instant::now() + most;
        let mut counts = self.lock();
        while !until(&counts) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            counts = self.changed.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        *(self.which)(&mut self.alive.lock()) -= 1;
        self.alive.changed.notify_all();
    }
}

/// A session that is counted.
pub(super) struct Counted {
    session: Box<dyn Session>,
    _counted: Count,
}

impl Counted {
    /// This session, counted until it is dropped.
    pub fn new(session: Box<dyn Session>, counted: Count) -> Self {
        Counted { session, _counted: counted }
    }
}

impl Session for Counted {
    fn batch(&mut self, sql: &str, parameters: &[Parameter], cancelled: &AtomicBool, out: Sink<'_>) -> bool {
        self.session.batch(sql, parameters, cancelled, out)
    }

    fn call(&mut self, procedure: &str, parameters: &[Parameter], cancelled: &AtomicBool, out: Sink<'_>) -> bool {
        self.session.call(procedure, parameters, cancelled, out)
    }

    fn bulk_columns(&mut self, insert_bulk: &str) -> Result<Arc<[Column]>, Message> {
        self.session.bulk_columns(insert_bulk)
    }

    fn bulk_insert(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, Message> {
        self.session.bulk_insert(rows)
    }

    fn begin(&mut self, isolation: u8, out: Sink<'_>) -> bool {
        self.session.begin(isolation, out)
    }

    fn commit(&mut self, out: Sink<'_>) -> bool {
        self.session.commit(out)
    }

    fn rollback(&mut self, out: Sink<'_>) -> bool {
        self.session.rollback(out)
    }

    fn reset(&mut self) {
        self.session.reset();
    }
}
