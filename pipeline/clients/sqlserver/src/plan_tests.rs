use super::*;
use crate::catalogue::TableInfo;
use crate::catalogue::tests::{forecasts, orders};
use smartpulse_clients::database::Kept;
use std::sync::Arc;

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
        tracking_retention: Kept::For(48 * HOUR),
        cdc: true,
        jobs: Jobs {
            polling: Some(Duration::ZERO),
            transactions_max: Some(5_000),
            scans_max: Some(100),
            retention: Kept::For(72 * HOUR),
        },
        may: Rights {
            read: true,
            track: true,
            read_cdc: true,
            state: true,
            server_state: true,
            ledger: true,
            tombstones: true,
            mark: true,
        },
        triggers: vec!["Forecasts_versions_delete".into()],
        ledger: true,
        tombstones: true,
        watermark: true,
        instances: vec!["dbo_Forecasts".into()],
        other_instances: vec!["dbo_ProductionUnits".into()],
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
    assert_eq!([plan.modes[0].retention, plan.modes[1].retention], [Kept::For(48 * HOUR), Kept::For(72 * HOUR)]);
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
    assert_eq!(plan.modes[0].missing_rights.len(), 5);
    assert_eq!(plan.modes[1].missing_rights.len(), 6);
    let ledger = "GRANT SELECT, INSERT, UPDATE ON [dbo].[SmartPulseCapture] TO [a]]pp];".to_owned();
    let tombstones = "GRANT SELECT ON [dbo].[Tombstones] TO [a]]pp];".to_owned();
    for mode in &plan.modes {
        assert!(mode.statements.contains(&ledger) && mode.statements.contains(&tombstones), "{:?}", mode.statements);
    }
    assert!(plan.modes[1].statements.contains(&"GRANT UPDATE ON [dbo].[SmartPulseWatermark] TO [a]]pp];".to_owned()));
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

/// Where a piece of T-SQL is among the statements of a mode.
fn place(mode: &ModePlan, text: &str) -> usize {
    let found = mode.statements.iter().position(|statement| statement.contains(text));
    found.unwrap_or_else(|| panic!("no {text} among {:#?}", mode.statements))
}

#[test]
fn what_triggers_and_capture_need_is_made_before_them() {
    let facts = Facts {
        table: table(|table| (table.table.capture, table.table.tombstones) = (Vec::new(), false)),
        cdc: false,
        ledger: false,
        tombstones: false,
        watermark: false,
        instances: Vec::new(),
        ..ready()
    };
    let plan = facts.plan();
    for mode in &plan.modes {
        let trigger = place(mode, "CREATE OR ALTER TRIGGER [dbo].[Forecasts_versions_insert]");
        assert!(place(mode, "CREATE TABLE dbo.Tombstones") < trigger);
        place(mode, "CREATE TABLE dbo.SmartPulseCapture");
        assert!(!mode.statements.iter().any(|s| s.contains("CREATE TABLE dbo.Forecasts")), "only what is missing");
    }
    let (net, cdc) = (&plan.modes[0], &plan.modes[1]);
    assert!(!net.statements.iter().any(|s| s.contains("Watermark") || s.contains("sp_cdc")), "{:#?}", net.statements);
    let watermark = place(cdc, "CREATE TABLE dbo.SmartPulseWatermark");
    let captured = place(cdc, "@source_name = N'SmartPulseWatermark'");
    assert!(place(cdc, "sp_cdc_enable_db") < captured && watermark < captured);
}

#[test]
fn the_owner_is_granted_nothing_and_others_everything_at_once() {
    let fresh = Facts {
        table: table(|table| table.table.capture = Vec::new()),
        may: Rights::default(),
        tracked: false,
        cdc: false,
        ledger: false,
        tombstones: false,
        watermark: false,
        ..ready()
    };
    let grants = |facts: &Facts, mode: usize| -> Vec<String> {
        facts.plan().modes[mode].statements.iter().filter(|s| s.starts_with("GRANT")).cloned().collect()
    };
    for mode in [0, 1] {
        assert_eq!(grants(&fresh, mode), [] as [String; 0]);
    }
    let other = Facts { owner: false, ..fresh };
    let both = [
        "GRANT SELECT ON [dbo].[Forecasts] TO [app];",
        "GRANT SELECT ON [dbo].[Tombstones] TO [app];",
        "GRANT SELECT, INSERT, UPDATE ON [dbo].[SmartPulseCapture] TO [app];",
        "GRANT VIEW DATABASE STATE TO [app];",
    ];
    let own = [
        &["GRANT VIEW CHANGE TRACKING ON [dbo].[Forecasts] TO [app];"][..],
        &["GRANT SELECT ON SCHEMA::[cdc] TO [app];", "GRANT UPDATE ON [dbo].[SmartPulseWatermark] TO [app];"],
    ];
    for (mode, own) in own.into_iter().enumerate() {
        assert_eq!(grants(&other, mode), [own, &both[..]].concat());
    }
}

#[test]
fn another_instance_has_a_free_name_and_room() {
    let of = |instances: &[&str], others: &[&str]| -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (instances, other_instances) = (names(instances), names(others));
        let facts = Facts { absent: vec!["Note".into()], instances, other_instances, ..ready() };
        facts.plan().modes.remove(1).statements
    };
    let one = of(&["dbo_Forecasts"], &["DBO_forecasts_2"]);
    assert_eq!(one.len(), 1);
    assert!(one[0].contains("@capture_instance = N'dbo_Forecasts_3'"), "{one:?}");
    let two = of(&["dbo_Forecasts", "dbo_Forecasts_2"], &[]);
    assert!(
        two[0].contains("sp_cdc_disable_table") && two[0].contains("@capture_instance = N'dbo_Forecasts';"),
        "{two:?}"
    );
    assert!(two[1].contains("@capture_instance = N'dbo_Forecasts_3'"), "{two:?}");
}

#[test]
fn who_may_not_see_the_state_of_the_server_is_told_what_commit_times_are_worth() {
    let says = |facts: Facts| facts.plan().notes.iter().any(|note| note.contains("VIEW SERVER STATE"));
    let blind = Facts { may: Rights { server_state: false, ..ready().may }, ..ready() };
    assert!(!says(ready()) && says(blind.clone()));
    assert!(!says(Facts { engine: AZURE, ..blind }), "there the state of the database is enough");
}
