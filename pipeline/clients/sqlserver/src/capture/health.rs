//! How capture is doing, as the database itself sees it: whether the capture job works, and how long a position is safe.
//!
//! "Stopped" differs from "no changes": a job that does not run makes a busy table look idle (edge case 8). It shows in
//! its state in `msdb`, in the log scans that end, and in the newest LSN, which the running job moves on every five
//! minutes also when nothing changes. Each needs a right; what may not be seen says nothing, and never raises an alarm.
//!
//! The runway is how long it takes until clean-up passes the position: the retention less the age of the first
//! transaction behind the position.

use super::position::{CdcPosition, CtPosition};
use super::{Capture, Clock, NO_RIGHT};
use crate::connection::{Connection, Param};
use crate::errors::Outcome;
use crate::rows;
use crate::statements::health as sql;
use smartpulse_clients::database::{CaptureHealth, CaptureMode, Kept};
use smartpulse_pipeline::{Position, Timestamp};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tiberius::Row;

/// The polling interval of the capture job where it is not known: the longest that is usual, Azure SQL's.
const POLLING: Duration = Duration::from_secs(20);

/// A job that has not scanned the log for so many of its intervals, and for at least [`SCANS_MISSED_MIN`], stands still.
const SCANS_MISSED: u32 = 10;
const SCANS_MISSED_MIN: Duration = Duration::from_secs(60);

/// The job moves the newest LSN on every five minutes: while it is younger than this a late scan is no alarm.
const LSN_FRESH: Duration = Duration::from_secs(6 * 60);

/// An LSN of this age is an alarm of its own.
const LSN_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// What is known of the capture job; nothing where the login may not see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// Whether it runs by its state in `msdb`.
    pub running: Option<bool>,
    /// Its polling interval.
    pub polling: Option<Duration>,
    /// How long ago the log was last scanned.
    pub last_scan: Option<Duration>,
    /// How long ago the newest LSN was committed.
    pub newest_lsn: Option<Duration>,
}

impl JobFacts {
    /// Why no changes are recorded at present, where that is so.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        const START: &str = "start it with EXEC sys.sp_cdc_start_job N'capture', and see that SQL Server Agent runs";
        if self.running == Some(false) {
            return Some(format!("the capture job does not run: {START}"));
        }
        let patience = (self.polling.unwrap_or(POLLING) * SCANS_MISSED).max(SCANS_MISSED_MIN);
        let fresh = self.newest_lsn.is_some_and(|age| age < LSN_FRESH);
        if let Some(age) = self.last_scan.filter(|age| *age > patience && !fresh) {
            return Some(format!("the capture job has not scanned the log for {} s: {START}", age.as_secs()));
        }
        // A scan that goes on proves more than an old LSN, which a job that was just started has too.
        let silent = self.last_scan.is_none() && self.running != Some(true);
        self.newest_lsn
            .filter(|age| silent && *age > LSN_AGE_MAX)
            .map(|age| format!("the capture job has moved no LSN for {} min: {START}", age.as_secs() / 60))
    }
}

/// How long a position is safe: the retention less the age of what comes behind it.
#[must_use]
pub fn runway(retention: Kept, first_behind: Option<Duration>) -> Kept {
    match retention {
        Kept::For(retention) => Kept::For(retention.saturating_sub(first_behind.unwrap_or_default())),
        other => other,
    }
}

/// How the capture of a table is doing for someone at a position.
pub(super) async fn read(
    capture: &Capture,
    connection: &mut Connection,
    mode: CaptureMode,
    position: &Position,
) -> Outcome<CaptureHealth> {
    match mode {
        CaptureMode::ChangeTracking => change_tracking(capture, connection, position).await,
        CaptureMode::Cdc => cdc(connection, position).await,
    }
}

async fn change_tracking(
    capture: &Capture,
    connection: &mut Connection,
    position: &Position,
) -> Outcome<CaptureHealth> {
    let health = |runway| CaptureHealth { stopped: None, runway };
    let Ok(position) = CtPosition::parse(position) else { return Ok(health(Kept::Unknown)) };
    let found = connection.rows("health", sql::CT_RETENTION, &[]).await?;
    let retention = found.first().map_or(Kept::Unknown, tracking_retention);
    let (Kept::For(_), Some(row)) = (retention, found.first()) else { return Ok(health(retention)) };
    // Asked again here, because whoever asks for health may not have polled.
    capture.azure(connection).await?;
    if !capture.commit_times.load(Ordering::Relaxed) {
        return Ok(health(Kept::Unknown));
    }
    let clock = Clock::read(row, 2);
    match connection.rows("health", sql::CT_AGE, &[Param::bigint(position.at.since())]).await {
        Ok(found) => {
            let first = found.first().and_then(|row| age(&clock, row, 0));
            Ok(health(runway(retention, first)))
        }
        Err(failure) if failure.number().is_some_and(|number| NO_RIGHT.contains(&number)) => {
            capture.commit_times.store(false, Ordering::Relaxed);
            Err(failure.worth_another_try())
        }
        Err(failure) => Err(failure),
    }
}

async fn cdc(connection: &mut Connection, position: &Position) -> Outcome<CaptureHealth> {
    let Ok(position) = CdcPosition::parse(position) else {
        return Ok(CaptureHealth { stopped: None, runway: Kept::Unknown });
    };
    let found = connection.rows("health", sql::CDC_AGE, &[Param::bytes(position.at.lsn().0)]).await?;
    let (mut facts, mut first) = (JobFacts::default(), None);
    let mut clock = Clock { now: Timestamp::now(), offset_minutes: 0 };
    if let Some(row) = found.first() {
        clock = Clock::read(row, 2);
        first = age(&clock, row, 0);
        facts.newest_lsn = age(&clock, row, 1);
    }
    let jobs = Jobs::read(connection).await?;
    facts.polling = jobs.polling;
    let activity = connection.rows("health", sql::CDC_ACTIVITY, &[]).await?;
    facts.running = activity
        .first()
        .map(|row| rows::integer(row, 0) != Some(0) && rows::time(row, 1).is_some() && rows::time(row, 2).is_none());
    let scans = connection.rows("health", sql::CDC_SCANS, &[]).await?;
    facts.last_scan = scans.first().and_then(|row| age(&clock, row, 0));
    Ok(CaptureHealth { stopped: facts.stopped(), runway: runway(jobs.retention, first) })
}

/// The settings of the jobs of change data capture; nothing where they may not be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jobs {
    /// How often the capture job looks at the log.
    pub polling: Option<Duration>,
    /// How many transactions one scan takes.
    pub transactions_max: Option<i64>,
    /// How many scans one interval has.
    pub scans_max: Option<i64>,
    /// How long clean-up leaves changes.
    pub retention: Kept,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { polling: None, transactions_max: None, scans_max: None, retention: Kept::Unknown }
    }
}

impl Jobs {
    pub(crate) async fn read(connection: &mut Connection) -> Outcome<Self> {
        let mut jobs = Self::default();
        for row in connection.rows("health", sql::CDC_JOBS, &[]).await? {
            match rows::text(&row, 0).map(str::trim_end) {
                Some("capture") => {
                    let seconds = rows::integer(&row, 2).and_then(|seconds| u64::try_from(seconds).ok());
                    jobs.polling = seconds.map(Duration::from_secs);
                    (jobs.transactions_max, jobs.scans_max) = (rows::integer(&row, 3), rows::integer(&row, 4));
                }
                Some("cleanup") => jobs.retention = minutes(&row, 1).map_or(Kept::Unknown, Kept::For),
                _ => {}
            }
        }
        Ok(jobs)
    }
}

/// How long net changes are kept, as [`sql::CT_RETENTION`] says.
pub(crate) fn tracking_retention(row: &Row) -> Kept {
    match rows::integer(row, 1) {
        Some(0) => Kept::ForGood,
        _ => minutes(row, 0).map_or(Kept::Unknown, Kept::For),
    }
}

fn minutes(row: &Row, place: usize) -> Option<Duration> {
    let minutes = rows::integer(row, place).and_then(|minutes| u64::try_from(minutes).ok())?;
    Some(Duration::from_secs(minutes * 60))
}

/// How long ago a local time was.
fn age(clock: &Clock, row: &Row, place: usize) -> Option<Duration> {
    let then = clock.utc(rows::time(row, place)?);
    Some(Duration::from_millis(u64::try_from(clock.now.as_millis() - then.as_millis()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn edge_08_a_stopped_capture_job_is_told_from_one_that_has_nothing_to_do() {
        let busy = JobFacts {
            running: Some(true),
            polling: Some(5 * SECOND),
            last_scan: Some(3 * SECOND),
            newest_lsn: Some(3_600 * SECOND),
        };
        assert_eq!(busy.stopped(), None, "nothing has changed for an hour");
        let stopped = |facts: JobFacts, why: &str| facts.stopped().is_some_and(|text| text.contains(why));
        assert!(stopped(JobFacts { running: Some(false), ..busy }, "does not run"));
        // The agent died, and left the job's state as it was.
        assert!(stopped(JobFacts { last_scan: Some(61 * SECOND), ..busy }, "not scanned the log for 61 s"));
        assert_eq!(JobFacts { last_scan: Some(59 * SECOND), ..busy }.stopped(), None);
        let moved = JobFacts { last_scan: Some(61 * SECOND), newest_lsn: Some(300 * SECOND), ..busy };
        assert_eq!(moved.stopped(), None, "something has moved the newest LSN");
        // Only the newest LSN may be seen.
        let blind = JobFacts { newest_lsn: Some(901 * SECOND), ..JobFacts::default() };
        assert!(stopped(blind, "moved no LSN for 15 min"));
        assert_eq!(JobFacts { newest_lsn: Some(899 * SECOND), ..blind }.stopped(), None);
        assert_eq!(JobFacts::default().stopped(), None, "what may not be seen raises no alarm");
    }

    #[test]
    fn the_runway_is_what_is_left_of_the_retention() {
        let day = 86_400 * SECOND;
        let two = Kept::For(2 * day);
        assert_eq!(runway(two, None), two, "nothing behind the position can be lost");
        assert_eq!(runway(two, Some(day)), Kept::For(day));
        assert_eq!(runway(two, Some(3 * day)), Kept::For(Duration::ZERO));
        assert_eq!(runway(Kept::ForGood, Some(day)), Kept::ForGood);
        assert_eq!(runway(Kept::Unknown, Some(day)), Kept::Unknown);
    }
}
