//! Limits, compression, and the headers that every answer has.

use crate::common::{ID, World, admin, forecast, settings, token, world, world_with};
use serde_json::json;
use smartpulse_api::Role;

fn path() -> String {
    format!("/api/forecasts/{ID}")
}

async fn status(world: &World, headers: &[(&str, &str)]) -> u16 {
    world.send("GET", &path(), headers, "").await.status.as_u16()
}

#[tokio::test]
async fn a_user_that_calls_too_often_waits_and_is_told_how_long() {
    let mut settings = settings();
    settings.rate_limit.per_second = 1;
    settings.rate_limit.burst = 3;
    let world = world_with(settings);
    for _ in 0..3 {
        assert_eq!(status(&world, &[]).await, 200);
    }
    let refused = world.get(&path()).await;
    assert_eq!(refused.status.as_u16(), 429);
    assert_eq!(refused.text, r#"{"error":"you call too often","code":"TOO_MANY_REQUESTS"}"#);
    assert!(["1", "2"].contains(&refused.header("retry-after").unwrap()));
    assert_eq!(world.get("/health").await.status.as_u16(), 200);
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains("http_requests_shed_total{limit=\"rate\"} 1"), "{metrics}");
}

#[tokio::test]
async fn long_headers_paths_and_tokens_are_refused_in_json() {
    let world = world();
    let long = "x".repeat(8_192);
    let refused = world.send("GET", &path(), &[("x-long", &long)], "").await;
    assert_eq!(refused.status.as_u16(), 431);
    assert_eq!(refused.text, r#"{"error":"the headers are longer than 8 KiB","code":"HEADERS_TOO_LARGE"}"#);
    let refused = world.get(&format!("/api/forecasts?companyId={long}")).await;
    assert_eq!((refused.status.as_u16(), refused.json()["code"].clone()), (414, json!("URI_TOO_LONG")));
    let token = format!("Bearer {}", "x".repeat(7_500));
    let refused = world.send("GET", &path(), &[("authorization", &token)], "").await;
    assert_eq!(refused.text, r#"{"error":"a valid bearer token is required","code":"UNAUTHORIZED"}"#);
    assert_eq!(refused.status.as_u16(), 401);
}

#[tokio::test]
async fn long_answers_are_compressed_as_the_caller_likes_and_keep_their_tag_weakly() {
    let world = world();
    for n in 0..20 {
        world.database.set(&format!("0b0a1c60-0000-4000-8000-0000000001{n:02}"), forecast(n));
    }
    let plain = world.get("/api/forecasts").await;
    let tag = plain.header("etag").unwrap().to_owned();
    for encoding in ["gzip", "zstd", "br"] {
        let headers = [("accept-encoding", encoding), ("authorization", &admin())].map(|(n, v)| (n, v.to_owned()));
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let mut request = http::Request::get("/api/forecasts");
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(world.service.clone(), request).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], encoding);
        assert_eq!(response.headers()["etag"], format!("W/{tag}"));
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        assert!(body.len() < plain.text.len() / 3, "{encoding}: {} of {}", body.len(), plain.text.len());
        let known = world.send("GET", "/api/forecasts", &[("if-none-match", &format!("W/{tag}"))], "").await;
        assert_eq!(known.status.as_u16(), 304);
    }
    let short = world.send("GET", &path(), &[("accept-encoding", "gzip")], "").await;
    assert_eq!((short.header("content-encoding"), short.header("etag")), (None, Some("\"1\"")));
}

#[tokio::test]
async fn every_answer_is_safe_in_a_browser_and_only_reads_are_kept() {
    let world = world();
    for (path, kept) in
        [(path(), "max-age=60, private"), ("/api/nothing".into(), "no-store"), ("/health".into(), "no-store")]
    {
        let answer = world.get(&path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cache-control", kept),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
    }
    let read =
        world.send("GET", &path(), &[("authorization", &format!("Bearer {}", token(Role::Admin, &[])))], "").await;
    assert!(read.header("vary").unwrap().contains("authorization"));
}

#[tokio::test]
async fn pages_of_configured_origins_may_call_and_no_others() {
    let mut settings = settings();
    settings.cors_origins = vec!["https://app.example".to_owned()];
    let world = world_with(settings);
    let preflight =
        |origin: &'static str| [("authorization", ""), ("origin", origin), ("access-control-request-method", "PATCH")];
    let ours = world.send("OPTIONS", &path(), &preflight("https://app.example"), "").await;
    assert_eq!(ours.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(ours.header("access-control-allow-headers").unwrap().contains("authorization"));
    let methods = ours.header("access-control-allow-methods").unwrap();
    assert!(["GET", "POST", "PUT", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    let theirs = world.send("OPTIONS", &path(), &preflight("https://evil.example"), "").await;
    assert_eq!(theirs.header("access-control-allow-origin"), None);
    let read = world.send("GET", &path(), &[("origin", "https://app.example")], "").await;
    assert_eq!(read.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(read.header("access-control-expose-headers").unwrap().contains("etag"));
    let without = crate::common::world().send("GET", &path(), &[("origin", "https://app.example")], "").await;
    assert_eq!(without.header("access-control-allow-origin"), None);
}
