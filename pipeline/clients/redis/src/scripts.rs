//! The scripts: each is one step that nobody sees half of.

use redis::Script;
use std::time::Duration;

/// A document goes a day after its last write.
pub(crate) const DOCUMENT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A counter must outlive the messages on the bus, which keeps them for 7 days.
pub(crate) const KEY_LIFE: Duration = Duration::from_secs(8 * 24 * 3600);

/// How inexact a key's expiry may be: it is renewed at most this often.
pub(crate) const KEY_SLACK: Duration = Duration::from_secs(3600);

/// How long a note about a key without a counter is kept: longer than any change is on its way.
pub(crate) const NOTE_LIFE: Duration = Duration::from_secs(3600);

/// How long the sequence of a publisher outlives it.
pub(crate) const SEQUENCE_LIFE: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Scripts {
    pub publish: Script,
    pub fill: Script,
    pub note: Script,
    pub expire: Script,
    pub heartbeat: Script,
    pub duty: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            publish: Script::new(include_str!("scripts/publish.lua")),
            fill: Script::new(include_str!("scripts/fill.lua")),
            note: Script::new(include_str!("scripts/note.lua")),
            expire: Script::new(include_str!("scripts/expire.lua")),
            heartbeat: Script::new(include_str!("scripts/heartbeat.lua")),
            duty: Script::new(include_str!("scripts/duty.lua")),
        }
    }
}

/// Milliseconds, as the scripts take them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
