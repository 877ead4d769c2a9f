//! `smartpulse plan --event`: who would be told what of events, by which channel, and why not. Nothing is sent, nothing created.
//!
//! The events go through the operators of the pipelines as they are, from topic to topic; where they would reach a sink `notify`,
//! the database is asked who that is. What other sinks would do is not looked at.

mod report;

use crate::failure::Failure;
use crate::setup::{Pipeline, Session};
use anyhow::{Context, anyhow};
use bytes::Bytes;
use report::{Report, Request};
use serde_json::{Value, json};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_config::ComponentSpec;
use smartpulse_json::Document;
use smartpulse_pipeline::message::decode_change;
use smartpulse_pipeline::state::{DeadLetterFilter, Store};
use smartpulse_pipeline::telemetry::Telemetry;
use smartpulse_pipeline::topology::BuildEnv;
use smartpulse_pipeline::{Event, Operation};
use smartpulse_sinks::{Directory, NotificationRequest};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Topics that follow from each other, at most: pipelines may lead in a circle.
const ROUNDS_MAX: usize = 10;

/// People of an audience that are asked for.
const PEOPLE_MAX: usize = 1_000;

/// What is under way on each topic.
type Topics = BTreeMap<String, Vec<Event>>;

/// Follows the events of a file through the pipelines.
///
/// # Errors
/// When the file holds no such events, or a database does not answer.
pub async fn rehearse(session: &Session, pipelines: &[Pipeline], file: &Path) -> Result<Report, Failure> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut topics = read(&text).with_context(|| format!("in {}", file.display()))?;
    let mut report = Report::of(topics.values().flatten());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let env = BuildEnv {
        settings: session.settings.clone(),
        store: store.clone(),
        resources: session.resources.clone(),
        telemetry: Telemetry::register(&prometheus::Registry::new()).context("no metrics")?,
        instance: session.instance,
    };
    for _ in 0..ROUNDS_MAX {
        let mut next = Topics::new();
        for (topic, events) in &topics {
            for Pipeline { spec, blueprint } in pipelines {
                let reads = |source: &&ComponentSpec| {
                    source.type_name == "topic" && parameter(source, "topic").as_deref() == Some(topic)
                };
                for source in spec.sources.iter().filter(reads) {
                    for (id, event) in blueprint.rehearse(&env, &source.id, events.clone()).await? {
                        let Some(sink) = spec.sinks.iter().find(|sink| *sink.id == *id) else { continue };
                        match sink.type_name.as_str() {
                            "topic" => {
                                let to = parameter(sink, "topic").unwrap_or_default();
                                next.entry(to).or_default().push(event);
                            }
                            "notify" => report.requests.push(address(session, sink, &event).await?),
                            _ => {}
                        }
                    }
                }
            }
        }
        topics = next;
    }
    let filter = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
    for stored in store.dead_letters(&filter).await? {
        let letter = stored.letter;
        report.refused.push(format!("{}/{}: {}", letter.pipeline, letter.component, letter.reason));
    }
    report.refused.reverse();
    Ok(report)
}

/// A parameter of a component.
fn parameter(component: &ComponentSpec, name: &str) -> Option<String> {
    Some(component.params.as_mapping()?.get(name)?.value.as_text()?.to_owned())
}

/// Whom a request would tell.
async fn address(session: &Session, sink: &ComponentSpec, event: &Event) -> Result<Request, Failure> {
    let document = event.document.as_ref().ok_or_else(|| anyhow!("a request without a document"))?;
    let request = match NotificationRequest::parse(document.bytes()) {
        Ok(request) => request,
        Err(reason) => return Ok(Request::refused(event, reason)),
    };
    let audience = request.audience().map_err(|reason| anyhow!(reason))?;
    let name = parameter(sink, "database").unwrap_or_default();
    let database: SharedDatabase = session.resources.get(&name).await?;
    let notifications = database.notifications().ok_or_else(|| anyhow!("the database {name} knows no users"))?;
    let mut directory = Directory::new(notifications, Duration::ZERO);
    let (mut people, mut after) = (Vec::new(), None);
    while people.len() < PEOPLE_MAX {
        let page =
            directory.page(&audience, after).await.with_context(|| format!("{name} does not say who is told"))?;
        let Some(last) = page.last() else { break };
        after = Some(last.user.id);
        people.extend(page.iter().cloned());
    }
    Ok(Request::to(&request, &audience, people))
}

/// The events of a file by topic: captured changes, completions and requests, one JSON value after another.
fn read(text: &[u8]) -> Result<Topics, anyhow::Error> {
    let mut topics = Topics::new();
    for value in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
        let value = value.context("this is not JSON")?;
        let (topic, event) = place(&value)?;
        topics.entry(topic).or_default().push(event);
    }
    match topics.is_empty() {
        true => Err(anyhow!("there are no events")),
        false => Ok(topics),
    }
}

/// The topic that a message belongs on, and its event.
fn place(value: &Value) -> Result<(String, Event), anyhow::Error> {
    let payload = Bytes::from(value.to_string());
    let text = |member: &str| value[member].as_str().map(str::to_owned);
    let plain = |topic: &str, key: String| {
        let version = value["version"].as_i64().unwrap_or(1);
        let document = Document::parse(payload.clone()).context("this is not JSON")?;
        Ok((topic.to_owned(), Event::new(topic.into(), key.into(), version, Operation::Update, Some(document))))
    };
    match (text("Section"), text("ForecastId"), text("entity")) {
        (Some(section), ..) => Ok((format!("cdc:{section}s"), decode_change(&payload)?)),
        (None, Some(forecast), _) => plain("forecast:completed", forecast),
        (None, None, Some(entity)) => plain("notification:publish", entity),
        (None, None, None) => {
            let shown: String = json!(value).to_string().chars().take(60).collect();
            Err(anyhow!(
                "{shown} is no event: one has `Section` and the other members of a captured change, `ForecastId` of a \
                 completion, or `entity` of a notification request"
            ))
        }
    }
}
