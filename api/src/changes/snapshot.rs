//! Whole documents for who has none, or too old ones: read from the database once for all who ask at about the time.
//!
//! The place in the log is taken before the database is read, so that what is read is at least as new as everything
//! before that place. What comes after it in the log and was read already is recognised by its version.

use super::Feed;
use super::entry::whole_frame;
use crate::error::ApiError;
use bytes::Bytes;
use smartpulse_clients::database::{ForecastQuery, Row};
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How many documents a page has; one overlaps with the page before.
const PAGE_ROWS: u32 = 500;

/// The most documents that a stream begins with: some 50 MB. Who wants more asks company by company.
const DOCUMENTS_MAX: u64 = 50_000;

/// How often the pages are read again because rows came or went between them.
const ATTEMPTS: usize = 5;

/// How long a snapshot is given to others who ask.
const SHARED: Duration = Duration::from_secs(2);

/// The longest that the database may take for a page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose documents a snapshot has: `None` for all companies', which is not the same as those of no company.
pub(super) type Scope = Option<Box<[Box<str>]>>;

/// The documents of some companies.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The place in the log that they are at least as new as.
    pub place: u64,
    pub frames: Vec<Bytes>,
    pub versions: HashMap<Key, i64>,
}

/// A snapshot that is being taken, or was a short while ago.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    since: Instant,
    cell: Arc<OnceCell<Arc<Snapshot>>>,
}

impl Feed {
    /// The documents of these companies; with `None`, all there are.
    ///
    /// # Errors
    ///
    /// If there are too many, or the database does not answer.
    pub(super) async fn snapshot(&self, companies: Option<&[Box<str>]>) -> Result<Arc<Snapshot>, ApiError> {
        let scope: Scope = companies.map(Box::from);
        let shared = {
            let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            snapshots.retain(|_, shared| shared.since.elapsed() < SHARED);
            let new = || Shared { since: Instant::now(), cell: Arc::default() };
            snapshots.entry(scope).or_insert_with(new).clone()
        };
        shared.cell.get_or_try_init(|| self.take_snapshot(companies)).await.cloned()
    }

    async fn take_snapshot(&self, companies: Option<&[Box<str>]>) -> Result<Arc<Snapshot>, ApiError> {
        let place = self.log.head();
        let mut rows = Vec::new();
        match companies {
            None => rows = self.pages(None).await?,
            Some(companies) => {
                for company in companies {
                    rows.extend(self.pages(Some(company)).await?);
                    if rows.len() as u64 > DOCUMENTS_MAX {
                        return Err(too_many());
                    }
                }
            }
        }
        let cursor = self.log.cursor(place);
        let last = rows.len().saturating_sub(1);
        let mut frames = Vec::with_capacity(rows.len());
        let mut versions = HashMap::with_capacity(rows.len());
        for (index, row) in rows.into_iter().enumerate() {
            let document = Document::parse(row.document).map_err(|error| {
                tracing::error!(%error, key = %row.key, "the database gave an unreadable document");
                ApiError::Internal
            })?;
            // Who breaks off before the last one has to begin again.
            let cursor = cursor.as_deref().filter(|_| index == last);
            frames.push(whole_frame(&self.source, &row.key, row.version, &document, cursor));
            versions.insert(row.key, row.version);
        }
        Ok(Arc::new(Snapshot { place, frames, versions }))
    }

    /// All rows of a company. A page begins with the last row of the page before: where it does not, rows have moved
    /// from page to page, and all are read again.
    async fn pages(&self, company: Option<&str>) -> Result<Vec<Row>, ApiError> {
        'again: for _ in 0..ATTEMPTS {
            let mut rows: Vec<Row> = Vec::new();
            loop {
                let skip = u32::try_from(rows.len().saturating_sub(1)).unwrap_or(u32::MAX);
                let query = ForecastQuery {
                    company_id: company.map(str::to_owned),
                    skip,
                    take: PAGE_ROWS,
                    ..ForecastQuery::default()
                };
                let page = match timeout(PAGE_TIMEOUT, self.database.list_forecasts(&query)).await {
                    Ok(page) => page?,
                    Err(_) => return Err(ApiError::DatabaseUnavailable),
                };
                if page.total > DOCUMENTS_MAX {
                    return Err(too_many());
                }
                let full = page.rows.len() == PAGE_ROWS as usize;
                let mut next = page.rows.into_iter();
                if let Some(last) = rows.last()
                    && next.next().is_none_or(|row| row.key != last.key)
                {
                    continue 'again;
                }
                rows.extend(next);
                if !full {
                    rows.retain(|row| row.unreadable.is_none());
                    return Ok(rows);
                }
            }
        }
        Err(ApiError::Conflict("the forecasts change too fast to be listed as a whole".to_owned()))
    }
}

fn too_many() -> ApiError {
    ApiError::field("companyId", format!("is required: there are more than {DOCUMENTS_MAX} forecasts"))
}
