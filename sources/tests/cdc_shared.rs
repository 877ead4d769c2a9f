//! What `cdc` promises where several instances may capture, where tables fail, hang or change, and where they leave no
//! tombstones: held against a database with faults.

mod support;

use smartpulse_clients::database::CaptureMode;
use smartpulse_clients::ledger::Ledger;
use smartpulse_pipeline::Operation::{self, Delete, Insert, Update};
use smartpulse_pipeline::Position;
use smartpulse_sources::request_resnapshot;
use std::time::Duration;
use support::{Instance, Site};

const FORECASTS: &str = "tables: { Forecasts: { section: forecast } }";
const BOTH: &str = "tables: { Forecasts: { section: forecast }, ProductionUnits: { section: unit } }";

/// Captures straight into the probe; `settings` are the source's own.
fn yaml(settings: &str) -> String {
    format!(
        "name: p\nsources: {{ c: {{ type: cdc, database: db, {settings} }} }}\nsinks: {{ k: {{ type: probe, inputs: [c] }} }}\n"
    )
}

async fn position(instance: &Instance) -> String {
    let entries = instance.ledger.connect().entries().await.unwrap();
    entries[0].position.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test]
async fn a_table_that_fails_or_hangs_holds_up_no_other_and_its_capture_resumes() {
    let site = Site::new().await;
    site.insert([1]);
    site.insert_unit(101);
    let one = site.instance();
    let graph = one.rig.start(&yaml(&format!("stall_after_ms: 1000, {BOTH}"))).await;
    one.until_told(1, 1).await;
    one.until_told(101, 1).await;
    for faults in [&one.script.failing, &one.script.hanging] {
        let before = one.rig.metric("capture_interruptions_total", &["Forecasts"]).unwrap();
        faults.lock().unwrap().insert("Forecasts".to_owned());
        // A poll that was under way has ended by then.
        one.until_metric("capture_stalled", "Forecasts", |stalled| stalled == 1.0).await;
        site.update(1);
        let version = site.writer.query_row("SELECT VersionId FROM Forecasts", [], |row| row.get(0)).unwrap();
        let unit = 200 + u64::try_from(version).unwrap();
        site.insert_unit(unit);
        one.until_told(unit, 1).await;
        one.until_metric("capture_stalled", "Forecasts", |stalled| stalled == 1.0).await;
        assert_eq!(one.rig.metric("capture_stalled", &["ProductionUnits"]), Some(0.0));
        assert!(!one.told().contains(&(1, version, Update, false)));
        faults.lock().unwrap().clear();
        one.until_told(1, version).await;
        one.until_metric("capture_stalled", "Forecasts", |stalled| stalled == 0.0).await;
        let after = one.rig.metric("capture_interruptions_total", &["Forecasts"]).unwrap();
        assert!(after <= before + 1.0, "one interruption, however many polls failed: {before} {after}");
    }
    assert!(one.rig.metric("capture_interruptions_total", &["Forecasts"]).unwrap() >= 1.0);
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn one_instance_captures_and_another_stands_by_until_the_lease_is_released() {
    let site = Site::new().await;
    site.insert([1]);
    let (one, other) = (site.instance(), site.instance());
    // Terms that do not end: only the release lets the other in.
    let yaml = yaml(&format!("lease_ms: 60000, {FORECASTS}"));
    let first = one.rig.start(&yaml).await;
    one.until_told(1, 1).await;
    let second = other.rig.start(&yaml).await;
    site.update(1);
    one.until_told(1, 2).await;
    assert_eq!(one.rig.metric("capture_lease_held", &["Forecasts"]), Some(1.0));
    assert_eq!(other.rig.metric("capture_lease_held", &["Forecasts"]), Some(0.0));
    first.stop().await.unwrap();
    site.update(1);
    other.until_told(1, 3).await;
    second.stop().await.unwrap();
    assert_eq!(one.told(), [(1, 1, Insert, true), (1, 2, Update, false)]);
    assert_eq!(other.told(), [(1, 3, Update, false)], "it goes on where the first one was");
    assert!(one.epochs().last() < other.epochs().first());
    assert_eq!(site.instance().ledger.entries().await.unwrap()[0].holder, None);
}

#[tokio::test]
async fn a_holder_whose_ledger_does_not_answer_stops_by_its_own_clock_before_another_begins() {
    let site = Site::new().await;
    site.insert([1]);
    let (one, other) = (site.instance(), site.instance());
    let yaml = yaml(&format!("lease_ms: 1000, {FORECASTS}"));
    let first = one.rig.start(&yaml).await;
    one.until_told(1, 1).await;
    let second = other.rig.start(&yaml).await;
    one.ledger.set_hanging(true);
    other.until_metric("capture_lease_held", "Forecasts", |held| held == 1.0).await;
    one.until_metric("capture_lease_held", "Forecasts", |held| held == 0.0).await;
    one.forget();
    site.update(1);
    other.until_told(1, 2).await;

    one.ledger.set_hanging(false);
    site.update(1);
    other.until_told(1, 3).await;
    assert_eq!(one.told(), []);
    // It takes over in its turn, where the other one was.
    second.stop().await.unwrap();
    site.update(1);
    one.until_told(1, 4).await;
    assert!(one.epochs().first() > other.epochs().last());
    let told = other.told();
    let again: Vec<_> = told.iter().filter(|told| told.1 > 1).collect();
    assert_eq!(again, [&(1, 2, Update, false), &(1, 3, Update, false)]);
    assert_eq!(one.told(), [(1, 4, Update, false)]);
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_holder_that_another_has_followed_stops_at_its_next_renewal_and_commits_nothing() {
    let site = Site::new().await;
    site.insert([1]);
    let one = site.instance();
    let graph = one.rig.start(&yaml(&format!("lease_ms: 1000, {FORECASTS}"))).await;
    one.until_told(1, 1).await;
    // As after a pause: the ledger has another holder, of whom this one has not heard.
    let thief = site.instance().ledger;
    thief.release("p/c/Forecasts", *one.epochs().first().unwrap()).await.unwrap();
    let smartpulse_clients::ledger::Lease::Held(stolen) =
        thief.take("p/c/Forecasts", "thief", Duration::from_secs(2)).await.unwrap()
    else {
        panic!("it is free")
    };
    thief.renew("p/c/Forecasts", stolen.epoch, Duration::from_secs(2), Some(&Position::from("theirs"))).await.unwrap();
    one.until_metric("capture_lease_held", "Forecasts", |held| held == 0.0).await;
    assert_eq!(position(&one).await, "theirs");
    assert!(one.epochs().iter().all(|epoch| *epoch < stolen.epoch));
    let end = graph.stop().await;
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn a_ledger_that_is_away_interrupts_capture_which_resumes_by_itself_and_loses_nothing() {
    let site = Site::new().await;
    site.insert([1]);
    let one = site.instance();
    let graph = one.rig.start(&yaml(&format!("lease_ms: 1000, stall_after_ms: 1000, {FORECASTS}"))).await;
    one.until_told(1, 1).await;
    one.ledger.set_away(true);
    one.until_metric("capture_stalled", "Forecasts", |stalled| stalled == 1.0).await;
    one.until_metric("capture_lease_held", "Forecasts", |held| held == 0.0).await;
    site.update(1);
    one.until_polled(0).await;
    one.ledger.set_away(false);
    one.until_told(1, 2).await;
    one.until_metric("capture_stalled", "Forecasts", |stalled| stalled == 0.0).await;
    assert!(one.rig.metric("capture_interruptions_total", &["Forecasts"]).unwrap() >= 1.0);
    assert_eq!(one.epochs().len(), 2, "a new lease, a new number");
    graph.stop().await.unwrap();
}

#[tokio::test]
async fn positions_are_committed_a_few_times_a_second_and_the_last_one_at_the_end() {
    let site = Site::new().await;
    site.insert([1]);
    let one = site.instance();
    let graph = one.rig.start(&yaml(FORECASTS)).await;
    one.until_told(1, 1).await;
    let started = std::time::Instant::now();
    let before = one.ledger.commits();
    for version in 2..=60 {
        site.update(1);
        one.until_told(1, version).await;
    }
    let (commits, elapsed) = (one.ledger.commits() - before, started.elapsed());
    let most = 2 + usize::try_from(elapsed.as_millis() / 200).unwrap();
    assert!(commits <= most, "{commits} commits in {elapsed:?}");
    graph.stop().await.unwrap();
    one.forget();
    let graph = one.rig.start(&yaml(FORECASTS)).await;
    site.update(1);
    one.until_told(1, 61).await;
    graph.stop().await.unwrap();
    assert_eq!(one.told(), [(1, 61, Update, false)], "nothing comes again");
}

#[tokio::test]
async fn a_snapshot_is_asked_for_in_the_ledger_and_forgotten_when_it_is_taken() {
    let site = Site::new().await;
    site.insert([1]);
    let one = site.instance();
    let graph = one.rig.start(&yaml(&format!("lease_ms: 1000, {FORECASTS}"))).await;
    one.until_told(1, 1).await;
    one.forget();
    let tool = site.instance().ledger;
    assert_eq!(request_resnapshot(tool.as_ref(), "p/c").await.unwrap(), 1);
    assert_eq!(request_resnapshot(tool.as_ref(), "p/x").await.unwrap(), 0);
    one.until_told(1, 1).await;
    graph.stop().await.unwrap();
    one.forget();
    let graph = one.rig.start(&yaml(&format!("lease_ms: 1000, {FORECASTS}"))).await;
    site.update(1);
    one.until_told(1, 2).await;
    // Two renewals: a request that was still there would have been heard of.
    tokio::time::sleep(Duration::from_millis(700)).await;
    graph.stop().await.unwrap();
    assert_eq!(one.told(), [(1, 2, Update, false)]);
}

/// The shape of Forecasts changes behind the first update; what is then told.
async fn reshape(policy: &str) -> (Site, Instance, smartpulse_testing::Graph) {
    let site = Site::new().await;
    site.insert([1]);
    site.insert_unit(101);
    let one = site.instance();
    let settings = format!("stall_after_ms: 1000, on_schema_change: {policy}, {BOTH}");
    let graph = one.rig.start(&yaml(&settings)).await;
    one.until_told(1, 1).await;
    one.until_told(101, 1).await;
    site.update(1);
    one.until_told(1, 2).await;
    let head: i64 = site.writer.query_row("SELECT max(__seq) FROM cdc_Forecasts_CT", [], |row| row.get(0)).unwrap();
    let of: String =
        site.writer.query_row("SELECT Incarnation FROM smartpulse_database", [], |row| row.get(0)).unwrap();
    *one.script.reshaped_at.lock().unwrap() = Some(Position::from(format!("seq:{head}@{of}")));
    site.update(1);
    (site, one, graph)
}

#[tokio::test]
async fn a_table_of_another_shape_waits_alone_and_says_so() {
    let (site, one, graph) = reshape("block").await;
    one.until_metric("capture_stalled", "Forecasts", |stalled| stalled == 1.0).await;
    site.insert_unit(102);
    one.until_told(102, 1).await;
    assert_eq!(one.rig.metric("capture_stalled", &["ProductionUnits"]), Some(0.0));
    assert!(!one.told().iter().any(|told| (told.0, told.1) == (1, 3)));
    graph.stop().await.unwrap();
    // Somebody decides.
    one.forget();
    let graph = one.rig.start(&yaml(&format!("on_schema_change: switch, {BOTH}"))).await;
    one.until_told(1, 3).await;
    graph.stop().await.unwrap();
    assert_eq!(one.told(), [(1, 3, Update, false)]);
}

#[tokio::test]
async fn a_table_of_another_shape_goes_on_in_it_or_is_scanned_again() {
    for (policy, expected) in
        [("switch", vec![(1, 3, Update, false)]), ("resnapshot", vec![(1, 3, Update, false), (1, 3, Insert, true)])]
    {
        let (_site, one, graph) = reshape(policy).await;
        one.until_told(1, 3).await;
        if policy == "resnapshot" {
            one.rig.probe.until("the snapshot", |_| one.told().contains(&(1, 3, Insert, true))).await;
        }
        graph.stop().await.unwrap();
        let mut told: Vec<(u64, i64, Operation, bool)> = one.told().into_iter().filter(|told| told.1 == 3).collect();
        told.sort_by_key(|told| told.3);
        for told in &told {
            assert!(expected.contains(told), "{policy}: {told:?}");
        }
        assert!(!told.is_empty());
    }
}

#[tokio::test]
async fn deletes_of_a_table_without_tombstones_follow_the_last_version_that_was_told() {
    let site = Site::new().await;
    site.insert([1, 2, 3]);
    site.update(2);
    let one = site.instance();
    *one.script.forgetful.lock().unwrap() = true;
    let graph = one.rig.start(&yaml(FORECASTS)).await;
    one.until_told(3, 1).await;
    site.delete(2);
    one.until_told(2, 3).await;
    // Seen and gone within one poll, and told with the version before it.
    site.update(3);
    site.delete(3);
    one.until_told(3, 3).await;
    graph.stop().await.unwrap();

    // Remembered over a restart.
    one.forget();
    let graph = one.rig.start(&yaml(FORECASTS)).await;
    site.delete(1);
    site.insert([4]);
    one.until_told(4, 1).await;
    graph.stop().await.unwrap();
    assert_eq!(one.told(), [(1, 2, Delete, false), (4, 1, Insert, false)]);
}

#[tokio::test]
async fn a_repeated_snapshot_tells_of_keys_that_vanished_without_a_trace() {
    let site = Site::new().await;
    site.insert(1..=7);
    site.update(2);
    let one = site.instance();
    *one.script.forgetful.lock().unwrap() = true;
    let yaml = yaml(&format!("changes_max: 2, lease_ms: 1000, {FORECASTS}"));
    let graph = one.rig.start(&yaml).await;
    one.until_told(7, 1).await;
    let streaming = async {
        while !position(&one).await.starts_with(r#"{"phase":"stream""#) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    smartpulse_testing::within("the end of the snapshot", streaming).await;
    // As TRUNCATE does, or as clean-up does while nobody captures: rows vanish and no change tells of it.
    graph.stop().await.unwrap();
    one.forget();
    let sql = "DELETE FROM cdc_Forecasts_CT WHERE __operation = 'DELETE'";
    [2, 5, 6].into_iter().for_each(|id| site.delete(id));
    site.writer.execute(sql, []).unwrap();
    assert_eq!(request_resnapshot(one.ledger.as_ref(), "p/c/Forecasts").await.unwrap(), 1);
    let graph = one.rig.start(&yaml).await;
    one.until_told(6, 2).await;
    site.update(7);
    one.until_told(7, 2).await;
    graph.stop().await.unwrap();
    let expected = [
        (1, 1, Insert, true),
        (3, 1, Insert, true),
        (4, 1, Insert, true),
        (7, 1, Insert, true),
        (2, 3, Delete, true),
        (5, 2, Delete, true),
        (6, 2, Delete, true),
        (7, 2, Update, false),
    ];
    assert_eq!(one.told(), expected);

    // They are told once: the next snapshot knows them to be gone.
    one.forget();
    assert_eq!(request_resnapshot(one.ledger.as_ref(), "p/c/Forecasts").await.unwrap(), 1);
    let graph = one.rig.start(&yaml).await;
    one.until_told(7, 2).await;
    site.update(7);
    one.until_told(7, 3).await;
    graph.stop().await.unwrap();
    assert!(one.told().iter().all(|told| told.2 != Delete), "{:?}", one.told());
}

#[tokio::test]
async fn mode_auto_takes_cdc_where_it_is_enabled_and_net_changes_elsewhere() {
    for (enabled, expected) in [
        (vec![CaptureMode::ChangeTracking, CaptureMode::Cdc], CaptureMode::Cdc),
        (vec![CaptureMode::ChangeTracking], CaptureMode::ChangeTracking),
    ] {
        let site = Site::new().await;
        site.insert([1]);
        let one = site.instance();
        *one.script.modes.lock().unwrap() = Some(enabled);
        let graph = one.rig.start(&yaml(&format!("mode: auto, {FORECASTS}"))).await;
        one.until_told(1, 1).await;
        graph.stop().await.unwrap();
        assert!(one.script.polled.lock().unwrap().iter().all(|mode| *mode == expected));
    }
}

#[tokio::test]
async fn a_stopped_capture_job_is_told_apart_from_no_changes_and_the_runway_is_known() {
    let site = Site::new().await;
    site.insert([1]);
    let one = site.instance();
    *one.script.stopped.lock().unwrap() = Some("the capture job is stopped".to_owned());
    let graph = one.rig.start(&yaml(&format!("stall_after_ms: 1000, {FORECASTS}"))).await;
    one.until_metric("capture_job_stopped", "Forecasts", |stopped| stopped == 1.0).await;
    assert_eq!(one.rig.metric("capture_stalled", &["Forecasts"]), Some(0.0));
    assert_eq!(one.rig.metric("capture_runway_seconds", &["Forecasts"]), Some(3_600.0));
    *one.script.stopped.lock().unwrap() = None;
    one.until_metric("capture_job_stopped", "Forecasts", |stopped| stopped == 0.0).await;
    graph.stop().await.unwrap();
}
