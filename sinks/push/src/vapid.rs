//! Who sends: VAPID (RFC 8292), an ES256 token per push service's origin.
//!
//! A token is good for [`TOKEN_LIFE`] and used for half of it, by all messages to its origin.

use crate::encrypt::BASE64URL;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use moka::sync::Cache;
use serde::Serialize;
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a token is good: services take 24 hours at most (RFC 8292, section 2), by their clock.
pub const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Origins whose tokens are kept: there are a handful of push services, and whoever registers a device may name others.
const ORIGINS_MAX: u64 = 1_000;

/// A key pair, as settings and pages take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The private key: 32 bytes in base64url. A secret.
    pub private_key: String,
    /// The public key: an uncompressed point in base64url, which a page gives to `pushManager.subscribe` as
    /// `applicationServerKey`.
    pub public_key: String,
}

/// A new key pair.
///
/// # Errors
/// Fatal when the system gives no random numbers.
pub fn generate() -> Result<Generated> {
    let failed = |_| Error::fatal("no key pair can be made");
    let key = PrivateKey::generate(&ECDH_P256).map_err(failed)?;
    let private: EcPrivateKeyBin<'_> = key.as_be_bytes().map_err(failed)?;
    let public = key.compute_public_key().map_err(failed)?;
    Ok(Generated { private_key: BASE64URL.encode(private.as_ref()), public_key: BASE64URL.encode(public.as_ref()) })
}

/// The signer of one key pair.
pub struct Vapid {
    key: EncodingKey,
    public_key: String,
    contact: String,
    headers: Cache<String, Arc<str>>,
}

/// RFC 8292, section 2.
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: u64,
    sub: &'a str,
}

impl Vapid {
    /// From a private key as [`generate`] gives it, and where its owner can be reached: `mailto:` or `https:`.
    ///
    /// # Errors
    /// Fatal when either is none.
    pub fn new(private_key: &str, contact: &str) -> Result<Self> {
        let no_key = || Error::fatal("the VAPID private key is none: make one with `smartpulse vapid generate`");
        let private = BASE64URL.decode(private_key.trim()).map_err(|_| no_key())?;
        let agreement = PrivateKey::from_private_key(&ECDH_P256, &private).map_err(|_| no_key())?;
        let public = agreement.compute_public_key().map_err(|_| no_key())?;
        let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, &private, public.as_ref());
        let document = pair.map_err(|_| no_key())?.to_pkcs8v1().map_err(|_| no_key())?;
        if !contact.starts_with("mailto:") && !contact.starts_with("https://") {
            return Err(Error::fatal(format!(
                "the VAPID contact {contact:?} is none: write mailto:ADDRESS or https://PAGE (RFC 8292, section 2.1)"
            )));
        }
        Ok(Self {
            key: EncodingKey::from_ec_der(document.as_ref()),
            public_key: BASE64URL.encode(public.as_ref()),
            contact: contact.to_owned(),
            headers: Cache::builder().max_capacity(ORIGINS_MAX).time_to_live(TOKEN_LIFE / 2).build(),
        })
    }

    /// The public key, which pages subscribe with.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The `Authorization` header for a push service (RFC 8292, section 3).
    ///
    /// # Errors
    /// Fatal when the token cannot be signed.
    pub fn authorization(&self, origin: &str) -> Result<Arc<str>> {
        let header = self.headers.try_get_with_by_ref(origin, || self.sign(origin).map(Arc::from));
        header.map_err(|error| Error::fatal(format!("no VAPID token can be signed for {origin}")).because(error))
    }

    fn sign(&self, origin: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims { aud: origin, exp: (now + TOKEN_LIFE).as_secs(), sub: &self.contact };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)
            .map_err(|error| Error::fatal("signing failed").because(error))?;
        // No space behind the comma: some read it as a part of the name.
        Ok(format!("vapid t={token},k={}", self.public_key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_taken_and_gives_its_public_key() {
        let pair = generate().unwrap();
        let vapid = Vapid::new(&pair.private_key, "mailto:ops@example.com").unwrap();
        assert_eq!(vapid.public_key(), pair.public_key);
        assert_ne!(generate().unwrap(), pair);
    }

    #[test]
    fn a_token_is_made_once_per_origin() {
        let vapid = Vapid::new(&generate().unwrap().private_key, "mailto:ops@example.com").unwrap();
        let first = vapid.authorization("https://one.example").unwrap();
        // ECDSA signs with a random number: a second token would differ.
        assert_eq!(vapid.authorization("https://one.example").unwrap(), first);
        assert_ne!(vapid.authorization("https://other.example").unwrap(), first);
    }

    #[test]
    fn what_is_no_key_or_contact_is_refused() {
        let key = generate().unwrap().private_key;
        for (key, contact) in [("", "mailto:a@b"), ("AAAA", "mailto:a@b"), (key.as_str(), "a@b"), (&key, "http://b")] {
            assert!(Vapid::new(key, contact).is_err(), "{contact}");
        }
    }
}
