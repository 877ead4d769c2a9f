//! Live changes: what a stream begins with, how it goes on, where it resumes, when it ends.

use crate::common::{COMPANY, ID, OTHER_COMPANY, OTHER_ID, UNIT, USER, settings, token};
use axum::Router;
use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use smartpulse_api::{Api, Parts, Readiness, Role, bind};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_clients::bus::{Outgoing, SharedBus};
use smartpulse_clients::database::{SharedDatabase, Write, Written};
use smartpulse_clients::embedded::{
    BusConfig, DataFolder, EmbeddedBus, SqliteConfig, SqliteDatabase, StateConfig, StateFile,
};
use smartpulse_config::ApiSettings;
use smartpulse_json::Document;
use smartpulse_pipeline::message::encode_change;
use smartpulse_pipeline::{Event, Operation};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(30);

/// One life of a server on a folder.
struct Server {
    database: SharedDatabase,
    bus: SharedBus,
    router: Router,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

async fn start(folder: &Path, settings: ApiSettings) -> Server {
    let registry = prometheus::Registry::new();
    let database: SharedDatabase =
        Arc::new(SqliteDatabase::open("main", &SqliteConfig::default(), folder, &registry).unwrap());
    database.create_schema().await.unwrap();
    let data = DataFolder::beside(folder).unwrap();
    let file = StateFile::open(&data, &StateConfig::default()).await.unwrap();
    let bus: SharedBus = Arc::new(EmbeddedBus::open(file, &BusConfig::default()));
    let cache = Cache::new(CacheConfig::default(), Arc::clone(&database), &registry).unwrap();
    let parts = Parts {
        cache,
        database: Arc::clone(&database),
        bus: Some(Arc::clone(&bus)),
        partition: "production".to_owned(),
        readiness: Arc::new(Readiness::default()),
        registry,
    };
    let listener = bind(&settings).await.unwrap();
    let api = Api::new(settings, "development", parts).unwrap();
    let router = api.router();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(api.serve(listener, async {
        let _ = stopped.await;
    }));
    let server = Server { database, bus, router, stop, served };
    // A stream begins when the changes are heard: from here on none is missed. Nobody else asks for this one's documents.
    drop(server.stream(&format!("/api/changes?companyId={USER}"), &bearer(Role::Admin, &[]), None).await);
    server
}

impl Server {
    /// Commits a write and publishes it, as capture does.
    async fn write(&self, write: Write) -> i64 {
        let operation = match &write {
            Write::Insert { .. } => Operation::Insert,
            Write::Update { .. } => Operation::Update,
            Write::Delete { .. } => Operation::Delete,
        };
        let written = self.database.write("Forecasts", vec![write]).await.unwrap().pop().unwrap();
        let Written::Done(row) = written else { panic!("{written:?}") };
        let document = Document::parse(row.document).unwrap();
        let event = Event::new("forecast".into(), row.key.clone(), row.version, operation, Some(document));
        let message =
            Outgoing { key: Some(row.key.to_string()), payload: encode_change(&event), ..Outgoing::default() };
        self.bus.publish("cdc:forecasts", vec![message]).await.unwrap();
        row.version
    }

    async fn insert(&self, id: &str, company: &str) -> i64 {
        let members = json!({
            "id": id, "companyId": company, "productionUnitId": UNIT, "forecastDate": "2026-01-01T00:00:00.000Z",
            "demand": 0, "confidenceLevel": 0.5, "status": "Draft", "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z"
        });
        self.write(Write::Insert { members: members.as_object().unwrap().clone() }).await
    }

    async fn set(&self, id: &str, member: &str, value: Value) -> i64 {
        let members = Map::from_iter([(member.to_owned(), value)]);
        self.write(Write::Update { key: id.into(), expected_version: None, members }).await
    }

    async fn ask(&self, method: &str, path: &str, authorization: &str, cursor: Option<&str>) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn stream(&self, path: &str, authorization: &str, cursor: Option<&str>) -> Client {
        let response = self.ask("GET", path, authorization, cursor).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Client { body: response.into_body().into_data_stream(), text: String::new(), cursor: None }
    }

    /// The end: all streams end with it.
    async fn end(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.served).await.unwrap().unwrap();
    }
}

struct Client {
    body: BodyDataStream,
    text: String,
    cursor: Option<String>,
}

/// `version operation path` of a change; the name of any other event.
type Told = (String, String);

impl Client {
    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Told> {
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

    async fn hears(&mut self, expected: &[(&str, &str)]) {
        for (key, text) in expected {
            assert_eq!(self.next().await, Some(((*key).to_owned(), (*text).to_owned())));
        }
    }
}

fn bearer(role: Role, companies: &[&str]) -> String {
    format!("Bearer {}", token(role, companies))
}

fn of(id: &str) -> String {
    format!("/api/forecasts/{id}/changes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_whole_documents_and_goes_on_with_patches_of_its_companies() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), settings()).await;
    server.insert(ID, COMPANY).await;
    server.insert(OTHER_ID, OTHER_COMPANY).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let mut mine = server.stream("/api/changes", &viewer, None).await;
    let mut named = server.stream(&format!("/api/changes?companyId={COMPANY}"), &viewer, None).await;
    let mut one = server.stream(&of(ID), &viewer, None).await;
    let mut all = server.stream("/api/changes", &bearer(Role::Admin, &[]), None).await;
    for client in [&mut mine, &mut named, &mut one] {
        client.hears(&[(ID, "1 replace ")]).await;
    }
    let begun = [all.next().await.unwrap().0, all.next().await.unwrap().0];
    assert!(begun.contains(&ID.to_owned()) && begun.contains(&OTHER_ID.to_owned()));

    server.set(OTHER_ID, "demand", json!(1)).await;
    server.set(ID, "demand", json!(2)).await;
    server.set(ID, "companyId", json!(OTHER_COMPANY)).await;
    server.set(OTHER_ID, "companyId", json!(COMPANY)).await;
    all.hears(&[(OTHER_ID, "2 replace /demand"), (ID, "2 replace /demand"), (ID, "3 replace /companyId")]).await;
    for client in [&mut mine, &mut named] {
        client.hears(&[(ID, "2 replace /demand"), (ID, "3 remove "), (OTHER_ID, "3 replace ")]).await;
    }
    one.hears(&[(ID, "2 replace /demand"), (ID, "3 remove ")]).await;
    server.end().await;
    for client in [&mut mine, &mut named, &mut one] {
        assert_eq!(client.next().await, None, "the end of the server is the end of the stream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_nothing_is_told_nothing_whoever_began_a_stream_just_before() {
    let none = bearer(Role::Viewer, &[]);
    let all = bearer(Role::Admin, &[]);
    for all_first in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings();
        settings.streams.heartbeat_ms = 100;
        let server = start(folder.path(), settings).await;
        server.insert(ID, COMPANY).await;
        let told_all = async || server.stream("/api/changes", &all, None).await.hears(&[(ID, "1 replace ")]).await;
        let told_none = async || {
            let mut client = server.stream("/api/changes", &none, None).await;
            let mut text = String::new();
            while !text.ends_with("\n:\n\n") {
                let chunk = timeout(PATIENCE, client.body.next()).await.expect("a heartbeat in time").unwrap().unwrap();
                text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
            assert_eq!(text, "retry: 1000\n\n:\n\n", "all first: {all_first}");
        };
        if all_first {
            told_all().await;
            told_none().await;
        } else {
            told_none().await;
            told_all().await;
        }
        server.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_resumes_with_every_version_once_over_restarts_too() {
    let folder = tempfile::tempdir().unwrap();
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let server = start(folder.path(), settings()).await;
    server.insert(ID, COMPANY).await;
    let mut client = server.stream("/api/changes", &viewer, None).await;
    client.hears(&[(ID, "1 replace ")]).await;
    server.set(ID, "demand", json!(1)).await;
    client.hears(&[(ID, "2 replace /demand")]).await;
    let cursor = client.cursor.take().unwrap();
    drop(client);
    for demand in 2..5 {
        server.set(ID, "demand", json!(demand)).await;
    }
    let missed = [(ID, "3 replace /demand"), (ID, "4 replace /demand"), (ID, "5 replace /demand")];
    server.stream("/api/changes", &viewer, Some(&cursor)).await.hears(&missed).await;
    let asked = format!("/api/changes?lastEventId={cursor}");
    server.stream(&asked, &viewer, None).await.hears(&missed).await;
    server.stream(&of(ID), &viewer, Some(&cursor)).await.hears(&missed).await;
    // A cursor of nowhere: one whole document per forecast.
    for unknown in ["ffff", "", "no cursor at all"] {
        server.stream(&of(ID), &viewer, Some(unknown)).await.hears(&[(ID, "5 replace ")]).await;
    }
    server.end().await;

    let server = start(folder.path(), settings()).await;
    let mut client = server.stream("/api/changes", &viewer, Some(&cursor)).await;
    client.hears(&missed).await;
    server.set(ID, "demand", json!(9)).await;
    client.hears(&[(ID, "6 replace /demand")]).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_too_slow_is_told_and_starts_over_with_whole_documents() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.streams.retained = 3;
    let server = start(folder.path(), settings).await;
    server.insert(ID, COMPANY).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let mut slow = server.stream(&of(ID), &viewer, None).await;
    slow.hears(&[(ID, "1 replace ")]).await;
    let mut quick = server.stream(&of(ID), &viewer, None).await;
    quick.hears(&[(ID, "1 replace ")]).await;
    for version in 2..=8 {
        server.set(ID, "demand", json!(version)).await;
        quick.hears(&[(ID, &format!("{version} replace /demand"))]).await;
    }
    slow.hears(&[("behind", ""), (ID, "8 replace ")]).await;
    server.set(ID, "demand", json!(99)).await;
    slow.hears(&[(ID, "9 replace /demand")]).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_stream_once_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), settings()).await;
    server.insert(ID, COMPANY).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let ticket = async || {
        let response = server.ask("POST", "/api/tickets", &viewer, None).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["expiresAt"].is_string());
        body["ticket"].as_str().unwrap().to_owned()
    };
    let good = format!("/api/changes?ticket={}", ticket().await);
    let mut client = server.stream(&good, "", None).await;
    client.hears(&[(ID, "1 replace ")]).await;
    let other = format!("/api/forecasts/{ID}?ticket={}", ticket().await);
    for path in [good.as_str(), "/api/changes", "/api/changes?ticket=", "/api/changes?ticket=x", &other] {
        assert_eq!(server.ask("GET", path, "", None).await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let foreign = format!("/api/changes?companyId={OTHER_COMPANY}&ticket={}", ticket().await);
    assert_eq!(server.ask("GET", &foreign, "", None).await.status(), StatusCode::FORBIDDEN);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_that_it_lives_and_there_are_not_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.streams.heartbeat_ms = 20;
    settings.streams.clients_max = 1;
    let server = start(folder.path(), settings).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let mut client = server.stream("/api/changes", &viewer, None).await;
    let mut text = String::new();
    while !text.contains("\n:\n\n") {
        text.push_str(std::str::from_utf8(&client.body.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.starts_with("retry: 1000\n\n"), "{text}");
    let refused = server.ask("GET", "/api/changes", &viewer, None).await;
    assert_eq!(
        (refused.status(), refused.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    drop(client);
    // The place is free again.
    drop(server.stream("/api/changes", &viewer, None).await);
    server.end().await;
}
