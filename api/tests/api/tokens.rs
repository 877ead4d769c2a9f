//! Bearer tokens: which are taken, and that all others get the same answer.

use crate::common::support::MemoryDatabase;
use crate::common::{COMPANY, ID, USER, World, forecast, settings};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use smartpulse_api::{Api, Parts, Readiness};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_config::{AuthKey, Secret};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SECRET: &str = "a secret of at least thirty-two bytes";
const RSA: &[u8] = include_bytes!("keys/rsa.pem");
const RSA_PUBLIC: &str = include_str!("keys/rsa.pub.pem");
const OTHER_RSA_PUBLIC: &str = include_str!("keys/other_rsa.pub.pem");
const EC: &[u8] = include_bytes!("keys/ec.pem");
const EC_PUBLIC: &str = include_str!("keys/ec.pub.pem");

fn hs256() -> AuthKey {
    AuthKey::Hs256 { secret: Secret::new(SECRET), kid: None }
}

fn build(keys: Vec<AuthKey>, environment: &str) -> smartpulse_pipeline::error::Result<World> {
    build_with(keys, environment, settings().concurrency_max)
}

fn build_with(
    keys: Vec<AuthKey>,
    environment: &str,
    concurrency_max: usize,
) -> smartpulse_pipeline::error::Result<World> {
    let mut settings = settings();
    settings.auth.keys = keys;
    settings.concurrency_max = concurrency_max;
    let database = MemoryDatabase::new();
    database.set(ID, forecast(450));
    let registry = prometheus::Registry::new();
    let cache = Cache::new(CacheConfig::default(), database.shared(), &registry)?;
    let readiness = Arc::new(Readiness::default());
    let parts = Parts {
        cache: cache.clone(),
        database: database.shared(),
        bus: None,
        pubsub: None,
        push: None,
        unsubscribe: None,
        partition: "production".into(),
        readiness: readiness.clone(),
        registry,
        tracer: None,
    };
    let service = Api::new(settings, environment, parts)?.service();
    Ok(World { database, cache, readiness, service })
}

fn world(keys: Vec<AuthKey>) -> World {
    build(keys, "production").unwrap()
}

fn claims() -> Value {
    let now = get_current_timestamp();
    json!({
        "sub": USER, "role": "viewer", "company": COMPANY, "iss": "smartpulse", "aud": "smartpulse", "exp": now + 60
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[member] = value;
    claims
}

fn without(member: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(member);
    claims
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).unwrap()
}

fn hs(claims: &Value) -> String {
    signed(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn kid(algorithm: Algorithm, kid: &str) -> Header {
    Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) }
}

async fn status(world: &World, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    world.send("GET", &format!("/api/forecasts/{ID}"), &[("authorization", &authorization)], "").await.status.as_u16()
}

#[tokio::test]
async fn every_bad_token_gets_the_same_answer_and_its_reason_a_metric() {
    let world = world(vec![hs256(), AuthKey::Rs256 { public_key: RSA_PUBLIC.into(), kid: None }]);
    let now = get_current_timestamp();
    let good = hs(&claims());
    assert_eq!(status(&world, &good).await, 200);
    let (head, rest) = good.split_once('.').unwrap();
    let payload = rest.split('.').next().unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let other_secret = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    // The public key as if it were a shared secret: RFC 8725 section 2.1.
    let confused = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let jku = Header { jku: Some("http://127.0.0.1:1/keys".into()), ..kid(Algorithm::HS256, "theirs") };
    let crit = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) };
    let own = EncodingKey::from_secret(SECRET.as_bytes());
    let bearer = |token: &str| format!("Bearer {token}");
    let cases: Vec<(&str, String)> = vec![
        ("missing", String::new()),
        ("malformed", "Bearer".into()),
        ("malformed", bearer("")),
        ("malformed", bearer("x")),
        ("malformed", bearer("a.b.c")),
        ("malformed", bearer(&format!(" {good}"))),
        ("malformed", format!("Basic {good}")),
        ("malformed", good.clone()),
        ("malformed", bearer(&unsigned)),
        ("malformed", bearer(&signed(&crit, &claims(), &own))),
        ("too_long", bearer(&format!("{good}{}", "x".repeat(6_500)))),
        ("signature", bearer(&format!("{head}.{payload}.AAAA"))),
        ("signature", bearer(&signed(&Header::new(Algorithm::HS256), &claims(), &other_secret))),
        ("signature", bearer(&signed(&Header::new(Algorithm::HS256), &claims(), &confused))),
        ("signature", bearer(&signed(&jku, &claims(), &other_secret))),
        ("key", bearer(&signed(&Header::new(Algorithm::HS384), &claims(), &own))),
        ("key", bearer(&signed(&Header::new(Algorithm::ES256), &claims(), &EncodingKey::from_ec_pem(EC).unwrap()))),
        ("expired", bearer(&hs(&with("exp", json!(now - 30))))),
        ("early", bearer(&hs(&with("nbf", json!(now + 60))))),
        ("claims", bearer(&hs(&without("exp")))),
        ("claims", bearer(&hs(&without("aud")))),
        ("claims", bearer(&hs(&without("iss")))),
        ("claims", bearer(&hs(&without("sub")))),
        ("claims", bearer(&hs(&with("aud", json!("another"))))),
        ("claims", bearer(&hs(&with("iss", json!("another"))))),
        ("claims", bearer(&hs(&with("exp", json!("soon"))))),
        ("user", bearer(&hs(&with("sub", json!("root"))))),
        ("role", bearer(&hs(&without("role")))),
        ("role", bearer(&hs(&with("role", json!("owner"))))),
        ("company", bearer(&hs(&with("company", json!("acme"))))),
    ];
    for (reason, authorization) in cases {
        let series = format!("api_tokens_refused_total{{reason=\"{reason}\"}} ");
        let count = async || {
            let text = world.get("/metrics").await.text;
            text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let before = count().await;
        let answer = world.send("GET", &format!("/api/forecasts/{ID}"), &[("authorization", &authorization)], "").await;
        let label: String = authorization.chars().take(60).collect();
        assert_eq!(answer.status.as_u16(), 401, "{reason}: {label}");
        assert_eq!(answer.text, r#"{"error":"a valid bearer token is required","code":"UNAUTHORIZED"}"#, "{reason}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{reason}");
        assert_eq!(count().await, before + 1, "{reason}: {label}");
    }
    assert_eq!(status(&world, &good).await, 200);
}

#[tokio::test]
async fn each_kind_of_key_takes_its_own_tokens_only() {
    let rsa = || AuthKey::Rs256 { public_key: RSA_PUBLIC.into(), kid: None };
    let ec = || AuthKey::Es256 { public_key: EC_PUBLIC.into(), kid: Some("e".into()) };
    let tokens = [
        hs(&claims()),
        signed(&Header::new(Algorithm::RS256), &claims(), &EncodingKey::from_rsa_pem(RSA).unwrap()),
        signed(&kid(Algorithm::ES256, "e"), &claims(), &EncodingKey::from_ec_pem(EC).unwrap()),
        signed(&kid(Algorithm::ES256, "f"), &claims(), &EncodingKey::from_ec_pem(EC).unwrap()),
    ];
    for (keys, expected) in [
        (vec![hs256()], [200, 401, 401, 401]),
        (vec![rsa()], [401, 200, 401, 401]),
        (vec![ec()], [401, 401, 200, 401]),
        (vec![hs256(), rsa(), ec()], [200, 200, 200, 401]),
        (vec![AuthKey::Hs256 { secret: Secret::new("x".repeat(32)), kid: None }, hs256()], [200, 401, 401, 401]),
    ] {
        let world = world(keys);
        for (token, expected) in tokens.iter().zip(expected) {
            assert_eq!(status(&world, token).await, expected, "{token}");
        }
    }
}

#[tokio::test]
async fn published_keys_are_fetched_and_only_signing_ones_are_taken() {
    let published = |key: &EncodingKey, algorithm: Algorithm, id: &str| {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).unwrap()
    };
    let (rsa, ec) = (EncodingKey::from_rsa_pem(RSA).unwrap(), EncodingKey::from_ec_pem(EC).unwrap());
    let shared = json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"});
    let set = json!({"keys": [published(&rsa, Algorithm::RS256, "r"), published(&ec, Algorithm::ES256, "e"), shared]});
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let text = set.to_string();
    let issuer = axum::Router::new().route("/keys", axum::routing::get(async move || text.clone()));
    tokio::spawn(async move { axum::serve(listener, issuer).await });
    let world = world(vec![AuthKey::Jwks { url }]);
    let x = EncodingKey::from_secret(&[b'x'; 32]);
    for (token, expected) in [
        (signed(&kid(Algorithm::RS256, "r"), &claims(), &rsa), 200),
        (signed(&kid(Algorithm::ES256, "e"), &claims(), &ec), 200),
        (signed(&kid(Algorithm::ES256, "r"), &claims(), &ec), 401),
        (signed(&Header::new(Algorithm::RS256), &claims(), &rsa), 401),
        (signed(&kid(Algorithm::HS256, "s"), &claims(), &x), 401),
        (signed(&kid(Algorithm::RS256, "unknown"), &claims(), &rsa), 401),
    ] {
        assert_eq!(status(&world, &token).await, expected, "{token}");
    }
}

#[tokio::test]
async fn a_key_of_the_settings_hides_no_published_one() {
    let (ours, theirs) = (EncodingKey::from_ec_pem(EC).unwrap(), EncodingKey::from_rsa_pem(RSA).unwrap());
    let mut published = Jwk::from_encoding_key(&theirs, Algorithm::RS256).unwrap();
    published.common.key_id = Some("r".to_owned());
    let asked = Arc::new(AtomicUsize::new(0));
    let (text, count) = (json!({ "keys": [published] }).to_string(), Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwks = AuthKey::Jwks { url: format!("http://{}/keys", listener.local_addr().unwrap()) };
    let keys = axum::routing::get(async move || {
        count.fetch_add(1, Ordering::Relaxed);
        text.clone()
    });
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/keys", keys)).await });
    // Another key of the same algorithm, for tokens of any kid.
    let other = AuthKey::Rs256 { public_key: OTHER_RSA_PUBLIC.into(), kid: None };
    let world = world(vec![hs256(), other, AuthKey::Es256 { public_key: EC_PUBLIC.into(), kid: None }, jwks]);
    let shared = EncodingKey::from_secret(&[b'x'; 32]);
    for (token, expected) in [
        (signed(&kid(Algorithm::HS256, "r"), &claims(), &shared), 401),
        (signed(&kid(Algorithm::ES256, "e"), &claims(), &ours), 200),
        (signed(&kid(Algorithm::ES256, "e"), &with("exp", json!(1)), &ours), 401),
    ] {
        assert_eq!(status(&world, &token).await, expected, "{token}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "where a key of the settings decides, nothing is fetched");
    assert_eq!(status(&world, &signed(&kid(Algorithm::RS256, "r"), &claims(), &theirs)).await, 200);
    assert_eq!(status(&world, &signed(&Header::new(Algorithm::RS256), &claims(), &theirs)).await, 401);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_is_not_known_takes_nobodys_place_while_keys_are_fetched() {
    // An issuer that takes connections and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwks = AuthKey::Jwks { url: format!("http://{}/keys", listener.local_addr().unwrap()) };
    let world = build_with(vec![hs256(), jwks], "production", 1).unwrap();
    let stranger = signed(&kid(Algorithm::ES256, "e"), &claims(), &EncodingKey::from_ec_pem(EC).unwrap());
    let ours = hs(&claims());
    let known = async {
        let (_connection, _) = listener.accept().await.unwrap();
        assert_eq!(status(&world, &ours).await, 200);
    };
    tokio::select! {
        biased;
        refused = status(&world, &stranger) => panic!("{refused} before the issuer answered"),
        () = known => {}
    }
}

#[tokio::test]
async fn a_token_is_taken_within_the_leeway_and_not_after_though_it_is_remembered() {
    let world = world(vec![hs256()]);
    let now = get_current_timestamp();
    assert_eq!(status(&world, &hs(&with("nbf", json!(now + 3)))).await, 200);
    // Ends 5 s from now, with the leeway: the wait is for that moment, not a guess.
    let token = hs(&with("exp", json!(now)));
    assert_eq!(status(&world, &token).await, 200);
    while get_current_timestamp() <= now + 5 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(status(&world, &token).await, 401);
}

#[tokio::test]
async fn a_start_without_keys_of_its_own_is_refused_and_says_what_to_set() {
    let development = || vec![AuthKey::Development {}];
    assert!(build(development(), "development").is_ok());
    let copied = Secret::new("smartpulse-development-secret-that-everybody-knows");
    for (keys, environment, expected) in [
        (
            development(),
            "production",
            "is the development secret, which everybody knows, and the environment is production",
        ),
        (vec![hs256(), AuthKey::Development {}], "staging", "api.auth.keys[1] is the development secret"),
        (vec![AuthKey::Hs256 { secret: copied, kid: None }], "production", "is the development secret"),
        (vec![], "production", "names no key"),
        (vec![], "development", "names no key"),
        (vec![AuthKey::Hs256 { secret: Secret::new("short"), kid: None }], "production", "fewer than 32 bytes"),
    ] {
        let error = build(keys, environment).err().expect(expected).to_string();
        assert!(error.contains(expected), "{expected} is not in {error}");
        assert!(error.contains("set keys of your own"), "{error}");
    }
    for (key, expected) in [
        (AuthKey::Rs256 { public_key: EC_PUBLIC.into(), kid: None }, "api.auth.keys[0] is not a public key as PEM"),
        (AuthKey::Es256 { public_key: "x".into(), kid: None }, "api.auth.keys[0] is not a public key as PEM"),
        (AuthKey::Jwks { url: "http://issuer.example/keys".into() }, "must be https"),
        (AuthKey::Jwks { url: "issuer".into() }, "the jwks url issuer is none"),
    ] {
        let error = build(vec![key], "production").err().expect(expected).to_string();
        assert!(error.contains(expected), "{expected} is not in {error}");
    }
}
