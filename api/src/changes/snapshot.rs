//! Whole documents for who has none, or too old ones: read from the database once for all who ask at about the time.
//!
//! The place in the log is taken before the database is read, so that what is read is at least as new as everything
//! before that place. What comes after it in the log and was read already is recognised by its version, until nothing of
//! the kind can come any more: only then may clients resume, since who resumes has no versions.

use super::entry::{Entry, company, whole_frame};
use super::{Audience, Feed, Scope, TABLE};
use crate::error::ApiError;
use bytes::Bytes;
use smartpulse_clients::database::{ForecastQuery, Row};
use smartpulse_json::Document;
use smartpulse_pipeline::error::Error;
use smartpulse_pipeline::{Key, Timestamp};
use std::collections::HashMap;
use std::future::Future;
use std::slice;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tokio::time::{sleep, timeout};

/// How many documents a page has; one overlaps with the page before.
const PAGE_ROWS: u32 = 500;

/// The most documents that a stream begins with: some 50 MB. Who wants more asks company by company.
const DOCUMENTS_MAX: u64 = 50_000;

/// What all snapshots that are being sent may take in memory, in KiB: as much as some four of the largest. Beyond it
/// streams that would need another one are refused.
pub(super) const SNAPSHOTS_KIB_MAX: usize = 256 << 10;

/// What a frame takes beyond its document, and what is remembered of a version.
const FRAME_BYTES: usize = 300;
const VERSION_BYTES: usize = 120;

/// How often the pages are read again because rows came or went between them.
const ATTEMPTS: usize = 5;

/// How long a snapshot is given to others who ask.
const SHARED: Duration = Duration::from_secs(2);

/// The longest that the database may take for a page.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How far the clock of a database may be ahead of ours.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// The documents of a scope. Clones share them.
#[derive(Clone)]
pub(super) struct Snapshot {
    /// The place in the log that they are at least as new as.
    pub place: u64,
    pub frames: Arc<Frames>,
    pub told: Arc<Told>,
}

/// The documents as they are sent: to be let go of when they are.
pub(super) struct Frames {
    pub all: Vec<Bytes>,
    _room: OwnedSemaphorePermit,
}

/// Which versions were told, for as long as one of them may come again.
pub(super) struct Told {
    versions: HashMap<Key, Version>,
    /// When the last of them was read.
    read: Timestamp,
    _room: OwnedSemaphorePermit,
}

/// A version that was told.
struct Version {
    number: i64,
    /// Whether it was in the page that was read last.
    last: bool,
}

impl Told {
    /// Whether some version of it was told. One that moved from company to company between their pages was not.
    pub fn has(&self, key: &Key) -> bool {
        self.versions.contains_key(key)
    }

    /// Whether this was told, or a later version.
    pub fn knows(&self, entry: &Entry) -> bool {
        self.versions.get(&entry.key).is_some_and(|version| entry.version <= version.number)
    }

    /// Whether nothing that was told can come after this entry: it was committed when all was read. The log has the order
    /// of commits. That it is a newer version than one of the last page proves it, or its time does.
    pub fn is_settled_by(&self, entry: &Entry) -> bool {
        self.versions.is_empty()
            || self.versions.get(&entry.key).is_some_and(|version| version.last && entry.version > version.number)
            || u128::from(entry.time.millis_since(self.read)) > CLOCKS_APART.as_millis()
    }
}

/// A snapshot that is being taken, or was a short while ago.
pub(super) struct Taking {
    place: u64,
    cell: OnceCell<Snapshot>,
}

/// What was read.
struct Rows {
    rows: Vec<Row>,
    /// From here on, it was read last.
    last: usize,
    room: OwnedSemaphorePermit,
}

impl Feed {
    /// The documents of a scope.
    ///
    /// # Errors
    ///
    /// If there are too many, there is no room for them, or the database does not answer.
    pub(super) async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, ApiError> {
        let taking = self.taking(scope);
        let take = async || {
            let snapshot = self.take_snapshot(scope, taking.place).await?;
            let shared = Arc::clone(&taking);
            tokio::spawn(async move {
                sleep(SHARED).await;
                drop(shared);
            });
            Ok(snapshot)
        };
        taking.cell.get_or_try_init(take).await.cloned()
    }

    /// The snapshot of that scope that others take already, unless the log has left it behind; or a new one.
    pub(super) fn taking(&self, scope: &Scope) -> Arc<Taking> {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.retain(|_, taking| taking.strong_count() > 0);
        let shared = snapshots.get(scope).and_then(Weak::upgrade);
        shared.filter(|taking| taking.place >= self.log.start()).unwrap_or_else(|| {
            let taking = Arc::new(Taking { place: self.log.head(), cell: OnceCell::new() });
            snapshots.insert(scope.clone(), Arc::downgrade(&taking));
            taking
        })
    }

    async fn take_snapshot(&self, scope: &Scope, place: u64) -> Result<Snapshot, ApiError> {
        let read = self.rows(scope).await?;
        let time = Timestamp::now();
        let told_room = self.room(read.rows.len() * VERSION_BYTES)?;
        let mut frames = Vec::with_capacity(read.rows.len());
        let mut versions = HashMap::with_capacity(read.rows.len());
        for (index, row) in read.rows.into_iter().enumerate().filter(|(_, row)| row.unreadable.is_none()) {
            let document = Document::parse(row.document).map_err(|error| {
                tracing::error!(%error, key = %row.key, "the database gave an unreadable document");
                ApiError::Internal
            })?;
            let company = company(&document);
            self.learn(&row.key, row.version, company.clone());
            // A forecast that is asked for by its id may be anybody's.
            if scope.key.is_some() && !scope.audience.sees(company.as_deref()) {
                continue;
            }
            frames.push(whole_frame(&self.source, &row.key, row.version, &document));
            versions.insert(row.key, Version { number: row.version, last: index >= read.last });
        }
        Ok(Snapshot {
            place,
            frames: Arc::new(Frames { all: frames, _room: read.room }),
            told: Arc::new(Told { versions, read: time, _room: told_room }),
        })
    }

    async fn rows(&self, scope: &Scope) -> Result<Rows, ApiError> {
        let mut read = Rows { rows: Vec::new(), last: 0, room: self.room(0)? };
        match (&scope.key, &scope.audience) {
            (Some(key), _) => {
                let rows = asked(self.database.get(TABLE, slice::from_ref(key))).await?;
                self.keep(&mut read, rows)?;
            }
            (None, Audience::All) => self.pages(scope, None, &mut read).await?,
            (None, Audience::Companies(companies)) => {
                for company in companies {
                    self.pages(scope, Some(company), &mut read).await?;
                }
            }
        }
        Ok(read)
    }

    /// All rows of a company. A page begins with the last row of the page before: where it does not, rows have moved
    /// from page to page, and all are read again.
    async fn pages(&self, scope: &Scope, company: Option<&str>, read: &mut Rows) -> Result<(), ApiError> {
        let others = read.rows.len();
        'again: for _ in 0..ATTEMPTS {
            read.rows.truncate(others);
            loop {
                read.last = (read.rows.len().saturating_sub(1)).max(others);
                let query = ForecastQuery {
                    companies: company.map(|company| [company.into()].into()),
                    skip: u32::try_from(read.last - others).unwrap_or(u32::MAX),
                    take: PAGE_ROWS,
                    ..ForecastQuery::default()
                };
                let page = asked(self.database.list_forecasts(&query)).await?;
                if others as u64 + page.total > DOCUMENTS_MAX {
                    return Err(too_many(&scope.audience));
                }
                let before = read.rows.drain(read.last..).next();
                if before.is_some_and(|before| page.rows.first().is_none_or(|row| row.key != before.key)) {
                    continue 'again;
                }
                let full = page.rows.len() == PAGE_ROWS as usize;
                self.keep(read, page.rows)?;
                if !full {
                    return Ok(());
                }
            }
        }
        Err(ApiError::Conflict("the forecasts change too fast to be listed as a whole".to_owned()))
    }

    fn keep(&self, read: &mut Rows, rows: Vec<Row>) -> Result<(), ApiError> {
        read.room.merge(self.room(rows.iter().map(|row| row.document.len() + FRAME_BYTES).sum())?);
        read.rows.extend(rows);
        Ok(())
    }

    /// Room for so many bytes among all snapshots.
    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| {
            self.http.shed("snapshots");
            ApiError::Overloaded
        })
    }
}

/// The database's answer, in time.
async fn asked<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, ApiError> {
    match timeout(PAGE_TIMEOUT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiError::DatabaseUnavailable),
    }
}

fn too_many(audience: &Audience) -> ApiError {
    let error = match audience {
        Audience::Companies(companies) if companies.len() == 1 => {
            format!(
                "has more than {DOCUMENTS_MAX} forecasts, too many for a stream: follow them at /api/forecasts/{{id}}/changes"
            )
        }
        _ => format!("is required: there are more than {DOCUMENTS_MAX} forecasts"),
    };
    ApiError::field("companyId", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_named_a_company_is_not_asked_for_one() {
        let told = |audience| format!("{:?}", too_many(&audience));
        for audience in [Audience::All, Audience::of(["a", "b"])] {
            assert!(told(audience).contains("is required"));
        }
        assert!(told(Audience::of(["a"])).contains("has more than 50000 forecasts"));
    }
}
