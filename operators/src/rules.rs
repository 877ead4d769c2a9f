//! `rules`: says who is to be told of an event, and what.
//!
//! Input: events in order, behind `detect_gap` and `diff` where rules look at `/previous`. Output: one event per rule that
//! holds, with the entity's key and version, and a notification request as its document:
//!
//! ```json
//! { "id": "UUIDv5(rule, entity, version)", "rule": "...", "entity": "...", "version": 7, "tell": { "company": "..." },
//!   "channels": ["InApp"], "title": "...", "body": "...", "type": "...", "url": "...", "templateId": "...", "data": {},
//!   "quietS": 600 }
//! ```
//!
//! The same event gives the same requests, with the same ids. What no rule holds for is dropped and counted (`no_rule`), and
//! so are rows of snapshots, whatever the rules say (`snapshot`): they are no news. Where the title, the body or the type of a
//! rule finds nothing for one of its holes the event is refused with the reason, and its other rules count.
//! Cost: the conditions of each rule, and one buffer per request.

use crate::filter::FilterConfig;
use crate::template::Template;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smartpulse_json::Document;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::message::{ChannelChoice, push_integer, push_json_string, request_id};
use smartpulse_pipeline::operator::{Operator, Output};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, OperatorConfig};
use smartpulse_pipeline::{Batch, Event, Operation};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Says who is to be told of an event, and what: one notification request for each rule that holds.
///
/// Several rules may hold for one event. Rows of snapshots tell nobody.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesConfig {
    /// The rules, by name: lower-case letters, digits and underscores. The name is part of the ids of what is told: under
    /// another name people are told again.
    rules: BTreeMap<String, Rule>,
}

/// Whom to tell what, when.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// When it holds: conditions as `filter` has them, such as
    /// `{ pointer: /document/demand, against: /previous/demand, drops_by: 0.3 }`.
    when: FilterConfig,
    /// Who is told: one of `user`, `forecast`, `company`, `role`, or `company` and `role`.
    tell: Tell,
    /// By which channels.
    channels: Vec<ChannelChoice>,
    /// The headline, with `{/document/x}`, `{/previous/x}`, `{/key}`, `{/version}` and so on for what they point at.
    title: Template,
    /// The text, with the same.
    body: Template,
    /// What kind of notification it is, for programs; the rule's name by default.
    #[serde(default, rename = "type")]
    type_: Option<Template>,
    /// What a click opens, with the same: `https://...`, or `/...` within the application.
    #[serde(default)]
    url: Option<Template>,
    /// The template of its mail; `notification` by default.
    #[serde(default)]
    template: Option<String>,
    /// What mail templates and devices get besides: a mapping, as `map` has templates.
    #[serde(default)]
    data: Option<Template>,
    /// For so many seconds after a user was told by this rule, it tells the same user nothing, 0 to 2592000; 0, the default, is
    /// no such period.
    #[serde(default)]
    #[schemars(range(max = 2_592_000))]
    quiet_s: u32,
}

/// Who is told.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Tell {
    /// The user with this id.
    user: Option<Template>,
    /// The users of the company that this forecast belongs to, by its id.
    forecast: Option<Template>,
    /// The users of this company, by its id.
    company: Option<Template>,
    /// The users with this role; with `company`, those of the company.
    role: Option<Template>,
}

impl Tell {
    fn members(&self) -> [(&'static str, &Option<Template>); 4] {
        [("user", &self.user), ("forecast", &self.forecast), ("company", &self.company), ("role", &self.role)]
    }
}

impl Config for RulesConfig {
    const TYPE: &'static str = "rules";

    fn validate(&self, check: &mut Check<'_>) {
        if self.rules.is_empty() {
            check.problem("rules", "there are no rules", None);
        }
        for (name, rule) in &self.rules {
            let at = |member: &str| format!("rules.{name}.{member}");
            if !smartpulse_config::is_id(name) {
                let help = "use lower-case letters, digits and underscores, beginning with a letter";
                let message = format!("`{name}` cannot be a rule's name");
                check.problem(&format!("rules.{name}"), message, Some(help.to_owned()));
            }
            rule.when.validate_at(&at("when"), check);
            let named: Vec<&str> =
                rule.tell.members().into_iter().filter(|(_, to)| to.is_some()).map(|(name, _)| name).collect();
            if named.len() != 1 && named != ["company", "role"] {
                let message = match named.is_empty() {
                    true => "nobody is told".to_owned(),
                    false => format!("nobody is told by {} together", named.join(" and ")),
                };
                let help = "name one of `user`, `forecast`, `company`, `role`, or `company` and `role`";
                check.problem(&at("tell"), message, Some(help.to_owned()));
            }
            if rule.channels.is_empty() {
                let help = "name some of InApp, PushNotification, Email; or All";
                check.problem(&at("channels"), "there are no channels", Some(help.to_owned()));
            }
            if rule.data.as_ref().is_some_and(|data| !matches!(data, Template::Object(_))) {
                check.problem(&at("data"), "`data` is a mapping", None);
            }
        }
    }
}

impl OperatorConfig for RulesConfig {
    fn build(&self, _cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Rules { rules: self.rules.clone(), section: "notification".into() }))
    }
}

struct Rules {
    rules: BTreeMap<String, Rule>,
    section: Arc<str>,
}

impl Operator for Rules {
    fn process(&mut self, mut batch: Batch, out: &mut Output) {
        let mut requests = Vec::new();
        for event in std::mem::take(&mut batch.events) {
            if event.snapshot {
                out.drop_event("snapshot");
                continue;
            }
            let before = requests.len();
            let mut failed = Vec::new();
            for (name, rule) in self.rules.iter().filter(|(_, rule)| rule.when.passes(&event)) {
                match rule.request(name, &event) {
                    Ok(document) => requests.push(self.event(&event, document)),
                    Err(reason) => failed.push(format!("rule {name}: {reason}")),
                }
            }
            if !failed.is_empty() {
                out.reject(event, failed.join("; "));
            } else if requests.len() == before {
                out.drop_event("no_rule");
            }
        }
        batch.events = requests;
        out.emit(batch);
    }
}

impl Rules {
    fn event(&self, of: &Event, document: Document) -> Event {
        let (section, key) = (Arc::clone(&self.section), Arc::clone(&of.key));
        let mut event = Event::new(section, key, of.version, Operation::Insert, Some(document));
        event.commit_time = of.commit_time;
        event.trace = of.trace;
        event
    }
}

impl Rule {
    /// The request, or what keeps it from being one.
    fn request(&self, name: &str, event: &Event) -> Result<Document, String> {
        let mut out = Vec::with_capacity(512);
        let id = request_id(name, &event.key, event.version).to_string();
        for (member, value) in [("{\"id\":", id.as_str()), (",\"rule\":", name), (",\"entity\":", &event.key)] {
            out.extend_from_slice(member.as_bytes());
            push_json_string(&mut out, value);
        }
        out.extend_from_slice(b",\"version\":");
        push_integer(&mut out, event.version);
        out.extend_from_slice(b",\"tell\":{");
        for (index, (member, value)) in
            self.tell.members().into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).enumerate()
        {
            out.extend_from_slice(if index > 0 { b",\"" } else { b"\"" });
            out.extend_from_slice(member.as_bytes());
            out.extend_from_slice(b"\":");
            value.render(event, &mut out);
        }
        out.extend_from_slice(b"},\"channels\":");
        out.extend_from_slice(serde_json::json!(self.channels).to_string().as_bytes());
        let default_type = Template::Fixed(Value::from(name).to_string());
        let type_ = self.type_.as_ref().unwrap_or(&default_type);
        for (member, template) in [("title", &self.title), ("body", &self.body), ("type", type_)] {
            let text = template.plain_text(event);
            if text == "null" {
                return Err(format!("its {member} has a hole for which the event has nothing"));
            }
            out.extend_from_slice(format!(",\"{member}\":").as_bytes());
            push_json_string(&mut out, &text);
        }
        for (member, template) in [("url", &self.url), ("data", &self.data)] {
            if let Some(template) = template {
                out.extend_from_slice(format!(",\"{member}\":").as_bytes());
                template.render(event, &mut out);
            }
        }
        if let Some(template) = &self.template {
            out.extend_from_slice(b",\"templateId\":");
            push_json_string(&mut out, template);
        }
        if self.quiet_s > 0 {
            out.extend_from_slice(b",\"quietS\":");
            push_integer(&mut out, i64::from(self.quiet_s));
        }
        out.push(b'}');
        Document::parse(Bytes::from(out)).map_err(|error| format!("it gives no JSON document: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{batch_of, event, events_of};
    use proptest::{prop_assert_eq, proptest};
    use serde_json::json;

    const RULES: &str = r#"{"rules": {
        "dropped": {
            "when": {"all": [{"pointer": "/document/demand", "against": "/previous/demand", "drops_by": 0.3}]},
            "tell": {"company": "{/document/companyId}"}, "channels": ["All"],
            "title": "{/key} fell", "body": "from {/previous/demand} to {/document/demand}", "quiet_s": 60},
        "completed": {
            "when": {"all": [{"pointer": "/document/status", "equals": "Completed"}]},
            "tell": {"company": "c", "role": "viewer"}, "channels": ["InApp", "Email"],
            "title": "{/document/name}", "body": "b", "type": "Done", "url": "/f/{/key}", "template": "t",
            "data": {"v": "{/version}"}}}}"#;

    fn changed(was: f64, is: f64, more: &str) -> Event {
        let mut event = event("f1", 7, &format!(r#"{{"companyId":"c1","demand":{is:?}{more}}}"#));
        event.previous = crate::tests::event("f1", 6, &format!(r#"{{"demand":{was:?}}}"#)).document;
        event
    }

    /// The requests, and how many events were dropped as a snapshot's and for want of a rule.
    fn run(events: Vec<Event>) -> (Vec<Value>, u64, u64) {
        let RulesConfig { rules } = serde_json::from_str(RULES).unwrap();
        let mut out = Output::default();
        Rules { rules, section: "notification".into() }.process(batch_of(events), &mut out);
        let (snapshot, no_rule) = (out.dropped("snapshot"), out.dropped("no_rule"));
        let request = |event: Event| {
            assert_eq!((&*event.section, &*event.key, event.version), ("notification", "f1", 7));
            serde_json::from_slice(event.document.unwrap().bytes()).unwrap()
        };
        (events_of(out).into_iter().map(request).collect(), snapshot, no_rule)
    }

    #[test]
    fn each_rule_that_holds_gives_a_request() {
        let (requests, ..) = run(vec![changed(10.0, 5.0, r#","status":"Completed","name":"N""#)]);
        let completed = json!({
            "id": request_id("completed", "f1", 7), "rule": "completed", "entity": "f1", "version": 7,
            "tell": {"company": "c", "role": "viewer"}, "channels": ["InApp", "Email"],
            "title": "N", "body": "b", "type": "Done", "url": "/f/f1", "data": {"v": 7}, "templateId": "t"});
        let dropped = json!({
            "id": request_id("dropped", "f1", 7), "rule": "dropped", "entity": "f1", "version": 7,
            "tell": {"company": "c1"}, "channels": ["All"],
            "title": "f1 fell", "body": "from 10.0 to 5.0", "type": "dropped", "quietS": 60});
        assert_eq!(requests, [completed, dropped]);
    }

    #[test]
    fn a_snapshot_tells_nobody_and_what_no_rule_holds_for_is_counted() {
        let mut snapshot = changed(10.0, 5.0, "");
        snapshot.snapshot = true;
        assert_eq!(run(vec![snapshot, changed(10.0, 9.0, "")]), (Vec::new(), 1, 1));
    }

    #[test]
    fn a_title_that_finds_nothing_is_refused_and_the_other_rules_count() {
        let RulesConfig { rules } = serde_json::from_str(RULES).unwrap();
        let mut out = Output::default();
        let events = vec![changed(10.0, 5.0, r#","status":"Completed""#)];
        Rules { rules, section: "n".into() }.process(batch_of(events), &mut out);
        assert_eq!(out.rejections(), ["rule completed: its title has a hole for which the event has nothing"]);
        assert_eq!(events_of(out).len(), 1);
    }

    proptest! {
        #[test]
        fn the_same_events_give_the_same_requests(demands in proptest::collection::vec((0.0..10.0, 0.0..10.0), 1..20)) {
            let events: Vec<Event> = demands.iter().map(|(was, is)| changed(*was, *is, "")).collect();
            let (first, _, no_rule) = run(events.clone());
            prop_assert_eq!(first.len() as u64 + no_rule, events.len() as u64);
            prop_assert_eq!(run(events).0, first);
        }
    }
}
