//! The caller's devices: registered, listed, removed.
//!
//! A device is its address: registered again it is the same one, and becomes that of whoever registered it last, because
//! that is who uses it now. What a caller is given names no address: whoever has one can tell the device anything.

use crate::auth::Called;
use crate::body;
use crate::error::ApiError;
use crate::inbox::{id, notifications};
use crate::openapi::{DeviceEntry, DeviceList, NewDeviceBody};
use crate::router::Shared;
use crate::validate::people;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};
use smartpulse_clients::delivery::Integration;
use smartpulse_clients::notifications::Registered;
use std::sync::Arc;
use uuid::Uuid;

fn entry(id: Uuid, integration: Integration, os_version: Option<&str>) -> Value {
    json!({ "id": id, "deviceType": people::device_type(integration), "osVersion": os_version })
}

/// `POST /api/devices`: a Web Push subscription as the browser gives it, or a token of FCM.
#[utoipa::path(
    post, path = "/api/devices", operation_id = "registerDevice",
    request_body = NewDeviceBody,
    responses(
        (status = 200, description = "The caller had it; it is up to date.", body = DeviceEntry),
        (status = 201, description = "It is the caller's now.", body = DeviceEntry),
        (status = 400, description = "Values that cannot be: all of them, in `fields`."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 409, description = "The caller has 50 devices: one has to go first."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is of another type.")
    )
)]
pub(crate) async fn register(
    State(shared): State<Arc<Shared>>,
    called: Called,
    request: Request,
) -> Result<Response, ApiError> {
    let given = body::object(&shared, request).await?;
    let device = people::device(given, called.user).map_err(ApiError::Validation)?;
    let status = match notifications(&shared)?.add_device(&device).await? {
        Registered::New => StatusCode::CREATED,
        Registered::Known => StatusCode::OK,
        Registered::Full => return Err(ApiError::TooManyDevices),
    };
    Ok((status, Json(entry(device.id, device.integration, device.os_version.as_deref()))).into_response())
}

/// `GET /api/devices`: the caller's own.
#[utoipa::path(
    get, path = "/api/devices", operation_id = "listDevices",
    responses((status = 200, description = "The caller's own.", body = DeviceList))
)]
pub(crate) async fn list(State(shared): State<Arc<Shared>>, called: Called) -> Result<Response, ApiError> {
    let delivery = shared.parts.database.delivery().ok_or(ApiError::NotificationsUnavailable)?;
    let devices = delivery.devices(called.user).await?;
    let items: Vec<Value> =
        devices.iter().map(|device| entry(device.id, device.integration, device.os_version.as_deref())).collect();
    Ok(Json(json!({ "items": items })).into_response())
}

/// `DELETE /api/devices/{id}`
#[utoipa::path(
    delete, path = "/api/devices/{id}", operation_id = "removeDevice",
    params(("id" = Uuid, Path, description = "The device.")),
    responses(
        (status = 204, description = "It is told nothing more."),
        (status = 404, description = "There is none, or it is another user's.")
    )
)]
pub(crate) async fn remove(
    State(shared): State<Arc<Shared>>,
    called: Called,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = id(path, ApiError::DeviceNotFound)?;
    match notifications(&shared)?.remove_own_device(called.user, id).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(ApiError::DeviceNotFound),
    }
}
