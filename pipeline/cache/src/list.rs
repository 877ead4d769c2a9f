//! Reads of lists, and the queries behind them.

use crate::cache::{Cache, Inner, Level, arrival, may_serve_stale};
use crate::lists::{self, Join, Listed};
use bytes::Bytes;
use smartpulse_clients::database::{ForecastQuery, Page};
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use tokio::time::Instant;

/// A query result that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListHit {
    /// `{"total":…,"items":[…]}`
    pub body: Bytes,
    /// A hash of the body.
    pub etag: u64,
    /// Where it was found.
    pub level: Level,
    /// True if something newer may exist and the database cannot be asked.
    pub stale: bool,
}

impl Cache {
    /// A page of forecasts. The rows are not put into L1: a page is one query over keys that nobody watched
    /// while it ran, so any of them might be older than a patch that has just come.
    ///
    /// # Errors
    ///
    /// Those of [`Cache::get`].
    pub async fn list(&self, query: ForecastQuery) -> Result<ListHit> {
        let inner = &*self.inner;
        if query.companies.as_ref().is_some_and(|companies| companies.is_empty()) {
            let nothing = Page { total: 0, rows: Vec::new() };
            return Ok(list_hit(&lists::listed(&nothing, 0, Instant::now()), Level::L2));
        }
        if let Some((listed, true)) = inner.lists.get(&query, Instant::now()) {
            inner.metrics.hit(Level::L2);
            return Ok(list_hit(&listed, Level::L2));
        }
        inner.metrics.miss(Level::L2);
        let query = Arc::new(query);
        let landing = match inner.lists.join(&query) {
            Join::Passenger(landing) => landing,
            Join::Pilot(began, sender, landing) => {
                let (cache, query, own) = (self.clone(), Arc::clone(&query), landing.clone());
                // A task of its own: the first reader may leave, the others still wait.
                tokio::spawn(async move {
                    let outcome = cache.inner.run_list(&query, began).await.map_err(Arc::new);
                    cache.inner.lists.landed(&query, &own);
                    let _ = sender.send(Some(outcome));
                });
                landing
            }
        };
        match arrival(landing).await {
            Ok(listed) => {
                inner.metrics.hit(Level::L4);
                Ok(list_hit(&listed, Level::L4))
            }
            Err(error) => match inner.lists.get(&query, Instant::now()) {
                Some((listed, fresh)) if may_serve_stale(&error) => {
                    inner.metrics.hit(Level::L2);
                    if !fresh {
                        inner.metrics.stale.inc();
                    }
                    Ok(ListHit { stale: !fresh, ..list_hit(&listed, Level::L2) })
                }
                _ => {
                    inner.metrics.miss(Level::L4);
                    Err(error)
                }
            },
        }
    }
}

impl Inner {
    async fn run_list(&self, query: &Arc<ForecastQuery>, began: u64) -> Result<Arc<Listed>> {
        let page = self.ask(self.database.list_forecasts(query)).await?;
        let listed = Arc::new(lists::listed(&page, began, Instant::now() + self.config.l2_ttl));
        self.lists.put(query, &listed);
        Ok(listed)
    }
}

fn list_hit(listed: &Listed, level: Level) -> ListHit {
    ListHit { body: listed.body.clone(), etag: listed.etag, level, stale: false }
}
