//! `POST /api/send-push-notification` and the key that browsers subscribe with.

use crate::auth::Called;
use crate::body;
use crate::error::ApiError;
use crate::inbox::notifications;
use crate::openapi::{PublicKey, PushReport, SendPushBody};
use crate::router::Shared;
use crate::validate::people;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use smartpulse_clients::notifications::Audience;
use std::sync::Arc;

/// `POST /api/send-push-notification`: tells a user's devices at once.
///
/// An editor's, to users of the caller's companies: who writes their forecasts may tell them of it. What is told is free
/// text, so nobody may send it to everybody but an admin. Another company's user is answered as one that is not there.
#[utoipa::path(
    post, path = "/api/send-push-notification", operation_id = "sendPush",
    request_body = SendPushBody,
    responses(
        (status = 200, description = "What became of it on each device; none where the user has no device.", body = PushReport),
        (status = 400, description = "Values that cannot be: all of them, in `fields`."),
        (status = 404, description = "There is no such user, or it is another company's."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is of another type.")
    )
)]
pub(crate) async fn send(
    State(shared): State<Arc<Shared>>,
    called: Called,
    request: Request,
) -> Result<Response, ApiError> {
    let given = body::object(&shared, request).await?;
    let push = people::send(given).map_err(ApiError::Validation)?;
    let found = notifications(&shared)?.users(&Audience::User(push.user_id), None, 1).await?;
    let seen = found.first().is_some_and(|user| called.sees(&user.company.to_string()));
    if !seen {
        return Err(ApiError::UserNotFound);
    }
    let pusher = shared.parts.push.as_ref().ok_or(ApiError::PushUnavailable)?;
    Ok(Json(pusher.send(&push).await?).into_response())
}

/// `GET /api/push/public-key`: the `applicationServerKey` (RFC 8292) that pages subscribe with.
#[utoipa::path(
    get, path = "/api/push/public-key", operation_id = "readPublicKey",
    responses((status = 200, description = "The key, in base64url.", body = PublicKey))
)]
pub(crate) async fn public_key(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let key = shared.parts.push.as_ref().and_then(|push| push.public_key()).ok_or(ApiError::PushUnavailable)?;
    Ok(Json(json!({ "publicKey": key })).into_response())
}
