//! The publisher's heartbeat: how far it is, for those who missed its last message, and in which life of the data.

use crate::scripts::SEQUENCE_LIFE;
use crate::{Inner, names};
use serde::Deserialize;
use smartpulse_clients::pubsub::Publication;
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

/// Sees to it that the streams of what was published are told of from now on.
pub(crate) fn keep(inner: &Arc<Inner>, publications: &[Publication]) {
    let mut streams = inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
    let first = streams.is_empty();
    for publication in publications {
        let stream = names::stream(&publication.channel);
        if !streams.contains(stream) && streams.len() < STREAMS_MAX {
            streams.insert(stream.into());
        }
    }
    if first && !streams.is_empty() {
        tokio::spawn(beat(Arc::downgrade(inner)));
    }
}

/// Until the resource is dropped.
async fn beat(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = inner.upgrade() else { return };
        let streams = inner.streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for stream in streams {
            if let Err(error) = inner.beat(&stream).await {
                // Whoever publishes hears of it loudly enough.
                tracing::debug!(error = error.chain(), "no heartbeat");
            }
        }
    }
}

impl Inner {
    async fn beat(&self, stream: &str) -> Result<()> {
        let mut call = self.scripts.heartbeat.key(names::GENERATION);
        call.key(names::sequence(&self.instance, stream))
            .arg(format!("{}{stream}", names::HEARTBEATS))
            .arg(format!("{{\"DataManagerId\":\"{}\",\"Generation\":\"", self.instance))
            .arg("\",\"PublisherSeq\":")
            .arg("}")
            .arg(self.fresh_generation())
            .arg(SEQUENCE_LIFE.as_secs());
        self.asking
            .ask("send a heartbeat", |mut connection| async move { call.invoke_async(&mut connection).await })
            .await
    }

    /// A name that no other life of the data has.
    fn fresh_generation(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", self.instance, now.as_micros())
    }
}
