//! Programs that change the database at a steady pace.

use crate::cluster::Cluster;
use crate::observe::now;
use crate::process::block_on;
use serde_json::json;
use smartpulse_clients::database::{Database, Write, Written};
use smartpulse_pipeline::Key;
use smartpulse_sqlserver::database::SqlServerDatabase;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Writers at a time, each with keys of its own.
const WRITERS: usize = 4;

/// How long is waited until somebody looks again for the next change: what it adds to a latency at most.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// A committed change; times in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    pub key: usize,
    pub version: i64,
    /// When the statement was sent, and when the database had answered: it was committed in between.
    pub began: u64,
    pub returned: u64,
}

/// Changes on their way, each a transaction of one row.
pub struct Load {
    stop: Arc<AtomicBool>,
    commits: Arc<Mutex<Vec<Commit>>>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many changes a second, from now on.
    pub fn start(cluster: &Cluster, keys: &Arc<[String]>, rate: usize) -> Self {
        let (stop, commits) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Commit>>>::default());
        let pace = Duration::from_secs_f64(WRITERS as f64 / rate as f64);
        let writers = (0..WRITERS).map(|n| {
            let (keys, stop, commits, database) =
                (keys.clone(), stop.clone(), commits.clone(), cluster.server.database());
            std::thread::spawn(move || {
                block_on(async {
                    let mut ticks = tokio::time::interval_at(Instant::now() + pace * n as u32 / WRITERS as u32, pace);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    for key in (n..keys.len()).step_by(WRITERS).cycle() {
                        ticks.tick().await;
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let commit = change(&database, &keys, key).await;
                        commits.lock().expect("a list").push(commit);
                    }
                });
            })
        });
        Self { writers: writers.collect(), stop, commits }
    }

    /// The next change that is committed.
    pub fn next(&self) -> Commit {
        let committed = || self.commits.lock().expect("a list").len();
        let before = committed();
        while committed() == before {
            std::thread::sleep(LOOK_AGAIN);
        }
        self.commits.lock().expect("a list")[before]
    }

    /// Ends it; gives all changes.
    pub fn end(self) -> Vec<Commit> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        std::mem::take(&mut *self.commits.lock().expect("a list"))
    }
}

/// Commits one change of one row.
pub async fn change(database: &SqlServerDatabase, keys: &[String], key: usize) -> Commit {
    let began = now();
    let members = json!({ "demand": began as f64 / 7.0 }).as_object().cloned().expect("members");
    let write = Write::Update { key: Key::from(keys[key].as_str()), expected_version: None, members };
    let written = database.write("Forecasts", vec![write]).await.expect("the database is there");
    let [Written::Done(row)] = &written[..] else { panic!("{written:?}") };
    Commit { key, version: row.version, began, returned: now() }
}
