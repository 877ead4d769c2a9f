//! A connection that is made again when it breaks, and that costs nobody a wait while it is away.

use crate::config::RedisConfig;
use crate::errors::{self, classify};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The wait after the first failure; it doubles with each further one.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait: what Redis's return costs at most.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// How long to wait after so many failures in a row.
pub(crate) fn back_off(failures: u32) -> Duration {
    BACK_OFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACK_OFF_MAX)
}

/// A connection for commands. While it is away one caller at a time tries to make it again; all others fail at once.
pub(crate) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    connection: Option<MultiplexedConnection>,
    /// Rises with every connection, so that an error of an old one does not break its successor.
    number: u64,
    failures: u32,
    /// Nobody connects before this.
    not_before: Option<Instant>,
    /// Why it is away.
    why: String,
}

impl Link {
    pub(crate) fn new(client: Client, config: &RedisConfig) -> Self {
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout()))
            .set_response_timeout(Some(config.command_timeout()));
        let state = State { connection: None, number: 0, failures: 0, not_before: None, why: String::new() };
        Self { client, config: timeouts, connect_timeout: config.connect_timeout(), state: Mutex::new(state) }
    }

    /// Asks, over a connection that is made if there is none.
    ///
    /// # Errors
    /// What [`classify`] says; `Unavailable` at once while the server is away.
    pub(crate) async fn ask<T, F>(&self, doing: &str, question: impl FnOnce(MultiplexedConnection) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (connection, number) = self.connection().await?;
        question(connection).await.map_err(|error| {
            let (error, link) = classify(doing, error);
            if link == errors::Link::Broken {
                self.broke(number, &error);
            }
            error
        })
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64)> {
        {
            let mut state = self.state();
            if let Some(connection) = &state.connection {
                return Ok((connection.clone(), state.number));
            }
            let now = Instant::now();
            if state.not_before.is_some_and(|not_before| now < not_before) {
                return Err(Error::unavailable(format!("redis is away: {}", state.why)));
            }
            // Whoever comes meanwhile does not wait for this attempt.
            state.not_before = Some(now + self.connect_timeout);
            if state.why.is_empty() {
                "it is being connected".clone_into(&mut state.why);
            }
        }
        let connected = self.client.get_multiplexed_async_connection_with_config(&self.config).await;
        let mut state = self.state();
        match connected {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                state.number += 1;
                (state.failures, state.not_before) = (0, None);
                Ok((connection, state.number))
            }
            Err(error) => {
                let (error, _) = classify("connect", error);
                Self::away(&mut state, &error);
                Err(error)
            }
        }
    }

    fn broke(&self, number: u64, error: &Error) {
        let mut state = self.state();
        if state.number == number && state.connection.take().is_some() {
            Self::away(&mut state, error);
        }
    }

    fn away(state: &mut State, error: &Error) {
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(Instant::now() + back_off(state.failures));
        state.why = error.chain();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit() {
        let waits: Vec<u128> = (1..=8).map(|failures| back_off(failures).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_000, 1_000, 1_000]);
        assert_eq!(back_off(u32::MAX), BACK_OFF_MAX);
    }
}
