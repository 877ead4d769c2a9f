//! How many requests there are, and how long they take.

use crate::auth::Refusal;
use http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use smartpulse_pipeline::error::{Error, Result};
use std::time::Duration;

/// From a hit in L1 (well below 1 ms) to the longest that a request may take.
const DURATION_SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// The counters of the API. Labels are bounded: known methods, status codes, route templates.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    shed: IntCounterVec,
    tokens_refused: IntCounterVec,
}

impl HttpMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let refused = |error| Error::fatal("the api's metrics could not be registered").because(error);
        let requests = IntCounterVec::new(Opts::new("http_requests_total", "Requests answered"), &["method", "status"])
            .map_err(refused)?;
        let options = HistogramOpts::new("http_request_duration_seconds", "From request to answer, by route")
            .buckets(DURATION_SECONDS.to_vec());
        let seconds = HistogramVec::new(options, &["method", "path"]).map_err(refused)?;
        let by =
            |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]).map_err(refused);
        let shed = by("http_requests_shed_total", "Requests refused for load, by limit", "limit")?;
        let tokens_refused = by("api_tokens_refused_total", "Bearer tokens refused, by reason", "reason")?;
        registry.register(Box::new(requests.clone())).map_err(refused)?;
        registry.register(Box::new(seconds.clone())).map_err(refused)?;
        for family in [&shed, &tokens_refused] {
            registry.register(Box::new(family.clone())).map_err(refused)?;
        }
        Ok(Self { requests, seconds, shed, tokens_refused })
    }

    /// A request was answered. `path` is a route's template.
    pub(crate) fn observe(&self, verb: &Method, path: Option<&str>, status: StatusCode, took: Duration) {
        let verb = method(verb);
        self.requests.with_label_values(&[verb, status.as_str()]).inc();
        self.seconds.with_label_values(&[verb, path.unwrap_or("unmatched")]).observe(took.as_secs_f64());
    }

    /// A request was refused for load.
    pub(crate) fn shed(&self, limit: &str) {
        self.shed.with_label_values(&[limit]).inc();
    }

    /// A token was refused.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.tokens_refused.with_label_values(&[refusal.as_str()]).inc();
    }
}

/// Callers may invent methods; labels may not.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
