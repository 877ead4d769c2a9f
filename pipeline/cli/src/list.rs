//! `smartpulse list`: the types that YAML can name, from the schemas of their config structs.

use crate::failure::Failure;
use crate::setup;
use crate::style::{Paint, columns, print, wrap};
use anyhow::anyhow;
use schemars::Schema;
use serde_json::{Map, Value};
use smartpulse_config::nearest;
use smartpulse_pipeline::registry::Registry;
use std::fmt::Write as _;

/// How deep nested fields are shown. Deeper ones stand in `smartpulse schema`.
const DEPTH_MAX: usize = 5;

/// A group of types.
struct Group {
    name: &'static str,
    singular: &'static str,
    types: Vec<(&'static str, Schema, String)>,
}

fn groups(registry: &Registry) -> Vec<Group> {
    let none = String::new;
    let group = |name, singular, types| Group { name, singular, types };
    vec![
        group(
            "sources",
            "source",
            registry.sources.iter().map(|(name, entry)| (*name, entry.schema(), none())).collect(),
        ),
        group(
            "operators",
            "operator",
            registry.operators.iter().map(|(name, entry)| (*name, entry.schema(), none())).collect(),
        ),
        group("sinks", "sink", registry.sinks.iter().map(|(name, entry)| (*name, entry.schema(), none())).collect()),
        group(
            "resources",
            "resource",
            registry
                .resources
                .iter()
                .map(|(name, resource)| (*name, resource.entry.schema(), format!("a {}", resource.kind)))
                .collect(),
        ),
    ]
}

pub fn list(what: Option<&str>, type_name: Option<&str>) -> Result<(), Failure> {
    let groups = groups(&setup::registry());
    let paint = Paint::stdout();
    let wanted = match what {
        // `source` is as good as `sources`.
        Some(what) => groups.iter().find(|group| group.name == what || group.singular == what),
        None => None,
    };
    let text = match (what, wanted, type_name) {
        (None, ..) => groups.iter().map(|group| overview(group, paint)).collect::<Vec<_>>().join("\n"),
        (Some(_), Some(group), None) => overview(group, paint),
        (Some(_), Some(group), Some(type_name)) => {
            details(std::slice::from_ref(group), type_name, paint).ok_or_else(|| unknown_type(group, type_name))?
        }
        (Some(what), None, None) => details(&groups, what, paint).ok_or_else(|| unknown(&groups, what))?,
        (Some(what), None, Some(_)) => return Err(unknown(&groups, what)),
    };
    print(&text)?;
    Ok(())
}

fn unknown_type(group: &Group, type_name: &str) -> Failure {
    let types: Vec<&str> = group.types.iter().map(|(name, ..)| *name).collect();
    let help = match nearest(type_name, types.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("the {} of this build: {}", group.name, types.join(", ")),
    };
    anyhow!("there is no {} type {type_name}\n{help}", group.singular).into()
}

fn unknown(groups: &[Group], what: &str) -> Failure {
    let names = groups.iter().map(|group| group.name);
    let types = groups.iter().flat_map(|group| group.types.iter().map(|(name, ..)| *name));
    let help = match nearest(what, names.chain(types)) {
        Some(near) => format!("did you mean {near}?"),
        None => "kinds are sources, operators, sinks and resources; `smartpulse list` prints all types".to_owned(),
    };
    anyhow!("there is neither a kind nor a type {what}\n{help}").into()
}

/// A group's types, in a line each.
fn overview(group: &Group, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(group.name));
    let width = group.types.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    for (name, schema, _) in &group.types {
        let summary = first_sentence(description(schema.as_value()));
        let indent = " ".repeat(width + 4);
        let lines = wrap(&summary, columns().saturating_sub(indent.len()));
        let _ = writeln!(text, "  {}  {}", paint.cyan(format!("{name:<width$}")), lines.join(&format!("\n{indent}")));
    }
    text
}

/// Every field of a type, in each group that has one.
fn details(groups: &[Group], wanted: &str, paint: Paint) -> Option<String> {
    let mut texts = Vec::new();
    for group in groups {
        for (name, schema, note) in group.types.iter().filter(|(name, ..)| *name == wanted) {
            let mut text = String::new();
            let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
            let _ = writeln!(text, "{} {}{note}", paint.dim(group.singular), paint.bold(name));
            for paragraph in description(schema.as_value()).split("\n\n") {
                for line in wrap(paragraph, columns().saturating_sub(2)) {
                    let _ = writeln!(text, "  {line}");
                }
            }
            let root = schema.as_value();
            let fields = fields(root, root);
            if fields.is_empty() {
                text.push_str("\n  (no fields of its own)\n");
            }
            print_fields(&mut text, root, &fields, 1, paint);
            let common = match group.singular {
                "operator" => "inputs, parallelism",
                "sink" => "inputs, retry, buffer",
                _ => "",
            };
            if !common.is_empty() {
                let every = format!("every {} has also: {common}", group.singular);
                let _ = writeln!(text, "\n  {}", paint.dim(every));
            }
            texts.push(text);
        }
    }
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// A field of a config.
struct Field<'s> {
    name: String,
    schema: &'s Value,
    required: bool,
}

fn fields<'s>(root: &'s Value, schema: &'s Value) -> Vec<Field<'s>> {
    let schema = resolve(root, schema);
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name));
    let properties = schema["properties"].as_object();
    let own = properties.into_iter().flatten().map(|(name, schema)| Field {
        name: name.clone(),
        schema,
        required: required(name),
    });
    own.collect()
}

fn print_fields(text: &mut String, root: &Value, fields: &[Field<'_>], depth: usize, paint: Paint) {
    let indent = "  ".repeat(depth);
    for field in fields {
        let default = match field.schema.get("default") {
            Some(default) => format!("default {}", inline(default)),
            None if field.required => "required".to_owned(),
            None => "optional".to_owned(),
        };
        let kind = type_of(root, field.schema);
        if depth == 1 {
            text.push('\n');
        }
        let name = paint.cyan(&field.name);
        let _ = writeln!(text, "{indent}{name}  {kind}  {}", paint.dim(default));
        let doc = match description(field.schema) {
            "" => description(resolve(root, field.schema)),
            doc => doc,
        };
        for line in wrap(doc, columns().saturating_sub(indent.len() + 4)) {
            if !line.is_empty() {
                let _ = writeln!(text, "{indent}    {line}");
            }
        }
        for (value, doc) in variants(root, field.schema) {
            let lines = wrap(&format!("{value}: {doc}"), columns().saturating_sub(indent.len() + 6));
            // The value begins the first line, and only there it is coloured.
            let lines = lines.join(&format!("\n{indent}      ")).replacen(&value, &paint.cyan(&value), 1);
            let _ = writeln!(text, "{indent}    {lines}");
        }
        if depth < DEPTH_MAX {
            print_fields(text, root, &nested(root, field.schema), depth + 2, paint);
        }
    }
}

/// The fields of what a field holds: of an object, of each item, of each value of a map.
fn nested<'s>(root: &'s Value, schema: &'s Value) -> Vec<Field<'s>> {
    let schema = resolve(root, schema);
    let inner = match schema["type"].as_str() {
        Some("array") => &schema["items"],
        Some("object") if schema.get("properties").is_none() => &schema["additionalProperties"],
        _ => schema,
    };
    if inner.is_object() { fields(root, inner) } else { Vec::new() }
}

/// The variants of an enumeration whose variants are documented.
fn variants<'s>(root: &'s Value, schema: &'s Value) -> Vec<(String, String)> {
    let Some(choices) = resolve(root, schema)["oneOf"].as_array() else { return Vec::new() };
    let documented = choices.iter().filter(|choice| !description(choice).is_empty());
    documented
        .filter_map(|choice| {
            let value = choice.get("const").or_else(|| choice["enum"].as_array()?.first())?;
            Some((inline(value), wrap(description(choice), usize::MAX).join(" ")))
        })
        .collect()
}

/// A type as people read it: `integer`, `[string]`, `{name: ..}`, `cdc | change_tracking`.
fn type_of(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(value) = schema.get("const") {
        return inline(value);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(inline).collect::<Vec<_>>().join(" | ");
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[key].as_array() {
            let mut names: Vec<String> = choices.iter().map(|choice| type_of(root, choice)).collect();
            names.retain(|name| name != "null");
            names.dedup();
            return names.join(" | ");
        }
    }
    let plain = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(" | ")
        }
        _ => return "any".to_owned(),
    };
    let range = match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!(" {} to {}", inline(least), inline(most)),
        _ => String::new(),
    };
    match plain.as_str() {
        "array" => format!("[{}]", type_of(root, &schema["items"])),
        "object" => match &schema["additionalProperties"] {
            values @ Value::Object(_) => format!("{{name: {}}}", type_of(root, values)),
            _ => "mapping".to_owned(),
        },
        _ => format!("{plain}{range}"),
    }
}

/// The schema that a reference leads to, if it is one.
fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = |schema: &'s Value| {
        // `Option<T>` is `anyOf: [T, null]`.
        let inner = match schema["anyOf"].as_array().map(Vec::as_slice) {
            Some([inner, null]) if null["type"] == "null" => inner,
            _ => schema,
        };
        inner["$ref"].as_str().and_then(|path| root.pointer(path.strip_prefix('#')?)).or(Some(inner))
    };
    target(schema).unwrap_or(schema)
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn first_sentence(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = line.match_indices(". ").map(|(at, _)| at).next().unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}

/// A value on one line, as YAML would have it.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let members: Vec<String> =
                sorted(members).map(|(name, value)| format!("{name}: {}", inline(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// In the order written.
fn sorted(members: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    members.iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_are_said_as_people_read_them() {
        let root = json!({ "$defs": { "Mode": { "oneOf": [{ "const": "cdc" }, { "const": "net" }] } } });
        for (schema, text) in [
            (json!({ "type": "string" }), "string"),
            (json!({ "type": ["string", "null"] }), "string"),
            (json!({ "type": "integer", "minimum": 1, "maximum": 9 }), "integer 1 to 9"),
            (json!({ "$ref": "#/$defs/Mode" }), "cdc | net"),
            (json!({ "anyOf": [{ "$ref": "#/$defs/Mode" }, { "type": "null" }] }), "cdc | net"),
            (json!({ "type": "array", "items": { "type": "string" } }), "[string]"),
            (json!({ "type": "object", "additionalProperties": { "type": "string" } }), "{name: string}"),
            (json!(true), "any"),
        ] {
            assert_eq!(type_of(&root, &schema), text, "{schema}");
        }
    }

    #[test]
    fn a_summary_is_the_first_sentence() {
        assert_eq!(first_sentence("Reads lines,\nas 1.5 says. Ends with the file."), "Reads lines, as 1.5 says");
        assert_eq!(first_sentence("Reads."), "Reads");
    }
}
