//! Three instances on a real Redis, a real Pulsar and the stand-in for SQL Server: how long a change takes from its commit
//! until all three answer with it, and how often reads reach the database.
//!
//! What: 10,000 forecasts; each change is a transaction of one row by one of four writers. `capture.yaml` polls every 10 ms, by
//! change tracking: SQL Server's own capture job, which mode `cdc` waits for, looks every 5 s by default, and the stand-in's
//! every 100 ms. It runs the slowest idle stage, 200 ms, after 1 s already, so that first changes after idle can be sampled;
//! under load nothing is idle. All else is as in `config/`.
//!
//! Hops, as anybody may see them: `captured` is the message's publish time; `consumed` is when one more consumer of the topic
//! has it; `broadcast` when one more subscriber of the channels has it; `applied` when all three instances answer `GET
//! /api/forecasts/{id}` with it, each asked every millisecond about a sample of the changes. All from the moment when the
//! writer had the database's answer, by the one clock of the machine. The floor is what no database, bus or version costs:
//! times in memory, looked for every 10 ms and published to three subscribers of the same Redis.
//!
//! Reads: 3,000 a second by six clients, two of each instance, Zipf 1.0 over the 10,000, beside 500 changes a second, after
//! 75 s of the same; levels by `X-Cache-Level`, queries by `database_queries_total` of all instances. What capture itself asks
//! (`changes`, its lease) is printed too, and does not depend on reads.
//!
//! Result so far: the goal (p99 below 30 ms at 1,000 changes/s) is missed. One run of a release build on two idle processors of a
//! shared 2 GHz Xeon; p50 / p99 / max in ms from the writer's answer; the floor 5.5 / 10.6 / 15.9:
//!
//! | | captured | consumed | broadcast | applied on all three |
//! | --- | --- | --- | --- | --- |
//! | 20 changes/s | 95 / 164 / 232 | 114 / 189 / 236 | 115 / 188 / 237 | 117 / 192 / 239 |
//! | asked for 1,000/s, 495 committed | 186 / 371 / 451 | 282 / 2,821 / 2,943 | 356 / 9,284 / 9,427 | 302 / 6,596 / 9,419 |
//!
//! At rest all but some 22 ms of it is capture, of which most is the stand-in's answer to a poll by change tracking (220 ms before
//! it read them by version). At the higher rate both processors are full, and what follows falls behind. `idle` and `reads`
//! have not been run.
//!
//! Run: `cargo bench -p smartpulse --features full --bench cluster [-- latency | idle | reads]`, on more than one processor. All
//! of it shares the machine: Pulsar's JVM, Redis, the stand-in, three instances, writers and observers.

mod asking;
mod floor;
mod latency;
mod load;
mod observe;
mod reads;

#[path = "../../../pipeline/cli/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../pipeline/cli/tests/process/mod.rs"]
mod process;
#[path = "../../../pipeline/cli/tests/server/mod.rs"]
mod server;

use cluster::Cluster;
use process::{LIVE, block_on, pipeline};
use smartpulse_clients::database::{Database, Write};
use smartpulse_testing::{company_forecast, uuid};
use std::sync::Arc;

const KEYS: usize = 10_000;

/// The number of the first key: far from those of the week.
const FIRST_KEY: u64 = 1_000_000;

/// Changes a second: those of the goal, and few, between which everything comes to rest.
const RATES: [usize; 2] = [1_000, 20];

/// Rows in a transaction while the database is filled.
const FILL_ROWS: usize = 500;

/// Of `capture.yaml`: how rows are captured, and what is measured instead.
const CAPTURE: (&str, &str) = (
    "    mode: cdc ",
    "    poll_interval_ms: 10\n    idle_stages: [{ after_s: 1, interval_ms: 200 }]\n    mode: change_tracking ",
);

fn main() {
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        println!("skipped: a cluster wants more than one processor; run it by itself, without taskset");
        return;
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let Some(mut cluster) = Cluster::engines() else { return };
    let keys: Arc<[String]> = (0..KEYS).map(|n| uuid(FIRST_KEY + n as u64)).collect();
    fill(&cluster);
    cluster.set_pipelines(&LIVE.map(|name| (name, text(name))));
    cluster.run_all();
    let expected = cluster.server.documents();
    cluster.converge(&keys, &expected, process::PATIENCE);
    let lookout = latency::Lookout::start(&cluster, &keys);
    if wanted("latency") {
        RATES.iter().for_each(|rate| lookout.under_load(*rate));
        floor::measure(&cluster);
    }
    if wanted("idle") {
        lookout.after_idle();
    }
    if wanted("reads") {
        reads::measure(&cluster, &keys);
    }
}

/// A pipeline of the repository, with the poll that is measured.
fn text(name: &str) -> String {
    let text = std::fs::read_to_string(pipeline(name)).expect("a pipeline");
    assert!(name != "capture" || text.contains(CAPTURE.0), "capture.yaml is another");
    text.replace(CAPTURE.0, CAPTURE.1)
}

fn fill(cluster: &Cluster) {
    let database = cluster.server.database();
    block_on(async {
        for rows in (0..KEYS as u64).collect::<Vec<_>>().chunks(FILL_ROWS) {
            let row = |n: &u64| company_forecast(FIRST_KEY + n, 1, "2016-01-02T03:04:05.000Z", 0.5);
            let inserts = rows.iter().map(|n| Write::Insert { members: row(n) }).collect();
            database.write("Forecasts", inserts).await.expect("a database");
        }
    });
}
