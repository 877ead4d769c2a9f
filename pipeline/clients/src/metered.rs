//! Any bus, with its traffic counted.
//!
//! The counters carry the names that dashboards know, `pulsar_messages_published_total` and
//! `pulsar_messages_consumed_total`, whatever the bus is; the label `bus` tells the resource's name.

use crate::bus::{Acker, Bus, Consumer, Message, Outgoing, SharedBus, Subscribe};
use async_trait::async_trait;
use prometheus::{IntCounter, Opts, Registry};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;

/// A bus that counts what goes through it.
pub struct MeteredBus {
    inner: SharedBus,
    published: IntCounter,
    consumed: IntCounter,
}

impl MeteredBus {
    /// Counts the traffic of the bus resource `name`.
    ///
    /// # Errors
    /// Fatal when the metrics are refused.
    pub fn new(inner: SharedBus, name: &str, registry: &Registry) -> Result<Self> {
        let counter = |metric: &str, help: &str| -> Result<IntCounter> {
            let refused = |error| Error::fatal(format!("the metric {metric} is refused")).because(error);
            let opts = Opts::new(metric, help).const_label("bus", name);
            let counter = IntCounter::with_opts(opts).map_err(refused)?;
            registry.register(Box::new(counter.clone())).map_err(refused)?;
            Ok(counter)
        };
        Ok(Self {
            published: counter("pulsar_messages_published_total", "messages published to the bus")?,
            consumed: counter(
                "pulsar_messages_consumed_total",
                "messages delivered by the bus, redeliveries included",
            )?,
            inner,
        })
    }
}

#[async_trait]
impl Bus for MeteredBus {
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn publish(&self, topic: &str, messages: Vec<Outgoing>) -> Result<()> {
        let count = messages.len() as u64;
        self.inner.publish(topic, messages).await?;
        self.published.inc_by(count);
        Ok(())
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Box<dyn Consumer>> {
        let inner = self.inner.subscribe(subscribe).await?;
        Ok(Box::new(MeteredConsumer { inner, consumed: self.consumed.clone() }))
    }

    async fn create_subscription(&self, subscribe: &Subscribe) -> Result<()> {
        self.inner.create_subscription(subscribe).await
    }
}

struct MeteredConsumer {
    inner: Box<dyn Consumer>,
    consumed: IntCounter,
}

#[async_trait]
impl Consumer for MeteredConsumer {
    async fn receive(&mut self, max: usize) -> Result<Vec<Message>> {
        let messages = self.inner.receive(max).await?;
        self.consumed.inc_by(messages.len() as u64);
        Ok(messages)
    }

    fn acker(&self) -> Arc<dyn Acker> {
        self.inner.acker()
    }
}
