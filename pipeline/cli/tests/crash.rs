//! `kill -9` at random moments while changes flow: nothing is lost, skipped or applied twice.

mod process;

use process::{APPLIED, Instance, LIVE, documents, foreign_connection, load_week, pipeline, random, until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lives that end by `kill -9`.
const KILLS: usize = 30;

#[test]
fn thirty_kills_lose_nothing_skip_nothing_and_apply_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    load_week(folder);
    let applied = folder.join("applied.yaml");
    std::fs::write(&applied, APPLIED).unwrap();
    let mut files: Vec<PathBuf> = LIVE.map(pipeline).to_vec();
    files.extend([pipeline("player"), applied]);
    let start = |life: usize, rate: u32| {
        let log = folder.join(format!("applied-{life}.ndjson"));
        let rate = format!("player.changes_per_second={rate}");
        Instance::run(folder, &files, &[&rate], &[("APPLIED", log.to_str().unwrap())])
    };

    // The first life takes the snapshot in peace, so that every later change is streamed.
    let mut instance = start(0, 0);
    instance.until_ready();
    until("the snapshot is published", || topic_versions(folder, "cdc:forecasts").len() == 196);
    instance.kill();

    for life in 1..=KILLS {
        let mut instance = start(life, 2_000);
        // Half of the lives end before or around their start, half while the changes flow.
        if life % 2 == 0 {
            instance.until_ready();
        }
        std::thread::sleep(Duration::from_millis(random(400)));
        instance.kill();
    }

    let mut instance = start(KILLS + 1, 0);
    instance.until_ready();
    let expected = documents(folder);
    let latest: BTreeMap<&str, i64> = expected.iter().map(|(id, d)| (id.as_str(), version(d))).collect();
    assert!(latest.values().sum::<i64>() > 2_000, "the player has hardly written: {}", latest.values().sum::<i64>());

    until("every document in memory equals its row", || {
        expected.iter().all(|(id, document)| {
            let answer = instance.forecast(id);
            answer.status == 200 && answer.level == "L1" && answer.json() == *document
        })
    });
    // Beyond the snapshot every version of every key is on the bus, and so is what was derived from it.
    let every: BTreeSet<(String, i64)> =
        latest.iter().flat_map(|(id, last)| (2..=*last).map(|version| ((*id).to_owned(), version))).collect();
    for topic in ["cdc:forecasts", "forecast:updated", "forecast:invalidation"] {
        until(&format!("all versions are on {topic}"), || every.is_subset(&topic_versions(folder, topic)));
    }
    instance.kill();
    for life in 0..=KILLS + 1 {
        check_applied(&folder.join(format!("applied-{life}.ndjson")));
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
        let whole = message["PatchItems"][0]["Path"] == "";
        match last.insert(key.to_owned(), version) {
            Some(before) => assert_eq!(version, before + 1, "{key} in {}", log.display()),
            None => assert!(whole, "the first message of a life carries the whole document: {line}"),
        }
    }
}

/// The keys and versions that were published on a topic.
fn topic_versions(folder: &Path, topic: &str) -> BTreeSet<(String, i64)> {
    let connection = foreign_connection(folder, "smartpulse.db");
    let sql = "SELECT m.key, json_extract(m.properties, '$.version') FROM bus_messages m
               JOIN bus_topics t ON t.id = m.topic WHERE t.name = ?1";
    let Ok(mut statement) = connection.prepare(sql) else { return BTreeSet::new() };
    let rows = statement
        .query_map([topic], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .unwrap()
        .map(|row| row.map(|(key, version)| (key, version.parse().unwrap())));
    rows.collect::<Result<_, _>>().unwrap()
}

fn version(document: &Value) -> i64 {
    document["versionId"].as_i64().unwrap()
}
