//! By which channels a user wants to be told, set by the user or by a link in a mail (RFC 8058).
//!
//! A link's GET only shows a button: programs that look at every link of a mail unsubscribe nobody. Its POST, which the
//! button and mail programs send, needs no login: the signature says whose it is, and it can do nothing but switch a channel off.

use crate::auth::Called;
use crate::body;
use crate::error::ApiError;
use crate::inbox::notifications;
use crate::openapi::{Preferences, PreferencesChange};
use crate::router::Shared;
use crate::validate::{self, people};
use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::response::{Html, IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use serde_json::{Map, Value};
use smartpulse_clients::notifications::Channel;
use std::sync::Arc;
use uuid::Uuid;

/// The page has its style in itself, and one form that leads back here.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";

async fn current(shared: &Shared, user: Uuid) -> Result<Response, ApiError> {
    let off = notifications(shared)?.switched_off(&[user]).await?;
    let on = |channel: &Channel| !off.iter().any(|(_, switched)| switched == channel);
    let members: Map<String, Value> =
        Channel::ALL.iter().map(|channel| (people::member(*channel).to_owned(), Value::Bool(on(channel)))).collect();
    Ok(Json(members).into_response())
}

/// `GET /api/notification-preferences`
#[utoipa::path(
    get, path = "/api/notification-preferences", operation_id = "readPreferences",
    responses((status = 200, description = "By which channels the caller is told.", body = Preferences))
)]
pub(crate) async fn read(State(shared): State<Arc<Shared>>, called: Called) -> Result<Response, ApiError> {
    current(&shared, called.user).await
}

/// `PUT /api/notification-preferences`: what is named is changed.
#[utoipa::path(
    put, path = "/api/notification-preferences", operation_id = "changePreferences",
    request_body = PreferencesChange,
    responses(
        (status = 200, description = "By which channels the caller is told now; within seconds everywhere.", body = Preferences),
        (status = 400, description = "Values that cannot be: all of them, in `fields`."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is of another type.")
    )
)]
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    called: Called,
    request: Request,
) -> Result<Response, ApiError> {
    let channels = people::preferences(body::object(&shared, request).await?).map_err(ApiError::Validation)?;
    notifications(&shared)?.switch(called.user, &channels).await?;
    current(&shared, called.user).await
}

/// Whose link it is, and for which channel.
fn linked(shared: &Shared, query: Option<&str>) -> Result<(Uuid, Channel), ApiError> {
    let token = validate::parameter(query.unwrap_or_default(), "token");
    let links = shared.parts.unsubscribe.as_ref();
    links.zip(token).and_then(|(links, token)| links.read(token)).ok_or(ApiError::LinkUnknown)
}

/// `GET /unsubscribe?token=`: a page with a button.
#[utoipa::path(
    get, path = "/unsubscribe", operation_id = "askUnsubscribe",
    params(("token" = String, Query, description = "From a mail's link.")),
    responses(
        (status = 200, description = "A page with a button. Nothing has changed.", content_type = "text/html", body = String),
        (status = 404, description = "The link is none of ours.")
    )
)]
pub(crate) async fn ask(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let (_, channel) = linked(&shared, query.as_deref())?;
    let what = name(channel);
    Ok(page(&format!(
        "<h1>No more {what}?</h1><p>Forecasts will not be told to you by {what} any more. Everything else stays as it is.</p>\
         <form method=\"post\"><button>Stop {what}</button></form>"
    )))
}

/// `POST /unsubscribe?token=`: switches the channel off.
#[utoipa::path(
    post, path = "/unsubscribe", operation_id = "unsubscribe",
    params(("token" = String, Query, description = "From a mail's link.")),
    responses(
        (status = 200, description = "The channel is switched off.", content_type = "text/html", body = String),
        (status = 404, description = "The link is none of ours."),
        (status = 503, description = "The database is away: `Retry-After` says when to come again.")
    )
)]
pub(crate) async fn unsubscribe(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let (user, channel) = linked(&shared, query.as_deref())?;
    notifications(&shared)?.switch(user, &[(channel, false)]).await?;
    let what = name(channel);
    Ok(page(&format!("<h1>Done</h1><p>You get no more {what}. In the application you can switch them on again.</p>")))
}

fn name(channel: Channel) -> &'static str {
    match channel {
        Channel::InApp => "messages in the application",
        Channel::PushNotification => "push notifications",
        Channel::Email => "e-mails",
    }
}

/// The token in the address leaves by no referrer, and nobody keeps the page.
fn page(content: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Notifications</title><style>body{{font:1.1rem/1.5 system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}}\
         button{{font:inherit;padding:.5rem 1rem}}</style>{content}</html>"
    );
    let headers =
        [(CONTENT_SECURITY_POLICY, PAGE_POLICY), (REFERRER_POLICY, "no-referrer"), (CACHE_CONTROL, "no-store")];
    (headers, Html(html)).into_response()
}
