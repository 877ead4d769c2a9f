//! Sessions: batches run statement by statement, each translated to SQLite and bound to the session's values.

mod alter;
mod answer;
mod apply;
mod bulk;
mod cdc;
mod constraints;
mod control;
mod ddl;
mod dml;
mod indexes;
mod insert;
mod instances;
mod merge;
mod modules;
mod output;
mod procedures;
mod select;
mod system_procedures;
mod transaction;
mod triggers;
mod values;

use super::Core;
use super::ast::{Batch, Statement};
use super::bind::{Binder, Env, Parameter, TriggerTables};
use super::catalog::{Catalog, DATABASE, DATABASES, Table, same};
use super::convert::{Excess, convert};
use super::errors::{Fault, Reach, Result, cancelled, fault};
use super::functions::{self, Shared, lock};
use super::{clock, repr};
use crate::session::{Message, Output, Parameter as Passed, Sink};
use crate::value::SqlType;
use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use transaction::Transaction;

/// Where an answer goes.
pub(crate) struct Out<'a> {
    sink: Sink<'a>,
    cancelled: &'a AtomicBool,
}

impl Out<'_> {
    pub(crate) fn put(&mut self, output: Output) -> Result<()> {
        if (self.sink)(output) { Ok(()) } else { Err(cancelled()) }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(cancelled()) } else { Ok(()) }
    }
}

/// Errors behind which SQL Server says that the statement has been terminated.
const TERMINATED: &[i32] = &[220, 515, 547, 2601, 2627, 2628, 8115, 8152];

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    Break,
    Continue,
    Return(i64),
    /// The batch ends; the error was told already.
    Abort,
}

/// The variables of a batch, of a procedure's run, or of a trigger's.
#[derive(Default)]
pub(crate) struct Frame {
    pub types: HashMap<String, SqlType>,
    pub values: HashMap<String, Cell>,
    pub tables: HashMap<String, Arc<Table>>,
    pub trigger: Option<TriggerTables>,
    /// The procedure or trigger that runs.
    pub module: String,
    pub module_id: i64,
    pub scope_identity: Option<i64>,
    /// `#tables` made in this frame, which go with it.
    pub temporary: Vec<String>,
    /// Added to the lines of the module's body.
    pub line: u32,
}

/// What SET changes.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub nocount: bool,
    pub xact_abort: bool,
    /// Milliseconds; below zero for ever.
    pub lock_timeout: i64,
    pub isolation: u8,
    pub implicit_transactions: bool,
    pub identity_insert: Option<i64>,
    pub rowcount: i64,
    pub context: Cell,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nocount: false,
            xact_abort: false,
            lock_timeout: -1,
            isolation: 2,
            implicit_transactions: false,
            identity_insert: None,
            rowcount: 0,
            context: Cell::Null,
        }
    }
}

/// A session over a connection to SQLite.
pub(crate) struct EngineSession {
    core: Arc<Core>,
    connection: Connection,
    state: Shared,
    catalog: Arc<Catalog>,
    id: i64,
    login: String,
    database: String,
    /// Which restore of the database the session belongs to.
    epoch: u64,
    options: Options,
    transaction: Transaction,
    temporary: HashMap<String, Arc<Table>>,
    frames: Vec<Frame>,
    tries: usize,
    caught: Vec<Fault>,
    rowcount: i64,
    error: i32,
    identity: Option<i64>,
    triggers_running: Vec<i64>,
    next_temporary: u64,
    bulk: Option<bulk::Bulk>,
    /// Errors of the last statement that SET option commands left, for warnings once.
    now: i64,
}

impl EngineSession {
    pub(crate) fn open(core: &Arc<Core>, login: &str) -> Result<Self> {
        let connection = core.connect()?;
        let catalog = core.catalog();
        let state: Shared = Shared::default();
        {
            let mut state = lock(&state);
            state.login = login.to_owned();
            DATABASE.clone_into(&mut state.database);
            state.catalog = Arc::clone(&catalog);
        }
        functions::register(&connection, &state)?;
        Ok(Self {
            id: core.next_session(),
            core: Arc::clone(core),
            connection,
            state,
            catalog,
            login: login.to_owned(),
            database: DATABASE.to_owned(),
            epoch: core.epoch(),
            options: Options::default(),
            transaction: Transaction::default(),
            temporary: HashMap::new(),
            frames: Vec::new(),
            tries: 0,
            caught: Vec::new(),
            rowcount: 0,
            error: 0,
            identity: None,
            triggers_running: Vec::new(),
            next_temporary: 0,
            bulk: None,
            now: clock::utc_ticks(),
        })
    }

    fn frame(&self) -> &Frame {
        // A frame is pushed before anything runs.
        &self.frames[self.frames.len() - 1]
    }

    fn frame_mut(&mut self) -> &mut Frame {
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    /// Takes the newest catalogue, unless this transaction has its own.
    fn refresh(&mut self) {
        if self.transaction.catalog.is_none() {
            let newest = self.core.catalog();
            if newest.version != self.catalog.version {
                self.catalog = newest;
            }
        }
        let (denied, net_update) = self.core.switches();
        let mut state = lock(&self.state);
        state.catalog = Arc::clone(&self.catalog);
        state.database.clone_from(&self.database);
        state.temporary.clone_from(&self.temporary);
        state.denied = denied;
        state.net_update = net_update;
    }

    /// Binds something in the innermost frame.
    fn bind<T>(&self, bind: impl FnOnce(&mut Binder<'_>) -> Result<T>) -> Result<(T, BoundTo)> {
        let frame = self.frame();
        let env = Env {
            catalog: &self.catalog,
            temporary: &self.temporary,
            table_variables: &frame.tables,
            variables: &frame.types,
            trigger: frame.trigger.as_ref(),
            database: &self.database,
            ids: &self.core.ids,
        };
        let mut binder = Binder::new(&env);
        let bound = bind(&mut binder)?;
        let to = BoundTo {
            parameters: binder.parameters,
            views: binder.views.into_iter().collect(),
            locks: binder.locks,
            reads: binder.reads_database,
        };
        Ok((bound, to))
    }

    /// The values of a statement's parameters.
    fn values(&self, to: &BoundTo) -> Vec<Cell> {
        to.parameters.iter().map(|(parameter, sql_type)| self.value_of(parameter, *sql_type)).collect()
    }

    /// Reads or evaluates one row of one query.
    fn one_row(&mut self, sql: &str, to: &BoundTo) -> Result<Option<Vec<Cell>>> {
        let values = self.values(to);
        self.prepare_to_read(to)?;
        let mut statement = self.connection.prepare_cached(sql)?;
        let width = statement.column_count();
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let cells = (0..width).map(|at| row.get_ref(at).map(repr::cell)).collect::<rusqlite::Result<_>>()?;
        Ok(Some(cells))
    }

    /// The value of an expression, as another type.
    fn evaluate(&mut self, expr: &super::ast::Expr, to: SqlType) -> Result<Cell> {
        self.refresh();
        let (sql, bound) = self.bind(|binder| {
            let value = binder.value(expr)?;
            Ok(format!("SELECT {}", super::bind::coerce(&value, to)))
        })?;
        let cells = self.one_row(&sql, &bound)?.unwrap_or_default();
        Ok(cells.into_iter().next().unwrap_or(Cell::Null))
    }

    /// Whether a condition holds.
    fn holds(&mut self, condition: &super::ast::Expr) -> Result<bool> {
        self.refresh();
        self.now = clock::utc_ticks();
        let (sql, bound) = self.bind(|binder| Ok(format!("SELECT {}", binder.predicate(condition)?)))?;
        let cells = self.one_row(&sql, &bound)?.unwrap_or_default();
        Ok(matches!(cells.first(), Some(Cell::Integer(number)) if *number != 0))
    }

    /// Parses, remembering what was parsed before.
    fn parse(&self, sql: &str) -> Result<Batch> {
        self.core.parse(sql)
    }

    /// Runs statements in the innermost frame.
    fn run(&mut self, statements: &[Statement], out: &mut Out<'_>) -> Result<Flow> {
        for statement in statements {
            match self.statement(statement, out)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    /// Runs one statement; its error goes to the TRY around it, or is told and the batch goes on or ends.
    fn statement(&mut self, statement: &Statement, out: &mut Out<'_>) -> Result<Flow> {
        out.check()?;
        match self.execute(statement, out) {
            Ok(flow) => Ok(flow),
            Err(fault) if fault.reach == Reach::Cancelled => Err(fault),
            Err(fault) => {
                let mut fault = fault;
                if fault.line == 0 {
                    fault.line = statement.line + self.frame().line;
                    fault.procedure.clone_from(&self.frame().module);
                }
                self.error = fault.number;
                if self.tries > 0 || !self.triggers_running.is_empty() {
                    return Err(fault);
                }
                self.tell(&fault, out)
            }
        }
    }

    /// Tells an error that nothing caught.
    fn tell(&mut self, fault: &Fault, out: &mut Out<'_>) -> Result<Flow> {
        let raised = fault.number == 50000 && fault.reach == Reach::Statement;
        let rolls_back = fault.reach == Reach::Transaction || (self.options.xact_abort && !raised);
        out.put(Output::Message(fault.message()))?;
        if rolls_back && self.transaction.count > 0 {
            self.rollback_all(Some(out))?;
        }
        if TERMINATED.contains(&fault.number) {
            self.info("The statement has been terminated.", 3621, out)?;
        }
        out.put(Output::Done { rows: None })?;
        if fault.reach != Reach::Statement || rolls_back {
            return Ok(Flow::Abort);
        }
        Ok(Flow::Next)
    }

    /// A statement ended with a number of rows.
    fn done(&mut self, rows: i64, out: &mut Out<'_>) -> Result<()> {
        self.rowcount = rows;
        self.error = 0;
        let rows = (!self.options.nocount).then(|| u64::try_from(rows).unwrap_or(0));
        out.put(Output::Done { rows })
    }

    fn info(&self, text: impl Into<String>, number: i32, out: &mut Out<'_>) -> Result<()> {
        let message =
            Message { number, state: 1, class: 0, text: text.into(), procedure: self.frame().module.clone(), line: 1 };
        out.put(Output::Message(message))
    }

    /// Begins an answer: whether the session may go on at all.
    fn begin_answer(&mut self) -> bool {
        self.epoch == self.core.epoch()
    }

    /// Declares what was passed as variables of a new frame.
    fn declare_passed(&mut self, parameters: &[Passed]) {
        let frame = self.frame_mut();
        for parameter in parameters {
            let name = parameter.name.to_lowercase();
            frame.types.insert(name.clone(), parameter.sql_type);
            frame.values.insert(name, repr::encode(parameter.value.clone()));
        }
    }

    /// What is left at the end of a batch: a doomed transaction is undone.
    fn end_answer(&mut self, result: Result<Flow>, out: &mut Out<'_>) -> bool {
        let told = match result {
            Ok(_) => Ok(()),
            Err(fault) if fault.reach == Reach::Cancelled => {
                // The open statement was undone; the transaction stays unless XACT_ABORT is on.
                if self.options.xact_abort {
                    let _ = self.rollback_all(None);
                }
                Ok(())
            }
            Err(fault) => self.tell(&fault, out).map(|_| ()),
        };
        self.tries = 0;
        self.caught.clear();
        self.triggers_running.clear();
        if self.transaction.doomed {
            let doomed = fault(
                3998,
                16,
                "Uncommittable transaction is detected at the end of the batch. The transaction is rolled back.",
            );
            let _ = out.put(Output::Message(doomed.message()));
            let _ = self.rollback_all(Some(out));
            let _ = out.put(Output::Done { rows: None });
        }
        told.is_ok()
    }

    /// Leaves a frame: its `#tables` go.
    fn pop_frame(&mut self) -> Frame {
        let frame = self.frames.pop().unwrap_or_default();
        for table in frame.tables.values() {
            let _ = self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", table.physical));
        }
        if !self.frames.is_empty() {
            self.drop_temporary(&frame.temporary);
        }
        frame
    }

    fn drop_temporary(&mut self, names: &[String]) {
        for name in names {
            if let Some(table) = self.temporary.remove(name) {
                let _ = self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", table.physical));
            }
        }
    }

    fn use_database(&mut self, name: &str, out: &mut Out<'_>) -> Result<()> {
        let Some((known, _)) = DATABASES.iter().find(|(known, _)| same(known, name)) else {
            return Err(fault(
                911,
                16,
                format!("Database '{name}' does not exist. Make sure that the name is entered correctly."),
            )
            .reaching(Reach::Batch));
        };
        (*known).clone_into(&mut self.database);
        out.put(Output::Database((*known).to_owned()))?;
        self.info(format!("Changed database context to '{known}'."), 5701, out)
    }

    fn ended(&self, out: &mut Out<'_>) -> bool {
        let fault = fault(596, 21, "Cannot continue the execution because the session is in the kill state.");
        let _ = out.put(Output::Message(fault.message()));
        false
    }
}

/// What a translated statement needs when it runs.
pub(crate) struct BoundTo {
    pub parameters: Vec<(Parameter, SqlType)>,
    pub views: Vec<&'static str>,
    pub locks: bool,
    pub reads: bool,
}
