//! Keys that an issuer publishes (JWKS, RFC 7517): fetched, kept, fetched again.
//!
//! A key that is known is never waited for: what is old is renewed in the background. A `kid` that is not known is
//! asked for at most once a minute, whoever names it and however often: an attacker cannot make us a nuisance. An issuer
//! that did not answer is asked again every five seconds.

use super::keys::Key;
use bytes::Bytes;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use smartpulse_pipeline::error::{Error, Result};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long fetched keys are used before they are renewed: so long a withdrawn one lives on.
const FRESH: Duration = Duration::from_secs(600);

/// How long fetched keys are not fetched again for a `kid` that is not among them.
const PAUSE: Duration = Duration::from_secs(60);

/// How long nothing is fetched again after it failed.
const RETRY: Duration = Duration::from_secs(5);

/// The most keys that are kept of a set.
const KEYS_MAX: usize = 100;

/// Gets the text of a key set.
pub(super) type Fetch = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Bytes>> + Send>> + Send + Sync>;

/// A published key set. Clones share it.
#[derive(Clone)]
pub(super) struct Jwks {
    fetch: Fetch,
    kept: Arc<Mutex<Kept>>,
    /// Held while it is fetched: those who need it wait for the one who fetches.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Kept {
    keys: Vec<Arc<Key>>,
    /// When it was last tried to fetch them.
    tried: Option<Instant>,
    /// When that was tried last with success.
    fetched: Option<Instant>,
}

impl Jwks {
    pub fn new(fetch: Fetch) -> Self {
        Self { fetch, kept: Arc::default(), fetching: Arc::default() }
    }

    /// The key of that id, if the issuer publishes one.
    pub async fn key(&self, kid: &str) -> Option<Arc<Key>> {
        if let Some(known) = self.known(kid) {
            if self.is_due(FRESH) {
                let again = self.clone();
                tokio::spawn(async move { again.renew(FRESH).await });
            }
            return Some(known);
        }
        self.renew(PAUSE).await;
        self.known(kid)
    }

    fn known(&self, kid: &str) -> Option<Arc<Key>> {
        self.kept().keys.iter().find(|key| key.kid.as_deref() == Some(kid)).cloned()
    }

    /// Whether keys are to be fetched that may be so old.
    fn is_due(&self, age: Duration) -> bool {
        let kept = self.kept();
        let (last, pause) = if kept.tried > kept.fetched { (kept.tried, RETRY) } else { (kept.fetched, age) };
        last.is_none_or(|last| last.elapsed() >= pause)
    }

    /// Fetches the set, if keys of that age are old. When it fails, the keys there are stay.
    async fn renew(&self, age: Duration) {
        let _only = self.fetching.lock().await;
        if !self.is_due(age) {
            return;
        }
        let now = Some(Instant::now());
        self.kept().tried = now;
        match (self.fetch)().await.and_then(|text| parse(&text)) {
            Ok(keys) => *self.kept() = Kept { keys, tried: now, fetched: now },
            Err(error) => tracing::error!(error = error.chain(), "the keys of tokens could not be fetched"),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of a set that are for signatures with an algorithm of ours. Others are passed over, as RFC 7517 section 5
/// wants it.
fn parse(text: &Bytes) -> Result<Vec<Arc<Key>>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|error| Error::rejected("not a key set").because(error))?;
    let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    Ok(keys.filter_map(|key| usable(&key)).take(KEYS_MAX).map(Arc::new).collect())
}

fn usable(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        // A published shared secret would be none.
        _ => return None,
    };
    let same = match jwk.common.key_algorithm {
        None => true,
        Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
        Some(_) => false,
    };
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    if !same || !signs {
        return None;
    }
    Some(Key { kid: Some(jwk.common.key_id.clone()?), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
}

/// What fetches from `url`.
#[cfg(feature = "jwks")]
pub(super) fn fetcher(url: &str) -> Result<Fetch> {
    super::fetch::over_http(url)
}

#[cfg(not(feature = "jwks"))]
pub(super) fn fetcher(url: &str) -> Result<Fetch> {
    Err(Error::fatal(format!(
        "this build cannot fetch keys from {url}: build it with `--features full`, or set a public_key"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// RFC 7517 appendix A.1.
    fn key(kid: &str) -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "kid": kid,
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
        })
    }

    /// An issuer that publishes a further key with every fetch.
    fn issuer() -> (Jwks, Arc<AtomicUsize>) {
        let fetched = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fetched);
        let jwks = Jwks::new(Arc::new(move || {
            let n = count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                if n == 2 {
                    return Err(Error::unavailable("away"));
                }
                let keys: Vec<Value> = (0..=n).map(|n| key(&format!("k{n}"))).collect();
                Ok(json!({ "keys": keys }).to_string().into())
            })
        }));
        (jwks, fetched)
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_asked_for_once_a_minute_and_a_known_one_renewed_in_the_background() {
        let (jwks, fetched) = issuer();
        let fetches = || fetched.load(Ordering::Relaxed);
        assert!(jwks.key("k0").await.is_some());
        for _ in 0..1_000 {
            assert!(jwks.key("k1").await.is_none());
        }
        assert_eq!(fetches(), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(jwks.key("k1").await.is_some());
        assert_eq!(fetches(), 2);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(jwks.key("k1").await.is_some(), "what is old is used until it is renewed");
        while fetches() < 3 {
            tokio::task::yield_now().await;
        }
        // That fetch failed: what is known stays.
        assert!(jwks.key("k0").await.is_some() && jwks.key("k1").await.is_some());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(jwks.key("k3").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_did_not_answer_is_asked_again_soon() {
        let fetched = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fetched);
        // Away at first, and once more when its keys are old.
        let jwks = Jwks::new(Arc::new(move || {
            let n = count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match n {
                    0 | 2 => Err(Error::unavailable("away")),
                    _ => Ok(json!({ "keys": [key(&format!("k{n}"))] }).to_string().into()),
                }
            })
        }));
        let until = async |fetches| {
            while fetched.load(Ordering::Relaxed) < fetches {
                tokio::task::yield_now().await;
            }
        };
        assert!(jwks.key("k1").await.is_none());
        tokio::time::advance(RETRY).await;
        assert!(jwks.key("k1").await.is_some(), "one failure locks nobody out for long");
        tokio::time::advance(FRESH).await;
        assert!(jwks.key("k1").await.is_some());
        until(3).await;
        tokio::time::advance(RETRY).await;
        assert!(jwks.key("k1").await.is_some());
        until(4).await;
        assert!(jwks.key("k3").await.is_some(), "a withdrawn key does not live on because one renewal failed");
        assert!(jwks.key("k1").await.is_none());
    }

    #[test]
    fn only_keys_for_our_signatures_are_taken() {
        let with = |member: &str, value: &str| {
            let mut key = key("k");
            key[member] = json!(value);
            key
        };
        let taken = |key: Value| parse(&json!({ "keys": [key] }).to_string().into()).unwrap().len();
        assert_eq!(taken(key("k")), 1);
        assert_eq!(taken(with("use", "sig")), 1);
        assert_eq!(taken(with("alg", "ES256")), 1);
        for (member, value) in [("use", "enc"), ("alg", "ES384"), ("alg", "HS256"), ("crv", "P-384"), ("kty", "new")] {
            assert_eq!(taken(with(member, value)), 0, "{member}: {value}");
        }
        assert_eq!(taken(json!({"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"})), 0);
        assert!(parse(&Bytes::from_static(b"[]")).is_err());
    }
}
