//! Payloads and tokens, read by clients of other makers: `http_ece` decrypts, `py_vapid` and `PyJWT` verify.

use crate::place::{AUTH, Place, USER, message};
use crate::server::Server;
use serde_json::Value;
use smartpulse_push::Outcome;
use smartpulse_testing::{python_with, run};
use std::path::Path;
use std::process::Command;

/// Pinned: what is tested against should not change by itself.
pub const PACKAGES: [&str; 3] = ["http_ece==1.2.1", "py-vapid==1.9.2", "PyJWT[crypto]==2.10.1"];

/// The private half of [`crate::place::P256DH`].
const PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";

#[tokio::test]
async fn a_client_of_others_decrypts_the_payload_and_verifies_the_token() {
    let Some(python) = python_with(env!("CARGO_TARGET_TMPDIR"), &PACKAGES) else { return };
    let (place, server) = (Place::new().await, Server::start(&[]).await);
    place.browser(1, USER, &server.url("/x")).await;
    assert_eq!(place.tell(&place.web_push(), &message(1)).await, Outcome::Sent);
    let seen = server.seen().remove(0);
    let body = place.folder.path().join("body");
    std::fs::write(&body, &seen.body).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/push/web_push.py");
    let origin = format!("http://{}", server.address);
    let output = run(Command::new(python).arg(script).arg(body).args([
        PRIVATE,
        AUTH,
        &seen.headers["authorization"],
        &origin,
        &place.keys.public_key,
    ]));
    let output = output.unwrap_or_else(|error| panic!("{error}"));
    let payload: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = message(1);
    assert_eq!(payload["title"], message.title);
    assert_eq!(payload["body"], message.body);
    assert_eq!(payload["data"], message.data.unwrap());
    assert_eq!(payload["id"], message.id.to_string());
}
