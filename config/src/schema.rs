//! A tree of nodes against the JSON Schema of a config struct, giving the JSON value to deserialize.
//!
//! Covers what schemars 1 generates for serde types; keywords it never generates are ignored. Two rules go
//! beyond JSON Schema: a mapping with declared properties takes no others unless the schema says so, and a
//! property with `"x-secret": true` must come from the environment or a file.
//!
//! Schema says the type, so scalars are coerced to it: `channel: no` stays `"no"` where a string is wanted.

use std::collections::HashSet;

use schemars::Schema;
use serde_json::{Map, Number, Value};

use crate::diagnostics::{Diagnostics, Problem, advise, nearest};
use crate::node::{Mapping, Node, NodeValue, Origin, Scalar, Span, Style};
use crate::scalar;

mod branch;
mod shape;
mod words;

use branch::Choice;
use shape::{Additional, View};
pub(crate) use words::anything;
use words::{describe, is_private, join, plural, reread, retype, shorten};

/// The most values looked at, those tried against untagged alternatives counted each time: nested
/// alternatives would otherwise double the work at every level.
const STEPS_MAX: usize = 500_000;

/// Checks `node` against `schema` and gives the JSON value to deserialize. `path` is the node's config path.
///
/// The value is meaningful only if no problem was added.
pub fn check(node: &Node, path: &str, schema: &Schema, diagnostics: &mut Diagnostics) -> Value {
    check_at(node, path, None, schema, diagnostics)
}

pub(crate) fn check_at(
    node: &Node,
    path: &str,
    anchor: Option<&Span>,
    schema: &Schema,
    diagnostics: &mut Diagnostics,
) -> Value {
    let root = schema.as_value();
    let mut checker = Checker { root, whole: Whole::Yes, steps: 0, diagnostics };
    checker.value(Place { node, anchor: anchor.unwrap_or(&node.span), path }, root)
}

/// Checks one layer of settings: as [`check`], but what is missing may come from another layer.
pub(crate) fn check_part(node: &Node, schema: &Schema, diagnostics: &mut Diagnostics) {
    let root = schema.as_value();
    let mut checker = Checker { root, whole: Whole::No, steps: 0, diagnostics };
    checker.value(Place { node, anchor: &node.span, path: "" }, root);
}

/// Whether a mapping must be complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// A node on its way through the schema.
#[derive(Clone, Copy)]
struct Place<'n> {
    node: &'n Node,
    /// What to point at when a collection is wrong as a whole: its key.
    anchor: &'n Span,
    path: &'n str,
}

impl Place<'_> {
    fn problem(&self, message: impl Into<String>) -> Problem {
        let span = match self.node.value {
            NodeValue::Scalar(_) => &self.node.span,
            _ => self.anchor,
        };
        Problem::new(message).at(span).path(self.path)
    }
}

struct Checker<'s, 'd> {
    root: &'s Value,
    whole: Whole,
    steps: usize,
    diagnostics: &'d mut Diagnostics,
}

impl<'s> Checker<'s, '_> {
    fn value(&mut self, place: Place<'_>, schema: &'s Value) -> Value {
        match schema {
            Value::Bool(true) => return anything(place.node),
            Value::Bool(false) => {
                self.diagnostics.push(place.problem("nothing may be given here").help("remove it"));
                return Value::Null;
            }
            _ => {}
        }
        if place.node.as_scalar().is_some_and(|scalar| scalar.origin == Origin::Unresolved) {
            return Value::Null;
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            let problem = place.problem("there are too many ways to read this");
            self.diagnostics.push(problem.help("nest it less deeply"));
            return Value::Null;
        }
        let mut view = View::of(self.root, schema);
        while let Some(branches) = view.take_alternatives() {
            match self.choose(place, &view, branches) {
                Choice::Branch(branch) => view.extend(self.root, branch),
                Choice::Refused => return Value::Null,
                Choice::Undecided => return anything(place.node),
            }
        }
        if view.is_secret() {
            self.secret(place);
        }
        match &place.node.value {
            NodeValue::Mapping(mapping) => self.mapping(place, mapping, &view),
            NodeValue::Sequence(items) => self.sequence(place, items, &view),
            NodeValue::Scalar(scalar) => self.scalar(place, scalar, &view),
        }
    }

    fn mapping(&mut self, place: Place<'_>, mapping: &Mapping, view: &View<'s>) -> Value {
        if !view.accepts("object") {
            return self.wrong_type(place, view);
        }
        let mut object = Map::new();
        for entry in &mapping.entries {
            let name = &*entry.key.name;
            let path = join(place.path, name);
            let child = Place { node: &entry.value, anchor: &entry.key.span, path: &path };
            let schema = match (view.property(name), view.additional()) {
                (Some(schema), _) | (None, Additional::Like(schema)) => schema,
                (None, Additional::Refused) => {
                    self.unknown_key(place, &child, name, view);
                    continue;
                }
            };
            let value = self.value(child, schema);
            object.insert(name.to_owned(), value);
        }
        if self.whole == Whole::Yes {
            for name in view.required().filter(|name| mapping.get(name).is_none()) {
                let problem = place.problem(format!("missing key `{name}`"));
                let help = match view.property(name).and_then(|schema| View::of(self.root, schema).summary()) {
                    Some(summary) => format!("add `{name}:`, {summary}"),
                    None => format!("add `{name}:`"),
                };
                self.diagnostics.push(problem.help(help));
            }
        }
        Value::Object(object)
    }

    fn unknown_key(&mut self, place: Place<'_>, child: &Place<'_>, name: &str, view: &View<'s>) {
        let known: Vec<_> = view.property_names().collect();
        // What was meant may be a secret: the nearest key's value, or, with none near, any where there is one among them.
        let secret = |name: &str| view.property(name).is_some_and(|schema| View::of(self.root, schema).is_secret());
        let meant = nearest(name, known.iter().copied());
        if meant.map_or_else(|| known.iter().any(|name| secret(name)), secret) {
            self.diagnostics.redact(&child.node.span);
        }
        if self.diagnostics.is_full() {
            self.diagnostics.push(Problem::new("unknown key"));
            return;
        }
        let parent = if place.path.is_empty() { String::new() } else { format!(" in `{}`", place.path) };
        let problem = Problem::new(format!("unknown key `{name}`{parent}")).at(child.anchor).path(child.path);
        let given = |name: &str| place.node.as_mapping().is_some_and(|mapping| mapping.get(name).is_some());
        let help = match meant {
            Some(near) if given(near) => format!("`{near}` is given already: remove this one"),
            _ => advise(name, known, "keys"),
        };
        self.diagnostics.push(problem.help(help));
    }

    fn sequence(&mut self, place: Place<'_>, items: &[Node], view: &View<'s>) -> Value {
        if !view.accepts("array") {
            return self.wrong_type(place, view);
        }
        let count = items.len() as u64;
        for (keyword, wrong, word) in [
            ("minItems", (|count, limit| count < limit) as fn(u64, u64) -> bool, "at least"),
            ("maxItems", |count, limit| count > limit, "at most"),
        ] {
            if let Some(limit) = view.get(keyword).and_then(Value::as_u64).filter(|limit| wrong(count, *limit)) {
                let message = format!("expected {word} {}, found {count}", plural(limit, "item"));
                self.diagnostics.push(place.problem(message));
            }
        }
        let fixed = view.get("prefixItems").and_then(Value::as_array);
        let rest = view.get("items").unwrap_or(&Value::Bool(true));
        let values = items.iter().enumerate().map(|(at, node)| {
            let path = format!("{}[{at}]", place.path);
            let schema = fixed.and_then(|fixed| fixed.get(at)).unwrap_or(rest);
            self.value(Place { node, anchor: &node.span, path: &path }, schema)
        });
        let values: Vec<_> = values.collect();
        if view.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut seen = HashSet::new();
            for (at, value) in values.iter().enumerate() {
                if !value.is_null() && !seen.insert(value.to_string()) {
                    let problem = Problem::new("this item is listed twice").at(&items[at].span);
                    self.diagnostics.push(problem.path(format!("{}[{at}]", place.path)).help("remove one"));
                }
            }
        }
        Value::Array(values)
    }

    fn scalar(&mut self, place: Place<'_>, scalar: &Scalar, view: &View<'s>) -> Value {
        if self.whole == Whole::No && place.node.is_empty() && view.types().contains(&"object") {
            return Value::Null;
        }
        let text = &*scalar.text;
        let allowed = view.allowed();
        if !allowed.is_empty() {
            let found = anything(place.node);
            if let Some(value) = allowed.iter().find(|value| ***value == found || value.as_str() == Some(text)) {
                return (*value).clone();
            }
            if place.node.is_null() && view.accepts("null") {
                return Value::Null;
            }
            if !place.node.is_null() {
                let names = allowed.iter().filter_map(|value| value.as_str());
                self.unknown_value(place, text, names, view.is_secret());
                return Value::Null;
            }
        }
        if !view.is_typed() {
            return anything(place.node);
        }
        let coerced = if place.node.is_null() {
            view.accepts("null").then_some(Value::Null)
        } else {
            let convertible = scalar.style == Style::Plain || scalar.origin != Origin::Literal;
            self.convert(text, convertible, view)
        };
        match coerced {
            Some(Value::Number(number)) => self.number(place, number, view),
            Some(Value::String(text)) => self.string(place, text, view),
            Some(value) => value,
            None => self.wrong_type(place, view),
        }
    }

    /// The first type the schema accepts that the text can have; a string only when nothing else fits.
    fn convert(&self, text: &str, convertible: bool, view: &View<'s>) -> Option<Value> {
        if convertible {
            if view.accepts("boolean")
                && let Some(truth) = scalar::boolean(text)
            {
                return Some(Value::Bool(truth));
            }
            if (view.accepts("integer") || view.accepts("number"))
                && let Some(number) = scalar::integer(text)
            {
                return Some(Value::Number(number));
            }
            if view.accepts("number")
                && let Some(number) = scalar::float(text)
            {
                return Some(Value::Number(number));
            }
        }
        view.accepts("string").then(|| Value::String(text.to_owned()))
    }

    fn number(&mut self, place: Place<'_>, number: Number, view: &View<'s>) -> Value {
        let bounds = view.bounds();
        if let Err(range) = bounds.check(&number) {
            let found = if view.is_secret() { String::new() } else { format!(", found {number}") };
            self.diagnostics.push(place.problem(format!("expected a number {range}{found}")));
        }
        Value::Number(number)
    }

    fn string(&mut self, place: Place<'_>, text: String, view: &View<'s>) -> Value {
        let chars = text.chars().count() as u64;
        let limit = |keyword| view.get(keyword).and_then(Value::as_u64);
        if limit("minLength").is_some_and(|limit| chars < limit) {
            let message = match limit("minLength") {
                Some(1) => "expected a string that is not empty".to_owned(),
                least => format!("expected at least {}, found {chars}", plural(least.unwrap_or(0), "character")),
            };
            self.diagnostics.push(place.problem(message));
        }
        if let Some(most) = limit("maxLength").filter(|limit| chars > *limit) {
            let message = format!("expected at most {}, found {chars}", plural(most, "character"));
            self.diagnostics.push(place.problem(message));
        }
        let named = view.get("format").or_else(|| view.get("pattern")).and_then(Value::as_str);
        if let Some(expected) = named.and_then(|name| shape::mismatch(name, &text)) {
            let found = if view.is_secret() { String::new() } else { format!(", found `{}`", shorten(&text)) };
            self.diagnostics.push(place.problem(format!("expected {expected}{found}")));
        }
        Value::String(text)
    }

    fn secret(&mut self, place: Place<'_>) {
        let Some(scalar) = place.node.as_scalar().filter(|_| !place.node.is_null()) else {
            if place.node.as_scalar().is_none() {
                self.diagnostics.redact(&place.node.span);
            }
            return;
        };
        self.diagnostics.redact_text(&scalar.text);
        if scalar.origin == Origin::Outside {
            return;
        }
        self.diagnostics.redact(&place.node.span);
        let name = place.path.rsplit('.').next().unwrap_or(place.path);
        let problem = place.problem(format!("`{name}` is a secret and must not be written out"));
        let help = "take it from the environment or a file: `${env:NAME}` or `${file:path}`";
        self.diagnostics.push(problem.help(help));
    }

    fn unknown_value<'a>(
        &mut self,
        place: Place<'_>,
        text: &str,
        names: impl IntoIterator<Item = &'a str>,
        secret: bool,
    ) {
        let message = if secret { "unknown value".to_owned() } else { format!("unknown value `{}`", shorten(text)) };
        self.diagnostics.push(place.problem(message).help(advise(text, names, "values")));
    }

    fn wrong_type(&mut self, place: Place<'_>, view: &View<'s>) -> Value {
        let expected = view.expected();
        let structure = view.accepts("object") || view.accepts("array");
        self.mismatch(place, &expected, view.is_secret() || is_private(place.node, structure));
        Value::Null
    }

    fn mismatch(&mut self, place: Place<'_>, expected: &str, secret: bool) {
        let mut problem = place.problem(format!("expected {expected}, found {}", describe(place.node, secret)));
        if secret {
            self.diagnostics.redact(&place.node.span);
        }
        let help = if secret { reread(place.node) } else { retype(place.node, expected) };
        if let Some(help) = help {
            problem = problem.help(help);
        }
        self.diagnostics.push(problem);
    }
}
