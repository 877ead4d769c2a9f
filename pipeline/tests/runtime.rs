//! The runtime's promises, held against a source and a sink that the test has in its hands.

use smartpulse_clients::embedded::MemoryStore;
use smartpulse_pipeline::state::{DeadLetterFilter, Store};
use smartpulse_pipeline::{Error, Event};
use smartpulse_testing::{Probe, Rig, event};
use std::sync::Arc;

const PLAIN: &str = "name: p\nsources: { s: { type: probe } }\nsinks: { k: { type: probe, inputs: [s], retry: { kind: fixed, attempts: 2, delay_ms: 1 } } }\n";
const STATEFUL: &str = "name: p\nsources: { s: { type: probe } }\noperators: { o: { type: detect_gap, inputs: [s] } }\nsinks: { k: { type: probe, inputs: [o] } }\n";

fn rig() -> Rig {
    Rig::new(Arc::new(MemoryStore::new()), &[], smartpulse_operators::register)
}

/// Failures that no test lives to see the end of.
const FOR_LONG: usize = 10_000;

/// Takes a sink away until its failures are cleared.
fn away(probe: &Probe, sink: &str) {
    (0..FOR_LONG).for_each(|_| probe.fail(sink, Error::unavailable("away")));
}

/// How often each of the letters' events was tried, the newest letter first.
async fn attempts(store: &Arc<dyn Store>) -> Vec<u32> {
    let letters = store.dead_letters(&DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() }).await.unwrap();
    letters.into_iter().map(|stored| stored.letter.attempts).collect()
}

async fn letters(store: &Arc<dyn Store>) -> Vec<(i64, String, Option<String>)> {
    let letters = store.dead_letters(&DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() }).await.unwrap();
    letters.into_iter().map(|stored| (stored.id, stored.letter.reason, stored.letter.key)).collect()
}

#[tokio::test]
async fn positions_are_committed_in_order_and_only_after_the_sink() {
    let rig = rig();
    let probe = &rig.probe;
    let graph = rig.start(PLAIN).await;
    (1..=20).for_each(|version| probe.emit(vec![event("a", version)]));
    probe.until("all is committed", |p| p.last_committed() == Some(20)).await;
    assert_eq!(probe.versions("k", "a"), (1..=20).collect::<Vec<_>>());
    assert!(probe.committed.lock().unwrap().is_sorted());
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn a_bounded_input_ends_the_graph_after_everything_is_written() {
    let rig = rig();
    let probe = &rig.probe;
    (1..=50).for_each(|version| probe.emit(vec![event("a", version), event("b", version)]));
    let yaml = PLAIN.replace("s: { type: probe }", "s: { type: probe, ends: true }");
    let summary = rig.start(&yaml).await.end().await.unwrap();
    assert_eq!(summary.sum("source", |t| t.events_out), 100);
    assert_eq!(summary.sum("sink", |t| t.events_out), 100);
    assert_eq!(probe.last_committed(), Some(100));
}

#[tokio::test]
async fn a_stop_drains_what_is_on_its_way() {
    let rig = rig();
    let probe = &rig.probe;
    for _ in 0..3 {
        probe.fail("k", Error::unavailable("away for a moment"));
    }
    let graph = rig.start(PLAIN).await;
    (1..=3).for_each(|version| probe.emit(vec![event("a", version)]));
    probe.until("the source has emitted", |p| p.input.lock().unwrap().is_empty()).await;
    graph.stop().await.unwrap();
    assert_eq!(probe.versions("k", "a"), [1, 2, 3]);
    assert_eq!(probe.last_committed(), Some(3));
}

#[tokio::test]
async fn a_transient_error_is_retried_and_then_only_the_event_at_fault_is_set_aside() {
    let rig = rig();
    let (probe, store) = (&rig.probe, &rig.store);
    // The batch fails three times, then each event alone: the first one three times more.
    for _ in 0..6 {
        probe.fail("k", Error::transient("deadlock"));
    }
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("a", 1), event("b", 1)]);
    probe.until("the batch is done", |p| p.last_committed() == Some(2)).await;
    assert_eq!((probe.versions("k", "a").len(), probe.versions("k", "b").len()), (0, 1));
    let letters = letters(store).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].1.as_str(), letters[0].2.as_deref()), ("deadlock", Some("a")));
    assert_eq!(attempts(store).await, [3]);
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn a_sink_that_writes_nothing_any_more_costs_two_policies_and_not_one_per_event() {
    let rig = rig();
    let (probe, store) = (&rig.probe, &rig.store);
    (0..FOR_LONG).for_each(|_| probe.fail("k", Error::transient("deadlock")));
    let graph = rig.start(PLAIN).await;
    let key = |n: u8| ((b'a' + n) as char).to_string();
    probe.emit((0..10).map(|n| event(&key(n), 1)).collect());
    probe.until("the batch is done", |p| p.last_committed() == Some(10)).await;
    // The batch and its first event three times each, the others once.
    assert_eq!(FOR_LONG - probe.failures.lock().unwrap()["k"].len(), 3 + 3 + 9);
    assert_eq!(attempts(store).await, [1, 1, 1, 1, 1, 1, 1, 1, 1, 3]);
    // One that gets through shows that the sink works again.
    probe.failures.lock().unwrap().clear();
    probe.emit(vec![event("a", 2)]);
    probe.until("the next one is written", |p| p.versions("k", "a") == [2]).await;
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn an_event_that_is_refused_takes_no_tries_from_its_neighbours() {
    let rig = rig();
    let (probe, store) = (&rig.probe, &rig.store);
    // The batch and its first event are refused; the second one meets a passing trouble.
    for error in [Error::rejected("no"), Error::rejected("no"), Error::transient("deadlock")] {
        probe.fail("k", error);
    }
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("bad", 1), event("b", 1)]);
    probe.until("the batch is done", |p| p.last_committed() == Some(2)).await;
    assert_eq!(probe.versions("k", "b"), [1]);
    let letters: Vec<_> = letters(store).await.into_iter().map(|(_, reason, key)| (reason, key)).collect();
    assert_eq!(letters, [("no".to_owned(), Some("bad".to_owned()))]);
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn a_committer_that_gives_up_stops_the_graph_and_is_named() {
    let rig = rig();
    let probe = &rig.probe;
    probe.commit_failures.lock().unwrap().push_back(Error::fatal("the disk is broken"));
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("a", 1)]);
    probe.until("the commit has failed", |p| p.commit_failures.lock().unwrap().is_empty()).await;
    // The next one finds nobody who would commit it.
    probe.emit(vec![event("a", 2)]);
    let error = graph.end().await.unwrap_err().chain();
    assert!(error.contains("source s of pipeline p failed") && error.contains("the disk is broken"), "{error}");
    assert_eq!(probe.last_committed(), None);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_given_up_and_comes_again() {
    let mut rig = rig();
    rig.drain = std::time::Duration::from_millis(100);
    let probe = &rig.probe;
    away(probe, "k");
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("a", 1)]);
    probe.until("the sink was tried", |p| p.failures.lock().unwrap()["k"].len() < FOR_LONG).await;
    let error = graph.stop().await.unwrap_err().chain();
    assert!(error.contains("did not finish within 100ms (runtime.drain_timeout_ms)"), "{error}");
    assert_eq!(probe.last_committed(), None);
}

#[tokio::test]
async fn a_panic_of_a_component_stops_the_graph_and_commits_nothing() {
    let rig = rig();
    let probe = &rig.probe;
    probe.deadly.lock().unwrap().push("a".to_owned());
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("a", 1)]);
    let error = graph.end().await.unwrap_err().chain();
    assert!(error.contains("a component panicked"), "{error}");
    assert_eq!(probe.last_committed(), None);
}

#[tokio::test]
async fn an_outage_holds_the_stream_back_and_sets_nothing_aside() {
    let rig = rig();
    let (probe, store) = (&rig.probe, &rig.store);
    away(probe, "k");
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("a", 1)]);
    probe.until("the sink was tried", |p| p.failures.lock().unwrap()["k"].len() < FOR_LONG).await;
    assert_eq!(probe.last_committed(), None, "nothing may be committed during the outage");
    probe.failures.lock().unwrap().clear();
    probe.until("the sink is back", |p| p.last_committed() == Some(1)).await;
    assert!(letters(store).await.is_empty());
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_event_is_set_aside_with_its_reason_and_its_neighbours_are_written() {
    let rig = rig();
    let (probe, store) = (&rig.probe, &rig.store);
    probe.refused.lock().unwrap().push("bad".to_owned());
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("a", 1), event("bad", 1), event("b", 1)]);
    probe.until("the batch is done", |p| p.last_committed() == Some(3)).await;
    assert_eq!((probe.versions("k", "a").len(), probe.versions("k", "b").len()), (1, 1));
    let set_aside = letters(store).await;
    assert_eq!((set_aside[0].1.as_str(), set_aside[0].2.as_deref()), ("refused by the test", Some("bad")));
    assert_eq!(attempts(store).await, [1]);

    // Mended, and handed to the very sink again.
    probe.refused.lock().unwrap().clear();
    assert!(store.request_replay(set_aside[0].0).await.unwrap());
    probe.until("the letter is replayed", |p| p.versions("k", "bad") == [1]).await;
    let summary = graph.stop().await.unwrap();
    assert_eq!(summary.dead_letters(), 1);
    assert!(letters(store).await.is_empty());
}

#[tokio::test]
async fn a_replay_that_fails_again_stays_set_aside_and_is_not_tried_for_ever() {
    let rig = rig();
    let (probe, store) = (&rig.probe, &rig.store);
    probe.refused.lock().unwrap().push("bad".to_owned());
    let graph = rig.start(PLAIN).await;
    probe.emit(vec![event("bad", 1)]);
    probe.until("the batch is done", |p| p.last_committed() == Some(1)).await;
    let id = letters(store).await[0].0;
    assert!(store.request_replay(id).await.unwrap());
    let tried = |p: &Probe| p.batches.lock().unwrap().len() >= 2;
    probe.until("the letter was tried again", tried).await;
    graph.stop().await.unwrap();
    let filter = DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() };
    let left = store.dead_letters(&filter).await.unwrap();
    assert_eq!(left.len(), 1);
    assert!(!left[0].replay_requested, "the request is withdrawn");
}

#[tokio::test]
async fn an_oversize_document_is_set_aside_before_it_enters_the_graph() {
    let rig = rig();
    let (probe, store) = (&rig.probe, &rig.store);
    let graph = rig.start(PLAIN).await;
    let mut large = event("large", 1);
    let text = format!(r#"{{"x":"{}"}}"#, "x".repeat(1 << 20));
    large.document = Some(smartpulse_json::Document::parse(text.into()).unwrap());
    probe.emit(vec![large, event("a", 1)]);
    probe.until("the batch is done", |p| p.last_committed() == Some(2)).await;
    assert_eq!(probe.versions("k", "a"), [1]);
    assert!(letters(store).await[0].1.contains("runtime.document_bytes_max"));
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn a_fatal_error_stops_the_graph_and_names_the_sink() {
    let rig = rig();
    let probe = &rig.probe;
    probe.fail("k", Error::fatal("the table is gone"));
    let graph = rig.start(PLAIN).await;
    (1..=10).for_each(|version| probe.emit(vec![event("a", version)]));
    let error = graph.end().await.unwrap_err();
    assert_eq!(error.chain(), "sink k of pipeline p failed: the table is gone");
    assert_eq!(probe.last_committed(), None);
}

#[tokio::test]
async fn redelivered_events_are_dropped_after_a_restart_and_lost_ones_are_not() {
    let rig = rig();
    let probe = &rig.probe;
    let graph = rig.start(STATEFUL).await;
    probe.emit(vec![event("a", 1), event("a", 2)]);
    probe.until("both are written", |p| p.last_committed() == Some(2)).await;
    graph.stop().await.unwrap();

    let graph = rig.start(STATEFUL).await;
    probe.emit(vec![event("a", 1), event("a", 2), event("a", 3)]);
    probe.until("the third is written", |p| p.versions("k", "a").contains(&3)).await;
    let summary = graph.stop().await.unwrap();
    assert_eq!(probe.versions("k", "a"), [1, 2, 3]);
    assert_eq!(summary.dropped("duplicate"), 2);
}

#[tokio::test]
async fn an_effect_that_did_not_happen_before_a_crash_happens_after_it() {
    let rig = rig();
    let probe = &rig.probe;
    for _ in 0..10_000 {
        probe.fail("k", Error::unavailable("away until the crash"));
    }
    let graph = rig.start(STATEFUL).await;
    probe.emit(vec![event("a", 1)]);
    probe.until("the sink was tried", |p| p.failures.lock().unwrap()["k"].len() < 10_000).await;
    graph.crash().await;
    probe.failures.lock().unwrap().clear();

    let graph = rig.start(STATEFUL).await;
    probe.emit(vec![event("a", 1)]);
    probe.until("it is written", |p| p.versions("k", "a") == [1]).await;
    let summary = graph.stop().await.unwrap();
    assert_eq!(summary.dropped("duplicate"), 0, "state must not be ahead of the effect");
}

#[tokio::test]
async fn lanes_keep_the_order_of_every_key() {
    let rig = rig();
    let probe = &rig.probe;
    let yaml = STATEFUL.replace("type: detect_gap,", "type: detect_gap, parallelism: 4,");
    let graph = rig.start(&yaml).await;
    for version in 1..=50 {
        probe.emit((0..20).map(|key| event(&format!("k{key}"), version)).collect::<Vec<Event>>());
    }
    probe.until("all is committed", |p| p.last_committed() == Some(1000)).await;
    for key in 0..20 {
        assert_eq!(probe.versions("k", &format!("k{key}")), (1..=50).collect::<Vec<_>>());
    }
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn an_eager_batch_leaves_at_once_when_the_sink_is_idle() {
    let rig = rig();
    let probe = &rig.probe;
    // A window of a minute: what arrives sooner did not wait for it.
    let yaml = "name: p\nsources: { s: { type: probe } }\noperators: { b: { type: batch, inputs: [s], items: 1000, window_ms: 60000 } }\nsinks: { k: { type: probe, inputs: [b] } }\n";
    let graph = rig.start(yaml).await;
    probe.emit(vec![event("a", 1)]);
    probe.until("it is written", |p| p.versions("k", "a") == [1]).await;
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_is_not_eager_is_let_go_at_the_end() {
    let rig = rig();
    let probe = &rig.probe;
    let yaml = "name: p\nsources: { s: { type: probe } }\noperators: { b: { type: batch, inputs: [s], items: 3, window_ms: 60000, eager: false } }\nsinks: { k: { type: probe, inputs: [b] } }\n";
    let graph = rig.start(yaml).await;
    (1..=4).for_each(|version| probe.emit(vec![event("a", version)]));
    probe.until("the full batch is written", |p| p.versions("k", "a") == [1, 2, 3]).await;
    assert_eq!(probe.batches.lock().unwrap().as_slice(), [3]);
    graph.stop().await.unwrap();
    assert_eq!(probe.versions("k", "a"), [1, 2, 3, 4]);
    assert_eq!(probe.last_committed(), Some(4));
}

#[tokio::test]
async fn one_failing_channel_of_a_fan_out_holds_the_position_but_not_the_other_channel() {
    let rig = rig();
    let probe = &rig.probe;
    away(probe, "mail");
    let yaml = "name: p\nsources: { s: { type: probe } }\noperators: { f: { type: fan_out, inputs: [s], by: /key, outputs: { mail: [both], push: [both] } } }\nsinks: { mail: { type: probe, inputs: [f.mail] }, push: { type: probe, inputs: [f.push] } }\n";
    let graph = rig.start(yaml).await;
    probe.emit(vec![event("both", 1)]);
    probe.until("push has it", |p| p.versions("push", "both") == [1]).await;
    probe.until("mail was tried", |p| p.failures.lock().unwrap()["mail"].len() < FOR_LONG).await;
    assert_eq!((probe.versions("mail", "both").len(), probe.last_committed()), (0, None));
    probe.failures.lock().unwrap().clear();
    probe.until("mail has it", |p| p.versions("mail", "both") == [1]).await;
    probe.until("it is committed", |p| p.last_committed() == Some(1)).await;
    graph.stop().await.unwrap();
}

#[test]
fn a_stateful_chain_must_end_in_one_sink() {
    let yaml = "name: p\nsources:\n  s: { type: probe }\noperators:\n  o: { type: diff, inputs: [s] }\nsinks:\n  a: { type: probe, inputs: [o] }\n  b: { type: probe, inputs: [o] }\n";
    let problems = rig().problems(yaml);
    assert!(problems.contains("`o` keeps state, but ends in 2 sinks: `a`, `b`"), "{problems}");
    assert!(problems.contains("p.yaml:5:"), "{problems}");
}

#[test]
fn ports_lanes_types_and_policies_are_checked_all_at_once() {
    let yaml = "name: p
sources:
  s: { type: prob }
operators:
  f: { type: fan_out, inputs: [s], by: /key, outputs: { mail: [x] } }
  w: { type: filter, inputs: [f.mail], parallelism: 4, all: [{ pointer: /key, equals: a }] }
sinks:
  k: { type: probe, inputs: [w], retry: rediss }
  l: { type: probe, inputs: [f.mial] }
";
    let all = rig().problems(yaml);
    for expected in [
        "there is no source type `prob`",
        "did you mean `probe`?",
        "`filter` keeps no state by key",
        "there is no retry policy `rediss`",
    ] {
        assert!(all.contains(expected), "missing {expected:?} in\n{all}");
    }
    let ports = rig().problems(
        &yaml.replace("type: prob }", "type: probe }").replace(", parallelism: 4", "").replace("rediss", "redis"),
    );
    assert!(ports.contains("`f` has no output `mial`"), "{ports}");
    assert!(ports.contains("did you mean `f.mail`?"), "{ports}");
}
