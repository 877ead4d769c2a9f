//! The HTTP API over cache and database (contract 6).
//!
//! Contract:
//! - Every answer of a route, and every refusal, is JSON: errors are `{"error":"text","code":"UPPER_SNAKE"}`, a
//!   failed validation adds `"fields":[{"field":"…","error":"…"}]` with everything that is wrong at once. What
//!   failed inside is logged, not told. (Only what is no HTTP at all is answered by `hyper`, without a body.)
//! - A read that L1 holds is answered with the held bytes: nothing is parsed or printed.
//! - A writer reads its own write at once on this instance. Writes go to the database only; what others are
//!   told of them is derived by capture.
//! - Everything is bounded: request bodies, the time of headers, bodies and requests, requests and connections
//!   at a time. Health and metrics are never refused for load.
//! - No tokens exist yet, so that [`bind`] refuses every address but loopback ones.
//!
//! | file | idea |
//! | --- | --- |
//! | `server` | the listener, the connections, the orderly end |
//! | `router` | which path leads where, through which layers |
//! | `forecasts` | reads, creation and deletion of forecasts |
//! | `patch` | changing one |
//! | `validate` | bodies and queries to typed values, all errors at once: pure |
//! | `conditional` | `ETag`, `If-Match`, `If-None-Match`: pure |
//! | `body` | media types, bounded bodies |
//! | `error` | every refusal there is |
//! | `health`, `readiness` | alive, ready, degraded |
//! | `limits` | load, time and panics |
//! | `measure`, `process` | what `/metrics` tells |

#![warn(missing_docs)]

mod body;
mod conditional;
mod error;
mod forecasts;
mod health;
mod limits;
mod measure;
mod patch;
mod process;
mod readiness;
mod router;
mod server;
mod validate;

pub use readiness::Readiness;
pub use router::Api;
pub use server::bind;
