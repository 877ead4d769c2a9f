//! `GET /api/forecasts/{id}`, and how a forecast is found that is the caller's to see.

use crate::answer::Answer;
use crate::auth::{Called, Caller};
use crate::conditional::version_tag;
use crate::error::ApiError;
use crate::openapi::Forecast;
use crate::router::Shared;
use crate::validate;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use smartpulse_cache::Hit;
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use std::sync::Arc;

/// `GET /api/forecasts/{id}`
#[utoipa::path(
    get, path = "/api/forecasts/{id}", operation_id = "readForecast",
    params(("id" = Uuid, Path, description = "The forecast."), ("If-None-Match" = Option<String>, Header, description = "A tag that the caller has: then 304, without a body.")),
    responses(
        (status = 200, description = "The forecast; `ETag` is its version.", body = Forecast),
        (status = 304, description = "The caller has it."),
        (status = 404, description = "There is none, or it is another company's.")
    )
)]
pub(crate) async fn read(
    State(shared): State<Arc<Shared>>,
    called: Called,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hit = visible(shared.parts.cache.get(&id(path)?).await?, &called)?;
    let answer = Answer {
        body: hit.document.bytes().clone(),
        tag: version_tag(hit.version),
        level: hit.level,
        stale: hit.stale,
    };
    Ok(answer.into_response(&shared, &headers))
}

/// The id in a path as documents spell it. What is no id is no forecast's.
pub(crate) fn id(path: Result<Path<String>, PathRejection>) -> Result<Key, ApiError> {
    let Path(text) = path.map_err(|_| ApiError::ForecastNotFound)?;
    validate::id(&text).map(Key::from).ok_or(ApiError::ForecastNotFound)
}

/// What was found, if it is the caller's to see. Another company's forecast is answered as one that is not there.
pub(crate) fn visible(found: Option<Hit>, caller: &Caller) -> Result<Hit, ApiError> {
    found.filter(|hit| sees(caller, &hit.document)).ok_or(ApiError::ForecastNotFound)
}

/// Whether a document is the caller's to see; one without a company is an admin's.
pub(crate) fn sees(caller: &Caller, document: &Document) -> bool {
    let company = || document.get("companyId").and_then(|value| value.as_str());
    caller.sees_all() || company().is_some_and(|company| caller.sees(&company))
}
