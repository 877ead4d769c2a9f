//! The form in which a dead letter keeps an event: all of it, so that it can be handed to its sink again.

use crate::error::{Error, Result};
use crate::event::{Event, Operation, Patch};
use crate::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smartpulse_json::Document;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    section: String,
    key: String,
    version: i64,
    previous_version: Option<i64>,
    operation: Operation,
    document: Option<Box<RawValue>>,
    previous: Option<Box<RawValue>>,
    patch: Option<Box<RawValue>>,
    whole: bool,
    commit_time: Option<Timestamp>,
    capture_time: Option<Timestamp>,
    /// The bytes of the place: what they mean is the source's own.
    position: Option<Vec<u8>>,
    snapshot: bool,
    epoch: u64,
    resync: bool,
}

/// The event as JSON.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    let raw = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        RawValue::from_string(text).ok()
    };
    let stored = Stored {
        section: event.section.to_string(),
        key: event.key.to_string(),
        version: event.version,
        previous_version: event.previous_version,
        operation: event.operation,
        document: event.document.as_ref().and_then(|document| raw(document.bytes())),
        previous: event.previous.as_ref().and_then(|document| raw(document.bytes())),
        patch: event.patch.as_ref().and_then(|patch| raw(&patch.items)),
        whole: event.patch.as_ref().is_some_and(|patch| patch.whole),
        commit_time: event.commit_time,
        capture_time: event.capture_time,
        position: event.position.as_ref().map(|position| position.to_vec()),
        snapshot: event.snapshot,
        epoch: event.epoch,
        resync: event.resync,
    };
    // Maps with string keys and valid raw JSON always serialise.
    Bytes::from(serde_json::to_vec(&stored).unwrap_or_default())
}

/// The event of a dead letter.
///
/// # Errors
/// `Rejected` when the letter holds no event.
pub fn decode_event(payload: &[u8]) -> Result<Event> {
    let stored: Stored =
        serde_json::from_slice(payload).map_err(|error| Error::rejected("not a stored event").because(error))?;
    let document = |raw: Option<Box<RawValue>>| -> Result<Option<Document>> {
        raw.map(|raw| {
            Document::parse(Bytes::from(String::from(Box::<str>::from(raw))))
                .map_err(|error| Error::rejected("not a stored event").because(error))
        })
        .transpose()
    };
    let mut event = Event::new(
        stored.section.into(),
        stored.key.into(),
        stored.version,
        stored.operation,
        document(stored.document)?,
    );
    event.previous_version = stored.previous_version;
    event.previous = document(stored.previous)?;
    event.patch =
        stored.patch.map(|raw| Patch { items: Bytes::from(String::from(Box::<str>::from(raw))), whole: stored.whole });
    event.commit_time = stored.commit_time;
    event.capture_time = stored.capture_time;
    event.position = stored.position.map(Bytes::from);
    event.snapshot = stored.snapshot;
    event.epoch = stored.epoch;
    event.resync = stored.resync;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_from_a_dead_letter_as_it_was() {
        let document = Document::parse(Bytes::from_static(br#"{"a":1.50}"#)).unwrap();
        let mut event = Event::new("forecast".into(), "k\"1".into(), 7, Operation::Update, Some(document.clone()));
        event.previous_version = Some(6);
        event.previous = Some(document);
        event.patch = Some(Patch { items: Bytes::from_static(b"[]"), whole: false });
        event.commit_time = Some(Timestamp::from_millis(12));
        event.capture_time = Some(Timestamp::from_millis(13));
        event.position = Some(Bytes::from_static(b"\x00seq:7\xff"));
        event.snapshot = true;
        event.resync = true;
        event.epoch = 2;
        let back = decode_event(&encode_event(&event)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{event:?}"));
    }
}
