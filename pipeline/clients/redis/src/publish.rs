//! Publishing: changes in order, some dozens per call of the script, all calls of a batch in one pipeline.

use crate::names::Keeps;
use crate::scripts::{DOCUMENT_LIFE, KEY_LIFE, KEY_SLACK, SEQUENCE_LIFE, millis};
use crate::{Inner, heartbeat, names};
use redis::{Cmd, ErrorKind, Pipeline, RedisResult, ServerErrorKind};
use smartpulse_clients::pubsub::{Outcome, Publication, open_object};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;

/// How many changes one call takes at most. The server does nothing else during a call: this is under a millisecond.
pub const CALL_CHANGES_MAX: usize = 64;

/// How many bytes one call takes at most, unless one change alone is larger.
const CALL_BYTES_MAX: usize = 256 << 10;

/// How often a batch is sent again because the server forgot the script.
const LOADS_MAX: usize = 3;

/// Versions go through Lua, whose numbers are exact up to here.
const VERSION_MAX: i64 = 1 << 53;

impl Inner {
    pub(crate) async fn publish(self: &Arc<Self>, publications: &[Publication]) -> Result<Vec<Outcome>> {
        if publications.is_empty() {
            return Ok(Vec::new());
        }
        let changes = publications.iter().map(Change::of).collect::<Result<Vec<_>>>()?;
        let mut calls = calls(&changes, self.call_changes_max).into_iter().peekable();
        let mut outcomes = Vec::with_capacity(changes.len());
        for _ in 0..=LOADS_MAX {
            let mut pipeline = Pipeline::new();
            for changes in calls.clone() {
                pipeline.add_command(self.call(changes));
            }
            pipeline.ignore_errors();
            let pipeline = &pipeline;
            let send = |mut connection| async move { done(pipeline.query_async(&mut connection).await?) };
            for ((letters, sequence), changes) in
                self.publishing.ask("publish", send).await?.into_iter().zip(&mut calls)
            {
                outcomes.extend(letters.chars().map(outcome));
                heartbeat::keep(self, stream(changes), sequence);
            }
            if calls.peek().is_none() {
                return Ok(outcomes);
            }
            let script = &self.scripts.publish;
            let load = |mut connection| async move { script.load_async(&mut connection).await.map(drop) };
            self.publishing.ask("load a script", load).await?;
        }
        Err(Error::unavailable("redis forgets scripts as fast as they are loaded; does something run SCRIPT FLUSH?"))
    }

    fn call(&self, changes: &[Change<'_>]) -> Cmd {
        let stream = stream(changes);
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.scripts.publish.get_hash()).arg(changes.len() + 2);
        call.arg(names::GENERATION).arg(names::sequence(&self.instance, stream));
        for change in changes {
            call.arg(&change.hash);
        }
        call.arg(millis(DOCUMENT_LIFE)).arg(millis(KEY_LIFE)).arg(millis(KEY_SLACK)).arg(SEQUENCE_LIFE.as_secs());
        call.arg(heartbeat::told(self, stream)).arg(self.fresh_generation());
        for change in changes {
            change.write(&mut call);
        }
        call
    }
}

/// What a call answers: a letter per change, and the publisher's sequence.
type Answer = (String, u64);

/// The answers up to the first call whose script the server forgot: what later ones did is stale when it comes again. Any
/// other error is the whole pipeline's: what it says of the connection has to be heard.
fn done(answers: Vec<RedisResult<Answer>>) -> RedisResult<Vec<Answer>> {
    let forgotten = |answer: &RedisResult<Answer>| {
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
    };
    answers.into_iter().take_while(|answer| !forgotten(answer)).collect()
}

/// The stream of a call, which is that of all its changes.
fn stream<'a>(changes: &[Change<'a>]) -> &'a str {
    changes.first().map_or("", |change| change.stream)
}

/// A publication, cut where the script puts it together.
struct Change<'a> {
    publication: &'a Publication,
    stream: &'a str,
    /// Where its counter is.
    hash: String,
    flags: String,
    /// Empty when it is the whole document anyway.
    patch: &'a [u8],
    before: &'a [u8],
    document: &'a [u8],
    after: &'a [u8],
}

impl<'a> Change<'a> {
    fn of(publication: &'a Publication) -> Result<Self> {
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
        let (hash, keeps) = names::hash(publication);
        let mut flags = String::new();
        flags.extend(publication.resync.then_some('r'));
        flags.extend(publication.known_only.then_some('k'));
        flags.extend(publication.document.is_none().then_some('g'));
        flags.extend((keeps == Keeps::Counter).then_some('c'));
        Ok(Self {
            publication,
            stream: names::stream(&publication.channel),
            hash,
            flags,
            patch: if same { &[] } else { patch },
            before,
            document,
            after,
        })
    }

    fn bytes(&self) -> usize {
        self.patch.len() + self.before.len() + self.document.len() + self.after.len()
    }

    fn write(&self, call: &mut Cmd) {
        let Publication { channel, version, previous_version, .. } = self.publication;
        call.arg(&**channel).arg(version);
        // The script takes it that a version is above the one it follows.
        match previous_version.filter(|previous| previous < version) {
            Some(previous) => call.arg(previous),
            None => call.arg(""),
        };
        call.arg(&self.flags).arg(self.patch).arg(self.before).arg(self.document).arg(self.after);
    }
}

/// Cuts a batch into calls: of one stream each, and bounded.
fn calls<'c, 'a>(changes: &'c [Change<'a>], changes_max: usize) -> Vec<&'c [Change<'a>]> {
    let mut calls = Vec::with_capacity(changes.len() / changes_max + 1);
    let (mut start, mut bytes) = (0, 0);
    for (n, change) in changes.iter().enumerate() {
        let full = n - start == changes_max || bytes + change.bytes() > CALL_BYTES_MAX;
        if n > start && (full || changes[start].stream != change.stream) {
            calls.push(&changes[start..n]);
            (start, bytes) = (n, 0);
        }
        bytes += change.bytes();
    }
    if start < changes.len() {
        calls.push(&changes[start..]);
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
    fn what_comes_after_a_forgotten_script_is_sent_again_and_no_other_error_is_swallowed() {
        let refused = |kind| Err((ErrorKind::Server(kind), "refused").into());
        let ok = |n| Ok(("W".to_owned(), n));
        let forgotten = vec![ok(1), refused(ServerErrorKind::NoScript), ok(2)];
        assert_eq!(done(forgotten).unwrap(), [("W".to_owned(), 1)]);
        assert_eq!(done(vec![ok(1), ok(2)]).unwrap().len(), 2);
        let error = done(vec![ok(1), refused(ServerErrorKind::ReadOnly)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly));
    }

    #[test]
    fn a_message_is_cut_around_its_document() {
        let publication = publication("a:b:k", 3);
        let change = Change::of(&publication).unwrap();
        assert_eq!((change.stream, change.patch), ("a:b:", &b"{\"a\":1"[..]));
        assert_eq!(change.before, b"{\"PatchItems\":[{\"Value\":");
        assert_eq!(change.document, b"\"xxx\"");
        assert_eq!(change.after, b"}]");
        for (wrong, range) in [("[]", None), ("{}", None), ("{\"a\":1}", Some(0..7))] {
            let wrong =
                Publication { whole: Bytes::from_static(wrong.as_bytes()), document: range, ..publication.clone() };
            assert!(Change::of(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_batch_is_cut_by_number_bytes_and_stream_and_keeps_its_order() {
        let lengths = |publications: &[Publication]| {
            let changes: Vec<Change<'_>> = publications.iter().map(|p| Change::of(p).unwrap()).collect();
            calls(&changes, CALL_CHANGES_MAX).iter().map(|call| call.len()).collect::<Vec<usize>>()
        };
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&vec![publication("a:k", 1); CALL_CHANGES_MAX + 1]), [CALL_CHANGES_MAX, 1]);
        assert_eq!(lengths(&[publication("a:k", 1), publication("b:k", 1), publication("a:k", 1)]), [1, 1, 1]);
        let large = publication("a:k", CALL_BYTES_MAX);
        assert_eq!(lengths(&[large.clone(), large, publication("a:k", 1)]), [1, 1, 1]);
    }
}
