//! Parse and diff of changed rows, against the loop one would write with trees.
//!
//! What: a row of a forecast arrives as bytes; it is validated, compared with the version in the state, the
//! patch is written to a buffer, and the row becomes the state. `bytes` is [`Document::parse`] (or
//! [`Document::parse_after`]) and [`diff`]; `trees` is `serde_json::from_slice::<Value>`, `json_patch::diff` and `to_string`, with the
//! stored `Value` as state.
//!
//! Method: 20,000 rows of about 385 bytes over 1,000 keys, five of twelve members changed per row, made
//! before the clock starts. Rounds of both sides alternate, so that a slow phase of the machine hits both;
//! the median round counts. One core. Both sides are checked to find the same number of operations.
//!
//! Result (five runs in a row of one binary; 2 vCPU Intel Xeon at 2 GHz shared with other work, which slows
//! every line by up to 1.8 times; release, thin LTO, Rust 1.95), in us per row:
//!
//! | | range of the five medians | ratio to trees |
//! | --- | --- | --- |
//! | trees | 5.72 - 9.57 | 1 |
//! | parse and diff | 0.83 - 1.49 | 6.3 - 6.9 |
//! | `parse_after` and diff | 0.61 - 1.10 | 8.5 - 9.4 |
//! | parse alone | 0.51 - 0.83 | |
//! | apply | 2.38 - 4.26 | |
//!
//! `serde_json` has `float_roundtrip` on in both, as everywhere in the workspace.
//!
//! Run: `cargo bench -p smartpulse-benches --bench diff`.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;
use smartpulse_json::{Document, Patched, apply, diff};

const KEYS: usize = 1_000;
const ROWS: usize = 20_000;
const ROUNDS: usize = 31;

fn main() {
    let rows = rows();
    let (first, changes) = rows.split_at(KEYS);
    let documents: Vec<Document> = first.iter().map(parse).collect();
    let values: Vec<Value> = first.iter().map(value).collect();
    let length: usize = rows.iter().map(Bytes::len).sum();
    println!("{} rows of {} bytes, {KEYS} keys, {ROUNDS} rounds", changes.len(), length / rows.len());

    let mut bytes = Vec::new();
    let mut after = Vec::new();
    let mut trees = Vec::new();
    let mut parsing = Vec::new();
    let mut applying = Vec::new();
    for _ in 0..ROUNDS {
        let (mut state, mut tree_state) = (documents.clone(), values.clone());
        let (ours, operations) = timed(|| bytes_round(&mut state, changes, |row, _| parse(row)));
        let mut state = documents.clone();
        let (ours_after, after_operations) = timed(|| bytes_round(&mut state, changes, parse_after));
        let (naive, tree_operations) = timed(|| trees_round(&mut tree_state, changes));
        assert_eq!([operations; 2], [after_operations, tree_operations], "all find the same changes");
        bytes.push(ours);
        after.push(ours_after);
        trees.push(naive);
        parsing.push(timed(|| changes.iter().map(|row| parse(row).bytes().len()).sum::<usize>()).0);
        applying.push(apply_round(&documents, changes));
    }

    let ns_per_row = |rounds: &mut Vec<f64>| {
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2] * 1e9 / changes.len() as f64
    };
    let (ours, naive) = (ns_per_row(&mut bytes), ns_per_row(&mut trees));
    let ours_after = ns_per_row(&mut after);
    report("trees: from_slice, diff, to_string", naive);
    report("bytes: parse_after, diff", ours_after);
    report("bytes: parse, diff", ours);
    report("  of which parse", ns_per_row(&mut parsing));
    report("bytes: apply", ns_per_row(&mut applying));
    println!("trees / bytes {:.1}, with parse_after {:.1}", naive / ours, naive / ours_after);
}

fn report(what: &str, ns: f64) {
    println!("{what:36} {ns:8.0} ns/row {:12.0} rows/s", 1e9 / ns);
}

fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = black_box(run());
    (start.elapsed().as_secs_f64(), result)
}

fn bytes_round(state: &mut [Document], rows: &[Bytes], parse_as: impl Fn(&Bytes, &Document) -> Document) -> usize {
    let mut out = Vec::new();
    let mut operations = 0;
    for (index, row) in rows.iter().enumerate() {
        let old = &mut state[index % KEYS];
        let new = parse_as(row, old);
        out.clear();
        operations += diff(old, &new, &mut out);
        black_box(&out);
        *old = new;
    }
    operations
}

fn trees_round(state: &mut [Value], rows: &[Bytes]) -> usize {
    let mut operations = 0;
    for (index, row) in rows.iter().enumerate() {
        let new = value(row);
        let old = &mut state[index % KEYS];
        let patch = json_patch::diff(old, &new);
        operations += patch.0.len();
        black_box(serde_json::to_string(&patch).expect("a patch is json"));
        *old = new;
    }
    operations
}

/// Seconds to apply the patches between successive versions, which are made outside of the timing.
fn apply_round(first: &[Document], rows: &[Bytes]) -> f64 {
    let mut state = first.to_vec();
    let mut patches = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let new = parse(row);
        let mut patch = Vec::new();
        diff(&state[index % KEYS], &new, &mut patch);
        patches.push(patch);
        state[index % KEYS] = new;
    }
    let mut state = first.to_vec();
    let (seconds, ()) = timed(|| {
        for (index, patch) in patches.iter().enumerate() {
            let old = &mut state[index % KEYS];
            match apply(Some(old), patch) {
                Ok(Patched::Document(new)) => *old = new,
                other => panic!("{other:?}"),
            }
        }
    });
    let last = rows.len() - 1;
    assert_eq!(state[last % KEYS].to_value(), value(&rows[last]), "patches lead to the last version");
    seconds
}

fn parse(row: &Bytes) -> Document {
    Document::parse(row.clone()).expect("rows are valid")
}

fn parse_after(row: &Bytes, previous: &Document) -> Document {
    Document::parse_after(row.clone(), previous).expect("rows are valid")
}

fn value(row: &Bytes) -> Value {
    serde_json::from_slice(row).expect("rows are valid")
}

/// Versions of `KEYS` forecasts in turn, all slices of one buffer, as a reader of a stream has them.
fn rows() -> Vec<Bytes> {
    let mut buffer = Vec::new();
    let mut ends = Vec::new();
    for index in 0..ROWS + KEYS {
        let (key, version) = (index % KEYS, index / KEYS);
        let demand = noise(index) % 90_000;
        let supply = noise(index + ROWS) % 90_000;
        let variance = supply as f64 - demand as f64;
        let row = format!(
            concat!(
                r#"{{"id":"{}","companyId":"{}","productionUnitId":"{}","forecastDate":"2025-11-12T10:00:00.000Z","#,
                r#""demand":{:.2},"supply":{:.2},"variance":{:.2},"confidenceLevel":0.95,"status":"Active","#,
                r#""createdAt":"2025-11-01T08:00:00.000Z","updatedAt":"2025-11-12T10:{:02}:{:02}.{:03}Z","#,
                r#""versionId":{}}}"#
            ),
            uuid(key),
            uuid(key % 7),
            uuid(key % 50),
            demand as f64 / 100.0,
            supply as f64 / 100.0,
            variance / 100.0,
            version % 60,
            key % 60,
            key,
            version + 1,
        );
        buffer.extend_from_slice(row.as_bytes());
        ends.push(buffer.len());
    }
    let buffer = Bytes::from(buffer);
    let starts = std::iter::once(0).chain(ends.clone());
    starts.zip(ends).map(|(start, end)| buffer.slice(start..end)).collect()
}

fn uuid(seed: usize) -> String {
    let (high, low) = (noise(seed), noise(seed ^ 0x5555));
    let digits = format!("{high:016x}{low:016x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

/// The finaliser of splitmix64: the same rows in every run.
fn noise(seed: usize) -> u64 {
    let mut z = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
