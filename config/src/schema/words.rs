//! Nodes in words, and as untyped values.

use serde_json::Value;

use crate::node::{Node, NodeValue, Origin, Style};
use crate::scalar;

/// The value of a node of which nothing is known: bare scalars follow the core schema of YAML 1.2.
pub(crate) fn anything(node: &Node) -> Value {
    match &node.value {
        NodeValue::Scalar(scalar) if scalar.style == Style::Plain => scalar::untyped(&scalar.text),
        NodeValue::Scalar(scalar) => Value::String(scalar.text.to_string()),
        NodeValue::Sequence(items) => items.iter().map(anything).collect(),
        NodeValue::Mapping(mapping) => {
            let entries = mapping.entries.iter();
            Value::Object(entries.map(|entry| (entry.key.name.to_string(), anything(&entry.value))).collect())
        }
    }
}

/// Whether a value may be shown. What stands outside of the files may well be a secret, if only by mistake: a whole list of
/// keys whose brackets do not match, say. Where one number, truth value or word is expected, nobody puts one.
pub(super) fn is_private(node: &Node, structure: bool) -> bool {
    node.as_scalar()
        .is_some_and(|scalar| scalar.origin == Origin::Outside && (structure || scalar.text.starts_with(['[', '{'])))
}

pub(super) fn describe(node: &Node, secret: bool) -> String {
    match &node.value {
        NodeValue::Mapping(_) => "a mapping".into(),
        NodeValue::Sequence(_) => "a list".into(),
        NodeValue::Scalar(_) if node.is_empty() => "nothing".into(),
        NodeValue::Scalar(_) if secret => "a scalar".into(),
        NodeValue::Scalar(scalar) => match anything(node) {
            Value::String(text) => format!("the string `{}`", shorten(&text)),
            Value::Number(_) => format!("the number {}", scalar.text),
            value => value.to_string(),
        },
    }
}

/// What to do about a value that is not shown.
pub(super) fn reread(node: &Node) -> Option<String> {
    let bracketed = node.as_scalar()?.text.starts_with(['[', '{']);
    bracketed.then(|| "it begins like a list or a mapping but is not one: check its brackets and quotes".into())
}

/// What to change when a value is nearly right.
pub(super) fn retype(node: &Node, expected: &str) -> Option<String> {
    let scalar = node.as_scalar()?;
    let numeric = expected.contains("integer") || expected.contains("number");
    let text = &*scalar.text;
    if node.is_null() {
        return if text.is_empty() {
            Some("give a value, or remove the key".into())
        } else if expected.contains("string") {
            Some(format!("write `\"{text}\"` if the text is meant"))
        } else {
            None
        };
    }
    let quoted = scalar.style == Style::Quoted;
    let bare: String = text.chars().filter(|c| *c != '_').collect();
    if numeric && scalar::float(&bare).is_some() && (quoted || bare != text) {
        return Some(format!("write `{bare}`, without {}", if quoted { "quotes" } else { "`_`" }));
    }
    if expected.contains("true or false") {
        return match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => Some("write `true`, without quotes".into()),
            "no" | "off" | "n" | "false" => Some("write `false`, without quotes".into()),
            _ => None,
        };
    }
    (expected.contains("a list") && text.len() <= 60).then(|| format!("write it as a list: `[{text}]`"))
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub(super) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("{count} {noun}") } else { format!("{count} {noun}s") }
}

/// A text short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(CHARS_MAX).collect();
    format!("{head}...")
}
