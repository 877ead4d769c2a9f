//! The declarations of `sp_executesql` and `sp_prepare`: `@P1 nvarchar(4000),@P2 numeric(10,2) OUTPUT`.

use super::read::{Malformed, Read};
use crate::value::SqlType;

/// A declared parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// With its `@`.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether it is said to be an output parameter.
    pub output: bool,
}

/// Reads declarations.
///
/// # Errors
/// A type that does not exist; what is no declaration.
pub fn read(text: &str) -> Read<Vec<Declared>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    split(text).into_iter().map(|part| one(part.trim())).collect()
}

/// Parts between commas, but not those within brackets.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|character| {
        depth += match character {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        character == ',' && depth == 0
    })
    .collect()
}

fn one(part: &str) -> Read<Declared> {
    let wrong = || syntax(part);
    let (name, rest) = part.split_once(char::is_whitespace).ok_or_else(wrong)?;
    if !name.starts_with('@') || name.len() < 2 {
        return Err(wrong());
    }
    let mut rest = rest.trim();
    if let Some(after) = strip_word(rest, "as", false) {
        rest = after;
    }
    let mut output = false;
    for word in ["output", "out"] {
        if let Some(before) = strip_word(rest, word, true) {
            (rest, output) = (before, true);
            break;
        }
    }
    if let Some((before, _default)) = rest.split_once('=') {
        rest = before.trim();
    }
    let name = name.to_owned();
    Ok(Declared { name, sql_type: sql_type(rest).ok_or_else(|| unknown(rest))?, output })
}

/// Takes a word from the start or the end.
fn strip_word<'a>(text: &'a str, word: &str, at_end: bool) -> Option<&'a str> {
    let cut = if at_end { text.len().checked_sub(word.len())? } else { word.len() };
    if !text.is_char_boundary(cut) || cut > text.len() {
        return None;
    }
    let (before, after) = text.split_at(cut);
    let (found, other) = if at_end { (after, before) } else { (before, after) };
    let apart = if at_end { other.ends_with([' ', '\t', '\n', ')']) } else { other.starts_with([' ', '\t', '\n']) };
    (found.eq_ignore_ascii_case(word) && apart).then(|| other.trim())
}

/// A type from its name: `nvarchar(max)`, `[sys].[decimal](10, 2)`.
pub fn sql_type(text: &str) -> Option<SqlType> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest.trim().strip_suffix(')')?)),
        None => (text, None),
    };
    let name: String = name.chars().filter(|character| !"[] \t\n\r\"".contains(*character)).collect();
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("sys.").unwrap_or(&name);
    let arguments: Vec<&str> = arguments.map(|list| list.split(',').map(str::trim).collect()).unwrap_or_default();
    let number = |place: usize| arguments.get(place).map(|text| text.parse::<u16>().ok());
    let small = |place: usize, default: u8| match number(place) {
        None => Some(default),
        Some(given) => given.and_then(|given| u8::try_from(given).ok()),
    };
    let scale = || small(0, 7).filter(|scale| *scale <= 7);
    let length = |most: u16| number(0).unwrap_or(Some(1)).filter(|length| (1..=most).contains(length));
    let max = arguments.first().is_some_and(|text| text.eq_ignore_ascii_case("max"));
    let limited = |most: u16| if max { Some(None) } else { length(most).map(Some) };
    Some(match name {
        "bit" => SqlType::Bit,
        "tinyint" => SqlType::TinyInt,
        "smallint" => SqlType::SmallInt,
        "int" | "integer" => SqlType::Int,
        "bigint" => SqlType::BigInt,
        "real" => SqlType::Real,
        "float" | "doubleprecision" => {
            if small(0, 53)? <= 24 {
                SqlType::Real
            } else {
                SqlType::Float
            }
        }
        "decimal" | "numeric" | "dec" => {
            let (precision, scale) = (small(0, 18)?, small(1, 0)?);
            (1..=38).contains(&precision).then_some(())?;
            (scale <= precision).then_some(SqlType::Decimal(precision, scale))?
        }
        "money" | "smallmoney" => SqlType::Money,
        "uniqueidentifier" => SqlType::UniqueIdentifier,
        "date" => SqlType::Date,
        "time" => SqlType::Time(scale()?),
        "datetime" => SqlType::DateTime,
        "smalldatetime" => SqlType::SmallDateTime,
        "datetime2" => SqlType::DateTime2(scale()?),
        "datetimeoffset" => SqlType::DateTimeOffset(scale()?),
        "char" | "character" => SqlType::Char(length(8000)?),
        "varchar" => SqlType::VarChar(limited(8000)?),
        "nchar" => SqlType::NChar(length(4000)?),
        "nvarchar" => SqlType::NVarChar(limited(4000)?),
        "sysname" => SqlType::NVarChar(Some(128)),
        "binary" => SqlType::Binary(length(8000)?),
        "varbinary" => SqlType::VarBinary(limited(8000)?),
        "timestamp" | "rowversion" => SqlType::Binary(8),
        "text" => SqlType::VarChar(None),
        "ntext" | "xml" => SqlType::NVarChar(None),
        "image" => SqlType::VarBinary(None),
        _ => return None,
    })
}

fn syntax(part: &str) -> Malformed {
    Malformed { text: format!("Incorrect syntax near '{part}'."), number: 102 }
}

fn unknown(name: &str) -> Malformed {
    Malformed { text: format!("Column, parameter, or variable: Cannot find data type {name}."), number: 2715 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_as_clients_write_them() {
        let read =
            read("@P1 nvarchar(4000),@P2 numeric(10, 2) OUTPUT, @p3 AS [sys].[datetime2](3) , @x VARBINARY(MAX) out");
        let declared = |name: &str, sql_type, output| Declared { name: name.to_owned(), sql_type, output };
        assert_eq!(
            read.unwrap(),
            [
                declared("@P1", SqlType::NVarChar(Some(4000)), false),
                declared("@P2", SqlType::Decimal(10, 2), true),
                declared("@p3", SqlType::DateTime2(3), false),
                declared("@x", SqlType::VarBinary(None), true),
            ]
        );
    }

    #[test]
    fn what_is_none_is_an_error() {
        for text in
            ["@P1", "P1 int", "@P1 nvarchar(0)", "@P1 elephant", "@P1 decimal(39)", ",", "@P1 int,", "@P1 time(8)"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read(" "), Ok(Vec::new()));
    }
}
