//! The resource type `smtp`: sends mails through a server (RFC 5321, submission as in RFC 6409).
//!
//! Connections are kept and used again, each by one mail at a time. They have TCP_NODELAY: `lettre` 0.11.23 writes the end of a
//! mail in a packet of its own, which Nagle's algorithm holds back until the server's delayed acknowledgement, so that 23
//! mails a second would leave instead of thousands. So they are opened here, and pooled here, for its own pool opens them itself.
//!
//! What a server answers: 5xx refuses the mail for good, 4xx and a connection that is cut or silent leave it for later. A
//! server that cannot be reached, or does not take the login, is away.

use crate::message::compose;
use crate::relay::{Relay, SendError, SharedRelay};
use async_trait::async_trait;
use lettre::message::Mailbox;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::delivery::QueuedMail;
use smartpulse_config::Secret;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{Check, Config, ResourceConfig, ResourceContext};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A connection that was idle for so long is asked whether it lives before it is used.
const UNCHECKED: Duration = Duration::from_secs(1);

/// A connection is closed after so many mails: some servers count.
const MAILS_MAX: u32 = 100;

/// A mail server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// Its name, which its certificate must have.
    pub host: String,
    /// Its port; 587 by default.
    #[serde(default = "port_default")]
    pub port: u16,
    /// `starttls` (the default), or `none` for a server on this machine or in a network that is safe. TLS from the first byte
    /// (port 465) is not spoken yet.
    #[serde(default)]
    pub tls: SmtpTls,
    /// The sender of all mails, such as `SmartPulse <pulse@example.com>`.
    pub from: String,
    /// Who logs in; nobody by default.
    #[serde(default)]
    pub username: Option<String>,
    /// His password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The name that is said to the server (EHLO): this machine's, as others find it. Its own address by default, which some
    /// servers do not like.
    #[serde(default)]
    pub hello: Option<String>,
    /// Connections at once, 1 to 100; 4 by default.
    #[serde(default = "connections_default")]
    #[schemars(range(min = 1, max = 100))]
    pub connections: usize,
    /// How long a mail may take, connecting included, in milliseconds, 100 to 600000; 30000 by default.
    #[serde(default = "timeout_default")]
    #[schemars(range(min = 100, max = 600_000))]
    pub timeout_ms: u64,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// By STARTTLS (RFC 3207): a server that does not offer it is not used.
    #[default]
    Starttls,
    /// Not at all.
    None,
}

fn port_default() -> u16 {
    587
}

fn connections_default() -> usize {
    4
}

fn timeout_default() -> u64 {
    30_000
}

impl Config for SmtpConfig {
    const TYPE: &'static str = "smtp";

    fn validate(&self, check: &mut Check<'_>) {
        if self.from.parse::<Mailbox>().is_err() {
            let help = "write `Name <user@example.com>`";
            check.problem("from", format!("`{}` is no sender", self.from), Some(help.to_owned()));
        }
        if self.username.is_some() != self.password.is_some() {
            let help = "give both `username` and `password`, or neither";
            check.problem("username", "a login has a name and a password", Some(help.to_owned()));
        }
        if self.tls == SmtpTls::None && self.password.is_some() {
            let help = "use `tls: starttls`";
            check.problem("tls", "a password is not sent in the clear", Some(help.to_owned()));
        }
    }
}

#[async_trait]
impl ResourceConfig for SmtpConfig {
    const KIND: &'static str = "mail";

    async fn build(&self, _cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let relay: SharedRelay = Arc::new(SmtpRelay::new(self)?);
        Ok(Arc::new(relay))
    }
}

/// A mail server, with connections that are kept.
pub struct SmtpRelay {
    config: SmtpConfig,
    from: Mailbox,
    hello: ClientId,
    tls: Option<TlsParameters>,
    turns: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: AsyncSmtpConnection,
    mails: u32,
    since: Instant,
}

impl SmtpRelay {
    /// A relay of these settings. The first mail connects.
    ///
    /// # Errors
    /// Fatal when the sender is none or TLS cannot be set up.
    pub fn new(config: &SmtpConfig) -> Result<Self> {
        let from = config.from.parse().map_err(|error| Error::fatal("`from` is no sender").because(error))?;
        let tls = (config.tls == SmtpTls::Starttls).then(|| TlsParameters::new_rustls(config.host.clone()));
        let tls =
            tls.transpose().map_err(|error| Error::fatal("TLS to the mail server cannot be set up").because(error))?;
        Ok(Self {
            from,
            tls,
            hello: config.hello.clone().map_or_else(ClientId::default, ClientId::Domain),
            turns: Semaphore::new(config.connections),
            idle: Mutex::default(),
            config: config.clone(),
        })
    }

    /// A connection that lives: one that is idle, or a new one.
    async fn connection(&self) -> Result<Idle, SendError> {
        while let Some(mut idle) = self.pop() {
            if idle.since.elapsed() < UNCHECKED || idle.connection.test_connected().await {
                return Ok(idle);
            }
        }
        let connection = self.connect().await.map_err(|error| {
            let (host, port) = (&self.config.host, self.config.port);
            SendError::Away(format!("no connection to the mail server {host}:{port}: {error}"))
        })?;
        Ok(Idle { connection, mails: 0, since: Instant::now() })
    }

    fn pop(&self) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect((self.config.host.as_str(), self.config.port)).await?;
        stream.set_nodelay(true)?;
        let mut connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &self.hello).await?;
        if let Some(tls) = &self.tls {
            connection.starttls(tls.clone(), &self.hello).await?;
        }
        if let (Some(username), Some(password)) = (&self.config.username, &self.config.password) {
            let credentials = Credentials::new(username.clone(), password.expose().to_owned());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(connection)
    }

    async fn send_within(&self, mail: &QueuedMail) -> Result<(), SendError> {
        let message = compose(mail, &self.from).map_err(SendError::Refused)?;
        let bytes = message.formatted();
        let mut used = self.connection().await?;
        // It closes the connection where the server does not take the mail.
        used.connection.send(message.envelope(), &bytes).await.map_err(|error| judge(&error))?;
        used.mails += 1;
        used.since = Instant::now();
        if used.mails < MAILS_MAX {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(used);
        } else {
            // Whether it says farewell does not matter: the mail is taken.
            let _ = used.connection.quit().await;
        }
        Ok(())
    }
}

#[async_trait]
impl Relay for SmtpRelay {
    fn concurrency(&self) -> usize {
        self.config.connections
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.config.timeout_ms)
    }

    async fn send(&self, mail: &QueuedMail) -> Result<(), SendError> {
        let closed = |_| SendError::Away("the relay is closed".to_owned());
        let _turn = self.turns.acquire().await.map_err(closed)?;
        match timeout(self.patience(), self.send_within(mail)).await {
            Ok(sent) => sent,
            Err(_) => {
                Err(SendError::Later(format!("the mail server did not answer within {} ms", self.config.timeout_ms)))
            }
        }
    }
}

/// What a failed mail says.
fn judge(error: &SmtpError) -> SendError {
    let mut reason = format!("the mail server: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    // 421 is said of the server, not of the mail (RFC 5321, section 3.8).
    let closing = error.status().is_some_and(|code| code.to_string() == "421");
    match error {
        _ if closing => SendError::Away(reason),
        error if error.is_permanent() || error.is_client() => SendError::Refused(reason),
        _ => SendError::Later(reason),
    }
}
