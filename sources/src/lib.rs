//! The sources that YAML can name. One file per source: config struct, running part, tests.

#![warn(missing_docs)]

mod cdc;
mod data_changed;
mod file;
mod player;
mod pubsub;
pub mod real_data;
mod topic;

pub use cdc::{CdcConfig, Mode as CdcMode, request_resnapshot};
pub use data_changed::DataChangedConfig;
pub use file::FileConfig;
pub use player::{PlayerConfig, load_week};
pub use pubsub::PubSubConfig;
pub use topic::TopicConfig;

use smartpulse_pipeline::registry::Registry;

/// Registers every source of this crate.
pub fn register(registry: &mut Registry) {
    registry
        .source::<CdcConfig>()
        .source::<DataChangedConfig>()
        .source::<FileConfig>()
        .source::<PlayerConfig>()
        .source::<PubSubConfig>()
        .source::<TopicConfig>();
}
