//! The headers of requests, bounded, and those that every answer has.

use crate::error::ApiError;
use axum::extract::Request;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};

/// The longest headers of a request: names, values and what stands between and after them.
const HEADERS_BYTES_MAX: usize = 8 << 10;

/// The longest path and query.
const URI_BYTES_MAX: usize = 8 << 10;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// # Errors
///
/// 431 and 414 for what is too long. The connection has a bound of its own, above this one, so that the answer is ours.
pub(crate) fn check(request: &Request) -> Result<(), ApiError> {
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEADERS_BYTES_MAX {
        return Err(ApiError::HeadersTooLarge);
    }
    match request.uri().path_and_query() {
        Some(path) if path.as_str().len() > URI_BYTES_MAX => Err(ApiError::UriTooLong),
        _ => Ok(()),
    }
}

/// Completes the headers of an answer: what is not meant to be kept is kept by nobody, what is no page does nothing in a
/// browser.
pub(crate) fn finish(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(REFERRER_POLICY, NO_REFERRER);
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
    // Compressed, it is another representation: RFC 9110 section 8.8.1. The tag still says which version it is.
    if headers.contains_key(CONTENT_ENCODING)
        && let Some(tag) = headers.get(ETAG).and_then(|tag| tag.to_str().ok())
        && !tag.starts_with("W/")
        && let Ok(weak) = HeaderValue::try_from(format!("W/{tag}"))
    {
        headers.insert(ETAG, weak);
    }
}
