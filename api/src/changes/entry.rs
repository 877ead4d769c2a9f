//! One change as streams send it: rendered once, however many listen. Pure.

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
    /// For those who did not see it before: the whole document.
    appeared: Option<Bytes>,
    /// For those who do not see it any more.
    vanished: Option<Bytes>,
}

/// What is known of a key: the newest version, and what a patch is made against.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub version: i64,
    pub company: Option<Arc<str>>,
    /// `None` after a delete.
    pub document: Option<Document>,
}

/// Who sends, and of what.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub instance: Arc<str>,
    pub partition: Arc<str>,
    pub section: Arc<str>,
}

impl Entry {
    /// The entry of a captured change and what is known from then on; `None` for a version that was told already.
    pub fn of(source: &Source, event: &Event, known: Option<&Known>, message: MessageId) -> Option<(Self, Known)> {
        if known.is_some_and(|known| event.version <= known.version) {
            return None;
        }
        let document = if event.operation == Operation::Delete { None } else { event.document.clone() };
        // The last image of a deleted row tells whose it was, where nothing else does.
        let imaged = event.document.as_ref().and_then(company);
        let from = match known {
            Some(known) => known.company.clone(),
            None if document.is_none() => imaged.clone(),
            None => None,
        };
        let to = document.as_ref().and(imaged);
        let base = known.filter(|known| known.version + 1 == event.version).and_then(|known| known.document.as_ref());
        let cursor = cursor(&message);
        let time = event.commit_time.unwrap_or_else(Timestamp::now);
        let render = |items: Vec<u8>, whole: bool, previous: Option<i64>| {
            let patch = Patch { items: items.into(), whole };
            frame(source, &event.key, event.version, previous, patch, time, Some(&cursor))
        };
        let previous = known.map(|known| known.version);
        let whole = |document: &Document| {
            let mut items = Vec::with_capacity(document.len() + 48);
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
        let changed = match (&document, base) {
            (None, _) => removal(),
            (Some(document), None) => whole(document),
            (Some(document), Some(base)) => {
                let mut items = Vec::new();
                diff(base, document, &mut items);
                render(items, false, Some(event.version - 1))
            }
        };
        let moved = from.is_some() && to.is_some() && from != to;
        let entry = Self {
            key: event.key.clone(),
            version: event.version,
            appeared: document.as_ref().filter(|_| moved).map(whole),
            vanished: moved.then(removal),
            cursor,
            message,
            from,
            to: to.clone(),
            changed,
        };
        let known = Known { version: event.version, company: to, document: document.map(|document| document.detach()) };
        Some((entry, known))
    }

    /// What somebody is sent who sees the companies for which `sees` holds.
    pub fn frame(&self, sees: impl Fn(&str) -> bool) -> Option<&Bytes> {
        let saw = self.from.as_deref().is_some_and(&sees);
        let see = self.to.as_deref().is_some_and(&sees);
        match (saw, see, self.from.is_some(), self.to.is_some()) {
            (true, true, ..) | (true, false, _, false) | (false, true, false, _) => Some(&self.changed),
            (true, false, _, true) => self.vanished.as_ref(),
            (false, true, true, _) => self.appeared.as_ref(),
            (false, false, ..) => None,
        }
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

/// A whole document as an event of its own, for who has none.
pub(super) fn whole_frame(
    source: &Source,
    key: &Key,
    version: i64,
    document: &Document,
    cursor: Option<&str>,
) -> Bytes {
    let mut items = Vec::with_capacity(document.len() + 48);
    whole_replace(document, &mut items);
    let patch = Patch { items: items.into(), whole: true };
    frame(source, key, version, None, patch, Timestamp::now(), cursor)
}

/// The opaque cursor after a message.
pub(super) fn cursor(message: &MessageId) -> Box<str> {
    let mut text = String::with_capacity(message.0.len() * 2);
    for byte in &message.0 {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

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
        out.extend_from_slice(format!("id: {cursor}\n").as_bytes());
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

    /// What is sent to who sees A, who sees B, and who sees both: the operation and its path.
    fn sent(entry: &Entry) -> [Option<String>; 3] {
        [&[A][..], &[B], &[A, B]].map(|companies| {
            let frame = entry.frame(|company| companies.contains(&company))?;
            let text = std::str::from_utf8(frame).unwrap();
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let message: Value = serde_json::from_str(data).unwrap();
            let item = &message["PatchItems"][0];
            Some(format!("{} {}", item["Op"].as_str().unwrap(), item["Path"].as_str().unwrap()))
        })
    }

    #[test]
    fn each_company_is_told_what_it_may_see_and_no_more() {
        let change = |company: &str, demand: i64| Some(json!({"id": "k", "companyId": company, "demand": demand}));
        let mut known: Option<Known> = None;
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
            let (entry, next) = Entry::of(&source(), &event, known.as_ref(), id(n as u8)).unwrap();
            assert_eq!(sent(&entry), expected.map(|text| text.map(str::to_owned)), "version {}", event.version);
            known = Some(next);
            assert!(Entry::of(&source(), &event, known.as_ref(), id(99)).is_none(), "a repeated version is told once");
        }
    }

    #[test]
    fn a_deleted_forecast_of_which_nothing_is_known_is_told_to_whose_it_was() {
        let last = Some(json!({"id": "k", "companyId": A}));
        let (entry, _) = Entry::of(&source(), &event(4, Operation::Delete, last), None, id(0)).unwrap();
        assert_eq!(sent(&entry), [Some("remove ".into()), None, Some("remove ".into())]);
        let (entry, _) = Entry::of(&source(), &event(4, Operation::Delete, None), None, id(0)).unwrap();
        assert_eq!(sent(&entry), [None, None, None]);
    }

    #[test]
    fn a_frame_is_one_event_whatever_white_space_the_document_has() {
        let document = Document::parse(Bytes::from_static(b"{\n\"id\":\"a\\nb\",\r\n\"companyId\":\"a\"}")).unwrap();
        let frame = whole_frame(&source(), &"k".into(), 7, &document, Some("00ff"));
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(text.starts_with("id: 00ff\nevent: change\ndata: {\"DataManagerId\":\"i\""), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.ends_with("\n\n"));
    }
}
