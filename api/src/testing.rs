//! An API over an empty database, for unit tests.

use crate::{Api, DevelopmentToken, Parts, Readiness, Role, development_token};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_config::{AuthSettings, Settings};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// An API with the built-in settings. Its database has no tables.
pub(crate) fn api() -> Api {
    let folder = tempfile::tempdir().unwrap();
    api_over(open(folder.path()))
}

/// An API with the built-in settings.
pub(crate) fn api_over(database: SharedDatabase) -> Api {
    let registry = prometheus::Registry::new();
    let cache = Cache::new(CacheConfig::default(), Arc::clone(&database), &registry).unwrap();
    let readiness = Arc::new(Readiness::default());
    Api::new(
        Settings::default().api,
        "development",
        Parts {
            cache,
            database,
            bus: None,
            pubsub: None,
            push: None,
            unsubscribe: None,
            partition: "production".to_owned(),
            readiness,
            registry,
            tracer: None,
        },
    )
    .unwrap()
}

/// An empty database in a folder.
pub(crate) async fn database(folder: &Path) -> SharedDatabase {
    let database = open(folder);
    database.create_schema().await.unwrap();
    database
}

fn open(folder: &Path) -> SharedDatabase {
    let registry = prometheus::Registry::new();
    Arc::new(SqliteDatabase::open("main", &SqliteConfig::default(), folder, &registry).unwrap())
}

pub(crate) fn admin_token(settings: &AuthSettings) -> String {
    let token = DevelopmentToken {
        user: Uuid::from_u128(1),
        role: Role::Admin,
        companies: Vec::new(),
        ttl: Duration::from_secs(600),
    };
    development_token(settings, "development", &token).unwrap()
}
