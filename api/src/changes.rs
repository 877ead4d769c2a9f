//! Live changes as server-sent events.
//!
//! Contract:
//! - An event is a DataChanged message (contract 4): the patch from the version before, or the whole document where there
//!   is no version before that the stream has told of. `event: change`, its `id` is an opaque cursor.
//! - `Last-Event-ID` (or `lastEventId`, for browsers that open anew) with a cursor among the retained changes: every
//!   version after it, in order and once, over restarts of the server too. Without it, or with an older one: one whole
//!   document per forecast, then changes. Whole documents have no cursor, nor have changes until none can come that
//!   the documents had already: who breaks off before begins again.
//! - A stream holds the caller's companies only. A forecast that moves out of them ends with its removal. Whose each
//!   forecast is, is read before the first change is taken. So only of a move or an image-less delete that was committed
//!   before that, and was not heard, the former company is not known, and not told.
//! - A client that is slower than the changes are retained gets `event: behind`, then whole documents again.
//! - A comment every few seconds shows that the stream lives. It ends with the token, and with the server.

mod entry;
mod hub;
mod log;
mod snapshot;
pub(crate) mod stream;

use crate::measure::HttpMetrics;
use crate::readiness::Readiness;
use entry::{Known, Owner, Source};
use log::Log;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_config::StreamSettings;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

/// The table that changes are of.
const TABLE: &str = "Forecasts";

/// What the documents that patches are made against may take in memory. Of a key that fell out, the next change goes out whole.
const KNOWN_BYTES_MAX: u64 = 64 << 20;

/// Of how many forecasts it is kept whose they are: some 60 MB. Of those beyond, the longest unchanged, a move is told to
/// the new company only.
const OWNERS_MAX: u64 = 200_000;

/// What all streams share.
pub(crate) struct Feed {
    source: Source,
    /// Where changes are heard: one per instance.
    subscription: String,
    log: Log,
    owners: Cache<Key, Owner>,
    known: Cache<Key, Arc<Known>>,
    /// The highest number of a capture lease that was heard.
    epoch: AtomicU64,
    snapshots: Mutex<HashMap<Scope, Weak<snapshot::Taking>>>,
    /// Of the snapshots that are being sent, in KiB.
    room: Arc<Semaphore>,
    /// True once the log is as it was before a restart.
    caught_up: watch::Sender<bool>,
    database: SharedDatabase,
    readiness: Arc<Readiness>,
    streams: Arc<Semaphore>,
    /// How many streams each user has, of those who have any.
    users: Mutex<HashMap<Uuid, usize>>,
    user_streams_max: usize,
    heartbeat: Duration,
    ending: watch::Sender<bool>,
    metrics: Metrics,
    http: HttpMetrics,
}

/// Whose changes somebody is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Audience {
    /// Everybody's.
    All,
    /// Those of these companies, which may be none.
    Companies(Box<[Box<str>]>),
}

impl Audience {
    fn of<'a>(companies: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Companies(companies.into_iter().map(Box::from).collect())
    }

    fn sees(&self, company: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Companies(companies) => company.is_some_and(|company| companies.iter().any(|own| **own == *company)),
        }
    }
}

/// What a stream is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    audience: Audience,
    /// The one forecast; all without it.
    key: Option<Key>,
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
        http: HttpMetrics,
        registry: &Registry,
    ) -> Result<Self> {
        let source = Source {
            instance: Uuid::new_v4().to_string().into(),
            partition: partition.into(),
            section: "forecast".into(),
        };
        Ok(Self {
            source,
            subscription: hub::subscription(&settings.instance),
            log: Log::new(settings.retained),
            owners: Cache::builder().max_capacity(OWNERS_MAX).eviction_policy(EvictionPolicy::lru()).build(),
            known: Cache::builder().max_capacity(KNOWN_BYTES_MAX).weigher(hub::weigh).build(),
            epoch: AtomicU64::new(0),
            snapshots: Mutex::default(),
            room: Arc::new(Semaphore::new(snapshot::SNAPSHOTS_KIB_MAX)),
            caught_up: watch::Sender::new(false),
            database,
            readiness,
            streams: Arc::new(Semaphore::new(settings.clients_max)),
            users: Mutex::default(),
            user_streams_max: settings.user_clients_max,
            heartbeat: Duration::from_millis(settings.heartbeat_ms),
            ending: watch::Sender::new(false),
            metrics: Metrics::new(registry)?,
            http,
        })
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a stream shows that it lives.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Becomes true when streams end.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
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
        let sent = IntCounter::new("sse_events_sent_total", "Events sent to streams, whole documents included")
            .map_err(refused)?;
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
