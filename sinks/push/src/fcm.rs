//! Firebase Cloud Messaging, HTTP v1: one request per device, with blocks for Android and Apple's service.

use crate::message::{PushMessage, Urgency};
use crate::oauth::{ServiceAccount, Tokens, bounded};
use crate::outcome::{self, Answer, Outcome};
use crate::service::{Service, Services};
use crate::web_push::unanswered;
use chrono::Utc;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use smartpulse_clients::delivery::Device;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest message, notification and data together.
const MESSAGE_MAX: usize = 4_096;

/// The client of FCM.
pub(crate) struct Fcm {
    client: Client,
    service: Arc<Service>,
    tokens: Tokens,
    url: Url,
}

/// The error of an answer: `google.rpc.Status`.
#[derive(Default, Deserialize)]
struct Answered {
    #[serde(default)]
    error: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default, rename = "errorCode")]
    error_code: String,
    #[serde(default, rename = "fieldViolations")]
    violations: Vec<Violation>,
}

#[derive(Deserialize)]
struct Violation {
    #[serde(default)]
    field: String,
}

impl Fcm {
    /// # Errors
    /// Fatal when the account or an address is none. `plain` allows `http`, for tests.
    pub fn new(services: &Services, account: ServiceAccount, endpoint: &str, plain: bool) -> Result<Self> {
        let wrong = |url: &str| Error::fatal(format!("{url:?} is no https URL that FCM could be at"));
        let parse = |url: &str| {
            let parsed = Url::parse(url).map_err(|error| wrong(url).because(error))?;
            if parsed.scheme() == "https" || plain { Ok(parsed) } else { Err(wrong(url)) }
        };
        parse(account.token_uri())?;
        let base = parse(endpoint)?;
        let host = base.host_str().unwrap_or_default().to_owned();
        let path = format!("/v1/projects/{}/messages:send", account.project_id);
        let url = base.join(&path).map_err(|error| wrong(endpoint).because(error))?;
        let client = Client::builder()
            .timeout(services.limits().timeout)
            .redirect(redirect::Policy::none())
            .https_only(!plain)
            .pool_max_idle_per_host(services.limits().concurrency)
            .build();
        let client = client.map_err(|error| Error::fatal("the client of FCM cannot be made").because(error))?;
        Ok(Self { service: services.of(&host), tokens: Tokens::new(client.clone(), account)?, client, url })
    }

    /// Tells a device.
    pub async fn send(&self, device: &Device, message: &PushMessage, ttl: u32) -> Outcome {
        let Some(token) = device.token.as_deref().filter(|token| !token.is_empty()) else {
            return Outcome::Gone("the device has no token".to_owned());
        };
        let body = body(token, message, ttl, SystemTime::now());
        let content = body.to_string();
        // The token and the frame of the request do not count.
        let length = message.title.len() + message.body.len() + body["message"]["data"].to_string().len();
        if length > MESSAGE_MAX {
            return Outcome::Refused(format!(
                "the message has {length} bytes, and FCM takes {MESSAGE_MAX}: shorten the body or the data"
            ));
        }
        self.service.call(self.post(content)).await
    }

    async fn post(&self, body: String) -> Answer {
        let token = match self.tokens.get().await {
            Ok(token) => token,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                return Answer::Silent { reason: error.chain(), after: None };
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "FCM's issuer refuses the service account");
                return Answer::Said(Outcome::Refused(error.chain()));
            }
        };
        let post = self.client.post(self.url.clone()).bearer_auth(&token).header("content-type", "application/json");
        let response = match post.body(body).send().await {
            Ok(response) => response,
            Err(error) => return unanswered(&error),
        };
        let after = outcome::retry_after(response.headers(), Utc::now());
        let status = response.status().as_u16();
        let said = match bounded(response).await {
            Ok(said) => said,
            Err(error) => return unanswered(&error),
        };
        if status == 401 {
            self.tokens.forget(&token);
        }
        let answered: Answered = serde_json::from_slice(&said).unwrap_or_default();
        judge(status, &answered.error, after)
    }
}

/// The request's body.
fn body(token: &str, message: &PushMessage, ttl: u32, now: SystemTime) -> Value {
    let high = message.urgency == Urgency::High;
    // All values of `data` are strings.
    let mut data = Map::from_iter([("id".to_owned(), json!(message.id))]);
    if let Some(url) = &message.url {
        data.insert("url".to_owned(), json!(url));
    }
    for (name, value) in message.data.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        data.entry(name.clone()).or_insert(Value::String(text));
    }
    let expires = now + Duration::from_secs(u64::from(ttl));
    let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut android = json!({ "priority": if high { "high" } else { "normal" }, "ttl": format!("{ttl}s") });
    let mut apns = json!({
        "headers": { "apns-priority": if high { "10" } else { "5" }, "apns-expiration": expires.to_string() },
        "payload": { "aps": { "sound": "default" } },
    });
    if let Some(topic) = &message.topic {
        android["collapse_key"] = json!(topic);
        apns["headers"]["apns-collapse-id"] = json!(topic);
    }
    json!({ "message": {
        "token": token,
        "notification": { "title": message.title, "body": message.body },
        "data": data,
        "android": android,
        "apns": apns,
    } })
}

/// What an answer means: FCM's error codes, and CONTRACTS 7.
fn judge(status: u16, said: &Status, after: Option<Duration>) -> Answer {
    let code = said.details.iter().map(|detail| detail.error_code.as_str()).find(|code| !code.is_empty());
    let code = code.unwrap_or(&said.status);
    let message: String = said.message.chars().take(300).collect();
    let reason = format!("FCM answers {status} {code} {message}").trim_end().to_owned();
    let of_the_token = || said.details.iter().flat_map(|detail| &detail.violations).any(|v| v.field == "message.token");
    Answer::Said(match status {
        200..=299 => Outcome::Sent,
        404 | 410 => Outcome::Gone(reason),
        400 if code == "UNREGISTERED" || of_the_token() => Outcome::Gone(reason),
        // The access token was not taken; the next try fetches another.
        401 => Outcome::Later { reason, after },
        429 => Outcome::Later { reason, after },
        502..=504 => return Answer::Silent { reason, after },
        500..=599 => Outcome::Later { reason, after },
        _ => Outcome::Refused(reason),
    })
}
