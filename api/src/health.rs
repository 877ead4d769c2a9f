//! `/health`, `/health/ready` and `/metrics`: never refused for load.

use crate::process;
use crate::router::Shared;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus::{TEXT_FORMAT, TextEncoder};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the database may take to answer the readiness check: less than the second that orchestrators
/// usually wait for it.
const PING_TIMEOUT: Duration = Duration::from_millis(800);

/// 200 while the process is alive.
#[utoipa::path(
    get, path = "/health", operation_id = "alive",
    responses((status = 200, description = "The process is alive.", body = serde_json::Value))
)]
pub(crate) async fn alive() -> Response {
    Json(json!({"status": "alive"})).into_response()
}

/// 200 when every part has started and the database answers, with what is degraded; otherwise 503, which
/// names the parts.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "ready",
    responses(
        (status = 200, description = "Requests can be sent here; `degraded` names what is missing.", body = serde_json::Value),
        (status = 503, description = "They cannot yet: `waiting` names the parts.")
    )
)]
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let degraded = shared.parts.readiness.degradations();
    let names: Vec<&String> = degraded.iter().map(|(part, _)| part).collect();
    let mut waiting = shared.parts.readiness.starting();
    if !matches!(timeout(PING_TIMEOUT, shared.parts.database.ping()).await, Ok(Ok(()))) {
        waiting.push("database".to_owned());
        waiting.sort();
        waiting.dedup();
    }
    if waiting.is_empty() {
        let reasons: serde_json::Map<_, _> =
            degraded.iter().map(|(part, why)| (part.clone(), why.as_str().into())).collect();
        return Json(json!({"status": "ready", "degraded": names, "reasons": reasons})).into_response();
    }
    let error = format!("not ready: {}", waiting.join(", "));
    let body = json!({"error": error, "code": "NOT_READY", "waiting": waiting, "degraded": names});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

/// All metrics as Prometheus text.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text.", content_type = "text/plain", body = String))
)]
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match TextEncoder::new().encode_to_string(&shared.parts.registry.gather()) {
        Ok(mut text) => {
            text.push_str(&process::metrics());
            text.push_str(&shared.parts.readiness.metrics());
            ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            crate::error::ApiError::Internal.into_response()
        }
    }
}
