//! What the settings say of a Redis, and its registration as a resource.

use crate::RedisPubSub;
use async_trait::async_trait;
use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::pubsub::SharedPubSub;
use smartpulse_config::Secret;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{Check, Config, Registry, ResourceConfig, ResourceContext};
use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A Redis: pub/sub between instances, with version counters and shared documents.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Where it is: `redis://host:6379/0`, or `rediss://` for TLS, whose certificate is verified. An ACL user goes before
    /// the host (`redis://user@host`); a password does not belong here. Of a Redis Cluster it is a name that leads to any of
    /// its nodes; the others are learned from it, by the addresses that they announce (for which a certificate must be
    /// valid), and get the same login.
    pub url: String,
    /// The password of the user, from `${env:NAME}` or `${file:path}`. Default none.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file with the PEM certificates of the authorities that sign the server's; default those that the system trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a connection, in milliseconds. Default 2,000; at least 1.
    #[serde(default = "default_connect_timeout_ms")]
    #[schemars(range(min = 1, max = 60_000))]
    pub connect_timeout_ms: u64,
    /// Longest wait for an answer, in milliseconds, before the connection counts as broken. Default 2,000; at least 1.
    #[serde(default = "default_command_timeout_ms")]
    #[schemars(range(min = 1, max = 60_000))]
    pub command_timeout_ms: u64,
    /// How many messages wait for one subscriber. Beyond it the oldest is dropped and the subscriber is told that it
    /// missed some. Default 65,536, which is a second of full load; at least 1.
    #[serde(default = "default_queue_messages_max")]
    #[schemars(range(min = 1))]
    pub queue_messages_max: u32,
}

fn default_connect_timeout_ms() -> u64 {
    2_000
}

fn default_command_timeout_ms() -> u64 {
    2_000
}

fn default_queue_messages_max() -> u32 {
    65_536
}

impl RedisConfig {
    /// A Redis at this address, everything else as by default.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password: None,
            ca_file: None,
            connect_timeout_ms: default_connect_timeout_ms(),
            command_timeout_ms: default_command_timeout_ms(),
            queue_messages_max: default_queue_messages_max(),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }

    /// What clients are made of.
    pub(crate) fn connector(&self) -> Result<Connector> {
        let unusable = |error| Error::fatal(format!("`{}` is no address of a Redis", self.url)).because(error);
        let mut info = self.info().map_err(unusable)?;
        if let Some(password) = &self.password {
            let login = info.redis_settings().clone().set_password(password.expose());
            info = info.set_redis_settings(login);
        }
        if is_tls(&info) {
            // Several providers are compiled in, and rustls does not choose between them; the first choice stands.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let certificate = |path: &PathBuf| {
            let unreadable =
                |error| Error::fatal(format!("`ca_file` {} cannot be read", path.display())).because(error);
            std::fs::read(path).map_err(unreadable)
        };
        let root_cert = self.ca_file.as_ref().map(certificate).transpose()?;
        let certificates = root_cert.map(|cert| TlsCertificates { client_tls: None, root_cert: Some(cert) });
        let connector = Connector { info, certificates };
        connector.client(connector.info.clone()).map_err(unusable)?;
        Ok(connector)
    }

    fn info(&self) -> redis::RedisResult<ConnectionInfo> {
        // A script's call follows on the answer before: held back by Nagle's algorithm it would wait for the peer's delayed ack.
        let info = self.url.as_str().into_connection_info()?;
        Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
    }
}

/// Makes clients, of the address in the settings and of other nodes of its cluster; none is connected.
pub(crate) struct Connector {
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
}

impl Connector {
    /// The address in the settings.
    pub(crate) fn home(&self) -> (String, u16) {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
            // A socket of this machine, whose cluster is on it, too.
            _ => ("127.0.0.1".to_owned(), 0),
        }
    }

    /// A client of the address in the settings.
    pub(crate) fn client_at_home(&self) -> redis::RedisResult<Client> {
        self.client(self.info.clone())
    }

    /// A client of another node, with the same login and trust.
    pub(crate) fn client_at(&self, host: &str, port: u16) -> redis::RedisResult<Client> {
        let host = host.to_owned();
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.client(self.info.clone().set_addr(address))
    }

    fn client(&self, info: ConnectionInfo) -> redis::RedisResult<Client> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

impl Config for RedisConfig {
    const TYPE: &'static str = "redis";

    fn validate(&self, check: &mut Check<'_>) {
        match self.info() {
            Ok(info) if info.redis_settings().password().is_some() => {
                let help = "write `password: \"${env:REDIS_PASSWORD}\"` beside it";
                check.problem("url", "the address carries a password", Some(help.to_owned()));
            }
            Ok(info) if self.ca_file.is_some() && !is_tls(&info) => {
                let help = "write `rediss://` in `url`, or leave `ca_file` out";
                check.problem("ca_file", "certificates for a connection without TLS", Some(help.to_owned()));
            }
            Ok(_) => {}
            Err(_) => {
                let help = "such as `redis://host:6379/0` or `rediss://user@host:6380`";
                check.problem("url", "this is no address of a Redis", Some(help.to_owned()));
            }
        }
    }
}

#[async_trait]
impl ResourceConfig for RedisConfig {
    const KIND: &'static str = "pubsub";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let pubsub: SharedPubSub = Arc::new(RedisPubSub::open(self, &cx.instance.to_string())?);
        Ok(Arc::new(pubsub))
    }
}

/// Registers the resource type `redis`.
pub fn register(registry: &mut Registry) {
    registry.resource::<RedisConfig>();
}
