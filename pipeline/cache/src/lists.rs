//! L2: query results, dropped by tag.
//!
//! Nothing is searched when a tag changes. A clock ticks with every change and each tag remembers its last
//! tick; a result remembers the tick at which its query began, and is good while no tag of it changed since.
//! That covers the results that are still being queried, too.

use bytes::Bytes;
use moka::sync::Cache;
use smartpulse_clients::database::{ForecastQuery, Page};
use smartpulse_json::Document;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// How many tags are remembered one by one. Beyond it they are forgotten together, which drops every result:
/// correct, and rarer than the results' own expiry.
const TAGS_MAX: usize = 100_000;

/// What a result takes beyond its body: query, map node, place in the queues.
const RESULT_OVERHEAD_BYTES: usize = 512;

/// What each company in a query takes beyond its name.
const COMPANY_OVERHEAD_BYTES: usize = 32;

/// A query result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// `{"total":…,"items":[…]}`
    pub body: Bytes,
    /// A hash of the body.
    pub etag: u64,
    /// The tick at which the query began.
    pub began: u64,
    pub fresh_until: Instant,
}

/// The results of one cache.
pub(crate) struct Lists<E> {
    results: Cache<Arc<ForecastQuery>, Arc<Listed>>,
    clock: Mutex<Clock>,
    flights: Mutex<HashMap<Arc<ForecastQuery>, Flight<E>>>,
}

#[derive(Default)]
struct Clock {
    now: u64,
    /// The last change of anything.
    changed: u64,
    /// The last change that concerns every tag.
    all_changed: u64,
    tags: HashMap<Box<str>, u64>,
}

struct Flight<E> {
    began: u64,
    landing: Landing<E>,
}

/// The outcome of a query, once there is one.
pub(crate) type Landing<E> = watch::Receiver<Option<Result<Arc<Listed>, E>>>;

/// What [`Lists::join`] gives.
pub(crate) enum Join<E> {
    /// Somebody runs the query already.
    Passenger(Landing<E>),
    /// The caller has to run it; the number is the tick at which it began.
    Pilot(u64, watch::Sender<Option<Result<Arc<Listed>, E>>>, Landing<E>),
}

impl<E> Lists<E> {
    /// At most `entries_max` results of together at most `bytes_max`, for at most `time_to_live`.
    pub(crate) fn new(entries_max: u64, bytes_max: u64, time_to_live: Duration) -> Self {
        // A result weighs its bytes, but no less than its share of them: so one capacity bounds both.
        let (capacity, share) = match bytes_max.checked_div(entries_max) {
            Some(share) => (bytes_max, usize::try_from(share).unwrap_or(usize::MAX)),
            None => (0, 0),
        };
        let weigh = move |query: &Arc<ForecastQuery>, listed: &Arc<Listed>| {
            let companies = query.companies.iter().flat_map(|companies| companies.iter());
            let companies: usize = companies.map(|company| company.len() + COMPANY_OVERHEAD_BYTES).sum();
            u32::try_from(share.max(listed.body.len() + companies + RESULT_OVERHEAD_BYTES)).unwrap_or(u32::MAX)
        };
        let results = Cache::builder().max_capacity(capacity).weigher(weigh).time_to_live(time_to_live).build();
        Self { results, clock: Mutex::default(), flights: Mutex::default() }
    }

    /// The result that is held, and whether it is fresh.
    pub(crate) fn get(&self, query: &ForecastQuery, now: Instant) -> Option<(Arc<Listed>, bool)> {
        let listed = self.results.get(query)?;
        let fresh = now < listed.fresh_until && self.clock().admits(query, listed.began);
        Some((listed, fresh))
    }

    /// Keeps a result unless something changed in it since its query began.
    pub(crate) fn put(&self, query: &Arc<ForecastQuery>, listed: &Arc<Listed>) {
        if self.clock().admits(query, listed.began) {
            self.results.insert(Arc::clone(query), Arc::clone(listed));
        }
    }

    /// Drops the results that have any of the tags, and those of no filter; without tags, all results.
    pub(crate) fn drop_tags<'a>(&self, tags: impl IntoIterator<Item = &'a str>) {
        let mut clock = self.clock();
        clock.now += 1;
        let now = clock.now;
        clock.changed = now;
        let mut any = false;
        for tag in tags {
            any = true;
            // No list is filtered by anything else, so no result has another tag.
            if tag.starts_with("company:") || tag.starts_with("unit:") {
                clock.tags.insert(tag.into(), now);
            }
        }
        if !any || clock.tags.len() > TAGS_MAX {
            clock.all_changed = now;
            clock.tags.clear();
        }
    }

    /// Joins a query that runs, if what it will find is still good, or becomes the one who runs it.
    pub(crate) fn join(&self, query: &Arc<ForecastQuery>) -> Join<E> {
        let mut flights = self.flights();
        let clock = self.clock();
        if let Some(flight) = flights.get(query)
            && clock.admits(query, flight.began)
            && flight.landing.has_changed().is_ok()
        {
            return Join::Passenger(flight.landing.clone());
        }
        let (sender, landing) = watch::channel(None);
        let began = clock.now;
        flights.insert(Arc::clone(query), Flight { began, landing: landing.clone() });
        Join::Pilot(began, sender, landing)
    }

    /// The query of [`Join::Pilot`] has ended; nobody joins it from here on.
    pub(crate) fn landed(&self, query: &ForecastQuery, landing: &Landing<E>) {
        let mut flights = self.flights();
        if flights.get(query).is_some_and(|flight| flight.landing.same_channel(landing)) {
            flights.remove(query);
        }
    }

    /// How many results there are, and what they weigh in bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.results.run_pending_tasks();
        (self.results.entry_count(), self.results.weighted_size())
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Arc<ForecastQuery>, Flight<E>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// True if nothing in the query's result changed since the tick `began`.
    fn admits(&self, query: &ForecastQuery, began: u64) -> bool {
        let unchanged = |tag: String| self.tags.get(tag.as_str()).is_none_or(|tick| began >= *tick);
        began >= self.all_changed
            && match query {
                ForecastQuery { companies: Some(all), .. } => all.iter().all(|id| unchanged(format!("company:{id}"))),
                ForecastQuery { production_unit_id: Some(id), .. } => unchanged(format!("unit:{id}")),
                _ => began >= self.changed,
            }
    }
}

/// The result as it goes over the wire; documents are copied as they are.
pub(crate) fn listed(page: &Page, began: u64, fresh_until: Instant) -> Listed {
    let documents: usize = page.rows.iter().map(|row| row.document.len() + 1).sum();
    let mut body = Vec::with_capacity(documents + 40);
    body.extend_from_slice(format!("{{\"total\":{},\"items\":[", page.total).as_bytes());
    for (index, row) in page.rows.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&row.document);
    }
    body.extend_from_slice(b"]}");
    let etag = xxh3_64(&body);
    Listed { body: body.into(), etag, began, fresh_until }
}

/// The tags of a document's lists.
pub(crate) fn tags(document: &Document) -> impl Iterator<Item = String> + '_ {
    [("company", "companyId"), ("unit", "productionUnitId")].into_iter().filter_map(|(kind, member)| {
        let value = document.get(member)?;
        Some(format!("{kind}:{}", value.as_str()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(companies: Option<&[&str]>, unit: Option<&str>) -> Arc<ForecastQuery> {
        Arc::new(ForecastQuery {
            companies: companies.map(|all| all.iter().map(|id| (*id).into()).collect()),
            production_unit_id: unit.map(str::to_owned),
            take: 20,
            ..ForecastQuery::default()
        })
    }

    fn fresh(lists: &Lists<()>, query: &ForecastQuery) -> bool {
        lists.get(query, Instant::now()).is_some_and(|(_, fresh)| fresh)
    }

    fn result(lists: &Lists<()>, query: &Arc<ForecastQuery>) -> Arc<Listed> {
        let Join::Pilot(began, _, landing) = lists.join(query) else { panic!("{query:?} is in flight") };
        lists.landed(query, &landing);
        let page = Page { total: 0, rows: Vec::new() };
        Arc::new(listed(&page, began, Instant::now() + Duration::from_secs(60)))
    }

    #[test]
    fn a_tag_drops_its_own_lists_and_the_unfiltered_ones_only() {
        for (tags, dropped) in [
            (vec!["company:a"], [true, false, true, false, true]),
            (vec!["unit:u"], [false, false, false, true, true]),
            (vec!["provider:p"], [false, false, false, false, true]),
            (vec!["unit:x", "company:b"], [false, true, true, false, true]),
            (vec!["company:d"], [false, false, false, false, true]),
            (vec![], [true, true, true, true, true]),
        ] {
            let lists: Lists<()> = Lists::new(1_000, 1 << 20, Duration::from_secs(60));
            let queries = [
                query(Some(&["a"]), None),
                query(Some(&["b"]), Some("u")),
                query(Some(&["a", "b", "c"]), None),
                query(None, Some("u")),
                query(None, None),
            ];
            for query in &queries {
                lists.put(query, &result(&lists, query));
            }
            assert!(queries.iter().all(|query| fresh(&lists, query)));
            lists.drop_tags(tags.iter().copied());
            assert_eq!(queries.each_ref().map(|query| !fresh(&lists, query)), dropped, "{tags:?}");
        }
    }

    #[test]
    fn a_result_whose_tag_changed_while_it_ran_is_not_kept() {
        let lists: Lists<()> = Lists::new(1_000, 1 << 20, Duration::from_secs(60));
        let query = query(Some(&["a"]), None);
        let before = result(&lists, &query);
        lists.drop_tags(["company:a"]);
        lists.put(&query, &before);
        assert!(lists.get(&query, Instant::now()).is_none());
    }

    #[test]
    fn a_query_that_began_before_a_change_is_not_joined_after_it() {
        let lists: Lists<()> = Lists::new(1_000, 1 << 20, Duration::from_secs(60));
        let query = query(Some(&["a"]), None);
        let Join::Pilot(_, _sender, _) = lists.join(&query) else { panic!("the first is the pilot") };
        assert!(matches!(lists.join(&query), Join::Passenger(_)));
        lists.drop_tags(["company:a"]);
        assert!(matches!(lists.join(&query), Join::Pilot(..)));
    }

    #[test]
    fn tags_are_forgotten_together_beyond_their_bound() {
        let lists: Lists<()> = Lists::new(1_000, 1 << 20, Duration::from_secs(60));
        let query = query(Some(&["a"]), None);
        lists.put(&query, &result(&lists, &query));
        for n in 0..=TAGS_MAX {
            lists.drop_tags([format!("unit:{n}").as_str()]);
        }
        assert!(!fresh(&lists, &query));
        assert!(lists.clock().tags.len() <= TAGS_MAX);
    }
}
