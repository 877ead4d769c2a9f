//! What things are called in Redis.

use crate::slots::{Part, Tag};
use smartpulse_clients::pubsub::Publication;

/// Which life of a part of the data this is.
pub(crate) fn generation(tag: Tag) -> String {
    format!("smartpulse:{tag}generation")
}

/// What heartbeats are published on, in front of the channels that they speak of.
pub(crate) const HEARTBEATS: &str = "__publisherSeq:";

/// What the channels begin with on which a subscription of a cluster hears itself.
pub(crate) const ECHOES: &str = "__echo:";

/// What the channels begin with that tell of every change of an entity.
const DATA_CHANGED: &str = "__dataChanged:";

/// What is kept beside a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Its counter.
    Counter,
    /// The counter, and the document that instances share.
    Document,
}

/// The hash that a publication is compared with. Counters are per channel; that of a `__dataChanged` channel is the
/// entity's own.
pub(crate) fn hash(publication: &Publication) -> (String, Keeps) {
    let Publication { channel, section, key, .. } = publication;
    let before_section = channel.strip_suffix(&**key).and_then(|rest| rest.strip_suffix(':'));
    let before_section = before_section.and_then(|rest| rest.strip_suffix(&**section));
    if before_section.is_some_and(|rest| rest.starts_with(DATA_CHANGED) && rest.ends_with(':')) {
        (entity(section, key), Keeps::Document)
    } else {
        (format!("smartpulse:channel:{channel}"), Keeps::Counter)
    }
}

/// The hash of an entity.
pub(crate) fn entity(section: &str, key: &str) -> String {
    format!("{section}:{key}")
}

/// The sequence of a publisher on the channels of one section, in a part of the data.
pub(crate) fn sequence(tag: Tag, instance: &str, stream: &str) -> String {
    format!("smartpulse:{tag}publisher:{instance}:{stream}")
}

/// What a message ends with, before its number. Numbers count per slot of a cluster, which is then named.
pub(crate) fn before_number(part: Part) -> String {
    match part {
        Part::Whole => ",\"PublisherSeq\":".to_owned(),
        Part::Slot(slot) => format!(",\"PublisherSlot\":{slot},\"PublisherSeq\":"),
    }
}

/// Who has a duty.
pub(crate) fn duty(name: &str) -> String {
    format!("smartpulse:duty:{name}")
}

/// What a channel has in common with the others of its section: all before the key. Messages are numbered per publisher
/// and stream, so that whoever listens to one section misses none of another.
pub(crate) fn stream(channel: &str) -> &str {
    channel.rfind(':').map_or("", |colon| &channel[..=colon])
}

/// True if who listens to `pattern` gets everything of a stream.
pub(crate) fn covers(pattern: &str, stream: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| !prefix.contains('*') && stream.starts_with(prefix))
}

/// The pattern as Redis reads it, in which more than `*` has a meaning.
pub(crate) fn glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        if matches!(c, '?' | '[' | ']' | '^' | '\\') {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_channel_without_its_key() {
        assert_eq!(stream("__dataChanged:production:forecast:k"), "__dataChanged:production:forecast:");
        assert_eq!(stream("plain"), "");
        for (pattern, covered) in [
            ("*", true),
            ("__dataChanged:*", true),
            ("__dataChanged:production:forecast:*", true),
            ("__dataChanged:production:forecast:k", false),
            ("__dataChanged:production:forecast:k*", false),
            ("__dataChanged:*:forecast:*", false),
            ("__dataChanged:staging:*", false),
        ] {
            assert_eq!(covers(pattern, "__dataChanged:production:forecast:"), covered, "{pattern}");
        }
    }

    #[test]
    fn an_entity_s_hash_is_that_of_the_channel_which_tells_of_all_its_changes() {
        let keeps = |channel: &str| {
            let publication = Publication {
                channel: channel.into(),
                section: "forecast".into(),
                key: "a:b".into(),
                version: 1,
                previous_version: None,
                patch: bytes::Bytes::new(),
                whole: bytes::Bytes::new(),
                document: None,
                resync: false,
                known_only: false,
            };
            hash(&publication)
        };
        assert_eq!(keeps("__dataChanged:production:forecast:a:b"), ("forecast:a:b".to_owned(), Keeps::Document));
        for other in
            ["__dataChanged:production:unit:a:b", "__dataChanged:production:forecast:b", "feed:forecast:a:b", "a:b", ""]
        {
            assert_eq!(keeps(other), (format!("smartpulse:channel:{other}"), Keeps::Counter));
        }
    }

    #[test]
    fn only_a_star_has_a_meaning() {
        assert_eq!(glob("a:[b]?\\^*"), "a:\\[b\\]\\?\\\\\\^*");
    }
}
