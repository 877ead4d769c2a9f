//! W1: a file of documents through `config/pipelines/diff-file.yaml`, against the loop one would write by hand.
//!
//! What: every line is a forecast's document at some version; out comes one line per change with its patch.
//! `pipeline` is the very YAML file run by the runtime (file source, detect_gap, diff, batch, file sink, acks,
//! metrics). `naive` reads lines, parses each to a `serde_json::Value`, checks the version, calls
//! `json_patch::diff` against the `Value` it keeps per key, and writes the patch with `serde_json`.
//!
//! Method: both sides read the same file and write to files in the same folder, in alternating rounds in one
//! process; the median counts. The process is pinned to one processor by the Makefile (`taskset -c 0`), and the
//! runtime is single-threaded. Before the first round the pipeline's output is checked: its patches, applied by
//! `json_patch` to the first versions, must give every final document.
//!
//! Input: the year of real data (983,808 changes of 10,248 keys) when `YEAR` names its CSV; otherwise the week
//! in the repository, repeated under other keys to the same number of changes.
//!
//! Result (release, thin LTO, Rust 1.95; one processor of a shared 2 vCPU Intel Xeon at 2 GHz; medians of 5 rounds):
//!
//! | input | pipeline | naive | ratio |
//! | --- | --- | --- | --- |
//! | the year: 983,808 changes, 426 bytes a line | 357,000 events/s | 67,300 events/s | 5.3 |
//! | the week, repeated to 997,248 changes | 287,000 events/s | 64,800 events/s | 4.4 |
//! | the year, 2026-11-22 | 262,000 events/s | 78,700 events/s | 3.3 |
//! | the year, the same binary a minute later | 270,000 events/s | 62,800 events/s | 4.3 |
//!
//! The last two are of a later day, and of a noisier machine: the naive side alone differs by a quarter between them. How much
//! of the difference to the first row is ours is not known yet.
//!
//! Run: `make bench`, or `YEAR=production-units-2016-15min.csv.gz make bench`.

use json_patch::{Patch, PatchOperation};
use serde_json::{Value, json};
use smartpulse_benches::{median, run_to_end};
use smartpulse_sources::real_data::{Series, write_history};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

const PIPELINE: &str = include_str!("../../config/pipelines/diff-file.yaml");

/// Of each side.
const ROUNDS: usize = 5;

/// The changes of the year of real data.
const CHANGES: u64 = 983_808;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = folder.path().join("documents.ndjson");
    let output = folder.path().join("patches.ndjson");
    let naive_output = folder.path().join("naive.ndjson");
    let (changes, what) = write_input(&input);
    let bytes = std::fs::metadata(&input).expect("the input").len();
    println!("{what}: {changes} changes, {} bytes a line", bytes / changes);

    run_pipeline(&input, &output);
    verify(&input, &output);
    let (mut ours, mut naive) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        run_pipeline(&input, &output);
        ours.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        run_naive(&input, &naive_output);
        naive.push(started.elapsed().as_secs_f64());
    }
    let rate = |seconds: f64| changes as f64 / seconds;
    let (ours, naive) = (median(ours), median(naive));
    println!("pipeline {:>12.0} events/s  {:>6.2} us/event", rate(ours), 1e6 / rate(ours));
    println!("naive    {:>12.0} events/s  {:>6.2} us/event", rate(naive), 1e6 / rate(naive));
    println!("ratio    {:>12.2}", naive / ours);
}

fn write_input(path: &Path) -> (u64, &'static str) {
    let mut out = BufWriter::new(File::create(path).expect("the input file"));
    if let Ok(year) = std::env::var("YEAR") {
        let file = File::open(&year).unwrap_or_else(|error| panic!("cannot read YEAR={year}: {error}"));
        let series = Series::read(file).unwrap_or_else(|error| panic!("{year}: {error}"));
        let changes = write_history(&series, &mut out, |_| ()).expect("the input file");
        out.flush().expect("the input file");
        return (changes, "year");
    }
    let mut week = Vec::new();
    let lines = write_history(&Series::week(), &mut week, |_| ()).expect("memory");
    let week = String::from_utf8(week).expect("JSON is text");
    let copies = CHANGES.div_ceil(lines);
    for copy in 0..copies {
        for line in week.lines() {
            // The last characters of the id become the copy's number, so that each copy has keys of its own.
            let (head, tail) = line.split_at(r#"{"id":""#.len() + 32);
            writeln!(out, "{head}{copy:04x}{}", &tail[4..]).expect("the input file");
        }
    }
    out.flush().expect("the input file");
    (copies * lines, "week, repeated under other keys")
}

fn run_pipeline(input: &Path, output: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (input, output) = (input.to_string_lossy(), output.to_string_lossy());
    let summary = runtime.block_on(run_to_end("diff-file.yaml", PIPELINE, &[("INPUT", &input), ("OUTPUT", &output)]));
    assert_eq!(summary.dead_letters() + summary.dropped("duplicate") + summary.noted("gap"), 0);
}

fn run_naive(input: &Path, output: &Path) {
    let mut out = BufWriter::new(File::create(output).expect("the output"));
    let mut states: HashMap<String, (i64, Value)> = HashMap::new();
    for line in BufReader::new(File::open(input).expect("the input")).lines() {
        let document: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let key = document["id"].as_str().expect("an id").to_owned();
        let version = document["versionId"].as_i64().expect("a version");
        let (previous, patch) = match states.get(&key) {
            Some((last, _)) if version <= *last => continue,
            Some((last, before)) if version == last + 1 => (Some(*last), json_patch::diff(before, &document)),
            _ => {
                let whole = json!([{"op": "add", "path": "", "value": document}]);
                (None, serde_json::from_value(whole).expect("a patch"))
            }
        };
        let message = json!({"DataKey": key, "VersionId": version, "PreviousVersionId": previous, "PatchItems": patch});
        serde_json::to_writer(&mut out, &message).expect("the output");
        out.write_all(b"\n").expect("the output");
        states.insert(key, (version, document));
    }
    out.flush().expect("the output");
}

/// Applies the patches with an implementation that is not ours and compares every final document.
fn verify(input: &Path, output: &Path) {
    let mut finals: HashMap<String, Value> = HashMap::new();
    for line in BufReader::new(File::open(input).expect("the input")).lines() {
        let document: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        finals.insert(document["id"].as_str().expect("an id").to_owned(), document);
    }
    let mut replayed: HashMap<String, Value> = HashMap::new();
    for line in BufReader::new(File::open(output).expect("the output")).lines() {
        let message: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let document = replayed.entry(message["DataKey"].as_str().expect("a key").to_owned()).or_default();
        let items = message["PatchItems"].as_array().expect("items");
        if let [only] = items.as_slice()
            && only["Path"] == ""
        {
            *document = only["Value"].clone();
            continue;
        }
        let operations: Vec<PatchOperation> = items
            .iter()
            .map(|item| {
                let lower: serde_json::Map<String, Value> = item
                    .as_object()
                    .expect("an operation")
                    .iter()
                    .map(|(name, value)| (name.to_lowercase(), value.clone()))
                    .collect();
                serde_json::from_value(Value::Object(lower)).expect("an operation")
            })
            .collect();
        json_patch::patch(document, &Patch(operations)).expect("a patch that applies");
    }
    assert_eq!(finals.len(), replayed.len());
    assert!(finals == replayed, "the patches do not give the final documents");
    println!("verified: the patches give all {} final documents", finals.len());
}
