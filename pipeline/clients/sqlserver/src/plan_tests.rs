use super::*;
use crate::catalogue::tests::{forecasts, orders};

const HOUR: Duration = Duration::from_secs(3_600);

/// A database where everything is as it should be.
fn ready() -> Facts {
    let mut table = forecasts();
    table.table.tombstones = true;
    table.table.capture = vec![CaptureMode::ChangeTracking, CaptureMode::Cdc];
    Facts {
        table: Arc::new(table),
        version: "15.0.4123.1".into(),
        edition: "Developer Edition (64-bit)".into(),
        engine: 3,
        user: "app".into(),
        owner: true,
        snapshot: 1,
        tracked: true,
        tracking_retention: Some(48 * HOUR),
        cdc: true,
        jobs: Jobs {
            polling: Some(Duration::ZERO),
            transactions_max: Some(5_000),
            scans_max: Some(100),
            retention: Some(72 * HOUR),
        },
        may: Rights { read: true, track: true, read_cdc: true, state: true, ledger: true },
        triggers: vec!["Forecasts_versions_delete".into()],
        ledger: true,
        absent: Vec::new(),
    }
}

fn table(change: impl FnOnce(&mut TableInfo)) -> Arc<TableInfo> {
    let mut table = TableInfo::clone(&ready().table);
    change(&mut table);
    Arc::new(table)
}

#[test]
fn where_everything_is_as_it_should_be_nothing_must_be_run() {
    let plan = ready().plan();
    assert_eq!(
        (plan.table.as_str(), plan.server.as_str()),
        ("Forecasts", "SQL Server 15.0.4123.1, Developer Edition (64-bit)")
    );
    for mode in &plan.modes {
        assert!(mode.enabled);
        assert_eq!(mode.statements, [] as [String; 0], "{:?}", mode.mode);
        assert_eq!(mode.missing_rights, [] as [String; 0], "{:?}", mode.mode);
    }
    assert_eq!([plan.modes[0].retention, plan.modes[1].retention], [Some(48 * HOUR), Some(72 * HOUR)]);
}

#[test]
fn what_is_missing_is_given_as_statements_in_order() {
    let facts = Facts {
        table: table(|table| (table.table.capture, table.table.tombstones) = (Vec::new(), false)),
        snapshot: 0,
        tracked: false,
        cdc: false,
        jobs: Jobs::default(),
        ..ready()
    };
    let plan = facts.plan();
    let begins = |mode: &ModePlan| -> Vec<String> {
        let first = |s: &String| -> String {
            let line = s.lines().find(|line| !line.starts_with("--") && !line.is_empty()).unwrap_or_default();
            line.chars().take(24).collect()
        };
        mode.statements.iter().map(first).collect()
    };
    let versions = ["CREATE OR ALTER TRIGGER "; 3].map(str::to_owned);
    let mut expected = vec!["ALTER DATABASE CURRENT S", "ALTER DATABASE CURRENT S", "ALTER TABLE [dbo].[Forec"];
    let mut expected: Vec<String> = expected.drain(..).map(str::to_owned).collect();
    expected.extend(versions.clone());
    expected.push("IF OBJECT_ID(N'[dbo].[Fo".into());
    assert_eq!(begins(&plan.modes[0]), expected);
    let cdc = begins(&plan.modes[1]);
    assert_eq!(cdc[..3], ["EXEC sys.sp_cdc_enable_d", "EXEC sys.sp_cdc_enable_t", "ALTER DATABASE CURRENT S"]);
    assert_eq!(cdc[3..6], versions);
    assert!(plan.modes[1].statements.iter().any(|s| s.contains("@pollinginterval = 0, @maxtrans = 5000")));
    assert!(!plan.modes[0].enabled && !plan.modes[1].enabled);
    for statement in plan.modes.iter().flat_map(|mode| &mode.statements) {
        assert!(!statement.contains('{'), "{statement}");
    }
}

#[test]
fn missing_rights_are_named_and_granted_to_the_user() {
    let facts = Facts { may: Rights::default(), user: "a]pp".into(), owner: false, ..ready() };
    let plan = facts.plan();
    assert_eq!(plan.modes[0].missing_rights.len(), 4);
    assert_eq!(plan.modes[1].missing_rights.len(), 4);
    assert!(
        plan.modes[0].statements.contains(&"GRANT VIEW CHANGE TRACKING ON [dbo].[Forecasts] TO [a]]pp];".to_owned())
    );
    assert!(plan.modes[1].statements.contains(&"GRANT SELECT ON SCHEMA::[cdc] TO [a]]pp];".to_owned()));
    assert!(plan.notes.iter().any(|note| note.contains("does not own the database")));
}

#[test]
fn the_floor_of_latency_is_that_of_the_capture_job() {
    let floor = |facts: Facts| facts.plan().modes.remove(1).latency_floor;
    assert!(floor(ready()).contains("without a pause"));
    let jobs = Jobs {
        polling: Some(Duration::from_secs(5)),
        transactions_max: Some(500),
        scans_max: Some(10),
        ..ready().jobs
    };
    let slow = floor(Facts { jobs, ..ready() });
    assert!(slow.contains("up to 5 s") && slow.contains("about 1000 transactions a second"), "{slow}");
    assert!(floor(Facts { jobs: Jobs::default(), ..ready() }).contains("5 s unless"));
    let azure = Facts { engine: AZURE, ..ready() };
    assert!(floor(azure.clone()).contains("about 20 s"));
    let jobs = Jobs { polling: None, ..ready().jobs };
    assert_eq!(Facts { jobs, ..azure }.plan().modes[1].statements, [] as [String; 0], "nobody can change it there");
}

#[test]
fn a_table_whose_versions_cannot_be_kept_is_told_of() {
    let mut plain = orders();
    plain.table.capture = vec![CaptureMode::Cdc];
    let facts = Facts { table: Arc::new(plain), triggers: Vec::new(), absent: vec!["Price[EUR]".into()], ..ready() };
    let plan = facts.plan();
    let says = |text: &str| plan.notes.iter().any(|note| note.contains(text));
    assert!(
        says("the key is Re]gion #1, Order No")
            && says("has no VersionId")
            && says("no capture instance has Price[EUR]"),
        "{:?}",
        plan.notes
    );
    assert!(!plan.modes[0].statements.iter().any(|s| s.contains("TRIGGER")));
    assert!(plan.modes[1].statements.iter().any(|s| s.contains("@capture_instance = N'dbo_Orders_2'")));
}
