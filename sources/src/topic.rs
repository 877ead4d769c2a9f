//! `topic`: messages of a bus topic, through a subscription.
//!
//! Output: one event per message, in the order of delivery; a message is acked when the event's effect is
//! durable. `payload: change` reads captured-change envelopes and refuses those of another section than the
//! topic's; `payload: document` takes the payload as the document, with the message's key, and its version from
//! the property `version` or from a pointer. What cannot be read goes to the dead letters with the reason, and
//! is published again by `smartpulse dlq replay`. An outage of the bus is waited out, at the start as later: the consumer is
//! rebuilt. So is a subscription that another instance has: this one stands by.

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::bus::{
    Acker, Consumer, InitialPosition, Message, MessageId, SharedBus, Subscribe, SubscriptionType,
};
use smartpulse_json::{Document, Pointer};
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::message::decode_change;
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Committer, Emission, Source, SourceContext, Unreadable};
use smartpulse_pipeline::state::Origin;
use smartpulse_pipeline::trace::TRACEPARENT;
use smartpulse_pipeline::{Event, Operation, Position, TraceContext};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The first and the longest wait before a consumer is rebuilt.
const REBUILD: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Reads the messages of a bus topic through a subscription.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicConfig {
    /// The bus resource.
    bus: String,
    /// The topic, such as `cdc:forecasts`.
    topic: String,
    /// The subscription's name; `{instance}` stands for this process. Each effect needs one of its own.
    subscription: String,
    /// How consumers share the subscription; `exclusive` by default.
    #[serde(default)]
    subscription_type: SubscriptionType,
    /// Where a new subscription starts; `earliest` by default.
    #[serde(default)]
    initial_position: InitialPosition,
    /// Whether the subscription outlives this process; true by default. Per-instance fan-out is not durable.
    #[serde(default = "yes")]
    durable: bool,
    /// What messages hold: `change` (captured changes; the default for topics that begin with `cdc:`) or
    /// `document`.
    #[serde(default)]
    payload: Option<Payload>,
    /// With `payload: document`, where the version is when the message has no property `version`.
    #[serde(default)]
    version: Option<String>,
    /// Messages taken at once, 1 to 10000; 500 by default.
    #[serde(default = "default_messages")]
    #[schemars(range(min = 1, max = 10_000))]
    messages_max: usize,
}

fn yes() -> bool {
    true
}

fn default_messages() -> usize {
    500
}

/// What messages hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Captured-change envelopes.
    Change,
    /// Plain JSON documents.
    Document,
}

impl Payload {
    /// What a topic holds by its name.
    #[must_use]
    pub fn of_topic(topic: &str) -> Self {
        if topic.starts_with("cdc:") { Self::Change } else { Self::Document }
    }
}

impl Config for TopicConfig {
    const TYPE: &'static str = "topic";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("bus", &self.bus, "bus");
        if let Some(text) = &self.version
            && let Err(error) = text.parse::<Pointer>()
        {
            let help = Some("write it like `/versionId`".to_owned());
            check.problem("version", format!("`{text}` is no JSON pointer: {error}"), help);
        }
    }
}

#[async_trait]
impl SourceConfig for TopicConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let bus: SharedBus = cx.resource(&self.bus).await?;
        let subscribe = Subscribe {
            topic: self.topic.clone(),
            subscription: self.subscription.replace("{instance}", &cx.instance.to_string()),
            kind: self.subscription_type,
            initial: self.initial_position,
            durable: self.durable,
        };
        let consumer = match bus.subscribe(subscribe.clone()).await {
            Ok(consumer) => Some(consumer),
            // The rest of the instance can work meanwhile.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(topic = self.topic, error = error.chain(), "not subscribed yet; trying again");
                None
            }
            Err(error) => return Err(error),
        };
        let acker = Arc::new(Mutex::new(consumer.as_ref().map(|consumer| consumer.acker())));
        let version = match &self.version {
            Some(text) => {
                Some(text.parse().map_err(|error| Error::fatal(format!("bad pointer {text}")).because(error))?)
            }
            None => None,
        };
        let reader = Reader {
            bus: self.bus.clone(),
            topic: self.topic.clone(),
            payload: self.payload.unwrap_or_else(|| Payload::of_topic(&self.topic)),
            section: section_of(&self.topic),
            version,
        };
        let source =
            TopicSource { bus, subscribe, consumer, acker: acker.clone(), reader, messages_max: self.messages_max };
        Ok(BuiltSource { source: Box::new(source), committer: Some(Box::new(TopicCommitter { acker })) })
    }
}

/// The section that a topic of captured changes is for: `forecast` for `cdc:forecasts`; none for the topic that
/// tables without one of their own share.
fn section_of(topic: &str) -> Option<String> {
    let section = topic.strip_prefix("cdc:")?.strip_suffix('s')?;
    (section != "table-change").then(|| section.to_owned())
}

/// That of the consumer there is, or was last.
type SharedAcker = Arc<Mutex<Option<Arc<dyn Acker>>>>;

struct TopicSource {
    bus: SharedBus,
    subscribe: Subscribe,
    consumer: Option<Box<dyn Consumer>>,
    acker: SharedAcker,
    reader: Reader,
    messages_max: usize,
}

#[async_trait]
impl Source for TopicSource {
    async fn run(mut self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        let mut wait = REBUILD.0;
        let mut lost = false;
        loop {
            let received = match &mut self.consumer {
                Some(consumer) => cx.next(consumer.receive(self.messages_max)).await?,
                None => cx.next(self.bus.subscribe(self.subscribe.clone())).await?.map(|rebuilt| {
                    let consumer = rebuilt?;
                    *self.acker.lock().unwrap_or_else(PoisonError::into_inner) = Some(consumer.acker());
                    tracing::info!(topic = self.subscribe.topic, "consumer rebuilt");
                    self.consumer = Some(consumer);
                    // What was published while a subscription that is not durable was gone, is lost.
                    lost = !self.subscribe.durable;
                    Ok(Vec::new())
                }),
            };
            match received {
                None => return Ok(()),
                Some(Ok(messages)) => {
                    // Not when it was rebuilt: it may fail again at its first message.
                    if !messages.is_empty() {
                        wait = REBUILD.0;
                    }
                    if lost || !messages.is_empty() {
                        let emission = self.reader.read(messages);
                        cx.emit(Emission { after_loss: std::mem::take(&mut lost), ..emission }).await?;
                    }
                }
                Some(Err(error)) if error.kind() == ErrorKind::Fatal => return Err(error),
                Some(Err(error)) => {
                    tracing::warn!(
                        topic = self.subscribe.topic,
                        error = error.chain(),
                        ?wait,
                        "rebuilding the consumer"
                    );
                    self.consumer = None;
                    if cx.next(tokio::time::sleep(wait)).await?.is_none() {
                        return Ok(());
                    }
                    wait = (wait * 2).min(REBUILD.1);
                }
            }
        }
    }
}

struct Reader {
    bus: String,
    topic: String,
    payload: Payload,
    section: Option<String>,
    version: Option<Pointer>,
}

impl Reader {
    fn read(&self, messages: Vec<Message>) -> Emission {
        let ids = messages.iter().map(|message| &message.id);
        let position = (!messages.is_empty()).then(|| encode_ids(ids));
        let mut emission = Emission { position, ..Emission::default() };
        for message in messages {
            match self.event(&message) {
                Ok(event) => emission.events.push(event),
                Err(error) => emission.unreadable.push(Unreadable {
                    payload: message.payload,
                    reason: error.chain(),
                    key: message.key,
                    origin: Origin::Topic { bus: self.bus.clone(), topic: self.topic.clone() },
                }),
            }
        }
        emission
    }

    fn event(&self, message: &Message) -> Result<Event> {
        let mut event = self.payload_of(message)?;
        event.trace = message.properties.get(TRACEPARENT).and_then(|text| TraceContext::parse(text));
        Ok(event)
    }

    fn payload_of(&self, message: &Message) -> Result<Event> {
        match self.payload {
            Payload::Change => {
                let event = decode_change(&message.payload)?;
                match &self.section {
                    Some(section) if **section != *event.section => Err(Error::rejected(format!(
                        "a change of section `{}` on a topic of section `{section}`",
                        event.section
                    ))),
                    _ => Ok(event),
                }
            }
            Payload::Document => self.document(message),
        }
    }

    fn document(&self, message: &Message) -> Result<Event> {
        let document = Document::parse(message.payload.clone())
            .map_err(|error| Error::rejected("the message is not JSON").because(error))?;
        let key = message.key.as_deref().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| Error::rejected("the message has no key"))?;
        let version = match (message.properties.get("version"), &self.version) {
            (Some(text), _) => text.parse().ok(),
            (None, Some(pointer)) => document.pointer(pointer).and_then(|value| value.as_i64()),
            (None, None) => None,
        };
        let version = version.filter(|version| *version >= 1).ok_or_else(|| {
            Error::rejected(
                "no version: the message has no property `version` of 1 or more; set `version` to a pointer",
            )
        })?;
        let section = message.properties.get("section").map_or(self.topic.as_str(), String::as_str);
        let mut event = Event::new(section.into(), key.into(), version, Operation::Update, Some(document));
        event.commit_time = message.properties.get("commit-time").and_then(|time| time.parse().ok());
        Ok(event)
    }
}

struct TopicCommitter {
    acker: SharedAcker,
}

#[async_trait]
impl Committer for TopicCommitter {
    async fn commit(&mut self, positions: &[Position]) -> Result<()> {
        let ids: Vec<MessageId> = positions.iter().flat_map(decode_ids).collect();
        let acker = self.acker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let acker = acker.ok_or_else(|| Error::unavailable("there is no consumer to ack with"))?;
        acker.ack(&ids).await
    }
}

/// The ids of a batch's messages as a position: each behind its length.
fn encode_ids<'a>(ids: impl Iterator<Item = &'a MessageId>) -> Position {
    let mut out = BytesMut::new();
    for MessageId(id) in ids {
        out.put_u32(u32::try_from(id.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(id);
    }
    Position(out.freeze())
}

fn decode_ids(position: &Position) -> Vec<MessageId> {
    let mut rest: Bytes = position.0.clone();
    let mut ids = Vec::new();
    while rest.len() >= 4 {
        let length = rest.get_u32() as usize;
        ids.push(MessageId(rest.split_to(length.min(rest.len()))));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_pipeline::Timestamp;
    use smartpulse_pipeline::message::encode_change;
    use std::collections::BTreeMap;

    fn message(payload: &[u8], key: Option<&str>, version: Option<&str>) -> Message {
        Message {
            id: MessageId(Bytes::from_static(b"1")),
            topic: "t".into(),
            key: key.map(str::to_owned),
            payload: Bytes::copy_from_slice(payload),
            properties: version.map(|v| ("version".to_owned(), v.to_owned())).into_iter().collect::<BTreeMap<_, _>>(),
            publish_time: Timestamp::from_millis(0),
            redeliveries: 0,
        }
    }

    fn reader(topic: &str, version: Option<&str>) -> Reader {
        Reader {
            bus: "bus".to_owned(),
            topic: topic.to_owned(),
            payload: Payload::of_topic(topic),
            section: section_of(topic),
            version: version.map(|pointer| pointer.parse().unwrap()),
        }
    }

    #[test]
    fn the_ids_of_a_batch_come_back_from_its_position() {
        let ids = [MessageId(Bytes::from_static(b"")), MessageId(Bytes::from_static(b"abc"))];
        assert_eq!(decode_ids(&encode_ids(ids.iter())), ids);
    }

    #[test]
    fn a_change_of_another_table_is_refused() {
        let document = Document::parse(Bytes::from_static(b"{}")).unwrap();
        let event = Event::new("unit".into(), "u1".into(), 1, Operation::Insert, Some(document));
        let payload = encode_change(&event);
        assert!(reader("cdc:units", None).event(&message(&payload, None, None)).is_ok());
        assert!(reader("cdc:table-changes", None).event(&message(&payload, None, None)).is_ok());
        let error = reader("cdc:forecasts", None).event(&message(&payload, None, None)).unwrap_err();
        assert_eq!(error.to_string(), "a change of section `unit` on a topic of section `forecast`");
    }

    #[test]
    fn a_document_takes_its_version_from_the_property_or_the_pointer() {
        let by_pointer = reader("forecast:invalidation", Some("/versionId"));
        for (reader, subject, expected) in [
            (&reader("forecast:invalidation", None), message(b"{}", Some("k"), Some("7")), Ok(7)),
            (&by_pointer, message(br#"{"versionId":8}"#, Some("k"), None), Ok(8)),
            (&by_pointer, message(br#"{"versionId":-8}"#, Some("k"), None), Err("no version")),
            (&by_pointer, message(b"{}", Some("k"), None), Err("no version")),
            (&by_pointer, message(br#"{"versionId":8}"#, None, None), Err("the message has no key")),
            (&by_pointer, message(b"{", Some("k"), None), Err("the message is not JSON")),
        ] {
            match (reader.event(&subject), expected) {
                (Ok(event), Ok(version)) => assert_eq!(event.version, version),
                (Err(error), Err(reason)) => assert!(error.chain().contains(reason), "{}", error.chain()),
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        }
    }
}
