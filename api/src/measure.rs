//! How many requests there are, and how long they take.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use smartpulse_pipeline::error::{Error, Result};
use std::time::Instant;

/// From a hit in L1 (well below 1 ms) to the longest that a request may take.
const DURATION_SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// The counters of the API. Labels are bounded: known methods, status codes, route templates.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl HttpMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let refused = |error| Error::fatal("the api's metrics could not be registered").because(error);
        let requests = IntCounterVec::new(Opts::new("http_requests_total", "Requests answered"), &["method", "status"])
            .map_err(refused)?;
        let options = HistogramOpts::new("http_request_duration_seconds", "From request to answer, by route")
            .buckets(DURATION_SECONDS.to_vec());
        let seconds = HistogramVec::new(options, &["method", "path"]).map_err(refused)?;
        registry.register(Box::new(requests.clone())).map_err(refused)?;
        registry.register(Box::new(seconds.clone())).map_err(refused)?;
        Ok(Self { requests, seconds })
    }
}

/// Counts and times a request.
pub(crate) async fn measure(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = method(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let path = path.as_ref().map_or("unmatched", MatchedPath::as_str);
    metrics.requests.with_label_values(&[method, response.status().as_str()]).inc();
    metrics.seconds.with_label_values(&[method, path]).observe(start.elapsed().as_secs_f64());
    response
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
