//! A stand-in for SQL Server: it speaks TDS 7.4, so that a real client can be tested where no SQL Server can be had.
//!
//! It is for tests, demos and development, never for production. It keeps its data in SQLite, and change tracking and
//! change data capture as SQL Server keeps them.
//!
//! - [`value`]: types and values, as both halves know them.
//! - [`session`]: what the wire asks of the engine, and what the engine answers.

#![warn(missing_docs)]

pub mod faults;
pub mod server;
pub mod session;
pub mod tds;
pub mod value;
