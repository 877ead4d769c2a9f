//! What is on the wire of routes about people, for the description only.
#![allow(dead_code, reason = "described, never built")]

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A notification in the caller's inbox.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notification {
    id: Uuid,
    user_id: Uuid,
    title: String,
    body: String,
    /// What kind it is, for programs.
    r#type: String,
    /// Since when it is read.
    #[schema(required, format = DateTime)]
    read_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// A page of notifications.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotificationPage {
    /// How many there are in all.
    #[schema(minimum = 0)]
    total: u64,
    /// Newest first.
    #[schema(max_items = 500)]
    items: Vec<Notification>,
}

/// How many are not read.
#[derive(Serialize, ToSchema)]
pub(crate) struct Unread {
    #[schema(minimum = 0)]
    unread: u64,
}

/// It is done.
#[derive(Serialize, ToSchema)]
pub(crate) struct Success {
    success: bool,
}

/// An attempt to tell somebody something.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    /// The delivery's id where the attempt ended it; else the attempt's own.
    id: Uuid,
    delivery_id: Uuid,
    /// `InApp`, `PushNotification` or `Email`.
    channel: String,
    user_id: Uuid,
    rule: String,
    entity: String,
    version: String,
    /// Such as `told`, `sent`, `queued`, `no_device`, `gone`, `failed`, `refused`.
    outcome: String,
    #[schema(required)]
    detail: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// A page of attempts.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeliveryPage {
    /// Newest first.
    #[schema(max_items = 500)]
    items: Vec<Delivery>,
    /// Whether there are more.
    more: bool,
}

/// A device to register: a browser or an app.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum NewDeviceBody {
    Browser(NewBrowser),
    App(NewApp),
}

/// A browser.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewBrowser {
    device_type: WebPushOnly,
    subscription: Subscription,
    #[schema(min_length = 1, max_length = 64)]
    os_version: Option<String>,
}

/// An app.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewApp {
    device_type: FcmOnly,
    #[schema(pattern = "^[!-~]+$", max_length = 4000)]
    token: String,
    #[schema(min_length = 1, max_length = 64)]
    os_version: Option<String>,
}

/// Of a browser.
#[derive(Deserialize, ToSchema)]
pub(crate) enum WebPushOnly {
    WebPush,
}

/// Of an app.
#[derive(Deserialize, ToSchema)]
pub(crate) enum FcmOnly {
    #[serde(rename = "FCM")]
    Fcm,
}

/// A subscription as `PushSubscription.toJSON` gives it; what else it has is not kept.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Subscription {
    #[schema(pattern = "^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[!-~]*$", max_length = 2000)]
    endpoint: String,
    keys: SubscriptionKeys,
}

/// The keys of a subscription (RFC 8291), in base64url.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SubscriptionKeys {
    #[schema(pattern = "^[A-Za-z0-9_-]{87}$")]
    p256dh: String,
    #[schema(pattern = "^[A-Za-z0-9_-]{22}$")]
    auth: String,
}

/// A registered device. Its address is told to nobody.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceEntry {
    id: Uuid,
    /// `WebPush` or `FCM`.
    device_type: String,
    #[schema(required)]
    os_version: Option<String>,
}

/// The caller's devices.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceList {
    #[schema(max_items = 50)]
    items: Vec<DeviceEntry>,
}

/// By which channels the caller is told.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preferences {
    in_app: bool,
    push_notification: bool,
    email: bool,
}

/// The channels to switch on or off; what is not named stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PreferencesChange {
    #[schema(nullable = false)]
    in_app: Option<bool>,
    #[schema(nullable = false)]
    push_notification: Option<bool>,
    #[schema(nullable = false)]
    email: Option<bool>,
}

/// What browsers subscribe with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PublicKey {
    /// A point of P-256, uncompressed, in base64url.
    public_key: String,
}

/// A push notification to send.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SendPushBody {
    user_id: Uuid,
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    #[schema(min_length = 1, max_length = 600)]
    body: String,
    device_type: DeviceKind,
}

/// To which devices.
#[derive(Deserialize, ToSchema)]
pub(crate) enum DeviceKind {
    WebPush,
    #[serde(rename = "FCM")]
    Fcm,
    Both,
}

/// What became of a push notification.
#[derive(Serialize, ToSchema)]
pub(crate) struct PushReport {
    /// Devices whose service took it.
    #[schema(minimum = 0)]
    sent: u64,
    /// All others.
    #[schema(minimum = 0)]
    failed: u64,
    results: Vec<PushResult>,
}

/// What became of it on one device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PushResult {
    device_id: Uuid,
    /// `sent`, `gone` (and removed), `refused`, or `failed` after all tries.
    status: String,
}
