//! What the wire asks of the engine, and what the engine answers.
//!
//! A session belongs to one connection and to one thread at a time; its calls block.

use crate::value::{SqlType, Value};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A parameter of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// With its `@`; empty when it is given by place.
    pub name: String,
    /// Its declared type.
    pub sql_type: SqlType,
    /// Its value.
    pub value: Value,
    /// True when the caller wants it back.
    pub output: bool,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name; empty when it has none.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether it is an identity column.
    pub identity: bool,
}

/// An error or a message, with SQL Server's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The number, such as 208 or 2627.
    pub number: i32,
    /// The state.
    pub state: u8,
    /// The severity: above 10 it is an error; from 20 on the connection ends.
    pub class: u8,
    /// The text.
    pub text: String,
    /// The procedure it is from; empty when from none.
    pub procedure: String,
    /// The line in the batch.
    pub line: u32,
}

/// A piece of an answer, in the order of the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A result begins.
    Columns(Arc<[Column]>),
    /// A row of it.
    Row(Vec<Value>),
    /// A statement ended; with the number of rows it gave or changed, unless NOCOUNT is on.
    Done {
        /// How many rows.
        rows: Option<u64>,
    },
    /// An error, or a message.
    Message(Message),
    /// The return status of a procedure.
    ReturnStatus(i32),
    /// An output parameter.
    ReturnValue {
        /// Its name.
        name: String,
        /// Its type.
        sql_type: SqlType,
        /// Its value.
        value: Value,
    },
    /// The session's database has changed.
    Database(String),
    /// A transaction has begun, with this number.
    Began(u64),
    /// A transaction was committed.
    Committed(u64),
    /// A transaction was rolled back.
    RolledBack(u64),
}

/// Takes the pieces of an answer as they come. False means that nobody listens any more: the engine stops.
pub type Sink<'a> = &'a mut dyn FnMut(Output) -> bool;

/// A connection's side of the engine.
pub trait Session: Send {
    /// Runs a batch, or the text of `sp_executesql` with its parameters (`@P1` and so on). Errors are part of the
    /// answer; false means that the connection must end. `cancelled` is set by an attention; the engine then stops
    /// soon and the batch's open statement is undone.
    fn batch(&mut self, sql: &str, parameters: &[Parameter], cancelled: &AtomicBool, out: Sink<'_>) -> bool;
    /// Calls a procedure by name. The last pieces are its return status and output parameters.
    fn call(&mut self, procedure: &str, parameters: &[Parameter], cancelled: &AtomicBool, out: Sink<'_>) -> bool;
    /// The columns that a bulk load of `columns` (text of `INSERT BULK`) takes, checked against the catalogue.
    ///
    /// # Errors
    /// The message for the client.
    fn bulk_columns(&mut self, insert_bulk: &str) -> Result<Arc<[Column]>, Message>;
    /// Inserts the rows of a bulk load, in one statement; the number of rows. Triggers fire and checks run only when the
    /// `INSERT BULK` said so.
    ///
    /// # Errors
    /// The message for the client; nothing was inserted.
    fn bulk_insert(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, Message>;
    /// Begins a transaction with an isolation level of TDS (0 as it is, 1 read uncommitted, 2 read committed, 3
    /// repeatable read, 4 serializable, 5 snapshot).
    fn begin(&mut self, isolation: u8, out: Sink<'_>) -> bool;
    /// Commits.
    fn commit(&mut self, out: Sink<'_>) -> bool;
    /// Rolls back.
    fn rollback(&mut self, out: Sink<'_>) -> bool;
    /// Puts the session into the state of a new one: what the reset flag of a request's header asks for.
    fn reset(&mut self);
}
