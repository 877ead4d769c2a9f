//! Clean-up, jobs that stop, connections that break, clocks that are set elsewhere.

use super::*;
use smartpulse_clients::database::{CaptureHealth, Kept};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_sqlserver::capture::position::{CdcPosition, CtAt, CtPosition};
use smartpulse_stand_in::faults::Fault;
use std::time::Duration;

fn version(position: &Position) -> i64 {
    match CtPosition::parse(position).unwrap().at {
        CtAt::Version(version) => version,
        inside => panic!("{inside:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_05_a_position_that_clean_up_has_passed_is_lost_in_words() {
    let rig = Rig::new().await;
    let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    rig.write(vec![insert(1, 1.0)]).await;
    rig.write(vec![update(1, 2.0)]).await;
    rig.scan().await;
    let (newest, max) = (rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await);
    rig.server.engine.clean_up_ct(version(&newest)).unwrap();
    rig.server.engine.clean_up_cdc(CdcPosition::parse(&max).unwrap().at.lsn().0).unwrap();
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let why = rig.lost(mode, head).await.unwrap_or_else(|| panic!("{mode:?}: passed in silence"));
        assert!(why.contains("clean"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_06_clean_up_right_up_to_a_position_takes_nothing_and_one_step_further_does() {
    let rig = Rig::new().await;
    rig.write(vec![insert(1, 1.0)]).await;
    rig.scan().await;
    let (ct, cdc) = (rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await);
    rig.write(vec![update(1, 2.0)]).await;
    rig.scan().await;
    rig.server.engine.clean_up_ct(version(&ct)).unwrap();
    rig.server.engine.clean_up_cdc(CdcPosition::parse(&cdc).unwrap().at.lsn().0).unwrap();
    for (mode, position) in [(CT, &ct), (CDC, &cdc)] {
        assert_eq!(story(&rig.all(TABLE, mode, position, 10).await.0), [(Operation::Update, 2)], "{mode:?}");
    }
    let (ct_end, cdc_end) = (rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await);
    rig.write(vec![update(1, 3.0)]).await;
    rig.scan().await;
    rig.server.engine.clean_up_ct(version(&ct) + 1).unwrap();
    let max = CdcPosition::parse(&rig.head(TABLE, CDC).await).unwrap().at.lsn();
    rig.server.engine.clean_up_cdc(max.0).unwrap();
    assert!(rig.lost(CT, &ct).await.is_some() && rig.lost(CDC, &cdc).await.is_some());
    assert_eq!(story(&rig.all(TABLE, CT, &ct_end, 10).await.0), [(Operation::Update, 3)]);
    let lost = rig.lost(CDC, &cdc_end).await.is_some();
    let adjacent = CdcPosition::parse(&cdc_end).unwrap().at.needs() >= max;
    assert_eq!(lost, !adjacent, "what lies in between may have been a change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_07_max_lsn_below_a_new_instances_min_lsn() {
    let rig = Rig::new().await;
    rig.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'Forecasts', @capture_instance = N'all';")
        .await;
    rig.write(vec![insert(1, 1.0)]).await;
    rig.run(
        "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'Forecasts', @role_name = NULL, \
         @supports_net_changes = 0;",
    )
    .await;
    // Before the job has come to the instance: there is a place to stream from, or a clear word to wait.
    let head = match rig.database.head(TABLE, CDC).await {
        Ok(head) => head,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
            rig.scan().await;
            rig.head(TABLE, CDC).await
        }
    };
    assert_eq!(rig.page(TABLE, CDC, &head, 10).await.changes, []);
    rig.write(vec![update(1, 2.0)]).await;
    let (all, _) = rig.all(TABLE, CDC, &head, 10).await;
    assert_eq!(story(&all), [(Operation::Update, 2)]);
}

fn left(runway: Kept) -> Duration {
    match runway {
        Kept::For(left) => left,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_08_a_stopped_capture_job_differs_from_a_table_at_rest() {
    let rig = Rig::new().await;
    rig.server.engine.start_capture();
    let head = rig.head(TABLE, CDC).await;
    let healthy = rig.database.capture_health(TABLE, CDC, &head).await.unwrap();
    assert_eq!(healthy.stopped, None);
    let runway = left(healthy.runway);
    assert!(runway > Duration::from_secs(2 * 86_400) && runway <= Duration::from_secs(3 * 86_400), "{runway:?}");
    rig.server.engine.stop_capture();
    rig.write(vec![insert(1, 1.0)]).await;
    assert_eq!(rig.page(TABLE, CDC, &head, 10).await.changes, [], "it looks idle");
    let stopped = rig.database.capture_health(TABLE, CDC, &head).await.unwrap().stopped.unwrap();
    assert!(stopped.contains("capture job") && stopped.contains("sp_cdc_start_job"), "{stopped}");
    let ct = rig.head(TABLE, CT).await;
    let other = rig.database.capture_health(TABLE, CT, &ct).await.unwrap();
    assert_eq!(other.stopped, None, "change tracking has no job");
    assert!(left(other.runway) > Duration::from_secs(86_400), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_08_without_rights_nothing_is_known_and_no_alarm_raised() {
    let rig = Rig::new().await;
    let head = rig.head(TABLE, CDC).await;
    for right in ["VIEW DATABASE STATE", "SELECT ON msdb.dbo.cdc_jobs", "SELECT ON msdb.dbo.sysjobactivity"] {
        rig.server.engine.deny(right);
    }
    let rig = Rig { database: rig.again(), server: rig.server };
    let positions = [(CT, rig.head(TABLE, CT).await), (CDC, head)];
    for (mode, position) in &positions {
        let health = rig.database.capture_health(TABLE, *mode, position).await.unwrap();
        assert_eq!(health, CaptureHealth { stopped: None, runway: Kept::Unknown }, "{mode:?}");
    }
    rig.write(vec![insert(1, 1.0)]).await;
    for (mode, position) in &positions {
        assert_eq!(story(&rig.all(TABLE, *mode, position, 10).await.0), [(Operation::Insert, 1)], "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_18_commit_times_are_utc_wherever_the_server_is() {
    let rig = Rig::new().await;
    for (offset, id) in [(0, 1), (330, 2), (-480, 3)] {
        rig.server.engine.set_time_zone(offset);
        let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
        let before = Timestamp::now().as_millis();
        rig.write(vec![insert(id, 1.0)]).await;
        let after = Timestamp::now().as_millis();
        for (mode, head) in BOTH.into_iter().zip(&heads) {
            let (all, _) = rig.all(TABLE, mode, head, 10).await;
            let time = all[0].commit_time.as_millis();
            // `datetime` has steps of 3 ms.
            assert!((before - 10..=after + 10).contains(&time), "{mode:?} at {offset}: {} ms off", time - before);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_22_a_connection_that_breaks_among_rows_is_never_the_end_of_the_changes() {
    let rig = Rig::new().await;
    let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    rig.write((0..30).map(|id| insert(id, 1.0)).collect()).await;
    rig.scan().await;
    for (mode, head, text) in [(CT, &heads[0], "CHANGETABLE"), (CDC, &heads[1], "[dbo_Forecasts_CT]")] {
        let broken = rig.server.faults().arm(Fault::break_after_rows(7).on(text));
        assert_eq!(rig.page(TABLE, mode, head, 100).await.changes.len(), 30, "{mode:?}");
        assert_eq!(broken.struck(), 1);
        let broken = rig.server.faults().arm(Fault::break_after_rows(7).on(text).always());
        let error = rig.database.changes(TABLE, mode, head, 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
        rig.server.faults().disarm(&broken);
        assert_eq!(rig.all(TABLE, mode, head, 100).await.0.len(), 30, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_23_capture_goes_on_after_a_restart_of_the_server_and_a_killed_connection() {
    let rig = Rig::new().await;
    let mut positions = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    for (round, demand) in [(1, 1.0), (2, 2.0), (3, 3.0)] {
        let write = if round == 1 { insert(1, demand) } else { update(1, demand) };
        rig.again().write(TABLE, vec![write]).await.unwrap();
        for (mode, position) in BOTH.into_iter().zip(&mut positions) {
            match round {
                2 => rig.server.drop_connections(),
                3 => rig.server.restart().unwrap(),
                _ => {}
            }
            // The first call may be the one that finds out.
            let started = std::time::Instant::now();
            rig.scan().await;
            let page = loop {
                match rig.database.changes(TABLE, mode, position, 10).await {
                    Ok(Poll::Changes(page)) => break page,
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain()),
                }
                assert!(started.elapsed() < Duration::from_secs(60), "{mode:?}: capture does not go on");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(page.changes.iter().map(|c| c.version).collect::<Vec<_>>(), [round], "{mode:?}");
            *position = page.next;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_that_regrew_past_the_position_is_noticed() {
    let rig = Rig::new().await;
    rig.write(vec![insert(1, 1.0)]).await;
    rig.scan().await;
    let backup = rig.server.engine.backup().unwrap();
    rig.write(vec![update(1, 2.0)]).await;
    rig.scan().await;
    let positions = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    rig.server.engine.restore(&backup).unwrap();
    let rig = Rig { database: rig.again(), server: rig.server };
    for demand in [5.0, 6.0, 7.0] {
        rig.write(vec![update(1, demand)]).await;
    }
    rig.scan().await;
    for (mode, position) in BOTH.into_iter().zip(&positions) {
        let why = rig.lost(mode, position).await.unwrap_or_else(|| panic!("{mode:?}: taken for its continuation"));
        assert!(why.contains("restored"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_may_take_longer_than_another_statement() {
    let rig = Rig::new().await;
    let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    rig.write(vec![insert(1, 1.0)]).await;
    rig.scan().await;
    let (timeout, slow) = (Duration::from_millis(2_000), Duration::from_millis(3_000));
    let mut settings = settings(&rig.server.url());
    settings.command_timeout_ms = u64::try_from(timeout.as_millis()).unwrap();
    let database = open(&settings);
    for text in ["CHANGETABLE(CHANGES", "[dbo_Forecasts_CT]", "SELECT TOP (@P1) [Id]"] {
        rig.server.faults().arm(Fault::delay(slow).on(text).always());
    }
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let poll = database.changes(TABLE, mode, head, 10).await.unwrap();
        assert!(matches!(&poll, Poll::Changes(page) if page.changes.len() == 1), "{mode:?}: {poll:?}");
    }
    assert_eq!(database.scan(TABLE, None, 10).await.unwrap().len(), 1);
}
