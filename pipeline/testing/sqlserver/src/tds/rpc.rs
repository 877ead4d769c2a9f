//! Calls (MS-TDS 2.2.6.6): what is called, and with what.

use super::read::{Cursor, Malformed, Read};
use super::{read_value, types};
use crate::session::Parameter;
use crate::value::Value;

/// The most parameters of a call; SQL Server has the same limit.
pub const PARAMETERS_MAX: usize = 2100;

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is called.
    pub target: Target,
    /// With what; those left to their default are left out.
    pub parameters: Vec<Parameter>,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A statement with parameters.
    ExecuteSql,
    /// Remembers a statement.
    Prepare,
    /// Runs a remembered statement.
    Execute,
    /// Remembers a statement and runs it.
    PrepareAndExecute,
    /// Remembers a procedure and calls it: what ODBC makes of `{CALL ...}`.
    PrepareAndCall,
    /// Forgets a statement.
    Unprepare,
    /// A procedure.
    Procedure(String),
}

const BY_NUMBER: u16 = 0xFFFF;
const BY_REFERENCE: u8 = 0x01;
const DEFAULT: u8 = 0x02;

/// Reads the calls of a message.
///
/// # Errors
/// A message that makes no sense; a type or a procedure that the stand-in does not know.
pub fn read(body: &[u8]) -> Read<Vec<Call>> {
    let mut from = Cursor::new(body);
    from.skip_headers()?;
    let mut calls = Vec::new();
    while !from.is_empty() {
        calls.push(call(&mut from)?);
    }
    Ok(calls)
}

fn call(from: &mut Cursor<'_>) -> Read<Call> {
    let target = match from.u16()? {
        BY_NUMBER => by_number(from.u16()?)?,
        units => by_name(from.utf16(units.into())?),
    };
    let _options = from.u16()?;
    let mut parameters = Vec::new();
    while !from.is_empty() {
        // A flag between two calls: no name of a parameter has so many characters.
        if matches!(from.rest(), [0xFE | 0xFF, ..]) {
            from.u8()?;
            break;
        }
        if let Some(parameter) = parameter(from, parameters.len() + 1)? {
            parameters.push(parameter);
        }
        if parameters.len() > PARAMETERS_MAX + 2 {
            let text =
                format!("Too many parameters were provided in this RPC request. The maximum is {PARAMETERS_MAX}.");
            return Err(Malformed { text, number: 8003 });
        }
    }
    Ok(Call { target, parameters })
}

fn by_number(number: u16) -> Read<Target> {
    Ok(match number {
        10 => Target::ExecuteSql,
        11 => Target::Prepare,
        12 => Target::Execute,
        13 => Target::PrepareAndExecute,
        14 => Target::PrepareAndCall,
        15 => Target::Unprepare,
        1..=9 => {
            let text = format!("The stand-in has no server-side cursors (procedure number {number}).");
            return Err(Malformed { text, number: 16_937 });
        }
        _ => return Err(Malformed { text: format!("Could not find stored procedure number {number}."), number: 2812 }),
    })
}

fn by_name(name: String) -> Target {
    let plain: String = name.chars().filter(|character| !"[]".contains(*character)).collect();
    let plain = plain.to_ascii_lowercase();
    let plain = plain.strip_prefix("master.").unwrap_or(&plain);
    match plain.trim_start_matches("sys.").trim_start_matches("dbo.").trim_start_matches('.') {
        "sp_executesql" => Target::ExecuteSql,
        "sp_prepare" => Target::Prepare,
        "sp_execute" => Target::Execute,
        "sp_prepexec" => Target::PrepareAndExecute,
        "sp_prepexecrpc" => Target::PrepareAndCall,
        "sp_unprepare" => Target::Unprepare,
        _ => Target::Procedure(name),
    }
}

fn parameter(from: &mut Cursor<'_>, place: usize) -> Read<Option<Parameter>> {
    let name = from.short_text()?;
    let flags = from.u8()?;
    let named = |error: Malformed| {
        let before = "The incoming tabular data stream (TDS) remote procedure call (RPC) protocol stream is incorrect.";
        Malformed { text: format!("{before} Parameter {place} (\"{name}\"): {}", error.text), ..error }
    };
    let wire = types::read(from).map_err(named)?;
    let value = read_value::read(from, &wire).map_err(named)?;
    if flags & DEFAULT != 0 && !name.is_empty() && flags & BY_REFERENCE == 0 {
        return Ok(None);
    }
    Ok(Some(Parameter { name, sql_type: wire.sql_type, value, output: flags & BY_REFERENCE != 0 }))
}

impl Call {
    /// Takes the next parameter as a text, for the procedures of the system.
    ///
    /// # Errors
    /// There is none, or it is none.
    pub fn take_text(&mut self, what: &str) -> Read<String> {
        match self.take()? {
            Parameter { value: Value::Text(text), .. } => Ok(text),
            Parameter { value: Value::Null, .. } => Ok(String::new()),
            other => {
                let text = format!(
                    "Procedure expects parameter '{what}' of type 'ntext/nchar/nvarchar', not {:?}.",
                    other.sql_type
                );
                Err(Malformed { text, number: 214 })
            }
        }
    }

    /// Takes the next parameter as a handle; 0 for NULL.
    ///
    /// # Errors
    /// There is none, or it is none.
    pub fn take_handle(&mut self) -> Read<i64> {
        match self.take()?.value {
            Value::Int(number) => Ok(number),
            Value::Null => Ok(0),
            _ => {
                Err(Malformed { text: "Procedure expects parameter '@handle' of type 'int'.".to_owned(), number: 214 })
            }
        }
    }

    fn take(&mut self) -> Read<Parameter> {
        if self.parameters.is_empty() {
            let text = "Procedure or function has too few arguments specified.".to_owned();
            return Err(Malformed { text, number: 201 });
        }
        Ok(self.parameters.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_it_panic() {
        for length in 0..80 {
            for byte in [0, 1, 10, 0x26, 0xE7, 254, 255] {
                let _ = read(&vec![byte; length]);
                let mut body = vec![4, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 0, 0, 0];
                body.extend(vec![byte; length]);
                let _ = read(&body);
            }
        }
    }
}
