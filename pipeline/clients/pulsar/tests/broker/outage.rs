//! Brokers that go away.

use crate::{Space, number, outgoing, publish, subscribe, take};
use smartpulse_clients::bus::{Bus, Consumer, InitialPosition, SharedBus, Subscribe, SubscriptionType};
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::within;
use std::collections::BTreeSet;
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
