//! From T-SQL to SQLite: names become columns with types, and every expression knows the type that it gives.
//!
//! Text that leaves here names tables and columns by their physical names, so that nothing a user writes is ever quoted
//! into SQLite.

mod aggregate;
mod change;
mod expr;
mod functions;
mod merge;
mod metadata;
mod operators;
mod query;
mod sets;
mod source;

pub(crate) use expr::{is_rowversion, resolve_type};
pub(crate) use merge::{BoundMerge, ClauseKind};
pub(crate) use query::BoundQuery;

use super::ast::Name;
use super::catalog::{Catalog, Table};
use super::errors::Result;
use super::sysviews;
use super::types;
use crate::value::SqlType;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A value that is bound when the statement runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Parameter {
    /// A variable of the batch, lower case, with its sign.
    Variable(String),
    /// `@@ROWCOUNT`, `SCOPE_IDENTITY`, `SYSUTCDATETIME` and their like, upper case.
    System(&'static str),
}

/// The tables that a trigger sees.
#[derive(Debug, Clone)]
pub(crate) struct TriggerTables {
    pub table: Arc<Table>,
    pub inserted: String,
    pub deleted: String,
    /// The numbers of the columns that the statement named; all for INSERT.
    pub updated: Vec<i64>,
}

/// What names mean at a place in a batch.
pub(crate) struct Env<'e> {
    pub catalog: &'e Catalog,
    /// `#tables` by lower-case name.
    pub temporary: &'e HashMap<String, Arc<Table>>,
    /// Table variables, lower case with the sign.
    pub table_variables: &'e HashMap<String, Arc<Table>>,
    pub variables: &'e HashMap<String, SqlType>,
    pub trigger: Option<&'e TriggerTables>,
    pub database: &'e str,
    pub ids: &'e AtomicU64,
}

/// An expression in SQLite's language.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub sql: String,
    pub sql_type: SqlType,
    pub nullable: bool,
    pub identity: bool,
    /// NULL as written: it takes the type of what it meets.
    pub untyped: bool,
    /// A condition, which is no value.
    pub condition: bool,
}

impl Bound {
    fn new(sql: impl Into<String>, sql_type: SqlType, nullable: bool) -> Self {
        Self { sql: sql.into(), sql_type, nullable, identity: false, untyped: false, condition: false }
    }

    fn condition(sql: String) -> Self {
        Self { condition: true, ..Self::new(sql, SqlType::Bit, false) }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct SourceColumn {
    pub name: String,
    pub sql: String,
    pub sql_type: SqlType,
    pub nullable: bool,
    pub identity: bool,
}

/// A table in FROM.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The alias, or the table's name.
    pub alias: String,
    /// Its name in SQLite's text.
    pub handle: String,
    pub schema: Option<String>,
    pub columns: Vec<SourceColumn>,
    /// When it is a table that can be written.
    pub table: Option<Arc<Table>>,
}

/// A CTE in sight.
#[derive(Debug, Clone)]
struct VisibleCte {
    name: String,
    handle: String,
    columns: Vec<query::OutColumn>,
}

pub(crate) struct Binder<'e> {
    pub env: &'e Env<'e>,
    /// Bound at `?1`, `?2`, ...
    pub parameters: Vec<(Parameter, SqlType)>,
    /// Views of the system that must be filled before the statement runs.
    pub views: BTreeSet<&'static str>,
    /// Whether a hint asks for locks until the end of the transaction.
    pub locks: bool,
    /// Whether a table of the database is read, not only temporary ones.
    pub reads_database: bool,
    scopes: Vec<Vec<Source>>,
    ctes: Vec<VisibleCte>,
    handles: usize,
    /// Columns seen outside of aggregates, while a select with GROUP BY or aggregates is bound.
    ungrouped: Vec<(usize, String)>,
    grouped: Vec<String>,
    aggregates: usize,
    in_aggregate: bool,
    depth: usize,
}

impl<'e> Binder<'e> {
    pub(crate) fn new(env: &'e Env<'e>) -> Self {
        Self {
            env,
            parameters: Vec::new(),
            views: BTreeSet::new(),
            locks: false,
            reads_database: false,
            scopes: Vec::new(),
            ctes: Vec::new(),
            handles: 0,
            ungrouped: Vec::new(),
            grouped: Vec::new(),
            aggregates: 0,
            in_aggregate: false,
            depth: 0,
        }
    }

    fn handle(&mut self) -> String {
        self.handles += 1;
        format!("s{}", self.handles)
    }

    /// The place of a value that is bound at run time.
    fn parameter(&mut self, parameter: Parameter, sql_type: SqlType) -> String {
        let at = match self.parameters.iter().position(|(known, _)| *known == parameter) {
            Some(at) => at,
            None => {
                self.parameters.push((parameter, sql_type));
                self.parameters.len() - 1
            }
        };
        format!("?{}", at + 1)
    }

    pub(crate) fn push_scope(&mut self, sources: Vec<Source>) {
        self.scopes.push(sources);
    }

    /// The table of a name, for writing.
    pub(crate) fn table(&self, name: &Name) -> Result<Arc<Table>> {
        find_table(self.env, name)
    }
}

/// The table of that name: a `#table`, or one of the database.
pub(crate) fn find_table(env: &Env<'_>, name: &Name) -> Result<Arc<Table>> {
    let unknown = || super::errors::unknown_object(&name.to_string());
    if name.last().starts_with('#') {
        return env.temporary.get(&name.last().to_lowercase()).cloned().ok_or_else(unknown);
    }
    let database = name.database().unwrap_or(env.database);
    if !super::catalog::same(database, super::catalog::DATABASE) {
        return Err(unknown());
    }
    env.catalog.table(name.schema().unwrap_or("dbo"), name.last()).cloned().ok_or_else(unknown)
}

/// Text in SQLite's quotes.
pub(crate) fn quote(text: &str) -> String {
    // SQLite ends a text at a zero character, so such a text goes in as bytes.
    if text.contains('\0') {
        return format!("CAST(x'{}' AS TEXT)", super::convert::hex(text.as_bytes()));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a value of one type can stand for one of the other as it is.
fn fits(from: SqlType, to: SqlType) -> bool {
    if from == to {
        return true;
    }
    if types::is_integer(from) && types::is_integer(to) {
        return types::integer_digits(from) <= types::integer_digits(to);
    }
    match (from, to) {
        (SqlType::Real, SqlType::Float) | (SqlType::Date, SqlType::DateTime2(_) | SqlType::DateTime) => true,
        (SqlType::DateTime2(a), SqlType::DateTime2(b))
        | (SqlType::Time(a), SqlType::Time(b))
        | (SqlType::DateTimeOffset(a), SqlType::DateTimeOffset(b)) => a <= b,
        (SqlType::DateTime | SqlType::SmallDateTime, SqlType::DateTime2(scale)) => scale >= 3,
        (SqlType::SmallDateTime, SqlType::DateTime) => true,
        _ if types::is_text(from) && matches!(to, SqlType::VarChar(_) | SqlType::NVarChar(_)) => {
            types::is_max(to) || (!types::is_max(from) && types::length(from) <= types::length(to))
        }
        _ if types::is_binary(from) && matches!(to, SqlType::VarBinary(_)) => {
            types::is_max(to) || (!types::is_max(from) && types::length(from) <= types::length(to))
        }
        _ => false,
    }
}

/// The expression as another type, as an implicit conversion makes it.
pub(crate) fn coerce(bound: &Bound, to: SqlType) -> String {
    let from = bound.sql_type;
    if bound.untyped || fits(from, to) {
        return bound.sql.clone();
    }
    if types::is_integer(from) && types::is_float(to) {
        return format!("CAST({} AS REAL)", bound.sql);
    }
    format!("cv({}, {}, {}, 0)", bound.sql, types::code(from), types::code(to))
}

/// As a value that SQLite compares as SQL Server does.
fn comparable(sql: String, sql_type: SqlType) -> String {
    if types::is_text(sql_type) {
        format!("{sql} COLLATE CI")
    } else if matches!(sql_type, SqlType::DateTimeOffset(_)) {
        format!("substr({sql}, 1, 8)")
    } else {
        sql
    }
}

/// The views of the system, by schema and name.
fn system_view(env: &Env<'_>, name: &Name) -> Option<&'static sysviews::View> {
    let database = name.database().unwrap_or(env.database);
    sysviews::find(database, name.schema().unwrap_or("dbo"), name.last())
}
