//! The pieces of an answer, as bytes (MS-TDS 2.2.7).

use super::types;
use super::write_value::{self, Mismatch, utf16};
use crate::session::{Column, Message};
use crate::value::{SqlType, Value};

/// The name that the server gives itself in its messages.
pub const SERVER: &str = "STAND-IN";

/// The end of a statement of a batch.
pub const DONE: u8 = 0xFD;
/// The end of a call.
pub const DONE_PROC: u8 = 0xFE;
/// The end of a statement within a call.
pub const DONE_IN_PROC: u8 = 0xFF;

/// What an end says.
pub mod status {
    /// More follows.
    pub const MORE: u16 = 0x01;
    /// The statement failed.
    pub const ERROR: u16 = 0x02;
    /// The number of rows counts.
    pub const COUNT: u16 = 0x10;
    /// The attention is acknowledged.
    pub const ATTENTION: u16 = 0x20;
}

/// What kind of statement ended.
pub mod command {
    /// One that gave rows.
    pub const SELECT: u16 = 0xC1;
    /// `BEGIN TRANSACTION`
    pub const BEGIN: u16 = 0xD4;
    /// `COMMIT`
    pub const COMMIT: u16 = 0xD5;
    /// `ROLLBACK`
    pub const ROLLBACK: u16 = 0xD2;
}

/// What an `ENVCHANGE` is about.
pub mod change {
    /// The database.
    pub const DATABASE: u8 = 1;
    /// A transaction began.
    pub const BEGAN: u8 = 8;
    /// It was committed.
    pub const COMMITTED: u8 = 9;
    /// It was rolled back.
    pub const ROLLED_BACK: u8 = 10;
    /// The session is like new.
    pub const RESET: u8 = 18;
}

const UPDATEABLE_UNKNOWN: u16 = 0x08;
const NULLABLE: u16 = 0x01;
const IDENTITY: u16 = 0x10;

/// An end.
pub fn done(out: &mut Vec<u8>, token: u8, status: u16, command: u16, rows: u64) {
    out.push(token);
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&command.to_le_bytes());
    out.extend_from_slice(&rows.to_le_bytes());
}

/// An error, or a message without one.
pub fn message(out: &mut Vec<u8>, message: &Message) {
    // A message's length has two bytes; what would not fit is cut, as SQL Server cuts its own at 2,048 characters.
    let text: String = message.text.chars().take(4000).collect();
    let mut body = Vec::new();
    body.extend_from_slice(&message.number.to_le_bytes());
    body.extend_from_slice(&[message.state, message.class]);
    let text = utf16(&text);
    body.extend_from_slice(&((text.len() / 2) as u16).to_le_bytes());
    body.extend_from_slice(&text);
    short_text(&mut body, SERVER);
    short_text(&mut body, &message.procedure);
    body.extend_from_slice(&message.line.to_le_bytes());
    token(out, if message.class > 10 { 0xAA } else { 0xAB }, &body);
}

/// That the login succeeded.
pub fn login_ack(out: &mut Vec<u8>, version: u32, program: &str, build: [u8; 4]) {
    let mut body = vec![1];
    body.extend_from_slice(&version.to_be_bytes());
    short_text(&mut body, program);
    body.extend_from_slice(&build);
    token(out, 0xAD, &body);
}

/// A change of the session that has texts.
pub fn env_text(out: &mut Vec<u8>, kind: u8, new: &str, old: &str) {
    let mut body = vec![kind];
    short_text(&mut body, new);
    short_text(&mut body, old);
    token(out, 0xE3, &body);
}

/// A change of the session that has bytes.
pub fn env_bytes(out: &mut Vec<u8>, kind: u8, new: &[u8], old: &[u8]) {
    let mut body = vec![kind];
    for side in [new, old] {
        body.push(side.len() as u8);
        body.extend_from_slice(side);
    }
    token(out, 0xE3, &body);
}

/// The return status of a call.
pub fn return_status(out: &mut Vec<u8>, status: i32) {
    out.push(0x79);
    out.extend_from_slice(&status.to_le_bytes());
}

/// An output parameter, and its place among the parameters of the call.
///
/// # Errors
/// The value is not of its type.
pub fn return_value(
    out: &mut Vec<u8>,
    place: u16,
    name: &str,
    sql_type: SqlType,
    value: &Value,
) -> Result<(), Mismatch> {
    let start = out.len();
    out.push(0xAC);
    out.extend_from_slice(&place.to_le_bytes());
    short_text(out, name);
    out.push(1);
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&NULLABLE.to_le_bytes());
    types::write(out, sql_type, true);
    write_value::write(out, sql_type, true, value).inspect_err(|_| out.truncate(start))
}

/// The columns of a result.
pub fn columns(out: &mut Vec<u8>, columns: &[Column]) {
    out.push(0x81);
    out.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    for column in columns {
        let mut flags = if column.nullable { NULLABLE } else { 0 };
        flags |= if column.identity { IDENTITY } else { UPDATEABLE_UNKNOWN };
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        types::write(out, column.sql_type, column.nullable);
        short_text(out, &column.name);
    }
}

/// A row.
///
/// # Errors
/// Which column's value is not of its type; nothing was written.
pub fn row(out: &mut Vec<u8>, columns: &[Column], values: &[Value]) -> Result<(), usize> {
    if columns.len() != values.len() {
        return Err(values.len());
    }
    let start = out.len();
    out.push(0xD1);
    for (place, (column, value)) in columns.iter().zip(values).enumerate() {
        if write_value::write(out, column.sql_type, column.nullable, value).is_err() {
            out.truncate(start);
            return Err(place);
        }
    }
    Ok(())
}

/// A text with its length in a byte before it; what does not fit is cut.
fn short_text(out: &mut Vec<u8>, text: &str) {
    let mut units: Vec<u16> = text.encode_utf16().collect();
    units.truncate(usize::from(u8::MAX));
    out.push(units.len() as u8);
    for unit in units {
        out.extend_from_slice(&unit.to_le_bytes());
    }
}

fn token(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(body.len() as u16).to_le_bytes());
    out.extend_from_slice(body);
}
