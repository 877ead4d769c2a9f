//! The triggers of the embedded database, seen by programs that know nothing of them: plain connections, with
//! `recursive_triggers` off (SQLite's default) and on.

use prometheus::Registry;
use rusqlite::Connection;
use smartpulse_clients::database::{CaptureMode, Database, Poll};
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_pipeline::Position;
use tempfile::TempDir;

const A: &str = "00000000-0000-4000-8000-00000000000a";
const B: &str = "00000000-0000-4000-8000-00000000000b";

struct Fixture {
    folder: TempDir,
    database: SqliteDatabase,
    start: Position,
    recursive: bool,
}

impl Fixture {
    async fn new(recursive: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = open(&folder);
        database.create_schema().await.unwrap();
        let start = database.head("Forecasts", CaptureMode::Cdc).await.unwrap();
        Self { folder, database, start, recursive }
    }

    /// Another program, with no setting of ours.
    fn program(&self) -> Connection {
        let connection = Connection::open(self.folder.path().join("main.db")).unwrap();
        connection.pragma_update(None, "recursive_triggers", self.recursive).unwrap();
        connection
    }

    /// Every captured change as `OPERATION key version`, with the last digit of the key; the version is checked
    /// against the document's.
    async fn story(&self, mode: CaptureMode) -> Vec<String> {
        let Poll::Changes(page) = self.database.changes("Forecasts", mode, &self.start, 10_000).await.unwrap() else {
            panic!("the position is lost")
        };
        page.changes
            .iter()
            .map(|change| {
                if let Some(document) = &change.document {
                    let json: serde_json::Value = serde_json::from_slice(document).unwrap();
                    assert_eq!(json["versionId"], change.version);
                }
                format!("{:?} {} {}", change.operation, &change.key[35..], change.version)
            })
            .collect()
    }

    /// The row's version as it lies in the table.
    fn version(&self, key: &str) -> Option<i64> {
        use rusqlite::OptionalExtension;
        let connection = self.program();
        connection.query_row("SELECT VersionId FROM Forecasts WHERE Id = ?1", [key], |r| r.get(0)).optional().unwrap()
    }
}

fn open(folder: &TempDir) -> SqliteDatabase {
    SqliteDatabase::open("main_db", &SqliteConfig::default(), folder.path(), &Registry::new()).unwrap()
}

/// An INSERT of a forecast with this verb (`INSERT`, `INSERT OR REPLACE`, ...), and perhaps an explicit version.
fn insert(verb: &str, key: &str, demand: f64, version: Option<i64>) -> String {
    let (column, value) = match version {
        Some(version) => (", VersionId", format!(", {version}")),
        None => ("", String::new()),
    };
    format!(
        "{verb} INTO Forecasts (Id, CompanyId, ProductionUnitId, ForecastDate, Demand{column})
         VALUES ('{key}', '{B}', '{B}', '2016-01-01T00:00:00.000Z', {demand}{value})"
    )
}

/// Runs statements in a fresh database and compares what was captured; each setting of `recursive_triggers`
/// has its expectation.
async fn check(statements: &[String], off: &[&str], on: &[&str], version: Option<i64>) {
    for recursive in [false, true] {
        let fixture = Fixture::new(recursive).await;
        let program = fixture.program();
        for statement in statements {
            program.execute_batch(statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        let expected = if recursive { on } else { off };
        assert_eq!(
            fixture.story(CaptureMode::Cdc).await,
            expected,
            "recursive_triggers = {recursive}: {statements:#?}"
        );
        if !recursive || off == on {
            assert_eq!(fixture.version(A), version, "{statements:#?}");
        }
        let tracked: Option<i64> =
            program.query_row("SELECT max(VersionId) FROM ct_Forecasts WHERE Id = ?1", [A], |row| row.get(0)).unwrap();
        let last = expected.iter().rfind(|s| s.contains(" a ")).and_then(|s| s.rsplit(' ').next()?.parse().ok());
        assert_eq!(tracked, last, "{statements:#?}");
    }
}

async fn check_both(statements: &[String], expected: &[&str], version: Option<i64>) {
    check(statements, expected, expected, version).await;
}

fn update(set: &str) -> String {
    format!("UPDATE Forecasts SET {set} WHERE Id = '{A}'")
}

fn delete() -> String {
    format!("DELETE FROM Forecasts WHERE Id = '{A}'")
}

#[tokio::test]
async fn an_update_that_did_not_bump_is_bumped_and_captured_once() {
    let statements =
        [insert("INSERT", A, 1.0, None), update("Demand = 2"), update("Demand = 2"), update("VersionId = 3")];
    check_both(&statements, &["Insert a 1", "Update a 2", "Update a 3", "Update a 4"], Some(4)).await;
}

#[tokio::test]
async fn an_update_to_the_next_version_is_taken_as_it_is() {
    let statements =
        [insert("INSERT", A, 1.0, None), update("Demand = 2, VersionId = 2"), update("VersionId = VersionId + 1")];
    check_both(&statements, &["Insert a 1", "Update a 2", "Update a 3"], Some(3)).await;
}

#[tokio::test]
async fn delete_re_create_delete_never_goes_back() {
    let statements = [
        insert("INSERT", A, 1.0, None),
        update("Demand = 2"),
        delete(),
        insert("INSERT", A, 3.0, None),
        delete(),
        insert("INSERT", A, 3.0, Some(6)),
        delete(),
        insert("INSERT", A, 3.0, Some(99)),
    ];
    let expected = [
        "Insert a 1",
        "Update a 2",
        "Delete a 3",
        "Insert a 4",
        "Delete a 5",
        "Insert a 6",
        "Delete a 7",
        "Insert a 8",
    ];
    check_both(&statements, &expected, Some(8)).await;
}

#[tokio::test]
async fn a_re_creation_whose_version_would_be_the_one_after_next_is_captured_once() {
    // The trap: tracked 2, inserted as 4; renumbered to 3, after which 4 looks like the next version.
    let statements = [insert("INSERT", A, 1.0, None), delete(), insert("INSERT", A, 2.0, Some(4))];
    check_both(&statements, &["Insert a 1", "Delete a 2", "Insert a 3"], Some(3)).await;
}

#[tokio::test]
async fn a_first_version_may_be_any() {
    let statements = [insert("INSERT", A, 1.0, Some(100)), update("Demand = 2"), delete()];
    check_both(&statements, &["Insert a 100", "Update a 101", "Delete a 102"], None).await;
}

#[tokio::test]
async fn replacing_a_live_row_goes_on_from_its_version() {
    for version in [None, Some(1), Some(2), Some(3), Some(4), Some(50)] {
        let statements = [
            insert("INSERT", A, 1.0, None),
            update("Demand = 2"),
            insert("INSERT OR REPLACE", A, 3.0, version),
            insert("REPLACE", B, 3.0, None),
            update("Demand = 4"),
        ];
        let off = ["Insert a 1", "Update a 2", "Update a 3", "Insert b 1", "Update a 4"];
        let on = ["Insert a 1", "Update a 2", "Delete a 3", "Insert a 4", "Insert b 1", "Update a 5"];
        check(&statements, &off, &on, Some(4)).await;
    }
}

#[tokio::test]
async fn replacing_a_tombstoned_row_goes_on_from_its_tombstone() {
    let statements = [insert("INSERT", A, 1.0, None), delete(), insert("INSERT OR REPLACE", A, 3.0, None)];
    check_both(&statements, &["Insert a 1", "Delete a 2", "Insert a 3"], Some(3)).await;
}

#[tokio::test]
async fn an_ignored_insert_changes_nothing() {
    let statements = [
        insert("INSERT", A, 1.0, None),
        insert("INSERT OR IGNORE", A, 9.0, None),
        format!("{} ON CONFLICT (Id) DO NOTHING", insert("INSERT", A, 9.0, None)),
        format!("{} ON CONFLICT (Id) DO UPDATE SET Demand = 9 WHERE 0", insert("INSERT", A, 9.0, None)),
        insert("INSERT OR IGNORE", B, 9.0, None),
    ];
    check_both(&statements, &["Insert a 1", "Insert b 1"], Some(1)).await;
}

#[tokio::test]
async fn an_upsert_is_an_update() {
    let upsert = |set: &str| format!("{} ON CONFLICT (Id) DO UPDATE SET {set}", insert("INSERT", A, 9.0, None));
    let statements = [
        upsert("Demand = excluded.Demand"),
        upsert("Demand = excluded.Demand"),
        upsert("Demand = 3, VersionId = Forecasts.VersionId + 1"),
        delete(),
        upsert("Demand = 4"),
    ];
    check_both(&statements, &["Insert a 1", "Update a 2", "Update a 3", "Delete a 4", "Insert a 5"], Some(5)).await;
}

#[tokio::test]
async fn conflict_policies_of_updates_are_harmless() {
    let statements = [
        insert("INSERT", A, 1.0, None),
        format!("UPDATE OR REPLACE Forecasts SET Demand = 2 WHERE Id = '{A}'"),
        format!("UPDATE OR IGNORE Forecasts SET Demand = 3 WHERE Id = '{A}'"),
        format!("UPDATE OR ROLLBACK Forecasts SET Demand = 4 WHERE Id = '{A}'"),
    ];
    check_both(&statements, &["Insert a 1", "Update a 2", "Update a 3", "Update a 4"], Some(4)).await;
}

#[tokio::test]
async fn a_statement_over_many_rows_captures_each() {
    let statements = [
        insert("INSERT", A, 1.0, None),
        insert("INSERT", B, 1.0, None),
        "UPDATE Forecasts SET Demand = Demand + 1".to_owned(),
        "INSERT OR REPLACE INTO Forecasts SELECT * FROM Forecasts WHERE 0".to_owned(),
        "DELETE FROM Forecasts".to_owned(),
    ];
    let expected = ["Insert a 1", "Insert b 1", "Update a 2", "Update b 2", "Delete a 3", "Delete b 3"];
    check_both(&statements, &expected, None).await;
}

#[tokio::test]
async fn transactions_and_savepoints_capture_what_they_commit() {
    let statements = [
        format!("BEGIN; {}; ROLLBACK", insert("INSERT", A, 1.0, None)),
        format!(
            "BEGIN; {}; SAVEPOINT s; {}; {}; ROLLBACK TO s; {}; COMMIT",
            insert("INSERT", A, 1.0, None),
            update("Demand = 2"),
            delete(),
            update("Demand = 3")
        ),
        format!("BEGIN; {}; {}; COMMIT", delete(), insert("INSERT", A, 4.0, None)),
    ];
    check_both(&statements, &["Insert a 1", "Update a 2", "Delete a 3", "Insert a 4"], Some(4)).await;
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused_with_the_reason() {
    let upper = A.to_uppercase();
    for recursive in [false, true] {
        let fixture = Fixture::new(recursive).await;
        let program = fixture.program();
        program.execute_batch(&insert("INSERT", A, 1.0, None)).unwrap();
        program.execute_batch(&insert("INSERT", B, 1.0, None)).unwrap();
        for (statement, reason) in [
            (update("VersionId = 3"), "rises by exactly 1"),
            (update("VersionId = 0"), "rises by exactly 1"),
            (update("VersionId = 'x'"), "rises by exactly 1"),
            (format!("UPDATE OR IGNORE Forecasts SET VersionId = 7 WHERE Id = '{A}'"), "rises by exactly 1"),
            (update("VersionId = NULL"), "NOT NULL"),
            (update("Id = '00000000-0000-4000-8000-00000000000c'"), "cannot change"),
            (format!("UPDATE OR REPLACE Forecasts SET Id = '{B}' WHERE Id = '{A}'"), "cannot change"),
            (insert("INSERT", &upper, 1.0, None), "Id_must_be_lower_case_uuid_text"),
            (insert("INSERT", "forecast_001", 1.0, None), "Id_must_be_lower_case_uuid_text"),
            (insert("INSERT", &A.replace('a', "c"), f64::INFINITY, None), "Demand_must_be_a_finite_number"),
            (insert("INSERT", &A.replace('a', "c"), 1.0, Some(0)), "VersionId_must_be_at_least_1"),
            (update("ForecastDate = '2016-01-01'"), "ForecastDate_must_be_rfc3339_utc_with_milliseconds"),
            (update("Supply = 'many'"), "Supply_must_be_a_finite_number"),
            (update("Status = 'a status that is far too long for its column'"), "Status_must_be_1_to_32_characters"),
        ] {
            let statement = statement.replace("inf", "9e999");
            let error = program.execute_batch(&statement).unwrap_err().to_string();
            assert!(error.contains(reason), "{statement}: {error}");
        }
        assert_eq!(fixture.story(CaptureMode::Cdc).await, ["Insert a 1", "Insert b 1"]);
        assert_eq!((fixture.version(A), fixture.version(B)), (Some(1), Some(1)));
    }
}

#[tokio::test]
async fn net_changes_follow_whatever_a_program_does() {
    for recursive in [false, true] {
        let fixture = Fixture::new(recursive).await;
        let program = fixture.program();
        for statement in [insert("INSERT", A, 1.0, None), update("Demand = 2"), insert("REPLACE", A, 3.0, None)] {
            program.execute_batch(&statement).unwrap();
        }
        let version = if recursive { 4 } else { 3 };
        assert_eq!(fixture.story(CaptureMode::ChangeTracking).await, [format!("Insert a {version}")]);
        program.execute_batch(&delete()).unwrap();
        assert_eq!(fixture.story(CaptureMode::ChangeTracking).await, [format!("Delete a {}", version + 1)]);
        let (section, tombstone): (String, i64) = program
            .query_row("SELECT Section, VersionId FROM Tombstones WHERE Id = ?1", [A], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap();
        assert_eq!((section.as_str(), tombstone), ("forecast", version + 1));
    }
}

#[tokio::test]
async fn random_programs_keep_versions_and_log_in_step() {
    // A small generator of our own: the same programs on every run.
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for recursive in [false, true] {
        let fixture = Fixture::new(recursive).await;
        let program = fixture.program();
        for _ in 0..600 {
            let key = if random(2) == 0 { A } else { B };
            let version = (random(3) == 0).then(|| 1 + random(12) as i64);
            let statement = match random(8) {
                0 | 1 => format!("DELETE FROM Forecasts WHERE Id = '{key}'"),
                2 => insert("INSERT OR IGNORE", key, 1.0, version),
                3 => insert("INSERT OR REPLACE", key, 2.0, version),
                4 => insert("INSERT", key, 3.0, version),
                5 => format!("{} ON CONFLICT DO UPDATE SET Demand = 4", insert("INSERT", key, 3.0, version)),
                6 => format!("UPDATE Forecasts SET Demand = Demand + 1, VersionId = VersionId + 1 WHERE Id = '{key}'"),
                _ => "UPDATE Forecasts SET Demand = Demand + 1".to_owned(),
            };
            // A plain INSERT of a live row fails, as it should.
            let _ = program.execute_batch(&statement);
        }
        let mut last = std::collections::HashMap::new();
        let story = fixture.story(CaptureMode::Cdc).await;
        assert!(story.len() > 300);
        for line in &story {
            let [operation, key, version] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let version: i64 = version.parse().unwrap();
            let (live, before) = last.insert(key, (operation != "Delete", version)).unwrap_or((false, version - 1));
            assert_eq!(version, before + 1, "{line} in {story:#?}");
            assert_eq!(operation == "Insert", !live, "{line} in {story:#?}");
        }
        for (key, letter) in [(A, "a"), (B, "b")] {
            let expected = last.get(letter).filter(|(live, _)| *live).map(|(_, version)| *version);
            assert_eq!(fixture.version(key), expected);
        }
    }
}

#[tokio::test]
async fn what_was_there_before_its_capture_goes_on_from_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let uncaptured = SqliteConfig { captured_tables: vec![], ..SqliteConfig::default() };
    let database = SqliteDatabase::open("d", &uncaptured, folder.path(), &Registry::new()).unwrap();
    database.create_schema().await.unwrap();
    let program = Connection::open(folder.path().join("main.db")).unwrap();
    program.execute_batch(&insert("INSERT", A, 1.0, Some(7))).unwrap();
    let error = database.head("Forecasts", CaptureMode::Cdc).await.unwrap_err().chain();
    assert!(error.contains("captured_tables"), "{error}");
    drop(database);
    let database = open(&folder);
    database.create_schema().await.unwrap();
    let start = database.head("Forecasts", CaptureMode::Cdc).await.unwrap();
    let fixture = Fixture { folder, database, start, recursive: false };
    program.execute_batch(&update("Demand = 2")).unwrap();
    assert_eq!(fixture.story(CaptureMode::Cdc).await, ["Update a 8"]);
    assert_eq!(fixture.story(CaptureMode::ChangeTracking).await, ["Update a 8"]);
}

#[tokio::test]
async fn a_new_column_is_captured_after_the_next_start() {
    let fixture = Fixture::new(false).await;
    let program = fixture.program();
    program.execute_batch(&insert("INSERT", A, 1.0, None)).unwrap();
    program.execute_batch("ALTER TABLE Forecasts ADD COLUMN Note nvarchar(64) NULL").unwrap();
    let database = open(&fixture.folder);
    database.create_schema().await.unwrap();
    database.create_schema().await.unwrap();
    program.execute_batch(&update("Note = 'n'")).unwrap();
    assert_eq!(fixture.story(CaptureMode::Cdc).await, ["Insert a 1", "Update a 2"]);
    let row = database.get("Forecasts", &[A.into()]).await.unwrap().remove(0);
    assert!(row.document.ends_with(b",\"versionId\":2,\"note\":\"n\"}"), "{:?}", row.document);
}
