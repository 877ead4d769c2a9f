//! Brokers that go away.

use crate::{Space, number, outgoing, publish, subscribe, take};
use smartpulse_clients::bus::{Bus, Consumer, InitialPosition, Outgoing, SharedBus, Subscribe, SubscriptionType};
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_pipeline::message::encode_change;
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::{Rig, within};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A consumer that is opened again when it fails, as a topic source does.
struct Tenacious {
    bus: SharedBus,
    subscribe: Subscribe,
    consumer: Option<Box<dyn Consumer>>,
    seen: BTreeSet<u32>,
    rebuilt: u32,
}

impl Tenacious {
    fn new(bus: SharedBus, subscribe: Subscribe) -> Self {
        Self { bus, subscribe, consumer: None, seen: BTreeSet::new(), rebuilt: 0 }
    }

    /// Takes and acks until it has seen so many. What comes for the first time is next in order.
    async fn until(&mut self, count: u32) {
        let began = Instant::now();
        while (self.seen.len() as u32) < count {
            assert!(began.elapsed() < Duration::from_secs(120), "{} of {count} after two minutes", self.seen.len());
            let Some(consumer) = &mut self.consumer else {
                match self.bus.subscribe(self.subscribe.clone()).await {
                    Ok(consumer) => self.consumer = Some(consumer),
                    Err(error) => {
                        assert_ne!(error.kind(), ErrorKind::Fatal, "{error:?}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                continue;
            };
            match consumer.receive(100).await {
                Ok(messages) => {
                    for message in &messages {
                        let number = number(message);
                        assert!(number <= self.seen.len() as u32, "{number} came before {}", self.seen.len());
                        self.seen.insert(number);
                    }
                    let ids: Vec<_> = messages.into_iter().map(|message| message.id).collect();
                    let _ = consumer.acker().ack(&ids).await;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    self.consumer = None;
                    self.rebuilt += 1;
                }
            }
        }
    }
}

/// Publishes one message after all tries that it takes; how many they were.
async fn insist(bus: &dyn Bus, topic: &str, number: u32) -> u32 {
    let began = Instant::now();
    let mut tries = 1;
    while let Err(error) = bus.publish(topic, vec![outgoing("k", number)]).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(120), "still {error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        tries += 1;
    }
    tries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_moves_loses_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    let exclusive = subscribe("cdc:forecasts", SubscriptionType::Exclusive);
    bus.create_subscription(&exclusive).await.unwrap();
    let mut consumer = Tenacious::new(space.bus().await, exclusive);
    let publishing = tokio::spawn(async move {
        for n in 0..600 {
            insist(&*bus, "cdc:forecasts", n).await;
        }
    });
    for part in 1..=3 {
        consumer.until(part * 150).await;
        let name = space.name.clone();
        tokio::task::spawn_blocking(move || broker.unload(&name, "cdc:forecasts")).await.unwrap();
    }
    consumer.until(600).await;
    publishing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_that_was_cut_off_says_so() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    let live = Subscribe {
        durable: false,
        initial: InitialPosition::Latest,
        ..subscribe("forecast:invalidation", SubscriptionType::Exclusive)
    };
    let mut consumer = bus.subscribe(live).await.unwrap();
    publish(&*bus, "forecast:invalidation", [1]).await;
    take(&mut consumer, 1).await;
    broker.unload(&space.name, "forecast:invalidation");
    // Nothing more is published: it is the broker that is asked.
    let error = within("the news", async {
        loop {
            if let Err(error) = consumer.receive(10).await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_and_comes_back_loses_nothing_that_was_receipted() {
    let Some(broker) = Broker::shared() else { return };
    let _alone = broker.alone().await;
    let space = Space::new().unwrap();
    let hasty = |config: &mut smartpulse_pulsar::PulsarConfig| {
        config.connect_timeout_ms = 2_000;
        config.operation_timeout_ms = 2_000;
    };
    let bus = space.bus_with(hasty).await;
    let exclusive = subscribe("cdc:forecasts", SubscriptionType::Exclusive);
    let mut consumer = Tenacious::new(space.bus_with(hasty).await, exclusive.clone());
    publish(&*bus, "cdc:forecasts", 0..50).await;
    consumer.until(50).await;
    publish(&*bus, "cdc:forecasts", 50..100).await;
    broker.stop();
    let refused = bus.publish("cdc:forecasts", vec![outgoing("k", 100)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    let publishing = tokio::spawn(async move { insist(&*bus, "cdc:forecasts", 100).await });
    tokio::task::spawn_blocking(|| broker.restart()).await.unwrap();
    consumer.until(101).await;
    assert!(publishing.await.unwrap() > 1);
    assert!(consumer.rebuilt > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_falls_silent_is_noticed() {
    let Some(broker) = Broker::shared() else { return };
    let _alone = broker.alone().await;
    let space = Space::new().unwrap();
    let hasty = |config: &mut smartpulse_pulsar::PulsarConfig| {
        config.connect_timeout_ms = 1_000;
        config.operation_timeout_ms = 1_000;
    };
    let bus = space.bus_with(hasty).await;
    let mut consumer = Tenacious::new(space.bus_with(hasty).await, subscribe("t", SubscriptionType::Exclusive));
    publish(&*bus, "t", 0..10).await;
    consumer.until(10).await;
    broker.pause();
    let (consumed, published) = within("the news", async {
        tokio::join!(
            async {
                loop {
                    if let Err(error) = consumer.consumer.as_mut().unwrap().receive(10).await {
                        return error;
                    }
                }
            },
            bus.publish("t", vec![outgoing("k", 10)]),
        )
    })
    .await;
    broker.resume();
    assert_eq!(consumed.kind(), ErrorKind::Unavailable);
    assert_eq!(published.unwrap_err().kind(), ErrorKind::Unavailable);
    consumer.consumer = None;
    insist(&*bus, "t", 10).await;
    consumer.until(11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_cut_off_are_noticed() {
    let Some(broker) = Broker::shared() else { return };
    let _alone = broker.alone().await;
    let space = Space::new().unwrap();
    let hasty = |config: &mut smartpulse_pulsar::PulsarConfig| {
        config.connect_timeout_ms = 2_000;
        config.operation_timeout_ms = 2_000;
    };
    broker.admin("PUT", &format!("persistent/public/{}/t/partitions", space.name), "3");
    let bus = space.bus_with(hasty).await;
    let mut consumer = Tenacious::new(space.bus_with(hasty).await, subscribe("t", SubscriptionType::Failover));
    publish(&*bus, "t", 0..1).await;
    consumer.until(1).await;
    broker.stop();
    let news = within("the news", async {
        loop {
            if let Err(error) = consumer.consumer.as_mut().unwrap().receive(10).await {
                return error;
            }
        }
    })
    .await;
    // A bus that is opened meanwhile waits, too.
    let late = space.bus_with(hasty).await;
    let refused = late.subscribe(subscribe("t", SubscriptionType::Failover)).await.err().expect("nobody is there");
    tokio::task::spawn_blocking(|| broker.restart()).await.unwrap();
    assert_eq!((news.kind(), refused.kind()), (ErrorKind::Unavailable, ErrorKind::Unavailable));
    consumer.consumer = None;
    insist(&*late, "t", 1).await;
    consumer.until(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_taken_may_be_free_later() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let (bus, other) = (space.bus().await, space.bus().await);
    let exclusive = || subscribe("t", SubscriptionType::Exclusive);
    let first = bus.subscribe(exclusive()).await.unwrap();
    for _ in 0..2 {
        let taken = other.subscribe(exclusive()).await.err().expect("it is taken");
        assert!(taken.kind() == ErrorKind::Unavailable && taken.chain().contains("it is taken"), "{taken:?}");
    }
    drop(first);
    within("its turn", async { while other.subscribe(exclusive()).await.is_err() {} }).await;
}

const STANDBY: &str = r#"
name: standby
sources: { changes: { type: topic, bus: pulsar, topic: "cdc:forecasts", subscription: s } }
sinks: { effect: { type: probe, inputs: [changes] } }
"#;

fn instance(space: &Space) -> Rig {
    let set = |name: &str, value: &str| format!("resources.pulsar.{name}={value}");
    let sets = [
        set("type", "pulsar"),
        set("service_url", &space.broker.service_url),
        set("namespace", &space.name),
        set("connect_timeout_ms", "2000"),
        set("operation_timeout_ms", "2000"),
    ];
    Rig::new(Arc::new(MemoryStore::new()), &sets.each_ref().map(String::as_str), |registry| {
        smartpulse_pulsar::register(registry);
        smartpulse_sources::register(registry);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_starts_beside_the_owner_of_a_subscription_and_follows_him() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    let owner = bus.subscribe(subscribe("cdc:forecasts", SubscriptionType::Exclusive)).await.unwrap();
    let standby = instance(&space);
    let graph = standby.start(STANDBY).await;
    bus.publish("cdc:forecasts", vec![captured(1)]).await.unwrap();
    drop(owner);
    standby.probe.until("its turn", |probe| probe.versions("effect", "k") == [1]).await;
    graph.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_starts_while_the_broker_is_away() {
    let Some(broker) = Broker::shared() else { return };
    let _alone = broker.alone().await;
    let space = Space::new().unwrap();
    space.bus().await.publish("cdc:forecasts", vec![captured(1)]).await.unwrap();
    broker.stop();
    let early = instance(&space);
    let graph = early.start(STANDBY).await;
    tokio::task::spawn_blocking(|| broker.restart()).await.unwrap();
    early.probe.until("the broker", |probe| probe.versions("effect", "k") == [1]).await;
    graph.stop().await.unwrap();
}

fn captured(version: i64) -> Outgoing {
    let payload = encode_change(&smartpulse_testing::event("k", version));
    Outgoing { key: Some("k".to_owned()), payload, properties: BTreeMap::new() }
}
