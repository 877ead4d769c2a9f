//! `POST /api/forecasts`

use crate::answer::written;
use crate::auth::{Called, Caller};
use crate::error::ApiError;
use crate::openapi::{Forecast, NewForecast};
use crate::router::Shared;
use crate::trace::{Committed, timed};
use crate::{body, validate};
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};
use smartpulse_clients::database::{Write, Written};
use smartpulse_pipeline::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// What writers of the API sign their rows with.
const UPDATED_VIA: &str = "ProductionForecast.Api";

/// `POST /api/forecasts`
#[utoipa::path(
    post, path = "/api/forecasts", operation_id = "createForecast",
    request_body = NewForecast,
    responses(
        (status = 201, description = "The forecast; `Location` says where it is.", body = Forecast),
        (status = 400, description = "Values that cannot be: all of them, in `fields`."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is of another type.")
    )
)]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    called: Called,
    request: Request,
) -> Result<Response, ApiError> {
    let given = validate::created(body::object(&shared, request).await?).map_err(ApiError::Validation)?;
    if !given["companyId"].as_str().is_some_and(|company| called.sees(company)) {
        return Err(ApiError::Forbidden);
    }
    let id = Uuid::new_v4().hyphenated().to_string();
    let location = HeaderValue::try_from(format!("/api/forecasts/{id}")).map_err(|_| ApiError::Internal)?;
    let mut members = Map::new();
    members.insert("id".to_owned(), Value::from(id));
    members.extend(given);
    sign(&mut members, &called);
    let created_at = members["updatedAt"].clone();
    members.insert("createdAt".to_owned(), created_at);
    match timed(shared.parts.cache.write(Write::Insert { members })).await? {
        (Written::Done(row), timing) => {
            let mut response = written(StatusCode::CREATED, Committed { row, timing });
            response.headers_mut().insert(LOCATION, location);
            Ok(response)
        }
        (other, _) => {
            tracing::error!(outcome = ?other, "a new forecast could not be inserted");
            Err(ApiError::Internal)
        }
    }
}

/// Who changed the row, when, and through what.
pub(crate) fn sign(members: &mut Map<String, Value>, caller: &Caller) {
    members.insert("updatedAt".to_owned(), Value::from(Timestamp::now().to_string()));
    members.insert("updatedBy".to_owned(), Value::from(caller.user.hyphenated().to_string()));
    members.insert("updatedVia".to_owned(), Value::from(UPDATED_VIA));
}
