//! Positions that clean-up has passed.

use crate::place::{BOTH, FORECASTS, Place, checked, document, forecast, number, plain};
use smartpulse_pipeline::Operation::{self, Delete, Insert, Update};

/// Rows change and vanish while the graph is down, and the log forgets about it.
async fn lose_the_position(place: &Place, yaml: &str) -> smartpulse_pipeline::topology::Summary {
    place.insert(1..=7);
    let graph = place.rig.start(yaml).await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    place.forget();

    [2, 4, 5].into_iter().for_each(|id| place.delete(id));
    place.insert([4]);
    place.update(1, 2.0);
    place.update(1, 3.0);
    place.update(3, 2.0);
    place.insert([8]);
    place.clean(&["Forecasts"]).await;
    let graph = place.rig.start(yaml).await;
    place.until_caught_up("Forecasts").await;
    place.update(1, 4.0);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap()
}

/// What is told then, where nothing is checked.
const TOLD: [(u64, i64, Operation, bool); 10] = [
    (2, 2, Delete, true),
    (4, 2, Delete, true),
    (5, 2, Delete, true),
    (1, 3, Insert, true),
    (3, 2, Insert, true),
    (4, 3, Insert, true),
    (6, 1, Insert, true),
    (7, 1, Insert, true),
    (8, 1, Insert, true),
    (1, 4, Update, false),
];

#[tokio::test]
async fn a_position_that_clean_up_has_passed_leads_to_a_new_snapshot_that_also_tells_of_vanished_rows() {
    let place = Place::new().await;
    // Two at a time, so that tombstones and rows take several pages.
    let summary = lose_the_position(&place, &plain(&format!("changes_max: 2, {FORECASTS}"))).await;
    assert_eq!(place.told(), TOLD);
    for event in place.events().iter().filter(|event| event.operation != Delete) {
        let demand = event.version.to_string().parse().unwrap();
        let demand = if number(event) == 4 { 1.0 } else { demand };
        assert_eq!(document(event), forecast(number(event), event.version, demand));
    }
    assert_eq!(summary.noted("position_lost"), 1, "it is counted");
}

#[tokio::test]
async fn after_a_lost_position_only_what_differs_passes_the_version_check_and_no_version_goes_back() {
    let place = Place::new().await;
    let summary = lose_the_position(&place, &checked(&format!("changes_max: 2, {FORECASTS}"))).await;
    let differs = |told: &&(u64, i64, Operation, bool)| ![6, 7].contains(&told.0);
    let expected: Vec<_> = TOLD.iter().filter(differs).copied().collect();
    assert_eq!(place.told(), expected);
    assert_eq!((summary.noted("gap"), summary.noted("conflict")), (1, 0), "version 2 of the first was never seen");
}

#[tokio::test]
async fn a_table_that_lost_its_position_is_scanned_again_alone() {
    let place = Place::new().await;
    let graph = place.start_both().await;
    graph.stop().await.unwrap();
    place.update(1, 2.0);
    place.insert_unit(102);
    place.insert_unit(103);
    place.clean(&["ProductionUnits"]).await;
    let graph = place.rig.start(&plain(BOTH)).await;
    place.until_caught_up("ProductionUnits").await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    let mut told = place.told();
    told.sort_by_key(|(id, ..)| *id);
    assert_eq!(told, [(1, 2, Update, false), (101, 1, Insert, true), (102, 1, Insert, true), (103, 1, Insert, true)]);
}
