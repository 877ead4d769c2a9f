//! The wire: TDS 7.4 as a server speaks it (MS-TDS).
//!
//! - [`packet`], [`read`], [`tls`]: bytes. [`prelogin`], [`login`]: the beginning of a connection.
//! - [`types`], [`write_value`], [`read_value`], [`text`]: types and values. [`tokens`]: what an answer is made of.
//! - [`rpc`], [`declarations`], [`bulk`]: what a request is made of.
//! - `work`, `response`, `handshake`, `connection`: who does what when.
//!
//! What is not there: several requests at once on a connection (MARS), server-side cursors, table-valued parameters,
//! `sql_variant`, user-defined types, integrated and federated login, distributed transactions. A client that asks for
//! one of them is told so.

pub mod bulk;
pub(crate) mod connection;
pub mod declarations;
mod handshake;
pub mod login;
pub mod packet;
pub mod prelogin;
pub mod read;
pub mod read_value;
mod response;
pub mod rpc;
pub mod text;
pub mod tls;
pub mod tokens;
pub mod types;
mod work;
pub mod write_value;
