//! One change as streams send it: rendered once, however many listen. Pure.

use super::Audience;
use bytes::Bytes;
use smartpulse_clients::bus::MessageId;
use smartpulse_json::{Document, diff, whole_add, whole_remove, whole_replace};
use smartpulse_pipeline::message::{DataChanged, encode_data_changed};
use smartpulse_pipeline::{Event, Key, Operation, Patch, Timestamp};
use std::fmt::Write;
use std::sync::Arc;

/// A change in the log.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Key,
    pub version: i64,
    /// When it was committed.
    pub time: Timestamp,
    /// Where clients resume after it.
    pub cursor: Box<str>,
    /// The message it was made of, to be acked when nobody can resume before it any more.
    pub message: MessageId,
    /// The company before; `None` for a forecast that was not there, or of which nothing is known.
    from: Option<Arc<str>>,
    /// The company after; `None` for one that is gone.
    to: Option<Arc<str>>,
    /// For those who see it before and after.
    changed: Bytes,
    /// For those who did not see it before, where that is another frame: the whole document.
    appeared: Option<Bytes>,
    /// For those who do not see it any more, where that is another frame: its removal.
    vanished: Option<Bytes>,
}

/// Whose a forecast is: all that is kept of one for long. Without it nobody could be told that it moved away.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub version: i64,
    /// `None` after a delete.
    pub company: Option<Arc<str>>,
    /// Whether that version was heard. One that was only read from the database is still to come, or came long ago.
    pub heard: bool,
}

/// What a patch is made against.
#[derive(Debug)]
pub(super) struct Known {
    pub version: i64,
    pub document: Document,
}

/// Who sends, and of what.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub instance: Arc<str>,
    pub partition: Arc<str>,
    pub section: Arc<str>,
}

impl Entry {
    /// The entry of a captured change and whose the forecast is from then on; `None` for a version that was told already.
    pub fn of(
        source: &Source,
        event: &Event,
        owner: Option<&Owner>,
        known: Option<&Known>,
        message: MessageId,
    ) -> Option<(Self, Owner)> {
        if owner.is_some_and(|owner| owner.heard && event.version <= owner.version) {
            return None;
        }
        // Of a version that the database had already, it does not tell what was before.
        let owner = owner.filter(|owner| owner.version < event.version);
        let document = if event.operation == Operation::Delete { None } else { event.document.as_ref() };
        // The last image of a deleted row tells whose it was, where nothing else does.
        let imaged = event.document.as_ref().and_then(company);
        let from = match owner {
            Some(owner) => owner.company.clone(),
            None if document.is_none() => imaged.clone(),
            None => None,
        };
        let to = document.and(imaged);
        let base = owner.and(known).filter(|known| known.version + 1 == event.version).map(|known| &known.document);
        let cursor = cursor(&message);
        let time = event.commit_time.unwrap_or_else(Timestamp::now);
        let render = |items: Vec<u8>, whole: bool, previous: Option<i64>| {
            let patch = Patch { items: items.into(), whole };
            frame(source, &event.key, event.version, previous, patch, time, Some(&cursor))
        };
        let previous = owner.map(|owner| owner.version);
        let whole = |document: &Document| {
            let mut items = Vec::with_capacity(document.bytes().len() + 48);
            if event.version == 1 {
                whole_add(document, &mut items);
            } else {
                whole_replace(document, &mut items);
            }
            render(items, true, previous)
        };
        let removal = || {
            let mut items = Vec::new();
            whole_remove(&mut items);
            render(items, true, previous)
        };
        let changed = match (document, base) {
            (None, _) => removal(),
            (Some(document), None) => whole(document),
            (Some(document), Some(base)) => {
                let mut items = Vec::new();
                diff(base, document, &mut items);
                render(items, false, Some(event.version - 1))
            }
        };
        let moved = document.filter(|_| from != to);
        let entry = Self {
            key: event.key.clone(),
            version: event.version,
            time,
            appeared: moved.filter(|_| base.is_some()).map(whole),
            vanished: moved.filter(|_| from.is_some()).map(|_| removal()),
            cursor,
            message,
            from,
            to: to.clone(),
            changed,
        };
        Some((entry, Owner { version: event.version, company: to, heard: true }))
    }

    /// What an audience is sent.
    pub fn frame(&self, audience: &Audience) -> Option<&Bytes> {
        match (audience.sees(self.from.as_deref()), audience.sees(self.to.as_deref())) {
            (true, true) => Some(&self.changed),
            (false, true) => Some(self.appeared.as_ref().unwrap_or(&self.changed)),
            (true, false) => Some(self.vanished.as_ref().unwrap_or(&self.changed)),
            (false, false) => None,
        }
    }

    /// What an audience is sent that was told nothing of the forecast yet: a patch would be of a document that it has not.
    pub fn first_frame(&self, audience: &Audience) -> Option<&Bytes> {
        match &self.appeared {
            Some(whole) if audience.sees(self.to.as_deref()) => Some(whole),
            _ => self.frame(audience),
        }
    }

    /// A frame of this entry as it is sent where nobody may resume yet.
    pub fn without_id(&self, frame: &Bytes) -> Bytes {
        frame.slice(ID.len() + self.cursor.len() + 1..)
    }

    /// What the entry takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        let extra = |frame: &Option<Bytes>| frame.as_ref().map_or(0, Bytes::len);
        self.changed.len() + extra(&self.appeared) + extra(&self.vanished) + 300
    }
}

/// The company of a document.
pub(super) fn company(document: &Document) -> Option<Arc<str>> {
    document.get("companyId")?.as_str().map(Arc::from)
}

/// A whole document as an event of its own, for who has none. It is no place to resume from: what comes after it in the log
/// may be older.
pub(super) fn whole_frame(source: &Source, key: &Key, version: i64, document: &Document) -> Bytes {
    let mut items = Vec::with_capacity(document.bytes().len() + 48);
    whole_replace(document, &mut items);
    let patch = Patch { items: items.into(), whole: true };
    frame(source, key, version, None, patch, Timestamp::now(), None)
}

/// The opaque cursor after a message.
pub(super) fn cursor(message: &MessageId) -> Box<str> {
    let mut text = String::with_capacity(message.0.len() * 2);
    for byte in &message.0 {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

/// What begins the line of an event that says where clients resume after it.
const ID: &str = "id: ";

/// An event of a stream: a DataChanged message (contract 4) as its data.
fn frame(
    source: &Source,
    key: &Key,
    version: i64,
    previous_version: Option<i64>,
    patch: Patch,
    change_time: Timestamp,
    cursor: Option<&str>,
) -> Bytes {
    let message = encode_data_changed(&DataChanged {
        data_manager_id: Arc::clone(&source.instance),
        partition: Arc::clone(&source.partition),
        section: Arc::clone(&source.section),
        key: key.clone(),
        version,
        change_time,
        patch,
        previous_version,
    });
    let mut out = Vec::with_capacity(message.len() + 64);
    if let Some(cursor) = cursor {
        for part in [ID, cursor, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"event: change\ndata: ");
    // Between the tokens of JSON a line break is a space; within a text it is escaped.
    out.extend(message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    out.extend_from_slice(b"\n\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const A: &str = "a";
    const B: &str = "b";

    fn event(version: i64, operation: Operation, document: Option<Value>) -> Event {
        let document = document.map(|value| Document::from_value(&value).unwrap());
        Event::new("forecast".into(), "k".into(), version, operation, document)
    }

    fn source() -> Source {
        Source { instance: "i".into(), partition: "p".into(), section: "forecast".into() }
    }

    fn id(n: u8) -> MessageId {
        MessageId(Bytes::copy_from_slice(&[n]))
    }

    fn without_id(entry: &Entry, frame: &Bytes) -> String {
        String::from_utf8(entry.without_id(frame).to_vec()).unwrap()
    }

    /// What is sent to who sees A, who sees B, and who sees both: the operation and its path.
    fn sent(entry: &Entry) -> [Option<String>; 3] {
        [&[A][..], &[B], &[A, B]].map(|companies| {
            let frame = entry.frame(&Audience::of(companies.iter().copied()))?;
            let text = std::str::from_utf8(frame).unwrap();
            assert_eq!(
                text.split_once('\n'),
                Some((&*format!("id: {}", entry.cursor), without_id(entry, frame).as_str()))
            );
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let message: Value = serde_json::from_str(data).unwrap();
            let item = &message["PatchItems"][0];
            Some(format!("{} {}", item["Op"].as_str().unwrap(), item["Path"].as_str().unwrap()))
        })
    }

    #[test]
    fn each_company_is_told_what_it_may_see_and_no_more() {
        let change = |company: &str, demand: i64| Some(json!({"id": "k", "companyId": company, "demand": demand}));
        let (mut owner, mut known): (Option<Owner>, Option<Known>) = (None, None);
        for (n, (event, expected)) in [
            (event(1, Operation::Insert, change(A, 1)), [Some("add "), None, Some("add ")]),
            (event(2, Operation::Update, change(A, 2)), [Some("replace /demand"), None, Some("replace /demand")]),
            (
                event(3, Operation::Update, change(B, 2)),
                [Some("remove "), Some("replace "), Some("replace /companyId")],
            ),
            (event(5, Operation::Update, change(B, 3)), [None, Some("replace "), Some("replace ")]),
            (event(6, Operation::Delete, change(B, 3)), [None, Some("remove "), Some("remove ")]),
            (event(7, Operation::Insert, change(A, 9)), [Some("replace "), None, Some("replace ")]),
        ]
        .into_iter()
        .enumerate()
        {
            let (entry, next) = Entry::of(&source(), &event, owner.as_ref(), known.as_ref(), id(n as u8)).unwrap();
            assert_eq!(sent(&entry), expected.map(|text| text.map(str::to_owned)), "version {}", event.version);
            owner = Some(next);
            known = event.document.clone().map(|document| Known { version: event.version, document });
            let again = Entry::of(&source(), &event, owner.as_ref(), known.as_ref(), id(99));
            assert!(again.is_none(), "a repeated version is told once");
        }
    }

    #[test]
    fn who_was_told_nothing_of_a_forecast_that_moves_is_sent_no_patch_of_it() {
        let change = |company: &str| Document::from_value(&json!({"id": "k", "companyId": company})).unwrap();
        let owner = Owner { version: 1, company: Some(B.into()), heard: true };
        let known = Known { version: 1, document: change(B) };
        let moved = event(2, Operation::Update, Some(change(A).to_value()));
        let (entry, _) = Entry::of(&source(), &moved, Some(&owner), Some(&known), id(0)).unwrap();
        let text = |frame: Option<&Bytes>| String::from_utf8(frame.unwrap().to_vec()).unwrap();
        let (both, old) = (Audience::of([A, B]), Audience::of([B]));
        assert!(text(entry.frame(&both)).contains(r#""Path":"/companyId""#));
        assert!(text(entry.first_frame(&both)).contains(r#""Op":"replace","Path":"","#));
        assert!(text(entry.first_frame(&old)).contains(r#""Op":"remove""#));
    }

    #[test]
    fn a_deleted_forecast_of_which_nothing_is_known_is_told_to_whose_it_was() {
        let last = Some(json!({"id": "k", "companyId": A}));
        let (entry, _) = Entry::of(&source(), &event(4, Operation::Delete, last), None, None, id(0)).unwrap();
        assert_eq!(sent(&entry), [Some("remove ".into()), None, Some("remove ".into())]);
        let (entry, _) = Entry::of(&source(), &event(4, Operation::Delete, None), None, None, id(0)).unwrap();
        assert_eq!(sent(&entry), [None, None, None]);
        assert!(entry.frame(&Audience::All).is_some(), "who sees all is told of all");
    }

    #[test]
    fn whose_a_forecast_was_is_known_from_what_was_read_where_nothing_was_heard() {
        let read = |version| Owner { version, company: Some(A.into()), heard: false };
        let moved = || event(5, Operation::Update, Some(json!({"id": "k", "companyId": B})));
        let deleted = || event(5, Operation::Delete, None);
        for (owner, event, expected) in [
            (Some(read(4)), moved(), [Some("remove "), Some("replace "), Some("replace ")]),
            (Some(read(4)), deleted(), [Some("remove "), None, Some("remove ")]),
            // What is read at the version, or after it, does not tell what was before: it is told, to who has it now.
            (Some(read(5)), moved(), [None, Some("replace "), Some("replace ")]),
            (Some(read(6)), moved(), [None, Some("replace "), Some("replace ")]),
            (None, moved(), [None, Some("replace "), Some("replace ")]),
        ] {
            let (entry, next) = Entry::of(&source(), &event, owner.as_ref(), None, id(0)).unwrap();
            assert_eq!(sent(&entry), expected.map(|text| text.map(str::to_owned)), "{owner:?} {event:?}");
            assert!(next.heard && next.version == 5);
        }
    }

    #[test]
    fn a_frame_is_one_event_whatever_white_space_the_document_has() {
        let document = Document::parse(Bytes::from_static(b"{\n\"id\":\"a\\nb\",\r\n\"companyId\":\"a\"}")).unwrap();
        let frame = whole_frame(&source(), &"k".into(), 7, &document);
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(text.starts_with("event: change\ndata: {\"DataManagerId\":\"i\""), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.ends_with("\n\n"));
    }
}
