//! From scan to stream: what changed while a page was read, and is captured later, is told as a change and not as a row.

use crate::edges::{NOTES, NOTES_CDC, TABLE_NOTES, notes};
use crate::site::{FORECASTS, MODES, Process, Site, checked, plain};
use smartpulse_clients::database::{CaptureMode, Database};
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_pipeline::Operation::{Delete, Insert, Update};
use smartpulse_sources::request_resnapshot;
use smartpulse_testing::uuid;
use std::sync::Arc;

impl Process {
    /// What was told, by key and version.
    fn told_by_key(&self) -> Vec<(u64, i64, smartpulse_pipeline::Operation, bool)> {
        let mut told = self.told();
        told.sort_by_key(|told| (told.0, told.1));
        told
    }
}

impl Site {
    /// Waits until a page waits for the capture job: its mark was looked for several times.
    async fn until_held(&self, process: &Process) {
        let asked = || {
            let labels = ["db", "watermark"];
            process.rig.metric("database_queries_total", &labels).unwrap_or_default()
        };
        process.rig.probe.until("a page waits", |_| asked() >= 5.0).await;
    }

    async fn ask_for_a_snapshot(&self) {
        let ledger = self.tool.ledger().unwrap();
        assert_eq!(request_resnapshot(&*ledger, "p/c").await.unwrap(), 1);
    }
}

#[tokio::test]
async fn rows_that_change_while_the_capture_job_is_behind_are_told_as_changes() {
    let site = Site::new().await;
    site.insert(1..=5).await;
    site.scan().await;
    site.server.engine().stop_capture();
    site.update(1).await;
    site.delete(4).await;
    site.insert([6]).await;
    let process = site.process();
    let graph = process.rig.start(&checked(CaptureMode::Cdc, &format!("changes_max: 2, {FORECASTS}"))).await;
    site.until_held(&process).await;
    assert_eq!(process.told(), [], "a page may hold what the job has not come to yet");
    site.update(2).await;
    site.server.engine().start_capture();
    site.until_streaming().await;
    graph.stop().await.unwrap();
    let expected = [
        (1, 2, Update, false),
        (2, 2, Update, false),
        (3, 1, Insert, true),
        (4, 2, Delete, false),
        (5, 1, Insert, true),
        (6, 1, Insert, false),
    ];
    assert_eq!(process.told_by_key(), expected);
}

#[tokio::test]
async fn a_snapshot_that_is_asked_for_tells_no_change_as_a_row_or_as_a_vanished_key() {
    for mode in MODES {
        let site = Site::new().await;
        site.insert(1..=3).await;
        let process = site.process();
        let yaml = checked(mode, &format!("changes_max: 2, {FORECASTS}"));
        let graph = process.rig.start(&yaml).await;
        process.until_told(3, 1).await;
        site.until_streaming().await;
        graph.stop().await.unwrap();
        process.forget();
        site.server.engine().stop_capture();
        site.update(1).await;
        site.delete(2).await;
        site.ask_for_a_snapshot().await;
        let graph = process.rig.start(&yaml).await;
        if mode == CaptureMode::Cdc {
            site.until_held(&process).await;
        }
        site.server.engine().start_capture();
        process.until_told(2, 2).await;
        site.until_streaming().await;
        graph.stop().await.unwrap();
        assert_eq!(process.told_by_key(), [(1, 2, Update, false), (2, 2, Delete, false)], "{mode:?}");
    }
}

#[tokio::test]
async fn a_remembered_key_whose_delete_is_captured_later_is_told_as_deleted() {
    let site = Site::new().await;
    site.run(NOTES).await;
    site.run(NOTES_CDC).await;
    site.run(notes(&[(1, 1), (2, 4)])).await;
    let store = Arc::new(MemoryStore::new());
    let process = site.process_at(site.server.address().port(), store);
    let yaml = plain(CaptureMode::Cdc, TABLE_NOTES);
    let graph = process.rig.start(&yaml).await;
    process.until_told(2, 4).await;
    site.until_streaming().await;
    graph.stop().await.unwrap();
    process.forget();
    site.server.engine().stop_capture();
    site.run(format!("DELETE FROM dbo.Notes WHERE Id = '{}';", uuid(2))).await;
    site.ask_for_a_snapshot().await;
    let graph = process.rig.start(&yaml).await;
    site.until_held(&process).await;
    // From the second page, of remembered keys, on it may wait again.
    site.server.engine().start_capture();
    process.until_told(2, 5).await;
    site.until_streaming().await;
    graph.stop().await.unwrap();
    assert_eq!(process.told_by_key(), [(1, 1, Insert, true), (2, 5, Delete, false)]);
}
