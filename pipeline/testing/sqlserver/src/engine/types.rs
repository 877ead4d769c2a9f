//! Types: names, precedence, and what an operation on two of them gives.

use super::ast::Arithmetic;
use super::errors::{Result, fault};
use crate::value::SqlType;

/// The type of that name; none when it is no type of the system.
pub(crate) fn by_name(name: &str, arguments: &[i64], max: bool) -> Result<Option<SqlType>> {
    let lower = name.to_ascii_lowercase();
    let length = |default: u16, limit: i64| -> Result<u16> {
        let Some(length) = arguments.first() else { return Ok(default) };
        if *length < 1 || *length > limit {
            return Err(fault(
                131,
                15,
                format!(
                    "The size ({length}) given to the type '{lower}' exceeds the maximum allowed for any data type ({limit})."
                ),
            ));
        }
        Ok(u16::try_from(*length).unwrap_or(u16::MAX))
    };
    let scale = || -> Result<u8> {
        match arguments.first() {
            None => Ok(7),
            Some(scale @ 0..=7) => Ok(u8::try_from(*scale).unwrap_or(7)),
            Some(scale) => Err(fault(1002, 15, format!("Line 1: Specified scale {scale} is invalid."))),
        }
    };
    Ok(Some(match lower.as_str() {
        "bit" => SqlType::Bit,
        "tinyint" => SqlType::TinyInt,
        "smallint" => SqlType::SmallInt,
        "int" | "integer" => SqlType::Int,
        "bigint" => SqlType::BigInt,
        "real" => SqlType::Real,
        "float" => match arguments.first() {
            Some(1..=24) => SqlType::Real,
            _ => SqlType::Float,
        },
        "decimal" | "numeric" | "dec" => {
            let precision = arguments.first().copied().unwrap_or(18);
            let scale = arguments.get(1).copied().unwrap_or(0);
            if !(1..=38).contains(&precision) || !(0..=precision).contains(&scale) {
                return Err(fault(
                    1007,
                    15,
                    format!("The number '{precision}' is out of the range for numeric representation."),
                ));
            }
            SqlType::Decimal(u8::try_from(precision).unwrap_or(38), u8::try_from(scale).unwrap_or(0))
        }
        "money" | "smallmoney" => SqlType::Money,
        "uniqueidentifier" => SqlType::UniqueIdentifier,
        "date" => SqlType::Date,
        "time" => SqlType::Time(scale()?),
        "datetime" => SqlType::DateTime,
        "smalldatetime" => SqlType::SmallDateTime,
        "datetime2" => SqlType::DateTime2(scale()?),
        "datetimeoffset" => SqlType::DateTimeOffset(scale()?),
        "char" => SqlType::Char(length(1, 8000)?),
        "varchar" if max => SqlType::VarChar(None),
        "varchar" => SqlType::VarChar(Some(length(1, 8000)?)),
        "text" => SqlType::VarChar(None),
        "nchar" => SqlType::NChar(length(1, 4000)?),
        "nvarchar" if max => SqlType::NVarChar(None),
        "nvarchar" => SqlType::NVarChar(Some(length(1, 4000)?)),
        "ntext" | "xml" => SqlType::NVarChar(None),
        "sysname" => SqlType::NVarChar(Some(128)),
        "sql_variant" => SqlType::NVarChar(Some(4000)),
        "binary" => SqlType::Binary(length(1, 8000)?),
        "varbinary" if max => SqlType::VarBinary(None),
        "varbinary" => SqlType::VarBinary(Some(length(1, 8000)?)),
        "image" => SqlType::VarBinary(None),
        _ => return Ok(None),
    }))
}

/// The name alone, as messages and `sys.types` have it.
pub(crate) fn name(sql_type: SqlType) -> &'static str {
    match sql_type {
        SqlType::Bit => "bit",
        SqlType::TinyInt => "tinyint",
        SqlType::SmallInt => "smallint",
        SqlType::Int => "int",
        SqlType::BigInt => "bigint",
        SqlType::Real => "real",
        SqlType::Float => "float",
        SqlType::Decimal(..) => "decimal",
        SqlType::Money => "money",
        SqlType::UniqueIdentifier => "uniqueidentifier",
        SqlType::Date => "date",
        SqlType::Time(_) => "time",
        SqlType::DateTime => "datetime",
        SqlType::SmallDateTime => "smalldatetime",
        SqlType::DateTime2(_) => "datetime2",
        SqlType::DateTimeOffset(_) => "datetimeoffset",
        SqlType::Char(_) => "char",
        SqlType::VarChar(_) => "varchar",
        SqlType::NChar(_) => "nchar",
        SqlType::NVarChar(_) => "nvarchar",
        SqlType::Binary(_) => "binary",
        SqlType::VarBinary(_) => "varbinary",
    }
}

/// As it is declared: `nvarchar(32)`, `datetime2(3)`.
pub(crate) fn declared(sql_type: SqlType) -> String {
    let name = name(sql_type);
    let size = |size: Option<u16>| size.map_or_else(|| "max".to_owned(), |size| size.to_string());
    match sql_type {
        SqlType::Decimal(precision, scale) => format!("{name}({precision},{scale})"),
        SqlType::Time(scale) | SqlType::DateTime2(scale) | SqlType::DateTimeOffset(scale) => format!("{name}({scale})"),
        SqlType::Char(length) | SqlType::NChar(length) | SqlType::Binary(length) => format!("{name}({length})"),
        SqlType::VarChar(length) | SqlType::NVarChar(length) | SqlType::VarBinary(length) => {
            format!("{name}({})", size(length))
        }
        _ => name.to_owned(),
    }
}

/// A type as a number, so that it can stand in SQLite's text as an argument.
pub(crate) fn code(sql_type: SqlType) -> i64 {
    let (tag, a, b) = match sql_type {
        SqlType::Bit => (0, 0, 0),
        SqlType::TinyInt => (1, 0, 0),
        SqlType::SmallInt => (2, 0, 0),
        SqlType::Int => (3, 0, 0),
        SqlType::BigInt => (4, 0, 0),
        SqlType::Real => (5, 0, 0),
        SqlType::Float => (6, 0, 0),
        SqlType::Decimal(precision, scale) => (7, i64::from(precision), i64::from(scale)),
        SqlType::Money => (8, 0, 0),
        SqlType::UniqueIdentifier => (9, 0, 0),
        SqlType::Date => (10, 0, 0),
        SqlType::Time(scale) => (11, i64::from(scale), 0),
        SqlType::DateTime => (12, 0, 0),
        SqlType::SmallDateTime => (13, 0, 0),
        SqlType::DateTime2(scale) => (14, i64::from(scale), 0),
        SqlType::DateTimeOffset(scale) => (15, i64::from(scale), 0),
        SqlType::Char(length) => (16, i64::from(length), 0),
        SqlType::VarChar(length) => (17, length.map_or(0xffff, i64::from), 0),
        SqlType::NChar(length) => (18, i64::from(length), 0),
        SqlType::NVarChar(length) => (19, length.map_or(0xffff, i64::from), 0),
        SqlType::Binary(length) => (20, i64::from(length), 0),
        SqlType::VarBinary(length) => (21, length.map_or(0xffff, i64::from), 0),
    };
    (tag << 24) | (a << 8) | b
}

/// The type of a [`code`].
pub(crate) fn decode(code: i64) -> SqlType {
    let a = u16::try_from((code >> 8) & 0xffff).unwrap_or(0);
    let small = u8::try_from(a & 0xff).unwrap_or(0);
    let b = u8::try_from(code & 0xff).unwrap_or(0);
    let size = (a != 0xffff).then_some(a);
    match code >> 24 {
        0 => SqlType::Bit,
        1 => SqlType::TinyInt,
        2 => SqlType::SmallInt,
        3 => SqlType::Int,
        4 => SqlType::BigInt,
        5 => SqlType::Real,
        6 => SqlType::Float,
        7 => SqlType::Decimal(small, b),
        8 => SqlType::Money,
        9 => SqlType::UniqueIdentifier,
        10 => SqlType::Date,
        11 => SqlType::Time(small),
        12 => SqlType::DateTime,
        13 => SqlType::SmallDateTime,
        14 => SqlType::DateTime2(small),
        15 => SqlType::DateTimeOffset(small),
        16 => SqlType::Char(a),
        17 => SqlType::VarChar(size),
        18 => SqlType::NChar(a),
        19 => SqlType::NVarChar(size),
        20 => SqlType::Binary(a),
        _ => SqlType::VarBinary(size),
    }
}

pub(crate) fn is_text(sql_type: SqlType) -> bool {
    matches!(sql_type, SqlType::Char(_) | SqlType::VarChar(_) | SqlType::NChar(_) | SqlType::NVarChar(_))
}

pub(crate) fn is_national(sql_type: SqlType) -> bool {
    matches!(sql_type, SqlType::NChar(_) | SqlType::NVarChar(_))
}

pub(crate) fn is_binary(sql_type: SqlType) -> bool {
    matches!(sql_type, SqlType::Binary(_) | SqlType::VarBinary(_))
}

pub(crate) fn is_integer(sql_type: SqlType) -> bool {
    matches!(sql_type, SqlType::Bit | SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt)
}

pub(crate) fn is_float(sql_type: SqlType) -> bool {
    matches!(sql_type, SqlType::Float | SqlType::Real)
}

/// Precision and scale, of what is kept as an exact number with a point.
pub(crate) fn decimal(sql_type: SqlType) -> Option<(u8, u8)> {
    match sql_type {
        SqlType::Decimal(precision, scale) => Some((precision, scale)),
        SqlType::Money => Some((19, 4)),
        _ => None,
    }
}

pub(crate) fn is_time(sql_type: SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Date
            | SqlType::DateTime
            | SqlType::SmallDateTime
            | SqlType::DateTime2(_)
            | SqlType::Time(_)
            | SqlType::DateTimeOffset(_)
    )
}

/// Whether the type is `(max)`.
pub(crate) fn is_max(sql_type: SqlType) -> bool {
    matches!(sql_type, SqlType::VarChar(None) | SqlType::NVarChar(None) | SqlType::VarBinary(None))
}

/// The precedence of types: the higher one is what the lower one is converted to.
fn precedence(sql_type: SqlType) -> u8 {
    match sql_type {
        SqlType::Binary(_) => 1,
        SqlType::VarBinary(_) => 2,
        SqlType::Char(_) => 3,
        SqlType::VarChar(_) => 4,
        SqlType::NChar(_) => 5,
        SqlType::NVarChar(_) => 6,
        SqlType::UniqueIdentifier => 7,
        SqlType::Bit => 8,
        SqlType::TinyInt => 9,
        SqlType::SmallInt => 10,
        SqlType::Int => 11,
        SqlType::BigInt => 12,
        SqlType::Money => 13,
        SqlType::Decimal(..) => 14,
        SqlType::Real => 15,
        SqlType::Float => 16,
        SqlType::Time(_) => 17,
        SqlType::Date => 18,
        SqlType::SmallDateTime => 19,
        SqlType::DateTime => 20,
        SqlType::DateTime2(_) => 21,
        SqlType::DateTimeOffset(_) => 22,
    }
}

/// Integers as decimals: digits.
pub(crate) fn integer_digits(sql_type: SqlType) -> u8 {
    match sql_type {
        SqlType::Bit => 1,
        SqlType::TinyInt => 3,
        SqlType::SmallInt => 5,
        SqlType::BigInt => 19,
        _ => 10,
    }
}

fn capped(precision: u8, scale: u8) -> SqlType {
    if precision <= 38 {
        return SqlType::Decimal(precision, scale);
    }
    let whole = precision - scale;
    SqlType::Decimal(38, scale.min(38u8.saturating_sub(whole).max(scale.min(6))))
}

/// Length in characters or bytes; none for max.
pub(crate) fn length(sql_type: SqlType) -> Option<u16> {
    match sql_type {
        SqlType::Char(length) | SqlType::NChar(length) | SqlType::Binary(length) => Some(length),
        SqlType::VarChar(length) | SqlType::NVarChar(length) | SqlType::VarBinary(length) => length,
        SqlType::UniqueIdentifier => Some(36),
        SqlType::Float | SqlType::Real => Some(53),
        SqlType::Decimal(precision, _) => Some(u16::from(precision) + 2),
        SqlType::Bit => Some(1),
        _ => Some(34),
    }
}

/// The type that values of both become, in CASE, UNION, comparisons.
pub(crate) fn common(a: SqlType, b: SqlType) -> SqlType {
    if a == b {
        return a;
    }
    if let (Some((p1, s1)), Some((p2, s2))) = (as_decimal(a), as_decimal(b))
        && (decimal(a).is_some() || decimal(b).is_some())
    {
        let scale = s1.max(s2);
        return capped(scale + (p1 - s1).max(p2 - s2), scale);
    }
    if (is_text(a) && is_text(b)) || (is_binary(a) && is_binary(b)) {
        let size = length(a).zip(length(b)).map(|(a, b)| a.max(b));
        return match if precedence(a) >= precedence(b) { a } else { b } {
            SqlType::Char(_) => SqlType::Char(size.unwrap_or(8000)),
            SqlType::NChar(_) => SqlType::NChar(size.unwrap_or(4000)),
            SqlType::NVarChar(_) => SqlType::NVarChar(size.filter(|size| *size <= 4000)),
            SqlType::Binary(_) => SqlType::Binary(size.unwrap_or(8000)),
            SqlType::VarBinary(_) => SqlType::VarBinary(size),
            _ => SqlType::VarChar(size),
        };
    }
    match (a, b) {
        (SqlType::Time(a), SqlType::Time(b)) => SqlType::Time(a.max(b)),
        (SqlType::DateTime2(a), SqlType::DateTime2(b)) => SqlType::DateTime2(a.max(b)),
        (SqlType::DateTime2(a), SqlType::DateTime) | (SqlType::DateTime, SqlType::DateTime2(a)) => {
            SqlType::DateTime2(a.max(3))
        }
        (SqlType::DateTimeOffset(a), SqlType::DateTimeOffset(b)) => SqlType::DateTimeOffset(a.max(b)),
        _ if precedence(a) >= precedence(b) => a,
        _ => b,
    }
}

/// Integers and decimals as precision and scale.
pub(crate) fn as_decimal(sql_type: SqlType) -> Option<(u8, u8)> {
    decimal(sql_type).or_else(|| is_integer(sql_type).then(|| (integer_digits(sql_type), 0)))
}

/// The type of an operation.
pub(crate) fn arithmetic(op: Arithmetic, a: SqlType, b: SqlType) -> Result<SqlType> {
    if op == Arithmetic::Add && (is_text(a) || is_binary(a)) && (is_text(b) || is_binary(b)) {
        let size = length(a).zip(length(b)).map(|(a, b)| a.saturating_add(b));
        let national = is_national(a) || is_national(b);
        return Ok(if is_binary(a) && is_binary(b) {
            SqlType::VarBinary(size.filter(|size| *size <= 8000))
        } else if national {
            SqlType::NVarChar(if is_max(a) || is_max(b) { None } else { Some(size.unwrap_or(4000).min(4000)) })
        } else {
            SqlType::VarChar(if is_max(a) || is_max(b) { None } else { Some(size.unwrap_or(8000).min(8000)) })
        });
    }
    let bitwise = matches!(op, Arithmetic::And | Arithmetic::Or | Arithmetic::Xor);
    let clash = |sql_type: SqlType| {
        let sign = match op {
            Arithmetic::Add => "add",
            Arithmetic::Subtract => "subtract",
            Arithmetic::Multiply => "multiply",
            Arithmetic::Divide => "divide",
            Arithmetic::Modulo => "modulo",
            Arithmetic::And => "'&'",
            Arithmetic::Or => "'|'",
            Arithmetic::Xor => "'^'",
        };
        fault(8117, 16, format!("Operand data type {} is invalid for {sign} operator.", name(sql_type)))
    };
    for sql_type in [a, b] {
        let fits = if bitwise {
            is_integer(sql_type) || is_binary(sql_type)
        } else {
            is_integer(sql_type)
                || is_float(sql_type)
                || decimal(sql_type).is_some()
                || is_text(sql_type)
                || is_binary(sql_type)
                || (matches!(sql_type, SqlType::DateTime | SqlType::SmallDateTime)
                    && matches!(op, Arithmetic::Add | Arithmetic::Subtract))
        };
        if !fits {
            return Err(clash(sql_type));
        }
    }
    if is_text(a) && is_text(b) {
        return Err(clash(a));
    }
    if let (Some((p1, s1)), Some((p2, s2))) = (as_decimal(a), as_decimal(b))
        && (matches!(a, SqlType::Decimal(..)) || matches!(b, SqlType::Decimal(..)))
    {
        let whole = (p1 - s1).max(p2 - s2);
        return Ok(match op {
            Arithmetic::Add | Arithmetic::Subtract => capped(s1.max(s2) + whole + 1, s1.max(s2)),
            Arithmetic::Multiply => capped(p1 + p2 + 1, s1 + s2),
            Arithmetic::Divide => {
                let scale = (s1 + p2 + 1).max(6);
                capped(p1 - s1 + s2 + scale, scale)
            }
            _ => capped((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
        });
    }
    Ok(match common(a, b) {
        SqlType::Bit if !bitwise => SqlType::Int,
        common => common,
    })
}
