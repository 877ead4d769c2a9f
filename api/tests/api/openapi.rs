//! The description of the API: complete, and changed only on purpose.

use crate::common::{settings, support::MemoryDatabase, world};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Where the description is kept. `UPDATE=1 cargo test -p smartpulse-api openapi` writes it anew.
const GOLDEN: &str = "tests/api/openapi.json";

#[tokio::test]
async fn the_description_is_the_one_in_review() {
    let text = world().get("/openapi.json").await.text;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden.trim() == text.trim(),
        "the contract has changed: if that is meant, run `UPDATE=1 cargo test -p smartpulse-api openapi` and have \
         {GOLDEN} reviewed"
    );
}

#[tokio::test]
async fn every_route_is_described_with_who_may_call_it() {
    let description = world().get("/openapi.json").await.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let (api, ..) = crate::common::api(&MemoryDatabase::new(), settings());
    let routed: BTreeSet<String> = api.policies().iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let mut described = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            let secured = operation.get("security").is_some();
            assert_eq!(secured, path.starts_with("/api"), "{method} {path}");
            assert_eq!(operation["responses"].get("401").is_some(), secured, "{method} {path}");
            assert!(operation["operationId"].is_string(), "{method} {path}");
        }
    }
    assert_eq!(described, routed);
    check_references(&description, &description);
}

/// Every reference leads somewhere.
fn check_references(root: &Value, value: &Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get("$ref") {
                let found = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
                assert!(found.is_some(), "{target} leads nowhere");
            }
            object.values().for_each(|value| check_references(root, value));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(root, value)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_for_people_has_every_path_and_no_script() {
    let page = world().get("/docs").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; style-src"));
    for part in ["/api/forecasts/{id}", "/api/changes", "NewForecast", "Only this company"] {
        assert!(page.text.contains(part), "{part} is missing");
    }
    assert!(!page.text.contains("<script"), "the page needs none");
}
