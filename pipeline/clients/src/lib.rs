//! Connections that a pipeline names as resources: databases, buses and pub/sub systems.
//!
//! Each kind is one trait, with a contract that `smartpulse-testing` checks on every implementation. The
//! embedded implementations need nothing but a folder.

#![warn(missing_docs)]

pub mod bus;
pub mod database;
pub mod deliveries;
pub mod delivery;
pub mod documents;
pub mod embedded;
pub mod ledger;
pub mod metered;
pub mod metrics;
pub mod notifications;
pub mod pubsub;
pub mod push;
pub mod resources;
pub mod unsubscribe;

pub use resources::register;
