//! Live changes as server-sent events.
//!
//! Contract:
//! - An event is a DataChanged message (contract 4): the patch from the version before, or the whole document where there
//!   is no version before that the stream has told of. `event: change`, its `id` is an opaque cursor.
//! - `Last-Event-ID` (or `lastEventId`, for browsers that open anew) with a cursor among the retained changes: every
//!   version after it, in order and once, over restarts of the server too. Without it, or with an older one: one whole
//!   document per forecast, then changes.
//! - A stream holds the caller's companies only. A forecast that moves out of them ends with its removal.
//! - A client that is slower than the changes are retained gets `event: behind`, then whole documents again.
//! - A comment every few seconds shows that the stream lives. It ends with the token, and with the server.

mod entry;
mod hub;
mod log;
mod snapshot;
pub(crate) mod stream;

use crate::readiness::Readiness;
use entry::{Known, Source};
use log::Log;
use moka::sync::Cache;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_config::StreamSettings;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

/// What the documents that patches are made against may take in memory. Of a key that fell out, the next change goes out whole.
const KNOWN_BYTES_MAX: u64 = 64 << 20;

/// What all streams share.
pub(crate) struct Feed {
    source: Source,
    log: Log,
    known: Cache<Key, Arc<Known>>,
    snapshots: Mutex<HashMap<snapshot::Scope, snapshot::Shared>>,
    /// True once the log is as it was before a restart.
    caught_up: watch::Sender<bool>,
    database: SharedDatabase,
    readiness: Arc<Readiness>,
    streams: Arc<Semaphore>,
    heartbeat: Duration,
    ending: watch::Sender<bool>,
    metrics: Metrics,
}

struct Metrics {
    clients: IntGauge,
    sent: IntCounter,
    behind: IntCounter,
    retained: IntGauge,
    begun: IntCounterVec,
}

impl Feed {
    /// A feed that nothing has come through yet.
    ///
    /// # Errors
    ///
    /// If the registry has metrics of these names already.
    pub fn new(
        settings: &StreamSettings,
        partition: &str,
        database: SharedDatabase,
        readiness: Arc<Readiness>,
        registry: &Registry,
    ) -> Result<Self> {
        let source = Source {
            instance: Uuid::new_v4().to_string().into(),
            partition: partition.into(),
            section: "forecast".into(),
        };
        Ok(Self {
            source,
            log: Log::new(settings.retained),
            known: Cache::builder().max_capacity(KNOWN_BYTES_MAX).weigher(hub::weigh).build(),
            snapshots: Mutex::default(),
            caught_up: watch::Sender::new(false),
            database,
            readiness,
            streams: Arc::new(Semaphore::new(settings.clients_max)),
            heartbeat: Duration::from_millis(settings.heartbeat_ms),
            ending: watch::Sender::new(false),
            metrics: Metrics::new(registry)?,
        })
    }

    /// Ends all streams: clients come back elsewhere, or here after the restart.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }
}

impl Metrics {
    fn new(registry: &Registry) -> Result<Self> {
        let refused = |error| Error::fatal("the metrics of streams could not be registered").because(error);
        let clients = IntGauge::new("sse_clients", "Streams that are open").map_err(refused)?;
        let sent = IntCounter::new("sse_events_sent_total", "Events sent to streams").map_err(refused)?;
        let behind =
            IntCounter::new("sse_behind_total", "Streams that fell behind the retained changes").map_err(refused)?;
        let begun =
            IntCounterVec::new(Opts::new("sse_begun_total", "Streams begun, by how: cursor or snapshot"), &["from"])
                .map_err(refused)?;
        let retained = IntGauge::new("sse_retained", "Changes that streams can resume among").map_err(refused)?;
        registry.register(Box::new(retained.clone())).map_err(refused)?;
        registry.register(Box::new(clients.clone())).map_err(refused)?;
        registry.register(Box::new(sent.clone())).map_err(refused)?;
        registry.register(Box::new(behind.clone())).map_err(refused)?;
        registry.register(Box::new(begun.clone())).map_err(refused)?;
        Ok(Self { clients, sent, behind, retained, begun })
    }
}
