//! `GET /api/forecasts`: a page, from L2 where it is held.
//!
//! L2 is the output cache of lists: it holds bodies, by the query that they answer, for at most a minute or until a
//! company or unit in them changes. Roles need no place in its key, because scope is made part of the query: who sees one company asks
//! for that company's list, and shares it with all who do. Who sees several gets theirs put together.

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
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use smartpulse_cache::{Level, ListHit};
use smartpulse_clients::database::ForecastQuery;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// How deep a caller of several companies may page without naming one: so many of each are read for a page.
const MERGED_MAX: u32 = 5_000;

/// `GET /api/forecasts`
#[utoipa::path(
    get, path = "/api/forecasts", operation_id = "listForecasts",
    params(
        ("companyId" = Option<Uuid>, Query, description = "Only this company's."),
        ("productionUnitId" = Option<Uuid>, Query, description = "Only this unit's."),
        ("from" = Option<String>, Query, format = DateTime, description = "Only with `forecastDate` at or after it."),
        ("to" = Option<String>, Query, format = DateTime, description = "Only with `forecastDate` before it."),
        ("skip" = Option<u32>, Query, minimum = 0, maximum = 4294967295u32, description = "How many to pass over. Who sees several companies names one beyond 5,000."),
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
    let hit = match scope(&called, &query)? {
        Scope::Whole => shared.parts.cache.list(query).await?,
        Scope::Company(company) => {
            shared.parts.cache.list(ForecastQuery { company_id: Some(company), ..query }).await?
        }
        Scope::Nothing => nothing(),
        Scope::Companies => together(&shared, &called, query).await?,
    };
    let answer = Answer { body: hit.body, tag: body_tag(hit.etag), level: hit.level, stale: hit.stale };
    Ok(answer.into_response(&shared, &headers))
}

/// What of a query the caller may see.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    /// All that it asks for.
    Whole,
    /// Its one company's.
    Company(String),
    /// Its companies'.
    Companies,
    /// Nothing: as if the company it asks for had no forecasts.
    Nothing,
}

fn scope(caller: &Caller, query: &ForecastQuery) -> Result<Scope, ApiError> {
    if caller.sees_all() {
        return Ok(Scope::Whole);
    }
    Ok(match (&query.company_id, &caller.companies[..]) {
        (Some(company), _) if caller.sees(company) => Scope::Whole,
        (Some(_), _) | (None, []) => Scope::Nothing,
        (None, [only]) => Scope::Company(only.to_string()),
        (None, _) if query.skip.saturating_add(query.take) > MERGED_MAX => {
            return Err(ApiError::field("companyId", format!("is required beyond the first {MERGED_MAX} forecasts")));
        }
        (None, _) => Scope::Companies,
    })
}

fn nothing() -> ListHit {
    render(0, std::iter::empty(), Level::L2, false)
}

/// The page of all of the caller's companies: the first of each, merged in the order of lists.
async fn together(shared: &Shared, caller: &Caller, query: ForecastQuery) -> Result<ListHit, ApiError> {
    let (skip, take) = (query.skip as usize, query.take as usize);
    let (mut level, mut stale) = (Level::L2, false);
    let mut bodies = Vec::with_capacity(caller.companies.len());
    for company in &caller.companies {
        let of_one = ForecastQuery {
            company_id: Some(company.to_string()),
            skip: 0,
            take: query.skip + query.take,
            ..query.clone()
        };
        let hit = shared.parts.cache.list(of_one).await?;
        stale |= hit.stale;
        if hit.level == Level::L4 {
            level = Level::L4;
        }
        bodies.push(hit.body);
    }
    let mut total = 0;
    let mut items = Vec::new();
    for body in &bodies {
        let page: Page<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        total += page.total;
        for item in page.items {
            let place: Place<'_> = serde_json::from_str(item.get()).map_err(|error| unreadable(&error))?;
            items.push((place, item));
        }
    }
    items.sort_by(|(a, _), (b, _)| b.forecast_date.cmp(&a.forecast_date).then(a.id.cmp(b.id)));
    Ok(render(total, items.into_iter().skip(skip).take(take).map(|(_, item)| item.get()), level, stale))
}

/// A page as L2 holds it.
#[derive(Deserialize)]
struct Page<'a> {
    total: u64,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// Where a forecast stands in a list. Times have one spelling, whose order is that of time.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place<'a> {
    id: &'a str,
    #[serde(default)]
    forecast_date: Option<&'a str>,
}

fn unreadable(error: &serde_json::Error) -> ApiError {
    tracing::error!(%error, "an unreadable page is held");
    ApiError::Internal
}

fn render<'a>(total: u64, items: impl Iterator<Item = &'a str>, level: Level, stale: bool) -> ListHit {
    let mut body = format!("{{\"total\":{total},\"items\":[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(item);
    }
    body.push_str("]}");
    let etag = xxh3_64(body.as_bytes());
    ListHit { body: Bytes::from(body), etag, level, stale }
}
