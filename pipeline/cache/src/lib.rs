//! The cache of one instance: documents and query results in front of the database.
//!
//! Contract:
//! - [`Cache::get`] answers with a document that was the truth at some moment after the newest change this
//!   instance was told of before the call; or, marked stale, with the last one it held when the database is
//!   away; or with an error of kind `Unavailable`.
//! - Versions of a held key never go back, whatever arrives in whatever order: patches, whole documents,
//!   invalidations, deletes, loads, own writes.
//! - A patch is applied only to the very version it was made from; anything else costs one coalesced reload.
//! - One load per key and one query per list at a time, and one time-out per outage, not one per request.
//! - [`Cache::write`] commits to the database and returns when readers of this instance see the result.
//!
//! Cost: a hit in L1 is one hash lookup and a reference count; nothing is parsed, copied or awaited.
//! Memory: bounded by bytes in both tiers ([`CacheConfig::l1_bytes_max`], [`CacheConfig::l2_bytes_max`]); what
//! exceeds them is evicted, least used first.
//!
//! | file | idea |
//! | --- | --- |
//! | `cache` | the tiers put together: reads of documents, and the loads behind them |
//! | `change` | what changes the cache from outside: changes, invalidations, own writes, losses |
//! | `decide` | what a change or a loaded row does to an entry: pure, no clock, no lock |
//! | `documents` | L1: entries, atomic per key |
//! | `list` | reads of lists, and the queries behind them |
//! | `lists` | L2: query results and the clock of their tags |
//! | `flights` | who loads what, and what was learned meanwhile |
//! | `circuit` | a dead tier costs one time-out |
//! | `shared` | L3: what all instances share, skipped while it is away |
//! | `sweep` | each instance compares what it holds with the shared counters |
//! | `audit` | one instance compares the shared counters with the database |
//! | `maintain` | every five minutes: what waits too long, what nobody wrote for a day |
//! | `warm` | the first fill |
//! | `news` | what is taken over, for who derives state from it |
//! | `resource` | the cache as YAML and API name it |
//!
//! L3, the tier that instances share, is there where the pub/sub resource keeps documents (Redis). It answers only at the
//! version of its counter, and is filled only there: contract 4, checked by `model`.

#![warn(missing_docs)]

mod audit;
mod cache;
mod change;
mod circuit;
mod config;
mod decide;
mod documents;
mod flights;
mod list;
mod lists;
mod maintain;
mod metrics;
#[cfg(test)]
mod model;
mod news;
mod resource;
mod shared;
mod sweep;
mod warm;

pub use audit::Auditor;
pub use cache::{Cache, Hit, Level};
pub use change::{Change, Invalidation};
pub use config::{CacheConfig, Observer};
pub use decide::Applied;
pub use list::ListHit;
pub use news::{Follower, News};
pub use resource::{CacheResourceConfig, SharedCache, register};
pub use shared::SharedConfig;
pub use sweep::Sweep;
