//! A row of the database as a publication: what heals whoever missed something.

use super::Publication;
use bytes::Bytes;
use smartpulse_json::Document;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::message::{DataChanged, encode_data_changed};
use smartpulse_pipeline::{Key, Patch, Timestamp};
use std::ops::Range;
use std::sync::Arc;

/// Who publishes what kind of entity.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// This process, as messages name it.
    pub instance: Arc<str>,
    /// The partition.
    pub partition: Arc<str>,
    /// The kind of entity.
    pub section: Arc<str>,
}

impl Publisher {
    /// The channel on which all changes of a key are told (contract 4).
    #[must_use]
    pub fn channel(&self, key: &str) -> Arc<str> {
        format!("__dataChanged:{}:{}:{key}", self.partition, self.section).into()
    }

    /// The whole document of a key at a version; without a document, its delete.
    #[must_use]
    pub fn whole(&self, channel: Arc<str>, key: &Key, version: i64, document: Option<&Document>) -> Publication {
        let mut items = Vec::new();
        match document {
            Some(document) => smartpulse_json::whole_replace(document, &mut items),
            None => smartpulse_json::whole_remove(&mut items),
        }
        let message = encode_data_changed(&DataChanged {
            data_manager_id: self.instance.clone(),
            partition: self.partition.clone(),
            section: self.section.clone(),
            key: key.clone(),
            version,
            change_time: Timestamp::now(),
            patch: Patch { items: Bytes::from(items), whole: true },
            previous_version: None,
        });
        Publication {
            channel,
            section: self.section.clone(),
            key: key.clone(),
            version,
            previous_version: None,
            patch: message.clone(),
            document: document.and_then(|document| document_in(&message, document)),
            whole: message,
            resync: false,
            known_only: false,
        }
    }
}

/// What follows a document in its message.
const AFTER: &[u8] = b"}],\"PreviousVersionId\":";

/// Where a document stands in the message that carries it whole: the last such place, for only numbers come after it.
#[must_use]
pub fn document_in(message: &[u8], document: &Document) -> Option<Range<usize>> {
    let text: &[u8] = document.bytes();
    let end = message.windows(AFTER.len()).rposition(|bytes| bytes == AFTER)?;
    let start = end.checked_sub(text.len())?;
    (message.get(start..end)? == text).then_some(start..end)
}

/// A message without its closing brace, so that a member can be appended.
///
/// # Errors
/// Rejected if it is no JSON object.
pub fn open_object(message: &[u8]) -> Result<&[u8]> {
    message
        .trim_ascii_end()
        .strip_suffix(b"}")
        .filter(|open| open.trim_ascii_start().starts_with(b"{"))
        .ok_or_else(|| Error::rejected("a message to publish is no JSON object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_becomes_a_message_that_carries_its_document_once() {
        let publisher = Publisher { instance: "i".into(), partition: "p".into(), section: "s".into() };
        let document: Document = r#"{"a":[{"b":1}],"c":{}}"#.parse().unwrap();
        let publication = publisher.whole("c".into(), &"k".into(), 7, Some(&document));
        let range = publication.document.clone().unwrap();
        assert_eq!(&publication.whole[range.clone()], document.as_str().as_bytes());
        assert!(publication.whole[..range.start].ends_with(b"\"Path\":\"\",\"Value\":"));
        assert!(publication.whole[range.end..].starts_with(b"}],\"PreviousVersionId\""));
        assert_eq!(publisher.whole("c".into(), &"k".into(), 8, None).document, None);
    }
}
