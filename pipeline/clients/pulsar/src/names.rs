//! Topics as Pulsar spells them: `cdc:forecasts` is `persistent://public/default/cdc:forecasts`.

use smartpulse_pipeline::error::{Error, Result};

/// Longer names are a mistake: the broker keeps them as paths of its metadata.
const NAME_BYTES_MAX: usize = 255;

/// A tenant's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The tenant.
    pub tenant: String,
    /// The namespace's own name.
    pub name: String,
}

impl Namespace {
    /// The full name of a topic. One that is full already is left as it is.
    ///
    /// # Errors
    /// Rejected when Pulsar would take the name for another one.
    pub fn topic(&self, topic: &str) -> Result<String> {
        if topic.starts_with("persistent://") {
            return Ok(topic.to_owned());
        }
        // A slash would be read as a tenant or a namespace, and a percent sign as the escape of another character.
        let legal = |c: char| c.is_alphanumeric() || "-_.:=".contains(c);
        if topic.is_empty() || topic.len() > NAME_BYTES_MAX || !topic.chars().all(legal) {
            return Err(Error::rejected(format!(
                "{topic:?} is no topic name: use 1 to {NAME_BYTES_MAX} letters, digits and any of - _ . : ="
            )));
        }
        Ok(format!("persistent://{}/{topic}", self.path()))
    }

    /// The namespace as it stands in topic names and in paths of the admin interface.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }
}

/// Whether a tenant or a namespace may be called this.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:=".contains(c))
}

/// The topic that a partition is of, and the partition's own name, as acks need it.
#[must_use]
pub fn partition(topic: &str, index: Option<i32>) -> String {
    match index {
        Some(index) if index >= 0 && !topic.contains("-partition-") => format!("{topic}-partition-{index}"),
        _ => topic.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_every_client_uses() {
        let namespace = Namespace { tenant: "public".into(), name: "default".into() };
        for (name, expected) in [
            ("cdc:forecasts", Some("persistent://public/default/cdc:forecasts")),
            ("persistent://a/b/c", Some("persistent://a/b/c")),
            ("gr\u{fc}n", Some("persistent://public/default/gr\u{fc}n")),
            ("", None),
            ("a/b", None),
            ("a%2Fb", None),
            ("a b", None),
        ] {
            assert_eq!(namespace.topic(name).ok().as_deref(), expected, "{name}");
        }
        assert!(namespace.topic(&"x".repeat(256)).is_err());
    }

    #[test]
    fn an_ack_names_the_partition() {
        assert_eq!(partition("t", Some(-1)), "t");
        assert_eq!(partition("t", None), "t");
        assert_eq!(partition("t", Some(3)), "t-partition-3");
        assert_eq!(partition("t-partition-3", Some(3)), "t-partition-3");
    }
}
