//! The publisher's heartbeat: how far it is, for those who missed its last message, and in which life of the data.

use crate::scripts::SEQUENCE_LIFE;
use crate::{Inner, names};
use serde::Deserialize;
use smartpulse_pipeline::error::Result;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a publisher tells how far it is.
const INTERVAL: Duration = Duration::from_secs(2);

/// Streams that one process tells of. One per section; more means that a channel does not end with its key.
const STREAMS_MAX: usize = 64;

/// A heartbeat, as it is published.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Heartbeat {
    /// The publishing instance.
    pub data_manager_id: String,
    /// Which life of the data it is.
    pub generation: String,
    /// The number of its last message on the stream.
    pub publisher_seq: u64,
}

/// Keeps the number that Redis told last of a stream, and sees to it that the stream is told of from now on.
pub(crate) fn keep(inner: &Arc<Inner>, stream: &str, sequence: u64) {
    let mut streams = inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
    let first = streams.is_empty();
    if let Some(told) = streams.get_mut(stream) {
        *told = sequence.max(*told);
    } else if streams.len() < STREAMS_MAX {
        streams.insert(stream.into(), sequence);
    }
    if first {
        tokio::spawn(beat(Arc::downgrade(inner)));
    }
}

/// The highest number that Redis told of a stream. What it holds is older than that only if it came back with older data.
pub(crate) fn told(inner: &Inner, stream: &str) -> u64 {
    inner.streams.lock().unwrap_or_else(PoisonError::into_inner).get(stream).copied().unwrap_or_default()
}

/// Until the resource is dropped.
async fn beat(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = inner.upgrade() else { return };
        let streams = inner.streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (stream, told) in streams {
            if let Err(error) = inner.beat(&stream, told).await {
                // Whoever publishes hears of it loudly enough.
                tracing::debug!(error = error.chain(), "no heartbeat");
            }
        }
    }
}

impl Inner {
    async fn beat(&self, stream: &str, told: u64) -> Result<()> {
        let mut call = self.scripts.heartbeat.key(names::GENERATION);
        call.key(names::sequence(&self.instance, stream))
            .arg(format!("{}{stream}", names::HEARTBEATS))
            .arg(format!("{{\"DataManagerId\":\"{}\",\"Generation\":\"", self.instance))
            .arg("\",\"PublisherSeq\":")
            .arg("}")
            .arg(self.fresh_generation())
            .arg(SEQUENCE_LIFE.as_secs())
            .arg(told);
        let beat = |mut connection| async move { call.invoke_async::<u64>(&mut connection).await };
        self.asking.ask("send a heartbeat", beat).await.map(drop)
    }

    /// The life of the data, which begins here if it has none yet.
    pub(crate) async fn generation(&self) -> Result<String> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(names::GENERATION).arg(self.fresh_generation()).arg("NX").ignore();
        pipeline.cmd("GET").arg(names::GENERATION);
        let ask = |mut connection| async move { pipeline.query_async(&mut connection).await };
        let (generation,) = self.asking.ask("read the generation", ask).await?;
        Ok(generation)
    }

    /// A name that no other life of the data has.
    pub(crate) fn fresh_generation(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", self.instance, now.as_micros())
    }
}
