//! Sessions: batches run statement by statement, each translated to SQLite and bound to the session's values.

mod apply;
mod bulk;
mod control;
mod ddl;
mod dml;
mod indexes;
mod merge;
mod modules;
mod procedures;
mod select;
mod system_procedures;
mod transaction;

use super::Core;
use super::ast::{Batch, Statement};
use super::bind::{Binder, Env, Parameter, TriggerTables};
use super::catalog::{Catalog, DATABASE, DATABASES, Table, same};
use super::convert::{Excess, convert};
use super::errors::{Fault, Reach, Result, cancelled, fault};
use super::functions::{self, Shared, lock};
use super::{clock, repr, sysviews};
use crate::session::{Column, Message, Output, Parameter as Passed, Session, Sink};
use crate::value::{SqlType, Value};
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

    fn value_of(&self, parameter: &Parameter, sql_type: SqlType) -> Cell {
        let name = match parameter {
            Parameter::Variable(name) => return self.frame().values.get(name).cloned().unwrap_or(Cell::Null),
            Parameter::System(name) => *name,
        };
        let number = |number: i64| Cell::Integer(number);
        let local = || self.now + i64::from(self.core.offset_minutes()) * 60 * repr::TICKS_PER_SECOND;
        let datetime = |ticks: i64| {
            let value = Value::DateTime(repr::from_ticks(ticks));
            convert(value, SqlType::DateTime2(7), SqlType::DateTime, 0, Excess::Cut).map_or(Cell::Null, repr::encode)
        };
        let caught = self.caught.last();
        match name {
            "ROWCOUNT" => number(self.rowcount),
            "TRANCOUNT" => number(i64::from(self.transaction.count)),
            "ERROR" => number(i64::from(self.error)),
            "IDENTITY" => decimal(self.identity),
            "SCOPE_IDENTITY" => decimal(self.frame().scope_identity),
            "SPID" => number(self.id),
            "VERSION" => Cell::Text(sysviews::version()),
            "SERVERNAME" => Cell::Text("STAND-IN".to_owned()),
            "SERVICENAME" => Cell::Text("MSSQLSERVER".to_owned()),
            "LOCK_TIMEOUT" => number(self.options.lock_timeout),
            "NESTLEVEL" => number(i64::try_from(self.frames.len() - 1).unwrap_or(0)),
            "PROCID" => number(self.frame().module_id),
            "DATEFIRST" => number(7),
            "MAX_PRECISION" => number(38),
            "MICROSOFTVERSION" => number(0x0e00_0bb8),
            "TEXTSIZE" => number(2_147_483_647),
            "LANGUAGE" => Cell::Text("us_english".to_owned()),
            "OPTIONS" => number(5496 | (i64::from(self.options.nocount) << 9)),
            "DBTS" => Cell::Blob(vec![0; 8]),
            "GETDATE" => datetime(local()),
            "GETUTCDATE" => datetime(self.now),
            "SYSDATETIME" => number(local()),
            "SYSUTCDATETIME" => number(self.now),
            "SYSDATETIMEOFFSET" => {
                let offset = i16::try_from(self.core.offset_minutes()).unwrap_or(0);
                repr::encode(Value::DateTimeOffset(repr::from_ticks(self.now), offset))
            }
            "XACT_STATE" => number(match (self.transaction.count, self.transaction.doomed) {
                (0, _) => 0,
                (_, true) => -1,
                _ => 1,
            }),
            "TRIGGER_NESTLEVEL" => number(i64::try_from(self.triggers_running.len()).unwrap_or(0)),
            "TRANSACTION_ID" => number(i64::try_from(self.transaction.id).unwrap_or(0)),
            "CONTEXT_INFO" => self.options.context.clone(),
            "LOGIN" => Cell::Text(self.login.clone()),
            "USER" => Cell::Text("dbo".to_owned()),
            "ERROR_NUMBER" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.number))),
            "ERROR_SEVERITY" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.class))),
            "ERROR_STATE" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.state))),
            "ERROR_LINE" => caught.map_or(Cell::Null, |fault| number(i64::from(fault.line))),
            "ERROR_MESSAGE" => caught.map_or(Cell::Null, |fault| Cell::Text(fault.text.clone())),
            "ERROR_PROCEDURE" => match caught {
                Some(fault) if !fault.procedure.is_empty() => Cell::Text(fault.procedure.clone()),
                _ => Cell::Null,
            },
            _ => {
                let _ = sql_type;
                Cell::Null
            }
        }
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

fn decimal(number: Option<i64>) -> Cell {
    number.map_or(Cell::Null, |number| Cell::Blob(repr::decimal_to_bytes(i128::from(number)).to_vec()))
}

/// What a translated statement needs when it runs.
pub(crate) struct BoundTo {
    pub parameters: Vec<(Parameter, SqlType)>,
    pub views: Vec<&'static str>,
    pub locks: bool,
    pub reads: bool,
}

impl Session for EngineSession {
    fn batch(&mut self, sql: &str, parameters: &[Passed], cancelled: &AtomicBool, sink: Sink<'_>) -> bool {
        let mut out = Out { sink, cancelled };
        if !self.begin_answer() {
            return self.ended(&mut out);
        }
        self.frames.clear();
        self.frames.push(Frame::default());
        self.declare_passed(parameters);
        // With parameters it is the text of `sp_executesql`: what that SETs, and its #tables, end with it. Without any it
        // cannot be told from a batch, whose effects stay.
        let options = (!parameters.is_empty()).then(|| self.options.clone());
        let result = match self.parse(sql) {
            Ok(batch) => self.run(&batch, &mut out),
            Err(fault) => {
                self.error = fault.number;
                Err(fault.reaching(Reach::Batch))
            }
        };
        let alive = self.end_answer(result, &mut out);
        if alive {
            for parameter in parameters.iter().filter(|parameter| parameter.output) {
                let value = self.frame().values.get(&parameter.name.to_lowercase());
                let value = value.map_or(Value::Null, |cell| repr::decode(cell.into(), parameter.sql_type));
                let output = Output::ReturnValue { name: parameter.name.clone(), sql_type: parameter.sql_type, value };
                if out.put(output).is_err() {
                    return false;
                }
            }
        }
        if let Some(options) = options {
            self.options = options;
            let names = std::mem::take(&mut self.frame_mut().temporary);
            self.drop_temporary(&names);
        }
        self.pop_frame();
        alive
    }

    fn call(&mut self, procedure: &str, parameters: &[Passed], cancelled: &AtomicBool, sink: Sink<'_>) -> bool {
        let mut out = Out { sink, cancelled };
        if !self.begin_answer() {
            return self.ended(&mut out);
        }
        self.frames.clear();
        self.frames.push(Frame::default());
        let result = self.call_passed(procedure, parameters, &mut out);
        let alive = self.end_answer(result, &mut out);
        self.pop_frame();
        alive
    }

    fn bulk_columns(&mut self, insert_bulk: &str) -> std::result::Result<Arc<[Column]>, Message> {
        self.begin_bulk(insert_bulk).map_err(|fault| fault.message())
    }

    fn bulk_insert(&mut self, rows: Vec<Vec<Value>>) -> std::result::Result<u64, Message> {
        self.run_bulk(rows).map_err(|fault| fault.message())
    }

    fn begin(&mut self, isolation: u8, sink: Sink<'_>) -> bool {
        let never = AtomicBool::new(false);
        let mut out = Out { sink, cancelled: &never };
        if !self.begin_answer() {
            return self.ended(&mut out);
        }
        if isolation != 0 {
            self.options.isolation = isolation;
        }
        self.begin_transaction(&mut out).is_ok()
    }

    fn commit(&mut self, sink: Sink<'_>) -> bool {
        let never = AtomicBool::new(false);
        let mut out = Out { sink, cancelled: &never };
        match self.commit_transaction(&mut out) {
            Ok(()) => true,
            Err(fault) => out.put(Output::Message(fault.message())).is_ok(),
        }
    }

    fn rollback(&mut self, sink: Sink<'_>) -> bool {
        let never = AtomicBool::new(false);
        let mut out = Out { sink, cancelled: &never };
        if self.transaction.count == 0 {
            let fault = fault(3903, 16, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.");
            return out.put(Output::Message(fault.message())).is_ok();
        }
        self.rollback_all(Some(&mut out)).is_ok()
    }

    fn reset(&mut self) {
        let _ = self.rollback_all(None);
        for table in self.temporary.values() {
            let _ = self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", table.physical));
        }
        self.temporary.clear();
        self.options = Options::default();
        self.core.release_locks(self.id);
        DATABASE.clone_into(&mut self.database);
        self.rowcount = 0;
        self.error = 0;
        self.identity = None;
        self.bulk = None;
    }
}

impl Drop for EngineSession {
    fn drop(&mut self) {
        let _ = self.rollback_all(None);
        self.core.release_locks(self.id);
    }
}
