//! The publisher's heartbeat: how far it is, for those who missed its last message, and whether the data is still what it
//! wrote.
//!
//! Redis numbers messages per publisher, stream and part of the data, and a server that comes back with older data lost
//! what it was given last: it is enough to look, on every server, at the part that was written last. In a cluster one beat
//! per node also tells how far the parts are that were written since the beat before; beats are counted, for one may be
//! lost, too.

use crate::map::Map;
use crate::nodes::Lane;
use crate::scripts::SEQUENCE_LIFE;
use crate::slots::Part;
use crate::told::{Beat, Told};
use crate::{Inner, errors, names};
use futures::future::join_all;
use redis::{Cmd, FromRedisValue, Value};
use serde::Deserialize;
use smartpulse_pipeline::error::Result;
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a publisher tells how far it is.
const INTERVAL: Duration = Duration::from_secs(2);

/// How many parts one pipeline looks at.
const LOOKS_MAX: usize = 256;

/// A heartbeat, as it is published.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Heartbeat {
    /// The publishing instance.
    pub data_manager_id: String,
    /// How often it found that Redis lost data.
    pub losses: u64,
    /// In a cluster: the slot that `publisher_seq` is about.
    pub publisher_slot: Option<u16>,
    /// The number of its last message on the stream.
    pub publisher_seq: u64,
    /// In a cluster: the node that this came through, how many did so, and the slots that were written since the one before.
    pub through: Option<Through>,
}

/// What a heartbeat tells of a node of a cluster.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Through {
    /// The node.
    pub node: String,
    /// The number of this heartbeat.
    pub beat: u64,
    /// The last number of every slot that was written since the heartbeat before.
    pub slots: BTreeMap<u16, u64>,
}

/// Keeps what Redis told of a part of a stream, and sees to it that the stream is told of from now on.
pub(crate) fn keep(inner: &Arc<Inner>, stream: &str, part: Part, sequence: u64, lost: bool) {
    let mut told = lock(inner);
    let first = told.is_empty();
    told.keep(stream, part, sequence, lost);
    if first {
        tokio::spawn(beat(Arc::downgrade(inner)));
    }
}

/// The highest number that Redis told. What it holds is older than that only if it came back with older data.
pub(crate) fn told(inner: &Inner, stream: &str, part: Part) -> u64 {
    lock(inner).sequence(stream, part)
}

fn lock(inner: &Inner) -> MutexGuard<'_, Told> {
    inner.told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until the resource is dropped.
async fn beat(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.beat_all().await {
            // Whoever publishes hears of it loudly enough.
            tracing::debug!(error = error.chain(), "no heartbeat");
        }
    }
}

impl Inner {
    async fn beat_all(self: &Arc<Self>) -> Result<()> {
        let map = self.nodes.map().await?;
        let streams = lock(self).streams();
        for stream in streams {
            let idle = lock(self).idle(&stream);
            self.look_at(&map, &stream, &idle).await?;
            let beats = lock(self).beats(&stream, &map);
            let beating = beats.iter().map(|beat| self.beat(&map, &stream, beat));
            // A node that is away keeps no other from being told of.
            for result in join_all(beating).await {
                if let Err(error) = result {
                    tracing::debug!(stream = &*stream, error = error.chain(), "no heartbeat");
                }
            }
        }
        Ok(())
    }

    /// Tells of one node; and once more when it is found to have lost data, after all that it has was looked at.
    async fn beat(self: &Arc<Self>, map: &Map, stream: &str, beat: &Beat) -> Result<()> {
        if self.look(map, stream, &[(beat.part, Some(beat))]).await? {
            self.look_at(map, stream, &beat.others).await?;
            let again = lock(self).again(stream, beat);
            self.look(map, stream, &[(beat.part, Some(&again))]).await?;
        }
        lock(self).told(stream, beat);
        Ok(())
    }

    /// Looks at parts without telling anybody.
    async fn look_at(self: &Arc<Self>, map: &Map, stream: &str, parts: &[Part]) -> Result<()> {
        for parts in parts.chunks(LOOKS_MAX) {
            let looks: Vec<_> = parts.iter().map(|part| (*part, None)).collect();
            self.look(map, stream, &looks).await?;
        }
        Ok(())
    }

    /// Looks at parts, each with what is told of it; true if data was lost.
    async fn look(self: &Arc<Self>, map: &Map, stream: &str, looks: &[(Part, Option<&Beat>)]) -> Result<bool> {
        let looks: Vec<(Part, (Part, Option<&Beat>))> = looks.iter().map(|look| (look.0, *look)).collect();
        let look = |(part, beat): &(Part, Option<&Beat>)| self.look_call(map, stream, *part, *beat);
        let answers = self.nodes.send(Lane::Asking, "send a heartbeat", &looks, look).await?;
        let mut any = false;
        for (answer, (part, _)) in answers.into_iter().zip(looks) {
            let (sequence, lost) = sequence(answer)?;
            keep(self, stream, part, sequence, lost);
            any |= lost;
        }
        Ok(any)
    }

    fn look_call(&self, map: &Map, stream: &str, part: Part, beat: Option<&Beat>) -> Cmd {
        let tag = map.tag(part);
        let keys = [names::generation(tag), names::sequence(tag, &self.instance, stream)];
        let (told, losses) = {
            let known = lock(self);
            (known.sequence(stream, part), known.losses(stream))
        };
        let mut call = self.nodes.scripts.heartbeat.on(&keys);
        call.arg(told).arg(self.fresh_generation()).arg(SEQUENCE_LIFE.as_secs());
        let Some(beat) = beat else {
            call.arg("").arg(0).arg("").arg("").arg("");
            return call;
        };
        call.arg(format!("{}{stream}", names::HEARTBEATS)).arg(losses);
        call.arg(format!("{{\"DataManagerId\":\"{}\",\"Losses\":", self.instance));
        call.arg(format!("{}{}", beat.through.as_deref().unwrap_or_default(), names::before_number(part))).arg("}");
        call
    }

    /// A name that no other life of the data has.
    pub(crate) fn fresh_generation(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", self.instance, now.as_micros())
    }
}

fn sequence(answer: Value) -> Result<(u64, bool)> {
    let (sequence, lost) =
        <(u64, u8)>::from_redis_value(answer).map_err(|error| errors::unread("send a heartbeat", error))?;
    Ok((sequence, lost == 1))
}
