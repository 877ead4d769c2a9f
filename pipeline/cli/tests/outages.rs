//! Three instances under load while Redis, Pulsar or the database is away for ten seconds: what each instance goes on doing,
//! what it says of itself, and that nothing is missing afterwards.
//!
//! `cargo test -p smartpulse --features full --test outages`.

mod cluster;
mod process;
mod server;

use cluster::Cluster;
use process::{Answer, Instance, block_on, random, until};
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::redis::Data;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a part is away.
const OUTAGE: Duration = Duration::from_secs(10);

/// Within what everything is as it should be after an outage, on a machine that may be busy.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// Readers of each instance, which ask back to back: more than the 70 % of what it can answer that the promise speaks of.
const READERS: usize = 3;

/// Readers that ask one instance for the same keys at about the same time.
const CROWD: usize = 16;

/// What an instance may grow by while it waits, in bytes: its bounds are far below, and a queue without any far above.
const GROWTH_MAX: f64 = 200e6;

#[test]
fn without_redis_reads_are_answered_and_readiness_says_so() {
    let Some(broker) = Broker::shared() else { return };
    let _broker = block_on(broker.alone());
    let Some(mut world) = World::start() else { return };
    world.cluster.redis.stop(Data::Lost);
    let (reads, levels) = world.read_for(OUTAGE, |answer| assert_eq!(answer.status, 200, "{}", answer.body));
    eprintln!("without redis: {reads} reads, all answered, from {levels:?}");
    let named: Vec<&str> = levels.keys().map(String::as_str).collect();
    assert_eq!(named, ["L1", "L4"], "from local tiers, then from the database");
    world.loads_a_key_once_for_all_who_ask();
    world.says(200, "pubsub");
    world.cluster.redis.start_again();
    world.recovers();
}

#[test]
fn without_pulsar_capture_waits_where_it_is_and_nothing_is_lost() {
    let Some(broker) = Broker::shared() else { return };
    let _broker = block_on(broker.alone());
    let Some(mut world) = World::start() else { return };
    let memory = |world: &World| -> Vec<f64> {
        world.cluster.instances().map(|instance| instance.metric("process_resident_memory_bytes", &[])).collect()
    };
    let before = memory(&world);
    world.cluster.broker.stop();
    // What was under way when it went has had its time.
    let reads = world.read_for(OUTAGE / 4, |answer| assert_eq!(answer.status, 200, "{}", answer.body)).0;
    let position = world.cluster.lease().expect("a lease").position;
    let more = world.read_for(OUTAGE, |answer| assert_eq!(answer.status, 200, "{}", answer.body)).0;
    assert_eq!(world.cluster.lease().expect("a lease").position, position, "the position waits with the bus");
    eprintln!("without pulsar: {} reads, all answered", reads + more);
    world.says(200, "bus changes");
    for (before, after) in before.into_iter().zip(memory(&world)) {
        assert!(after < before + GROWTH_MAX, "an instance grew from {before} to {after} bytes");
    }
    world.cluster.broker.restart();
    world.recovers();
}

#[test]
fn without_the_database_cached_reads_are_answered_and_instances_are_alive_and_not_ready() {
    let Some(broker) = Broker::shared() else { return };
    let _broker = block_on(broker.in_peace());
    let Some(mut world) = World::start() else { return };
    world.cluster.server.kill();
    let (reads, levels) = world.read_for(OUTAGE / 2, |answer| assert_eq!(answer.status, 200, "{}", answer.body));
    eprintln!("without the database: {reads} reads, all answered, from {levels:?}");
    let captures = |instance: &Instance| instance.metric("capture_lease_held", &[]) > 0.0;
    until("capture pauses", || !world.cluster.instances().any(captures));
    // With Redis' data gone as well nobody knows whether what is in memory is the newest.
    world.cluster.redis.restart(Data::Lost);
    until("instances have noticed that they may have missed something", || {
        world.cluster.instances().all(|instance| instance.forecast(&world.keys[0]).stale)
    });
    let (reads, levels) = world.read_for(OUTAGE / 2, |answer| {
        assert!(answer.status == 200 && answer.stale, "{}: {}", answer.status, answer.body);
    });
    eprintln!("without the database and redis' data: {reads} reads, all answered as stale, from {levels:?}");
    world.says(503, "database");
    assert!(world.cluster.instances().all(|instance| instance.get("/health").is_some_and(|alive| alive.status == 200)));
    world.cluster.server.restart();
    world.cluster.server.until_answering();
    world.recovers();
}

/// A cluster whose forecasts change all the time.
struct World {
    cluster: Cluster,
    keys: Vec<String>,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<u64>>,
}

impl World {
    /// Starts it; every forecast is in every instance's memory.
    fn start() -> Option<Self> {
        let cluster = Cluster::start()?;
        let documents = cluster.server.documents();
        let keys: Vec<String> = documents.keys().cloned().collect();
        cluster.converge(&keys, &documents, RECOVERED_WITHIN);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = Some(cluster.server.writer(stop.clone(), Duration::from_millis(5)));
        let broadcast = |instance: &Instance| instance.metric("cache_applied_total", &["patched"]) > 10.0;
        until("changes flow", || cluster.instances().all(broadcast));
        Some(Self { cluster, keys, stop, writer })
    }

    /// Reads from all instances; gives how many reads there were, and from which levels they were answered.
    fn read_for(&self, time: Duration, check: impl Fn(&Answer) + Sync) -> (usize, BTreeMap<String, usize>) {
        let (start, levels) = (Instant::now(), Mutex::new(BTreeMap::<String, usize>::new()));
        let read = |instance: &Instance| {
            while start.elapsed() < time {
                let key = &self.keys[usize::try_from(random(self.keys.len() as u64)).unwrap()];
                let answer = instance.forecast(key);
                check(&answer);
                *levels.lock().unwrap().entry(answer.level).or_default() += 1;
            }
        };
        std::thread::scope(|scope| {
            for instance in self.cluster.instances() {
                for _ in 0..READERS {
                    scope.spawn(move || read(instance));
                }
            }
        });
        let levels = levels.into_inner().unwrap();
        (levels.values().sum(), levels)
    }

    /// A crowd asks for every key; the database is asked once for each, and once more for each change of it.
    fn loads_a_key_once_for_all_who_ask(&self) {
        let versions = || -> i64 {
            self.cluster.server.documents().values().filter_map(|document| document["versionId"].as_i64()).sum()
        };
        let instance = self.cluster.instances().next().expect("an instance");
        let loads = || instance.metric("database_queries_total", &["query=\"get\""]);
        let (versions_before, loads_before) = (versions(), loads());
        let read = || self.keys.iter().for_each(|key| assert_eq!(instance.forecast(key).status, 200));
        std::thread::scope(|scope| {
            for _ in 0..CROWD {
                scope.spawn(read);
            }
        });
        let (loads, changes) = (loads() - loads_before, (versions() - versions_before) as f64);
        let (keys, reads) = (self.keys.len() as f64, CROWD * self.keys.len());
        eprintln!("without redis: {reads} reads of {keys} keys by a crowd, {changes} changes, {loads} loads");
        assert!(loads <= keys + changes, "{loads} loads of {keys} keys that changed {changes} times");
    }

    /// Readiness of every instance has this status, and names these parts.
    fn says(&self, status: u16, parts: &str) {
        until(&format!("{parts} is named"), || {
            self.cluster.instances().all(|instance| ready(instance) == (status, parts.to_owned()))
        });
    }

    /// Ends the load, and waits until every instance has everything and says so.
    fn recovers(&mut self) {
        let back = Instant::now();
        self.stop.store(true, Ordering::Relaxed);
        let written = self.writer.take().expect("a writer").join().unwrap();
        assert!(written > 10, "the writer has hardly written: {written}");
        let expected = self.cluster.server.documents();
        let agreed = self.cluster.converge(&self.keys, &expected, RECOVERED_WITHIN);
        eprintln!("all instances agreed {:?} after it was back", agreed.duration_since(back));
        self.says(200, "");
        until("every counter is the database's", || {
            self.cluster.counters().values().all(|(counter, version)| counter.is_none_or(|counter| counter == *version))
        });
    }
}

/// What readiness says: the status, and what is missing.
fn ready(instance: &Instance) -> (u16, String) {
    let answer = instance.get("/health/ready").expect("an answer");
    let json = answer.json();
    let parts = match answer.status {
        200 => &json["degraded"],
        _ => &json["waiting"],
    };
    let names: Vec<&str> = parts.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    (answer.status, names.join(" "))
}
