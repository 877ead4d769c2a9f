//! The scripts: each is one step that nobody sees half of.

use redis::{Cmd, Pipeline, ToRedisArgs};
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

/// A script that servers are asked to run by its hash.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call on these keys, which are of one part; its arguments follow.
    pub(crate) fn on<K: ToRedisArgs>(&self, keys: &[K]) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.hash).arg(keys.len());
        for key in keys {
            call.arg(key);
        }
        call
    }
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

    /// What brings all of them to a server.
    pub(crate) fn load(&self) -> Pipeline {
        let Self { publish, fill, note, expire, heartbeat, duty } = self;
        let mut load = Pipeline::new();
        for script in [publish, fill, note, expire, heartbeat, duty] {
            load.cmd("SCRIPT").arg("LOAD").arg(script.code).ignore();
        }
        load
    }
}

/// Milliseconds, as the scripts take them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
