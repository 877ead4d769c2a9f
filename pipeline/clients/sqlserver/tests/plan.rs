//! The plan of a database, followed to the letter.

mod common;

use common::{open, settings, sql, stand_in};
use smartpulse_clients::database::{CaptureMode, Database};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_is_ready_for_a_mode_once_its_statements_were_run() {
    for mode in [CaptureMode::ChangeTracking, CaptureMode::Cdc] {
        let server = stand_in();
        let database = open(&settings(&server.url()));
        let plan = database.capture_plan("Forecasts").await.unwrap();
        assert!(plan.notes[0].contains("is not there"), "{:?}", plan.notes);
        let of = |plan: &smartpulse_clients::database::CapturePlan| {
            plan.modes.iter().find(|plan| plan.mode == mode).unwrap().clone()
        };
        for statement in of(&plan).statements {
            sql(&database, &statement).await.unwrap();
        }
        let ready = of(&database.capture_plan("Forecasts").await.unwrap());
        assert!(ready.enabled, "{mode:?}");
        assert_eq!((ready.statements, ready.missing_rights), (Vec::new(), Vec::new()), "{mode:?}");
        // The job has to come to a new instance.
        let engine = server.engine.clone();
        tokio::task::spawn_blocking(move || engine.run_capture_now()).await.unwrap().unwrap();
        database.head("Forecasts", mode).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_schema_does_not_make_is_refused() {
    let server = stand_in();
    let database = open(&settings(&server.url()));
    for table in ["Invoices", "SysUser"] {
        let error = database.capture_plan(table).await.unwrap_err().chain();
        assert!(error.contains(&format!("no table {table}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_cannot_enable_change_data_capture_creates_all_else() {
    let server = stand_in();
    server.engine.deny("sysadmin");
    let database = open(&settings(&server.url()));
    database.create_schema().await.unwrap();
    let table = database.table("Forecasts").await.unwrap();
    assert_eq!((table.capture, table.tombstones), (vec![CaptureMode::ChangeTracking], true));
    server.engine.grant("sysadmin");
    database.create_schema().await.unwrap();
    let table = database.table("Forecasts").await.unwrap();
    assert_eq!(table.capture, [CaptureMode::ChangeTracking, CaptureMode::Cdc]);
}
