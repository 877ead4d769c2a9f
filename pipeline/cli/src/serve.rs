//! The API beside running graphs: bound before they start, ready when the cache is warm, ended after them. Meanwhile bus and
//! pub/sub are asked whether they are there: readiness names what is degraded.

use crate::log_table::{Alerts, LogTable, Writing};
use crate::setup::Session;
use crate::traces::Traces;
use smartpulse_api::{Api, Parts, Readiness};
use smartpulse_cache::SharedCache;
use smartpulse_clients::bus::SharedBus;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::pubsub::SharedPubSub;
use smartpulse_clients::push::SharedPush;
use smartpulse_clients::unsubscribe::Unsubscribe;
use smartpulse_pipeline::error::{Error, Result};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The cache that the API reads: a resource of this name.
pub const CACHE: &str = "forecasts";

/// The database behind it.
pub const DATABASE: &str = "main_db";

/// Where the API hears of changes, if there is one.
pub const BUS: &str = "bus";

/// What carries changes to the instances, if there is one.
pub const PUBSUB: &str = "pubsub";

/// What tells devices, if anything does: the name and the kind of the resource.
#[cfg(feature = "push")]
const PUSH: &str = "push";

/// How often bus and pub/sub are asked whether they are there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long each may take to answer: more than a busy machine needs.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// The part of an instance that is not ready before the cache is warm.
const WARM_UP: &str = "cache";

/// A bound API, answering.
pub struct Serving {
    pub address: SocketAddr,
    cache: Arc<SharedCache>,
    readiness: Arc<Readiness>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    logs: Writing,
}

/// Whether the settings have what the API reads.
pub fn possible(session: &Session) -> bool {
    session.declared.kinds.get(CACHE) == Some(&"cache") && session.declared.kinds.get(DATABASE) == Some(&"database")
}

impl Serving {
    /// Binds the API's address.
    ///
    /// # Errors
    /// When it is taken, or not on loopback while everybody can sign tokens.
    pub async fn bind(session: &Session) -> Result<TcpListener> {
        smartpulse_api::bind(&session.settings.api).await
    }

    /// Answers requests from now on, and keeps what the process logs.
    ///
    /// # Errors
    /// When cache, database or bus cannot be opened, or there are no keys for tokens.
    pub async fn start(session: &Session, listener: TcpListener, logs: LogTable, traces: &Traces) -> Result<Self> {
        let cache: Arc<SharedCache> = session.resources.get(CACHE).await?;
        let database: SharedDatabase = session.resources.get(DATABASE).await?;
        let settings = &session.settings;
        let alerts = Alerts::new(settings, &session.metrics)?;
        let logs = logs.start(Arc::clone(&database), &settings.log.table, alerts);
        let bus: Option<SharedBus> = match session.declared.kinds.get(BUS) {
            Some(&"bus") => Some(session.resources.get(BUS).await?),
            _ => None,
        };
        let pubsub: Option<SharedPubSub> = match session.declared.kinds.get(PUBSUB) {
            Some(&"pubsub") => Some(session.resources.get(PUBSUB).await?),
            _ => None,
        };
        let readiness = Arc::new(Readiness::new([WARM_UP]));
        let looking = look(bus.clone(), pubsub.clone(), readiness.clone());
        let unsubscribe = Unsubscribe::new(&session.settings.notifications, &session.settings.environment)?;
        let parts = Parts {
            cache: cache.cache().clone(),
            database,
            bus,
            pubsub,
            push: pusher(session).await?,
            unsubscribe: unsubscribe.map(Arc::new),
            partition: session.settings.partition.clone(),
            readiness: readiness.clone(),
            registry: session.metrics.clone(),
            tracer: traces.tracer(),
        };
        let api = Api::new(session.settings.api.clone(), &session.settings.environment, parts)?;
        let address = listener.local_addr().unwrap_or(session.settings.api.listen);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // A dropped sender is a stop too.
            let stopped = async {
                let _ = stopped.await;
            };
            tokio::select! {
                () = api.serve(listener, stopped) => {}
                never = looking => match never {},
            }
        });
        Ok(Self { address, cache, readiness, stop, task, logs })
    }

    /// Fills the cache, and says that the instance is ready.
    ///
    /// # Errors
    /// When the database does not answer; the cache is then filled by reads.
    pub async fn warm(&self, session: &Session) -> Result<usize> {
        let limit = usize::try_from(session.settings.cache.warm_entries_max).unwrap_or(usize::MAX);
        let warmed = self.cache.warm(limit).await;
        self.readiness.ready(WARM_UP);
        warmed
    }

    /// Finishes the requests under way, and writes the last log lines.
    pub async fn end(self) {
        let _ = self.stop.send(());
        if let Err(panic) = self.task.await {
            tracing::error!(%panic, "the api ended early");
        }
        self.logs.end().await;
    }
}

/// Who tells devices, where the settings set up a service.
#[cfg(feature = "push")]
async fn pusher(session: &Session) -> Result<Option<SharedPush>> {
    match session.declared.kinds.get(PUSH) {
        Some(&PUSH) => {
            let pusher: smartpulse_push::SharedPusher = session.resources.get(PUSH).await?;
            Ok(Some(pusher))
        }
        _ => Ok(None),
    }
}

#[cfg(not(feature = "push"))]
async fn pusher(_: &Session) -> Result<Option<SharedPush>> {
    Ok(None)
}

/// Tells readiness, for ever, whether bus and pub/sub answer.
async fn look(bus: Option<SharedBus>, pubsub: Option<SharedPubSub>, readiness: Arc<Readiness>) -> Infallible {
    tokio::select! {
        never = look_at(BUS, bus.as_ref().map(|bus| || bus.ping()), &readiness) => never,
        never = look_at(PUBSUB, pubsub.as_ref().map(|pubsub| || pubsub.ping()), &readiness) => never,
    }
}

async fn look_at<F>(name: &str, ping: Option<impl Fn() -> F>, readiness: &Readiness) -> Infallible
where
    F: Future<Output = Result<()>>,
{
    let Some(ping) = ping else { return std::future::pending().await };
    loop {
        let answer = tokio::time::timeout(LOOK_TIMEOUT, ping()).await;
        match answer.unwrap_or_else(|_| Err(Error::unavailable(format!("no answer within {LOOK_TIMEOUT:?}")))) {
            Ok(()) => readiness.recovered(name),
            Err(error) => {
                // Everybody may read readiness; addresses are for the log.
                tracing::debug!(name, error = error.chain(), "degraded");
                readiness.degraded(name, "it does not answer");
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
