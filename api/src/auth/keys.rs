//! The keys that tokens are signed with, as the settings name them.

use super::jwks::{Jwks, fetcher};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use smartpulse_config::{AuthKey, AuthSettings};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;

/// The secret of `kind: development`. Everybody who can read this can sign with it.
const DEVELOPMENT_SECRET: &str = "smartpulse-development-secret-that-everybody-knows";

/// The environment that takes it.
const DEVELOPMENT: &str = "development";

/// The fewest bytes of a shared secret: as many as the hash has (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// A key, with the one algorithm that it is for.
pub(super) struct Key {
    pub kid: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

impl Key {
    fn fits(&self, header: &Header) -> bool {
        self.algorithm == header.alg && (self.kid.is_none() || self.kid == header.kid)
    }
}

/// All keys.
pub(super) struct Keys {
    fixed: Vec<Arc<Key>>,
    published: Vec<Jwks>,
}

impl Keys {
    /// # Errors
    ///
    /// What is wrong with the keys, and what to set instead.
    pub fn new(settings: &AuthSettings, environment: &str) -> Result<Self> {
        let mut keys = Self { fixed: Vec::new(), published: Vec::new() };
        if settings.keys.is_empty() {
            return Err(wrong("api.auth.keys names no key, so that nobody could call the api"));
        }
        for (index, key) in settings.keys.iter().enumerate() {
            let place = format!("api.auth.keys[{index}]");
            let unreadable = |error| Error::fatal(format!("{place} is not a public key as PEM")).because(error);
            let (kid, algorithm, key) = match key {
                AuthKey::Development {} => {
                    refuse_elsewhere(environment, &place)?;
                    (None, Algorithm::HS256, DecodingKey::from_secret(DEVELOPMENT_SECRET.as_bytes()))
                }
                AuthKey::Hs256 { secret, kid } => {
                    let secret = secret.expose();
                    if secret == DEVELOPMENT_SECRET {
                        refuse_elsewhere(environment, &place)?;
                    }
                    if secret.len() < SECRET_BYTES_MIN {
                        return Err(wrong(&format!("the secret of {place} has fewer than {SECRET_BYTES_MIN} bytes")));
                    }
                    (kid.clone(), Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes()))
                }
                AuthKey::Rs256 { public_key, kid } => {
                    let key = DecodingKey::from_rsa_pem(public_key.as_bytes()).map_err(unreadable)?;
                    (kid.clone(), Algorithm::RS256, key)
                }
                AuthKey::Es256 { public_key, kid } => {
                    let key = DecodingKey::from_ec_pem(public_key.as_bytes()).map_err(unreadable)?;
                    (kid.clone(), Algorithm::ES256, key)
                }
                AuthKey::Jwks { url } => {
                    keys.published.push(Jwks::new(fetcher(url)?));
                    continue;
                }
            };
            keys.fixed.push(Arc::new(Key { kid, algorithm, key }));
        }
        Ok(keys)
    }

    /// The keys of the settings that a token with this header may be signed with.
    pub fn fixed(&self, header: &Header) -> Vec<Arc<Key>> {
        self.fixed.iter().filter(|key| key.fits(header)).cloned().collect()
    }

    /// The published ones. They may have to be fetched.
    pub async fn published(&self, header: &Header) -> Vec<Arc<Key>> {
        let mut found = Vec::new();
        // A shared secret is never published.
        if let Some(kid) = header.kid.as_ref().filter(|_| header.alg != Algorithm::HS256) {
            for published in &self.published {
                found.extend(published.key(kid).await.filter(|key| key.fits(header)));
            }
        }
        found
    }
}

/// Whether a key is among them that everybody knows.
pub(crate) fn are_known(settings: &AuthSettings) -> bool {
    settings.keys.iter().any(|key| match key {
        AuthKey::Development {} => true,
        AuthKey::Hs256 { secret, .. } => secret.expose() == DEVELOPMENT_SECRET,
        AuthKey::Rs256 { .. } | AuthKey::Es256 { .. } | AuthKey::Jwks { .. } => false,
    })
}

/// A key to sign with, and its `kid`, if there is a shared secret.
pub(super) fn signing_key(settings: &AuthSettings) -> Option<(EncodingKey, Option<String>)> {
    settings.keys.iter().find_map(|key| match key {
        AuthKey::Development {} => Some((EncodingKey::from_secret(DEVELOPMENT_SECRET.as_bytes()), None)),
        AuthKey::Hs256 { secret, kid } => Some((EncodingKey::from_secret(secret.expose().as_bytes()), kid.clone())),
        AuthKey::Rs256 { .. } | AuthKey::Es256 { .. } | AuthKey::Jwks { .. } => None,
    })
}

/// # Errors
///
/// In every environment but development.
pub(super) fn refuse_elsewhere(environment: &str, place: &str) -> Result<()> {
    if environment == DEVELOPMENT {
        return Ok(());
    }
    Err(wrong(&format!(
        "{place} is the development secret, which everybody knows, and the environment is {environment}"
    )))
}

fn wrong(what: &str) -> Error {
    Error::fatal(format!(
        "{what}; set keys of your own, such as\n\
         SMARTPULSE__API__AUTH__KEYS='[{{kind: hs256, secret: ...}}]', or rs256, es256 or jwks in the settings"
    ))
}
