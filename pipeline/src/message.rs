//! Messages on the wire: the captured-change envelope, DataChanged, the ids and channels of notifications, and the event form
//! of dead letters.
//!
//! Shapes are fixed (CONTRACTS 2 and 4). Encoders write bytes in the documented member order; documents and
//! patches are copied as they are, never parsed.

mod change;
mod data_changed;
mod notification;
mod stored;

pub use change::{decode_change, encode_change};
pub use data_changed::{DataChanged, decode_data_changed, encode_data_changed};
pub use notification::{Channel, ChannelChoice, delivery_id, request_id};
pub use stored::{decode_event, encode_event};

use std::sync::LazyLock;
use uuid::Uuid;

/// The namespace of every name-based id: UUIDv5(DNS, "smartpulse").
pub static NAMESPACE: LazyLock<Uuid> = LazyLock::new(|| Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"smartpulse"));

/// The id of an event: a function of what it is about, so that a repeated event has the same id.
#[must_use]
pub fn event_id(kind: &str, key: &str, version: i64) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{kind}/{key}/{version}").as_bytes())
}

/// Appends a JSON string.
pub fn push_json_string(out: &mut Vec<u8>, text: &str) {
    // Keys, names and times hardly ever need escaping; serde_json writes the rest.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}

/// Appends a decimal integer.
pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}
