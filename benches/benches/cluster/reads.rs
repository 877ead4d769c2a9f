//! What reads cost the database while everything changes.

use crate::asking::Client;
use crate::cluster::{Cluster, INSTANCES};
use crate::load::Load;
use crate::observe::{added, sums};
use crate::process::random;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Changes a second.
const RATE: usize = 500;

/// Readers of each instance, and the reads a second of all of them.
const READERS: usize = 2;
const READS: usize = 3_000;

/// Longer than anything is kept in memory without being touched, so that what falls out is counted.
const WARM_UP: Duration = Duration::from_secs(75);
const MEASURED: Duration = Duration::from_secs(120);

pub fn measure(cluster: &Cluster, keys: &Arc<[String]>) {
    let load = Load::start(cluster, keys, RATE);
    read_for(cluster, keys, WARM_UP);
    let queries = || sums(cluster, "database_queries_total", &[], "query");
    let (before, start) = (queries(), Instant::now());
    let levels = read_for(cluster, keys, MEASURED);
    let (queries, seconds) = (added(&before, queries()), start.elapsed().as_secs_f64());
    let changes = load.end().len();
    let reads: usize = levels.values().sum();
    println!("{reads} reads in {seconds:.0} s while {changes} changes were made");
    for (level, count) in &levels {
        println!("  {level}  {count:>9}  {:.4} %", *count as f64 * 100.0 / reads as f64);
    }
    println!("queries of all instances: {queries:?}");
}

/// Reads from all instances; gives how many reads each level answered.
fn read_for(cluster: &Cluster, keys: &Arc<[String]>, time: Duration) -> BTreeMap<String, usize> {
    let skewed = Arc::new(Zipf::new(keys.len()));
    let pace = Duration::from_secs_f64((INSTANCES * READERS) as f64 / READS as f64);
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = cluster
        .instances()
        .flat_map(|instance| (0..READERS).map(|_| Client::open(&instance.address())))
        .map(|mut client| {
            let (keys, skewed, stop) = (keys.clone(), skewed.clone(), stop.clone());
            std::thread::spawn(move || {
                let (mut levels, mut due) = (BTreeMap::<String, usize>::new(), Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    sleep(due.saturating_duration_since(Instant::now()));
                    due += pace;
                    let answer = client.read(&keys[skewed.next()]);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    *levels.entry(answer.level).or_default() += 1;
                }
                levels
            })
        })
        .collect();
    sleep(time);
    stop.store(true, Ordering::Relaxed);
    let mut levels = BTreeMap::new();
    for (level, count) in readers.into_iter().flat_map(|reader| reader.join().expect("a reader")) {
        *levels.entry(level).or_default() += count;
    }
    levels
}

/// The n-th of so many is chosen 1/n as often as the first.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(of: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=of)
                .map(|n| {
                    sum += 1.0 / n as f64;
                    sum
                })
                .collect(),
        )
    }

    fn next(&self) -> usize {
        let total = self.0.last().copied().unwrap_or_default();
        let drawn = random(1 << 32) as f64 / (1_u64 << 32) as f64 * total;
        self.0.partition_point(|sum| *sum <= drawn).min(self.0.len() - 1)
    }
}
