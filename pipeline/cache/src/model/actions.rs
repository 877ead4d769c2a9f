//! What may happen, and what it does.

use super::world::{Copy, Heard, Instance, Load, Message, Row, World, small, text};
use super::{Cluster, Mutation};
use crate::decide::{self, Content, Filled, Floor, Freshness};
use bytes::Bytes;
use smartpulse_clients::pubsub::{Outcome, Publication};
use stateright::{Model, Property};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
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
    RollBackRedis(u8),
    DistrustRedis,
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
                | Self::RollBackRedis(_)
                | Self::ExpireShared
                | Self::LoseMessages(_)
        )
    }
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
            actions.extend((1..world.counter.unwrap_or(1)).map(Action::RollBackRedis));
        }
        if world.older && self.mutation != Mutation::TrustOlderRedis {
            actions.push(Action::DistrustRedis);
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
            Action::RollBackRedis(version) => world.roll_back_redis(version),
            Action::DistrustRedis => world.distrust_redis(),
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
            Action::NoticeLoss(n) => {
                world.instances[n].doubt_everything();
                world.instances[n].misled &= world.older;
            }
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

impl Cluster {
    /// The active worker takes the next event through its operators and to Redis.
    fn publish_next(&self, world: &mut World) {
        if world.older && self.mutation != Mutation::TrustOlderRedis {
            world.distrust_redis();
        }
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
