//! The snapshot: before the stream, beside it, and over restarts.

use crate::place::{FORECASTS, Place, checked, document, forecast, plain};
use smartpulse_pipeline::Operation::{Delete, Insert, Update};
use smartpulse_testing::within;
use std::collections::BTreeMap;
use std::time::Duration;

#[tokio::test]
async fn a_snapshot_comes_first_and_marked_and_then_every_change_once_in_order_with_its_full_row() {
    let place = Place::new().await;
    place.insert(1..=3);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_told(3).await;
    place.until_caught_up("Forecasts").await;
    place.update(1, 2.0);
    place.insert([4]);
    place.delete(2);
    place.insert([2]);
    place.update(1, 3.0);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();

    let expected = [
        (1, 1, Insert, true, 1.0),
        (2, 1, Insert, true, 1.0),
        (3, 1, Insert, true, 1.0),
        (1, 2, Update, false, 2.0),
        (4, 1, Insert, false, 1.0),
        (2, 2, Delete, false, 1.0),
        (2, 3, Insert, false, 1.0),
        (1, 3, Update, false, 3.0),
    ];
    assert_eq!(place.told(), expected.map(|(id, version, operation, snapshot, _)| (id, version, operation, snapshot)));
    for (event, (id, version, _, snapshot, demand)) in place.events().iter().zip(expected) {
        // Of a delete: the last image with the tombstone's version.
        assert_eq!(document(event), forecast(id, version, demand));
        assert_eq!((&*event.section, event.epoch), ("forecast", place.events()[0].epoch));
        assert!(event.commit_time.is_some());
        assert_eq!(event.position.is_some(), !snapshot, "{event:?}");
    }
}

/// Changes while the scan stands still between its first pages: of rows before, behind and ahead of it.
async fn change_during_the_snapshot(place: &Place, yaml: &str) -> smartpulse_pipeline::topology::Summary {
    place.insert(1..=30);
    place.hold();
    let graph = place.rig.start(yaml).await;
    // The first page is at the sink; full channels keep the scan from its last pages.
    place.until_sink_is_tried(1).await;
    assert_eq!(place.position("Forecasts").await["phase"], "snapshot");
    place.update(1, 2.0);
    place.insert([0]);
    place.delete(2);
    place.delete(29);
    place.update(30, 2.0);
    place.insert([31]);
    place.release();
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap()
}

#[tokio::test]
async fn changes_committed_while_the_snapshot_is_read_follow_it_without_a_gap() {
    let place = Place::new().await;
    change_during_the_snapshot(&place, &plain(&format!("changes_max: 2, {FORECASTS}"))).await;
    let told = place.told();
    let streamed: Vec<_> = told.iter().filter(|(.., snapshot)| !snapshot).copied().collect();
    let changes = [(1, 2, Update), (0, 1, Insert), (2, 2, Delete), (29, 2, Delete), (30, 2, Update), (31, 1, Insert)];
    assert_eq!(streamed, changes.map(|(id, version, operation)| (id, version, operation, false)));
    let scanned: Vec<(u64, i64)> =
        told.iter().filter(|(.., snapshot)| *snapshot).map(|(id, version, ..)| (*id, *version)).collect();
    let mut expected: Vec<(u64, i64)> = (1..=28).map(|id| (id, 1)).collect();
    expected.extend([(30, 2), (31, 1)]);
    assert_eq!(scanned, expected, "each row once, in the order of keys, as it was when it was read");
    // No row overtakes a change: what was changed is told as a change first.
    for (id, version, ..) in &changes[4..] {
        let first = told.iter().find(|told| (told.0, told.1) == (*id, *version)).unwrap();
        assert!(!first.3, "{first:?}");
    }
}

#[tokio::test]
async fn what_was_scanned_and_comes_again_passes_the_version_check_once() {
    let place = Place::new().await;
    let summary = change_during_the_snapshot(&place, &checked(&format!("changes_max: 2, {FORECASTS}"))).await;
    let mut versions: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for (id, version, ..) in place.told() {
        versions.entry(id).or_default().push(version);
    }
    for (id, versions) in versions {
        let expected: &[i64] = match id {
            1 | 2 => &[1, 2],
            29 | 30 => &[2],
            _ => &[1],
        };
        assert_eq!(versions, expected, "of {id}");
    }
    assert_eq!((summary.noted("gap"), summary.noted("conflict")), (0, 0), "one row has one spelling");
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_snapshot_goes_on_where_it_was() {
    let place = Place::new().await;
    place.insert(1..=1_500);
    let yaml = plain(&format!("changes_max: 2, {FORECASTS}"));

    // A crash once everything written is committed.
    let graph = place.rig.start(&yaml).await;
    place.until_told(10).await;
    place.hold();
    place.until_sink_is_tried(1).await;
    let last = place.events().last().unwrap().key.to_string();
    let committed = async {
        while place.position("Forecasts").await["after"] != *last {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("the commit of what was written", committed).await;
    graph.crash().await;
    place.release();
    let before = place.told().len();
    assert!(before < 1_000, "the crash comes too late to be in the middle: {before}");

    // A stop: what is on its way is written first.
    let graph = place.rig.start(&yaml).await;
    place.until_told(before + 10).await;
    place.hold();
    place.until_sink_is_tried(1).await;
    place.release();
    graph.stop().await.unwrap();
    assert!(place.told().len() < 1_400, "the stop comes too late to be in the middle");
    assert_eq!(place.position("Forecasts").await["phase"], "snapshot");

    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    let expected: Vec<_> = (1..=1_500).map(|id| (id, 1, Insert, true)).collect();
    assert_eq!(place.told(), expected);
}

#[tokio::test]
async fn every_row_of_a_first_snapshot_of_completed_forecasts_is_marked() {
    let place = Place::new().await;
    place.insert(1..=1_200);
    place.writer.execute("UPDATE Forecasts SET Status = 'Completed'", []).unwrap();
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_caught_up("Forecasts").await;
    assert_eq!(place.told(), (1..=1_200).map(|id| (id, 2, Insert, true)).collect::<Vec<_>>());
    assert!(place.events().iter().all(|event| document(event)["status"] == "Completed"));
    place.forget();
    place.update(1, 2.0);
    place.until_told(1).await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(1, 3, Update, false)]);
}

#[tokio::test]
async fn without_a_snapshot_only_changes_from_now_on_are_told() {
    let place = Place::new().await;
    place.insert([1, 2]);
    let graph = place.rig.start(&plain(&format!("snapshot: never, {FORECASTS}"))).await;
    place.until_caught_up("Forecasts").await;
    place.update(2, 2.0);
    place.until_told(1).await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(2, 2, Update, false)]);
}
