//! The API over the embedded database.

use crate::common::{COMPANY, UNIT, World, settings, support::MemoryDatabase};
use http::StatusCode;
use serde_json::{Value, json};
use smartpulse_api::{Api, Parts, Readiness};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use std::sync::Arc;

const JSON: (&str, &str) = ("content-type", "application/json");

async fn world(folder: &std::path::Path) -> (World, SharedDatabase) {
    let registry = prometheus::Registry::new();
    let database: SharedDatabase =
        Arc::new(SqliteDatabase::open("main", &SqliteConfig::default(), folder, &registry).unwrap());
    database.create_schema().await.unwrap();
    let cache = Cache::new(CacheConfig::default(), Arc::clone(&database), &registry).unwrap();
    let readiness = Arc::new(Readiness::new(Vec::<String>::new()));
    let parts = Parts {
        cache: cache.clone(),
        database: Arc::clone(&database),
        bus: None,
        pubsub: None,
        push: None,
        unsubscribe: None,
        partition: "production".into(),
        readiness: Arc::clone(&readiness),
        registry,
        tracer: None,
    };
    let api = Api::new(settings(), "development", parts).unwrap();
    (World { database: MemoryDatabase::new(), cache, readiness, service: api.service() }, database)
}

#[tokio::test]
async fn a_forecast_is_created_read_changed_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (world, database) = world(folder.path()).await;
    assert_eq!(world.get("/health/ready").await.status, StatusCode::OK);
    let new = json!({
        "companyId": COMPANY, "productionUnitId": UNIT, "forecastDate": "2026-02-01T00:00:00Z", "demand": 450,
        "supply": 400.5, "confidence": 0.9
    });
    let created = world.send("POST", "/api/forecasts", &[JSON], new.to_string()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let path = created.header("location").unwrap().to_owned();
    let document = created.json();
    for member in [
        "id",
        "companyId",
        "productionUnitId",
        "forecastDate",
        "demand",
        "supply",
        "variance",
        "confidenceLevel",
        "status",
        "createdAt",
        "updatedAt",
        "versionId",
    ] {
        assert!(document.get(member).is_some(), "{member} is not in {document}");
    }
    assert_eq!(document["variance"], json!(-49.5));
    for (content_type, body, version) in [
        ("application/json", json!({"demand": 500}), 2),
        ("application/merge-patch+json", json!({"supply": null, "status": "Completed"}), 3),
        ("application/json-patch+json", json!([{"op": "replace", "path": "/supply", "value": 1}]), 4),
    ] {
        let patched = world.send("PATCH", &path, &[("content-type", content_type)], body.to_string()).await;
        assert_eq!(patched.status, StatusCode::OK, "{body}: {}", patched.text);
        assert_eq!(patched.header("etag"), Some(format!("\"{version}\"").as_str()));
        let read = world.get(&path).await;
        assert_eq!((read.header("x-cache-level"), &read.text), (Some("L1"), &patched.text));
        // The database spells the row as it is held.
        let key = document["id"].as_str().unwrap().into();
        let row = database.get("Forecasts", &[key]).await.unwrap().pop().unwrap();
        assert_eq!((row.version, &row.document[..]), (version, patched.text.as_bytes()));
    }
    let list = world.get(&format!("/api/forecasts?companyId={COMPANY}")).await.json();
    assert_eq!((&list["total"], &list["items"][0]["versionId"]), (&json!(1), &json!(4)));
    let stale = world.send("PATCH", &path, &[JSON, ("if-match", "\"1\"")], r#"{"demand":1}"#).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(world.send("DELETE", &path, &[], "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get(&path).await.json()["code"], "FORECAST_NOT_FOUND");
    assert_eq!(world.get("/api/forecasts").await.json(), json!({"total": 0, "items": Value::Array(vec![])}));
}
