//! Rows inserted where absent: all or nothing, once, in bulk.

mod common;

use common::{database, number, sql, stand_in};
use serde_json::{Map, Value, json};
use smartpulse_clients::database::{Database, Inserted};
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_stand_in::faults::{Failure, Fault};
use smartpulse_testing::{uuid, within};

const TABLE: &str = "Notifications";

fn notification(id: u64) -> Map<String, Value> {
    let row = json!({
        "id": uuid(id), "userId": uuid(id % 10), "title": format!("title {id}"), "body": "a \u{1f600} body", "type": "forecast",
        "readAt": null, "createdAt": "2016-01-02T03:04:05.678Z",
    });
    row.as_object().cloned().unwrap()
}

fn notifications(ids: impl IntoIterator<Item = u64>) -> Vec<Map<String, Value>> {
    ids.into_iter().map(notification).collect()
}

async fn count(database: &SqlServerDatabase) -> i64 {
    number(database, "SELECT COUNT_BIG(*) AS N FROM dbo.Notifications", &[]).await
}

/// What makes a batch of few rows, which go as parameters, and one of many, which are loaded.
const SIZES: [u64; 2] = [3, 40];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_inserted_once_and_read_as_they_were_given() {
    for size in SIZES {
        let server = stand_in();
        let database = database(&server).await;
        let rows = notifications(0..size);
        let all = usize::try_from(size).unwrap();
        let first = within("inserting", database.insert_absent(TABLE, &rows)).await.unwrap();
        assert_eq!(first, Inserted { inserted: all, present: 0 });
        let again = database.insert_absent(TABLE, &rows).await.unwrap();
        assert_eq!(again, Inserted { inserted: 0, present: all });
        let found = database.scan(TABLE, None, 1_000).await.unwrap();
        for (row, given) in found.iter().zip(&rows) {
            let document: Value = serde_json::from_slice(&row.document).unwrap();
            assert_eq!(document, Value::Object(given.clone()));
        }
        assert_eq!(found.len(), all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_rows_with_one_id_the_first_counts() {
    for size in SIZES {
        let server = stand_in();
        let database = database(&server).await;
        database.insert_absent(TABLE, &notifications([0])).await.unwrap();
        let mut rows = notifications(0..size);
        let mut later = notification(1);
        later.insert("title".into(), "a later one".into());
        rows.push(later);
        let inserted = database.insert_absent(TABLE, &rows).await.unwrap();
        let all = usize::try_from(size).unwrap();
        assert_eq!(inserted, Inserted { inserted: all - 1, present: 2 });
        let found = database.get(TABLE, &[uuid(1).into()]).await.unwrap();
        let document: Value = serde_json::from_slice(&found[0].document).unwrap();
        assert_eq!(document["title"], "title 1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_left_out_gets_its_default_and_null_stays_null() {
    for size in SIZES {
        let server = stand_in();
        let database = database(&server).await;
        let mut rows = notifications(0..size);
        rows[1].remove("createdAt");
        rows[2].remove("readAt");
        database.insert_absent(TABLE, &rows).await.unwrap();
        let old = "SELECT COUNT_BIG(*) AS N FROM dbo.Notifications WHERE CreatedAt < '2017-01-01'";
        assert_eq!(number(&database, old, &[]).await, i64::try_from(size).unwrap() - 1);
        // NULL where none is allowed is no default.
        rows[1].insert("id".into(), uuid(9_999).into());
        rows[1].insert("createdAt".into(), Value::Null);
        let error = database.insert_absent(TABLE, &rows).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisoned_row_leaves_nothing_of_its_batch_and_is_named() {
    for size in SIZES {
        let server = stand_in();
        let database = database(&server).await;
        for (member, value, part) in [
            ("createdAt", json!("yesterday"), "createdAt is datetime2(3) and cannot be \"yesterday\""),
            ("title", json!("x".repeat(201)), "title has 201 characters, and the column holds 200"),
            ("userId", json!("nobody"), "userId is uniqueidentifier"),
            ("tite", json!("x"), "did you mean title?"),
        ] {
            let mut rows = notifications(0..size);
            rows[2].insert(member.into(), value);
            let error = database.insert_absent(TABLE, &rows).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
            assert!(error.chain().contains("row 2") && error.chain().contains(part), "{}", error.chain());
        }
        // And what only the server knows.
        let mut rows = notifications(0..size);
        rows[2].remove("userId");
        let error = database.insert_absent(TABLE, &rows).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{}", error.chain());
        assert_eq!(count(&database).await, 0);
        // The rest goes in when it is given without.
        rows.remove(2);
        database.insert_absent(TABLE, &rows).await.unwrap();
        assert_eq!(count(&database).await, i64::try_from(size).unwrap() - 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_breaks_off_leaves_nothing_and_is_sent_again() {
    let server = stand_in();
    let database = database(&server).await;
    let rows = notifications(0..2_000);
    let lost = server.faults().arm(Fault::break_bulk(10_000));
    let inserted = within("inserting", database.insert_absent(TABLE, &rows)).await.unwrap();
    assert_eq!((lost.struck(), inserted), (1, Inserted { inserted: 2_000, present: 0 }));
    // An answer that was lost after the commit: the rows are there already, and none is there twice.
    let lost = server.faults().arm(Fault::break_after().on("ROW_NUMBER"));
    let inserted = within("inserting", database.insert_absent(TABLE, &notifications(5_000..5_100))).await.unwrap();
    assert_eq!((lost.struck(), inserted), (1, Inserted { inserted: 0, present: 100 }));
    let victim = server.faults().arm(Fault::fail(Failure::deadlock()).on("ROW_NUMBER"));
    let inserted = within("inserting", database.insert_absent(TABLE, &notifications(6_000..6_100))).await.unwrap();
    assert_eq!((victim.struck(), inserted), (1, Inserted { inserted: 100, present: 0 }));
    assert_eq!(count(&database).await, 2_200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_rows_go_in_at_once() {
    let server = stand_in();
    let database = database(&server).await;
    let rows = notifications(0..10_000);
    let inserted = within("inserting", database.insert_absent(TABLE, &rows)).await.unwrap();
    assert_eq!(inserted, Inserted { inserted: 10_000, present: 0 });
    assert_eq!(count(&database).await, 10_000);
    let inserted = within("inserting", database.insert_absent(TABLE, &rows)).await.unwrap();
    assert_eq!(inserted, Inserted { inserted: 0, present: 10_000 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_insert_the_same_rows_at_once_insert_each_once() {
    let server = stand_in();
    let (one, two) = (database(&server).await, database(&server).await);
    let rows = notifications(0..200);
    let (a, b) = tokio::join!(one.insert_absent(TABLE, &rows), two.insert_absent(TABLE, &rows));
    assert_eq!(a.unwrap().inserted + b.unwrap().inserted, 200);
    assert_eq!(count(&one).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_every_type_take_what_documents_say() {
    let server = stand_in();
    let database = database(&server).await;
    let create = "CREATE TABLE dbo.Kinds (Code varchar(20) NOT NULL PRIMARY KEY, [Odd ]] #1] int NULL, Big bigint NULL, \
                  Yes bit NULL, Price decimal(19,4) NULL, Ratio real NULL, Day date NULL, At datetime2(7) NULL, \
                  Legacy datetime NULL, Raw varbinary(16) NULL, Long nvarchar(max) NULL);";
    sql(&database, create).await.unwrap();
    let row = |code: &str| {
        let row = json!({
            "code": code, "odd ] #1": 7, "big": i64::MAX, "yes": true, "price": 12.5, "ratio": 0.5, "day": "2016-02-29",
            "at": "2016-02-29T12:00:00.123Z", "legacy": "2016-02-29T12:00:00.000Z", "raw": "0x00ab", "long": "x".repeat(5_000),
        });
        row.as_object().cloned().unwrap()
    };
    let rows: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(row).into();
    database.insert_absent("Kinds", &rows[..2]).await.unwrap();
    let inserted = database.insert_absent("Kinds", &rows).await.unwrap();
    assert_eq!(inserted, Inserted { inserted: 7, present: 2 });
    let found = database.scan("Kinds", None, 100).await.unwrap();
    assert_eq!(found.len(), 9);
    for row in found {
        let document = std::str::from_utf8(&row.document).unwrap();
        assert!(document.contains("\"price\":12.5000,"), "{document}");
        let mut document: Value = serde_json::from_str(document).unwrap();
        document["price"] = json!(12.5);
        assert_eq!(document, Value::Object(rows.iter().find(|r| r["code"] == *row.key).unwrap().clone()));
    }
}
