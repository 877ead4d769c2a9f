//! A round of maintenance, with time paused.

#[path = "../../tests/support/mod.rs"]
mod support;

use super::*;
use crate::{CacheConfig, Invalidation};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_change_that_does_not_come_is_loaded_however_much_it_is() {
    const KEYS: usize = 100;
    let database = support::MemoryDatabase::new();
    let keys: Vec<Key> = (0..KEYS).map(|n| format!("key-{n}").into()).collect();
    for key in &keys {
        database.set(key, json!({"demand": 1}));
    }
    let cache = Cache::new(CacheConfig::default(), database.shared(), &prometheus::Registry::new()).unwrap();
    cache.warm(KEYS).await.unwrap();
    tokio::spawn(run(Arc::downgrade(&cache.inner)));
    // All but the first change, and no more than that is told.
    for key in &keys[1..] {
        database.set(key, json!({"demand": 2}));
        cache.evict_older(&Invalidation { entity: Some((key.clone(), 2)), tags: Vec::new() });
    }
    tokio::time::sleep(INTERVAL).await;
    assert!(keys.iter().all(|key| cache.held_version(key) == Some(1)), "it may still come");
    tokio::time::sleep(WAIT_MAX + Duration::from_secs(1)).await;
    assert_eq!(cache.held_version(&keys[0]), Some(1));
    assert!(keys[1..].iter().all(|key| cache.held_version(key) == Some(2)));
}
