//! `POST /api/forecasts/query`: several forecasts by id, each as its own read would answer it.

use crate::answer::{APPLICATION_JSON, mark_stale};
use crate::auth::Called;
use crate::error::ApiError;
use crate::openapi::{Batch, BatchAnswer};
use crate::read::sees;
use crate::router::Shared;
use crate::{body, validate};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;
use serde_json::json;
use std::sync::Arc;

/// How many of the ids that are not in memory are loaded at a time.
const LOADS_MAX: usize = 16;

/// `POST /api/forecasts/query` `{"ids": [...]}`: the forecasts in the order of their ids, and the ids for which there is
/// none, or none that is the caller's to see. Stale if one of them is.
#[utoipa::path(
    post, path = "/api/forecasts/query", operation_id = "readForecasts",
    request_body = Batch,
    responses(
        (status = 200, description = "Those that there are, and the ids of those that there are not.", body = BatchAnswer),
        (status = 400, description = "Ids that cannot be."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is of another type.")
    )
)]
pub(crate) async fn query(
    State(shared): State<Arc<Shared>>,
    called: Called,
    request: Request,
) -> Result<Response, ApiError> {
    let ids = validate::ids(&body::object(&shared, request).await?).map_err(ApiError::Validation)?;
    let loads = ids.clone().into_iter().map(|id| {
        let cache = shared.parts.cache.clone();
        async move { cache.get(&id).await }
    });
    let found: Vec<_> = stream::iter(loads).buffered(LOADS_MAX).try_collect().await?;
    let mut body = String::from("{\"items\":[");
    let mut missing = Vec::new();
    let mut stale = false;
    for (id, hit) in ids.iter().zip(found) {
        match hit.filter(|hit| sees(&called, &hit.document)) {
            Some(hit) => {
                stale |= hit.stale;
                if !body.ends_with('[') {
                    body.push(',');
                }
                body.push_str(hit.document.as_str());
            }
            None => missing.push(id),
        }
    }
    body.push_str(&format!("],\"missing\":{}}}", json!(missing)));
    let mut response = ([(CONTENT_TYPE, APPLICATION_JSON)], Body::from(body)).into_response();
    if stale {
        mark_stale(response.headers_mut());
    }
    Ok(response)
}
