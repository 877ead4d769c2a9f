//! `filter`: lets events pass for which all conditions hold.
//!
//! Input and output: any events, in order. What does not pass is dropped and counted (`filtered`). Keyed state
//! further up still advances with what is dropped here, so that `previous` is always the version before.

use crate::condition::Condition;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::operator::{Operator, Output};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, OperatorConfig};
use smartpulse_pipeline::{Batch, Event};

/// Lets those events pass for which every condition of `all`, and one at least of `any`, holds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Conditions that must all hold.
    pub all: Vec<Condition>,
    /// Conditions of which one must hold, if there are any.
    pub any: Vec<Condition>,
}

impl Config for FilterConfig {
    const TYPE: &'static str = "filter";

    fn validate(&self, check: &mut Check<'_>) {
        self.validate_at("", check);
    }
}

impl OperatorConfig for FilterConfig {
    fn build(&self, _cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Filter { config: self.clone() }))
    }
}

struct Filter {
    config: FilterConfig,
}

impl FilterConfig {
    /// Complains of what stands at `at`.
    pub(crate) fn validate_at(&self, at: &str, check: &mut Check<'_>) {
        if self.all.is_empty() && self.any.is_empty() {
            check.problem(at, "there are no conditions", Some("give it a list under `all` or `any`".into()));
        }
        let dot = if at.is_empty() { "" } else { "." };
        for (list, conditions) in [("all", &self.all), ("any", &self.any)] {
            for (index, condition) in conditions.iter().enumerate() {
                condition.validate(&format!("{at}{dot}{list}[{index}]"), check);
            }
        }
    }

    /// Whether an event passes.
    pub(crate) fn passes(&self, event: &Event) -> bool {
        self.all.iter().all(|condition| condition.holds(event))
            && (self.any.is_empty() || self.any.iter().any(|condition| condition.holds(event)))
    }
}

impl Operator for Filter {
    fn process(&mut self, mut batch: Batch, out: &mut Output) {
        batch.events.retain(|event| {
            let passes = self.config.passes(event);
            if !passes {
                out.drop_event("filtered");
            }
            passes
        });
        out.emit(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch_of, event, events_of};

    #[test]
    fn only_what_meets_all_and_any_passes_and_the_rest_is_counted() {
        let config: FilterConfig = serde_json::from_str(
            r#"{"all":[{"pointer":"/document/n","above":0}],
                "any":[{"pointer":"/key","equals":"a"},{"pointer":"/key","equals":"b"}]}"#,
        )
        .unwrap();
        let mut out = Output::default();
        let events = [("a", 1), ("b", 0), ("c", 1), ("b", 2)];
        let events = events.map(|(key, n)| event(key, 1, &format!(r#"{{"n":{n}}}"#)));
        Filter { config }.process(batch_of(events.to_vec()), &mut out);
        assert_eq!(out.dropped("filtered"), 2);
        let keys: Vec<String> = events_of(out).iter().map(|event| event.key.to_string()).collect();
        assert_eq!(keys, ["a", "b"]);
    }
}
