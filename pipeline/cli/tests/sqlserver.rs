//! The live pipelines, unchanged, on SQL Server: the settings alone say so. The server is the stand-in, a process of its
//! own (`smartpulse dev sqlserver`).
//!
//! Needs the feature `stand-in`: `cargo test -p smartpulse --features full --test sqlserver`.

mod process;
mod server;

use process::{APPLIED, Instance, LIVE, block_on, foreign_connection, pipeline, random, until};
use serde_json::{Value, json};
use server::Server;
use smartpulse_clients::database::{Database, Write};
use smartpulse_pipeline::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: each has a server and instances of its own, and a lease that a starved instance would rightly lose.
static ALONE: Mutex<()> = Mutex::new(());

/// Lives of the pipeline that end by `kill -9`, each with or without an end of the server.
const KILLS: usize = 12;

fn version(document: &Value) -> i64 {
    document["versionId"].as_i64().unwrap()
}

/// A captured change on an instance's bus.
#[derive(Debug)]
struct Captured {
    key: String,
    version: i64,
    epoch: u64,
}

/// The captured forecasts on an instance's bus, in their order.
fn captured(folder: &Path) -> Vec<Captured> {
    if !folder.join("smartpulse.db").exists() {
        return Vec::new();
    }
    let connection = foreign_connection(folder, "smartpulse.db");
    let sql = "SELECT m.payload FROM bus_messages m JOIN bus_topics t ON t.id = m.topic
               WHERE t.name = 'cdc:forecasts' ORDER BY m.id";
    let Ok(mut statement) = connection.prepare(sql) else { return Vec::new() };
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    rows.map(|payload| {
        let envelope: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
        Captured {
            key: envelope["EntityId"].as_str().unwrap().to_owned(),
            version: envelope["VersionId"].as_i64().unwrap(),
            epoch: envelope["Epoch"].as_u64().unwrap(),
        }
    })
    .collect()
}

/// Every version of every forecast behind the first.
fn every_version(latest: &BTreeMap<String, Value>) -> BTreeSet<(String, i64)> {
    latest.iter().flat_map(|(id, last)| (2..=version(last)).map(|version| (id.clone(), version))).collect()
}

#[test]
fn the_live_pipelines_run_unchanged_and_a_row_that_anybody_writes_is_answered_from_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let data = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut instance = server.run(folder.path(), &LIVE.map(pipeline), &[]);
    instance.until_ready();
    until("the snapshot is applied", || instance.metric("component_events_out_total", &["broadcast"]) >= 196.0);

    let documents = server.documents();
    let (id, before) = documents.iter().next().unwrap();
    let key = Key::from(id.as_str());
    let members = json!({ "demand": 0.4321 }).as_object().cloned().unwrap();
    let update = Write::Update { key: key.clone(), expected_version: None, members };
    block_on(async { server.database().write("Forecasts", vec![update]).await.unwrap() });
    until("the answer has the next version", || {
        let answer = instance.forecast(id);
        answer.status == 200 && answer.json()["versionId"] == version(before) + 1
    });
    let after = instance.forecast(id);
    assert_eq!((after.level.as_str(), &after.json()["demand"]), ("L1", &json!(0.4321)));
    assert_eq!(after.json(), server.documents()[id], "the row has one spelling");

    let delete = Write::Delete { key, expected_version: None };
    block_on(async { server.database().write("Forecasts", vec![delete]).await.unwrap() });
    until("the forecast is gone", || instance.forecast(id).status == 404);
    let topic = |name: &str| {
        let sql = "SELECT count(*) FROM bus_messages m JOIN bus_topics t ON t.id = m.topic WHERE t.name = ?1";
        let connection = foreign_connection(folder.path(), "smartpulse.db");
        connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).unwrap_or(0)
    };
    until("the events are derived", || topic("forecast:updated") == 1 && topic("forecast:invalidation") >= 198);

    // The tools see the ledger in the database.
    let tool = |args: &[&str]| {
        let variables = server.variables();
        let output = Command::new(env!("CARGO_BIN_EXE_smartpulse"))
            .args(args)
            .env("SMARTPULSE__DATA_DIR", folder.path())
            .envs(variables)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, shown) = tool(&["position", "show"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("capture/changes/Forecasts") && shown.contains("in main_db, held by"), "{shown}");
    let (code, refused) = tool(&["position", "reset", "capture/changes"]);
    assert_eq!(code, Some(1), "{refused}");
    let (code, asked) = tool(&["resnapshot", "capture/changes/ProductionUnits"]);
    assert_eq!(code, Some(0), "{asked}");
    until("the units are scanned again", || topic("cdc:units") >= 56);
    let capture = pipeline("capture");
    let (code, plan) = tool(&["plan", capture.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{plan}");
    assert!(plan.contains("Forecasts") && plan.contains("change_tracking"), "{plan}");

    let (code, log) = instance.terminate();
    assert_eq!(code, Some(0), "{log}");
    let (_, shown) = tool(&["position", "show"]);
    assert!(shown.contains("held by nobody"), "{shown}");
}

#[test]
fn kills_of_the_pipeline_and_restarts_of_the_server_lose_repeat_and_reorder_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let data = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut server = Server::start(data.path());
    let applied = folder.join("applied.yaml");
    std::fs::write(&applied, APPLIED).unwrap();
    let mut files: Vec<PathBuf> = LIVE.map(pipeline).to_vec();
    files.push(applied);
    let log = |life: usize| folder.join(format!("applied-{life}.ndjson"));
    let start = |server: &Server, life: usize| server.run(folder, &files, &[("APPLIED", log(life).to_str().unwrap())]);

    // The first life takes the snapshot in peace, so that every later change is streamed.
    let mut instance = start(&server, 0);
    instance.until_ready();
    until("the snapshot is published", || captured(folder).len() == 196);
    instance.kill();

    let stop = Arc::new(AtomicBool::new(false));
    let writer = server.writer(stop.clone(), Duration::from_millis(2));
    for life in 1..=KILLS {
        let mut instance = start(&server, life);
        if life % 2 == 0 {
            instance.until_ready();
        }
        std::thread::sleep(Duration::from_millis(random(600)));
        if life % 3 == 0 {
            // The server goes under a running pipeline, which waits for it, or dies meanwhile.
            server.kill();
            std::thread::sleep(Duration::from_millis(random(1_500)));
            server.restart();
            if life % 2 == 0 {
                let published = captured(folder).len();
                server.until_answering();
                let back = Instant::now();
                until("capture resumes", || captured(folder).len() > published);
                eprintln!("capture resumed {:?} after the server's return", back.elapsed());
            }
        }
        instance.kill();
    }
    server.until_answering();
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    assert!(written > 200, "the writer has hardly written: {written}");

    let mut instance = start(&server, KILLS + 1);
    instance.until_ready();
    let expected = server.documents();
    until("every document in memory equals its row", || {
        expected.iter().all(|(id, document)| {
            let answer = instance.forecast(id);
            answer.status == 200 && answer.level == "L1" && answer.json() == *document
        })
    });
    let every = every_version(&expected);
    until("all versions are on the bus", || {
        let told: BTreeSet<(String, i64)> = captured(folder).into_iter().map(|c| (c.key, c.version)).collect();
        every.is_subset(&told)
    });
    instance.kill();
    for life in 0..=KILLS + 1 {
        check_applied(&log(life));
    }
}

/// Within one life each key's versions rise by exactly one, from its first message on.
fn check_applied(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    // The kill may have cut the last line.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let message: Value = serde_json::from_str(line).unwrap();
        let (key, version) = (message["DataKey"].as_str().unwrap(), message["VersionId"].as_i64().unwrap());
        if let Some(before) = last.insert(key.to_owned(), version) {
            assert_eq!(version, before + 1, "{key} in {}", log.display());
        }
    }
}

/// Stops a process, or lets it go on.
fn signal(instance: &Instance, signal: &str) {
    let status = Command::new("kill").args([signal, &instance.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Two instances, of which the one that captures is paused and followed by the other.
fn pause_the_holder(pause: Duration) {
    let data = tempfile::tempdir().unwrap();
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let capture = [pipeline("capture")];
    let mut first = server.run(one.path(), &capture, &[]);
    first.until_ready();
    until("the snapshot is published", || captured(one.path()).len() == 196);
    let mut second = server.run(other.path(), &capture, &[]);
    second.until_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = server.writer(stop.clone(), Duration::from_millis(5));
    until("the first one captures", || captured(one.path()).len() > 230);
    assert!(captured(other.path()).is_empty(), "one captures at a time");

    let paused = Instant::now();
    signal(&first, "-STOP");
    until("the second one captures", || captured(other.path()).len() > 100);
    std::thread::sleep(pause.saturating_sub(paused.elapsed()));
    let before = captured(one.path()).len();
    let held = captured(other.path())[0].epoch;
    signal(&first, "-CONT");
    let published = captured(other.path()).len();
    until("the second one goes on", || captured(other.path()).len() > published + 100);
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 100);
    let expected = server.documents();
    let told = |folder: &Path| captured(folder).into_iter().map(|c| (c.key, c.version)).collect::<BTreeSet<_>>();
    until("every version is captured by one of them", || {
        let all: BTreeSet<(String, i64)> = told(one.path()).union(&told(other.path())).cloned().collect();
        every_version(&expected).is_subset(&all)
    });

    // What the first one still had in its hands is below the epoch of the second, and so refused.
    let late = &captured(one.path())[before..];
    assert!(late.iter().all(|change| change.epoch < held), "published after another took over: {late:?}");
    // As a consumer of both reads it, whatever the order in which the two publish: higher epochs win, nothing is missing.
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let firsts: Vec<Captured> = captured(one.path()).into_iter().filter(|change| change.epoch < held).collect();
    for change in firsts.into_iter().chain(captured(other.path())) {
        let known = last.entry(change.key.clone()).or_insert(change.version - 1);
        assert!(change.version <= *known + 1, "{change:?} follows {known}");
        *known = change.version.max(*known);
    }
    let latest: BTreeMap<String, i64> = expected.iter().map(|(id, document)| (id.clone(), version(document))).collect();
    assert_eq!(last, latest);

    // The first one stands by, and takes over when the second one ends.
    let (code, log) = second.terminate();
    assert_eq!(code, Some(0), "{log}");
    let id = latest.keys().next().unwrap();
    let members = json!({ "demand": 0.5 }).as_object().cloned().unwrap();
    let update = Write::Update { key: Key::from(id.as_str()), expected_version: None, members };
    block_on(async { server.database().write("Forecasts", vec![update]).await.unwrap() });
    until("the first one captures again", || captured(one.path()).iter().any(|change| change.epoch > held));
    let (code, log) = first.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_holder_that_is_paused_beyond_its_lease_publishes_nothing_that_counts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    pause_the_holder(Duration::ZERO);
}

#[test]
fn a_holder_that_is_paused_for_half_a_minute_publishes_nothing_that_counts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    pause_the_holder(Duration::from_secs(30));
}
