//! Web Push: one request per device (RFC 8030, section 5), encrypted (RFC 8291) and signed (RFC 8292).

use crate::encrypt::{EncryptError, Recipient, encrypt};
use crate::endpoint::{self, EndpointError, Lookup, PublicOnly, Reach};
use crate::message::PushMessage;
use crate::outcome::{self, Answer, Outcome};
use crate::service::Services;
use crate::vapid::Vapid;
use chrono::Utc;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Client, Response, Url, redirect};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smartpulse_clients::delivery::Device;
use smartpulse_pipeline::error::{Error, Result};
use std::error::Error as _;
use std::sync::Arc;
use uuid::Uuid;

/// What is read of an answer's body before the connection is given up; all of it is thrown away.
const DISCARDED_MAX: usize = 16 * 1_024;

/// The client of Web Push services.
pub(crate) struct WebPush {
    client: Client,
    services: Arc<Services>,
    vapid: Vapid,
    reach: Reach,
}

/// What `pushManager.subscribe` gives.
#[derive(Deserialize)]
struct Subscription {
    endpoint: String,
    keys: Keys,
}

#[derive(Deserialize)]
struct Keys {
    p256dh: String,
    auth: String,
}

/// What the page's service worker gets.
#[derive(Serialize)]
struct Payload<'a> {
    id: Uuid,
    title: &'a str,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

/// A request that can be made.
struct Request {
    url: Url,
    body: Vec<u8>,
}

impl WebPush {
    /// # Errors
    /// Fatal when the client cannot be made.
    pub fn new(services: Arc<Services>, vapid: Vapid, lookup: Lookup, reach: Reach) -> Result<Self> {
        let client = Client::builder()
            .timeout(services.limits().timeout)
            .redirect(redirect::Policy::none())
            // A proxy would resolve the name a second time.
            .no_proxy()
            .https_only(reach == Reach::Public)
            .dns_resolver(Arc::new(PublicOnly::new(lookup, reach)))
            .pool_max_idle_per_host(services.limits().concurrency)
            .build();
        let client =
            client.map_err(|error| Error::fatal("the client of push services cannot be made").because(error))?;
        Ok(Self { client, services, vapid, reach })
    }

    pub fn public_key(&self) -> &str {
        self.vapid.public_key()
    }

    /// Tells a device.
    pub async fn send(&self, device: &Device, message: &PushMessage, ttl: u32) -> Outcome {
        let request = match self.request(device, message) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        let host = request.url.host_str().unwrap_or_default().to_owned();
        self.services.of(&host).call(self.post(request, message, ttl)).await
    }

    fn request(&self, device: &Device, message: &PushMessage) -> Result<Request, Outcome> {
        let unusable = |why: &str| Outcome::Gone(format!("the device's subscription is unusable: {why}"));
        let text = device.subscription.as_deref().ok_or_else(|| unusable("there is none"))?;
        let subscription: Subscription = serde_json::from_str(text).map_err(|error| unusable(&error.to_string()))?;
        let url = endpoint::parse(&subscription.endpoint, self.reach).map_err(|why| unusable(&why.to_string()))?;
        let recipient = Recipient::parse(&subscription.keys.p256dh, &subscription.keys.auth);
        let recipient = recipient.map_err(|why| unusable(&why.to_string()))?;
        let PushMessage { id, title, body, url: click, data, .. } = message;
        let payload = Payload { id: *id, title, body, url: click.as_deref(), data: data.as_ref() };
        let payload = serde_json::to_vec(&payload).map_err(|error| Outcome::Refused(error.to_string()))?;
        match encrypt(&recipient, &payload) {
            Ok(body) => Ok(Request { url, body }),
            Err(why @ EncryptError::BadKey(_)) => Err(unusable(&why.to_string())),
            Err(why) => Err(Outcome::Refused(why.to_string())),
        }
    }

    async fn post(&self, request: Request, message: &PushMessage, ttl: u32) -> Answer {
        let authorization = match self.vapid.authorization(&request.url.origin().ascii_serialization()) {
            Ok(authorization) => authorization,
            Err(error) => return Answer::Said(Outcome::Refused(error.chain())),
        };
        let mut post = self
            .client
            .post(request.url)
            .header(AUTHORIZATION, &*authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("ttl", ttl)
            .header("urgency", message.urgency.as_str());
        if let Some(topic) = &message.topic {
            post = post.header("topic", topic);
        }
        match post.body(request.body).send().await {
            Ok(response) => {
                let after = outcome::retry_after(response.headers(), Utc::now());
                let status = response.status().as_u16();
                discard(response).await;
                outcome::web_push(status, after)
            }
            Err(error) => unanswered(&error),
        }
    }
}

/// What a call without an answer says.
pub(crate) fn unanswered(error: &reqwest::Error) -> Answer {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<EndpointError>() {
            return Answer::Said(Outcome::Refused(refused.to_string()));
        }
        cause = inner.source();
    }
    let what = if error.is_timeout() {
        "time-out"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection was cut"
    };
    // The URL of an endpoint is its device's secret, and says nothing that the host does not.
    Answer::Silent { reason: what.to_owned(), after: None }
}

/// Reads a short body to its end, so that the connection can be used again.
async fn discard(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > DISCARDED_MAX {
            break;
        }
    }
}
