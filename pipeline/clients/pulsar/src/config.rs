//! What the settings say about a Pulsar cluster, and the resource type `pulsar`.

use crate::bus::PulsarBus;
use crate::names::{Namespace, is_plain};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::bus::SharedBus;
use smartpulse_clients::metered::MeteredBus;
use smartpulse_config::Secret;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::registry::{Check, Config, ResourceConfig, ResourceContext};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// A durable bus on an Apache Pulsar cluster: all four subscription types, dead-letter topics, retention.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PulsarConfig {
    /// The cluster's address: `pulsar://host:6650`, or `pulsar+ssl://host:6651` for TLS, whose certificate is always
    /// verified.
    pub service_url: String,
    /// The admin interface, `http://host:8080` or `https://host:8443`, to set the namespace's retention at start. Without
    /// it a warning tells the command that does.
    #[serde(default)]
    pub admin_url: Option<String>,
    /// The token (JWT) that says who this is, from `${env:NAME}` or `${file:PATH}`. None by default.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A PEM file with the certificates of authorities to trust beside the public ones.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// The tenant of the topics. Default `public`.
    #[serde(default = "public")]
    pub tenant: String,
    /// The namespace of the topics. Default `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// How long connecting may take, in milliseconds. Default 5,000.
    #[serde(default = "five_seconds")]
    #[schemars(range(min = 100, max = 120_000))]
    pub connect_timeout_ms: u64,
    /// How long the broker may take over one request, a receipt included, in milliseconds. A broker that is silent for
    /// longer counts as away. Default 4,000.
    #[serde(default = "four_seconds")]
    #[schemars(range(min = 100, max = 600_000))]
    pub operation_timeout_ms: u64,
    /// Messages that the broker sends ahead to each consumer, 1 to 1,000. Default 64. Acks wait behind them, and consumers of
    /// one subscription take them from each other: more is rarely faster.
    #[serde(default = "default_prefetch")]
    #[schemars(range(min = 1, max = 1_000))]
    pub prefetch_messages: u32,
    /// How often a message of a shared subscription may be given back before it goes to the dead-letter topic, with the
    /// reason in its properties. Default 16; 0 sends it there the first time.
    #[serde(default = "default_redeliveries")]
    pub max_redeliveries: u32,
    /// The dead-letter topic; `{topic}` and `{subscription}` are filled in. Default `{topic}-{subscription}-DLQ`.
    #[serde(default = "default_dead_letter_topic")]
    pub dead_letter_topic: String,
    /// How long messages are kept after they are acked, in hours: what the namespace is told at start when it keeps them for
    /// less. Default 168 (7 days); 0 leaves the namespace as it is.
    #[serde(default = "a_week")]
    pub retention_hours: u32,
}

fn public() -> String {
    "public".to_owned()
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn five_seconds() -> u64 {
    5_000
}

fn four_seconds() -> u64 {
    4_000
}

fn default_prefetch() -> u32 {
    64
}

fn default_redeliveries() -> u32 {
    16
}

fn default_dead_letter_topic() -> String {
    "{topic}-{subscription}-DLQ".to_owned()
}

fn a_week() -> u32 {
    168
}

impl PulsarConfig {
    /// Settings that are this address and defaults, as tests have them.
    #[must_use]
    pub fn new(service_url: impl Into<String>) -> Self {
        Self {
            service_url: service_url.into(),
            admin_url: None,
            token: None,
            ca_file: None,
            tenant: public(),
            namespace: default_namespace(),
            connect_timeout_ms: five_seconds(),
            operation_timeout_ms: four_seconds(),
            prefetch_messages: default_prefetch(),
            max_redeliveries: default_redeliveries(),
            dead_letter_topic: default_dead_letter_topic(),
            retention_hours: a_week(),
        }
    }

    /// Where topics are.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace { tenant: self.tenant.clone(), name: self.namespace.clone() }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn operation_timeout(&self) -> Duration {
        Duration::from_millis(self.operation_timeout_ms)
    }

    /// Where messages of a subscription go that came too often.
    pub(crate) fn dead_letter_topic(&self, topic: &str, subscription: &str) -> String {
        self.dead_letter_topic.replace("{topic}", topic).replace("{subscription}", subscription)
    }
}

impl Config for PulsarConfig {
    const TYPE: &'static str = "pulsar";

    fn validate(&self, check: &mut Check<'_>) {
        let mut url = |field: &str, text: &str, schemes: [&str; 2]| {
            let rest = schemes.iter().find_map(|scheme| text.strip_prefix(&format!("{scheme}://")));
            if rest.is_none_or(|host| host.is_empty() || host.starts_with([':', '/'])) {
                let help = format!("write it like `{}://host` or `{}://host`", schemes[0], schemes[1]);
                check.problem(field, format!("`{text}` is no address of pulsar"), Some(help));
            }
        };
        url("service_url", &self.service_url, ["pulsar", "pulsar+ssl"]);
        if let Some(admin) = &self.admin_url {
            url("admin_url", admin, ["http", "https"]);
        }
        for (field, name) in [("tenant", &self.tenant), ("namespace", &self.namespace)] {
            if !is_plain(name) {
                let help = Some("use letters, digits and any of - _ . : =".to_owned());
                check.problem(field, format!("`{name}` is no name"), help);
            }
        }
        if !self.dead_letter_topic.contains("{topic}") {
            let help = Some("keep `{topic}` in it: letters of several topics cannot share one".to_owned());
            check.problem("dead_letter_topic", "does not say which topic it is for", help);
        }
        if self.ca_file.is_some() && !self.service_url.starts_with("pulsar+ssl:") {
            let help = Some("use `pulsar+ssl://`, or remove `ca_file`".to_owned());
            check.problem("ca_file", "is of no use without TLS", help);
        }
    }
}

#[async_trait]
impl ResourceConfig for PulsarConfig {
    const KIND: &'static str = "bus";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        let bus = PulsarBus::connect(self).await?;
        bus.keep_messages().await;
        let bus: SharedBus = Arc::new(bus);
        let bus: SharedBus = Arc::new(MeteredBus::new(bus, cx.name, cx.registry)?);
        Ok(Arc::new(bus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: serde_json::Value) -> Result<PulsarConfig, serde_json::Error> {
        serde_json::from_value(text)
    }

    #[test]
    fn an_address_is_enough() {
        let url = "pulsar://127.0.0.1:6650";
        assert_eq!(read(json!({ "service_url": url })).unwrap(), PulsarConfig::new(url));
        assert!(read(json!({})).unwrap_err().to_string().contains("service_url"));
        assert!(
            read(json!({ "service_url": url, "admin": url }))
                .unwrap_err()
                .to_string()
                .contains("unknown field `admin`")
        );
    }

    #[test]
    fn a_token_is_not_shown() {
        let config = read(json!({ "service_url": "pulsar://h", "token": "eyJhbGciOi" })).unwrap();
        assert!(!format!("{config:?}").contains("eyJ"), "{config:?}");
    }

    #[test]
    fn dead_letters_go_beside_their_topic() {
        let config = PulsarConfig::new("pulsar://h");
        assert_eq!(config.dead_letter_topic("forecast:completed", "mail"), "forecast:completed-mail-DLQ");
        let shared = PulsarConfig { dead_letter_topic: "dead:{topic}".into(), ..config };
        assert_eq!(shared.dead_letter_topic("forecast:completed", "mail"), "dead:forecast:completed");
    }
}
