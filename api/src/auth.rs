//! Who calls: bearer tokens (JWT, RFC 7519) to callers.
//!
//! Contract:
//! - A token needs `exp`, `aud`, `iss` and `sub`, is not taken before `nbf` nor 5 s after `exp`, and is signed with one
//!   of the configured keys, in that key's one algorithm. What a token says of keys (`jku`, `jwk`, `x5u`) is ignored.
//! - The user is a UUID, the role one of three, companies are UUIDs; anything else is a bad token.
//! - Every bad token gets the same answer. The reason is told to a metric only.
//! - What a checked token says is remembered for a minute, within a bound of bytes: so long a withdrawn key lives on.

mod claims;
#[cfg(feature = "jwks")]
mod fetch;
mod jwks;
mod keys;
mod mint;
mod verify;

use crate::error::ApiError;
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::ops::Deref;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) use keys::are_known;
pub use mint::{DevelopmentToken, development_token};
pub(crate) use verify::{Refusal, Verifier};

/// What a caller may do, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads the forecasts of its companies.
    Viewer,
    /// Reads and writes them.
    Editor,
    /// Reads and writes all forecasts.
    Admin,
}

impl Role {
    /// All of them, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// Its name in tokens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Who calls, as a checked token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub user: Uuid,
    pub role: Role,
    /// As documents spell them, each once, in order.
    pub companies: Arc<[Box<str>]>,
    /// When the token ends, in seconds since 1970, leeway included.
    pub expires_at: u64,
}

impl Caller {
    /// Whether all forecasts are its to see.
    pub fn sees_all(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether this company's forecasts are its to see.
    pub fn sees(&self, company: &str) -> bool {
        self.sees_all() || self.companies.iter().any(|own| **own == *company)
    }
}

/// The caller of the request, for handlers.
#[derive(Debug, Clone)]
pub(crate) struct Called(pub Arc<Caller>);

impl Deref for Called {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Called {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Set by the gate on routes whose policy asks for a caller; on others there is none to be had.
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::Unauthorized)
    }
}
