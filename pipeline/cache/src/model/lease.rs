//! A model of the capture lease: position and epoch are one row, updated only by the holder of the epoch. Any holder
//! may pause for as long as it likes and go on; nothing may be lost or skipped, and nothing of a lower epoch may count.

use stateright::{Checker, HasDiscoveries, Model, Property};

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// The position is written whoever holds the lease.
    UnconditionalCommit,
    /// Events of a lower epoch count.
    NoEpochCheck,
    /// The position is written before its events are on the bus.
    CommitBeforePublish,
}

/// One that captures, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Holder {
    epoch: u8,
    /// What it has read up to, and what of that it has published.
    read: u8,
    published: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct World {
    epoch: u8,
    position: u8,
    holders: [Holder; 2],
    /// Epoch and version of each event, in the order of the bus.
    bus: Vec<(u8, u8)>,
    seen_epoch: u8,
    last: u8,
    gap: bool,
    old_counted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Take(usize),
    Read(usize),
    Publish(usize),
    Commit(usize),
    Consume,
}

struct Lease {
    versions: u8,
    epochs: u8,
    mutation: Mutation,
}

impl Model for Lease {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if !world.bus.is_empty() {
            actions.push(Action::Consume);
        }
        for (n, holder) in world.holders.iter().enumerate() {
            if world.epoch < self.epochs {
                actions.push(Action::Take(n));
            }
            if holder.epoch == 0 {
                continue;
            }
            if holder.read < self.versions {
                actions.push(Action::Read(n));
            }
            if holder.published < holder.read {
                actions.push(Action::Publish(n));
            }
            actions.push(Action::Commit(n));
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Take(n) => {
                world.epoch += 1;
                world.holders[n] = Holder { epoch: world.epoch, read: world.position, published: world.position };
            }
            Action::Read(n) => world.holders[n].read += 1,
            Action::Publish(n) => {
                let holder = &mut world.holders[n];
                holder.published += 1;
                world.bus.push((holder.epoch, holder.published));
            }
            Action::Commit(n) => {
                let holder = world.holders[n];
                if holder.epoch == world.epoch || self.mutation == Mutation::UnconditionalCommit {
                    let early = self.mutation == Mutation::CommitBeforePublish;
                    world.position = if early { holder.read } else { holder.published };
                } else {
                    // The row says that somebody else holds it: this one stops.
                    world.holders[n] = Holder::default();
                }
            }
            Action::Consume => {
                let (epoch, version) = world.bus.remove(0);
                if epoch < world.seen_epoch && self.mutation != Mutation::NoEpochCheck {
                    return Some(world);
                }
                world.old_counted |= epoch < world.seen_epoch && version > world.last;
                world.seen_epoch = world.seen_epoch.max(epoch);
                world.gap |= version > world.last + 1;
                world.last = world.last.max(version);
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no version is skipped", |_, world: &World| !world.gap),
            Property::always("nothing of a lower epoch counts", |_, world: &World| !world.old_counted),
            Property::always("what the row calls done was heard", |_, world: &World| {
                let waiting = world.bus.iter().map(|(_, version)| *version).max().unwrap_or(0);
                world.position <= world.last.max(waiting)
            }),
            Property::sometimes("everything is done by a later holder", |lease: &Lease, world: &World| {
                world.epoch > 1 && world.position == lease.versions && world.last == lease.versions
            }),
        ]
    }
}

fn check(mutation: Mutation) -> impl Checker<Lease> {
    let lease = Lease { versions: 2, epochs: 3, mutation };
    lease.checker().finish_when(HasDiscoveries::AnyFailures).threads(2).spawn_bfs().join()
}

#[test]
fn a_lease_that_is_one_row_loses_and_skips_nothing() {
    let checker = check(Mutation::None);
    eprintln!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn each_broken_rule_of_the_lease_is_found() {
    for mutation in [Mutation::UnconditionalCommit, Mutation::NoEpochCheck, Mutation::CommitBeforePublish] {
        let checker = check(mutation);
        let found: Vec<_> = checker.discoveries().into_keys().filter(|name| !name.starts_with("everything")).collect();
        eprintln!("{mutation:?}: {found:?} is broken after {} states", checker.unique_state_count());
        assert!(!found.is_empty(), "{mutation:?} goes unnoticed");
    }
}
