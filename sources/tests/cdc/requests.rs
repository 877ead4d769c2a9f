//! Snapshots that somebody asks for.

use crate::place::{BOTH, FORECASTS, Place, plain};
use smartpulse_pipeline::Operation::{Delete, Insert, Update};
use smartpulse_testing::within;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_snapshot_that_is_asked_for_is_taken_within_a_second_or_so_of_that_table_only() {
    let place = Place::new().await;
    place.insert([1]);
    place.insert_unit(101);
    let graph = place.rig.start(&plain(BOTH)).await;
    place.until_told(2).await;
    place.until_caught_up("Forecasts").await;
    place.until_caught_up("ProductionUnits").await;

    let asked = Instant::now();
    place.forget();
    assert!(place.resnapshot("p/c/ProductionUnits").await >= 1);
    place.until_told(1).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    until_forgotten(&place, "p/c/ProductionUnits").await;
    place.until_caught_up("ProductionUnits").await;
    place.update(1, 2.0);
    place.until_told(2).await;
    assert_eq!(place.told(), [(101, 1, Insert, true), (1, 2, Update, false)]);

    place.forget();
    assert!(place.resnapshot("p/c").await >= 1);
    place.until_told(2).await;
    until_forgotten(&place, "p/c/Forecasts").await;
    until_forgotten(&place, "p/c/ProductionUnits").await;
    place.until_caught_up("Forecasts").await;
    place.until_caught_up("ProductionUnits").await;
    graph.stop().await.unwrap();
    let mut told = place.told();
    told.sort_by_key(|(id, ..)| *id);
    assert_eq!(told, [(1, 2, Insert, true), (101, 1, Insert, true)]);
}

#[tokio::test]
async fn a_snapshot_that_was_asked_for_before_a_start_is_taken_and_tells_of_vanished_rows() {
    let place = Place::new().await;
    place.insert([1, 2]);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.delete(2);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    place.forget();
    assert!(place.resnapshot("p/c/Forecasts").await >= 1);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_told(2).await;
    until_forgotten(&place, "p/c/Forecasts").await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(2, 2, Delete, true), (1, 1, Insert, true)]);
}

async fn until_forgotten(place: &Place, id: &str) {
    let request = format!("{id}#resnapshot");
    let forgotten = async {
        while place.rig.store.position(&request).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("the end of the request", forgotten).await;
}

#[tokio::test]
async fn a_snapshot_that_is_asked_for_skips_no_change_that_was_not_captured_yet() {
    let place = Place::new().await;
    place.insert([1]);
    let yaml = plain(&format!("changes_max: 2, {FORECASTS}"));
    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    place.hold();
    (2..=60).for_each(|version| place.update(1, f64::from(version)));
    place.until_sink_is_tried(1).await;
    assert!(place.resnapshot("p/c/Forecasts").await >= 1);
    // The waits between tries double from 100 ms: after five the source looks for requests before it reads on.
    place.until_sink_is_tried(4).await;
    place.release();
    until_forgotten(&place, "p/c/Forecasts").await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    let streamed: Vec<i64> = place.told().iter().filter(|(.., snapshot)| !snapshot).map(|told| told.1).collect();
    assert_eq!(streamed, (2..=60).collect::<Vec<_>>());
    assert_eq!(place.told().iter().filter(|(.., snapshot)| *snapshot).count(), 2, "the first and the one asked for");
}

#[tokio::test]
async fn a_crash_does_not_lose_the_request_for_a_snapshot() {
    let place = Place::new().await;
    place.insert([1]);
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.until_caught_up("Forecasts").await;
    place.hold();
    place.update(1, 2.0);
    place.until_sink_is_tried(1).await;
    assert!(place.resnapshot("p/c/Forecasts").await >= 1);
    // More than a second: the source has taken the request up, and what it emits cannot be committed.
    place.until_sink_is_tried(4).await;
    graph.crash().await;
    place.release();
    place.forget();
    let graph = place.rig.start(&plain(FORECASTS)).await;
    place.probe().until("the snapshot is taken", |p| p.events.lock().unwrap().iter().any(|e| e.snapshot)).await;
    graph.stop().await.unwrap();
}
