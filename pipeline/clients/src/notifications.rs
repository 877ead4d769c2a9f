//! What notifications need of the database: who there is, what people want to be told, what they were told.
//!
//! Contract:
//! - [`Notifications::users`] gives an audience page by page, in the database's own order of ids: nobody twice.
//! - [`Notifications::claim_quiet`] opens a quiet period for one event at a time: asked again for the same event it answers the
//!   same, so that what is redelivered is told to the same people. Only an event that comes again after its period was over and
//!   another has opened the next one is refused.
//! - Whoever owns nothing sees nothing: a notification or a device of another user is answered as one that is not there.
//! - Rows are documents as [`Database`](crate::database::Database) spells them. Time is the database's alone.
//!
//! The ledger of what was told is read here and written by [`crate::deliveries`].

use crate::database::{Page, Row};
use crate::delivery::Integration;
use async_trait::async_trait;
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::Result;
pub use smartpulse_pipeline::message::Channel;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The most users of one call: so many fit one statement of any database, as rows of a table of values too.
pub const USERS_MAX: usize = 256;

/// Who is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Audience {
    /// One user.
    User(Uuid),
    /// The users of a company.
    Company(Uuid),
    /// The users with a role, of a company or of all.
    Role {
        /// The role.
        role: String,
        /// Whose.
        company: Option<Uuid>,
    },
    /// The users of the company that has this forecast now; nobody when it is deleted.
    Forecast(Uuid),
}

/// A row of `SysUser`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: Uuid,
    /// Of which company.
    pub company: Uuid,
    /// Where mails go.
    pub email: String,
    /// How to address them.
    pub display_name: String,
    /// Their role.
    pub role: String,
}

/// A quiet period that an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet<'a> {
    /// Of which rule, 200 characters at most.
    pub rule: &'a str,
    /// The event, the same whenever it comes again; 200 characters at most.
    pub event: &'a str,
    /// How long.
    pub period: Duration,
}

/// A device that a user registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// Which: a function of its address, so that it is there once. It becomes the device of who registered it last.
    pub id: Uuid,
    /// Whose.
    pub user: Uuid,
    /// How it is reached.
    pub integration: Integration,
    /// Of FCM: the registration token.
    pub token: Option<String>,
    /// Of Web Push: the subscription, in JSON.
    pub subscription: Option<String>,
    /// What it runs, 64 characters at most.
    pub os_version: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It is new to this user.
    New,
    /// The user had it already; it was updated.
    Known,
    /// The user has [`DEVICES_MAX`](crate::delivery::DEVICES_MAX) others, and it was not added.
    Full,
}

/// What to read of the ledger; newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// Only the attempts of this delivery.
    pub delivery: Option<Uuid>,
    /// Only of this user.
    pub user: Option<Uuid>,
    /// Only by this rule.
    pub rule: Option<String>,
    /// Only about this.
    pub entity: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<String>,
    /// How many to pass over.
    pub skip: u32,
    /// How many to give at most.
    pub take: u32,
}

/// What a column of the ledger must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// This id.
    Id(Uuid),
    /// This text.
    Text(String),
}

impl DeliveryQuery {
    /// The columns that are filtered, in order, and what they must be.
    #[must_use]
    pub fn filters(&self) -> Vec<(&'static str, Sought)> {
        let ids = [("DeliveryId", self.delivery), ("UserId", self.user)];
        let texts = [("Rule", &self.rule), ("Entity", &self.entity), ("Outcome", &self.outcome)];
        let ids = ids.into_iter().filter_map(|(column, id)| Some((column, Sought::Id(id?))));
        let texts = texts.into_iter().filter_map(|(column, text)| Some((column, Sought::Text(text.clone()?))));
        ids.chain(texts).collect()
    }
}

/// Users, what they want to be told, and what they were told.
#[async_trait]
pub trait Notifications: Send + Sync {
    /// Users of an audience by id, after that one, at most `limit`; fewer mean the end.
    async fn users(&self, audience: &Audience, after: Option<Uuid>, limit: u32) -> Result<Vec<User>>;
    /// Which channels these users, [`USERS_MAX`] at most, have switched off.
    async fn switched_off(&self, users: &[Uuid]) -> Result<Vec<(Uuid, Channel)>>;
    /// Switches channels of a user on or off.
    async fn switch(&self, user: Uuid, channels: &[(Channel, bool)]) -> Result<()>;
    /// Opens a quiet period for each of these users, [`USERS_MAX`] at most, who is in none of this rule, and gives those who
    /// may be told of this event: for whom it was opened, now or before.
    async fn claim_quiet(&self, quiet: Quiet<'_>, users: &[Uuid]) -> Result<Vec<Uuid>>;
    /// A page of a user's notifications, newest first.
    async fn inbox(&self, user: Uuid, skip: u32, take: u32) -> Result<Page>;
    /// A user's notifications behind that time and id, oldest first and then by id, at most `limit`.
    async fn inbox_after(&self, user: Uuid, after: (Timestamp, Uuid), limit: u32) -> Result<Vec<Row>>;
    /// How many of a user's notifications are not read.
    async fn unread(&self, user: Uuid) -> Result<u64>;
    /// Marks a notification of this user as read; false when the user has none with this id.
    async fn mark_read(&self, user: Uuid, id: Uuid) -> Result<bool>;
    /// Registers a device.
    async fn add_device(&self, device: &NewDevice) -> Result<Registered>;
    /// Removes a device of this user; false when the user has none with this id.
    async fn remove_own_device(&self, user: Uuid, device: Uuid) -> Result<bool>;
    /// Rows of the ledger, newest first.
    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Row>>;
}

/// Shared access to notifications.
pub type SharedNotifications = Arc<dyn Notifications>;
