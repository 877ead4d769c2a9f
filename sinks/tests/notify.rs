//! What `notify` promises, held against the embedded database and bus.

use rusqlite::Connection;
use serde_json::{Value, json};
use smartpulse_clients::database::Database;
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_clients::notifications::Channel;
use smartpulse_json::Document;
use smartpulse_pipeline::message::delivery_id;
use smartpulse_pipeline::state::{DeadLetterFilter, Store};
use smartpulse_pipeline::{Event, Operation, Timestamp};
use smartpulse_testing::{PATIENCE, Probe, Rig, user, uuid};
use std::collections::BTreeSet;
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

const YAML: &str = "
name: p
sources: { s: { type: probe } }
sinks:
  to: { type: notify, inputs: [s], database: main_db, bus: bus, topic: 'notification:deliveries', directory_ms: 0 }
";

/// A company of three, of whom the second wants no mails; and another.
const COMPANY: u64 = 0xa1;
const OTHER: u64 = 0xa2;
const PEOPLE: [u64; 3] = [1, 2, 3];
const STRANGER: u64 = 4;

struct Place {
    rig: Rig,
    database: SqliteDatabase,
    folder: TempDir,
}

fn id(number: u64) -> Uuid {
    Uuid::parse_str(&uuid(number)).unwrap()
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        let database = SqliteDatabase::open("w", &SqliteConfig::default(), folder.path(), &registry).unwrap();
        database.create_schema().await.unwrap();
        let mut rows = PEOPLE.map(|person| user(person, COMPANY, "editor")).to_vec();
        rows.push(user(STRANGER, OTHER, "viewer"));
        database.insert_absent("SysUser", &rows).await.unwrap();
        let notifications = database.notifications().unwrap();
        notifications.switch(id(PEOPLE[1]), &[(Channel::Email, false)]).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let page = "notifications.unsubscribe_url=https://app.example/unsubscribe";
        let rig = Rig::new(store, &[&format!("data_dir={}", folder.path().display()), page], |registry| {
            smartpulse_clients::register(registry);
            smartpulse_sinks::register(registry);
        });
        Self { rig, database, folder }
    }

    /// Has the sink write a batch, and gives the messages that it published.
    async fn write(&self, events: Vec<Event>) -> Vec<Told> {
        let before = self.published().len();
        let graph = self.rig.start(YAML).await;
        let count = events.len() as u64;
        let commits = self.rig.probe.committed.lock().unwrap().len();
        self.rig.probe.emit(events);
        let committed = |probe: &Probe| probe.committed.lock().unwrap()[commits..].contains(&count);
        self.rig.probe.until("everything is committed", committed).await;
        graph.stop().await.unwrap();
        self.published().split_off(before)
    }

    /// Every message of the topic, in its order.
    fn published(&self) -> Vec<Told> {
        let Ok(connection) = Connection::open(self.folder.path().join("smartpulse.db")) else { return Vec::new() };
        connection.busy_timeout(PATIENCE).unwrap();
        let sql = "SELECT m.key, m.payload FROM bus_messages m JOIN bus_topics t ON t.id = m.topic
                   WHERE t.name = 'notification:deliveries' ORDER BY m.id";
        let Ok(mut statement) = connection.prepare(sql) else { return Vec::new() };
        let rows = statement.query_map([], |row| {
            let payload: Vec<u8> = row.get(1)?;
            Ok(Told { key: row.get(0)?, message: serde_json::from_slice(&payload).unwrap() })
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    async fn letters(&self) -> Vec<String> {
        let filter = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
        let letters = self.rig.store.dead_letters(&filter).await.unwrap();
        letters.into_iter().rev().map(|stored| stored.letter.reason).collect()
    }
}

struct Told {
    key: String,
    message: Value,
}

/// Users and channels, each once or an assertion fails.
fn whom(told: &[Told]) -> BTreeSet<(String, String)> {
    let pairs: Vec<_> = told.iter().map(|told| (told.key.clone(), told.message["channel"].to_string())).collect();
    let set: BTreeSet<_> = pairs.iter().cloned().collect();
    assert_eq!(set.len(), pairs.len(), "somebody is told twice: {pairs:?}");
    set
}

fn request(version: i64, more: &Value) -> Event {
    let mut request = json!({
        "rule": "dropped", "entity": uuid(9), "version": version, "tell": {"company": uuid(COMPANY)},
        "channels": ["InApp"], "title": "t", "body": "b", "type": "x",
    });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let document = Document::from_value(&request).unwrap();
    let mut event = Event::new("notification".into(), uuid(9).into(), version, Operation::Insert, Some(document));
    event.commit_time = Some(Timestamp::from_millis(0));
    event
}

#[tokio::test]
async fn each_user_is_told_by_each_channel_that_is_on_and_the_same_request_again_has_the_same_ids() {
    let place = Place::new().await;
    let all = json!({"channels": ["All", "Email"], "url": "/f", "data": {"d": 1}});
    let first = place.write(vec![request(7, &all)]).await;
    let expected: BTreeSet<_> = PEOPLE
        .iter()
        .flat_map(|person| Channel::ALL.map(|channel| (uuid(*person), format!("{:?}", channel.name()))))
        .filter(|told| *told != (uuid(PEOPLE[1]), "\"Email\"".to_owned()))
        .collect();
    assert_eq!(whom(&first), expected);
    let mail = |told: &&Told| told.key == uuid(1) && told.message["channel"] == "Email";
    let mut message = first.iter().find(mail).unwrap().message.clone();
    let unsubscribe = message.as_object_mut().unwrap().remove("unsubscribeUrl").unwrap();
    assert!(unsubscribe.as_str().unwrap().starts_with("https://app.example/unsubscribe?token="), "{unsubscribe}");
    assert_eq!(
        message,
        json!({
            "id": delivery_id("dropped", &uuid(9), 7, Channel::Email, id(1)), "rule": "dropped", "entity": uuid(9),
            "version": 7, "channel": "Email", "userId": uuid(1), "to": "user1@example.com", "displayName": "J\u{f6}rg 1",
            "title": "t", "body": "b", "type": "x", "url": "/f", "templateId": "notification", "data": {"d": 1},
            "createdAt": "1970-01-01T00:00:00.000Z",
        })
    );
    let again = place.write(vec![request(7, &all)]).await;
    let messages = |told: &[Told]| told.iter().map(|told| told.message.clone()).collect::<Vec<_>>();
    assert_eq!(messages(&again), messages(&first));
}

#[tokio::test]
async fn in_its_quiet_period_a_rule_tells_nothing_but_what_it_told() {
    let place = Place::new().await;
    let quiet = json!({"quietS": 3600});
    let three: BTreeSet<_> = PEOPLE.map(|person| (uuid(person), "\"InApp\"".to_owned())).into();
    assert_eq!(whom(&place.write(vec![request(1, &quiet)]).await), three);
    assert_eq!(whom(&place.write(vec![request(2, &quiet)]).await), BTreeSet::new());
    assert_eq!(whom(&place.write(vec![request(1, &quiet)]).await), three, "the same request again");
    assert_eq!(whom(&place.write(vec![request(2, &json!({"quietS": 3600, "rule": "rose"}))]).await), three);
    assert_eq!(whom(&place.write(vec![request(3, &json!({}))]).await), three, "it asks for no quiet");
}

#[tokio::test]
async fn what_tells_nobody_is_set_aside_with_the_reason_and_its_neighbours_pass() {
    let place = Place::new().await;
    let told = place
        .write(vec![
            request(1, &json!({"tell": {}})),
            request(2, &json!({"tell": {"user": uuid(99)}})),
            request(3, &json!({"tell": {"user": uuid(STRANGER)}})),
            request(4, &json!({"tell": {"company": uuid(0xff)}})),
            request(5, &json!({"tell": {"role": "editor", "company": uuid(OTHER)}})),
            request(6, &json!({"title": ""})),
        ])
        .await;
    assert_eq!(whom(&told), BTreeSet::from([(uuid(STRANGER), "\"InApp\"".to_owned())]));
    assert_eq!(
        place.letters().await,
        [
            "tell names nobody: give one of user, forecast, company, role, or company and role",
            "there is no user with the id in tell",
            "title has 0 characters, and 1 to 200 are allowed",
        ]
    );
}

#[tokio::test]
async fn a_large_audience_is_told_page_by_page_each_once() {
    let place = Place::new().await;
    let many: Vec<_> = (1_000..2_300).map(|person| user(person, OTHER, "viewer")).collect();
    place.database.insert_absent("SysUser", &many).await.unwrap();
    let told = place.write(vec![request(1, &json!({"tell": {"role": "viewer"}, "quietS": 60}))]).await;
    assert_eq!(whom(&told).len(), many.len() + 1);
}
