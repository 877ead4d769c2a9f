//! The resource type `push_services`: how push services are reached, and with whose keys.

use crate::endpoint::{Lookup, Reach, system_lookup};
use crate::fcm::Fcm;
use crate::oauth::ServiceAccount;
use crate::pusher::{Pusher, SharedPusher};
use crate::service::{Limits, Services};
use crate::vapid::Vapid;
use crate::web_push::WebPush;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::delivery::SharedDelivery;
use smartpulse_config::Secret;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{Check, Config, ResourceConfig, ResourceContext};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// Where FCM is.
const FCM: &str = "https://fcm.googleapis.com";

/// Push services: Web Push, FCM, or both.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushServicesConfig {
    /// The database resource with the users' devices.
    pub database: String,
    /// Web Push; without it browsers are not told.
    #[serde(default)]
    pub web_push: Option<WebPushConfig>,
    /// Firebase Cloud Messaging; without it apps are not told.
    #[serde(default)]
    pub fcm: Option<FcmConfig>,
    /// Requests to one service at once, 1 to 1000; 32 by default.
    #[serde(default = "concurrency_default")]
    #[schemars(range(min = 1, max = 1_000))]
    pub concurrency_per_service: usize,
    /// How long a request may take, in milliseconds, 100 to 60000; 5000 by default.
    #[serde(default = "timeout_default")]
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u64,
    /// For tests: services on this machine may be called, also by `http`. Refused outside of the environment `development`.
    #[serde(default)]
    pub loopback: bool,
}

/// Who sends Web Push.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebPushConfig {
    /// The VAPID private key, of which browsers know the public one: `smartpulse vapid generate` makes both. Another key
    /// makes all subscriptions worthless.
    pub private_key: Secret,
    /// Where a push service can reach you: `mailto:ADDRESS` or `https://PAGE`.
    pub contact: String,
    /// Hosts of services whose outage holds the pipeline until they are back, with all hosts below them. The outage of any
    /// other costs its messages their tries: endpoints are named by whoever registers a device. By default those of
    /// Google, Mozilla, Microsoft and Apple.
    #[serde(default = "services_default")]
    pub services: Vec<String>,
}

/// Who sends through FCM.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FcmConfig {
    /// The JSON key file of a service account that may send messages.
    pub service_account: Secret,
    /// Where FCM is; `https://fcm.googleapis.com` by default.
    #[serde(default = "fcm_default")]
    pub endpoint: String,
}

fn concurrency_default() -> usize {
    32
}

fn timeout_default() -> u64 {
    5_000
}

fn services_default() -> Vec<String> {
    let known = ["fcm.googleapis.com", "push.services.mozilla.com", "notify.windows.com", "push.apple.com"];
    known.map(str::to_owned).to_vec()
}

fn fcm_default() -> String {
    FCM.to_owned()
}

impl Config for PushServicesConfig {
    const TYPE: &'static str = "push_services";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
        if self.web_push.is_none() && self.fcm.is_none() {
            let help = "add `web_push:` (keys by `smartpulse vapid generate`) or `fcm:`";
            check.problem("", "no push service is named", Some(help.to_owned()));
        }
    }
}

#[async_trait]
impl ResourceConfig for PushServicesConfig {
    const KIND: &'static str = "push";

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        if self.loopback && cx.settings.environment != "development" {
            return Err(Error::fatal("`loopback` is for tests: it is refused outside of the environment development"));
        }
        let database: SharedDatabase = cx.resources.get(&self.database).await?;
        let delivery = database
            .delivery()
            .ok_or_else(|| Error::fatal(format!("the database {} keeps no devices", self.database)))?;
        let pusher: SharedPusher = Arc::new(self.pusher(delivery, system_lookup())?);
        Ok(Arc::new(pusher))
    }
}

impl PushServicesConfig {
    /// The pusher of these settings, with a resolver of names.
    ///
    /// # Errors
    /// Fatal when a key, an account or an address is none.
    pub fn pusher(&self, delivery: SharedDelivery, lookup: Lookup) -> Result<Pusher> {
        let mut known = self.web_push.as_ref().map(|web| web.services.clone()).unwrap_or_default();
        if let Some(fcm) = &self.fcm {
            known.extend(reqwest::Url::parse(&fcm.endpoint).ok().and_then(|url| url.host_str().map(str::to_owned)));
        }
        let timeout = Duration::from_millis(self.timeout_ms);
        let services = Arc::new(Services::new(Limits { concurrency: self.concurrency_per_service, timeout, known }));
        let reach = if self.loopback { Reach::Loopback } else { Reach::Public };
        let fcm = self.fcm.as_ref().map(|fcm| {
            let account = ServiceAccount::parse(fcm.service_account.expose())?;
            Fcm::new(&services, account, &fcm.endpoint, self.loopback)
        });
        let fcm = fcm.transpose()?;
        let web_push = self.web_push.as_ref().map(|web| {
            let vapid = Vapid::new(web.private_key.expose(), &web.contact)?;
            WebPush::new(Arc::clone(&services), vapid, lookup, reach)
        });
        Ok(Pusher::new(delivery, web_push.transpose()?, fcm))
    }
}
