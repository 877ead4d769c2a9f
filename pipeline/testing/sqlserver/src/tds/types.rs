//! Types on the wire (MS-TDS 2.2.5.4 and 2.2.5.6): what a column or a parameter is declared to be.

use super::read::{Cursor, Malformed, Read};
use super::text::COLLATION;
use crate::value::SqlType;

/// How the values of a declared type are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// There is only NULL, and it takes no bytes.
    Nothing,
    /// So many bytes.
    Fixed(u8),
    /// A byte of length; nothing is NULL.
    Short,
    /// Two bytes of length; 0xFFFF is NULL.
    Long,
    /// Chunks: the types without a limit.
    Chunks,
    /// Four bytes of length; the types of old, as parameters.
    Old,
}

/// A declared type, as a client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireType {
    /// What it is. An unknown one is NULL without a type.
    pub sql_type: SqlType,
    /// How its values come.
    pub layout: Layout,
}

const CHUNKS: u16 = 0xFFFF;

/// Bytes of a number of `precision` digits, its sign included.
pub fn decimal_bytes(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

/// Bytes of a time of day with so many digits after the second.
pub fn time_bytes(scale: u8) -> u8 {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// Writes a type as a column or a returned value declares it. What cannot be NULL takes the type of fixed length where
/// there is one, as SQL Server does.
pub fn write(out: &mut Vec<u8>, sql_type: SqlType, nullable: bool) {
    match sql_type {
        SqlType::Bit => number(out, nullable, 0x32, 0x68, 1),
        SqlType::TinyInt => number(out, nullable, 0x30, 0x26, 1),
        SqlType::SmallInt => number(out, nullable, 0x34, 0x26, 2),
        SqlType::Int => number(out, nullable, 0x38, 0x26, 4),
        SqlType::BigInt => number(out, nullable, 0x7F, 0x26, 8),
        SqlType::Real => number(out, nullable, 0x3B, 0x6D, 4),
        SqlType::Float => number(out, nullable, 0x3E, 0x6D, 8),
        SqlType::Money => number(out, nullable, 0x3C, 0x6E, 8),
        SqlType::DateTime => number(out, nullable, 0x3D, 0x6F, 8),
        SqlType::SmallDateTime => number(out, nullable, 0x3A, 0x6F, 4),
        SqlType::Decimal(precision, scale) => {
            out.extend_from_slice(&[0x6A, decimal_bytes(precision), precision, scale]);
        }
        SqlType::UniqueIdentifier => out.extend_from_slice(&[0x24, 16]),
        SqlType::Date => out.push(0x28),
        SqlType::Time(scale) => out.extend_from_slice(&[0x29, scale]),
        SqlType::DateTime2(scale) => out.extend_from_slice(&[0x2A, scale]),
        SqlType::DateTimeOffset(scale) => out.extend_from_slice(&[0x2B, scale]),
        SqlType::Char(bytes) => characters(out, 0xAF, bytes),
        SqlType::VarChar(bytes) => characters(out, 0xA7, bytes.unwrap_or(CHUNKS)),
        SqlType::NChar(units) => characters(out, 0xEF, units.saturating_mul(2)),
        SqlType::NVarChar(units) => characters(out, 0xE7, units.map_or(CHUNKS, |units| units.saturating_mul(2))),
        SqlType::Binary(bytes) => sized(out, 0xAD, bytes),
        SqlType::VarBinary(bytes) => sized(out, 0xA5, bytes.unwrap_or(CHUNKS)),
    }
}

fn number(out: &mut Vec<u8>, nullable: bool, fixed: u8, variable: u8, bytes: u8) {
    if nullable {
        out.extend_from_slice(&[variable, bytes]);
    } else {
        out.push(fixed);
    }
}

fn sized(out: &mut Vec<u8>, id: u8, bytes: u16) {
    out.push(id);
    out.extend_from_slice(&bytes.to_le_bytes());
}

fn characters(out: &mut Vec<u8>, id: u8, bytes: u16) {
    sized(out, id, bytes);
    out.extend_from_slice(&COLLATION);
}

/// Reads the type that a client declares a parameter or a bulk column to be.
///
/// # Errors
/// A type that does not exist, or that the stand-in does not know.
pub fn read(from: &mut Cursor<'_>) -> Read<WireType> {
    let id = from.u8()?;
    let fixed = |sql_type, bytes| Ok(WireType { sql_type, layout: Layout::Fixed(bytes) });
    let short = |sql_type| Ok(WireType { sql_type, layout: Layout::Short });
    match id {
        0x1F => Ok(WireType { sql_type: SqlType::NVarChar(Some(4000)), layout: Layout::Nothing }),
        0x30 => fixed(SqlType::TinyInt, 1),
        0x32 => fixed(SqlType::Bit, 1),
        0x34 => fixed(SqlType::SmallInt, 2),
        0x38 => fixed(SqlType::Int, 4),
        0x7F => fixed(SqlType::BigInt, 8),
        0x3A => fixed(SqlType::SmallDateTime, 4),
        0x3D => fixed(SqlType::DateTime, 8),
        0x3B => fixed(SqlType::Real, 4),
        0x3E => fixed(SqlType::Float, 8),
        0x3C => fixed(SqlType::Money, 8),
        0x7A => fixed(SqlType::Money, 4),
        0x24 => match from.u8()? {
            16 => short(SqlType::UniqueIdentifier),
            bytes => Err(length(id, bytes.into())),
        },
        0x26 | 0x68 | 0x6D | 0x6E | 0x6F => short(variable_number(id, from.u8()?)?),
        0x37 | 0x3F | 0x6A | 0x6C => {
            let [_, precision, scale] = from.array()?;
            if precision == 0 || precision > 38 || scale > precision {
                return Err(length(id, precision.into()));
            }
            short(SqlType::Decimal(precision, scale))
        }
        0x28 => short(SqlType::Date),
        0x29 => short(SqlType::Time(scale(id, from)?)),
        0x2A => short(SqlType::DateTime2(scale(id, from)?)),
        0x2B => short(SqlType::DateTimeOffset(scale(id, from)?)),
        0xA5 | 0xA7 | 0xAD | 0xAF | 0xE7 | 0xEF => sized_type(id, from),
        0x22 | 0x23 | 0x63 => old_type(id, from),
        0xF1 => xml(from),
        other => Err(Malformed { text: format!("Data type 0x{other:02X} is unknown."), number: 8009 }),
    }
}

fn variable_number(id: u8, bytes: u8) -> Read<SqlType> {
    Ok(match (id, bytes) {
        (0x26, 1) => SqlType::TinyInt,
        (0x26, 2) => SqlType::SmallInt,
        (0x26, 4) => SqlType::Int,
        (0x26, 8) => SqlType::BigInt,
        (0x68, 1) => SqlType::Bit,
        (0x6D, 4) => SqlType::Real,
        (0x6D, 8) => SqlType::Float,
        (0x6E, 4 | 8) => SqlType::Money,
        (0x6F, 4) => SqlType::SmallDateTime,
        (0x6F, 8) => SqlType::DateTime,
        _ => return Err(length(id, bytes.into())),
    })
}

fn sized_type(id: u8, from: &mut Cursor<'_>) -> Read<WireType> {
    let bytes = from.u16()?;
    let chunks = bytes == CHUNKS;
    if !chunks && bytes > 8000 {
        return Err(length(id, bytes.into()));
    }
    let wide = matches!(id, 0xE7 | 0xEF);
    if wide || matches!(id, 0xA7 | 0xAF) {
        from.take(COLLATION.len())?;
    }
    let sql_type = match id {
        0xA5 => SqlType::VarBinary((!chunks).then_some(bytes)),
        0xA7 => SqlType::VarChar((!chunks).then_some(bytes)),
        0xE7 => SqlType::NVarChar((!chunks).then_some(bytes / 2)),
        _ if chunks => return Err(length(id, bytes.into())),
        0xAD => SqlType::Binary(bytes),
        0xAF => SqlType::Char(bytes),
        _ => SqlType::NChar(bytes / 2),
    };
    Ok(WireType { sql_type, layout: if chunks { Layout::Chunks } else { Layout::Long } })
}

fn old_type(id: u8, from: &mut Cursor<'_>) -> Read<WireType> {
    from.u32()?;
    let sql_type = match id {
        0x22 => SqlType::VarBinary(None),
        0x23 => SqlType::VarChar(None),
        _ => SqlType::NVarChar(None),
    };
    if id != 0x22 {
        from.take(COLLATION.len())?;
    }
    Ok(WireType { sql_type, layout: Layout::Old })
}

fn xml(from: &mut Cursor<'_>) -> Read<WireType> {
    if from.u8()? != 0 {
        from.short_text()?;
        from.short_text()?;
        from.text()?;
    }
    Ok(WireType { sql_type: SqlType::NVarChar(None), layout: Layout::Chunks })
}

fn scale(id: u8, from: &mut Cursor<'_>) -> Read<u8> {
    match from.u8()? {
        scale @ 0..=7 => Ok(scale),
        scale => Err(length(id, scale.into())),
    }
}

fn length(id: u8, given: u32) -> Malformed {
    let text = format!("Data type 0x{id:02X} has an invalid data length or metadata length ({given}).");
    Malformed { text, number: 8016 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let types = [
            SqlType::Bit,
            SqlType::TinyInt,
            SqlType::SmallInt,
            SqlType::Int,
            SqlType::BigInt,
            SqlType::Real,
            SqlType::Float,
            SqlType::Decimal(38, 10),
            SqlType::Money,
            SqlType::UniqueIdentifier,
            SqlType::Date,
            SqlType::Time(3),
            SqlType::DateTime,
            SqlType::SmallDateTime,
            SqlType::DateTime2(7),
            SqlType::DateTimeOffset(0),
            SqlType::Char(10),
            SqlType::VarChar(Some(8000)),
            SqlType::VarChar(None),
            SqlType::NChar(10),
            SqlType::NVarChar(Some(4000)),
            SqlType::NVarChar(None),
            SqlType::Binary(10),
            SqlType::VarBinary(Some(64)),
            SqlType::VarBinary(None),
        ];
        for sql_type in types {
            for nullable in [true, false] {
                let mut out = Vec::new();
                write(&mut out, sql_type, nullable);
                let mut cursor = Cursor::new(&out);
                assert_eq!(read(&mut cursor).map(|read| read.sql_type), Ok(sql_type));
                assert!(cursor.is_empty(), "{sql_type:?}");
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for id in 0..=255_u8 {
            for next in [0, 1, 7, 8, 16, 255] {
                for count in 0..12 {
                    let mut bytes = vec![id];
                    bytes.extend(vec![next; count]);
                    let _ = read(&mut Cursor::new(&bytes));
                }
            }
        }
    }
}
