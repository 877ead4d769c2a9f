//! The caller's notifications: a page, how many are not read, one marked as read.
//!
//! They are read from the database each time: nobody else's answer could be kept for them.

use crate::answer::APPLICATION_JSON;
use crate::auth::Called;
use crate::error::ApiError;
use crate::openapi::{NotificationPage, Success, Unread};
use crate::router::Shared;
use crate::validate::{self, people};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::json;
use smartpulse_clients::database::Row;
use smartpulse_clients::notifications::SharedNotifications;
use std::sync::Arc;
use uuid::Uuid;

/// Where notifications are read from.
///
/// # Errors
///
/// 503 where the database keeps none.
pub(crate) fn notifications(shared: &Shared) -> Result<SharedNotifications, ApiError> {
    shared.parts.database.notifications().ok_or(ApiError::NotificationsUnavailable)
}

/// The id in a path. What is no id is nobody's.
pub(crate) fn id(path: Result<Path<String>, PathRejection>, absent: ApiError) -> Result<Uuid, ApiError> {
    let text = path.ok().and_then(|Path(text)| validate::id(&text));
    text.and_then(|id| id.parse().ok()).ok_or(absent)
}

/// `"items":[...]` of rows as the database spells them.
pub(crate) fn items(rows: &[Row]) -> Result<String, ApiError> {
    let mut text = String::from("\"items\":[");
    for (place, row) in rows.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(std::str::from_utf8(&row.document).map_err(|_| ApiError::Internal)?);
    }
    text.push(']');
    Ok(text)
}

/// A body that is JSON already.
pub(crate) fn answer(body: String) -> Response {
    ([(CONTENT_TYPE, APPLICATION_JSON)], Body::from(body)).into_response()
}

/// `GET /api/notifications`: the caller's own, newest first.
#[utoipa::path(
    get, path = "/api/notifications", operation_id = "listNotifications",
    params(
        ("skip" = Option<u32>, Query, minimum = 0, maximum = 4294967295u32, description = "How many to pass over."),
        ("take" = Option<u32>, Query, minimum = 1, maximum = 500, description = "How many to give at most; 20 by default.")
    ),
    responses(
        (status = 200, description = "A page of the caller's own, newest first.", body = NotificationPage),
        (status = 400, description = "Parameters that cannot be.")
    )
)]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    called: Called,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|_| ApiError::field("query", "is not readable"))?;
    let window = people::window(&parameters).map_err(ApiError::Validation)?;
    let page = notifications(&shared)?.inbox(called.user, window.skip, window.take).await?;
    Ok(answer(format!("{{\"total\":{},{}}}", page.total, items(&page.rows)?)))
}

/// `GET /api/notifications/unread-count`
#[utoipa::path(
    get, path = "/api/notifications/unread-count", operation_id = "countUnread",
    responses((status = 200, description = "How many of the caller's own are not read.", body = Unread))
)]
pub(crate) async fn unread(State(shared): State<Arc<Shared>>, called: Called) -> Result<Response, ApiError> {
    let unread = notifications(&shared)?.unread(called.user).await?;
    Ok(Json(json!({ "unread": unread })).into_response())
}

/// `PUT /api/notifications/{id}/read`: read since now, or since the first time.
#[utoipa::path(
    put, path = "/api/notifications/{id}/read", operation_id = "markRead",
    params(("id" = Uuid, Path, description = "The notification.")),
    responses(
        (status = 200, description = "It is read.", body = Success),
        (status = 404, description = "There is none, or it is another user's.")
    )
)]
pub(crate) async fn read(
    State(shared): State<Arc<Shared>>,
    called: Called,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = id(path, ApiError::NotificationNotFound)?;
    match notifications(&shared)?.mark_read(called.user, id).await? {
        true => Ok(Json(json!({ "success": true })).into_response()),
        false => Err(ApiError::NotificationNotFound),
    }
}
