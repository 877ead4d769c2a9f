//! Tables that are not as ours, and that change.

use super::*;
use Operation::{Delete, Insert, Update};
use std::collections::BTreeSet;

/// A table with a `max` column, without triggers.
const NOTES: &str = "CREATE TABLE dbo.Notes (
    Id uniqueidentifier NOT NULL CONSTRAINT PK_Notes PRIMARY KEY,
    Title nvarchar(100) NOT NULL, Body nvarchar(max) NULL, VersionId bigint NOT NULL);";

/// A table with a key of two columns, one of them varchar, with names that need quoting.
const ORDERS: &str = "CREATE TABLE dbo.Orders (
    [Re]]gion #1] varchar(20) NOT NULL, [Order No] int NOT NULL, [Price[EUR]]] decimal(9, 2) NULL, VersionId bigint NOT NULL,
    CONSTRAINT PK_Orders PRIMARY KEY ([Re]]gion #1], [Order No]));";

fn track(table: &str) -> String {
    format!("ALTER TABLE dbo.{table} ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);")
}

fn capture(table: &str, instance: &str) -> String {
    format!(
        "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{table}', @role_name = NULL, \
         @capture_instance = N'{instance}', @supports_net_changes = 0;"
    )
}

async fn with_table(create: &str, table: &str) -> Rig {
    let rig = Rig::new().await;
    rig.run(create).await;
    rig.run(&track(table)).await;
    rig.run(&capture(table, &format!("dbo_{table}"))).await;
    rig.scan().await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_09_two_instances_that_begin_at_one_lsn_hand_over_without_a_gap() {
    let rig = Rig::new().await;
    let head = rig.head(TABLE, CDC).await;
    rig.write(vec![insert(1, 1.0)]).await;
    rig.run(&capture(TABLE, "dbo_Forecasts_2")).await;
    rig.write(vec![update(1, 2.0)]).await;
    let (first, position) = rig.all_until_changed(&head).await;
    assert_eq!(story(&first), [(Insert, 1)]);
    let max =
        smartpulse_sqlserver::capture::position::CdcPosition::parse(&rig.head(TABLE, CDC).await).unwrap().at.lsn();
    let change = rig.schema_changed(CDC, &position).await;
    assert!(change.reason.contains("dbo_Forecasts_2"), "{}", change.reason);
    assert_eq!(rig.schema_changed(CDC, &position).await, change, "asking again gives the same");
    assert_eq!(story(&rig.all(TABLE, CDC, &change.next, 10).await.0), [(Update, 2)]);
    // Clean-up makes both begin at one LSN: whoever still reads the old one changes over where it is.
    let behind = rig.all(TABLE, CDC, &change.next, 10).await.1;
    rig.server.engine.clean_up_cdc(max.0).unwrap();
    assert_eq!(rig.page(TABLE, CDC, &behind, 10).await.changes, []);
    rig.write(vec![update(1, 3.0)]).await;
    assert_eq!(story(&rig.all(TABLE, CDC, &behind, 10).await.0), [(Update, 3)]);
}

impl Rig {
    /// The changes up to where another instance takes over.
    async fn all_until_changed(&self, after: &Position) -> (Vec<Change>, Position) {
        self.scan().await;
        let (mut found, mut position) = (Vec::new(), after.clone());
        while let Poll::Changes(page) = self.poll(TABLE, CDC, &position, 10).await {
            assert!(page.more || !page.changes.is_empty(), "no other instance takes over");
            found.extend(page.changes);
            position = page.next;
        }
        (found, position)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_10_a_new_column_comes_with_a_new_instance() {
    let rig = Rig::new().await;
    let head = rig.head(TABLE, CDC).await;
    rig.run("ALTER TABLE dbo.Forecasts ADD Note nvarchar(100) NULL;").await;
    let rig = Rig { database: rig.again(), server: rig.server };
    rig.write(vec![insert(1, 1.0)]).await;
    let (all, _) = rig.all(TABLE, CDC, &head, 10).await;
    assert_eq!(story(&all), [(Insert, 1)]);
    assert!(document(&all[0]).get("note").is_none(), "the instance does not have it");
    let plan = rig.database.capture_plan(TABLE).await.unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("no capture instance has Note")), "{:?}", plan.notes);
    rig.run(&capture(TABLE, "dbo_Forecasts_2")).await;
    rig.run("UPDATE dbo.Forecasts SET Note = N'new'").await;
    let (_, position) = rig.all_until_changed(&head).await;
    let change = rig.schema_changed(CDC, &position).await;
    assert!(change.reason.contains("has Note"), "{}", change.reason);
    let (all, _) = rig.all(TABLE, CDC, &change.next, 10).await;
    assert_eq!(story(&all), [(Update, 2)]);
    assert_eq!(document(&all[0])["note"], "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_10_a_client_that_runs_has_a_new_column_from_the_new_instance_on() {
    let rig = Rig::new().await;
    rig.write(vec![insert(1, 1.0)]).await;
    rig.scan().await;
    let head = rig.head(TABLE, CDC).await;
    assert!(rig.database.scan(TABLE, None, 10).await.unwrap().len() == 1, "the table is known");
    rig.run("ALTER TABLE dbo.Forecasts ADD Note nvarchar(100) NULL;").await;
    rig.run(&capture(TABLE, "dbo_Forecasts_2")).await;
    rig.run("UPDATE dbo.Forecasts SET Note = N'new'").await;
    let (_, position) = rig.all_until_changed(&head).await;
    let change = rig.schema_changed(CDC, &position).await;
    let (all, _) = rig.all(TABLE, CDC, &change.next, 10).await;
    assert_eq!((story(&all), &document(&all[0])["note"]), (vec![(Update, 2)], &json!("new")));
    let rows = rig.database.scan(TABLE, None, 10).await.unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&rows[0].document).unwrap()["note"],
        "new",
        "what is scanned has it too"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_10_a_dropped_column_holds_nothing_up() {
    let rig = Rig::new().await;
    let head = rig.head(TABLE, CDC).await;
    rig.write(vec![insert(1, 1.0)]).await;
    rig.scan().await;
    rig.run("ALTER TABLE dbo.Forecasts DROP COLUMN UpdatedVia;").await;
    let rig = Rig { database: rig.again(), server: rig.server };
    rig.write(vec![update(1, 2.0)]).await;
    let (all, _) = rig.all(TABLE, CDC, &head, 10).await;
    assert_eq!(story(&all), [(Insert, 1), (Update, 2)]);
    assert!(all.iter().all(|change| document(change).get("updatedVia").is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_10_a_renamed_table_is_missed_by_name() {
    let rig = with_table(NOTES, "Notes").await;
    let heads = [rig.head("Notes", CT).await, rig.head("Notes", CDC).await];
    rig.run("EXEC sp_rename N'dbo.Notes', N'Remarks';").await;
    let rig = Rig { database: rig.again(), server: rig.server };
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let error = rig.database.changes("Notes", mode, head, 10).await.unwrap_err().chain();
        assert!(error.contains("no table Notes") && error.contains("Remarks"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_11_a_max_column_that_an_update_left_alone_keeps_its_value() {
    let rig = with_table(NOTES, "Notes").await;
    let head = rig.head("Notes", CDC).await;
    rig.run(&format!(
        "INSERT INTO dbo.Notes VALUES ('{}', N'a', N'long', 1), ('{}', N'a', NULL, 1);",
        uuid(1),
        uuid(2)
    ))
    .await;
    rig.run("UPDATE dbo.Notes SET Title = N'b', VersionId = 2;").await;
    rig.run("UPDATE dbo.Notes SET Body = NULL, VersionId = 3;").await;
    let (all, _) = rig.all("Notes", CDC, &head, 10).await;
    let told = |key: u64| -> Vec<(i64, Value, Value)> {
        let of = all.iter().filter(|change| *change.key == *uuid(key));
        of.map(|c| (c.version, document(c)["title"].clone(), document(c)["body"].clone())).collect()
    };
    // The second image lacks it in the log; by now the row has none, and the third change says so too.
    let (first, second) = (told(1), told(2));
    assert_eq!(first[0], (1, json!("a"), json!("long")));
    assert_eq!(first[2], (3, json!("b"), Value::Null));
    assert_eq!(second.iter().map(|(_, _, body)| body).collect::<Vec<_>>(), [&Value::Null; 3]);
    let head = rig.head("Notes", CDC).await;
    rig.run("UPDATE dbo.Notes SET Body = N'again', VersionId = 4;").await;
    rig.run("UPDATE dbo.Notes SET Title = N'c', VersionId = 5;").await;
    let (all, _) = rig.all("Notes", CDC, &head, 10).await;
    assert!(all.iter().all(|change| document(change)["body"] == "again"), "{all:?}");
    assert_eq!(all.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_13_a_changed_key_is_a_delete_and_an_insert_also_after_a_restart_in_between() {
    let rig = with_table(NOTES, "Notes").await;
    rig.run(&format!("INSERT INTO dbo.Notes VALUES ('{}', N'a', N'x', 4);", uuid(1))).await;
    rig.scan().await;
    let heads = [rig.head("Notes", CT).await, rig.head("Notes", CDC).await];
    rig.run(&format!("UPDATE dbo.Notes SET Id = '{}';", uuid(2))).await;
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let (mut all, _) = rig.all("Notes", mode, head, 1).await;
        let told: BTreeSet<(String, bool)> =
            all.iter().map(|change| (change.key.to_string(), change.operation == Delete)).collect();
        assert_eq!(told, BTreeSet::from([(uuid(1), true), (uuid(2), false)]), "{mode:?}");
        let first = all.remove(0);
        let rest = rig.again().changes("Notes", mode, &first.position, 10).await.unwrap();
        assert!(matches!(rest, Poll::Changes(page) if page.changes == all), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_15_and_17_and_19_a_key_of_two_columns_with_odd_names_one_of_them_varchar_is_paged_without_a_gap() {
    let rig = with_table(ORDERS, "Orders").await;
    let heads = [rig.head("Orders", CT).await, rig.head("Orders", CDC).await];
    // Word order and byte order of varchar differ at the hyphen; `B` and `b` are one in this collation.
    let regions = ["co-op", "coop", "a'b", "B", "co op"];
    let rows: Vec<String> = regions
        .iter()
        .flat_map(|region| (1..=3).map(move |no| format!("('{}', {no}, 1.5, 1)", region.replace('\'', "''"))))
        .collect();
    rig.run(&format!("INSERT INTO dbo.Orders VALUES {};", rows.join(", "))).await;
    let expected: BTreeSet<String> =
        regions.iter().flat_map(|region| (1..=3).map(move |no| json!([region, no]).to_string())).collect();
    for limit in [1, 2, 4] {
        for (mode, head) in BOTH.into_iter().zip(&heads) {
            let (all, _) = rig.all("Orders", mode, head, limit).await;
            let keys: BTreeSet<String> = all.iter().map(|change| change.key.to_string()).collect();
            assert_eq!((all.len(), &keys), (expected.len(), &expected), "{mode:?} in pages of {limit}");
        }
        let (mut scanned, mut after) = (BTreeSet::new(), None);
        loop {
            let rows = rig.database.scan("Orders", after.as_deref(), limit).await.unwrap();
            after = rows.last().map(|row| row.key.to_string()).or(after);
            scanned.extend(rows.iter().map(|row| row.key.to_string()));
            if rows.len() < limit {
                break;
            }
        }
        assert_eq!(scanned, expected, "scanned in pages of {limit}");
    }
    let (all, _) = rig.all("Orders", CDC, &heads[1], 100).await;
    assert_eq!(document(&all[0]).to_string().matches("1.5").count(), 1, "{}", document(&all[0]));
    assert!(document(&all[0]).get("price[EUR]").is_some(), "{}", document(&all[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_20_truncate_is_refused_under_cdc_and_loses_positions_under_change_tracking() {
    let rig = with_table(NOTES, "Notes").await;
    let refused = common::sql(&rig.database, "TRUNCATE TABLE dbo.Notes;").await;
    assert!(refused.is_err_and(|error| error.chain().contains("4711")));
    let refused = common::sql(&rig.database, "TRUNCATE TABLE dbo.Forecasts;").await;
    assert!(refused.is_err(), "the guard refuses it too");
    let stop =
        "EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'Notes', @capture_instance = N'all';";
    rig.run(stop).await;
    rig.run(&format!("INSERT INTO dbo.Notes VALUES ('{}', N'a', N'x', 1);", uuid(1))).await;
    let head = rig.head("Notes", CT).await;
    rig.run("TRUNCATE TABLE dbo.Notes;").await;
    let rig = Rig { database: rig.again(), server: rig.server };
    let lost = rig.poll("Notes", CT, &head, 10).await;
    assert!(matches!(&lost, Poll::PositionLost(why) if why.contains("truncated")), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_24_scan_read_and_both_streams_spell_a_row_and_its_key_alike() {
    let rig = with_table(ORDERS, "Orders").await;
    let heads = [rig.head("Orders", CT).await, rig.head("Orders", CDC).await];
    rig.run("INSERT INTO dbo.Orders VALUES ('Nord', 7, 12.50, 1), (N'S\u{fc}d', 8, NULL, 1);").await;
    let mut scanned = rig.database.scan("Orders", None, 10).await.unwrap();
    scanned.sort_by(|a, b| a.key.cmp(&b.key));
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let (mut all, _) = rig.all("Orders", mode, head, 10).await;
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let told: Vec<_> = all.iter().map(|change| (&change.key, change.document.as_ref().unwrap())).collect();
        assert_eq!(told, scanned.iter().map(|row| (&row.key, &row.document)).collect::<Vec<_>>(), "{mode:?}");
    }
    let keys: Vec<_> = scanned.iter().map(|row| row.key.clone()).collect();
    let mut read = rig.database.get("Orders", &keys).await.unwrap();
    read.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(read, scanned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_triggers_keep_another_section_leaves_no_tombstones_of_ours() {
    let server = stand_in();
    let database = database(&server).await;
    assert!(database.table(TABLE).await.unwrap().tombstones);
    let mut other = settings(&server.url());
    other.captured_tables.insert(TABLE.to_owned(), "prognosis".to_owned());
    let other = open(&other);
    assert!(!other.table(TABLE).await.unwrap().tombstones);
    let plan = other.capture_plan(TABLE).await.unwrap();
    let trigger = plan.modes[0].statements.iter().find(|statement| statement.contains("_versions_delete"));
    assert!(trigger.is_some_and(|trigger| trigger.contains("b.Section = N'prognosis'")), "{plan:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_without_a_version_is_set_aside_in_both_modes_and_holds_up_nothing() {
    let rig = with_table(
        "CREATE TABLE dbo.Loose (Id uniqueidentifier NOT NULL CONSTRAINT PK_Loose PRIMARY KEY, VersionId bigint NULL);",
        "Loose",
    )
    .await;
    let heads = [rig.head("Loose", CT).await, rig.head("Loose", CDC).await];
    rig.run(&format!("INSERT INTO dbo.Loose VALUES ('{}', NULL);", uuid(1))).await;
    rig.run(&format!("INSERT INTO dbo.Loose VALUES ('{}', 7);", uuid(2))).await;
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let (all, _) = rig.all("Loose", mode, head, 10).await;
        let told: Vec<_> = all.iter().map(|c| (&*c.key, c.operation, c.version, c.unreadable.is_some())).collect();
        assert_eq!(told, [(&*uuid(1), Insert, 0, true), (&*uuid(2), Insert, 7, false)], "{mode:?}");
    }
}
