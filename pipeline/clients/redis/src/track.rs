//! Which messages must have been missed, judged by their numbers. Pure: what was received goes in.

use crate::heartbeat::{Heartbeat, Through};
use crate::names;
use std::collections::HashMap;

/// Publishers that are followed at a time, each on each stream. Beyond it all are forgotten, and each is followed again from
/// its next message. In a cluster each has a number per slot.
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
    /// By publisher, then by stream.
    publishers: HashMap<Box<str>, HashMap<Box<str>, Seen>>,
    /// How many pairs of both there are.
    known: usize,
}

/// What was seen of a publisher on a stream.
#[derive(Debug, Default)]
struct Seen {
    /// The last number; in a cluster, that of each slot.
    numbers: HashMap<Option<u16>, u64>,
    /// The last heartbeat that came through each node of a cluster.
    beats: HashMap<String, u64>,
    /// How often it found that data was lost.
    losses: u64,
}

impl Track {
    pub(crate) fn new(pattern: &str) -> Self {
        Self { pattern: pattern.into(), publishers: HashMap::new(), known: 0 }
    }

    /// Forgets all numbers: the connection is a new one, and who lost messages was told.
    pub(crate) fn reconnected(&mut self) {
        for seen in self.publishers.values_mut().flat_map(HashMap::values_mut) {
            seen.numbers.clear();
            seen.beats.clear();
        }
    }

    /// A message came.
    pub(crate) fn message(&mut self, channel: &str, payload: &[u8]) -> Missing {
        let stream = names::stream(channel);
        match (publisher(payload), number(payload)) {
            (Some(publisher), Some((slot, number))) if names::covers(&self.pattern, stream) => {
                let before = self.seen(publisher, stream).numbers.insert(slot, number);
                if before.is_some_and(|before| number != before + 1) { Missing::Some } else { Missing::None }
            }
            // Not numbered, or not all of its neighbours are ours.
            _ => Missing::None,
        }
    }

    /// A publisher told how far it is.
    pub(crate) fn heartbeat(&mut self, stream: &str, heartbeat: Heartbeat) -> Missing {
        let covers = names::covers(&self.pattern, stream);
        let seen = self.seen(&heartbeat.data_manager_id, stream);
        // Whoever is heard for the first time may have found it before or after we came.
        let mut missing = std::mem::replace(&mut seen.losses, heartbeat.losses) != heartbeat.losses;
        if covers {
            missing |= heartbeat.through.is_some_and(|through| seen.misses(through));
            let before = seen.numbers.insert(heartbeat.publisher_slot, heartbeat.publisher_seq);
            missing |= before.is_some_and(|before| before != heartbeat.publisher_seq);
        }
        if missing { Missing::Some } else { Missing::None }
    }

    fn seen(&mut self, publisher: &str, stream: &str) -> &mut Seen {
        let known = self.publishers.get(publisher).is_some_and(|streams| streams.contains_key(stream));
        if !known {
            if self.known >= PUBLISHERS_MAX {
                self.publishers.clear();
                self.known = 0;
            }
            self.known += 1;
        }
        self.publishers.entry(publisher.into()).or_default().entry(stream.into()).or_default()
    }
}

impl Seen {
    /// True if a heartbeat that came through a node of a cluster tells of messages, or of a heartbeat, that did not come.
    fn misses(&mut self, through: Through) -> bool {
        let Through { node, beat, slots } = through;
        let before = self.beats.insert(node, beat);
        let mut missing = before.is_some_and(|before| beat != before + 1);
        for (slot, number) in slots {
            let seen = self.numbers.entry(Some(slot)).or_default();
            // Who heard the heartbeat before heard all that was written since.
            missing |= before.is_some() && *seen < number;
            *seen = number.max(*seen);
        }
        missing
    }
}

/// The first member, `DataManagerId`, without reading the rest.
fn publisher(payload: &[u8]) -> Option<&str> {
    let rest = payload.strip_prefix(b"{\"DataManagerId\":\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// The last members, `PublisherSeq` and in a cluster `PublisherSlot` before it, without reading the rest.
fn number(payload: &[u8]) -> Option<(Option<u16>, u64)> {
    let (rest, number) = trailing(payload.strip_suffix(b"}")?)?;
    let rest = rest.strip_suffix(b",\"PublisherSeq\":")?;
    let slot = trailing(rest).filter(|(rest, _)| rest.ends_with(b",\"PublisherSlot\":"));
    Some((slot.and_then(|(_, slot)| u16::try_from(slot).ok()), number))
}

/// The number at the end, and what stands before it.
fn trailing(text: &[u8]) -> Option<(&[u8], u64)> {
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, digits) = text.split_at(text.len() - digits);
    Some((rest, std::str::from_utf8(digits).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "__dataChanged:production:forecast:";

    fn message(publisher: &str, number: u64) -> Vec<u8> {
        format!("{{\"DataManagerId\":\"{publisher}\",\"VersionId\":7,\"PublisherSeq\":{number}}}").into_bytes()
    }

    fn beat(publisher: &str, number: u64, losses: u64) -> Heartbeat {
        let data_manager_id = publisher.to_owned();
        Heartbeat { data_manager_id, losses, publisher_seq: number, ..Heartbeat::default() }
    }

    #[test]
    fn a_missing_number_is_noticed_by_the_next_message_or_the_heartbeat() {
        let mut track = Track::new("__dataChanged:production:forecast:*");
        let channel = format!("{STREAM}k");
        assert_eq!(track.message(&channel, &message("a", 5)), Missing::None);
        assert_eq!(track.message(&channel, &message("b", 1)), Missing::None);
        assert_eq!(track.message(&channel, &message("a", 6)), Missing::None);
        assert_eq!(track.heartbeat(STREAM, beat("a", 6, 0)), Missing::None);
        assert_eq!(track.message(&channel, &message("a", 8)), Missing::Some);
        assert_eq!(track.heartbeat(STREAM, beat("a", 9, 0)), Missing::Some);
        assert_eq!(track.heartbeat(STREAM, beat("a", 9, 0)), Missing::None);
        assert_eq!(track.message(&channel, &message("b", 2)), Missing::None);
        assert_eq!(track.message(&channel, &message("a", 1)), Missing::Some, "the numbers began again");
        assert_eq!(track.heartbeat(STREAM, beat("a", 1, 1)), Missing::Some, "another life of the data");
        track.reconnected();
        assert_eq!(track.message(&channel, &message("a", 77)), Missing::None);
    }

    fn in_slot(slot: u16, number: u64) -> Vec<u8> {
        format!("{{\"DataManagerId\":\"a\",\"PublisherSlot\":{slot},\"PublisherSeq\":{number}}}").into_bytes()
    }

    fn through(node: &str, beat: u64, slots: &[(u16, u64)]) -> Heartbeat {
        let (slot, number) = slots.last().copied().unwrap_or((9, 1));
        let through = Through { node: node.to_owned(), beat, slots: slots.iter().copied().collect() };
        let publisher = Heartbeat { data_manager_id: "a".to_owned(), publisher_seq: number, ..Heartbeat::default() };
        Heartbeat { publisher_slot: Some(slot), through: Some(through), ..publisher }
    }

    #[test]
    fn in_a_cluster_numbers_count_per_slot_and_a_heartbeat_tells_of_slots_that_were_never_heard_of() {
        let mut track = Track::new("__dataChanged:*");
        let channel = format!("{STREAM}k");
        assert_eq!(track.message(&channel, &in_slot(1, 5)), Missing::None);
        assert_eq!(track.message(&channel, &in_slot(2, 9)), Missing::None);
        assert_eq!(track.message(&channel, &in_slot(1, 6)), Missing::None);
        assert_eq!(track.heartbeat(STREAM, through("x", 4, &[(1, 6), (2, 9), (3, 1)])), Missing::None, "the first one");
        assert_eq!(track.heartbeat(STREAM, through("y", 7, &[(20, 1)])), Missing::None);
        assert_eq!(track.message(&channel, &in_slot(3, 2)), Missing::None);
        assert_eq!(track.message(&channel, &in_slot(4, 1)), Missing::None);
        assert_eq!(track.heartbeat(STREAM, through("x", 5, &[(3, 2), (4, 1)])), Missing::None);
        assert_eq!(track.heartbeat(STREAM, through("x", 6, &[])), Missing::None);
        assert_eq!(track.heartbeat(STREAM, through("x", 7, &[(5, 1)])), Missing::Some, "never heard of");
        assert_eq!(track.heartbeat(STREAM, through("x", 8, &[(5, 1)])), Missing::None, "told before");
        assert_eq!(track.heartbeat(STREAM, through("x", 10, &[])), Missing::Some, "a heartbeat was lost");
        assert_eq!(track.message(&channel, &in_slot(2, 11)), Missing::Some);
        track.reconnected();
        assert_eq!(track.heartbeat(STREAM, through("x", 17, &[(5, 4)])), Missing::None);
    }

    #[test]
    fn a_heartbeat_is_read_as_it_is_sent() {
        let text = r#"{"DataManagerId":"a","Losses":2,"Through":{"Node":"h:1","Beat":3,"Slots":{"77":4}},"PublisherSlot":77,"PublisherSeq":4}"#;
        let heartbeat: Heartbeat = serde_json::from_str(text).unwrap();
        let Through { node, beat, slots } = heartbeat.through.unwrap();
        assert_eq!((node.as_str(), beat, slots[&77]), ("h:1", 3, 4));
        let heartbeat: Heartbeat =
            serde_json::from_str(r#"{"DataManagerId":"a","Losses":0,"PublisherSeq":4}"#).unwrap();
        assert!(heartbeat.through.is_none() && heartbeat.publisher_slot.is_none());
    }

    #[test]
    fn who_hears_only_a_part_misses_nothing() {
        let mut track = Track::new("__dataChanged:production:forecast:k");
        assert_eq!(track.message(&format!("{STREAM}k"), &message("a", 5)), Missing::None);
        assert_eq!(track.message(&format!("{STREAM}k"), &message("a", 9)), Missing::None);
        assert_eq!(track.heartbeat(STREAM, beat("a", 12, 0)), Missing::None);
        assert_eq!(track.message("plain", b"no number"), Missing::None);
    }

    #[test]
    fn numbers_are_read_from_the_ends() {
        assert_eq!((publisher(&message("a", 5)), number(&message("a", 5))), (Some("a"), Some((None, 5))));
        assert_eq!(number(&in_slot(7, 5)), Some((Some(7), 5)));
        for other in
            [&b"{}"[..], b"", b"{\"PublisherSeq\":}", b"{\"DataManagerId\":\"x", b"{\"a\":1,\"PublisherSeq\":x}"]
        {
            assert_eq!((publisher(other), number(other)), (None, None));
        }
    }
}
