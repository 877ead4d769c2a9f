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
pub(crate) async fn alive() -> Response {
    Json(json!({"status": "alive"})).into_response()
}

/// 200 when every part has started and the database answers, with what is degraded; otherwise 503, which
/// names the parts.
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
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match TextEncoder::new().encode_to_string(&shared.parts.registry.gather()) {
        Ok(mut text) => {
            text.push_str(&process::metrics());
            ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            crate::error::ApiError::Internal.into_response()
        }
    }
}
