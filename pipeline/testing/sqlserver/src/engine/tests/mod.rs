//! Tests of the engine, one file for each area, over a small driver.

mod capture;
mod language;
mod scripts;
mod second_opinion;
mod tracking;
mod transactions;
mod writes;

use super::Engine;
use crate::session::{Message, Output, Parameter, Session};
use crate::value::{SqlType, Value};
use std::sync::atomic::AtomicBool;

/// What a batch answered.
#[derive(Debug, Default)]
struct Answer {
    /// For each result its columns and rows.
    results: Vec<Result_>,
    errors: Vec<Message>,
    infos: Vec<Message>,
    counts: Vec<Option<u64>>,
    status: Option<i32>,
    returned: Vec<(String, Value)>,
    alive: bool,
}

#[derive(Debug, Default)]
struct Result_ {
    names: Vec<String>,
    types: Vec<SqlType>,
    rows: Vec<Vec<Value>>,
}

/// A session with shorthand.
struct Client {
    session: Box<dyn Session>,
}

fn client(engine: &Engine) -> Client {
    Client { session: engine.session("sa").unwrap() }
}

impl Client {
    fn collect(run: impl FnOnce(&mut dyn FnMut(Output) -> bool) -> bool) -> Answer {
        let mut answer = Answer::default();
        let mut sink = |output: Output| {
            match output {
                Output::Columns(columns) => answer.results.push(Result_ {
                    names: columns.iter().map(|column| column.name.clone()).collect(),
                    types: columns.iter().map(|column| column.sql_type).collect(),
                    rows: Vec::new(),
                }),
                Output::Row(row) => answer.results.last_mut().unwrap().rows.push(row),
                Output::Done { rows } => answer.counts.push(rows),
                Output::Message(message) if message.class > 10 => answer.errors.push(message),
                Output::Message(message) => answer.infos.push(message),
                Output::ReturnStatus(status) => answer.status = Some(status),
                Output::ReturnValue { name, value, .. } => answer.returned.push((name, value)),
                _ => {}
            }
            true
        };
        let alive = run(&mut sink);
        answer.alive = alive;
        answer
    }

    /// Runs a batch, whatever comes of it.
    fn batch(&mut self, sql: &str, parameters: &[Parameter]) -> Answer {
        let never = AtomicBool::new(false);
        Self::collect(|sink| self.session.batch(sql, parameters, &never, sink))
    }

    fn call(&mut self, procedure: &str, parameters: &[Parameter]) -> Answer {
        let never = AtomicBool::new(false);
        Self::collect(|sink| self.session.call(procedure, parameters, &never, sink))
    }

    /// Runs a batch that must not fail.
    fn run(&mut self, sql: &str) -> Answer {
        self.run_with(sql, &[])
    }

    fn run_with(&mut self, sql: &str, parameters: &[Parameter]) -> Answer {
        let answer = self.batch(sql, parameters);
        assert!(answer.errors.is_empty(), "{sql}: {:?}", answer.errors);
        answer
    }

    /// The rows of the last result, as text: values separated by `|`.
    fn rows(&mut self, sql: &str) -> Vec<String> {
        let answer = self.run(sql);
        let result = answer.results.last().unwrap_or_else(|| panic!("{sql} gave no result"));
        result.rows.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join("|")).collect()
    }

    /// The one value of a query, as text.
    fn one(&mut self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows[0].clone()
    }

    /// The number of the first error of a batch that must fail.
    fn error(&mut self, sql: &str) -> i32 {
        let answer = self.batch(sql, &[]);
        answer.errors.first().unwrap_or_else(|| panic!("{sql} did not fail: {answer:?}")).number
    }

    /// The text of the first error.
    fn error_text(&mut self, sql: &str) -> String {
        let answer = self.batch(sql, &[]);
        answer.errors.first().unwrap_or_else(|| panic!("{sql} did not fail: {answer:?}")).text.clone()
    }

    fn script(&mut self, text: &str) {
        for batch in split(text) {
            self.run(&batch);
        }
    }
}

/// A script without its GO lines.
fn split(text: &str) -> Vec<String> {
    let mut batches = vec![String::new()];
    for line in text.lines() {
        if line.trim().eq_ignore_ascii_case("go") {
            batches.push(String::new());
        } else if let Some(last) = batches.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    batches
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bit(bit) => u8::from(*bit).to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Decimal(unscaled, scale) => decimal(*unscaled, *scale),
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => super::convert::hex(bytes),
        Value::Guid(guid) => guid.to_string(),
        Value::Date(date) => date.to_string(),
        Value::Time(time) => time.to_string(),
        Value::DateTime(time) => time.to_string(),
        Value::DateTimeOffset(time, offset) => format!("{time}+{offset}"),
    }
}

/// A number with its point.
fn decimal(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

fn parameter(name: &str, sql_type: SqlType, value: Value) -> Parameter {
    Parameter { name: name.to_owned(), sql_type, value, output: false }
}

fn engine() -> Engine {
    Engine::temporary().unwrap()
}
