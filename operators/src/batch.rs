//! `batch`: joins events into larger batches for sinks that are cheaper by the dozen.
//!
//! Input and output: any events, in order. A batch leaves with `items` events, or `window_ms` after its first
//! one, or (unless `eager` is off) as soon as everything behind has nothing to do: the window is a cap, not a
//! delay. Nothing is dropped. What waits is bounded by `items`.

use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::operator::{Flush, Operator, Output};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, OperatorConfig};
use smartpulse_pipeline::{Batch, Timestamp};

/// Joins events into batches of up to so many, or for so long.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Events per batch at most, 1 to 100000; 100 by default.
    #[schemars(range(min = 1, max = 100_000))]
    pub items: usize,
    /// How long the first event of a batch waits at most, in milliseconds, 0 to 60000; 100 by default. 0 joins
    /// nothing that did not come together.
    #[schemars(range(max = 60_000))]
    pub window_ms: u32,
    /// Whether a batch leaves early when everything behind has nothing to do; true by default. With false the
    /// full window is always waited for.
    pub eager: bool,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { items: 100, window_ms: 100, eager: true }
    }
}

impl Config for BatchConfig {
    const TYPE: &'static str = "batch";

    fn validate(&self, check: &mut Check<'_>) {
        if self.window_ms == 0 && !self.eager {
            check.problem(
                "eager",
                "with a window of 0 ms there is nothing to wait for",
                Some("set window_ms, or leave eager out".to_owned()),
            );
        }
    }
}

impl OperatorConfig for BatchConfig {
    fn build(&self, _cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Window { config: self.clone(), held: None }))
    }
}

struct Window {
    config: BatchConfig,
    held: Option<Batch>,
}

impl Operator for Window {
    fn process(&mut self, batch: Batch, out: &mut Output) {
        if batch.after_loss {
            // What is held came before the loss and must stay before it.
            self.flush(Flush::Deadline, out);
        }
        let joined = match self.held.take() {
            Some(mut held) => {
                held.join(batch);
                held
            }
            None => batch,
        };
        let mut pieces = joined.into_pieces(self.config.items);
        // An empty rest has nothing to wait for but still holds a share of the ack.
        self.held = pieces.pop_if(|rest| !rest.events.is_empty());
        pieces.into_iter().for_each(|piece| out.emit(piece));
        if self.config.window_ms == 0 {
            self.flush(Flush::Deadline, out);
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        let first = self.held.as_ref()?.time;
        Some(Timestamp::from_millis(first.as_millis() + i64::from(self.config.window_ms)))
    }

    fn eager(&self) -> bool {
        self.config.eager && self.held.is_some()
    }

    fn flush(&mut self, _why: Flush, out: &mut Output) {
        if let Some(held) = self.held.take() {
            out.emit(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch_of, event};

    fn window(items: usize, eager: bool) -> Window {
        Window { config: BatchConfig { items, window_ms: 100, eager }, held: None }
    }

    fn sizes(out: Output) -> Vec<usize> {
        out.into_batches().iter().map(|batch| batch.events.len()).collect()
    }

    fn some(count: i64) -> Batch {
        batch_of((1..=count).map(|version| event("a", version, "{}")).collect())
    }

    #[test]
    fn full_batches_leave_at_once_and_the_rest_waits_for_its_deadline() {
        let mut operator = window(4, true);
        let mut out = Output::default();
        operator.process(some(3), &mut out);
        operator.process(some(6), &mut out);
        assert_eq!(sizes(out), [4, 4]);
        assert_eq!(operator.deadline(), Some(Timestamp::from_millis(100)));
        let mut out = Output::default();
        operator.flush(Flush::Deadline, &mut out);
        assert_eq!(sizes(out), [1]);
        assert_eq!(operator.deadline(), None);
    }

    #[test]
    fn only_an_eager_window_asks_to_leave_early() {
        for eager in [true, false] {
            let mut operator = window(4, eager);
            assert!(!operator.eager(), "nothing is held");
            operator.process(some(1), &mut Output::default());
            assert_eq!(operator.eager(), eager);
        }
    }

    #[test]
    fn the_end_lets_go_of_what_is_held() {
        let mut operator = window(4, false);
        operator.process(some(2), &mut Output::default());
        let mut out = Output::default();
        operator.flush(Flush::End, &mut out);
        assert_eq!(sizes(out), [2]);
    }
}
