//! The cache in front of the embedded database: writers, capture and readers at the same time, on all threads.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use smartpulse_cache::{Applied, Cache, CacheConfig, Change, Invalidation};
use smartpulse_clients::database::{CaptureMode, Database, Poll, SharedDatabase, Write};
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_json::Document;
use smartpulse_pipeline::{Key, Operation, Position};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const TABLE: &str = "Forecasts";
const KEYS: u32 = 8;
const WRITES: u32 = 400;

/// What became of each version of a key, in the order of the calls.
type Outcomes = Vec<(i64, Applied)>;

fn key(n: u32) -> Key {
    format!("0b0a1c60-0000-4000-8000-{:012}", n % KEYS).into()
}

fn write(n: u32) -> Write {
    let members = |value: Value| match value {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    match n % 11 {
        7 => Write::Delete { key: key(n), expected_version: None },
        3 | 8 => Write::Insert {
            members: members(json!({
                "id": &*key(n), "companyId": &*key(0), "productionUnitId": &*key(1),
                "forecastDate": "2026-01-01T00:00:00.000Z", "demand": f64::from(n), "confidenceLevel": 0.5
            })),
        },
        _ => Write::Update { key: key(n), expected_version: None, members: members(json!({"demand": f64::from(n)})) },
    }
}

/// Turns captured changes into messages, as the stages in front of the cache do, and offers them.
struct Capture {
    position: Position,
    before: HashMap<Key, (i64, Document)>,
    seen: usize,
}

impl Capture {
    /// Offers what is new; true if something was.
    async fn step(&mut self, database: &dyn Database, cache: &Cache) -> bool {
        let Poll::Changes(page) = database.changes(TABLE, CaptureMode::Cdc, &self.position, 50).await.unwrap() else {
            panic!("the log is kept")
        };
        self.position = page.next;
        for change in &page.changes {
            self.seen += 1;
            let mut items = Vec::new();
            let before = self.before.remove(&change.key);
            let previous_version = before.as_ref().map(|(version, _)| *version);
            let whole = if change.operation == Operation::Delete {
                smartpulse_json::whole_remove(&mut items);
                true
            } else {
                let after = Document::parse(change.document.clone().unwrap()).unwrap();
                match &before {
                    Some((_, before)) => drop(smartpulse_json::diff(before, &after, &mut items)),
                    None => smartpulse_json::whole_add(&after, &mut items),
                }
                self.before.insert(change.key.clone(), (change.version, after));
                before.is_none()
            };
            cache.apply(&Change {
                key: change.key.clone(),
                version: change.version,
                previous_version,
                items: Bytes::from(items),
                whole,
                commit_time: Some(change.commit_time),
            });
            cache.evict_older(&Invalidation {
                entity: Some((change.key.clone(), change.version)),
                tags: vec![format!("company:{}", key(0))],
            });
        }
        !page.changes.is_empty()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_held_in_the_end_is_what_the_database_has() {
    let folder = tempfile::tempdir().unwrap();
    let registry = prometheus::Registry::new();
    let database: SharedDatabase =
        Arc::new(SqliteDatabase::open("main", &SqliteConfig::default(), folder.path(), &registry).unwrap());
    database.create_schema().await.unwrap();
    let position = database.head(TABLE, CaptureMode::Cdc).await.unwrap();
    let applied: Arc<Mutex<HashMap<Key, Outcomes>>> = Arc::default();
    let observed = Arc::clone(&applied);
    let config = CacheConfig {
        observer: Some(Arc::new(move |key, version, outcome| {
            observed.lock().unwrap().entry(Arc::clone(key)).or_default().push((version, outcome));
        })),
        ..CacheConfig::default()
    };
    let cache = Cache::new(config, Arc::clone(&database), &registry).unwrap();
    cache.warm(100).await.unwrap();

    let writing = Arc::new(AtomicBool::new(true));
    let mut tasks = Vec::new();
    for writer in 0..2 {
        let (database, cache) = (Arc::clone(&database), cache.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0..WRITES {
                // One writes through this instance's cache, the other beside it.
                if writer == 0 {
                    cache.write(write(n)).await.unwrap();
                } else {
                    database.write(TABLE, vec![write(n * 7 + 3)]).await.unwrap();
                }
            }
        }));
    }
    let readers: Vec<_> = (0..2)
        .map(|reader| {
            let (cache, writing) = (cache.clone(), Arc::clone(&writing));
            tokio::spawn(async move {
                let mut last = HashMap::new();
                let mut n = reader;
                while writing.load(Ordering::Relaxed) {
                    n += 1;
                    if let Some(hit) = cache.get(&key(n)).await.unwrap() {
                        let before = last.insert(key(n), hit.version).unwrap_or(0);
                        assert!(hit.version >= before, "a reader saw {} after {before}", hit.version);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let capturing = tokio::spawn({
        let (database, cache, writing) = (Arc::clone(&database), cache.clone(), Arc::clone(&writing));
        async move {
            let mut capture = Capture { position, before: HashMap::new(), seen: 0 };
            while writing.load(Ordering::Relaxed) {
                capture.step(&*database, &cache).await;
            }
            while capture.step(&*database, &cache).await {}
            capture.seen
        }
    });
    for task in tasks {
        task.await.unwrap();
    }
    writing.store(false, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let seen = capturing.await.unwrap();
    assert!(seen > 100, "only {seen} changes");

    for n in 0..KEYS {
        let truth = database.get(TABLE, &[key(n)]).await.unwrap().pop();
        let found = cache.get(&key(n)).await.unwrap();
        assert_eq!(
            found.map(|hit| (hit.version, hit.document.bytes().clone())),
            truth.map(|row| (row.version, row.document)),
            "{}",
            key(n)
        );
    }
    for (key, outcomes) in applied.lock().unwrap().iter() {
        let versions: Vec<i64> = outcomes.iter().map(|(version, _)| *version).collect();
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>(), "{key}: every version once, in order");
    }
}
