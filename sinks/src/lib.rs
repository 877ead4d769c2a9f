//! The sinks that YAML can name. One file per sink: config struct, running part, tests.

#![warn(missing_docs)]

mod announce;
mod cache;
mod channel;
mod file;
mod notification_db;
mod notify;
mod pubsub;
mod topic;

pub use cache::CacheConfig;
pub use file::FileConfig;
pub use notification_db::NotificationDbConfig;
pub use notify::{Directory, NotificationRequest, NotifyConfig, Person, Tell};
pub use pubsub::PubSubConfig;
pub use topic::TopicConfig;

use smartpulse_pipeline::registry::Registry;

/// Registers every sink of this crate.
pub fn register(registry: &mut Registry) {
    registry
        .sink::<CacheConfig>()
        .sink::<FileConfig>()
        .sink::<NotificationDbConfig>()
        .sink::<NotifyConfig>()
        .sink::<PubSubConfig>()
        .sink::<TopicConfig>();
}
