//! What there is of the key: committed versions, the bus, Redis, and the instances.

use super::Mutation;
use crate::decide::{Entry, Floor, Freshness, Held};
use smartpulse_json::Document;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What exists of the key at a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Row {
    pub(super) version: u8,
    pub(super) gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Message {
    pub(super) row: Row,
    pub(super) previous: Option<u8>,
    pub(super) whole: bool,
}

/// An instance's entry as the model keeps it; [`Instance::entry`] makes the real one of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Copy {
    Held { document: Vec<u8>, version: u8, wanted: u8, fresh: bool },
    Tombstone(u8),
}

/// A load under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Load {
    pub(super) found: Row,
    pub(super) from_database: bool,
}

/// What was heard of the key while a load or a write of it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Heard {
    pub(super) version: u8,
    pub(super) gone: bool,
    pub(super) since_the_load_began: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Instance {
    pub(super) entry: Option<Copy>,
    pub(super) load: Option<Load>,
    /// A write of this instance that is committed and not yet kept.
    pub(super) own: Option<Row>,
    /// It began before a loss was noticed.
    pub(super) own_in_doubt: bool,
    pub(super) heard: Heard,
    pub(super) inbox: Vec<Message>,
    /// Messages were lost, and nobody noticed yet.
    pub(super) lost: bool,
    /// Redis came back older, and this instance was not told yet.
    pub(super) misled: bool,
    /// The newest version that a reader was given.
    pub(super) served: u8,
}

/// A consumer of the bus with its operators' state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Worker {
    /// The last version that left its operators.
    pub(super) base: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct World {
    /// Of each committed version, whether it is a delete.
    pub(super) commits: Vec<bool>,
    /// Events before this one were taken from the bus, and those before `acked` are done.
    pub(super) taken: u8,
    pub(super) acked: u8,
    pub(super) workers: [Worker; 2],
    pub(super) active: usize,
    /// What the active worker read of the database because the counter was unknown.
    pub(super) refill: Option<u8>,
    pub(super) counter: Option<u8>,
    pub(super) shared: Option<(Vec<u8>, Row)>,
    /// The newest version that a refused fill or a note told of.
    pub(super) noted: u8,
    /// Redis came back older, and its publisher did not notice yet.
    pub(super) older: bool,
    pub(super) instances: Vec<Instance>,
    /// An event went to the dead letters and no audit ran since.
    pub(super) unaudited: bool,
    pub(super) faults: u8,
    /// The newest version that an invalidation told of since Redis has its data.
    pub(super) told: u8,
    pub(super) went_back: bool,
}

impl World {
    pub(super) fn row(&self, version: u8) -> Row {
        Row { version, gone: self.commits[usize::from(version) - 1] }
    }

    pub(super) fn truth(&self) -> Option<Row> {
        u8::try_from(self.commits.len()).ok().filter(|last| *last > 0).map(|last| self.row(last))
    }

    /// The document at a version: the versions since it was last created.
    pub(super) fn document(&self, version: u8) -> Vec<u8> {
        let mut versions: Vec<u8> = (1..=version).rev().take_while(|v| !self.row(*v).gone).collect();
        versions.reverse();
        versions
    }

    pub(super) fn crash_worker(&mut self) {
        self.taken = self.acked;
        self.refill = None;
        self.workers[self.active] = Worker::default();
    }

    pub(super) fn lose_redis(&mut self) {
        (self.counter, self.shared, self.noted, self.told, self.older) = (None, None, 0, 0, false);
        self.cut_off();
    }

    /// Redis comes back with what it had when `version` was the newest.
    pub(super) fn roll_back_redis(&mut self, version: u8) {
        let row = self.row(version);
        (self.counter, self.shared) = (Some(version), Some((self.document(version), row)));
        (self.noted, self.told, self.older) = (0, 0, true);
        self.cut_off();
        for instance in &mut self.instances {
            instance.misled = true;
        }
    }

    /// The publisher, who was told a higher number, begins a new generation: all that was stored before is unknown.
    pub(super) fn distrust_redis(&mut self) {
        (self.counter, self.shared, self.older) = (None, None, false);
        for instance in &mut self.instances {
            instance.lost = true;
        }
    }

    fn cut_off(&mut self) {
        for instance in &mut self.instances {
            instance.inbox.clear();
            instance.lost = true;
        }
    }

    /// Brings worlds together that differ in nothing that can matter any more.
    pub(super) fn normalise(&mut self, faults: u8) {
        for instance in &mut self.instances {
            if instance.load.is_none() && instance.own.is_none() {
                instance.heard = Heard::default();
            }
        }
        self.instances.sort();
        if self.faults == faults {
            self.acked = self.taken;
            self.workers[1 - self.active] = Worker::default();
        }
    }

    /// What Redis answers with: the document at the counter, unless something newer is known.
    pub(super) fn answer(&self) -> Option<Row> {
        let (_, row) = self.shared.as_ref()?;
        (self.counter == Some(row.version) && row.version >= self.noted).then_some(*row)
    }

    pub(super) fn note(&mut self, version: u8) {
        self.noted = self.noted.max(version);
    }

    /// Nothing is under way any more.
    pub(super) fn is_settled(&self, mutation: Mutation) -> bool {
        let quiet = |i: &Instance| {
            i.inbox.is_empty() && i.load.is_none() && i.own.is_none() && (!i.lost || mutation == Mutation::NoWatermark)
        };
        usize::from(self.acked) == self.commits.len()
            && (!self.unaudited || mutation == Mutation::NoAudit)
            && (!self.older || mutation == Mutation::TrustOlderRedis)
            && self.instances.iter().all(quiet)
    }

    pub(super) fn agrees(&self) -> bool {
        let Some(truth) = self.truth() else { return true };
        let right = |copy: &Copy| match copy {
            // What is not fresh is loaded again by its next reader.
            Copy::Held { version, fresh, wanted, .. } => {
                !fresh || wanted > version || (*version == truth.version && !truth.gone)
            }
            Copy::Tombstone(version) => *version < truth.version || truth.gone,
        };
        self.instances.iter().filter_map(|i| i.entry.as_ref()).all(right)
            && self.answer().is_none_or(|row| row == truth)
            && self.counter.is_none_or(|counter| counter == truth.version)
    }
}

impl World {
    pub(super) fn load_from_database(&mut self, n: usize) {
        self.instances[n].load = self.truth().map(|found| Load { found, from_database: true });
        self.instances[n].heard.since_the_load_began = false;
    }

    pub(super) fn serve(&mut self, n: usize, version: u8) {
        let instance = &mut self.instances[n];
        self.went_back |= version < instance.served && !instance.misled;
        instance.served = version;
    }
}

impl Heard {
    pub(super) fn floor(self) -> Floor {
        Floor { version: self.version.into(), gone: self.gone }
    }
}

impl Instance {
    /// The real entry of the copy.
    pub(super) fn entry(&self, now: Instant) -> Option<Entry> {
        Some(match self.entry.as_ref()? {
            Copy::Tombstone(version) => Entry::Tombstone((*version).into()),
            Copy::Held { document, version, wanted, fresh } => {
                let until = if *fresh { now + Duration::from_secs(1) } else { now };
                let held = Held::new(text(document), (*version).into(), Freshness { until, generation: 0 });
                Entry::Document(Arc::new(Held { wanted: (*wanted).into(), ..held }))
            }
        })
    }

    /// Takes over what was decided; `None` leaves the copy.
    pub(super) fn keep(&mut self, entry: Option<Entry>, now: Instant) {
        match entry {
            None => {}
            Some(Entry::Tombstone(version)) => self.entry = Some(Copy::Tombstone(small(version))),
            Some(Entry::Document(held)) => {
                self.entry = Some(Copy::Held {
                    document: versions(&held.document),
                    version: small(held.version),
                    wanted: small(held.wanted),
                    fresh: now < held.fresh_until,
                });
            }
        }
    }

    /// An entry lives for a minute and more; what is under way of its key has arrived long before.
    pub(super) fn may_evict(&self, counter: Option<u8>) -> bool {
        let version = match &self.entry {
            Some(Copy::Held { wanted, .. }) => *wanted,
            Some(Copy::Tombstone(version)) => *version,
            None => return false,
        };
        self.inbox.is_empty()
            && !self.lost
            && self.load.is_none()
            && self.own.is_none()
            && counter.is_some_and(|counter| version <= counter)
    }

    pub(super) fn raise(&mut self, version: u8, gone: bool) {
        self.heard.since_the_load_began = true;
        if version > self.heard.version {
            (self.heard.version, self.heard.gone) = (version, gone);
        }
    }

    /// A loss was noticed: nothing that is held, or being loaded, is fresh.
    pub(super) fn doubt_everything(&mut self) {
        if let Some(Copy::Held { fresh, .. }) = &mut self.entry {
            *fresh = false;
        }
        self.load = None;
        self.own_in_doubt = self.own.is_some();
        self.lost = false;
    }
}

pub(super) fn text(versions: &[u8]) -> Document {
    format!("{{\"versions\":{versions:?}}}").parse().expect("a document of the model")
}

pub(super) fn versions(document: &Document) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_slice(document.bytes()).expect("a document of the model");
    value["versions"].as_array().into_iter().flatten().filter_map(|v| v.as_i64()).map(small).collect()
}

pub(super) fn small(version: i64) -> u8 {
    u8::try_from(version).expect("the model's versions are few")
}
