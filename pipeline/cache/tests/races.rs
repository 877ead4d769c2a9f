//! The races that a design like this one gets wrong (RELIABILITY.md), each as it happens.

mod support;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use smartpulse_cache::{Applied, Cache, CacheConfig, Change, Hit, Invalidation, Level};
use smartpulse_clients::database::{ForecastQuery, Write, Written};
use smartpulse_pipeline::Key;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::MemoryDatabase;

fn cache(database: &Arc<MemoryDatabase>) -> Cache {
    Cache::new(CacheConfig::default(), database.shared(), &prometheus::Registry::new()).unwrap()
}

fn patch(key: &str, version: i64, items: &Value) -> Change {
    Change {
        key: key.into(),
        version,
        previous_version: Some(version - 1),
        items: Bytes::from(items.to_string()),
        whole: false,
        commit_time: None,
    }
}

fn whole(key: &str, version: i64, items: &Value) -> Change {
    Change { previous_version: None, whole: true, ..patch(key, version, items) }
}

fn demand(n: i64) -> Value {
    json!([{"Op": "replace", "Path": "/demand", "Value": n}, {"Op": "replace", "Path": "/versionId", "Value": n}])
}

fn invalidation(key: &str, version: i64, tags: &[&str]) -> Invalidation {
    Invalidation { entity: Some((Key::from(key), version)), tags: tags.iter().map(|tag| (*tag).to_owned()).collect() }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

/// What a read gives: version, demand, level.
async fn read(cache: &Cache, key: &str) -> Option<(i64, Value, Level)> {
    let Hit { document, version, level, stale } = cache.get(key).await.unwrap()?;
    assert!(!stale);
    let document = document.to_value();
    assert_eq!(document["versionId"], version, "the version beside the document is the one in it");
    Some((version, document["demand"].clone(), level))
}

#[tokio::test]
async fn race_1_an_own_write_is_read_at_once_and_its_patch_changes_nothing() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    assert_eq!(read(&cache, "k").await, Some((1, json!(1), Level::L4)));
    let update = Write::Update { key: "k".into(), expected_version: Some(1), members: members(json!({"demand": 2})) };
    assert!(matches!(cache.write(update).await.unwrap(), Written::Done(row) if row.version == 2));
    assert_eq!(read(&cache, "k").await, Some((2, json!(2), Level::L1)));
    assert_eq!(cache.apply(&patch("k", 2, &demand(2))), Applied::Stale);
    assert_eq!(cache.apply(&patch("k", 3, &demand(3))), Applied::Patched);
    assert_eq!(read(&cache, "k").await, Some((3, json!(3), Level::L1)));
}

#[tokio::test]
async fn an_own_write_does_not_hide_a_newer_change_that_came_before_it_returned() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    database.hold_answers(true);
    let update = Write::Update { key: "k".into(), expected_version: None, members: members(json!({"demand": 2})) };
    let writing = tokio::spawn({
        let cache = cache.clone();
        async move { cache.write(update).await }
    });
    let committed = database.next_held().await;
    database.set("k", json!({"demand": 3}));
    // Nothing is held, so both patches are absent; only the floor remembers them.
    assert_eq!(cache.apply(&patch("k", 2, &demand(2))), Applied::Absent);
    assert_eq!(cache.apply(&patch("k", 3, &demand(3))), Applied::Absent);
    committed.release();
    database.hold_answers(false);
    writing.await.unwrap().unwrap();
    assert_eq!(read(&cache, "k").await, Some((3, json!(3), Level::L4)));
}

#[tokio::test]
async fn race_4_a_late_invalidation_spares_a_document_that_a_patch_brought_to_its_version() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    read(&cache, "k").await;
    assert_eq!(cache.apply(&patch("k", 2, &demand(2))), Applied::Patched);
    cache.evict_older(&invalidation("k", 2, &["company:a"]));
    assert_eq!(read(&cache, "k").await, Some((2, json!(2), Level::L1)));
    // One that is ahead makes the next reader ask the database.
    database.set("k", json!({"demand": 2}));
    database.set("k", json!({"demand": 3}));
    cache.evict_older(&invalidation("k", 3, &["company:a"]));
    assert_eq!(read(&cache, "k").await, Some((3, json!(3), Level::L4)));
}

#[tokio::test]
async fn an_early_invalidation_does_not_cost_a_load_if_its_patch_follows() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    read(&cache, "k").await;
    cache.evict_older(&invalidation("k", 2, &["company:a"]));
    assert_eq!(cache.apply(&patch("k", 2, &demand(2))), Applied::Patched);
    assert_eq!(read(&cache, "k").await, Some((2, json!(2), Level::L1)));
    assert_eq!(database.gets.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_reader_between_an_early_invalidation_and_its_patch_waits_for_it() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    read(&cache, "k").await;
    cache.evict_older(&invalidation("k", 2, &[]));
    let reading = tokio::spawn({
        let cache = cache.clone();
        async move { read(&cache, "k").await }
    });
    tokio::task::yield_now().await;
    assert_eq!(cache.apply(&patch("k", 2, &demand(2))), Applied::Patched);
    assert_eq!(reading.await.unwrap(), Some((2, json!(2), Level::L1)));
    assert_eq!(database.gets.load(Ordering::Relaxed), 1);

    // Not for ever: where the patch is lost, the database knows.
    database.set("k", json!({"demand": 2}));
    database.set("k", json!({"demand": 3}));
    cache.evict_older(&invalidation("k", 3, &[]));
    assert_eq!(read(&cache, "k").await, Some((3, json!(3), Level::L4)));
    // Nor at all where more than one is missing.
    database.set("k", json!({"demand": 4}));
    database.set("k", json!({"demand": 5}));
    cache.evict_older(&invalidation("k", 5, &[]));
    assert_eq!(read(&cache, "k").await, Some((5, json!(5), Level::L4)));
}

#[tokio::test]
async fn race_5_a_load_that_a_newer_version_overtakes_is_repeated() {
    let patched: fn(&Cache) = |cache| assert_eq!(cache.apply(&patch("k", 2, &demand(2))), Applied::Absent);
    let invalidated: fn(&Cache) = |cache| cache.evict_older(&invalidation("k", 2, &[]));
    for (arrives, name) in [(patched, "patch"), (invalidated, "invalidation")] {
        let database = MemoryDatabase::new();
        database.set("k", json!({"demand": 1}));
        let cache = cache(&database);
        database.hold_answers(true);
        let reading = tokio::spawn({
            let cache = cache.clone();
            async move { read(&cache, "k").await }
        });
        let loaded_1 = database.next_held().await;
        database.set("k", json!({"demand": 2}));
        arrives(&cache);
        loaded_1.release();
        database.next_held().await.release();
        assert_eq!(reading.await.unwrap(), Some((2, json!(2), Level::L4)), "{name}");
        database.hold_answers(false);
        assert_eq!(read(&cache, "k").await, Some((2, json!(2), Level::L1)), "{name}");
    }
}

#[tokio::test]
async fn a_key_that_changes_faster_than_it_loads_is_answered_and_not_kept() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    database.hold_answers(true);
    let reading = tokio::spawn({
        let cache = cache.clone();
        async move { read(&cache, "k").await }
    });
    for n in 2..=4 {
        let held = database.next_held().await;
        database.set("k", json!({"demand": n}));
        cache.apply(&patch("k", n, &demand(n)));
        held.release();
    }
    assert_eq!(reading.await.unwrap(), Some((3, json!(3), Level::L4)));
    assert_eq!(cache.held_version("k"), None);
}

#[tokio::test]
async fn a_last_attempt_that_is_overtaken_is_not_joined_by_who_comes_later() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    let reader = || {
        let cache = cache.clone();
        tokio::spawn(async move { read(&cache, "k").await.map(|(version, ..)| version) })
    };
    database.hold_answers(true);
    let early = reader();
    for n in 2..=3 {
        let held = database.next_held().await;
        database.set("k", json!({"demand": n}));
        cache.apply(&patch("k", n, &demand(n)));
        held.release();
    }
    let last = database.next_held().await;
    database.set("k", json!({"demand": 4}));
    cache.apply(&patch("k", 4, &demand(4)));
    let late = reader();
    database.next_held().await.release();
    assert_eq!(late.await.unwrap(), Some(4));
    last.release();
    assert_eq!(early.await.unwrap(), Some(4), "the newest there is");
}

#[tokio::test]
async fn race_6_delete_recreate_delete_in_any_lateness_leaves_the_last_word() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    read(&cache, "k").await;
    let gone = json!([{"Op": "remove", "Path": ""}]);
    let again = |n: i64| json!([{"Op": "add", "Path": "", "Value": {"demand": n, "versionId": n}}]);
    assert_eq!(database.delete("k"), 2);
    assert_eq!(cache.apply(&whole("k", 2, &gone)), Applied::Removed);
    assert_eq!(read(&cache, "k").await, None);
    // A late patch and a late document of the time before.
    assert_eq!(cache.apply(&patch("k", 2, &demand(2))), Applied::Stale);
    assert_eq!(cache.apply(&whole("k", 1, &again(1))), Applied::Stale);
    database.set("k", json!({"demand": 3}));
    assert_eq!(cache.apply(&whole("k", 3, &again(3))), Applied::Replaced);
    assert_eq!(read(&cache, "k").await, Some((3, json!(3), Level::L1)));
    assert_eq!(cache.apply(&whole("k", 2, &gone)), Applied::Stale);
    assert_eq!(database.delete("k"), 4);
    assert_eq!(cache.apply(&whole("k", 4, &gone)), Applied::Removed);
    assert_eq!(read(&cache, "k").await, None);
    assert_eq!(cache.held_version("k"), Some(4));
}

#[tokio::test]
async fn race_6_a_load_from_before_a_delete_brings_nothing_back() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    database.hold_answers(true);
    let reading = tokio::spawn({
        let cache = cache.clone();
        async move { read(&cache, "k").await }
    });
    let before = database.next_held().await;
    database.delete("k");
    cache.apply(&whole("k", 2, &json!([{"Op": "remove", "Path": ""}])));
    before.release();
    database.next_held().await.release();
    assert_eq!(reading.await.unwrap(), None);
    assert_eq!(cache.held_version("k"), Some(2));
}

#[tokio::test]
async fn race_12_a_unit_that_moves_leaves_the_lists_of_both_companies() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"companyId": "a", "productionUnitId": "u", "forecastDate": "2026-01-01T00:00:00.000Z"}));
    let cache = cache(&database);
    let of = |company: &str| ForecastQuery {
        companies: Some([company.into()].into()),
        take: 20,
        ..ForecastQuery::default()
    };
    let total = async |company: &str| {
        let list = cache.list(of(company)).await.unwrap();
        (serde_json::from_slice::<Value>(&list.body).unwrap()["total"].as_u64().unwrap(), list.level)
    };
    assert_eq!(total("a").await, (1, Level::L4));
    assert_eq!(total("b").await, (0, Level::L4));
    assert_eq!(total("b").await, (0, Level::L2));
    database.set("k", json!({"companyId": "b"}));
    cache.evict_older(&invalidation("k", 2, &["unit:u", "company:a", "company:b"]));
    assert_eq!(total("a").await, (0, Level::L4));
    assert_eq!(total("b").await, (1, Level::L4));
    // The hierarchy alone: no entity of the section, tags only.
    cache.evict_older(&Invalidation { entity: None, tags: vec!["company:b".into()] });
    assert_eq!(total("a").await, (0, Level::L2));
    assert_eq!(total("b").await, (1, Level::L4));
    // An own write that moves the unit back.
    let members = members(json!({"companyId": "a"}));
    cache.write(Write::Update { key: "k".into(), expected_version: None, members }).await.unwrap();
    assert_eq!(total("a").await, (1, Level::L4));
    assert_eq!(total("b").await, (0, Level::L4));
}

#[tokio::test]
async fn a_list_whose_tags_change_while_it_runs_is_not_kept_nor_joined_afterwards() {
    let database = MemoryDatabase::new();
    let cache = cache(&database);
    let query = || ForecastQuery { companies: Some(["a".into()].into()), take: 20, ..ForecastQuery::default() };
    database.hold_answers(true);
    let early = tokio::spawn({
        let (cache, query) = (cache.clone(), query());
        async move { cache.list(query).await.unwrap() }
    });
    let early_held = database.next_held().await;
    database.set("k", json!({"companyId": "a"}));
    cache.evict_older(&invalidation("k", 1, &["company:a"]));
    let late = tokio::spawn({
        let (cache, query) = (cache.clone(), query());
        async move { cache.list(query).await.unwrap() }
    });
    database.next_held().await.release();
    assert!(late.await.unwrap().body.starts_with(b"{\"total\":1,"));
    early_held.release();
    assert!(early.await.unwrap().body.starts_with(b"{\"total\":0,"));
    let kept = cache.list(query()).await.unwrap();
    assert_eq!((kept.level, kept.body.starts_with(b"{\"total\":1,")), (Level::L2, true));
}

#[tokio::test]
async fn a_patch_that_fails_midway_costs_exactly_one_load_and_shows_nothing_of_itself() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    read(&cache, "k").await;
    database.set("k", json!({"demand": 2}));
    let broken = json!([{"Op": "replace", "Path": "/demand", "Value": 99}, {"Op": "remove", "Path": "/absent"}]);
    assert_eq!(cache.apply(&patch("k", 2, &broken)), Applied::Reload);
    // The reader joins the load that the patch started.
    assert_eq!(read(&cache, "k").await, Some((2, json!(2), Level::L4)));
    assert_eq!(read(&cache, "k").await, Some((2, json!(2), Level::L1)));
    assert_eq!(database.gets.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn after_a_gap_a_patch_costs_exactly_one_coalesced_load() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    read(&cache, "k").await;
    for n in 2..=5 {
        database.set("k", json!({"demand": n}));
    }
    database.hold_answers(true);
    for n in 3..=5 {
        assert_eq!(cache.apply(&patch("k", n, &demand(n))), Applied::Reload);
    }
    database.next_held().await.release();
    database.hold_answers(false);
    assert_eq!(read(&cache, "k").await.map(|(version, ..)| version), Some(5));
    assert_eq!(database.gets.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_load_that_was_running_when_messages_were_lost_is_not_kept_as_fresh() {
    let database = MemoryDatabase::new();
    database.set("k", json!({"demand": 1}));
    let cache = cache(&database);
    database.hold_answers(true);
    let reading = tokio::spawn({
        let cache = cache.clone();
        async move { read(&cache, "k").await }
    });
    let loaded_1 = database.next_held().await;
    // The patch to 2 is among the lost.
    database.set("k", json!({"demand": 2}));
    cache.lost();
    loaded_1.release();
    reading.await.unwrap();
    database.hold_answers(false);
    assert_eq!(read(&cache, "k").await, Some((2, json!(2), Level::L4)));
}

#[tokio::test]
async fn a_change_that_overtakes_the_warm_up_wins() {
    let database = MemoryDatabase::new();
    for key in ["a", "b", "c"] {
        database.set(key, json!({"demand": 1}));
    }
    let cache = cache(&database);
    database.hold_answers(true);
    let warming = tokio::spawn({
        let cache = cache.clone();
        async move { cache.warm(100).await }
    });
    let page = database.next_held().await;
    database.set("b", json!({"demand": 2}));
    assert_eq!(cache.apply(&patch("b", 2, &demand(2))), Applied::Absent);
    assert!(!cache.is_warm());
    page.release();
    database.hold_answers(false);
    assert_eq!(warming.await.unwrap().unwrap(), 3);
    assert!(cache.is_warm());
    assert_eq!(read(&cache, "a").await, Some((1, json!(1), Level::L1)));
    assert_eq!(read(&cache, "b").await, Some((2, json!(2), Level::L4)));
}
