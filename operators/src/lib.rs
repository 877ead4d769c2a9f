//! The operators that YAML can name. One file per operator: config struct, running part, tests.
//!
//! Architecture invariant: nothing here waits, reads a clock or opens anything.

#![warn(missing_docs)]

mod batch;
mod condition;
mod detect_gap;
mod diff;
mod fan_out;
mod filter;
mod key_map;
mod map;
mod rules;
mod template;
mod view;

pub use batch::BatchConfig;
pub use condition::Condition;
pub use detect_gap::DetectGapConfig;
pub use diff::DiffConfig;
pub use fan_out::FanOutConfig;
pub use filter::FilterConfig;
pub use map::MapConfig;
pub use rules::RulesConfig;

use smartpulse_pipeline::registry::Registry;

/// Registers every operator of this crate.
pub fn register(registry: &mut Registry) {
    registry
        .operator::<BatchConfig>()
        .operator::<DetectGapConfig>()
        .operator::<DiffConfig>()
        .operator::<FanOutConfig>()
        .operator::<FilterConfig>()
        .operator::<MapConfig>()
        .operator::<RulesConfig>();
}

/// What the operators' tests share.
#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smartpulse_json::Document;
    use smartpulse_pipeline::operator::Output;
    use smartpulse_pipeline::{Ack, Batch, Event, Operation, Timestamp};

    /// An update with a JSON document.
    pub(crate) fn event(key: &str, version: i64, document: &str) -> Event {
        let document = Document::parse(Bytes::copy_from_slice(document.as_bytes())).expect("a JSON document");
        Event::new("forecast".into(), key.into(), version, Operation::Update, Some(document))
    }

    /// A batch that nobody waits for, taken in at the epoch.
    pub(crate) fn batch_of(events: Vec<Event>) -> Batch {
        Batch::new(events, Ack::none(), Timestamp::from_millis(0))
    }

    /// The events that an operator passed on.
    pub(crate) fn events_of(out: Output) -> Vec<Event> {
        out.into_batches().into_iter().flat_map(|batch| batch.events).collect()
    }
}
