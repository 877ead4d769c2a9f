//! Which web pages may call: none, or those of configured origins.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderValue, Method};
use smartpulse_pipeline::error::{Error, Result};
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The layer for these origins and the methods that there are; `None` without any origin.
///
/// # Errors
///
/// If an origin is none.
pub(crate) fn layer(origins: &[String], methods: Vec<Method>) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    // Tokens are sent by script, never by the browser itself: every origin may be allowed.
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(|text| origin(text)).collect::<Result<Vec<_>>>()?)
    };
    Ok(Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(methods)
            .allow_headers([
                AUTHORIZATION,
                CONTENT_TYPE,
                IF_MATCH,
                IF_NONE_MATCH,
                HeaderName::from_static("last-event-id"),
            ])
            .expose_headers(
                ["etag", "location", "retry-after", "x-cache-hit", "x-cache-level"].map(HeaderName::from_static),
            )
            .max_age(MAX_AGE),
    ))
}

/// An origin as browsers send it: scheme, host and port, without a path (RFC 6454 section 6.2).
fn origin(text: &str) -> Result<HeaderValue> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ', '*']));
    let value = HeaderValue::from_str(text).ok().filter(|_| plain);
    value.ok_or_else(|| {
        Error::fatal(format!("api.cors_origins has {text:?}, which is no origin; write it as https://app.example"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_no_path() {
        assert!(layer(&[], Vec::new()).unwrap().is_none());
        for good in ["https://app.example", "http://localhost:3000", "*"] {
            assert!(layer(&[good.to_owned()], vec![Method::GET]).unwrap().is_some(), "{good}");
        }
        for bad in ["app.example", "https://app.example/", "https://", "https://*.example", "file:///x"] {
            let error = layer(&[bad.to_owned()], vec![Method::GET]).unwrap_err().to_string();
            assert!(error.contains("write it as https://app.example"), "{bad}: {error}");
        }
    }
}
