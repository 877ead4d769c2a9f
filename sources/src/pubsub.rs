//! `pubsub`: DataChanged messages from the channels that match a pattern.
//!
//! Output: one event per message, with its patch and the version that the patch applies to, in the order of
//! publication per channel. Nothing is committed: pub/sub remembers nothing. When messages may have been missed
//! the next batch says so (`after_loss`), and whoever holds copies must not trust them any more. A message that
//! cannot be read goes to the dead letters.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::pubsub::{Delivery, SharedPubSub, Subscriber};
use smartpulse_pipeline::error::{ErrorKind, Result};
use smartpulse_pipeline::message::{DataChanged, decode_data_changed};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Emission, Source, SourceContext, Unreadable};
use smartpulse_pipeline::state::Origin;
use smartpulse_pipeline::{Event, Operation};
use std::time::Duration;

/// Messages taken at once.
const MESSAGES_MAX: usize = 500;

/// The wait before subscribing again.
const RESUBSCRIBE: Duration = Duration::from_millis(500);

/// Reads DataChanged messages from the channels that match a pattern.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PubSubConfig {
    /// The pub/sub resource.
    pubsub: String,
    /// The channels, in which `*` stands for any text and `{partition}` for the setting, such as
    /// `__dataChanged:{partition}:forecast:*`.
    channel: String,
}

impl Config for PubSubConfig {
    const TYPE: &'static str = "pubsub";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("pubsub", &self.pubsub, "pubsub");
        if self.channel.is_empty() {
            check.problem("channel", "the channel is empty", Some("name one, or a pattern with `*`".to_owned()));
        }
    }
}

#[async_trait]
impl SourceConfig for PubSubConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let pubsub: SharedPubSub = cx.resource(&self.pubsub).await?;
        let channel = self.channel.replace("{partition}", &cx.settings.partition);
        let subscriber = match pubsub.subscribe(&channel).await {
            Ok(subscriber) => Some(subscriber),
            // An outage at the start is no other than one later: the rest of the instance can work.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(channel, error = error.chain(), "not subscribed yet; trying again");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(BuiltSource::forgetful(PubSubSource { pubsub, channel, subscriber }))
    }
}

struct PubSubSource {
    pubsub: SharedPubSub,
    channel: String,
    subscriber: Option<Box<dyn Subscriber>>,
}

#[async_trait]
impl Source for PubSubSource {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        loop {
            let received = match &mut self.subscriber {
                Some(subscriber) => cx.next(subscriber.receive(MESSAGES_MAX)).await?,
                None => cx.next(self.pubsub.subscribe(&self.channel)).await?.map(|subscribed| {
                    self.subscriber = Some(subscribed?);
                    // What was published in between is gone.
                    Ok(vec![Delivery::Lost])
                }),
            };
            match received {
                None => return Ok(()),
                Some(Ok(deliveries)) => emit(deliveries, cx).await?,
                Some(Err(error)) if error.kind() == ErrorKind::Fatal => return Err(error),
                Some(Err(error)) => {
                    tracing::warn!(channel = self.channel, error = error.chain(), "subscribing again");
                    self.subscriber = None;
                    if cx.next(tokio::time::sleep(RESUBSCRIBE)).await?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

async fn emit(deliveries: Vec<Delivery>, cx: &mut SourceContext) -> Result<()> {
    let mut emission = Emission::default();
    for delivery in deliveries {
        match delivery {
            Delivery::Lost => {
                cx.emit(std::mem::take(&mut emission)).await?;
                emission.after_loss = true;
            }
            Delivery::Message { channel, payload } => match decode_data_changed(&payload) {
                Ok(message) => emission.events.push(event_of(message)),
                Err(error) => emission.unreadable.push(Unreadable {
                    payload,
                    reason: error.chain(),
                    key: None,
                    origin: Origin::Channel(channel.to_string()),
                }),
            },
        }
    }
    cx.emit(emission).await
}

fn event_of(message: DataChanged) -> Event {
    let operation = match message.previous_version {
        _ if message.removes() => Operation::Delete,
        None => Operation::Insert,
        Some(_) => Operation::Update,
    };
    let mut event = Event::new(message.section, message.key, message.version, operation, None);
    event.previous_version = message.previous_version;
    event.patch = Some(message.patch);
    event.commit_time = Some(message.change_time);
    event
}
