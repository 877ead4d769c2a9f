//! The captured change, as it stands on `cdc:<section>s`.

use super::{event_id, push_integer, push_json_string};
use crate::error::{Error, Result};
use crate::event::{Event, Operation};
use crate::time::Timestamp;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use smartpulse_json::Document;
use std::borrow::Cow;
use std::sync::Arc;

/// The envelope of a captured change.
#[must_use]
pub fn encode_change(event: &Event) -> Bytes {
    let document = event.document.as_ref().map_or(&b"null"[..], |document| document.bytes());
    let mut out = Vec::with_capacity(document.len() + 320);
    out.extend_from_slice(b"{\"EventId\":\"");
    out.extend_from_slice(event_id(&event.section, &event.key, event.version).to_string().as_bytes());
    out.extend_from_slice(b"\",\"Timestamp\":");
    match event.commit_time {
        Some(time) => push_json_string(&mut out, &time.to_string()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"VersionId\":");
    push_integer(&mut out, event.version);
    out.extend_from_slice(b",\"Operation\":\"");
    out.extend_from_slice(operation_name(event.operation).as_bytes());
    out.extend_from_slice(b"\",\"EntityId\":");
    push_json_string(&mut out, &event.key);
    out.extend_from_slice(b",\"Data\":");
    out.extend_from_slice(document);
    out.extend_from_slice(b",\"Section\":");
    push_json_string(&mut out, &event.section);
    out.extend_from_slice(b",\"Epoch\":");
    push_integer(&mut out, i64::try_from(event.epoch).unwrap_or(i64::MAX));
    out.extend_from_slice(b",\"Position\":");
    match &event.position {
        Some(position) => push_json_string(&mut out, &crate::Position(position.clone()).to_string()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"Snapshot\":");
    out.extend_from_slice(if event.snapshot { b"true" } else { b"false" });
    out.push(b'}');
    Bytes::from(out)
}

pub(super) fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "INSERT",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    version_id: i64,
    operation: Operation,
    #[serde(borrow)]
    entity_id: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    section: Cow<'a, str>,
    #[serde(default)]
    epoch: u64,
    #[serde(borrow, default)]
    position: Option<Cow<'a, str>>,
    #[serde(default)]
    snapshot: bool,
}

/// Reads the envelope of a captured change. Unknown members are passed over: added ones are additive.
///
/// # Errors
/// `Rejected`, with what is missing or wrong, for anything that is not such an envelope.
pub fn decode_change(payload: &Bytes) -> Result<Event> {
    let envelope: Envelope<'_> = serde_json::from_slice(payload)
        .map_err(|error| Error::rejected("not a captured-change envelope").because(error))?;
    if envelope.version_id < 1 {
        return Err(Error::rejected(format!("VersionId is {}, but versions start at 1", envelope.version_id)));
    }
    if envelope.entity_id.is_empty() {
        return Err(Error::rejected("EntityId is empty"));
    }
    let document = match envelope.data {
        Some(data) if data.get() != "null" => {
            let document = Document::parse(payload.slice_ref(data.get().as_bytes()))
                .map_err(|error| Error::rejected("Data is not a JSON document").because(error))?;
            if !document.is_object() {
                return Err(Error::rejected("Data is not a JSON object"));
            }
            Some(document)
        }
        _ if envelope.operation == Operation::Delete => None,
        _ => return Err(Error::rejected(format!("an {} without Data", operation_name(envelope.operation)))),
    };
    let commit_time = match &envelope.timestamp {
        Some(text) => Some(
            text.parse::<Timestamp>()
                .map_err(|error| Error::rejected(format!("Timestamp {text:?} is not RFC 3339")).because(error))?,
        ),
        None => None,
    };
    let mut event = Event::new(
        Arc::from(&*envelope.section),
        Arc::from(&*envelope.entity_id),
        envelope.version_id,
        envelope.operation,
        document,
    );
    event.commit_time = commit_time;
    event.epoch = envelope.epoch;
    event.position = envelope.position.map(|position| Bytes::copy_from_slice(position.as_bytes()));
    event.snapshot = envelope.snapshot;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured() -> Event {
        let document = Document::parse(Bytes::from_static(br#"{"id":"f1","demand":450.0}"#)).unwrap();
        let mut event = Event::new("forecast".into(), "f1".into(), 101, Operation::Update, Some(document));
        event.commit_time = Some(Timestamp::from_millis(0));
        event.position = Some(Bytes::from_static(b"seq:7"));
        event.epoch = 3;
        event
    }

    #[test]
    fn the_envelope_has_the_members_of_the_contract_in_their_order() {
        let text = String::from_utf8(encode_change(&captured()).to_vec()).unwrap();
        let id = event_id("forecast", "f1", 101);
        assert_eq!(
            text,
            format!(
                r#"{{"EventId":"{id}","Timestamp":"1970-01-01T00:00:00.000Z","VersionId":101,"Operation":"UPDATE","EntityId":"f1","Data":{{"id":"f1","demand":450.0}},"Section":"forecast","Epoch":3,"Position":"seq:7","Snapshot":false}}"#
            )
        );
    }

    #[test]
    fn an_envelope_comes_back_as_the_event_that_it_was() {
        let event = decode_change(&encode_change(&captured())).unwrap();
        assert_eq!((&*event.section, &*event.key, event.version), ("forecast", "f1", 101));
        assert_eq!(event.document.unwrap().bytes(), captured().document.unwrap().bytes());
        assert_eq!((event.commit_time, event.epoch, event.snapshot), (Some(Timestamp::from_millis(0)), 3, false));
    }

    #[test]
    fn a_bad_envelope_is_rejected_with_what_is_wrong() {
        let good = String::from_utf8(encode_change(&captured()).to_vec()).unwrap();
        for (bad, reason) in [
            ("{".to_owned(), "EOF while parsing"),
            (good.replace("\"EntityId\":\"f1\",", ""), "missing field `EntityId`"),
            (good.replace("\"VersionId\":101,", ""), "missing field `VersionId`"),
            (good.replace("101", "-5"), "VersionId is -5, but versions start at 1"),
            (good.replace("UPDATE", "MERGE"), "unknown variant `MERGE`"),
            (good.replace(r#"{"id":"f1","demand":450.0}"#, "null"), "an UPDATE without Data"),
            (good.replace(r#"{"id":"f1","demand":450.0}"#, "7"), "Data is not a JSON object"),
            (good.replace("1970-01-01T00:00:00.000Z", "yesterday"), "\"yesterday\" is not RFC 3339"),
        ] {
            let error = decode_change(&Bytes::from(bad.clone())).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Rejected);
            assert!(error.chain().contains(reason), "{bad}: {}", error.chain());
        }
    }
}
