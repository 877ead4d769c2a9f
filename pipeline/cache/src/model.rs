//! A model of one key in a cluster, checked in every interleaving (within its bounds): writers, a database, the bus
//! with redelivery, two sync workers, Redis, lossy pub/sub, and two instances that fill, patch, invalidate and evict.
//!
//! What decides is the real code: [`decide`] for an instance's entry, [`Publication::outcome`] for the counter.
//! The rest is contract 4, as short as it can be said. A document is the list of versions that made it, so that a patch
//! on another base leaves a document that never was.
//!
//! Bounds: instances, versions and faults ([`Cluster`]). [`Mutation`]s break one rule each; the check must find them.

mod lease;

use crate::decide::{self, Content, Entry, Filled, Floor, Freshness, Held};
use bytes::Bytes;
use smartpulse_clients::pubsub::{Outcome, Publication};
use smartpulse_json::Document;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// A receiver applies a patch to whatever it holds.
    PatchOnAnyBase,
    /// A fill of the shared document need not match the counter.
    FillAnyVersion,
    /// A fill of the shared document moves the counter.
    FillMovesCounter,
    /// Redis goes on answering with what an invalidation called old.
    NoNote,
    /// An event is judged although Redis lost the counter.
    NoRefill,
    /// Lost messages are never noticed.
    NoWatermark,
    /// A load ignores what was heard while it ran.
    NoFloor,
    /// Nobody compares counters with the database.
    NoAudit,
}

/// What exists of the key at a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    version: u8,
    gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    row: Row,
    previous: Option<u8>,
    whole: bool,
}

/// An instance's entry as the model keeps it; [`Instance::entry`] makes the real one of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Copy {
    Held { document: Vec<u8>, version: u8, wanted: u8, fresh: bool },
    Tombstone(u8),
}

/// A load under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Load {
    found: Row,
    from_database: bool,
}

/// What was heard of the key while a load or a write of it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Heard {
    version: u8,
    gone: bool,
    since_the_load_began: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Instance {
    entry: Option<Copy>,
    load: Option<Load>,
    /// A write of this instance that is committed and not yet kept.
    own: Option<Row>,
    /// It began before a loss was noticed.
    own_in_doubt: bool,
    heard: Heard,
    inbox: Vec<Message>,
    /// Messages were lost, and nobody noticed yet.
    lost: bool,
    /// The newest version that a reader was given.
    served: u8,
}

/// A consumer of the bus with its operators' state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Worker {
    /// The last version that left its operators.
    base: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct World {
    /// Of each committed version, whether it is a delete.
    commits: Vec<bool>,
    /// Events before this one were taken from the bus, and those before `acked` are done.
    taken: u8,
    acked: u8,
    workers: [Worker; 2],
    active: usize,
    /// What the active worker read of the database because the counter was unknown.
    refill: Option<u8>,
    counter: Option<u8>,
    shared: Option<(Vec<u8>, Row)>,
    /// The newest version that a refused fill or a note told of.
    noted: u8,
    instances: Vec<Instance>,
    /// An event went to the dead letters and no audit ran since.
    unaudited: bool,
    faults: u8,
    /// The newest version that an invalidation told of since Redis has its data.
    told: u8,
    went_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Write,
    WriteHere(usize),
    KeepOwn(usize),
    Delete,
    Publish,
    Acknowledge,
    DeadLetter,
    CrashWorker,
    MoveKey,
    LoseRedis,
    LoseRedisAndWorker,
    ExpireShared,
    Audit,
    Receive(usize),
    LoseMessages(usize),
    NoticeLoss(usize),
    Invalidate(usize, u8),
    Read(usize),
    Land(usize),
    Evict(usize),
}

impl Action {
    fn is_fault(self) -> bool {
        matches!(
            self,
            Self::DeadLetter
                | Self::CrashWorker
                | Self::MoveKey
                | Self::LoseRedis
                | Self::LoseRedisAndWorker
                | Self::ExpireShared
                | Self::LoseMessages(_)
        )
    }
}

struct Cluster {
    instances: usize,
    versions: usize,
    faults: u8,
    /// Whether instances write, too: doubles the worlds, so not everywhere.
    own_writes: bool,
    mutation: Mutation,
    start: Instant,
}

impl Model for Cluster {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World { instances: vec![Instance::default(); self.instances], ..World::default() }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.commits.len() < self.versions {
            actions.push(Action::Write);
            if world.commits.last() == Some(&false) {
                actions.push(Action::Delete);
            }
        }
        if usize::from(world.taken) < world.commits.len() {
            actions.push(Action::Publish);
        }
        if world.acked < world.taken {
            actions.push(Action::Acknowledge);
        }
        if world.unaudited && self.mutation != Mutation::NoAudit {
            actions.push(Action::Audit);
        }
        if world.faults < self.faults {
            actions.extend([
                Action::CrashWorker,
                Action::MoveKey,
                Action::LoseRedis,
                Action::LoseRedisAndWorker,
                Action::ExpireShared,
            ]);
            if usize::from(world.taken) < world.commits.len() {
                actions.push(Action::DeadLetter);
            }
        }
        for (n, instance) in world.instances.iter().enumerate() {
            if instance.own.is_some() {
                actions.push(Action::KeepOwn(n));
            } else if self.own_writes && world.commits.len() < self.versions {
                actions.push(Action::WriteHere(n));
            }
            if !instance.inbox.is_empty() {
                actions.push(Action::Receive(n));
                if world.faults < self.faults {
                    actions.push(Action::LoseMessages(n));
                }
            }
            if instance.lost && self.mutation != Mutation::NoWatermark {
                actions.push(Action::NoticeLoss(n));
            }
            if let Some(row) = world.truth() {
                actions.push(Action::Invalidate(n, row.version));
            }
            actions.push(if instance.load.is_some() { Action::Land(n) } else { Action::Read(n) });
            if instance.may_evict(world.counter) {
                actions.push(Action::Evict(n));
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Write => world.commits.push(false),
            Action::WriteHere(n) => {
                world.commits.push(false);
                world.instances[n].own = world.truth();
            }
            Action::KeepOwn(n) => self.keep_own(&mut world, n),
            Action::Delete => world.commits.push(true),
            Action::Publish => self.publish_next(&mut world),
            Action::Acknowledge => world.acked = world.taken,
            Action::DeadLetter => {
                world.taken += 1;
                world.unaudited = true;
            }
            Action::CrashWorker => world.crash_worker(),
            Action::MoveKey => {
                world.active = 1 - world.active;
                world.taken = world.acked;
                world.refill = None;
            }
            Action::LoseRedis => world.lose_redis(),
            Action::LoseRedisAndWorker => {
                world.lose_redis();
                world.crash_worker();
            }
            Action::ExpireShared => world.shared = None,
            Action::Audit => {
                if let Some(row) = world.truth() {
                    self.publish(&mut world, row, None, false);
                }
                world.unaudited = false;
            }
            Action::Receive(n) => self.receive(&mut world, n),
            Action::LoseMessages(n) => {
                world.instances[n].inbox.clear();
                world.instances[n].lost = true;
            }
            Action::NoticeLoss(n) => world.instances[n].doubt_everything(),
            Action::Invalidate(n, version) => {
                if self.mutation != Mutation::NoNote {
                    world.note(version);
                }
                world.told = world.told.max(version);
                self.invalidate(&mut world.instances[n], version);
            }
            Action::Read(n) => self.read(&mut world, n),
            Action::Land(n) => self.land(&mut world, n),
            Action::Evict(n) => world.instances[n].entry = None,
        }
        world.faults += u8::from(action.is_fault());
        world.normalise(self.faults);
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no reader is given an older version than the one before", |_, world: &World| {
                !world.went_back
            }),
            Property::always("a document is the one of its version", |_, world: &World| {
                let right = |document: &[u8], version| document == world.document(version);
                let held = |copy: &Copy| match copy {
                    Copy::Held { document, version, .. } => right(document, *version),
                    Copy::Tombstone(_) => true,
                };
                let shared = world.shared.iter().all(|(document, row)| row.gone || right(document, row.version));
                shared && world.instances.iter().filter_map(|i| i.entry.as_ref()).all(held)
            }),
            Property::always("when all is settled everybody has the truth", |cluster, world: &World| {
                !world.is_settled(cluster.mutation) || world.agrees()
            }),
            Property::always("what an invalidation called old is answered no more", |_, world: &World| {
                world.answer().is_none_or(|row| row.version >= world.told)
            }),
        ]
    }
}

impl World {
    fn row(&self, version: u8) -> Row {
        Row { version, gone: self.commits[usize::from(version) - 1] }
    }

    fn truth(&self) -> Option<Row> {
        u8::try_from(self.commits.len()).ok().filter(|last| *last > 0).map(|last| self.row(last))
    }

    /// The document at a version: the versions since it was last created.
    fn document(&self, version: u8) -> Vec<u8> {
        let mut versions: Vec<u8> = (1..=version).rev().take_while(|v| !self.row(*v).gone).collect();
        versions.reverse();
        versions
    }

    fn crash_worker(&mut self) {
        self.taken = self.acked;
        self.refill = None;
        self.workers[self.active] = Worker::default();
    }

    fn lose_redis(&mut self) {
        (self.counter, self.shared, self.noted, self.told) = (None, None, 0, 0);
        for instance in &mut self.instances {
            instance.inbox.clear();
            instance.lost = true;
        }
    }

    /// Brings worlds together that differ in nothing that can matter any more.
    fn normalise(&mut self, faults: u8) {
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
    fn answer(&self) -> Option<Row> {
        let (_, row) = self.shared.as_ref()?;
        (self.counter == Some(row.version) && row.version >= self.noted).then_some(*row)
    }

    fn note(&mut self, version: u8) {
        self.noted = self.noted.max(version);
    }

    /// Nothing is under way any more.
    fn is_settled(&self, mutation: Mutation) -> bool {
        let quiet = |i: &Instance| {
            i.inbox.is_empty() && i.load.is_none() && i.own.is_none() && (!i.lost || mutation == Mutation::NoWatermark)
        };
        usize::from(self.acked) == self.commits.len()
            && (!self.unaudited || mutation == Mutation::NoAudit)
            && self.instances.iter().all(quiet)
    }

    fn agrees(&self) -> bool {
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

impl Cluster {
    /// The active worker takes the next event through its operators and to Redis.
    fn publish_next(&self, world: &mut World) {
        let row = world.row(world.taken + 1);
        let base = world.workers[world.active].base;
        if base.is_none_or(|base| row.version > base) {
            if world.counter.is_none() && self.mutation != Mutation::NoRefill {
                // First the database is read, then what it said is published: something may happen in between.
                match world.refill.take() {
                    None => world.refill = world.truth().map(|row| row.version),
                    Some(version) => self.publish(world, world.row(version), None, false),
                }
                return;
            }
            self.publish(world, row, base, true);
            world.workers[world.active].base = Some(row.version);
        }
        world.taken += 1;
    }

    /// The script: compare, store, publish.
    fn publish(&self, world: &mut World, row: Row, previous: Option<u8>, has_patch: bool) {
        let follows = previous.is_some_and(|previous| previous + 1 == row.version && !world.row(previous).gone);
        let whole = !has_patch || !follows || row.gone;
        let publication = Publication {
            channel: "c".into(),
            section: "s".into(),
            key: "k".into(),
            version: row.version.into(),
            previous_version: previous.map(i64::from),
            patch: Bytes::new(),
            whole: Bytes::new(),
            document: None,
            resync: false,
            known_only: false,
        };
        let whole = match publication.outcome(world.counter.map(i64::from)) {
            Outcome::Patch => whole,
            Outcome::Whole => true,
            Outcome::Stale | Outcome::Unknown => return,
        };
        world.counter = Some(row.version);
        world.shared = Some((world.document(row.version), row));
        for instance in &mut world.instances {
            instance.inbox.push(Message { row, previous, whole });
        }
    }

    fn receive(&self, world: &mut World, n: usize) {
        let message = world.instances[n].inbox.remove(0);
        let (version, document) = (message.row.version, text(&world.document(message.row.version)));
        let items = format!("[{{\"Op\":\"add\",\"Path\":\"/versions/-\",\"Value\":{version}}}]");
        let content = match message {
            Message { row: Row { gone: true, .. }, .. } => Content::Removal,
            Message { whole: true, .. } => Content::Document(document),
            Message { previous, .. } => {
                let held = world.instances[n].entry(self.start).map(|entry| entry.version());
                let previous = if self.mutation == Mutation::PatchOnAnyBase { held } else { previous.map(i64::from) };
                Content::Patch { previous_version: previous, items: items.as_bytes() }
            }
        };
        let instance = &mut world.instances[n];
        instance.raise(version, message.row.gone);
        let entry = instance.entry(self.start);
        let (next, _) = decide::change(entry.as_ref(), version.into(), content, self.fresh());
        instance.keep(next, self.start);
    }

    fn invalidate(&self, instance: &mut Instance, version: u8) {
        instance.raise(version, false);
        let next = decide::invalidate(instance.entry(self.start).as_ref(), version.into());
        instance.keep(next, self.start);
    }

    /// A reader is answered from memory, or a load begins: from Redis if it has an answer, else from the database.
    fn read(&self, world: &mut World, n: usize) {
        match &world.instances[n].entry {
            Some(Copy::Held { version, wanted, fresh: true, .. }) if wanted <= version => {
                let version = *version;
                world.serve(n, version);
            }
            _ => {
                let shared = world.answer();
                let Some(found) = shared.or(world.truth()) else { return };
                world.instances[n].load = Some(Load { found, from_database: shared.is_none() });
                world.instances[n].heard.since_the_load_began = false;
            }
        }
    }

    /// A load ends; one that is older than what is known begins again.
    fn land(&self, world: &mut World, n: usize) {
        let Some(load) = world.instances[n].load.take() else { return };
        let heard = world.instances[n].heard;
        let row = load.found;
        let document = text(&world.document(row.version));
        // That there is no row has no version in the database; Redis knows the delete's.
        if row.gone && !load.from_database {
            if heard.version <= row.version {
                let entry = world.instances[n].entry(self.start);
                let (next, _) = decide::change(entry.as_ref(), row.version.into(), Content::Removal, self.fresh());
                world.instances[n].keep(next, self.start);
            } else {
                world.load_from_database(n);
            }
            return;
        }
        let found = (!row.gone).then_some((i64::from(row.version), &document));
        let floor = match heard {
            _ if self.mutation == Mutation::NoFloor => Floor::default(),
            Heard { since_the_load_began: false, .. } if row.gone => Floor::default(),
            heard => heard.floor(),
        };
        let entry = world.instances[n].entry(self.start);
        let (next, filled) = decide::fill(entry.as_ref(), found, floor, self.fresh(), self.start);
        world.instances[n].keep(next, self.start);
        if load.from_database && !row.gone {
            self.fill_shared(world, row);
        }
        match filled {
            Filled::Kept if !row.gone => world.serve(n, row.version),
            Filled::Newer(held) => world.serve(n, small(held.version)),
            Filled::Kept => {}
            // Older than what is known.
            Filled::Older => world.load_from_database(n),
        }
    }

    /// A write of this instance is kept, unless something newer came meanwhile.
    fn keep_own(&self, world: &mut World, n: usize) {
        let Some(row) = world.instances[n].own.take() else { return };
        let document = text(&world.document(row.version));
        world.instances[n].raise(row.version, row.gone);
        let floor = world.instances[n].heard.floor();
        let entry = world.instances[n].entry(self.start);
        let offered = Some((i64::from(row.version), &document));
        let in_doubt = std::mem::take(&mut world.instances[n].own_in_doubt);
        let freshness = if in_doubt { Freshness { until: self.start, generation: 0 } } else { self.fresh() };
        let (next, _) = decide::fill(entry.as_ref(), offered, floor, freshness, self.start);
        world.instances[n].keep(next, self.start);
        world.note(row.version);
    }

    fn fill_shared(&self, world: &mut World, row: Row) {
        let matches = world.counter == Some(row.version);
        if matches || (self.mutation == Mutation::FillAnyVersion && world.counter.is_some()) {
            if !matches {
                world.counter = Some(row.version);
            }
            world.shared = Some((world.document(row.version), row));
        } else if self.mutation == Mutation::FillMovesCounter {
            world.counter = world.counter.max(Some(row.version));
        } else {
            world.note(row.version);
        }
    }

    fn fresh(&self) -> Freshness {
        Freshness { until: self.start + Duration::from_secs(1), generation: 0 }
    }
}

impl World {
    fn load_from_database(&mut self, n: usize) {
        self.instances[n].load = self.truth().map(|found| Load { found, from_database: true });
        self.instances[n].heard.since_the_load_began = false;
    }

    fn serve(&mut self, n: usize, version: u8) {
        self.went_back |= version < self.instances[n].served;
        self.instances[n].served = version;
    }
}

impl Heard {
    fn floor(self) -> Floor {
        Floor { version: self.version.into(), gone: self.gone }
    }
}

impl Instance {
    /// The real entry of the copy.
    fn entry(&self, now: Instant) -> Option<Entry> {
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
    fn keep(&mut self, entry: Option<Entry>, now: Instant) {
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
    fn may_evict(&self, counter: Option<u8>) -> bool {
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

    fn raise(&mut self, version: u8, gone: bool) {
        self.heard.since_the_load_began = true;
        if version > self.heard.version {
            (self.heard.version, self.heard.gone) = (version, gone);
        }
    }

    /// A loss was noticed: nothing that is held, or being loaded, is fresh.
    fn doubt_everything(&mut self) {
        if let Some(Copy::Held { fresh, .. }) = &mut self.entry {
            *fresh = false;
        }
        self.load = None;
        self.own_in_doubt = self.own.is_some();
        self.lost = false;
    }
}

fn text(versions: &[u8]) -> Document {
    format!("{{\"versions\":{versions:?}}}").parse().expect("a document of the model")
}

fn versions(document: &Document) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_slice(document.bytes()).expect("a document of the model");
    value["versions"].as_array().into_iter().flatten().filter_map(|v| v.as_i64()).map(small).collect()
}

fn small(version: i64) -> u8 {
    u8::try_from(version).expect("the model's versions are few")
}

fn check(cluster: Cluster) -> impl Checker<Cluster> {
    cluster.checker().finish_when(HasDiscoveries::AnyFailures).threads(2).spawn_bfs().join()
}

impl Cluster {
    fn new(instances: usize, versions: usize, faults: u8) -> Self {
        Self { instances, versions, faults, own_writes: false, mutation: Mutation::None, start: Instant::now() }
    }
}

#[test]
fn every_interleaving_keeps_the_contract() {
    for cluster in [
        Cluster { own_writes: true, ..Cluster::new(2, 2, 0) },
        Cluster { own_writes: true, ..Cluster::new(1, 2, 1) },
        Cluster::new(1, 3, 1),
    ] {
        let Cluster { instances, versions, faults, .. } = cluster;
        let checker = check(cluster);
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        eprintln!("{instances} instances, {versions} versions, {faults} faults: {states} states, depth {depth}");
        checker.assert_properties();
        assert!(states > 10_000, "{states} states are too few to mean anything");
    }
}

#[test]
fn each_broken_rule_is_found() {
    for mutation in [
        Mutation::PatchOnAnyBase,
        Mutation::FillAnyVersion,
        Mutation::FillMovesCounter,
        Mutation::NoNote,
        Mutation::NoRefill,
        Mutation::NoWatermark,
        Mutation::NoFloor,
        Mutation::NoAudit,
    ] {
        let checker = check(Cluster { mutation, ..Cluster::new(1, 3, 1) });
        let found: Vec<_> = checker.discoveries().into_keys().collect();
        eprintln!("{mutation:?}: {found:?} is broken after {} states", checker.unique_state_count());
        assert!(!found.is_empty(), "{mutation:?} goes unnoticed");
    }
}
