//! `smartpulse schema`: one JSON Schema for pipeline files, made of those of all registered types.

use crate::args::SchemaOf;
use crate::failure::Failure;
use crate::setup;
use crate::style::print;
use schemars::{Schema, schema_for};
use serde_json::{Map, Value, json};
use smartpulse_config::{RetryRef, Settings};
use smartpulse_pipeline::registry::Registry;

/// What ids look like, `smartpulse_config::is_id` as a pattern.
const ID: &str = "^[a-z][a-z0-9_]{0,63}$";

pub fn schema(of: SchemaOf) -> Result<(), Failure> {
    let schema = match of {
        SchemaOf::Pipeline => pipeline(&setup::registry()),
        SchemaOf::Settings => Settings::schema().to_value(),
    };
    print(&format!("{schema:#}\n"))?;
    Ok(())
}

/// The schema of a pipeline file.
pub fn pipeline(registry: &Registry) -> Value {
    let mut definitions = Map::new();
    lift(&mut definitions, "retry", schema_for!(RetryRef));
    let mut section = |section: &str, kind: &str, types: Vec<(&str, Schema)>, common: &Value, required: &[&str]| {
        let mut choices = Vec::new();
        for (type_name, schema) in types {
            let name = format!("{kind}.{type_name}");
            lift(&mut definitions, &name, schema);
            if let Some(definition) = definitions.get_mut(&name) {
                add_common(definition, type_name, common, required);
            }
            choices.push(json!({ "$ref": format!("#/$defs/{name}") }));
        }
        json!({
            "type": "object",
            "description": format!("The {section}, by id."),
            "propertyNames": { "pattern": ID },
            "additionalProperties": { "oneOf": choices },
        })
    };
    let inputs = json!({
        "description": "The ids it reads from; `id.port` where a component has several outputs.",
        "type": "array", "items": { "type": "string" }, "minItems": 1,
    });
    let operator = json!({
        "inputs": inputs,
        "parallelism": {
            "description": "Lanes that keys are spread over; order per key is kept. For keyed operators. Default 1.",
            "type": "integer", "minimum": 1, "maximum": 256, "default": 1,
        },
    });
    let sink = json!({
        "inputs": inputs,
        "retry": {
            "description": "How failed writes are tried again: the name of a policy of the settings, or one inline.",
            "$ref": "#/$defs/retry",
        },
        "buffer": {
            "description": "Batches held in front of this sink. Default: runtime.channel_batches of the settings.",
            "type": "integer", "minimum": 1, "maximum": 65_536,
        },
    });
    let sources = registry.sources.iter().map(|(name, entry)| (*name, entry.schema())).collect();
    let operators = registry.operators.iter().map(|(name, entry)| (*name, entry.schema())).collect();
    let sinks = registry.sinks.iter().map(|(name, entry)| (*name, entry.schema())).collect();
    let mut sources = section("sources", "source", sources, &json!({}), &[]);
    sources["minProperties"] = json!(1);
    let operators = section("operators", "operator", operators, &operator, &["inputs"]);
    let sinks = section("sinks", "sink", sinks, &sink, &["inputs"]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "SmartPulse pipeline",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "sources"],
        "properties": {
            "name": {
                "description": "The pipeline's name; positions, state and metrics hang on it.",
                "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$",
            },
            "description": { "description": "What it is for.", "type": "string" },
            "sources": sources,
            "operators": operators,
            "sinks": sinks,
        },
        "$defs": definitions,
    })
}

/// Puts a schema among the definitions, with its own ones beside it under its name.
fn lift(definitions: &mut Map<String, Value>, name: &str, schema: Schema) {
    let mut value = schema.to_value();
    let own = value.as_object_mut().and_then(|object| {
        object.remove("$schema");
        object.remove("$defs")
    });
    point_to(&mut value, name);
    definitions.insert(name.to_owned(), value);
    if let Some(Value::Object(own)) = own {
        for (inner, mut schema) in own {
            point_to(&mut schema, name);
            definitions.insert(format!("{name}.{inner}"), schema);
        }
    }
}

/// Renames references to a schema's own definitions.
fn point_to(value: &mut Value, name: &str) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(inner) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{name}.{inner}");
                        }
                    }
                    _ => point_to(value, name),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| point_to(item, name)),
        _ => {}
    }
}

/// Adds the keys that the runtime owns.
fn add_common(definition: &mut Value, type_name: &str, common: &Value, required: &[&str]) {
    let Some(object) = definition.as_object_mut() else { return };
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    let mut all = Map::from_iter([("type".to_owned(), json!({ "const": type_name }))]);
    all.extend(common.as_object().cloned().unwrap_or_default());
    if let Some(own) = properties.as_object_mut() {
        all.extend(std::mem::take(own));
    }
    *properties = Value::Object(all);
    object.insert("additionalProperties".into(), json!(false));
    let mut names: Vec<Value> = ["type"].iter().chain(required).map(|name| json!(name)).collect();
    names.extend(object.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    object.insert("required".into(), Value::Array(names));
}
