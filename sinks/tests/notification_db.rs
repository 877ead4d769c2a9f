//! What `notification_db` promises, held against the embedded database.

use bytes::Bytes;
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use smartpulse_clients::database::Database;
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_json::Document;
use smartpulse_pipeline::state::{DeadLetterFilter, Store};
use smartpulse_pipeline::{Event, Operation};
use smartpulse_testing::{PATIENCE, Rig, notification, uuid};
use std::sync::Arc;
use tempfile::TempDir;

const YAML: &str = "
name: p
sources: { s: { type: probe } }
sinks: { rows: { type: notification_db, inputs: [s], database: main_db } }
";

struct Place {
    rig: Rig,
    reader: Connection,
    _folder: TempDir,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        let database = SqliteDatabase::open("w", &SqliteConfig::default(), folder.path(), &registry).unwrap();
        database.create_schema().await.unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let rig = Rig::new(store, &[&format!("data_dir={}", folder.path().display())], |registry| {
            smartpulse_clients::register(registry);
            smartpulse_sinks::register(registry);
        });
        let reader = Connection::open(folder.path().join("main.db")).unwrap();
        reader.busy_timeout(PATIENCE).unwrap();
        Self { rig, reader, _folder: folder }
    }

    fn titles(&self) -> Vec<String> {
        let mut statement = self.reader.prepare("SELECT Title FROM Notifications ORDER BY Id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    async fn letters(&self) -> Vec<(Option<String>, String)> {
        let filter = DeadLetterFilter { limit: 1_000, ..DeadLetterFilter::default() };
        let mut letters: Vec<_> = self.rig.store.dead_letters(&filter).await.unwrap();
        letters.reverse();
        letters.into_iter().map(|stored| (stored.letter.key, stored.letter.reason)).collect()
    }

    /// Has the sink write these batches, and drains.
    async fn write(&self, batches: Vec<Vec<Event>>) {
        self.write_with(YAML, batches).await;
    }

    async fn write_with(&self, yaml: &str, batches: Vec<Vec<Event>>) {
        let count: usize = batches.iter().map(Vec::len).sum();
        let before = self.rig.probe.committed.lock().unwrap().len();
        let graph = self.rig.start(yaml).await;
        batches.into_iter().for_each(|batch| self.rig.probe.emit(batch));
        let done = u64::try_from(count).unwrap();
        let committed = |probe: &smartpulse_testing::Probe| {
            probe.committed.lock().unwrap()[before..].last().is_some_and(|committed| *committed == done)
        };
        self.rig.probe.until("everything is committed", committed).await;
        graph.stop().await.unwrap();
    }
}

fn event(id: u64, row: Map<String, Value>) -> Event {
    let document = Document::parse(Bytes::from(Value::Object(row).to_string())).unwrap();
    Event::new("notification".into(), uuid(id).into(), 1, Operation::Insert, Some(document))
}

fn good(id: u64) -> Event {
    event(id, notification(id, &format!("n{id}")))
}

#[tokio::test]
async fn rows_go_in_and_a_batch_that_comes_again_changes_nothing() {
    let place = Place::new().await;
    let batch = || vec![(1..=300).map(good).collect::<Vec<_>>()];
    place.write(batch()).await;
    let expected: Vec<String> = (1..=300).map(|id| format!("n{id}")).collect();
    assert_eq!(place.titles(), expected);
    // As after a crash behind the insert and before the commit; one was read meanwhile.
    let sql = "UPDATE Notifications SET ReadAt = '2016-01-02T00:00:00.000Z' WHERE Title = 'n7'";
    assert_eq!(place.reader.execute(sql, []).unwrap(), 1);
    place.write(batch()).await;
    assert_eq!(place.titles(), expected);
    let read: i64 = place
        .reader
        .query_row("SELECT count(*) FROM Notifications WHERE ReadAt IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(read, 1, "what is there stays as it is");
    assert_eq!(place.letters().await, []);
}

#[tokio::test]
async fn bad_rows_are_set_aside_with_reasons_and_all_others_go_in() {
    let place = Place::new().await;
    let mut batch: Vec<Event> = (1..=100).map(good).collect();
    let mut long = notification(13, &"x".repeat(201));
    long.insert("readAt".to_owned(), Value::Null);
    batch[12] = event(13, long);
    let mut odd = notification(50, "odd");
    odd.insert("colour".to_owned(), json!("red"));
    batch[49] = event(50, odd);
    batch[98].document = None;
    batch[99].document = Some(Document::parse(Bytes::from_static(b"[1]")).unwrap());
    let mut delete = good(101);
    delete.operation = Operation::Delete;
    batch.push(delete);
    place.write(vec![batch]).await;
    let bad = [13, 50, 99, 100, 101];
    let expected: Vec<String> = (1..=100).filter(|id| !bad.contains(id)).map(|id| format!("n{id}")).collect();
    assert_eq!(place.titles(), expected);
    let mut letters = place.letters().await;
    letters.sort();
    assert_eq!(letters.iter().map(|(key, _)| key.clone().unwrap()).collect::<Vec<_>>(), bad.map(uuid));
    for ((_, reason), said) in letters.iter().zip(["Title_must_be", "colour", "no document", "no object", "delete"]) {
        assert!(reason.contains(said), "{reason}");
    }
}

#[tokio::test]
async fn of_two_rows_with_one_id_the_first_counts_also_beside_a_bad_one() {
    let place = Place::new().await;
    let mut second = notification(1, "second");
    second.insert("body".to_owned(), json!("other"));
    let bad = event(2, notification(2, &"x".repeat(500)));
    place.write(vec![vec![good(1), bad, event(1, second)]]).await;
    assert_eq!(place.titles(), ["n1"]);
}

#[tokio::test]
async fn a_table_that_is_not_there_is_refused_before_anything_runs() {
    let place = Place::new().await;
    let problems = place.rig.problems(&YAML.replace("main_db", "bus"));
    assert!(problems.contains("a database is needed"), "{problems}");
    let yaml = YAML.replace("database: main_db", "database: main_db, table: Notification");
    let set = tokio::task::LocalSet::new();
    let start = async move { tokio::task::spawn_local(async move { place.rig.start(&yaml).await }).await };
    let panic = set.run_until(start).await.err().expect("it cannot be built").into_panic();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("rows cannot go into Notification") && message.contains("Notifications"), "{message}");
}

const LEDGER: &str = "
name: p
sources: { s: { type: probe } }
sinks: { rows: { type: notification_db, inputs: [s], database: main_db, ledger: main_db, announce: pubsub } }
";

/// A delivery to the user 7, as a map makes it.
fn delivery(id: u64, title: &str) -> Event {
    let mut row = notification(id, title);
    let delivery = json!({ "id": uuid(id), "userId": uuid(7), "rule": "drop", "entity": uuid(50), "version": 7 });
    row.insert("delivery".to_owned(), delivery);
    event(id, row)
}

#[tokio::test]
async fn a_ledger_keeps_what_was_told_and_why_the_rest_was_not() {
    let place = Place::new().await;
    let batch = || vec![(1..=20).map(|id| delivery(id, "t")).chain([delivery(21, &"x".repeat(201))]).collect()];
    place.write_with(LEDGER, batch()).await;
    // Told once, also when the row has left the table since.
    assert_eq!(place.reader.execute("DELETE FROM Notifications", []).unwrap(), 20);
    place.write_with(LEDGER, batch()).await;
    assert_eq!(place.titles(), [""; 0]);
    let count = |sql: &str| place.reader.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let told =
        "SELECT count(*) FROM NotificationDeliveries WHERE Id = DeliveryId AND Outcome = 'told' AND Channel = 'InApp'
        AND Rule = 'drop' AND Version = '7' AND UserId = '00000000-0000-4000-8000-000000000007'";
    assert_eq!(count(told), 20);
    let refused = "SELECT count(*) FROM NotificationDeliveries WHERE Id <> DeliveryId AND Outcome = 'refused'
        AND Detail LIKE '%Title%'";
    assert_eq!((count(refused), count("SELECT count(*) FROM NotificationDeliveries")), (2, 22));
    assert_eq!(place.rig.metric("component_events_noted_total", &["told_before"]), Some(20.0));
}

#[tokio::test]
async fn what_names_no_delivery_is_set_aside_by_a_sink_with_a_ledger() {
    let place = Place::new().await;
    place.write_with(LEDGER, vec![vec![good(1), delivery(2, "t")]]).await;
    assert_eq!(place.titles(), ["t"]);
    let letters = place.letters().await;
    assert_eq!(letters[0].0, Some(uuid(1)));
    assert!(letters[0].1.contains("delivery: \"{/document}\""), "{letters:?}");
}
