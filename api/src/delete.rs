//! `DELETE /api/forecasts/{id}`

use crate::auth::Called;
use crate::change::{self, Outcome};
use crate::conditional::IfMatch;
use crate::error::ApiError;
use crate::read::id;
use crate::router::Shared;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use smartpulse_clients::database::Write;
use std::sync::Arc;

/// `DELETE /api/forecasts/{id}`
#[utoipa::path(
    delete, path = "/api/forecasts/{id}", operation_id = "deleteForecast",
    params(("id" = Uuid, Path, description = "The forecast."), ("If-Match" = Option<String>, Header, description = "The tag of the version to change: of another one, 412.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is none, or it is another company's."),
        (status = 409, description = "It changes too often."),
        (status = 412, description = "It has another version.")
    )
)]
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    called: Called,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = id(path)?;
    let if_match = IfMatch::from_headers(&headers);
    let delete = change::write(&shared, &called, &key, &if_match, |hit| {
        Ok(Some(Write::Delete { key: Arc::clone(&key), expected_version: Some(hit.version) }))
    });
    match delete.await? {
        Outcome::Written(committed) => Ok(committed.tell(StatusCode::NO_CONTENT.into_response())),
        Outcome::Unchanged(_) => Err(ApiError::Internal),
    }
}
