//! Tokens checked, and what they say remembered.

use super::keys::{Key, Keys};
use super::{Caller, claims};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, get_current_timestamp};
use moka::sync::Cache;
use rustc_hash::FxBuildHasher;
use serde_json::{Map, Value};
use smartpulse_config::{AuthSettings, ClaimNames};
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use std::time::Duration;

/// How long after its end a token is still taken: clocks differ.
pub(super) const LEEWAY_SECONDS: u64 = 5;

/// The longest token. Those of common issuers have one to two thousand bytes; all headers together may have 8 KiB.
const TOKEN_BYTES_MAX: usize = 6 << 10;

/// What remembered tokens may take in memory: about 40,000 of them. The least used go.
const REMEMBERED_BYTES_MAX: u64 = 32 << 20;

/// What a remembered token takes beyond its text: caller, map node, place in the queues.
const REMEMBERED_OVERHEAD_BYTES: usize = 400;

/// What a company takes beyond its text: its place in the list, and what the allocator adds.
const COMPANY_OVERHEAD_BYTES: usize = 32;

/// How long a checked token is not checked again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Why a token is refused: for the metric, never for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is none.
    Missing,
    /// It is no JWT.
    Malformed,
    /// It is longer than any.
    TooLong,
    /// No key of ours fits its algorithm and key id.
    Key,
    /// It was not signed with the key.
    Signature,
    /// It has ended.
    Expired,
    /// It has not begun.
    Early,
    /// It is for somebody else, by somebody else, or lacks a claim.
    Claims,
    /// It names no user.
    User,
    /// It names no role of ours.
    Role,
    /// It names companies that are none.
    Company,
    /// The ticket is unknown, used or old.
    Ticket,
}

impl Refusal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Claims => "claims",
            Self::User => "user",
            Self::Role => "role",
            Self::Company => "company",
            Self::Ticket => "ticket",
        }
    }
}

/// The bytes that remembering a token takes.
fn weight(token: &str, caller: &Caller) -> u32 {
    let companies = caller.companies.iter().map(|company| company.len() + COMPANY_OVERHEAD_BYTES);
    u32::try_from(token.len() + REMEMBERED_OVERHEAD_BYTES + companies.sum::<usize>()).unwrap_or(u32::MAX)
}

/// Checks tokens.
pub(crate) struct Verifier {
    keys: Keys,
    names: ClaimNames,
    issuer: String,
    audience: String,
    /// Only who signs tokens chooses what is kept, so that a fast hash will do.
    remembered: Cache<Box<str>, Arc<Caller>, FxBuildHasher>,
}

impl Verifier {
    /// # Errors
    ///
    /// If there are no keys, if one is unreadable, or if it is no secret where one is needed.
    pub fn new(settings: &AuthSettings, environment: &str) -> Result<Self> {
        Ok(Self {
            keys: Keys::new(settings, environment)?,
            names: settings.claims.clone(),
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            remembered: Cache::<Box<str>, Arc<Caller>>::builder()
                .max_capacity(REMEMBERED_BYTES_MAX)
                .weigher(|token, caller| weight(token, caller))
                .time_to_live(REMEMBERED)
                .build_with_hasher(FxBuildHasher),
        })
    }

    /// The caller that a token stands for, if it was checked a short while ago.
    pub fn remembered(&self, token: &str) -> Option<Result<Arc<Caller>, Refusal>> {
        let caller = self.remembered.get(token)?;
        Some(if get_current_timestamp() > caller.expires_at { Err(Refusal::Expired) } else { Ok(caller) })
    }

    /// The caller that a token stands for.
    pub async fn check(&self, token: &str) -> Result<Arc<Caller>, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        // RFC 7515 section 4.1.11: extensions that must be understood and are not.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let claims = match self.signed(token, &self.keys.fixed(&header)) {
            // Another key of that algorithm may be published.
            Err(refusal @ (Refusal::Key | Refusal::Signature)) => match self.keys.published(&header).await {
                none if none.is_empty() => Err(refusal),
                published => self.signed(token, &published),
            },
            decided => decided,
        }?;
        let caller = Arc::new(claims::caller(&self.names, &claims)?);
        self.remember(token, &caller);
        Ok(caller)
    }

    /// What a token says that was signed with one of these keys.
    fn signed(&self, token: &str, keys: &[Arc<Key>]) -> Result<Map<String, Value>, Refusal> {
        let mut refusal = Refusal::Key;
        for key in keys {
            match decode(token, &key.key, &self.validation(key.algorithm)) {
                Ok(token_data) => return Ok(token_data.claims),
                Err(error) => refusal = refused(error.kind()),
            }
        }
        Err(refusal)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        validation
    }

    fn remember(&self, token: &str, caller: &Arc<Caller>) {
        self.remembered.insert(token.into(), Arc::clone(caller));
    }
}

fn refused(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::ExpiredSignature => Refusal::Expired,
        ErrorKind::ImmatureSignature => Refusal::Early,
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::InvalidSubject => Refusal::Claims,
        _ => Refusal::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use smartpulse_config::Settings;
    use uuid::Uuid;

    #[test]
    fn a_million_subjects_are_remembered_within_the_bound() {
        let verifier = Verifier::new(&Settings::default().api.auth, "development").unwrap();
        // As long as a real one.
        let tail = "x".repeat(280);
        for n in 0..1_000_000_u128 {
            let caller =
                Caller { user: Uuid::from_u128(n), role: Role::Viewer, companies: [].into(), expires_at: u64::MAX };
            verifier.remember(&format!("{n:020}{tail}"), &Arc::new(caller));
        }
        verifier.remembered.run_pending_tasks();
        let (tokens, bytes) = (verifier.remembered.entry_count(), verifier.remembered.weighted_size());
        assert!(bytes <= REMEMBERED_BYTES_MAX, "{tokens} tokens, {bytes} bytes");
        assert!(tokens > 10_000, "{tokens} tokens: the bound would be no use if nothing were remembered");
        assert!(held(&verifier) <= REMEMBERED_BYTES_MAX, "{} bytes are held", held(&verifier));
    }

    #[test]
    fn tokens_of_many_companies_are_remembered_within_the_bound() {
        let verifier = Verifier::new(&Settings::default().api.auth, "development").unwrap();
        for n in 0..20_000 {
            let companies = (0..100).map(|company| Uuid::from_u128(company).to_string().into()).collect();
            let caller = Caller { user: Uuid::from_u128(n), role: Role::Viewer, companies, expires_at: u64::MAX };
            verifier.remember(&format!("{n:020}"), &Arc::new(caller));
        }
        verifier.remembered.run_pending_tasks();
        let held = held(&verifier);
        assert!((REMEMBERED_BYTES_MAX / 4..=REMEMBERED_BYTES_MAX).contains(&held), "{held} bytes are held");
    }

    /// What is held, counted from what there is and not from what it was weighed as.
    fn held(verifier: &Verifier) -> u64 {
        let bytes = |caller: &Caller| {
            let companies = caller.companies.iter().map(|company| size_of::<Box<str>>() + company.len());
            size_of::<Caller>() + companies.sum::<usize>()
        };
        verifier.remembered.iter().map(|(token, caller)| (token.len() + bytes(&caller)) as u64).sum()
    }
}
