//! The description of the API (OpenAPI 3.1), made from the annotations of its handlers, for programs and for people.
//!
//! What all routes share is added here from their policies: who may call, and the refusals of the gate. A golden file in
//! `tests` shows every change of the contract in review.

mod page;
mod people;
mod types;

use crate::answer::APPLICATION_JSON;
use crate::auth::Role;
use crate::policy::{Policies, Policy};
use crate::router::Shared;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use std::sync::Arc;

pub(crate) use people::{
    DeliveryPage, DeviceEntry, DeviceList, NewDeviceBody, NotificationPage, Preferences, PreferencesChange, PublicKey,
    PushReport, SendPushBody, Success, Unread,
};
pub(crate) use types::{
    Batch, BatchAnswer, Forecast, ForecastChange, ForecastPage, NewForecast, PatchOperation, Ticket,
};
use utoipa::OpenApi;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, SecurityRequirement};

/// The page has its style in itself, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "SmartPulse",
        description = "Forecasts, answered from a cache that every committed change keeps fresh, and the changes themselves."
    ),
    paths(
        crate::list::list,
        crate::create::create,
        crate::batch::query,
        crate::read::read,
        crate::patch::patch,
        crate::delete::delete,
        crate::changes::stream::of_forecast,
        crate::changes::stream::of_company,
        crate::tickets::create,
        crate::inbox::list,
        crate::inbox::unread,
        crate::inbox::read,
        crate::inbox_stream::open,
        crate::deliveries::list,
        crate::preferences::read,
        crate::preferences::change,
        crate::preferences::ask,
        crate::preferences::unsubscribe,
        crate::devices::list,
        crate::devices::register,
        crate::devices::remove,
        crate::push::public_key,
        crate::push::send,
        crate::health::alive,
        crate::health::ready,
        crate::health::metrics,
        openapi_json,
        docs,
    ),
    components(schemas(types::Error, types::Field))
)]
struct Described;

/// The texts that are served.
pub(crate) struct Description {
    json: Bytes,
    page: Bytes,
}

impl Description {
    /// The description of the routes with these policies.
    pub fn of(policies: &Policies) -> Self {
        let mut document = Described::openapi();
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let ticket = ApiKeyValue::with_description("ticket", "From `POST /api/tickets`, for one stream.");
        components.add_security_scheme("ticket", SecurityScheme::ApiKey(ApiKey::Query(ticket)));
        for (path, item) in &mut document.paths.paths {
            for (method, name) in [
                (&mut item.get, HttpMethod::Get),
                (&mut item.post, HttpMethod::Post),
                (&mut item.put, HttpMethod::Put),
                (&mut item.patch, HttpMethod::Patch),
                (&mut item.delete, HttpMethod::Delete),
            ] {
                if let Some(operation) = method {
                    let verb = http::Method::from_bytes(verb(&name).as_bytes()).unwrap_or_default();
                    complete(operation, policies.at(path).and_then(|place| place.policy(&verb)));
                }
            }
        }
        let mut value = serde_json::to_value(&document).unwrap_or_default();
        value["components"]["schemas"]["PatchOperation"] = types::operation();
        let json = serde_json::to_string_pretty(&value).unwrap_or_default();
        Self { json: json.into(), page: page::render(&value).into() }
    }
}

fn verb(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Patch => "PATCH",
        _ => "DELETE",
    }
}

/// Adds what the gate may answer, and who may call.
fn complete(operation: &mut Operation, policy: Option<Policy>) {
    // Those of the derive are names of modules.
    operation.tags = None;
    let mut refusals = vec![("431", "The headers are longer than 8 KiB.")];
    if let Some(Policy::AtLeast(role)) = policy {
        operation.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
        refusals.extend([
            ("401", "Who calls is not known."),
            ("429", "This user calls too often: `Retry-After` says when to come again."),
            ("503", "Too much is under way, or the database is away: `Retry-After` says when to come again."),
        ]);
        if role > Role::Viewer {
            refusals.push(("403", "The caller's role or companies do not allow this."));
        }
    } else if let Some(Policy::Stream) = policy {
        operation.security = Some(vec![
            SecurityRequirement::new("bearer", Vec::<String>::new()),
            SecurityRequirement::new("ticket", Vec::<String>::new()),
        ]);
        refusals.extend([
            ("401", "Who calls is not known."),
            ("403", "The company is not the caller's."),
            ("429", "This user calls too often, or has too many streams open: `Retry-After` says when to come again."),
            (
                "503",
                "Too many streams are open, or the bus or the database is away: `Retry-After` says when to come again.",
            ),
        ]);
    }
    for (status, text) in refusals {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| refusal(text));
    }
    for (status, response) in &mut operation.responses.responses {
        // The refusals that handlers name are all of one form.
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && response.content.is_empty()
        {
            response.content.insert(APPLICATION_JSON.to_owned(), RefOr::T(error_content()));
        }
    }
}

fn refusal(text: &str) -> RefOr<utoipa::openapi::Response> {
    RefOr::T(ResponseBuilder::new().description(text).content(APPLICATION_JSON, error_content()).build())
}

fn error_content() -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build()
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "describe",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value))
)]
pub(crate) async fn openapi_json(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_TYPE, APPLICATION_JSON)], shared.description.json.clone()).into_response()
}

/// This description, for people.
#[utoipa::path(
    get, path = "/docs", operation_id = "docs",
    responses((status = 200, description = "A page.", content_type = "text/html", body = String))
)]
pub(crate) async fn docs(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(shared.description.page.clone())).into_response()
}
