//! A tier that failed is skipped: one request at a time tries it again, the others do not wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Closed: everybody may pass. Open: nobody until a moment has come, then one, whose outcome decides.
#[derive(Debug)]
pub(crate) struct Circuit {
    open_until: Mutex<Option<Instant>>,
    probe_interval: Duration,
    probe_timeout: Duration,
}

impl Circuit {
    /// `probe_timeout` is how long a probe may take to report; one that never does is replaced after it.
    pub(crate) fn new(probe_interval: Duration, probe_timeout: Duration) -> Self {
        Self { open_until: Mutex::new(None), probe_interval, probe_timeout }
    }

    /// True if the caller may try the tier. In an open circuit that makes the caller the probe.
    pub(crate) fn admit(&self, now: Instant) -> bool {
        let mut open_until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                *open_until = Some(now + self.probe_timeout);
                true
            }
        }
    }

    /// True while the tier is skipped, apart from probes.
    pub(crate) fn is_open(&self) -> bool {
        self.open_until.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The tier answered.
    pub(crate) fn succeeded(&self) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The tier did not answer.
    pub(crate) fn failed(&self, now: Instant) {
        let until = now + self.probe_interval;
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_circuit_lets_one_probe_through_per_interval_and_closes_on_success() {
        let circuit = Circuit::new(Duration::from_secs(1), Duration::from_secs(5));
        let start = Instant::now();
        assert!(circuit.admit(start));
        circuit.failed(start);
        assert!(!circuit.admit(start + Duration::from_millis(999)));
        assert!(circuit.admit(start + Duration::from_secs(1)), "the probe");
        assert!(!circuit.admit(start + Duration::from_secs(2)), "one probe at a time");
        assert!(circuit.admit(start + Duration::from_secs(6)), "a probe that never reported is replaced");
        assert!(circuit.is_open());
        circuit.succeeded();
        assert!(circuit.admit(start + Duration::from_secs(6)) && !circuit.is_open());
    }
}
