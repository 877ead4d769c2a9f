//! Reads, creation and deletion of forecasts.

use crate::conditional::{IfMatch, body_tag, is_known, version_tag};
use crate::error::ApiError;
use crate::router::Shared;
use crate::{body, validate};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION, WARNING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use smartpulse_cache::Level;
use smartpulse_clients::database::{Row, Write, Written};
use smartpulse_pipeline::{Key, Timestamp};
use std::sync::Arc;
use uuid::Uuid;

/// What writers of the API sign their rows with.
const UPDATED_VIA: &str = "ProductionForecast.Api";

pub(crate) const APPLICATION_JSON: &str = "application/json";

const X_CACHE_HIT: HeaderName = HeaderName::from_static("x-cache-hit");
const X_CACHE_LEVEL: HeaderName = HeaderName::from_static("x-cache-level");
const X_CACHE_STALE: HeaderName = HeaderName::from_static("x-cache-stale");

/// A stale answer must be asked for again; RFC 9111 section 5.2.2.4.
const STALE_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache, private");

/// RFC 7234 section 5.5.1.
const STALE_WARNING: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

/// `GET /api/forecasts/{id}`
pub(crate) async fn read(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hit = shared.cache.get(&id(path)?).await?.ok_or(ApiError::ForecastNotFound)?;
    let answer = Answer { body: hit.document, tag: version_tag(hit.version), level: hit.level, stale: hit.stale };
    Ok(answer.into_response(&shared, &headers))
}

/// `GET /api/forecasts`
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|_| ApiError::field("query", "is not readable"))?;
    let query = validate::query(&parameters).map_err(ApiError::Validation)?;
    let hit = shared.cache.list(query).await?;
    let answer = Answer { body: hit.body, tag: body_tag(hit.etag), level: hit.level, stale: hit.stale };
    Ok(answer.into_response(&shared, &headers))
}

/// `POST /api/forecasts`
pub(crate) async fn create(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, ApiError> {
    let (parts, stream) = request.into_parts();
    if body::media_type(&parts.headers) != APPLICATION_JSON {
        return Err(ApiError::UnsupportedMediaType(APPLICATION_JSON));
    }
    let bytes = body::read(&parts.headers, stream, shared.body_bytes_max, shared.body_timeout).await?;
    let given = validate::created(body::json(&bytes)?).map_err(ApiError::Validation)?;
    let id = Uuid::new_v4().hyphenated().to_string();
    let location = HeaderValue::try_from(format!("/api/forecasts/{id}")).map_err(|_| ApiError::Internal)?;
    let mut members = Map::new();
    members.insert("id".to_owned(), Value::from(id));
    members.extend(given);
    sign(&mut members);
    let created_at = members["updatedAt"].clone();
    members.insert("createdAt".to_owned(), created_at);
    match shared.cache.write(Write::Insert { members }).await? {
        Written::Done(row) => {
            let mut response = written(StatusCode::CREATED, row);
            response.headers_mut().insert(LOCATION, location);
            Ok(response)
        }
        other => {
            tracing::error!(outcome = ?other, "a new forecast could not be inserted");
            Err(ApiError::Internal)
        }
    }
}

/// `DELETE /api/forecasts/{id}`
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key: Key = id(path)?.into();
    let expected_version = expected(&shared, &key, &IfMatch::from_headers(&headers)).await?;
    match shared.cache.write(Write::Delete { key, expected_version }).await? {
        Written::Done(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Written::NotFound => Err(ApiError::ForecastNotFound),
        Written::VersionMismatch(_) => Err(ApiError::PreconditionFailed),
        Written::Exists => Err(ApiError::Internal),
    }
}

/// The version that a write must find; `None` if any will do.
pub(crate) async fn expected(shared: &Shared, key: &Key, if_match: &IfMatch) -> Result<Option<i64>, ApiError> {
    match if_match {
        IfMatch::Absent | IfMatch::Any => Ok(None),
        IfMatch::Versions(versions) => match versions[..] {
            [] => Err(ApiError::PreconditionFailed),
            [version] => Ok(Some(version)),
            // One of several: which one is it, if any?
            _ => {
                let hit = shared.cache.reload(key).await?.ok_or(ApiError::ForecastNotFound)?;
                if_match.admits(hit.version).then_some(Some(hit.version)).ok_or(ApiError::PreconditionFailed)
            }
        },
    }
}

/// The id in a path as documents spell it. What is no id is no forecast's.
pub(crate) fn id(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let Path(text) = path.map_err(|_| ApiError::ForecastNotFound)?;
    validate::id(&text).ok_or(ApiError::ForecastNotFound)
}

/// Who changed the row, when, and through what. Nobody is known by name as long as there are no tokens; the
/// one before must not answer for this change.
pub(crate) fn sign(members: &mut Map<String, Value>) {
    members.insert("updatedAt".to_owned(), Value::from(Timestamp::now().to_string()));
    members.insert("updatedBy".to_owned(), Value::Null);
    members.insert("updatedVia".to_owned(), Value::from(UPDATED_VIA));
}

/// The answer of a write: the row as it is now.
pub(crate) fn written(status: StatusCode, row: Row) -> Response {
    document(status, row.document, version_tag(row.version))
}

/// A JSON body with its tag.
pub(crate) fn document(status: StatusCode, body: Bytes, tag: HeaderValue) -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(APPLICATION_JSON)), (ETAG, tag)];
    (status, headers, Body::from(body)).into_response()
}

/// A cached answer.
struct Answer {
    body: Bytes,
    tag: HeaderValue,
    level: Level,
    stale: bool,
}

impl Answer {
    fn into_response(self, shared: &Shared, request: &HeaderMap) -> Response {
        let mut response = if is_known(request, &self.tag) {
            (StatusCode::NOT_MODIFIED, [(ETAG, self.tag)]).into_response()
        } else {
            document(StatusCode::OK, self.body, self.tag)
        };
        let headers = response.headers_mut();
        let hit = if self.level == Level::L4 { "false" } else { "true" };
        headers.insert(X_CACHE_HIT, HeaderValue::from_static(hit));
        headers.insert(X_CACHE_LEVEL, HeaderValue::from_static(self.level.as_str()));
        if self.stale {
            headers.insert(CACHE_CONTROL, STALE_CACHE_CONTROL);
            headers.insert(X_CACHE_STALE, HeaderValue::from_static("true"));
            headers.insert(WARNING, STALE_WARNING);
        } else {
            headers.insert(CACHE_CONTROL, shared.cache_control.clone());
        }
        response
    }
}
