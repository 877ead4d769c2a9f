//! What wrong configuration gets: exit code 2, everything at once, and nothing opened.

mod support;

use std::time::{Duration, Instant};
use support::{Place, pipeline};

const WRONG: &str = r#"
name: wrong
sources:
  lines: { type: fil, path: in.ndjson }
  messages: { type: topic, bus: buss, topic: t, subscription: s, topik: t }
operators:
  ordered: { type: detect_gap, inputs: [patches] }
  patches: { type: diff, inputs: [ordered, nowhere] }
sinks:
  out: { type: file, inputs: [patches, messages, lines], path: "${env:NOT_SET_ANYWHERE}" }
"#;

#[test]
fn all_problems_of_all_files_are_reported_at_once_and_nothing_is_opened() {
    let place = Place::new();
    place.write("wrong.yaml", WRONG);
    place.write("other.yaml", "name: other\nsources: { s: { type: topic, bus: bus, topic: t, subscription: s } }\n");
    for command in ["validate", "run"] {
        let done = place.run([command, "wrong.yaml", "other.yaml", "missing.yaml", "--set", "log.levle=info"]).exits(2);
        for expected in [
            "cannot read missing.yaml",
            "unknown key `levle` in `log`",
            "wrong.yaml:4:18",
            "there is no source type `fil`",
            "did you mean `file`?",
            "unknown key `topik`",
            "`patches` feeds itself: patches -> ordered -> patches",
            "there is no source or operator `nowhere`",
            "environment variable `NOT_SET_ANYWHERE` is not set",
            "other.yaml",
        ] {
            assert!(done.stderr.contains(expected), "{command}: {expected} is missing in:\n{}", done.stderr);
        }
        assert!(!done.stderr.contains('\u{1b}'), "no colours off a terminal");
        assert!(!place.path("data").exists(), "{command} opened the data folder");
    }
}

#[test]
fn references_are_checked_against_the_settings() {
    let place = Place::new();
    let yaml = "name: p\nsources: { s: { type: topic, bus: buss, topic: t, subscription: s } }\n\
                sinks: { k: { type: file, inputs: [s], path: out, retry: redsi } }\n";
    place.write("p.yaml", yaml);
    let done = place.run(["validate", "p.yaml"]).exits(2);
    for expected in ["no resource is named `buss`", "did you mean `bus`?", "redsi", "did you mean `redis`?"] {
        assert!(done.stderr.contains(expected), "{expected} is missing in:\n{}", done.stderr);
    }
}

#[test]
fn a_name_that_two_pipelines_share_is_refused() {
    let place = Place::new();
    let yaml =
        "name: twin\nsources: { s: { type: file, path: in } }\nsinks: { k: { type: file, inputs: [s], path: out } }\n";
    place.write("a.yaml", yaml);
    place.write("b.yaml", yaml);
    let done = place.run(["validate", "a.yaml", "b.yaml"]).exits(2);
    assert_eq!(done.stdout, "ok  twin  (1 source, 0 operators, 1 sink)\n");
    assert!(done.stderr.contains("the name `twin` is taken by a.yaml"), "{}", done.stderr);
}

#[test]
fn the_pipelines_of_the_repository_are_valid_together() {
    let place = Place::new();
    let names = ["capture", "sync", "cache", "events", "invalidate", "player", "notify", "diff-file"];
    let files = names.map(|name| pipeline(&format!("{name}.yaml")));
    let mut command = place.command();
    command.arg("validate").args(files).env("INPUT", "-").env("OUTPUT", "-");
    let done = support::done(command.output().unwrap()).exits(0);
    for name in names {
        assert!(done.stdout.lines().any(|line| line.starts_with(&format!("ok  {name} "))), "{}", done.stdout);
    }
    assert!(!place.path("data").exists());
}

#[cfg(feature = "push")]
#[test]
fn devices_are_told_where_push_services_are_set() {
    let place = Place::new();
    let push = pipeline("push.yaml");
    let services =
        "resources: { push: { type: push_services, database: main_db, fcm: { service_account: '${env:KEY}' } } }";
    place.write("local.yaml", services);
    let mut command = place.command();
    command.arg("validate").arg(&push).args(["--config-dir", "."]).env("KEY", "{}");
    let done = support::done(command.output().unwrap()).exits(0);
    assert_eq!(done.stdout, "ok  push  (1 source, 2 operators, 1 sink)\n");
    let done = place.run(["validate", push.to_str().unwrap()]).exits(2);
    assert!(done.stderr.contains("no resource is named `push`"), "{}", done.stderr);
}

#[test]
fn the_pipeline_of_the_readme_is_valid() {
    let readme = include_str!("../../../README.md");
    let start = readme.find("name: high-demand").expect("the example");
    let place = Place::new();
    place.write("high.yaml", readme[start..].split("```").next().expect("its end"));
    let done = place.run(["validate", "high.yaml"]).exits(0);
    let told = line_after(readme, "$ smartpulse validate high.yaml");
    assert_eq!(done.stdout.trim(), told);
}

/// The line after a line.
fn line_after<'a>(text: &'a str, line: &str) -> &'a str {
    text.lines().skip_while(|found| *found != line).nth(1).expect("a line after it")
}

#[test]
fn a_graph_of_thousands_ends_quickly() {
    let place = Place::new();
    let line: String = (1..6_000).map(|n| format!("  o{n}: {{ type: diff, inputs: [o{}] }}\n", n - 1)).collect();
    let yaml = format!(
        "name: long\nsources:\n  o0: {{ type: file, path: \"-\" }}\noperators:\n{line}sinks:\n  k: {{ type: file, inputs: [o5999], path: \"-\" }}\n"
    );
    place.write("long.yaml", &yaml);
    let start = Instant::now();
    let done = place.run(["validate", "long.yaml"]).exits(2);
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    assert!(done.stderr.contains("the pipeline has 6001 components, and at most 256 are taken"), "{}", done.stderr);
}

#[test]
fn a_yaml_bomb_ends_quickly() {
    let place = Place::new();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    place.write("bomb.yaml", &bomb);
    let start = Instant::now();
    let done = place.run(["validate", "bomb.yaml"]).exits(2);
    // The promise is 200 ms; a debug build on a busy machine gets more, and an unbounded parser would take hours.
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    assert!(done.stderr.contains("error"), "{}", done.stderr);
}
