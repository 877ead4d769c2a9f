//! What is on the wire, for the description only: bodies are written and read elsewhere, byte by byte.
#![allow(dead_code, reason = "described, never built")]

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

/// A forecast.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Forecast {
    id: Uuid,
    company_id: Uuid,
    production_unit_id: Uuid,
    /// UTC, with milliseconds.
    #[schema(format = DateTime)]
    forecast_date: String,
    demand: f64,
    #[schema(required)]
    supply: Option<f64>,
    /// Supply less demand.
    #[schema(required)]
    variance: Option<f64>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    confidence_level: f64,
    #[schema(min_length = 1, max_length = 32)]
    status: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// Rises by one with every change.
    #[schema(minimum = 1)]
    version_id: i64,
}

/// A page of forecasts.
#[derive(Serialize, ToSchema)]
pub(crate) struct ForecastPage {
    /// How many there are in all.
    #[schema(minimum = 0)]
    total: u64,
    /// Newest `forecastDate` first.
    #[schema(max_items = 500)]
    items: Vec<Forecast>,
}

/// A forecast to create. `confidenceLevel` is taken for `confidence` too.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewForecast {
    company_id: Uuid,
    production_unit_id: Uuid,
    #[schema(format = DateTime)]
    forecast_date: String,
    demand: f64,
    supply: Option<f64>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    confidence: f64,
}

/// A merge patch (RFC 7396): what is named is changed. `confidenceLevel` is taken for `confidence` too.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ForecastChange {
    #[schema(format = DateTime, nullable = false)]
    forecast_date: Option<String>,
    #[schema(nullable = false)]
    demand: Option<f64>,
    supply: Option<f64>,
    #[schema(minimum = 0.0, maximum = 1.0, nullable = false)]
    confidence: Option<f64>,
    #[schema(min_length = 1, max_length = 32, nullable = false)]
    status: Option<String>,
}

/// An operation of a JSON patch (RFC 6902). Its schema is [`operation`]'s.
#[derive(ToSchema)]
pub(crate) struct PatchOperation {}

/// The operations that make a forecast of a forecast: which members there are, and what they can be set to. No derive can
/// say that a value depends on a path.
pub(super) fn operation() -> serde_json::Value {
    let sets = |path: &str, value: serde_json::Value| {
        json!({
            "type": "object", "required": ["op", "path", "value"],
            "properties": {"op": {"type": "string", "enum": ["add", "replace", "test"]}, "path": {"const": path}, "value": value}
        })
    };
    json!({
        "description": "An operation of a JSON patch (RFC 6902).",
        "oneOf": [
            sets("/demand", json!({"type": "number"})),
            sets("/supply", json!({"type": ["number", "null"]})),
            sets("/confidenceLevel", json!({"type": "number", "minimum": 0, "maximum": 1})),
            sets("/forecastDate", json!({"type": "string", "format": "date-time"})),
            sets("/status", json!({"type": "string", "minLength": 1, "maxLength": 32})),
            {
                "type": "object", "required": ["op", "path"],
                "properties": {"op": {"const": "remove"}, "path": {"const": "/supply"}}
            },
            {
                "type": "object", "required": ["op", "from", "path"],
                "properties": {"op": {"const": "copy"}, "from": {"const": "/demand"}, "path": {"const": "/supply"}}
            }
        ]
    })
}

/// The forecasts to read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    #[schema(min_items = 1, max_items = 500)]
    ids: Vec<Uuid>,
}

/// The forecasts that were read.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// In the order of their ids.
    items: Vec<Forecast>,
    /// Ids of no forecast, or of none that is the caller's to see.
    missing: Vec<Uuid>,
}

/// Opens one stream, once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ticket {
    ticket: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// A refusal.
#[derive(Serialize, ToSchema)]
pub(crate) struct Error {
    /// For people.
    error: String,
    /// For programs.
    #[schema(pattern = "^[A-Z_]+$")]
    code: String,
    /// Of `VALIDATION_FAILED`: everything that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fields: Option<Vec<Field>>,
}

/// What is wrong with one member or parameter.
#[derive(Serialize, ToSchema)]
pub(crate) struct Field {
    /// Its name; empty for the body as a whole.
    field: String,
    error: String,
}
