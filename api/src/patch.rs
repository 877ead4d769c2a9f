//! `PATCH /api/forecasts/{id}`: a merge patch (RFC 7396) or operations (RFC 6902).
//!
//! A merge patch of flat members needs no base: it is one conditional write. Operations are applied to the
//! forecast as it is, and the members that differ afterwards are written if it still is that version; if not, and
//! the caller did not insist on one, once more.

use crate::conditional::{IfMatch, version_tag};
use crate::error::ApiError;
use crate::forecasts::{APPLICATION_JSON, document, expected, id, sign, written};
use crate::router::Shared;
use crate::{body, validate};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};
use smartpulse_cache::{Hit, Level};
use smartpulse_clients::database::{Write, Written};
use smartpulse_json::{Document, PatchError, Patched, apply, changed_members};
use smartpulse_pipeline::Key;
use std::sync::Arc;

const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

/// Both spellings of a merge patch, and operations.
const ACCEPTED: &str = "application/json, application/merge-patch+json, application/json-patch+json";

/// How often operations are applied anew to a forecast that somebody else changed meanwhile.
const ATTEMPTS: usize = 5;

/// `PATCH /api/forecasts/{id}`
pub(crate) async fn patch(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let key: Key = id(path)?.into();
    let (parts, stream) = request.into_parts();
    let media_type = body::media_type(&parts.headers);
    if ![APPLICATION_JSON, MERGE_PATCH, JSON_PATCH].contains(&media_type.as_str()) {
        return Err(ApiError::UnsupportedMediaType(ACCEPTED));
    }
    let if_match = IfMatch::from_headers(&parts.headers);
    let bytes = body::read(&parts.headers, stream, shared.body_bytes_max, shared.body_timeout).await?;
    if media_type == JSON_PATCH {
        operations(&shared, &key, &if_match, &bytes).await
    } else {
        merge(&shared, &key, &if_match, &bytes).await
    }
}

async fn merge(shared: &Shared, key: &Key, if_match: &IfMatch, bytes: &Bytes) -> Result<Response, ApiError> {
    let members = validate::changed(body::json(bytes)?).map_err(ApiError::Validation)?;
    if members.is_empty() {
        let hit = shared.cache.reload(key).await?.ok_or(ApiError::ForecastNotFound)?;
        return unchanged(hit, if_match);
    }
    let expected_version = expected(shared, key, if_match).await?;
    match update(shared, key, expected_version, members).await? {
        Some(response) => Ok(response),
        None => Err(ApiError::PreconditionFailed),
    }
}

async fn operations(shared: &Shared, key: &Key, if_match: &IfMatch, bytes: &Bytes) -> Result<Response, ApiError> {
    // Whether they are operations at all does not depend on the forecast.
    let mut base = shared.cache.get(key).await?;
    for _ in 0..ATTEMPTS {
        let hit = base.ok_or(ApiError::ForecastNotFound)?;
        // What is held may be behind the database: only the database's word refuses.
        let held = hit.level != Level::L4;
        let outcome =
            if if_match.admits(hit.version) { operated(&hit, bytes) } else { Err(ApiError::PreconditionFailed) };
        match outcome {
            Ok(members) if members.is_empty() && !held => return unchanged(hit, if_match),
            Ok(members) if members.is_empty() => {}
            Ok(members) => match update(shared, key, Some(hit.version), members).await? {
                Some(response) => return Ok(response),
                None if matches!(if_match, IfMatch::Versions(_)) => return Err(ApiError::PreconditionFailed),
                None => {}
            },
            Err(ApiError::Conflict(_) | ApiError::PreconditionFailed) if held => {}
            Err(error) => return Err(error),
        }
        base = shared.cache.reload(key).await?;
    }
    Err(ApiError::Conflict("the forecast changes too often to be patched".to_owned()))
}

/// The members that differ after the operations.
fn operated(hit: &Hit, operations: &Bytes) -> Result<Map<String, Value>, ApiError> {
    let before = Document::parse(hit.document.clone()).map_err(|error| {
        tracing::error!(%error, "an unreadable document is held");
        ApiError::Internal
    })?;
    let after = match apply(Some(&before), operations) {
        Ok(Patched::Document(after)) if after.is_object() => after,
        Ok(Patched::Document(_) | Patched::Removed) => {
            return Err(ApiError::field("", "must leave a JSON object"));
        }
        // The operations are sound; the forecast is not what they expect (RFC 5789 section 2.2).
        Err(error @ (PatchError::Test { .. } | PatchError::Missing { .. })) => {
            return Err(ApiError::Conflict(error.to_string()));
        }
        Err(PatchError::Json(error)) => return Err(ApiError::field("", format!("is not JSON: {error}"))),
        Err(error) => return Err(ApiError::field("", error.to_string())),
    };
    let changes = changed_members(&before, &after);
    let members = changes
        .into_iter()
        .map(|change| (change.name.into_owned(), change.new.map_or(Value::Null, |new| new.to_value())))
        .collect();
    validate::changed(Value::Object(members)).map_err(ApiError::Validation)
}

/// Writes; `None` if the forecast has another version than expected.
async fn update(
    shared: &Shared,
    key: &Key,
    expected_version: Option<i64>,
    mut members: Map<String, Value>,
) -> Result<Option<Response>, ApiError> {
    sign(&mut members);
    match shared.cache.write(Write::Update { key: Arc::clone(key), expected_version, members }).await? {
        Written::Done(row) => Ok(Some(written(StatusCode::OK, row))),
        Written::VersionMismatch(_) => Ok(None),
        Written::NotFound => Err(ApiError::ForecastNotFound),
        Written::Exists => Err(ApiError::Internal),
    }
}

/// Nothing was to be changed: the forecast as it is.
fn unchanged(hit: Hit, if_match: &IfMatch) -> Result<Response, ApiError> {
    if hit.stale {
        return Err(ApiError::DatabaseUnavailable);
    }
    if !if_match.admits(hit.version) {
        return Err(ApiError::PreconditionFailed);
    }
    Ok(document(StatusCode::OK, hit.document, version_tag(hit.version)))
}
