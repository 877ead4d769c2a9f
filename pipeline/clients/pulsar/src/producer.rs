//! Publishing: one task per topic, which owns the topic's producer.
//!
//! Messages are sent one by one and pipelined: the task hands all of a call to the client before the first receipt is
//! awaited, and takes the next call while receipts are on their way. Order is that of the calls.

use crate::errors::explain;
use crate::link::Link;
use crate::names::Namespace;
use futures::future::join_all;
use pulsar::compression::{Compression, CompressionZstd};
use pulsar::producer::{Message, SendFuture};
use pulsar::routing_policy::RoutingPolicy;
use pulsar::{Error as PulsarError, Producer, ProducerOptions, TokioExecutor};
use smartpulse_clients::bus::Outgoing;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Topics that one bus publishes to. They are named in YAML; more come from a mistake such as a topic per key.
const TOPICS_MAX: usize = 1_000;

/// Calls that wait for one topic's task; further callers wait for a place.
const CALLS_MAX: usize = 16;

/// The largest message: the broker's limit (`maxMessageSize`) less what the headers take.
const MESSAGE_BYTES_MAX: usize = 5 * 1024 * 1024 - 64 * 1024;

/// Level 1 is 2 to 3 times as fast as the default on documents of a few hundred bytes, and as small within a few percent.
const ZSTD_LEVEL: i32 = 1;

/// All producers of a bus.
pub struct Producers {
    link: Arc<Link>,
    namespace: Namespace,
    topics: Mutex<HashMap<String, mpsc::Sender<Call>>>,
}

struct Call {
    messages: Vec<Message>,
    done: oneshot::Sender<Result<()>>,
}

impl Producers {
    /// Producers on a connection; none is opened yet.
    #[must_use]
    pub fn new(link: Arc<Link>, namespace: Namespace) -> Self {
        Self { link, namespace, topics: Mutex::default() }
    }

    /// Publishes in order and returns when the broker has receipted all messages.
    ///
    /// # Errors
    /// Rejected for a name or a size that Pulsar does not take, before anything is sent; otherwise as
    /// [`explain`] says, and then some messages may be there.
    pub async fn publish(&self, topic: &str, messages: Vec<Outgoing>) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        if let Some(message) = messages.iter().find(|message| message.payload.len() > MESSAGE_BYTES_MAX) {
            return Err(Error::rejected(format!(
                "a message for {topic} has {} bytes; pulsar takes {MESSAGE_BYTES_MAX}",
                message.payload.len()
            )));
        }
        let messages = messages.into_iter().map(message).collect();
        let (done, receipts) = oneshot::channel();
        let ended = || Error::unavailable(format!("publishing to {topic} was given up"));
        let calls = self.topic(topic)?;
        calls.send(Call { messages, done }).await.map_err(|_| ended())?;
        receipts.await.unwrap_or_else(|_| Err(ended()))
    }

    fn topic(&self, topic: &str) -> Result<mpsc::Sender<Call>> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = topics.get(topic) {
            return Ok(calls.clone());
        }
        if topics.len() >= TOPICS_MAX {
            return Err(Error::rejected(format!("the bus publishes to {TOPICS_MAX} topics and takes no {topic:?}")));
        }
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let worker = Worker {
            link: Arc::clone(&self.link),
            topic: self.namespace.topic(topic)?,
            tried: format!("publish to {topic}"),
            producer: None,
            broken: Arc::default(),
        };
        tokio::spawn(worker.run(queue));
        topics.insert(topic.to_owned(), calls.clone());
        Ok(calls)
    }
}

fn message(outgoing: Outgoing) -> Message {
    Message {
        payload: outgoing.payload.into(),
        partition_key: outgoing.key,
        properties: outgoing.properties.into_iter().collect(),
        ..Message::default()
    }
}

struct Worker {
    link: Arc<Link>,
    topic: String,
    tried: String,
    producer: Option<Producer<TokioExecutor>>,
    /// Set when a receipt did not come: the producer is made anew.
    broken: Arc<AtomicBool>,
}

impl Worker {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        while let Some(Call { messages, done }) = calls.recv().await {
            match self.send(messages).await {
                Ok(receipts) => {
                    let (tried, broken) = (self.tried.clone(), Arc::clone(&self.broken));
                    tokio::spawn(async move {
                        let failed = join_all(receipts).await.into_iter().find_map(|receipt| receipt.err());
                        if failed.is_some() {
                            broken.store(true, Ordering::Relaxed);
                        }
                        // Nobody may be waiting any more: the messages are there all the same.
                        let _ = done.send(failed.map_or(Ok(()), |error| Err(explain(&tried, &error))));
                    });
                }
                Err(error) => {
                    self.producer = None;
                    let _ = done.send(Err(error));
                }
            }
        }
        if let Some(mut producer) = self.producer {
            let _ = producer.close().await;
        }
    }

    /// Hands messages to the client; their receipts come later.
    async fn send(&mut self, messages: Vec<Message>) -> Result<Vec<SendFuture>> {
        if self.broken.swap(false, Ordering::Relaxed) {
            self.producer = None;
        }
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.link.call(&self.tried, |client| open(client, self.topic.clone())).await?,
        };
        let sending = async move {
            let mut receipts = Vec::with_capacity(messages.len());
            for message in messages {
                receipts.push(producer.send_non_blocking(message).await?);
            }
            Ok::<_, PulsarError>((producer, receipts))
        };
        let (producer, receipts) = self.link.call(&self.tried, |_| sending).await?;
        self.producer = Some(producer);
        Ok(receipts)
    }
}

async fn open(client: crate::link::Client, topic: String) -> Result<Producer<TokioExecutor>, PulsarError> {
    let options = ProducerOptions {
        // One message per entry: a client-side batch has one key at most, which Key_Shared would go by.
        batch_size: None,
        compression: Some(Compression::Zstd(CompressionZstd { level: ZSTD_LEVEL })),
        // Without it a full queue is an error, and without a policy keys do not choose the partition.
        block_queue_if_full: true,
        routing_policy: Some(RoutingPolicy::RoundRobin),
        ..ProducerOptions::default()
    };
    client.producer().with_topic(topic).with_options(options).build().await
}
