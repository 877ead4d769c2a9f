//! The gate in front of every route: who may pass, how many at a time, how often, for how long.
//!
//! One function and not a stack of layers: each layer would cost an allocation per request, and the order of the checks
//! is what matters. Cheap refusals come first, and nothing of a caller's is looked at before the caller is known.

use crate::auth::{Called, Refusal, Verifier};
use crate::changes::stream;
use crate::error::ApiError;
use crate::measure::HttpMetrics;
use crate::policy::{Policies, Policy};
use crate::rates::Rates;
use crate::router::Shared;
use crate::trace::Arrived;
use crate::{headers, validate};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

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

/// Judges, limits, counts and times a request.
pub(crate) async fn gate(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let traced = gate.shared.parts.tracer.as_ref().map(|tracer| (tracer, Arrived::now(request.headers())));
    let mut response = match gate.judge(path.as_ref(), &mut request).await {
        Ok(Pass::Open) => next.run(request).await,
        Ok(Pass::Place { _permit }) => match timeout(gate.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::Timeout.into_response(),
        },
        Err(refusal) => refusal.into_response(),
    };
    headers::finish(response.headers_mut());
    let path = path.as_ref().map(MatchedPath::as_str);
    gate.metrics.observe(&method, path, response.status(), began.elapsed());
    if let Some((tracer, arrived)) = traced {
        arrived.answered(tracer, &method, path, &response);
    }
    response
}

impl Gate {
    async fn judge(&self, path: Option<&MatchedPath>, request: &mut Request) -> Result<Pass<'_>, ApiError> {
        headers::check(request)?;
        // Nothing is at this path: there is nothing to guard.
        let Some(path) = path.map(MatchedPath::as_str) else { return Ok(Pass::Open) };
        let policy = match self.policies.of(path, request.method()) {
            Some(policy) => policy,
            // The router refuses the method.
            None if self.policies.knows(path) => return Ok(Pass::Open),
            None => {
                tracing::error!(path, "a route has no policy: nobody may pass");
                return Err(ApiError::Forbidden);
            }
        };
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
