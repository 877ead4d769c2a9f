//! Templates of JSON documents, read once from YAML and rendered per event straight into bytes.

use crate::condition::Condition;
use crate::filter::FilterConfig;
use crate::view::ViewPointer;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use smartpulse_pipeline::Event;
use smartpulse_pipeline::message::{NAMESPACE, push_json_string};
use std::borrow::Cow;
use uuid::Uuid;

/// A JSON value with holes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Template {
    /// Fixed JSON text.
    Fixed(String),
    /// What a pointer finds, with its type; null where it finds nothing.
    Hole(ViewPointer),
    /// Text with insertions; null where one of them finds nothing.
    Text(Vec<Piece>),
    /// A list; what is null by a hole is left out.
    List(Vec<Template>),
    /// An object.
    Object(Vec<(String, Template)>),
    /// `$uuid5`: the name-based id of the parts joined by `/`.
    Uuid5(Vec<Template>),
    /// `$set`: a list without nulls and repetitions.
    Set(Vec<Template>),
    /// `$if`: one of two, by conditions as `filter` has them.
    If(Box<Choice>),
    /// `$changes`: the members that differ between the previous document and this one.
    Changes(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    when: FilterConfig,
    then: Template,
    otherwise: Template,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    Fixed(String),
    Hole(ViewPointer),
}

const NULL: &[u8] = b"null";

impl Template {
    /// Reads a template.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let list = |items: &[Value]| items.iter().map(Self::parse).collect::<Result<Vec<_>, _>>();
        match value {
            Value::String(text) => parse_text(text),
            Value::Array(items) => Ok(Self::List(list(items)?)),
            Value::Object(members) => {
                if let Some((name, argument)) = members.iter().find(|(name, _)| name.starts_with('$')) {
                    if members.len() > 1 {
                        return Err(format!("`{name}` must be the only member of its object"));
                    }
                    return parse_function(name, argument);
                }
                let members = members.iter().map(|(name, value)| Ok((name.clone(), Self::parse(value)?)));
                Ok(Self::Object(members.collect::<Result<_, String>>()?))
            }
            other => Ok(Self::Fixed(other.to_string())),
        }
    }

    /// Appends the JSON text for an event.
    pub fn render(&self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::Fixed(json) => out.extend_from_slice(json.as_bytes()),
            Self::Hole(pointer) => match pointer.find(event) {
                Some(raw) => out.extend_from_slice(raw.as_bytes()),
                None => out.extend_from_slice(NULL),
            },
            Self::Text(pieces) => match render_text(pieces, event) {
                Some(text) => push_json_string(out, &text),
                None => out.extend_from_slice(NULL),
            },
            Self::List(items) => render_list(items, event, out, false),
            Self::Set(items) => render_list(items, event, out, true),
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    push_json_string(out, name);
                    out.push(b':');
                    value.render(event, out);
                }
                out.push(b'}');
            }
            Self::Uuid5(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| part.plain_text(event)).collect();
                let id = Uuid::new_v5(&NAMESPACE, parts.join("/").as_bytes());
                push_json_string(out, &id.to_string());
            }
            Self::If(choice) if choice.when.passes(event) => choice.then.render(event, out),
            Self::If(choice) => choice.otherwise.render(event, out),
            Self::Changes(except) => render_changes(event, except, out),
        }
    }

    /// The rendered value as plain text: strings without their quotes.
    pub fn plain_text(&self, event: &Event) -> String {
        let mut out = Vec::new();
        self.render(event, &mut out);
        match serde_json::from_slice(&out) {
            Ok(Value::String(text)) => text,
            _ => String::from_utf8_lossy(&out).into_owned(),
        }
    }
}

fn parse_function(name: &str, argument: &Value) -> Result<Template, String> {
    let list = || -> Result<Vec<Template>, String> {
        argument.as_array().ok_or_else(|| format!("`{name}` takes a list"))?.iter().map(Template::parse).collect()
    };
    match name {
        "$uuid5" => Ok(Template::Uuid5(list()?)),
        "$set" => Ok(Template::Set(list()?)),
        "$if" => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct If {
                #[serde(default)]
                all: Vec<Condition>,
                #[serde(default)]
                any: Vec<Condition>,
                then: Template,
                #[serde(rename = "else")]
                otherwise: Template,
            }
            let If { all, any, then, otherwise } = serde_json::from_value(argument.clone()).map_err(|error| {
                format!("`$if` takes {{all: [conditions], any: [conditions], then, else}}: {error}")
            })?;
            if let Some((problem, _)) = all.iter().chain(&any).find_map(Condition::problem) {
                return Err(format!("in `$if`: {problem}"));
            }
            Ok(Template::If(Box::new(Choice { when: FilterConfig { all, any }, then, otherwise })))
        }
        "$changes" => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields, default)]
            #[derive(Default)]
            struct Changes {
                except: Vec<String>,
            }
            let changes: Changes = serde_json::from_value(argument.clone())
                .map_err(|error| format!("`$changes` takes {{except: [members]}}: {error}"))?;
            Ok(Template::Changes(changes.except))
        }
        other => Err(format!("there is no function `{other}`; there are $uuid5, $set, $if and $changes")),
    }
}

/// Splits `"unit:{/document/productionUnitId}"` into its pieces. A `{` that no `/` follows is plain text.
fn parse_text(text: &str) -> Result<Template, String> {
    let mut pieces = Vec::new();
    let mut fixed = String::new();
    let mut rest = text;
    while let Some(open) = rest.find("{/") {
        fixed.push_str(&rest[..open]);
        let after = &rest[open + 1..];
        let close = after.find('}').ok_or_else(|| format!("`{text}` has a `{{/` without a `}}`"))?;
        let pointer: ViewPointer = after[..close].parse().map_err(|error| format!("in `{text}`: {error}"))?;
        if !fixed.is_empty() {
            pieces.push(Piece::Fixed(std::mem::take(&mut fixed)));
        }
        pieces.push(Piece::Hole(pointer));
        rest = &after[close + 1..];
    }
    fixed.push_str(rest);
    match (pieces.as_slice(), fixed.is_empty()) {
        ([], _) => Ok(Template::Fixed(Value::from(fixed).to_string())),
        ([Piece::Hole(pointer)], true) => Ok(Template::Hole(pointer.clone())),
        (_, true) => Ok(Template::Text(pieces)),
        (_, false) => {
            pieces.push(Piece::Fixed(fixed));
            Ok(Template::Text(pieces))
        }
    }
}

fn render_text(pieces: &[Piece], event: &Event) -> Option<String> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Fixed(fixed) => text.push_str(fixed),
            Piece::Hole(pointer) => {
                let raw = pointer.find(event)?;
                match serde_json::from_str::<Cow<'_, str>>(&raw) {
                    Ok(inner) => text.push_str(&inner),
                    Err(_) if raw == "null" => return None,
                    Err(_) => text.push_str(&raw),
                }
            }
        }
    }
    Some(text)
}

fn render_list(items: &[Template], event: &Event, out: &mut Vec<u8>, distinct: bool) {
    out.push(b'[');
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut first = true;
    for item in items {
        let mut rendered = Vec::new();
        item.render(event, &mut rendered);
        let absent = rendered == NULL && !matches!(item, Template::Fixed(_));
        if absent || (distinct && (rendered == NULL || seen.contains(&rendered))) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(&rendered);
        if distinct {
            seen.push(rendered);
        }
    }
    out.push(b']');
}

fn render_changes(event: &Event, except: &[String], out: &mut Vec<u8>) {
    out.push(b'[');
    if let (Some(before), Some(after)) = (&event.previous, &event.document) {
        let mut first = true;
        for member in smartpulse_json::changed_members(before, after) {
            if except.iter().any(|name| *name == member.name) {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(b"{\"field\":");
            push_json_string(out, &member.name);
            out.extend_from_slice(b",\"oldValue\":");
            out.extend_from_slice(member.old.as_ref().map_or(NULL, |value| value.as_bytes()));
            out.extend_from_slice(b",\"newValue\":");
            out.extend_from_slice(member.new.as_ref().map_or(NULL, |value| value.as_bytes()));
            out.push(b'}');
        }
    }
    out.push(b']');
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "description": "any value; `{/pointer}` inside text stands for what it points at" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::event;

    fn check(template: &str, expected: &str) {
        let mut subject = event("f1", 101, r#"{"demand":500.0,"unit":"u2","note":null,"tags":["x"]}"#);
        subject.previous = event("f1", 100, r#"{"demand":450.0,"unit":"u1","note":null,"tags":["x"]}"#).document;
        subject.previous_version = Some(100);
        let template = Template::parse(&serde_json::from_str(template).unwrap()).unwrap();
        let mut out = Vec::new();
        template.render(&subject, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn holes_keep_their_type_and_text_inserts_them() {
        check(
            r#"{"a":"{/document/demand}","b":"v{/version} of {/key}","c":true,"d":"{plain}"}"#,
            r#"{"a":500.0,"b":"v101 of f1","c":true,"d":"{plain}"}"#,
        );
        check(r#"["{/document/absent}","x-{/document/note}","{/document/tags}"]"#, r#"[["x"]]"#);
        check(r#"{"a":"{/document/absent}","b":"x{/document/absent}"}"#, r#"{"a":null,"b":null}"#);
    }

    #[test]
    fn a_set_has_neither_nulls_nor_repetitions() {
        check(
            r#"{"$set":["unit:{/previous/unit}","unit:{/document/unit}","unit:u2","x:{/document/absent}"]}"#,
            r#"["unit:u1","unit:u2"]"#,
        );
    }

    #[test]
    fn a_choice_follows_its_conditions() {
        let choice = r#"{"$if":{"all":[{"pointer":"/contiguous","equals":true}],"any":[{"pointer":"/version","equals":N}],"then":["{/key}"],"else":[]}}"#;
        check(&choice.replace('N', "101"), r#"["f1"]"#);
        check(&choice.replace('N', "102"), "[]");
    }

    #[test]
    fn changes_name_field_old_and_new_value() {
        check(r#"{"$changes":{"except":["unit"]}}"#, r#"[{"field":"demand","oldValue":450.0,"newValue":500.0}]"#);
    }

    #[test]
    fn a_name_based_id_is_a_function_of_its_parts() {
        let id = Uuid::new_v5(&NAMESPACE, b"ForecastUpdated/f1/101");
        check(r#"{"$uuid5":["ForecastUpdated","{/key}","{/version}"]}"#, &format!("\"{id}\""));
    }

    #[test]
    fn a_bad_template_says_what_is_wrong() {
        for (template, reason) in [
            (r#""{/documnt/x}""#, "did you mean /document?"),
            (r#""{/document""#, "without a `}`"),
            (r#"{"$sett":[]}"#, "there is no function `$sett`"),
            (r#"{"$set":[],"x":1}"#, "must be the only member"),
            (r#"{"x":1,"$set":[]}"#, "must be the only member"),
            (r#"{"$if":{"all":[{"pointer":"/key"}],"then":1,"else":2}}"#, "compares nothing"),
            (r#"{"$if":{"all":[{"pointer":"/key","drops_by":1}],"then":1,"else":2}}"#, "what it is compared with"),
            (
                r#"{"$if":{"all":[{"pointer":"/key","against":"/key"}],"then":1,"else":2}}"#,
                "`against` compares nothing",
            ),
            (r#"{"$set":7}"#, "takes a list"),
            (r#"{"$if":{"then":1}}"#, "missing field `else`"),
        ] {
            let error = Template::parse(&serde_json::from_str(template).unwrap()).unwrap_err();
            assert!(error.contains(reason), "{template}: {error}");
        }
    }
}
