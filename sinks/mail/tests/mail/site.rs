//! A database, embedded or the stand-in for SQL Server, and graphs on it.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::embedded::{MemoryStore, SqliteConfig, SqliteDatabase};
use smartpulse_config::Secret;
use smartpulse_json::Document;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Config, ResourceConfig, ResourceContext};
use smartpulse_pipeline::state::{DeadLetterFilter, Store};
use smartpulse_pipeline::{Event, Operation};
use smartpulse_sqlserver::config::SqlServerConfig;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_stand_in::server::{Options, StandIn};
use smartpulse_testing::{PATIENCE, Rig, uuid};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the queue is.
#[derive(Debug, Clone, Copy)]
pub enum On {
    Embedded,
    SqlServer,
}

/// Mails of what goes wrong come again soon.
pub const SENDER: &str = "
name: sender
sources: { send: { type: mail_sender, database: main_db, relay: mail, poll_interval_ms: 10, wait_ms: 20, attempts_max: 3,
    lease_ms: 5000 } }
";

/// The product's resource on a port of this machine.
#[derive(Debug, Deserialize, JsonSchema)]
struct AtPort {
    port: u16,
}

impl Config for AtPort {
    const TYPE: &'static str = "at_port";
}

#[async_trait]
impl ResourceConfig for AtPort {
    const KIND: &'static str = "database";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let database: SharedDatabase = Arc::new(SqlServerDatabase::open(cx.name, &sql_server(self.port), cx.registry)?);
        Ok(Arc::new(database))
    }
}

fn sql_server(port: u16) -> SqlServerConfig {
    SqlServerConfig {
        host: Some("127.0.0.1".to_owned()),
        port,
        user: Some("sa".to_owned()),
        password: Some(Secret::new("Stand-in-1")),
        trust_server_certificate: true,
        ..SqlServerConfig::default()
    }
}

pub struct Site {
    pub database: SharedDatabase,
    pub rig: Rig,
    pub folder: TempDir,
    _server: Option<StandIn>,
}

impl Site {
    /// With a relay, as its resource is written.
    pub async fn new(on: On, relay: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        let mut sets = vec![format!("data_dir={}", folder.path().display()), format!("resources.mail={relay}")];
        let (database, server): (SharedDatabase, _) = match on {
            On::Embedded => {
                let database = SqliteDatabase::open("w", &SqliteConfig::default(), folder.path(), &registry);
                (Arc::new(database.unwrap()), None)
            }
            On::SqlServer => {
                let server = StandIn::start(Options::default()).unwrap();
                let port = server.address().port();
                sets.push(format!("resources.main_db={{type: at_port, port: {port}}}"));
                (Arc::new(SqlServerDatabase::open("w", &sql_server(port), &registry).unwrap()), Some(server))
            }
        };
        database.create_schema().await.unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let rig = Rig::new(store, &sets, |registry| {
            smartpulse_clients::register(registry);
            registry.resource::<AtPort>();
            smartpulse_operators::register(registry);
            smartpulse_mail::register(registry);
        });
        Self { database, rig, folder, _server: server }
    }

    /// The rows of these mails.
    pub async fn rows(&self, mails: std::ops::Range<u64>) -> Vec<Value> {
        let keys: Vec<_> = mails.map(|id| uuid(id).into()).collect();
        let rows = self.database.get("NheaMailQueue", &keys).await.unwrap();
        let mut rows: Vec<Value> = rows.iter().map(|row| serde_json::from_slice(&row.document).unwrap()).collect();
        rows.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
        rows
    }

    /// Waits until the rows of these mails have these states.
    pub async fn until(&self, mails: std::ops::Range<u64>, states: &[&str]) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let rows = self.rows(mails.clone()).await;
            if rows.iter().map(|row| row["status"].as_str().unwrap_or_default()).eq(states.iter().copied()) {
                return rows;
            }
            assert!(started.elapsed() < PATIENCE, "{rows:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn letters(&self) -> Vec<(String, String)> {
        let filter = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
        let letters = self.rig.store.dead_letters(&filter).await.unwrap().into_iter();
        let mut letters: Vec<(String, String)> =
            letters.map(|stored| (stored.letter.key.unwrap_or_default(), stored.letter.reason)).collect();
        letters.sort_unstable();
        letters
    }
}

/// A mail that is asked for.
pub fn request(id: u64, to: &str) -> Value {
    json!({
        "Id": uuid(id), "To": to, "Subject": format!("Gr\u{fc}\u{df}e {id}"), "TemplateId": "notification",
        "TemplateData": {"title": "Demand <b>", "body": "crossed one half\n.\r\nof its capacity \u{1f300}"},
    })
}

pub fn event(request: &Value) -> Event {
    let document = Document::from_value(request).unwrap();
    let key = request["Id"].as_str().unwrap_or_default();
    Event::new("mail".into(), key.into(), 1, Operation::Insert, Some(document))
}
