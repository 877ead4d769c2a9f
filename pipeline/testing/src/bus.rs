//! What every [`Bus`] must do.

use crate::{cases, within};
use async_trait::async_trait;
use bytes::Bytes;
use smartpulse_clients::bus::{
    Bus, Consumer, InitialPosition, Message, MessageId, Outgoing, SharedBus, Subscribe, SubscriptionType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const TOPIC: &str = "cdc:forecasts";

/// One bus that exists for one case.
#[async_trait]
pub trait BusFixture: Send + Sync {
    /// Opens it. Opening again, once all that came of the first is dropped, is a restart.
    async fn open(&self) -> SharedBus;
}

/// Runs all cases.
///
/// # Panics
/// In the first case that fails.
pub async fn bus_suite<F: BusFixture>(make: impl Fn() -> F) {
    cases!(
        make,
        messages_arrive_whole_and_in_order,
        subscriptions_start_where_they_were_told_to,
        a_created_subscription_misses_nothing,
        a_waiting_consumer_is_woken,
        subscriptions_are_independent,
        out_of_order_acks_survive_a_restart,
        consumption_restarts_from_what_was_acked,
        what_a_dropped_consumer_held_comes_again_in_order,
        a_second_exclusive_consumer_is_refused,
        shared_consumers_compete,
        a_nacked_message_comes_again_later_and_counted,
        a_consumer_gets_no_more_than_it_asks_for,
        a_dropped_receive_loses_nothing,
        a_non_durable_subscription_ends_with_its_consumer,
        concurrent_acks_all_count,
    );
}

fn outgoing(number: u32) -> Outgoing {
    Outgoing {
        key: Some(format!("key-{}", number % 3)),
        payload: Bytes::from(number.to_string()),
        properties: BTreeMap::new(),
    }
}

async fn publish(bus: &dyn Bus, numbers: impl IntoIterator<Item = u32>) {
    bus.publish(TOPIC, numbers.into_iter().map(outgoing).collect()).await.unwrap();
}

fn subscription(name: &str, kind: SubscriptionType) -> Subscribe {
    Subscribe {
        topic: TOPIC.to_owned(),
        subscription: name.to_owned(),
        kind,
        initial: InitialPosition::Earliest,
        durable: true,
    }
}

fn exclusive() -> Subscribe {
    subscription("s", SubscriptionType::Exclusive)
}

fn number(message: &Message) -> u32 {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

fn numbers(messages: &[Message]) -> Vec<u32> {
    messages.iter().map(number).collect()
}

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|m| m.id.clone()).collect()
}

async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let wanted = count - messages.len();
        messages.extend(within("a delivery", consumer.receive(wanted)).await.unwrap());
    }
    messages
}

/// Proves that nothing else waits, without waiting for nothing: what is published now is what comes next.
async fn nothing_before(bus: &dyn Bus, consumer: &mut Box<dyn Consumer>, marker: u32) {
    publish(bus, [marker]).await;
    assert_eq!(numbers(&take(consumer, 1).await), [marker]);
}

async fn messages_arrive_whole_and_in_order(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    bus.ping().await.unwrap();
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let sent = Outgoing {
        key: Some("k \u{e9}".into()),
        payload: Bytes::from_static(b"\x00\xff{}"),
        properties: BTreeMap::from([("traceparent".into(), "00-\"x\"".into()), ("b".into(), String::new())]),
    };
    let bare = Outgoing { key: None, payload: Bytes::new(), properties: BTreeMap::new() };
    bus.publish(TOPIC, vec![sent.clone(), bare.clone()]).await.unwrap();
    let got = take(&mut consumer, 2).await;
    for (message, sent) in got.iter().zip([sent, bare]) {
        let same = Outgoing {
            key: message.key.clone(),
            payload: message.payload.clone(),
            properties: message.properties.clone(),
        };
        assert_eq!(same, sent);
        assert_eq!((&*message.topic, message.redeliveries), (TOPIC, 0));
    }
    for first in (0..2_500).step_by(25) {
        publish(&*bus, first..first + 25).await;
    }
    bus.publish("another", vec![outgoing(9)]).await.unwrap();
    assert_eq!(numbers(&take(&mut consumer, 2_500).await), (0..2_500).collect::<Vec<_>>());
}

async fn subscriptions_start_where_they_were_told_to(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    publish(&*bus, [1, 2]).await;
    for durable in [true, false] {
        let name = |start: &str| format!("{start}-{durable}");
        let latest =
            Subscribe { initial: InitialPosition::Latest, durable, subscription: name("latest"), ..exclusive() };
        let earliest = Subscribe { durable, subscription: name("earliest"), ..exclusive() };
        let mut latest = bus.subscribe(latest).await.unwrap();
        let mut earliest = bus.subscribe(earliest).await.unwrap();
        let from = if durable { 3 } else { 4 };
        publish(&*bus, [from]).await;
        assert_eq!(numbers(&take(&mut latest, 1).await), [from]);
        let expected: Vec<u32> = (1..=from).collect();
        assert_eq!(numbers(&take(&mut earliest, expected.len()).await), expected);
    }
}

async fn a_created_subscription_misses_nothing(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    publish(&*bus, [1]).await;
    let latest = Subscribe { initial: InitialPosition::Latest, ..exclusive() };
    bus.create_subscription(&latest).await.unwrap();
    publish(&*bus, [2]).await;
    // Creating it again, or opening it with another start, does not move it.
    bus.create_subscription(&latest).await.unwrap();
    drop(bus);
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    assert_eq!(numbers(&take(&mut consumer, 1).await), [2]);
}

async fn a_waiting_consumer_is_woken(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    for n in 0..20 {
        let publisher = SharedBus::clone(&bus);
        let (received, ()) = tokio::join!(take(&mut consumer, 1), async {
            tokio::task::yield_now().await;
            publish(&*publisher, [n]).await;
        });
        assert_eq!(numbers(&received), [n]);
    }
}

async fn subscriptions_are_independent(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    let mut a = bus.subscribe(subscription("a", SubscriptionType::Exclusive)).await.unwrap();
    let mut b = bus.subscribe(subscription("b", SubscriptionType::Exclusive)).await.unwrap();
    publish(&*bus, [1, 2]).await;
    a.acker().ack(&ids(&take(&mut a, 2).await)).await.unwrap();
    assert_eq!(numbers(&take(&mut b, 2).await), [1, 2]);
}

async fn out_of_order_acks_survive_a_restart(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    publish(&*bus, 0..6).await;
    let messages = take(&mut consumer, 6).await;
    let acker = consumer.acker();
    for place in [4, 1, 0] {
        acker.ack(&[messages[place].id.clone()]).await.unwrap();
    }
    drop((bus, consumer, acker));
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    assert_eq!(numbers(&take(&mut consumer, 3).await), [2, 3, 5]);
    nothing_before(&*bus, &mut consumer, 77).await;
}

async fn consumption_restarts_from_what_was_acked(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    publish(&*bus, 0..10).await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let messages = take(&mut consumer, 7).await;
    consumer.acker().ack(&ids(&messages[..5])).await.unwrap();
    drop((bus, consumer));
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let messages = take(&mut consumer, 5).await;
    assert_eq!(numbers(&messages), [5, 6, 7, 8, 9]);
    consumer.acker().ack(&ids(&messages)).await.unwrap();
    // An ack repeated, as after a retry, changes nothing.
    consumer.acker().ack(&ids(&messages)).await.unwrap();
    drop((bus, consumer));
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    nothing_before(&*bus, &mut consumer, 77).await;
}

async fn what_a_dropped_consumer_held_comes_again_in_order(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    publish(&*bus, 0..6).await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let messages = take(&mut consumer, 4).await;
    let acker = consumer.acker();
    acker.ack(&[messages[1].id.clone()]).await.unwrap();
    drop(consumer);
    // Its acker outlives it: an effect that became durable late counts.
    acker.ack(&[messages[2].id.clone()]).await.unwrap();
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let again = take(&mut consumer, 4).await;
    assert_eq!(numbers(&again), [0, 3, 4, 5]);
    assert_eq!(again.iter().map(|m| m.redeliveries > 0).collect::<Vec<_>>(), [true, true, false, false]);
    nothing_before(&*bus, &mut consumer, 77).await;
}

async fn a_second_exclusive_consumer_is_refused(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    let first = bus.subscribe(exclusive()).await.unwrap();
    for kind in [SubscriptionType::Exclusive, SubscriptionType::Shared] {
        let Err(refused) = bus.subscribe(subscription("s", kind)).await else { panic!("{kind:?} was let in") };
        assert!(refused.chain().contains("exclusive"), "{}", refused.chain());
    }
    drop(first);
    within("a free subscription", async {
        while bus.subscribe(exclusive()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn shared_consumers_compete(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    let shared = || subscription("s", SubscriptionType::Shared);
    let mut a = bus.subscribe(shared()).await.unwrap();
    let mut b = bus.subscribe(shared()).await.unwrap();
    // A bus may send ahead, and then one of them may get the first messages alone: published until both have some.
    let (mut from_a, mut from_b, mut published) = (Vec::new(), Vec::new(), 0);
    within("a share for both", async {
        while from_a.is_empty() || from_b.is_empty() {
            publish(&*bus, published..published + 20).await;
            published += 20;
            tokio::select! {
                messages = a.receive(10), if from_a.is_empty() => from_a = messages.unwrap(),
                messages = b.receive(10), if from_b.is_empty() => from_b = messages.unwrap(),
            }
        }
    })
    .await;
    b.acker().ack(&ids(&from_b)).await.unwrap();
    // One dies: the other gets everything that it held.
    drop(a);
    let rest = take(&mut b, published as usize - from_b.len()).await;
    let seen: BTreeSet<u32> = numbers(&from_b).into_iter().chain(numbers(&rest)).collect();
    assert_eq!(seen, (0..published).collect());
    assert!(numbers(&from_a).iter().all(|n| numbers(&rest).contains(n)));
}

async fn a_nacked_message_comes_again_later_and_counted(fixture: impl BusFixture) {
    let delay = Duration::from_millis(100);
    let bus = fixture.open().await;
    publish(&*bus, [1, 2]).await;
    let mut consumer = bus.subscribe(subscription("s", SubscriptionType::Shared)).await.unwrap();
    let acker = consumer.acker();
    let mut messages = take(&mut consumer, 2).await;
    acker.ack(&ids(&messages[1..])).await.unwrap();
    messages.truncate(1);
    for count in 1..=2 {
        let nacked = Instant::now();
        acker.nack(&ids(&messages), delay).await.unwrap();
        messages = take(&mut consumer, 1).await;
        assert!(nacked.elapsed() >= delay, "it came after {:?}", nacked.elapsed());
        assert_eq!((number(&messages[0]), messages[0].redeliveries), (1, count));
    }
    acker.ack(&ids(&messages)).await.unwrap();
    nothing_before(&*bus, &mut consumer, 77).await;
}

async fn a_consumer_gets_no_more_than_it_asks_for(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    publish(&*bus, 0..3_000).await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let mut next = 0;
    // A consumer that does not ask holds nothing up: publishing goes on, and it resumes where it was.
    for wanted in [1, 7, 500] {
        let messages = within("a delivery", consumer.receive(wanted)).await.unwrap();
        assert!(!messages.is_empty() && messages.len() <= wanted);
        for message in &messages {
            assert_eq!(number(message), next);
            next += 1;
        }
        publish(&*bus, 3_000 + next..3_000 + next).await;
    }
    assert_eq!(numbers(&take(&mut consumer, (3_000 - next) as usize).await), (next..3_000).collect::<Vec<_>>());
}

async fn a_dropped_receive_loses_nothing(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let mut got = Vec::new();
    for round in 0..50_u32 {
        // Dropped before, while and after messages arrive.
        let polls = round % 7;
        let _ = futures_poll(consumer.receive(10), polls, &mut got).await;
        publish(&*bus, [round]).await;
        let _ = futures_poll(consumer.receive(10), polls, &mut got).await;
    }
    while got.len() < 50 {
        got.extend(within("a delivery", consumer.receive(10)).await.unwrap());
    }
    assert_eq!(numbers(&got), (0..50).collect::<Vec<_>>());
}

/// Runs a receive for so many turns of the scheduler, then drops it, and keeps what it gave.
async fn futures_poll<E>(
    receive: impl Future<Output = Result<Vec<Message>, E>>,
    turns: u32,
    got: &mut Vec<Message>,
) -> bool {
    tokio::select! {
        biased;
        messages = receive => {
            got.extend(messages.unwrap_or_default());
            true
        }
        () = async { for _ in 0..turns { tokio::task::yield_now().await } } => false,
    }
}

async fn a_non_durable_subscription_ends_with_its_consumer(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    let live = || Subscribe { durable: false, initial: InitialPosition::Latest, ..exclusive() };
    let mut consumer = bus.subscribe(live()).await.unwrap();
    publish(&*bus, [1]).await;
    assert_eq!(numbers(&take(&mut consumer, 1).await), [1]);
    drop(consumer);
    publish(&*bus, [2]).await;
    let mut consumer = bus.subscribe(live()).await.unwrap();
    nothing_before(&*bus, &mut consumer, 3).await;
}

async fn concurrent_acks_all_count(fixture: impl BusFixture) {
    let bus = fixture.open().await;
    publish(&*bus, 0..200).await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    let messages = take(&mut consumer, 200).await;
    let mut acks = Vec::new();
    for message in messages.iter().filter(|m| number(m) != 100) {
        let (acker, id) = (consumer.acker(), message.id.clone());
        acks.push(tokio::spawn(async move { acker.ack(&[id]).await }));
    }
    for ack in acks {
        within("an ack", ack).await.unwrap().unwrap();
    }
    drop((bus, consumer));
    let bus = fixture.open().await;
    let mut consumer = bus.subscribe(exclusive()).await.unwrap();
    assert_eq!(numbers(&take(&mut consumer, 1).await), [100]);
    nothing_before(&*bus, &mut consumer, 777).await;
}
