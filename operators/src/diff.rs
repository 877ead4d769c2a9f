//! `diff`: makes of each full document the patch from the version before it.
//!
//! Input: events with full documents, in version order per key (put `detect_gap` before it). Output: the same
//! events with `patch`, and with `previous`, the document before. A first version becomes one `add` at path "",
//! a version whose predecessor is unknown (a gap) one `replace` at "", a delete one `remove` at "". Law:
//! `apply(diff(a, b), a) == b`. Cost: one pass over the new document's bytes; unchanged members are compared,
//! never parsed; one copy of each key's last document is kept.

use crate::key_map::{KeyMap, Weigh};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_json::Document;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::operator::{Keyed, Operator, Output};
use smartpulse_pipeline::registry::{BuildContext, Config, OperatorConfig};
use smartpulse_pipeline::state::KeyState;
use smartpulse_pipeline::{Batch, Event, Key, Operation, Patch};
use std::sync::Arc;

/// Makes of each full document the RFC 6902 patch from the version before it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiffConfig {}

impl Config for DiffConfig {
    const TYPE: &'static str = "diff";
}

impl OperatorConfig for DiffConfig {
    const STATEFUL: bool = true;

    fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Diff { bases: KeyMap::new(!cx.fresh), scratch: Vec::new() }))
    }
}

struct Diff {
    bases: KeyMap<Base>,
    /// Where the patches of a batch are written one after the other, so that they share one allocation.
    scratch: Vec<u8>,
}

/// The last version of a key.
struct Base {
    version: i64,
    /// None when that version deleted it.
    document: Option<Document>,
}

impl Diff {
    /// Appends the patch of an event to the scratch buffer and says whether it is whole.
    fn patch(&mut self, event: &mut Event) -> bool {
        let base = self.bases.get_mut(&event.section, &event.key);
        let document = event.document.as_ref().filter(|_| event.operation != Operation::Delete);
        let whole = write_patch(event, document, base.as_deref(), &mut self.scratch);
        // The source's buffer may be a megabyte: what is kept must not pin it.
        let next = Base { version: event.version, document: document.map(Document::detach) };
        match base {
            Some(base) => {
                let grown = next.bytes().saturating_sub(base.bytes());
                event.previous = std::mem::replace(base, next).document;
                self.bases.grew(grown);
            }
            None => self.bases.set(&event.section, &event.key, Some(next)),
        }
        whole
    }
}

impl Weigh for Base {
    fn bytes(&self) -> usize {
        self.document.as_ref().map_or(0, Document::memory)
    }
}

/// Writes the patch that leads to an event's document, and says whether it is whole.
fn write_patch(event: &Event, document: Option<&Document>, base: Option<&Base>, out: &mut Vec<u8>) -> bool {
    let Some(document) = document else {
        smartpulse_json::whole_remove(out);
        return true;
    };
    let follows = |base: &Base| base.version + 1 == event.version && event.previous_version == Some(base.version);
    match base {
        Some(base @ Base { document: Some(before), .. }) if follows(base) => {
            smartpulse_json::diff(before, document, out);
            return false;
        }
        // Re-created right after its delete, or never heard of.
        Some(base @ Base { document: None, .. }) if follows(base) => smartpulse_json::whole_add(document, out),
        None if event.previous_version.is_none() => smartpulse_json::whole_add(document, out),
        _ => smartpulse_json::whole_replace(document, out),
    }
    true
}

impl Operator for Diff {
    fn process(&mut self, mut batch: Batch, out: &mut Output) {
        self.scratch.clear();
        let mut ends = Vec::with_capacity(batch.events.len());
        for event in &mut batch.events {
            let whole = self.patch(event);
            ends.push((self.scratch.len(), whole));
        }
        let patches = Bytes::copy_from_slice(&self.scratch);
        let mut start = 0;
        for (event, (end, whole)) in batch.events.iter_mut().zip(ends) {
            event.patch = Some(Patch { items: patches.slice(start..end), whole });
            start = end;
        }
        out.emit(batch);
    }

    fn keyed(&mut self) -> Option<&mut dyn Keyed> {
        Some(self)
    }
}

impl Keyed for Diff {
    fn holds(&self, section: &str, key: &str) -> bool {
        self.bases.holds(section, key)
    }

    fn restore(&mut self, section: &Arc<str>, key: &Key, state: Option<&KeyState>) {
        // A stored document that does not parse is no base: the next version goes out whole.
        let base = state.map(|state| Base {
            version: state.version,
            document: state.document.clone().and_then(|bytes| Document::parse(bytes).ok()),
        });
        self.bases.set(section, key, base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch_of, event, events_of};

    fn diff() -> Diff {
        Diff { bases: KeyMap::new(true), scratch: Vec::new() }
    }

    fn follows(mut event: Event, previous: i64) -> Event {
        event.previous_version = Some(previous);
        event
    }

    fn delete(key: &str, version: i64) -> Event {
        let mut event = event(key, version, "{}");
        event.operation = Operation::Delete;
        follows(event, version - 1)
    }

    fn check(operator: &mut Diff, events: Vec<Event>, expected: &[(&str, bool)]) {
        let mut out = Output::default();
        operator.process(batch_of(events), &mut out);
        let patches: Vec<(String, bool)> = events_of(out)
            .into_iter()
            .map(|event| event.patch.unwrap())
            .map(|patch| (String::from_utf8(patch.items.to_vec()).unwrap(), patch.whole))
            .collect();
        let expected: Vec<(String, bool)> = expected.iter().map(|(text, whole)| ((*text).to_owned(), *whole)).collect();
        assert_eq!(patches, expected);
    }

    #[test]
    fn a_first_version_is_one_add_and_the_next_a_patch() {
        check(
            &mut diff(),
            vec![event("a", 1, r#"{"x":1}"#), follows(event("a", 2, r#"{"x":2}"#), 1)],
            &[
                (r#"[{"Op":"add","Path":"","Value":{"x":1}}]"#, true),
                (r#"[{"Op":"replace","Path":"/x","Value":2}]"#, false),
            ],
        );
    }

    #[test]
    fn a_version_after_a_gap_is_one_replace_of_the_whole() {
        check(
            &mut diff(),
            vec![event("a", 1, r#"{"x":1}"#), follows(event("a", 5, r#"{"x":2}"#), 1)],
            &[
                (r#"[{"Op":"add","Path":"","Value":{"x":1}}]"#, true),
                (r#"[{"Op":"replace","Path":"","Value":{"x":2}}]"#, true),
            ],
        );
    }

    #[test]
    fn a_delete_is_one_remove_and_a_re_creation_one_add() {
        check(
            &mut diff(),
            vec![event("a", 1, r#"{"x":1}"#), delete("a", 2), follows(event("a", 3, r#"{"x":1}"#), 2), delete("a", 4)],
            &[
                (r#"[{"Op":"add","Path":"","Value":{"x":1}}]"#, true),
                (r#"[{"Op":"remove","Path":""}]"#, true),
                (r#"[{"Op":"add","Path":"","Value":{"x":1}}]"#, true),
                (r#"[{"Op":"remove","Path":""}]"#, true),
            ],
        );
    }

    #[test]
    fn a_base_of_another_version_than_the_predecessor_does_not_count() {
        let mut operator = diff();
        let state = KeyState { key: "a".into(), version: 3, document: Some(Bytes::from_static(br#"{"x":1}"#)) };
        operator.restore(&"forecast".into(), &"a".into(), Some(&state));
        check(
            &mut operator,
            vec![follows(event("a", 7, r#"{"x":2}"#), 6)],
            &[(r#"[{"Op":"replace","Path":"","Value":{"x":2}}]"#, true)],
        );
    }

    #[test]
    fn a_resync_is_whole_even_with_a_base() {
        let mut again = event("a", 1, r#"{"x":9}"#);
        again.resync = true;
        check(
            &mut diff(),
            vec![event("a", 1, r#"{"x":1}"#), again],
            &[
                (r#"[{"Op":"add","Path":"","Value":{"x":1}}]"#, true),
                (r#"[{"Op":"replace","Path":"","Value":{"x":9}}]"#, true),
            ],
        );
    }
}
