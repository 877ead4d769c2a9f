//! `map`: makes another document of each event, by a template.
//!
//! Input: any events. Output: the same keys and versions with the rendered document; patch and previous
//! document are gone. A template is any YAML value: text like `"{/document/demand}"` stands for what the
//! pointer finds, with its type; inside longer text it is inserted; what is not found is `null` (in a list:
//! left out). Four functions: `$uuid5: [parts]` (a name-based id), `$set: [items]` (without nulls and repetitions),
//! `$if: {all, any, then, else}` (conditions as in `filter`) and `$changes: {except: [members]}` (field, oldValue, newValue). Cost: one buffer per event.

use crate::template::Template;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_json::Document;
use smartpulse_pipeline::Batch;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::operator::{Operator, Output};
use smartpulse_pipeline::registry::{BuildContext, Config, OperatorConfig};

/// Makes another document of each event, by a template.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapConfig {
    /// The new document. `{/document/x}`, `{/previous/x}`, `{/key}`, `{/version}` and so on stand for what they
    /// point at.
    template: Template,
}

impl Config for MapConfig {
    const TYPE: &'static str = "map";
}

impl OperatorConfig for MapConfig {
    fn build(&self, _cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Map { template: self.template.clone() }))
    }
}

struct Map {
    template: Template,
}

impl Operator for Map {
    fn process(&mut self, mut batch: Batch, out: &mut Output) {
        for mut event in std::mem::take(&mut batch.events) {
            let mut rendered = Vec::with_capacity(512);
            self.template.render(&event, &mut rendered);
            match Document::parse(Bytes::from(rendered)) {
                Ok(document) => {
                    event.document = Some(document);
                    event.previous = None;
                    event.patch = None;
                    batch.events.push(event);
                }
                Err(error) => out.reject(event, format!("the template gives no JSON document: {error}")),
            }
        }
        out.emit(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch_of, event, events_of};

    #[test]
    fn an_event_keeps_its_key_and_version_and_gets_the_rendered_document() {
        let config: MapConfig =
            serde_json::from_str(r#"{"template":{"id":"{/key}","d":"{/document/demand}"}}"#).unwrap();
        let mut out = Output::default();
        Map { template: config.template }.process(batch_of(vec![event("a", 3, r#"{"demand":5.0}"#)]), &mut out);
        let events = events_of(out);
        assert_eq!((&*events[0].key, events[0].version), ("a", 3));
        assert_eq!(events[0].document.as_ref().unwrap().as_str(), r#"{"id":"a","d":5.0}"#);
    }
}
