//! Apache Pulsar as a bus resource, through crate `pulsar`.
//!
//! - [`config`]: what the settings say; the resource type `pulsar`. [`names`]: topics as Pulsar spells them.
//! - [`bus`]: the resource itself. [`link`](mod@link): the connection, and when it is thrown away. [`errors`]: what the client's
//!   errors mean here.
//! - [`producer`]: one task per topic that is published to.
//! - [`consumer`]: the two halves that callers hold. [`polling`]: the task behind them, the only one that touches the
//!   client's consumer. [`deliveries`]: what is out and how often. [`ids`]: message ids as bytes, and foreign batches.
//! - [`dead_letter`]: what happens to a message that came too often. [`admin`]: the few calls of the admin interface.
//!
//! Contract beyond that of [`Bus`](smartpulse_clients::bus::Bus):
//! - Messages are sent unbatched, keyed and compressed with Pulsar's own zstd, so that Key_Shared works and every other
//!   client can read them. `publish` returns when the broker has receipted all of them. After an error some of them may be
//!   there, and a repetition sends them again: consumers compare versions.
//! - An ack is at least queued when `ack` returns. One that is lost with its connection brings the message again. Once the
//!   consumer is dropped, as at shutdown, `ack` returns when the broker has the ack.
//! - A consumer fails, and is to be opened again, when its stream or that of a partition ends, when partitions were added, when
//!   the broker no longer knows it, when a backlog does not move, and, where it is not durable, when the client has silently subscribed anew: messages may be missing
//!   then, and nothing else would say so.
//! - `nack` is for shared subscriptions. Where order counts it is refused: what comes after is already on its way. The runtime
//!   tries again in process instead, and what can never succeed goes to the graph's own dead letters.
//! - Key_Shared keeps the order of a key while consumers join. When one leaves with messages in its hands, the broker may
//!   give later ones of a key to the next consumer before it repeats these (apache/pulsar#12885): consumers compare versions,
//!   here as everywhere. Failover has no such exception: it stays, with all partitions, with the consumer that came first
//!   until that ends.
//! - A subscription that is taken is unavailable, and may be free later. So is everything while no broker is there, from the
//!   start; only a refused token, or certificate, is fatal then.
//!
//! Security: the client decompresses without a limit (32 KB can become 1 GiB). Who may publish to these topics must be
//! authorized, and the process needs a memory limit from its environment.

#![warn(missing_docs)]
// The client's own futures have 20 KB. Every one of ours that holds one lives on the heap, boxed by its trait or its task.
#![allow(clippy::large_futures)]

pub mod admin;
pub mod bus;
pub mod config;
pub mod consumer;
pub mod dead_letter;
pub mod deliveries;
pub mod errors;
pub mod ids;
pub mod link;
pub mod names;
pub mod polling;
pub mod producer;

pub use bus::PulsarBus;
pub use config::PulsarConfig;

use smartpulse_pipeline::registry::Registry;

/// Registers the resource type of this crate.
pub fn register(registry: &mut Registry) {
    registry.resource::<PulsarConfig>();
}
