//! The functions that translated statements call, registered on each connection.

mod metadata;
mod numbers;
mod text;
mod time;

use super::catalog::{Catalog, Table};
use super::convert::{Excess, convert};
use super::errors::{Result, fault};
use super::repr;
use super::types;
use crate::value::Value;
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value as Cell, ValueRef};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What functions know of their session.
#[derive(Debug, Default)]
pub(crate) struct FnState {
    pub catalog: Arc<Catalog>,
    pub temporary: HashMap<String, Arc<Table>>,
    pub database: String,
    pub login: String,
    /// Permissions that the tests took away, upper case.
    pub denied: HashSet<String>,
    /// Whether an insertion followed by an update is reported as an update.
    pub net_update: bool,
}

pub(crate) type Shared = Arc<Mutex<FnState>>;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type SqlResult = rusqlite::Result<Cell>;

/// Registers a function; `plain` ones give the same for the same arguments within a statement.
fn add(
    connection: &Connection,
    name: &str,
    function: impl Fn(&Context<'_>) -> SqlResult + Send + 'static,
) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(name, -1, flags, move |context| function(context))
}

/// Registers a function whose result is NULL as soon as an argument is.
fn strict(
    connection: &Connection,
    name: &str,
    function: impl Fn(&Context<'_>) -> SqlResult + Send + 'static,
) -> rusqlite::Result<()> {
    add(connection, name, move |context| {
        for at in 0..context.len() {
            if context.get_raw(at) == ValueRef::Null {
                return Ok(Cell::Null);
            }
        }
        function(context)
    })
}

fn string<'c>(context: &'c Context<'_>, at: usize) -> &'c str {
    if at >= context.len() {
        return "";
    }
    context.get_raw(at).as_str().unwrap_or_default()
}

fn integer(context: &Context<'_>, at: usize) -> i64 {
    if at >= context.len() {
        return 0;
    }
    match context.get_raw(at) {
        ValueRef::Integer(number) => number,
        ValueRef::Real(number) => number as i64,
        _ => 0,
    }
}

fn real(context: &Context<'_>, at: usize) -> f64 {
    match context.get_raw(at) {
        ValueRef::Integer(number) => number as f64,
        ValueRef::Real(number) => number,
        _ => 0.0,
    }
}

fn blob<'c>(context: &'c Context<'_>, at: usize) -> &'c [u8] {
    context.get_raw(at).as_bytes().unwrap_or_default()
}

fn cast(context: &Context<'_>) -> Result<Cell> {
    let (from, to) = (types::decode(integer(context, 1)), types::decode(integer(context, 2)));
    let value = repr::decode(context.get_raw(0), from);
    convert(value, from, to, integer(context, 3), Excess::Cut).map(repr::encode)
}

/// Registers everything on a connection.
pub(crate) fn register(connection: &Connection, state: &Shared) -> rusqlite::Result<()> {
    connection.create_collation("CI", repr::compare_text)?;
    add(connection, "cv", |context| {
        if context.get_raw(0) == ValueRef::Null {
            return Ok(Cell::Null);
        }
        Ok(cast(context)?)
    })?;
    add(connection, "tcv", |context| {
        if context.get_raw(0) == ValueRef::Null {
            return Ok(Cell::Null);
        }
        Ok(cast(context).unwrap_or(Cell::Null))
    })?;
    strict(connection, "bincat", |context| {
        let mut bytes = blob_of(context.get_raw(0));
        bytes.extend(blob_of(context.get_raw(1)));
        Ok(Cell::Blob(bytes))
    })?;
    add(connection, "toprows", |context| match context.get_raw(0) {
        ValueRef::Integer(rows) if rows >= 0 => Ok(Cell::Integer(rows)),
        _ => Err(fault(
            1060,
            15,
            "The number of rows provided for a TOP or FETCH clauses row count parameter must be an integer.",
        )
        .into()),
    })?;
    let flags = FunctionFlags::SQLITE_UTF8;
    connection.create_scalar_function("newid", 0, flags, |_| Ok(repr::encode(Value::Guid(uuid::Uuid::new_v4()))))?;
    connection.create_scalar_function("m_rand", -1, flags, |_| {
        let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
        Ok((high >> 12) as f64 / (1_u64 << 52) as f64)
    })?;
    add(connection, "one", |_| Ok(Cell::Integer(1)))?;
    numbers::register(connection)?;
    text::register(connection)?;
    time::register(connection)?;
    metadata::register(connection, state)
}

fn blob_of(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    }
}
