//! Tells instances whose inboxes have something new.
//!
//! One message per user and batch on `__notification:{partition}:{userId}`: `{"userId", "ids": [...]}`. It is a hint: who misses
//! it finds the rows in the table.

use serde_json::{Map, Value, json};
use smartpulse_clients::pubsub::{Publication, SharedPubSub};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Announces on a pub/sub system.
pub(crate) struct Announcer {
    pub pubsub: SharedPubSub,
    pub partition: String,
}

impl Announcer {
    /// Announces rows. A system that is away only delays those who wait.
    pub async fn announce(&self, rows: &[Map<String, Value>]) {
        let mut users: BTreeMap<Uuid, Vec<&Value>> = BTreeMap::new();
        for row in rows {
            let user = row.get("userId").and_then(Value::as_str).and_then(|user| user.parse().ok());
            if let (Some(user), Some(id)) = (user, row.get("id")) {
                users.entry(user).or_default().push(id);
            }
        }
        let publication = |(user, ids): (Uuid, Vec<&Value>)| {
            let message = bytes::Bytes::from(json!({ "userId": user, "ids": ids }).to_string());
            Publication {
                channel: format!("__notification:{}:{user}", self.partition).into(),
                section: "notification".into(),
                key: user.to_string().into(),
                version: 1,
                previous_version: None,
                patch: message.clone(),
                whole: message,
                document: None,
                // There are no versions to compare: each message is published.
                resync: true,
                known_only: false,
            }
        };
        let publications: Vec<Publication> = users.into_iter().map(publication).collect();
        if publications.is_empty() {
            return;
        }
        if let Err(error) = self.pubsub.publish(&publications).await {
            tracing::warn!(error = error.chain(), "new notifications cannot be announced: inboxes notice them later");
        }
    }
}
