//! Who there is and what they want to be told, remembered for a moment: many requests tell the same people.

use smartpulse_clients::notifications::{Audience, SharedNotifications, USERS_MAX, User};
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::message::Channel;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Pages that are remembered, of [`USERS_MAX`] people each: some 5 MB. Beyond that all are forgotten and read again.
const PAGES_MAX: usize = 100;

/// Somebody who may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user: User,
    /// The channels that they switched off.
    pub off: Vec<Channel>,
}

/// An audience, and after whom the page begins.
type Place = (Audience, Option<Uuid>);

/// People by audience, page by page.
pub struct Directory {
    notifications: SharedNotifications,
    kept_for: Duration,
    pages: HashMap<Place, (Instant, Arc<[Person]>)>,
}

impl Directory {
    /// A directory that remembers for so long.
    #[must_use]
    pub fn new(notifications: SharedNotifications, kept_for: Duration) -> Self {
        Self { notifications, kept_for, pages: HashMap::new() }
    }

    /// The people of an audience after that one, by id. An empty page is the end.
    ///
    /// # Errors
    /// The database's.
    pub async fn page(&mut self, audience: &Audience, after: Option<Uuid>) -> Result<Arc<[Person]>> {
        let place = (audience.clone(), after);
        if let Some((since, page)) = self.pages.get(&place)
            && since.elapsed() < self.kept_for
        {
            return Ok(Arc::clone(page));
        }
        let page = self.read(audience, after).await?;
        if self.pages.len() >= PAGES_MAX {
            self.pages.clear();
        }
        self.pages.insert(place, (Instant::now(), Arc::clone(&page)));
        Ok(page)
    }

    async fn read(&self, audience: &Audience, after: Option<Uuid>) -> Result<Arc<[Person]>> {
        let users = self.notifications.users(audience, after, USERS_MAX as u32).await?;
        let ids: Vec<Uuid> = users.iter().map(|user| user.id).collect();
        let mut off: HashMap<Uuid, Vec<Channel>> = HashMap::new();
        if !ids.is_empty() {
            for (user, channel) in self.notifications.switched_off(&ids).await? {
                off.entry(user).or_default().push(channel);
            }
        }
        Ok(users.into_iter().map(|user| Person { off: off.remove(&user.id).unwrap_or_default(), user }).collect())
    }
}
