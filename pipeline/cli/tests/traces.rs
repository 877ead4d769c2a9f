//! One trace shows a change from the request that made it to the cache that answers with it, as a collector with the protocol's
//! own messages reads it (`opentelemetry-proto`, from PyPI).

mod process;

use process::{Instance, LIVE, load_week, pipeline, until};
use serde_json::{Value, json};
use smartpulse_pipeline::TraceContext;
use smartpulse_testing::python_with;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const PACKAGES: [&str; 2] = ["opentelemetry-proto==1.45.2", "protobuf==7.36.2"];

/// A caller's own place in a trace.
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

struct Collector {
    child: Child,
    endpoint: String,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start() -> Option<Self> {
        let python = python_with(env!("CARGO_TARGET_TMPDIR"), &PACKAGES)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/collector.py");
        let mut child = Command::new(python).arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = format!("http://127.0.0.1:{}", lines.next().unwrap().unwrap());
        let spans = Arc::<Mutex<Vec<Value>>>::default();
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Some(Self { child, endpoint, spans })
    }

    fn of(&self, trace: u128) -> Vec<Value> {
        let trace = format!("{trace:032x}");
        self.spans.lock().unwrap().iter().filter(|span| span["trace"] == trace).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_trace_shows_a_change_from_the_request_to_the_cache() {
    let Some(collector) = Collector::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let variables = [
        ("SMARTPULSE__TRACES__ENDPOINT", collector.endpoint.as_str()),
        ("SMARTPULSE__TRACES__RATIO", "1"),
        ("SMARTPULSE__TRACES__AUTHORIZATION", "Bearer for-the-collector"),
    ];
    let mut instance = Instance::run(folder.path(), &LIVE.map(pipeline), &[], &variables);
    instance.until_ready();
    until("the snapshot is applied", || instance.metric("component_events_out_total", &["broadcast"]) >= 196.0);

    let id = process::documents(folder.path()).into_keys().next().unwrap();
    let path = format!("/api/forecasts/{id}");
    let answer = instance.patch(&path, &json!({ "demand": 0.4321 }), &[("traceparent", CALLER)]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let change = TraceContext::of_change("forecast", &id, answer.json()["versionId"].as_i64().unwrap());

    let wanted = [
        "PATCH /api/forecasts/{id}",
        "write",
        "commit forecast",
        "capture/changes",
        "capture/topics",
        "sync/changes",
        "sync/ordered",
        "sync/patches",
        "sync/broadcast",
        "cache/changes",
        "cache/forecasts",
        "invalidate/invalidations",
    ];
    until("all of its spans are there", || {
        let spans = collector.of(change.trace);
        wanted.iter().all(|name| spans.iter().any(|span| span["name"] == *name))
    });
    // Reads are traced as well, and go on in the caller's trace.
    instance.patch(&path, &json!({}), &[("traceparent", CALLER)]).unwrap();
    let (code, log) = instance.terminate();
    assert_eq!(code, Some(0), "{log}");

    let spans = collector.of(change.trace);
    let named: BTreeMap<&str, &Value> = spans.iter().map(|span| (span["name"].as_str().unwrap(), span)).collect();
    let span = |name: &str| named[name];
    // A chain: each follows from the one before, over the bus as well.
    for (before, after) in [
        ("PATCH /api/forecasts/{id}", "write"),
        ("commit forecast", "capture/changes"),
        ("capture/changes", "capture/topics"),
        ("capture/topics", "sync/changes"),
        ("sync/changes", "sync/ordered"),
        ("sync/ordered", "sync/patches"),
        ("sync/patches", "sync/broadcast"),
        ("commit forecast", "cache/changes"),
        ("cache/changes", "cache/forecasts"),
    ] {
        assert_eq!(span(after)["parent"], span(before)["span"], "{after} follows from {before}");
        assert!(span(after)["end"].as_u64() >= span(before)["start"].as_u64(), "{after} does not end before {before}");
    }
    let numbers: BTreeSet<&str> = spans.iter().map(|span| span["span"].as_str().unwrap()).collect();
    assert_eq!(numbers.len(), spans.len(), "every span has its own number");
    for span in &spans {
        assert_eq!(span["failed"], false, "{span}");
        assert_eq!(span["resource"]["service.name"], "smartpulse");
        assert_eq!(span["authorization"], "Bearer for-the-collector");
        let parent = span["parent"].as_str().unwrap();
        assert!(parent.is_empty() || numbers.contains(parent), "its parent is in the trace: {span}");
    }
    let request = span("PATCH /api/forecasts/{id}");
    assert_eq!((&request["kind"], &request["parent"]), (&json!("SPAN_KIND_SERVER"), &json!("")));
    assert_eq!(request["links"], json!(["4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"]), "the caller is named");
    assert_eq!(span("sync/patches")["attributes"]["smartpulse.key"], id.as_str());

    let caller = TraceContext::parse(CALLER).unwrap();
    let own = collector.of(caller.trace);
    assert_eq!(own.len(), 1, "what changes nothing stays in the caller's trace: {own:?}");
    assert_eq!(own[0]["parent"], format!("{:016x}", caller.span));
}

#[test]
fn a_collector_that_is_away_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");
    let variables = [("SMARTPULSE__TRACES__ENDPOINT", endpoint.as_str()), ("SMARTPULSE__TRACES__RATIO", "1")];
    let mut instance = Instance::run(folder.path(), &LIVE.map(pipeline), &[], &variables);
    instance.until_ready();
    let id = process::documents(folder.path()).into_keys().next().unwrap();
    instance.patch(&format!("/api/forecasts/{id}"), &json!({ "demand": 0.25 }), &[]).unwrap();
    until("the change is answered", || instance.forecast(&id).json()["demand"] == 0.25);
    until("the loss is counted", || instance.metric("trace_spans_failed_total", &[]) > 0.0);
    let (code, log) = instance.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("spans cannot be sent").count(), 1, "said once:\n{log}");
}
