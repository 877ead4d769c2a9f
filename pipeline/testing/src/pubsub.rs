//! What every [`PubSub`](smartpulse_clients::pubsub::PubSub) must do.

use crate::{cases, within};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use smartpulse_clients::pubsub::{Delivery, Outcome, Publication, SharedPubSub, Subscriber};
use std::sync::Arc;

/// One pub/sub system that exists for one case.
#[async_trait]
pub trait PubSubFixture: Send + Sync {
    /// A connection to it.
    async fn open(&self) -> SharedPubSub;

    /// Makes it forget its counters. False when it cannot.
    async fn forget_counters(&self) -> bool {
        false
    }

    /// More messages than one subscriber's queue holds, if that is bounded by a number.
    fn overflow(&self) -> Option<usize> {
        None
    }
}

/// Runs all cases.
///
/// # Panics
/// In the first case that fails.
pub async fn pubsub_suite<F: PubSubFixture>(make: impl Fn() -> F) {
    cases!(
        make,
        outcomes_follow_from_the_stored_version,
        channels_of_one_entity_count_for_themselves,
        forgotten_counters_make_the_next_message_whole,
        messages_come_in_order_and_numbered,
        subscribers_get_what_matches_their_pattern,
        an_overflow_is_told_before_the_next_message,
        racing_publishers_publish_a_version_once,
    );
}

fn publication(key: &str, version: i64, previous: Option<i64>) -> Publication {
    Publication {
        channel: format!("__dataChanged:production:forecast:{key}").into(),
        section: "forecast".into(),
        key: key.into(),
        version,
        previous_version: previous,
        patch: Bytes::from(format!("{{\"kind\":\"patch\",\"VersionId\":{version}}}")),
        whole: Bytes::from(format!("{{\"kind\":\"whole\",\"VersionId\":{version}}}")),
        document: None,
        resync: false,
        known_only: false,
    }
}

async fn next(subscriber: &mut Box<dyn Subscriber>) -> Delivery {
    within("a delivery", subscriber.receive(1)).await.unwrap().remove(0)
}

fn read(delivery: Delivery) -> (Arc<str>, String, i64, i64) {
    let Delivery::Message { channel, payload } = delivery else { panic!("no message but {delivery:?}") };
    let json: Value = serde_json::from_slice(&payload).unwrap();
    assert!(payload.ends_with(format!(",\"PublisherSeq\":{}}}", json["PublisherSeq"]).as_bytes()), "{payload:?}");
    let number = |member: &str| json[member].as_i64().unwrap();
    (channel, json["kind"].as_str().unwrap().to_owned(), number("VersionId"), number("PublisherSeq"))
}

async fn outcomes_follow_from_the_stored_version(fixture: impl PubSubFixture) {
    let pubsub = fixture.open().await;
    pubsub.ping().await.unwrap();
    let mut subscriber = pubsub.subscribe("*").await.unwrap();
    let resync = |publication: Publication| Publication { resync: true, ..publication };
    let known_only = |publication: Publication| Publication { known_only: true, ..publication };
    for (publication, outcome) in [
        (known_only(publication("a", 4, Some(3))), Outcome::Unknown),
        (known_only(resync(publication("a", 4, None))), Outcome::Unknown),
        (publication("a", 5, Some(4)), Outcome::Whole), // unknown counter
        (publication("a", 6, Some(5)), Outcome::Patch), // follows
        (publication("a", 6, Some(5)), Outcome::Stale), // again
        (publication("a", 4, Some(3)), Outcome::Stale), // late
        (publication("a", 9, Some(8)), Outcome::Whole), // a gap
        (publication("a", 10, None), Outcome::Whole),   // without a previous version
        (resync(publication("a", 10, Some(9))), Outcome::Whole),
        (resync(publication("a", 9, Some(8))), Outcome::Stale),
        (known_only(publication("b", 1, None)), Outcome::Unknown), // counters are per channel
        (publication("b", 1, None), Outcome::Whole),
        (known_only(publication("b", 2, Some(1))), Outcome::Patch),
        (publication("a", 11, Some(10)), Outcome::Patch), // a resync moved nothing
    ] {
        assert_eq!(pubsub.publish(std::slice::from_ref(&publication)).await.unwrap(), [outcome], "{publication:?}");
        let kind = match outcome {
            Outcome::Patch => "patch",
            Outcome::Whole => "whole",
            Outcome::Stale | Outcome::Unknown => continue,
        };
        let (channel, got, version, _) = read(next(&mut subscriber).await);
        assert_eq!((&channel, got.as_str(), version), (&publication.channel, kind, publication.version));
    }
}

/// A second sink for the same entities, with a feed of its own, takes nothing from the first.
async fn channels_of_one_entity_count_for_themselves(fixture: impl PubSubFixture) {
    let pubsub = fixture.open().await;
    let feed = |version, previous| Publication { channel: "feed:a".into(), ..publication("a", version, previous) };
    for (publication, outcome) in [
        (publication("a", 1, None), Outcome::Whole),
        (feed(1, None), Outcome::Whole),
        (feed(2, Some(1)), Outcome::Patch),
        (publication("a", 2, Some(1)), Outcome::Patch),
        (feed(2, Some(1)), Outcome::Stale),
    ] {
        assert_eq!(pubsub.publish(std::slice::from_ref(&publication)).await.unwrap(), [outcome], "{publication:?}");
    }
}

async fn forgotten_counters_make_the_next_message_whole(fixture: impl PubSubFixture) {
    let pubsub = fixture.open().await;
    pubsub.publish(&[publication("a", 1, None)]).await.unwrap();
    if fixture.forget_counters().await {
        let outcomes = pubsub.publish(&[publication("a", 2, Some(1)), publication("a", 3, Some(2))]).await.unwrap();
        assert_eq!(outcomes, [Outcome::Whole, Outcome::Patch]);
    }
}

async fn messages_come_in_order_and_numbered(fixture: impl PubSubFixture) {
    let pubsub = fixture.open().await;
    let mut subscriber = pubsub.subscribe("__dataChanged:*").await.unwrap();
    let batch: Vec<Publication> =
        (1..=200).flat_map(|v| [publication("a", v, Some(v - 1)), publication("a", v, Some(v - 1))]).collect();
    let outcomes = pubsub.publish(&batch).await.unwrap();
    assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Stale).count(), 200);
    let mut first = None;
    for version in 1..=200 {
        let (_, _, got, seq) = read(next(&mut subscriber).await);
        let first = *first.get_or_insert(seq);
        assert_eq!((got, seq - first), (version, version - 1), "what is not sent is not numbered");
    }
}

async fn subscribers_get_what_matches_their_pattern(fixture: impl PubSubFixture) {
    let pubsub = fixture.open().await;
    let mut all = pubsub.subscribe("__dataChanged:production:*").await.unwrap();
    let mut one = pubsub.subscribe("__dataChanged:production:forecast:b").await.unwrap();
    let mut none = pubsub.subscribe("__dataChanged:staging:*").await.unwrap();
    // One after the other: only the messages of one channel have an order among themselves.
    for (key, ending) in [("a", ":a"), ("b", ":b")] {
        pubsub.publish(&[publication(key, 1, None)]).await.unwrap();
        assert!(read(next(&mut all).await).0.ends_with(ending));
    }
    let staging = Publication { channel: "__dataChanged:staging:forecast:z".into(), ..publication("z", 1, None) };
    pubsub.publish(&[staging]).await.unwrap();
    assert!(read(next(&mut one).await).0.ends_with(":b"));
    assert!(read(next(&mut none).await).0.ends_with(":z"));
}

async fn an_overflow_is_told_before_the_next_message(fixture: impl PubSubFixture) {
    let Some(overflow) = fixture.overflow() else { return };
    let overflow = i64::try_from(overflow).unwrap();
    let pubsub = fixture.open().await;
    let mut slow = pubsub.subscribe("*").await.unwrap();
    let mut fast = pubsub.subscribe("*").await.unwrap();
    let (mut last, mut told) = (0, false);
    // A message may still be on its way to the slow one when the fast one has it all: then another round is needed.
    for round in 0..100 {
        let (first, end) = (round * overflow + 1, (round + 1) * overflow);
        let batch: Vec<Publication> = (first..=end).map(|v| publication("a", v, Some(v - 1))).collect();
        for batch in batch.chunks(100) {
            pubsub.publish(batch).await.unwrap();
            for _ in batch {
                read(next(&mut fast).await);
            }
        }
        while last < end {
            match next(&mut slow).await {
                Delivery::Lost => {
                    told = true;
                    let version = read(next(&mut slow).await).2;
                    assert!(version > last + 1, "the oldest were dropped");
                    last = version;
                }
                message => {
                    assert_eq!(read(message).2, last + 1, "nothing is missing but what was told");
                    last += 1;
                }
            }
        }
        if told {
            return;
        }
    }
    panic!("100 times {overflow} messages did not overflow an inbox");
}

async fn racing_publishers_publish_a_version_once(fixture: impl PubSubFixture) {
    let pubsub = fixture.open().await;
    let mut subscriber = pubsub.subscribe("*").await.unwrap();
    let mut racers = Vec::new();
    for _ in 0..4 {
        let pubsub = fixture.open().await;
        racers.push(tokio::spawn(async move {
            let mut sent = 0;
            for version in 1..=100 {
                let outcome = pubsub.publish(&[publication("a", version, Some(version - 1))]).await.unwrap();
                sent += usize::from(outcome != [Outcome::Stale]);
            }
            sent
        }));
    }
    let mut sent = 0;
    for racer in racers {
        sent += within("the racers' end", racer).await.unwrap();
    }
    let mut last = 0;
    for _ in 0..sent {
        let version = read(next(&mut subscriber).await).2;
        assert!(version > last, "{version} follows {last}");
        last = version;
    }
    assert_eq!(last, 100);
}
