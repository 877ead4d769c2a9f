//! Telling a user's devices at once, for callers that wait for what becomes of it.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use uuid::Uuid;

/// Which of a user's devices are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DeviceType {
    /// Browsers.
    WebPush,
    /// Apps.
    #[serde(rename = "FCM")]
    Fcm,
    /// All.
    #[default]
    Both,
}

/// `POST /api/send-push-notification`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendPush {
    /// Whose devices.
    pub user_id: Uuid,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
    /// Which devices.
    pub device_type: DeviceType,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SendReport {
    /// Devices whose service took the message.
    pub sent: usize,
    /// All others.
    pub failed: usize,
    /// Each device.
    pub results: Vec<DeviceResult>,
}

/// What became of the message to one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceResult {
    /// Which.
    pub device_id: Uuid,
    /// `sent`, `gone` (and removed), `refused`, or `failed` after all tries.
    pub status: &'static str,
}

/// Tells users' devices.
#[async_trait]
pub trait Push: Send + Sync {
    /// What pages subscribe with (`applicationServerKey`); none where Web Push is not set up.
    fn public_key(&self) -> Option<&str>;
    /// Tells all of a user's devices at once, trying again for some two seconds.
    async fn send(&self, request: &SendPush) -> Result<SendReport>;
}

/// Whoever tells devices.
pub type SharedPush = Arc<dyn Push>;
