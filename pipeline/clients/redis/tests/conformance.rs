//! Redis passes the suite that every pub/sub system must pass, and behaves as promised when it goes and comes back.

use async_trait::async_trait;
use bytes::Bytes;
use smartpulse_clients::documents::Shared;
use smartpulse_clients::pubsub::{Delivery, Outcome, PubSub, Publication, SharedPubSub, Subscriber};
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_redis::{RedisConfig, RedisPubSub};
use smartpulse_testing::redis::{Data, RedisServer};
use smartpulse_testing::{FaultProxy, Flow, PubSubFixture, pubsub_suite, until, within};
use std::sync::Arc;
use std::time::{Duration, Instant};

const QUEUE: u32 = 1_000;

fn open(url: String) -> SharedPubSub {
    let config = RedisConfig { queue_messages_max: QUEUE, ..RedisConfig::at(url) };
    Arc::new(RedisPubSub::open(&config, &uuid::Uuid::new_v4().to_string()).unwrap())
}

struct Fixture(RedisServer);

#[async_trait]
impl PubSubFixture for Fixture {
    async fn open(&self) -> SharedPubSub {
        open(self.0.url())
    }

    async fn forget_counters(&self) -> bool {
        assert_eq!(self.0.say("FLUSHALL"), "+OK\r\n");
        true
    }

    fn overflow(&self) -> Option<usize> {
        Some(QUEUE as usize + 10)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_conforms() {
    if RedisServer::start().is_some() {
        pubsub_suite(|| Fixture(RedisServer::start().expect("it was there a moment ago"))).await;
    }
}

fn publication(instance: &str, version: i64, previous: Option<i64>) -> Publication {
    let head = format!("{{\"DataManagerId\":\"{instance}\",\"VersionId\":{version},\"PatchItems\":[");
    let document = format!("{{\"n\":{version}}}");
    let whole = format!("{head}{{\"Op\":\"replace\",\"Path\":\"\",\"Value\":{document}}}]}}");
    let start = whole.rfind(&document).unwrap();
    Publication {
        channel: "__dataChanged:production:forecast:k".into(),
        section: "forecast".into(),
        key: "k".into(),
        version,
        previous_version: previous,
        patch: Bytes::from(format!("{head}]}}")),
        document: Some(start..start + document.len()),
        whole: whole.into(),
        resync: false,
        known_only: false,
    }
}

fn version_of(delivery: &Delivery) -> Option<i64> {
    let Delivery::Message { payload, .. } = delivery else { return None };
    serde_json::from_slice::<serde_json::Value>(payload).unwrap()["VersionId"].as_i64()
}

async fn next(subscriber: &mut Box<dyn Subscriber>) -> Delivery {
    within("a delivery", subscriber.receive(1)).await.unwrap().remove(0)
}

/// Publishes as a sink does: until it succeeds.
async fn publish(pubsub: &SharedPubSub, publication: Publication) -> Outcome {
    within("a publication", async {
        loop {
            match pubsub.publish(std::slice::from_ref(&publication)).await {
                Ok(outcomes) => return outcomes[0],
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_told_and_the_counters_are_what_the_data_is() {
    for (data, outcome) in [(Data::Kept, Outcome::Patch), (Data::Lost, Outcome::Unknown)] {
        let Some(server) = RedisServer::start() else { return };
        let pubsub = open(server.url());
        let mut subscriber = pubsub.subscribe("__dataChanged:production:forecast:*").await.unwrap();
        assert_eq!(publish(&pubsub, publication("a", 1, None)).await, Outcome::Whole);
        assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
        server.stop(data);
        until("an end", async || pubsub.ping().await.is_err()).await;
        assert_eq!(pubsub.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
        let asked = Instant::now();
        for _ in 0..100 {
            assert!(pubsub.publish(&[publication("a", 2, Some(1))]).await.is_err());
        }
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "who asks while it is away does not wait: {:?}",
            asked.elapsed()
        );
        server.start_again();
        // The subscription is there again before anything is said to be lost.
        assert_eq!(next(&mut subscriber).await, Delivery::Lost);
        let second = Publication { known_only: true, ..publication("a", 2, Some(1)) };
        assert_eq!(publish(&pubsub, second).await, outcome, "{data:?}");
        if data == Data::Lost {
            assert_eq!(publish(&pubsub, publication("a", 2, Some(1))).await, Outcome::Whole);
        }
        assert_eq!(version_of(&next(&mut subscriber).await), Some(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_half_open_is_noticed_and_told() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = FaultProxy::to(server.port()).await;
    let behind = open(format!("redis://127.0.0.1:{}", proxy.port()));
    let direct = open(server.url());
    let mut subscriber = behind.subscribe("__dataChanged:production:forecast:*").await.unwrap();
    publish(&direct, publication("a", 1, None)).await;
    assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
    proxy.set(Flow::Frozen);
    let frozen = Instant::now();
    publish(&direct, publication("a", 2, Some(1))).await;
    // Nobody connects anew through a frozen link either; that begins when it is mended.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = within("an answer", behind.ping()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    proxy.set(Flow::Open);
    assert_eq!(next(&mut subscriber).await, Delivery::Lost);
    // 3 s to notice, up to 2 s for a connection that was begun while frozen, 1 s between attempts.
    assert!(frozen.elapsed() < Duration::from_secs(10), "{:?}", frozen.elapsed());
    publish(&direct, publication("a", 3, Some(2))).await;
    assert_eq!(version_of(&next(&mut subscriber).await), Some(3));
    until("an answer", async || behind.ping().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_data_is_told_although_no_connection_broke() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    let mut subscriber = pubsub.subscribe("__dataChanged:production:forecast:*").await.unwrap();
    publish(&pubsub, publication("a", 1, None)).await;
    assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
    // The first heartbeat makes the generation known.
    until("a heartbeat", async || server.say("EXISTS smartpulse:generation").starts_with(":1")).await;
    server.say("FLUSHALL");
    assert_eq!(next(&mut subscriber).await, Delivery::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_last_message_is_noticed_by_the_heartbeat() {
    let Some(server) = RedisServer::start() else { return };
    let instance = uuid::Uuid::new_v4().to_string();
    let pubsub: SharedPubSub = Arc::new(RedisPubSub::open(&RedisConfig::at(server.url()), &instance).unwrap());
    let mut subscriber = pubsub.subscribe("__dataChanged:*").await.unwrap();
    publish(&pubsub, publication(&instance, 1, None)).await;
    assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
    // As if the publisher had sent another that did not arrive.
    let sequence = format!("smartpulse:publisher:{instance}:__dataChanged:production:forecast:");
    assert_eq!(server.say(&format!("INCR {sequence}")), ":2\r\n");
    let before = Instant::now();
    assert_eq!(next(&mut subscriber).await, Delivery::Lost);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_comes_back_older_is_trusted_no_more() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    let documents = pubsub.documents().unwrap();
    let mut subscriber = pubsub.subscribe("__dataChanged:*").await.unwrap();
    let counter = async || documents.counters("forecast", &["k".into()]).await.unwrap()[0];
    let shared = async || documents.get("forecast", "k", Duration::from_secs(300)).await.unwrap();
    assert_eq!(publish(&pubsub, publication("a", 1, None)).await, Outcome::Whole);
    assert_eq!(server.say("SAVE"), "+OK\r\n");
    for version in 2..=3 {
        assert_eq!(publish(&pubsub, publication("a", version, Some(version - 1))).await, Outcome::Patch);
    }
    for version in 1..=3 {
        assert_eq!(version_of(&next(&mut subscriber).await), Some(version));
    }
    assert_eq!(counter().await, Some(3));
    // Killed between two saves.
    server.kill();
    server.start_again();
    assert_eq!(next(&mut subscriber).await, Delivery::Lost, "the connection");
    until("an answer", async || pubsub.ping().await.is_ok()).await;
    assert!(server.say("HGET forecast:k VersionId:latest").contains("\r\n1\r\n"), "it is older");
    let fourth = Publication { known_only: true, ..publication("a", 4, Some(3)) };
    assert_eq!(publish(&pubsub, fourth).await, Outcome::Unknown, "the key has to be read anew");
    assert_eq!((counter().await, shared().await), (None, Shared::Nothing));
    // A version that the old counter would have let pass as the next one.
    let document = Bytes::from_static(b"{\"n\":1}");
    assert!(!documents.fill("forecast", "k", 1, &document).await.unwrap(), "a fill trusts no old counter either");
    assert_eq!(next(&mut subscriber).await, Delivery::Lost, "the heartbeat names another generation");
    assert_eq!(publish(&pubsub, publication("a", 4, Some(3))).await, Outcome::Whole);
    assert_eq!(counter().await, Some(4));
    assert_eq!(shared().await, Shared::Document { version: 4, document: Bytes::from_static(b"{\"n\":4}") });
    assert_eq!(version_of(&next(&mut subscriber).await), Some(4));
    // Nobody publishes: the heartbeat alone notices it.
    assert_eq!(server.say("SAVE"), "+OK\r\n");
    assert_eq!(publish(&pubsub, publication("a", 5, Some(4))).await, Outcome::Patch);
    server.kill();
    server.start_again();
    until("distrust", async || documents.counters("forecast", &["k".into()]).await.ok() == Some(vec![None])).await;
    assert_eq!(shared().await, Shared::Nothing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_written_all_the_time_does_not_expire() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    publish(&pubsub, publication("a", 1, None)).await;
    let left = || server.say("TTL forecast:k").trim_start_matches(':').trim().parse::<i64>().unwrap();
    let fresh = left();
    // Two hours later, with a document that was filled a moment ago.
    server.say("HINCRBY forecast:k kept_until_ms -7200000");
    server.say("EXPIRE forecast:k 100");
    let document = Bytes::from_static(b"{\"n\":1}");
    assert!(pubsub.documents().unwrap().fill("forecast", "k", 1, &document).await.unwrap());
    publish(&pubsub, publication("a", 2, Some(1))).await;
    assert!(left() > 7 * 24 * 3600 && left() >= fresh - 60, "{} s are left of {fresh}", left());
    // Renewed rarely: not with every write.
    server.say("EXPIRE forecast:k 100");
    publish(&pubsub, publication("a", 3, Some(2))).await;
    assert!(left() <= 100, "{} s are left", left());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_left_and_looked_up_again() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    publish(&pubsub, publication("a", 1, None)).await;
    let publishing = || {
        let clients = server.say("CLIENT LIST TYPE normal");
        let line = clients.lines().find(|line| line.contains("cmd=evalsha")).map(str::to_owned);
        line.and_then(|line| line.split(' ').find(|word| word.starts_with("id=")).map(str::to_owned))
    };
    let before = publishing().expect("a connection that publishes");
    assert_eq!(server.say("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    let error = pubsub.publish(&[publication("a", 2, Some(1))]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.chain().contains("replica"), "{error:?}");
    let gone = async {
        while server.say("CLIENT LIST TYPE normal").contains(&format!("{before} ")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the end of that connection", gone).await;
    assert_eq!(server.say("REPLICAOF NO ONE"), "+OK\r\n");
    assert_eq!(publish(&pubsub, publication("a", 2, Some(1))).await, Outcome::Patch, "nobody heard of it before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_refuses_before_anybody_hears_of_anything() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    let mut subscriber = pubsub.subscribe("__dataChanged:*").await.unwrap();
    publish(&pubsub, publication("a", 1, None)).await;
    assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
    assert_eq!(server.say("CONFIG SET maxmemory 1"), "+OK\r\n");
    let error = pubsub.publish(&[publication("a", 2, Some(1))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(server.say("CONFIG SET maxmemory 0"), "+OK\r\n");
    assert_eq!(publish(&pubsub, publication("a", 2, Some(1))).await, Outcome::Patch);
    assert_eq!(publish(&pubsub, publication("a", 3, Some(2))).await, Outcome::Patch);
    for version in 2..=3 {
        assert_eq!(version_of(&next(&mut subscriber).await), Some(version), "once, and with nothing between");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_survives_a_server_that_forgets_its_scripts() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    let batch = |from: i64| -> Vec<Publication> {
        (from..from + 200).map(|version| publication("a", version, Some(version - 1))).collect()
    };
    for from in [1, 201] {
        assert_eq!(server.say("SCRIPT FLUSH"), "+OK\r\n");
        let outcomes = pubsub.publish(&batch(from)).await.unwrap();
        let first = if from == 1 { Outcome::Whole } else { Outcome::Patch };
        assert_eq!((outcomes.len(), outcomes[0]), (200, first));
        assert!(outcomes[1..].iter().all(|outcome| *outcome == Outcome::Patch), "{outcomes:?}");
    }
    assert!(pubsub.publish(&[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_past_their_day_go_and_counters_stay() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    let documents = pubsub.documents().unwrap();
    publish(&pubsub, publication("a", 1, None)).await;
    let all = async || documents.expire("forecast", 0, 1_000).await.unwrap();
    assert_eq!(all().await, (0, 0), "it is young");
    server.say("HSET forecast:k expires_at_ms 1000");
    server.say("HSET unit:k VersionId:latest 1 VersionId:json 1 json {} expires_at_ms 1000");
    assert_eq!(all().await, (0, 1), "and no other section's");
    assert_eq!(all().await, (0, 0));
    assert_eq!(server.say("HEXISTS forecast:k json"), ":0\r\n");
    assert_eq!(documents.counters("forecast", &["k".into()]).await.unwrap(), [Some(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_channels_is_told_and_what_was_not_sent_is_not_counted() {
    let Some(server) = RedisServer::start() else { return };
    assert_eq!(server.say("ACL SETUSER pulse on nopass ~* +@all"), "+OK\r\n");
    let pubsub = open(format!("redis://pulse:any@127.0.0.1:{}", server.port()));
    let error = pubsub.publish(&[publication("a", 1, None)]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.chain().contains("needs `~* &*"), "{error:?}");
    assert_eq!(server.say("EXISTS forecast:k"), ":0\r\n");
    assert_eq!(server.say("ACL SETUSER pulse &*"), "+OK\r\n");
    assert_eq!(publish(&pubsub, publication("a", 1, None)).await, Outcome::Whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_and_an_acl_user_are_used_and_named_when_wrong() {
    let Some(server) = RedisServer::start_with(&["--requirepass", "topsecret"]) else { return };
    let config =
        RedisConfig { password: Some(smartpulse_config::Secret::new("topsecret")), ..RedisConfig::at(server.url()) };
    RedisPubSub::open(&config, "a").unwrap().ping().await.unwrap();
    let error = open(server.url()).ping().await.unwrap_err();
    assert!(error.chain().contains("check the user in `url` and `password`"), "{error:?}");
    let admin = RedisPubSub::open(&config, "a").unwrap();
    admin.ping().await.unwrap();
    let client = redis::Client::open(format!("redis://:topsecret@127.0.0.1:{}", server.port())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "pulse",
            "on",
            ">word",
            "~*",
            "&*",
            "+@read",
            "+@write",
            "+@pubsub",
            "+@scripting",
            "+@connection",
            "+time",
        ])
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    let url = format!("redis://pulse@127.0.0.1:{}", server.port());
    let user = RedisConfig { password: Some(smartpulse_config::Secret::new("word")), ..RedisConfig::at(url) };
    let user: SharedPubSub = Arc::new(RedisPubSub::open(&user, "b").unwrap());
    user.ping().await.unwrap();
    let _subscriber = user.subscribe("__dataChanged:*").await.unwrap();
    assert_eq!(publish(&user, publication("b", 1, None)).await, Outcome::Whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_that_is_whole_is_sent_once_and_arrives_as_it_is() {
    let Some(server) = RedisServer::start() else { return };
    let pubsub = open(server.url());
    let mut subscriber = pubsub.subscribe("__dataChanged:*").await.unwrap();
    let whole = |version, previous| {
        let publication = publication("a", version, previous);
        Publication { patch: publication.whole.clone(), ..publication }
    };
    assert_eq!(publish(&pubsub, whole(1, None)).await, Outcome::Whole);
    assert_eq!(publish(&pubsub, whole(2, Some(1))).await, Outcome::Patch);
    for version in [1, 2] {
        let Delivery::Message { payload, .. } = next(&mut subscriber).await else { panic!("a message") };
        let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(message["PatchItems"][0]["Value"]["n"], version, "{message}");
        assert_eq!(message["PublisherSeq"], version);
    }
    assert!(server.say("HGET forecast:k json").contains("{\"n\":2}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &path("key.pem"), "-out", &path("cert.pem")])
        .stderr(std::process::Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "not skipped: `openssl` cannot make a certificate here");
        eprintln!("skipped: `openssl` cannot make a certificate here");
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (tls_port, key, cert) = (port.to_string(), path("key.pem"), path("cert.pem"));
    let arguments = ["--tls-port", &tls_port, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let arguments = [&arguments[..], &["--tls-ca-cert-file", &cert, "--tls-auth-clients", "no"]].concat();
    let Some(_server) = RedisServer::start_with(&arguments) else { return };
    let trusting = |host: &str| RedisConfig {
        ca_file: Some(folder.path().join("cert.pem")),
        ..RedisConfig::at(format!("rediss://{host}:{port}"))
    };
    let pubsub: SharedPubSub = Arc::new(RedisPubSub::open(&trusting("localhost"), "a").unwrap());
    pubsub.ping().await.unwrap();
    let mut subscriber = pubsub.subscribe("__dataChanged:*").await.unwrap();
    publish(&pubsub, publication("a", 1, None)).await;
    assert_eq!(version_of(&next(&mut subscriber).await), Some(1));
    // Another name than the certificate's, and a certificate that nobody vouches for.
    let stranger = RedisConfig::at(format!("rediss://localhost:{port}"));
    for wrong in [trusting("127.0.0.1"), stranger] {
        let error = RedisPubSub::open(&wrong, "a").unwrap().ping().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
}
