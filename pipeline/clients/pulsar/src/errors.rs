//! What the client's errors mean here.
//!
//! The default is [`unavailable`](smartpulse_pipeline::error::ErrorKind::Unavailable): a broker that is away, moving a topic or
//! out of memory comes back, and what waits for it must not end in the dead letters. A refused token is waited out as
//! well, since tokens are renewed beside a running process; only the first connection fails for good over it.

use pulsar::Error as PulsarError;
use pulsar::error::{ConnectionError, ConsumerError, ProducerError, ServiceDiscoveryError};
use pulsar::proto::ServerError;
use smartpulse_pipeline::error::Error;

/// What the broker itself answered, if it did.
#[must_use]
pub fn answer(error: &PulsarError) -> Option<ServerError> {
    let connection = match error {
        PulsarError::Connection(error)
        | PulsarError::Consumer(ConsumerError::Connection(error))
        | PulsarError::Producer(ProducerError::Connection(error))
        | PulsarError::ServiceDiscovery(ServiceDiscoveryError::Connection(error)) => error,
        PulsarError::ServiceDiscovery(ServiceDiscoveryError::Query(answer, _)) => return *answer,
        _ => return None,
    };
    match connection {
        ConnectionError::PulsarError(answer, _) => *answer,
        _ => None,
    }
}

/// The error of something that was tried, such as `publish to cdc:forecasts`.
#[must_use]
pub fn explain(tried: &str, error: &PulsarError) -> Error {
    let explained = match answer(error) {
        _ if matches!(error, PulsarError::Consumer(ConsumerError::Io(_))) => Error::unavailable(format!(
            "cannot {tried}: the next message is compressed with a codec that cannot be read here (ZLIB and SNAPPY cannot), or \
             damaged; let its producer use LZ4, ZSTD or none, and pass over it with `pulsar-admin topics skip -n 1 -s \
             <subscription> <topic>`"
        )),
        Some(ServerError::AuthenticationError) => Error::unavailable(format!(
            "cannot {tried}: pulsar refuses the token; check `token` of the bus resource, and that it has not expired"
        )),
        Some(ServerError::AuthorizationError) => Error::unavailable(format!(
            "cannot {tried}: the token's role may not; grant it with `pulsar-admin namespaces grant-permission`"
        )),
        Some(ServerError::TopicNotFound) => Error::unavailable(format!(
            "cannot {tried}: there is no such topic and the broker makes none; create it with `pulsar-admin topics create`"
        )),
        Some(
            ServerError::InvalidTopicName
            | ServerError::IncompatibleSchema
            | ServerError::TopicTerminatedError
            | ServerError::NotAllowedError,
        ) => Error::rejected(format!("cannot {tried}: pulsar will never allow it")),
        _ => Error::unavailable(format!("cannot {tried}: pulsar is away or busy")),
    };
    explained.because(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_pipeline::error::ErrorKind;

    #[test]
    fn only_what_can_never_succeed_is_rejected() {
        let broker = |answer| ConnectionError::PulsarError(Some(answer), Some("because".into()));
        for (error, kind, hint) in [
            (PulsarError::Connection(broker(ServerError::AuthenticationError)), ErrorKind::Unavailable, "`token`"),
            (
                PulsarError::ServiceDiscovery(ServiceDiscoveryError::Query(
                    Some(ServerError::AuthorizationError),
                    None,
                )),
                ErrorKind::Unavailable,
                "grant-permission",
            ),
            (
                PulsarError::Producer(ProducerError::Connection(broker(ServerError::TopicTerminatedError))),
                ErrorKind::Rejected,
                "never",
            ),
            (
                PulsarError::Consumer(ConsumerError::Io(std::io::Error::other("incomplete deflate stream"))),
                ErrorKind::Unavailable,
                "pulsar-admin topics skip",
            ),
            (PulsarError::Consumer(ConsumerError::Closed), ErrorKind::Unavailable, "away"),
            (PulsarError::Connection(ConnectionError::Disconnected), ErrorKind::Unavailable, "away"),
        ] {
            let explained = explain("publish", &error);
            assert_eq!(explained.kind(), kind, "{error}");
            assert!(explained.chain().contains(hint), "{}", explained.chain());
        }
    }
}
