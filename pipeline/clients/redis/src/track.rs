//! Which messages must have been missed, judged by their numbers. Pure: what was received goes in.

use crate::heartbeat::Heartbeat;
use crate::names;
use std::collections::HashMap;

/// Publishers that are followed at a time. Beyond it all are forgotten, and each is followed again from its next message.
const PUBLISHERS_MAX: usize = 1_024;

/// Whether messages are missing before what was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    None,
    Some,
}

/// The numbers that one subscriber has seen.
#[derive(Debug)]
pub(crate) struct Track {
    pattern: Box<str>,
    /// The last number of each publisher and stream.
    last: HashMap<(Box<str>, Box<str>), u64>,
    generation: Option<String>,
}

impl Track {
    pub(crate) fn new(pattern: &str) -> Self {
        Self { pattern: pattern.into(), last: HashMap::new(), generation: None }
    }

    /// Which life of the data it is.
    pub(crate) fn lives_in(&mut self, generation: String) {
        self.generation = Some(generation);
    }

    /// Forgets all numbers: the connection is a new one, and who lost messages was told.
    pub(crate) fn reconnected(&mut self) {
        self.last.clear();
    }

    /// A message came.
    pub(crate) fn message(&mut self, channel: &str, payload: &[u8]) -> Missing {
        let stream = names::stream(channel);
        match (publisher(payload), number(payload)) {
            (Some(publisher), Some(number)) if names::covers(&self.pattern, stream) => {
                let before = self.see(publisher, stream, number);
                if before.is_some_and(|before| number != before + 1) { Missing::Some } else { Missing::None }
            }
            // Not numbered, or not all of its neighbours are ours.
            _ => Missing::None,
        }
    }

    /// A publisher told how far it is.
    pub(crate) fn heartbeat(&mut self, stream: &str, heartbeat: Heartbeat) -> Missing {
        let mut missing = Missing::None;
        if names::covers(&self.pattern, stream) {
            let before = self.see(&heartbeat.data_manager_id, stream, heartbeat.publisher_seq);
            if before.is_some_and(|before| before != heartbeat.publisher_seq) {
                missing = Missing::Some;
            }
        }
        if self.generation.as_ref().is_some_and(|known| *known != heartbeat.generation) {
            missing = Missing::Some;
        }
        self.generation = Some(heartbeat.generation);
        missing
    }

    fn see(&mut self, publisher: &str, stream: &str, number: u64) -> Option<u64> {
        let known = self.last.len();
        if known >= PUBLISHERS_MAX {
            self.last.clear();
        }
        self.last.insert((publisher.into(), stream.into()), number)
    }
}

/// The first member, `DataManagerId`, without reading the rest.
fn publisher(payload: &[u8]) -> Option<&str> {
    let rest = payload.strip_prefix(b"{\"DataManagerId\":\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// The last member, `PublisherSeq`, without reading the rest.
fn number(payload: &[u8]) -> Option<u64> {
    let open = payload.strip_suffix(b"}")?;
    let digits = open.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, digits) = open.split_at(open.len() - digits);
    rest.ends_with(b",\"PublisherSeq\":").then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "__dataChanged:production:forecast:";

    fn message(publisher: &str, number: u64) -> Vec<u8> {
        format!("{{\"DataManagerId\":\"{publisher}\",\"VersionId\":7,\"PublisherSeq\":{number}}}").into_bytes()
    }

    fn beat(publisher: &str, number: u64, generation: &str) -> Heartbeat {
        Heartbeat { data_manager_id: publisher.to_owned(), generation: generation.to_owned(), publisher_seq: number }
    }

    #[test]
    fn a_missing_number_is_noticed_by_the_next_message_or_the_heartbeat() {
        let mut track = Track::new("__dataChanged:production:forecast:*");
        let channel = format!("{STREAM}k");
        assert_eq!(track.message(&channel, &message("a", 5)), Missing::None);
        assert_eq!(track.message(&channel, &message("b", 1)), Missing::None);
        assert_eq!(track.message(&channel, &message("a", 6)), Missing::None);
        assert_eq!(track.heartbeat(STREAM, beat("a", 6, "g")), Missing::None);
        assert_eq!(track.message(&channel, &message("a", 8)), Missing::Some);
        assert_eq!(track.heartbeat(STREAM, beat("a", 9, "g")), Missing::Some);
        assert_eq!(track.heartbeat(STREAM, beat("a", 9, "g")), Missing::None);
        assert_eq!(track.message(&channel, &message("b", 2)), Missing::None);
        assert_eq!(track.message(&channel, &message("a", 1)), Missing::Some, "the numbers began again");
        assert_eq!(track.heartbeat(STREAM, beat("a", 1, "h")), Missing::Some, "another life of the data");
        track.reconnected();
        assert_eq!(track.message(&channel, &message("a", 77)), Missing::None);
    }

    #[test]
    fn who_hears_only_a_part_misses_nothing() {
        let mut track = Track::new("__dataChanged:production:forecast:k");
        assert_eq!(track.message(&format!("{STREAM}k"), &message("a", 5)), Missing::None);
        assert_eq!(track.message(&format!("{STREAM}k"), &message("a", 9)), Missing::None);
        assert_eq!(track.heartbeat(STREAM, beat("a", 12, "g")), Missing::None);
        assert_eq!(track.message("plain", b"no number"), Missing::None);
    }

    #[test]
    fn numbers_are_read_from_the_ends() {
        assert_eq!((publisher(&message("a", 5)), number(&message("a", 5))), (Some("a"), Some(5)));
        for other in
            [&b"{}"[..], b"", b"{\"PublisherSeq\":}", b"{\"DataManagerId\":\"x", b"{\"a\":1,\"PublisherSeq\":x}"]
        {
            assert_eq!((publisher(other), number(other)), (None, None));
        }
    }
}
