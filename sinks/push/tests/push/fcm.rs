//! FCM and its issuer of tokens: what they are sent, held to FCM's published schema, and what each answer does.

use crate::place::{Place, USER, message};
use crate::server::{Answer, Server};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use smartpulse_push::Outcome;
use smartpulse_testing::{python_with, run};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A service account of an issuer on this machine, and its public key.
fn account(issuer: &Server) -> (Value, String) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = |what: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
    };
    let account = json!({
        "type": "service_account", "project_id": "forecasts-1", "client_email": "push@forecasts-1.example",
        "private_key": pem("PRIVATE KEY", private.as_ref()), "token_uri": issuer.url("/token"),
    });
    (account, pem("PUBLIC KEY", public.as_ref()))
}

fn granted(token: &str, seconds: u64) -> Answer {
    let body = json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"});
    Answer::Reply(200, "content-type: application/json\r\n", body.to_string())
}

/// FCM's error, as it is documented.
fn refused(status: u16, code: &str, detail: &Value) -> Answer {
    let body = json!({"error": {"code": status, "message": "no", "status": code, "details": [detail]}});
    Answer::Reply(status, "content-type: application/json\r\n", body.to_string())
}

fn fcm_error(code: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
}

/// What `projects.messages.send` takes, as far as it is used: anything else is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    message: Message,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    token: String,
    notification: Notification,
    data: BTreeMap<String, String>,
    android: Android,
    apns: Apns,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notification {
    title: String,
    body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Android {
    priority: String,
    ttl: String,
    collapse_key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apns {
    headers: BTreeMap<String, String>,
    payload: Value,
}

struct Scene {
    place: Place,
    issuer: Server,
    fcm: Server,
    account: Value,
    public: String,
}

impl Scene {
    async fn new(script: &[Answer]) -> Self {
        let issuer = Server::start(&[granted("access-1", 3_600), granted("access-2", 3_600)]).await;
        let (account, public) = account(&issuer);
        let place = Place::new().await;
        place.register(1, USER, 1, "registration-token").await;
        Self { place, issuer, fcm: Server::start(script).await, account, public }
    }

    async fn tell(&self) -> Outcome {
        self.place.tell(&self.place.fcm(&self.account, &self.fcm), &message(1)).await
    }
}

#[tokio::test]
async fn a_message_keeps_to_the_published_schema() {
    let scene = Scene::new(&[Answer::status(200)]).await;
    assert_eq!(scene.tell().await, Outcome::Sent);
    let seen = scene.fcm.seen().remove(0);
    assert_eq!(seen.path, "/v1/projects/forecasts-1/messages:send");
    assert_eq!(seen.headers["authorization"], "Bearer access-1");
    assert_eq!(seen.headers["content-type"], "application/json");
    let Request { message: sent } = serde_json::from_slice(&seen.body).unwrap();
    let message = message(1);
    assert_eq!((sent.token.as_str(), sent.notification.title), ("registration-token", message.title));
    assert_eq!(sent.notification.body, message.body);
    assert_eq!(sent.data["id"], message.id.to_string());
    assert_eq!((sent.data["version"].as_str(), sent.data["url"].as_str()), ("7", message.url.as_deref().unwrap()));
    let Android { priority, ttl, collapse_key } = sent.android;
    assert_eq!((priority.as_str(), ttl.as_str(), collapse_key.as_str()), ("high", "600s", "forecast-1"));
    assert_eq!(
        (sent.apns.headers["apns-priority"].as_str(), sent.apns.headers["apns-collapse-id"].as_str()),
        ("10", "forecast-1")
    );
    assert!(sent.apns.headers["apns-expiration"].parse::<u64>().unwrap() > 1_700_000_000);
    assert!(sent.apns.payload["aps"].is_object());
}

#[tokio::test]
async fn a_token_is_asked_for_once_with_the_scope_that_sends() {
    let scene = Scene::new(&[]).await;
    let pusher = scene.place.fcm(&scene.account, &scene.fcm);
    for number in 1..=3 {
        assert_eq!(scene.place.tell(&pusher, &message(number)).await, Outcome::Sent);
    }
    assert_eq!((scene.issuer.seen().len(), scene.fcm.seen().len()), (1, 3));
    let asked = scene.issuer.seen().remove(0);
    assert_eq!(asked.headers["content-type"], "application/x-www-form-urlencoded");
    let Some(python) = python_with(env!("CARGO_TARGET_TMPDIR"), &crate::python::PACKAGES) else { return };
    let (form, key) = (scene.place.folder.path().join("form"), scene.place.folder.path().join("key"));
    std::fs::write(&form, &asked.body).unwrap();
    std::fs::write(&key, &scene.public).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/push/oauth.py");
    let output = run(Command::new(python).arg(script).arg(form).arg(key).arg(scene.issuer.url("/token")));
    output.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_token_about_to_end_is_asked_for_anew() {
    let scene = Scene::new(&[]).await;
    *scene.issuer.script.lock().unwrap() = [granted("access-1", 299), granted("access-2", 3_600)].into();
    let pusher = scene.place.fcm(&scene.account, &scene.fcm);
    for number in 1..=3 {
        scene.place.tell(&pusher, &message(number)).await;
    }
    let used: Vec<String> = scene.fcm.seen().iter().map(|seen| seen.headers["authorization"].clone()).collect();
    assert_eq!(used, ["Bearer access-1", "Bearer access-2", "Bearer access-2"]);
}

#[tokio::test]
async fn a_token_that_is_refused_is_asked_for_anew() {
    let scene = Scene::new(&[refused(401, "UNAUTHENTICATED", &json!({}))]).await;
    let pusher = scene.place.fcm(&scene.account, &scene.fcm);
    assert!(matches!(scene.place.tell(&pusher, &message(1)).await, Outcome::Later { .. }));
    assert_eq!(scene.place.tell(&pusher, &message(1)).await, Outcome::Sent);
    assert_eq!(scene.fcm.seen()[1].headers["authorization"], "Bearer access-2");
}

#[tokio::test]
async fn an_issuer_that_is_away_is_waited_for_and_one_that_refuses_is_told_of() {
    let scene = Scene::new(&[]).await;
    *scene.issuer.script.lock().unwrap() = [Answer::status(503), Answer::Cut].into();
    let pusher = scene.place.fcm(&scene.account, &scene.fcm);
    for _ in 0..2 {
        assert!(matches!(scene.place.tell(&pusher, &message(1)).await, Outcome::Later { .. }));
    }
    *scene.issuer.script.lock().unwrap() = [Answer::Reply(400, "", r#"{"error":"invalid_grant"}"#.to_owned())].into();
    let outcome = scene.place.tell(&pusher, &message(1)).await;
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("invalid_grant")), "{outcome:?}");
    assert_eq!(scene.fcm.seen().len(), 0);
}

async fn check(answer: Answer, expected: impl Fn(&Outcome) -> bool, kept: bool) {
    let scene = Scene::new(&[answer]).await;
    let outcome = scene.tell().await;
    assert!(expected(&outcome), "{outcome:?}");
    assert_eq!(scene.place.devices().await.len(), usize::from(kept), "{outcome:?}");
}

#[tokio::test]
async fn a_token_that_is_none_removes_its_device() {
    let gone = |outcome: &Outcome| matches!(outcome, Outcome::Gone(_));
    check(refused(404, "NOT_FOUND", &fcm_error("UNREGISTERED")), gone, false).await;
    let violation = json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}],
    });
    check(refused(400, "INVALID_ARGUMENT", &violation), gone, false).await;
}

#[tokio::test]
async fn every_other_answer_keeps_the_device() {
    let no = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_));
    let later = |outcome: &Outcome| matches!(outcome, Outcome::Later { after: None, .. });
    let violation = json!({"fieldViolations": [{"field": "message.android.ttl", "description": "no"}]});
    check(refused(400, "INVALID_ARGUMENT", &violation), no, true).await;
    check(refused(403, "PERMISSION_DENIED", &fcm_error("SENDER_ID_MISMATCH")), no, true).await;
    check(refused(413, "INVALID_ARGUMENT", &json!({})), no, true).await;
    check(refused(500, "INTERNAL", &fcm_error("INTERNAL")), later, true).await;
    check(refused(503, "UNAVAILABLE", &fcm_error("UNAVAILABLE")), later, true).await;
    check(Answer::Cut, later, true).await;
    check(Answer::Silence, later, true).await;
    let quota =
        Answer::Reply(429, "retry-after: 9\r\n", json!({"error": {"status": "RESOURCE_EXHAUSTED"}}).to_string());
    let waits = |outcome: &Outcome| matches!(outcome, Outcome::Later { after: Some(after), .. } if *after == Duration::from_secs(9));
    check(quota, waits, true).await;
}
