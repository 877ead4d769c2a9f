//! Edge cases of change capture that are the source's to handle.

use crate::log::Log;
use crate::site::{FORECASTS, MODES, Site, plain};
use smartpulse_clients::database::{CaptureMode, Database};
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_pipeline::Operation::{Delete, Insert, Update};
use smartpulse_pipeline::Position;
use smartpulse_pipeline::state::DeadLetterFilter;
use smartpulse_sqlserver::capture::position::{CdcPosition, CtAt, CtPosition};
use smartpulse_stand_in::faults::Fault;
use smartpulse_testing::{uuid, within};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A table without triggers: nothing keeps its versions, and its deletes leave no tombstones.
pub const NOTES: &str = "CREATE TABLE dbo.Notes (
    Id uniqueidentifier NOT NULL CONSTRAINT PK_Notes PRIMARY KEY, Title nvarchar(100) NOT NULL, VersionId bigint NOT NULL);
ALTER TABLE dbo.Notes ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);";

pub const NOTES_CDC: &str = "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'Notes', @role_name = NULL, \
                         @supports_net_changes = 0;";

pub const TABLE_NOTES: &str = "tables: { Notes: { section: note } }";

pub fn notes(rows: &[(u64, i64)]) -> String {
    let rows: Vec<String> = rows.iter().map(|(id, version)| format!("('{}', N'a', {version})", uuid(*id))).collect();
    format!("INSERT INTO dbo.Notes (Id, Title, VersionId) VALUES {};", rows.join(", "))
}

#[tokio::test]
async fn edge_02_a_place_in_the_snapshot_is_not_committed_before_its_rows_are_durable() {
    for mode in MODES {
        let site = Site::new().await;
        site.insert(1..=5).await;
        let process = site.process();
        process.hold();
        let yaml = plain(mode, &format!("changes_max: 2, lease_ms: 1000, {FORECASTS}"));
        let graph = process.rig.start(&yaml).await;
        process.until_sink_is_tried().await;
        // Whatever could be committed is by now.
        site.until_renewed(2).await;
        let position = site.position().await;
        assert!(position.is_empty() || position.contains(r#""phase":"snapshot""#), "{mode:?}: {position}");
        assert!(!position.contains("0000-4000-8000"), "{mode:?}: behind a key that nobody was told of: {position}");
        graph.crash().await;
        site.update(2).await;
        site.delete(3).await;
        process.release();
        let graph = process.rig.start(&yaml).await;
        for (id, version) in [(1, 1), (2, 2), (4, 1), (5, 1)] {
            process.until_told(id, version).await;
        }
        site.until_streaming().await;
        graph.stop().await.unwrap();
        assert!(process.told().iter().filter(|told| told.0 == 3).all(|told| (told.1, told.2) == (2, Delete)));
    }
}

fn version(position: &Position) -> i64 {
    match CtPosition::parse(position).unwrap().at {
        CtAt::Version(version) => version,
        inside => panic!("{inside:?}"),
    }
}

#[tokio::test]
async fn edge_05_a_position_that_clean_up_has_passed_is_healed_by_a_snapshot_and_vanished_keys_are_deleted() {
    for mode in MODES {
        let log = Log::new();
        let site = Site::new().await;
        site.insert(1..=4).await;
        let process = site.process();
        let yaml = plain(mode, &format!("changes_max: 2, {FORECASTS}"));
        let graph = process.rig.start(&yaml).await;
        process.until_told(4, 1).await;
        site.until_streaming().await;
        graph.stop().await.unwrap();
        process.forget();
        site.update(1).await;
        site.delete(2).await;
        site.insert([5]).await;
        site.update(1).await;
        site.scan().await;
        let head = site.head("Forecasts", mode).await;
        let engine = site.server.engine();
        match mode {
            CaptureMode::ChangeTracking => engine.clean_up_ct(version(&head)).unwrap(),
            CaptureMode::Cdc => engine.clean_up_cdc(CdcPosition::parse(&head).unwrap().at.lsn().0).unwrap(),
        }
        let graph = process.rig.start(&yaml).await;
        site.until_streaming().await;
        process.until_told(5, 1).await;
        site.update(3).await;
        process.until_told(3, 2).await;
        assert_eq!(process.metric("capture_position_lost_total"), 1.0, "{mode:?}");
        log.assert_says(&["ERROR", "cleaned up before they were captured", "Forecasts"]);
        graph.stop().await.unwrap();
        let mut told = process.told();
        told.sort_by_key(|told| (told.0, told.1));
        let expected = [
            (1, 3, Insert, true),
            (2, 2, Delete, true),
            (3, 1, Insert, true),
            (3, 2, Update, false),
            (4, 1, Insert, true),
            (5, 1, Insert, true),
        ];
        assert_eq!(told, expected, "{mode:?}");
    }
}

#[tokio::test]
async fn edge_08_a_stopped_capture_job_is_an_alarm_and_no_changes_are_none() {
    let log = Log::new();
    let site = Site::new().await;
    site.insert([1]).await;
    let process = site.process();
    let graph = process.rig.start(&plain(CaptureMode::Cdc, FORECASTS)).await;
    process.until_told(1, 1).await;
    site.server.engine().stop_capture();
    site.update(1).await;
    process.until_metric("capture_job_stopped", 1.0).await;
    assert_eq!(process.metric("capture_stalled"), 0.0, "polls succeed");
    assert!(process.versions(1).ends_with(&[1]), "nothing can be captured");
    log.assert_says(&["ERROR", "records no changes", "sp_cdc_start_job"]);
    site.server.engine().start_capture();
    process.until_told(1, 2).await;
    process.until_metric("capture_job_stopped", 0.0).await;
    // At rest with a job that runs: no alarm of either kind.
    assert_eq!(process.metric("capture_stalled"), 0.0);
    log.assert_says(&["INFO", "records changes again"]);
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn edge_13_a_changed_key_whose_halves_a_restart_separates_is_told_whole() {
    for mode in MODES {
        let site = Site::new().await;
        site.run(NOTES).await;
        site.run(NOTES_CDC).await;
        site.run(notes(&[(1, 4)])).await;
        let process = site.process();
        let yaml = plain(mode, &format!("changes_max: 1, {TABLE_NOTES}"));
        let graph = process.rig.start(&yaml).await;
        process.until_told(1, 4).await;
        site.until_streaming().await;
        process.forget();
        // A page that begins inside of the transaction is not given before the restart.
        let cut = site.server.faults().arm(Fault::break_before().on("@P6").always());
        let before = site.position().await;
        site.run(format!("UPDATE dbo.Notes SET Id = '{}';", uuid(2))).await;
        process.rig.probe.until("the first half", |_| !process.told().is_empty()).await;
        site.until_position("the place between the halves", |position| position != before).await;
        process.rig.probe.until("the second half is asked for", |_| cut.struck() > 0).await;
        graph.crash().await;
        assert_eq!(process.told().len(), 1, "{mode:?}: {:?}", process.told());
        site.server.faults().clear();
        let graph = process.rig.start(&yaml).await;
        process.rig.probe.until("both halves", |_| process.told().len() >= 2).await;
        graph.stop().await.unwrap();
        let mut told: Vec<_> = process.told().iter().map(|told| (told.0, told.1, told.2 == Delete)).collect();
        told.sort_unstable();
        assert_eq!(told, [(1, 5, true), (2, 4, false)], "{mode:?}");
    }
}

#[tokio::test]
async fn edge_20_truncate_under_change_tracking_deletes_every_key_that_was_told() {
    let site = Site::new().await;
    site.run(NOTES).await;
    site.run(notes(&[(1, 1), (2, 7), (3, 1)])).await;
    let store = Arc::new(MemoryStore::new());
    let process = site.process_at(site.server.address().port(), store);
    let yaml = plain(CaptureMode::ChangeTracking, &format!("changes_max: 2, {TABLE_NOTES}"));
    let graph = process.rig.start(&yaml).await;
    process.until_told(3, 1).await;
    site.until_streaming().await;
    assert!(!site.tool.table("Notes").await.unwrap().tombstones);
    process.forget();
    site.run("TRUNCATE TABLE dbo.Notes;").await;
    site.run(notes(&[(4, 1)])).await;
    for (id, version) in [(1, 2), (2, 8), (3, 2), (4, 1)] {
        process.until_told(id, version).await;
    }
    assert_eq!(process.metric("capture_position_lost_total"), 1.0);
    site.run("UPDATE dbo.Notes SET Title = N'b', VersionId = 2;").await;
    process.until_told(4, 2).await;
    graph.stop().await.unwrap();
    let mut told = process.told();
    told.sort_by_key(|told| (told.0, told.1));
    assert_eq!(told[..3], [(1, 2, Delete, true), (2, 8, Delete, true), (3, 2, Delete, true)]);
    assert!(told[3..].iter().all(|told| told.0 == 4 && told.2 != Delete), "{told:?}");
}

#[tokio::test]
async fn a_delete_without_a_tombstone_of_a_table_that_leaves_them_is_a_dead_letter_and_never_silent() {
    let log = Log::new();
    let site = Site::new().await;
    site.insert([1, 2]).await;
    let process = site.process();
    let graph = process.rig.start(&plain(CaptureMode::ChangeTracking, FORECASTS)).await;
    process.until_told(2, 1).await;
    site.until_streaming().await;
    process.forget();
    site.run(format!(
        "DISABLE TRIGGER dbo.Forecasts_versions_delete ON dbo.Forecasts;
         DELETE FROM dbo.Forecasts WHERE Id = '{}';
         ENABLE TRIGGER dbo.Forecasts_versions_delete ON dbo.Forecasts;",
        uuid(1)
    ))
    .await;
    process.until_metric("capture_deletes_untold_total", 1.0).await;
    site.delete(2).await;
    process.until_told(2, 2).await;
    graph.stop().await.unwrap();
    assert_eq!(process.told(), [(2, 2, Delete, false)]);
    let letters =
        process.rig.store.dead_letters(&DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() }).await.unwrap();
    let about: Vec<_> = letters.iter().map(|stored| (stored.letter.key.clone(), &stored.letter.reason)).collect();
    assert_eq!(about.len(), 1, "{about:?}");
    assert_eq!(about[0].0.as_deref(), Some(&*uuid(1)));
    assert!(about[0].1.contains("left no tombstone"), "{}", about[0].1);
    log.assert_says(&["ERROR", "left no tombstones", "Forecasts"]);
}

#[tokio::test]
async fn a_quiet_table_beside_a_busy_one_is_polled_seldom() {
    let site = Site::new().await;
    site.run(format!(
        "INSERT INTO dbo.ProductionUnits (Id, CompanyId, ProviderId, Name, Kind, CapacityMw)
         VALUES ('{0}', '{0}', '{0}', N'U', N'wind', 9.0);",
        uuid(101)
    ))
    .await;
    let process = site.process();
    let stages = "idle_stages: [{ after_s: 1, interval_ms: 5000 }]";
    let graph = process.rig.start(&plain(CaptureMode::ChangeTracking, &format!("{stages}, {FORECASTS}"))).await;
    site.until_streaming().await;
    let polls = || process.rig.metric("database_queries_total", &["db", "changes"]).unwrap_or_default();
    // Many times the interval that a table with changes is polled in.
    let rests = async {
        loop {
            let (before, since) = (polls(), Instant::now());
            while since.elapsed() < Duration::from_secs(1) {
                site.run("UPDATE dbo.ProductionUnits SET CapacityMw = CapacityMw + 1;").await;
            }
            if polls() - before <= 1.0 {
                return;
            }
        }
    };
    within("the quiet table rests", rests).await;
    graph.stop().await.unwrap();
}
