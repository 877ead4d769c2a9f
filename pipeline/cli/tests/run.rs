//! Runs of real pipelines by the real program: bounded ones to their end, live ones until they are stopped.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use support::{Done, Live, Place, pipeline, wait_until};

/// Five documents in order, a duplicate, a gap, and three lines that are no events.
const LINES: &str = r#"{"id":"a","versionId":1,"demand":1.5}
{"id":"b","versionId":1,"demand":2}
{"id":"a","versionId":2,"demand":1.75}
{"id":"a","versionId":2,"demand":1.75}
{broken
{"id":"a","versionId":5,"demand":9}
{"versionId":1}
{"id":"c","versionId":-4}
{"id":"b","versionId":2,"demand":2,"status":"Completed"}
"#;

fn diff_file(place: &Place) -> Done {
    place.write("in.ndjson", LINES);
    let mut command = place.command();
    command.arg("run").arg(pipeline("diff-file.yaml")).env("INPUT", "in.ndjson").env("OUTPUT", "out.ndjson");
    support::done(command.output().unwrap())
}

/// The row of a pipeline in the closing summary: heading to cell.
fn summary_of(stderr: &str, name: &str) -> BTreeMap<String, String> {
    let cells = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let heading = stderr.lines().find(|line| line.starts_with("pipeline ")).expect(stderr);
    let row = stderr.lines().find(|line| line.starts_with(&format!("{name} "))).expect(stderr);
    cells(heading).into_iter().zip(cells(row)).collect()
}

#[test]
fn a_bounded_run_gives_patches_a_summary_and_dead_letters() {
    let place = Place::new();
    let done = diff_file(&place).exits(0);
    let messages: Vec<Value> =
        place.read("out.ndjson").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<(&str, i64, usize, &str, &str)> = messages
        .iter()
        .map(|message| {
            let items = message["PatchItems"].as_array().unwrap();
            let text = |name: &str| items[0][name].as_str().unwrap();
            let version = message["VersionId"].as_i64().unwrap();
            (message["DataKey"].as_str().unwrap(), version, items.len(), text("Op"), text("Path"))
        })
        .collect();
    let expected = [
        ("a", 1, 1, "add", ""),
        ("b", 1, 1, "add", ""),
        ("a", 2, 2, "replace", "/versionId"),
        ("a", 5, 1, "replace", ""),
        ("b", 2, 2, "replace", "/versionId"),
    ];
    assert_eq!(seen, expected);

    let row = summary_of(&done.stderr, "diff-file");
    for (heading, number) in [
        ("events in", "9"),
        ("out", "5"),
        ("duplicates", "1"),
        ("gaps", "1"),
        ("conflicts", "0"),
        ("dead letters", "3"),
    ] {
        assert_eq!(row[heading], number, "{heading} in:\n{}", done.stderr);
    }
    assert!(done.stderr.contains("smartpulse dlq list --pipeline diff-file"), "{}", done.stderr);
    assert!(!done.stderr.contains('\u{1b}'), "no colours and no redrawn lines off a terminal");
}

#[test]
fn dead_letters_are_listed_shown_refused_for_replay_and_discarded() {
    let place = Place::new();
    diff_file(&place).exits(0);
    let table = place.run(["dlq", "list"]).exits(0).stdout;
    for expected in ["diff-file/documents", "line 5: not JSON", "line 7: no key", "line 8"] {
        assert!(table.contains(expected), "{expected} is missing in:\n{table}");
    }
    let list = || -> Vec<Value> {
        let lines = place.run(["dlq", "list", "--json"]).exits(0).stdout;
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let ids: Vec<String> = list().iter().map(|letter| letter["id"].to_string()).collect();
    assert_eq!(ids.len(), 3);
    let shown = place.run(["dlq", "show", &ids[2]]).exits(0).stdout;
    assert!(shown.contains("{broken") && shown.contains("file in.ndjson"), "{shown}");
    let refused = place.run(["dlq", "replay", &ids[2]]).exits(1);
    assert!(refused.stderr.contains("mend in.ndjson and run again"), "{}", refused.stderr);
    place.run(["dlq", "discard", &ids[2]]).exits(0);
    assert_eq!(list().len(), 2);
    let gone = place.run(["dlq", "discard", &ids[2]]).exits(1);
    assert!(gone.stderr.contains("1 of 1 do not exist"), "{}", gone.stderr);
    place.run(["dlq", "discard", "--all", "--pipeline", "other"]).exits(0);
    assert_eq!(list().len(), 2);
    place.run(["dlq", "discard", "--all"]).exits(0);
    assert_eq!(place.run(["dlq", "list"]).exits(0).stdout, "no dead letters\n");
}

#[test]
fn a_second_bounded_run_starts_fresh_and_leaves_the_same_output() {
    let place = Place::new();
    diff_file(&place).exits(0);
    let first = place.read("out.ndjson");
    diff_file(&place).exits(0);
    assert_eq!(place.read("out.ndjson"), first);
    assert_eq!(place.run(["dlq", "list", "--json"]).exits(0).stdout.lines().count(), 3, "the same letter once");
}

#[test]
fn a_failure_names_its_cause_and_gives_exit_code_1() {
    let place = Place::new();
    let mut command = place.command();
    command.arg("run").arg(pipeline("diff-file.yaml")).env("INPUT", "absent.ndjson").env("OUTPUT", "out.ndjson");
    let done = support::done(command.output().unwrap()).exits(1);
    for expected in ["error: pipeline diff-file cannot start", "because cannot read absent.ndjson", "No such file"] {
        assert!(done.stderr.contains(expected), "{expected} is missing in:\n{}", done.stderr);
    }
}

#[test]
fn tools_say_when_nothing_has_run_yet() {
    let place = Place::new();
    for args in [["position", "show"], ["dlq", "list"]] {
        let done = place.run(args).exits(1);
        assert!(done.stderr.contains("nothing has run on the data folder data yet"), "{}", done.stderr);
    }
    assert!(!place.path("data").exists());
}

#[test]
fn a_second_signal_aborts_with_exit_code_130() {
    let place = Place::new();
    // An output that takes 64 KiB and no more: draining hangs.
    let fifo = place.path("out.ndjson");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let held = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let lines: String =
        (1..2_000).map(|n| format!("{{\"id\":\"k{n}\",\"versionId\":1,\"text\":\"{n:0>200}\"}}\n")).collect();
    place.write("in.ndjson", &lines);
    let mut command = place.command();
    command.arg("run").arg(pipeline("diff-file.yaml")).env("INPUT", "in.ndjson").env("OUTPUT", "out.ndjson");
    let mut live = Live::start(&mut command);
    // Something came out, so there is something on its way, and signals have long been heard.
    let mut out = held.try_clone().unwrap();
    let first = std::thread::spawn(move || std::io::Read::read_exact(&mut out, &mut [0]));
    wait_until("output", || first.is_finished() || !live.running());
    wait_until("the end, after two signals at least", || {
        live.signal("INT");
        !live.running()
    });
    let done = live.end().exits(130);
    assert!(done.stderr.contains("Ctrl-C again aborts") && done.stderr.contains("aborted"), "{}", done.stderr);
    drop(held);
}

/// Capture and sync on a week of real data, streaming.
fn live(place: &Place) -> Live {
    place.run(["dev", "database", "--week"]).exits(0);
    let mut command = place.command();
    command.arg("run").args(["capture.yaml", "sync.yaml"].map(pipeline));
    let mut live = Live::start(&mut command);
    wait_until("the stream of Forecasts", || {
        assert!(live.running(), "the graph ended early");
        let positions = place.run(["position", "show"]).stdout;
        positions.lines().any(|line| line.starts_with("capture/changes/Forecasts") && line.contains("stream"))
    });
    live
}

#[test]
fn a_live_graph_drains_on_sigterm_and_tools_work_beside_it() {
    let place = Place::new();
    let live = live(&place);
    let refused = place.run(["position", "reset", "capture/changes"]).exits(1);
    assert!(refused.stderr.contains("positions are reset while no graph runs"), "{}", refused.stderr);
    let second = {
        let mut command = place.command();
        support::done(command.arg("run").arg(pipeline("sync.yaml")).output().unwrap()).exits(1)
    };
    assert!(second.stderr.contains("is in use by process"), "{}", second.stderr);
    let unknown = place.run(["resnapshot", "capture/chnges"]).exits(1);
    assert!(unknown.stderr.contains("did you mean capture/changes?"), "{}", unknown.stderr);
    place.run(["resnapshot", "capture/changes/Forecasts"]).exits(0);
    wait_until("the repeated snapshot", || {
        let positions = place.run(["position", "show"]).exits(0).stdout;
        !positions.contains("resnapshot requested")
    });

    live.signal("TERM");
    let done = live.end().exits(0);
    let row = summary_of(&done.stderr, "capture");
    let captured: u64 = row["events in"].parse().unwrap();
    // 28 units, and 196 forecasts once or twice: the repeated scan may have been stopped.
    assert!((224..=420).contains(&captured), "{}", done.stderr);
    assert_eq!(row["dead letters"], "0");

    let reset = place.run(["position", "reset", "capture/changes"]).exits(0);
    assert!(reset.stdout.contains("2 positions forgotten"), "{}", reset.stdout);
    let unknown = place.run(["position", "reset", "capture/changes"]).exits(1);
    assert!(unknown.stderr.contains("there is no position of capture/changes"), "{}", unknown.stderr);
}

#[test]
fn a_letter_of_a_topic_is_published_again() {
    let place = Place::new();
    // A message that is no captured change, published by a file through the bus.
    let yaml = |name: &str, source: &str, sink: &str| {
        format!("name: {name}\nsources:\n  s: {{ {source} }}\nsinks:\n  k: {{ inputs: [s], {sink} }}\n")
    };
    place.write("in.ndjson", "{\"id\":\"a\",\"versionId\":1}\n");
    place.write("fill.yaml", &yaml("fill", "type: file, path: in.ndjson", "type: topic, bus: bus, topic: t"));
    let read = "type: topic, bus: bus, topic: t, subscription: s, payload: change";
    place.write("read.yaml", &yaml("read", read, "type: file, path: out.ndjson"));
    let mut command = place.command();
    let mut live = Live::start(command.args(["run", "read.yaml"]));
    wait_until("the graph", || {
        assert!(live.running(), "the graph ended early");
        place.path("out.ndjson").exists()
    });
    place.run(["run", "fill.yaml"]).exits(0);
    let letters = || place.run(["dlq", "list", "--json"]).stdout;
    wait_until("the dead letter", || letters().lines().count() == 1);
    let letter: Value = serde_json::from_str(letters().trim()).unwrap();
    assert_eq!(letter["origin"]["topic"], serde_json::json!({ "bus": "bus", "topic": "t" }), "{letter}");
    let id = letter["id"].to_string();
    let replayed = place.run(["dlq", "replay", &id]).exits(0);
    assert_eq!(replayed.stdout, "1 dead letter published to t again\n");
    // It is refused once more: under a new number, or, when that was quicker than the tool, as the same letter renewed.
    wait_until("the letter's return", || {
        let lines = letters();
        let mut found = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        match (found.next(), found.next()) {
            (Some(now), None) => now["time"] != letter["time"] && now["replay_requested"] == false,
            _ => false,
        }
    });
    live.signal("TERM");
    live.end().exits(0);
}
