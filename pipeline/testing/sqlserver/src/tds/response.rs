//! An answer: the engine's pieces become bytes, and the bytes go to the connection in bounded portions.
//!
//! It lives on the engine's thread. When the connection is slow, handing over a portion waits; when it is gone, or the
//! client has asked to stop, the engine is told that nobody listens. So a result of a million rows takes as much memory
//! as a few portions.

use super::tokens::{self, change, command, status};
use crate::faults::Armed;
use crate::session::{Column, Message, Output};
use crate::value::{SqlType, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// A portion is handed over when it has so many bytes: a few packets.
const PORTION_BYTES: usize = 16 << 10;
/// How many portions may wait between engine and connection.
pub const PORTIONS_MAX: usize = 4;

/// What goes from the engine's thread to the connection.
#[derive(Debug)]
pub enum Portion {
    /// More of the answer.
    Bytes(Vec<u8>),
    /// Lose the connection here, on request.
    Break,
}

/// Whether the answer is that to a batch or that to a call: their ends have different tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `DONE`
    Batch,
    /// `DONEINPROC`, and `DONEPROC` at the end.
    Call,
}

/// What is known when all is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The client has been told of an error of severity 20 or more: the connection ends.
    pub fatal: bool,
    /// The answer was broken off on request.
    pub broken: bool,
}

struct End {
    token: u8,
    rows: Option<u64>,
    command: u16,
    error: bool,
}

/// An answer on its way.
pub struct Response<'a> {
    portions: mpsc::Sender<Portion>,
    cancelled: &'a AtomicBool,
    faults: &'a [Armed],
    bytes: Vec<u8>,
    style: Style,
    end: Option<End>,
    columns: Option<Arc<[Column]>>,
    outputs: Vec<(String, bool)>,
    status_sent: bool,
    error: i32,
    unreported: bool,
    rows: u64,
    outcome: Outcome,
}

impl<'a> Response<'a> {
    /// An answer that goes to `portions`.
    pub fn new(portions: mpsc::Sender<Portion>, cancelled: &'a AtomicBool, faults: &'a [Armed]) -> Self {
        Response {
            portions,
            cancelled,
            faults,
            bytes: Vec::with_capacity(PORTION_BYTES),
            style: Style::Batch,
            end: None,
            columns: None,
            outputs: Vec::new(),
            status_sent: false,
            error: 0,
            unreported: false,
            rows: 0,
            outcome: Outcome::default(),
        }
    }

    /// Says that the session has been made like new.
    pub fn reset(&mut self) {
        tokens::env_bytes(&mut self.bytes, change::RESET, &[], &[]);
    }

    /// The next of the call's parts begins; `parameters` are the names of its parameters, and which of them the caller
    /// wants back.
    pub fn begin(&mut self, style: Style, parameters: Vec<(String, bool)>) {
        self.style = style;
        self.outputs = parameters;
        self.status_sent = false;
        self.error = 0;
    }

    /// Takes a piece; false when the engine should stop.
    pub fn take(&mut self, piece: Output) -> bool {
        if self.outcome.broken || self.cancelled.load(Ordering::Relaxed) {
            return false;
        }
        if !matches!(piece, Output::Row(_)) {
            self.flush_end();
        }
        match piece {
            Output::Columns(columns) => {
                tokens::columns(&mut self.bytes, &columns);
                self.columns = Some(columns);
            }
            Output::Row(values) => return self.row(&values),
            Output::Done { rows } => self.done(rows),
            Output::Message(message) => self.message(&message),
            Output::ReturnStatus(status) => self.status(status),
            Output::ReturnValue { name, sql_type, value } => return self.value(&name, sql_type, &value),
            Output::Database(name) => {
                tokens::env_text(&mut self.bytes, change::DATABASE, &name, "");
            }
            Output::Began(number) => {
                tokens::env_bytes(&mut self.bytes, change::BEGAN, &number.to_le_bytes(), &[]);
            }
            Output::Committed(number) => {
                tokens::env_bytes(&mut self.bytes, change::COMMITTED, &[], &number.to_le_bytes());
            }
            Output::RolledBack(number) => {
                tokens::env_bytes(&mut self.bytes, change::ROLLED_BACK, &[], &number.to_le_bytes());
            }
        }
        self.hand_over(PORTION_BYTES)
    }

    /// A message, as the engine would give it.
    pub fn message(&mut self, message: &Message) {
        self.flush_end();
        tokens::message(&mut self.bytes, message);
        if message.class > 10 {
            self.error = message.number;
            self.unreported = true;
        }
        self.outcome.fatal |= message.class >= 20;
    }

    /// The answer, or the answer to one of several calls, is complete.
    pub fn finish(&mut self, more: bool) {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        if self.outcome.broken || cancelled {
            return;
        }
        let more = if more { status::MORE } else { 0 };
        match self.style {
            Style::Batch => {
                let end = self.end.take().unwrap_or(End { token: tokens::DONE, rows: None, command: 0, error: false });
                let error = end.error || std::mem::take(&mut self.unreported);
                self.write_end(&End { error, ..end }, more);
            }
            Style::Call => {
                self.flush_end();
                if !self.status_sent {
                    self.status(self.error);
                    self.flush_end();
                }
                let error = std::mem::take(&mut self.unreported);
                self.write_end(&End { token: tokens::DONE_PROC, rows: None, command: 0, error }, more);
            }
        }
        self.hand_over(PORTION_BYTES);
    }

    /// Hands over what is left.
    pub fn close(mut self) -> Outcome {
        self.hand_over(1);
        self.outcome
    }

    /// Ends a request of the transaction manager.
    pub fn finish_transaction(&mut self, command: u16) {
        self.end = None;
        let error = std::mem::take(&mut self.unreported);
        self.write_end(&End { token: tokens::DONE, rows: None, command, error }, 0);
    }

    fn row(&mut self, values: &[Value]) -> bool {
        let written = self.columns.as_deref().map(|columns| tokens::row(&mut self.bytes, columns, values));
        let Some(written) = written else { return self.fault("a row came before its columns") };
        if let Err(place) = written {
            let column = self.columns.as_deref().and_then(|columns| columns.get(place));
            let value =
                values.get(place).map_or_else(|| format!("{} values", values.len()), |value| format!("{value:?}"));
            return self.fault(&format!("column {column:?} has {value}"));
        }
        self.rows += 1;
        if self.faults.iter().any(|fault| fault.breaks_after_row(self.rows)) {
            self.outcome.broken = true;
            self.hand_over(1);
            let _ = self.portions.blocking_send(Portion::Break);
            return false;
        }
        self.hand_over(PORTION_BYTES)
    }

    fn done(&mut self, rows: Option<u64>) {
        let select = self.columns.take().is_some();
        let error = std::mem::take(&mut self.unreported);
        if self.style == Style::Call && rows.is_none() && !select && !error {
            // NOCOUNT leaves the ends of statements out of a call's answer.
            return;
        }
        let token = if self.style == Style::Call { tokens::DONE_IN_PROC } else { tokens::DONE };
        let command = if select { command::SELECT } else { 0 };
        self.end = Some(End { token, rows, command, error });
    }

    fn status(&mut self, status: i32) {
        tokens::return_status(&mut self.bytes, status);
        self.status_sent = true;
        if self.style == Style::Batch {
            self.end = Some(End { token: tokens::DONE_PROC, rows: None, command: 0, error: false });
        }
    }

    /// An output parameter; true when somebody still listens.
    pub fn value(&mut self, name: &str, sql_type: SqlType, value: &Value) -> bool {
        if self.style == Style::Call && !self.status_sent {
            self.flush_end();
            self.status(self.error);
        }
        let named = self.outputs.iter().position(|(given, _)| !given.is_empty() && given.eq_ignore_ascii_case(name));
        let unnamed = || self.outputs.iter().position(|(given, wanted)| *wanted && given.is_empty());
        let place = named.or_else(unnamed);
        if let Some(place) = place {
            // The next one without a name belongs to the next place.
            self.outputs[place] = ("@".to_owned(), false);
        }
        let place = place.unwrap_or(0) as u16;
        match tokens::return_value(&mut self.bytes, place, name, sql_type, value) {
            Ok(()) => self.hand_over(PORTION_BYTES),
            Err(_) => self.fault(&format!("output parameter {name} of type {sql_type:?} has {value:?}")),
        }
    }

    /// The engine gave what it must not give. A client of the real server would never see this.
    fn fault(&mut self, what: &str) -> bool {
        tracing::warn!(what, "fault in the stand-in's engine");
        self.message(&Message {
            number: 50_000,
            state: 1,
            class: 16,
            text: format!("fault in the stand-in, not in your program: {what}"),
            procedure: String::new(),
            line: 1,
        });
        false
    }

    fn flush_end(&mut self) {
        if let Some(end) = self.end.take() {
            self.write_end(&end, status::MORE);
        }
    }

    fn write_end(&mut self, end: &End, more: u16) {
        let error = if end.error { status::ERROR } else { 0 };
        let count = if end.rows.is_some() { status::COUNT } else { 0 };
        tokens::done(&mut self.bytes, end.token, more | error | count, end.command, end.rows.unwrap_or(0));
    }

    fn hand_over(&mut self, at_least: usize) -> bool {
        if self.bytes.len() < at_least {
            return true;
        }
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(PORTION_BYTES));
        self.portions.blocking_send(Portion::Bytes(bytes)).is_ok()
    }
}
