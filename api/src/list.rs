//! `GET /api/forecasts`: a page, from L2 where it is held.
//!
//! L2 is the output cache of lists: it holds bodies, by the query that they answer, for at most a minute or until a
//! company or unit in them changes. Roles need no place in its key, because scope is made part of the query: who sees one company asks
//! for that company's list, and shares it with all who do; who sees several asks for the list of just these.

use crate::answer::Answer;
use crate::auth::{Called, Caller};
use crate::conditional::body_tag;
use crate::error::ApiError;
use crate::openapi::ForecastPage;
use crate::router::Shared;
use crate::validate;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use smartpulse_clients::database::ForecastQuery;
use std::sync::Arc;

/// `GET /api/forecasts`
#[utoipa::path(
    get, path = "/api/forecasts", operation_id = "listForecasts",
    params(
        ("companyId" = Option<Uuid>, Query, description = "Only this company's."),
        ("productionUnitId" = Option<Uuid>, Query, description = "Only this unit's."),
        ("from" = Option<String>, Query, format = DateTime, description = "Only with `forecastDate` at or after it."),
        ("to" = Option<String>, Query, format = DateTime, description = "Only with `forecastDate` before it."),
        ("skip" = Option<u32>, Query, minimum = 0, maximum = 4294967295u32, description = "How many to pass over."),
        ("take" = Option<u32>, Query, minimum = 1, maximum = 500, description = "How many to give at most; 20 by default."),
        ("If-None-Match" = Option<String>, Header, description = "A tag that the caller has: then 304, without a body.")
    ),
    responses(
        (status = 200, description = "A page, newest first.", body = ForecastPage),
        (status = 304, description = "The caller has it."),
        (status = 400, description = "Parameters that cannot be.")
    )
)]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    called: Called,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|_| ApiError::field("query", "is not readable"))?;
    let query = validate::query(&parameters).map_err(ApiError::Validation)?;
    let hit = shared.parts.cache.list(scoped(query, &called)).await?;
    let answer = Answer { body: hit.body, tag: body_tag(hit.etag), level: hit.level, stale: hit.stale };
    Ok(answer.into_response(&shared, &headers))
}

/// What of a query the caller may see. Of another company it gets what a company without forecasts has: nothing.
fn scoped(query: ForecastQuery, caller: &Caller) -> ForecastQuery {
    let companies = match query.companies {
        all if caller.sees_all() => all,
        Some(asked) if asked.iter().all(|company| caller.sees(company)) => Some(asked),
        Some(_) => Some([].into()),
        None => Some(Arc::clone(&caller.companies)),
    };
    ForecastQuery { companies, ..query }
}
