//! The time, in units of 100 ns since the year 1.

use super::repr;

/// Now, UTC.
pub(crate) fn utc_ticks() -> i64 {
    repr::ticks(chrono::Utc::now().naive_utc())
}

/// Now, in the server's zone.
pub(crate) fn local_ticks(offset_minutes: i32) -> i64 {
    utc_ticks() + i64::from(offset_minutes) * 60 * repr::TICKS_PER_SECOND
}
