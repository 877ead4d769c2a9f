//! A real Redis Cluster: it passes the suite that every pub/sub system must pass, and behaves as promised when a node dies,
//! comes back empty or older, is cut off, or gives slots away.

use async_trait::async_trait;
use bytes::Bytes;
use smartpulse_clients::documents::{Shared, SharedDocuments};
use smartpulse_clients::pubsub::{Delivery, Outcome, PubSub, Publication, SharedPubSub, Subscriber};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_redis::{RedisConfig, RedisPubSub};
use smartpulse_testing::redis::{Data, RedisServer};
use smartpulse_testing::{PubSubFixture, RedisCluster, pubsub_suite, until, within};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const QUEUE: u32 = 1_000;

/// Instances whose subscriptions are at the first, the second and the third primary.
const INSTANCES: [&str; 3] = ["b", "c", "d"];

fn open(cluster: &RedisCluster, instance: &str) -> SharedPubSub {
    let config = RedisConfig { queue_messages_max: QUEUE, ..RedisConfig::at(cluster.url()) };
    Arc::new(RedisPubSub::open(&config, instance).unwrap())
}

struct Fixture(RedisCluster);

#[async_trait]
impl PubSubFixture for Fixture {
    async fn open(&self) -> SharedPubSub {
        open(&self.0, &uuid::Uuid::new_v4().to_string())
    }

    async fn forget_counters(&self) -> bool {
        self.0.nodes.iter().all(|node| node.say("FLUSHALL") == "+OK\r\n")
    }

    fn overflow(&self) -> Option<usize> {
        Some(QUEUE as usize + 10)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_conforms() {
    if RedisServer::start().is_some() {
        pubsub_suite(|| Fixture(RedisCluster::start(0).expect("it was there a moment ago"))).await;
    }
}

fn publication(key: &str, version: i64, previous: Option<i64>) -> Publication {
    let head = format!("{{\"DataManagerId\":\"a\",\"VersionId\":{version},\"PatchItems\":[");
    let document = format!("{{\"n\":{version}}}");
    let whole = format!("{head}{{\"Op\":\"replace\",\"Path\":\"\",\"Value\":{document}}}]}}");
    let start = whole.rfind(&document).unwrap();
    Publication {
        channel: format!("__dataChanged:production:forecast:{key}").into(),
        section: "forecast".into(),
        key: key.into(),
        version,
        previous_version: previous,
        patch: Bytes::from(format!("{head}]}}")),
        document: Some(start..start + document.len()),
        whole: whole.into(),
        resync: false,
        known_only: false,
    }
}

/// Publishes as a sink does: until it succeeds.
async fn publish(pubsub: &SharedPubSub, publications: &[Publication]) -> Vec<Outcome> {
    within("a publication", async {
        loop {
            match pubsub.publish(publications).await {
                Ok(outcomes) => return outcomes,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    })
    .await
}

/// The first key that a node has.
fn key_at(cluster: &RedisCluster, node: usize, from: usize) -> String {
    let mut keys = (from..).map(|n| format!("k{n}"));
    let at = |key: &String| cluster.owner(&format!("forecast:{key}")).port() == cluster.nodes[node].port();
    keys.find(at).unwrap()
}

async fn counter(documents: &Arc<dyn SharedDocuments>, key: &str) -> Option<Option<i64>> {
    documents.counters("forecast", &[key.into()]).await.ok().map(|counters| counters[0])
}

fn version_of(delivery: &Delivery) -> Option<i64> {
    let Delivery::Message { payload, .. } = delivery else { return None };
    serde_json::from_slice::<serde_json::Value>(payload).unwrap()["VersionId"].as_i64()
}

async fn next(subscriber: &mut Box<dyn Subscriber>) -> Delivery {
    within("a delivery", subscriber.receive(1)).await.unwrap().remove(0)
}

/// What is committed: the newest version of each key.
type Truth = Arc<Mutex<BTreeMap<String, i64>>>;

/// An instance: it applies what it hears, and reads the truth again when it is told that it missed something.
struct Believer {
    held: Truth,
    /// Messages that took a key back, which nobody may apply.
    heard: Arc<Mutex<usize>>,
}

impl Believer {
    async fn at(pubsub: &SharedPubSub, truth: &Truth) -> Self {
        let mut subscriber = pubsub.subscribe("__dataChanged:production:forecast:*").await.unwrap();
        let believer = Self { held: Truth::default(), heard: Arc::default() };
        let (held, heard, truth) = (believer.held.clone(), believer.heard.clone(), truth.clone());
        tokio::spawn(async move {
            while let Ok(deliveries) = subscriber.receive(100).await {
                for delivery in deliveries {
                    let Delivery::Message { channel, .. } = &delivery else {
                        let now = truth.lock().unwrap().clone();
                        held.lock().unwrap().extend(now);
                        continue;
                    };
                    let key = channel.rsplit(':').next().unwrap().to_owned();
                    let version = version_of(&delivery).unwrap();
                    *heard.lock().unwrap() += 1;
                    let mut held = held.lock().unwrap();
                    let before = held.entry(key).or_default();
                    *before = version.max(*before);
                }
            }
        });
        believer
    }

    /// Waits until it has what is true.
    async fn converges(&self, truth: &Truth) {
        until("convergence", async || *self.held.lock().unwrap() == *truth.lock().unwrap()).await;
    }
}

/// Changes all keys again and again, a batch of all of them at a time, until it is told to stop; gives the outcomes.
async fn change_all(pubsub: &SharedPubSub, keys: &[String], truth: &Truth, stop: impl Fn() -> bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while !stop() {
        let batch: Vec<Publication> = {
            let mut truth = truth.lock().unwrap();
            keys.iter()
                .map(|key| {
                    let version = truth.entry(key.clone()).or_default();
                    *version += 1;
                    publication(key, *version, Some(*version - 1))
                })
                .collect()
        };
        outcomes.extend(publish(pubsub, &batch).await);
        sleep(Duration::from_millis(2)).await;
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_is_replaced_and_everybody_converges() {
    let Some(cluster) = RedisCluster::start(1) else { return };
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let truth = Truth::default();
    let publisher = open(&cluster, "publisher");
    let mut believers = Vec::new();
    for instance in INSTANCES {
        believers.push(Believer::at(&open(&cluster, instance), &truth).await);
    }
    let rounds = Mutex::new(0);
    let few = || {
        let mut rounds = rounds.lock().unwrap();
        *rounds += 1;
        *rounds % 50 == 0
    };
    change_all(&publisher, &keys, &truth, few).await;
    let documents = publisher.documents().unwrap();
    cluster.nodes[0].kill();
    let killed = Instant::now();
    change_all(&publisher, &keys, &truth, few).await;
    // A second until it counts as failed, the vote, and what the loaded machine takes.
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    for believer in &believers {
        believer.converges(&truth).await;
        assert!(*believer.heard.lock().unwrap() > keys.len());
    }
    // The counters are the truth, too, and the old primary comes back as a replica and changes nothing.
    cluster.nodes[0].start_again();
    cluster.settle();
    change_all(&publisher, &keys, &truth, few).await;
    let committed = truth.lock().unwrap().clone();
    for (key, version) in committed {
        until("an answer", async || counter(&documents, &key).await.is_some()).await;
        assert_eq!(counter(&documents, &key).await, Some(Some(version)), "{key}");
    }
    for believer in &believers {
        believer.converges(&truth).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_under_load_loses_nothing_and_tells_nobody() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let cluster = Arc::new(cluster);
    // All in one slot.
    let keys: Vec<String> = (0..20).map(|n| format!("{{m}}{n}")).collect();
    let truth = Truth::default();
    let publisher = open(&cluster, "publisher");
    let mut subscriber = publisher.subscribe("__dataChanged:*").await.unwrap();
    let first = change_all(&publisher, &keys, &truth, || truth.lock().unwrap().len() == keys.len()).await;
    assert_eq!(first, vec![Outcome::Whole; keys.len()]);
    let moving = tokio::task::spawn_blocking({
        let cluster = cluster.clone();
        move || {
            let from = cluster.owner("forecast:{m}0").port();
            let to = cluster.nodes.iter().find(|node| node.port() != from).unwrap();
            cluster.migrate("forecast:{m}0", to, || std::thread::sleep(Duration::from_millis(10)));
        }
    });
    // Reads meanwhile are of the newest version, or of none.
    let documents = publisher.documents().unwrap();
    let reading = tokio::spawn({
        let truth = truth.clone();
        async move {
            let (mut last, mut given) = (0, 0);
            while truth.lock().unwrap()["{m}3"] < 40 {
                if let Ok(Shared::Document { version, .. }) =
                    documents.get("forecast", "{m}3", Duration::from_secs(300)).await
                {
                    assert!(version >= last, "{version} after {last}");
                    (last, given) = (version, given + 1);
                }
                sleep(Duration::from_millis(1)).await;
            }
            given
        }
    });
    let enough = || moving.is_finished() && truth.lock().unwrap()["{m}3"] >= 40;
    let outcomes = change_all(&publisher, &keys, &truth, enough).await;
    moving.await.unwrap();
    assert!(within("reads", reading).await.unwrap() > 0);
    let strange = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Patch | Outcome::Stale)).count();
    assert_eq!(strange, 0, "no counter was unknown or behind for a moment");
    // Every version of every key arrives, in order and once.
    let mut heard: BTreeMap<String, i64> = BTreeMap::new();
    while heard != *truth.lock().unwrap() {
        match next(&mut subscriber).await {
            Delivery::Message { channel, payload } => {
                let key = channel.rsplit(':').next().unwrap().to_owned();
                let version = version_of(&Delivery::Message { channel, payload }).unwrap();
                let before = heard.insert(key, version).unwrap_or_default();
                assert_eq!(version, before + 1);
            }
            Delivery::Lost => panic!("nothing was lost"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_empty_lost_its_own_keys_and_no_other() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let (lost, kept) = (key_at(&cluster, 2, 0), key_at(&cluster, 0, 0));
    let publisher = open(&cluster, "publisher");
    // At the first primary: its own connection stays.
    let mut subscriber = open(&cluster, INSTANCES[0]).subscribe("__dataChanged:*").await.unwrap();
    let both = |version: i64| [&lost, &kept].map(|key| publication(key, version, Some(version - 1)));
    assert_eq!(publish(&publisher, &both(1)).await, [Outcome::Whole, Outcome::Whole]);
    for _ in 0..2 {
        assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
    }
    cluster.nodes[2].restart(Data::Lost);
    cluster.settle();
    assert_eq!(next(&mut subscriber).await, Delivery::Lost, "the heartbeat found it");
    let known = both(2).map(|publication| Publication { known_only: true, ..publication });
    let outcomes = publish(&publisher, &known).await;
    assert_eq!(outcomes[0], Outcome::Unknown, "it has to be read anew");
    assert!(matches!(outcomes[1], Outcome::Patch | Outcome::Stale), "{outcomes:?}");
    assert_eq!(publish(&publisher, &both(2)).await, [Outcome::Whole, Outcome::Stale]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_older_is_trusted_no_more_with_what_it_forgot() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let before = key_at(&cluster, 1, 0);
    let first = key_at(&cluster, 1, before[1..].parse::<usize>().unwrap() + 1);
    let second = key_at(&cluster, 1, first[1..].parse::<usize>().unwrap() + 1);
    let elsewhere = key_at(&cluster, 0, 0);
    let publisher = open(&cluster, "publisher");
    let documents = publisher.documents().unwrap();
    for key in [&before, &first, &second, &elsewhere] {
        publish(&publisher, &[publication(key, 1, None)]).await;
    }
    assert_eq!(cluster.nodes[1].say("SAVE"), "+OK\r\n");
    for key in [&elsewhere, &first, &second] {
        assert_eq!(publish(&publisher, &[publication(key, 2, Some(1))]).await, [Outcome::Patch]);
    }
    cluster.nodes[1].kill();
    cluster.nodes[1].start_again();
    cluster.settle();
    // Nobody publishes: the heartbeat looks at what was written last, and then at all the rest of that node.
    let forgot = async |key| counter(&documents, key).await == Some(None);
    until("distrust", async || forgot(&first).await && forgot(&second).await).await;
    assert_eq!(counter(&documents, &before).await, Some(Some(1)), "it was in the data that came back");
    assert_eq!(counter(&documents, &elsewhere).await, Some(Some(2)));
    let shared = documents.get("forecast", &second, Duration::from_secs(300)).await.unwrap();
    assert_eq!(shared, Shared::Nothing);
    assert_eq!(publish(&publisher, &[publication(&second, 3, Some(2))]).await, [Outcome::Whole]);
    assert_eq!(counter(&documents, &second).await, Some(Some(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_last_message_of_a_slot_is_noticed_by_the_heartbeat() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let publisher = open(&cluster, "publisher");
    let key = key_at(&cluster, 1, 0);
    for instance in INSTANCES {
        let mut subscriber = open(&cluster, instance).subscribe("__dataChanged:*").await.unwrap();
        let version = counter(&publisher.documents().unwrap(), &key).await.unwrap().unwrap_or_default();
        publish(&publisher, &[publication(&key, version + 1, Some(version))]).await;
        assert_eq!(version_of(&next(&mut subscriber).await), Some(version + 1));
        // As if the publisher had sent another that did not arrive.
        let names = cluster.nodes[1].say("KEYS smartpulse:*publisher:publisher:*");
        let sequence = names.lines().find(|line| line.starts_with("smartpulse:")).expect("its sequence").to_owned();
        assert!(cluster.nodes[1].say(&format!("INCR {sequence}")).starts_with(':'));
        let before = Instant::now();
        assert_eq!(next(&mut subscriber).await, Delivery::Lost);
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_from_the_others_is_noticed_and_left() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let publisher = open(&cluster, "publisher");
    let key = key_at(&cluster, 0, 0);
    let mut subscriber = open(&cluster, INSTANCES[2]).subscribe("__dataChanged:production:*").await.unwrap();
    publish(&publisher, &[publication(&key, 1, None)]).await;
    assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
    assert!(cluster.nodes[2].say("CLIENT LIST TYPE pubsub").contains("psub=3"), "it is at this node");
    // It answers, and hears nobody.
    assert_eq!(cluster.nodes[2].say("CLUSTER RESET SOFT"), "+OK\r\n");
    let cut = Instant::now();
    assert_eq!(next(&mut subscriber).await, Delivery::Lost);
    assert!(cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
    assert!(!cluster.nodes[2].say("CLIENT LIST TYPE pubsub").contains("psub=3"), "it is at another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_past_their_day_go_on_every_node() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    let publisher = open(&cluster, "publisher");
    let documents = publisher.documents().unwrap();
    let keys: Vec<Key> = (0..3).map(|node| key_at(&cluster, node, 0).as_str().into()).collect();
    for key in &keys {
        publish(&publisher, &[publication(key, 1, None)]).await;
        assert_eq!(cluster.say(&format!("HSET forecast:{key} expires_at_ms 1000")), ":0\r\n");
    }
    let (mut cursor, mut dropped) = (0, 0);
    loop {
        let (next, gone) = documents.expire("forecast", cursor, 10).await.unwrap();
        (cursor, dropped) = (next, dropped + gone);
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(dropped, 3);
    assert_eq!(documents.counters("forecast", &keys).await.unwrap(), vec![Some(1); 3]);
    // A duty is somebody's in the whole cluster.
    let other = open(&cluster, "other").documents().unwrap();
    assert!(documents.hold_duty("sweep", Duration::from_secs(60)).await.unwrap());
    assert!(!other.hold_duty("sweep", Duration::from_secs(60)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_lacks_and_what_a_cluster_has_not_is_said() {
    let Some(cluster) = RedisCluster::start(0) else { return };
    for node in &cluster.nodes {
        let rights = "~* &* +@read +@write +@pubsub +@scripting +@connection +time";
        assert_eq!(node.say(&format!("ACL SETUSER pulse on nopass {rights}")), "+OK\r\n");
    }
    let port = cluster.nodes[0].port();
    let at = |url: String| RedisPubSub::open(&RedisConfig::at(url), "a").unwrap();
    let one = [publication(&key_at(&cluster, 1, 0), 1, None)];
    let user = at(format!("redis://pulse:any@127.0.0.1:{port}"));
    let error = user.publish(&one).await.unwrap_err();
    assert!(error.chain().contains("needs `+cluster|slots`"), "{error:?}");
    for node in &cluster.nodes {
        assert_eq!(node.say("ACL SETUSER pulse +cluster|slots"), "+OK\r\n");
    }
    assert_eq!(user.publish(&one).await.unwrap(), [Outcome::Whole]);
    let error = at(format!("redis://127.0.0.1:{port}/3")).publish(&one).await.unwrap_err();
    assert!(error.chain().contains("a Redis Cluster has only 0"), "{error:?}");
}
