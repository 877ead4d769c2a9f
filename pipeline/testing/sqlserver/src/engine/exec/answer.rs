//! What the wire asks for.

use super::super::catalog::DATABASE;
use super::super::errors::{Reach, fault};
use super::super::repr;
use super::{EngineSession, Frame, Options, Out};
use crate::session::{Column, Message, Output, Parameter as Passed, Session, Sink};
use crate::value::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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

    fn bulk_columns(&mut self, insert_bulk: &str) -> Result<Arc<[Column]>, Message> {
        self.begin_bulk(insert_bulk).map_err(|fault| fault.message())
    }

    fn bulk_insert(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, Message> {
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
