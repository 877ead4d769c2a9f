//! `detect_gap`: lets each version of a key pass once, in order, and says what it follows.
//!
//! Input: events with full documents. Output: the same events with `previous_version` set. A version at or
//! below the last one is a duplicate and dropped (`duplicate`), as is an event of a lower epoch than one seen
//! before (`stale_epoch`). A version above `last + 1` is a `gap`: it is counted, and the full row that it
//! carries heals it, because `diff` makes a whole-document operation of it. The last version with another
//! document is a `conflict`: it is counted and passed on as a resync. Cost: one hash of the document and one
//! look-up per event; about 80 bytes per key.

use crate::key_map::{KeyMap, Weigh};
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::operator::{Keyed, Operator, Output};
use smartpulse_pipeline::registry::{BuildContext, Config, OperatorConfig};
use smartpulse_pipeline::state::KeyState;
use smartpulse_pipeline::{Batch, Event, Key, Operation};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Lets each version of a key pass once and in order; duplicates are dropped, gaps are counted and healed by
/// the full row.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectGapConfig {
    /// What to do with an event whose version skips some. `resync` (the default) passes it on as a whole
    /// document; `dead_letter` sets it aside, and the key stays at its last version.
    pub on_gap: OnGap,
}

/// What to do with an event whose version skips some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Pass it on as a whole document.
    #[default]
    Resync,
    /// Set it aside.
    DeadLetter,
}

impl Config for DetectGapConfig {
    const TYPE: &'static str = "detect_gap";
}

impl OperatorConfig for DetectGapConfig {
    const STATEFUL: bool = true;

    fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(DetectGap { on_gap: self.on_gap, epochs: Vec::new(), seen: KeyMap::new(!cx.fresh) }))
    }
}

struct DetectGap {
    on_gap: OnGap,
    /// The highest epoch seen of each section: every captured table has its own lease.
    epochs: Vec<(Arc<str>, u64)>,
    seen: KeyMap<Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    version: i64,
    hash: u64,
}

impl Weigh for Seen {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

enum Verdict {
    Pass,
    Drop(&'static str),
    SetAside(String),
}

impl DetectGap {
    fn judge(&mut self, event: &mut Event, out: &mut Output) -> Verdict {
        if self.is_stale(event) {
            return Verdict::Drop("stale_epoch");
        }
        let now = Seen { version: event.version, hash: payload_hash(event) };
        let Some(last) = self.seen.get_mut(&event.section, &event.key) else {
            self.seen.set(&event.section, &event.key, Some(now));
            return Verdict::Pass;
        };
        if event.version < last.version || *last == now {
            return Verdict::Drop("duplicate");
        }
        if event.version == last.version {
            out.note("conflict");
            event.resync = true;
        } else if event.version > last.version + 1 {
            if self.on_gap == OnGap::DeadLetter {
                return Verdict::SetAside(format!(
                    "version {} follows version {}: {} versions are missing",
                    event.version,
                    last.version,
                    event.version - last.version - 1
                ));
            }
            out.note("gap");
        }
        event.previous_version = (!event.resync).then_some(last.version);
        *last = now;
        Verdict::Pass
    }

    /// Whether the event comes from a capture lease that another has succeeded.
    fn is_stale(&mut self, event: &Event) -> bool {
        match self
            .epochs
            .iter_mut()
            .find(|(section, _)| Arc::ptr_eq(section, &event.section) || *section == event.section)
        {
            Some((_, epoch)) if event.epoch < *epoch => true,
            Some((_, epoch)) => {
                *epoch = event.epoch;
                false
            }
            None => {
                self.epochs.push((event.section.clone(), event.epoch));
                false
            }
        }
    }
}

impl Operator for DetectGap {
    fn process(&mut self, mut batch: Batch, out: &mut Output) {
        let mut set_aside = Vec::new();
        batch.events.retain_mut(|event| match self.judge(event, out) {
            Verdict::Pass => true,
            Verdict::Drop(reason) => {
                out.drop_event(reason);
                false
            }
            Verdict::SetAside(reason) => {
                set_aside.push((event.clone(), reason));
                false
            }
        });
        for (event, reason) in set_aside {
            out.note("gap");
            out.reject(event, reason);
        }
        out.emit(batch);
    }

    fn keyed(&mut self) -> Option<&mut dyn Keyed> {
        Some(self)
    }
}

impl Keyed for DetectGap {
    fn holds(&self, section: &str, key: &str) -> bool {
        self.seen.holds(section, key)
    }

    fn restore(&mut self, section: &Arc<str>, key: &Key, state: Option<&KeyState>) {
        let seen = state.map(|state| Seen {
            version: state.version,
            hash: state.document.as_ref().map_or(0, |bytes| xxh3_64(bytes)),
        });
        self.seen.set(section, key, seen);
    }
}

/// The hash of what the event sets; of a delete 0, whose last image may or may not be given.
fn payload_hash(event: &Event) -> u64 {
    match (&event.operation, &event.document) {
        (Operation::Delete, _) | (_, None) => 0,
        (_, Some(document)) => xxh3_64(document.bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch_of, event, events_of};

    fn detect(on_gap: OnGap) -> DetectGap {
        DetectGap { on_gap, epochs: Vec::new(), seen: KeyMap::new(true) }
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Counts {
        duplicate: u64,
        stale_epoch: u64,
        conflict: u64,
        gap: u64,
    }

    /// Feeds events and gives (version, previous, resync) of what passes, with the counts.
    fn check(operator: &mut DetectGap, events: Vec<Event>) -> (Vec<(i64, Option<i64>, bool)>, Counts) {
        let mut out = Output::default();
        operator.process(batch_of(events), &mut out);
        let counts = Counts {
            duplicate: out.dropped("duplicate"),
            stale_epoch: out.dropped("stale_epoch"),
            conflict: out.noted("conflict"),
            gap: out.noted("gap"),
        };
        let passed = events_of(out).iter().map(|e| (e.version, e.previous_version, e.resync)).collect();
        (passed, counts)
    }

    #[test]
    fn versions_in_order_pass_and_say_what_they_follow() {
        let (passed, _) = check(&mut detect(OnGap::Resync), vec![event("a", 1, "1"), event("a", 2, "2")]);
        assert_eq!(passed, [(1, None, false), (2, Some(1), false)]);
    }

    #[test]
    fn a_repeated_or_older_version_is_dropped_and_counted() {
        let events = vec![event("a", 1, "1"), event("a", 2, "2"), event("a", 2, "2"), event("a", 1, "1")];
        let (passed, counts) = check(&mut detect(OnGap::Resync), events);
        assert_eq!(passed.len(), 2);
        assert_eq!(counts.duplicate, 2);
    }

    #[test]
    fn a_skipped_version_is_a_gap_that_the_full_row_heals() {
        let (passed, counts) = check(&mut detect(OnGap::Resync), vec![event("a", 1, "1"), event("a", 5, "5")]);
        assert_eq!(passed, [(1, None, false), (5, Some(1), false)]);
        assert_eq!(counts.gap, 1);
    }

    #[test]
    fn the_same_version_with_another_document_is_a_conflict_and_resyncs() {
        let (passed, counts) = check(&mut detect(OnGap::Resync), vec![event("a", 3, "1"), event("a", 3, "2")]);
        assert_eq!(passed, [(3, None, false), (3, None, true)]);
        assert_eq!(counts.conflict, 1);
    }

    #[test]
    fn a_gap_can_be_set_aside_and_the_key_stays() {
        let mut operator = detect(OnGap::DeadLetter);
        let (passed, counts) = check(&mut operator, vec![event("a", 1, "1"), event("a", 3, "3"), event("a", 2, "2")]);
        assert_eq!(passed, [(1, None, false), (2, Some(1), false)]);
        assert_eq!(counts.gap, 1);
    }

    #[test]
    fn a_lower_epoch_than_seen_is_refused() {
        let mut low = event("a", 2, "2");
        let mut high = event("a", 1, "1");
        (low.epoch, high.epoch) = (1, 2);
        let (passed, counts) = check(&mut detect(OnGap::Resync), vec![high, low]);
        assert_eq!(passed.len(), 1);
        assert_eq!(counts.stale_epoch, 1);
    }

    #[test]
    fn restored_state_recognises_a_redelivered_event() {
        let mut operator = detect(OnGap::Resync);
        let redelivered = event("a", 7, "7");
        let state = KeyState {
            key: "a".into(),
            version: 7,
            document: redelivered.document.as_ref().map(|d| d.bytes().clone()),
        };
        assert!(!operator.holds("forecast", "a"));
        operator.restore(&"forecast".into(), &"a".into(), Some(&state));
        operator.restore(&"forecast".into(), &"b".into(), None);
        assert!(operator.holds("forecast", "a") && operator.holds("forecast", "b"));
        let (passed, counts) = check(&mut operator, vec![redelivered, event("a", 8, "8"), event("b", 4, "4")]);
        assert_eq!(passed, [(8, Some(7), false), (4, None, false)]);
        assert_eq!(counts.duplicate, 1);
    }
}
