//! Which path leads where, through which layers.

use crate::error::ApiError;
use crate::limits::{self, Limits};
use crate::measure::{self, HttpMetrics};
use crate::readiness::Readiness;
use crate::{forecasts, health, patch};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use http::HeaderValue;
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

/// The API of one instance.
pub struct Api {
    pub(crate) settings: ApiSettings,
    shared: Arc<Shared>,
    metrics: HttpMetrics,
}

/// What handlers use.
pub(crate) struct Shared {
    pub cache: Cache,
    pub database: SharedDatabase,
    pub readiness: Arc<Readiness>,
    pub registry: Registry,
    pub cache_control: HeaderValue,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
}

impl Api {
    /// An API that reads through `cache`, pings `database`, tells of `readiness` and of all that is in
    /// `registry`, where it puts its own metrics; one API per registry.
    ///
    /// # Errors
    ///
    /// If `cache_control` is no header value, or the registry has metrics of these names already.
    pub fn new(
        settings: ApiSettings,
        cache: Cache,
        database: SharedDatabase,
        readiness: Arc<Readiness>,
        registry: Registry,
    ) -> Result<Self> {
        let cache_control = HeaderValue::from_str(&settings.cache_control)
            .map_err(|error| Error::fatal("api.cache_control is not a header value").because(error))?;
        let metrics = HttpMetrics::new(&registry)?;
        // A body that takes longer than half of the request's time leaves too little to do something with it.
        let body_timeout = Duration::from_millis(settings.request_timeout_ms) / 2;
        let body_bytes_max = settings.body_bytes_max;
        let shared = Shared { cache, database, readiness, registry, cache_control, body_bytes_max, body_timeout };
        Ok(Self { settings, shared: Arc::new(shared), metrics })
    }

    /// The routes with their layers. A clone serves the same limits.
    pub fn router(&self) -> Router {
        let limits = Limits {
            concurrency: Arc::new(Semaphore::new(self.settings.concurrency_max)),
            request_timeout: Duration::from_millis(self.settings.request_timeout_ms),
        };
        let limited = Router::new()
            .route("/api/forecasts", get(forecasts::list).post(forecasts::create))
            .route("/api/forecasts/{id}", get(forecasts::read).patch(patch::patch).delete(forecasts::delete))
            .layer(from_fn_with_state(limits, limits::limit));
        let unlimited = Router::new()
            .route("/health", get(health::alive))
            .route("/health/ready", get(health::ready))
            .route("/metrics", get(health::metrics));
        limited
            .merge(unlimited)
            .fallback(|| async { ApiError::NotFound })
            .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
            .layer(CatchPanicLayer::custom(limits::panicked))
            .layer(from_fn_with_state(self.metrics.clone(), measure::measure))
            .with_state(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("settings", &self.settings).finish_non_exhaustive()
    }
}
