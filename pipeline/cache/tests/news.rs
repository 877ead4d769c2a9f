//! What is told to who derives state from the cache. Time is paused.

mod support;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use smartpulse_cache::{Cache, CacheConfig, Change, Follower, Invalidation, News};
use smartpulse_clients::database::Write;
use std::sync::Arc;
use std::time::Duration;
use support::MemoryDatabase;

fn cache(database: &Arc<MemoryDatabase>, registry: &prometheus::Registry) -> Cache {
    Cache::new(CacheConfig::default(), database.shared(), registry).unwrap()
}

const PATCH: &str = r#"[{"Op":"replace","Path":"/demand","Value":7}]"#;
const WHOLE: &str = r#"[{"Op":"replace","Path":"","Value":{"demand":8}}]"#;
const REMOVAL: &str = r#"[{"Op":"remove","Path":""}]"#;

fn change(version: i64, items: &'static str) -> Change {
    Change {
        key: "k".into(),
        version,
        previous_version: Some(version - 1),
        items: Bytes::from_static(items.as_bytes()),
        whole: items != PATCH,
        commit_time: None,
    }
}

fn members(members: &Value) -> Map<String, Value> {
    members.as_object().unwrap().clone()
}

/// The version, and whether there is a document; `None` for a loss.
async fn next(follower: &mut Follower) -> Option<(i64, bool)> {
    match follower.next().await {
        News::Changed { version, .. } => Some((version, true)),
        News::Deleted { version, .. } => Some((version, false)),
        News::Lost => None,
    }
}

async fn is_silent(follower: &mut Follower) -> bool {
    tokio::time::timeout(Duration::from_secs(1), follower.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn changes_own_writes_and_loads_are_told_once_with_what_is_held() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database, &prometheus::Registry::new());
    let mut follower = cache.follow();
    cache.get("k").await.unwrap();
    assert!(is_silent(&mut follower).await, "a first read changes nothing");
    database.set("k", json!({"demand": 7}));
    cache.apply(&change(2, PATCH));
    let News::Changed { key, version, document } = follower.next().await else { panic!("a document") };
    assert_eq!((&*key, version), ("k", 2));
    assert_eq!(serde_json::from_slice::<Value>(&document).unwrap()["demand"], 7);
    let write = Write::Update { key: "k".into(), expected_version: None, members: members(&json!({"demand": 3})) };
    cache.write(write).await.unwrap();
    assert_eq!(next(&mut follower).await, Some((3, true)), "an own write");
    cache.apply(&change(3, PATCH));
    assert!(is_silent(&mut follower).await, "its own broadcast");
    database.set("k", json!({"demand": 4}));
    cache.reload("k").await.unwrap();
    assert_eq!(next(&mut follower).await, Some((4, true)), "a load that found something newer");
    cache.reload("k").await.unwrap();
    assert!(is_silent(&mut follower).await, "and one that did not");
    cache.write(Write::Delete { key: "k".into(), expected_version: None }).await.unwrap();
    assert_eq!(next(&mut follower).await, Some((5, false)));
    database.set("k", json!({"demand": 6}));
    cache.get("k").await.unwrap();
    assert_eq!(next(&mut follower).await, Some((6, true)));
    cache.write(Write::Insert { members: members(&json!({"id": "new"})) }).await.unwrap();
    assert_eq!(next(&mut follower).await, Some((1, true)), "of a key that was not held");
}

#[tokio::test(start_paused = true)]
async fn versions_never_go_back_and_news_are_no_reads() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let registry = prometheus::Registry::new();
    let cache = cache(&database, &registry);
    cache.get("k").await.unwrap();
    let mut follower = cache.follow();
    let hits = || {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| line.starts_with("cache_hits_total")).collect::<String>()
    };
    let before = hits();
    for (version, items) in [(2, PATCH), (3, REMOVAL), (4, WHOLE)] {
        cache.apply(&change(version, items));
    }
    assert_eq!(next(&mut follower).await, Some((4, true)), "the newest, for all three");
    assert!(is_silent(&mut follower).await);
    cache.apply(&change(5, REMOVAL));
    assert_eq!(next(&mut follower).await, Some((5, false)));
    assert_eq!(hits(), before);
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_told_though_an_invalidation_has_promised_a_later_version() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database, &prometheus::Registry::new());
    cache.get("k").await.unwrap();
    let mut follower = cache.follow();
    cache.evict_older(&Invalidation { entity: Some(("k".into(), 4)), tags: Vec::new() });
    cache.apply(&change(2, REMOVAL));
    assert_eq!(next(&mut follower).await, Some((3, false)), "version 4 re-creates it");
}

#[tokio::test(start_paused = true)]
async fn losses_are_told_in_their_place() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database, &prometheus::Registry::new());
    cache.get("k").await.unwrap();
    let mut follower = cache.follow();
    cache.apply(&change(2, PATCH));
    cache.lost();
    assert_eq!(next(&mut follower).await, Some((2, true)));
    assert_eq!(next(&mut follower).await, None);
    // Who does not keep up is told so, and goes on with the newest.
    for version in 3..10_000 {
        cache.apply(&change(version, WHOLE));
    }
    assert_eq!(next(&mut follower).await, None);
    assert_eq!(next(&mut follower).await, Some((9_999, true)));
    assert!(is_silent(&mut follower).await);
}
