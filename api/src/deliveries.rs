//! `GET /api/notifications/deliveries`: what the ledger says of attempts to tell people. For admins: it names users of every
//! company.

use crate::error::ApiError;
use crate::inbox::{answer, items, notifications};
use crate::openapi::DeliveryPage;
use crate::router::Shared;
use crate::validate::people;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use std::sync::Arc;

/// `GET /api/notifications/deliveries`
#[utoipa::path(
    get, path = "/api/notifications/deliveries", operation_id = "listDeliveries",
    params(
        ("deliveryId" = Option<Uuid>, Query, description = "Only the attempts of this delivery."),
        ("userId" = Option<Uuid>, Query, description = "Only to this user."),
        ("rule" = Option<String>, Query, min_length = 1, max_length = 200, description = "Only by this rule."),
        ("entity" = Option<String>, Query, min_length = 1, max_length = 200, description = "Only about this."),
        ("outcome" = Option<String>, Query, min_length = 1, max_length = 200, description = "Only with this outcome, such as `told`, `sent`, `queued`, `failed`, `refused`."),
        ("skip" = Option<u32>, Query, minimum = 0, maximum = 4294967295u32, description = "How many to pass over."),
        ("take" = Option<u32>, Query, minimum = 1, maximum = 500, description = "How many to give at most; 20 by default.")
    ),
    responses(
        (status = 200, description = "Attempts, newest first.", body = DeliveryPage),
        (status = 400, description = "Parameters that cannot be.")
    )
)]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|_| ApiError::field("query", "is not readable"))?;
    let mut query = people::deliveries(&parameters).map_err(ApiError::Validation)?;
    // One more tells whether there are more: counting all would read the whole ledger.
    let take = query.take as usize;
    query.take += 1;
    let mut rows = notifications(&shared)?.deliveries(&query).await?;
    let more = rows.len() > take;
    rows.truncate(take);
    Ok(answer(format!("{{{},\"more\":{more}}}", items(&rows)?)))
}
