//! Which path leads where, and who may go there.

use crate::auth::{Role, Verifier};
use crate::error::ApiError;
use crate::gate::{self, Gate};
use crate::measure::HttpMetrics;
use crate::policy::{Policy, Routes};
use crate::readiness::Readiness;
use crate::{batch, create, delete, health, list, panics, patch, read};
use axum::Router;
use axum::middleware::from_fn_with_state;
use http::{HeaderValue, Method};
use prometheus::Registry;
use smartpulse_cache::Cache;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_config::ApiSettings;
use smartpulse_pipeline::error::{Error, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

const VIEWER: Policy = Policy::AtLeast(Role::Viewer);
const EDITOR: Policy = Policy::AtLeast(Role::Editor);

/// The API of one instance.
pub struct Api {
    pub(crate) settings: ApiSettings,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    router: Router<Arc<Shared>>,
}

/// What an API works with.
#[derive(Clone)]
pub struct Parts {
    /// Where it reads and writes through.
    pub cache: Cache,
    /// What it pings.
    pub database: SharedDatabase,
    /// What it tells of itself.
    pub readiness: Arc<Readiness>,
    /// What `/metrics` tells of; where the API puts its own metrics. One API per registry.
    pub registry: Registry,
}

/// What handlers use.
pub(crate) struct Shared {
    pub parts: Parts,
    pub cache_control: HeaderValue,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
}

impl Api {
    /// An API for an environment.
    ///
    /// # Errors
    ///
    /// If the keys of tokens are missing, unreadable, or public knowledge outside development; if `cache_control` is
    /// no header value; if the registry has metrics of these names already.
    pub fn new(settings: ApiSettings, environment: &str, parts: Parts) -> Result<Self> {
        let cache_control = HeaderValue::from_str(&settings.cache_control)
            .map_err(|error| Error::fatal("api.cache_control is not a header value").because(error))?;
        let (router, policies) = routes().into_parts();
        let gate = Gate {
            policies,
            verifier: Verifier::new(&settings.auth, environment)?,
            concurrency: Semaphore::new(settings.concurrency_max),
            request_timeout: Duration::from_millis(settings.request_timeout_ms),
            metrics: HttpMetrics::new(&parts.registry)?,
        };
        // A body that takes longer than half of the request's time leaves too little to do something with it.
        let body_timeout = gate.request_timeout / 2;
        let body_bytes_max = settings.body_bytes_max;
        let shared = Shared { parts, cache_control, body_bytes_max, body_timeout };
        Ok(Self { settings, shared: Arc::new(shared), gate: Arc::new(gate), router })
    }

    /// The routes behind their gate. All routers of an API share its limits.
    pub fn router(&self) -> Router {
        self.guard(self.router.clone())
    }

    /// Who may call which route: method, path template, policy.
    pub fn policies(&self) -> Vec<(Method, &'static str, Policy)> {
        self.gate.policies.all()
    }

    fn guard(&self, router: Router<Arc<Shared>>) -> Router {
        router
            .fallback(|| async { ApiError::NotFound })
            .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
            .layer(CatchPanicLayer::custom(panics::panicked))
            .layer(from_fn_with_state(Arc::clone(&self.gate), gate::gate))
            .with_state(Arc::clone(&self.shared))
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
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
}
