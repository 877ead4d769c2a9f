//! The bus against a real broker. All of it is one binary, so that one broker serves it.

// As in the crate: the client's futures are large, and every test's is on the heap.
#![allow(clippy::large_futures)]

mod conformance;
mod deliver;
mod outage;
mod secure;

use smartpulse_clients::bus::{
    Bus, Consumer, InitialPosition, Message, Outgoing, SharedBus, Subscribe, SubscriptionType,
};
use smartpulse_pulsar::{PulsarBus, PulsarConfig};
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::within;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A namespace on the broker.
struct Space {
    broker: &'static Broker,
    name: String,
}

impl Space {
    fn new() -> Option<Self> {
        let broker = Broker::shared()?;
        let (_, name) = broker.namespace();
        Some(Self { broker, name })
    }

    fn config(&self) -> PulsarConfig {
        PulsarConfig {
            namespace: self.name.clone(),
            admin_url: Some(self.broker.admin_url.clone()),
            // A busy machine is no outage; a test of outages says its own.
            connect_timeout_ms: 20_000,
            operation_timeout_ms: 20_000,
            ..PulsarConfig::new(&self.broker.service_url)
        }
    }

    async fn bus(&self) -> SharedBus {
        self.bus_with(|_| {}).await
    }

    async fn bus_with(&self, change: impl FnOnce(&mut PulsarConfig)) -> SharedBus {
        let mut config = self.config();
        change(&mut config);
        Arc::new(PulsarBus::connect(&config).await.unwrap())
    }
}

fn subscribe(topic: &str, kind: SubscriptionType) -> Subscribe {
    Subscribe {
        topic: topic.to_owned(),
        subscription: "s".to_owned(),
        kind,
        initial: InitialPosition::Earliest,
        durable: true,
    }
}

fn outgoing(key: &str, number: u32) -> Outgoing {
    Outgoing { key: Some(key.to_owned()), payload: number.to_string().into(), properties: BTreeMap::new() }
}

async fn publish(bus: &dyn Bus, topic: &str, numbers: impl IntoIterator<Item = u32>) {
    bus.publish(topic, numbers.into_iter().map(|n| outgoing(&format!("key-{}", n % 3), n)).collect()).await.unwrap();
}

fn number(message: &Message) -> u32 {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.extend(within("a delivery", consumer.receive(count - messages.len())).await.unwrap());
    }
    messages
}

fn numbers(messages: &[Message]) -> Vec<u32> {
    messages.iter().map(number).collect()
}
