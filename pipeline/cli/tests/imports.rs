//! Who may import whom: `config <- pipeline <- clients <- cache <- {sources, sinks, api} <- cli`. Siblings never
//! import each other, operators import the pipeline only, `json` imports nothing, and `testing` is for tests,
//! and for `dev cluster` behind its feature.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What stands at the end may use everything.
const ALL: &[&str] = &[
    "config",
    "json",
    "pipeline",
    "clients",
    "otlp",
    "pulsar",
    "redis",
    "sqlserver",
    "cache",
    "operators",
    "sources",
    "sinks",
    "mail",
    "push",
    "api",
    "stand-in",
    "testing",
];

/// What a crate may use of the workspace at run time.
const MAY_USE: &[(&str, &[&str])] = &[
    ("smartpulse-json", &[]),
    ("smartpulse-config", &[]),
    ("smartpulse-pipeline", &["config", "json"]),
    ("smartpulse-operators", &["config", "json", "pipeline"]),
    ("smartpulse-clients", &["config", "json", "pipeline"]),
    ("smartpulse-pulsar", &["config", "json", "pipeline", "clients"]),
    ("smartpulse-otlp", &["config", "pipeline"]),
    ("smartpulse-redis", &["config", "json", "pipeline", "clients"]),
    ("smartpulse-sqlserver", &["config", "json", "pipeline", "clients"]),
    ("smartpulse-cache", &["config", "json", "pipeline", "clients"]),
    ("smartpulse-sources", &["config", "json", "pipeline", "clients", "cache"]),
    ("smartpulse-sinks", &["config", "json", "pipeline", "clients", "cache"]),
    ("smartpulse-mail", &["config", "pipeline", "clients"]),
    ("smartpulse-push", &["config", "pipeline", "clients"]),
    ("smartpulse-api", &["config", "json", "pipeline", "clients", "cache"]),
    ("smartpulse", ALL),
    // A server of its own, which knows nothing of what is tested against it.
    ("smartpulse-stand-in", &[]),
    // For tests, benches, and `dev cluster` behind its feature.
    ("smartpulse-testing", &["config", "json", "pipeline", "clients", "cache"]),
    ("smartpulse-benches", ALL),
];

/// What `make demo` builds without: what is heavy, and what is for trials.
const OPTIONAL: [&str; 7] = ["otlp", "pulsar", "push", "redis", "sqlserver", "stand-in", "testing"];

#[test]
fn imports_go_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let own: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = rules.get(name) else {
            wrong.push(format!("{name} has no rule here: say what it may import"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"] == "dev";
            if !own.contains(used) || for_tests {
                continue;
            }
            let short = used.strip_prefix("smartpulse-").unwrap_or(used);
            if !allowed.contains(&short) {
                wrong.push(format!("{name} imports {used}"));
            }
            if name == "smartpulse" && OPTIONAL.contains(&short) && dependency["optional"] != true {
                wrong.push(format!("{name} always imports {used}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
