//! What things are called in Redis.

/// Which life of the data this is.
pub(crate) const GENERATION: &str = "smartpulse:generation";

/// What heartbeats are published on, in front of the channels that they speak of.
pub(crate) const HEARTBEATS: &str = "__publisherSeq:";

/// The hash of an entity.
pub(crate) fn entity(section: &str, key: &str) -> String {
    format!("{section}:{key}")
}

/// The sequence of a publisher on the channels of one section.
pub(crate) fn sequence(instance: &str, stream: &str) -> String {
    format!("smartpulse:publisher:{instance}:{stream}")
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
    fn only_a_star_has_a_meaning() {
        assert_eq!(glob("a:[b]?\\^*"), "a:\\[b\\]\\?\\\\\\^*");
    }
}
