//! The resource types that settings can name: `sqlite`, `state_file`, `embedded_bus`, `embedded_pubsub`.

use crate::bus::SharedBus;
use crate::database::SharedDatabase;
use crate::embedded::{
    BusConfig, DataFolder, EmbeddedBus, EmbeddedPubSub, PubSubConfig, SqliteConfig, SqliteDatabase, StateConfig,
    StateFile,
};
use crate::metered::MeteredBus;
use crate::pubsub::SharedPubSub;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Check, Config, Registry, ResourceConfig, ResourceContext};
use std::any::Any;
use std::sync::Arc;

type Built = Arc<dyn Any + Send + Sync>;

/// Registers the resource types of this crate.
pub fn register(registry: &mut Registry) {
    registry
        .resource::<SqliteConfig>()
        .resource::<StateConfig>()
        .resource::<EmbeddedBusConfig>()
        .resource::<PubSubConfig>();
}

impl Config for SqliteConfig {
    const TYPE: &'static str = "sqlite";
}

#[async_trait]
impl ResourceConfig for SqliteConfig {
    const KIND: &'static str = "database";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Built> {
        let database: SharedDatabase = Arc::new(SqliteDatabase::open(cx.name, self, &cx.data_dir, cx.registry)?);
        Ok(Arc::new(database))
    }
}

impl Config for StateConfig {
    const TYPE: &'static str = "state_file";
}

#[async_trait]
impl ResourceConfig for StateConfig {
    const KIND: &'static str = "state";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Built> {
        let folder = DataFolder::beside(&cx.data_dir)?;
        Ok(Arc::new(StateFile::open(&folder, self).await?))
    }
}

/// A durable bus on tables of the state file: exclusive and shared subscriptions, redelivery, retention.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct EmbeddedBusConfig {
    /// The state file resource whose tables hold the messages.
    state: String,
    #[serde(flatten)]
    bus: BusConfig,
}

impl Config for EmbeddedBusConfig {
    const TYPE: &'static str = "embedded_bus";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("state", &self.state, "state");
    }
}

#[async_trait]
impl ResourceConfig for EmbeddedBusConfig {
    const KIND: &'static str = "bus";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Built> {
        let file: StateFile = cx.resources.get(&self.state).await?;
        let bus: SharedBus = Arc::new(EmbeddedBus::open(file, &self.bus));
        let bus: SharedBus = Arc::new(MeteredBus::new(bus, cx.name, cx.registry)?);
        Ok(Arc::new(bus))
    }
}

impl Config for PubSubConfig {
    const TYPE: &'static str = "embedded_pubsub";
}

#[async_trait]
impl ResourceConfig for PubSubConfig {
    const KIND: &'static str = "pubsub";

    async fn build(&self, _cx: &ResourceContext<'_>) -> Result<Built> {
        let pubsub: SharedPubSub = Arc::new(EmbeddedPubSub::new(self));
        Ok(Arc::new(pubsub))
    }
}
