//! The vocabulary and the runtime of SmartPulse: events, acks, sources, operators, sinks, the registry that
//! knows them by name, and the topology that runs them.
//!
//! Architecture invariant: this crate names no connector. Databases, buses and pub/sub systems are traits of
//! `smartpulse-clients`; components are registered from outside (see [`registry`]).

#![warn(missing_docs)]

pub mod ack;
pub mod error;
pub mod event;
pub mod message;
pub mod operator;
pub mod position;
pub mod registry;
pub mod sink;
pub mod source;
pub mod state;
pub mod telemetry;
pub mod time;
pub mod topology;
pub mod trace;

pub use ack::Ack;
pub use error::{Error, ErrorKind};
pub use event::{Batch, Event, Key, Operation, Patch};
pub use position::Position;
pub use time::Timestamp;
pub use trace::{Span, SpanKind, TraceContext, Tracer};
