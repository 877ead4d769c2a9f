//! Panics: whatever happens, the caller gets an answer.

use crate::error::ApiError;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::any::Any;
use std::panic::AssertUnwindSafe;

/// What a future gives, or the answer when it panics. Nothing of it is used afterwards.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Response> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| panicked(&*panic))
}

/// The answer of a handler that panicked. Its message may name anything, so that it goes to the log only.
fn panicked(panic: &(dyn Any + Send)) -> Response {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = message.unwrap_or("(no text)"), "a request panicked");
    ApiError::Internal.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_panic_is_answered_without_its_message() {
        let fails = async {
            if true {
                panic!("the password is 1234")
            }
        };
        let response = caught(fails).await.unwrap_err();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"error":"internal error","code":"INTERNAL"}"#);
    }
}
