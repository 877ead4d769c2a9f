//! From commit to visible, hop by hop.

use crate::asking::Client;
use crate::cluster::Cluster;
use crate::load::{Commit, Load, change};
use crate::observe::{self, Seen, added, bound_ms, now, sums};
use crate::process::random;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What is measured, and what runs before it is.
const MEASURED: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(15);

/// How often a change is followed by asking all instances for it: all changes are followed on bus and channels.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// How long is waited before an instance that has not got a change yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// First changes after nothing changed for this long, and some more so that they fall anywhere into the poll's interval.
const IDLE: Duration = Duration::from_millis(1_200);
const IDLE_MORE_MS: u64 = 250;
const IDLE_SAMPLES: usize = 100;

/// How long nothing changes before the very last one.
const LONG_IDLE: Duration = Duration::from_secs(101);

/// How long the rest may take to arrive.
const SETTLE: Duration = Duration::from_secs(2);

/// A change that all instances have answered with.
struct Visible {
    commit: Commit,
    /// When the last of them did.
    at: u64,
    /// Whether all had it in memory.
    applied: bool,
}

/// Those who look at changes on their way.
pub struct Lookout<'a> {
    cluster: &'a Cluster,
    keys: &'a Arc<[String]>,
    bus: Seen,
    broadcasts: Seen,
    askers: Askers,
}

impl<'a> Lookout<'a> {
    pub fn start(cluster: &'a Cluster, keys: &'a Arc<[String]>) -> Self {
        let (bus, broadcasts) = (observe::bus(cluster), observe::broadcasts(cluster));
        Self { cluster, keys, bus, broadcasts, askers: Askers::start(cluster, keys) }
    }

    /// With so many changes a second.
    pub fn under_load(&self, rate: usize) {
        let load = Load::start(self.cluster, self.keys, rate);
        sleep(WARM_UP);
        let (begin, before) = (now(), self.histograms());
        let (start, mut visible) = (Instant::now(), Vec::new());
        while start.elapsed() < MEASURED {
            visible.push(self.askers.ask(load.next()));
            sleep(SAMPLE_EVERY);
        }
        let (seconds, end, after) = (start.elapsed().as_secs_f64(), now(), self.histograms());
        let mut commits = load.end();
        commits.retain(|commit| (begin..end).contains(&commit.returned));
        sleep(SETTLE);
        heading(&format!("{:.0} changes/s", commits.len() as f64 / seconds));
        self.report(&commits, &visible);
        for (name, (before, after)) in
            ["publishing a batch*", "visible on one instance*"].iter().zip(before.iter().zip(after))
        {
            let buckets = added(before, after);
            let bound = |share: f64| format!("<{:.1}", bound_ms(&buckets, share));
            println!("{name:<42} {:>8} {:>8}", bound(0.5), bound(0.99));
        }
        println!("* by component_latency_seconds of the capturing instance's sink, and by commit_to_cache_seconds");
    }

    /// What instances measure themselves: the sink that publishes what was captured, and the cache.
    fn histograms(&self) -> [BTreeMap<String, f64>; 2] {
        [("component_latency_seconds_bucket", "component=\"topics\""), ("commit_to_cache_seconds_bucket", "")]
            .map(|(name, label)| sums(self.cluster, name, &[label], "le"))
    }

    /// The first change after nothing has changed for a while.
    pub fn after_idle(&self) {
        let database = self.cluster.server.database();
        // One for all changes: a connection lives with its runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut visible = Vec::new();
        let mut first = |idle: Duration| {
            sleep(idle);
            let key = usize::try_from(random(self.keys.len() as u64)).expect("a key");
            visible.push(self.askers.ask(runtime.block_on(change(&database, self.keys, key))));
        };
        for _ in 0..IDLE_SAMPLES {
            first(IDLE + Duration::from_millis(random(IDLE_MORE_MS)));
        }
        first(LONG_IDLE);
        let commits: Vec<Commit> = visible.iter().map(|visible| visible.commit).collect();
        heading("first change after idle");
        self.report(&commits, &visible);
        let last = visible.last().expect("a change");
        println!("after {LONG_IDLE:?} without a change: {:.1} ms", ms(last.at, last.commit.returned));
    }

    fn report(&self, commits: &[Commit], visible: &[Visible]) {
        let (bus, broadcasts) = (self.bus.lock().expect("a map"), self.broadcasts.lock().expect("a map"));
        let of = |commit: &Commit| (self.keys[commit.key].clone(), commit.version);
        let all = commits.iter();
        line("(the statement: sent -> answered)", all.clone().map(|c| ms(c.returned, c.began)));
        line(
            "captured and handed to the bus",
            all.clone().filter_map(|c| Some(ms(bus.get(&of(c))?.handed?, c.returned))),
        );
        line("published and consumed", all.clone().filter_map(|c| Some(ms(bus.get(&of(c))?.at, c.returned))));
        line("broadcast", all.filter_map(|c| Some(ms(broadcasts.get(&of(c))?.at, c.returned))));
        let applied = visible.iter().filter(|visible| visible.applied);
        line("applied: visible on all three", applied.clone().map(|v| ms(v.at, v.commit.returned)));
        line("the same from the statement's beginning", applied.clone().map(|v| ms(v.at, v.commit.began)));
        let loaded = visible.len() - applied.count();
        println!("{loaded} of {} were loaded by a reader before the patch was there", visible.len());
    }
}

fn heading(what: &str) {
    println!("\n{what:<42} {:>8} {:>8} {:>8}  ms from the statement's answer", "p50", "p99", "max");
}

fn ms(later: u64, earlier: u64) -> f64 {
    (later as f64 - earlier as f64) / 1e3
}

/// Prints the middle, the 99th percentile and the greatest.
pub fn line(name: &str, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return println!("{name:<42} nothing") };
    let at = |share: f64| values[((values.len() as f64 * share) as usize).min(last)];
    println!("{name:<42} {:>8.1} {:>8.1} {:>8.1}  ({})", at(0.5), at(0.99), values[last], values.len());
}

/// A client of each instance, which ask at the same time.
struct Askers(Vec<(Sender<Commit>, Receiver<Found>)>);

/// When a change was found, and whether it was in memory.
type Found = (u64, bool);

impl Askers {
    fn start(cluster: &Cluster, keys: &Arc<[String]>) -> Self {
        let asker = |address: String| {
            let (ask, asked) = channel::<Commit>();
            let (found, answers) = channel();
            let keys = keys.clone();
            std::thread::spawn(move || {
                for commit in asked {
                    // A connection of its own: one that is silent for long is closed.
                    let mut client = Client::open(&address);
                    let level = loop {
                        let answer = client.read(&keys[commit.key]);
                        if answer.version >= commit.version {
                            break answer.level;
                        }
                        sleep(ASK_AGAIN);
                    };
                    if found.send((now(), level == "L1")).is_err() {
                        return;
                    }
                }
            });
            (ask, answers)
        };
        Self(cluster.instances().map(|instance| asker(instance.address())).collect())
    }

    /// Waits until all instances answer with a change.
    fn ask(&self, commit: Commit) -> Visible {
        self.0.iter().for_each(|(ask, _)| ask.send(commit).expect("an asker"));
        let found: Vec<Found> = self.0.iter().map(|(_, found)| found.recv().expect("an answer")).collect();
        let at = found.iter().map(|(at, _)| *at).max().expect("instances");
        Visible { commit, at, applied: found.iter().all(|(_, applied)| *applied) }
    }
}
