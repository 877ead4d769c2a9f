//! The server: a listener, its connections, and what tests do to them.
//!
//! It runs on threads of its own, so that a test may start it from anywhere, and block. Everything is bounded: the
//! number of connections, the size of a message, what waits between an engine and its client.

mod alive;

use crate::engine::Engine;
use crate::faults::Faults;
use crate::session::{Message, Output, Session};
use crate::tds::connection;
use crate::tds::login::Login;
pub use crate::tds::prelogin::TlsMode;
use crate::tds::tls::Identity;
use alive::{Alive, Count, Counted, Counts};
use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// The most connections at once. SQL Server has 32,767; nothing that is tested here should need a thousand.
pub const CONNECTIONS_MAX: usize = 1000;
/// Threads for connections: they only move bytes.
const WORKERS: usize = 2;
/// Statements are trees, and engines walk them: SQL Server allows 32 levels of calls.
const STACK_BYTES: usize = 8 << 20;
/// How long stopping waits for what was running.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
/// How long starting again tries to get the port back.
const BIND_TIME_MAX: Duration = Duration::from_secs(10);
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// How a server is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one. Loopback unless somebody says otherwise.
    pub listen: SocketAddr,
    /// Who may log in.
    pub user: String,
    /// With which password.
    pub password: String,
    /// The databases that there are; the first is that of a login that names none.
    pub databases: Vec<String>,
    /// What of TLS it offers.
    pub tls: TlsMode,
    /// Connections that say nothing for so long are closed, as load balancers do it.
    pub idle_kill: Option<Duration>,
    /// The file that the database is kept in; none for one that goes with the server.
    pub data: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            user: "sa".to_owned(),
            password: "Stand-in-1".to_owned(),
            databases: ["smartpulse", "master", "msdb", "tempdb"].map(str::to_owned).to_vec(),
            tls: TlsMode::default(),
            idle_kill: None,
            data: None,
        }
    }
}

/// Makes the session of a login; or says why there is none.
pub type Sessions = Arc<dyn Fn(&Login) -> std::result::Result<Box<dyn Session>, Message> + Send + Sync>;

/// What the connections share.
pub(crate) struct Shared {
    pub options: Options,
    pub faults: Arc<Faults>,
    pub identity: Identity,
    sessions: Sessions,
    alive: Arc<Alive>,
}

impl Shared {
    pub fn knows(&self, login: &Login) -> bool {
        login.user.eq_ignore_ascii_case(&self.options.user) && login.password == self.options.password
    }

    pub fn database<'a>(&'a self, login: &'a Login) -> &'a str {
        let first = self.options.databases.first().map_or("", String::as_str);
        if login.database.is_empty() { first } else { &login.database }
    }

    pub fn has_database(&self, name: &str) -> bool {
        self.options.databases.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    pub fn session(&self, login: &Login) -> std::result::Result<Box<dyn Session>, Message> {
        let session = (self.sessions)(&Login { database: self.database(login).to_owned(), ..login.clone() })?;
        Ok(Box::new(Counted::new(session, self.alive.count(|counts| &mut counts.sessions))))
    }
}

/// A running server. Dropping it stops it.
pub struct StandIn {
    shared: Arc<Shared>,
    address: SocketAddr,
    control: watch::Sender<Control>,
    engine: Option<Engine>,
    runtime: Option<Runtime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Control {
    listening: bool,
    /// Connections of an earlier generation are dropped.
    generation: u64,
}

impl StandIn {
    /// Starts a server with a database of its own: empty, or what its file holds.
    ///
    /// # Errors
    /// The address cannot be had; the file is no database of this program.
    pub fn start(options: Options) -> Result<Self> {
        let engine = match &options.data {
            Some(file) => Engine::open(file)?,
            None => Engine::temporary()?,
        };
        Self::with_engine(options, engine)
    }

    /// Starts a server over an engine, of which others may have clones.
    ///
    /// # Errors
    /// The address cannot be had; no certificate can be made.
    pub fn with_engine(options: Options, engine: Engine) -> Result<Self> {
        let makes = engine.clone();
        let mut server = Self::with_sessions(options, Arc::new(move |login| session(&makes, login)))?;
        server.engine = Some(engine);
        Ok(server)
    }

    /// Starts a server whose sessions are made by `sessions`.
    ///
    /// # Errors
    /// The address cannot be had; no certificate can be made.
    pub fn with_sessions(options: Options, sessions: Sessions) -> Result<Self> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let identity = Identity::make(address.ip())?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(CONNECTIONS_MAX + WORKERS)
            .thread_stack_size(STACK_BYTES)
            .thread_name("stand-in")
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (faults, alive) = (Arc::default(), Arc::default());
        let shared = Arc::new(Shared { options, faults, identity, sessions, alive });
        let control = watch::Sender::new(Control { listening: true, generation: 0 });
        let counted = shared.alive.count(|counts| &mut counts.listeners);
        runtime.spawn(listen(listener, counted, address, shared.clone(), control.subscribe()));
        Ok(StandIn { shared, address, control, engine: None, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection string, as ADO.NET and the product's configuration have it. It takes the certificate on trust; a
    /// client that verifies needs [`Self::ca_pem`].
    pub fn url(&self) -> String {
        let Options { user, password, databases, tls, .. } = &self.shared.options;
        let database = databases.first().map_or("master", String::as_str);
        let encrypt = if *tls == TlsMode::NotSupported { "DANGER_PLAINTEXT" } else { "true" };
        let (ip, port) = (self.address.ip(), self.address.port());
        format!(
            "Server=tcp:{ip},{port};Database={database};User Id={user};Password={password};Encrypt={encrypt};\
             TrustServerCertificate=true"
        )
    }

    /// The certificate of the authority that signed the server's, in PEM. It lives as long as the server, restarts
    /// included.
    pub fn ca_pem(&self) -> &str {
        &self.shared.identity.ca_pem
    }

    /// Its engine: the capture job, clean-up, backups.
    ///
    /// # Panics
    /// The server was started with sessions of somebody else.
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the server was started with an engine")
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The faults, to be kept.
    pub fn faults_handle(&self) -> Arc<Faults> {
        self.shared.faults.clone()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.alive.lock().connections
    }

    /// Drops all connections; new ones are taken.
    pub fn drop_connections(&self) {
        self.control.send_modify(|control| control.generation += 1);
    }

    /// Stops: no connection is left, none is taken, and what was not committed is rolled back. Data and port are kept.
    /// False when something still ran after twenty seconds.
    pub fn stop(&self) -> bool {
        self.control.send_modify(|control| *control = Control { listening: false, generation: control.generation + 1 });
        self.shared.alive.wait(|counts| *counts == Counts::default(), STOP_TIME_MAX)
    }

    /// Starts again after [`Self::stop`], on the same port and with the same data.
    ///
    /// # Errors
    /// Somebody else has taken the port.
    pub fn start_again(&self) -> Result<()> {
        self.control.send_modify(|control| control.listening = true);
        if self.shared.alive.wait(|counts| counts.listeners == 1, BIND_TIME_MAX) {
            return Ok(());
        }
        let text = format!("{} is taken by somebody else: the stand-in cannot start there again", self.address);
        Err(Error::new(std::io::ErrorKind::AddrInUse, text))
    }

    /// Stops and starts again.
    ///
    /// # Errors
    /// Somebody else has taken the port.
    pub fn restart(&self) -> Result<()> {
        self.stop();
        self.start_again()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for StandIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandIn").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A session of a login, in the database that it asked for.
fn session(engine: &Engine, login: &Login) -> std::result::Result<Box<dyn Session>, Message> {
    let failed = |error: Error| Message {
        number: 9001,
        state: 1,
        class: 21,
        text: format!("the stand-in cannot open its database: {error}"),
        procedure: String::new(),
        line: 1,
    };
    let mut session = engine.session(&login.user).map_err(failed)?;
    let change = format!("USE [{}]", login.database.replace(']', "]]"));
    let mut wrong = None;
    session.batch(&change, &[], &AtomicBool::new(false), &mut |piece| {
        if let Output::Message(message) = piece
            && message.class > 10
        {
            wrong = Some(message);
        }
        true
    });
    wrong.map_or(Ok(session), Err)
}

async fn listen(
    first: TcpListener,
    counted: Count,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut control: watch::Receiver<Control>,
) {
    let mut network = shared.faults.network();
    let mut listener = Some((first, counted));
    let processes = AtomicU16::new(51);
    loop {
        let wanted = control.borrow_and_update().listening && !network.borrow_and_update().refuse;
        if !wanted {
            listener = None;
        }
        tokio::select! {
            accepted = accept(listener.as_ref()), if listener.is_some() => {
                let Some(tcp) = accepted else { continue };
                let process = processes.fetch_add(1, Ordering::Relaxed).max(51);
                admit(tcp, process, &shared, control.clone());
            }
            () = tokio::time::sleep(BIND_PAUSE), if wanted && listener.is_none() => {
                if let Ok(bound) = TcpListener::bind(address).await {
                    listener = Some((bound, shared.alive.count(|counts| &mut counts.listeners)));
                }
            }
            changed = control.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = network.changed() => {}
        }
    }
}

async fn accept(listener: Option<&(TcpListener, Count)>) -> Option<TcpStream> {
    match listener?.0.accept().await {
        Ok((tcp, _)) => Some(tcp),
        Err(error) => {
            // Out of descriptors, most likely: trying again at once would only spin.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(BIND_PAUSE).await;
            None
        }
    }
}

fn admit(tcp: TcpStream, process: u16, shared: &Arc<Shared>, mut control: watch::Receiver<Control>) {
    if shared.alive.lock().connections >= CONNECTIONS_MAX {
        tracing::warn!(CONNECTIONS_MAX, "too many connections: one is refused");
        return;
    }
    let counted = shared.alive.count(|counts| &mut counts.connections);
    let shared = shared.clone();
    let generation = control.borrow().generation;
    tokio::spawn(async move {
        let _counted = counted;
        tokio::select! {
            biased;
            // First: a connection that was dropped answers nothing that is asked afterwards.
            _ = control.wait_for(|control| control.generation != generation) => {}
            served = connection::serve(tcp, process, &shared) => {
                if let Err(error) = served {
                    tracing::debug!(process, %error, "a connection ended");
                }
            }
        }
    });
}
