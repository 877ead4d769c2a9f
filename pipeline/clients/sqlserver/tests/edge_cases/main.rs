//! The edge cases that change capture must know, by their numbers, against the stand-in server.
//!
//! Those of pure parts are beside them: 3, 4, 6, 12, 13 and 14 in `capture/fold.rs` and `position.rs`, 7, 9 and 10 in
//! `instances.rs`, 8 in `health.rs`, 18 in `capture.rs`. What the source does about 2, 5, 13, 20 and 23 is tested with it.

#[path = "../common/mod.rs"]
mod common;
mod order;
mod outages;
mod tables;

use common::{Server, database, open, settings, stand_in};
use serde_json::{Value, json};
use smartpulse_clients::database::{CaptureMode, Change, ChangePage, Database, Poll, SchemaChange, Write};
use smartpulse_pipeline::{Operation, Position};
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_testing::{forecast, uuid};

const TABLE: &str = "Forecasts";
const CT: CaptureMode = CaptureMode::ChangeTracking;
const CDC: CaptureMode = CaptureMode::Cdc;
const BOTH: [CaptureMode; 2] = [CT, CDC];

/// A stand-in whose capture job works only when it is told to, with a client.
struct Rig {
    server: Server,
    database: SqlServerDatabase,
}

impl Rig {
    async fn new() -> Self {
        let server = stand_in();
        let database = database(&server).await;
        server.engine.stop_capture();
        let rig = Self { server, database };
        rig.scan().await;
        rig
    }

    /// Lets the capture job read the log up to now.
    async fn scan(&self) {
        let engine = self.server.engine.clone();
        tokio::task::spawn_blocking(move || engine.run_capture_now()).await.unwrap().unwrap();
    }

    /// A client that knows nothing yet, as after a restart.
    fn again(&self) -> SqlServerDatabase {
        open(&settings(&self.server.url()))
    }

    async fn run(&self, batch: &str) {
        common::sql(&self.database, batch).await.unwrap();
    }

    async fn write(&self, writes: Vec<Write>) {
        self.database.write(TABLE, writes).await.unwrap();
    }

    async fn head(&self, table: &str, mode: CaptureMode) -> Position {
        self.database.head(table, mode).await.unwrap()
    }

    async fn poll(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> Poll {
        self.database.changes(table, mode, after, limit).await.unwrap()
    }

    async fn page(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> ChangePage {
        match self.poll(table, mode, after, limit).await {
            Poll::Changes(page) => page,
            other => panic!("{mode:?}: {other:?}"),
        }
    }

    async fn lost(&self, mode: CaptureMode, after: &Position) -> Option<String> {
        match self.poll(TABLE, mode, after, 10).await {
            Poll::PositionLost(why) => Some(why),
            _ => None,
        }
    }

    async fn schema_changed(&self, mode: CaptureMode, after: &Position) -> SchemaChange {
        match self.poll(TABLE, mode, after, 10).await {
            Poll::SchemaChanged(change) => change,
            other => panic!("{other:?}"),
        }
    }

    /// All changes behind a position, in pages, and where they end. The job reads the log first.
    async fn all(&self, table: &str, mode: CaptureMode, after: &Position, limit: usize) -> (Vec<Change>, Position) {
        self.scan().await;
        let (mut found, mut position) = (Vec::new(), after.clone());
        loop {
            let page = self.page(table, mode, &position, limit).await;
            assert!(page.changes.len() <= limit, "{} of {limit}", page.changes.len());
            found.extend(page.changes);
            position = page.next;
            if !page.more {
                return (found, position);
            }
        }
    }
}

fn insert(id: u64, demand: f64) -> Write {
    Write::Insert { members: forecast(id, demand) }
}

fn update(id: u64, demand: f64) -> Write {
    let members = json!({ "demand": demand }).as_object().cloned().unwrap();
    Write::Update { key: uuid(id).into(), expected_version: None, members }
}

fn delete(id: u64) -> Write {
    Write::Delete { key: uuid(id).into(), expected_version: None }
}

fn document(change: &Change) -> Value {
    serde_json::from_slice(change.document.as_ref().unwrap()).unwrap()
}

fn story(changes: &[Change]) -> Vec<(Operation, i64)> {
    changes.iter().map(|change| (change.operation, change.version)).collect()
}
