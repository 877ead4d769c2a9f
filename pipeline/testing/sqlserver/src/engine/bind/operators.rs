//! Constants, comparisons, arithmetic.

use super::super::ast::Arithmetic;
use super::super::errors::{Result, fault, unsupported};
use super::super::types;
use super::{Bound, coerce, comparable};
use crate::value::SqlType;

/// A number with a point, or too big for int: its digits make its type.
pub(super) fn decimal_literal(digits: &str) -> Result<Bound> {
    let Some((unscaled, scale)) = super::super::convert::parse_decimal(digits) else {
        return Err(fault(
            1007,
            15,
            format!("The number '{digits}' is out of the range for numeric representation (maximum precision 38)."),
        ));
    };
    let precision = unscaled.unsigned_abs().to_string().len().max(usize::from(scale).max(1));
    let precision = u8::try_from(precision).unwrap_or(38);
    Ok(Bound::new(
        format!("x'{}'", super::super::convert::hex(&super::super::repr::decimal_to_bytes(unscaled))),
        SqlType::Decimal(precision, scale),
        false,
    ))
}

/// A comparison in the common type of both.
pub(super) fn compare(op: &str, left: &Bound, right: &Bound) -> Result<String> {
    let common = match (left.untyped, right.untyped) {
        (true, false) => right.sql_type,
        (false, true) => left.sql_type,
        _ => types::common(left.sql_type, right.sql_type),
    };
    for (side, other) in [(left, right), (right, left)] {
        let clash = (side.sql_type == SqlType::UniqueIdentifier
            && (types::is_integer(other.sql_type) || types::is_time(other.sql_type)))
            || (types::is_integer(side.sql_type)
                && matches!(other.sql_type, SqlType::Date | SqlType::DateTime2(_) | SqlType::Time(_)));
        if clash && !side.untyped && !other.untyped {
            return Err(fault(
                206,
                16,
                format!(
                    "Operand type clash: {} is incompatible with {}",
                    types::name(left.sql_type),
                    types::name(right.sql_type)
                ),
            ));
        }
    }
    let left = comparable(coerce(left, common), common);
    let right = comparable(coerce(right, common), common);
    Ok(format!("({left} {op} {right})"))
}

/// An operation on two values.
pub(super) fn arithmetic(op: Arithmetic, left: &Bound, right: &Bound) -> Result<Bound> {
    let (left_type, right_type) = match (left.untyped, right.untyped) {
        (true, false) => (right.sql_type, right.sql_type),
        (false, true) => (left.sql_type, left.sql_type),
        _ => (left.sql_type, right.sql_type),
    };
    // Beside a decimal an integer constant has as many digits as are written.
    let literal = |bound: &Bound, own: SqlType, other: SqlType| {
        let digits = bound.sql.bytes().all(|byte| byte.is_ascii_digit());
        if own == SqlType::Int && digits && matches!(other, SqlType::Decimal(..)) {
            SqlType::Decimal(u8::try_from(bound.sql.len()).unwrap_or(10), 0)
        } else {
            own
        }
    };
    let (left_type, right_type) = (literal(left, left_type, right_type), literal(right, right_type, left_type));
    let sql_type = types::arithmetic(op, left_type, right_type)?;
    let nullable = left.nullable || right.nullable;
    if types::is_text(sql_type) || types::is_binary(sql_type) {
        let side = |bound: &Bound| {
            if types::is_text(bound.sql_type) || types::is_binary(bound.sql_type) {
                bound.sql.clone()
            } else {
                coerce(bound, sql_type)
            }
        };
        let sql = if types::is_binary(sql_type) {
            format!("bincat({}, {})", side(left), side(right))
        } else {
            format!("({} || {})", side(left), side(right))
        };
        return Ok(Bound::new(sql, sql_type, nullable));
    }
    if let Some((_, scale)) = types::decimal(sql_type) {
        let (_, left_scale) = types::as_decimal(left_type).unwrap_or((0, scale));
        let (_, right_scale) = types::as_decimal(right_type).unwrap_or((0, scale));
        let side = |bound: &Bound, own: u8| {
            if types::decimal(bound.sql_type).is_some() {
                bound.sql.clone()
            } else {
                coerce(bound, SqlType::Decimal(38, own))
            }
        };
        let code = match op {
            Arithmetic::Add => 0,
            Arithmetic::Subtract => 1,
            Arithmetic::Multiply => 2,
            Arithmetic::Divide => 3,
            _ => 4,
        };
        let sql = format!(
            "decop({code}, {}, {left_scale}, {}, {right_scale}, {})",
            side(left, left_scale),
            side(right, right_scale),
            types::code(sql_type)
        );
        return Ok(Bound::new(sql, sql_type, nullable));
    }
    let (left, right) = (coerce(left, sql_type), coerce(right, sql_type));
    let sql = match op {
        Arithmetic::Add if types::is_integer(sql_type) => {
            format!("intop(0, {left}, {right}, {})", types::code(sql_type))
        }
        Arithmetic::Subtract if types::is_integer(sql_type) => {
            format!("intop(1, {left}, {right}, {})", types::code(sql_type))
        }
        Arithmetic::Multiply if types::is_integer(sql_type) => {
            format!("intop(2, {left}, {right}, {})", types::code(sql_type))
        }
        Arithmetic::Add => format!("({left} + {right})"),
        Arithmetic::Subtract => format!("({left} - {right})"),
        Arithmetic::Multiply => format!("({left} * {right})"),
        Arithmetic::Divide => format!("divide({left}, {right})"),
        Arithmetic::Modulo => format!("modulo({left}, {right})"),
        Arithmetic::And => format!("({left} & {right})"),
        Arithmetic::Or => format!("({left} | {right})"),
        Arithmetic::Xor => format!("(({left} | {right}) - ({left} & {right}))"),
    };
    if matches!(sql_type, SqlType::DateTime | SqlType::SmallDateTime) {
        return Err(unsupported("arithmetic on datetime: use DATEADD and DATEDIFF"));
    }
    Ok(Bound::new(sql, sql_type, nullable))
}

/// A float's text with a point, so that SQLite reads no integer.
pub(super) fn float_literal(number: f64) -> String {
    let text = format!("{number:e}");
    if text.contains('.') { text } else { text.replace('e', ".0e") }
}
