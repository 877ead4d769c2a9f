//! A stand-in for SQL Server: it speaks TDS 7.4, so that a real client can be tested where no SQL Server can be had.
//!
//! It is for tests, demos and development, never for production. It keeps its data in SQLite, and change tracking and
//! change data capture as SQL Server keeps them.
//!
//! - [`server`]: starting, stopping and restarting it, within the process of a test.
//! - [`faults`]: what goes wrong on request.
//! - [`engine`]: T-SQL, on SQLite.
//! - [`tds`]: the wire. [`session`]: what the wire asks of the engine, and what the engine answers. [`value`]: types and
//!   values, as both know them.
//!
//! # What it shows, and what it cannot show
//!
//! Two independent clients are tested against the wire: `tiberius`, which the product uses, and `python-tds`. What both
//! understand is likely to be TDS; that SQL Server would have sent the same bytes is not proved by it. By hand,
//! Microsoft's own ODBC driver (18.6) and FreeTDS (in `pymssql` 2.4) were tried: logins, all types, parameters, calls,
//! transactions and errors. The wire was written after Microsoft's description of the protocol and after what these
//! clients send and expect.
//!
//! Nothing here says anything about
//! - speed: neither the server's, nor that of its plans, nor what a lock or a page costs. Only ratios of what the
//!   product itself does on either side of the wire mean something;
//! - the insides of `SNAPSHOT`: row versions, update conflicts between more than two writers, what tempdb does;
//! - lock escalation, deadlocks as they come about (they are only injected), and timeouts under load;
//! - permissions: one login may do all;
//! - the optimiser: every statement runs, and no plan is ever bad;
//! - the capture job as SQL Server Agent runs it: there is a job that can lag, be stopped and clean up, but it does not
//!   read a transaction log;
//! - collations other than `SQL_Latin1_General_CP1_CI_AS`, and T-SQL that the product does not send.
//!
//! What needs these needs a real server: the contract suite runs against one when `SMARTPULSE_SQLSERVER_URL` is set.

#![warn(missing_docs)]

pub mod engine;
pub mod faults;
pub mod server;
pub mod session;
pub mod tds;
pub mod value;
