//! Each answer of a Web Push service, and endpoints that must not be called.

use crate::place::{Place, TIMEOUT_MS, USER, id, message};
use crate::server::{Answer, Server};
use reqwest::dns::{Name, Resolve};
use smartpulse_push::endpoint::{PublicOnly, Reach};
use smartpulse_push::{DeviceType, Outcome, Push, SendPush};
use smartpulse_testing::within;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_request_says_all_that_the_rfcs_ask_for() {
    let (place, server) = (Place::new().await, Server::start(&[]).await);
    place.browser(1, USER, &server.url("/push/secret")).await;
    let pusher = place.web_push();
    assert_eq!(place.tell(&pusher, &message(1)).await, Outcome::Sent);
    let seen = server.seen();
    let header = |name: &str| seen[0].headers.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(seen[0].path, "/push/secret");
    assert_eq!((header("ttl"), header("urgency"), header("topic")), ("600", "high", "forecast-1"));
    assert_eq!((header("content-encoding"), header("content-type")), ("aes128gcm", "application/octet-stream"));
    let key = format!(",k={}", place.keys.public_key);
    assert!(header("authorization").starts_with("vapid t=") && header("authorization").ends_with(&key));
    assert_eq!(seen[0].body.len(), header("content-length").parse::<usize>().unwrap());
    assert!(!String::from_utf8_lossy(&seen[0].body).contains("Forecast"));
}

async fn check(answer: Answer, expected: impl Fn(&Outcome) -> bool, kept: bool) {
    let (place, server) = (Place::new().await, Server::start(&[answer]).await);
    place.browser(1, USER, &server.url("/x")).await;
    let outcome = place.tell(&place.web_push(), &message(1)).await;
    assert!(expected(&outcome), "{outcome:?}");
    assert_eq!(place.devices().await.len(), usize::from(kept), "{outcome:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_message_that_is_taken_is_sent() {
    for status in [200, 201, 202, 204] {
        check(Answer::status(status), |outcome| *outcome == Outcome::Sent, true).await;
    }
}

#[tokio::test]
async fn a_device_that_is_gone_is_removed() {
    for status in [404, 410] {
        check(Answer::status(status), |outcome| matches!(outcome, Outcome::Gone(_)), false).await;
    }
}

#[tokio::test]
async fn what_can_never_succeed_is_refused() {
    let says = |outcome: &Outcome, what: &str| matches!(outcome, Outcome::Refused(why) if why.contains(what));
    check(Answer::status(400), move |outcome| says(outcome, "400"), true).await;
    check(Answer::status(401), move |outcome| says(outcome, "VAPID"), true).await;
    check(Answer::status(403), move |outcome| says(outcome, "VAPID"), true).await;
    check(Answer::status(413), move |outcome| says(outcome, "too long"), true).await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::start(&[]).await;
    let location: &'static str = Box::leak(format!("location: {}\r\n", elsewhere.url("/")).into_boxed_str());
    for status in [301, 302, 307, 308] {
        let answer = Answer::Reply(status, location, String::new());
        check(answer, |outcome| matches!(outcome, Outcome::Refused(_)), true).await;
    }
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn what_may_succeed_later_says_when() {
    let after = |outcome: &Outcome, seconds: Option<u64>| match outcome {
        Outcome::Later { after, .. } => *after == seconds.map(Duration::from_secs),
        _ => false,
    };
    let reply = |status, headers| Answer::Reply(status, headers, String::new());
    check(reply(429, "retry-after: 7\r\n"), move |outcome| after(outcome, Some(7)), true).await;
    check(reply(429, "retry-after: 9999\r\n"), move |outcome| after(outcome, Some(60)), true).await;
    check(reply(503, "retry-after: 3\r\n"), move |outcome| after(outcome, Some(3)), true).await;
    for status in [429, 500, 502, 503, 504] {
        check(Answer::status(status), move |outcome| after(outcome, None), true).await;
    }
}

#[tokio::test]
async fn silence_and_cuts_are_tried_again() {
    let says = |outcome: &Outcome, what: &str| matches!(outcome, Outcome::Later { reason, .. } if reason == what);
    check(Answer::Cut, move |outcome| says(outcome, "the connection was cut"), true).await;
    let started = Instant::now();
    check(Answer::Silence, move |outcome| says(outcome, "time-out"), true).await;
    assert!(started.elapsed() >= Duration::from_millis(TIMEOUT_MS));
}

#[tokio::test]
async fn a_service_that_is_away_costs_three_calls_and_is_found_again() {
    let place = Place::new().await;
    let free = Server::start(&[]).await;
    free.script.lock().unwrap().extend(vec![Answer::status(503); 3]);
    place.browser(1, USER, &free.url("/x")).await;
    let pusher = place.web_push();
    for _ in 0..20 {
        place.tell(&pusher, &message(1)).await;
    }
    assert_eq!(free.seen().len(), 3);
    let found = async {
        while place.tell(&pusher, &message(1)).await != Outcome::Sent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("a probe", found).await;
    assert_eq!(free.seen().len(), 4);
}

#[tokio::test]
async fn a_device_is_told_a_message_once() {
    let (place, server) = (Place::new().await, Server::start(&[]).await);
    place.browser(1, USER, &server.url("/x")).await;
    let pusher = place.web_push();
    for number in [1, 1, 2] {
        assert_eq!(place.tell(&pusher, &message(number)).await, Outcome::Sent);
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn subscriptions_that_can_never_be_used_are_removed_uncalled() {
    let place = Place::new().await;
    let inner = Server::start(&[]).await;
    let endpoint = |endpoint: &str| {
        serde_json::json!({"endpoint": endpoint, "keys": {"p256dh": crate::place::P256DH, "auth": crate::place::AUTH}})
            .to_string()
    };
    let port = inner.address.port();
    let pusher = place.strict(Arc::new(|_| panic!("no name is looked up")));
    for (number, subscription) in [
        "no json".to_owned(),
        r#"{"endpoint":"https://push.example/x","keys":{"p256dh":"AA","auth":"AA"}}"#.to_owned(),
        endpoint("http://push.example/x"),
        endpoint("https://push.example:8443/x"),
        endpoint("https://169.254.169.254/latest/meta-data"),
        endpoint("https://[::ffff:127.0.0.1]/x"),
        endpoint("https://[64:ff9b::a9fe:a9fe]/x"),
        endpoint("https://100.64.0.1/x"),
        endpoint(&format!("http://127.0.0.1:{port}/x")),
        endpoint(&format!("https://localhost:{port}/x")),
    ]
    .into_iter()
    .enumerate()
    {
        place.register(number as u64, USER, 0, &subscription).await;
        let outcome = place.tell(&pusher, &message(1)).await;
        assert!(matches!(outcome, Outcome::Gone(_)), "{subscription}: {outcome:?}");
        assert_eq!(place.devices().await, []);
    }
    assert_eq!(inner.seen().len(), 0);
}

#[tokio::test]
async fn a_name_that_resolves_to_an_address_of_ours_is_never_connected_to() {
    let place = Place::new().await;
    for (number, addresses) in [
        vec!["127.0.0.1"],
        vec!["169.254.169.254"],
        vec!["::ffff:127.0.0.1"],
        vec!["64:ff9b::7f00:1"],
        vec!["100.64.0.1"],
        // Not beside a public one either.
        vec!["8.8.8.8", "10.0.0.1"],
    ]
    .into_iter()
    .enumerate()
    {
        let found: Vec<SocketAddr> = addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443)).collect();
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lookups);
        let pusher = place.strict(Arc::new(move |host| {
            assert_eq!(host, "push.example");
            counted.fetch_add(1, Ordering::Relaxed);
            let found = found.clone();
            Box::pin(async move { Ok(found) })
        }));
        let number = number as u64 + 1;
        place.browser(number, USER, "https://push.example/x").await;
        let outcome = place.tell(&pusher, &message(number)).await;
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("not public")), "{addresses:?}: {outcome:?}");
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
        place.delivery.remove_device(id(number)).await.unwrap();
    }
}

/// Whoever answers for the name says a public address at first, and ours when asked again. Each connection asks, through this
/// resolver and no other, and gets what was checked.
#[tokio::test]
async fn a_name_that_changes_between_looks_gains_nothing() {
    let looks = Arc::new(AtomicUsize::new(0));
    let resolver = PublicOnly::new(
        Arc::new(move |_| {
            let first = looks.fetch_add(1, Ordering::Relaxed) == 0;
            let ip = if first { "8.8.8.8" } else { "127.0.0.1" };
            Box::pin(async move { Ok(vec![SocketAddr::new(ip.parse().unwrap(), 443)]) })
        }),
        Reach::Public,
    );
    let name = || "rebinds.example".parse::<Name>().unwrap();
    let found: Vec<String> = resolver.resolve(name()).await.unwrap().map(|address| address.ip().to_string()).collect();
    assert_eq!(found, ["8.8.8.8"]);
    for _ in 0..3 {
        let refused = resolver.resolve(name()).await.err().unwrap();
        assert_eq!(refused.to_string(), "the endpoint's address 127.0.0.1 is not public");
    }
}

#[tokio::test]
async fn a_request_of_the_api_tells_all_devices_and_sums_up() {
    let place = Place::new().await;
    let good = Server::start(&[]).await;
    let shy = Server::start(&[Answer::status(500), Answer::status(429)]).await;
    let gone = Server::start(&[Answer::status(410)]).await;
    let away = Server::start(&vec![Answer::status(500); 10]).await;
    for (number, server) in [(1, &good), (2, &shy), (3, &gone), (4, &away)] {
        place.browser(number, USER, &server.url("/x")).await;
    }
    place.register(5, USER, 1, "an app").await;
    let (title, body, device_type) = ("t".to_owned(), "b".to_owned(), DeviceType::Both);
    let request = SendPush { user_id: id(USER), title, body, device_type };
    let report = place.web_push().send(&request).await.unwrap();
    let results: Vec<_> = report.results.iter().map(|result| (result.device_id, result.status)).collect();
    assert_eq!((report.sent, report.failed), (2, 2));
    assert_eq!(results, [(id(1), "sent"), (id(2), "sent"), (id(3), "gone"), (id(4), "failed")]);
    assert_eq!(shy.seen().len(), 3);
    let tries = away.seen();
    assert_eq!(tries.len(), 5);
    for (waited, pair) in [100, 200, 400, 800].into_iter().zip(tries.windows(2)) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(waited));
    }
    let apps = SendPush { device_type: DeviceType::Fcm, ..request };
    assert_eq!(place.web_push().send(&apps).await.unwrap().results, [], "FCM is not set up");
}
