//! Request bodies: of a known type, of bounded length, in bounded time.

use crate::answer::APPLICATION_JSON;
use crate::error::ApiError;
use crate::router::Shared;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// The media type of a body, without its parameters, in lower case; empty if there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The whole body.
///
/// # Errors
///
/// 413 beyond `bytes_max`, before anything is read if the caller says the length; 408 if it takes longer than
/// `wait`; 400 if the connection ends or its framing is broken.
pub(crate) async fn read(headers: &HeaderMap, body: Body, bytes_max: usize, wait: Duration) -> Result<Bytes, ApiError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(ApiError::PayloadTooLarge(bytes_max));
    }
    match timeout(wait, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::PayloadTooLarge(bytes_max)),
        Ok(Err(_)) => Err(ApiError::field("", "ended early")),
        Err(_) => Err(ApiError::BodyTimeout),
    }
}

/// The body of a request that must be `application/json`.
///
/// # Errors
///
/// 415 for another type; those of [`read`] and [`json`].
pub(crate) async fn object(shared: &Shared, request: Request) -> Result<Value, ApiError> {
    let (parts, stream) = request.into_parts();
    if media_type(&parts.headers) != APPLICATION_JSON {
        return Err(ApiError::UnsupportedMediaType(APPLICATION_JSON));
    }
    json(&read(&parts.headers, stream, shared.body_bytes_max, shared.body_timeout).await?)
}

/// The body as JSON.
///
/// # Errors
///
/// 400 with the place of the first mistake.
pub(crate) fn json(body: &Bytes) -> Result<Value, ApiError> {
    // The strict parser: what is ambiguous (a member given twice) is an error here, not the last one's win.
    match smartpulse_json::Document::parse(body.clone()) {
        Ok(document) => Ok(document.to_value()),
        Err(error) => Err(ApiError::field("", format!("is not JSON: {error}"))),
    }
}
