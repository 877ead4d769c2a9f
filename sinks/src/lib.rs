//! The sinks that YAML can name. One file per sink: config struct, running part, tests.

#![warn(missing_docs)]

mod cache;
mod channel;
mod file;
mod pubsub;
mod topic;

pub use cache::CacheConfig;
pub use file::FileConfig;
pub use pubsub::PubSubConfig;
pub use topic::TopicConfig;

use smartpulse_pipeline::registry::Registry;

/// Registers every sink of this crate.
pub fn register(registry: &mut Registry) {
    registry.sink::<CacheConfig>().sink::<FileConfig>().sink::<PubSubConfig>().sink::<TopicConfig>();
}
