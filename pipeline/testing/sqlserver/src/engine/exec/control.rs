//! Statements of control, variables and options.

use super::super::ast::{Expr, Kind, Statement};
use super::super::catalog::DATABASE;
use super::super::errors::{Reach, Result, fault};
use super::super::{clock, repr};
use super::{EngineSession, Flow, Out};
use crate::session::Message;
use crate::session::Output;
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::time::{Duration, Instant};

impl EngineSession {
    // One arm for each kind of statement.
    pub(super) fn execute(&mut self, statement: &Statement, out: &mut Out<'_>) -> Result<Flow> {
        match &statement.kind {
            Kind::Block(body) => return self.run(body, out),
            Kind::If { condition, then, otherwise } => {
                if self.holds(condition)? {
                    return self.statement(then, out);
                }
                if let Some(otherwise) = otherwise {
                    return self.statement(otherwise, out);
                }
            }
            Kind::While { condition, body } => {
                while self.holds(condition)? {
                    out.check()?;
                    match self.statement(body, out)? {
                        Flow::Next | Flow::Continue => {}
                        Flow::Break => break,
                        flow => return Ok(flow),
                    }
                }
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
            Kind::Return(value) => {
                let status = match value {
                    Some(value) => match self.evaluate(value, SqlType::Int)? {
                        Cell::Integer(number) => number,
                        _ => 0,
                    },
                    None => 0,
                };
                return Ok(Flow::Return(status));
            }
            Kind::Try { body, handler } => return self.attempt(body, handler, out),
            Kind::Throw(values) => return self.throw(values.as_ref(), statement.line),
            Kind::RaiseError { message, severity, state, args } => {
                return self.raise(message, severity, state, args, out);
            }
            Kind::Print(expr) => {
                let text = match self.evaluate(expr, SqlType::NVarChar(Some(4000)))? {
                    Cell::Text(text) => text,
                    _ => String::new(),
                };
                self.info(text, 0, out)?;
            }
            Kind::WaitFor(expr) => self.wait(expr, out)?,
            Kind::Declare(list) => {
                for (name, sql_type, value) in list {
                    let (sql_type, _) = self.bind(|binder| binder.resolve_type(sql_type))?;
                    self.frame_mut().types.insert(name.clone(), sql_type);
                    let cell = match value {
                        Some(value) => {
                            self.now = clock::utc_ticks();
                            self.evaluate(value, sql_type)?
                        }
                        None => Cell::Null,
                    };
                    self.frame_mut().values.insert(name.clone(), cell);
                }
            }
            Kind::DeclareTable(name, definition) => self.declare_table(name, definition, out)?,
            Kind::SetVariable { name, op, expr } => {
                let Some(to) = self.frame().types.get(name).copied() else {
                    return Err(fault(137, 15, format!("Must declare the scalar variable \"{name}\".")).state(1));
                };
                self.now = clock::utc_ticks();
                let cell = match op {
                    Some(op) => {
                        let whole =
                            Expr::Arithmetic(*op, Box::new(Expr::Variable(name.clone())), Box::new(expr.clone()));
                        self.evaluate(&whole, to)?
                    }
                    None => self.evaluate(expr, to)?,
                };
                self.frame_mut().values.insert(name.clone(), cell);
                self.rowcount = 1;
                self.error = 0;
            }
            Kind::SetOption(names, value) => self.set_option(names, value)?,
            Kind::SetIsolation(level) => self.options.isolation = *level,
            Kind::SetLockTimeout(expr) => {
                if let Cell::Integer(number) = self.evaluate(expr, SqlType::BigInt)? {
                    self.options.lock_timeout = number;
                }
            }
            Kind::SetContext(expr) => self.options.context = self.evaluate(expr, SqlType::VarBinary(Some(128)))?,
            Kind::Use(name) => self.use_database(name, out)?,
            Kind::Begin { name: _ } => self.begin_transaction(out)?,
            Kind::Commit => self.commit_transaction(out)?,
            Kind::Rollback { name } => self.rollback_to(name.as_deref(), out)?,
            Kind::Save(name) => self.save(name)?,
            Kind::Nothing => {}
            Kind::Select(query) => self.select(query, out)?,
            Kind::Insert(insert) => self.insert(insert, out)?,
            Kind::Update(update) => self.update(update, out)?,
            Kind::Delete(delete) => self.delete(delete, out)?,
            Kind::Merge(merge) => self.merge(merge, out)?,
            Kind::Truncate(name) => self.truncate(name, out)?,
            Kind::Execute(execute) => return self.execute_procedure(execute, out),
            other => {
                self.define(other, statement.line, out)?;
                self.rowcount = 0;
                self.error = 0;
                out.put(Output::Done { rows: None })?;
            }
        }
        Ok(Flow::Next)
    }

    fn attempt(&mut self, body: &[Statement], handler: &[Statement], out: &mut Out<'_>) -> Result<Flow> {
        let frames = self.frames.len();
        let triggers = self.triggers_running.len();
        self.tries += 1;
        let result = self.run(body, out);
        self.tries -= 1;
        let fault = match result {
            Ok(flow) => return Ok(flow),
            Err(fault) if fault.reach == Reach::Cancelled || fault.class >= 20 => return Err(fault),
            Err(fault) => fault,
        };
        while self.frames.len() > frames {
            self.pop_frame();
        }
        self.triggers_running.truncate(triggers);
        if self.transaction.count > 0 && (self.options.xact_abort || fault.reach == Reach::Transaction) {
            self.transaction.doomed = true;
        }
        self.caught.push(*fault);
        let result = self.run(handler, out);
        self.caught.pop();
        result
    }

    fn throw(&mut self, values: Option<&(Expr, Expr, Expr)>, line: u32) -> Result<Flow> {
        let Some((number, message, state)) = values else {
            return match self.caught.last() {
                Some(caught) => Err(Box::new(super::Fault { reach: Reach::Batch, ..caught.clone() })),
                None => {
                    Err(fault(10704, 15, "To rethrow an error, a THROW statement must be used inside a CATCH block."))
                }
            };
        };
        let number = self.evaluate(number, SqlType::Int)?;
        let Cell::Integer(number) = number else {
            return Err(fault(35100, 16, "Error number in the THROW statement is outside the valid range."));
        };
        if number < 50000 {
            return Err(fault(
                35100,
                16,
                format!(
                    "Error number {number} in the THROW statement is outside the valid range. Specify an error number in the valid range of 50000 to 2147483647."
                ),
            ));
        }
        let text = match self.evaluate(message, SqlType::NVarChar(Some(2048)))? {
            Cell::Text(text) => text,
            _ => String::new(),
        };
        let state = match self.evaluate(state, SqlType::Int)? {
            Cell::Integer(state) => u8::try_from(state).unwrap_or(1),
            _ => 1,
        };
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let mut thrown = fault(number, 16, text).state(state).reaching(Reach::Batch);
        thrown.line = line + self.frame().line;
        thrown.procedure.clone_from(&self.frame().module);
        Err(thrown)
    }

    fn raise(
        &mut self,
        message: &Expr,
        severity: &Expr,
        state: &Expr,
        args: &[Expr],
        out: &mut Out<'_>,
    ) -> Result<Flow> {
        let mut number = 50000;
        let mut text = match self.evaluate(message, SqlType::NVarChar(Some(2048)))? {
            Cell::Text(text) => text,
            _ => String::new(),
        };
        if let Ok(code) = text.parse::<i32>() {
            number = code;
            text = format!(
                "Error {code}, severity, state was raised, but no message with that error number was found in sys.messages."
            );
        }
        for arg in args {
            let value = match self.evaluate(arg, SqlType::NVarChar(Some(4000)))? {
                Cell::Text(value) => value,
                _ => "(null)".to_owned(),
            };
            let place = ["%s", "%d", "%i", "%u"].iter().filter_map(|mark| text.find(mark)).min();
            if let Some(place) = place {
                text.replace_range(place..place + 2, &value);
            }
        }
        let integer = |cell| if let Cell::Integer(number) = cell { u8::try_from(number).unwrap_or(16) } else { 16 };
        let class = integer(self.evaluate(severity, SqlType::Int)?);
        let state = integer(self.evaluate(state, SqlType::Int)?);
        if class <= 10 {
            let message = Message { number, state, class, text, procedure: self.frame().module.clone(), line: 1 };
            out.put(Output::Message(message))?;
            return Ok(Flow::Next);
        }
        Err(fault(number, class, text).state(state).reaching(Reach::Statement))
    }

    fn wait(&mut self, expr: &Expr, out: &mut Out<'_>) -> Result<()> {
        let cell = self.evaluate(expr, SqlType::Time(7))?;
        let Value::Time(_) = repr::decode((&cell).into(), SqlType::Time(7)) else { return Ok(()) };
        let Cell::Integer(ticks) = cell else { return Ok(()) };
        let end = Instant::now() + Duration::from_micros(u64::try_from(ticks / 10).unwrap_or(0));
        while Instant::now() < end {
            out.check()?;
            std::thread::sleep(Duration::from_millis(5).min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn set_option(&mut self, names: &[String], value: &str) -> Result<()> {
        let on = value == "ON";
        for name in names {
            match name.as_str() {
                "NOCOUNT" => self.options.nocount = on,
                "XACT_ABORT" => self.options.xact_abort = on,
                "IMPLICIT_TRANSACTIONS" => self.options.implicit_transactions = on,
                "ROWCOUNT" => self.options.rowcount = value.parse().unwrap_or(0),
                name => {
                    if let Some(table) = name.strip_prefix("IDENTITY_INSERT ") {
                        let Some(parsed) = super::super::parser::parse_name(table) else { continue };
                        let (table, _) = self.bind(|binder| binder.table(&parsed))?;
                        if table.identity().is_none() {
                            return Err(fault(
                                8106,
                                16,
                                format!(
                                    "Table '{}' does not have the identity property. Cannot perform SET operation.",
                                    table.name
                                ),
                            ));
                        }
                        self.options.identity_insert = on.then_some(table.id);
                    }
                }
            }
        }
        Ok(())
    }

    /// The name by which messages call a table.
    pub(super) fn shown(table: &super::Table) -> String {
        if table.schema.is_empty() { table.name.clone() } else { format!("{DATABASE}.{}.{}", table.schema, table.name) }
    }
}
