//! A session that does as it is told by words, so that the wire is tested without an engine.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use smartpulse_stand_in::session::{Column, Message, Output, Parameter, Session, Sink};
use smartpulse_stand_in::value::{SqlType, Value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

/// What the sessions of a server leave behind for the test to see.
#[derive(Debug, Default)]
pub struct Seen {
    /// What was done, in order.
    pub log: Mutex<Vec<String>>,
    /// The rows of bulk loads.
    pub loaded: Mutex<Vec<Vec<Value>>>,
    /// How many rows were made.
    pub rows: AtomicU64,
}

impl Seen {
    pub fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    pub fn has(&self, what: &str) -> bool {
        self.log.lock().unwrap().iter().any(|seen| seen == what)
    }
}

#[derive(Debug)]
pub struct Scripted {
    seen: Arc<Seen>,
    transaction: Option<u64>,
}

impl Scripted {
    pub fn new(seen: Arc<Seen>) -> Self {
        Scripted { seen, transaction: None }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if self.transaction.is_some() {
            self.seen.note("rolled back at the end");
        }
    }
}

pub fn column(name: &str, sql_type: SqlType, nullable: bool) -> Column {
    Column { name: name.to_owned(), sql_type, nullable, identity: false }
}

pub fn message(number: i32, class: u8, text: &str) -> Output {
    let (text, procedure) = (text.to_owned(), String::new());
    Output::Message(Message { number, state: 1, class, text, procedure, line: 3 })
}

pub fn moment() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(2025, 11, 21).unwrap().and_hms_micro_opt(13, 14, 15, 123_456).unwrap()
}

/// A value of every type, with its name.
pub fn every_type() -> Vec<(&'static str, SqlType, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let millis = moment().date().and_hms_milli_opt(13, 14, 15, 123).unwrap();
    vec![
        ("bit", SqlType::Bit, Value::Bit(true)),
        ("tinyint", SqlType::TinyInt, Value::Int(200)),
        ("smallint", SqlType::SmallInt, Value::Int(-300)),
        ("int", SqlType::Int, Value::Int(-70_000)),
        ("bigint", SqlType::BigInt, Value::Int(1 << 40)),
        ("real", SqlType::Real, Value::Float(0.25)),
        ("float", SqlType::Float, Value::Float(-0.1)),
        ("decimal", SqlType::Decimal(38, 4), Value::Decimal(-123_456_789_012_345_678_901_234_567_890, 4)),
        ("small", SqlType::Decimal(5, 2), Value::Decimal(12_345, 2)),
        ("money", SqlType::Money, Value::Decimal(-50_000_000_001, 4)),
        ("guid", SqlType::UniqueIdentifier, Value::Guid(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))),
        ("date", SqlType::Date, Value::Date(moment().date())),
        ("time", SqlType::Time(7), Value::Time(moment().time())),
        ("datetime", SqlType::DateTime, Value::DateTime(millis)),
        ("smalldatetime", SqlType::SmallDateTime, Value::DateTime(moment().date().and_hms_opt(13, 14, 0).unwrap())),
        ("datetime2", SqlType::DateTime2(7), Value::DateTime(moment())),
        ("datetime2_3", SqlType::DateTime2(3), Value::DateTime(millis)),
        ("datetimeoffset", SqlType::DateTimeOffset(7), Value::DateTimeOffset(moment(), 90)),
        ("char", SqlType::Char(5), text("ab   ")),
        ("varchar", SqlType::VarChar(Some(20)), text("Grüße €")),
        ("varchar_max", SqlType::VarChar(None), text(&"ü".repeat(10_000))),
        ("nchar", SqlType::NChar(4), text("日本  ")),
        ("nvarchar", SqlType::NVarChar(Some(50)), text("日本 🎉")),
        ("nvarchar_max", SqlType::NVarChar(None), text(&"日本".repeat(15_000))),
        ("empty", SqlType::NVarChar(None), text("")),
        ("binary", SqlType::Binary(10), Value::Bytes((0..10).collect())),
        ("varbinary", SqlType::VarBinary(Some(64)), Value::Bytes(vec![0, 255])),
        ("varbinary_max", SqlType::VarBinary(None), Value::Bytes(vec![7; 60_000])),
    ]
}

/// The columns of the table that bulk loads go to.
pub fn table() -> Arc<[Column]> {
    let skip = ["varchar_max", "empty", "small", "datetime2_3", "smalldatetime"];
    every_type()
        .into_iter()
        .filter(|(name, ..)| !skip.contains(name))
        .enumerate()
        .map(|(place, (name, sql_type, _))| column(name, sql_type, place % 2 == 0))
        .collect()
}

impl Scripted {
    fn rows(&self, count: u64, width: usize, cancelled: &AtomicBool, out: Sink<'_>) {
        let columns = [column("n", SqlType::Int, false), column("text", SqlType::NVarChar(Some(4000)), true)];
        if !out(Output::Columns(columns.into())) {
            return;
        }
        for number in 0..count {
            let text = Value::Text("x".repeat(width));
            if cancelled.load(Ordering::Relaxed) || !out(Output::Row(vec![Value::Int(number as i64), text])) {
                self.seen.note("stopped");
                return;
            }
            self.seen.rows.fetch_add(1, Ordering::Relaxed);
        }
        out(Output::Done { rows: Some(count) });
    }

    fn types(null: bool, out: Sink<'_>) {
        let all = every_type();
        out(Output::Columns(all.iter().map(|(name, sql_type, _)| column(name, *sql_type, null)).collect()));
        out(Output::Row(all.iter().map(|(_, _, value)| value.clone()).collect()));
        if null {
            out(Output::Row(vec![Value::Null; all.len()]));
        }
        out(Output::Done { rows: Some(1 + u64::from(null)) });
    }

    fn echo(parameters: &[Parameter], out: Sink<'_>) {
        let columns = parameters.iter().map(|given| column(given.name.trim_start_matches('@'), given.sql_type, true));
        out(Output::Columns(columns.collect()));
        out(Output::Row(parameters.iter().map(|given| given.value.clone()).collect()));
        out(Output::Done { rows: Some(1) });
    }

    fn number(value: i64, out: Sink<'_>) {
        out(Output::Columns([column("", SqlType::Int, false)].into()));
        out(Output::Row(vec![Value::Int(value)]));
        out(Output::Done { rows: Some(1) });
    }
}

impl Session for Scripted {
    fn batch(&mut self, sql: &str, parameters: &[Parameter], cancelled: &AtomicBool, out: Sink<'_>) -> bool {
        self.seen.note(sql);
        let words: Vec<&str> = sql.split_whitespace().collect();
        match words[..] {
            ["rows", count] => self.rows(count.parse().unwrap(), 25, cancelled, out),
            ["wide", count] => self.rows(count.parse().unwrap(), 4000, cancelled, out),
            ["types"] => Self::types(false, out),
            ["nulls"] => Self::types(true, out),
            ["echo", ..] => Self::echo(parameters, out),
            ["update", count] => drop(out(Output::Done { rows: count.parse().ok() })),
            ["sets"] => {
                out(message(0, 0, "hello"));
                Self::number(1, out);
                out(Output::Done { rows: Some(3) });
                Self::number(2, out);
            }
            ["error", number, class] => {
                Self::number(1, out);
                out(message(number.parse().unwrap(), class.parse().unwrap(), "as you wish"));
                out(Output::Done { rows: None });
            }
            ["wait"] => {
                while !cancelled.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(2));
                }
                self.seen.note("stopped");
            }
            ["panic"] => panic!("as you wish"),
            ["wrong"] => {
                out(Output::Columns([column("n", SqlType::Int, false)].into()));
                out(Output::Row(vec![Value::Text("x".to_owned())]));
            }
            ["use", name] => drop(out(Output::Database(name.to_owned()))),
            ["SELECT" | "select", ..] if sql.contains("[dbo].[loaded]") => {
                out(Output::Columns(table()));
                out(Output::Done { rows: Some(0) });
            }
            ["SELECT", "@a", ..] => {
                Self::number(5, out);
                out(Output::ReturnValue { name: "@a".to_owned(), sql_type: SqlType::Int, value: Value::Int(42) });
            }
            _ => {
                out(message(102, 15, &format!("Incorrect syntax near '{sql}'.")));
            }
        }
        true
    }

    fn call(&mut self, procedure: &str, parameters: &[Parameter], _: &AtomicBool, out: Sink<'_>) -> bool {
        self.seen.note(procedure);
        if !procedure.contains("double") {
            out(message(2812, 16, &format!("Could not find stored procedure '{procedure}'.")));
            return true;
        }
        Self::number(parameters.len() as i64, out);
        out(Output::ReturnStatus(7));
        for (given, declared) in parameters.iter().zip(["@in", "@out", "@text"]).filter(|(given, _)| given.output) {
            let value = match &given.value {
                Value::Int(number) => Value::Int(number * 2),
                Value::Text(text) => Value::Text(text.repeat(2)),
                other => other.clone(),
            };
            let name = if given.name.is_empty() { declared } else { &given.name };
            out(Output::ReturnValue { name: name.to_owned(), sql_type: given.sql_type, value });
        }
        true
    }

    fn bulk_columns(&mut self, insert_bulk: &str) -> Result<Arc<[Column]>, Message> {
        self.seen.note(insert_bulk);
        match insert_bulk.contains("[loaded]") {
            true => {
                let named = insert_bulk.split_once('(').map_or("", |(_, names)| names);
                let wanted = |column: &&Column| named.contains(&format!("[{}] ", column.name));
                Ok(table().iter().filter(wanted).cloned().collect())
            }
            false => match message(208, 16, "Invalid object name.") {
                Output::Message(message) => Err(message),
                _ => unreachable!(),
            },
        }
    }

    fn bulk_insert(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, Message> {
        let count = rows.len() as u64;
        self.seen.loaded.lock().unwrap().extend(rows);
        Ok(count)
    }

    fn begin(&mut self, isolation: u8, out: Sink<'_>) -> bool {
        self.seen.note(format!("begin {isolation}"));
        self.transaction = Some(77);
        out(Output::Began(77))
    }

    fn commit(&mut self, out: Sink<'_>) -> bool {
        self.seen.note("commit");
        match self.transaction.take() {
            Some(number) => out(Output::Committed(number)),
            None => out(message(3902, 16, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.")),
        }
    }

    fn rollback(&mut self, out: Sink<'_>) -> bool {
        self.seen.note("rollback");
        match self.transaction.take() {
            Some(number) => out(Output::RolledBack(number)),
            None => out(message(3903, 16, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.")),
        }
    }

    fn reset(&mut self) {
        self.seen.note("reset");
        self.transaction = None;
    }
}

/// A time of day, for tests that compare.
pub fn time() -> NaiveTime {
    moment().time()
}
