//! Numbers and bits.

use super::super::errors::{Result, fault};
use super::super::repr::{self, TICKS_PER_DAY};
use super::super::types;
use super::clash;
use super::overflow;
use crate::value::{SqlType, Value};
use chrono::{NaiveDate, NaiveTime};

pub(super) fn to_bit(value: Value, from: SqlType) -> Result<Value> {
    Ok(Value::Bit(match value {
        Value::Bit(bit) => bit,
        Value::Int(number) => number != 0,
        Value::Float(number) => number != 0.0,
        Value::Decimal(unscaled, _) => unscaled != 0,
        Value::Text(text) => match text.trim() {
            word if word.eq_ignore_ascii_case("true") => true,
            word if word.eq_ignore_ascii_case("false") || word.is_empty() => false,
            number => match number.parse::<i64>() {
                Ok(number) => number != 0,
                Err(_) => return Err(not_converted(from, &text, SqlType::Bit)),
            },
        },
        Value::Bytes(bytes) => bytes.iter().any(|byte| *byte != 0),
        _ => return Err(clash(from, SqlType::Bit)),
    }))
}

pub(super) fn not_converted(from: SqlType, text: &str, to: SqlType) -> Box<super::super::errors::Fault> {
    match to {
        SqlType::Bit | SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => fault(
            245,
            16,
            format!(
                "Conversion failed when converting the {} value '{text}' to data type {}.",
                types::name(from),
                types::name(to)
            ),
        ),
        _ => {
            let to = if matches!(to, SqlType::Decimal(..)) { "numeric" } else { types::name(to) };
            fault(8114, 16, format!("Error converting data type {} to {to}.", types::name(from)))
                .reaching(super::super::errors::Reach::Transaction)
        }
    }
}

pub(super) fn in_range(number: i128, to: SqlType) -> Result<Value> {
    let (low, high) = match to {
        SqlType::TinyInt => (0, 255),
        SqlType::SmallInt => (i128::from(i16::MIN), i128::from(i16::MAX)),
        SqlType::Int => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    if !(low..=high).contains(&number) {
        return Err(match to {
            SqlType::TinyInt | SqlType::SmallInt => fault(
                220,
                16,
                format!("Arithmetic overflow error for data type {}, value = {number}.", types::name(to)),
            ),
            _ => overflow(to),
        });
    }
    Ok(Value::Int(i64::try_from(number).unwrap_or_default()))
}

pub(super) fn to_integer(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
    let number = match value {
        Value::Bit(bit) => i128::from(bit),
        Value::Int(number) => i128::from(number),
        Value::Float(number) if number.is_finite() && number.abs() < 1e37 => number.trunc() as i128,
        Value::Float(_) => return Err(overflow(to)),
        Value::Decimal(unscaled, scale) => unscaled / power(scale),
        Value::Text(text) => {
            let trimmed = text.trim();
            match trimmed.strip_prefix('+').unwrap_or(trimmed).parse::<i128>() {
                Ok(number) => {
                    return in_range(number, to).map_err(|error| match to {
                        SqlType::Int => fault(
                            248,
                            16,
                            format!(
                                "The conversion of the {} value '{text}' overflowed an int column.",
                                types::name(from)
                            ),
                        ),
                        _ => error,
                    });
                }
                Err(_) if trimmed.is_empty() => 0,
                Err(_) => return Err(not_converted(from, &text, to)),
            }
        }
        Value::Bytes(bytes) => {
            let width = match to {
                SqlType::TinyInt => 1,
                SqlType::SmallInt => 2,
                SqlType::Int => 4,
                _ => 8,
            };
            let tail = &bytes[bytes.len().saturating_sub(width)..];
            let number = tail.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
            match to {
                SqlType::TinyInt => i128::from(number),
                SqlType::SmallInt => i128::from(number as u16 as i16),
                SqlType::Int => i128::from(number as u32 as i32),
                _ => i128::from(number.cast_signed()),
            }
        }
        Value::DateTime(time) if matches!(from, SqlType::DateTime | SqlType::SmallDateTime) => {
            i128::from((repr::ticks(time) - base_1900()).div_euclid(TICKS_PER_DAY))
        }
        _ => return Err(clash(from, to)),
    };
    in_range(number, to)
}

pub(super) fn base_1900() -> i64 {
    NaiveDate::from_ymd_opt(1900, 1, 1).map_or(0, |date| repr::ticks(date.and_time(NaiveTime::MIN)))
}

pub(super) fn to_float(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
    let number = match value {
        Value::Bit(bit) => f64::from(u8::from(bit)),
        Value::Int(number) => number as f64,
        Value::Float(number) => number,
        Value::Decimal(unscaled, scale) => decimal_text(unscaled, scale).parse().unwrap_or(0.0),
        Value::Text(text) => match text.trim() {
            "" => 0.0,
            word => match word.parse::<f64>() {
                Ok(number) if number.is_finite() && !word.ends_with(['n', 'N', 'y', 'Y', 'f', 'F']) => number,
                _ => return Err(not_converted(from, &text, to)),
            },
        },
        _ => return Err(clash(from, to)),
    };
    if to == SqlType::Real {
        let single = number as f32;
        if single.is_infinite() && number.is_finite() {
            return Err(overflow(to));
        }
        return Ok(Value::Float(f64::from(single)));
    }
    Ok(Value::Float(number))
}

pub(crate) fn power(scale: u8) -> i128 {
    10_i128.pow(u32::from(scale.min(38)))
}

/// The number with another scale, rounded half away from zero.
pub(crate) fn rescale(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return unscaled.checked_mul(power(to - from));
    }
    let divisor = power(from - to);
    let (quotient, rest) = (unscaled / divisor, unscaled % divisor);
    Some(if rest.unsigned_abs() * 2 >= divisor.unsigned_abs() { quotient + unscaled.signum() } else { quotient })
}

pub(crate) fn decimal_text(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, rest) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

pub(crate) fn parse_decimal(text: &str) -> Option<(i128, u8)> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = rest.split_once('.').unwrap_or((rest, ""));
    if whole.is_empty() && part.is_empty() || !(whole.bytes().chain(part.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = u8::try_from(part.len()).ok()?;
    let digits = format!("{whole}{part}");
    let number: i128 = digits.parse().ok()?;
    Some((sign * number, scale))
}

pub(super) fn to_decimal(value: Value, from: SqlType, to: SqlType) -> Result<Value> {
    let (precision, scale) = types::decimal(to).unwrap_or((38, 0));
    let name = if matches!(to, SqlType::Money) { "money" } else { "numeric" };
    let too_big =
        || fault(8115, 16, format!("Arithmetic overflow error converting {} to data type {name}.", types::name(from)));
    let unscaled = match value {
        Value::Bit(bit) => rescale(i128::from(bit), 0, scale),
        Value::Int(number) => rescale(i128::from(number), 0, scale),
        Value::Decimal(unscaled, old) => rescale(unscaled, old, scale),
        Value::Float(number) => {
            // Seventeen digits are all that a float holds.
            let text = format!("{number:.*}", usize::from(scale) + 1);
            match parse_decimal(&text) {
                Some((unscaled, old)) => rescale(unscaled, old, scale),
                None => return Err(too_big()),
            }
        }
        Value::Text(text) => match parse_decimal(text.trim()) {
            Some((unscaled, old)) => rescale(unscaled, old, scale),
            None => return Err(not_converted(from, &text, to)),
        },
        _ => return Err(clash(from, to)),
    };
    match unscaled {
        Some(unscaled) if unscaled.unsigned_abs() < power(precision).unsigned_abs() => {
            Ok(Value::Decimal(unscaled, scale))
        }
        _ => Err(too_big()),
    }
}
