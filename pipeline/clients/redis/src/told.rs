//! What Redis told this process of its own messages: no input or output, but what was answered goes in.

use crate::map::Map;
use crate::scripts::SEQUENCE_LIFE;
use crate::slots::Part;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Streams that one process tells of. One per section; more means that a channel does not end with its key.
const STREAMS_MAX: usize = 64;

/// How long a part is not looked at: its sequence must not expire while somebody relies on it.
/// The compiler divides: it cannot fail when this runs.
const IDLE_MAX: Duration = SEQUENCE_LIFE.checked_div(2).unwrap();

/// All streams.
#[derive(Default)]
pub(crate) struct Told {
    streams: BTreeMap<Arc<str>, Stream>,
}

#[derive(Default)]
struct Stream {
    parts: HashMap<Part, Known>,
    /// How often data was found to be lost.
    losses: u64,
    /// How many heartbeats went through each node.
    beats: HashMap<String, u64>,
}

struct Known {
    sequence: u64,
    /// When it was raised last: the order in which parts were written.
    written: Instant,
    looked: Instant,
    /// No heartbeat told of it yet.
    untold: bool,
}

/// What is to be told of one node.
pub(crate) struct Beat {
    /// The part that was written last.
    pub part: Part,
    /// In a cluster: which node, and what was written there, as members of the message.
    pub through: Option<String>,
    /// The other parts of the node.
    pub others: Vec<Part>,
    node: String,
    /// What this tells.
    tells: Vec<(Part, u64)>,
}

impl Told {
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub(crate) fn streams(&self) -> Vec<Arc<str>> {
        self.streams.keys().cloned().collect()
    }

    /// A part's sequence was answered; data may have been found lost on the way.
    pub(crate) fn keep(&mut self, stream: &str, part: Part, sequence: u64, lost: bool) {
        if !self.streams.contains_key(stream) {
            if self.streams.len() >= STREAMS_MAX {
                return;
            }
            self.streams.insert(stream.into(), Stream::default());
        }
        let Some(stream) = self.streams.get_mut(stream) else { return };
        let now = Instant::now();
        let fresh = || Known { sequence: 0, written: now, looked: now, untold: false };
        let known = stream.parts.entry(part).or_insert_with(fresh);
        known.looked = now;
        if sequence > known.sequence {
            (known.sequence, known.written, known.untold) = (sequence, now, true);
        }
        stream.losses += u64::from(lost);
    }

    pub(crate) fn sequence(&self, stream: &str, part: Part) -> u64 {
        self.streams.get(stream).and_then(|stream| stream.parts.get(&part)).map_or(0, |known| known.sequence)
    }

    pub(crate) fn losses(&self, stream: &str) -> u64 {
        self.streams.get(stream).map_or(0, |stream| stream.losses)
    }

    /// The parts that have to be looked at lest their sequence expires.
    pub(crate) fn idle(&self, stream: &str) -> Vec<Part> {
        let parts = self.streams.get(stream).into_iter().flat_map(|stream| &stream.parts);
        parts.filter(|(_, known)| known.looked.elapsed() > IDLE_MAX).map(|(part, _)| *part).collect()
    }

    /// What is to be told now: one beat per node that has parts.
    pub(crate) fn beats(&mut self, stream: &str, map: &Map) -> Vec<Beat> {
        let Some(stream) = self.streams.get_mut(stream) else { return Vec::new() };
        let mut nodes: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
        for part in stream.parts.keys() {
            if let Some(node) = map.owner(*part) {
                nodes.entry(&node.name).or_default().push(*part);
            }
        }
        let beats = nodes.into_iter().filter_map(|(node, mut parts)| {
            let last = (0..parts.len()).max_by_key(|n| stream.parts[&parts[*n]].written)?;
            let part = parts.swap_remove(last);
            Some(Beat { part, others: parts, node: node.to_owned(), through: None, tells: Vec::new() })
        });
        let beats: Vec<Beat> = beats.collect();
        beats.into_iter().map(|beat| stream.fill(beat)).collect()
    }

    /// The same beat, to be told once more.
    pub(crate) fn again(&mut self, stream: &str, beat: &Beat) -> Beat {
        let others = beat.others.clone();
        let beat = Beat { part: beat.part, others, node: beat.node.clone(), through: None, tells: Vec::new() };
        match self.streams.get_mut(stream) {
            Some(stream) => stream.fill(beat),
            None => beat,
        }
    }

    /// A beat was sent.
    pub(crate) fn told(&mut self, stream: &str, beat: &Beat) {
        let Some(stream) = self.streams.get_mut(stream) else { return };
        for (part, sequence) in &beat.tells {
            if let Some(known) = stream.parts.get_mut(part).filter(|known| known.sequence == *sequence) {
                known.untold = false;
            }
        }
    }
}

impl Stream {
    /// Says what a beat through a node of a cluster tells, and counts it.
    fn fill(&mut self, mut beat: Beat) -> Beat {
        let parts = beat.others.iter().chain([&beat.part]);
        let untold = parts
            .filter_map(|part| self.parts.get(part).filter(|known| known.untold).map(|known| (*part, known.sequence)));
        beat.tells = untold.collect();
        if let Part::Slot(_) = beat.part {
            let number = self.beats.entry(beat.node.clone()).or_default();
            *number += 1;
            let mut slots = String::new();
            for (part, sequence) in &beat.tells {
                if let Part::Slot(slot) = part {
                    let comma = if slots.is_empty() { "" } else { "," };
                    // Writing to a string does not fail.
                    let _ = write!(slots, "{comma}\"{slot}\":{sequence}");
                }
            }
            let node = &beat.node;
            beat.through =
                Some(format!(",\"Through\":{{\"Node\":\"{node}\",\"Beat\":{number},\"Slots\":{{{slots}}}}}"));
        }
        beat
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tests::{cluster, single};

    #[test]
    fn a_single_server_is_told_of_as_a_whole() {
        let mut told = Told::default();
        told.keep("s:", Part::Whole, 7, false);
        told.keep("s:", Part::Whole, 5, false);
        assert_eq!((told.sequence("s:", Part::Whole), told.sequence("t:", Part::Whole)), (7, 0));
        let beats = told.beats("s:", &single());
        assert!(beats.len() == 1 && beats[0].part == Part::Whole && beats[0].through.is_none());
        assert!(told.beats("s:", &cluster()).is_empty(), "it is not there now");
        assert!(told.idle("s:").is_empty());
    }

    #[test]
    fn of_each_node_the_part_that_was_written_last_is_looked_at_and_what_was_written_is_told_once() {
        let (mut told, map) = (Told::default(), cluster());
        for (slot, sequence) in [(1, 1), (9_000, 4), (2, 1), (3, 1), (2, 1)] {
            told.keep("s:", Part::Slot(slot), sequence, false);
        }
        let beats = told.beats("s:", &map);
        assert_eq!(beats.iter().map(|beat| beat.part).collect::<Vec<_>>(), [Part::Slot(3), Part::Slot(9_000)]);
        let other = ",\"Through\":{\"Node\":\"h:2\",\"Beat\":1,\"Slots\":{\"9000\":4}}";
        assert_eq!(beats[1].through.as_deref(), Some(other));
        let mut others = beats[0].others.clone();
        others.sort_unstable();
        assert_eq!(others, [Part::Slot(1), Part::Slot(2)]);
        // One more comes while the beat is on its way.
        told.keep("s:", Part::Slot(9_000), 5, false);
        told.keep("s:", Part::Slot(1), 1, true);
        for beat in &beats {
            told.told("s:", beat);
        }
        assert_eq!(told.losses("s:"), 1);
        let again: Vec<_> = told.beats("s:", &map).into_iter().map(|beat| beat.through.unwrap()).collect();
        assert_eq!(again[0], ",\"Through\":{\"Node\":\"h:1\",\"Beat\":2,\"Slots\":{}}");
        assert_eq!(again[1], ",\"Through\":{\"Node\":\"h:2\",\"Beat\":2,\"Slots\":{\"9000\":5}}");
    }
}
