//! What versions, counters and shared documents cost in Redis: the events that the pub/sub sink publishes, against bare
//! `PUBLISH` of the same messages, pipelined, on the same server in the same run.
//!
//! What: 10,000 keys with documents of 415 bytes; each event changes one member of one, so that its patch message has
//! some 400 bytes. `bare` publishes the patch messages, 500 commands to a pipeline. The others compare each with its
//! counter, store document, counter and expiry, number the message and publish it, 500 events to a batch: `1 per call`
//! runs the script for each event, all of a batch in one pipeline; `64 per call` is what the product does.
//!
//! Method: one server with nothing on disk, started for the run; first nobody subscribes, then three connections
//! that read and throw away. The sides take turns, every side publishes the same messages in each of the rounds; medians.
//! Server, publisher and subscribers share the machine's processors, as they do in all sides.
//!
//! Result (2 vCPU Xeon at 2 GHz, idle; Redis 7.0.15; medians of 5 rounds of 30,000; events per second): nobody subscribes: bare 460,000, 1 per
//! call 25,000 (0.05), 64 per call 63,000 (0.14). Three subscribers: bare 244,000, 1 per call 22,000 (0.09), 64 per call 51,000
//! (0.21), 256 per call 56,000 (0.23). The goals are 0.18 and 0.28, and are missed. On the server's processor a change takes 49,000
//! instructions and a bare `PUBLISH` 4,800 (with three subscribers 56,000 and 10,800; callgrind); 20,000 of them are what Lua
//! takes to be given the arguments, for it hashes every byte.
//!
//! Run: `cargo bench -p smartpulse-benches --bench redis`.

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use smartpulse_benches::median;
use smartpulse_clients::pubsub::{Outcome, PubSub, Publication, Publisher};
use smartpulse_json::Document;
use smartpulse_redis::{RedisConfig, RedisPubSub};
use smartpulse_testing::redis::RedisServer;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KEYS: usize = 10_000;
const BATCH: usize = 500;

/// Of each side.
const ROUNDS: usize = 5;

/// Every key changes so often in a round.
const CHANGES: i64 = 3;

fn main() {
    let Some(server) = RedisServer::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for subscribers in [0, 3] {
            measure(&server, subscribers).await;
        }
    });
}

async fn measure(server: &RedisServer, subscribers: usize) {
    // Versions begin anew.
    server.say("FLUSHALL");
    let counters: Vec<Arc<AtomicU64>> = (0..subscribers).map(|_| subscribe(server.port())).collect();
    let client = redis::Client::open(server.url()).expect("an address");
    let mut bare = client.get_multiplexed_async_connection().await.expect("a connection");
    let sides: Vec<(usize, RedisPubSub)> = [1, 16, 64, 256]
        .into_iter()
        .map(|changes| {
            let config = RedisConfig::at(server.url());
            (changes, RedisPubSub::open_with_calls_of(changes, &config, "bench").expect("a client"))
        })
        .collect();
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); sides.len() + 1];
    let mut version = 1;
    for round in 0..=ROUNDS {
        let messages = messages(version);
        let rate = |seconds: f64| messages.len() as f64 / seconds;
        let elapsed = publish_bare(&mut bare, &messages).await;
        settle(server, &counters).await;
        if round > 0 {
            rates[0].push(rate(elapsed));
        }
        for (side, (_, pubsub)) in sides.iter().enumerate() {
            let messages = self::messages(version);
            let elapsed = publish(pubsub, &messages).await;
            settle(server, &counters).await;
            version += CHANGES;
            // The first round fills counters and caches.
            if round > 0 {
                rates[side + 1].push(rate(elapsed));
            }
        }
    }
    let floor = median(rates[0].clone());
    println!("{subscribers} subscribers: bare {floor:.0} events/s");
    for ((changes, _), rates) in sides.iter().zip(&rates[1..]) {
        let rate = median(rates.clone());
        println!("{subscribers} subscribers: {changes} per call {rate:.0} events/s, ratio {:.2}", rate / floor);
    }
}

/// One round: every key changes `CHANGES` times, from `version` on.
fn messages(version: i64) -> Vec<Publication> {
    let publisher = Publisher {
        instance: "0b0a1c60-0000-4000-8000-000000000000".into(),
        partition: "production".into(),
        section: "forecast".into(),
    };
    let mut messages = Vec::with_capacity(KEYS * 3);
    for version in version..version + CHANGES {
        for key in 0..KEYS {
            let id: Arc<str> = format!("0b0a1c60-0000-4000-8000-{key:012}").into();
            let document: Document = document(&id, version).parse().expect("a document");
            let channel = format!("__dataChanged:production:forecast:{id}").into();
            let whole = publisher.whole(channel, &id, version, Some(&document));
            let patch = format!(
                "{{\"DataManagerId\":\"{}\",\"PartitionKey\":\"production\",\"Section\":\"forecast\",\"DataKey\":\"{id}\",\
                 \"VersionId\":{version},\"ChangeTime\":\"2025-11-12T10:30:00.000Z\",\"PatchItems\":[{{\"Op\":\"replace\",\
                 \"Path\":\"/demand\",\"Value\":{version}.5}},{{\"Op\":\"replace\",\"Path\":\"/versionId\",\"Value\":\
                 {version}}}],\"PreviousVersionId\":{}}}",
                publisher.instance,
                version - 1
            );
            messages.push(Publication {
                previous_version: (version > 1).then_some(version - 1),
                patch: Bytes::from(patch),
                ..whole
            });
        }
    }
    messages
}

fn document(id: &str, version: i64) -> String {
    format!(
        "{{\"id\":\"{id}\",\"companyId\":\"{id}\",\"productionUnitId\":\"{id}\",\
         \"forecastDate\":\"2016-06-01T00:00:00.000Z\",\"demand\":{version}.5,\"supply\":null,\"variance\":null,\
         \"confidenceLevel\":0.9,\"status\":\"Draft\",\"createdAt\":\"2016-01-01T00:00:00.000Z\",\
         \"updatedAt\":\"2016-01-01T00:00:00.000Z\",\"updatedBy\":null,\"updatedVia\":\"player\",\"versionId\":{version}}}"
    )
}

async fn publish(pubsub: &RedisPubSub, messages: &[Publication]) -> f64 {
    let start = Instant::now();
    let mut patches = 0;
    for batch in messages.chunks(BATCH) {
        let outcomes = pubsub.publish(batch).await.expect("a server");
        patches += outcomes.iter().filter(|outcome| **outcome == Outcome::Patch).count();
    }
    let elapsed = start.elapsed().as_secs_f64();
    assert!(patches >= messages.len() - KEYS, "only {patches} of {} went as patches", messages.len());
    elapsed
}

async fn publish_bare(connection: &mut MultiplexedConnection, messages: &[Publication]) -> f64 {
    let start = Instant::now();
    for batch in messages.chunks(BATCH) {
        let mut pipeline = redis::Pipeline::with_capacity(batch.len());
        for message in batch {
            pipeline.cmd("PUBLISH").arg(&*message.channel).arg(&message.patch[..]);
        }
        let _: Vec<u64> = pipeline.query_async(connection).await.expect("a server");
    }
    start.elapsed().as_secs_f64()
}

/// A connection that reads whatever is published and throws it away; gives how many bytes it has read.
fn subscribe(port: u16) -> Arc<AtomicU64> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    connection.write_all(b"PSUBSCRIBE *\r\n").expect("a server");
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 256 << 10];
        while let Ok(length @ 1..) = connection.read(&mut bytes) {
            counter.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    read
}

/// Waits until subscribers have read all that was published, so that no side pays for the one before.
async fn settle(server: &RedisServer, counters: &[Arc<AtomicU64>]) {
    let total = || counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum::<u64>();
    loop {
        let before = total();
        server.say("PING");
        tokio::time::sleep(Duration::from_millis(20)).await;
        if total() == before {
            return;
        }
    }
}
