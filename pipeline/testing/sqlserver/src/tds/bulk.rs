//! The rows of a bulk load (MS-TDS 2.2.6.1): columns, rows and an end, as in an answer, but from the client.

use super::read::{Cursor, Malformed, Read};
use super::read_value;
use super::types::{self, WireType};
use crate::session::Column;
use crate::value::Value;

const COLUMNS: u8 = 0x81;
const ROW: u8 = 0xD1;
const ROW_WITH_NULLS: u8 = 0xD2;
const DONE: u8 = 0xFD;

/// Reads the rows of a message, for a table that takes `expected`.
///
/// # Errors
/// A message that makes no sense, or one of other columns.
pub fn read(body: &[u8], expected: &[Column]) -> Read<Vec<Vec<Value>>> {
    let mut from = Cursor::new(body);
    if from.is_empty() {
        return Ok(Vec::new());
    }
    let columns = columns(&mut from)?;
    if columns.len() != expected.len() {
        let text = format!("The bulk load sends {} columns where INSERT BULK names {}.", columns.len(), expected.len());
        return Err(Malformed { text, number: 4864 });
    }
    let mut rows = Vec::new();
    while !from.is_empty() {
        match from.u8()? {
            ROW => rows.push(row(&mut from, &columns, &[])?),
            ROW_WITH_NULLS => {
                let nulls = from.take(columns.len().div_ceil(8))?;
                rows.push(row(&mut from, &columns, nulls)?);
            }
            DONE => return Ok(rows),
            other => return Err(Malformed::new(format!("Token 0x{other:02X} has no place in a bulk load."))),
        }
    }
    let text = "While reading current row from host, a premature end-of-message was encountered.";
    Err(Malformed { text: text.to_owned(), number: 4804 })
}

fn columns(from: &mut Cursor<'_>) -> Read<Vec<WireType>> {
    if from.u8()? != COLUMNS {
        return Err(Malformed::new("A bulk load begins with its columns."));
    }
    let count = from.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        from.take(6)?;
        let old = matches!(from.rest(), [0x22 | 0x23 | 0x63, ..]);
        columns.push(types::read(from)?);
        if old {
            let parts = from.u8()?;
            for _ in 0..parts {
                from.text()?;
            }
        }
        from.short_text()?;
    }
    Ok(columns)
}

fn row(from: &mut Cursor<'_>, columns: &[WireType], nulls: &[u8]) -> Read<Vec<Value>> {
    let is_null = |place: usize| nulls.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1);
    let read = |(place, wire)| if is_null(place) { Ok(Value::Null) } else { read_value::read_bulk(from, wire) };
    columns.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::SqlType;

    #[test]
    fn no_bytes_make_it_panic() {
        let column = Column { name: "a".to_owned(), sql_type: SqlType::Int, nullable: true, identity: false };
        let expected = [column];
        let mut start = vec![COLUMNS, 1, 0, 0, 0, 0, 0, 0, 0, 0x26, 4, 1, 97, 0];
        assert_eq!(read(&[&start[..], &[ROW, 4, 7, 0, 0, 0, DONE]].concat(), &expected), Ok(vec![vec![Value::Int(7)]]));
        assert!(read(&start, &expected).is_err(), "there is no end");
        start.push(ROW);
        for length in 0..40 {
            for byte in [0, 1, 4, 0x81, 0xD2, 254, 255] {
                let _ = read(&vec![byte; length], &expected);
                let _ = read(&[&start[..], &vec![byte; length]].concat(), &expected);
            }
        }
    }
}
