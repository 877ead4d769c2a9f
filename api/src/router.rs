//! Which path leads where, and who may go there.

use crate::auth::{Role, Verifier};
use crate::changes::{Feed, stream};
use crate::gate::{Gate, Guarded};
use crate::inbox_stream::{self, Inboxes};
use crate::measure::HttpMetrics;
use crate::openapi::{self, Description};
use crate::policy::{Policy, Routes};
use crate::rates::Rates;
use crate::readiness::Readiness;
use crate::tickets::{self, Tickets};
use crate::{batch, cors, create, delete, deliveries, devices, health, inbox, list, patch, preferences, push, read};
use axum::Router;
use http::{HeaderValue, Method};
use prometheus::Registry;
use smartpulse_cache::Cache;
use smartpulse_clients::bus::SharedBus;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::pubsub::SharedPubSub;
use smartpulse_clients::push::SharedPush;
use smartpulse_clients::unsubscribe::Unsubscribe;
use smartpulse_config::ApiSettings;
use smartpulse_pipeline::Tracer;
use smartpulse_pipeline::error::{Error, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tower::Layer;
use tower::util::Either;
use tower_http::cors::{Cors, CorsLayer};

const VIEWER: Policy = Policy::AtLeast(Role::Viewer);
const EDITOR: Policy = Policy::AtLeast(Role::Editor);
const ADMIN: Policy = Policy::AtLeast(Role::Admin);

/// The API of one instance.
pub struct Api {
    pub(crate) settings: ApiSettings,
    pub(crate) shared: Arc<Shared>,
    gate: Arc<Gate>,
    cors: Option<CorsLayer>,
    router: Router<Arc<Shared>>,
}

/// An API as a service, perhaps with answers to what browsers ask before they ask.
pub type Served = Either<Cors<Guarded>, Guarded>;

/// What an API works with.
#[derive(Clone)]
pub struct Parts {
    /// Where it reads and writes through.
    pub cache: Cache,
    /// What it pings, and reads whole lists for streams from.
    pub database: SharedDatabase,
    /// Where it hears of changes; without one, there are no streams.
    pub bus: Option<SharedBus>,
    /// Where it hears of new notifications; without one, open inboxes notice them some seconds later.
    pub pubsub: Option<SharedPubSub>,
    /// Who tells devices, if anybody.
    pub push: Option<SharedPush>,
    /// What reads the links of mails, if they have any.
    pub unsubscribe: Option<Arc<Unsubscribe>>,
    /// What the installation's messages belong to.
    pub partition: String,
    /// What it tells of itself.
    pub readiness: Arc<Readiness>,
    /// What `/metrics` tells of; where the API puts its own metrics. One API per registry.
    pub registry: Registry,
    /// Where its spans go, if anywhere.
    pub tracer: Option<Tracer>,
}

/// What handlers use.
pub(crate) struct Shared {
    pub parts: Parts,
    pub cache_control: HeaderValue,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub feed: Arc<Feed>,
    pub inboxes: Inboxes,
    pub tickets: Tickets,
    pub description: Description,
}

impl Api {
    /// An API for an environment.
    ///
    /// # Errors
    ///
    /// If the keys of tokens are missing, unreadable, or public knowledge outside development; if `cache_control` is
    /// no header value or a CORS origin no origin; if the registry has metrics of these names already.
    pub fn new(settings: ApiSettings, environment: &str, parts: Parts) -> Result<Self> {
        let cache_control = HeaderValue::from_str(&settings.cache_control)
            .map_err(|error| Error::fatal("api.cache_control is not a header value").because(error))?;
        let (router, policies) = routes().into_parts();
        let verifier = Verifier::new(&settings.auth, environment)?;
        let cors = cors::layer(&settings.cors_origins, policies.methods())?;
        let metrics = HttpMetrics::new(&parts.registry)?;
        let request_timeout = Duration::from_millis(settings.request_timeout_ms);
        let (database, readiness) = (Arc::clone(&parts.database), Arc::clone(&parts.readiness));
        let feed =
            Feed::new(&settings.streams, &parts.partition, database, readiness, metrics.clone(), &parts.registry)?;
        let shared = Arc::new(Shared {
            parts,
            cache_control,
            body_bytes_max: settings.body_bytes_max,
            // A body that takes longer than half of the request's time leaves too little to do something with it.
            body_timeout: request_timeout / 2,
            feed: Arc::new(feed),
            inboxes: Inboxes::default(),
            tickets: Tickets::new(),
            description: Description::of(&policies),
        });
        let gate = Arc::new(Gate {
            policies,
            verifier,
            concurrency: Semaphore::new(settings.concurrency_max),
            rates: Rates::new(&settings.rate_limit),
            request_timeout,
            metrics,
            shared: Arc::clone(&shared),
        });
        Ok(Self { settings, shared, gate, cors, router })
    }

    /// The API as a service. All of an API's share its limits.
    pub fn service(&self) -> Served {
        self.guard(self.router.clone())
    }

    /// Who may call which route: method, path template, policy.
    pub fn policies(&self) -> Vec<(Method, &'static str, Policy)> {
        self.gate.policies.all()
    }

    /// Hears of changes and notifications from now on, until `stop` is told or dropped; then all streams end.
    pub(crate) async fn feed(&self, stop: watch::Receiver<bool>) {
        let parts = &self.shared.parts;
        let changes = async {
            if let Some(bus) = parts.bus.clone() {
                Arc::clone(&self.shared.feed).run(bus, stop.clone()).await;
            }
        };
        let notifications = async {
            if let Some(pubsub) = parts.pubsub.clone() {
                self.shared.inboxes.run(pubsub, &parts.partition, stop.clone()).await;
            }
        };
        tokio::join!(changes, notifications);
    }

    /// Ends all streams.
    pub(crate) fn end_streams(&self) {
        self.shared.feed.end();
    }

    fn guard(&self, router: Router<Arc<Shared>>) -> Served {
        let guarded = Guarded::new(Arc::clone(&self.gate), router.with_state(Arc::clone(&self.shared)));
        // Outermost: a browser asks whether it may ask, without a token.
        match &self.cors {
            Some(cors) => Either::Left(cors.layer(guarded)),
            None => Either::Right(guarded),
        }
    }
}

fn routes() -> Routes {
    Routes::new()
        .on(Method::GET, "/api/forecasts", VIEWER, list::list)
        .on(Method::POST, "/api/forecasts", EDITOR, create::create)
        .on(Method::POST, "/api/forecasts/query", VIEWER, batch::query)
        .on(Method::GET, "/api/forecasts/{id}", VIEWER, read::read)
        .on(Method::PATCH, "/api/forecasts/{id}", EDITOR, patch::patch)
        .on(Method::DELETE, "/api/forecasts/{id}", EDITOR, delete::delete)
        .on(Method::GET, "/api/forecasts/{id}/changes", Policy::Stream, stream::of_forecast)
        .on(Method::GET, "/api/changes", Policy::Stream, stream::of_company)
        .on(Method::POST, "/api/tickets", VIEWER, tickets::create)
        .on(Method::GET, "/api/notifications", VIEWER, inbox::list)
        .on(Method::GET, "/api/notifications/unread-count", VIEWER, inbox::unread)
        .on(Method::GET, "/api/notifications/stream", Policy::Stream, inbox_stream::open)
        .on(Method::GET, "/api/notifications/deliveries", ADMIN, deliveries::list)
        .on(Method::PUT, "/api/notifications/{id}/read", VIEWER, inbox::read)
        .on(Method::GET, "/api/notification-preferences", VIEWER, preferences::read)
        .on(Method::PUT, "/api/notification-preferences", VIEWER, preferences::change)
        .on(Method::GET, "/api/devices", VIEWER, devices::list)
        .on(Method::POST, "/api/devices", VIEWER, devices::register)
        .on(Method::DELETE, "/api/devices/{id}", VIEWER, devices::remove)
        .on(Method::GET, "/api/push/public-key", VIEWER, push::public_key)
        .on(Method::POST, "/api/send-push-notification", EDITOR, push::send)
        .on(Method::GET, "/unsubscribe", Policy::Open, preferences::ask)
        .on(Method::POST, "/unsubscribe", Policy::Open, preferences::unsubscribe)
        .on(Method::GET, "/openapi.json", Policy::Open, openapi::openapi_json)
        .on(Method::GET, "/docs", Policy::Open, openapi::docs)
        .on(Method::GET, "/health", Policy::Open, health::alive)
        .on(Method::GET, "/health/ready", Policy::Open, health::ready)
        .on(Method::GET, "/metrics", Policy::Open, health::metrics)
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing;
    use axum::body::Body;
    use axum::routing::get;
    use http::{Request, StatusCode};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_route_without_a_policy_lets_nobody_pass() {
        let api = testing::api();
        let router = api.router.clone().route("/api/new", get(|| async { "secret" }));
        let token = testing::admin_token(&api.settings.auth);
        let request = Request::get("/api/new").header("authorization", format!("Bearer {token}"));
        let response = api.guard(router).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
}
