//! A model of one key in a cluster, checked in every interleaving (within its bounds): writers, a database, the bus
//! with redelivery, two sync workers, Redis, lossy pub/sub, and two instances that fill, patch, invalidate and evict.
//!
//! What decides is the real code: [`decide`] for an instance's entry, [`Publication::outcome`] for the counter.
//! The rest is contract 4, as short as it can be said. A document is the list of versions that made it, so that a patch
//! on another base leaves a document that never was.
//!
//! Bounds: instances, versions and faults ([`Cluster`]); never more than one fault. Told again and not run: the refill
//! (`known_only`) and the repetition of loads. Not there: sweeps, which repair what is assumed not to happen here. After
//! Redis came back older a reader may be given an older version until that is noticed, which is for two seconds.
//! [`Mutation`]s break one rule each; the check must find them.

mod actions;
mod lease;
mod world;

use stateright::{Checker, HasDiscoveries, Model};
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
    /// A Redis that came back older is trusted.
    TrustOlderRedis,
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
        Mutation::TrustOlderRedis,
    ] {
        let checker = check(Cluster { mutation, ..Cluster::new(1, 3, 1) });
        let found: Vec<_> = checker.discoveries().into_keys().collect();
        eprintln!("{mutation:?}: {found:?} is broken after {} states", checker.unique_state_count());
        assert!(!found.is_empty(), "{mutation:?} goes unnoticed");
    }
}
