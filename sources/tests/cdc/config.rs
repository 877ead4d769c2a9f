//! Configuration that is refused.

use crate::place::{FORECASTS, Place, plain};

#[tokio::test]
async fn bad_configuration_is_refused_with_its_place() {
    let place = Place::new().await;
    let check = |settings: &str, expected: &[&str]| {
        let yaml = format!(
            "name: p\nsources:\n  c:\n    type: cdc\n    database: main_db\n    {settings}\nsinks: {{ k: {{ type: probe, inputs: [c] }} }}\n"
        );
        let problems = place.rig.problems(&yaml);
        for expected in expected {
            assert!(problems.contains(expected), "{settings}: {expected} is not in\n{problems}");
        }
    };
    check("tables: {}", &["there are no tables", "p.yaml:6:"]);
    check(
        "tables: { Forecasts: { section: x }, ProductionUnits: { section: x } }",
        &["`Forecasts` has the section `x` already", "give each table one of its own", "p.yaml:6:"],
    );
    check(
        &format!(
            "{FORECASTS}\n    idle_stages: [{{ after_s: 10, interval_ms: 50 }}, {{ after_s: 1, interval_ms: 100 }}]"
        ),
        &["the stages are out of order", "p.yaml:7:"],
    );
    check(
        &format!(
            "{FORECASTS}\n    idle_stages: [{{ after_s: 1, interval_ms: 100 }}, {{ after_s: 10, interval_ms: 50 }}]"
        ),
        &["the stages are out of order", "p.yaml:7:"],
    );
    check("tables: { \"Fore;casts\": { section: x } }", &["`Fore;casts` cannot be a table's name", "p.yaml:6:"]);
    check("tables: { Forecasts: { section: Fore-cast } }", &["`Fore-cast` cannot be a section", "p.yaml:6:"]);
    check(&format!("{FORECASTS}\n    mode: cdd"), &["unknown value `cdd`", "did you mean `cdc`?", "p.yaml:7:11"]);
    check(&format!("{FORECASTS}\n    changes_max: 0"), &["changes_max", "p.yaml:7:"]);
    check(&format!("{FORECASTS}\n    poll_interval_ms: 6000"), &["poll_interval_ms", "p.yaml:7:"]);
}

#[tokio::test]
async fn a_table_that_is_not_there_or_not_captured_is_refused_with_what_there_is() {
    for (tables, expected) in [
        ("tables: { Forecast: { section: f } }", "no table Forecast; the database has Forecasts, "),
        ("tables: { SysUser: { section: f } }", "table SysUser of `main_db` is not enabled for mode cdc"),
    ] {
        let place = Place::new().await;
        let yaml = plain(tables);
        let building = tokio::task::LocalSet::new();
        let panic = building
            .run_until(async move { tokio::task::spawn_local(async move { place.rig.start(&yaml).await }).await })
            .await
            .err()
            .expect("the graph cannot be built")
            .into_panic();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(expected), "{message}");
    }
}
