//! One session with the server.
//!
//! Contract:
//! - Every call is bounded by the command time-out. A call that failed, ran out of time or was dropped leaves the
//!   connection unusable, and every later call on it fails: `tiberius` cannot tell what is left on the wire.
//! - An error of the server met between rows ends the call with that error: rows that came before are never
//!   taken for all there are (edge case 22).
//! - A session starts with the settings of `statements::SESSION`. A call that changes
//!   the isolation level sets it back within the same batch.

use crate::errors::{Failure, Outcome};
use futures::TryStreamExt;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tiberius::{Client, ColumnData, QueryItem, Row, ToSql};
use tokio::net::TcpStream;
use tokio_util::compat::Compat;

pub(crate) type TdsClient = Client<Compat<TcpStream>>;

/// A parameter, with the exact type that it is sent as.
#[derive(Debug, Clone, PartialEq)]
pub struct Param(pub ColumnData<'static>);

impl Param {
    /// `nvarchar`.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(ColumnData::String(Some(Cow::Owned(text.into()))))
    }

    /// `bigint`.
    #[must_use]
    pub fn bigint(number: i64) -> Self {
        Self(ColumnData::I64(Some(number)))
    }

    /// `int`.
    #[must_use]
    pub fn int(number: i32) -> Self {
        Self(ColumnData::I32(Some(number)))
    }

    /// `varbinary`.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(ColumnData::Binary(Some(Cow::Owned(bytes.into()))))
    }

    /// Whether it is NULL.
    #[must_use]
    pub fn is_null(&self) -> bool {
        match &self.0 {
            ColumnData::Guid(value) => value.is_none(),
            ColumnData::String(value) => value.is_none(),
            ColumnData::I64(value) => value.is_none(),
            _ => false,
        }
    }

    /// A number of rows for TOP, OFFSET and FETCH, which take `bigint`.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::bigint(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl ToSql for Param {
    fn to_sql(&self) -> ColumnData<'_> {
        self.0.clone()
    }
}

/// A session.
pub struct Connection {
    client: TdsClient,
    /// The same socket once more, to look at without reading from it.
    socket: std::net::TcpStream,
    server: Arc<str>,
    command_timeout: Duration,
    /// False from the beginning of a call until it has succeeded.
    clean: bool,
    /// When it was last seen alive.
    pub(crate) alive: Instant,
    /// Whether it was used before it was lent: a stale one costs a retry, not an error.
    pub(crate) reused: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).field("clean", &self.clean).finish()
    }
}

impl Connection {
    pub(crate) fn new(
        client: TdsClient,
        socket: std::net::TcpStream,
        server: Arc<str>,
        command_timeout: Duration,
    ) -> Self {
        Self { client, socket, server, command_timeout, clean: true, alive: Instant::now(), reused: false }
    }

    /// `host:port`, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether it was used by somebody before.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.reused
    }

    /// Whether the server has not ended it, as far as one can tell without asking: between two calls nothing is to be read,
    /// neither an end nor a farewell. Costs no round trip, and so every use begins with it.
    pub(crate) fn is_open(&self) -> bool {
        let peeked = self.socket.peek(&mut [0]);
        peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Whether every call on it has succeeded so far.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// Bounds each of the following calls by another time than the settings say.
    pub fn set_command_timeout(&mut self, command_timeout: Duration) {
        self.command_timeout = command_timeout;
    }

    /// Runs a statement with parameters `@P1`, `@P2`, ... (`sp_executesql`), and gives all result sets, empty ones
    /// included. `what` names it in errors.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn query(&mut self, what: &str, sql: &str, params: &[Param]) -> Outcome<Vec<Vec<Row>>> {
        let params: Vec<&dyn ToSql> = params.iter().map(|param| param as &dyn ToSql).collect();
        self.call(what, async |client| client.query(sql, &params).await?.into_results().await).await
    }

    /// Runs a statement with parameters and gives the rows of its first result set.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn rows(&mut self, what: &str, sql: &str, params: &[Param]) -> Outcome<Vec<Row>> {
        Ok(self.query(what, sql, params).await?.into_iter().next().unwrap_or_default())
    }

    /// Runs a statement with parameters and hands over each row as it comes, with the number of its result set from 0,
    /// so that only what `each` keeps is in memory. An error of `each` ends the call (and the connection).
    ///
    /// # Errors
    /// As [`Failure`] says, and those of `each`.
    pub async fn each<F>(&mut self, what: &str, sql: &str, params: &[Param], mut each: F) -> Outcome<()>
    where
        F: FnMut(usize, &Row) -> Outcome<()> + Send,
    {
        let params: Vec<&dyn ToSql> = params.iter().map(|param| param as &dyn ToSql).collect();
        let mut own = None;
        let result = self
            .call(what, async |client| {
                let mut items = client.query(sql, &params).await?;
                while let Some(item) = items.try_next().await? {
                    if let QueryItem::Row(row) = item
                        && let Err(failure) = each(row.result_index(), &row)
                    {
                        own = Some(failure);
                        return Err(tiberius::error::Error::Conversion("the row was refused".into()));
                    }
                }
                Ok(())
            })
            .await;
        match own {
            Some(failure) => Err(failure),
            None => result,
        }
    }

    /// Runs a batch without parameters, and gives all result sets. Unlike in [`Self::query`], what it SETs stays set
    /// and a transaction that it begins stays open.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn batch(&mut self, what: &str, sql: &str) -> Outcome<Vec<Vec<Row>>> {
        self.call(what, async |client| client.simple_query(sql).await?.into_results().await).await
    }

    /// Anything else that the client can do, under the same rules.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub(crate) async fn call<T>(
        &mut self,
        what: &str,
        work: impl AsyncFnOnce(&mut TdsClient) -> tiberius::Result<T>,
    ) -> Outcome<T> {
        if !self.clean {
            let text = format!("{what} cannot run on a connection to {} that has failed before", self.server);
            return Err(Failure::away(smartpulse_pipeline::error::Error::unavailable(text)));
        }
        // Stays so when this future is dropped.
        self.clean = false;
        match tokio::time::timeout(self.command_timeout, Box::pin(work(&mut self.client))).await {
            Ok(Ok(value)) => {
                self.clean = true;
                self.alive = Instant::now();
                Ok(value)
            }
            Ok(Err(error)) => Err(Failure::tds(&self.server, what, error)),
            Err(_) => Err(Failure::timed_out(&self.server, what, self.command_timeout)),
        }
    }
}
