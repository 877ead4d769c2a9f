//! Bad input, and what it gets: status, code and text of every refusal.

use crate::common::support::Mode;
use crate::common::{ID, OTHER_ID, World, admin, settings, world, world_with};
use http::StatusCode;
use serde_json::{Value, json};
use smartpulse_config::ApiSettings;
use std::fmt::Display;

const JSON: (&str, &str) = ("content-type", "application/json");
const OPERATIONS: (&str, &str) = ("content-type", "application/json-patch+json");

struct Case {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

fn case(
    method: &'static str,
    path: impl Into<String>,
    headers: &[(&'static str, &'static str)],
    body: impl Display,
) -> Case {
    Case { method, path: path.into(), headers: headers.to_vec(), body: body.to_string() }
}

async fn check(world: &World, case: Case, status: u16, expected: Value) {
    let answer = world.send(case.method, &case.path, &case.headers, case.body.clone()).await;
    let label = format!("{} {} {}", case.method, case.path, case.body.chars().take(80).collect::<String>());
    assert_eq!(answer.status.as_u16(), status, "{label}: {}", answer.text);
    assert_eq!(answer.json(), expected, "{label}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{label}");
    assert_eq!(answer.header("retry-after").is_some(), status == 503, "{label}");
}

fn refused(code: &str, error: &str) -> Value {
    json!({"error": error, "code": code})
}

fn invalid(fields: &[(&str, &str)]) -> Value {
    let text: Vec<String> = fields
        .iter()
        .map(|(field, error)| format!("{} {error}", if field.is_empty() { "body" } else { field }))
        .collect();
    let fields: Vec<Value> = fields.iter().map(|(field, error)| json!({"field": field, "error": error})).collect();
    json!({"error": text.join("; "), "code": "VALIDATION_FAILED", "fields": fields})
}

fn path() -> String {
    format!("/api/forecasts/{ID}")
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist() {
    let world = world();
    let absent = refused("FORECAST_NOT_FOUND", "there is no such forecast");
    for id in [OTHER_ID, "7", "%FF", "0b0a1c60000040008000000000000001", "..%2F..%2Fetc"] {
        check(&world, case("GET", format!("/api/forecasts/{id}"), &[], ""), 404, absent.clone()).await;
        check(&world, case("DELETE", format!("/api/forecasts/{id}"), &[], ""), 404, absent.clone()).await;
        check(&world, case("PATCH", format!("/api/forecasts/{id}"), &[JSON], r#"{"demand":1}"#), 404, absent.clone())
            .await;
        let add = r#"[{"op":"replace","path":"/demand","value":1}]"#;
        check(&world, case("PATCH", format!("/api/forecasts/{id}"), &[OPERATIONS], add), 404, absent.clone()).await;
    }
    let nothing = refused("NOT_FOUND", "there is nothing at this path");
    for path in ["/", "/api", "/api/forecasts/", "/api/nothing", "/health/"] {
        check(&world, case("GET", path, &[], ""), 404, nothing.clone()).await;
    }
    let other = refused("METHOD_NOT_ALLOWED", "this path does not take this method");
    for (method, path) in [("PUT", path()), ("DELETE", "/api/forecasts".into()), ("POST", "/health".into())] {
        let allowed = world.send(method, &path, &[], "").await;
        assert!(allowed.header("allow").is_some_and(|methods| methods.contains("GET")), "{method} {path}");
        check(&world, case(method, path, &[], ""), 405, other.clone()).await;
    }
}

#[tokio::test]
async fn bodies_of_other_types_or_sizes() {
    let world = world();
    for (method, path, accepted) in [
        ("POST", "/api/forecasts".to_owned(), "application/json"),
        ("PATCH", path(), "application/json, application/merge-patch+json, application/json-patch+json"),
    ] {
        let wrong = refused("UNSUPPORTED_MEDIA_TYPE", &format!("the body must be of type {accepted}"));
        for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/jsonx")]] {
            check(&world, case(method, path.clone(), headers, "{}"), 415, wrong.clone()).await;
        }
        let long = refused("PAYLOAD_TOO_LARGE", "the body is longer than 10000 bytes");
        let body = format!("{{\"status\":\"{}\"}}", "x".repeat(10_000));
        check(&world, case(method, path.clone(), &[JSON], &body), 413, long.clone()).await;
        check(&world, case(method, path.clone(), &[JSON, ("content-length", "10001")], ""), 413, long).await;
        for (body, error) in [
            ("", "is not JSON: expected a value at byte 0"),
            ("{\"demand\":", "is not JSON: expected a value at byte 10"),
            ("{\"demand\":1,\"demand\":2}", "is not JSON: duplicate member `demand` at byte 12"),
            ("{\"demand\":1e400}", "is not JSON: number out of range at byte 10"),
            ("[]", "must be a JSON object"),
            ("null", "must be a JSON object"),
        ] {
            check(&world, case(method, path.clone(), &[JSON], body), 400, invalid(&[("", error)])).await;
        }
    }
}

#[tokio::test]
async fn values_that_cannot_be() {
    let world = world();
    check(
        &world,
        case("POST", "/api/forecasts", &[JSON], json!({"companyId": "x", "demand": "1", "confidence": 2, "colour": 1})),
        400,
        invalid(&[
            ("companyId", "must be a UUID"),
            ("productionUnitId", "is required"),
            ("forecastDate", "is required"),
            ("demand", "must be a number"),
            ("confidence", "must be a number from 0 to 1"),
            ("colour", "is not a known member"),
        ]),
    )
    .await;
    check(
        &world,
        case("PATCH", path(), &[JSON], json!({"demand": null, "companyId": ID, "variance": 1})),
        400,
        invalid(&[
            ("demand", "must be a number"),
            ("companyId", "cannot be changed"),
            ("variance", "cannot be changed"),
        ]),
    )
    .await;
    check(
        &world,
        case("GET", "/api/forecasts?take=0&skip=x&companyId=1&from=yesterday&page=1&take=1", &[], ""),
        400,
        invalid(&[
            ("take", "must be an integer from 1 to 500"),
            ("skip", "must be an integer from 0 to 4294967295"),
            ("companyId", "must be a UUID"),
            ("from", "must be an RFC 3339 time"),
            ("page", "is not a known parameter"),
            ("take", "is given more than once"),
        ]),
    )
    .await;
    for (operations, status, expected) in [
        (json!([{"op": "replace", "path": "/id", "value": 1}]), 400, invalid(&[("id", "cannot be changed")])),
        (json!([{"op": "remove", "path": "/demand"}]), 400, invalid(&[("demand", "must be a number")])),
        (json!([{"op": "remove", "path": ""}]), 400, invalid(&[("", "must leave a JSON object")])),
        (json!([{"op": "replace", "path": "", "value": 7}]), 400, invalid(&[("", "must leave a JSON object")])),
        (json!([{"op": "leap", "path": "/demand"}]), 400, Value::Null),
        (json!({"op": "remove", "path": "/demand"}), 400, Value::Null),
        (
            json!([{"op": "test", "path": "/demand", "value": 1}, {"op": "replace", "path": "/demand", "value": 2}]),
            409,
            refused("CONFLICT", "operation 0: test failed at path `/demand`"),
        ),
        (
            json!([{"op": "replace", "path": "/absent", "value": 2}]),
            409,
            refused("CONFLICT", "operation 0: nothing at path `/absent`"),
        ),
    ] {
        let case = case("PATCH", path(), &[OPERATIONS], &operations);
        if expected.is_null() {
            let answer = world.send(case.method, &case.path, &case.headers, case.body).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.json()["code"]),
                (status, &json!("VALIDATION_FAILED")),
                "{operations}"
            );
        } else {
            check(&world, case, status, expected).await;
        }
    }
    assert_eq!(world.database.row(ID).unwrap().version, 1, "nothing of all this was written");
}

#[tokio::test]
async fn preconditions_that_do_not_hold() {
    let world = world();
    let stale = refused("PRECONDITION_FAILED", "the forecast has another version than If-Match says");
    for tag in ["\"7\"", "W/\"1\"", "1", "\"7\", \"8\""] {
        for (method, headers, body) in [
            ("PATCH", vec![JSON], r#"{"demand":1}"#),
            ("PATCH", vec![JSON], "{}"),
            ("PATCH", vec![OPERATIONS], r#"[{"op":"replace","path":"/demand","value":1}]"#),
            ("DELETE", vec![], ""),
        ] {
            let headers: Vec<_> = headers.into_iter().chain([("if-match", tag)]).collect();
            check(&world, case(method, path(), &headers, body), 412, stale.clone()).await;
        }
    }
    assert_eq!(world.database.row(ID).unwrap().version, 1);
}

#[tokio::test]
async fn without_the_database_only_what_is_held_is_answered_and_marked() {
    let world = world();
    world.get(&path()).await;
    world.get("/api/forecasts").await;
    world.cache.lost();
    world.database.set_mode(Mode::Away);
    for path in [path(), "/api/forecasts".to_owned()] {
        let answer = world.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("x-cache-stale"), Some("true"), "{path}");
        assert_eq!(answer.header("warning"), Some("110 - \"Response is Stale\""), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache, private"), "{path}");
        assert_eq!(answer.header("x-cache-hit"), Some("true"), "{path}");
    }
    let batch = world.send("POST", "/api/forecasts/query", &[JSON], json!({ "ids": [ID] }).to_string()).await;
    assert_eq!((batch.status, batch.json()["items"][0]["id"].clone()), (StatusCode::OK, json!(ID)));
    let marks = ["x-cache-stale", "warning", "cache-control"].map(|name| batch.header(name).unwrap());
    assert_eq!(marks, ["true", "110 - \"Response is Stale\"", "no-cache, private"]);
    let away = refused("DATABASE_UNAVAILABLE", "the database does not answer");
    let new = json!({
        "companyId": ID, "productionUnitId": ID, "forecastDate": "2026-01-01T00:00:00Z", "demand": 1, "confidence": 1
    });
    for case in [
        case("GET", format!("/api/forecasts/{OTHER_ID}"), &[], ""),
        case("GET", "/api/forecasts?skip=1", &[], ""),
        case("POST", "/api/forecasts", &[JSON], new),
        case("PATCH", path(), &[JSON], r#"{"demand":1}"#),
        case("PATCH", path(), &[JSON], "{}"),
        case("DELETE", path(), &[], ""),
    ] {
        check(&world, case, 503, away.clone()).await;
    }
}

#[tokio::test]
async fn over_the_limit_requests_are_refused_at_once_and_health_is_not() {
    let world = world_with(ApiSettings { concurrency_max: 1, ..settings() });
    world.readiness.ready("cache");
    world.readiness.ready("trackers");
    world.database.hold_answers(true);
    let service = world.service.clone();
    let slow = tokio::spawn(async move {
        let request =
            http::Request::get(path()).header("authorization", admin()).body(axum::body::Body::empty()).unwrap();
        tower::ServiceExt::oneshot(service, request).await.unwrap().status()
    });
    let held = world.database.next_held().await;
    let busy = refused("OVERLOADED", "too many requests are under way");
    check(&world, case("GET", path(), &[], ""), 503, busy.clone()).await;
    // The limit is the server's, not the connection's: every request here goes through a clone.
    check(&world, case("GET", "/api/forecasts", &[], ""), 503, busy).await;
    world.database.hold_answers(false);
    for path in ["/health", "/health/ready", "/metrics"] {
        assert_eq!(world.get(path).await.status, StatusCode::OK, "{path}");
    }
    held.release();
    assert_eq!(slow.await.unwrap(), StatusCode::OK);
    assert_eq!(world.get(&path()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let world = world_with(ApiSettings { request_timeout_ms: 20, ..settings() });
    world.database.hold_answers(true);
    let late = refused("TIMEOUT", "the request was not done in time");
    check(&world, case("GET", path(), &[], ""), 503, late).await;
}
