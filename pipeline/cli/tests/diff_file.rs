//! W1: a file of documents becomes a file of patches that give every document back.

mod process;

use process::pipeline;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Runs the pipeline and gives its closing summary.
fn diff(input: &Path, output: &Path) -> String {
    let folder = input.parent().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_smartpulse"))
        .arg("run")
        .arg(pipeline("diff-file"))
        .env("INPUT", input)
        .env("OUTPUT", output)
        .env("SMARTPULSE__DATA_DIR", folder.join("data"))
        .current_dir(folder)
        .output()
        .unwrap();
    let summary = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{summary}");
    summary
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Applies patches with `json_patch`, which nobody here wrote.
fn replay(messages: &[Value]) -> BTreeMap<String, Value> {
    let mut documents: BTreeMap<String, Value> = BTreeMap::new();
    for message in messages {
        let document = documents.entry(message["DataKey"].as_str().unwrap().to_owned()).or_default();
        for item in message["PatchItems"].as_array().unwrap() {
            let lower: Map<String, Value> =
                item.as_object().unwrap().iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
            let operation = serde_json::from_value(Value::Object(lower)).unwrap();
            json_patch::patch(document, &json_patch::Patch(vec![operation])).unwrap();
        }
    }
    documents
}

#[test]
fn the_patches_of_a_week_of_real_data_give_every_final_document() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("week.ndjson"), folder.path().join("patches.ndjson"));
    let made = Command::new(env!("CARGO_BIN_EXE_smartpulse"))
        .args(["dev", "revisions", "--output"])
        .arg(&input)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let changes = lines(&input);
    assert_eq!(changes.len(), 28 * 7 * 96);
    diff(&input, &output);
    let messages = lines(&output);
    assert_eq!(messages.len(), changes.len());
    let finals: BTreeMap<String, Value> =
        changes.into_iter().map(|document| (document["id"].as_str().unwrap().to_owned(), document)).collect();
    assert_eq!(replay(&messages), finals);
}

#[test]
fn duplicates_are_dropped_gaps_healed_and_bad_lines_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.ndjson"), folder.path().join("out.ndjson"));
    let text = r#"{"id":"a","versionId":1,"n":1}
{"id":"a","versionId":2,"n":2}
{"id":"a","versionId":2,"n":2}
not json
{"id":"a","versionId":1,"n":1}
{"id":"a","versionId":5,"n":5}
{"id":"b","versionId":0}
"#;
    std::fs::write(&input, text).unwrap();
    std::fs::write(&output, "what a former run left\n").unwrap();
    diff(&input, &output);
    let patches: Vec<String> = lines(&output).iter().map(|m| m["PatchItems"].to_string()).collect();
    assert_eq!(
        patches,
        [
            r#"[{"Op":"add","Path":"","Value":{"id":"a","versionId":1,"n":1}}]"#,
            r#"[{"Op":"replace","Path":"/versionId","Value":2},{"Op":"replace","Path":"/n","Value":2}]"#,
            r#"[{"Op":"replace","Path":"","Value":{"id":"a","versionId":5,"n":5}}]"#,
        ]
    );
}
