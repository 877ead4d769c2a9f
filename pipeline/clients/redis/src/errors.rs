//! What an error of Redis means for the one who asked.

use redis::{ErrorKind, RedisError, ServerErrorKind};
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
        (
            ErrorKind::Server(
                ServerErrorKind::CrossSlot
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::ClusterDown,
            ),
            _,
        ) => {
            let advice = "this is a Redis Cluster, which is not supported: let `url` lead to one server, or to a primary with replicas";
            (Error::fatal(advice).because(error), Link::Good)
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

/// What a script may not do it reports as an error of its own.
fn is_forbidden(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("user executing the script can't")
}
