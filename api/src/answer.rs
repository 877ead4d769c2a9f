//! What successful answers are made of: bodies as they are held, and the headers that say where they come from.

use crate::conditional::{is_known, version_tag};
use crate::router::Shared;
use crate::trace::Committed;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY, WARNING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smartpulse_cache::Level;

pub(crate) const APPLICATION_JSON: &str = "application/json";

const X_CACHE_HIT: HeaderName = HeaderName::from_static("x-cache-hit");
const X_CACHE_LEVEL: HeaderName = HeaderName::from_static("x-cache-level");
const X_CACHE_STALE: HeaderName = HeaderName::from_static("x-cache-stale");

/// As many headers as a cached answer has, with those of the gate and of the server: they are made room for once.
const HEADERS_USUAL: usize = 12;

/// A stale answer must be asked for again; RFC 9111 section 5.2.2.4.
const STALE_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache, private");

/// RFC 7234 section 5.5.1.
const STALE_WARNING: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

/// A browser that two people use must not answer the one with what it kept for the other.
const VARY_CALLER: HeaderValue = HeaderValue::from_static("authorization");

/// The answer of a write: the row as it is now.
pub(crate) fn written(status: StatusCode, committed: Committed) -> Response {
    let answer = document(status, committed.row.document.clone(), version_tag(committed.row.version));
    committed.tell(answer)
}

/// A JSON body with its tag.
pub(crate) fn document(status: StatusCode, body: Bytes, tag: HeaderValue) -> Response {
    let mut response = tagged(status, Body::from(body), tag);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(APPLICATION_JSON));
    response
}

fn tagged(status: StatusCode, body: Body, tag: HeaderValue) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(HEADERS_USUAL);
    response.headers_mut().insert(ETAG, tag);
    response
}

/// Says that an answer may be behind the database.
pub(crate) fn mark_stale(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, STALE_CACHE_CONTROL);
    headers.insert(X_CACHE_STALE, HeaderValue::from_static("true"));
    headers.insert(WARNING, STALE_WARNING);
}

/// A cached answer.
pub(crate) struct Answer {
    pub body: Bytes,
    pub tag: HeaderValue,
    pub level: Level,
    pub stale: bool,
}

impl Answer {
    /// The answer to a request with these headers: without a body if the caller has it.
    pub fn into_response(self, shared: &Shared, request: &HeaderMap) -> Response {
        let mut response = if is_known(request, &self.tag) {
            tagged(StatusCode::NOT_MODIFIED, Body::empty(), self.tag)
        } else {
            document(StatusCode::OK, self.body, self.tag)
        };
        let headers = response.headers_mut();
        let hit = if self.level == Level::L4 { "false" } else { "true" };
        headers.insert(X_CACHE_HIT, HeaderValue::from_static(hit));
        headers.insert(X_CACHE_LEVEL, HeaderValue::from_static(self.level.as_str()));
        headers.insert(VARY, VARY_CALLER);
        if self.stale {
            mark_stale(headers);
        } else {
            headers.insert(CACHE_CONTROL, shared.cache_control.clone());
        }
        response
    }
}
