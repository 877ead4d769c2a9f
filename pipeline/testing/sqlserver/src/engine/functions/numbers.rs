//! Arithmetic that SQLite lacks: decimals, overflow, division by zero.

use super::super::convert::{power, rescale};
use super::super::errors::{Result, fault};
use super::super::repr::{decimal_from_bytes, decimal_to_bytes};
use super::super::types;
use super::{SqlResult, add, blob, integer, real, strict};
use crate::value::SqlType;
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value as Cell, ValueRef};

fn overflow(name: &str) -> Box<super::super::errors::Fault> {
    fault(8115, 16, format!("Arithmetic overflow error converting expression to data type {name}."))
}

fn by_zero() -> Box<super::super::errors::Fault> {
    fault(8134, 16, "Divide by zero error encountered.")
}

fn decimal_cell(unscaled: Option<i128>, sql_type: SqlType) -> Result<Cell> {
    let precision = types::decimal(sql_type).map_or(38, |(precision, _)| precision);
    match unscaled {
        Some(unscaled) if unscaled.unsigned_abs() < power(precision).unsigned_abs() => {
            Ok(Cell::Blob(decimal_to_bytes(unscaled).to_vec()))
        }
        _ => Err(overflow("numeric")),
    }
}

fn decimal_operation(context: &Context<'_>) -> SqlResult {
    let (a, a_scale) = (decimal_from_bytes(blob(context, 1)), u8::try_from(integer(context, 2)).unwrap_or(0));
    let (b, b_scale) = (decimal_from_bytes(blob(context, 3)), u8::try_from(integer(context, 4)).unwrap_or(0));
    let sql_type = types::decode(integer(context, 5));
    let scale = types::decimal(sql_type).map_or(0, |(_, scale)| scale);
    let common = a_scale.max(b_scale);
    let both = || Some((rescale(a, a_scale, common)?, rescale(b, b_scale, common)?));
    let result = match integer(context, 0) {
        0 => both().and_then(|(a, b)| a.checked_add(b)).and_then(|sum| rescale(sum, common, scale)),
        1 => both().and_then(|(a, b)| a.checked_sub(b)).and_then(|sum| rescale(sum, common, scale)),
        2 => a.checked_mul(b).and_then(|product| rescale(product, a_scale + b_scale, scale)),
        _ if b == 0 => return Err(by_zero().into()),
        // a / 10^as / (b / 10^bs), to the scale of the result, cut.
        3 => {
            let shift = i32::from(scale) + i32::from(b_scale) - i32::from(a_scale);
            let shift = u8::try_from(shift.max(0)).unwrap_or(0);
            a.checked_mul(power(shift)).map(|a| a / b)
        }
        _ => both().map(|(a, b)| a % b).and_then(|rest| rescale(rest, common, scale)),
    };
    Ok(decimal_cell(result, sql_type)?)
}

/// `int` and `bigint`: the result stays in its type or is an error.
fn integer_operation(context: &Context<'_>) -> SqlResult {
    let (a, b) = (integer(context, 1), integer(context, 2));
    let sql_type = types::decode(integer(context, 3));
    let result = match integer(context, 0) {
        0 => a.checked_add(b),
        1 => a.checked_sub(b),
        _ => a.checked_mul(b),
    };
    let fits = |number: i64| match sql_type {
        SqlType::BigInt => true,
        SqlType::SmallInt => i16::try_from(number).is_ok(),
        SqlType::TinyInt => u8::try_from(number).is_ok(),
        _ => i32::try_from(number).is_ok(),
    };
    match result.filter(|number| fits(*number)) {
        Some(number) => Ok(Cell::Integer(number)),
        None => Err(overflow(types::name(sql_type)).into()),
    }
}

fn round(context: &Context<'_>) -> SqlResult {
    let (places, cut, sql_type) = (integer(context, 1), integer(context, 2) != 0, types::decode(integer(context, 3)));
    let places = i32::try_from(places).unwrap_or(0);
    if let Some((_, scale)) = types::decimal(sql_type) {
        let drop = i32::from(scale) - places;
        let unscaled = decimal_from_bytes(blob(context, 0));
        if drop <= 0 {
            return Ok(decimal_cell(Some(unscaled), sql_type)?);
        }
        let factor = power(u8::try_from(drop).unwrap_or(38));
        let half = if cut { 0 } else { factor / 2 * unscaled.signum() };
        return Ok(decimal_cell(Some((unscaled + half) / factor * factor), sql_type)?);
    }
    let number = real(context, 0);
    let factor = 10_f64.powi(places);
    let scaled = number * factor;
    let rounded = if cut { scaled.trunc() } else { scaled.round() } / factor;
    Ok(if types::is_integer(sql_type) { Cell::Integer(rounded as i64) } else { Cell::Real(rounded) })
}

/// ABS, SIGN, CEILING and FLOOR of any number.
fn of_number(
    context: &Context<'_>,
    whole: fn(i128, i128) -> i128,
    float: fn(f64) -> f64,
    keeps_scale: bool,
) -> SqlResult {
    match context.get_raw(0) {
        ValueRef::Integer(number) => {
            Ok(Cell::Integer(i64::try_from(whole(i128::from(number), 1)).map_err(|_| overflow("int"))?))
        }
        ValueRef::Real(number) => Ok(Cell::Real(float(number))),
        ValueRef::Blob(bytes) => {
            let scale = types::decimal(types::decode(integer(context, 1))).map_or(0, |(_, scale)| scale);
            let unscaled = whole(decimal_from_bytes(bytes), power(scale));
            let unscaled = if keeps_scale { unscaled } else { unscaled.div_euclid(power(scale)) };
            Ok(Cell::Blob(decimal_to_bytes(unscaled).to_vec()))
        }
        _ => Ok(Cell::Null),
    }
}

struct DecimalSum {
    average: bool,
}

impl Aggregate<(i128, i64, Option<(u8, i64)>), Option<Vec<u8>>> for DecimalSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<(i128, i64, Option<(u8, i64)>)> {
        Ok((0, 0, None))
    }

    fn step(&self, context: &mut Context<'_>, state: &mut (i128, i64, Option<(u8, i64)>)) -> rusqlite::Result<()> {
        if context.get_raw(0) != ValueRef::Null {
            let number = decimal_from_bytes(blob(context, 0));
            state.0 = state.0.checked_add(number).ok_or_else(|| overflow("numeric"))?;
            state.1 += 1;
            state.2 = Some((u8::try_from(integer(context, 1)).unwrap_or(0), integer(context, 2)));
        }
        Ok(())
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        state: Option<(i128, i64, Option<(u8, i64)>)>,
    ) -> rusqlite::Result<Option<Vec<u8>>> {
        let Some((sum, count, Some((scale, code)))) = state else { return Ok(None) };
        let out = types::decimal(types::decode(code)).map_or(scale, |(_, scale)| scale);
        let sum = rescale(sum, scale, out).ok_or_else(|| overflow("numeric"))?;
        let result = if self.average { sum / i128::from(count) } else { sum };
        Ok(Some(decimal_to_bytes(result).to_vec()))
    }
}

pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    strict(connection, "decop", decimal_operation)?;
    strict(connection, "decneg", |context| {
        Ok(Cell::Blob(decimal_to_bytes(-decimal_from_bytes(blob(context, 0))).to_vec()))
    })?;
    strict(connection, "intop", integer_operation)?;
    strict(connection, "divide", |context| match (context.get_raw(0), context.get_raw(1)) {
        (_, ValueRef::Integer(0)) => Err(by_zero().into()),
        (ValueRef::Integer(a), ValueRef::Integer(b)) => {
            Ok(Cell::Integer(a.checked_div(b).ok_or_else(|| overflow("bigint"))?))
        }
        _ if real(context, 1) == 0.0 => Err(by_zero().into()),
        _ => Ok(Cell::Real(real(context, 0) / real(context, 1))),
    })?;
    strict(connection, "modulo", |context| match (context.get_raw(0), context.get_raw(1)) {
        (_, ValueRef::Integer(0)) => Err(by_zero().into()),
        (ValueRef::Integer(a), ValueRef::Integer(b)) => Ok(Cell::Integer(a.wrapping_rem(b))),
        _ => Ok(Cell::Real(real(context, 0) % real(context, 1))),
    })?;
    strict(connection, "m_round", round)?;
    strict(connection, "m_abs", |context| of_number(context, |number, _| number.abs(), f64::abs, true))?;
    strict(connection, "m_sign", |context| {
        of_number(
            context,
            |number, one| number.signum() * one,
            |number| if number == 0.0 { 0.0 } else { number.signum() },
            true,
        )
    })?;
    strict(connection, "m_ceiling", |context| {
        of_number(context, |number, one| -((-number).div_euclid(one)) * one, f64::ceil, false)
    })?;
    strict(connection, "m_floor", |context| {
        of_number(context, |number, one| number.div_euclid(one) * one, f64::floor, false)
    })?;
    for (name, function) in [
        ("m_sqrt", f64::sqrt as fn(f64) -> f64),
        ("m_exp", f64::exp),
        ("m_log", f64::ln),
        ("m_log10", f64::log10),
        ("m_sin", f64::sin),
        ("m_cos", f64::cos),
    ] {
        strict(connection, name, move |context| {
            let number = function(real(context, 0));
            if number.is_finite() {
                Ok(Cell::Real(number))
            } else {
                Err(fault(3623, 16, "An invalid floating point operation occurred.").into())
            }
        })?;
    }
    add(connection, "m_pi", |_| Ok(Cell::Real(std::f64::consts::PI)))?;
    strict(connection, "m_power", |context| Ok(Cell::Real(real(context, 0).powf(real(context, 1)))))?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("decsum", 3, flags, DecimalSum { average: false })?;
    connection.create_aggregate_function("decavg", 3, flags, DecimalSum { average: true })
}
