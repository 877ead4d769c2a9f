//! What delivery to people needs of the database: their devices, and the queue of mails.
//!
//! Contract:
//! - [`Delivery::claim_mails`] gives a mail to one caller at a time. A claim lasts for its lease; a mail that was not settled by
//!   then is given again, to whoever asks, with `attempts` one higher. So nothing is lost with a process that dies, and what
//!   it had claimed is sent at most once more.
//! - A claim is told by the mail's id and its `attempts`: [`Delivery::settle_mails`] changes only what is still claimed so, and
//!   a sender that was paused beyond its lease changes nothing.
//! - Time is the database's alone.

use crate::database::cut;
use async_trait::async_trait;
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The most devices of a user that are told: what a person owns, with room for forgotten ones. The newest ids are not
/// preferred: ids have no order.
pub const DEVICES_MAX: u32 = 50;

/// How a device is reached: `IntegrationType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Integration {
    /// 0: Web Push.
    WebPush,
    /// 1: FCM HTTP v1.
    Fcm,
}

impl Integration {
    /// The integration with this number.
    #[must_use]
    pub fn of(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::WebPush),
            1 => Some(Self::Fcm),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::WebPush => 0,
            Self::Fcm => 1,
        }
    }
}

/// A device that a user has registered: a row of `SysUserDeviceInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub id: Uuid,
    /// How it is reached.
    pub integration: Integration,
    /// Of FCM: the registration token.
    pub token: Option<String>,
    /// Of Web Push: the subscription as the browser gave it, in JSON.
    pub subscription: Option<String>,
    /// What it runs, as it said.
    pub os_version: Option<String>,
}

/// A mail that is claimed for sending: a row of `NheaMailQueue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMail {
    /// Which.
    pub id: Uuid,
    /// The recipient.
    pub to_address: String,
    /// The subject.
    pub subject: String,
    /// The HTML part.
    pub body_html: Option<String>,
    /// The text part.
    pub body_text: Option<String>,
    /// The attachments, in JSON.
    pub attachments: Option<String>,
    /// The link by which the recipient switches such mails off.
    pub unsubscribe_url: Option<String>,
    /// How often it was claimed, this time included: with the id it tells this claim from others.
    pub attempts: i32,
}

/// What became of a claimed mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailOutcome {
    /// The server took it: `Sent`, with `SentAt`.
    Sent,
    /// It is `Queued` again, not before the wait is over; the reason goes to `LastError`.
    Again {
        /// Why it was not sent.
        error: String,
        /// How long it rests.
        wait: Duration,
    },
    /// It will never be sent: `Failed`, with the reason in `LastError`.
    Failed {
        /// Why.
        error: String,
    },
    /// It was not tried: `Queued` as before, the attempt not counted.
    Untried,
}

/// The end of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The mail.
    pub id: Uuid,
    /// Its `attempts` as claimed.
    pub attempts: i32,
    /// What became of it.
    pub outcome: MailOutcome,
}

impl Settlement {
    /// The row's `Status`, `LastError`, wait in milliseconds and step of `Attempts` after it.
    #[must_use]
    pub fn columns(&self) -> (&'static str, Option<String>, Option<i32>, i32) {
        /// What `LastError` holds.
        const ERROR_MAX: usize = 4_000;
        let cut = |error: &str| Some(cut(error, ERROR_MAX).to_owned());
        match &self.outcome {
            MailOutcome::Sent => ("Sent", None, None, 0),
            MailOutcome::Again { error, wait } => {
                ("Queued", cut(error), Some(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)), 0)
            }
            MailOutcome::Failed { error } => ("Failed", cut(error), None, 0),
            MailOutcome::Untried => ("Queued", None, None, -1),
        }
    }
}

/// Devices and mails.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// A user's devices by id, at most [`DEVICES_MAX`].
    async fn devices(&self, user: Uuid) -> Result<Vec<Device>>;
    /// Removes a device; false when it was gone already.
    async fn remove_device(&self, device: Uuid) -> Result<bool>;
    /// Claims mails that are due, the oldest first, at most `limit`, for the time of `lease`.
    async fn claim_mails(&self, limit: u32, lease: Duration) -> Result<Vec<QueuedMail>>;
    /// Ends claims and says how many of them still held.
    async fn settle_mails(&self, settled: &[Settlement]) -> Result<usize>;
}

/// Shared access to devices and mails.
pub type SharedDelivery = Arc<dyn Delivery>;
