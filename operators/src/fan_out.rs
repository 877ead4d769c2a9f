//! `fan_out`: sends each event to the outputs whose list names its value.
//!
//! Input: any events. Output: one named port per entry of `outputs`; a component reads one with
//! `inputs: [<id>.<port>]`. The value at `by` is a string, or a list of strings of which each counts. An event
//! that several ports name is copied to each, under one ack. What no port names is dropped and counted
//! (`unmatched`) or set aside. Order is kept within each port.

use crate::view::ViewPointer;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::operator::{Operator, Output};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, OperatorConfig};
use smartpulse_pipeline::{Batch, Event};
use std::collections::BTreeMap;

/// Sends each event to the outputs whose list names its value.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FanOutConfig {
    /// What decides: a JSON pointer into the event, to a string or a list of strings.
    by: ViewPointer,
    /// The output ports, each with the values that it takes. Read one with `inputs: [<id>.<port>]`.
    outputs: BTreeMap<String, Vec<String>>,
    /// What to do with an event that no port takes: `drop` (the default) or `dead_letter`.
    #[serde(default)]
    unmatched: Unmatched,
}

/// What to do with an event that no port takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// Drop it and count it.
    #[default]
    Drop,
    /// Set it aside.
    DeadLetter,
}

impl Config for FanOutConfig {
    const TYPE: &'static str = "fan_out";

    fn validate(&self, check: &mut Check<'_>) {
        if self.outputs.is_empty() {
            check.problem(
                "outputs",
                "there are no outputs",
                Some("name at least one, such as `email: [Email, All]`".into()),
            );
        }
        for (port, values) in &self.outputs {
            if !smartpulse_config::is_id(port) {
                check.problem(
                    &format!("outputs.{port}"),
                    format!("`{port}` cannot be a port's name"),
                    Some("use lower-case letters, digits and underscores, beginning with a letter".into()),
                );
            }
            if values.is_empty() {
                check.problem(&format!("outputs.{port}"), "the port takes no value, so nothing can reach it", None);
            }
        }
    }
}

impl OperatorConfig for FanOutConfig {
    fn ports(&self) -> Vec<String> {
        self.outputs.keys().cloned().collect()
    }

    fn build(&self, _cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FanOut { config: self.clone() }))
    }
}

struct FanOut {
    config: FanOutConfig,
}

impl FanOut {
    fn values(&self, event: &Event) -> Vec<String> {
        let found = self.config.by.find(event).and_then(|raw| serde_json::from_str::<Value>(&raw).ok());
        match found {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(items)) => items
                .into_iter()
                .filter_map(|item| match item {
                    Value::String(text) => Some(text),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Operator for FanOut {
    fn process(&mut self, mut batch: Batch, out: &mut Output) {
        let mut ports: Vec<Vec<Event>> = vec![Vec::new(); self.config.outputs.len()];
        for event in std::mem::take(&mut batch.events) {
            let values = self.values(&event);
            let mut taken = false;
            for (port, accepted) in ports.iter_mut().zip(self.config.outputs.values()) {
                if values.iter().any(|value| accepted.contains(value)) {
                    port.push(event.clone());
                    taken = true;
                }
            }
            match (taken, self.config.unmatched) {
                (true, _) => {}
                (false, Unmatched::Drop) => out.drop_event("unmatched"),
                (false, Unmatched::DeadLetter) => {
                    let reason = format!("no output of the fan-out takes {values:?}");
                    out.reject(event, reason);
                }
            }
        }
        let mut parts: Vec<Batch> = ports.into_iter().map(|events| batch.with_events(events)).collect();
        // Keyed state and the original's share of the ack go with the last port.
        if let Some(mut last) = parts.pop() {
            batch.events = std::mem::take(&mut last.events);
            last.ack.delivered();
            parts.push(batch);
        }
        for (port, part) in parts.into_iter().enumerate() {
            out.emit_to(port, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch_of, event};

    fn check(config: &str, documents: &[&str]) -> (Vec<Vec<String>>, u64) {
        let config: FanOutConfig = serde_json::from_str(config).unwrap();
        let events = documents.iter().map(|text| event(text, 1, text)).collect();
        let mut out = Output::default();
        FanOut { config }.process(batch_of(events), &mut out);
        let unmatched = out.dropped("unmatched");
        let keys = |batch: Batch| batch.events.iter().map(|event| event.key.to_string()).collect();
        (out.into_batches().into_iter().map(keys).collect(), unmatched)
    }

    #[test]
    fn each_port_gets_what_it_names_and_the_rest_is_counted() {
        let config = r#"{"by":"/document/channel","outputs":{"email":["Email","All"],"push":["Push","All"]}}"#;
        let (email, push, all, none) =
            (r#"{"channel":"Email"}"#, r#"{"channel":["Push"]}"#, r#"{"channel":"All"}"#, r#"{"channel":7}"#);
        let (ports, unmatched) = check(config, &[email, push, all, none]);
        assert_eq!(ports, [vec![email, all], vec![push, all]]);
        assert_eq!(unmatched, 1);
    }
}
