//! The gate in front of every route: who may pass, how many at a time, how often, for how long.
//!
//! One service and not a stack of the router's layers: each of those costs several allocations per request
//! (`benches/api.rs`), and the order of the checks is what matters. Cheap refusals come first, and nothing of a caller's is
//! looked at before the caller is known.

use crate::auth::{Called, Refusal, Verifier};
use crate::changes::stream;
use crate::error::ApiError;
use crate::measure::HttpMetrics;
use crate::panics;
use crate::policy::{Place, Policies, Policy};
use crate::rates::Rates;
use crate::router::Shared;
use crate::trace::Arrived;
use crate::{headers, validate};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tower::{BoxError, Layer, Service};
use tower_http::compression::predicate::{And, NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{Compression, CompressionLayer};

/// Below it, a compressed body is hardly shorter, and a forecast takes longer to compress than to answer.
const COMPRESSED_BYTES_MIN: u64 = 1_024;

/// What the gate knows. One per server: a limit per connection would be none.
pub(crate) struct Gate {
    pub policies: Policies,
    pub verifier: Verifier,
    pub concurrency: Semaphore,
    pub rates: Rates,
    pub request_timeout: Duration,
    pub metrics: HttpMetrics,
    pub shared: Arc<Shared>,
}

/// What lets a request pass.
enum Pass<'a> {
    /// Nothing holds it up.
    Open,
    /// A place among the requests under way, for a bounded time. A stream gives it back when it begins.
    Place { _permit: SemaphorePermit<'a> },
}

/// What is not compressed: streams, and what is short.
type WorthIt = And<SizeAbove, NotForContentType>;

/// The routes behind their gate. Clones share its limits.
#[derive(Clone)]
pub struct Guarded {
    gate: Arc<Gate>,
    routes: Compression<Router, WorthIt>,
}

impl Guarded {
    pub(crate) fn new(gate: Arc<Gate>, routes: Router) -> Self {
        let worth_it = SizeAbove::new(COMPRESSED_BYTES_MIN).and(NotForContentType::const_new("text/event-stream"));
        Self { gate, routes: CompressionLayer::new().compress_when(worth_it).layer(routes) }
    }

    /// Judges, limits, counts and times a request.
    async fn answer(self, mut request: Request) -> Response {
        let Self { gate, routes } = self;
        let began = Instant::now();
        let method = request.method().clone();
        let place = gate.policies.at(request.uri().path());
        let traced = gate.shared.parts.tracer.as_ref().map(|tracer| (tracer, Arrived::now(request.headers())));
        let mut response = match gate.judge(place, &mut request).await {
            Ok(Pass::Open) => handled(routes, request).await,
            Ok(Pass::Place { _permit }) => match timeout(gate.request_timeout, handled(routes, request)).await {
                Ok(response) => response,
                Err(_) => ApiError::Timeout.into_response(),
            },
            Err(refusal) => refusal.into_response(),
        };
        headers::finish(response.headers_mut());
        let path = place.map(|place| place.template);
        gate.metrics.observe(&method, path, response.status(), began.elapsed());
        if let Some((tracer, arrived)) = traced {
            arrived.answered(tracer, &method, path, &response);
        }
        response
    }
}

/// The answer of a handler, whatever becomes of it.
async fn handled(mut routes: Compression<Router, WorthIt>, request: Request) -> Response {
    match panics::caught(async move { routes.call(request).await }).await {
        Ok(Ok(response)) => response.map(Body::new),
        Ok(Err(never)) => match never {},
        Err(panicked) => panicked,
    }
}

impl<B> Service<http::Request<B>> for Guarded
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.clone().answer(request.map(Body::new)).map(Ok).boxed()
    }
}

impl Gate {
    async fn judge(&self, place: Option<&Place>, request: &mut Request) -> Result<Pass<'_>, ApiError> {
        headers::check(request)?;
        let place = place.ok_or(ApiError::NotFound)?;
        let policy = place.policy(request.method());
        let policy = policy.ok_or_else(|| ApiError::MethodNotAllowed(place.allowed()))?;
        if policy == Policy::Open {
            return Ok(Pass::Open);
        }
        let called = match policy {
            Policy::Stream if !request.headers().contains_key(AUTHORIZATION) => self.ticketed(request.uri()),
            _ => self.called(request.headers()).await,
        };
        let called = called.map_err(|refusal| {
            self.metrics.refused(refusal);
            ApiError::Unauthorized
        })?;
        self.rates.count(called.user).map_err(|wait| {
            self.metrics.shed("rate");
            ApiError::TooManyRequests(wait)
        })?;
        if let Policy::AtLeast(role) = policy
            && called.role < role
        {
            return Err(ApiError::Forbidden);
        }
        if policy == Policy::Stream {
            stream::caught_up(&self.shared).await?;
        }
        request.extensions_mut().insert(called);
        // Places are for those who are known and need not wait. A request that waits in line uses memory and helps nobody.
        let Ok(permit) = self.concurrency.try_acquire() else {
            self.metrics.shed("concurrency");
            return Err(ApiError::Overloaded);
        };
        Ok(Pass::Place { _permit: permit })
    }

    async fn called(&self, headers: &HeaderMap) -> Result<Called, Refusal> {
        let token = bearer(headers)?;
        let caller = match self.verifier.remembered(token) {
            Some(remembered) => remembered?,
            None => self.verifier.check(token).await?,
        };
        Ok(Called(caller))
    }

    fn ticketed(&self, uri: &Uri) -> Result<Called, Refusal> {
        let ticket = validate::parameter(uri.query().unwrap_or_default(), "ticket").ok_or(Refusal::Missing)?;
        self.shared.tickets.take(ticket).map(Called).ok_or(Refusal::Ticket)
    }
}

/// The token of the one `Authorization: Bearer` header (RFC 6750 section 2.1). Two of them are nobody's.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    if values.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refusal::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(Refusal::Malformed) }
}
