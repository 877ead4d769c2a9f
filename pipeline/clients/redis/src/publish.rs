//! Publishing: changes in order, some dozens per call of the script (in a cluster those of one slot), all calls of a batch
//! in one pipeline for each server.

use crate::map::Map;
use crate::names::Keeps;
use crate::nodes::Lane;
use crate::scripts::{DOCUMENT_LIFE, KEY_LIFE, KEY_SLACK, SEQUENCE_LIFE, millis};
use crate::slots::Part;
use crate::{Inner, errors, heartbeat, names};
use redis::{Cmd, FromRedisValue, RedisWrite};
use smartpulse_clients::pubsub::{Outcome, Publication, open_object};
use smartpulse_pipeline::error::{Error, Result};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

/// How many changes one call takes at most. The server does nothing else during a call: this is under a millisecond.
pub const CALL_CHANGES_MAX: usize = 64;

/// How many bytes one call takes at most, unless one change alone is larger.
const CALL_BYTES_MAX: usize = 256 << 10;

/// Versions go through Lua, whose numbers are exact up to here.
const VERSION_MAX: i64 = 1 << 53;

impl Inner {
    pub(crate) async fn publish(self: &Arc<Self>, publications: &[Publication]) -> Result<Vec<Outcome>> {
        if publications.is_empty() {
            return Ok(Vec::new());
        }
        let map = self.nodes.map().await?;
        let changes = publications.iter().enumerate().map(|(place, publication)| Change::of(place, publication, &map));
        let mut changes = changes.collect::<Result<Vec<_>>>()?;
        // A call is of one part. Within it the order stays.
        changes.sort_by_key(|change| change.part);
        let calls = self.numbered(calls(&changes, self.call_changes_max));
        let fresh = self.fresh_generation();
        let call = |call: &Call<'_, '_>| self.call(&map, &fresh, call);
        let answers = self.nodes.send(Lane::Publishing, "publish", &calls, call).await?;
        let mut outcomes = vec![Outcome::Stale; publications.len()];
        for (answer, (part, Call { changes, .. })) in answers.into_iter().zip(calls) {
            let (letters, sequence, lost) =
                <(String, u64, u8)>::from_redis_value(answer).map_err(|error| errors::unread("publish", error))?;
            for (change, letter) in changes.iter().zip(letters.chars()) {
                outcomes[change.place] = outcome(letter);
            }
            heartbeat::keep(self, stream(changes), part, sequence, lost == 1);
        }
        Ok(outcomes)
    }

    /// Numbers messages as if each were sent, and nobody else sent any: then the script need not put them together anew.
    fn numbered<'c, 'a>(&self, calls: Vec<(Part, &'c [Change<'a>])>) -> Vec<(Part, Call<'c, 'a>)> {
        let mut before: BTreeMap<(Part, &str), u64> = BTreeMap::new();
        let number = |(part, changes): (Part, &'c [Change<'a>])| {
            let stream = stream(changes);
            let (told, before) = (heartbeat::told(self, stream, part), before.entry((part, stream)).or_default());
            let first = told + *before + 1;
            *before += changes.len() as u64;
            (part, Call { changes, told, first })
        };
        calls.into_iter().map(number).collect()
    }

    fn call(&self, map: &Map, fresh: &str, Call { changes, told, first }: &Call<'_, '_>) -> Cmd {
        let (stream, part) = (stream(changes), changes.first().map_or(Part::Whole, |change| change.part));
        let tag = map.tag(part);
        let (generation, sequence) = (names::generation(tag), names::sequence(tag, &self.instance, stream));
        let mut keys = vec![&*generation, &*sequence];
        keys.extend(changes.iter().map(|change| &*change.hash));
        let mut call = self.nodes.scripts.publish.on(&keys);
        call.arg(millis(DOCUMENT_LIFE)).arg(millis(KEY_LIFE)).arg(millis(KEY_SLACK)).arg(SEQUENCE_LIFE.as_secs());
        let before_number = names::before_number(part);
        call.arg(told).arg(fresh).arg(&before_number).arg(first);
        for (number, change) in (*first..).zip(*changes) {
            change.write(&mut call, &before_number, number);
        }
        call
    }
}

/// The stream of a call, which is that of all its changes.
fn stream<'a>(changes: &[Change<'a>]) -> &'a str {
    changes.first().map_or("", |change| change.stream)
}

/// What one call publishes.
struct Call<'c, 'a> {
    changes: &'c [Change<'a>],
    /// The number that Redis told last.
    told: u64,
    /// The number of its first message.
    first: u64,
}

/// A publication, as the script takes it.
struct Change<'a> {
    publication: &'a Publication,
    /// Where it stands in its batch.
    place: usize,
    part: Part,
    stream: &'a str,
    /// Where its counter is.
    hash: String,
    flags: String,
    /// Its message with the patch, without the closing brace.
    patch: &'a [u8],
    document: &'a [u8],
    /// How the message with the whole document differs: see the script.
    around: Vec<u8>,
}

impl<'a> Change<'a> {
    fn of(place: usize, publication: &'a Publication, map: &Map) -> Result<Self> {
        if publication.version >= VERSION_MAX {
            return Err(Error::rejected(format!("version {} is beyond 2^53", publication.version)));
        }
        let patch = with_members(&publication.patch)?;
        let whole = with_members(&publication.whole)?;
        let (before, document, after) = match &publication.document {
            Some(range) if range.start <= range.end && range.end <= whole.len() => {
                (&whole[..range.start], &whole[range.clone()], &whole[range.end..])
            }
            Some(_) => return Err(Error::rejected("the document does not lie within its message")),
            None => (whole, &[][..], &[][..]),
        };
        let same = publication.patch == publication.whole;
        let around = if same { Vec::new() } else { around(patch, before, after) };
        let (hash, keeps) = names::hash(publication);
        let mut flags = String::new();
        flags.extend(publication.resync.then_some('r'));
        flags.extend(publication.known_only.then_some('k'));
        flags.extend(publication.document.is_none().then_some('g'));
        flags.extend((keeps == Keeps::Counter).then_some('c'));
        Ok(Self {
            publication,
            place,
            part: map.part(&hash),
            stream: names::stream(&publication.channel),
            hash,
            flags,
            patch,
            document,
            around,
        })
    }

    fn bytes(&self) -> usize {
        self.patch.len() + self.document.len() + self.around.len()
    }

    fn write(&self, call: &mut Cmd, before_number: &str, number: u64) {
        let Publication { channel, version, previous_version, .. } = self.publication;
        call.arg(&**channel).arg(version);
        // The script takes it that a version is above the one it follows.
        match previous_version.filter(|previous| previous < version) {
            Some(previous) => call.arg(previous),
            None => call.arg(""),
        };
        call.arg(&self.flags);
        let mut message = call.writer_for_next_arg();
        // Writing to memory does not fail.
        let _ = message.write_all(self.patch).and_then(|()| write!(message, "{before_number}{number}}}"));
        drop(message);
        call.arg(self.document).arg(&self.around);
    }
}

/// How a message around a document differs from that with the patch: how many bytes of that it begins and ends with, how
/// many of its own come before the document, and its own.
fn around(patch: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    let head = patch.iter().zip(before).take_while(|(one, other)| one == other).count();
    let tail = patch[head..].iter().rev().zip(after.iter().rev()).take_while(|(one, other)| one == other).count();
    let (before, after) = (&before[head..], &after[..after.len() - tail]);
    [format!("{head},{tail},{},", before.len()).as_bytes(), before, after].concat()
}

/// Cuts a batch into calls: of one part and one stream each, and bounded.
fn calls<'c, 'a>(changes: &'c [Change<'a>], changes_max: usize) -> Vec<(Part, &'c [Change<'a>])> {
    let mut calls = Vec::with_capacity(changes.len() / changes_max + 1);
    let (mut start, mut bytes) = (0, 0);
    for (n, change) in changes.iter().enumerate() {
        let full = n - start == changes_max || bytes + change.bytes() > CALL_BYTES_MAX;
        let first = &changes[start];
        if n > start && (full || first.stream != change.stream || first.part != change.part) {
            calls.push((first.part, &changes[start..n]));
            (start, bytes) = (n, 0);
        }
        bytes += change.bytes();
    }
    if let Some(first) = changes.get(start) {
        calls.push((first.part, &changes[start..]));
    }
    calls
}

fn outcome(letter: char) -> Outcome {
    match letter {
        'P' => Outcome::Patch,
        'W' => Outcome::Whole,
        'U' => Outcome::Unknown,
        _ => Outcome::Stale,
    }
}

/// The message without its closing brace: the script adds its number as the last member.
fn with_members(message: &[u8]) -> Result<&[u8]> {
    let open = open_object(message)?;
    if open.trim_ascii().len() > 1 { Ok(open) } else { Err(Error::rejected("a message to publish has no members")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tests::{cluster, single};
    use bytes::Bytes;

    fn publication(channel: &str, bytes: usize) -> Publication {
        let whole = format!("{{\"PatchItems\":[{{\"Value\":\"{}\"}}]}}", "x".repeat(bytes));
        Publication {
            channel: channel.into(),
            section: "s".into(),
            key: "k".into(),
            version: 1,
            previous_version: None,
            patch: Bytes::from_static(b"{\"a\":1}"),
            document: Some(24..24 + bytes + 2),
            whole: whole.into(),
            resync: false,
            known_only: false,
        }
    }

    #[test]
    fn a_message_is_cut_around_its_document() {
        let publication = publication("a:b:k", 3);
        let change = Change::of(0, &publication, &single()).unwrap();
        assert_eq!((change.stream, change.patch), ("a:b:", &b"{\"a\":1"[..]));
        assert_eq!((change.document, &*change.around), (&b"\"xxx\""[..], &b"2,0,22,PatchItems\":[{\"Value\":}]"[..]));
        // What both begin and end with is sent once, and no byte of the patch is taken twice.
        assert_eq!(around(b"{1,2,4", b"{1,3", b"3,4"), b"3,2,1,33");
        assert_eq!(around(b"{aa", b"{aa", b"aab"), b"3,0,0,aab");
        assert_eq!(around(b"{aa", b"{a", b"aa"), b"2,1,0,a");
        for (wrong, range) in [("[]", None), ("{}", None), ("{\"a\":1}", Some(0..7))] {
            let wrong =
                Publication { whole: Bytes::from_static(wrong.as_bytes()), document: range, ..publication.clone() };
            assert!(Change::of(0, &wrong, &single()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_batch_is_cut_by_number_bytes_and_stream_and_keeps_its_order() {
        let map = single();
        let lengths = |publications: &[Publication]| {
            let changes: Vec<Change<'_>> = publications.iter().map(|p| Change::of(0, p, &map).unwrap()).collect();
            calls(&changes, CALL_CHANGES_MAX).iter().map(|(_, call)| call.len()).collect::<Vec<usize>>()
        };
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&vec![publication("a:k", 1); CALL_CHANGES_MAX + 1]), [CALL_CHANGES_MAX, 1]);
        assert_eq!(lengths(&[publication("a:k", 1), publication("b:k", 1), publication("a:k", 1)]), [1, 1, 1]);
        let large = publication("a:k", CALL_BYTES_MAX);
        assert_eq!(lengths(&[large.clone(), large, publication("a:k", 1)]), [1, 1, 1]);
    }

    #[test]
    fn in_a_cluster_a_call_is_of_one_slot() {
        let map = cluster();
        let keys = ["a", "b", "{a}c", "b"].map(|key| Publication { key: key.into(), ..publication(key, 1) });
        let channel = |p: Publication| Publication { channel: format!("__dataChanged:p:s:{}", p.key).into(), ..p };
        let publications = keys.map(channel);
        let changes = publications.iter().enumerate().map(|(place, p)| Change::of(place, p, &map).unwrap());
        let mut changes: Vec<Change<'_>> = changes.collect();
        changes.sort_by_key(|change| change.part);
        let mut places: Vec<Vec<usize>> =
            calls(&changes, 64).iter().map(|(_, call)| call.iter().map(|change| change.place).collect()).collect();
        places.sort();
        // `s:a` and `s:{a}c` are in different slots, which are those of `s:a` and of `a`.
        assert_eq!(places, [vec![0], vec![1, 3], vec![2]]);
    }
}
