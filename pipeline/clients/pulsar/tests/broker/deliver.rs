//! What is delivered, to whom, in which order, and what other clients see.

use crate::{Space, number, numbers, outgoing, publish, subscribe, take};
use smartpulse_clients::bus::{
    Bus, Consumer, InitialPosition, Message, MessageId, Outgoing, SharedBus, Subscribe, SubscriptionType,
};
use smartpulse_pipeline::Timestamp;
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::within;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// Proves that nothing else waits: what is published now is what comes next.
async fn nothing_before(bus: &dyn Bus, topic: &str, consumer: &mut Box<dyn Consumer>) {
    bus.publish(topic, vec![outgoing("marker", 4_711)]).await.unwrap();
    assert_eq!(numbers(&take(consumer, 1).await), [4_711]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_given_back_too_often_becomes_a_dead_letter_with_its_reason() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus_with(|config| config.max_redeliveries = 2).await;
    let sent = Outgoing {
        properties: BTreeMap::from([(
            "traceparent".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        )]),
        ..outgoing("k", 1)
    };
    bus.publish("jobs", vec![sent.clone()]).await.unwrap();
    let mut consumer = bus.subscribe(subscribe("jobs", SubscriptionType::Shared)).await.unwrap();
    for redeliveries in 0..3 {
        let messages = take(&mut consumer, 1).await;
        assert_eq!((number(&messages[0]), messages[0].redeliveries), (1, redeliveries));
        consumer.acker().nack(&ids(&messages), Duration::from_millis(10)).await.unwrap();
    }
    let mut letters = bus.subscribe(subscribe("jobs-s-DLQ", SubscriptionType::Exclusive)).await.unwrap();
    // The letter is written when the message comes for the fourth time, which takes someone who waits for messages.
    let letter = tokio::select! {
        letter = take(&mut letters, 1) => letter.into_iter().next().unwrap(),
        again = consumer.receive(1) => panic!("it came again: {again:?}"),
    };
    assert_eq!((&letter.key, &letter.payload), (&sent.key, &sent.payload));
    assert_eq!(letter.properties["reason"], "given back 3 times, more than max_redeliveries (2)");
    assert_eq!(
        (letter.properties["REAL_TOPIC"].as_str(), letter.properties["REAL_SUBSCRIPTION"].as_str()),
        ("jobs", "s")
    );
    assert_eq!(letter.properties["traceparent"], sent.properties["traceparent"]);
    // It stays for whoever looks after it, without retention too.
    let kept = &broker.stats(&space.name, "jobs-s-DLQ")["subscriptions"]["s-dlq"]["msgBacklog"];
    assert_eq!(kept.as_u64(), Some(1));
    nothing_before(&*bus, "jobs", &mut consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_is_not_given_back() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let bus = Space::new().unwrap().bus().await;
    publish(&*bus, "t", [1]).await;
    let mut consumer = bus.subscribe(subscribe("t", SubscriptionType::KeyShared)).await.unwrap();
    let messages = take(&mut consumer, 1).await;
    let refused = consumer.acker().nack(&ids(&messages), Duration::ZERO).await.unwrap_err();
    assert!(refused.chain().contains("try again in process"), "{}", refused.chain());
}

const KEYS: u32 = 20;
const KEYED: u32 = 2_000;

/// The number of a message that only keeps the topic going.
const NUDGE: u32 = KEYED;

/// Publishes `KEYED` messages over `KEYS` keys, a hundred at a time, and then a nudge now and then until it is aborted. Broker
/// 4.0.8 may stop after a consumer has joined: its statistics then show everything in replay, nothing unacked, permits on
/// both sides, and it goes on with the next message of the topic.
fn publish_keyed(bus: SharedBus) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for first in (0..KEYED).step_by(100) {
            let messages = (first..first + 100).map(|n| outgoing(&format!("key-{}", n % KEYS), n)).collect();
            bus.publish("t", messages).await.unwrap();
        }
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            bus.publish("t", vec![outgoing("nudge", NUDGE)]).await.unwrap();
        }
    })
}

/// Takes from whichever of two consumers has something; which it was.
async fn from_either(consumers: &mut [Box<dyn Consumer>; 2]) -> (usize, Vec<Message>) {
    let [first, second] = consumers;
    let received = async {
        tokio::select! {
            messages = first.receive(50) => (0, messages.unwrap()),
            messages = second.receive(50) => (1, messages.unwrap()),
        }
    };
    within("a delivery", received).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_shared_keeps_the_order_of_a_key_while_consumers_join() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let shared = || subscribe("t", SubscriptionType::KeyShared);
    let mut first = space.bus().await.subscribe(shared()).await.unwrap();
    let publishing = publish_keyed(space.bus().await);
    let mut next: Vec<u32> = (0..KEYS).collect();
    let mut take_in = |messages: &[Message]| {
        let numbers = messages.iter().map(number).filter(|number| *number != NUDGE);
        numbers.fold(0, |count, number| {
            let next = &mut next[(number % KEYS) as usize];
            assert_eq!(number, *next, "out of order");
            *next += KEYS;
            count + 1
        })
    };
    let mut taken = 0;
    while taken < 300 {
        let messages = within("a delivery", first.receive(50)).await.unwrap();
        taken += take_in(&messages);
        first.acker().ack(&ids(&messages)).await.unwrap();
    }
    // What the first still holds of a key that is now the second's has to be done before the second gets more of it.
    let mut consumers = [first, space.bus().await.subscribe(shared()).await.unwrap()];
    let mut shares = [0, 0];
    while taken < KEYED as usize {
        let (from, messages) = from_either(&mut consumers).await;
        let count = take_in(&messages);
        taken += count;
        shares[from] += count;
        consumers[from].acker().ack(&ids(&messages)).await.unwrap();
    }
    publishing.abort();
    assert!(shares[1] > 0, "the second got nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_shared_loses_nothing_while_consumers_come_and_go() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let shared = || subscribe("t", SubscriptionType::KeyShared);
    let buses = [space.bus().await, space.bus().await];
    let mut consumers = [buses[0].subscribe(shared()).await.unwrap(), buses[1].subscribe(shared()).await.unwrap()];
    let publishing = publish_keyed(space.bus().await);
    let (mut acked, mut rounds) = (BTreeSet::new(), 0);
    while acked.len() < KEYED as usize {
        rounds += 1;
        let (from, messages) = from_either(&mut consumers).await;
        if rounds % 3 == 0 && rounds < 60 {
            // It goes with these in its hands, and with more on the way; another comes.
            consumers[from] = {
                let other = space.bus().await;
                other.subscribe(shared()).await.unwrap()
            };
            continue;
        }
        consumers[from].acker().ack(&ids(&messages)).await.unwrap();
        acked.extend(numbers(&messages).into_iter().filter(|number| *number != NUDGE));
    }
    publishing.abort();
    assert!(rounds >= 6, "no consumer went");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_gets_a_fan_out_and_leaves_nothing_behind() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let live = |instance: &str| Subscribe {
        subscription: format!("cache-{instance}"),
        initial: InitialPosition::Latest,
        durable: false,
        ..subscribe("forecast:invalidation", SubscriptionType::Exclusive)
    };
    let (one, two) = (space.bus().await, space.bus().await);
    publish(&*one, "forecast:invalidation", [1]).await;
    let mut first = one.subscribe(live("one")).await.unwrap();
    let mut second = two.subscribe(live("two")).await.unwrap();
    publish(&*one, "forecast:invalidation", [2, 3]).await;
    assert_eq!(numbers(&take(&mut first, 2).await), [2, 3]);
    assert_eq!(numbers(&take(&mut second, 2).await), [2, 3]);
    let names = || {
        let stats = broker.stats(&space.name, "forecast:invalidation");
        stats["subscriptions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(), ["cache-one", "cache-two"]);
    drop(first);
    within("the end of a subscription", async {
        while names() != ["cache-two"] {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_stays_with_the_broker() {
    const MESSAGES: u32 = 20_000;
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    for first in (0..MESSAGES).step_by(2_000) {
        publish(&*bus, "t", first..first + 2_000).await;
    }
    let mut consumer = bus.subscribe(subscribe("t", SubscriptionType::Exclusive)).await.unwrap();
    assert_eq!(numbers(&take(&mut consumer, 1).await), [0]);
    let ahead = || {
        let stats = broker.stats(&space.name, "t");
        stats["subscriptions"]["s"]["consumers"][0]["msgOutCounter"].as_u64().unwrap()
    };
    // What has been sent stops growing: nobody takes it.
    let mut sent = ahead();
    within("a pause", async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            match ahead() {
                same if same == sent => return,
                more => sent = more,
            }
        }
    })
    .await;
    let prefetch = u64::from(space.config().prefetch_messages);
    assert!(sent <= prefetch * 6, "{sent} messages wait in memory, with {prefetch} to prefetch");
    let rest = take(&mut consumer, MESSAGES as usize - 1).await;
    assert_eq!(numbers(&rest), (1..MESSAGES).collect::<Vec<_>>());
    // Acks go out although nothing is taken, once the consumer ends.
    let acker = consumer.acker();
    drop(consumer);
    acker.ack(&ids(&rest)).await.unwrap();
    let mut consumer = bus.subscribe(subscribe("t", SubscriptionType::Exclusive)).await.unwrap();
    assert_eq!(numbers(&take(&mut consumer, 1).await), [0], "the one that was not acked");
    nothing_before(&*bus, "t", &mut consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_arrive_when_a_consumer_ends_in_the_middle_of_a_backlog() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    publish(&*bus, "t", 0..3_000).await;
    for round in 0..3 {
        let mut consumer = bus.subscribe(subscribe("t", SubscriptionType::Exclusive)).await.unwrap();
        let messages = take(&mut consumer, 100).await;
        assert_eq!(numbers(&messages), (round * 100..round * 100 + 100).collect::<Vec<_>>());
        let acker = consumer.acker();
        // As at shutdown: the source is gone, and its last batches become durable.
        drop(consumer);
        for message in &messages {
            acker.ack(std::slice::from_ref(&message.id)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_keep_the_order_of_a_key() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    broker.admin("PUT", &format!("persistent/public/{}/cdc%3Aforecasts/partitions", space.name), "3");
    let bus = space.bus().await;
    let mut consumer = bus.subscribe(subscribe("cdc:forecasts", SubscriptionType::Failover)).await.unwrap();
    let keyed = |n: u32| outgoing(&format!("key-{}", n % 7), n);
    bus.publish("cdc:forecasts", (0..70).map(keyed).collect()).await.unwrap();
    let messages = take(&mut consumer, 70).await;
    for key in 0..7 {
        let of_key: Vec<u32> = numbers(&messages).into_iter().filter(|n| n % 7 == key).collect();
        assert_eq!(of_key, (0..10).map(|n| n * 7 + key).collect::<Vec<_>>());
    }
    assert_eq!(numbers(&messages).into_iter().collect::<BTreeSet<_>>().len(), 70);
    consumer.acker().ack(&ids(&messages)).await.unwrap();
    drop(consumer);
    let mut consumer = bus.subscribe(subscribe("cdc:forecasts", SubscriptionType::Failover)).await.unwrap();
    nothing_before(&*bus, "cdc:forecasts", &mut consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_subscription_stays_with_who_came_first_until_he_ends() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    for (topic, partitions) in [("plain", 0), ("parts", 3)] {
        if partitions > 0 {
            let path = format!("persistent/public/{}/{topic}/partitions", space.name);
            broker.admin("PUT", &path, &partitions.to_string());
        }
        let failover = || subscribe(topic, SubscriptionType::Failover);
        let bus = space.bus().await;
        let mut first = bus.subscribe(failover()).await.unwrap();
        // Ranks are seconds.
        let second = || Timestamp::now().as_millis() / 1_000;
        let came = second();
        within("the next second", async {
            while second() == came {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let mut later = Vec::new();
        for n in 0..6 {
            let other = space.bus().await;
            later.push(other.subscribe(failover()).await.unwrap());
            bus.publish(topic, (0..9).map(|key| outgoing(&format!("key-{key}"), n)).collect()).await.unwrap();
            let messages = take(&mut first, 9).await;
            assert_eq!(numbers(&messages), [n; 9], "{topic}");
            first.acker().ack(&ids(&messages)).await.unwrap();
        }
        drop(first);
        let others = later.iter_mut().map(|consumer| Box::pin(consumer.receive(1)));
        let heir = futures::future::select_all(others);
        bus.publish(topic, vec![outgoing("k", 7)]).await.unwrap();
        let (messages, _, _) = within("another", heir).await;
        assert_eq!(numbers(&messages.unwrap()), [7]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_java_client_reads_our_messages() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    let long = "zstd ".repeat(200);
    let sent = Outgoing {
        key: Some("unit-7".to_owned()),
        payload: long.clone().into(),
        properties: BTreeMap::from([("version".to_owned(), "3".to_owned())]),
    };
    bus.publish("cdc:forecasts", vec![sent]).await.unwrap();
    let topic = format!("persistent://public/{}/cdc:forecasts", space.name);
    let read = broker.tool("pulsar-client", &["consume", "-s", "java", "-p", "Earliest", "-n", "1", &topic]).await;
    for expected in ["key:[unit-7]", "properties:[version=3]", long.trim_end()] {
        assert!(read.contains(expected), "no {expected:?} in\n{read}");
    }
    // It was compressed on its way.
    let stored = broker.stats(&space.name, "cdc:forecasts")["bytesInCounter"].as_u64().unwrap();
    assert!(stored < 300, "{stored} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_codecs_are_read_or_named_with_the_way_past_them() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    let produce = async |codec| {
        let topic = format!("persistent://public/{}/{codec}", space.name);
        let produce = ["produce", "-m", "3", "-r", "100", "-s", "200", "-z", codec, "-n", "1", "-i", "1", &topic];
        broker.tool("pulsar-perf", &produce).await;
        bus.subscribe(subscribe(codec, SubscriptionType::Exclusive)).await.unwrap()
    };
    let messages = take(&mut produce("LZ4").await, 3).await;
    assert!(messages.iter().all(|message| message.payload.len() == 200));
    let error = within("the news", produce("SNAPPY").await.receive(1)).await.unwrap_err();
    assert!(error.chain().contains("pulsar-admin topics skip"), "{error:?}");
    let backlog = || broker.stats(&space.name, "SNAPPY")["subscriptions"]["s"]["msgBacklog"].as_u64().unwrap();
    let skip = format!("persistent/public/{}/SNAPPY/subscription/s/skip/{}", space.name, backlog());
    broker.admin("POST", &skip, "");
    let mut consumer = bus.subscribe(subscribe("SNAPPY", SubscriptionType::Exclusive)).await.unwrap();
    nothing_before(&*bus, "SNAPPY", &mut consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_read() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let partitions = format!("persistent/public/{}/t/partitions", space.name);
    broker.admin("PUT", &partitions, "2");
    let bus = space.bus().await;
    let failover = || subscribe("t", SubscriptionType::Failover);
    let mut consumer = bus.subscribe(failover()).await.unwrap();
    bus.publish("t", (0..10).map(|n| outgoing(&format!("key-{n}"), n)).collect()).await.unwrap();
    let first = take(&mut consumer, 10).await;
    consumer.acker().ack(&ids(&first)).await.unwrap();
    broker.admin("POST", &partitions, "5");
    let error = within("the news", async {
        loop {
            if let Err(error) = consumer.receive(10).await {
                return error;
            }
        }
    })
    .await;
    assert!(error.chain().contains("partitions were added"), "{error:?}");
    drop(consumer);
    let mut consumer = bus.subscribe(failover()).await.unwrap();
    let bus = space.bus().await;
    bus.publish("t", (10..40).map(|n| outgoing(&format!("key-{n}"), n)).collect()).await.unwrap();
    let seen: BTreeSet<u32> = numbers(&take(&mut consumer, 30).await).into_iter().collect();
    assert_eq!(seen, (10..40).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_the_java_client_are_read_and_acked_as_a_whole() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = space.bus().await;
    let topic = format!("persistent://public/{}/t", space.name);
    let produce =
        ["produce", "-m", "60", "-r", "1000", "-s", "200", "-z", "ZSTD", "-b", "200", "-n", "1", "-i", "1", &topic];
    broker.tool("pulsar-perf", &produce).await;
    // It sends more than it is asked for when a batch is on its way.
    let sent = broker.stats(&space.name, "t")["msgInCounter"].as_u64().unwrap() as usize;
    let mut consumer = bus.subscribe(subscribe("t", SubscriptionType::Exclusive)).await.unwrap();
    let messages = take(&mut consumer, sent).await;
    assert!(messages.iter().all(|message| message.payload.len() == 200));
    assert_eq!(messages.iter().map(|message| &message.id).collect::<BTreeSet<_>>().len(), sent);
    // All but one: its whole entry comes again, and is acked with it.
    consumer.acker().ack(&ids(&messages[..sent - 1])).await.unwrap();
    drop(consumer);
    let mut consumer = bus.subscribe(subscribe("t", SubscriptionType::Exclusive)).await.unwrap();
    let mut again = Vec::new();
    while again.last() != Some(&messages[sent - 1].id) {
        again.extend(ids(&take(&mut consumer, 1).await));
    }
    assert!(again.len() > 1, "perf sent no batches");
    consumer.acker().ack(&again).await.unwrap();
    nothing_before(&*bus, "t", &mut consumer).await;
}
