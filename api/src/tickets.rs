//! Tickets for browsers, whose `EventSource` cannot send a bearer token: short-lived, and good for one stream.
//!
//! A ticket stands in a URL, and URLs end up in logs: one that was used, or is half a minute old, opens nothing. Tickets
//! are kept in memory: one is good at the instance that gave it.

use crate::auth::{Called, Caller};
use crate::error::ApiError;
use crate::router::Shared;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use moka::sync::Cache;
use serde_json::json;
use smartpulse_pipeline::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a ticket is good.
const GOOD: Duration = Duration::from_secs(30);

/// How many unused tickets there may be: some 20 MB.
const TICKETS_MAX: u64 = 100_000;

/// The unused tickets.
pub(crate) struct Tickets(Cache<String, Arc<Caller>>);

impl Tickets {
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(TICKETS_MAX).time_to_live(GOOD).build())
    }

    fn give(&self, caller: &Arc<Caller>) -> String {
        // 244 random bits, from the system's generator.
        let ticket = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.0.insert(ticket.clone(), Arc::clone(caller));
        ticket
    }

    /// The caller of a ticket, once.
    pub fn take(&self, ticket: &str) -> Option<Arc<Caller>> {
        // Of those who come at the same time one gets it; an old one is not got, removed or not.
        self.0.get(ticket)?;
        self.0.remove(ticket)
    }
}

/// `POST /api/tickets`
#[utoipa::path(
    post, path = "/api/tickets", operation_id = "createTicket",
    responses((status = 201, description = "Opens one stream within half a minute, as `?ticket=`.", body = crate::openapi::Ticket))
)]
pub(crate) async fn create(State(shared): State<Arc<Shared>>, called: Called) -> Result<Response, ApiError> {
    let ticket = shared.tickets.give(&called.0);
    let until = Timestamp::now().as_millis() + i64::try_from(GOOD.as_millis()).unwrap_or(i64::MAX);
    let body = json!({"ticket": ticket, "expiresAt": Timestamp::from_millis(until).to_string()});
    Ok((StatusCode::CREATED, Json(body)).into_response())
}
