//! Comparisons of an event with constants, and of one value of it with another, as `filter` and `rules` have them.

use crate::view::ViewPointer;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smartpulse_pipeline::Event;
use smartpulse_pipeline::registry::Check;
use std::cmp::Ordering;

/// What is wrong with a condition of only a pointer.
const COMPARES_NOTHING: &str = "the condition compares nothing";

/// One comparison. Where several are given, all must hold. What the pointer does not find equals nothing, is
/// not equal to anything given, is neither above nor below anything, and neither dropped nor rose.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What is compared: a JSON pointer into the event.
    pointer: ViewPointer,
    /// It equals this.
    #[serde(default)]
    equals: Option<Value>,
    /// It does not equal this.
    #[serde(default)]
    not_equals: Option<Value>,
    /// It equals one of these.
    #[serde(default)]
    one_of: Option<Vec<Value>>,
    /// It is there (true) or not (false); null counts as not there.
    #[serde(default)]
    exists: Option<bool>,
    /// It is a number above this.
    #[serde(default)]
    above: Option<f64>,
    /// It is a number at or above this.
    #[serde(default)]
    at_least: Option<f64>,
    /// It is a number below this.
    #[serde(default)]
    below: Option<f64>,
    /// It is a number at or below this.
    #[serde(default)]
    at_most: Option<f64>,
    /// Another value of the event that `drops_by`, `rises_by`, `changes_by` and `apart_by` compare with, such as
    /// `/previous/demand`.
    #[serde(default)]
    against: Option<ViewPointer>,
    /// It is lower than `against` by this share of it at least: 0.3 is 30 %.
    #[serde(default)]
    drops_by: Option<f64>,
    /// It is higher than `against` by this share of it at least.
    #[serde(default)]
    rises_by: Option<f64>,
    /// It is lower or higher than `against` by this share of it at least.
    #[serde(default)]
    changes_by: Option<f64>,
    /// It is this far from `against` at least, in their own unit.
    #[serde(default)]
    apart_by: Option<f64>,
}

/// A change of exactly the share that is asked for counts, although a decimal share of a decimal number is hardly ever exact:
/// so many parts of the larger number are forgiven. A double has 15 decimal digits.
const ROUNDING: f64 = 1e-12;

impl Condition {
    /// Whether it holds for an event.
    #[must_use]
    pub fn holds(&self, event: &Event) -> bool {
        let found = self.pointer.find(event).and_then(|raw| serde_json::from_str::<Value>(&raw).ok());
        let is = |expected: &Value| found.as_ref().is_some_and(|found| same(found, expected));
        let compares = |bound: Option<f64>, wanted: &[Ordering]| match (bound, found.as_ref().and_then(Value::as_f64)) {
            (None, _) => true,
            (Some(bound), Some(number)) => number.partial_cmp(&bound).is_some_and(|order| wanted.contains(&order)),
            (Some(_), None) => false,
        };
        self.equals.as_ref().is_none_or(is)
            && self.not_equals.as_ref().is_none_or(|value| !is(value))
            && self.one_of.as_ref().is_none_or(|values| values.iter().any(is))
            && self.exists.is_none_or(|exists| exists == found.as_ref().is_some_and(|value| !value.is_null()))
            && compares(self.above, &[Ordering::Greater])
            && compares(self.at_least, &[Ordering::Greater, Ordering::Equal])
            && compares(self.below, &[Ordering::Less])
            && compares(self.at_most, &[Ordering::Less, Ordering::Equal])
            && self.differs(event, found.as_ref().and_then(Value::as_f64))
    }

    /// Whether the comparisons with `against` hold.
    fn differs(&self, event: &Event, found: Option<f64>) -> bool {
        let Some(against) = &self.against else { return true };
        let base = against.find(event).and_then(|raw| serde_json::from_str::<f64>(&raw).ok());
        let (Some(value), Some(base)) = (found, base) else { return false };
        let (rise, forgiven) = (value - base, ROUNDING * value.abs().max(base.abs()));
        let by = |change: f64, wanted: f64| change > 0.0 && change + forgiven >= wanted;
        let share = |change: f64, wanted: Option<f64>| wanted.is_none_or(|wanted| by(change, wanted * base.abs()));
        share(-rise, self.drops_by)
            && share(rise, self.rises_by)
            && share(rise.abs(), self.changes_by)
            && self.apart_by.is_none_or(|wanted| by(rise.abs(), wanted))
    }

    fn differences(&self) -> [Option<f64>; 4] {
        [self.drops_by, self.rises_by, self.changes_by, self.apart_by]
    }

    /// Whether it says anything.
    fn compares(&self) -> bool {
        let bounds = [self.above, self.at_least, self.below, self.at_most];
        self.equals.is_some()
            || self.not_equals.is_some()
            || self.one_of.is_some()
            || self.exists.is_some()
            || bounds.iter().chain(&self.differences()).any(Option::is_some)
    }

    /// What is wrong with it, and what helps: nothing is compared, or a comparison lacks its other half.
    pub(crate) fn problem(&self) -> Option<(String, Option<String>)> {
        let by = "`drops_by`, `rises_by`, `changes_by` or `apart_by`";
        let differences: Vec<f64> = self.differences().into_iter().flatten().collect();
        match (&self.against, differences.as_slice()) {
            (None, [_, ..]) => {
                let help = "add `against: /previous/...`".to_owned();
                Some(("nothing says what it is compared with".to_owned(), Some(help)))
            }
            (Some(_), []) => Some(("`against` compares nothing".to_owned(), Some(format!("add {by}")))),
            (Some(_), some) if some.iter().any(|by| !by.is_finite() || *by < 0.0) => {
                Some((format!("{by} is a number of 0 or more"), None))
            }
            (None, []) if !self.compares() => {
                let help = "give it `equals`, `not_equals`, `one_of`, `exists`, `above`, `at_least`, `below` or `at_most`; or `against` and ";
                Some((COMPARES_NOTHING.to_owned(), Some(format!("{help}{by}"))))
            }
            _ => None,
        }
    }

    /// Complains of what is wrong with it.
    pub(crate) fn validate(&self, at: &str, check: &mut Check<'_>) {
        if let Some((message, help)) = self.problem() {
            check.problem(at, message, help);
        }
    }
}

/// JSON equality in which 1 and 1.0 are the same number.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left_number), Some(right_number)) => left == right || left_number == right_number,
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::event;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    fn check(condition: &str, expected: bool) {
        let subject = event("a", 2, r#"{"status":"Completed","demand":500.0,"note":null}"#);
        let parsed: Condition = serde_json::from_str(condition).unwrap();
        assert_eq!(parsed.holds(&subject), expected, "{condition}");
    }

    #[test]
    fn comparisons_hold_as_their_names_say() {
        for (condition, expected) in [
            (r#"{"pointer":"/document/status","equals":"Completed"}"#, true),
            (r#"{"pointer":"/document/status","not_equals":"Completed"}"#, false),
            (r#"{"pointer":"/document/absent","equals":"x"}"#, false),
            (r#"{"pointer":"/document/absent","not_equals":"x"}"#, true),
            (r#"{"pointer":"/document/status","one_of":["Active","Completed"]}"#, true),
            (r#"{"pointer":"/document/demand","equals":500}"#, true),
            (r#"{"pointer":"/document/demand","above":499.5,"below":500.5}"#, true),
            (r#"{"pointer":"/document/demand","above":500}"#, false),
            (r#"{"pointer":"/document/demand","at_least":500,"at_most":500}"#, true),
            (r#"{"pointer":"/document/status","above":1}"#, false),
            (r#"{"pointer":"/document/note","exists":false}"#, true),
            (r#"{"pointer":"/document/demand","exists":true}"#, true),
            (r#"{"pointer":"/version","equals":2}"#, true),
            (r#"{"pointer":"/snapshot","equals":false}"#, true),
        ] {
            check(condition, expected);
        }
    }

    #[test]
    fn comparisons_with_another_value_hold_as_their_names_say() {
        let holds = |was: f64, is: f64, by: &str| {
            let mut subject = event("a", 2, &format!(r#"{{"demand":{is:?}}}"#));
            subject.previous = event("a", 1, &format!(r#"{{"demand":{was:?}}}"#)).document;
            let condition = format!(r#"{{"pointer":"/document/demand","against":"/previous/demand",{by}}}"#);
            serde_json::from_str::<Condition>(&condition).unwrap().holds(&subject)
        };
        for (was, is, by, expected) in [
            (500.0, 350.0, r#""drops_by":0.3"#, true),
            (500.0, 350.1, r#""drops_by":0.3"#, false),
            (500.0, 650.0, r#""drops_by":0.3"#, false),
            (500.0, 650.0, r#""rises_by":0.3"#, true),
            (0.9, 0.63, r#""drops_by":0.3"#, true),
            (0.1, 0.07, r#""changes_by":0.3"#, true),
            (-100.0, -130.0, r#""drops_by":0.3"#, true),
            (-100.0, -130.0, r#""rises_by":0.3"#, false),
            (0.0, 0.1, r#""rises_by":0.3"#, true),
            (0.0, 0.0, r#""changes_by":0"#, false),
            (10.0, 12.5, r#""apart_by":2.5"#, true),
            (10.0, 7.6, r#""apart_by":2.5"#, false),
        ] {
            assert_eq!(holds(was, is, by), expected, "{was} to {is}, {by}");
        }
    }

    #[test]
    fn what_was_not_there_before_neither_dropped_nor_rose() {
        for by in [r#""drops_by":0"#, r#""rises_by":0"#, r#""changes_by":0"#, r#""apart_by":0"#] {
            check(&format!(r#"{{"pointer":"/document/demand","against":"/previous/demand",{by}}}"#), false);
            check(&format!(r#"{{"pointer":"/document/note","against":"/document/demand",{by}}}"#), false);
        }
    }

    proptest! {
        #[test]
        fn a_change_is_a_drop_or_a_rise(was in -1e9..1e9, is in -1e9..1e9, share in 0.0..2.0) {
            let mut subject = event("a", 2, &json!({"d": is}).to_string());
            subject.previous = event("a", 1, &json!({"d": was}).to_string()).document;
            let holds = |by: &str| {
                let condition = json!({"pointer": "/document/d", "against": "/previous/d", by: share});
                serde_json::from_value::<Condition>(condition).unwrap().holds(&subject)
            };
            let (dropped, rose) = (holds("drops_by"), holds("rises_by"));
            prop_assert!(!(dropped && rose));
            prop_assert_eq!(holds("changes_by"), dropped || rose);
            prop_assert!(!dropped || is < was);
            prop_assert!(!rose || is > was);
        }
    }
}
