//! The stream: restarts, modes, rows without a form, epochs.

use crate::place::{FORECASTS, Place, document, forecast, number, plain};
use smartpulse_clients::embedded::{DataFolder, MemoryStore, SqliteStore, StateConfig, StateFile};
use smartpulse_clients::ledger::{Ledger, StoreLedger};
use smartpulse_pipeline::Operation::{Delete, Insert, Update};
use smartpulse_pipeline::state::Store;
use smartpulse_testing::uuid;
use std::sync::Arc;

#[tokio::test]
async fn a_restart_in_the_stream_repeats_nothing_committed_and_a_crash_loses_nothing() {
    let place = Place::new().await;
    place.insert([1]);
    let yaml = plain(FORECASTS);
    let graph = place.rig.start(&yaml).await;
    place.update(1, 2.0);
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    place.forget();

    // While nobody captures.
    place.update(1, 3.0);
    place.insert([2]);
    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    assert_eq!(place.told(), [(1, 3, Update, false), (2, 1, Insert, false)]);

    // Captured, and not written when the process dies.
    place.hold();
    place.update(1, 4.0);
    place.delete(2);
    place.until_sink_is_tried(1).await;
    graph.crash().await;
    place.release();
    place.forget();
    place.update(1, 5.0);
    let graph = place.rig.start(&yaml).await;
    place.until_caught_up("Forecasts").await;
    graph.stop().await.unwrap();
    assert_eq!(place.told(), [(1, 4, Update, false), (2, 2, Delete, false), (1, 5, Update, false)]);
}

#[tokio::test]
async fn net_changes_collapse_in_mode_change_tracking_and_nothing_collapses_in_mode_cdc() {
    let net = [(3, 2, Delete), (1, 4, Update), (4, 3, Insert), (5, 2, Delete)];
    let all = [
        (1, 2, Update),
        (3, 2, Delete),
        (1, 3, Update),
        (4, 1, Insert),
        (1, 4, Update),
        (4, 2, Update),
        (4, 3, Update),
        (5, 1, Insert),
        (5, 2, Delete),
    ];
    for (mode, expected) in [("change_tracking", &net[..]), ("cdc", &all[..])] {
        let place = Place::new().await;
        place.insert(1..=3);
        let yaml = plain(&format!("mode: {mode}, {FORECASTS}"));
        let graph = place.rig.start(&yaml).await;
        place.until_caught_up("Forecasts").await;
        graph.stop().await.unwrap();
        place.forget();
        place.update(1, 2.0);
        place.delete(3);
        place.update(1, 3.0);
        place.insert([4]);
        place.update(1, 4.0);
        place.update(4, 2.0);
        place.update(4, 3.0);
        place.insert([5]);
        place.delete(5);
        let graph = place.rig.start(&yaml).await;
        place.until_caught_up("Forecasts").await;
        graph.stop().await.unwrap();
        let expected: Vec<_> = expected.iter().map(|(id, version, op)| (*id, *version, *op, false)).collect();
        assert_eq!(place.told(), expected, "{mode}");
        let first = place.events().into_iter().rfind(|event| number(event) == 1).unwrap();
        assert_eq!(document(&first), forecast(1, 4, 4.0), "{mode}");
    }
}

#[tokio::test]
async fn a_row_without_a_json_form_is_set_aside_and_neither_its_table_nor_another_waits_for_it() {
    let place = Place::new().await;
    let graph = place.start_both().await;
    // SQLite lets a text be any bytes.
    place.execute("UPDATE ProductionUnits SET Name = CAST(x'ff' AS TEXT) WHERE Id = ?1", &[&uuid(101)]);
    place.insert_unit(102);
    place.update(1, 2.0);
    place.until_told(2).await;
    graph.stop().await.unwrap();
    let mut told = place.told();
    told.sort_by_key(|(id, ..)| *id);
    assert_eq!(told, [(1, 2, Update, false), (102, 1, Insert, false)]);
}

#[tokio::test]
async fn the_epoch_rises_with_every_start_and_resetting_the_position_does_not_lower_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::open(&DataFolder::beside(folder.path()).unwrap(), &StateConfig::default()).await.unwrap();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new()), Arc::new(SqliteStore::new(file))];
    for store in stores {
        let place = Place::with(store).await;
        place.insert([1]);
        let mut last = 0;
        for start in 1..=4_u64 {
            if start == 3 {
                assert_eq!(StoreLedger::new(place.rig.store.clone()).reset("p/c").await.unwrap(), 1);
            }
            place.forget();
            let graph = place.rig.start(&plain(FORECASTS)).await;
            place.update(1, start as f64 + 1.0);
            place.until_caught_up("Forecasts").await;
            graph.stop().await.unwrap();
            let events = place.events();
            let epoch = events[0].epoch;
            assert!(epoch > last, "{epoch} after {last}");
            assert!(events.iter().all(|event| event.epoch == epoch), "{events:?}");
            last = epoch;
            let scanned = events.iter().filter(|event| event.snapshot).count();
            assert_eq!(scanned, usize::from(start == 1 || start == 3), "in start {start}");
        }
    }
}
