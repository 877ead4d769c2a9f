//! Forecasts over HTTP: reads with their headers, writes that are read at once, conditions, lists.

use crate::common::support::Mode;
use crate::common::{COMPANY, ID, UNIT, USER, admin, forecast, world};
use http::StatusCode;
use serde_json::{Value, json};
use smartpulse_clients::database::Write;

fn path() -> String {
    format!("/api/forecasts/{ID}")
}

const OPERATIONS: (&str, &str) = ("content-type", "application/json-patch+json");

#[tokio::test]
async fn a_read_says_where_it_comes_from_and_gives_the_databases_bytes() {
    let world = world();
    for (hit, level) in [("false", "L4"), ("true", "L1")] {
        let answer = world.get(&path()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.text.as_bytes(), &world.database.row(ID).unwrap().document);
        for (name, value) in [
            ("etag", "\"1\""),
            ("x-cache-hit", hit),
            ("x-cache-level", level),
            ("cache-control", "max-age=60, private"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert_eq!(answer.header("x-cache-stale"), None);
    }
    assert_eq!(
        world.get(&path().to_uppercase().replace("/API/FORECASTS", "/api/forecasts")).await.status,
        StatusCode::OK
    );
    let head = world.send("HEAD", &path(), &[], "").await;
    assert_eq!((head.status, head.text.as_str(), head.header("etag")), (StatusCode::OK, "", Some("\"1\"")));
}

#[tokio::test]
async fn who_has_it_already_gets_no_body() {
    let world = world();
    for (tag, status) in
        [("\"1\"", 304), ("W/\"1\"", 304), ("*", 304), ("\"0\", \"1\"", 304), ("\"2\"", 200), ("1", 200)]
    {
        let answer = world.send("GET", &path(), &[("if-none-match", tag)], "").await;
        assert_eq!((answer.status.as_u16(), answer.text.is_empty()), (status, status == 304), "{tag}");
        assert_eq!(answer.header("etag"), Some("\"1\""));
        assert!(answer.header("x-cache-level").is_some() && answer.header("cache-control").is_some());
    }
    let list = world.get("/api/forecasts").await;
    let tag = list.header("etag").unwrap().to_owned();
    assert_eq!(
        world.send("GET", "/api/forecasts", &[("if-none-match", &tag)], "").await.status,
        StatusCode::NOT_MODIFIED
    );
    world.patch(&[], &json!({"demand": 1})).await;
    assert_eq!(world.send("GET", "/api/forecasts", &[("if-none-match", &tag)], "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_writer_reads_its_own_writes_at_once() {
    let world = world();
    world.get(&path()).await;
    let new = json!({
        "companyId": COMPANY.to_uppercase(), "productionUnitId": UNIT, "forecastDate": "2026-02-01T01:00:00+01:00",
        "demand": 7, "confidence": 0.9
    });
    assert_eq!(world.get("/api/forecasts").await.json()["total"], 1);
    let created = world
        .send("POST", "/api/forecasts", &[("content-type", "application/json; charset=utf-8")], new.to_string())
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let document = created.json();
    let location = created.header("location").unwrap();
    assert_eq!(location, format!("/api/forecasts/{}", document["id"].as_str().unwrap()));
    assert_eq!(created.header("etag"), Some("\"1\""));
    for (member, value) in [
        ("companyId", json!(COMPANY)),
        ("forecastDate", json!("2026-02-01T00:00:00.000Z")),
        ("confidenceLevel", json!(0.9)),
        ("updatedVia", json!("ProductionForecast.Api")),
        ("updatedBy", json!(USER)),
        ("versionId", json!(1)),
    ] {
        assert_eq!(document[member], value, "{member}");
    }
    assert_eq!(document["createdAt"], document["updatedAt"]);
    let read = world.get(location).await;
    assert_eq!((read.header("x-cache-level"), read.json()), (Some("L1"), document));
    let list = world.get("/api/forecasts").await.json();
    assert_eq!(list["total"], 2);
    assert_eq!(list["items"][0]["demand"], 7, "newest first");

    let patched =
        world.patch(&[], &json!({"demand": 500.0, "confidence": 1, "supply": null, "status": "Completed"})).await;
    assert_eq!((patched.status, patched.header("etag")), (StatusCode::OK, Some("\"2\"")), "{}", patched.text);
    let read = world.get(&path()).await;
    assert_eq!((read.header("x-cache-level"), &read.text), (Some("L1"), &patched.text));
    let document = read.json();
    assert_eq!(
        (&document["demand"], &document["confidenceLevel"], &document["supply"], &document["status"]),
        (&json!(500.0), &json!(1), &Value::Null, &json!("Completed"))
    );

    assert_eq!(world.send("DELETE", &path(), &[], "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get(&path()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get("/api/forecasts").await.json()["total"], 1);
    assert_eq!(world.send("DELETE", &path(), &[], "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn operations_are_applied_to_the_forecast_as_it_is() {
    let world = world();
    world.get(&path()).await;
    // Somebody else's write that this instance has not heard of.
    world.database.set(ID, json!({"demand": 460}));
    let operations = json!([
        {"op": "test", "path": "/demand", "value": 460},
        {"op": "replace", "path": "/demand", "value": 470},
        {"op": "copy", "from": "/demand", "path": "/supply"}
    ]);
    let patched = world.patch(&[OPERATIONS], &operations).await;
    assert_eq!((patched.status, patched.header("etag")), (StatusCode::OK, Some("\"3\"")), "{}", patched.text);
    assert_eq!((&patched.json()["demand"], &patched.json()["supply"]), (&json!(470), &json!(470)));
    let removed = world.patch(&[OPERATIONS], &json!([{"op": "remove", "path": "/supply"}])).await;
    assert_eq!(removed.json()["supply"], Value::Null);
    let same = world.patch(&[OPERATIONS], &json!([{"op": "test", "path": "/demand", "value": 470}])).await;
    assert_eq!((same.status, same.header("etag")), (StatusCode::OK, Some("\"4\"")), "nothing to write");
}

#[tokio::test]
async fn operations_are_not_refused_for_what_the_forecast_was() {
    let world = world();
    world.database.set(ID, json!({"supply": null}));
    world.get(&path()).await;
    let copy = json!([{"op": "copy", "from": "/supply", "path": "/demand"}]);
    let refused = world.patch(&[OPERATIONS], &copy).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::BAD_REQUEST, &json!("VALIDATION_FAILED")));
    // Somebody else's write that this instance has not heard of.
    world.database.set(ID, json!({"supply": 470}));
    let patched = world.patch(&[OPERATIONS], &copy).await;
    assert_eq!((patched.status, &patched.json()["demand"]), (StatusCode::OK, &json!(470)), "{}", patched.text);
}

#[tokio::test]
async fn operations_without_if_match_survive_a_concurrent_write_and_with_it_do_not() {
    for (condition, status, version) in [(None, 200, 3), (Some("\"1\""), 412, 2)] {
        let world = world();
        world.get(&path()).await;
        world.database.hold_answers(true);
        let service = world.service.clone();
        let patching = tokio::spawn(async move {
            let mut request = http::Request::patch(path()).header(OPERATIONS.0, OPERATIONS.1);
            request = request.header("authorization", admin());
            if let Some(tag) = condition {
                request = request.header("if-match", tag);
            }
            let body = axum::body::Body::from(r#"[{"op":"replace","path":"/supply","value":1}]"#);
            tower::ServiceExt::oneshot(service, request.body(body).unwrap()).await.unwrap().status().as_u16()
        });
        // Somebody else writes first, which this instance has not heard of.
        world.database.set(ID, json!({"demand": 2}));
        world.database.next_held().await.release();
        world.database.hold_answers(false);
        for held in world.database.take_held() {
            held.release();
        }
        assert_eq!(patching.await.unwrap(), status, "{condition:?}");
        assert_eq!(world.database.row(ID).unwrap().version, version, "{condition:?}");
    }
}

#[tokio::test]
async fn a_condition_is_judged_by_the_database_not_by_what_is_held() {
    let world = world();
    world.get(&path()).await;
    world.database.set(ID, json!({"demand": 2}));
    for (headers, body) in [
        (vec![("if-match", "\"2\"")], json!({"demand": 3})),
        (vec![("if-match", "\"9\", \"3\"")], json!({"demand": 4})),
        (vec![("if-match", "*")], json!({"demand": 5})),
    ] {
        assert_eq!(world.patch(&headers, &body).await.status, StatusCode::OK, "{headers:?}");
    }
    world.database.set(ID, json!({"demand": 6}));
    let operations = json!([{"op": "replace", "path": "/demand", "value": 7}]);
    let patched = world.patch(&[OPERATIONS, ("if-match", "\"6\"")], &operations).await;
    assert_eq!((patched.status, patched.json()["demand"].clone()), (StatusCode::OK, json!(7)));
    let deleted = world.send("DELETE", &path(), &[("if-match", "\"7\"")], "").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_paged() {
    let world = world();
    world.database.commit(Write::Delete { key: ID.into(), expected_version: None });
    for n in 0..45 {
        let mut row = forecast(n);
        row["forecastDate"] = json!(format!("2026-01-{:02}T00:00:00.000Z", n % 28 + 1));
        if n % 3 == 0 {
            row["companyId"] = json!(UNIT);
        }
        world.database.set(&format!("0b0a1c60-0000-4000-8000-0000000001{n:02}"), row);
    }
    for (query, total, items) in [
        ("", 45, 20),
        ("?take=500", 45, 45),
        ("?skip=40", 45, 5),
        ("?skip=45", 45, 0),
        (&format!("?companyId={COMPANY}&take=50"), 30, 30),
        (&format!("?companyId={COMPANY}&productionUnitId={COMPANY}"), 0, 0),
        ("?from=2026-01-02T00:00:00Z&to=2026-01-02T23:00:00%2B23:00", 0, 0),
        ("?from=2026-01-02T00:00:00Z&to=2026-01-03T00:00:00Z", 2, 2),
    ] {
        let answer = world.get(&format!("/api/forecasts{query}")).await;
        let list = answer.json();
        assert_eq!((&list["total"], list["items"].as_array().unwrap().len()), (&json!(total), items), "{query}");
        let dates: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|i| i["forecastDate"].as_str().unwrap()).collect();
        assert!(dates.is_sorted_by(|a, b| a >= b), "{query}: {dates:?}");
        assert_eq!(answer.header("x-cache-level"), Some("L4"));
        assert_eq!(world.get(&format!("/api/forecasts{query}")).await.header("x-cache-level"), Some("L2"));
    }
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_what_is_degraded() {
    let world = world();
    let expect = async |status: u16, body: Value| {
        let answer = world.get("/health/ready").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (status, body));
        assert_eq!(world.get("/health").await.status, StatusCode::OK);
    };
    let not_ready = |names: &[&str], degraded: &[&str]| {
        json!({
            "error": format!("not ready: {}", names.join(", ")), "code": "NOT_READY", "waiting": names,
            "degraded": degraded
        })
    };
    expect(503, not_ready(&["cache", "trackers"], &[])).await;
    world.readiness.ready("cache");
    expect(503, not_ready(&["trackers"], &[])).await;
    world.readiness.ready("trackers");
    expect(200, json!({"status": "ready", "degraded": [], "reasons": {}})).await;
    world.readiness.degraded("redis", "no answer");
    expect(200, json!({"status": "ready", "degraded": ["redis"], "reasons": {"redis": "no answer"}})).await;
    for mode in [Mode::Away, Mode::Silent] {
        world.database.set_mode(mode);
        expect(503, not_ready(&["database"], &["redis"])).await;
    }
    world.database.set_mode(Mode::Up);
    world.readiness.recovered("redis");
    expect(200, json!({"status": "ready", "degraded": [], "reasons": {}})).await;
}

#[tokio::test]
async fn metrics_count_requests_by_route_not_by_path() {
    let world = world();
    world.get(&path()).await;
    world.get("/api/forecasts/x").await;
    world.get("/nowhere/at/all").await;
    world.send("BREW", "/api/forecasts", &[], "").await;
    let text = world.get("/metrics").await.text;
    for line in [
        "http_requests_total{method=\"GET\",status=\"200\"} 1",
        "http_requests_total{method=\"GET\",status=\"404\"} 2",
        "http_requests_total{method=\"other\",status=\"405\"} 1",
        "http_request_duration_seconds_count{method=\"GET\",path=\"/api/forecasts/{id}\"} 2",
        "http_request_duration_seconds_count{method=\"GET\",path=\"unmatched\"} 1",
        "cache_hits_total{level=\"L4\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_working_set_bytes"] {
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).map(str::parse::<f64>);
        assert!(value.is_some_and(|value| value.is_ok_and(|value| value >= 0.0)), "{name}");
    }
}
