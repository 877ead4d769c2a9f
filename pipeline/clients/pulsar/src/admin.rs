//! The few calls of the admin interface: retention, at start.
//!
//! Nothing depends on them: where they are not allowed, a warning says what an administrator has to type.

use crate::config::PulsarConfig;
use crate::names::Namespace;
use serde_json::{Value, json};
use smartpulse_pipeline::error::{Error, Result};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, parse_pem};

/// The longest that one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells the namespace to keep messages for as long as the settings say, if it keeps them for less. What is not allowed
/// is logged as a warning with the command that does it.
pub async fn keep_messages(config: &PulsarConfig) {
    if config.retention_hours == 0 {
        return;
    }
    let namespace = config.namespace();
    let hours = config.retention_hours;
    let command = format!("pulsar-admin namespaces set-retention {} --time {hours}h --size -1", namespace.path());
    let Some(admin) = config.admin_url.clone() else {
        tracing::warn!(
            command,
            "`admin_url` is not set, so retention is as it was; let an administrator run the command"
        );
        return;
    };
    let config = config.clone();
    let set = tokio::task::spawn_blocking(move || Admin::new(&admin, &config)?.keep(&namespace, hours));
    match set.await {
        Ok(Ok(true)) => tracing::info!(hours, "retention set"),
        Ok(Ok(false)) => tracing::debug!("retention is long enough"),
        Ok(Err(error)) => {
            tracing::warn!(error = error.chain(), command, "retention not set; let an administrator run the command");
        }
        Err(error) => tracing::warn!(%error, command, "retention not set; let an administrator run the command"),
    }
}

struct Admin {
    agent: Agent,
    url: String,
    token: Option<String>,
}

impl Admin {
    fn new(url: &str, config: &PulsarConfig) -> Result<Self> {
        let mut agent = Agent::config_builder().timeout_global(Some(CALL_TIMEOUT)).http_status_as_error(false);
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path)
                .map_err(|e| Error::unavailable(format!("`ca_file` {path} cannot be read")).because(e))?;
            let own: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate.to_owned()),
                    _ => None,
                })
                .collect();
            agent = agent.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&own)).build());
        }
        let token = config.token.as_ref().map(|token| token.expose().trim().to_owned());
        Ok(Self { agent: agent.build().into(), url: url.trim_end_matches('/').to_owned(), token })
    }

    /// Raises the retention; false when it was long enough.
    fn keep(&self, namespace: &Namespace, hours: u32) -> Result<bool> {
        let minutes = i64::from(hours) * 60;
        let path = format!("{}/admin/v2/namespaces/{}/retention", self.url, namespace.path());
        let mut get = self.agent.get(&path);
        if let Some(token) = &self.token {
            get = get.header("Authorization", format!("Bearer {token}"));
        }
        let answer = get.call().map_err(|e| Error::unavailable("the admin interface does not answer").because(e))?;
        let found = body(answer)?;
        let kept = |pointer: &str| found.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let (time, size) = (kept("/retentionTimeInMinutes"), kept("/retentionSizeInMB"));
        if (time < 0 || time >= minutes) && size < 0 {
            return Ok(false);
        }
        let wanted = json!({ "retentionTimeInMinutes": if time < 0 { time } else { time.max(minutes) }, "retentionSizeInMB": -1 });
        let mut post = self.agent.post(&path).header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            post = post.header("Authorization", format!("Bearer {token}"));
        }
        let answer = post
            .send(wanted.to_string().as_bytes())
            .map_err(|e| Error::unavailable("the admin interface does not answer").because(e))?;
        body(answer).map(|_| true)
    }
}

/// The JSON of an answer; null where there is none.
fn body(mut answer: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    if !status.is_success() {
        let reason: String = text.chars().take(200).collect();
        return Err(Error::rejected(format!("the admin interface answers {status}")).because(reason));
    }
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}
