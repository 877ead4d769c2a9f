//! Functions of dates and times.

use super::super::convert::{Excess, convert};
use super::super::errors::{Result, fault};
use super::super::repr::{self, TICKS_PER_DAY, TICKS_PER_SECOND};
use super::super::types;
use super::{SqlResult, integer, strict, string};
use crate::value::{SqlType, Value};
use chrono::{Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use rusqlite::Connection;
use rusqlite::functions::Context;
use rusqlite::types::Value as Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Year,
    Quarter,
    Month,
    DayOfYear,
    Day,
    Week,
    IsoWeek,
    Weekday,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

fn part(name: &str) -> Result<Part> {
    Ok(match name {
        "year" | "yy" | "yyyy" => Part::Year,
        "quarter" | "qq" | "q" => Part::Quarter,
        "month" | "mm" | "m" => Part::Month,
        "dayofyear" | "dy" | "y" => Part::DayOfYear,
        "day" | "dd" | "d" => Part::Day,
        "week" | "wk" | "ww" => Part::Week,
        "iso_week" | "isowk" | "isoww" => Part::IsoWeek,
        "weekday" | "dw" | "w" => Part::Weekday,
        "hour" | "hh" => Part::Hour,
        "minute" | "mi" | "n" => Part::Minute,
        "second" | "ss" | "s" => Part::Second,
        "millisecond" | "ms" => Part::Millisecond,
        "microsecond" | "mcs" => Part::Microsecond,
        "nanosecond" | "ns" => Part::Nanosecond,
        _ => return Err(fault(155, 15, format!("'{name}' is not a recognized datepart option."))),
    })
}

/// How long a part is, when it is always the same.
fn unit(part: Part) -> Option<i64> {
    Some(match part {
        Part::DayOfYear | Part::Day | Part::Weekday => TICKS_PER_DAY,
        Part::Week | Part::IsoWeek => 7 * TICKS_PER_DAY,
        Part::Hour => 3600 * TICKS_PER_SECOND,
        Part::Minute => 60 * TICKS_PER_SECOND,
        Part::Second => TICKS_PER_SECOND,
        Part::Millisecond => 10_000,
        Part::Microsecond => 10,
        _ => return None,
    })
}

fn out_of_range() -> Box<super::super::errors::Fault> {
    fault(517, 16, "Adding a value to a 'datetime2' column caused an overflow.")
}

fn add_part(part: Part, count: i64, time: NaiveDateTime) -> Result<NaiveDateTime> {
    let months = match part {
        Part::Year => Some(count.checked_mul(12)),
        Part::Quarter => Some(count.checked_mul(3)),
        Part::Month => Some(Some(count)),
        _ => None,
    };
    if let Some(months) = months {
        let months = months.ok_or_else(out_of_range)?;
        let step = Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| out_of_range())?);
        let moved = if months < 0 { time.checked_sub_months(step) } else { time.checked_add_months(step) };
        return moved.filter(|time| (1..=9999).contains(&time.year())).ok_or_else(out_of_range);
    }
    let ticks = match unit(part) {
        Some(unit) => count.checked_mul(unit).ok_or_else(out_of_range)?,
        // Nanoseconds, rounded to what is kept.
        None => (count + 50).div_euclid(100),
    };
    let moved = repr::ticks(time).checked_add(ticks).ok_or_else(out_of_range)?;
    let limit =
        repr::ticks(NaiveDate::from_ymd_opt(9999, 12, 31).unwrap_or_default().and_time(NaiveTime::MIN)) + TICKS_PER_DAY;
    if !(0..limit).contains(&moved) {
        return Err(out_of_range());
    }
    Ok(repr::from_ticks(moved))
}

fn add(context: &Context<'_>) -> SqlResult {
    let part = part(string(context, 0))?;
    let sql_type = types::decode(integer(context, 3));
    let value = repr::decode(context.get_raw(2), sql_type);
    let count = integer(context, 1);
    let moved = match value {
        Value::DateTime(time) => Value::DateTime(add_part(part, count, time)?),
        Value::Date(date) => Value::Date(add_part(part, count, date.and_time(NaiveTime::MIN))?.date()),
        Value::Time(time) => {
            let day = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default();
            Value::Time(add_part(part, count, day.and_time(time))?.time())
        }
        Value::DateTimeOffset(utc, offset) => Value::DateTimeOffset(add_part(part, count, utc)?, offset),
        _ => return Ok(Cell::Null),
    };
    // A `datetime` counts in 1/300 s also after an addition.
    let moved = match sql_type {
        SqlType::DateTime => convert(moved, SqlType::DateTime2(7), SqlType::DateTime, 0, Excess::Cut)?,
        _ => moved,
    };
    Ok(repr::encode(moved))
}

/// How many borders of a part lie between two moments.
fn diff(context: &Context<'_>) -> SqlResult {
    let part = part(string(context, 0))?;
    let (from, to) = (integer(context, 1), integer(context, 2));
    let (a, b) = (repr::from_ticks(from), repr::from_ticks(to));
    let months = |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
    let count = match part {
        Part::Year => i64::from(b.year() - a.year()),
        Part::Quarter => months(b).div_euclid(3) - months(a).div_euclid(3),
        Part::Month => months(b) - months(a),
        Part::Nanosecond => (to - from) * 100,
        // Weeks begin on Sunday; the first day of the year 1 was a Monday.
        Part::Week | Part::IsoWeek => {
            let week = |ticks: i64| (ticks.div_euclid(TICKS_PER_DAY) + 1).div_euclid(7);
            week(to) - week(from)
        }
        _ => {
            let unit = unit(part).unwrap_or(TICKS_PER_DAY);
            to.div_euclid(unit) - from.div_euclid(unit)
        }
    };
    if types::decode(integer(context, 3)) == SqlType::Int && i32::try_from(count).is_err() {
        return Err(fault(
            535,
            16,
            "The datediff function resulted in an overflow. The number of dateparts separating two date/time instances is too large. \
             Try to use datediff with a less precise datepart.",
        )
        .into());
    }
    Ok(Cell::Integer(count))
}

fn of(part: Part, time: NaiveDateTime) -> i64 {
    let ticks = repr::ticks(time).rem_euclid(TICKS_PER_SECOND);
    match part {
        Part::Year => i64::from(time.year()),
        Part::Quarter => i64::from(time.month0() / 3 + 1),
        Part::Month => i64::from(time.month()),
        Part::DayOfYear => i64::from(time.ordinal()),
        Part::Day => i64::from(time.day()),
        Part::Week => {
            let first = NaiveDate::from_ymd_opt(time.year(), 1, 1).unwrap_or_default().weekday().num_days_from_sunday();
            i64::from((time.ordinal0() + first) / 7 + 1)
        }
        Part::IsoWeek => i64::from(time.iso_week().week()),
        Part::Weekday => i64::from(time.weekday().number_from_sunday()),
        Part::Hour => i64::from(time.hour()),
        Part::Minute => i64::from(time.minute()),
        Part::Second => i64::from(time.second()),
        Part::Millisecond => ticks / 10_000,
        Part::Microsecond => ticks / 10,
        Part::Nanosecond => ticks * 100,
    }
}

pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    strict(connection, "d_add", add)?;
    strict(connection, "d_diff", diff)?;
    strict(connection, "d_part", |context| {
        Ok(Cell::Integer(of(part(string(context, 0))?, repr::from_ticks(integer(context, 1)))))
    })?;
    strict(connection, "d_name", |context| {
        let (part, time) = (part(string(context, 0))?, repr::from_ticks(integer(context, 1)));
        Ok(Cell::Text(match part {
            Part::Month => time.format("%B").to_string(),
            Part::Weekday => time.format("%A").to_string(),
            part => of(part, time).to_string(),
        }))
    })?;
    strict(connection, "d_eomonth", |context| {
        let time = repr::from_ticks(integer(context, 0));
        let first = NaiveDate::from_ymd_opt(time.year(), time.month(), 1).unwrap_or_default();
        let last = first + Months::new(1) - chrono::Days::new(1);
        Ok(repr::encode(Value::Date(last)))
    })?;
    strict(connection, "d_fromparts", |context| {
        let number = |at| u32::try_from(integer(context, at)).unwrap_or(0);
        let year = i32::try_from(integer(context, 0)).unwrap_or(0);
        match NaiveDate::from_ymd_opt(year, number(1), number(2)) {
            Some(date) => Ok(repr::encode(Value::Date(date))),
            None => Err(fault(
                289,
                16,
                "Cannot construct data type date, some of the arguments have values which are not valid.",
            )
            .into()),
        }
    })?;
    strict(connection, "d_switchoffset", |context| {
        let Value::DateTimeOffset(utc, _) = repr::decode(context.get_raw(0), SqlType::DateTimeOffset(7)) else {
            return Ok(Cell::Null);
        };
        Ok(repr::encode(Value::DateTimeOffset(utc, offset(string(context, 1))?)))
    })?;
    strict(connection, "d_tooffset", |context| {
        let offset = offset(string(context, 1))?;
        let utc = repr::from_ticks(integer(context, 0) - i64::from(offset) * 60 * TICKS_PER_SECOND);
        Ok(repr::encode(Value::DateTimeOffset(utc, offset)))
    })?;
    strict(connection, "t_isdate", |context| {
        let value = Value::Text(string(context, 0).to_owned());
        let date = convert(value, SqlType::NVarChar(None), SqlType::DateTime, 0, Excess::Cut);
        Ok(Cell::Integer(i64::from(date.is_ok())))
    })
}

fn offset(text: &str) -> Result<i16> {
    let wrong = || fault(9812, 16, "The timezone provided to builtin function todatetimeoffset is invalid.");
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim_start_matches('+')),
    };
    let minutes = match rest.split_once(':') {
        Some((hours, minutes)) => {
            hours.parse::<i16>().map_err(|_| wrong())? * 60 + minutes.parse::<i16>().map_err(|_| wrong())?
        }
        None => rest.parse().map_err(|_| wrong())?,
    };
    Ok(sign * minutes)
}
