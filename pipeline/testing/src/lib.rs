//! What tests of several crates share: conformance suites of the resources, and a rig that runs graphs between a
//! source and a sink which the test holds in its hands ([`Rig`], [`Probe`]).
//!
//! A suite takes a *fixture maker*: each case gets a fixture of its own, that is, a fresh empty resource, and may
//! open it again, which is a restart. A suite panics in the first case that fails, with the case's name printed
//! before. Cases wait on conditions, at most [`PATIENCE`]; those of leases also wait out a
//! term that they chose themselves.
//!
//! For tests, and for the trials of `smartpulse dev`: nothing that runs in production depends on it.

#![warn(missing_docs)]

use std::time::Duration;

mod bus;
mod database;
mod delivery;
mod ledger;
mod memory_ledger;
mod notifications;
mod probe;
mod proxy;
mod pubsub;
pub mod pulsar;
mod python;
pub mod redis;
mod redis_cluster;
mod store;

pub use bus::{BusFixture, bus_suite};
pub use database::{DatabaseFixture, company_forecast, database_suite, forecast, notification, uuid};
pub use delivery::{delivery_suite, device, queued_mail};
pub use ledger::{LedgerFixture, ledger_suite};
pub use memory_ledger::MemoryLedger;
pub use notifications::{notifications_suite, user};
pub use probe::{Graph, Probe, Rig, SharedProbe, event};
pub use proxy::{FaultProxy, Flow};
pub use pubsub::{PubSubFixture, pubsub_suite};
pub use python::{python_with, run};
pub use redis_cluster::RedisCluster;
pub use store::{StoreFixture, dead_letter, store_suite};

/// How long a condition is waited for: far beyond what a loaded machine needs, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The result of a future that must end within [`PATIENCE`].
///
/// # Panics
/// When it does not.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Asks again and again until the answer is yes, which must be within [`PATIENCE`].
///
/// # Panics
/// When it is not.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let yes = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, yes).await;
}

/// Runs named cases, each with a fixture of its own.
macro_rules! cases {
    ($make:expr, $($case:ident),+ $(,)?) => {
        $(
            eprintln!("case: {}", stringify!($case));
            $case($make()).await;
        )+
    };
}
use cases;
