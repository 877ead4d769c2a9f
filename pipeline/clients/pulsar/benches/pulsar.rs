//! Publishing and consuming through the bus, beside the Java performance tool of the same distribution.
//!
//! What: messages of 400 bytes over 1,000 keys, half of them random so that zstd has work to do. `publish` hands 500 to the
//! bus at a time and waits for all receipts; `consume` takes what there is and acks it, from a backlog. The Java tool sends
//! the same number and size with zstd, once as we do (one message per entry) and once with its batches, which we do not
//! make because Key_Shared breaks on them; it is asked for more than it can, so that it gives its best.
//!
//! Method: one broker on the same machine, started for this; a topic per line; setup and warm-up outside the timing; one
//! run each. Broker and client share the processors, so the figures say how the two clients compare, and no more.
//!
//! It lives beside its crate and not in `benches/`: it needs `protoc` to build, and Java and the fetched broker to run.
//!
//! Run: `pipeline/testing/prepare.sh cargo bench -p smartpulse-pulsar`.

// As in the crate: the client's futures are large.
#![allow(clippy::large_futures)]

use smartpulse_clients::bus::{Bus, InitialPosition, Outgoing, Subscribe, SubscriptionType};
use smartpulse_pulsar::{PulsarBus, PulsarConfig};
use smartpulse_testing::pulsar::Broker;
use std::collections::BTreeMap;
use std::time::Instant;

const MESSAGES: usize = 50_000;
const BATCH: usize = 500;
const BYTES: usize = 400;

#[tokio::main]
async fn main() {
    let Some(broker) = Broker::shared() else { return };
    let (_, namespace) = broker.namespace();
    let config = PulsarConfig {
        namespace: namespace.clone(),
        operation_timeout_ms: 30_000,
        retention_hours: 0,
        ..PulsarConfig::new(&broker.service_url)
    };
    let bus = PulsarBus::connect(&config).await.expect("a broker");
    let messages: Vec<Outgoing> = (0..MESSAGES).map(message).collect();
    publish(&bus, "warm-up", &messages[..5_000]).await;

    let start = Instant::now();
    publish(&bus, "t", &messages).await;
    report("publish, 500 at a time, each receipted", start);

    let subscribe = Subscribe {
        topic: "t".to_owned(),
        subscription: "s".to_owned(),
        kind: SubscriptionType::Exclusive,
        initial: InitialPosition::Earliest,
        durable: true,
    };
    let mut consumer = bus.subscribe(subscribe).await.expect("a consumer");
    let acker = consumer.acker();
    let (mut taken, start) = (0, Instant::now());
    while taken < MESSAGES {
        let messages = consumer.receive(BATCH).await.expect("messages");
        taken += messages.len();
        let ids: Vec<_> = messages.into_iter().map(|message| message.id).collect();
        acker.ack(&ids).await.expect("an ack");
    }
    report("consume and ack, from a backlog", start);

    let (count, size) = (MESSAGES.to_string(), BYTES.to_string());
    for (what, flags) in [("Java, one message per entry", &["-db"][..]), ("Java, batches", &[])] {
        let topic = format!("persistent://public/{namespace}/{}", what.replace([' ', ','], "-"));
        let mut arguments = vec!["produce", "-m", &count, "-s", &size, "-r", "1000000", "-z", "ZSTD", "-o", "1000"];
        arguments.extend(flags);
        arguments.push(&topic);
        let text = broker.tool("pulsar-perf", &arguments).await;
        let rate = text.lines().rev().find(|line| line.contains("Aggregated throughput")).unwrap_or("no summary");
        println!("{what}: {}", rate.split(" - ").last().unwrap_or(rate));
    }
}

async fn publish(bus: &PulsarBus, topic: &str, messages: &[Outgoing]) {
    for batch in messages.chunks(BATCH) {
        bus.publish(topic, batch.to_vec()).await.expect("receipts");
    }
}

/// Half text that repeats, half digits that do not.
fn message(number: usize) -> Outgoing {
    let mut payload = "demand supply ".repeat(BYTES / 28);
    let mut random = number as u64 + 1;
    while payload.len() < BYTES {
        // Xorshift (Marsaglia, 2003): no generator is worth a dependency here.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        payload.push(char::from(b'0' + (random % 10) as u8));
    }
    Outgoing { key: Some(format!("key-{}", number % 1_000)), payload: payload.into(), properties: BTreeMap::new() }
}

fn report(what: &str, start: Instant) {
    println!("{what}: {:.0}/s", MESSAGES as f64 / start.elapsed().as_secs_f64());
}
