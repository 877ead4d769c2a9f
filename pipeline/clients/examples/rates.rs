//! Rates of the embedded resources on this machine: `cargo run --release -p smartpulse-clients --example rates`.
//!
//! Each figure is one run over a fresh folder, one caller, 600-byte messages and 450-byte rows; setup is outside
//! the timing.

use bytes::Bytes;
use prometheus::Registry;
use smartpulse_clients::bus::{Bus, InitialPosition, Outgoing, Subscribe, SubscriptionType};
use smartpulse_clients::database::{CaptureMode, Database, Poll, Write};
use smartpulse_clients::embedded::{
    BusConfig, DataFolder, EmbeddedBus, SqliteConfig, SqliteDatabase, SqliteStore, StateConfig, StateFile,
};
use smartpulse_pipeline::state::{KeyState, Store};
use smartpulse_testing::{forecast, uuid};
use std::path::Path;
use std::time::Instant;

const COUNT: usize = 100_000;
const BATCH: usize = 500;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    database(folder.path()).await;
    bus(folder.path()).await;
}

fn report(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:44} {:>9.0} /s", count as f64 / seconds);
}

async fn database(folder: &Path) {
    let database = SqliteDatabase::open("d", &SqliteConfig::default(), folder, &Registry::new()).expect("a database");
    database.create_schema().await.expect("a schema");
    let head = database.head("Forecasts", CaptureMode::Cdc).await.expect("a position");
    let batches: Vec<Vec<Write>> = (0..COUNT / BATCH)
        .map(|batch| {
            let insert = |n: usize| Write::Insert { members: forecast((batch * BATCH + n) as u64, n as f64 / 7.0) };
            (0..BATCH).map(insert).collect()
        })
        .collect();
    let start = Instant::now();
    for batch in batches {
        database.write("Forecasts", batch).await.expect("a write");
    }
    report("database: rows inserted, 500 per transaction", COUNT, start);

    let start = Instant::now();
    for n in 0..5_000_u64 {
        let mut members = serde_json::Map::new();
        members.insert("demand".into(), (n as f64).into());
        let update = Write::Update { key: uuid(n).into(), expected_version: None, members };
        database.write("Forecasts", vec![update]).await.expect("a write");
    }
    report("database: rows updated, 1 per transaction", 5_000, start);

    for mode in [CaptureMode::Cdc, CaptureMode::ChangeTracking] {
        let (mut position, mut count, start) = (head.clone(), 0, Instant::now());
        loop {
            let Poll::Changes(page) = database.changes("Forecasts", mode, &position, BATCH).await.expect("a poll")
            else {
                panic!("position lost")
            };
            count += page.changes.len();
            position = page.next;
            if !page.more {
                break;
            }
        }
        report(&format!("capture: {mode:?}, 500 per poll"), count, start);
        let start = Instant::now();
        for _ in 0..20_000 {
            database.changes("Forecasts", mode, &position, BATCH).await.expect("a poll");
        }
        report(&format!("capture: {mode:?}, idle polls"), 20_000, start);
    }
    let start = Instant::now();
    for n in 0..20_000_u64 {
        database.get("Forecasts", &[uuid(n).into()]).await.expect("a read");
    }
    report("database: get, 1 key per call", 20_000, start);
}

async fn bus(folder: &Path) {
    let folder = DataFolder::open(folder).expect("a folder");
    let file = StateFile::open(&folder, &StateConfig::default()).await.expect("a state file");
    let bus = EmbeddedBus::open(file.clone(), &BusConfig::default());
    let message =
        |n: usize| Outgoing { key: Some(uuid(n as u64)), payload: Bytes::from(vec![b'x'; 600]), ..Outgoing::default() };
    let subscribe = |name: &str| Subscribe {
        topic: "t".into(),
        subscription: name.into(),
        kind: SubscriptionType::Exclusive,
        initial: InitialPosition::Earliest,
        durable: true,
    };
    let start = Instant::now();
    for batch in 0..COUNT / BATCH {
        bus.publish("t", (0..BATCH).map(|n| message(batch * BATCH + n)).collect()).await.expect("a publish");
    }
    report("bus: published, 500 per call", COUNT, start);

    let start = Instant::now();
    for n in 0..5_000 {
        bus.publish("u", vec![message(n)]).await.expect("a publish");
    }
    report("bus: published, 1 per call", 5_000, start);

    let mut consumer = bus.subscribe(subscribe("s")).await.expect("a consumer");
    let acker = consumer.acker();
    let (mut count, start) = (0, Instant::now());
    while count < COUNT {
        let messages = consumer.receive(BATCH).await.expect("messages");
        count += messages.len();
        acker.ack(&messages.into_iter().map(|m| m.id).collect::<Vec<_>>()).await.expect("an ack");
    }
    report("bus: consumed and acked, 500 per call", COUNT, start);

    let mut consumer = bus.subscribe(Subscribe { topic: "v".into(), ..subscribe("s") }).await.expect("a consumer");
    let acker = consumer.acker();
    let start = Instant::now();
    for n in 0..5_000 {
        bus.publish("v", vec![message(n)]).await.expect("a publish");
        let messages = consumer.receive(1).await.expect("messages");
        acker.ack(&messages.into_iter().map(|m| m.id).collect::<Vec<_>>()).await.expect("an ack");
    }
    report("bus: publish, receive, ack, one at a time", 5_000, start);

    let store = SqliteStore::new(file);
    let start = Instant::now();
    for batch in 0..COUNT / BATCH {
        let keys: Vec<_> = (0..BATCH).map(|n| uuid((batch * BATCH + n) as u64).into()).collect();
        store.load_state("c", &keys).await.expect("state");
        let state = |key| KeyState { key, version: 1, document: Some(Bytes::from(vec![b'x'; 450])) };
        store.commit_state("c", &keys.into_iter().map(state).collect::<Vec<_>>()).await.expect("a commit");
    }
    report("store: states loaded and committed, 500", COUNT, start);
}
