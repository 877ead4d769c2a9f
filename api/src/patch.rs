//! `PATCH /api/forecasts/{id}`: a merge patch (RFC 7396) or operations (RFC 6902).
//!
//! Both are applied to the forecast as it is, and the members that differ afterwards are written if it still is that
//! version; if not, and `If-Match` does not forbid it, once more.

use crate::answer::{APPLICATION_JSON, document, written};
use crate::auth::Called;
use crate::change::{self, Outcome};
use crate::conditional::{IfMatch, version_tag};
use crate::create::sign;
use crate::error::ApiError;
use crate::openapi::{Forecast, ForecastChange, PatchOperation};
use crate::read::id;
use crate::router::Shared;
use crate::{body, validate};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};
use smartpulse_cache::Hit;
use smartpulse_clients::database::Write;
use smartpulse_json::{PatchError, Patched, apply, changed_members};
use std::sync::Arc;

const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

/// Both spellings of a merge patch, and operations.
const ACCEPTED: &str = "application/json, application/merge-patch+json, application/json-patch+json";

/// What is to be changed.
enum Change {
    /// These members.
    Merge(Map<String, Value>),
    /// What these operations make of the forecast.
    Operations(Bytes),
}

/// `PATCH /api/forecasts/{id}`
#[utoipa::path(
    patch, path = "/api/forecasts/{id}", operation_id = "changeForecast",
    params(("id" = Uuid, Path, description = "The forecast."), ("If-Match" = Option<String>, Header, description = "The tag of the version to change: of another one, 412.")),
    request_body(content(
        (ForecastChange = "application/json"),
        (ForecastChange = "application/merge-patch+json"),
        (Vec<PatchOperation> = "application/json-patch+json"),
    )),
    responses(
        (status = 200, description = "The forecast as it is now.", body = Forecast),
        (status = 400, description = "Values that cannot be: all of them, in `fields`."),
        (status = 404, description = "There is none, or it is another company's."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 409, description = "The operations do not fit the forecast, or it changes too often."),
        (status = 412, description = "It has another version."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is of another type.")
    )
)]
pub(crate) async fn patch(
    State(shared): State<Arc<Shared>>,
    called: Called,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = id(path)?;
    let (parts, stream) = request.into_parts();
    let media_type = body::media_type(&parts.headers);
    if ![APPLICATION_JSON, MERGE_PATCH, JSON_PATCH].contains(&media_type.as_str()) {
        return Err(ApiError::UnsupportedMediaType(ACCEPTED));
    }
    let if_match = IfMatch::from_headers(&parts.headers);
    let bytes = body::read(&parts.headers, stream, shared.body_bytes_max, shared.body_timeout).await?;
    let change = if media_type == JSON_PATCH {
        // Whether they are operations at all does not depend on the forecast.
        validate::operations(&body::json(&bytes)?).map_err(ApiError::Validation)?;
        Change::Operations(bytes)
    } else {
        Change::Merge(validate::changed(body::json(&bytes)?).map_err(ApiError::Validation)?)
    };
    let write = change::write(&shared, &called, &key, &if_match, |hit| {
        let mut members = change.members(hit)?;
        if members.is_empty() {
            return Ok(None);
        }
        sign(&mut members, &called);
        Ok(Some(Write::Update { key: Arc::clone(&key), expected_version: Some(hit.version), members }))
    });
    Ok(match write.await? {
        Outcome::Written(committed) => written(StatusCode::OK, committed),
        Outcome::Unchanged(hit) => document(StatusCode::OK, hit.document.bytes().clone(), version_tag(hit.version)),
    })
}

impl Change {
    /// The members to write; none where there is nothing to change.
    fn members(&self, hit: &Hit) -> Result<Map<String, Value>, ApiError> {
        match self {
            Self::Merge(members) => Ok(members.clone()),
            Self::Operations(operations) => operated(hit, operations),
        }
    }
}

/// The members that differ after the operations.
fn operated(hit: &Hit, operations: &Bytes) -> Result<Map<String, Value>, ApiError> {
    let before = &hit.document;
    let after = match apply(Some(before), operations) {
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
    let changes = changed_members(before, &after);
    let members = changes
        .into_iter()
        .map(|change| (change.name.into_owned(), change.new.map_or(Value::Null, |new| new.to_value())))
        .collect();
    validate::changed(Value::Object(members)).map_err(ApiError::Validation)
}
