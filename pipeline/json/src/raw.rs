//! One value inside a document, still as text.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use crate::escape::{has_escape, unescape};
use crate::members::{Side, for_each_change};
use crate::pointer::array_index;
use crate::scan::{elements, members};

/// What a value is, known from its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// The text of one value of a [`Document`](crate::Document), without white space around it. Copying it
/// copies a reference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawValue<'a> {
    text: &'a str,
}

impl<'a> RawValue<'a> {
    /// `text` is one validated value.
    pub(crate) fn new(text: &'a str) -> RawValue<'a> {
        RawValue { text }
    }

    /// The text as it stands in the document.
    pub fn as_raw(&self) -> &'a str {
        self.text
    }

    /// The bytes as they stand in the document.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// What the value is.
    pub fn kind(&self) -> Kind {
        match self.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// True for `null`.
    pub fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    /// The value of `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        self.text.parse().ok()
    }

    /// A number written without fraction and exponent that fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.text.parse().ok()
    }

    /// A number written without fraction and exponent that fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.text.parse().ok()
    }

    /// Any number, as the nearest float.
    pub fn as_f64(&self) -> Option<f64> {
        match self.kind() {
            Kind::Number => self.text.parse().ok(),
            _ => None,
        }
    }

    /// The text of a string; a copy is made only if it has escapes.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        self.string_content().map(unescape)
    }

    /// The value as a tree. Numbers beyond 64 bits become floats.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(self.text).expect("a document holds nothing that serde_json refuses")
    }

    /// The value of that pointer relative to this one.
    pub fn pointer(&self, pointer: &crate::Pointer) -> Option<RawValue<'a>> {
        self.descend(pointer.tokens())
    }

    /// True if both are the same value: white space, escapes, the order of members and how a number is
    /// written make no difference. Integers are compared exactly, other numbers as floats (RFC 6902
    /// section 4.6).
    pub fn same_value(&self, other: RawValue<'_>) -> bool {
        same(self.text, other.text, same_number)
    }

    /// Follows unescaped pointer tokens.
    pub(crate) fn descend(self, tokens: &[String]) -> Option<RawValue<'a>> {
        tokens.iter().try_fold(self, |value, token| match value.kind() {
            Kind::Object => {
                let found = members(value.text);
                let member = found.iter().find(|member| member.is_named(value.text, token))?;
                Some(RawValue::new(member.value(value.text)))
            }
            Kind::Array => elements(value.text).get(array_index(token)?).map(|&element| RawValue::new(element)),
            _ => None,
        })
    }

    /// What is between the quotes of a string.
    fn string_content(&self) -> Option<&'a str> {
        self.text.strip_prefix('"')?.strip_suffix('"')
    }
}

impl fmt::Debug for RawValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl fmt::Display for RawValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl serde::Serialize for RawValue<'_> {
    /// Writes the text as it is; works with `serde_json` only.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &serde_json::value::RawValue = serde_json::from_str(self.text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// True if two values differ in nothing but white space, escapes and the order of members. Numbers must be
/// written alike, because a copy must keep every digit.
pub(crate) fn same_text(a: &str, b: &str) -> bool {
    same(a, b, |_, _| false)
}

/// True if two values are the same, where `same_number` decides about numbers that are written differently.
fn same(a: &str, b: &str, same_number: fn(&str, &str) -> bool) -> bool {
    if a == b {
        return true;
    }
    let (a, b) = (RawValue::new(a), RawValue::new(b));
    if a.kind() != b.kind() {
        return false;
    }
    match a.kind() {
        Kind::Null | Kind::Bool => false,
        Kind::Number => same_number(a.text, b.text),
        Kind::String => (has_escape(a.text) || has_escape(b.text)) && a.as_str() == b.as_str(),
        Kind::Array => {
            let (a, b) = (elements(a.text), elements(b.text));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a, b, same_number))
        }
        Kind::Object => {
            let (a_members, b_members) = (members(a.text), members(b.text));
            let mut equal = a_members.len() == b_members.len();
            if equal {
                let a = Side { text: a.text, members: &a_members };
                let b = Side { text: b.text, members: &b_members };
                for_each_change(a, b, |_, old, new| {
                    let both = old.zip(new);
                    equal = equal && both.is_some_and(|(old, new)| same(old, new, same_number));
                });
            }
            equal
        }
    }
}

fn same_number(a: &str, b: &str) -> bool {
    let is_integer = |text: &str| !text.contains(['.', 'e', 'E']);
    if is_integer(a) && is_integer(b) {
        // Both are written in the shortest form, apart from the sign of zero.
        return matches!((a, b), ("-0", "0") | ("0", "-0"));
    }
    let (a, b) = (RawValue::new(a).as_f64(), RawValue::new(b).as_f64());
    a.is_some() && a == b
}
