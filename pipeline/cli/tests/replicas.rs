//! Three instances on a real Redis, a real Pulsar and the stand-in for SQL Server, while everything that can be taken away is
//! taken away at random: what all of them answer converges to the database, and nobody ever sees a key go back.
//!
//! `cargo test -p smartpulse --features full --test replicas`. Keys, changes, changes a second and the seconds within which all
//! have to agree after the last one are those of `SMARTPULSE_REPLICAS_KEYS`, `_CHANGES`, `_RATE` and `_WITHIN_S`. At the scale
//! that is promised:
//!
//! ```console
//! $ SMARTPULSE_REPLICAS_KEYS=10000 SMARTPULSE_REPLICAS_CHANGES=100000 SMARTPULSE_REPLICAS_RATE=500 SMARTPULSE_REPLICAS_WITHIN_S=5 \
//!     cargo test --release -p smartpulse --features full --test replicas -- --nocapture converge
//! ```

mod cluster;
mod process;
mod server;

use cluster::{Cluster, INSTANCES};
use process::{block_on, get, random, until};
use serde_json::{Value, json};
use smartpulse_clients::bus::{Bus, InitialPosition, Outgoing, Subscribe, SubscriptionType};
use smartpulse_clients::database::{Database, Write, Written};
use smartpulse_pipeline::Key;
use smartpulse_pulsar::{PulsarBus, PulsarConfig};
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::redis::Data;
use smartpulse_testing::{company_forecast, uuid};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::RwLockWriteGuard;
use tokio::time::MissedTickBehavior;

/// Within what all instances have to agree, in seconds, on a machine that may be busy. The promise is 5 s; what it took is
/// printed.
const CONVERGED_WITHIN_S: usize = 30;

/// Within what they have to be level with the database after all of it: nobody captures for seconds each time that one who
/// did is killed.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(90);

/// How long counters may differ from the database where Redis lost its data: until the audit has gone round.
const AUDITED_WITHIN: Duration = Duration::from_secs(180);

/// Writers at a time, each with keys of its own.
const WRITERS: usize = 4;

/// Rows that a writer changes in one transaction.
const ROWS_AT_ONCE: usize = 4;

/// The number of the first key: far from those of the week.
const FIRST_KEY: u64 = 1_000_000;

/// Of the topics' messages one in so many is published again.
const DUPLICATED: u64 = 10;

/// What is moved away from its broker and back: the topics that there are from the start.
const TOPICS: [&str; 2] = ["cdc:forecasts", "forecast:invalidation"];

/// One test at a time: three instances have enough to do with each other.
fn alone() -> Option<RwLockWriteGuard<'static, ()>> {
    Broker::shared().map(|broker| block_on(broker.alone()))
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(format!("SMARTPULSE_REPLICAS_{name}")).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn replicas_converge_on_the_database_whatever_is_killed_lost_moved_or_repeated() {
    let (keys, changes, rate) = (setting("KEYS", 400), setting("CHANGES", 6_000), setting("RATE", 250));
    let within = Duration::from_secs(setting("WITHIN_S", CONVERGED_WITHIN_S) as u64);
    let Some(_alone) = alone() else { return };
    let Some(mut cluster) = Cluster::start() else { return };
    let keys: Arc<[String]> = (0..keys).map(|n| uuid(FIRST_KEY + n as u64)).collect();
    // The last changes are made when everything is back: what is measured is how fast replicas agree, not how they start.
    let last_chaos = changes * 9 / 10;
    let writers = Writers::start(&cluster, &keys, Plan { changes, in_chaos: last_chaos, rate });
    let repeater = Repeater::start(&cluster);
    let readers: Vec<Reader> = (0..INSTANCES).map(|n| Reader::start(n, &cluster, &keys)).collect();

    let mut chaos = Chaos::default();
    while writers.done() < last_chaos {
        chaos.strike(&mut cluster, writers.done(), last_chaos, &readers);
    }
    chaos.end(&mut cluster, &readers);
    let back = Instant::now();
    let caught_up = cluster.converge(&keys, &cluster.server.documents(), CAUGHT_UP_WITHIN);
    writers.calm.store(true, Ordering::Relaxed);
    let last_change = writers.join();
    let expected = cluster.server.documents();
    let converged = cluster.converge(&keys, &expected, within.saturating_sub(last_change.elapsed()));
    eprintln!(
        "{} keys, {changes} changes, {chaos:?}: {INSTANCES} instances agreed {:?} after all were back, and {:?} after the last change",
        keys.len(),
        caught_up.duration_since(back),
        converged.duration_since(last_change)
    );

    let reads: usize = readers.into_iter().map(Reader::join).sum();
    assert!(reads > 100, "hardly anybody read: {reads}");
    let (captured, repeated) = repeater.join();
    for (key, last) in versions(&cluster, &keys) {
        let missing: Vec<i64> = (1..=last).filter(|version| !captured.contains(&(key.clone(), *version))).collect();
        assert!(missing.is_empty(), "versions {missing:?} of {last} of {key} never came");
    }
    eprintln!("{reads} reads never saw a key go back; {repeated} messages were repeated");
    let applied: usize = cluster.applied().iter().map(|log| check_applied(log)).sum();
    // Caches take over what they hold; of changes in quick succession the newest.
    assert!(applied > keys.len(), "three instances took over {applied} changes only");
    eprintln!("{applied} changes were taken over, none of a version before what was held");
    for instance in cluster.instances() {
        let letters = instance.metric("component_dead_letters_total", &[]);
        assert!(letters == 0.0, "{letters} dead letters:\n{}", instance.log());
    }
    check_counters(&cluster);
    // And they still agree.
    cluster.converge(&keys, &expected, Duration::ZERO);
}

#[test]
fn a_standby_takes_over_from_a_killed_holder() {
    let Some(_alone) = alone() else { return };
    let Some(mut cluster) = Cluster::start() else { return };
    let key = cluster.server.documents().into_keys().next().unwrap();
    for life in 0..INSTANCES {
        until("somebody captures", || cluster.holder().is_some());
        let version = cluster.update(&key, 0.25);
        cluster.until_version(&key, version);
        let holder = cluster.holder().expect("a holder");
        let killed = Instant::now();
        cluster.kill(holder);
        let version = cluster.update(&key, life as f64 / 10.0);
        cluster.until_version(&key, version);
        let took = killed.elapsed();
        eprintln!("a change was everywhere {took:?} after the holder was killed");
        // The promise is 5 s on a machine that has time.
        assert!(took < Duration::from_secs(20), "{took:?}");
        cluster.run(holder);
        cluster.instance(holder).until_ready();
    }
}

#[test]
fn a_cluster_is_one_command_which_the_death_of_an_instance_does_not_end_and_a_signal_does() {
    let Some(_alone) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Command::new(env!("CARGO_BIN_EXE_smartpulse"))
        .args(["dev", "cluster"])
        .env("SMARTPULSE__DATA_DIR", folder.path())
        .env("SMARTPULSE__API__LISTEN", "127.0.0.1:0")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(cluster.stdout.take().unwrap());
    let instances: Vec<(String, String)> = output
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["instance", _, "pid", pid, url] => Some((pid.to_owned(), url.to_owned())),
                _ => None,
            }
        })
        .take(INSTANCES)
        .collect();
    assert_eq!(instances.len(), INSTANCES, "it prints a line for each instance");

    kill("-KILL", &instances[0].0);
    let page = |url: &str| get(url, "/api/forecasts?take=500").filter(|answer| answer.status == 200);
    let sum = |url: &str| -> Option<i64> {
        let items = page(url)?.json()["items"].as_array()?.clone();
        Some(items.iter().filter_map(|item| item["versionId"].as_i64()).sum())
    };
    for (_, url) in &instances[1..] {
        let before = sum(url).expect("an answer");
        until("the others see changes", || sum(url).is_some_and(|now| now > before));
    }

    kill("-TERM", &cluster.id().to_string());
    let status = cluster.wait().unwrap();
    assert!(status.success(), "{status}");
    for (pid, url) in &instances {
        assert!(!Path::new("/proc").join(pid).exists(), "{url} is still there");
    }
}

/// Sends a signal.
fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// What is taken away, and how often it was.
#[derive(Debug, Default)]
struct Chaos {
    kills: usize,
    unloads: usize,
    redis_kept: usize,
    redis_lost: usize,
}

impl Chaos {
    fn strike(&mut self, cluster: &mut Cluster, done: usize, of: usize, readers: &[Reader]) {
        if self.redis_kept == 0 && done > of / 3 {
            cluster.redis.restart(Data::Kept);
            self.redis_kept += 1;
        } else if self.redis_lost == 0 && done > of * 2 / 3 {
            cluster.redis.restart(Data::Lost);
            self.redis_lost += 1;
        } else if random(3) == 0 {
            let topic = TOPICS[usize::try_from(random(TOPICS.len() as u64)).unwrap()];
            cluster.broker.unload(&cluster.namespace, topic);
            self.unloads += 1;
        } else {
            // One after the other, or two at once; what is down may still be starting when it is killed again.
            let n = usize::try_from(random(INSTANCES as u64)).unwrap();
            match cluster.slots[n].instance {
                Some(_) => {
                    cluster.kill(n);
                    self.kills += 1;
                }
                None => readers[n].turn_to(cluster, n),
            }
        }
        std::thread::sleep(Duration::from_millis(random(2_000)));
    }

    /// Everything is there again.
    fn end(&self, cluster: &mut Cluster, readers: &[Reader]) {
        for (n, reader) in readers.iter().enumerate() {
            if cluster.slots[n].instance.is_none() {
                reader.turn_to(cluster, n);
            }
        }
        cluster.until_ready();
        assert!(self.kills > 0 && self.redis_lost == 1, "too little happened: {self:?}");
    }
}

/// How much is written.
#[derive(Clone, Copy)]
struct Plan {
    changes: usize,
    /// How many of them while things are taken away.
    in_chaos: usize,
    /// Changes a second.
    rate: usize,
}

/// Programs that write to the database: inserts of all keys, then updates, deletes and re-creations.
struct Writers {
    done: Arc<AtomicUsize>,
    /// Whether the last changes can be made.
    calm: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Instant>>,
}

impl Writers {
    fn start(cluster: &Cluster, keys: &Arc<[String]>, plan: Plan) -> Self {
        let (done, calm) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let threads = (0..WRITERS).map(|n| {
            let (keys, done, calm, database) = (keys.clone(), done.clone(), calm.clone(), cluster.server.database());
            let own: Vec<usize> = (n..keys.len()).step_by(WRITERS).collect();
            std::thread::spawn(move || block_on(write(&database, &own, &done, &calm, plan)))
        });
        Self { threads: threads.collect(), done, calm }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// When the last change was committed.
    fn join(self) -> Instant {
        self.threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    }
}

async fn write(
    database: &SqlServerDatabase,
    own: &[usize],
    done: &AtomicUsize,
    calm: &AtomicBool,
    plan: Plan,
) -> Instant {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64((WRITERS * ROWS_AT_ONCE) as f64 / plan.rate as f64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let company = |n: usize| 1 + n as u64 % 5;
    let insert = |n: usize| {
        let date = "2016-01-02T03:04:05.000Z";
        Write::Insert { members: company_forecast(FIRST_KEY + n as u64, company(n), date, random(1_000) as f64) }
    };
    let mut alive: BTreeSet<usize> = BTreeSet::new();
    let mut next = own.iter().copied();
    let mut last = Instant::now();
    while done.fetch_add(ROWS_AT_ONCE, Ordering::Relaxed) < plan.changes {
        while done.load(Ordering::Relaxed) > plan.in_chaos + WRITERS * ROWS_AT_ONCE && !calm.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut rows: BTreeMap<usize, Write> = BTreeMap::new();
        while rows.len() < ROWS_AT_ONCE.min(own.len()) {
            let n = next.next().unwrap_or_else(|| own[usize::try_from(random(own.len() as u64)).unwrap()]);
            let key = Key::from(uuid(FIRST_KEY + n as u64).as_str());
            rows.entry(n).or_insert_with(|| match (alive.contains(&n), random(10)) {
                (false, _) => insert(n),
                (true, 0) => Write::Delete { key, expected_version: None },
                // Another unit's, or another demand: lists and documents change.
                (true, 1) => update(key, &json!({ "productionUnitId": uuid(1_001 + random(5)) })),
                (true, _) => update(key, &json!({ "demand": random(1_000_000) as f64 / 7.0 })),
            });
        }
        for (n, write) in &rows {
            match write {
                Write::Delete { .. } => alive.remove(n),
                _ => alive.insert(*n),
            };
        }
        let written = database.write("Forecasts", rows.into_values().collect()).await.expect("the database is there");
        last = Instant::now();
        assert!(written.iter().all(|written| matches!(written, Written::Done(_))), "{written:?}");
        ticks.tick().await;
    }
    last
}

fn update(key: Key, members: &Value) -> Write {
    Write::Update { key, expected_version: None, members: members.as_object().cloned().unwrap() }
}

/// A client that publishes captured changes again, late and several times, and knows all that were captured.
struct Repeater {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(BTreeSet<(String, i64)>, usize)>,
}

impl Repeater {
    fn start(cluster: &Cluster) -> Self {
        let config = PulsarConfig {
            namespace: cluster.namespace.clone(),
            connect_timeout_ms: 20_000,
            operation_timeout_ms: 20_000,
            ..PulsarConfig::new(&cluster.broker.service_url)
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Self { stop, thread: std::thread::spawn(move || block_on(repeat(&config, &stopped))) }
    }

    /// The keys and versions on the topic, and how many messages were repeated.
    fn join(self) -> (BTreeSet<(String, i64)>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn repeat(config: &PulsarConfig, stop: &AtomicBool) -> (BTreeSet<(String, i64)>, usize) {
    const QUIET: Duration = Duration::from_secs(3);
    let subscribe = Subscribe {
        topic: TOPICS[0].to_owned(),
        subscription: "repeater".to_owned(),
        kind: SubscriptionType::Exclusive,
        initial: InitialPosition::Earliest,
        durable: true,
    };
    let (mut captured, mut repeated) = (BTreeSet::new(), 0);
    let mut late: Vec<Outgoing> = Vec::new();
    let bus = PulsarBus::connect(config).await.unwrap();
    // An unloaded topic ends the consumer: a new one goes on where it was.
    'consumers: loop {
        let Ok(mut consumer) = bus.subscribe(subscribe.clone()).await else { continue };
        loop {
            let messages = match tokio::time::timeout(QUIET, consumer.receive(100)).await {
                Ok(Ok(messages)) => messages,
                Ok(Err(_)) => continue 'consumers,
                Err(_) if stop.load(Ordering::Relaxed) => return (captured, repeated),
                Err(_) => continue,
            };
            for message in &messages {
                let envelope: Value = serde_json::from_slice(&message.payload).unwrap();
                let (key, version) = (envelope["EntityId"].as_str().unwrap(), envelope["VersionId"].as_i64().unwrap());
                if captured.insert((key.to_owned(), version)) && random(DUPLICATED) == 0 {
                    let (payload, properties) = (message.payload.clone(), message.properties.clone());
                    late.push(Outgoing { key: message.key.clone(), payload, properties });
                }
            }
            let ids: Vec<_> = messages.into_iter().map(|message| message.id).collect();
            if consumer.acker().ack(&ids).await.is_err() {
                continue 'consumers;
            }
            // In any order, some at once and some much later.
            while late.len() > 50 {
                let again = late.swap_remove(usize::try_from(random(late.len() as u64)).unwrap());
                if bus.publish(TOPICS[0], vec![again.clone(), again]).await.is_ok() {
                    repeated += 2;
                }
            }
        }
    }
}

/// Reads random keys of one instance after the other, and sees to it that none goes back while the instance lives.
struct Reader {
    address: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Reader {
    fn start(n: usize, cluster: &Cluster, keys: &Arc<[String]>) -> Self {
        let base = cluster.slots[n].instance.as_ref().map(|instance| instance.base().to_owned());
        let address = Arc::new(Mutex::new(base.unwrap_or_default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (keys, from, stopped) = (keys.clone(), address.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let (mut base, mut reads) = (String::new(), 0);
            let mut seen: BTreeMap<String, i64> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                let now = from.lock().unwrap().clone();
                if now != base {
                    // Another life, which begins with nothing.
                    (base, seen) = (now, BTreeMap::new());
                }
                let key = &keys[usize::try_from(random(keys.len() as u64)).unwrap()];
                if let Some(answer) = get(&base, &format!("/api/forecasts/{key}")).filter(|answer| answer.status == 200)
                {
                    let version = answer.json()["versionId"].as_i64().unwrap();
                    let before = seen.insert(key.clone(), version).unwrap_or(0);
                    assert!(
                        version >= before,
                        "{key} of {base} went from {before} to {version}, from {}",
                        answer.level
                    );
                    reads += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            reads
        });
        Self { address, stop, thread }
    }

    /// Starts an instance again, and reads from its new life.
    fn turn_to(&self, cluster: &mut Cluster, n: usize) {
        cluster.run(n);
        cluster.instance(n).base().clone_into(&mut self.address.lock().unwrap());
    }

    fn join(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The versions that the database has of these keys: of a deleted row its tombstone's.
fn versions(cluster: &Cluster, keys: &[String]) -> BTreeMap<String, i64> {
    let counters = cluster.counters();
    keys.iter().filter_map(|key| Some((key.clone(), counters.get(key)?.1))).collect()
}

/// Every known counter is that of the database; where Redis lost its data, one may be unknown until the key changes again.
fn check_counters(cluster: &Cluster) {
    let start = Instant::now();
    loop {
        let counters = cluster.counters();
        let unknown = counters.values().filter(|(counter, _)| counter.is_none()).count();
        let wrong: Vec<_> = counters
            .iter()
            .filter(|(_, (counter, version))| counter.is_some_and(|counter| counter != *version))
            .collect();
        if wrong.is_empty() {
            eprintln!("{} counters match, {unknown} are unknown", counters.len() - unknown);
            return;
        }
        assert!(start.elapsed() < AUDITED_WITHIN, "counter and version differ: {wrong:?}");
        eprintln!("{} counters differ after {:?}: {:?}", wrong.len(), start.elapsed(), wrong.first());
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// What the cache of one life took over: no key ever goes back a version.
fn check_applied(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    // The kill may have cut the last line.
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let applied = lines.map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let (key, version) = (line["key"].as_str().unwrap(), line["version"].as_i64().unwrap());
        let before = last.insert(key.to_owned(), version).unwrap_or_default();
        assert!(version >= before, "{key} went from {before} to {version} in {}", log.display());
    });
    applied.count()
}
