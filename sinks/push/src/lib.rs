//! Push notifications: Web Push and Firebase Cloud Messaging.
//!
//! - [`PushMessage`]: what a notification says. [`Pusher`]: tells it to a user's devices, once each.
//! - The resource type `push_services` says how services are reached; the sink `push` sends what a pipeline brings.
//! - Web Push is RFC 8030 (the request), RFC 8291 (its encryption, [`encrypt`]) and RFC 8292 (who sends, [`vapid`]).
//!   FCM is its HTTP API, version 1, with a service account's OAuth.
//!
//! Endpoints of Web Push are chosen by whoever registers a device, so they are no more trusted than he is
//! ([`endpoint`]): `https` on port 443 at public addresses, checked on the very address that is connected to.
//!
//! None of this has met a real push service: it is tested against servers on this machine that keep the RFCs and FCM's
//! published API, with payloads and tokens read by clients of other makers.

#![warn(missing_docs)]

mod circuit;
mod config;
pub mod encrypt;
pub mod endpoint;
mod fcm;
mod message;
mod oauth;
mod outcome;
mod pusher;
mod service;
mod sink;
pub mod vapid;
mod web_push;

pub use config::{FcmConfig, PushServicesConfig, WebPushConfig};
pub use message::{PushMessage, Urgency};
pub use outcome::Outcome;
pub use pusher::{Pusher, SharedPusher};
pub use sink::PushConfig;
pub use smartpulse_clients::push::{DeviceResult, DeviceType, Push, SendPush, SendReport};

use smartpulse_pipeline::registry::Registry;

/// Registers the sink and the resource of this crate.
pub fn register(registry: &mut Registry) {
    registry.sink::<PushConfig>().resource::<PushServicesConfig>();
}
