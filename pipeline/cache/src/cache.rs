//! The tiers put together: reads of documents and the loads behind them. Lists are in `list`, changes in `change`.

use crate::circuit::Circuit;
use crate::config::CacheConfig;
use crate::decide::{self, Content, Entry, Filled, Floor, Freshness, Held};
use crate::documents::Documents;
use crate::flights::{Attempt, Flights, Join, Pilot, Via};
use crate::lists::Lists;
use crate::metrics::{Metrics, Sizes};
use crate::news::{NEWS_MAX, Told};
use crate::shared::SharedTier;
use bytes::Bytes;
use prometheus::Registry;
use smartpulse_clients::database::{Row, SharedDatabase};
use smartpulse_clients::documents::Shared;
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// How often a load is repeated because something newer was heard of while it ran. A key that changes faster
/// than it loads is answered with what was found, but that is not kept.
const LOAD_ATTEMPTS: usize = 3;

/// How long a load waits for the patch of the next version, which was only announced: an invalidation goes another way and
/// may overtake it by some milliseconds, and a patch that comes saves a read of the database.
const PATCH_WAIT: Duration = Duration::from_millis(50);

/// How many keys are loaded again in the background at a time. Beyond it a key waits for its next reader.
const BACKGROUND_LOADS_MAX: usize = 32;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Documents, in this instance.
    L1,
    /// Query results, in this instance.
    L2,
    /// Documents shared by all instances (Redis).
    L3,
    /// The database.
    L4,
}

impl Level {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::L1, Self::L2, Self::L3, Self::L4];

    /// The name used in headers and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A document that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Shared, not copied.
    pub document: Document,
    /// Its version.
    pub version: i64,
    /// Where it was found.
    pub level: Level,
    /// True if something newer may exist and the database cannot be asked.
    pub stale: bool,
}

/// The cache of one instance; clones share it. Needs a tokio runtime around every call.
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

/// What became of a row that was offered to L1.
pub(crate) struct Offered {
    answer: Option<Hit>,
    /// Whether it agrees with all that is known.
    agrees: bool,
    /// The version that was held.
    pub before: Option<i64>,
    /// The version that is held instead, if that is another.
    pub after: Option<i64>,
}

/// What a load gives to all who wait for it.
type Loaded = Result<Option<Hit>, Arc<Error>>;

pub(crate) struct Inner {
    pub config: CacheConfig,
    pub database: SharedDatabase,
    pub shared: Option<SharedTier>,
    pub documents: Documents,
    pub lists: Lists<Arc<Error>>,
    pub flights: Arc<Flights<Loaded>>,
    pub circuit: Circuit,
    /// Rises when everything held may be stale. A document is fresh only in the generation it was seen in.
    pub generation: AtomicU64,
    pub background: Arc<Semaphore>,
    pub warm: AtomicBool,
    pub news: broadcast::Sender<Told>,
    pub metrics: Metrics,
}

impl Cache {
    /// A cache in front of a database; its metrics go to `registry`, which takes those of one cache.
    ///
    /// # Errors
    ///
    /// If the registry has metrics of these names already.
    pub fn new(config: CacheConfig, database: SharedDatabase, registry: &Registry) -> Result<Self> {
        let inner = Arc::new(Inner {
            documents: Documents::new(config.l1_bytes_max, config.l1_ttl + config.stale_grace),
            lists: Lists::new(config.l2_entries_max, config.l2_bytes_max, config.l2_ttl + config.stale_grace),
            flights: Arc::default(),
            circuit: Circuit::new(config.probe_interval, config.tier_timeout),
            generation: AtomicU64::new(0),
            background: Arc::new(Semaphore::new(BACKGROUND_LOADS_MAX)),
            warm: AtomicBool::new(false),
            news: broadcast::Sender::new(NEWS_MAX),
            metrics: Metrics::new(registry)?,
            shared: config.shared.clone().map(|shared| SharedTier::new(shared, &config)),
            config,
            database,
        });
        Sizes::register(Arc::downgrade(&inner), registry)?;
        Ok(Self { inner })
    }

    /// The document of a key, or `None` if there is no such row.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer and nothing is held; what else the database says.
    pub async fn get(&self, key: &str) -> Result<Option<Hit>> {
        let inner = &*self.inner;
        if let Some(held) = inner.documents.document(key)
            && held.is_fresh(Instant::now(), inner.generation())
        {
            inner.metrics.hit(Level::L1);
            return Ok(Some(hit(&held, Level::L1)));
        }
        inner.metrics.miss(Level::L1);
        self.load(&Arc::from(key), Via::Tiers).await
    }

    /// The document of a key as the database has it, whatever is held. Falls back like [`Cache::get`].
    ///
    /// # Errors
    ///
    /// Those of [`Cache::get`].
    pub async fn reload(&self, key: &str) -> Result<Option<Hit>> {
        self.load(&Arc::from(key), Via::Database).await
    }

    /// The version that is held of a key, fresh or not; of a deleted key the delete's.
    #[must_use]
    pub fn held_version(&self, key: &str) -> Option<i64> {
        self.inner.documents.get(key).map(|entry| entry.version())
    }

    /// True while the database is being skipped because it did not answer.
    #[must_use]
    pub fn is_database_skipped(&self) -> bool {
        self.inner.circuit.is_open()
    }

    async fn load(&self, key: &Key, via: Via) -> Result<Option<Hit>> {
        let inner = &*self.inner;
        match arrival(self.take_off(key, via)).await {
            Ok(found) => {
                match &found {
                    Some(hit) => inner.metrics.hit(hit.level),
                    None => inner.metrics.miss(Level::L4),
                }
                Ok(found)
            }
            Err(error) => match inner.documents.document(key) {
                Some(held) if may_serve_stale(&error) => {
                    let stale = !held.is_fresh(Instant::now(), inner.generation());
                    inner.metrics.hit(Level::L1);
                    if stale {
                        inner.metrics.stale.inc();
                    }
                    Ok(Some(Hit { stale, ..hit(&held, Level::L1) }))
                }
                _ => {
                    inner.metrics.miss(Level::L4);
                    Err(error)
                }
            },
        }
    }

    /// Joins the load of a key, or starts it in a task of its own: the first reader may leave, the others
    /// still wait.
    pub(crate) fn take_off(&self, key: &Key, via: Via) -> watch::Receiver<Option<Loaded>> {
        match self.inner.flights.join(key, self.inner.generation(), via) {
            Join::Passenger(landing) => landing,
            Join::Pilot(pilot, landing) => {
                let (cache, key) = (self.clone(), Arc::clone(key));
                tokio::spawn(async move { cache.inner.fly(&key, pilot, via).await });
                landing
            }
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Until when a document is fresh that is known good now.
    pub(crate) fn freshness(&self, generation: u64) -> Freshness {
        Freshness { until: Instant::now() + self.config.l1_ttl, generation }
    }

    /// Asks the database, unless it is known not to answer.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.circuit.admit(Instant::now()) {
            return Err(Error::unavailable("the database did not answer before and is being skipped"));
        }
        match timeout(self.config.tier_timeout, question).await {
            Ok(Ok(answer)) => {
                self.circuit.succeeded();
                Ok(answer)
            }
            Ok(Err(error)) => {
                if error.kind() == ErrorKind::Unavailable {
                    self.circuit.failed(Instant::now());
                } else {
                    self.circuit.succeeded();
                }
                Err(error)
            }
            Err(_) => {
                self.circuit.failed(Instant::now());
                let waited = self.config.tier_timeout.as_millis();
                Err(Error::unavailable(format!("the database did not answer within {waited} ms")))
            }
        }
    }

    /// Loads until what was found is not older than what was heard meanwhile, or the attempts are used up.
    async fn fly(&self, key: &Key, mut pilot: Pilot<Loaded>, via: Via) {
        for attempt in 1.. {
            let generation = self.generation();
            pilot.attempt(generation, if attempt == LOAD_ATTEMPTS { Attempt::Last } else { Attempt::Repeatable });
            // What is shared may be behind what was heard; the second attempt goes where the truth is.
            if attempt == 1 && via == Via::Tiers {
                let found = match self.patched(key).await {
                    Some(hit) => Some(Some(hit)),
                    None => self.find_shared(key, generation, &pilot).await,
                };
                if let Some(found) = found {
                    let version = found.as_ref().map(|hit| hit.version);
                    match pilot.land(version, Ok(found)) {
                        Ok(()) => return,
                        Err(again) => pilot = again,
                    }
                }
                pilot.attempt(self.generation(), Attempt::Repeatable);
            }
            let generation = self.generation();
            let row = match self.ask(self.database.get(&self.config.table, std::slice::from_ref(key))).await {
                Ok(rows) => rows.into_iter().find(|row| row.key == *key),
                Err(error) => return pilot.finish(Err(Arc::new(error))),
            };
            let (found, filled) = match self.fill(key, row, Level::L4, generation, |found| pilot.floor(found)) {
                Ok(filled) => filled,
                Err(error) => return pilot.finish(Err(Arc::new(error))),
            };
            if filled
                && let (Some(shared), Some(hit)) = (&self.shared, &found)
                && hit.level == Level::L4
            {
                // Before anybody is answered: from then on nobody gets an older one from there.
                shared.fill(key, hit.version, hit.document.bytes()).await;
            }
            if attempt == LOAD_ATTEMPTS {
                return pilot.finish(Ok(found));
            }
            if filled {
                let version = found.as_ref().map(|hit| hit.version);
                match pilot.land(version, Ok(found)) {
                    Ok(()) => return,
                    Err(again) => pilot = again,
                }
            }
        }
    }

    /// What is held of a key once the patch has come that it lacks; none if it lacks more, or that does not come in time.
    async fn patched(&self, key: &Key) -> Option<Hit> {
        let mut news = self.news.subscribe();
        let deadline = Instant::now() + PATCH_WAIT;
        loop {
            let (held, now) = (self.documents.document(key)?, Instant::now());
            if held.is_fresh(now, self.generation()) {
                return Some(hit(&held, Level::L1));
            }
            if !held.awaits_patch(now, self.generation()) {
                return None;
            }
            match timeout_at(deadline, news.recv()).await {
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return None,
            }
        }
    }

    /// What the instances share of a key, if that agrees with all that is known here.
    async fn find_shared(&self, key: &Key, generation: u64, pilot: &Pilot<Loaded>) -> Option<Option<Hit>> {
        let found = match self.shared.as_ref()?.get(key).await {
            Shared::Document { version, document } => {
                let row = Row { key: key.clone(), version, document, unreadable: None };
                match self.fill(key, Some(row), Level::L3, generation, |found| pilot.floor(found)) {
                    Ok((found, true)) => Some(found),
                    Ok((_, false)) => None,
                    Err(error) => {
                        tracing::warn!(key = &**key, error = error.chain(), "a shared document cannot be read");
                        None
                    }
                }
            }
            Shared::Gone { version } => {
                let (removed, news) = self.documents.update(key, |entry| {
                    if self.flights.floor(key).version > version {
                        return (None, (false, None));
                    }
                    let (next, _) = decide::change(entry, version, Content::Removal, self.freshness(generation));
                    let news = entry.and(next.as_ref()).map(Entry::version);
                    let gone = matches!(next.as_ref().or(entry), Some(Entry::Tombstone(_)));
                    (next, (gone, news))
                });
                // Behind the update: who is told looks at once.
                if let Some(version) = news {
                    self.tell(key, version);
                }
                removed.then_some(None)
            }
            Shared::Nothing => None,
        };
        if found.is_none() {
            self.metrics.miss(Level::L3);
        }
        found
    }

    /// Offers a row to L1; `floor` says what it must not be older than. Gives the answer, and whether it
    /// agrees with all that is known. That something newer than what was held is held now, is told.
    pub(crate) fn fill(
        &self,
        key: &Key,
        row: Option<Row>,
        level: Level,
        generation: u64,
        floor: impl FnOnce(Option<i64>) -> Floor,
    ) -> Result<(Option<Hit>, bool)> {
        let Offered { answer, agrees, before, after } = self.offer(key, row, level, generation, floor)?;
        if let (Some(before), Some(after)) = (before, after)
            && before < after
        {
            self.tell(key, after);
        }
        Ok((answer, agrees))
    }

    /// As [`Inner::fill`], and tells nobody.
    pub(crate) fn offer(
        &self,
        key: &Key,
        row: Option<Row>,
        level: Level,
        generation: u64,
        floor: impl FnOnce(Option<i64>) -> Floor,
    ) -> Result<Offered> {
        let row = match row {
            // A row that came in a page pins the page's buffer: L1 keeps bytes of its own.
            Some(row) => Some((row.version, parse(key, &row.document)?.detach())),
            None => None,
        };
        let offered = row.as_ref().map(|(version, document)| (*version, document));
        let (filled, newer, before, after) = self.documents.update(key, |entry| {
            let floor = floor(offered.map(|(version, _)| version));
            let (next, filled) = decide::fill(entry, offered, floor, self.freshness(generation), Instant::now());
            let newer = match (entry, offered) {
                (Some(Entry::Document(held)), Some((version, _))) if version < held.version => Some(Arc::clone(held)),
                _ => None,
            };
            let (before, after) = (entry.map(Entry::version), next.as_ref().map(Entry::version));
            (next, (filled, newer, before, after))
        });
        let loaded = row.map(|(version, document)| Hit { document, version, level, stale: false });
        let (answer, agrees) = match (filled, newer) {
            (Filled::Kept, _) => (loaded, true),
            (Filled::Newer(held), _) => (Some(hit(&held, Level::L1)), true),
            // The newest there is, should it have to do.
            (Filled::Older, Some(held)) => (Some(hit(&held, Level::L1)), false),
            (Filled::Older, None) => (loaded, false),
        };
        Ok(Offered { answer, agrees, before, after })
    }

    /// Tells whoever follows that a key is held at a version now.
    pub(crate) fn tell(&self, key: &Key, version: i64) {
        // Nobody listening is no error.
        let _ = self.news.send(Told::Taken(Key::clone(key), version));
    }
}

/// Parses what the database gave.
pub(crate) fn parse(key: &Key, document: &Bytes) -> Result<Document> {
    Document::parse(document.clone())
        .map_err(|error| Error::fatal(format!("the database gave an unreadable document of {key}")).because(error))
}

pub(crate) async fn arrival<T: Clone>(mut landing: watch::Receiver<Option<Result<T, Arc<Error>>>>) -> Result<T> {
    match landing.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(Ok(loaded))) => Ok(loaded.clone()),
        Ok(Some(Err(error))) => Err(Error::new(error.kind(), error.chain())),
        // Only a panic or the end of the runtime drops a load before its end.
        Ok(None) | Err(_) => Err(Error::unavailable("the load was given up")),
    }
}

pub(crate) fn may_serve_stale(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Transient)
}

fn hit(held: &Held, level: Level) -> Hit {
    Hit { document: held.document.clone(), version: held.version, level, stale: false }
}
