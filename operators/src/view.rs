//! What the YAML of `filter`, `map` and `fan_out` sees of an event, by JSON pointer.
//!
//! `/key`, `/section`, `/operation`, `/version`, `/previousVersion`, `/snapshot`, `/commitTime`; below `/document` and
//! `/previous` the document of this version and the last one known before it; and `/contiguous`, which is true when
//! that is the very version before, so that nothing in between was missed.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use smartpulse_json::{Document, Pointer};
use smartpulse_pipeline::message::push_json_string;
use smartpulse_pipeline::{Event, Operation};
use std::borrow::Cow;
use std::str::FromStr;

/// A pointer into the view of an event, resolved when the YAML is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ViewPointer {
    field: Field,
    rest: Pointer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Key,
    Section,
    Operation,
    Version,
    PreviousVersion,
    Snapshot,
    CommitTime,
    Contiguous,
    Document,
    Previous,
}

const FIELDS: [(&str, Field); 10] = [
    ("key", Field::Key),
    ("section", Field::Section),
    ("operation", Field::Operation),
    ("version", Field::Version),
    ("previousVersion", Field::PreviousVersion),
    ("snapshot", Field::Snapshot),
    ("commitTime", Field::CommitTime),
    ("contiguous", Field::Contiguous),
    ("document", Field::Document),
    ("previous", Field::Previous),
];

impl FromStr for ViewPointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pointer: Pointer = text.parse().map_err(|error| format!("{error}"))?;
        let names = || FIELDS.map(|(name, _)| format!("/{name}")).join(", ");
        let Some((first, rest)) = pointer.tokens().split_first() else {
            return Err(format!("a pointer into an event begins with one of {}", names()));
        };
        let Some((_, field)) = FIELDS.iter().find(|(name, _)| name == first) else {
            let near = smartpulse_config::nearest(first, FIELDS.iter().map(|(name, _)| *name));
            return Err(match near {
                Some(near) => format!("an event has no /{first}; did you mean /{near}?"),
                None => format!("an event has no /{first}; a pointer begins with one of {}", names()),
            });
        };
        if !rest.is_empty() && !matches!(field, Field::Document | Field::Previous) {
            return Err(format!("/{first} is a plain value: nothing can be below it"));
        }
        Ok(Self { field: *field, rest: Pointer::from_tokens(rest.iter().cloned()) })
    }
}

impl ViewPointer {
    /// The raw JSON of what the pointer finds in an event.
    pub fn find<'a>(&self, event: &'a Event) -> Option<Cow<'a, str>> {
        let string = |text: &str| {
            let mut out = Vec::with_capacity(text.len() + 2);
            push_json_string(&mut out, text);
            String::from_utf8(out).ok().map(Cow::Owned)
        };
        let below = |document: &'a Option<Document>| {
            document.as_ref()?.pointer(&self.rest).map(|value| Cow::Borrowed(value.as_raw()))
        };
        match self.field {
            Field::Key => string(&event.key),
            Field::Section => string(&event.section),
            Field::Operation => Some(Cow::Borrowed(match event.operation {
                Operation::Insert => "\"INSERT\"",
                Operation::Update => "\"UPDATE\"",
                Operation::Delete => "\"DELETE\"",
            })),
            Field::Version => Some(Cow::Owned(event.version.to_string())),
            Field::PreviousVersion => event.previous_version.map(|version| Cow::Owned(version.to_string())),
            Field::Snapshot => Some(Cow::Borrowed(if event.snapshot { "true" } else { "false" })),
            Field::CommitTime => event.commit_time.and_then(|time| string(&time.to_string())),
            Field::Contiguous => {
                let follows = event.previous_version.is_some_and(|previous| previous + 1 == event.version);
                Some(Cow::Borrowed(if follows && event.previous.is_some() { "true" } else { "false" }))
            }
            Field::Document => below(&event.document),
            Field::Previous => below(&event.previous),
        }
    }
}

impl<'de> Deserialize<'de> for ViewPointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ViewPointer {
    fn schema_name() -> Cow<'static, str> {
        "ViewPointer".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "a JSON pointer into the event: /key, /section, /operation, /version, /previousVersion, /snapshot, /commitTime, /contiguous, /document/..., /previous/..."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::event;

    #[test]
    fn a_pointer_finds_fields_and_members_of_both_documents() {
        let mut subject = event("a\"b", 2, r#"{"status":"Completed","n":{"x":[1,2.50]}}"#);
        subject.previous = event("a", 1, r#"{"status":"Active"}"#).document;
        subject.previous_version = Some(1);
        for (pointer, expected) in [
            ("/key", Some(r#""a\"b""#)),
            ("/version", Some("2")),
            ("/previousVersion", Some("1")),
            ("/operation", Some("\"UPDATE\"")),
            ("/snapshot", Some("false")),
            ("/contiguous", Some("true")),
            ("/commitTime", None),
            ("/document/status", Some("\"Completed\"")),
            ("/document/n/x/1", Some("2.50")),
            ("/document/absent", None),
            ("/previous/status", Some("\"Active\"")),
        ] {
            assert_eq!(pointer.parse::<ViewPointer>().unwrap().find(&subject).as_deref(), expected, "{pointer}");
        }
    }

    #[test]
    fn a_bad_pointer_says_what_there_is() {
        for (pointer, reason) in [
            ("/documnt/x", "did you mean /document?"),
            ("/key/x", "nothing can be below it"),
            ("", "begins with one of /key"),
            ("key", "/"),
        ] {
            let error = pointer.parse::<ViewPointer>().unwrap_err();
            assert!(error.contains(reason), "{pointer}: {error}");
        }
    }
}
