//! The sink in a running graph.

use crate::place::{Place, USER, config, id};
use crate::server::{Answer, Server};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_clients::notifications::DeliveryQuery;
use smartpulse_config::{LoadOptions, Settings};
use smartpulse_json::Document;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Config, Registry, ResourceConfig, ResourceContext, Resources};
use smartpulse_pipeline::state::{DeadLetterFilter, Store};
use smartpulse_pipeline::{Event, Operation, Timestamp};
use smartpulse_push::SharedPusher;
use smartpulse_push::endpoint::system_lookup;
use smartpulse_testing::{Rig, uuid};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

const YAML: &str = "
name: p
sources: { s: { type: probe } }
sinks: { tell: { type: push, inputs: [s], push: push } }
";

/// The product's resource, with a key that is no secret.
#[derive(Debug, Deserialize, JsonSchema)]
struct Here {
    key: String,
}

impl Config for Here {
    const TYPE: &'static str = "here";
}

#[async_trait]
impl ResourceConfig for Here {
    const KIND: &'static str = "push";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database: SharedDatabase = cx.resources.get("main_db").await?;
        let pusher = config(&self.key).pusher(database.delivery().unwrap(), system_lookup())?;
        let pusher: SharedPusher = Arc::new(pusher);
        Ok(Arc::new(pusher))
    }
}

fn rig(place: &Place) -> Rig {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let sets = [
        format!("data_dir={}", place.folder.path().display()),
        format!("resources.push={{type: here, key: {}}}", place.keys.private_key),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    Rig::new(store, &sets, |registry| {
        smartpulse_clients::register(registry);
        smartpulse_push::register(registry);
        registry.resource::<Here>();
    })
}

/// A notification to a user.
fn event(number: u64, user: u64, more: &Value) -> Event {
    let mut document = json!({"id": uuid(number), "userId": uuid(user), "title": "t", "body": "b"});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let document = Document::from_value(&document).unwrap();
    Event::new("notification".into(), uuid(number).into(), 1, Operation::Insert, Some(document))
}

async fn letters(rig: &Rig) -> Vec<(String, String)> {
    let filter = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
    let letters = rig.store.dead_letters(&filter).await.unwrap();
    letters.into_iter().map(|stored| (stored.letter.key.unwrap_or_default(), stored.letter.reason)).collect()
}

async fn run(rig: &Rig, batch: Vec<Event>) {
    run_with(rig, YAML, batch).await;
}

async fn run_with(rig: &Rig, yaml: &str, batch: Vec<Event>) {
    let (count, before) = (batch.len() as u64, rig.probe.committed.lock().unwrap().len());
    let graph = rig.start(yaml).await;
    rig.probe.emit(batch);
    let committed = |probe: &smartpulse_testing::Probe| {
        probe.committed.lock().unwrap()[before..].last().is_some_and(|committed| *committed == count)
    };
    rig.probe.until("all is committed", committed).await;
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn others_are_told_once_while_one_is_tried_again_and_what_is_refused_is_set_aside() {
    let place = Place::new().await;
    let good = Server::start(&[]).await;
    let asks = Server::start(&[Answer::Reply(429, "retry-after: 1\r\n", String::new())]).await;
    let full = Server::start(&vec![Answer::status(413); 10]).await;
    place.browser(1, USER, &good.url("/1")).await;
    place.browser(2, USER, &good.url("/2")).await;
    place.browser(3, 8, &asks.url("/3")).await;
    place.browser(4, 9, &full.url("/4")).await;
    let rig = rig(&place);
    let mut late = event(5, USER, &json!({"ttl": 60}));
    late.commit_time = Some(Timestamp::from_millis(Timestamp::now().as_millis() - 61_000));
    let nobody = event(6, 99, &json!({}));
    let unreadable = event(7, USER, &json!({"title": ""}));
    let batch =
        vec![event(1, USER, &json!({})), event(2, 8, &json!({})), event(3, 9, &json!({})), late, nobody, unreadable];
    run(&rig, batch).await;
    let mut paths: Vec<String> = good.seen().into_iter().map(|seen| seen.path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/1", "/2"], "both devices, once each");
    let tries = asks.seen();
    assert_eq!(tries.len(), 2);
    assert!(tries[1].at - tries[0].at >= Duration::from_secs(1), "not before Retry-After");
    let mut letters = letters(&rig).await;
    letters.sort_unstable();
    let keys: Vec<&str> = letters.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, [uuid(3), uuid(5), uuid(7)]);
    assert!(letters[0].1.contains(&format!("device {}", id(4))) && letters[0].1.contains("413"), "{letters:?}");
    assert!(letters[1].1.contains("s old, and its ttl is 60 s"), "{letters:?}");
    assert!(letters[2].1.contains("no title"), "{letters:?}");
}

#[tokio::test]
async fn a_ledger_keeps_each_attempt_and_another_process_tells_nobody_twice() {
    let place = Place::new().await;
    let good = Server::start(&[]).await;
    let busy = Server::start(&[Answer::status(500)]).await;
    let full = Server::start(&vec![Answer::status(413); 20]).await;
    let gone = Server::start(&[Answer::status(410)]).await;
    place.browser(1, USER, &good.url("/1")).await;
    place.browser(2, 8, &busy.url("/2")).await;
    place.browser(3, 9, &full.url("/3")).await;
    place.browser(4, 10, &gone.url("/4")).await;
    let yaml = YAML.replace("push: push", "push: push, ledger: main_db");
    let batch = || {
        let delivery = |number: u64, user: u64| {
            let entry = json!({"id": uuid(number), "userId": uuid(user), "rule": "r", "entity": "e", "version": 1});
            event(number, user, &json!({ "delivery": entry }))
        };
        [(1, USER), (2, 8), (3, 9), (4, 10), (5, 99)].map(|(number, user)| delivery(number, user)).to_vec()
    };
    // Each twice in one batch, as a program that publishes again has it.
    run_with(&rig(&place), &yaml, [batch(), batch()].concat()).await;
    // A pusher that remembers nothing.
    run_with(&rig(&place), &yaml, batch()).await;
    assert_eq!((good.seen().len(), busy.seen().len()), (1, 2), "told once, by whichever process");
    let people = place.database.notifications().unwrap();
    let outcomes = async |number: u64| {
        let query = DeliveryQuery { delivery: Some(id(number)), take: 20, ..DeliveryQuery::default() };
        let rows = people.deliveries(&query).await.unwrap();
        let rows = rows.iter().map(|row| serde_json::from_slice::<Value>(&row.document).unwrap());
        let mut rows: Vec<_> = rows.map(|row| (row["outcome"].as_str().unwrap().to_owned(), row)).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    let names = |rows: &[(String, Value)]| rows.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&outcomes(1).await), ["sent"]);
    assert_eq!(names(&outcomes(2).await), ["failed", "sent"]);
    let refused = outcomes(3).await;
    assert!(refused.len() >= 2 && refused.iter().all(|(name, _)| name == "refused"), "{refused:?}");
    assert!(refused[0].1["detail"].as_str().unwrap().contains("413"), "{refused:?}");
    assert_eq!(names(&outcomes(4).await), ["gone"]);
    assert_eq!(names(&outcomes(5).await), ["no_device"]);
}

#[tokio::test]
async fn an_outage_of_a_known_service_loses_nothing() {
    let place = Place::new().await;
    let server = Server::start(&vec![Answer::status(503); 5]).await;
    place.browser(1, USER, &server.url("/1")).await;
    let rig = rig(&place);
    run(&rig, (1..=20).map(|number| event(number, USER, &json!({}))).collect()).await;
    assert_eq!(letters(&rig).await, []);
    assert_eq!(server.seen().len() - 5, 20, "each once");
}

#[tokio::test]
async fn loopback_is_refused_outside_of_development() {
    let place = Place::new().await;
    for environment in ["production", "staging"] {
        let options = LoadOptions { environment: Some(environment.to_owned()), ..LoadOptions::default() };
        let mut settings = Settings::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
        settings.resources.clear();
        let (settings, registry) = (Arc::new(settings), prometheus::Registry::new());
        let declared = Resources::declare(&Registry::default(), &settings, &registry, id(1));
        let (resources, _) = declared.unwrap_or_else(|problems| panic!("{problems}"));
        let cx = ResourceContext {
            name: "push",
            settings: &settings,
            data_dir: place.folder.path().to_owned(),
            registry: &registry,
            instance: id(1),
            resources: &resources,
        };
        let error = config(&place.keys.private_key).build(&cx).await.err().unwrap();
        assert!(error.to_string().contains("refused outside of the environment development"), "{error:?}");
    }
}
