//! Tells users' devices: who they are, by which service, and what becomes of those that are gone.

use crate::fcm::Fcm;
use crate::message::{PushMessage, Urgency};
use crate::outcome::Outcome;
use crate::web_push::WebPush;
use async_trait::async_trait;
use futures::future::join_all;
use moka::sync::Cache;
use smartpulse_clients::delivery::{Device, Integration, SharedDelivery};
use smartpulse_clients::push::{DeviceResult, DeviceType, Push, SendPush, SendReport};
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a user's devices are remembered: a burst of messages asks once, and a new device waits no longer.
const DEVICES_KEPT: Duration = Duration::from_secs(10);

/// Users whose devices are remembered.
const USERS_MAX: u64 = 10_000;

/// Deliveries that are remembered as done, and for how long: a message that is tried again for one device is not sent again to
/// the others.
const SENT_MAX: u64 = 100_000;
const SENT_KEPT: Duration = Duration::from_secs(600);

/// The waits before the tries of a request to the API (CONTRACTS 8, exponential). Nobody waits longer for an answer.
const WAITS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];

/// Tells users' devices.
pub struct Pusher {
    delivery: SharedDelivery,
    web_push: Option<WebPush>,
    fcm: Option<Fcm>,
    devices: Cache<Uuid, Arc<[Device]>>,
    sent: Cache<(Uuid, Uuid), ()>,
}

/// What the resource `push_services` gives.
pub type SharedPusher = Arc<Pusher>;

impl Pusher {
    pub(crate) fn new(delivery: SharedDelivery, web_push: Option<WebPush>, fcm: Option<Fcm>) -> Self {
        let devices = Cache::builder().max_capacity(USERS_MAX).time_to_live(DEVICES_KEPT).build();
        let sent = Cache::builder().max_capacity(SENT_MAX).time_to_live(SENT_KEPT).build();
        Self { delivery, web_push, fcm, devices, sent }
    }

    /// The devices that a message goes to: those of the wanted type whose service is set up.
    ///
    /// # Errors
    /// The database's.
    pub async fn devices(&self, user: Uuid, wanted: DeviceType) -> Result<Vec<Device>> {
        let all = match self.devices.get(&user) {
            Some(devices) => devices,
            None => {
                let devices: Arc<[Device]> = self.delivery.devices(user).await?.into();
                self.devices.insert(user, Arc::clone(&devices));
                devices
            }
        };
        let reached = |device: &&Device| match device.integration {
            Integration::WebPush => wanted != DeviceType::Fcm && self.web_push.is_some(),
            Integration::Fcm => wanted != DeviceType::WebPush && self.fcm.is_some(),
        };
        Ok(all.iter().filter(reached).cloned().collect())
    }

    /// Tells one device, once: what it was told some minutes ago it is not told again. `ttl` is what is left of the
    /// message's. A device that is gone is removed.
    ///
    /// # Errors
    /// The database's, when a device is to be removed.
    pub async fn tell(&self, device: &Device, message: &PushMessage, ttl: u32) -> Result<Outcome> {
        let done = (message.id, device.id);
        if self.sent.contains_key(&done) {
            return Ok(Outcome::Sent);
        }
        let outcome = match (device.integration, &self.web_push, &self.fcm) {
            (Integration::WebPush, Some(web_push), _) => web_push.send(device, message, ttl).await,
            (Integration::Fcm, _, Some(fcm)) => fcm.send(device, message, ttl).await,
            _ => Outcome::Refused("its service is not set up".to_owned()),
        };
        match &outcome {
            Outcome::Sent => self.sent.insert(done, ()),
            Outcome::Gone(reason) => {
                tracing::info!(device = %device.id, reason, "a device is gone, and removed");
                self.delivery.remove_device(device.id).await?;
                self.devices.invalidate(&message.user_id);
            }
            Outcome::Refused(reason) => {
                // Most often a wrong key or account: nothing goes out until somebody looks.
                tracing::error!(device = %device.id, reason, "a push notification was refused");
            }
            Outcome::Later { .. } | Outcome::Away(_) => {}
        }
        Ok(outcome)
    }

    /// Tells one device, with tries.
    async fn insist(&self, device: &Device, message: &PushMessage) -> Result<Outcome> {
        let longest = WAITS[WAITS.len() - 1];
        for wait in WAITS {
            match self.tell(device, message, message.ttl).await? {
                // Who asks for more patience than a caller has gets no further try.
                Outcome::Later { after, .. } if after.unwrap_or_default() <= longest => {
                    tokio::time::sleep(wait.max(after.unwrap_or_default())).await;
                }
                outcome => return Ok(outcome),
            }
        }
        self.tell(device, message, message.ttl).await
    }
}

#[async_trait]
impl Push for Pusher {
    fn public_key(&self) -> Option<&str> {
        self.web_push.as_ref().map(WebPush::public_key)
    }

    async fn send(&self, request: &SendPush) -> Result<SendReport> {
        let message = PushMessage {
            id: Uuid::new_v4(),
            user_id: request.user_id,
            title: request.title.clone(),
            body: request.body.clone(),
            url: None,
            data: None,
            ttl: 86_400,
            urgency: Urgency::Normal,
            topic: None,
            device_type: request.device_type,
        };
        let devices = self.devices(request.user_id, request.device_type).await?;
        let told = join_all(devices.iter().map(|device| self.insist(device, &message))).await;
        let mut report = SendReport { sent: 0, failed: 0, results: Vec::with_capacity(devices.len()) };
        for (device, outcome) in devices.iter().zip(told) {
            let outcome = outcome?;
            *(if outcome == Outcome::Sent { &mut report.sent } else { &mut report.failed }) += 1;
            report.results.push(DeviceResult { device_id: device.id, status: outcome.status() });
        }
        Ok(report)
    }
}
