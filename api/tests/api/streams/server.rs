//! A server whose changes are told, and clients that hear them.

use crate::common::{UNIT, USER, token};
use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use http::{Request, StatusCode};
use serde_json::{Map, Value, json};
use smartpulse_api::{Api, Parts, Readiness, Role, Served, bind};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_clients::bus::{Outgoing, SharedBus};
use smartpulse_clients::database::{SharedDatabase, Write, Written};
use smartpulse_clients::embedded::{
    BusConfig, DataFolder, EmbeddedBus, SqliteConfig, SqliteDatabase, StateConfig, StateFile,
};
use smartpulse_config::ApiSettings;
use smartpulse_json::Document;
use smartpulse_pipeline::message::encode_change;
use smartpulse_pipeline::{Event, Operation, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceExt;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// One life of a server on a folder.
pub struct Server {
    pub database: SharedDatabase,
    pub bus: SharedBus,
    service: Served,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

pub async fn start(folder: &Path, settings: ApiSettings) -> Server {
    let data = DataFolder::beside(folder).unwrap();
    let file = StateFile::open(&data, &StateConfig::default()).await.unwrap();
    let server = start_on(Arc::new(EmbeddedBus::open(file, &BusConfig::default())), folder, settings).await;
    // A stream begins when the changes are heard: from here on none is missed. Nobody else asks for this one's documents.
    drop(server.stream(&format!("/api/changes?companyId={USER}"), &bearer(Role::Admin, &[]), None).await);
    server
}

pub async fn start_on(bus: SharedBus, folder: &Path, settings: ApiSettings) -> Server {
    let registry = prometheus::Registry::new();
    let database: SharedDatabase =
        Arc::new(SqliteDatabase::open("main", &SqliteConfig::default(), folder, &registry).unwrap());
    database.create_schema().await.unwrap();
    let cache = Cache::new(CacheConfig::default(), Arc::clone(&database), &registry).unwrap();
    let parts = Parts {
        cache,
        database: Arc::clone(&database),
        bus: Some(Arc::clone(&bus)),
        pubsub: None,
        push: None,
        unsubscribe: None,
        partition: "production".to_owned(),
        readiness: Arc::new(Readiness::default()),
        registry,
        tracer: None,
    };
    let listener = bind(&settings).await.unwrap();
    let api = Api::new(settings, "development", parts).unwrap();
    let service = api.service();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(api.serve(listener, async {
        let _ = stopped.await;
    }));
    Server { database, bus, service, stop, served }
}

impl Server {
    /// Commits a write and publishes it, as capture does.
    pub async fn write(&self, write: Write) -> i64 {
        let event = self.commit(write).await;
        self.publish(&event).await;
        event.version
    }

    /// Commits a write that nobody publishes.
    pub async fn commit(&self, write: Write) -> Event {
        let operation = match &write {
            Write::Insert { .. } => Operation::Insert,
            Write::Update { .. } => Operation::Update,
            Write::Delete { .. } => Operation::Delete,
        };
        let written = self.database.write("Forecasts", vec![write]).await.unwrap().pop().unwrap();
        let Written::Done(row) = written else { panic!("{written:?}") };
        let document = Document::parse(row.document).unwrap();
        let mut event = Event::new("forecast".into(), row.key, row.version, operation, Some(document));
        event.commit_time = Some(Timestamp::now());
        event
    }

    pub async fn publish(&self, event: &Event) {
        let message =
            Outgoing { key: Some(event.key.to_string()), payload: encode_change(event), ..Outgoing::default() };
        self.bus.publish("cdc:forecasts", vec![message]).await.unwrap();
    }

    pub async fn insert(&self, id: &str, company: &str) -> i64 {
        self.write(insert(id, company)).await
    }

    pub async fn set(&self, id: &str, member: &str, value: Value) -> i64 {
        self.write(set(id, member, value)).await
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        authorization: &str,
        cursor: Option<&str>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        self.service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    pub async fn stream(&self, path: &str, authorization: &str, cursor: Option<&str>) -> Client {
        let response = self.ask("GET", path, authorization, cursor).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Client { body: response.into_body().into_data_stream(), text: String::new(), cursor: None }
    }

    /// The end: all streams end with it.
    pub async fn end(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.served).await.unwrap().unwrap();
    }
}

pub fn insert(id: &str, company: &str) -> Write {
    let members = json!({
        "id": id, "companyId": company, "productionUnitId": UNIT, "forecastDate": "2026-01-01T00:00:00.000Z",
        "demand": 0, "confidenceLevel": 0.5, "status": "Draft", "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z"
    });
    Write::Insert { members: members.as_object().unwrap().clone() }
}

pub fn set(id: &str, member: &str, value: Value) -> Write {
    Write::Update { key: id.into(), expected_version: None, members: Map::from_iter([(member.to_owned(), value)]) }
}

pub fn delete(id: &str) -> Write {
    Write::Delete { key: id.into(), expected_version: None }
}

pub struct Client {
    pub body: BodyDataStream,
    text: String,
    pub cursor: Option<String>,
}

/// `version operation path` of a change; the name of any other event.
pub type Told = (String, String);

impl Client {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let Some(id) = field("id: ") {
                    self.cursor = Some(id);
                }
                let Some(name) = field("event: ") else { continue };
                let data: Value = serde_json::from_str(&field("data: ").unwrap()).unwrap();
                if name != "change" {
                    return Some((name, String::new()));
                }
                let item = &data["PatchItems"][0];
                let text = format!(
                    "{} {} {}",
                    data["VersionId"],
                    item["Op"].as_str().unwrap(),
                    item["Path"].as_str().unwrap()
                );
                return Some((data["DataKey"].as_str().unwrap().to_owned(), text));
            }
            let chunk = timeout(PATIENCE, self.body.next()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    pub async fn hears(&mut self, expected: &[(&str, &str)]) {
        for (key, text) in expected {
            // Heartbeats alone are no answer.
            let told = timeout(PATIENCE, self.next()).await.unwrap_or_else(|_| panic!("{text} of {key} in time"));
            assert_eq!(told, Some(((*key).to_owned(), (*text).to_owned())));
        }
    }
}

pub fn bearer(role: Role, companies: &[&str]) -> String {
    format!("Bearer {}", token(role, companies))
}

pub fn of(id: &str) -> String {
    format!("/api/forecasts/{id}/changes")
}
