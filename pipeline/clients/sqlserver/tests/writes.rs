//! Reads and writes where names, keys and the network are not as one would like.

mod common;

use common::{database, number, sql, stand_in};
use serde_json::{Map, Value, json};
use smartpulse_clients::database::{Database, Row, Write, Written};
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_stand_in::faults::{Failure, Fault};
use smartpulse_testing::{forecast, uuid, within};
use uuid::Uuid;

const TABLE: &str = "Forecasts";

fn insert(id: u64, demand: f64) -> Write {
    Write::Insert { members: forecast(id, demand) }
}

fn update(id: u64, demand: f64) -> Write {
    let members = json!({ "demand": demand }).as_object().cloned().unwrap();
    Write::Update { key: uuid(id).into(), expected_version: None, members }
}

fn version(written: &[Written]) -> i64 {
    match written {
        [Written::Done(row)] => row.version,
        other => panic!("not done: {other:?}"),
    }
}

async fn all(database: &SqlServerDatabase, table: &str, page: usize) -> Vec<Row> {
    let (mut found, mut after): (Vec<Row>, Option<Key>) = (Vec::new(), None);
    loop {
        let rows = within("a scan", database.scan(table, after.as_deref(), page)).await.unwrap();
        let end = rows.len() < page;
        after = rows.last().map(|row| row.key.clone());
        found.extend(rows);
        if end {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_lost_a_deadlock_is_done_once_in_the_end() {
    let server = stand_in();
    let database = database(&server).await;
    database.write(TABLE, vec![insert(1, 1.0)]).await.unwrap();
    let victim = server.faults().arm(Fault::fail(Failure::deadlock()).on("UPDATE [dbo].[Forecasts]").times(2));
    let written = within("a write", database.write(TABLE, vec![update(1, 2.0)])).await.unwrap();
    assert_eq!((victim.struck(), version(&written)), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_a_connection_that_a_restart_took_away_is_done_once() {
    let server = stand_in();
    let database = database(&server).await;
    database.write(TABLE, vec![insert(1, 1.0)]).await.unwrap();
    for round in 2..5 {
        server.restart().unwrap();
        let written = within("a write", database.write(TABLE, vec![update(1, 2.0)])).await.unwrap();
        assert_eq!(version(&written), round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_commit_was_not_answered_is_in_doubt_and_not_done_twice() {
    let server = stand_in();
    let database = database(&server).await;
    database.write(TABLE, vec![insert(1, 1.0)]).await.unwrap();
    for (fault, expected) in [(Fault::break_after(), 2), (Fault::break_before(), 2)] {
        let lost = server.faults().arm(fault.on("UPDATE [dbo].[Forecasts]"));
        let error = within("a write", database.write(TABLE, vec![update(1, 2.0)])).await.unwrap_err();
        assert_eq!((error.kind(), lost.struck()), (ErrorKind::Unavailable, 1));
        assert!(error.chain().contains("not known whether a write was committed"), "{}", error.chain());
        let row = database.get(TABLE, &[uuid(1).into()]).await.unwrap().remove(0);
        assert_eq!(row.version, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writes_are_one_transaction() {
    let server = stand_in();
    let database = database(&server).await;
    let writes: Vec<Write> = (0..120).map(|id| insert(id, 1.0)).collect();
    let written = within("a write", database.write(TABLE, writes)).await.unwrap();
    assert!(written.len() == 120 && written.iter().all(|w| matches!(w, Written::Done(_))));
    // The last of many fails: nothing of the others remains.
    let mut wrong = forecast(1_000, 1.0);
    wrong.insert("demand".into(), Value::Null);
    let mut writes: Vec<Write> = (0..120).map(|id| update(id, 2.0)).collect();
    writes.push(Write::Insert { members: wrong });
    let error = within("a write", database.write(TABLE, writes)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{}", error.chain());
    assert!(all(&database, TABLE, 50).await.iter().all(|row| row.version == 1));
    // One that broke off in the middle is tried again, and done once.
    let lost = server.faults().arm(Fault::break_before().on("COMMIT"));
    let writes: Vec<Write> = (0..120).map(|id| update(id, 3.0)).collect();
    let outcome = within("a write", database.write(TABLE, writes)).await;
    assert!(outcome.is_err() && lost.struck() == 1, "the COMMIT was lost");
    assert!(all(&database, TABLE, 50).await.iter().all(|row| row.version == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_15_a_key_of_several_columns_is_paged_without_a_gap_or_an_overlap() {
    let server = stand_in();
    let database = database(&server).await;
    let create = "CREATE TABLE dbo.Parts (Region varchar(20) NOT NULL, No int NOT NULL, Name nvarchar(40) NULL, \
                  CONSTRAINT PK_Parts PRIMARY KEY (Region, No));";
    sql(&database, create).await.unwrap();
    let rows: Vec<Map<String, Value>> = ["north", "south", "a|b", "\"quoted\""]
        .iter()
        .flat_map(|region| {
            (-3..9).map(move |no| json!({ "region": region, "no": no, "name": format!("{region} {no}") }))
        })
        .map(|row| row.as_object().cloned().unwrap())
        .collect();
    database.insert_absent("Parts", &rows).await.unwrap();
    let whole: Vec<Key> = all(&database, "Parts", 1_000).await.into_iter().map(|row| row.key).collect();
    assert_eq!(whole.len(), rows.len());
    for page in [1, 5, 7, 12] {
        let paged: Vec<Key> = all(&database, "Parts", page).await.into_iter().map(|row| row.key).collect();
        assert_eq!(paged, whole, "pages of {page}");
    }
    assert_eq!(database.get("Parts", &whole).await.unwrap().len(), rows.len());
    let write = Write::Delete { key: "[\"a|b\",-3]".into(), expected_version: None };
    let written = database.write("Parts", vec![write]).await.unwrap();
    assert!(matches!(written.as_slice(), [Written::Done(row)] if &*row.key == "[\"a|b\",-3]"), "{written:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_16_ids_are_paged_in_the_order_of_the_server_and_not_of_their_text() {
    let server = stand_in();
    let database = database(&server).await;
    let ids: Vec<String> = (0..60_u128)
        .map(|n| Uuid::from_u128(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)).to_string())
        .collect();
    let rows = ids.iter().map(|id| {
        let mut members = forecast(1, 1.0);
        members.insert("id".into(), id.as_str().into());
        Write::Insert { members }
    });
    database.write(TABLE, rows.collect()).await.unwrap();
    let found: Vec<String> = all(&database, TABLE, 7).await.into_iter().map(|row| row.key.to_string()).collect();
    let (mut sorted, mut expected) = (found.clone(), ids.clone());
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected, "each once");
    assert_ne!(found, expected, "the server orders by the last six bytes first");
    let last_six = |id: &str| id[24..].to_owned();
    assert!(found.windows(2).all(|pair| last_six(&pair[0]) <= last_six(&pair[1])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_17_a_varchar_key_is_scanned_whole_and_compared_as_varchar() {
    let server = stand_in();
    let database = database(&server).await;
    sql(&database, "CREATE TABLE dbo.Codes (Code varchar(12) NOT NULL PRIMARY KEY, Name nvarchar(40) NULL);")
        .await
        .unwrap();
    let codes = ["", "a", "A1", "a-1", "a_1", "b", "B1", "b\u{e9}", "z", "Zz", "10", "9"];
    let rows: Vec<_> = codes.iter().map(|code| json!({ "code": code }).as_object().cloned().unwrap()).collect();
    database.insert_absent("Codes", &rows).await.unwrap();
    for page in [1, 3, 100] {
        let mut found: Vec<String> =
            all(&database, "Codes", page).await.into_iter().map(|r| r.key.to_string()).collect();
        found.sort();
        let mut expected = codes.map(str::to_owned);
        expected.sort();
        assert_eq!(found, expected, "pages of {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_19_names_with_brackets_and_signs_are_read_and_written() {
    let server = stand_in();
    let database = database(&server).await;
    let create = "CREATE TABLE dbo.Odd ([Key]]1] int NOT NULL PRIMARY KEY, [#Hash] nvarchar(10) NULL, [a[b] float NULL, \
                  [with 'quote'] int NULL, [semi;--colon] int NULL);";
    sql(&database, create).await.unwrap();
    let members = json!({ "key]1": 7, "#Hash": "x", "a[b": 0.5, "with 'quote'": 1, "semi;--colon": 2 });
    let write = Write::Insert { members: members.as_object().cloned().unwrap() };
    let written = database.write("Odd", vec![write]).await.unwrap();
    let [Written::Done(row)] = written.as_slice() else { panic!("{written:?}") };
    assert_eq!(serde_json::from_slice::<Value>(&row.document).unwrap(), members);
    assert_eq!(database.scan("Odd", None, 10).await.unwrap(), std::slice::from_ref(row));
    assert_eq!(database.get("Odd", &["7".into()]).await.unwrap(), std::slice::from_ref(row));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_trigger_throws_rejects_the_write() {
    let server = stand_in();
    let database = database(&server).await;
    database.write(TABLE, vec![insert(1, 1.0)]).await.unwrap();
    let members = json!({ "versionId": 7 }).as_object().cloned().unwrap();
    let write = Write::Update { key: uuid(1).into(), expected_version: None, members };
    let error = database.write(TABLE, vec![write]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.chain().contains("50002") && error.chain().contains("rises by exactly 1"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_column_is_read_and_a_dropped_one_stops_nothing() {
    let server = stand_in();
    let database = database(&server).await;
    sql(&database, "CREATE TABLE dbo.Shapes (Id int NOT NULL PRIMARY KEY, Old int NULL);").await.unwrap();
    sql(&database, "INSERT INTO dbo.Shapes (Id, Old) VALUES (1, 2);").await.unwrap();
    let document = |rows: Vec<Row>| String::from_utf8(rows[0].document.to_vec()).unwrap();
    assert_eq!(document(database.scan("Shapes", None, 10).await.unwrap()), r#"{"id":1,"old":2}"#);
    sql(&database, "ALTER TABLE dbo.Shapes ADD Fresh int NULL;").await.unwrap();
    sql(&database, "ALTER TABLE dbo.Shapes DROP COLUMN Old;").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!(document(database.scan("Shapes", None, 10).await.unwrap()), r#"{"id":1,"fresh":null}"#);
    assert_eq!(number(&database, "SELECT COUNT_BIG(*) AS N FROM dbo.Shapes", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_lowers_a_version_whatever_the_tombstone_says() {
    let server = stand_in();
    let database = database(&server).await;
    let key = uuid(1);
    let delete = Write::Delete { key: key.as_str().into(), expected_version: None };
    database.write(TABLE, vec![insert(1, 1.0), delete, insert(1, 2.0)]).await.unwrap();
    database.write(TABLE, vec![update(1, 3.0)]).await.unwrap();
    let set = |version: i64| format!("UPDATE dbo.Forecasts SET VersionId = {version} WHERE Id = '{key}';");
    // The version that it was created again with, from an old copy of the row; then others that it never had.
    for stale in [3, 1, 7] {
        let error = sql(&database, &set(stale)).await.unwrap_err().chain();
        assert!(error.contains("50002"), "{stale}: {error}");
    }
    sql(&database, &set(5)).await.unwrap();
    let written = database.write(TABLE, vec![update(1, 4.0)]).await.unwrap();
    assert_eq!(version(&written), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_created_again_goes_on_behind_its_tombstone_or_where_it_says() {
    let server = stand_in();
    let database = database(&server).await;
    for (id, says, is) in [(1, 1, 3), (2, 3, 3), (3, 9, 9)] {
        let delete = Write::Delete { key: uuid(id).into(), expected_version: None };
        database.write(TABLE, vec![insert(id, 1.0), delete]).await.unwrap();
        let mut members = forecast(id, 2.0);
        members.insert("versionId".to_owned(), says.into());
        let written = database.write(TABLE, vec![Write::Insert { members }]).await.unwrap();
        assert_eq!(version(&written), is, "says {says}");
    }
}
