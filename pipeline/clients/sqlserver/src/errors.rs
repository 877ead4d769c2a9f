//! What went wrong on the way to SQL Server and back, and what helps against it.
//!
//! | kind | what | examples |
//! | --- | --- | --- |
//! | unavailable | the server or the database is away, full, or too busy for anybody | I/O, TLS, time-outs, severity 17 (out of resources) and above, 40613, 9002, 3958 |
//! | transient | this attempt lost against another | deadlock 1205, lock time-out 1222, snapshot conflict 3960 |
//! | rejected | the input can never succeed | 2627, 515, 547, 8114, a THROW of a trigger |
//! | fatal | somebody must do something first | rights, missing tables, a refused login, a broken statement |
//!
//! Throttling (10928, 40501 and their like) counts as unavailable and not as transient, although it is tried again in the
//! same way: what is transient is dead-lettered in the end, and no input is at fault when the server has no room.
//!
//! A refused login (18456) or a database that cannot be opened (4060) is fatal until a connection was once made, so that
//! a wrong password stops a start with a clear text. Later it is unavailable: servers answer so while a
//! database fails over or is restored, or while a password is being changed.

use smartpulse_pipeline::error::{Error, ErrorKind};
use std::fmt;
use tiberius::error::Error as Tds;

/// From this severity on SQL Server ends the connection.
const SEVERITY_FATAL: u8 = 20;

/// From this severity on the server, and not the statement, is at fault: it ran out of something.
const SEVERITY_RESOURCES: u8 = 17;

/// Errors that a user's THROW or RAISERROR may have: those of triggers and procedures.
const USER_ERRORS: std::ops::RangeInclusive<u32> = 50_000..=2_147_483_647;

/// What a use of a connection fails with.
pub struct Failure {
    error: Error,
    number: Option<u32>,
    again: bool,
    lost: bool,
}

/// The result of using a connection.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// What `what` (such as "scan of Forecasts") failed with on `server`.
    #[must_use]
    pub fn tds(server: &str, what: &str, error: Tds) -> Self {
        let number = error.code();
        let (kind, again) = match &error {
            Tds::Server(token) => classify(token.code(), token.class()),
            Tds::Io { .. } | Tds::Tls(_) | Tds::Routing { .. } | Tds::Protocol(_) => (ErrorKind::Unavailable, true),
            Tds::BulkInput(_) => (ErrorKind::Rejected, false),
            _ => (ErrorKind::Fatal, false),
        };
        let lost = match &error {
            Tds::Server(token) => token.class() >= SEVERITY_FATAL,
            _ => true,
        };
        let message = match &error {
            Tds::Server(token) => {
                let hint = hint(token.code()).map_or_else(String::new, |hint| format!(" ({hint})"));
                let text = token.message().trim_end_matches('.');
                format!("{what} failed on {server} with error {}: {text}{hint}", token.code())
            }
            _ => format!("{what} failed on {server}"),
        };
        let own = Error::new(kind, message);
        let own = if matches!(error, Tds::Server(_)) { own } else { own.because(error) };
        Self { error: own, number, again, lost }
    }

    /// `what` had no answer from `server` in time.
    #[must_use]
    pub fn timed_out(server: &str, what: &str, after: std::time::Duration) -> Self {
        let message = format!("{what} had no answer from {server} within {} ms", after.as_millis());
        Self { error: Error::unavailable(message), number: None, again: true, lost: true }
    }

    /// The server cannot be reached; trying at once would not help.
    #[must_use]
    pub fn away(error: Error) -> Self {
        Self { error, number: None, again: false, lost: true }
    }

    /// SQL Server's number, where it said one.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.number
    }

    /// What the runtime does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// What happened, with its causes.
    #[must_use]
    pub fn text(&self) -> String {
        self.error.chain()
    }

    /// Whether the same on a new connection may succeed at once.
    #[must_use]
    pub fn again(&self) -> bool {
        self.again
    }

    /// Whether the connection is gone with it: if a COMMIT was under way, nobody knows what became of it.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Whether a name was not there: what is remembered of the catalogue is out of date.
    #[must_use]
    pub fn stale_catalogue(&self) -> bool {
        // 207 column, 208 table, 213 and 4104 columns that do not fit, 3952 SNAPSHOT switched off, 4902 no such table to
        // alter, 22105 tracking off.
        matches!(self.number, Some(207 | 208 | 213 | 3952 | 4104 | 4902 | 22105))
    }

    /// The same failure, which must not be tried again.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.again = false;
        self
    }

    /// The same failure, after its cause was mended.
    #[must_use]
    pub fn worth_another_try(mut self) -> Self {
        self.again = true;
        self
    }

    /// The same failure as another kind, which must not be tried again at once.
    #[must_use]
    pub fn kind_of(mut self, kind: ErrorKind) -> Self {
        self.error = Error::new(kind, self.error.chain());
        self.again = false;
        self
    }

    /// The same failure with what was being done said in front.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let kind = self.error.kind();
        self.error = Error::new(kind, message).because(self.error);
        self
    }

    /// The error as the runtime takes it.
    #[must_use]
    pub fn into_error(self) -> Error {
        self.error
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let again = error.kind() == ErrorKind::Transient;
        Self { error, number: None, again, lost: false }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// The kind of an error number of a severity, and whether trying again at once may help.
fn classify(number: u32, severity: u8) -> (ErrorKind, bool) {
    match number {
        _ if severity >= SEVERITY_FATAL => (ErrorKind::Unavailable, true),
        // Deadlock victim; lock time-out; snapshot conflict, and one with a schema change.
        1205 | 1222 | 3960 | 3961 => (ErrorKind::Transient, true),
        // SNAPSHOT is being switched on; the versions that a SNAPSHOT transaction reads are gone, for tempdb is full.
        3956 | 3957 | 3958 | 3966 | 3967 => (ErrorKind::Unavailable, true),
        // Throttled or out of resources: memory, locks, latches, workers, sessions, time to optimize, Azure's limits and
        // reconfigurations.
        701
        | 802
        | 845
        | 1204
        | 8628
        | 8645
        | 8651
        | 10928
        | 10929
        | 10936
        | 17197
        | 40197
        | 40501
        | 40613
        | 40143
        | 40540
        | 40549..=40553
        | 49918
        | 49919
        | 49920 => (ErrorKind::Unavailable, true),
        // The session was killed, or the server is going down.
        596 | 6005 | 6006 | 17142 | 17147 | 17148 => (ErrorKind::Unavailable, true),
        // The database is offline, restoring, recovering, a secondary, read-only, or its disk is full.
        904..=907
        | 921
        | 922
        | 924
        | 926
        | 927
        | 942
        | 945
        | 952
        | 976
        | 978
        | 979
        | 981
        | 983
        | 1101
        | 1105
        | 3906
        | 3908
        | 9001
        | 9002
        | 18401
        | 40544 => (ErrorKind::Unavailable, false),
        // Duplicates, NULL and constraints, lengths, conversions, ranges, computed and identity columns, XML.
        2627
        | 2601
        | 515
        | 547
        | 2628
        | 8152
        | 8114
        | 8115
        | 245
        | 220
        | 232
        | 235
        | 241
        | 242
        | 244
        | 248
        | 271
        | 273
        | 295
        | 296
        | 544
        | 550
        | 1946
        | 4815
        | 4863
        | 4864
        | 4867
        | 5145
        | 6355
        | 7339
        | 8023
        | 8169
        | 9400..=9499
        | 13544 => (ErrorKind::Rejected, false),
        number if USER_ERRORS.contains(&number) => (ErrorKind::Rejected, false),
        _ if severity >= SEVERITY_RESOURCES => (ErrorKind::Unavailable, false),
        _ => (ErrorKind::Fatal, false),
    }
}

/// What the reader does next about an error number.
fn hint(number: u32) -> Option<&'static str> {
    Some(match number {
        4060 => "check the database's name, and that the login is a user of it",
        18456 | 18452 | 18486..=18488 => "check user and password, and that the server allows SQL logins",
        229 | 230 | 262 | 297 | 300 | 15247 | 22902 | 22994 => {
            "the login lacks a right: `smartpulse plan` lists what it needs"
        }
        207 | 208 | 2812 => "is the schema created? `smartpulse plan` prints what a DBA must run",
        22105 => "change tracking of the table is off: `smartpulse plan` prints the statements that switch it on",
        3952 => "the database does not allow SNAPSHOT isolation: config/sql/sqlserver/database.sql switches it on",
        _ => return None,
    })
}

/// Whether an error number of a login means that it was refused, not that the server is away.
#[must_use]
pub(crate) fn login_refused(number: Option<u32>) -> bool {
    matches!(number, Some(4060 | 4064 | 18452 | 18456 | 18461 | 18470 | 18486..=18488))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified_by_what_helps_against_them() {
        for (number, kind, again) in [
            (1205, ErrorKind::Transient, true),
            (1222, ErrorKind::Transient, true),
            (3960, ErrorKind::Transient, true),
            (10928, ErrorKind::Unavailable, true),
            (40613, ErrorKind::Unavailable, true),
            (49919, ErrorKind::Unavailable, true),
            (3957, ErrorKind::Unavailable, true),
            (3958, ErrorKind::Unavailable, true),
            (3966, ErrorKind::Unavailable, true),
            (3967, ErrorKind::Unavailable, true),
            (845, ErrorKind::Unavailable, true),
            (8628, ErrorKind::Unavailable, true),
            (10936, ErrorKind::Unavailable, true),
            (40550, ErrorKind::Unavailable, true),
            (40544, ErrorKind::Unavailable, false),
            (9455, ErrorKind::Rejected, false),
            (9002, ErrorKind::Unavailable, false),
            (2627, ErrorKind::Rejected, false),
            (515, ErrorKind::Rejected, false),
            (8114, ErrorKind::Rejected, false),
            (50_001, ErrorKind::Rejected, false),
            (50_002, ErrorKind::Rejected, false),
            (208, ErrorKind::Fatal, false),
            (229, ErrorKind::Fatal, false),
            (102, ErrorKind::Fatal, false),
        ] {
            assert_eq!(classify(number, 16), (kind, again), "{number}");
        }
    }

    #[test]
    fn a_server_that_is_out_of_resources_is_unavailable_whatever_its_number() {
        let unknown = 45_678;
        assert_eq!(classify(unknown, 16), (ErrorKind::Fatal, false));
        assert_eq!(classify(unknown, 17), (ErrorKind::Unavailable, false));
        assert_eq!(classify(unknown, 19), (ErrorKind::Unavailable, false));
        assert_eq!(classify(unknown, 20), (ErrorKind::Unavailable, true));
        assert_eq!(classify(50_001, 17), (ErrorKind::Rejected, false), "a trigger's own word");
    }

    #[test]
    fn what_breaks_the_wire_is_unavailable_and_takes_the_connection_along() {
        let io = Tds::Io { kind: std::io::ErrorKind::ConnectionReset, message: "reset".into() };
        let failure = Failure::tds("db:1433", "scan of Forecasts", io);
        assert!(failure.lost() && failure.again() && failure.number().is_none());
        let error = failure.into_error();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.chain().contains("scan of Forecasts failed on db:1433"), "{}", error.chain());
        assert!(error.chain().contains("reset"), "{}", error.chain());
    }
}
