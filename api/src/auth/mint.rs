//! Tokens for development: what `smartpulse token` and the demo print.

use super::Role;
use super::keys::{refuse_elsewhere, signing_key};
use jsonwebtoken::{Algorithm, Header, encode, get_current_timestamp};
use serde_json::{Map, Value, json};
use smartpulse_config::AuthSettings;
use smartpulse_pipeline::error::{Error, Result};
use std::time::Duration;
use uuid::Uuid;

/// Whom a development token is for.
#[derive(Debug, Clone)]
pub struct DevelopmentToken {
    /// The user.
    pub user: Uuid,
    /// What it may do.
    pub role: Role,
    /// Whose forecasts it sees.
    pub companies: Vec<Uuid>,
    /// How long it is good.
    pub ttl: Duration,
}

/// Signs a token that this API takes, with the first shared secret of the settings.
///
/// # Errors
///
/// Outside the environment `development`, and where the settings have no shared secret.
pub fn development_token(settings: &AuthSettings, environment: &str, token: &DevelopmentToken) -> Result<String> {
    if refuse_elsewhere(environment, "").is_err() {
        return Err(Error::fatal(format!(
            "tokens are printed in the environment development only, and this is {environment}; \
             ask the issuer {} for one",
            settings.issuer
        )));
    }
    let (key, kid) = signing_key(settings).ok_or_else(|| {
        Error::fatal("api.auth.keys has no shared secret to sign with; add `{ kind: development }` to it")
    })?;
    let text = |id: &Uuid| id.hyphenated().to_string();
    let now = get_current_timestamp();
    let mut claims = Map::new();
    claims.insert(settings.claims.company.clone(), json!(token.companies.iter().map(text).collect::<Vec<_>>()));
    claims.insert(settings.claims.role.clone(), json!(token.role.as_str()));
    claims.insert("sub".to_owned(), json!(text(&token.user)));
    claims.insert(settings.claims.user.clone(), json!(text(&token.user)));
    for (name, value) in [("iss", &settings.issuer), ("aud", &settings.audience)] {
        claims.insert(name.to_owned(), json!(value));
    }
    claims.insert("iat".to_owned(), json!(now));
    claims.insert("exp".to_owned(), json!(now.saturating_add(token.ttl.as_secs())));
    let header = Header { kid, ..Header::new(Algorithm::HS256) };
    encode(&header, &Value::Object(claims), &key)
        .map_err(|error| Error::fatal("the token cannot be signed").because(error))
}
