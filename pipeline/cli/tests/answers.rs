//! Answers that need nothing but the program: lists, schemas, graphs, help.

mod support;

use serde_json::Value;
use support::{Place, pipeline};

#[test]
fn every_type_is_listed_with_its_first_sentence() {
    let done = Place::new().run(["list"]).exits(0);
    for expected in [
        "sources\n",
        "  cdc ",
        "  topic ",
        "operators\n",
        "  detect_gap  Lets each version of a key pass once and in order",
        "sinks\n",
        "resources\n",
        "  sqlite ",
    ] {
        assert!(done.stdout.contains(expected), "{expected:?} is missing in:\n{}", done.stdout);
    }
    let only = Place::new().run(["list", "sinks"]).exits(0).stdout;
    assert!(only.starts_with("sinks\n") && !only.contains("detect_gap"), "{only}");
}

#[test]
fn a_type_is_listed_with_every_field() {
    let done = Place::new().run(["list", "sources", "file"]).exits(0);
    let expected = "  path  string  required\n      The file; `-` is standard input.\n\n  key  string  default /id\n";
    assert!(done.stdout.contains(expected), "{}", done.stdout);
    let both = Place::new().run(["list", "file"]).exits(0).stdout;
    assert!(both.contains("source file\n") && both.contains("sink file\n"), "{both}");
}

#[test]
fn what_does_not_exist_is_answered_with_the_nearest() {
    for (args, expected) in [
        (["list", "sorces", ""], "did you mean sources?"),
        (["list", "sources", "cdd"], "did you mean cdc?"),
        (["list", "sinks", "zzzzzz"], "the sinks of this build: "),
    ] {
        let args = args.into_iter().filter(|arg| !arg.is_empty());
        let place = Place::new();
        let done = support::done(place.command().args(args).output().unwrap()).exits(1);
        assert!(done.stderr.contains(expected), "{expected} is missing in:\n{}", done.stderr);
    }
}

#[test]
fn the_schema_of_pipelines_has_every_type_and_no_loose_end() {
    let schema: Value = serde_json::from_str(&Place::new().run(["schema"]).exits(0).stdout).unwrap();
    let choices = schema["properties"]["sinks"]["additionalProperties"]["oneOf"].as_array().unwrap();
    assert!(choices.contains(&serde_json::json!({ "$ref": "#/$defs/sink.pubsub" })), "{choices:?}");
    let file = &schema["$defs"]["sink.file"];
    assert_eq!(file["properties"]["type"]["const"], "file");
    assert_eq!(file["required"], serde_json::json!(["type", "inputs", "path"]));
    for key in ["inputs", "retry", "buffer", "path"] {
        assert!(file["properties"].get(key).is_some(), "{key}");
    }
    check_references(&schema, &schema);
}

/// Every reference leads somewhere.
fn check_references(root: &Value, value: &Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get("$ref") {
                let found = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
                assert!(found.is_some(), "{target} leads nowhere");
            }
            object.values().for_each(|value| check_references(root, value));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(root, value)),
        _ => {}
    }
}

#[test]
fn the_schema_of_settings_has_their_defaults() {
    let schema: Value = serde_json::from_str(&Place::new().run(["schema", "settings"]).exits(0).stdout).unwrap();
    assert_eq!(schema["properties"]["partition"]["default"], "production");
}

#[test]
fn a_graph_is_a_mermaid_flowchart() {
    let place = Place::new();
    let file = pipeline("sync.yaml");
    let done = place.run(["graph", file.to_str().unwrap()]).exits(0);
    let expected = "flowchart LR
    changes([\"changes<br/><i>topic</i>\"])
    ordered[\"ordered<br/><i>detect_gap</i>\"]
    patches[\"patches<br/><i>diff</i>\"]
    broadcast[/\"broadcast<br/><i>pubsub</i>\"/]
    changes --> ordered
    ordered --> patches
    patches --> broadcast
";
    assert_eq!(done.stdout, expected);
}

#[test]
fn help_teaches_examples_settings_and_exit_codes() {
    let done = Place::new().run(["--help"]).exits(0);
    for expected in ["Examples:", "Where settings come from", "Exit codes:", "smartpulse demo"] {
        assert!(done.stdout.contains(expected), "{expected} is missing");
    }
    Place::new().run(["run"]).exits(2);
}

const USER: &str = "0b0a1c60-0000-4000-8000-0000000000aa";

#[test]
fn a_token_is_printed_in_development_only() {
    let company = "0b0a1c60-0000-4000-8000-00000000000a";
    let args = ["token", "--user", USER, "--role", "viewer", "--company", company, "--ttl", "30m"];
    let token = Place::new().run(args).exits(0).stdout;
    assert_eq!((token.lines().count(), token.trim().split('.').count()), (1, 3), "{token}");
    for (args, code, expected) in [
        (["token", "--user", USER, "--env", "production"], 1, "in the environment development only"),
        (["token", "--user", USER, "--set", "api.auth.keys=[]"], 1, "has no shared secret to sign with"),
        (["token", "--user", USER, "--ttl", "soon"], 2, "write 90s, 30m, 1h or 7d"),
        (["token", "--user", "me", "--ttl", "1h"], 2, "invalid value 'me'"),
        (["token", "--user", USER, "--role", "owner"], 2, "possible values: viewer, editor, admin"),
    ] {
        let done = Place::new().run(args).exits(code);
        assert!(done.stderr.contains(expected), "{expected} is missing in:\n{}", done.stderr);
    }
}

#[test]
fn a_secret_comes_from_the_environment_and_never_from_an_argument() {
    let keys = "[{kind: hs256, secret: a secret of at least thirty-two bytes}]";
    let place = Place::new();
    let mut command = place.command();
    command.env("SMARTPULSE__API__AUTH__KEYS", keys).args(["token", "--user", USER]);
    let own = support::done(command.output().unwrap()).exits(0);
    assert_eq!(own.stdout.trim().split('.').count(), 3);
    let set = format!("api.auth.keys={keys}");
    let done = place.run(["token", "--user", USER, "--set", &set]).exits(2);
    assert!(!done.stderr.contains("thirty-two"), "a secret is never shown:\n{}", done.stderr);
}

#[test]
fn outside_development_nothing_is_served_with_the_secret_that_everybody_knows() {
    let file = pipeline("cache.yaml");
    let place = Place::new();
    let done = place.run(["run", file.to_str().unwrap(), "--env", "production"]).exits(1);
    for expected in ["is the development secret", "the environment is production", "set keys of your own"] {
        assert!(done.stderr.contains(expected), "{expected} is missing in:\n{}", done.stderr);
    }
}

#[test]
fn a_plan_for_a_database_that_is_not_there_says_so_and_makes_none() {
    let place = Place::new();
    let done = place.run(["plan", pipeline("capture.yaml").to_str().unwrap()]).exits(1);
    assert!(done.stderr.contains("there is no database at ") && done.stderr.contains("main.db yet"), "{}", done.stderr);
    assert!(!place.path("data").exists(), "nothing is written");
}
