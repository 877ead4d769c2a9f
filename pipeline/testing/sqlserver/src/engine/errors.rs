//! SQL Server's errors, as this engine raises them.

use crate::session::Message;

pub(crate) type Result<T> = std::result::Result<T, Box<Fault>>;

/// How far an error reaches when no TRY catches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The statement ends, the batch goes on (unless XACT_ABORT is on).
    Statement,
    /// The batch ends; an open transaction stays (THROW, unknown names).
    Batch,
    /// The batch ends and the transaction is rolled back (conversions, triggers, deadlocks).
    Transaction,
    /// Nobody listens any more, or an attention came.
    Cancelled,
}

/// An error on its way up.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub number: i32,
    pub state: u8,
    pub class: u8,
    pub text: String,
    pub line: u32,
    pub procedure: String,
    pub reach: Reach,
}

/// An error with state 1. Its reach follows its number.
pub(crate) fn fault(number: i32, class: u8, text: impl Into<String>) -> Box<Fault> {
    let reach = match number {
        // Not parsed or not bound: nothing of the statement ran.
        102 | 105 | 113 | 137 | 156 | 207 | 208 | 209 | 306 | 1038 | 4104 | 8120 | 334 | 2714 | 1222 => Reach::Batch,
        // Conversions end the batch and its transaction.
        241 | 242 | 245 | 248 | 8169 | 235 | 295 | 1205 | 3960 | 3952 | 3609 => Reach::Transaction,
        _ => Reach::Statement,
    };
    Box::new(Fault { number, state: 1, class, text: text.into(), line: 0, procedure: String::new(), reach })
}

/// What this engine does not know, said so that nobody takes it for an error of the statement.
pub(crate) fn unsupported(what: impl std::fmt::Display) -> Box<Fault> {
    fault(40510, 16, format!("The stand-in SQL Server does not know {what}.")).reaching(Reach::Batch)
}

pub(crate) fn syntax(near: &str) -> Box<Fault> {
    fault(102, 15, format!("Incorrect syntax near '{near}'."))
}

pub(crate) fn unknown_object(name: &str) -> Box<Fault> {
    fault(208, 16, format!("Invalid object name '{name}'."))
}

pub(crate) fn unknown_column(name: &str) -> Box<Fault> {
    fault(207, 16, format!("Invalid column name '{name}'."))
}

pub(crate) fn cancelled() -> Box<Fault> {
    fault(0, 0, "").reaching(Reach::Cancelled)
}

impl Fault {
    pub(crate) fn at(mut self: Box<Self>, line: u32) -> Box<Self> {
        if self.line == 0 {
            self.line = line;
        }
        self
    }

    pub(crate) fn reaching(mut self: Box<Self>, reach: Reach) -> Box<Self> {
        self.reach = reach;
        self
    }

    pub(crate) fn state(mut self: Box<Self>, state: u8) -> Box<Self> {
        self.state = state;
        self
    }

    pub(crate) fn message(&self) -> Message {
        Message {
            number: self.number,
            state: self.state,
            class: self.class,
            text: self.text.clone(),
            procedure: self.procedure.clone(),
            line: self.line.max(1),
        }
    }
}

/// How an error of ours travels through SQLite out of a function, which can only carry text.
const MARK: char = '\u{1}';

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{MARK}{}{MARK}{}{MARK}{}{MARK}{}", self.number, self.class, self.state, self.text)
    }
}

impl std::error::Error for Fault {}

impl From<Box<Fault>> for rusqlite::Error {
    fn from(fault: Box<Fault>) -> Self {
        rusqlite::Error::UserFunctionError(fault)
    }
}

impl From<rusqlite::Error> for Box<Fault> {
    fn from(error: rusqlite::Error) -> Self {
        let text = match &error {
            rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
            rusqlite::Error::UserFunctionError(inner) => inner.to_string(),
            other => other.to_string(),
        };
        if let Some(at) = text.find(MARK) {
            let mut parts = text[at + 1..].splitn(4, MARK);
            let number = parts.next().and_then(|part| part.parse().ok());
            let class = parts.next().and_then(|part| part.parse().ok());
            let state = parts.next().and_then(|part| part.parse().ok());
            if let (Some(number), Some(class), Some(state), Some(text)) = (number, class, state, parts.next()) {
                return fault(number, class, text).state(state);
            }
        }
        if let Some(code) = error.sqlite_error() {
            use rusqlite::ffi;
            match code.extended_code {
                ffi::SQLITE_INTERRUPT => return cancelled(),
                ffi::SQLITE_BUSY_SNAPSHOT => {
                    return fault(
                        3960,
                        16,
                        "Snapshot isolation transaction aborted due to update conflict. You cannot use snapshot isolation \
                         to access the database directly or indirectly to update, delete, or insert rows that have been \
                         modified or deleted by another transaction. Retry the transaction or change the isolation level \
                         for the update/delete statement.",
                    );
                }
                _ => {}
            }
            if code.extended_code & 0xff == ffi::SQLITE_BUSY {
                return fault(1222, 16, "Lock request time out period exceeded.").state(51);
            }
        }
        fault(50000, 16, format!("The stand-in SQL Server failed in SQLite: {error}"))
    }
}
