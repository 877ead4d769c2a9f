//! Access tokens for a service account: the JWT bearer grant (RFC 7523) of Google's OAuth.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// What may be done with a token: send messages.
pub(crate) const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// How long an assertion is good: an hour at most.
const ASSERTION_LIFE: Duration = Duration::from_secs(3_600);

/// A token is fetched anew this long before it ends, so that none ends on its way.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// A token has some hundred bytes.
pub(crate) const ANSWER_MAX: usize = 64 * 1_024;

/// The part that matters of a service account's JSON key file.
#[derive(Deserialize)]
pub(crate) struct ServiceAccount {
    pub project_id: String,
    client_email: String,
    private_key: String,
    token_uri: String,
}

impl ServiceAccount {
    /// # Errors
    /// Fatal when it is none.
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| {
            // The error names the member and the place, never the value.
            Error::fatal("the service account is none: give the JSON key file of one with the role that sends messages")
                .because(error)
        })
    }

    pub fn token_uri(&self) -> &str {
        &self.token_uri
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

/// The tokens of one account.
pub(crate) struct Tokens {
    client: Client,
    account: ServiceAccount,
    key: EncodingKey,
    kept: Mutex<Option<(Arc<str>, Instant)>>,
    /// One asks; the others wait for what he gets.
    asking: Semaphore,
}

impl Tokens {
    /// # Errors
    /// Fatal when the account's key is none.
    pub fn new(client: Client, account: ServiceAccount) -> Result<Self> {
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes());
        let key = key.map_err(|error| Error::fatal("the service account's private key is none").because(error))?;
        Ok(Self { client, account, key, kept: Mutex::default(), asking: Semaphore::new(1) })
    }

    /// A token that is good for some minutes.
    ///
    /// # Errors
    /// Unavailable when the issuer does not answer, fatal when it refuses the account.
    pub async fn get(&self) -> Result<Arc<str>> {
        if let Some(token) = self.kept() {
            return Ok(token);
        }
        let _turn = self.asking.acquire().await.map_err(|_| Error::fatal("the tokens are closed"))?;
        if let Some(token) = self.kept() {
            return Ok(token);
        }
        let granted = self.ask().await?;
        let token: Arc<str> = granted.access_token.into();
        let life = Duration::from_secs(granted.expires_in).saturating_sub(RENEWED_BEFORE);
        *self.lock() = Some((Arc::clone(&token), Instant::now() + life));
        Ok(token)
    }

    /// Forgets a token that was refused.
    pub fn forget(&self, refused: &str) {
        self.lock().take_if(|(kept, _)| **kept == *refused);
    }

    fn kept(&self) -> Option<Arc<str>> {
        self.lock().as_ref().filter(|(_, until)| Instant::now() < *until).map(|(token, _)| Arc::clone(token))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Arc<str>, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self) -> Result<Granted> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            iss: &self.account.client_email,
            scope: SCOPE,
            aud: &self.account.token_uri,
            iat: now.as_secs(),
            exp: (now + ASSERTION_LIFE).as_secs(),
        };
        let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)
            .map_err(|error| Error::fatal("the service account's key does not sign").because(error))?;
        // A JWT needs no escapes in a form.
        let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        let post = self.client.post(&self.account.token_uri).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let silent =
            |error: reqwest::Error| Error::unavailable("the issuer of FCM's tokens does not answer").because(error);
        let response = post.body(form).send().await.map_err(silent)?;
        let status = response.status();
        let body = bounded(response).await.map_err(silent)?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| Error::unavailable("the issuer's answer is no token").because(error));
        }
        let said = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let message = format!("the issuer of FCM's tokens answers {status}: {said}");
        Err(if status.is_client_error() && status.as_u16() != 429 {
            Error::fatal(message)
        } else {
            Error::unavailable(message)
        })
    }
}

/// The first [`ANSWER_MAX`] bytes of a body.
pub(crate) async fn bounded(mut response: reqwest::Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = ANSWER_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(body)
}
