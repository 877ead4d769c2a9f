//! Subscriptions: a connection each, that is read whether or not the subscriber is, and made again when it breaks.
//!
//! In a cluster a message comes to every node, and a subscription is at one of them. That this one answers says nothing of
//! the others: so the subscription publishes through each of them what it has to hear itself.

use crate::errors::classify;
use crate::heartbeat::Heartbeat;
use crate::link::back_off;
use crate::nodes::{Lane, Node, Nodes};
use crate::track::{Missing, Track};
use crate::{Inner, names};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use smartpulse_clients::pubsub::{InboxSender, Subscriber, inbox};
use smartpulse_pipeline::error::{Error, Result};
use std::collections::BTreeMap;
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
        echo: format!("{}{}", names::ECHOES, inner.fresh_generation()),
        nodes: inner.nodes.clone(),
        // Many instances spread over the nodes.
        turn: inner.instance.bytes().map(usize::from).sum(),
        connect_timeout: inner.config.connect_timeout(),
        pattern: pattern.into(),
        glob: names::glob(pattern),
        track: Track::new(pattern),
        inbox: sender,
    };
    let connection = subscription.connect().await?;
    tokio::spawn(subscription.run(connection));
    Ok(Box::new(receiver))
}

struct Subscription {
    nodes: Arc<Nodes>,
    /// Rises with every connection: the next one is to another node of a cluster.
    turn: usize,
    connect_timeout: Duration,
    pattern: Box<str>,
    glob: String,
    /// The channel on which this subscription hears itself, in a cluster.
    echo: String,
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
    Broken(String),
}

/// What is known after a question whether all are still there.
struct Answer {
    /// The server of this connection answered.
    here: bool,
    /// The nodes of a cluster that took an echo, which has to be heard.
    took: Vec<String>,
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

    /// Connects to the server, or to any node of the cluster.
    async fn connect(&mut self) -> Result<Connection> {
        let map = self.nodes.map().await?;
        let mut patterns = vec![self.glob.clone(), heartbeats()];
        patterns.extend(map.is_cluster().then(|| names::glob(&self.echo)));
        let mut failed = None;
        for _ in &map.primaries {
            self.turn = self.turn.wrapping_add(1);
            match self.connect_to(&map.primaries[self.turn % map.primaries.len()], &patterns).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::unavailable("there is no node to subscribe at")))
    }

    async fn connect_to(&self, node: &Node, patterns: &[String]) -> Result<Connection> {
        let connecting = async {
            let (mut sink, stream) = node.client.get_async_pubsub().await?.split();
            sink.psubscribe(patterns).await?;
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
        let mut round = 1;
        // The last round in which each node was heard, and those that must have been heard when the next round ends.
        let mut echoes: BTreeMap<String, u64> = BTreeMap::new();
        let mut awaited: Vec<String> = Vec::new();
        let mut answer = Box::pin(ask(sink.clone(), self.nodes.clone(), self.echo.clone(), round));
        loop {
            tokio::select! {
                // Messages first: they are signs of life, too.
                biased;
                message = stream.next() => match message {
                    Some(message) => {
                        heard = true;
                        if let Some((round, node)) = self.take(&message) {
                            echoes.insert(node, round);
                        }
                    }
                    None => return End::Broken("the connection was closed".to_owned()),
                },
                answered = &mut answer => {
                    if self.inbox.is_closed() {
                        return End::Unsubscribed;
                    }
                    if !answered.here && !heard {
                        return End::Broken("the server does not answer".to_owned());
                    }
                    let unheard = |node: &&String| echoes.get(*node).is_none_or(|last| last + 1 < round);
                    if let Some(node) = awaited.iter().find(unheard) {
                        return End::Broken(format!("what {node} publishes does not come"));
                    }
                    awaited = answered.took;
                    heard = false;
                    round += 1;
                    answer = Box::pin(ask(sink.clone(), self.nodes.clone(), self.echo.clone(), round));
                }
            }
        }
    }

    /// Takes a message in; an echo of ours gives its round and node.
    fn take(&mut self, message: &Msg) -> Option<(u64, String)> {
        let channel = message.get_channel_name();
        let payload = message.get_payload_bytes();
        if channel.starts_with(names::ECHOES) {
            let echo = std::str::from_utf8(payload).ok().filter(|_| channel == self.echo)?;
            let (round, node) = echo.split_once(' ')?;
            return Some((round.parse().ok()?, node.to_owned()));
        }
        if let Some(stream) = channel.strip_prefix(names::HEARTBEATS) {
            // A pattern of the subscriber may match it, too: then it comes twice.
            let ours = message.get_pattern::<String>().is_ok_and(|pattern| pattern == heartbeats());
            if ours && let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(payload) {
                let missing = self.track.heartbeat(stream, heartbeat);
                self.tell(missing);
            }
            return None;
        }
        let missing = self.track.message(channel, payload);
        self.tell(missing);
        self.inbox.push(channel.into(), Bytes::copy_from_slice(payload));
        None
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

/// Waits for its time, and asks the server of a subscription whether it is there; in a cluster, publishes through every
/// node what has to be heard over it.
async fn ask(mut sink: PubSubSink, nodes: Arc<Nodes>, echo: String, round: u64) -> Answer {
    sleep(PING_INTERVAL).await;
    let here = async { matches!(timeout(PING_TIMEOUT, sink.ping::<redis::Value>()).await, Ok(Ok(_))) };
    let echoed = async {
        let Some(map) = nodes.map().await.ok().filter(|map| map.is_cluster()) else { return Vec::new() };
        let send = map.primaries.iter().map(|node| async {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&echo).arg(format!("{round} {}", node.name));
            let send = |mut connection| async move { publish.query_async::<()>(&mut connection).await };
            // Who is not there is not awaited.
            let sent = timeout(PING_TIMEOUT, node.ask(Lane::Asking, "send an echo", send)).await;
            matches!(sent, Ok(Ok(()))).then(|| node.name.clone())
        });
        join_all(send).await.into_iter().flatten().collect()
    };
    let (here, took) = tokio::join!(here, echoed);
    Answer { here, took }
}
