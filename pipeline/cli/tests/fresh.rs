//! A change by another program reaches the API's answer, in memory, without a read of the database.

mod process;

use process::{Instance, LIVE, foreign_connection, load_week, pipeline, until};
use serde_json::{Value, json};
use std::process::Command;

fn start(folder: &std::path::Path) -> Instance {
    let mut instance = Instance::run(folder, &LIVE.map(pipeline), &[], &[]);
    instance.until_ready();
    // Captured and broadcast once: the snapshot is behind us.
    until("the snapshot is applied", || instance.metric("component_events_out_total", &["broadcast"]) >= 196.0);
    instance
}

fn an_id(folder: &std::path::Path) -> String {
    process::documents(folder).into_keys().next().unwrap()
}

#[test]
fn an_update_by_another_program_is_answered_from_memory_with_the_next_version() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let instance = start(folder.path());
    let id = an_id(folder.path());
    let before = instance.forecast(&id).json();
    let reads = ["get", "list", "scan"].map(|query| format!("query=\"{query}\""));
    let read_count = |instance: &Instance| -> f64 {
        reads.iter().map(|query| instance.metric("database_queries_total", &[query])).sum()
    };
    let reads_before = read_count(&instance);

    let other = foreign_connection(folder.path(), "main.db");
    assert_eq!(other.execute("UPDATE Forecasts SET Demand = 0.4321 WHERE Id = ?1", [&id]).unwrap(), 1);

    let version = before["versionId"].as_i64().unwrap();
    until("the answer has the next version", || instance.forecast(&id).json()["versionId"] == version + 1);
    let after = instance.forecast(&id);
    assert_eq!(after.level, "L1");
    assert_eq!(after.json()["demand"], json!(0.4321));
    assert_eq!(read_count(&instance), reads_before, "no database read may stand between the change and the answer");
    assert_eq!(after.json(), process::documents(folder.path())[&id]);
}

#[test]
fn the_metrics_have_the_names_that_dashboards_know() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let instance = start(folder.path());
    instance.forecast(&an_id(folder.path()));
    let text = instance.get("/metrics").unwrap().body;
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_working_set_bytes",
        "http_requests_total{method=\"GET\",status=\"200\"}",
        "http_request_duration_seconds_count{method=\"GET\",path=\"/api/forecasts/{id}\"}",
        "database_query_duration_seconds_count",
        "cache_hits_total{level=\"L1\"}",
        "cache_misses_total{level=\"L1\"}",
        "pulsar_messages_published_total{bus=\"bus\"}",
        "pulsar_messages_consumed_total{bus=\"bus\"}",
        "component_events_in_total",
        "component_events_out_total",
        "component_events_dropped_total",
        "component_retries_total",
        "component_dead_letters_total",
        "component_batch_events_count",
        "component_latency_seconds_count",
        "component_queue_batches",
        "component_lag_seconds",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{text}");
    }
}

#[test]
fn a_delete_and_a_re_creation_by_another_program_are_seen_and_versions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let instance = start(folder.path());
    let id = an_id(folder.path());
    let version = instance.forecast(&id).json()["versionId"].as_i64().unwrap();
    let other = foreign_connection(folder.path(), "main.db");
    let insert = "INSERT INTO Forecasts SELECT * FROM Kept";
    other
        .execute_batch(&format!(
            "CREATE TEMP TABLE Kept AS SELECT * FROM Forecasts WHERE Id = '{id}'; DELETE FROM Forecasts WHERE Id = '{id}';"
        ))
        .unwrap();
    until("the forecast is gone", || instance.forecast(&id).status == 404);
    other.execute_batch(insert).unwrap();
    until("the forecast is back", || instance.forecast(&id).status == 200);
    assert_eq!(instance.forecast(&id).json()["versionId"], version + 2);
    other.execute("DELETE FROM Forecasts WHERE Id = ?1", [&id]).unwrap();
    until("the forecast is gone again", || instance.forecast(&id).status == 404);
}

#[test]
fn a_forecast_that_moves_to_another_unit_leaves_the_lists_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let instance = start(folder.path());
    let documents = process::documents(folder.path());
    let (id, document) = documents.iter().next().unwrap();
    let (unit, company) = (document["productionUnitId"].as_str().unwrap(), document["companyId"].as_str().unwrap());
    let elsewhere = documents.values().find(|other| other["companyId"] != company).unwrap();
    let totals = |instance: &Instance| {
        [format!("productionUnitId={unit}"), format!("companyId={company}")]
            .map(|filter| instance.get(&format!("/api/forecasts?{filter}")).unwrap().json()["total"].as_u64().unwrap())
    };
    assert_eq!(totals(&instance), [7, 49]);
    // The invalidations of the first scan may still be on their way.
    let list = || instance.get(&format!("/api/forecasts?companyId={company}")).unwrap();
    until("the list is remembered", || list().level == "L2");
    let other = foreign_connection(folder.path(), "main.db");
    let update = "UPDATE Forecasts SET ProductionUnitId = ?1, CompanyId = ?2 WHERE Id = ?3";
    let (new_unit, new_company) =
        (elsewhere["productionUnitId"].as_str().unwrap(), elsewhere["companyId"].as_str().unwrap());
    other.execute(update, [new_unit, new_company, id]).unwrap();
    until("both lists have dropped it", || totals(&instance) == [6, 48]);
}

/// Derived state: a line for every forecast that this instance's cache has just taken over.
const DERIVED: &str = r#"
name: derived
sources:
  changed: { type: data_changed, cache: forecasts }
operators:
  line: { type: map, inputs: [changed], template: { id: "{/key}", version: "{/version}", demand: "{/document/demand}" } }
sinks:
  file: { type: file, inputs: [line], path: "${env:DERIVED}" }
"#;

#[test]
fn what_the_cache_took_over_is_a_source() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let (derived, file) = (folder.path().join("derived.ndjson"), folder.path().join("derived.yaml"));
    std::fs::write(&file, DERIVED).unwrap();
    let files: Vec<_> = LIVE.map(pipeline).into_iter().chain([file]).collect();
    let mut instance = Instance::run(folder.path(), &files, &[], &[("DERIVED", derived.to_str().unwrap())]);
    instance.until_ready();
    until("the snapshot is applied", || instance.metric("component_events_out_total", &["broadcast"]) >= 196.0);
    let id = an_id(folder.path());
    let version = instance.forecast(&id).json()["versionId"].as_i64().unwrap();
    let other = foreign_connection(folder.path(), "main.db");
    other.execute("UPDATE Forecasts SET Demand = 0.625 WHERE Id = ?1", [&id]).unwrap();
    let wanted = json!({ "id": id, "version": version + 1, "demand": 0.625 });
    until("the change is a line", || {
        let lines = std::fs::read_to_string(&derived).unwrap_or_default();
        lines.lines().any(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line == wanted))
    });
}

#[test]
fn terminating_drains_and_ends_with_exit_code_0() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let (code, log) = start(folder.path()).terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn what_an_instance_logs_is_found_in_its_database_beside_it_and_after_it() {
    let folder = tempfile::tempdir().unwrap();
    load_week(folder.path());
    let mut instance = Instance::run(folder.path(), &LIVE.map(pipeline), &["log.table.level=info"], &[]);
    instance.until_ready();
    let logs = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smartpulse"));
        command.arg("logs").args(arguments).env("SMARTPULSE__DATA_DIR", folder.path()).current_dir(folder.path());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    until("the first line is kept", || logs(&["--level", "info"]).contains("the cache is warm"));
    instance.terminate();
    let lines = logs(&["--json", "--since", "1h"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warm = lines.iter().find(|line| line["message"] == "the cache is warm; serving").unwrap();
    assert_eq!(
        (&warm["level"], &warm["component"], &warm["rows"]),
        (&json!("INFO"), &json!("smartpulse"), &json!(196))
    );
    let stopping = "stopping: sources stop, what is on its way is finished";
    assert!(lines.iter().any(|line| line["message"] == stopping), "the end is kept, too: {lines:?}");
    assert_eq!(logs(&["--level", "error"]), "no log lines\n");
    assert_eq!(logs(&["--component", "nobody", "--json"]), "");
}
