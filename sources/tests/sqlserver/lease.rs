//! Two processes and one table: a holder that was paused publishes nothing that counts.

use crate::site::{FORECASTS, MODES, Site, checked, plain};
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_pipeline::{Event, Operation};
use smartpulse_testing::{FaultProxy, Flow, Rig};
use std::sync::Arc;

/// The version check further down, which all publish to: what becomes of events in this order.
async fn checked_downstream(events: Vec<Event>) -> (Vec<(String, i64)>, f64) {
    let downstream = Rig::new(Arc::new(MemoryStore::new()), &[], smartpulse_operators::register);
    let yaml = "name: d\nsources: { s: { type: probe, ends: true } }\noperators: { o: { type: detect_gap, inputs: [s] } }\nsinks: { k: { type: probe, inputs: [o] } }\n";
    for event in events {
        downstream.probe.emit(vec![event]);
    }
    downstream.start(yaml).await.end().await.unwrap();
    let told = downstream.probe.events.lock().unwrap().iter().map(|e| (e.key.to_string(), e.version)).collect();
    (told, downstream.metric("component_events_dropped_total", &["stale_epoch"]).unwrap_or_default())
}

#[tokio::test]
async fn what_a_paused_holder_publishes_after_another_took_over_is_refused() {
    for mode in MODES {
        let site = Site::new().await;
        site.insert([1, 2]).await;
        let link = FaultProxy::to(site.server.address().port()).await;
        let (one, other) = (site.process_at(link.port(), Arc::new(MemoryStore::new())), site.process());
        let yaml = plain(mode, &format!("lease_ms: 1000, {FORECASTS}"));
        let first = one.rig.start(&yaml).await;
        one.until_told(2, 1).await;
        site.until_streaming().await;
        let second = other.rig.start(&yaml).await;

        // Paused with a change in its hands: its sink does not take it, and it hears nothing of the server any more.
        one.hold();
        site.update(1).await;
        one.until_sink_is_tried().await;
        link.set(Flow::Frozen);
        other.until_told(1, 2).await;
        site.update(1).await;
        other.until_told(1, 3).await;

        // It wakes up, and what was in its hands goes out.
        let before: Vec<Event> = one.rig.probe.events.lock().unwrap().clone();
        one.forget();
        one.release();
        one.until_told(1, 2).await;
        link.set(Flow::Open);
        site.update(2).await;
        other.until_told(2, 2).await;
        // Two renewals: it has heard by now that another captures the table.
        site.until_renewed(2).await;
        let late: Vec<Event> = one.rig.probe.events.lock().unwrap().clone();
        let theirs: Vec<Event> = other.rig.probe.events.lock().unwrap().clone();
        assert_eq!(one.told(), [(1, 2, Operation::Update, false)], "{mode:?}: only what was in its hands");
        assert!(late.iter().all(|old| theirs.iter().all(|new| old.epoch < new.epoch)), "{mode:?}");
        assert!(one.metric("capture_lease_held") < 0.5 && other.metric("capture_lease_held") > 0.5);

        // All of them published to one topic, the late ones last.
        let late_count = late.len() as f64;
        let (passed, refused) = checked_downstream([before, theirs, late].concat()).await;
        assert_eq!(refused, late_count, "{mode:?}");
        let versions = |id| -> Vec<i64> {
            passed.iter().filter(|(key, _)| *key == smartpulse_testing::uuid(id)).map(|(_, v)| *v).collect()
        };
        assert_eq!((versions(1), versions(2)), (vec![1, 2, 3], vec![1, 2]), "{mode:?}");

        // And it commits nothing: a third process goes on where the holder was.
        first.stop().await.unwrap();
        second.stop().await.unwrap();
        let third = site.process();
        site.update(1).await;
        let graph = third.rig.start(&checked(mode, FORECASTS)).await;
        third.until_told(1, 4).await;
        graph.stop().await.unwrap();
        assert_eq!(third.told(), [(1, 4, Operation::Update, false)], "{mode:?}");
    }
}
