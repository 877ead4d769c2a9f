//! The alert rules: about metrics that there are, valid for Prometheus, and fired by what they are for.

mod process;

use process::{Instance, LIVE, load_week, pipeline, until};
use prometheus::{Registry, TextEncoder};
use smartpulse_config::Settings;
use smartpulse_pipeline::telemetry::Telemetry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

const RULES: &str = include_str!("../../../config/prometheus/alerts.yaml");
const CASES: &str = include_str!("../../../config/prometheus/alerts.test.yaml");

/// What Prometheus adds to every series of a target, and the one metric that is its own.
const OF_THE_TARGET: [&str; 2] = ["instance", "job"];

/// Words of PromQL; functions are followed by a bracket, and so known by it.
const WORDS: [&str; 7] = ["by", "and", "or", "unless", "on", "vector", "bool"];

/// Labels of each series, by its name.
type Series = BTreeMap<String, BTreeSet<String>>;

/// The series of a text of `/metrics`.
fn series(text: &str) -> Series {
    let mut found = Series::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let end = line.find(['{', ' ']).expect("a name");
        let labels = found.entry(line[..end].to_owned()).or_default();
        if line[end..].starts_with('{') {
            labels.extend(matchers(&line[end + 1..]).0);
        }
    }
    found
}

/// The names in `name="value",…}`, and what follows.
fn matchers(text: &str) -> (Vec<String>, &str) {
    let mut names = Vec::new();
    let mut rest = text;
    while !rest.starts_with('}') {
        let end = rest.find(['=', '!']).expect("a matcher");
        names.push(rest[..end].to_owned());
        let value = rest[end..].split_once('"').expect("a value").1;
        let mut escaped = false;
        let close = value.find(|c| match (c, escaped) {
            ('"', false) => true,
            _ => {
                escaped = c == '\\' && !escaped;
                false
            }
        });
        rest = value[close.expect("its end") + 1..].trim_start_matches(',');
    }
    (names, &rest[1..])
}

/// The selectors of an expression with the labels of their matchers, and the labels that it groups by.
fn parts(expression: &str) -> (Series, BTreeSet<String>) {
    let (mut selectors, mut groups) = (Series::new(), BTreeSet::new());
    let mut rest = expression;
    let mut grouping = false;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '[' || c == '"') {
        // Ranges, and texts.
        if let Some(close) = match &rest[start..=start] {
            "[" => Some(']'),
            "\"" => Some('"'),
            _ => None,
        } {
            let end = rest[start + 1..].find(close).expect("its end");
            rest = &rest[start + 2 + end..];
            continue;
        }
        if rest[..start].contains(')') {
            grouping = false;
        }
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if word == "by" || word == "on" {
            grouping = true;
        } else if grouping {
            groups.insert(word.to_owned());
        } else if !WORDS.contains(&word) && !rest.starts_with('(') && !matches!(word, "max" | "min" | "sum") {
            let labels = selectors.entry(word.to_owned()).or_default();
            if let Some(inside) = rest.strip_prefix('{') {
                let (names, after) = matchers(inside);
                labels.extend(names);
                rest = after;
            }
        }
    }
    (selectors, groups)
}

/// The rules: name and expression.
fn rules() -> Vec<(String, String)> {
    let mut rules = Vec::new();
    let mut lines = RULES.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            rules.push((name.to_owned(), String::new()));
        } else if let Some(first) = line.trim().strip_prefix("expr: ") {
            let expression = &mut rules.last_mut().expect("an alert").1;
            expression.push_str(first.trim_start_matches('>'));
            let indent = line.len() - line.trim_start().len();
            while let Some(more) = lines.next_if(|line| line.len() - line.trim_start().len() > indent) {
                expression.push(' ');
                expression.push_str(more.trim());
            }
        }
    }
    rules
}

#[test]
fn an_expression_is_taken_apart() {
    let (selectors, groups) = parts(
        r#"max by (a) (lag{kind="x",path!~".*}"} and on (b, c) rate(out_total{kind="x"}[5m]) > 0) / (held or vector(0)) > 60"#,
    );
    let expected = [("held", vec![]), ("lag", vec!["kind", "path"]), ("out_total", vec!["kind"])];
    let labels = |labels: Vec<&str>| labels.into_iter().map(str::to_owned).collect();
    assert_eq!(selectors, expected.map(|(name, of)| (name.to_owned(), labels(of))).into());
    assert_eq!(groups, labels(vec!["a", "b", "c"]));
}

#[test]
fn every_metric_and_label_of_a_rule_is_one_that_there_is() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let limits = ["api.rate_limit.per_second=1", "api.rate_limit.burst=2"];
    let mut instance = Instance::run(folder.path(), &LIVE.map(pipeline), &limits, &[]);
    instance.until_ready();
    // What comes with events only: refused tokens, shed requests, what operators note.
    ureq::get(format!("{}/api/forecasts", instance.base())).call().unwrap_err();
    until("a request is shed", || instance.get("/api/forecasts").is_some_and(|answer| answer.status == 429));
    until("bus and pub/sub were looked at", || instance.metric("instance_degraded", &["pubsub"]) == 0.0);
    until("the snapshot is broadcast", || instance.metric("component_events_out_total", &["broadcast"]) >= 196.0);
    let registry = Registry::new();
    Telemetry::register(&registry).unwrap().component("p", "c", "operator").note("gap", 1);
    let noted = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let there = series(&format!("{}\n{noted}\nup 1\n", instance.get("/metrics").unwrap().body));

    let rules = rules();
    assert!(rules.len() > 15, "{rules:?}");
    for (name, expression) in &rules {
        let (selectors, groups) = parts(expression);
        assert!(!selectors.is_empty(), "{name}: {expression}");
        for (metric, labels) in &selectors {
            let known = there.get(metric).unwrap_or_else(|| panic!("{name}: there is no {metric}"));
            let known = |label: &String| known.contains(label) || OF_THE_TARGET.contains(&label.as_str());
            let unknown: Vec<_> = labels.union(&groups).filter(|label| !known(label)).collect();
            assert!(unknown.is_empty(), "{name}: {metric} has no {unknown:?}");
        }
        let fires = format!("alertname: {name}\n        exp_alerts:");
        assert!(CASES.contains(&fires), "{name} is never seen to fire in alerts.test.yaml");
    }
    let full = Settings::default().runtime.channel_batches;
    assert!(rules.iter().any(|(name, rule)| name == "SmartPulseQueueFull" && rule.ends_with(&format!(">= {full}"))));
}

#[test]
fn rules_are_valid_for_prometheus_and_fire_when_they_should() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("skipped: there is no promtool (Debian: apt-get install prometheus)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("alerts.yaml", RULES), ("alerts.test.yaml", CASES)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    promtool(folder.path(), &["check", "rules", "alerts.yaml"]);
    promtool(folder.path(), &["test", "rules", "alerts.test.yaml"]);
}

fn promtool(folder: &Path, arguments: &[&str]) {
    let done = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "promtool {arguments:?}\n{text}");
}
