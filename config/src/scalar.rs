//! Types of bare scalars: the core schema of YAML 1.2 (section 10.3.2), and nothing looser. `no`, `on` and
//! `1_000` are strings.

use serde_json::{Number, Value};

/// The value a bare scalar has where no particular type is wanted. Numbers that JSON cannot hold stay text.
pub(crate) fn untyped(text: &str) -> Value {
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    if let Some(truth) = boolean(text) {
        return Value::Bool(truth);
    }
    match integer(text).or_else(|| float(text)) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

/// Whether a bare key is a string, rather than a number, boolean or null.
pub(crate) fn is_string_key(text: &str) -> bool {
    matches!(untyped(text), Value::String(_))
}

pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// `[-+]?[0-9]+`, `0o[0-7]+` or `0x[0-9a-fA-F]+`, if it fits 64 bits.
pub(crate) fn integer(text: &str) -> Option<Number> {
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c: char| c.is_digit(radix));
    if let Some(digits) = text.strip_prefix("0x").filter(|digits| all(digits, 16)) {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|digits| all(digits, 8)) {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !all(digits, 10) {
        return None;
    }
    match text.strip_prefix('+').unwrap_or(text) {
        text if text.starts_with('-') => text.parse::<i64>().ok().map(Number::from),
        text => text.parse::<u64>().ok().map(Number::from),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; infinities and NaN have no place in settings.
pub(crate) fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let valid = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    valid.then(|| text.parse::<f64>().ok()).flatten().and_then(Number::from_f64)
}
