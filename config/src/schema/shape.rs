//! What a schema says of one value, with references followed and conjunctions joined.

use serde_json::{Number, Value};

/// Schema after schema through `$ref` and `allOf`; a longer chain is a loop that says nothing.
const HOPS_MAX: usize = 16;

/// The schemas that hold for a value at the same time.
pub(super) struct View<'s> {
    parts: Vec<&'s Value>,
    alternatives: Vec<&'s [Value]>,
}

/// What a mapping may hold beside its declared properties.
pub(super) enum Additional<'s> {
    /// Nothing.
    Refused,
    /// Anything that fits this schema.
    Like(&'s Value),
}

const ANYTHING: &Value = &Value::Bool(true);

impl<'s> View<'s> {
    pub(super) fn of(root: &'s Value, schema: &'s Value) -> Self {
        let mut view = Self { parts: Vec::new(), alternatives: Vec::new() };
        view.extend(root, schema);
        view
    }

    /// Joins the schema to those that hold.
    pub(super) fn extend(&mut self, root: &'s Value, schema: &'s Value) {
        self.extend_hop(root, schema, 0);
    }

    fn extend_hop(&mut self, root: &'s Value, schema: &'s Value, hop: usize) {
        if hop > HOPS_MAX || self.parts.iter().any(|part| std::ptr::eq(*part, schema)) {
            return;
        }
        self.parts.push(schema);
        if let Some(pointer) = schema.get("$ref").and_then(Value::as_str) {
            let target = pointer.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            if let Some(target) = target {
                self.extend_hop(root, target, hop + 1);
            }
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.extend_hop(root, part, hop + 1);
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(keyword).and_then(Value::as_array) {
                self.alternatives.push(branches);
            }
        }
    }

    /// A `oneOf` or `anyOf` that no branch has been chosen of yet.
    pub(super) fn take_alternatives(&mut self) -> Option<&'s [Value]> {
        self.alternatives.pop()
    }

    pub(super) fn alternatives(&self) -> &[&'s [Value]] {
        &self.alternatives
    }

    pub(super) fn get(&self, keyword: &str) -> Option<&'s Value> {
        self.parts.iter().find_map(|part| part.get(keyword))
    }

    pub(super) fn is_secret(&self) -> bool {
        self.get("x-secret") == Some(&Value::Bool(true))
    }

    pub(super) fn summary(&self) -> Option<String> {
        self.is_typed().then(|| self.expected())
    }

    /// The types of the value; empty when any will do.
    pub(super) fn types(&self) -> Vec<&'s str> {
        match self.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ if self.get("properties").is_some() => vec!["object"],
            _ => Vec::new(),
        }
    }

    pub(super) fn is_typed(&self) -> bool {
        !self.types().is_empty()
    }

    pub(super) fn accepts(&self, name: &str) -> bool {
        let types = self.types();
        if types.is_empty() {
            // `const` and `enum` imply the types of their values.
            let allowed = self.allowed();
            return allowed.is_empty() || allowed.iter().any(|value| type_of(value) == name);
        }
        types.contains(&name)
    }

    /// The values of `const` and `enum`; empty when there is no such limit.
    pub(super) fn allowed(&self) -> Vec<&'s Value> {
        if let Some(value) = self.get("const") {
            return vec![value];
        }
        self.get("enum").and_then(Value::as_array).map(|values| values.iter().collect()).unwrap_or_default()
    }

    pub(super) fn property(&self, name: &str) -> Option<&'s Value> {
        self.parts.iter().find_map(|part| part.get("properties")?.get(name))
    }

    pub(super) fn property_names(&self) -> impl Iterator<Item = &'s str> {
        let maps = self.parts.iter().filter_map(|part| part.get("properties")?.as_object());
        maps.flat_map(|properties| properties.keys().map(String::as_str))
    }

    pub(super) fn required(&self) -> impl Iterator<Item = &'s str> {
        let lists = self.parts.iter().filter_map(|part| part.get("required")?.as_array());
        lists.flatten().filter_map(Value::as_str)
    }

    /// Unlike in JSON Schema, declared properties are all there are unless the schema says otherwise: a key
    /// that serde would ignore is a typing mistake.
    pub(super) fn additional(&self) -> Additional<'s> {
        match self.get("additionalProperties").or_else(|| self.get("unevaluatedProperties")) {
            Some(Value::Bool(false)) => Additional::Refused,
            Some(schema) => Additional::Like(schema),
            None if self.is_typed() => Additional::Refused,
            None => Additional::Like(ANYTHING),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        let number = |keyword| self.get(keyword).and_then(Value::as_f64);
        let mut bounds = match self.get("format").and_then(Value::as_str) {
            Some("uint8") => Bounds::between(0.0, f64::from(u8::MAX)),
            Some("uint16") => Bounds::between(0.0, f64::from(u16::MAX)),
            Some("uint32") => Bounds::between(0.0, f64::from(u32::MAX)),
            Some("uint64" | "uint") => Bounds { least: Some(0.0), ..Bounds::default() },
            Some("int8") => Bounds::between(f64::from(i8::MIN), f64::from(i8::MAX)),
            Some("int16") => Bounds::between(f64::from(i16::MIN), f64::from(i16::MAX)),
            Some("int32") => Bounds::between(f64::from(i32::MIN), f64::from(i32::MAX)),
            _ => Bounds::default(),
        };
        bounds.least = number("minimum").or(bounds.least);
        bounds.most = number("maximum").or(bounds.most);
        bounds.above = number("exclusiveMinimum");
        bounds.below = number("exclusiveMaximum");
        bounds
    }

    /// The types in words.
    pub(super) fn expected(&self) -> String {
        let words: Vec<_> = self.types().into_iter().filter(|name| *name != "null").map(word).collect();
        if words.is_empty() { "something else".into() } else { words.join(" or ") }
    }
}

pub(super) fn word(type_name: &str) -> &str {
    match type_name {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        other => other,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The range of a number.
#[derive(Default)]
pub(super) struct Bounds {
    least: Option<f64>,
    most: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
}

impl Bounds {
    fn between(least: f64, most: f64) -> Self {
        Self { least: Some(least), most: Some(most), ..Self::default() }
    }

    /// The range in words when the number is outside.
    pub(super) fn check(&self, number: &Number) -> Result<(), String> {
        let Some(number) = number.as_f64() else {
            return Ok(());
        };
        let inside = self.least.is_none_or(|least| number >= least)
            && self.most.is_none_or(|most| number <= most)
            && self.above.is_none_or(|above| number > above)
            && self.below.is_none_or(|below| number < below);
        if inside {
            return Ok(());
        }
        if let (Some(least), Some(most)) = (self.least, self.most) {
            return Err(format!("from {least} to {most}"));
        }
        let limits = [
            (self.least, "of at least"),
            (self.above, "greater than"),
            (self.most, "of at most"),
            (self.below, "less than"),
        ];
        let words: Vec<_> =
            limits.iter().filter_map(|(limit, words)| limit.map(|limit| format!("{words} {limit}"))).collect();
        Err(words.join(" and "))
    }
}

/// What was expected, if `text` is not of the named format or pattern. A fixed set, so that no regular
/// expression engine is needed; unknown names are left to the type's own `validate`.
pub(super) fn mismatch(name: &str, text: &str) -> Option<&'static str> {
    let (matches, expected) = match name {
        "socket-address" => {
            (text.parse::<std::net::SocketAddr>().is_ok(), "an address and port such as `127.0.0.1:8080`")
        }
        "ip" => (text.parse::<std::net::IpAddr>().is_ok(), "an IP address"),
        "ipv4" => (text.parse::<std::net::Ipv4Addr>().is_ok(), "an IPv4 address"),
        "ipv6" => (text.parse::<std::net::Ipv6Addr>().is_ok(), "an IPv6 address"),
        "id" | "^[a-z][a-z0-9_]{0,63}$" => {
            (crate::spec::is_id(text), "1 to 64 lower-case letters, digits and `_`, starting with a letter")
        }
        "sql-identifier" | "^[A-Za-z_][A-Za-z0-9_]{0,127}$" => {
            (is_sql_identifier(text), "1 to 128 letters, digits and `_`, not starting with a digit")
        }
        _ => return None,
    };
    (!matches).then_some(expected)
}

fn is_sql_identifier(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
