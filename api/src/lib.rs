//! The HTTP API over cache and database (contract 6).
//!
//! Contract:
//! - Every answer of a route, and every refusal, is JSON: errors are `{"error":"text","code":"UPPER_SNAKE"}`, a
//!   failed validation adds `"fields":[{"field":"…","error":"…"}]` with everything that is wrong at once. What
//!   failed inside is logged, not told. (Only what is no HTTP at all is answered by `hyper`, without a body.)
//! - A read that L1 holds is answered with the held bytes: nothing is printed. For a caller who does not see all companies
//!   the bytes are scanned for their company; no tree is built.
//! - A writer reads its own write at once on this instance. Writes go to the database only; what others are
//!   told of them is derived by capture.
//! - Everything is bounded: request bodies, the time of headers, bodies and requests, requests and connections
//!   at a time. Health and metrics are never refused for load.
//! - Who calls is told by a bearer token, what it may do by its role, whose forecasts it sees by its companies.
//!   Another company's forecast is answered as one that is not there. A route without a policy lets nobody pass.
//!
//! | file | idea |
//! | --- | --- |
//! | `server`, `patient` | the listener, the connections, the orderly end; readers that take nothing |
//! | `router` | which path leads where, and who may go there |
//! | `policy`, `gate` | the policies of routes; the checks in front of all of them |
//! | `auth`, `tickets` | tokens to callers; what browsers open streams with |
//! | `rates`, `headers`, `cors` | how often one user may call; headers in and out; which web pages may call |
//! | `read`, `list`, `batch` | reads: one forecast, a page, several by id |
//! | `create`, `patch`, `delete` | writes; `change`: how one is made conditional |
//! | `changes` | live changes, as streams |
//! | `inbox`, `inbox_stream` | the caller's notifications, as pages and as a stream |
//! | `devices`, `preferences`, `push` | where, by what and at once people are told |
//! | `deliveries` | what became of attempts to tell them |
//! | `openapi` | the description of all this, for programs and people |
//! | `answer` | bodies as they are held, cache headers |
//! | `validate` | bodies and queries to typed values, all errors at once: pure |
//! | `conditional` | `ETag`, `If-Match`, `If-None-Match`: pure |
//! | `body` | media types, bounded bodies |
//! | `error` | every refusal there is |
//! | `health`, `readiness` | alive, ready, degraded |
//! | `panics` | a handler's panic is an answer |
//! | `measure`, `process` | what `/metrics` tells |

#![warn(missing_docs)]

mod answer;
mod auth;
mod batch;
mod body;
mod change;
mod changes;
mod conditional;
mod cors;
mod create;
mod delete;
mod deliveries;
mod devices;
mod error;
mod gate;
mod headers;
mod health;
mod inbox;
mod inbox_stream;
mod list;
mod measure;
mod openapi;
mod panics;
mod patch;
mod patient;
mod policy;
mod preferences;
mod process;
mod push;
mod rates;
mod read;
mod readiness;
mod router;
mod server;
#[cfg(test)]
mod testing;
mod tickets;
mod trace;
mod validate;

pub use auth::{DevelopmentToken, Role, development_token};
pub use gate::Guarded;
pub use policy::Policy;
pub use readiness::Readiness;
pub use router::{Api, Parts, Served};
pub use server::bind;
