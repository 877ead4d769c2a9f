//! What the settings say of a Redis, and its registration as a resource.

use crate::RedisPubSub;
use async_trait::async_trait;
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
    /// the host (`redis://user@host`); a password does not belong here.
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

    /// A client, not connected.
    pub(crate) fn client(&self) -> Result<Client> {
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
        let Some(path) = &self.ca_file else { return Client::open(info).map_err(unusable) };
        let root_cert = std::fs::read(path)
            .map_err(|error| Error::fatal(format!("`ca_file` {} cannot be read", path.display())).because(error))?;
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root_cert) }).map_err(unusable)
    }

    fn info(&self) -> redis::RedisResult<ConnectionInfo> {
        self.url.as_str().into_connection_info()
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
