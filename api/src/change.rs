//! Writes to a forecast that is there: only the caller's own, only the version that was looked at.
//!
//! A write is conditional on the version whose company was checked. So a forecast that moves to another company between
//! the check and the write is not written: it is looked at again. The same holds for `If-Match`, and for operations
//! that were applied to that version.

use crate::auth::Caller;
use crate::conditional::IfMatch;
use crate::error::ApiError;
use crate::read::visible;
use crate::router::Shared;
use crate::trace::{Committed, timed};
use smartpulse_cache::{Hit, Level};
use smartpulse_clients::database::{Write, Written};
use smartpulse_pipeline::Key;

/// How often a write is tried anew on a forecast that somebody else changed meanwhile.
const ATTEMPTS: usize = 10;

/// What became of a write.
pub(crate) enum Outcome {
    /// It was committed.
    Written(Committed),
    /// There was nothing to write: this is the forecast.
    Unchanged(Hit),
}

/// Writes what `plan` makes of the forecast as it is; `None` of it writes nothing.
///
/// # Errors
///
/// 404 for what is not the caller's, 412 where `If-Match` does not hold, 409 for what changes too often; those of `plan`,
/// once it has seen the forecast as the database has it.
pub(crate) async fn write(
    shared: &Shared,
    caller: &Caller,
    key: &Key,
    if_match: &IfMatch,
    plan: impl Fn(&Hit) -> Result<Option<Write>, ApiError>,
) -> Result<Outcome, ApiError> {
    let cache = &shared.parts.cache;
    let mut found = cache.get(key).await?;
    // What is held may be behind the database: only the database's word refuses, values that operations make included.
    let mut asked = found.as_ref().is_none_or(|hit| hit.level == Level::L4);
    for _ in 0..ATTEMPTS {
        let planned = visible(found, caller).and_then(|hit| {
            // What cannot be is refused before conditions are looked at (RFC 9110 section 13.2.1).
            match plan(&hit) {
                Err(error @ ApiError::Validation(_)) => Err(error),
                _ if !if_match.admits(hit.version) => Err(ApiError::PreconditionFailed),
                planned => Ok((planned?, hit)),
            }
        });
        match planned {
            Ok((None, hit)) if asked => return Ok(Outcome::Unchanged(hit)),
            Ok((Some(write), _)) => match timed(cache.write(write)).await? {
                (Written::Done(row), timing) => return Ok(Outcome::Written(Committed { row, timing })),
                (Written::NotFound, _) => return Err(ApiError::ForecastNotFound),
                (Written::VersionMismatch(_), _) => {}
                (Written::Exists, _) => return Err(ApiError::Internal),
            },
            Err(error) if asked => return Err(error),
            Ok((None, _)) | Err(_) => {}
        }
        found = cache.reload(key).await?;
        asked = true;
        if found.as_ref().is_some_and(|hit| hit.stale) {
            return Err(ApiError::DatabaseUnavailable);
        }
    }
    Err(ApiError::Conflict("the forecast changes too often to be written".to_owned()))
}
