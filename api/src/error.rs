//! Every refusal there is. The text is for the caller; what failed inside goes to the log.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use smartpulse_clients::delivery::DEVICES_MAX;
use smartpulse_pipeline::error::{Error, ErrorKind};
use std::time::Duration;

/// When a refused caller should try again, in seconds: the circuit's interval, and longer than any request
/// that is served takes.
const RETRY_AFTER_SECONDS: u32 = 1;

/// What is wrong with one member of a body, or one parameter of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// Its name; empty for the body as a whole.
    pub field: String,
    /// What is wrong.
    pub error: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiError {
    /// Values that cannot be.
    Validation(Vec<FieldError>),
    /// Who calls is not known. The reason is in a metric: a caller learns nothing from it.
    Unauthorized,
    /// The caller is known, and may not do this.
    Forbidden,
    /// No such forecast.
    ForecastNotFound,
    /// No such notification, or another user's.
    NotificationNotFound,
    /// No such device, or another user's.
    DeviceNotFound,
    /// No such user, or another company's.
    UserNotFound,
    /// A link that was not signed here.
    LinkUnknown,
    /// This user has as many devices as are told.
    TooManyDevices,
    /// The database keeps no notifications.
    NotificationsUnavailable,
    /// No push service is set up.
    PushUnavailable,
    /// No such path.
    NotFound,
    /// The path exists, for these other methods.
    MethodNotAllowed(HeaderValue),
    /// The forecast has another version than the caller said.
    PreconditionFailed,
    /// The patch does not fit the forecast, or it changes faster than it can be patched.
    Conflict(String),
    /// The body is longer than this many bytes.
    PayloadTooLarge(usize),
    /// The body is of another media type than these.
    UnsupportedMediaType(&'static str),
    /// The body did not come in time.
    BodyTimeout,
    /// The request was not done in time.
    Timeout,
    /// This user calls too often; when to come again.
    TooManyRequests(Duration),
    /// The headers are too long.
    HeadersTooLarge,
    /// The path and query are too long.
    UriTooLong,
    /// This user has too many streams open.
    TooManyStreams,
    /// Nobody tells of changes here: there is no bus, or it is away.
    ChangesUnavailable,
    /// Too many requests are under way.
    Overloaded,
    /// The database does not answer.
    DatabaseUnavailable,
    /// Something else failed.
    Internal,
}

impl ApiError {
    /// One wrong field.
    pub(crate) fn field(field: impl Into<String>, error: impl Into<String>) -> Self {
        Self::Validation(vec![FieldError { field: field.into(), error: error.into() }])
    }

    fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Validation(fields) => {
                let all: Vec<String> = fields.iter().map(ToString::to_string).collect();
                (StatusCode::BAD_REQUEST, "VALIDATION_FAILED", all.join("; "))
            }
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a valid bearer token is required".to_owned())
            }
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, "FORBIDDEN", "your role or your companies do not allow this".to_owned())
            }
            Self::ForecastNotFound => {
                (StatusCode::NOT_FOUND, "FORECAST_NOT_FOUND", "there is no such forecast".to_owned())
            }
            Self::NotificationNotFound => {
                (StatusCode::NOT_FOUND, "NOTIFICATION_NOT_FOUND", "you have no such notification".to_owned())
            }
            Self::DeviceNotFound => (StatusCode::NOT_FOUND, "DEVICE_NOT_FOUND", "you have no such device".to_owned()),
            Self::UserNotFound => (StatusCode::NOT_FOUND, "USER_NOT_FOUND", "there is no such user".to_owned()),
            Self::LinkUnknown => (
                StatusCode::NOT_FOUND,
                "LINK_UNKNOWN",
                "this link is none of ours, or a part of it is missing: copy it whole from the mail".to_owned(),
            ),
            Self::TooManyDevices => (
                StatusCode::CONFLICT,
                "TOO_MANY_DEVICES",
                format!("you have {DEVICES_MAX} devices, which is as many as are told: remove one first"),
            ),
            Self::NotificationsUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "NOTIFICATIONS_UNAVAILABLE",
                "the database of this instance keeps no notifications".to_owned(),
            ),
            Self::PushUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "PUSH_UNAVAILABLE",
                "no push service is set up on this instance".to_owned(),
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing at this path".to_owned()),
            Self::MethodNotAllowed(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path does not take this method".to_owned())
            }
            Self::PreconditionFailed => (
                StatusCode::PRECONDITION_FAILED,
                "PRECONDITION_FAILED",
                "the forecast has another version than If-Match says".to_owned(),
            ),
            Self::Conflict(reason) => (StatusCode::CONFLICT, "CONFLICT", reason.clone()),
            Self::PayloadTooLarge(bytes_max) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "PAYLOAD_TOO_LARGE",
                format!("the body is longer than {bytes_max} bytes"),
            ),
            Self::UnsupportedMediaType(accepted) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                format!("the body must be of type {accepted}"),
            ),
            Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not arrive in time".to_owned())
            }
            Self::Timeout => {
                (StatusCode::SERVICE_UNAVAILABLE, "TIMEOUT", "the request was not done in time".to_owned())
            }
            Self::TooManyRequests(_) => {
                (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", "you call too often".to_owned())
            }
            Self::TooManyStreams => (
                StatusCode::TOO_MANY_REQUESTS,
                "TOO_MANY_STREAMS",
                "you have too many streams open: close some".to_owned(),
            ),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "HEADERS_TOO_LARGE",
                "the headers are longer than 8 KiB".to_owned(),
            ),
            Self::UriTooLong => {
                (StatusCode::URI_TOO_LONG, "URI_TOO_LONG", "path and query are longer than 8 KiB".to_owned())
            }
            Self::ChangesUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "CHANGES_UNAVAILABLE",
                "this instance hears of no changes: it has no bus, or the bus is away".to_owned(),
            ),
            Self::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", "too many requests are under way".to_owned())
            }
            Self::DatabaseUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "DATABASE_UNAVAILABLE", "the database does not answer".to_owned())
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "internal error".to_owned()),
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.field.is_empty() { "body" } else { &self.field };
        write!(f, "{name} {}", self.error)
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: String,
    code: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    fields: &'a [FieldError],
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, error) = self.parts();
        let fields: &[FieldError] = if let Self::Validation(fields) = &self { fields } else { &[] };
        let mut response = (status, Json(ErrorBody { error, code, fields })).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE || self == Self::TooManyStreams {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if let Self::TooManyRequests(wait) = self {
            // In whole seconds: who comes a little late is let in.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        match self {
            Self::UnsupportedMediaType(accepted) => {
                headers.insert(ACCEPT, HeaderValue::from_static(accepted));
            }
            Self::MethodNotAllowed(allowed) => {
                headers.insert(ALLOW, allowed);
            }
            _ => {}
        }
        response
    }
}

/// What a failed read or write is to the caller.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Transient => {
                tracing::warn!(error = error.chain(), "a request failed for want of the database");
                Self::DatabaseUnavailable
            }
            ErrorKind::Rejected => {
                tracing::warn!(error = error.chain(), "the database refused the values of a request");
                Self::field("", "has values that the database refuses")
            }
            ErrorKind::Fatal => {
                tracing::error!(error = error.chain(), "a request failed");
                Self::Internal
            }
        }
    }
}
