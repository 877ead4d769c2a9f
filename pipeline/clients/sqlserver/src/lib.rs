//! SQL Server as a database resource, through `tiberius`: the same contract as the embedded database.
//!
//! - [`config`]: what the settings say. [`resources`]: the resource type `sqlserver`.
//! - [`connection`], [`pool`], [`errors`]: sessions, how many, and what is done when one fails.
//! - [`catalogue`], [`columns`], [`rows`]: tables as the server knows them; rows to documents, JSON to parameters.
//! - [`capture`], [`ledger`], [`plan`]: changes, where capture keeps its place, and what it needs.
//! - [`statements`]: all T-SQL that is sent.
//! - [`database`]: the resource itself, with its parts `read`, `write`, `bulk`, `delivery`, `notifications` and `schema`.
//!
//! Invariants: values are always parameters; names come from the catalogue and are quoted; a connection is
//! used again only after the call on it has succeeded as a whole; nothing newer than SQL Server 2017 is sent.

#![warn(missing_docs)]

mod bulk;
pub mod capture;
pub mod catalogue;
pub mod columns;
pub mod config;
pub mod connection;
pub mod database;
mod delivery;
pub mod errors;
pub mod ledger;
mod notifications;
pub mod plan;
pub mod pool;
mod read;
pub mod resources;
pub mod rows;
mod schema;
pub mod statements;
mod write;

pub use resources::register;
