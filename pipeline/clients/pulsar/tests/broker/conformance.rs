//! The suite that every bus must pass.

use crate::Space;
use async_trait::async_trait;
use smartpulse_clients::bus::SharedBus;
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::{BusFixture, bus_suite};

#[async_trait]
impl BusFixture for Space {
    async fn open(&self) -> SharedBus {
        self.bus().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulsar_conforms() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    bus_suite(|| Space::new().unwrap()).await;
}
