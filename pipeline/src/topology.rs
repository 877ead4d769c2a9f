//! The graph at work: blueprint (checked), built (connected), running.
//!
//! A source and the linear run of operators behind it are one task; each sink is one; a further stage exists
//! only at a merge or where an operator runs in lanes. All channels are bounded, and a full one holds its
//! source back. Shutdown: sources stop, everything behind them drains, acks settle, positions are committed,
//! and then the channels close one after the other.

mod blueprint;
mod build;
pub(crate) mod chain;
mod rehearse;
pub mod retry;
mod running;
mod sink_task;
mod stage_task;

pub use blueprint::Blueprint;
pub use build::{BuildEnv, Built};
pub use running::{ComponentSummary, Running, Summary};
