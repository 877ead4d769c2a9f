//! The bus resource.

use crate::config::PulsarConfig;
use crate::consumer::{PulsarAcker, PulsarConsumer, Tenure};
use crate::dead_letter::DeadLetters;
use crate::deliveries::Deliveries;
use crate::errors::{answer, explain};
use crate::ids::Batches;
use crate::link::{Client, Link};
use crate::polling::{Polling, RawConsumer, ask};
use crate::producer::Producers;
use crate::{admin, names::Namespace};
use async_trait::async_trait;
use pulsar::proto::ServerError;
use pulsar::{ConsumerOptions, Error as PulsarError, SubType, consumer::InitialPosition as Start};
use smartpulse_clients::bus::{Bus, Consumer, InitialPosition, Outgoing, Subscribe, SubscriptionType, TAKEN};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

/// How often a subscription that is taken is tried again: what was killed a moment ago may still be on its way out.
const TAKEN_RETRIES: u32 = 3;

/// How long is waited in between.
const TAKEN_WAIT: Duration = Duration::from_millis(300);

/// Acks that wait for the consumer's task; further ones wait for a place.
const COMMANDS_MAX: usize = 256;

/// A bus on a Pulsar cluster.
pub struct PulsarBus {
    config: PulsarConfig,
    namespace: Namespace,
    link: Arc<Link>,
    producers: Arc<Producers>,
    subscriptions: Mutex<HashMap<(String, String), Arc<Subscription>>>,
}

/// What this process knows of a subscription.
#[derive(Default)]
struct Subscription {
    deliveries: Arc<Deliveries>,
    tenures: Mutex<Vec<Arc<Tenure>>>,
}

impl PulsarBus {
    /// Connects, or will when somebody answers.
    ///
    /// # Errors
    /// As [`Link::open`] says.
    pub async fn connect(config: &PulsarConfig) -> Result<Self> {
        let link = Arc::new(Link::open(config).await?);
        let namespace = config.namespace();
        Ok(Self {
            config: config.clone(),
            producers: Arc::new(Producers::new(Arc::clone(&link), namespace.clone())),
            namespace,
            link,
            subscriptions: Mutex::default(),
        })
    }

    /// Sees to it that the namespace keeps messages as long as the settings say, or logs who has to.
    pub async fn keep_messages(&self) {
        admin::keep_messages(&self.config).await;
    }

    fn subscription(&self, subscribe: &Subscribe) -> Arc<Subscription> {
        let name = (subscribe.topic.clone(), subscribe.subscription.clone());
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(subscriptions.entry(name).or_default())
    }

    /// Opens the client's consumer.
    async fn open(&self, subscribe: &Subscribe) -> Result<RawConsumer> {
        let topic = self.namespace.topic(&subscribe.topic)?;
        let tried = format!("subscribe to {} as {}", subscribe.topic, subscribe.subscription);
        let mut tries = 0;
        loop {
            let opened = self.link.answer(&tried, |client| open(client, &topic, subscribe, &self.config)).await?;
            match opened {
                Ok(consumer) => return Ok(consumer),
                Err(error) if answer(&error) != Some(ServerError::ConsumerBusy) => return Err(explain(&tried, &error)),
                Err(error) if tries == TAKEN_RETRIES => {
                    return Err(Error::unavailable(format!(
                        "cannot {tried}: {TAKEN}, by an exclusive consumer or by consumers of another type; stop them, or use another \
                         subscription or type (failover, key_shared)"
                    ))
                    .because(error.to_string()));
                }
                Err(_) => tokio::time::sleep(TAKEN_WAIT).await,
            }
            tries += 1;
        }
    }
}

#[async_trait]
impl Bus for PulsarBus {
    async fn ping(&self) -> Result<()> {
        // A question about a topic that need not exist: the answer has passed authentication and metadata.
        let topic = self.namespace.topic("smartpulse-ping")?;
        self.link
            .call("reach pulsar", async |client| client.lookup_partitioned_topic_number(topic).await)
            .await
            .map(drop)
    }

    async fn publish(&self, topic: &str, messages: Vec<Outgoing>) -> Result<()> {
        self.producers.publish(topic, messages).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Box<dyn Consumer>> {
        let subscription = self.subscription(&subscribe);
        // What an earlier consumer of this process left behind makes room first, with its last acks.
        let abandoned = subscription.abandoned();
        for tenure in abandoned {
            tenure.finish().await;
        }
        let consumer = self.open(&subscribe).await?;
        let (output, messages) = mpsc::channel(self.config.prefetch_messages as usize);
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let tenure = Arc::new(Tenure::default());
        let mut polling = Polling {
            consumer,
            topic: (subscribe.topic.as_str().into(), self.namespace.topic(&subscribe.topic)?),
            patience: self.config.operation_timeout() * 2,
            deliveries: Arc::clone(&subscription.deliveries),
            producers: Arc::clone(&self.producers),
            link: Arc::clone(&self.link),
            dead_letters: DeadLetters::new(Arc::clone(&self.link), &self.config, &subscribe),
            output,
            commands: queue,
            overflow: VecDeque::new(),
            batches: Batches::default(),
            delayed: BTreeMap::new(),
            delayed_count: 0,
            partitions: 0,
            looks: 0,
            connected_since: Vec::new(),
            last: HashMap::new(),
            heard: Instant::now(),
            subscribe,
        };
        polling.open().await?;
        subscription.add(&tenure);
        let acker = Arc::new(PulsarAcker { commands, kind: polling.subscribe.kind });
        let deliveries = Arc::clone(&polling.deliveries);
        let own = Ending(Arc::clone(&tenure));
        tokio::spawn(async move { polling.run(own.0.told_to_finish()).await });
        Ok(Box::new(PulsarConsumer { messages, failed: None, deliveries, acker, tenure }))
    }

    async fn create_subscription(&self, subscribe: &Subscribe) -> Result<()> {
        create_subscription(&self.link, &self.config, subscribe).await
    }
}

/// Ends a tenure, also where its task panics: the next consumer waits for it.
struct Ending(Arc<Tenure>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Subscription {
    fn add(&self, tenure: &Arc<Tenure>) {
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(tenure));
    }

    fn abandoned(&self) -> Vec<Arc<Tenure>> {
        let mut tenures = self.tenures.lock().unwrap_or_else(PoisonError::into_inner);
        tenures.retain(|tenure| !tenure.has_ended());
        tenures.iter().filter(|tenure| tenure.is_abandoned()).cloned().collect()
    }
}

/// Creates a subscription that keeps what is published from now on.
pub(crate) async fn create_subscription(link: &Link, config: &PulsarConfig, subscribe: &Subscribe) -> Result<()> {
    let name = &subscribe.subscription;
    if !subscribe.durable {
        return Err(Error::rejected(format!("subscription {name} is not durable: it begins with its consumer")));
    }
    let tried = format!("create subscription {name} of {}", subscribe.topic);
    let topic = config.namespace().topic(&subscribe.topic)?;
    let mut consumer = match link.answer(&tried, |client| open(client, &topic, subscribe, config)).await? {
        Ok(consumer) => consumer,
        // It has a consumer, so it is there.
        Err(error) if answer(&error) == Some(ServerError::ConsumerBusy) => return Ok(()),
        Err(error) => return Err(explain(&tried, &error)),
    };
    let (patience, mut dropped) = (config.operation_timeout() * 2, VecDeque::new());
    ask(&mut consumer, &mut dropped, patience, &tried, async |consumer| consumer.close().await).await
}

async fn open(
    client: Client,
    topic: &str,
    subscribe: &Subscribe,
    config: &PulsarConfig,
) -> Result<RawConsumer, PulsarError> {
    let start = match subscribe.initial {
        InitialPosition::Earliest => Start::Earliest,
        InitialPosition::Latest => Start::Latest,
    };
    let options = ConsumerOptions::default()
        .durable(subscribe.durable)
        .with_initial_position(start)
        .with_receiver_queue_size(config.prefetch_messages);
    let kind = match subscribe.kind {
        SubscriptionType::Exclusive => SubType::Exclusive,
        SubscriptionType::Shared => SubType::Shared,
        SubscriptionType::Failover => SubType::Failover,
        SubscriptionType::KeyShared => SubType::KeyShared,
    };
    let options = match subscribe.kind {
        SubscriptionType::Failover => options.with_priority_level(arrival()),
        _ => options,
    };
    client
        .consumer()
        .with_topic(topic)
        .with_subscription(&subscribe.subscription)
        .with_subscription_type(kind)
        .with_consumer_name(format!("smartpulse-{}", Uuid::new_v4()))
        .with_batch_size(config.prefetch_messages)
        .with_options(options)
        .build()
        .await
}

/// The rank of a consumer that comes now: its second since 2024. Of a failover subscription the broker serves the lowest rank,
/// so it stays with who came first, and with his operators' state, until he ends; without ranks each that comes or goes may
/// move it.
fn arrival() -> i32 {
    const SINCE: i64 = 1_704_067_200_000;
    i32::try_from((Timestamp::now().as_millis() - SINCE) / 1_000).unwrap_or(i32::MAX)
}
