//! Tiers: who answers, for how long, and what happens when one is away. Time is paused.

mod support;

use bytes::Bytes;
use serde_json::json;
use smartpulse_cache::{Applied, Cache, CacheConfig, Change, Level};
use smartpulse_clients::database::{ForecastQuery, Write};
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_pipeline::{Key, Timestamp};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{MemoryDatabase, Mode};
use tokio::time::{Instant, advance};

fn cache(database: &Arc<MemoryDatabase>) -> Cache {
    Cache::new(CacheConfig::default(), database.shared(), &prometheus::Registry::new()).unwrap()
}

async fn level(cache: &Cache, key: &str) -> Option<(i64, Level, bool)> {
    cache.get(key).await.unwrap().map(|hit| (hit.version, hit.level, hit.stale))
}

fn query() -> ForecastQuery {
    ForecastQuery { take: 20, ..ForecastQuery::default() }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_readers_of_one_key_cost_one_load_and_so_do_readers_of_no_row() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    for (key, found) in [("k", true), ("absent", false)] {
        database.gets.store(0, Ordering::Relaxed);
        database.hold_answers(true);
        let readers: Vec<_> = (0..100)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.get(key).await.unwrap() })
            })
            .collect();
        database.next_held().await.release();
        for reader in readers {
            assert_eq!(reader.await.unwrap().is_some(), found);
        }
        database.hold_answers(false);
        assert_eq!(database.gets.load(Ordering::Relaxed), 1);
    }
    // That there is no row is not remembered.
    assert_eq!(cache.get("absent").await.unwrap(), None);
    assert_eq!(database.gets.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_load_goes_on_when_its_first_reader_leaves() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    database.hold_answers(true);
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get("k").await }
    });
    let held = database.next_held().await;
    first.abort();
    let second = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get("k").await }
    });
    held.release();
    assert_eq!(second.await.unwrap().unwrap().unwrap().version, 1);
    assert_eq!(database.gets.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_document_expires_a_patch_renews_it() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    assert_eq!(level(&cache, "k").await, Some((1, Level::L4, false)));
    advance(Duration::from_secs(59)).await;
    assert_eq!(level(&cache, "k").await, Some((1, Level::L1, false)));
    let items = Bytes::from_static(br#"[{"Op":"replace","Path":"/demand","Value":2}]"#);
    database.set("k", json!({"demand": 2}));
    let change =
        Change { key: "k".into(), version: 2, previous_version: Some(1), items, whole: false, commit_time: None };
    assert_eq!(cache.apply(&change), Applied::Patched);
    advance(Duration::from_secs(59)).await;
    assert_eq!(level(&cache, "k").await, Some((2, Level::L1, false)));
    advance(Duration::from_secs(1)).await;
    assert_eq!(level(&cache, "k").await, Some((2, Level::L4, false)));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_vanished_unheard_of_is_noticed_at_expiry_and_stays_gone() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    level(&cache, "k").await;
    database.delete("k");
    advance(Duration::from_secs(60)).await;
    assert_eq!(level(&cache, "k").await, None);
    let items = Bytes::from_static(br#"[{"Op":"add","Path":"","Value":{"demand":1}}]"#);
    let late = Change { key: "k".into(), version: 1, previous_version: None, items, whole: true, commit_time: None };
    assert_eq!(cache.apply(&late), Applied::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_silent_database_costs_one_time_out_then_none_until_it_recovers() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    level(&cache, "k").await;
    cache.list(query()).await.unwrap();
    advance(Duration::from_secs(60)).await;
    database.set_mode(Mode::Silent);

    let start = Instant::now();
    assert_eq!(level(&cache, "k").await, Some((1, Level::L1, true)), "stale, marked");
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert!(cache.is_database_skipped());

    let start = Instant::now();
    assert_eq!(level(&cache, "k").await, Some((1, Level::L1, true)));
    let list = cache.list(query()).await.unwrap();
    assert_eq!((list.level, list.stale), (Level::L2, true));
    assert_eq!(cache.get("other").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let update = Write::Update { key: "k".into(), expected_version: None, members: serde_json::Map::new() };
    assert_eq!(cache.write(update).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(start.elapsed(), Duration::ZERO, "skipped at once");

    database.set_mode(Mode::Up);
    advance(Duration::from_secs(1)).await;
    assert_eq!(level(&cache, "k").await, Some((1, Level::L4, false)), "the probe");
    assert!(!cache.is_database_skipped());
    assert!(!cache.list(query()).await.unwrap().stale);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_write_needs_no_reader_to_go_before_it() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    let write = |demand: i64| {
        let members = json!({ "demand": demand }).as_object().unwrap().clone();
        cache.write(Write::Update { key: "k".into(), expected_version: None, members })
    };
    database.set_mode(Mode::Away);
    assert_eq!(cache.get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(cache.is_database_skipped());
    database.set_mode(Mode::Up);
    assert_eq!(write(2).await.unwrap_err().kind(), ErrorKind::Unavailable, "it is not due to be asked");
    advance(CacheConfig::default().probe_interval).await;
    write(3).await.unwrap();
    assert_eq!(level(&cache, "k").await, Some((2, Level::L1, false)));
}

#[tokio::test(start_paused = true)]
async fn a_held_copy_is_not_served_for_ever_without_the_database() {
    let database = MemoryDatabase::new();
    let config = CacheConfig { l1_ttl: Duration::ZERO, stale_grace: Duration::ZERO, ..CacheConfig::default() };
    let cache = Cache::new(config, database.shared(), &prometheus::Registry::new()).unwrap();
    database.set("k", json!({"demand": 1}));
    level(&cache, "k").await;
    database.set_mode(Mode::Away);
    assert_eq!(cache.get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_outcome_is_unknown_is_not_hidden_by_an_old_copy() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    level(&cache, "k").await;
    database.hold_answers(true);
    let update = Write::Update { key: "k".into(), expected_version: None, members: serde_json::Map::new() };
    // Committed, and never answered.
    assert_eq!(cache.write(update).await.unwrap_err().kind(), ErrorKind::Unavailable);
    database.hold_answers(false);
    advance(Duration::from_secs(1)).await;
    assert_eq!(level(&cache, "k").await, Some((2, Level::L4, false)));
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_everything_is_asked_for_again_and_patches_still_fit() {
    let database = MemoryDatabase::new();
    for key in ["a", "b", "c"] {
        database.set(key, json!({"demand": 1}));
    }
    let cache = cache(&database);
    assert_eq!(cache.warm(100).await.unwrap(), 3);
    cache.list(query()).await.unwrap();
    cache.lost();
    assert_eq!(level(&cache, "a").await, Some((1, Level::L4, false)));
    assert_eq!(cache.list(query()).await.unwrap().level, Level::L4);
    let items = Bytes::from_static(br#"[{"Op":"replace","Path":"/demand","Value":2}]"#);
    let change =
        Change { key: "b".into(), version: 2, previous_version: Some(1), items, whole: false, commit_time: None };
    assert_eq!(cache.apply(&change), Applied::Patched);
    assert_eq!(level(&cache, "b").await, Some((2, Level::L1, false)));
    database.set_mode(Mode::Away);
    assert_eq!(level(&cache, "c").await, Some((1, Level::L1, true)), "the last resort");
}

#[tokio::test]
async fn warming_reads_page_by_page_up_to_its_limit() {
    let database = MemoryDatabase::new();
    for n in 0..2500 {
        database.set(&format!("k{n:04}"), json!({"demand": n}));
    }
    let cache = cache(&database);
    assert_eq!(cache.warm(2200).await.unwrap(), 2200);
    assert_eq!(database.scans.load(Ordering::Relaxed), 3);
    assert_eq!(level(&cache, "k2199").await, Some((1, Level::L1, false)));
    assert_eq!(level(&cache, "k2200").await, Some((1, Level::L4, false)));
}

#[tokio::test]
async fn query_results_are_bounded_by_number_too() {
    for (entries_max, kept) in [(0, 0..=0), (10, 5..=10)] {
        let registry = prometheus::Registry::new();
        let config = CacheConfig { l2_entries_max: entries_max, ..CacheConfig::default() };
        let cache = Cache::new(config, MemoryDatabase::new().shared(), &registry).unwrap();
        for skip in 0..50 {
            cache.list(ForecastQuery { skip, ..query() }).await.unwrap();
        }
        let entries = gauge(&registry, "cache_entries", 1);
        assert!(kept.contains(&(entries as u64)), "{entries} of {entries_max}");
    }
}

/// The gauge of a level, by index.
fn gauge(registry: &prometheus::Registry, name: &str, level: usize) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    family.get_metric()[level].get_gauge().get_value()
}

#[tokio::test]
async fn memory_is_bounded_by_bytes() {
    let database = MemoryDatabase::new();
    let text = "x".repeat(10_000);
    for n in 0..200 {
        database.set(&format!("k{n}"), json!({"text": text}));
    }
    let registry = prometheus::Registry::new();
    let config = CacheConfig { l1_bytes_max: 500_000, ..CacheConfig::default() };
    let cache = Cache::new(config, database.shared(), &registry).unwrap();
    for n in 0..200 {
        cache.get(&format!("k{n}")).await.unwrap();
    }
    let bytes = gauge(&registry, "cache_bytes", 0);
    assert!(bytes > 100_000.0 && bytes <= 500_000.0, "{bytes}");
}

#[tokio::test]
async fn what_happened_is_counted_and_told_to_the_observer() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let registry = prometheus::Registry::new();
    let told: Arc<Mutex<Vec<(Key, i64, Applied)>>> = Arc::default();
    let observer = Arc::clone(&told);
    let config = CacheConfig {
        observer: Some(Arc::new(move |key, version, applied| {
            observer.lock().unwrap().push((Arc::clone(key), version, applied));
        })),
        ..CacheConfig::default()
    };
    let cache = Cache::new(config, database.shared(), &registry).unwrap();
    level(&cache, "k").await;
    level(&cache, "k").await;
    cache.get("absent").await.unwrap();
    let items = Bytes::from_static(br#"[{"Op":"replace","Path":"/demand","Value":2}]"#);
    let commit_time = Some(Timestamp::from_millis(Timestamp::now().as_millis() - 40));
    let change = Change { key: "k".into(), version: 2, previous_version: Some(1), items, whole: false, commit_time };
    cache.apply(&change);
    cache.apply(&change);
    assert_eq!(*told.lock().unwrap(), [("k".into(), 2, Applied::Patched), ("k".into(), 2, Applied::Stale)]);
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "cache_hits_total{level=\"L1\"} 1",
        "cache_hits_total{level=\"L4\"} 1",
        "cache_misses_total{level=\"L1\"} 2",
        "cache_misses_total{level=\"L4\"} 1",
        "cache_applied_total{outcome=\"patched\"} 1",
        "cache_applied_total{outcome=\"stale\"} 1",
        "cache_entries{level=\"L1\"} 1",
        "commit_to_cache_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(Cache::new(CacheConfig::default(), database.shared(), &registry).is_err(), "one cache per registry");
}
