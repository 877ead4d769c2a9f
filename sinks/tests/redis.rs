//! The pub/sub sink on a real Redis: races of RELIABILITY.md between consumers, redelivery and lost data.

use serde_json::{Value, json};
use smartpulse_clients::database::{Database, Write};
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_clients::pubsub::{Delivery, PubSub, Subscriber};
use smartpulse_json::{Document, Patched, apply};
use smartpulse_pipeline::error::Error;
use smartpulse_pipeline::message::decode_data_changed;
use smartpulse_pipeline::{Event, Operation};
use smartpulse_redis::{RedisConfig, RedisPubSub};
use smartpulse_testing::redis::{Data, RedisServer};
use smartpulse_testing::{Rig, event, forecast, until, uuid, within};
use std::path::Path;
use std::sync::Arc;

const SYNC: &str = r#"
name: sync
sources: { changes: { type: probe } }
operators:
  ordered: { type: detect_gap, inputs: [changes] }
  patches: { type: diff, inputs: [ordered] }
sinks:
  broadcast:
    type: pubsub
    inputs: [patches]
    pubsub: pubsub
    channel: "__dataChanged:production:forecast:{key}"
    database: main_db
    retry: redis
"#;

/// The same where nothing is read again from the database: its keys are of the test's making.
fn without_refill() -> String {
    SYNC.replace("    database: main_db\n", "")
}

/// A consumer of the bus with a memory of its own.
fn consumer(server: &RedisServer, folder: &Path) -> Rig {
    let url = format!("resources.pubsub.url={}", server.url());
    let data = format!("data_dir={}", folder.display());
    Rig::new(Arc::new(MemoryStore::new()), &["resources.pubsub.type=redis", &url, &data], |registry| {
        smartpulse_clients::register(registry);
        smartpulse_redis::register(registry);
        smartpulse_operators::register(registry);
        smartpulse_sinks::register(registry);
    })
}

async fn database(folder: &Path) -> SqliteDatabase {
    let database =
        SqliteDatabase::open("main_db", &SqliteConfig::default(), folder, &prometheus::Registry::new()).unwrap();
    database.create_schema().await.unwrap();
    database
}

/// An instance that believes every patch: what it holds is right only if no wrong one is ever published.
struct Believer {
    subscriber: Box<dyn Subscriber>,
    document: Option<Document>,
    versions: Vec<i64>,
    kinds: Vec<&'static str>,
}

impl Believer {
    async fn of(server: &RedisServer) -> Self {
        let pubsub = RedisPubSub::open(&RedisConfig::at(server.url()), "believer").unwrap();
        let subscriber = within("a subscription", async {
            loop {
                match pubsub.subscribe("__dataChanged:production:forecast:*").await {
                    Ok(subscriber) => return subscriber,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        Self { subscriber, document: None, versions: Vec::new(), kinds: Vec::new() }
    }

    /// Takes messages until one brings this version.
    async fn until(&mut self, version: i64) {
        while self.versions.last() != Some(&version) {
            let delivery = within("a message", self.subscriber.receive(1)).await.unwrap().remove(0);
            let Delivery::Message { payload, .. } = delivery else { continue };
            let message = decode_data_changed(&payload).unwrap();
            self.document = match apply(self.document.as_ref(), &message.patch.items).unwrap() {
                Patched::Document(document) => Some(document),
                Patched::Removed => None,
            };
            self.kinds.push(if message.patch.whole { "whole" } else { "patch" });
            self.versions.push(message.version);
        }
    }

    fn value(&self) -> Value {
        serde_json::from_slice(self.document.as_ref().unwrap().bytes()).unwrap()
    }
}

fn counter(server: &RedisServer, key: &str) -> String {
    server.say(&format!("HGET forecast:{key} VersionId:latest")).lines().nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_2_a_key_that_moves_to_another_consumer_and_back_gets_no_wrong_patch() {
    let Some(server) = RedisServer::start() else { return };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut believer = Believer::of(&server).await;
    for folder in &folders {
        database(folder.path()).await;
    }
    let (one, other) = (consumer(&server, folders[0].path()), consumer(&server, folders[1].path()));
    let (one_graph, other_graph) = (one.start(&without_refill()).await, other.start(&without_refill()).await);
    one.probe.emit(vec![event("k", 1), event("k", 2)]);
    believer.until(2).await;
    other.probe.emit(vec![event("k", 3), event("k", 4)]);
    believer.until(4).await;
    // Back: the state of the first is at 2, and an event that the other did already comes again.
    one.probe.emit(vec![event("k", 4)]);
    one.probe.emit(vec![event("k", 5), event("k", 6)]);
    believer.until(6).await;
    assert_eq!(believer.value(), json!({"n": 6}));
    assert!(believer.versions.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", believer.versions);
    assert_eq!(believer.kinds.last(), Some(&"patch"), "{:?}", believer.kinds);
    assert_eq!(counter(&server, "k"), "6");
    one_graph.stop().await.unwrap();
    other_graph.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_3_redis_succeeded_another_sink_did_not_and_its_effect_still_happens() {
    const OTHER: &str = r#"
name: other
sources: { changes: { type: probe } }
operators: { ordered: { type: detect_gap, inputs: [changes] } }
sinks: { effect: { type: probe, inputs: [ordered] } }
"#;
    let Some(server) = RedisServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    database(folder.path()).await;
    let mut believer = Believer::of(&server).await;
    let (broadcasting, other) = (consumer(&server, folder.path()), consumer(&server, folder.path()));
    // Each effect has its own subscription and state.
    other.probe.fail("effect", Error::unavailable("away"));
    for _ in 0..100 {
        other.probe.fail("effect", Error::unavailable("away"));
    }
    let (sync, graph) = (broadcasting.start(&without_refill()).await, other.start(OTHER).await);
    broadcasting.probe.emit(vec![event("k", 1)]);
    other.probe.emit(vec![event("k", 1)]);
    believer.until(1).await;
    // Both die; both subscriptions give the event again.
    sync.crash().await;
    graph.crash().await;
    assert!(other.probe.versions("effect", "k").is_empty());
    other.probe.failures.lock().unwrap().clear();
    let (sync, graph) = (broadcasting.start(&without_refill()).await, other.start(OTHER).await);
    broadcasting.probe.emit(vec![event("k", 1), event("k", 2)]);
    other.probe.emit(vec![event("k", 1), event("k", 2)]);
    believer.until(2).await;
    assert_eq!(believer.versions, [1, 2], "what Redis had was not broadcast again");
    other.probe.until("both effects", |probe| probe.versions("effect", "k") == [1, 2]).await;
    sync.stop().await.unwrap();
    graph.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_11_redis_comes_back_empty_and_old_messages_come_again() {
    let Some(server) = RedisServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = database(folder.path()).await;
    let key = uuid(1);
    let mut rows = Vec::new();
    database.write("Forecasts", vec![Write::Insert { members: forecast(1, 0.5) }]).await.unwrap();
    for demand in 2..=4 {
        rows.extend(database.get("Forecasts", &[key.as_str().into()]).await.unwrap());
        let Value::Object(members) = json!({ "demand": demand }) else { unreachable!() };
        let update = Write::Update { key: key.as_str().into(), expected_version: None, members };
        database.write("Forecasts", vec![update]).await.unwrap();
    }
    rows.extend(database.get("Forecasts", &[key.as_str().into()]).await.unwrap());
    let events: Vec<Event> = rows
        .iter()
        .map(|row| {
            let document = Document::parse(row.document.clone()).unwrap();
            Event::new("forecast".into(), row.key.clone(), row.version, Operation::Update, Some(document))
        })
        .collect();
    let first = consumer(&server, folder.path());
    let graph = first.start(SYNC).await;
    let mut believer = Believer::of(&server).await;
    first.probe.emit(events.clone());
    believer.until(4).await;
    graph.crash().await;
    server.restart(Data::Lost);
    // A consumer without any memory gets everything from the beginning.
    let mut believer = Believer::of(&server).await;
    let second = consumer(&server, folder.path());
    let graph = second.start(SYNC).await;
    second.probe.emit(events[..2].to_vec());
    believer.until(4).await;
    assert_eq!(believer.versions, [4], "the truth came first, and nothing old after it");
    assert_eq!((counter(&server, &key), &believer.value()["demand"]), ("4".to_owned(), &json!(4.0)));
    second.probe.emit(events[2..].to_vec());
    // A key that is gone: nothing old of it comes back either, not even that it is gone, until its delete comes.
    second.probe.emit(vec![event(&uuid(9), 3)]);
    second.probe.emit(vec![Event { operation: Operation::Delete, document: None, ..event(&uuid(9), 4) }]);
    let deleted = async {
        while counter(&server, &uuid(9)).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within("the key's counter", deleted).await;
    assert_eq!(counter(&server, &uuid(9)), "4", "3 was told of no more");
    assert_eq!(server.say(&format!("HGET forecast:{} tombstone", uuid(9))), "$1\r\n1\r\n");
    assert_eq!(counter(&server, &key), "4");
    graph.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_section_than_the_table_s_is_not_looked_up_there() {
    let Some(server) = RedisServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    database(folder.path()).await;
    let sync = consumer(&server, folder.path());
    let graph = sync.start(&SYNC.replace("forecast:{key}", "{section}:{key}")).await;
    sync.probe.emit(vec![Event { section: "unit".into(), ..event("u", 3) }]);
    until("the unit", async || server.say("HGET unit:u VersionId:latest").contains('3')).await;
    assert_eq!(server.say("HGET unit:u tombstone"), "$1\r\n0\r\n");
    assert_eq!(server.say("HGET unit:u json"), "$7\r\n{\"n\":3}\r\n");
    graph.stop().await.unwrap();
}
