//! The connection, and when it is thrown away.
//!
//! The client reconnects by itself, within limits that are set here. What it does not survive is a call of ours that was
//! given up midway: a half-made connection then blocks every later one for ever. So a call that takes too long costs the
//! client: the next call makes a new one, and what still hangs on the old one fails and is built again.

use crate::config::PulsarConfig;
use crate::errors::{answer, explain};
use pulsar::proto::ServerError;
use pulsar::{
    Authentication, ConnectionRetryOptions, Error as PulsarError, OperationRetryOptions, Pulsar, TokioExecutor,
};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// The client on Tokio.
pub type Client = Pulsar<TokioExecutor>;

/// How often the connection is asked whether it lives. A peer that vanished is noticed after this and
/// `operation_timeout_ms`: 5 seconds by default.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// How often the client itself tries again to connect, or what the broker is not ready for, before we are told.
const RETRIES: u32 = 2;

/// How long it waits in between.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Commands that wait to be written to one connection: publishing waits beyond.
const OUTBOUND_MAX: usize = 1_000;

/// A connection that is made when it is needed.
pub struct Link {
    config: PulsarConfig,
    /// The certificates of `ca_file`.
    authorities: Option<Vec<u8>>,
    current: Mutex<Arc<OnceCell<Client>>>,
}

impl Link {
    /// Reads what connecting needs and connects. Where nobody answers, the first call that is answered connects: an outage
    /// at the start is no other than one later.
    ///
    /// # Errors
    /// Fatal for a token that is refused or a file that cannot be read.
    pub async fn open(config: &PulsarConfig) -> Result<Self> {
        // Where several providers are compiled in, rustls does not choose by itself. An earlier choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authorities = match &config.ca_file {
            Some(path) => {
                let unread = |e| Error::fatal(format!("`ca_file` {path} cannot be read")).because(e);
                Some(tokio::fs::read(path).await.map_err(unread)?)
            }
            None => None,
        };
        let link = Self { config: config.clone(), authorities, current: Mutex::default() };
        match link.client(&link.current()).await {
            Ok(_) => {}
            Err(Refusal::Client(reason)) => return Err(Error::fatal(reason)),
            Err(Refusal::Away(reason)) => tracing::warn!(reason, "pulsar is away; what needs it waits"),
        }
        Ok(link)
    }

    fn current(&self) -> Arc<OnceCell<Client>> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client of a cell, connected if it was not.
    async fn client(&self, cell: &OnceCell<Client>) -> Result<Client, Refusal> {
        cell.get_or_try_init(|| self.connect()).await.cloned()
    }

    async fn connect(&self) -> Result<Client, Refusal> {
        let (connect, operation) = (self.config.connect_timeout(), self.config.operation_timeout());
        let mut builder = Pulsar::builder(&self.config.service_url, TokioExecutor)
            .with_connection_retry_options(ConnectionRetryOptions {
                min_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(1),
                max_retries: RETRIES,
                connection_timeout: connect,
                keep_alive: KEEP_ALIVE,
                ..ConnectionRetryOptions::default()
            })
            .with_operation_retry_options(OperationRetryOptions {
                operation_timeout: operation,
                retry_delay: RETRY_DELAY,
                max_retries: Some(RETRIES),
            })
            .with_outbound_channel_size(OUTBOUND_MAX);
        if let Some(authorities) = &self.authorities {
            builder = builder.with_certificate_chain(authorities.clone());
        }
        if let Some(token) = &self.config.token {
            let data = token.expose().trim().as_bytes().to_vec();
            builder = builder.with_auth(Authentication { name: "token".to_owned(), data });
        }
        let url = &self.config.service_url;
        match tokio::time::timeout(self.patience(), builder.build()).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) if is_refusal(&error) => Err(Refusal::Client(format!(
                "{url} takes the connection and refuses this client: check `token` of the bus resource, and that it has not \
                 expired{}",
                if url.starts_with("pulsar+ssl:") {
                    "; check that the server's certificate is of an authority in `ca_file`"
                } else {
                    ""
                }
            ))),
            Ok(Err(error)) => Err(Refusal::Away(explain(&format!("connect to {url}"), &error).chain())),
            Err(_) => Err(Refusal::Away(format!("cannot connect to {url}: no answer within {:?}", self.patience()))),
        }
    }

    /// The longest that one call may take with all that the client retries.
    fn patience(&self) -> Duration {
        (self.config.connect_timeout() + self.config.operation_timeout() + RETRY_DELAY) * (RETRIES + 1)
    }

    /// Makes a call on the client. One that takes too long costs the client.
    ///
    /// # Errors
    /// As [`explain`] says, about what was `tried`.
    pub async fn call<T, F>(&self, tried: &str, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, PulsarError>>,
    {
        self.answer(tried, call).await?.map_err(|error| explain(tried, &error))
    }

    /// As [`call`](Self::call), with the broker's refusal as it is.
    pub(crate) async fn answer<T, F>(
        &self,
        tried: &str,
        call: impl FnOnce(Client) -> F,
    ) -> Result<Result<T, PulsarError>>
    where
        F: Future<Output = Result<T, PulsarError>>,
    {
        let current = self.current();
        let client = self.client(&current).await.map_err(Refusal::error)?;
        if let Ok(answered) = tokio::time::timeout(self.patience(), call(client)).await {
            return Ok(answered);
        }
        self.discard(&current);
        Err(Error::unavailable(format!("cannot {tried}: pulsar did not answer within {:?}", self.patience())))
    }

    /// Throws a client away, if it was not before: the next call makes a new one.
    fn discard(&self, used: &Arc<OnceCell<Client>>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, used) {
            *current = Arc::default();
        }
    }
}

/// Why there is no connection.
enum Refusal {
    /// The server is there and does not want us.
    Client(String),
    /// Nobody is there.
    Away(String),
}

impl Refusal {
    /// While running, both are waited out: a token is renewed, a certificate replaced.
    fn error(self) -> Error {
        match self {
            Self::Client(reason) | Self::Away(reason) => Error::unavailable(reason),
        }
    }
}

/// The client keeps to itself why a handshake failed; it says no more than that trying again is of no use.
fn is_refusal(error: &PulsarError) -> bool {
    answer(error) == Some(ServerError::AuthenticationError) || error.to_string().contains("fatal error when connecting")
}
