//! Change tracking, by the rules of CHANGE_CAPTURE.md.

use super::{Client, client, engine};

const SETUP: &str = "
ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON)
GO
ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON
GO
CREATE TABLE dbo.a (Id int NOT NULL PRIMARY KEY, V int NOT NULL);
CREATE TABLE dbo.b (Id int NOT NULL PRIMARY KEY, V int NOT NULL);
GO
ALTER TABLE dbo.a ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);
ALTER TABLE dbo.b ENABLE CHANGE_TRACKING;
";

fn version(client: &mut Client) -> i64 {
    client.one("SELECT CHANGE_TRACKING_CURRENT_VERSION()").parse().unwrap()
}

/// Operation and key of each change since a version, by version and key.
fn changes(client: &mut Client, table: &str, since: i64) -> Vec<String> {
    client.rows(&format!(
        "SELECT ct.SYS_CHANGE_OPERATION, ct.Id, t.V FROM CHANGETABLE(CHANGES [dbo].[{table}], {since}) AS ct \
         LEFT JOIN [dbo].[{table}] AS t ON t.Id = ct.Id ORDER BY ct.SYS_CHANGE_VERSION, ct.Id"
    ))
}

#[test]
fn a_version_is_the_databases_and_of_all_rows_of_a_transaction() {
    let engine = engine();
    let mut client = client(&engine);
    client.script(SETUP);
    let before = version(&mut client);
    client.run("BEGIN TRAN; INSERT INTO a VALUES (1, 1), (2, 1); INSERT INTO b VALUES (1, 1); COMMIT");
    assert_eq!(version(&mut client), before + 1);
    client.run("UPDATE b SET V = 2");
    let versions = "SELECT DISTINCT SYS_CHANGE_VERSION FROM CHANGETABLE(CHANGES a, 0) AS ct";
    assert_eq!(client.rows(versions), [(before + 1).to_string()]);
    assert_eq!(client.one("SELECT MAX(commit_ts) FROM sys.dm_tran_commit_table"), (before + 2).to_string());
}

#[test]
fn a_version_is_given_at_commit_and_a_rollback_leaves_none() {
    let engine = engine();
    let mut client = client(&engine);
    client.script(SETUP);
    let before = version(&mut client);
    client.run("BEGIN TRAN; INSERT INTO a VALUES (1, 1); ROLLBACK");
    assert_eq!(version(&mut client), before);
    assert!(changes(&mut client, "a", 0).is_empty());
}

#[test]
fn operations_are_relative_to_the_baseline() {
    let engine = engine();
    let mut client = client(&engine);
    client.script(SETUP);
    client.run("INSERT INTO a VALUES (1, 1), (2, 1), (3, 1)");
    let since = version(&mut client);
    for sql in [
        "INSERT INTO a VALUES (4, 1)",
        "UPDATE a SET V = 2 WHERE Id = 4",
        "UPDATE a SET V = 2 WHERE Id = 1",
        "DELETE FROM a WHERE Id = 2",
        "DELETE FROM a WHERE Id = 3",
        "INSERT INTO a VALUES (3, 9)",
        "INSERT INTO a VALUES (5, 1)",
        "DELETE FROM a WHERE Id = 5",
    ] {
        client.run(sql);
    }
    // Inserted then updated is I, updated is U, deleted is D, deleted and inserted again is U, inserted and deleted is D.
    assert_eq!(changes(&mut client, "a", since), ["I|4|2", "U|1|2", "D|2|NULL", "U|3|9", "D|5|NULL"]);
    engine.report_updated_insertions_as_updates(true);
    assert_eq!(changes(&mut client, "a", since)[0], "U|4|2");
}

#[test]
fn a_key_update_is_a_delete_and_an_insert() {
    let engine = engine();
    let mut client = client(&engine);
    client.script(SETUP);
    client.run("INSERT INTO a VALUES (1, 1)");
    let since = version(&mut client);
    client.run("UPDATE a SET Id = 2");
    assert_eq!(changes(&mut client, "a", since), ["D|1|NULL", "I|2|1"]);
}

#[test]
fn an_update_that_changes_nothing_is_tracked() {
    let engine = engine();
    let mut client = client(&engine);
    client.script(SETUP);
    client.run("INSERT INTO a VALUES (1, 1)");
    let since = version(&mut client);
    client.run("UPDATE a SET V = V");
    assert_eq!(changes(&mut client, "a", since), ["U|1|1"]);
}

#[test]
fn min_valid_version_is_null_when_off_or_hidden_and_moves_with_clean_up() {
    let engine = engine();
    let mut client = client(&engine);
    assert_eq!(client.one("SELECT CHANGE_TRACKING_CURRENT_VERSION()"), "NULL");
    client.script(SETUP);
    client.run("CREATE TABLE untracked (Id int PRIMARY KEY)");
    let valid = "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'[dbo].[a]'))";
    assert_eq!(client.one("SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'dbo.untracked'))"), "NULL");
    assert_eq!(client.error("SELECT * FROM CHANGETABLE(CHANGES untracked, 0) AS ct"), 22105);
    for id in 1..=3 {
        client.run(&format!("INSERT INTO a VALUES ({id}, 1)"));
    }
    let now = version(&mut client);
    engine.clean_up_ct(now - 1).unwrap();
    assert_eq!(client.one(valid), (now - 1).to_string());
    // Who has read up to min_valid has lost nothing.
    assert_eq!(changes(&mut client, "a", now - 1), ["I|3|1"]);
    engine.deny("VIEW CHANGE TRACKING ON dbo.a");
    assert_eq!(client.one(valid), "NULL");
}

#[test]
fn truncate_is_not_tracked_and_moves_min_valid_beyond_what_was_read() {
    let engine = engine();
    let mut client = client(&engine);
    client.script(SETUP);
    client.run("INSERT INTO a VALUES (1, 1)");
    let read = version(&mut client);
    client.run("TRUNCATE TABLE a");
    let valid: i64 = client.one("SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'a'))").parse().unwrap();
    assert!(valid > read, "{valid} {read}");
    assert!(changes(&mut client, "a", read).is_empty());
}

#[test]
fn snapshot_isolation_shows_version_and_rows_of_one_moment() {
    let engine = engine();
    let (mut reader, mut writer) = (client(&engine), client(&engine));
    reader.script(SETUP);
    writer.run("INSERT INTO a VALUES (1, 1)");
    let seen = reader.one(
        "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION; DECLARE @v bigint = CHANGE_TRACKING_CURRENT_VERSION(); \
         SELECT @v AS V, CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'dbo.a')) AS MinValid",
    );
    writer.run("UPDATE a SET V = 2; INSERT INTO a VALUES (2, 2)");
    assert_eq!(changes(&mut reader, "a", 0), ["I|1|1"]);
    assert_eq!(version(&mut reader).to_string(), seen.split('|').next().unwrap());
    reader.run("COMMIT");
    assert_eq!(changes(&mut reader, "a", 0), ["I|1|2", "I|2|2"]);
}

#[test]
fn snapshot_isolation_that_is_off_is_error_3952() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int)");
    assert_eq!(client.error("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN; SELECT * FROM t"), 3952);
}

#[test]
fn the_version_of_one_row_can_be_asked_for() {
    let engine = engine();
    let mut client = client(&engine);
    client.script(SETUP);
    client.run("INSERT INTO a VALUES (1, 1), (2, 1)");
    client.run("UPDATE a SET V = 5 WHERE Id = 2");
    let rows = client.rows(
        "SELECT t.Id, c.SYS_CHANGE_VERSION FROM a AS t CROSS APPLY CHANGETABLE(VERSION a, (Id), (t.Id)) AS c ORDER BY t.Id",
    );
    let now = version(&mut client);
    assert_eq!(rows, [format!("1|{}", now - 1), format!("2|{now}")]);
    assert_eq!(client.one("SELECT c.SYS_CHANGE_VERSION FROM CHANGETABLE(VERSION a, (Id), (2)) AS c"), now.to_string());
}

#[test]
fn a_restore_takes_versions_back_and_changes_the_recovery_fork() {
    let engine = engine();
    let mut one = client(&engine);
    one.script(SETUP);
    one.run("INSERT INTO a VALUES (1, 1)");
    let fork = "SELECT recovery_fork_guid FROM sys.database_recovery_status WHERE database_id = DB_ID()";
    let before = (version(&mut one), one.one(fork));
    let backup = engine.backup().unwrap();
    one.run("INSERT INTO a VALUES (2, 1)");
    engine.restore(&backup).unwrap();
    assert!(!one.batch("SELECT 1", &[]).alive, "sessions end when the database is restored");
    let mut two = client(&engine);
    assert_eq!(version(&mut two), before.0);
    assert_ne!(two.one(fork), before.1);
    assert_eq!(two.rows("SELECT Id FROM a"), ["1"]);
}
