//! What is on the bus after changes by another program: captured changes and the events derived from them, in the
//! shapes that clients rely on.
//!
//! That something is *not* told is asserted behind a marker: each topic's chain keeps the order of the changes, so that
//! what was not there before the marker's message never comes.

mod process;

use process::{Instance, LIVE, foreign_connection, pipeline, until};
use rusqlite::{Connection, ToSql};
use serde_json::{Value, json};
use smartpulse_clients::database::Database;
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_pipeline::Timestamp;
use smartpulse_testing::uuid;
use std::path::Path;
use tempfile::TempDir;
use uuid::Uuid;

const CREATED: &str = "2016-06-01T00:00:00.000Z";
const UPDATED: &str = "2016-06-02T11:15:00.000Z";

/// Companies, providers, units; forecasts are 1 to 3, of which the second is `Completed` from the start.
const COMPANIES: [u64; 2] = [0xa1, 0xa2];
const PROVIDERS: [u64; 2] = [0xb1, 0xb2];
const UNITS: [u64; 2] = [0xc1, 0xc2];
const USER: u64 = 0xd1;

/// What makes itself heard on all topics of forecasts: an update to `Completed`.
const MARKER: u64 = 3;

/// Live pipelines on a small database whose snapshot is behind us.
struct Scene {
    folder: TempDir,
    writer: Connection,
    _instance: Instance,
}

impl Scene {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        create_schema(folder.path());
        let writer = foreign_connection(folder.path(), "main.db");
        for (at, unit) in UNITS.into_iter().enumerate() {
            let sql = "INSERT INTO ProductionUnits (Id, CompanyId, ProviderId, Name, Kind, CapacityMw)
                       VALUES (?1, ?2, ?3, 'North', 'wind', 9.5)";
            writer.execute(sql, [uuid(unit), uuid(COMPANIES[at]), uuid(PROVIDERS[at])]).unwrap();
        }
        for (id, status) in [(1, "Draft"), (2, "Completed"), (MARKER, "Draft")] {
            insert(&writer, id, status);
        }
        let mut instance = Instance::run(folder.path(), &LIVE.map(pipeline), &[], &[]);
        instance.until_ready();
        let scene = Self { folder, writer, _instance: instance };
        until("the snapshot is published", || {
            scene.topic("cdc:forecasts").len() == 3 && scene.topic("forecast:invalidation").len() == 5
        });
        scene
    }

    /// The messages of a topic in their order.
    fn topic(&self, name: &str) -> Vec<Message> {
        let connection = foreign_connection(self.folder.path(), "smartpulse.db");
        let sql = "SELECT m.key, m.payload, m.properties FROM bus_messages m JOIN bus_topics t ON t.id = m.topic
                   WHERE t.name = ?1 ORDER BY m.id";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([name], |row| {
            let (payload, properties): (Vec<u8>, String) = (row.get(1)?, row.get(2)?);
            let parse = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
            Ok(Message { key: row.get(0)?, payload: parse(&payload), properties: parse(properties.as_bytes()) })
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The messages of a topic about an entity beyond its snapshot, once the marker has come.
    fn told(&self, topic: &str, id: u64) -> Vec<Value> {
        self.mark();
        let marked = |message: &Message| message.is(MARKER, 2);
        until(&format!("the marker is on {topic}"), || self.topic(topic).iter().any(marked));
        let about = self.topic(topic).into_iter().filter(|message| message.key == uuid(id) && message.version() > 1);
        about.map(|message| message.payload).collect()
    }

    fn mark(&self) {
        let sql = "UPDATE Forecasts SET Status = 'Completed' WHERE Id = ?1 AND VersionId = 1";
        self.writer.execute(sql, [uuid(MARKER)]).unwrap();
    }

    fn execute(&self, sql: &str, values: &[&dyn ToSql]) {
        assert_eq!(self.writer.execute(sql, values).unwrap(), 1, "{sql}");
    }

    /// When the database committed a version of a forecast or unit.
    fn committed(&self, table: &str, id: u64, version: i64) -> String {
        let sql = format!("SELECT __commit_time FROM cdc_{table}_CT WHERE Id = ?1 AND VersionId = ?2");
        self.writer.query_row(&sql, rusqlite::params![uuid(id), version], |row| row.get(0)).unwrap()
    }
}

struct Message {
    key: String,
    payload: Value,
    properties: Value,
}

impl Message {
    fn version(&self) -> i64 {
        self.properties["version"].as_str().unwrap().parse().unwrap()
    }

    fn is(&self, id: u64, version: i64) -> bool {
        self.key == uuid(id) && self.version() == version
    }
}

fn create_schema(folder: &Path) {
    let database =
        SqliteDatabase::open("main_db", &SqliteConfig::default(), folder, &prometheus::Registry::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(database.create_schema()).unwrap();
}

fn insert(writer: &Connection, id: u64, status: &str) {
    let sql = "INSERT INTO Forecasts (Id, CompanyId, ProductionUnitId, ForecastDate, Demand, ConfidenceLevel, Status,
               CreatedAt, UpdatedAt) VALUES (?1, ?2, ?3, ?4, 450.0, 0.9, ?5, ?4, ?4)";
    writer.execute(sql, [&uuid(id), &uuid(COMPANIES[0]), &uuid(UNITS[0]), CREATED, status]).unwrap();
}

/// UUIDv5 in the namespace UUIDv5(DNS, "smartpulse").
fn event_id(kind: &str, id: u64, version: i64) -> String {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"smartpulse");
    Uuid::new_v5(&namespace, format!("{kind}/{}/{version}", uuid(id)).as_bytes()).to_string()
}

fn tag(kind: &str, id: u64) -> String {
    format!("{kind}:{}", uuid(id))
}

fn document(id: u64, version: i64, demand: f64, status: &str) -> Value {
    json!({
        "id": uuid(id), "companyId": uuid(COMPANIES[0]), "productionUnitId": uuid(UNITS[0]), "forecastDate": CREATED,
        "demand": demand, "supply": null, "variance": null, "confidenceLevel": 0.9, "status": status,
        "createdAt": CREATED, "updatedAt": CREATED, "updatedBy": null, "updatedVia": null, "versionId": version,
    })
}

#[test]
fn each_change_is_told_once_with_the_fields_that_changed_and_who_changed_them() {
    let scene = Scene::start();
    scene.execute(
        "UPDATE Forecasts SET Demand = 500.0, Supply = 480.0, Status = 'Active', UpdatedBy = ?2, UpdatedAt = ?3,
         UpdatedVia = 'ProductionForecast.Api' WHERE Id = ?1",
        &[&uuid(1), &uuid(USER), &UPDATED],
    );
    scene.execute(
        "UPDATE Forecasts SET CompanyId = ?2, ProductionUnitId = ?3, Supply = NULL, UpdatedBy = NULL, UpdatedVia = NULL
         WHERE Id = ?1",
        &[&uuid(1), &uuid(COMPANIES[1]), &uuid(UNITS[1])],
    );
    scene.execute("DELETE FROM Forecasts WHERE Id = ?1", &[&uuid(1)]);
    insert(&scene.writer, 1, "Draft");
    let updated = |version: i64, data: Value, source: Value, user: Value| {
        json!({
            "eventType": "ForecastUpdated", "eventId": event_id("ForecastUpdated", 1, version),
            "timestamp": scene.committed("Forecasts", 1, version), "aggregateId": uuid(1),
            "aggregateType": "Forecast", "data": data, "source": source, "userId": user,
        })
    };
    let expected = [
        updated(
            2,
            json!({
                "forecastId": uuid(1), "companyId": uuid(COMPANIES[0]), "unitId": uuid(UNITS[0]),
                "previousVersionId": 1, "currentVersionId": 2,
                "changes": [
                    { "field": "demand", "oldValue": 450.0, "newValue": 500.0 },
                    { "field": "supply", "oldValue": null, "newValue": 480.0 },
                    { "field": "variance", "oldValue": null, "newValue": -20.0 },
                    { "field": "status", "oldValue": "Draft", "newValue": "Active" },
                ],
            }),
            json!("ProductionForecast.Api"),
            json!(uuid(USER)),
        ),
        updated(
            3,
            json!({
                "forecastId": uuid(1), "companyId": uuid(COMPANIES[1]), "unitId": uuid(UNITS[1]),
                "previousVersionId": 2, "currentVersionId": 3,
                "changes": [
                    { "field": "companyId", "oldValue": uuid(COMPANIES[0]), "newValue": uuid(COMPANIES[1]) },
                    { "field": "productionUnitId", "oldValue": uuid(UNITS[0]), "newValue": uuid(UNITS[1]) },
                    { "field": "supply", "oldValue": 480.0, "newValue": null },
                    { "field": "variance", "oldValue": -20.0, "newValue": null },
                ],
            }),
            Value::Null,
            Value::Null,
        ),
        // The delete, version 4, is no update; what is created again follows its version and has no fields before.
        updated(
            5,
            json!({
                "forecastId": uuid(1), "companyId": uuid(COMPANIES[0]), "unitId": uuid(UNITS[0]),
                "previousVersionId": 4, "currentVersionId": 5, "changes": [],
            }),
            Value::Null,
            Value::Null,
        ),
    ];
    assert_eq!(scene.told("forecast:updated", 1), expected);
}

#[test]
fn an_invalidation_has_the_tags_of_the_old_and_the_new_document_deletes_included() {
    let scene = Scene::start();
    scene.execute("UPDATE Forecasts SET Demand = 500.0 WHERE Id = ?1", &[&uuid(1)]);
    scene.execute(
        "UPDATE Forecasts SET CompanyId = ?2, ProductionUnitId = ?3 WHERE Id = ?1",
        &[&uuid(1), &uuid(COMPANIES[1]), &uuid(UNITS[1])],
    );
    scene.execute("DELETE FROM Forecasts WHERE Id = ?1", &[&uuid(1)]);
    insert(&scene.writer, 1, "Draft");
    let [unit, other_unit] = UNITS.map(|id| tag("unit", id));
    let [company, other_company] = COMPANIES.map(|id| tag("company", id));
    let tags = [
        vec![&unit, &company],
        vec![&unit, &other_unit, &company, &other_company],
        vec![&other_unit, &other_company],
        vec![&unit, &company],
    ];
    let expected: Vec<Value> = (2..)
        .zip(tags)
        .map(|(version, tags)| {
            json!({
                "eventId": event_id("Invalidation", 1, version), "entityId": uuid(1), "entityType": "Forecast",
                "versionId": version, "tags": tags, "timestamp": scene.committed("Forecasts", 1, version),
                "reason": "DataUpdated",
            })
        })
        .collect();
    assert_eq!(scene.told("forecast:invalidation", 1), expected);
}

#[test]
fn a_change_of_a_unit_invalidates_by_unit_company_and_provider_because_the_hierarchy_changed() {
    let scene = Scene::start();
    let unit = UNITS[0];
    scene.execute("UPDATE ProductionUnits SET CapacityMw = 12.0 WHERE Id = ?1", &[&uuid(unit)]);
    scene.execute(
        "UPDATE ProductionUnits SET CompanyId = ?2, ProviderId = ?3 WHERE Id = ?1",
        &[&uuid(unit), &uuid(COMPANIES[1]), &uuid(PROVIDERS[1])],
    );
    scene.execute("DELETE FROM ProductionUnits WHERE Id = ?1", &[&uuid(unit)]);
    let [company, other_company] = COMPANIES.map(|id| tag("company", id));
    let [provider, other_provider] = PROVIDERS.map(|id| tag("provider", id));
    let this = tag("unit", unit);
    let tags = [
        vec![&this, &company, &provider],
        vec![&this, &company, &other_company, &provider, &other_provider],
        vec![&this, &other_company, &other_provider],
    ];
    let expected: Vec<Value> = (2..)
        .zip(tags)
        .map(|(version, tags)| {
            json!({
                "eventId": event_id("HierarchyChanged", unit, version), "entityId": uuid(unit),
                "entityType": "ProductionUnit", "versionId": version, "tags": tags,
                "timestamp": scene.committed("ProductionUnits", unit, version), "reason": "HierarchyChanged",
            })
        })
        .collect();
    let told = || -> Vec<Value> {
        let messages = scene.topic("forecast:invalidation").into_iter();
        messages.filter(|m| m.key == uuid(unit) && m.version() > 1).map(|m| m.payload).collect()
    };
    until("the delete of the unit is told", || told().len() >= 3);
    assert_eq!(told(), expected);
    // Units are no forecasts.
    assert_eq!(scene.told("forecast:updated", unit), Vec::<Value>::new());
}

#[test]
fn completed_is_told_exactly_when_a_status_becomes_completed() {
    let scene = Scene::start();
    let status = |status: &str| {
        scene.execute(
            "UPDATE Forecasts SET Status = ?2, Demand = Demand + 1, UpdatedAt = ?3 WHERE Id = ?1",
            &[&uuid(1), &status, &UPDATED],
        );
    };
    status("Completed"); // version 2: told
    status("Completed"); // stays
    status("Active"); // leaves
    status("completed"); // another word
    status("Completed"); // version 6: comes back
    scene.execute("DELETE FROM Forecasts WHERE Id = ?1", &[&uuid(1)]);
    insert(&scene.writer, 1, "Completed"); // version 8: a new row that is
    scene.execute("UPDATE Forecasts SET Demand = 1.0 WHERE Id = ?1", &[&uuid(2)]); // was before it was captured
    insert(&scene.writer, 4, "Completed");
    let completed = |id: u64, version: i64, at: &str| {
        json!({
            "EventId": event_id("ForecastCompleted", id, version), "ForecastId": uuid(id), "Status": "Completed",
            "CompletedAt": at,
        })
    };
    assert_eq!(
        scene.told("forecast:completed", 1),
        [completed(1, 2, UPDATED), completed(1, 6, UPDATED), completed(1, 8, CREATED)]
    );
    assert_eq!(scene.told("forecast:completed", 2), Vec::<Value>::new());
    let keys: Vec<String> = scene.topic("forecast:completed").into_iter().map(|message| message.key).collect();
    assert_eq!(keys, [1, 1, 1, 4, MARKER].map(uuid));
    assert_eq!(scene.topic("forecast:completed")[3].payload, completed(4, 1, CREATED));
}

#[test]
fn rows_of_the_snapshot_invalidate_and_notify_nobody() {
    let scene = Scene::start();
    for topic in ["forecast:updated", "forecast:completed"] {
        assert_eq!(scene.told(topic, 2), Vec::<Value>::new());
        let keys: Vec<String> = scene.topic(topic).into_iter().map(|message| message.key).collect();
        assert_eq!(keys, [uuid(MARKER)], "{topic}");
    }
    let captured = scene.topic("cdc:forecasts");
    let told = scene.topic("forecast:invalidation");
    let expected: Vec<Value> = captured
        .iter()
        .filter(|message| message.version() == 1)
        .zip([1, 2, 3])
        .map(|(message, id)| {
            assert_eq!(message.payload["Snapshot"], true);
            // Where it was before is not known: without tags the whole section's lists go.
            json!({
                "eventId": event_id("Invalidation", id, 1), "entityId": uuid(id), "entityType": "Forecast",
                "versionId": 1, "tags": [],
                "timestamp": message.payload["Timestamp"], "reason": "DataUpdated",
            })
        })
        .collect();
    let first = |message: &&Message| message.version() == 1 && message.payload["entityType"] == "Forecast";
    assert_eq!(told.iter().filter(first).map(|message| message.payload.clone()).collect::<Vec<_>>(), expected);
}

#[test]
fn a_captured_change_has_exactly_the_members_of_its_contract() {
    let scene = Scene::start();
    scene.execute("UPDATE Forecasts SET Demand = 500.0 WHERE Id = ?1", &[&uuid(1)]);
    scene.execute("DELETE FROM Forecasts WHERE Id = ?1", &[&uuid(1)]);
    insert(&scene.writer, 1, "Draft");
    let captured = || scene.topic("cdc:forecasts").into_iter().filter(|message| message.key == uuid(1));
    until("all changes are captured", || captured().count() >= 4);
    let expected = [
        (1, "INSERT", true, document(1, 1, 450.0, "Draft")),
        (2, "UPDATE", false, document(1, 2, 500.0, "Draft")),
        // The last image, with the tombstone's version.
        (3, "DELETE", false, document(1, 3, 500.0, "Draft")),
        (4, "INSERT", false, document(1, 4, 450.0, "Draft")),
    ];
    assert_eq!(captured().count(), expected.len());
    // The first lease of a new ledger counts the seconds since 2024: it was taken in this test.
    let epoch = captured().next().unwrap().payload["Epoch"].as_i64().unwrap();
    let now = Timestamp::now().as_millis() / 1_000 - 1_704_067_200;
    assert!((now - 600..=now).contains(&epoch), "{epoch} was not taken within ten minutes before {now}");
    for (message, (version, operation, snapshot, data)) in captured().zip(expected) {
        let envelope = &message.payload;
        // When a row of a snapshot was committed is not known; it was true at this time.
        let time = if snapshot {
            let time = envelope["Timestamp"].as_str().unwrap().to_owned();
            assert!(time.len() == CREATED.len() && time.ends_with('Z') && time.as_str() > UPDATED, "{time}");
            time
        } else {
            assert!(!envelope["Position"].as_str().unwrap().is_empty());
            scene.committed("Forecasts", 1, version)
        };
        let position = if snapshot { Value::Null } else { envelope["Position"].clone() };
        assert_eq!(envelope["Epoch"], epoch, "one lease, one number");
        let expected = json!({
            "EventId": event_id("forecast", 1, version), "Timestamp": time, "VersionId": version,
            "Operation": operation, "EntityId": uuid(1), "Data": data, "Section": "forecast", "Epoch": epoch,
            "Position": position, "Snapshot": snapshot,
        });
        // As text, so that the order of the members counts too.
        assert_eq!(envelope.to_string(), expected.to_string());
        assert_eq!(message.properties["section"], "forecast");
    }
    let units = scene.topic("cdc:units");
    assert_eq!(units.iter().map(|message| message.key.clone()).collect::<Vec<_>>(), UNITS.map(uuid));
    assert!(units.iter().all(|unit| unit.payload["Section"] == "unit" && unit.payload["Snapshot"] == true));
}
