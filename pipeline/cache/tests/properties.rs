//! Any interleaving of commits, their late, repeated or lost messages, loads, own writes and expiry: versions
//! never go back, nobody reads less than the instance was told of when he asked, and in the end every
//! document is the database's.

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use smartpulse_cache::{Cache, CacheConfig, Change, Hit, Invalidation};
use smartpulse_clients::database::{Row, Write};
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use support::{HeldAnswer, MemoryDatabase};
use tokio::task::JoinHandle;

const KEYS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
enum Op {
    /// Another writer inserts or updates.
    Commit {
        key: usize,
    },
    /// Another writer deletes.
    Delete {
        key: usize,
    },
    /// The next message of a key arrives, as a patch or as the whole document.
    Deliver {
        key: usize,
        whole: bool,
    },
    /// An old message arrives again.
    Repeat {
        key: usize,
        nth: usize,
    },
    /// The messages that are on their way are lost, and the subscriber is told.
    Lose {
        key: usize,
    },
    /// An invalidation of any version so far arrives.
    Invalidate {
        key: usize,
        nth: usize,
    },
    Read {
        key: usize,
    },
    Write {
        key: usize,
    },
    Remove {
        key: usize,
    },
    Warm,
    /// One of the database's answers arrives.
    Answer {
        nth: usize,
    },
    /// Documents expire.
    Expire,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS.len();
    prop_oneof![
        4 => key.clone().prop_map(|key| Op::Commit { key }),
        1 => key.clone().prop_map(|key| Op::Delete { key }),
        6 => (key.clone(), any::<bool>()).prop_map(|(key, whole)| Op::Deliver { key, whole }),
        1 => (key.clone(), 0..8usize).prop_map(|(key, nth)| Op::Repeat { key, nth }),
        1 => key.clone().prop_map(|key| Op::Lose { key }),
        2 => (key.clone(), 0..8usize).prop_map(|(key, nth)| Op::Invalidate { key, nth }),
        5 => key.clone().prop_map(|key| Op::Read { key }),
        2 => key.clone().prop_map(|key| Op::Write { key }),
        1 => key.prop_map(|key| Op::Remove { key }),
        1 => Just(Op::Warm),
        8 => (0..4usize).prop_map(|nth| Op::Answer { nth }),
        1 => Just(Op::Expire),
    ]
}

/// A committed change: what was before, what is now.
#[derive(Debug, Clone)]
struct Commit {
    version: i64,
    before: Option<Row>,
    after: Option<Row>,
    /// A message that was lost does not come again.
    lost: bool,
}

impl Commit {
    fn message(&self, key: &str, whole: bool) -> Change {
        let document = |row: &Row| Document::parse(row.document.clone()).unwrap();
        let mut items = Vec::new();
        let whole = match (&self.before, &self.after) {
            (Some(before), Some(after)) if !whole => {
                smartpulse_json::diff(&document(before), &document(after), &mut items);
                false
            }
            (_, Some(after)) => {
                smartpulse_json::whole_replace(&document(after), &mut items);
                true
            }
            (_, None) => {
                smartpulse_json::whole_remove(&mut items);
                true
            }
        };
        Change {
            key: Key::from(key),
            version: self.version,
            previous_version: self.before.as_ref().map(|row| row.version),
            items: Bytes::from(items),
            whole,
            commit_time: None,
        }
    }
}

struct Reading {
    key: usize,
    /// The newest version the instance was told of when the reader asked.
    told: i64,
    task: JoinHandle<Option<Hit>>,
}

struct World {
    database: Arc<MemoryDatabase>,
    cache: Cache,
    /// All commits of a key, and how many of their messages were delivered or lost.
    commits: [Vec<Commit>; KEYS.len()],
    delivered: [usize; KEYS.len()],
    told: [i64; KEYS.len()],
    held: [i64; KEYS.len()],
    answers: VecDeque<HeldAnswer>,
    readings: Vec<Reading>,
    writings: Vec<(usize, JoinHandle<()>)>,
    demand: i64,
}

impl World {
    fn new() -> Self {
        let database = MemoryDatabase::new();
        database.hold_answers(true);
        // Answers are held for as long as the test likes.
        let config = CacheConfig { tier_timeout: Duration::from_secs(1 << 20), ..CacheConfig::default() };
        let cache = Cache::new(config, database.shared(), &prometheus::Registry::new()).unwrap();
        Self {
            database,
            cache,
            commits: Default::default(),
            delivered: [0; KEYS.len()],
            told: [0; KEYS.len()],
            held: [0; KEYS.len()],
            answers: VecDeque::new(),
            readings: Vec::new(),
            writings: Vec::new(),
            demand: 0,
        }
    }

    fn members(&mut self) -> serde_json::Value {
        self.demand += 1;
        json!({"companyId": "c", "demand": self.demand})
    }

    /// Notes what the database has committed since: every commit is noted before the next one can happen.
    fn note(&mut self) {
        for (key, name) in KEYS.iter().enumerate() {
            let last = self.commits[key].last().cloned();
            let (before, last_version) = match &last {
                Some(commit) => (commit.after.clone(), commit.version),
                None => (None, 0),
            };
            let after = self.database.row(name);
            let version = match (&after, &before) {
                (Some(row), _) => row.version,
                (None, Some(before)) => before.version + 1,
                (None, None) => last_version,
            };
            if version > last_version {
                self.commits[key].push(Commit { version, before, after, lost: false });
            }
        }
    }

    fn deliver(&mut self, key: usize, nth: usize, whole: bool) {
        if let Some(commit) = self.commits[key].get(nth) {
            self.cache.apply(&commit.message(KEYS[key], whole));
            self.told[key] = self.told[key].max(commit.version);
        }
    }

    async fn step(&mut self, op: &Op) {
        match *op {
            Op::Commit { key } => {
                let members = self.members();
                self.database.set(KEYS[key], members);
            }
            Op::Delete { key } => {
                self.database.commit(Write::Delete { key: KEYS[key].into(), expected_version: None });
            }
            Op::Deliver { key, whole } => {
                let next = self.delivered[key];
                self.deliver(key, next, whole);
                self.delivered[key] = self.commits[key].len().min(next + 1);
            }
            Op::Repeat { key, nth } if nth < self.delivered[key] && !self.commits[key][nth].lost => {
                self.deliver(key, nth, false);
            }
            Op::Lose { key } => {
                for commit in &mut self.commits[key][self.delivered[key]..] {
                    commit.lost = true;
                    self.told[key] = commit.version;
                }
                self.delivered[key] = self.commits[key].len();
                self.cache.lost();
            }
            Op::Invalidate { key, nth } => {
                if let Some(commit) = self.commits[key].get(nth) {
                    let entity = Some((Key::from(KEYS[key]), commit.version));
                    self.cache.evict_older(&Invalidation { entity, tags: vec!["company:c".into()] });
                    // Of a key of which nothing is held nothing is remembered.
                    if self.cache.held_version(KEYS[key]).is_some() {
                        self.told[key] = self.told[key].max(commit.version);
                    }
                }
            }
            Op::Read { key } => {
                let cache = self.cache.clone();
                let task = tokio::spawn(async move { cache.get(KEYS[key]).await.unwrap() });
                self.readings.push(Reading { key, told: self.told[key], task });
            }
            Op::Write { key } => {
                let serde_json::Value::Object(mut members) = self.members() else { unreachable!() };
                let write = if self.database.row(KEYS[key]).is_some() {
                    Write::Update { key: KEYS[key].into(), expected_version: None, members }
                } else {
                    members.insert("id".into(), KEYS[key].into());
                    Write::Insert { members }
                };
                self.write(key, write);
            }
            Op::Remove { key } => self.write(key, Write::Delete { key: KEYS[key].into(), expected_version: None }),
            Op::Warm => {
                let cache = self.cache.clone();
                let warming = async move { drop(cache.warm(100).await) };
                self.writings.push((usize::MAX, tokio::spawn(warming)));
            }
            Op::Answer { nth } if nth < self.answers.len() => {
                self.answers.remove(nth).unwrap().release();
            }
            Op::Expire => tokio::time::advance(Duration::from_secs(61)).await,
            Op::Repeat { .. } | Op::Answer { .. } => {}
        }
        self.settle().await;
    }

    fn write(&mut self, key: usize, write: Write) {
        let cache = self.cache.clone();
        let writing = async move { drop(cache.write(write).await.unwrap()) };
        self.writings.push((key, tokio::spawn(writing)));
    }

    /// Lets everything run that can, then checks what must hold at any moment.
    async fn settle(&mut self) {
        for _ in 0..30 {
            tokio::task::yield_now().await;
        }
        self.note();
        self.answers.extend(self.database.take_held());
        for (key, name) in KEYS.iter().enumerate() {
            let held = self.cache.held_version(name).unwrap_or(0);
            assert!(held >= self.held[key], "{name}: {held} is held after {}", self.held[key]);
            self.held[key] = held;
        }
        let (done, running) = std::mem::take(&mut self.readings).into_iter().partition(|r| r.task.is_finished());
        self.readings = running;
        let done: Vec<Reading> = done;
        for reading in done {
            let found = reading.task.await.unwrap();
            let (name, told) = (KEYS[reading.key], reading.told);
            match found {
                Some(hit) => {
                    assert!(hit.version >= told, "{name}: read {} when {told} was known", hit.version);
                    let known = self.commits[reading.key].iter().find(|commit| commit.version == hit.version).unwrap();
                    assert_eq!(known.after.as_ref().map(|row| &row.document), Some(hit.document.bytes()), "{name}");
                }
                None => {
                    let gone =
                        self.commits[reading.key].iter().any(|commit| commit.version >= told && commit.after.is_none());
                    assert!(gone || told == 0, "{name}: nothing was read when {told} was known");
                }
            }
        }
        let (done, running) = std::mem::take(&mut self.writings).into_iter().partition(|w| w.1.is_finished());
        self.writings = running;
        let done: Vec<(usize, JoinHandle<()>)> = done;
        for (key, writing) in done {
            writing.await.unwrap();
            // What was written through this instance is known to it.
            if let Some(name) = KEYS.get(key) {
                self.told[key] = self.told[key].max(self.cache.held_version(name).unwrap_or(0));
            }
        }
    }

    async fn finish(mut self) {
        while !self.answers.is_empty() || !self.readings.is_empty() || !self.writings.is_empty() {
            match self.answers.pop_front() {
                Some(answer) => answer.release(),
                None => tokio::task::yield_now().await,
            }
            self.settle().await;
        }
        for key in 0..KEYS.len() {
            while self.delivered[key] < self.commits[key].len() {
                self.step(&Op::Deliver { key, whole: false }).await;
                while let Some(answer) = self.answers.pop_front() {
                    answer.release();
                    self.settle().await;
                }
            }
        }
        self.database.hold_answers(false);
        for key in KEYS {
            for _ in 0..2 {
                let found = self.cache.get(key).await.unwrap();
                let truth = self.database.row(key);
                assert_eq!(
                    found.map(|hit| (hit.version, hit.document.bytes().clone())),
                    truth.map(|row| (row.version, row.document)),
                    "{key}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_ends_in_the_truth_and_never_goes_back(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for op in &ops {
                world.step(op).await;
            }
            world.finish().await;
        });
    }
}
