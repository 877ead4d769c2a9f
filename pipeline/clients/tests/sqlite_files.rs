//! What is peculiar to resources that are files: other processes, other files, full disks, later programs.

use bytes::Bytes;
use prometheus::Registry;
use rusqlite::Connection;
use serde_json::json;
use smartpulse_clients::bus::{Bus, InitialPosition, Outgoing, Subscribe, SubscriptionType};
use smartpulse_clients::database::{CaptureHealth, CaptureMode, Database, Kept, LogQuery, Poll, Write};
use smartpulse_clients::deliveries::told;
use smartpulse_clients::embedded::{
    BusConfig, DataFolder, EmbeddedBus, SqliteConfig, SqliteDatabase, SqliteStore, StateConfig, StateFile,
};
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_pipeline::state::Store;
use smartpulse_testing::{dead_letter, forecast, uuid, within};
use std::path::Path;
use std::time::Duration;

async fn open(folder: &Path) -> SqliteDatabase {
    let database = SqliteDatabase::open("main_db", &SqliteConfig::default(), folder, &Registry::new()).unwrap();
    database.create_schema().await.unwrap();
    database
}

async fn insert(database: &SqliteDatabase, id: u64) {
    database.write("Forecasts", vec![Write::Insert { members: forecast(id, 1.0) }]).await.unwrap();
}

#[tokio::test]
async fn an_idle_poll_does_not_read_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path()).await;
    let polls = async || {
        for mode in [CaptureMode::Cdc, CaptureMode::ChangeTracking] {
            let head = database.head("Forecasts", mode).await.unwrap();
            for _ in 0..50 {
                let Poll::Changes(page) = database.changes("Forecasts", mode, &head, 10).await.unwrap() else {
                    panic!()
                };
                assert_eq!(page.changes, []);
            }
        }
        database.metrics().count("changes")
    };
    assert_eq!(polls().await, 2, "one look per mode");
    insert(&database, 1).await;
    assert_eq!(polls().await, 4, "and one more after a commit");
}

#[tokio::test]
async fn a_replaced_file_loses_the_position() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = open(first.path()).await;
    let old = database.head("Forecasts", CaptureMode::Cdc).await.unwrap();
    insert(&database, 1).await;
    let newer = database.head("Forecasts", CaptureMode::Cdc).await.unwrap();
    let other = open(second.path()).await;
    for mode in [CaptureMode::Cdc, CaptureMode::ChangeTracking] {
        let Poll::PositionLost(why) = other.changes("Forecasts", mode, &old, 10).await.unwrap() else { panic!() };
        assert!(why.contains("another database"), "{why}");
    }
    // An older copy of the same database.
    let copy = tempfile::tempdir().unwrap();
    let sql = format!("VACUUM INTO '{}'", copy.path().join("main.db").display());
    Connection::open(first.path().join("main.db")).unwrap().execute_batch(&sql).unwrap();
    insert(&database, 2).await;
    let newest = database.head("Forecasts", CaptureMode::Cdc).await.unwrap();
    let restored = open(copy.path()).await;
    assert!(matches!(restored.changes("Forecasts", CaptureMode::Cdc, &newer, 10).await.unwrap(), Poll::Changes(_)));
    let Poll::PositionLost(why) = restored.changes("Forecasts", CaptureMode::Cdc, &newest, 10).await.unwrap() else {
        panic!()
    };
    assert!(why.contains("older copy"), "{why}");
}

#[tokio::test]
async fn the_log_is_cleaned_down_to_its_settings_and_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig { log_rows_max: 3, ..SqliteConfig::default() };
    let database = SqliteDatabase::open("d", &config, folder.path(), &Registry::new()).unwrap();
    database.create_schema().await.unwrap();
    let start = database.head("Forecasts", CaptureMode::Cdc).await.unwrap();
    insert(&database, 1).await;
    for _ in 0..9 {
        let members = json!({ "demand": 2.0 }).as_object().cloned().unwrap();
        let update = Write::Update { key: uuid(1).into(), expected_version: None, members };
        database.write("Forecasts", vec![update]).await.unwrap();
    }
    let position = |seq: u32| {
        let text = start.to_string();
        smartpulse_pipeline::Position::from(text.replace("seq:0", &format!("seq:{seq}")))
    };
    database.clean().await.unwrap();
    for (seq, lost) in [(0, true), (6, true), (7, false), (10, false)] {
        let poll = database.changes("Forecasts", CaptureMode::Cdc, &position(seq), 10).await.unwrap();
        assert_eq!(matches!(poll, Poll::PositionLost(_)), lost, "seq {seq}");
    }
    // Net changes are never cleaned.
    assert!(matches!(
        database.changes("Forecasts", CaptureMode::ChangeTracking, &start, 10).await.unwrap(),
        Poll::Changes(page) if page.changes.len() == 1
    ));
    drop(database);
    // Cleaned by age too, and numbers are not used again.
    let config = SqliteConfig { retention_hours: 0, ..SqliteConfig::default() };
    let database = SqliteDatabase::open("d", &config, folder.path(), &Registry::new()).unwrap();
    within("a later millisecond", async {
        loop {
            database.clean().await.unwrap();
            let poll = database.changes("Forecasts", CaptureMode::Cdc, &position(9), 10).await.unwrap();
            if matches!(poll, Poll::PositionLost(_)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(database.head("Forecasts", CaptureMode::Cdc).await.unwrap(), position(10));
}

#[tokio::test]
async fn a_file_of_a_later_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await);
    let state = folder.path().join("smartpulse.db");
    for file in [folder.path().join("main.db"), state.clone()] {
        Connection::open(file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    }
    let database = SqliteDatabase::open("d", &SqliteConfig::default(), folder.path(), &Registry::new()).unwrap();
    let errors = [
        database.create_schema().await.unwrap_err(),
        StateFile::open_at(&state, &StateConfig::default()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Fatal);
        assert!(error.chain().contains("version 99"), "{}", error.chain());
    }
}

fn subscribe(durable: bool) -> Subscribe {
    Subscribe {
        topic: "t".into(),
        subscription: "s".into(),
        kind: SubscriptionType::Exclusive,
        initial: InitialPosition::Earliest,
        durable,
    }
}

fn messages(count: usize, bytes: usize) -> Vec<Outgoing> {
    let message = Outgoing { payload: Bytes::from(vec![7; bytes]), ..Outgoing::default() };
    vec![message; count]
}

async fn bus(folder: &Path, config: &BusConfig) -> EmbeddedBus {
    let state = StateConfig { file_bytes_max: 8 << 20, ..StateConfig::default() };
    EmbeddedBus::open(StateFile::open(&DataFolder::beside(folder).unwrap(), &state).await.unwrap(), config)
}

fn stored(folder: &Path) -> i64 {
    let connection = Connection::open(folder.join("smartpulse.db")).unwrap();
    connection.query_row("SELECT count(*) FROM bus_messages", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_another_process_publishes_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let config = BusConfig::default();
    let (here, there) = (bus(folder.path(), &config).await, bus(folder.path(), &config).await);
    let mut consumer = here.subscribe(subscribe(true)).await.unwrap();
    for round in 1..4 {
        there.publish("t", messages(round, 10)).await.unwrap();
        let mut got = 0;
        while got < round {
            got += within("a delivery", consumer.receive(10)).await.unwrap().len();
        }
    }
}

#[tokio::test]
async fn a_full_disk_stops_intake_and_acks_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path(), &BusConfig { retention_hours: 0, retention_bytes_max: 0 }).await;
    let mut consumer = bus.subscribe(subscribe(true)).await.unwrap();
    let mut published = 0;
    let error = loop {
        match bus.publish("t", messages(50, 10_000)).await {
            Ok(()) => published += 50,
            Err(error) => break error,
        }
        assert!(published < 10_000, "the limit does not hold");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert_eq!(stored(folder.path()), published, "a call that failed left nothing");
    // Reading and acking go on; retention makes room; intake goes on.
    bus.clean().await.unwrap();
    assert_eq!(stored(folder.path()), published, "what is not acked is kept");
    let mut left = published;
    while left > 0 {
        let batch = within("a delivery", consumer.receive(100)).await.unwrap();
        left -= batch.len() as i64;
        let ids: Vec<_> = batch.into_iter().map(|m| m.id).collect();
        consumer.acker().ack(&ids).await.unwrap();
    }
    within("a later millisecond", async {
        while stored(folder.path()) > 0 {
            bus.clean().await.unwrap();
        }
    })
    .await;
    bus.publish("t", messages(50, 10_000)).await.unwrap();
}

#[tokio::test]
async fn retention_keeps_what_anyone_has_yet_to_ack() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path(), &BusConfig { retention_hours: 168, retention_bytes_max: 250 }).await;
    bus.create_subscription(&Subscribe { subscription: "slow".into(), ..subscribe(true) }).await.unwrap();
    let mut consumer = bus.subscribe(subscribe(true)).await.unwrap();
    let mut live = bus.subscribe(Subscribe { subscription: "live".into(), ..subscribe(false) }).await.unwrap();
    bus.publish("t", messages(10, 100)).await.unwrap();
    let ack = async |consumer: &mut Box<dyn smartpulse_clients::bus::Consumer>, count: usize| {
        let mut left = count;
        while left > 0 {
            let batch = within("a delivery", consumer.receive(left)).await.unwrap();
            left -= batch.len();
            consumer.acker().ack(&batch.into_iter().map(|m| m.id).collect::<Vec<_>>()).await.unwrap();
        }
    };
    ack(&mut consumer, 10).await;
    bus.clean().await.unwrap();
    assert_eq!(stored(folder.path()), 10, "one durable and one live subscription have acked nothing");
    assert!(bus.delete_subscription("t", "slow").await.unwrap());
    bus.clean().await.unwrap();
    assert_eq!(stored(folder.path()), 10, "the live one still has acked nothing");
    ack(&mut live, 4).await;
    bus.clean().await.unwrap();
    assert_eq!(stored(folder.path()), 6);
    ack(&mut live, 6).await;
    bus.clean().await.unwrap();
    assert_eq!(stored(folder.path()), 2, "younger than 7 days, and within the bytes that are kept");
    // A subscription that starts at the earliest gets what is retained.
    let mut late = bus.subscribe(Subscribe { subscription: "late".into(), ..subscribe(false) }).await.unwrap();
    ack(&mut late, 2).await;
}

#[tokio::test]
async fn a_subscription_over_removed_messages_waits_instead_of_spinning() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(folder.path(), &BusConfig { retention_hours: 168, retention_bytes_max: 0 }).await;
    bus.publish("t", messages(10, 100)).await.unwrap();
    bus.clean().await.unwrap();
    assert_eq!(stored(folder.path()), 0);
    let mut consumer = bus.subscribe(subscribe(false)).await.unwrap();
    let publisher = bus.clone();
    let (received, ()) = tokio::join!(within("a delivery", consumer.receive(10)), async move {
        tokio::task::yield_now().await;
        publisher.publish("t", messages(1, 1)).await.unwrap();
    });
    assert_eq!(received.unwrap().len(), 1);
}

#[tokio::test]
async fn too_many_dead_letters_hold_the_stream_and_drop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::open(&DataFolder::beside(folder.path()).unwrap(), &StateConfig::default()).await.unwrap();
    let store = SqliteStore::new(file).dead_letters_max(2);
    store.put_dead_letters(&[dead_letter("s", 1), dead_letter("s", 2)]).await.unwrap();
    let error = store.put_dead_letters(&[dead_letter("s", 1), dead_letter("s", 3)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("discard or replay"), "{}", error.chain());
    store.put_dead_letters(&[dead_letter("s", 1)]).await.unwrap();
    assert_eq!(store.remove_dead_letters(&[1]).await.unwrap(), 1);
    store.put_dead_letters(&[dead_letter("s", 3)]).await.unwrap();
}

#[tokio::test]
async fn a_file_of_version_1_gets_what_it_lacks_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteDatabase::open("main_db", &SqliteConfig::default(), folder.path(), &Registry::new()).unwrap();
    let database = open();
    database.create_schema().await.unwrap();
    database.write("Forecasts", vec![Write::Insert { members: forecast(1, 1.0) }]).await.unwrap();
    drop(database);
    let other = Connection::open(folder.path().join("main.db")).unwrap();
    let version: i64 = other.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 6);
    other
        .execute_batch(
            "DROP TABLE Notifications; DROP TABLE NheaMailQueue; DROP TABLE SysUserDeviceInfo; DROP TABLE Logs;
             DROP TABLE NotificationPreferences; DROP TABLE NotificationQuiet; DROP TABLE NotificationDeliveries;
             PRAGMA user_version = 1",
        )
        .unwrap();
    drop(other);

    let database = open();
    let error = database.table("Notifications").await.unwrap_err();
    assert!(error.chain().contains("no table Notifications"), "{}", error.chain());
    database.create_schema().await.unwrap();
    assert_eq!(database.scan("Forecasts", None, 10).await.unwrap().len(), 1);
    let rows = [smartpulse_testing::notification(1, "t")];
    assert_eq!(database.insert_absent("Notifications", &rows).await.unwrap().inserted, 1);
    let device = serde_json::json!({ "id": uuid(1), "userId": uuid(2), "integrationType": 1, "osVersion": "17" });
    assert!(told(&database, &[uuid::Uuid::nil()]).await.unwrap().is_empty());
    assert_eq!(database.logs(&LogQuery::default()).await.unwrap(), []);
    let device = [device.as_object().unwrap().clone()];
    assert_eq!(database.insert_absent("SysUserDeviceInfo", &device).await.unwrap().inserted, 1);
}

#[tokio::test]
async fn queued_mails_of_version_2_can_be_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteDatabase::open("main_db", &SqliteConfig::default(), folder.path(), &Registry::new()).unwrap();
    let database = open();
    database.create_schema().await.unwrap();
    let mail = [smartpulse_testing::queued_mail(1, "anna@example.com")];
    assert_eq!(database.insert_absent("NheaMailQueue", &mail).await.unwrap().inserted, 1);
    drop(database);
    let other = Connection::open(folder.path().join("main.db")).unwrap();
    other.execute_batch("ALTER TABLE NheaMailQueue DROP COLUMN NotBefore; ALTER TABLE NheaMailQueue DROP COLUMN UnsubscribeUrl; PRAGMA user_version = 2").unwrap();
    drop(other);

    let database = open();
    database.create_schema().await.unwrap();
    let claimed = database.delivery().unwrap().claim_mails(10, Duration::from_secs(60)).await.unwrap();
    assert_eq!(claimed.iter().map(|mail| &*mail.to_address).collect::<Vec<_>>(), ["anna@example.com"]);
}

#[tokio::test]
async fn missing_triggers_are_told_as_stopped_capture_and_the_runway_shrinks_with_the_age_of_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig { retention_hours: 1, ..SqliteConfig::default() };
    let database = SqliteDatabase::open("main_db", &config, folder.path(), &Registry::new()).unwrap();
    database.create_schema().await.unwrap();
    let head = database.head("Forecasts", CaptureMode::Cdc).await.unwrap();
    let hour = Duration::from_secs(3_600);
    let health = database.capture_health("Forecasts", CaptureMode::Cdc, &head).await.unwrap();
    assert_eq!(health, CaptureHealth { stopped: None, runway: Kept::For(hour) });
    database.write("Forecasts", vec![Write::Insert { members: forecast(1, 1.0) }]).await.unwrap();
    let other = Connection::open(folder.path().join("main.db")).unwrap();
    let old = "UPDATE cdc_Forecasts_CT SET __commit_time = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-50 minutes')";
    assert_eq!(other.execute(old, []).unwrap(), 1);
    let health = database.capture_health("Forecasts", CaptureMode::Cdc, &head).await.unwrap();
    let Kept::For(runway) = health.runway else { panic!("{health:?}") };
    let minutes = runway.as_secs() / 60;
    assert!((8..=10).contains(&minutes), "{minutes}");
    let net = database.capture_health("Forecasts", CaptureMode::ChangeTracking, &head).await.unwrap();
    assert_eq!(net.runway, Kept::ForGood, "net changes are never cleaned");

    other.execute_batch("DROP TRIGGER Forecasts_log_update").unwrap();
    let stopped = database.capture_health("Forecasts", CaptureMode::Cdc, &head).await.unwrap().stopped.unwrap();
    assert!(stopped.contains("Forecasts_log_update"), "{stopped}");
    let plan = database.capture_plan("Forecasts").await.unwrap();
    assert!(plan.modes.iter().all(|mode| mode.enabled && !mode.statements.is_empty()), "{plan:?}");
}
