//! Load, time and panics: whatever happens, the caller gets an answer, soon.

use crate::error::ApiError;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What all requests together may use. One per server: a limit per connection would be none.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub concurrency: Arc<Semaphore>,
    pub request_timeout: Duration,
}

/// Refuses at once what is over the limit: a request that waits in line uses memory and helps nobody.
pub(crate) async fn limit(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let Ok(_permit) = limits.concurrency.try_acquire() else {
        return ApiError::Overloaded.into_response();
    };
    match timeout(limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

/// The answer of a handler that panicked. Its message may name anything, so that it goes to the log only.
#[allow(clippy::needless_pass_by_value, reason = "the layer hands it over")]
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(message = message.unwrap_or("(no text)"), "a request panicked");
    ApiError::Internal.into_response()
}
