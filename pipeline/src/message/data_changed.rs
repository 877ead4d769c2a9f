//! The DataChanged message: what every instance hears of a change.

use super::{push_integer, push_json_string};
use crate::error::{Error, Result};
use crate::event::{Key, Patch};
use crate::time::Timestamp;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// A DataChanged message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataChanged {
    /// The publishing instance, as a UUID.
    pub data_manager_id: Arc<str>,
    /// The partition.
    pub partition: Arc<str>,
    /// The kind of entity.
    pub section: Arc<str>,
    /// The entity.
    pub key: Key,
    /// Its version.
    pub version: i64,
    /// When the change was committed.
    pub change_time: Timestamp,
    /// The patch.
    pub patch: Patch,
    /// The version that the patch applies to; none for a first version.
    pub previous_version: Option<i64>,
}

/// A DataChanged message without `PublisherSeq`, which the pub/sub system appends.
#[must_use]
pub fn encode_data_changed(message: &DataChanged) -> Bytes {
    let mut out = Vec::with_capacity(message.patch.items.len() + 320);
    out.extend_from_slice(b"{\"DataManagerId\":");
    push_json_string(&mut out, &message.data_manager_id);
    out.extend_from_slice(b",\"PartitionKey\":");
    push_json_string(&mut out, &message.partition);
    out.extend_from_slice(b",\"Section\":");
    push_json_string(&mut out, &message.section);
    out.extend_from_slice(b",\"DataKey\":");
    push_json_string(&mut out, &message.key);
    out.extend_from_slice(b",\"VersionId\":");
    push_integer(&mut out, message.version);
    out.extend_from_slice(b",\"ChangeTime\":");
    push_json_string(&mut out, &message.change_time.to_string());
    out.extend_from_slice(b",\"PatchItems\":");
    out.extend_from_slice(&message.patch.items);
    out.extend_from_slice(b",\"PreviousVersionId\":");
    match message.previous_version {
        Some(version) => push_integer(&mut out, version),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Bytes::from(out)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    #[serde(borrow)]
    data_manager_id: Cow<'a, str>,
    #[serde(borrow)]
    partition_key: Cow<'a, str>,
    #[serde(borrow)]
    section: Cow<'a, str>,
    #[serde(borrow)]
    data_key: Cow<'a, str>,
    version_id: i64,
    change_time: Timestamp,
    #[serde(borrow)]
    patch_items: &'a RawValue,
    #[serde(default)]
    previous_version_id: Option<i64>,
}

/// Reads a DataChanged message. Unknown members are passed over: added ones are additive.
///
/// # Errors
/// `Rejected`, with what is missing or wrong, for anything that is not such a message.
pub fn decode_data_changed(payload: &Bytes) -> Result<DataChanged> {
    let wire: Wire<'_> =
        serde_json::from_slice(payload).map_err(|error| Error::rejected("not a DataChanged message").because(error))?;
    if wire.version_id < 1 {
        return Err(Error::rejected(format!("VersionId is {}, but versions start at 1", wire.version_id)));
    }
    let items = wire.patch_items.get();
    Ok(DataChanged {
        data_manager_id: Arc::from(&*wire.data_manager_id),
        partition: Arc::from(&*wire.partition_key),
        section: Arc::from(&*wire.section),
        key: Arc::from(&*wire.data_key),
        version: wire.version_id,
        change_time: wire.change_time,
        patch: Patch { items: payload.slice_ref(items.as_bytes()), whole: is_whole(items) },
        previous_version: wire.previous_version_id,
    })
}

impl DataChanged {
    /// Whether the change removed the entity.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.patch.whole && only_operation(&self.patch.items).as_deref() == Some("remove")
    }
}

/// Whether the patch is one operation that sets or removes the whole document.
fn is_whole(items: &str) -> bool {
    matches!(only_operation(items.as_bytes()).as_deref(), Some("add" | "replace" | "remove"))
}

/// The operation of a patch that has only one, at path "".
fn only_operation(items: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow, alias = "path", rename = "Path")]
        path: Cow<'a, str>,
        #[serde(borrow, alias = "op", rename = "Op")]
        op: Cow<'a, str>,
    }
    match serde_json::from_slice::<Vec<Item<'_>>>(items).as_deref() {
        Ok([only]) if only.path.is_empty() => Some(only.op.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(items: &'static str, whole: bool) -> DataChanged {
        DataChanged {
            data_manager_id: "9f1c".into(),
            partition: "production".into(),
            section: "forecast".into(),
            key: "forecast_001".into(),
            version: 101,
            change_time: Timestamp::from_millis(1_762_943_400_000),
            patch: Patch { items: Bytes::from_static(items.as_bytes()), whole },
            previous_version: Some(100),
        }
    }

    #[test]
    fn a_message_has_the_members_of_the_contract_in_their_order() {
        let bytes = encode_data_changed(&message(r#"[{"Op":"replace","Path":"/demand","Value":500.0}]"#, false));
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"DataManagerId":"9f1c","PartitionKey":"production","Section":"forecast","DataKey":"forecast_001","VersionId":101,"ChangeTime":"2025-11-12T10:30:00.000Z","PatchItems":[{"Op":"replace","Path":"/demand","Value":500.0}],"PreviousVersionId":100}"#
        );
    }

    #[test]
    fn a_message_comes_back_as_it_was_and_says_whether_it_is_whole() {
        for (items, whole) in [
            (r#"[{"Op":"replace","Path":"/demand","Value":500.0}]"#, false),
            (r#"[{"Op":"add","Path":"","Value":{"a":1}}]"#, true),
            (r#"[{"Op":"remove","Path":""}]"#, true),
            (r#"[{"Op":"test","Path":"","Value":1}]"#, false),
            (r#"[{"Op":"add","Path":"/a","Value":1},{"Op":"add","Path":"/b","Value":1}]"#, false),
            ("[]", false),
        ] {
            let sent = message(items, whole);
            assert_eq!(decode_data_changed(&encode_data_changed(&sent)).unwrap(), sent);
        }
    }

    #[test]
    fn a_bad_message_is_rejected_with_what_is_wrong() {
        let good = String::from_utf8(encode_data_changed(&message("[]", false)).to_vec()).unwrap();
        for (bad, reason) in [
            ("[1".to_owned(), "not a DataChanged message"),
            (good.replace("\"VersionId\":101", "\"VersionId\":0"), "versions start at 1"),
            (good.replace("\"PatchItems\":[],", ""), "missing field `PatchItems`"),
        ] {
            let error = decode_data_changed(&Bytes::from(bad)).unwrap_err();
            assert!(error.chain().contains(reason), "{}", error.chain());
        }
    }
}
