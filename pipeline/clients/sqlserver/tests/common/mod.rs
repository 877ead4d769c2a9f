//! A server with the product's schema: the stand-in, or the one that `SMARTPULSE_SQLSERVER_URL` names.

#![allow(dead_code, reason = "each test file uses its part")]

use smartpulse_clients::database::Database;
use smartpulse_pipeline::error::Result;
use smartpulse_sqlserver::config::SqlServerConfig;
use smartpulse_sqlserver::connection::Param;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_sqlserver::retrying;
use smartpulse_stand_in::engine::Engine;
use smartpulse_stand_in::server::{Options, Sessions, StandIn};
use std::ops::Deref;
use std::sync::Arc;
use tiberius::Row;

/// The variable that names a real server.
pub const URL: &str = "SMARTPULSE_SQLSERVER_URL";

/// A stand-in with its engine.
pub struct Server {
    stand_in: StandIn,
    pub engine: Engine,
}

impl Deref for Server {
    type Target = StandIn;

    fn deref(&self) -> &StandIn {
        &self.stand_in
    }
}

/// A fresh stand-in.
pub fn stand_in() -> Server {
    let engine = Engine::temporary().unwrap();
    let own = engine.clone();
    let sessions: Sessions = Arc::new(move |login| Ok(own.session(&login.user).unwrap()));
    Server { stand_in: StandIn::with_sessions(Options::default(), sessions).unwrap(), engine }
}

/// Time-outs that a loaded machine keeps.
pub fn settings(url: &str) -> SqlServerConfig {
    SqlServerConfig {
        connect_timeout_ms: 20_000,
        command_timeout_ms: 20_000,
        ..SqlServerConfig::from_connection_string(url)
    }
}

pub fn open(config: &SqlServerConfig) -> SqlServerDatabase {
    SqlServerDatabase::open("main_db", config, &prometheus::Registry::new()).unwrap()
}

/// The database of a stand-in, with its schema.
pub async fn database(server: &StandIn) -> SqlServerDatabase {
    let database = open(&settings(&server.url()));
    database.create_schema().await.unwrap();
    database
}

/// Runs a batch, as somebody else would, and gives its first result.
pub async fn sql(database: &SqlServerDatabase, batch: &str) -> Result<Vec<Row>> {
    let pool = &database.context().pool;
    retrying!(pool, "test", c => c.batch("test", batch).await)
        .map(|results| results.into_iter().next().unwrap_or_default())
}

/// The number that a query gives.
pub async fn number(database: &SqlServerDatabase, query: &str, params: &[Param]) -> i64 {
    let pool = &database.context().pool;
    let rows = retrying!(pool, "test", c => c.rows("test", query, params).await).unwrap();
    smartpulse_sqlserver::rows::integer(rows.first().unwrap(), 0).unwrap()
}
