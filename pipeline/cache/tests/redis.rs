//! The cache in front of a real Redis, a single server and a cluster: the tiers, what happens while Redis is away, and the races of RELIABILITY.md that
//! shared documents take part in.

mod support;

use bytes::Bytes;
use serde_json::{Value, json};
use smartpulse_cache::{Applied, Auditor, Cache, CacheConfig, Change, Invalidation, Level, SharedConfig, Sweep};
use smartpulse_clients::database::{Row, Write};
use smartpulse_clients::pubsub::{Delivery, Outcome, Publication, Publisher, SharedPubSub};
use smartpulse_json::Document;
use smartpulse_redis::{RedisConfig, RedisPubSub};
use smartpulse_testing::redis::Data;
use smartpulse_testing::{RedisCluster, until, within};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::MemoryDatabase;

/// A database and a Redis of one kind, with as many caches in front of them as a test makes.
struct World {
    server: RedisCluster,
    pubsub: SharedPubSub,
    publisher: Publisher,
    database: Arc<MemoryDatabase>,
}

impl World {
    /// One of each kind, one after the other.
    fn each() -> impl Iterator<Item = Self> {
        [RedisCluster::single, || RedisCluster::start(0)].into_iter().filter_map(|start| Some(Self::of(start()?)))
    }

    fn of(server: RedisCluster) -> Self {
        let pubsub: SharedPubSub = Arc::new(RedisPubSub::open(&RedisConfig::at(server.url()), "sync").unwrap());
        let publisher =
            Publisher { instance: "sync".into(), partition: "production".into(), section: "forecast".into() };
        Self { server, pubsub, publisher, database: MemoryDatabase::new() }
    }

    fn cache(&self) -> Cache {
        let documents = self.pubsub.documents().unwrap();
        let config = CacheConfig {
            shared: Some(SharedConfig { documents, age_max: Duration::from_secs(300) }),
            tier_timeout: Duration::from_millis(500),
            probe_interval: Duration::from_millis(100),
            ..CacheConfig::default()
        };
        Cache::new(config, self.database.shared(), &prometheus::Registry::new()).unwrap()
    }

    /// What the sync stage does with a row: whole, or as the change after `previous`.
    async fn publish(&self, row: &Row, previous: Option<i64>) -> Outcome {
        self.pubsub.publish(&[self.publication(row, previous)]).await.unwrap()[0]
    }

    fn publication(&self, row: &Row, previous: Option<i64>) -> Publication {
        let document = Document::parse(row.document.clone()).unwrap();
        let channel = self.publisher.channel(&row.key);
        let whole = self.publisher.whole(channel, &row.key, row.version, Some(&document));
        Publication { previous_version: previous, ..whole }
    }

    async fn publish_delete(&self, version: i64) -> Outcome {
        let whole = self.publisher.whole("__dataChanged:production:forecast:k".into(), &"k".into(), version, None);
        self.pubsub.publish(&[whole]).await.unwrap()[0]
    }

    fn field(&self, field: &str) -> String {
        self.server.say(&format!("HGET forecast:k {field}")).lines().nth(1).unwrap_or_default().to_owned()
    }

    fn database_reads(&self) -> usize {
        self.database.gets.load(Ordering::Relaxed)
    }
}

async fn read(cache: &Cache) -> Option<(i64, Level)> {
    cache.get("k").await.unwrap().map(|hit| (hit.version, hit.level))
}

fn patch(version: i64, demand: i64) -> Change {
    let items = json!([{"Op": "replace", "Path": "/demand", "Value": demand},
        {"Op": "replace", "Path": "/versionId", "Value": version}]);
    Change {
        key: "k".into(),
        version,
        previous_version: Some(version - 1),
        items: Bytes::from(items.to_string()),
        whole: false,
        commit_time: None,
    }
}

fn invalidation(version: i64) -> Invalidation {
    Invalidation { entity: Some(("k".into(), version)), tags: vec!["company:a".into()] }
}

fn write(demand: i64) -> Write {
    let Value::Object(members) = json!({ "demand": demand }) else { unreachable!() };
    Write::Update { key: "k".into(), expected_version: None, members }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_walks_the_tiers_and_one_instance_s_load_serves_the_others() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        let (a, b, c) = (world.cache(), world.cache(), world.cache());
        // No counter: nothing may be shared yet.
        assert_eq!(read(&a).await, Some((1, Level::L4)));
        assert_eq!(read(&b).await, Some((1, Level::L4)));
        assert_eq!(world.publish(&row, None).await, Outcome::Whole);
        assert_eq!(read(&c).await, Some((1, Level::L3)));
        assert_eq!(read(&c).await, Some((1, Level::L1)));
        // The document goes, the counter stays: the next load shares it again.
        world.server.say("HDEL forecast:k json");
        assert_eq!(read(&world.cache()).await, Some((1, Level::L4)));
        assert_eq!(read(&world.cache()).await, Some((1, Level::L3)));
        assert_eq!(world.cache().reload("k").await.unwrap().unwrap().level, Level::L4);
        let text = c.get("k").await.unwrap().unwrap().document;
        assert_eq!(text.bytes(), &row.document, "the same bytes from every tier");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_reads_cost_one_time_out_and_go_on_and_recover() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        let cache = world.cache();
        assert_eq!(read(&cache).await, Some((1, Level::L3)));
        world.server.freeze(true);
        cache.lost();
        let start = Instant::now();
        assert_eq!(read(&cache).await, Some((1, Level::L4)));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // All but the probes, ten in a second, cost nothing.
        let start = Instant::now();
        for _ in 0..50 {
            cache.lost();
            assert_eq!(read(&cache).await, Some((1, Level::L4)));
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        world.server.freeze(false);
        let recovered = async || {
            cache.lost();
            read(&cache).await == Some((1, Level::L3))
        };
        until("recovery without a restart", recovered).await;
        world.server.restart(Data::Lost);
        cache.lost();
        assert_eq!(read(&cache).await, Some((1, Level::L4)), "no counter, no document");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_1_a_fill_or_a_write_ahead_of_the_sync_stage_moves_no_counter_and_hides_no_change() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        let (writer, reader) = (world.cache(), world.cache());
        writer.write(write(2)).await.unwrap();
        assert_eq!(read(&writer).await, Some((2, Level::L1)), "the writer reads his own write");
        until("a note", async || world.field("VersionId:noted") == "2").await;
        // Another instance is not given what the writer made old, and its fill is refused.
        assert_eq!(read(&reader).await, Some((2, Level::L4)));
        assert_eq!(world.field("VersionId:latest"), "1");
        assert_eq!(world.field("json"), "");
        // 2 is still published, as the change after 1.
        let row = world.database.row("k").unwrap();
        assert_eq!(world.publish(&row, Some(1)).await, Outcome::Patch);
        assert_eq!(world.field("VersionId:latest"), "2");
        assert_eq!(read(&world.cache()).await, Some((2, Level::L3)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_4_a_late_invalidation_leaves_what_is_at_its_version_in_every_tier() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        let cache = world.cache();
        assert_eq!(read(&cache).await, Some((1, Level::L3)));
        let row = world.database.set("k", json!({"demand": 2}));
        world.publish(&row, Some(1)).await;
        assert_eq!(cache.apply(&patch(2, 2)), Applied::Patched);
        let reads = world.database_reads();
        cache.evict_older(&invalidation(2));
        assert_eq!(read(&cache).await, Some((2, Level::L1)));
        assert_eq!(read(&world.cache()).await, Some((2, Level::L3)));
        assert_eq!(world.database_reads(), reads);
        // One that is ahead of the counter takes the shared document away, but not the counter.
        world.database.set("k", json!({"demand": 3}));
        cache.evict_older(&invalidation(3));
        until("a note", async || world.field("VersionId:noted") == "3").await;
        assert_eq!((world.field("VersionId:latest"), world.field("json")), ("2".to_owned(), String::new()));
        assert_eq!(read(&world.cache()).await, Some((3, Level::L4)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_5_a_load_that_a_patch_overtakes_is_repeated_and_shares_nothing_old() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        world.server.say("HDEL forecast:k json");
        let cache = world.cache();
        world.database.hold_answers(true);
        let reading = tokio::spawn({
            let cache = cache.clone();
            async move { read(&cache).await }
        });
        let loaded = within("a load", async {
            loop {
                if let Some(held) = world.database.take_held().pop() {
                    return held;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let row = world.database.set("k", json!({"demand": 2}));
        assert_eq!(world.publish(&row, Some(1)).await, Outcome::Patch);
        assert_eq!(cache.apply(&patch(2, 2)), Applied::Absent);
        world.database.hold_answers(false);
        loaded.release();
        assert_eq!(reading.await.unwrap(), Some((2, Level::L4)));
        assert_eq!((world.field("VersionId:latest"), world.field("VersionId:json")), ("2".to_owned(), "2".to_owned()));
        assert_eq!(read(&world.cache()).await, Some((2, Level::L3)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_6_delete_recreate_delete_is_told_from_the_shared_hash_alone() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        assert_eq!(world.publish_delete(2).await, Outcome::Whole);
        let cache = world.cache();
        assert_eq!(read(&cache).await, None);
        assert_eq!(cache.held_version("k"), Some(2));
        assert_eq!(world.publish(&Row { version: 3, ..row.clone() }, Some(2)).await, Outcome::Patch);
        assert_eq!(world.publish(&Row { version: 1, ..row.clone() }, None).await, Outcome::Stale);
        assert_eq!(read(&cache).await.map(|(version, _)| version), Some(3));
        assert_eq!(world.publish_delete(4).await, Outcome::Whole);
        assert_eq!(world.publish(&Row { version: 3, ..row }, Some(2)).await, Outcome::Stale);
        assert_eq!(read(&world.cache()).await, None);
        assert_eq!(world.database_reads(), 0, "Redis knew it all");
        assert_eq!((world.field("tombstone"), world.field("VersionId:latest")), ("1".to_owned(), "4".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_8_the_audit_publishes_a_last_version_that_went_to_the_dead_letters() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        world.database.set("k", json!({"demand": 2}));
        let cache = world.cache();
        let mut subscriber = world.pubsub.subscribe("__dataChanged:*").await.unwrap();
        let mut auditor = Auditor::new(world.pubsub.clone(), world.publisher.clone());
        assert_eq!(auditor.look(&cache).await.unwrap(), 0, "once may be only late");
        assert_eq!(auditor.look(&cache).await.unwrap(), 1);
        let delivery = within("the repair", subscriber.receive(1)).await.unwrap().remove(0);
        let Delivery::Message { payload, .. } = delivery else { panic!("{delivery:?}") };
        let message: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((&message["VersionId"], &message["PatchItems"][0]["Value"]["demand"]), (&json!(2), &json!(2)));
        assert_eq!(world.field("VersionId:latest"), "2");
        // Neither does it repair what is in order, nor does another instance audit at the same time.
        for _ in 0..3 {
            assert_eq!(auditor.look(&cache).await.unwrap(), 0);
        }
        // A delete that nobody published.
        world.database.delete("k");
        let mut repaired = 0;
        for _ in 0..4 {
            repaired += auditor.look(&cache).await.unwrap();
        }
        assert_eq!((repaired, world.field("tombstone")), (1, "1".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn race_8_a_row_that_nobody_can_read_hides_no_other_from_the_audit() {
    for world in World::each() {
        for key in ["a", "b"] {
            let row = world.database.set(key, json!({"demand": 1}));
            world.publish(&row, None).await;
            world.database.set(key, json!({"demand": 2}));
        }
        let cache = world.cache();
        let mut auditor = Auditor::new(world.pubsub.clone(), world.publisher.clone());
        assert_eq!(auditor.look(&cache).await.unwrap(), 0);
        world.database.make_unreadable("a");
        // Tombstones and rows in turn.
        assert_eq!(auditor.look(&cache).await.unwrap(), 1, "the other one");
        let counter = |key: &str| world.server.say(&format!("HGET forecast:{key} VersionId:latest"));
        assert_eq!((counter("a"), counter("b")), ("$1\r\n1\r\n".to_owned(), "$1\r\n2\r\n".to_owned()));
        for _ in 0..4 {
            assert_eq!(auditor.look(&cache).await.unwrap(), 0, "it goes on, and passes over what cannot be read");
        }
        // Two changes are on their way: the counter moves between two looks.
        let rows: Vec<Row> = (3..=4).map(|demand| world.database.set("b", json!({ "demand": demand }))).collect();
        assert_eq!(auditor.look(&cache).await.unwrap(), 0);
        world.publish(&rows[0], Some(2)).await;
        assert_eq!(auditor.look(&cache).await.unwrap(), 0, "late, and not lost");
        assert_eq!(counter("b"), "$1\r\n3\r\n");
        let mut repaired = 0;
        for _ in 0..2 {
            repaired += auditor.look(&cache).await.unwrap();
        }
        assert_eq!((repaired, counter("b")), (1, "$1\r\n4\r\n".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_redis_holds_that_came_back_older_is_given_to_nobody() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        world.server.save();
        let row = world.database.set("k", json!({"demand": 2}));
        world.publish(&row, Some(1)).await;
        // Killed between two saves. Nobody publishes, and an instance starts that knows nothing.
        world.server.kill();
        world.server.start_again();
        let documents = world.pubsub.documents().unwrap();
        within("distrust", async {
            while documents.counters("forecast", &["k".into()]).await.ok() != Some(vec![None]) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(read(&world.cache()).await, Some((2, Level::L4)));
        // The next event is whole, and the key is shared again.
        let row = world.database.set("k", json!({"demand": 3}));
        let third = [world.publication(&row, Some(2))];
        let outcomes = within("a publication", async {
            loop {
                match world.pubsub.publish(&third).await {
                    Ok(outcomes) => return outcomes,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        assert_eq!(outcomes, [Outcome::Whole]);
        assert_eq!(read(&world.cache()).await, Some((3, Level::L3)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_passes_over_deletes_which_nobody_is_given() {
    for world in World::each() {
        world.publish_delete(2).await;
        let cache = world.cache();
        assert_eq!(read(&cache).await, None);
        assert_eq!(cache.held_version("k"), Some(2));
        // Re-created and deleted, unheard of.
        world.publish_delete(4).await;
        let mut sweep = Sweep::default();
        for _ in 0..3 {
            assert_eq!(sweep.look(&cache).await.unwrap(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_goes_on_where_it_was_when_redis_was_away() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        let cache = world.cache();
        read(&cache).await;
        let row = world.database.set("k", json!({"demand": 2}));
        world.publish(&row, Some(1)).await;
        let mut sweep = Sweep::default();
        assert_eq!(sweep.look(&cache).await.unwrap(), 0, "once may be only late");
        world.server.stop(Data::Kept);
        sweep.look(&cache).await.unwrap_err();
        world.server.start_again();
        let repaired = within("an answer", async {
            loop {
                match sweep.look(&cache).await {
                    Ok(repaired) => return repaired,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        assert_eq!(repaired, 1, "what lagged before is not forgotten");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_repairs_what_lagged_twice_and_nothing_else() {
    for world in World::each() {
        let row = world.database.set("k", json!({"demand": 1}));
        world.publish(&row, None).await;
        let cache = world.cache();
        read(&cache).await;
        let mut sweep = Sweep::default();
        assert_eq!(sweep.look(&cache).await.unwrap(), 0);
        let row = world.database.set("k", json!({"demand": 2}));
        world.publish(&row, Some(1)).await;
        assert_eq!(sweep.look(&cache).await.unwrap(), 0, "once may be only late");
        assert_eq!(sweep.look(&cache).await.unwrap(), 1);
        until("the repair", async || cache.held_version("k") == Some(2)).await;
        assert_eq!(sweep.look(&cache).await.unwrap(), 0);
        assert_eq!(read(&cache).await.map(|(version, _)| version), Some(2));
    }
}
