//! Comparisons of an event with constants, as `filter` has them.

use crate::view::ViewPointer;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smartpulse_pipeline::Event;
use smartpulse_pipeline::registry::Check;
use std::cmp::Ordering;

/// What is wrong with a condition of only a pointer.
pub(crate) const COMPARES_NOTHING: &str = "the condition compares nothing";

/// One comparison. Where several are given, all must hold. What the pointer does not find equals nothing, is
/// not equal to anything given, and is neither above nor below anything.
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
}

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
    }

    /// Whether it says anything.
    pub(crate) fn compares(&self) -> bool {
        let bounds = [self.above, self.at_least, self.below, self.at_most];
        self.equals.is_some()
            || self.not_equals.is_some()
            || self.one_of.is_some()
            || self.exists.is_some()
            || bounds.iter().any(Option::is_some)
    }

    /// Complains when nothing is compared.
    pub(crate) fn validate(&self, at: &str, check: &mut Check<'_>) {
        if !self.compares() {
            check.problem(
                at,
                COMPARES_NOTHING,
                Some(
                    "give it `equals`, `not_equals`, `one_of`, `exists`, `above`, `at_least`, `below` or `at_most`"
                        .into(),
                ),
            );
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
}
