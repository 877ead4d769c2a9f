//! A few connections of one role, and what happens when the server is away.
//!
//! Contract:
//! - At most `size` connections of a pool exist; whoever wants one more waits.
//! - A connection is used again only after [`Lent::done`]. In every other case (an error, a dropped future) it is
//!   closed, and the server rolls back what it had begun.
//! - A connection is looked at before it is lent again, so that one which a restart has ended is noticed, and asked when it
//!   has been idle for long, so that one which a firewall has forgotten is too. One that dies in a call costs its user a
//!   retry ([`retrying!`](crate::retrying)).
//! - A dead server costs one time-out, not one per request: while it is away calls fail at once, and one task alone keeps
//!   trying to reach it. After a time-out it is *suspected*: calls wait until that task knows.
//!
//! The pool is our own: `deadpool` and `bb8` return an object to the pool when its guard is dropped, which is exactly what
//! must not happen to a connection whose call was dropped, and neither knows of the gate.

use crate::config::Connect;
use crate::connection::{Connection, TdsClient};
use crate::errors::{Failure, Outcome, login_refused};
use crate::statements;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::compat::TokioAsyncWriteCompatExt;

/// A connection that was idle for so long is asked whether it lives before it is lent.
const IDLE_UNCHECKED: Duration = Duration::from_secs(10);

/// How long that question may take. A healthy server answers within milliseconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two attempts to reach a server that is away; it doubles up to the longest.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The pause where the server is there and refuses the login: often enough for a failover, and too seldom to
/// lock the account.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// How often a read or a whole transaction is tried in all (CONTRACTS 8, transient-SQL).
const TRIES_MAX: u32 = 3;

/// No further try begins after so long: one that has begun may take its time.
const TRIES_TIME: Duration = Duration::from_secs(30);

/// The pause before the second try; it doubles.
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// A client, and its socket once more.
type Opened = (TdsClient, std::net::TcpStream);

/// What is known of the server.
#[derive(Debug, Clone)]
enum State {
    Up,
    /// A call had no answer in time: whether it was slow or the server is gone is being found out.
    Suspected,
    /// Cannot be reached, and why.
    Down(Arc<str>),
}

/// How to reach the server, and whether that works at present. Shared by the pools of a resource.
#[derive(Debug)]
pub struct Server {
    connect: Connect,
    name: Arc<str>,
    state: watch::Sender<State>,
    probing: AtomicBool,
    /// Whether a login has ever succeeded.
    seen: AtomicBool,
}

impl Server {
    /// The server of these settings. Nothing is opened.
    #[must_use]
    pub fn new(connect: Connect) -> Arc<Self> {
        let name = connect.address().into();
        let (state, probing, seen) = (watch::Sender::new(State::Up), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { connect, name, state, probing, seen })
    }

    /// `host:port`, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why the server counts as away at present.
    #[must_use]
    pub fn down(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down(why) => Some(why.to_string()),
            State::Up | State::Suspected => None,
        }
    }

    /// A new connection with its session set up, whatever is known of the server.
    ///
    /// # Errors
    /// Fatal when the login was refused and never succeeded before; otherwise as [`Failure`] says.
    async fn open(&self) -> Outcome<Connection> {
        let limit = self.connect.connect_timeout;
        let (client, socket) = match tokio::time::timeout(limit, self.login()).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                let number = error.code();
                let failure = Failure::tds(&self.name, "connecting", error);
                if !login_refused(number) {
                    return Err(failure);
                }
                let kind = if self.seen.load(Ordering::Relaxed) { ErrorKind::Unavailable } else { ErrorKind::Fatal };
                return Err(failure.kind_of(kind));
            }
            Err(_) => return Err(Failure::timed_out(&self.name, "connecting", limit)),
        };
        let mut connection = Connection::new(client, socket, Arc::clone(&self.name), self.connect.command_timeout);
        connection.batch("setting up the session", &statements::session(self.connect.lock_timeout())).await?;
        self.seen.store(true, Ordering::Relaxed);
        Ok(connection)
    }

    async fn login(&self) -> tiberius::Result<Opened> {
        let config = self.connect.tds();
        match self.login_at(config.clone(), self.connect.address()).await {
            // Azure SQL sends clients on to the node that has the database.
            Err(tiberius::error::Error::Routing { host, port }) => {
                let mut config = config.clone();
                config.host(&host);
                config.port(port);
                self.login_at(config, format!("{host}:{port}")).await
            }
            result => result,
        }
    }

    async fn login_at(&self, config: tiberius::Config, address: String) -> tiberius::Result<Opened> {
        let stream = TcpStream::connect(address).await?.into_std()?;
        let socket = stream.try_clone()?;
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        // Boxed, like the queries: its future holds the login's buffers.
        let client = Box::pin(tiberius::Client::connect(config, stream.compat_write())).await?;
        Ok((client, socket))
    }

    /// Waits while the server is suspected, and fails at once while it is away.
    async fn pass(&self) -> Outcome<()> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Suspected)).await;
        match known.as_deref() {
            Ok(State::Down(why)) => Err(Failure::away(Error::unavailable(why.to_string()))),
            _ => Ok(()),
        }
    }

    /// Notes that a call failed in a way that puts the server in doubt, and has one task find out.
    fn doubt(self: &Arc<Self>, why: State) {
        self.state.send_if_modified(|state| match (&*state, &why) {
            // What is known already is not made less certain.
            (State::Down(_), State::Suspected) => false,
            _ => {
                *state = why;
                true
            }
        });
        if self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let server = Arc::downgrade(self);
        // Ends when the server answers, or when nobody has the resource any more.
        tokio::spawn(async move {
            let mut pause = PROBE_PAUSE;
            let began = Instant::now();
            loop {
                let Some(server) = server.upgrade() else { return };
                match server.open().await {
                    Ok(_) => {
                        server.probing.store(false, Ordering::Release);
                        if let State::Down(_) = server.state.send_replace(State::Up) {
                            let away_ms = began.elapsed().as_millis();
                            tracing::info!(server = server.name(), away_ms, "the database server is back");
                        }
                        return;
                    }
                    Err(failure) => {
                        let (refused, why) = (login_refused(failure.number()), failure.into_error().chain());
                        if let State::Up | State::Suspected = &*server.state.borrow() {
                            tracing::warn!(server = server.name(), error = why, "the database server is away");
                        }
                        server.state.send_replace(State::Down(why.into()));
                        if refused {
                            pause = REFUSED_PAUSE;
                        }
                    }
                }
                drop(server);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PROBE_PAUSE_MAX);
            }
        });
    }
}

/// At most `size` connections of one role, opened when first needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    server: Arc<Server>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    /// A pool of at most `size` connections to `server`.
    #[must_use]
    pub fn new(server: Arc<Server>, size: usize) -> Self {
        Self { server, idle: Arc::default(), permits: Arc::new(Semaphore::new(size)) }
    }

    /// The server that the connections lead to.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// A connection: an idle one that lives, or a new one. Waits while all are lent.
    ///
    /// # Errors
    /// At once while the server is away; otherwise as [`Failure`] says.
    pub async fn get(&self) -> Outcome<Lent> {
        self.server.pass().await?;
        let closed = |_| Failure::from(Error::fatal("the database is closed"));
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        // While this call waited for its turn others may have found out.
        self.server.pass().await?;
        while let Some(mut connection) = self.take_idle() {
            if connection.is_open()
                && (connection.alive.elapsed() < IDLE_UNCHECKED || self.check(&mut connection).await)
            {
                connection.reused = true;
                return Ok(self.lend(connection, permit));
            }
        }
        match self.server.open().await {
            Ok(connection) => Ok(self.lend(connection, permit)),
            Err(failure) => {
                if failure.kind() == ErrorKind::Unavailable {
                    let failure = failure.kind_of(ErrorKind::Unavailable);
                    self.server.doubt(State::Down(failure.text().into()));
                    return Err(failure);
                }
                Err(failure)
            }
        }
    }

    /// How many connections are idle.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The one used last: the others may become idle for good and are closed by the check.
    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn check(&self, connection: &mut Connection) -> bool {
        tokio::time::timeout(CHECK_TIMEOUT, connection.batch("ping", statements::PING)).await.is_ok_and(|r| r.is_ok())
    }

    fn lend(&self, connection: Connection, permit: OwnedSemaphorePermit) -> Lent {
        Lent { connection: Some(connection), pool: self.clone(), _permit: permit }
    }

    /// Learns from a failure: a lost connection puts its idle neighbours in doubt, and a time-out the server.
    fn learn(&self, failure: &Failure) {
        if failure.lost() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            if failure.again() && failure.number().is_none() {
                self.server.doubt(State::Suspected);
            }
        }
    }
}

/// A connection that somebody works with. Dropped without [`Self::done`], it is closed.
#[derive(Debug)]
pub struct Lent {
    /// Nothing only after `done`.
    connection: Option<Connection>,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Lent {
    /// Everything on it has succeeded: the pool may lend it again.
    pub fn done(mut self) {
        if let Some(mut connection) = self.connection.take().filter(Connection::is_clean) {
            connection.set_command_timeout(self.pool.server.connect.command_timeout);
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    /// It failed so: the connection is closed, and what that tells of the server is kept.
    pub fn failed(self, failure: &Failure) {
        self.pool.learn(failure);
    }
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only `done`, which takes the guard, takes the connection")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("only `done`, which takes the guard, takes the connection")
    }
}

/// Counts the tries of one call.
#[derive(Debug)]
pub struct Tries {
    what: &'static str,
    began: Instant,
    tries: u32,
}

impl Tries {
    /// For the call named `what`.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self { what, began: Instant::now(), tries: 0 }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure's error when another try is of no use, or there were enough.
    pub async fn again(&mut self, failure: Failure, reused: bool) -> Result<()> {
        self.tries += 1;
        if !failure.again() || self.tries >= TRIES_MAX || self.began.elapsed() >= TRIES_TIME {
            return Err(failure.into_error());
        }
        let stale = reused && failure.lost() && self.tries == 1;
        let (what, error) = (self.what, failure.into_error());
        tracing::debug!(what, error = error.chain(), "trying again");
        if !stale {
            // With jitter, so that two victims of one deadlock do not meet again.
            let share = f64::from(uuid::Uuid::new_v4().as_fields().1) / f64::from(u16::MAX);
            tokio::time::sleep((TRY_PAUSE * 2_u32.pow(self.tries - 1)).mul_f64(0.5 + share)).await;
        }
        Ok(())
    }
}

/// Runs an expression with a connection of a pool until it succeeds, three times at most, and gives its value. For reads,
/// and for transactions of which a failed try has left nothing.
///
/// `retrying!(pool, "scan", connection => scan(connection, &info).await)`, where the expression is an
/// [`Outcome`](crate::errors::Outcome), and the whole is a `Result` of the runtime's.
#[macro_export]
macro_rules! retrying {
    ($pool:expr, $what:expr, $connection:ident => $work:expr) => {{
        let mut tries = $crate::pool::Tries::new($what);
        loop {
            let (failure, reused) = match $pool.get().await {
                Ok(mut lent) => {
                    let result = {
                        let $connection: &mut $crate::connection::Connection = &mut lent;
                        $work
                    };
                    match result {
                        Ok(value) => {
                            lent.done();
                            break Ok(value);
                        }
                        Err(failure) => {
                            let reused = lent.was_used();
                            lent.failed(&failure);
                            (failure, reused)
                        }
                    }
                }
                Err(failure) => (failure, false),
            };
            if let Err(error) = tries.again(failure, reused).await {
                break Err(error);
            }
        }
    }};
}
