//! What an error of Redis means for the one who asked.

use redis::{ErrorKind, ParsingError, RedisError, ServerErrorKind};
use smartpulse_pipeline::error::Error;

/// What an error says of the connection it came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The answer came: the connection is good.
    Good,
    /// It is broken, or nobody knows what it will answer.
    Broken,
}

/// The error, and the state of the connection. An outage is `Unavailable`, also where somebody has to act: streams wait,
/// and go on when he has.
pub(crate) fn classify(doing: &str, error: RedisError) -> (Error, Link) {
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error() {
        return (Error::unavailable(format!("redis did not answer: {doing}")).because(error), Link::Broken);
    }
    let (error, link) = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            let advice = "redis refused the login; check the user in `url` and `password`";
            (Error::unavailable(advice).because(error), Link::Broken)
        }
        (ErrorKind::Server(ServerErrorKind::CrossSlot), _) => {
            let advice =
                "this is a Redis Cluster, and does not say what its nodes have; the ACL user needs `+cluster|slots`";
            (Error::unavailable(advice).because(error), Link::Good)
        }
        (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::ClusterDown), _) => {
            (Error::unavailable(format!("the nodes of redis do not agree now: {doing}")).because(error), Link::Good)
        }
        (ErrorKind::Server(ServerErrorKind::NoScript), _) => {
            let advice = "redis forgets scripts as fast as they are loaded; does something run SCRIPT FLUSH?";
            (Error::unavailable(advice).because(error), Link::Good)
        }
        _ if error.to_string().contains("refused to switch database") => {
            let advice = "redis has no database of the number in `url`; a Redis Cluster has only 0, each partition needs its own";
            (Error::unavailable(advice).because(error), Link::Broken)
        }
        _ if is_forbidden(&error) => {
            let advice =
                "redis forbids it: the ACL user needs `~* &* +@read +@write +@pubsub +@scripting +@connection +time`";
            (Error::unavailable(format!("{advice}: {doing}")).because(error), Link::Good)
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            // A replica after a fail-over: the name leads to the new primary when it is looked up again.
            (Error::unavailable(format!("redis is a replica: {doing}")).because(error), Link::Broken)
        }
        (
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::TryAgain),
            _,
        )
        | (_, Some("OOM" | "BUSY" | "MISCONF" | "NOREPLICAS")) => {
            (Error::unavailable(format!("redis cannot do it now: {doing}")).because(error), Link::Good)
        }
        _ => (Error::transient(format!("redis refused: {doing}")).because(error), Link::Good),
    };
    (error, link)
}

/// An answer that is none to what was asked.
pub(crate) fn unread(doing: &str, error: ParsingError) -> Error {
    classify(doing, error.into()).0
}

/// What a script may not do it reports as an error of its own.
fn is_forbidden(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("user executing the script can't")
}
