//! An API over a database in memory, and requests to it.

#[path = "../../../pipeline/cache/tests/support/mod.rs"]
pub mod support;

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use smartpulse_api::{Api, DevelopmentToken, Parts, Readiness, Role, Served, development_token};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_config::{ApiSettings, Settings};
use std::sync::Arc;
use std::time::Duration;
use support::MemoryDatabase;
use tower::ServiceExt;
use uuid::Uuid;

pub const ID: &str = "0b0a1c60-0000-4000-8000-000000000001";
pub const OTHER_ID: &str = "0b0a1c60-0000-4000-8000-000000000002";
pub const COMPANY: &str = "0b0a1c60-0000-4000-8000-00000000000a";
pub const OTHER_COMPANY: &str = "0b0a1c60-0000-4000-8000-00000000000c";
pub const USER: &str = "0b0a1c60-0000-4000-8000-0000000000aa";
pub const UNIT: &str = "0b0a1c60-0000-4000-8000-00000000000b";

pub fn settings() -> ApiSettings {
    ApiSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        body_bytes_max: 10_000,
        request_timeout_ms: 10_000,
        header_timeout_ms: 10_000,
        concurrency_max: 64,
        ..Settings::default().api
    }
}

pub struct World {
    pub database: Arc<MemoryDatabase>,
    pub cache: Cache,
    pub readiness: Arc<Readiness>,
    pub service: Served,
}

pub fn api(database: &Arc<MemoryDatabase>, settings: ApiSettings) -> (Api, Cache, Arc<Readiness>) {
    let registry = prometheus::Registry::new();
    let cache = Cache::new(CacheConfig::default(), database.shared(), &registry).unwrap();
    let readiness = Arc::new(Readiness::new(["cache", "trackers"]));
    let parts = Parts {
        cache: cache.clone(),
        database: database.shared(),
        bus: None,
        pubsub: None,
        push: None,
        unsubscribe: None,
        partition: "production".to_owned(),
        readiness: Arc::clone(&readiness),
        registry,
        tracer: None,
    };
    let api = Api::new(settings, "development", parts).unwrap();
    (api, cache, readiness)
}

/// One forecast, [`ID`], at version 1.
pub fn world() -> World {
    world_with(settings())
}

pub fn world_with(settings: ApiSettings) -> World {
    let database = MemoryDatabase::new();
    database.set(ID, forecast(450));
    let (api, cache, readiness) = api(&database, settings);
    World { service: api.service(), database, cache, readiness }
}

pub fn forecast(demand: i64) -> Value {
    json!({
        "companyId": COMPANY, "productionUnitId": UNIT, "forecastDate": "2026-01-01T00:00:00.000Z",
        "demand": demand, "supply": 400, "confidenceLevel": 0.5, "status": "Draft"
    })
}

/// A token of [`USER`], good for minutes.
pub fn token(role: Role, companies: &[&str]) -> String {
    let token = DevelopmentToken {
        user: USER.parse().unwrap(),
        role,
        companies: companies.iter().map(|company| company.parse::<Uuid>().unwrap()).collect(),
        ttl: Duration::from_secs(600),
    };
    development_token(&Settings::default().api.auth, "development", &token).unwrap()
}

/// The `Authorization` of an admin.
pub fn admin() -> String {
    format!("Bearer {}", token(Role::Admin, &[]))
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl World {
    /// Sends as an admin, unless the headers say as whom; an empty `authorization` is none.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", admin());
        }
        for (name, value) in headers.iter().filter(|(name, value)| *name != "authorization" || !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let response = self.service.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn patch(&self, headers: &[(&str, &str)], body: &Value) -> Answer {
        let merge = [("content-type", "application/json")];
        let headers: Vec<_> = if headers.iter().any(|(name, _)| *name == "content-type") {
            headers.to_vec()
        } else {
            merge.iter().chain(headers).copied().collect()
        };
        self.send("PATCH", &format!("/api/forecasts/{ID}"), &headers, body.to_string()).await
    }
}
