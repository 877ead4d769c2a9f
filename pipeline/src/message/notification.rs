//! What messages about notifications have in common: their channels and ids (CONTRACTS 7).

use super::NAMESPACE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A way to a person. Channels are independent: one that fails stops no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Channel {
    /// The inbox of the application.
    InApp,
    /// The person's devices.
    PushNotification,
    /// A mail.
    Email,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::InApp, Self::PushNotification, Self::Email];

    /// Its name in messages and rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InApp => "InApp",
            Self::PushNotification => "PushNotification",
            Self::Email => "Email",
        }
    }

    /// The channel with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a request says of its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChannelChoice {
    /// The inbox of the application.
    InApp,
    /// The person's devices.
    PushNotification,
    /// A mail.
    Email,
    /// All three.
    All,
}

impl ChannelChoice {
    /// The channels that are meant, each once and in their order.
    #[must_use]
    pub fn channels(choices: &[Self]) -> Vec<Channel> {
        let chosen = |channel: &Channel| {
            choices.iter().any(|choice| match choice {
                Self::InApp => *channel == Channel::InApp,
                Self::PushNotification => *channel == Channel::PushNotification,
                Self::Email => *channel == Channel::Email,
                Self::All => true,
            })
        };
        Channel::ALL.into_iter().filter(chosen).collect()
    }
}

/// The id of a request: what a rule makes of one version of one entity.
#[must_use]
pub fn request_id(rule: &str, entity: &str, version: i64) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{rule}/{entity}/{version}").as_bytes())
}

/// The id of a delivery: so a person is told once of it on a channel, however often it is asked for.
#[must_use]
pub fn delivery_id(rule: &str, entity: &str, version: i64, channel: Channel, user: Uuid) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{rule}/{entity}/{version}/{channel}/{user}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_chosen_once_each_and_in_their_order() {
        use ChannelChoice::{All, Email, InApp};
        for (choices, channels) in [
            (&[Email, InApp, Email][..], &[Channel::InApp, Channel::Email][..]),
            (&[InApp, All], &Channel::ALL),
            (&[], &[]),
        ] {
            assert_eq!(ChannelChoice::channels(choices), channels);
        }
        assert_eq!(Channel::ALL.map(|channel| Channel::of(channel.name())), Channel::ALL.map(Some));
    }

    #[test]
    fn ids_are_functions_of_what_is_told_to_whom() {
        let user = Uuid::from_u128(7);
        let id = delivery_id("dropped", "f1", 3, Channel::Email, user);
        assert_eq!(id, delivery_id("dropped", "f1", 3, Channel::Email, user));
        assert_ne!(id, delivery_id("dropped", "f1", 3, Channel::InApp, user));
        assert_ne!(id, delivery_id("dropped", "f1", 4, Channel::Email, user));
        assert_eq!(id.get_version_num(), 5);
    }
}
