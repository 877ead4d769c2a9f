//! The listener, its connections, and their orderly end.

use crate::auth;
use crate::patient::Patient;
use crate::router::{Api, Served};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use smartpulse_config::ApiSettings;
use smartpulse_pipeline::error::{Error, Result};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// How many connections may be open beyond those that streams and requests under way can need: idle ones, and those that
/// ask for health.
const CONNECTIONS_SPARE: usize = 4_096;

/// How long accepting pauses when the system has no more descriptors or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest head of a request that is read at all; the gate's own bounds are below it, and answer in JSON.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How much longer than one request the end may take: for the answers' way out.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);

/// Binds the listener of the API.
///
/// # Errors
///
/// `Fatal` if the address is not a loopback one and tokens are signed with the development secret: anybody who can
/// reach the API could sign. `Fatal` if the address cannot be bound.
pub async fn bind(settings: &ApiSettings) -> Result<TcpListener> {
    let address = settings.listen;
    if !address.ip().is_loopback() && auth::are_known(&settings.auth) {
        return Err(Error::fatal(format!(
            "tokens are signed with the development secret, which everybody knows, and so the api listens on loopback \
             only: api.listen is {address}; use 127.0.0.1:{}, or set a secret of your own:\n\
             SMARTPULSE__API__AUTH__KEYS='[{{kind: hs256, secret: ...}}]'",
            address.port()
        )));
    }
    TcpListener::bind(address)
        .await
        .map_err(|error| Error::fatal(format!("the api could not listen on {address}")).because(error))
}

impl Api {
    /// Serves until `shutdown` completes; then accepts nothing more, and returns when the requests under way
    /// are answered, or after the time that a request may take.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let service = self.service();
        let (stop_feed, stopped) = watch::channel(false);
        let api = Arc::new(self);
        let feeding = tokio::spawn({
            let api = Arc::clone(&api);
            async move { api.feed(stopped).await }
        });
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_BYTES_MAX);
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(api.settings.header_timeout_ms));
        let patience = Duration::from_millis(api.settings.request_timeout_ms);
        let connections = Arc::new(Semaphore::new(connections_max(&api.settings)));
        let graceful = GracefulShutdown::new();
        {
            let mut shutdown = pin!(shutdown);
            loop {
                let (stream, permit) = tokio::select! {
                    () = &mut shutdown => break,
                    accepted = accept(&listener, &connections) => accepted,
                };
                tokio::spawn(connection(http.clone(), service.clone(), stream, patience, graceful.watcher(), permit));
            }
        }
        drop(listener);
        api.end_streams();
        stop_feed.send_replace(true);
        let drain = Duration::from_millis(api.settings.request_timeout_ms) + DRAIN_MARGIN;
        if timeout(drain, graceful.shutdown()).await.is_err() {
            tracing::warn!(?drain, "some connections did not end in time and are cut");
        }
        if let Err(panic) = feeding.await {
            tracing::error!(%panic, "the feed of changes ended early");
        }
    }
}

/// How many connections are open at a time. Beyond it they wait in the system's backlog; each takes a file descriptor and
/// some kilobytes. However many streams there are, health is answered.
fn connections_max(settings: &ApiSettings) -> usize {
    settings.streams.clients_max + settings.concurrency_max + CONNECTIONS_SPARE
}

/// The next connection, as soon as there is room for it. Dropping the future loses none.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(connections).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    http: http1::Builder,
    service: Served,
    stream: TcpStream,
    patience: Duration,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    // Answers are small and complete: there is nothing to wait for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let served = http.serve_connection(TokioIo::new(Patient::new(stream, patience)), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_config::Settings;

    #[test]
    fn streams_leave_connections_for_health() {
        let mut settings = Settings::default().api;
        settings.streams.clients_max = 100_000;
        assert!(connections_max(&settings) > settings.streams.clients_max + settings.concurrency_max);
    }
}
