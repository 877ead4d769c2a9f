//! A circuit breaker: a service that is away costs a few time-outs, not one per message.
//!
//! Closed, it lets everything through; [`FAILURES_MAX`] failures in a row open it. Open, it refuses at once, for a pause that
//! doubles with each failed probe; then one call is let through as a probe, and its success closes it. Pure: time is passed
//! in.

use std::time::{Duration, Instant};

/// Failures in a row that open the circuit: below the tries of a message, so that an outage never uses them up.
const FAILURES_MAX: u32 = 3;

/// The first and the longest pause.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is known of a service.
#[derive(Debug)]
pub(crate) struct Circuit {
    failures: u32,
    pause: Duration,
    /// Until when everything is refused; none while closed.
    open_until: Option<Instant>,
}

impl Circuit {
    pub fn new() -> Self {
        Self { failures: 0, pause: PAUSE, open_until: None }
    }

    /// Whether a call may go through. Of an open circuit whose pause is over one call may: the probe, which has `patience`
    /// to answer before the next one is let through.
    pub fn admits(&mut self, now: Instant, patience: Duration) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now + patience);
                true
            }
        }
    }

    pub fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// The service answered.
    pub fn answered(&mut self) {
        *self = Self::new();
    }

    /// The service did not answer, or said that it is away.
    pub fn failed(&mut self, now: Instant) {
        self.failures += 1;
        if self.open_until.is_some() {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        if self.failures >= FAILURES_MAX {
            self.open_until = Some(now + self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_open_it_a_probe_at_a_time_is_let_through_and_an_answer_closes_it() {
        let (mut circuit, start) = (Circuit::new(), Instant::now());
        let patience = Duration::from_secs(5);
        circuit.failed(start);
        circuit.answered();
        circuit.failed(start);
        circuit.failed(start);
        assert!(circuit.admits(start, patience), "failures are counted in a row");
        circuit.failed(start);
        assert!(circuit.is_open() && !circuit.admits(start, patience));
        let later = start + PAUSE;
        assert!(circuit.admits(later, patience), "the probe");
        assert!(!circuit.admits(later, patience), "one at a time");
        circuit.failed(later);
        assert!(!circuit.admits(later + PAUSE, patience), "the pause doubles");
        assert!(circuit.admits(later + PAUSE * 2, patience));
        circuit.answered();
        assert!(!circuit.is_open() && circuit.admits(later, patience));
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_is_followed_by_another() {
        let (mut circuit, start) = (Circuit::new(), Instant::now());
        (0..3).for_each(|_| circuit.failed(start));
        let patience = Duration::from_secs(5);
        assert!(circuit.admits(start + PAUSE, patience));
        assert!(circuit.admits(start + PAUSE + patience, patience));
    }
}
