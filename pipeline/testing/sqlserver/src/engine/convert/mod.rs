//! Conversions between types: CAST, CONVERT with styles, and what assignment does.

mod numbers;
mod text;
mod times;

pub(crate) use numbers::{parse_decimal, power, rescale};
pub(crate) use text::hex;

use super::errors::{Result, fault};
use super::types;
use crate::value::{SqlType, Value};
use numbers::{to_bit, to_decimal, to_float, to_integer};
use text::{fit_bytes, fit_text, to_bytes, to_text};
use times::{to_guid, to_time};

/// What happens to text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// CAST and variables cut it.
    Cut,
    /// A column refuses it; the caller knows the column's name.
    Refuse,
}

fn overflow(to: SqlType) -> Box<super::errors::Fault> {
    fault(8115, 16, format!("Arithmetic overflow error converting expression to data type {}.", types::name(to)))
}

fn clash(from: SqlType, to: SqlType) -> Box<super::errors::Fault> {
    fault(
        529,
        16,
        format!("Explicit conversion from data type {} to {} is not allowed.", types::name(from), types::name(to)),
    )
}

/// Converts a value.
pub(crate) fn convert(value: Value, from: SqlType, to: SqlType, style: i64, excess: Excess) -> Result<Value> {
    if value == Value::Null {
        return Ok(Value::Null);
    }
    if from == to && !types::is_text(to) && !types::is_binary(to) {
        return Ok(value);
    }
    match to {
        SqlType::Bit => to_bit(value, from),
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => to_integer(value, from, to),
        SqlType::Float | SqlType::Real => to_float(value, from, to),
        SqlType::Decimal(..) | SqlType::Money => to_decimal(value, from, to),
        SqlType::UniqueIdentifier => to_guid(value, from),
        SqlType::Date
        | SqlType::Time(_)
        | SqlType::DateTime
        | SqlType::SmallDateTime
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_) => to_time(value, from, to),
        SqlType::Char(_) | SqlType::VarChar(_) | SqlType::NChar(_) | SqlType::NVarChar(_) => {
            let text = to_text(value, from, to, style)?;
            fit_text(text, to, excess).map(Value::Text)
        }
        SqlType::Binary(_) | SqlType::VarBinary(_) => {
            let bytes = to_bytes(value, from, to, style)?;
            fit_bytes(bytes, to, excess).map(Value::Bytes)
        }
    }
}

/// Text that is too long, before it is known for which column.
pub(crate) const TOO_LONG: i32 = 2628;
