//! Live changes: what a stream begins with, how it goes on, where it resumes, when it ends.

mod server;

use crate::common::{COMPANY, ID, OTHER_COMPANY, OTHER_ID, settings};
use async_trait::async_trait;
use futures::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::{PATIENCE, bearer, delete, insert, of, set, start, start_on};
use smartpulse_api::Role;
use smartpulse_clients::bus::{Bus, Consumer, Outgoing, Subscribe};
use smartpulse_pipeline::Event;
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_whole_documents_and_goes_on_with_patches_of_its_companies() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), settings()).await;
    server.insert(ID, COMPANY).await;
    server.insert(OTHER_ID, OTHER_COMPANY).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let mut mine = server.stream("/api/changes", &viewer, None).await;
    let mut named = server.stream(&format!("/api/changes?companyId={COMPANY}"), &viewer, None).await;
    let mut one = server.stream(&of(ID), &viewer, None).await;
    let mut all = server.stream("/api/changes", &bearer(Role::Admin, &[]), None).await;
    for client in [&mut mine, &mut named, &mut one] {
        client.hears(&[(ID, "1 replace ")]).await;
    }
    let begun = [all.next().await.unwrap().0, all.next().await.unwrap().0];
    assert!(begun.contains(&ID.to_owned()) && begun.contains(&OTHER_ID.to_owned()));

    server.set(OTHER_ID, "demand", json!(1)).await;
    server.set(ID, "demand", json!(2)).await;
    server.set(ID, "companyId", json!(OTHER_COMPANY)).await;
    server.set(OTHER_ID, "companyId", json!(COMPANY)).await;
    all.hears(&[(OTHER_ID, "2 replace /demand"), (ID, "2 replace /demand"), (ID, "3 replace /companyId")]).await;
    for client in [&mut mine, &mut named] {
        client.hears(&[(ID, "2 replace /demand"), (ID, "3 remove "), (OTHER_ID, "3 replace ")]).await;
    }
    one.hears(&[(ID, "2 replace /demand"), (ID, "3 remove ")]).await;
    server.end().await;
    for client in [&mut mine, &mut named, &mut one] {
        assert_eq!(client.next().await, None, "the end of the server is the end of the stream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_nothing_is_told_nothing_whoever_began_a_stream_just_before() {
    let none = bearer(Role::Viewer, &[]);
    let all = bearer(Role::Admin, &[]);
    for all_first in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings();
        settings.streams.heartbeat_ms = 100;
        let server = start(folder.path(), settings).await;
        server.insert(ID, COMPANY).await;
        let told_all = async || server.stream("/api/changes", &all, None).await.hears(&[(ID, "1 replace ")]).await;
        let told_none = async || {
            let mut client = server.stream("/api/changes", &none, None).await;
            let mut text = String::new();
            while !text.ends_with("\n:\n\n") {
                let chunk = timeout(PATIENCE, client.body.next()).await.expect("a heartbeat in time").unwrap().unwrap();
                text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
            assert_eq!(text, "retry: 1000\n\n:\n\n", "all first: {all_first}");
        };
        if all_first {
            told_all().await;
            told_none().await;
        } else {
            told_none().await;
            told_all().await;
        }
        server.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_resumes_with_every_version_once_over_restarts_too() {
    let folder = tempfile::tempdir().unwrap();
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let server = start(folder.path(), settings()).await;
    server.insert(ID, COMPANY).await;
    let mut client = server.stream("/api/changes", &viewer, None).await;
    client.hears(&[(ID, "1 replace ")]).await;
    server.set(ID, "demand", json!(1)).await;
    client.hears(&[(ID, "2 replace /demand")]).await;
    let cursor = client.cursor.take().unwrap();
    drop(client);
    for demand in 2..5 {
        server.set(ID, "demand", json!(demand)).await;
    }
    let missed = [(ID, "3 replace /demand"), (ID, "4 replace /demand"), (ID, "5 replace /demand")];
    server.stream("/api/changes", &viewer, Some(&cursor)).await.hears(&missed).await;
    let asked = format!("/api/changes?lastEventId={cursor}");
    server.stream(&asked, &viewer, None).await.hears(&missed).await;
    server.stream(&of(ID), &viewer, Some(&cursor)).await.hears(&missed).await;
    // A cursor of nowhere: one whole document per forecast.
    for unknown in ["ffff", "", "no cursor at all"] {
        server.stream(&of(ID), &viewer, Some(unknown)).await.hears(&[(ID, "5 replace ")]).await;
    }
    server.end().await;

    let server = start(folder.path(), settings()).await;
    let mut client = server.stream("/api/changes", &viewer, Some(&cursor)).await;
    client.hears(&missed).await;
    server.set(ID, "demand", json!(9)).await;
    client.hears(&[(ID, "6 replace /demand")]).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_too_slow_is_told_and_starts_over_with_whole_documents() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.streams.retained = 3;
    let server = start(folder.path(), settings).await;
    server.insert(ID, COMPANY).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let mut slow = server.stream(&of(ID), &viewer, None).await;
    slow.hears(&[(ID, "1 replace ")]).await;
    let mut quick = server.stream(&of(ID), &viewer, None).await;
    quick.hears(&[(ID, "1 replace ")]).await;
    for version in 2..=8 {
        server.set(ID, "demand", json!(version)).await;
        quick.hears(&[(ID, &format!("{version} replace /demand"))]).await;
    }
    slow.hears(&[("behind", ""), (ID, "8 replace ")]).await;
    server.set(ID, "demand", json!(99)).await;
    slow.hears(&[(ID, "9 replace /demand")]).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_stream_once_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), settings()).await;
    server.insert(ID, COMPANY).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let ticket = async || {
        let response = server.ask("POST", "/api/tickets", &viewer, None).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["expiresAt"].is_string());
        body["ticket"].as_str().unwrap().to_owned()
    };
    let good = format!("/api/changes?ticket={}", ticket().await);
    let mut client = server.stream(&good, "", None).await;
    client.hears(&[(ID, "1 replace ")]).await;
    let other = format!("/api/forecasts/{ID}?ticket={}", ticket().await);
    for path in [good.as_str(), "/api/changes", "/api/changes?ticket=", "/api/changes?ticket=x", &other] {
        assert_eq!(server.ask("GET", path, "", None).await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let foreign = format!("/api/changes?companyId={OTHER_COMPANY}&ticket={}", ticket().await);
    assert_eq!(server.ask("GET", &foreign, "", None).await.status(), StatusCode::FORBIDDEN);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_that_it_lives_and_there_are_not_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.streams.heartbeat_ms = 20;
    settings.streams.clients_max = 1;
    let server = start(folder.path(), settings).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let mut client = server.stream("/api/changes", &viewer, None).await;
    let mut text = String::new();
    while !text.contains("\n:\n\n") {
        text.push_str(std::str::from_utf8(&client.body.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.starts_with("retry: 1000\n\n"), "{text}");
    let refused = server.ask("GET", "/api/changes", &viewer, None).await;
    assert_eq!(
        (refused.status(), refused.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    let metrics = server.ask("GET", "/metrics", "", None).await.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&metrics).contains("http_requests_shed_total{limit=\"streams\"} 1"));
    drop(client);
    // The place is free again.
    drop(server.stream("/api/changes", &viewer, None).await);
    server.end().await;
}

const THIRD_ID: &str = "0b0a1c60-0000-4000-8000-000000000003";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_resumes_where_versions_would_come_again_that_the_whole_documents_had() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), settings()).await;
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    server.insert(ID, COMPANY).await;
    let mut before = server.stream("/api/changes", &viewer, None).await;
    before.hears(&[(ID, "1 replace ")]).await;
    for demand in 1..5 {
        server.set(ID, "demand", json!(demand)).await;
    }
    for version in 2..=5 {
        before.hears(&[(ID, &format!("{version} replace /demand"))]).await;
    }
    assert!(before.cursor.is_some());
    // Capture is behind: these are read before they are heard.
    let mut late = vec![server.commit(insert(OTHER_ID, COMPANY)).await];
    for demand in 5..8 {
        late.push(server.commit(set(ID, "demand", json!(demand))).await);
    }
    late.push(server.commit(delete(OTHER_ID)).await);
    // Nobody has read just these before.
    let mut one = server.stream(&of(ID), &viewer, None).await;
    let mut all = server.stream("/api/changes", &bearer(Role::Admin, &[]), None).await;
    for client in [&mut one, &mut all] {
        client.hears(&[(ID, "8 replace ")]).await;
        assert_eq!(client.cursor, None, "what comes next is older");
    }
    for event in &late {
        server.publish(event).await;
    }
    all.hears(&[(OTHER_ID, "1 add "), (OTHER_ID, "2 remove ")]).await;
    assert_eq!(all.cursor, None, "who breaks off here would hear 6, 7 and 8 after 8");
    server.set(ID, "demand", json!(9)).await;
    for client in [&mut one, &mut all] {
        client.hears(&[(ID, "9 replace /demand")]).await;
    }
    server.set(ID, "demand", json!(10)).await;
    for (path, client) in [(of(ID), one), ("/api/changes".to_owned(), all)] {
        let cursor = client.cursor.expect("everything that was read is behind");
        drop(client.body);
        server.stream(&path, &viewer, Some(&cursor)).await.hears(&[(ID, "10 replace /demand")]).await;
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_and_a_delete_are_told_though_nothing_was_heard_of_the_forecast_before() {
    let folder = tempfile::tempdir().unwrap();
    let viewer = bearer(Role::Viewer, &[COMPANY]);
    let server = start(folder.path(), settings()).await;
    for id in [ID, THIRD_ID] {
        server.commit(insert(id, COMPANY)).await;
    }
    let mut client = server.stream("/api/changes", &viewer, None).await;
    let begun = [client.next().await.unwrap().0, client.next().await.unwrap().0];
    assert!(begun.contains(&ID.to_owned()) && begun.contains(&THIRD_ID.to_owned()));
    server.insert(OTHER_ID, COMPANY).await;
    server.set(OTHER_ID, "demand", json!(1)).await;
    client.hears(&[(OTHER_ID, "1 add "), (OTHER_ID, "2 replace /demand")]).await;
    // What a snapshot has told of is known.
    server.set(ID, "companyId", json!(OTHER_COMPANY)).await;
    client.hears(&[(ID, "2 remove ")]).await;
    let cursor = client.cursor.clone();
    server.set(ID, "companyId", json!(COMPANY)).await;
    client.hears(&[(ID, "3 replace ")]).await;
    server.commit(set(ID, "demand", json!(4))).await;
    server.end().await;

    // Nobody has told this server of the third.
    let server = start(folder.path(), settings()).await;
    let mut client = server.stream("/api/changes", &viewer, cursor.as_deref()).await;
    client.hears(&[(ID, "3 replace ")]).await;
    let event = server.commit(delete(THIRD_ID)).await;
    server.publish(&Event { document: None, ..event }).await;
    client.hears(&[(THIRD_ID, "2 remove ")]).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_company_shows_that_it_lives_while_others_are_busy() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.streams.heartbeat_ms = 500;
    let server = start(folder.path(), settings).await;
    server.insert(OTHER_ID, OTHER_COMPANY).await;
    let mut quiet = server.stream("/api/changes", &bearer(Role::Viewer, &[COMPANY]), None).await;
    let busy = async {
        for demand in 1.. {
            server.set(OTHER_ID, "demand", json!(demand)).await;
        }
    };
    let beats = async {
        let mut text = String::new();
        while text.lines().filter(|line| *line == ":").count() < 3 {
            let chunk = timeout(PATIENCE, quiet.body.next()).await.expect("a heartbeat in time").unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    tokio::select! {
        () = busy => {}
        () = beats => {}
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_paused_holder_of_the_lease_publishes_late_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), settings()).await;
    server.insert(ID, COMPANY).await;
    let mut client = server.stream(&of(ID), &bearer(Role::Admin, &[]), None).await;
    client.hears(&[(ID, "1 replace ")]).await;
    let [second, third, fourth] = [1, 2, 3].map(|demand| server.commit(set(ID, "demand", json!(demand))));
    let (second, third, fourth) = (second.await, third.await, fourth.await);
    server.publish(&Event { epoch: 2, ..second }).await;
    server.publish(&Event { epoch: 1, ..third }).await;
    server.publish(&Event { epoch: 2, ..fourth }).await;
    client.hears(&[(ID, "2 replace /demand"), (ID, "4 replace ")]).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_share_a_bus_hear_each_of_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |instance: &str| {
        let mut settings = settings();
        settings.streams.instance = instance.to_owned();
        settings
    };
    let one = start(folder.path(), settings("api-0")).await;
    let other = start_on(Arc::clone(&one.bus), folder.path(), settings("api-1")).await;
    let admin = bearer(Role::Admin, &[]);
    let mut clients =
        [one.stream("/api/changes", &admin, None).await, other.stream("/api/changes", &admin, None).await];
    one.insert(ID, COMPANY).await;
    for client in &mut clients {
        client.hears(&[(ID, "1 add ")]).await;
    }
    one.end().await;
    other.end().await;
}

/// A bus that never answers.
struct Silent;

#[async_trait]
impl Bus for Silent {
    async fn ping(&self) -> Result<()> {
        std::future::pending().await
    }

    async fn publish(&self, _: &str, _: Vec<Outgoing>) -> Result<()> {
        std::future::pending().await
    }

    async fn subscribe(&self, _: Subscribe) -> Result<Box<dyn Consumer>> {
        std::future::pending().await
    }

    async fn create_subscription(&self, _: &Subscribe) -> Result<()> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn while_the_bus_is_away_streams_are_refused_soon_and_take_nobodys_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.concurrency_max = 1;
    let server = start_on(Arc::new(Silent), folder.path(), settings).await;
    let admin = bearer(Role::Admin, &[]);
    let path = "/api/forecasts";
    let began = Instant::now();
    let (stream, read) = tokio::join!(server.ask("GET", "/api/changes", &admin, None), async {
        tokio::task::yield_now().await;
        server.ask("GET", path, &admin, None).await.status()
    });
    assert_eq!((stream.status(), read), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
    assert_eq!(stream.headers()["retry-after"], "1");
    let body = stream.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("CHANGES_UNAVAILABLE"));
    assert!(began.elapsed() < Duration::from_secs(8), "less than the time of a request");
    server.end().await;
}
