//! Functions of text.

use super::super::errors::fault;
use super::super::repr::{compare_text, decode};
use super::super::types;
use super::{add, integer, real, strict, string};
use crate::value::Value;
use rusqlite::Connection;
use rusqlite::types::{Value as Cell, ValueRef};
use std::cmp::Ordering;

/// Whether one character equals another, without case.
fn alike(a: char, b: char) -> bool {
    a == b || a.to_lowercase().eq(b.to_lowercase())
}

/// `LIKE`: `%`, `_`, `[a-z]`, `[^a-z]`.
fn like(value: &[char], pattern: &[char], escape: Option<char>) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return value.iter().all(|c| *c == ' ');
    };
    if Some(*first) == escape {
        let Some((literal, rest)) = rest.split_first() else { return false };
        return value.split_first().is_some_and(|(c, value)| alike(*c, *literal) && like(value, rest, escape));
    }
    match first {
        '%' => (0..=value.len()).any(|at| like(&value[at..], rest, escape)),
        '_' => value.split_first().is_some_and(|(_, value)| like(value, rest, escape)),
        '[' => {
            let Some(end) = rest.iter().position(|c| *c == ']') else { return false };
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            let Some((c, value)) = value.split_first() else { return false };
            let (not, set) = match set.split_first() {
                Some(('^', set)) => (true, set),
                _ => (false, set),
            };
            in_set(*c, set) != not && like(value, rest, escape)
        }
        literal => value.split_first().is_some_and(|(c, value)| alike(*c, *literal) && like(value, rest, escape)),
    }
}

fn in_set(c: char, set: &[char]) -> bool {
    let low = |c: char| c.to_lowercase().next().unwrap_or(c);
    let mut at = 0;
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' {
            if (low(set[at])..=low(set[at + 2])).contains(&low(c)) {
                return true;
            }
            at += 3;
        } else {
            if alike(set[at], c) {
                return true;
            }
            at += 1;
        }
    }
    false
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// Where `needle` first stands in `text` from a place (1-based), without case; 0 for nowhere.
fn find(needle: &str, text: &str, from: i64) -> i64 {
    let (needle, text) = (chars(needle), chars(text));
    let from = usize::try_from(from.max(1) - 1).unwrap_or(0);
    if needle.is_empty() || from >= text.len() {
        return 0;
    }
    let found = (from..=text.len().saturating_sub(needle.len()))
        .find(|at| text[*at..].len() >= needle.len() && needle.iter().zip(&text[*at..]).all(|(a, b)| alike(*a, *b)));
    found.map_or(0, |at| i64::try_from(at + 1).unwrap_or(0))
}

/// `SUBSTRING`: a start before the text takes from the length.
fn slice(length: usize, start: i64, count: i64) -> std::ops::Range<usize> {
    let end = start.saturating_add(count).clamp(1, i64::try_from(length).unwrap_or(i64::MAX) + 1);
    let start = start.clamp(1, end);
    usize::try_from(start - 1).unwrap_or(0)..usize::try_from(end - 1).unwrap_or(0)
}

fn text_of(chars: &[char]) -> Cell {
    Cell::Text(chars.iter().collect())
}

// One registration for each function.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    add(connection, "tlike", |context| {
        let (ValueRef::Text(_), ValueRef::Text(_)) = (context.get_raw(0), context.get_raw(1)) else {
            return Ok(Cell::Null);
        };
        let escape = string(context, 2).chars().next();
        let found = like(&chars(string(context, 0)), &chars(string(context, 1)), escape);
        Ok(Cell::Integer(i64::from(found)))
    })?;
    strict(connection, "t_len", |context| {
        let length = string(context, 0).trim_end_matches(' ').encode_utf16().count();
        Ok(Cell::Integer(i64::try_from(length).unwrap_or(0)))
    })?;
    strict(connection, "t_datalength", |context| {
        let sql_type = types::decode(integer(context, 1));
        let length = match context.get_raw(0) {
            ValueRef::Text(_) if types::is_national(sql_type) => string(context, 0).encode_utf16().count() * 2,
            ValueRef::Text(_) => string(context, 0).chars().count(),
            ValueRef::Blob(bytes) if types::is_binary(sql_type) => bytes.len(),
            _ => match sql_type {
                crate::value::SqlType::Bit | crate::value::SqlType::TinyInt => 1,
                crate::value::SqlType::SmallInt => 2,
                crate::value::SqlType::Int | crate::value::SqlType::Real => 4,
                crate::value::SqlType::UniqueIdentifier => 16,
                crate::value::SqlType::Date => 3,
                _ => 8,
            },
        };
        Ok(Cell::Integer(i64::try_from(length).unwrap_or(0)))
    })?;
    strict(connection, "t_substring", |context| {
        if integer(context, 2) < 0 {
            return Err(fault(537, 16, "Invalid length parameter passed to the LEFT or SUBSTRING function.").into());
        }
        if let ValueRef::Blob(bytes) = context.get_raw(0) {
            return Ok(Cell::Blob(bytes[slice(bytes.len(), integer(context, 1), integer(context, 2))].to_vec()));
        }
        let text = chars(string(context, 0));
        Ok(text_of(&text[slice(text.len(), integer(context, 1), integer(context, 2))]))
    })?;
    strict(connection, "t_left", |context| {
        let text = chars(string(context, 0));
        Ok(text_of(&text[slice(text.len(), 1, integer(context, 1).max(0))]))
    })?;
    strict(connection, "t_right", |context| {
        let text = chars(string(context, 0));
        let count = usize::try_from(integer(context, 1)).unwrap_or(0).min(text.len());
        Ok(text_of(&text[text.len() - count..]))
    })?;
    for (name, function) in [
        ("t_upper", (|text| text.to_uppercase()) as fn(&str) -> String),
        ("t_lower", |text| text.to_lowercase()),
        ("t_ltrim", |text| text.trim_start_matches(' ').to_owned()),
        ("t_rtrim", |text| text.trim_end_matches(' ').to_owned()),
        ("t_trim", |text| text.trim_matches(' ').to_owned()),
        ("t_reverse", |text| text.chars().rev().collect()),
    ] {
        strict(connection, name, move |context| Ok(Cell::Text(function(string(context, 0)))))?;
    }
    strict(connection, "t_replace", |context| {
        let (text, from, to) = (chars(string(context, 0)), chars(string(context, 1)), string(context, 2));
        if from.is_empty() {
            return Ok(text_of(&text));
        }
        let (mut out, mut at) = (String::new(), 0);
        while at < text.len() {
            if text.len() - at >= from.len() && from.iter().zip(&text[at..]).all(|(a, b)| alike(*a, *b)) {
                out.push_str(to);
                at += from.len();
            } else {
                out.push(text[at]);
                at += 1;
            }
        }
        Ok(Cell::Text(out))
    })?;
    strict(connection, "t_replicate", |context| {
        let Ok(count) = usize::try_from(integer(context, 1)) else { return Ok(Cell::Null) };
        // Bounded, so that a slip cannot take all memory.
        let most = 64_000_000 / string(context, 0).len().max(1);
        Ok(Cell::Text(string(context, 0).repeat(count.min(most))))
    })?;
    strict(connection, "t_space", |context| {
        let count = usize::try_from(integer(context, 0)).unwrap_or(0).min(8000);
        Ok(Cell::Text(" ".repeat(count)))
    })?;
    add(connection, "t_stuff", |context| {
        if (0..3).any(|at| context.get_raw(at) == ValueRef::Null) {
            return Ok(Cell::Null);
        }
        let text = chars(string(context, 0));
        let (start, count) = (integer(context, 1), integer(context, 2));
        let Some(from) = usize::try_from(start - 1).ok().filter(|from| *from < text.len()) else {
            return Ok(Cell::Null);
        };
        let to = (from + usize::try_from(count).unwrap_or(0)).min(text.len());
        let mut out: String = text[..from].iter().collect();
        out.push_str(string(context, 3));
        out.extend(&text[to..]);
        Ok(Cell::Text(out))
    })?;
    strict(connection, "t_charindex", |context| {
        let from = if context.len() > 2 { integer(context, 2) } else { 1 };
        Ok(Cell::Integer(find(string(context, 0), string(context, 1), from)))
    })?;
    strict(connection, "t_patindex", |context| {
        let (pattern, text) = (string(context, 0), chars(string(context, 1)));
        let anchored = !pattern.starts_with('%');
        let body = chars(pattern.strip_prefix('%').unwrap_or(pattern));
        let last = if anchored { 0 } else { text.len() };
        let found = (0..=last).find(|at| like(&text[*at..], &body, None));
        Ok(Cell::Integer(found.map_or(0, |at| i64::try_from(at + 1).unwrap_or(0))))
    })?;
    strict(connection, "t_quotename", |context| {
        let text = string(context, 0);
        Ok(Cell::Text(match string(context, 1) {
            "'" => format!("'{}'", text.replace('\'', "''")),
            "\"" => format!("\"{}\"", text.replace('"', "\"\"")),
            _ => format!("[{}]", text.replace(']', "]]")),
        }))
    })?;
    strict(connection, "t_unicode", |context| {
        Ok(string(context, 0).chars().next().map_or(Cell::Null, |c| Cell::Integer(i64::from(u32::from(c)))))
    })?;
    strict(connection, "t_char", |context| {
        let c = u32::try_from(integer(context, 0)).ok().and_then(char::from_u32);
        Ok(c.map_or(Cell::Null, |c| Cell::Text(c.to_string())))
    })?;
    strict(connection, "t_str", |context| {
        let width = if context.len() > 1 { usize::try_from(integer(context, 1)).unwrap_or(10) } else { 10 };
        let places = if context.len() > 2 { usize::try_from(integer(context, 2)).unwrap_or(0) } else { 0 };
        let text = format!("{:.places$}", real(context, 0));
        Ok(Cell::Text(if text.len() > width { "*".repeat(width) } else { format!("{text:>width$}") }))
    })?;
    strict(connection, "t_isnumeric", |context| {
        Ok(Cell::Integer(i64::from(string(context, 0).trim().parse::<f64>().is_ok())))
    })?;
    strict(connection, "t_checksum", |context| {
        let hash =
            string(context, 0).to_lowercase().bytes().fold(0_i32, |hash, byte| hash.rotate_left(4) ^ i32::from(byte));
        Ok(Cell::Integer(i64::from(hash)))
    })?;
    add(connection, "t_concat", |context| Ok(Cell::Text((0..context.len()).map(|at| string(context, at)).collect())))?;
    add(connection, "t_concat_ws", |context| {
        let parts: Vec<_> = (1..context.len())
            .filter(|at| context.get_raw(*at) != ValueRef::Null)
            .map(|at| string(context, at))
            .collect();
        Ok(Cell::Text(parts.join(string(context, 0))))
    })?;
    strict(connection, "t_format", |context| {
        let sql_type = types::decode(integer(context, 1));
        let format = string(context, 2);
        Ok(Cell::Text(match decode(context.get_raw(0), sql_type) {
            Value::DateTime(time) => format_time(time, format),
            Value::Date(date) => format_time(date.and_time(chrono::NaiveTime::MIN), format),
            Value::Int(number) => {
                let width = format
                    .strip_prefix(['D', 'd'])
                    .and_then(|width| width.parse().ok())
                    .unwrap_or_else(|| if format.bytes().all(|byte| byte == b'0') { format.len() } else { 0 });
                format!("{number:0>width$}")
            }
            _ => return Err(super::super::errors::unsupported("FORMAT of this type").into()),
        }))
    })?;
    add(connection, "text_equal", |context| {
        Ok(Cell::Integer(i64::from(compare_text(string(context, 0), string(context, 1)) == Ordering::Equal)))
    })
}

/// The numeric parts of .NET's formats.
fn format_time(time: chrono::NaiveDateTime, format: &str) -> String {
    let mut text = format.to_owned();
    for (from, to) in [
        ("yyyy", "%Y"),
        ("MM", "%m"),
        ("dd", "%d"),
        ("HH", "%H"),
        ("mm", "%M"),
        ("ss", "%S"),
        ("fffffff", "%7f"),
        ("ffffff", "%6f"),
        ("fff", "%3f"),
    ] {
        text = text.replace(from, to);
    }
    time.format(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::{chars, find, like, slice};

    #[test]
    fn like_knows_sets_and_escapes() {
        for (value, pattern, escape, expected) in [
            ("Forecast", "fore%", None, true),
            ("abc", "a_c", None, true),
            ("abc", "a[a-c]c", None, true),
            ("abc", "a[^b]c", None, false),
            ("50%", "50!%", Some('!'), true),
            ("50x", "50!%", Some('!'), false),
        ] {
            assert_eq!(like(&chars(value), &chars(pattern), escape), expected, "{value} LIKE {pattern}");
        }
    }

    #[test]
    fn substring_counts_from_before_the_text() {
        assert_eq!(slice(5, 0, 3), 0..2);
        assert_eq!(slice(5, 4, 10), 3..5);
        assert_eq!(slice(5, 9, 2), 5..5);
        assert_eq!(find("B", "abc", 1), 2);
    }
}
