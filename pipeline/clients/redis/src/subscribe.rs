//! Subscriptions: a connection each, that is read whether or not the subscriber is, and made again when it breaks.

use crate::errors::classify;
use crate::heartbeat::Heartbeat;
use crate::link::back_off;
use crate::track::{Missing, Track};
use crate::{Inner, names};
use bytes::Bytes;
use futures::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Client, Msg};
use smartpulse_clients::pubsub::{InboxSender, Subscriber, inbox};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often the server is asked whether it is still there. A link that is half open says nothing: TCP would wait for
/// minutes.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long the answer may take. With the interval: a dead link is noticed after 3 s.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Subscribes, and keeps subscribed until the subscriber is dropped.
pub(crate) async fn subscribe(inner: &Arc<Inner>, pattern: &str) -> Result<Box<dyn Subscriber>> {
    let (sender, receiver) = inbox((inner.config.queue_messages_max as usize).max(1));
    let mut subscription = Subscription {
        client: inner.client.clone(),
        connect_timeout: inner.config.connect_timeout(),
        pattern: pattern.into(),
        glob: names::glob(pattern),
        track: Track::new(pattern),
        inbox: sender,
    };
    let connection = subscription.connect().await?;
    // What is read from now on is of this life of the data, or a heartbeat will tell.
    subscription.track.lives_in(inner.generation().await?);
    tokio::spawn(subscription.run(connection));
    Ok(Box::new(receiver))
}

struct Subscription {
    client: Client,
    connect_timeout: Duration,
    pattern: Box<str>,
    glob: String,
    track: Track,
    inbox: InboxSender,
}

struct Connection {
    sink: PubSubSink,
    stream: PubSubStream,
}

/// Why a connection is read no further.
enum End {
    /// Nobody wants it.
    Unsubscribed,
    /// It broke.
    Broken(&'static str),
}

impl Subscription {
    async fn run(mut self, mut connection: Connection) {
        loop {
            let why = match self.listen(connection).await {
                End::Unsubscribed => return,
                End::Broken(why) => why,
            };
            tracing::warn!(pattern = &*self.pattern, why, "subscribing again");
            let mut failures = 0;
            connection = loop {
                if self.inbox.is_closed() {
                    return;
                }
                match self.connect().await {
                    Ok(connection) => break connection,
                    Err(error) => {
                        failures += 1;
                        tracing::debug!(pattern = &*self.pattern, failures, error = error.chain(), "not subscribed");
                        sleep(back_off(failures)).await;
                    }
                }
            };
            // Only now: whoever reads anew because of it misses nothing that comes after.
            self.track.reconnected();
            self.inbox.lost();
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let connecting = async {
            let (mut sink, stream) = self.client.get_async_pubsub().await?.split();
            sink.psubscribe(&[self.glob.as_str(), &heartbeats()]).await?;
            Ok(Connection { sink, stream })
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| classify("subscribe", error).0),
            Err(_) => {
                let waited = self.connect_timeout.as_millis();
                Err(Error::unavailable(format!("redis did not answer within {waited} ms: subscribe")))
            }
        }
    }

    async fn listen(&mut self, connection: Connection) -> End {
        let Connection { sink, mut stream } = connection;
        let mut heard = false;
        let mut answer = Box::pin(ping(sink.clone()));
        loop {
            tokio::select! {
                // Messages first: they are signs of life, too.
                biased;
                message = stream.next() => match message {
                    Some(message) => {
                        heard = true;
                        self.take(&message);
                    }
                    None => return End::Broken("the connection was closed"),
                },
                answered = &mut answer => {
                    if self.inbox.is_closed() {
                        return End::Unsubscribed;
                    }
                    if !answered && !heard {
                        return End::Broken("the server does not answer");
                    }
                    heard = false;
                    answer = Box::pin(ping(sink.clone()));
                }
            }
        }
    }

    fn take(&mut self, message: &Msg) {
        let channel = message.get_channel_name();
        let payload = message.get_payload_bytes();
        if let Some(stream) = channel.strip_prefix(names::HEARTBEATS) {
            // A pattern of the subscriber may match it, too: then it comes twice.
            let ours = message.get_pattern::<String>().is_ok_and(|pattern| pattern == heartbeats());
            if ours && let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(payload) {
                let missing = self.track.heartbeat(stream, heartbeat);
                self.tell(missing);
            }
            return;
        }
        let missing = self.track.message(channel, payload);
        self.tell(missing);
        self.inbox.push(channel.into(), Bytes::copy_from_slice(payload));
    }

    fn tell(&self, missing: Missing) {
        if missing == Missing::Some {
            tracing::warn!(pattern = &*self.pattern, "messages were lost on the way");
            self.inbox.lost();
        }
    }
}

fn heartbeats() -> String {
    format!("{}*", names::HEARTBEATS)
}

/// Waits for its time and asks; false if no answer came.
async fn ping(mut sink: PubSubSink) -> bool {
    sleep(PING_INTERVAL).await;
    matches!(timeout(PING_TIMEOUT, sink.ping::<redis::Value>()).await, Ok(Ok(_)))
}
