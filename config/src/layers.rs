//! Layers of settings, later wins: built-in defaults < `default.yaml` < `<environment>.yaml` < `local.yaml`
//! < environment variables (`SMARTPULSE__API__LISTEN`) < `--set api.listen=..`.
//!
//! Layers are merged as nodes, so a value remembers which layer it came from. Each layer is also checked by
//! itself: a mistake is reported even where a later layer hides it. Mappings are merged key by key, except
//! where `type` or `kind` changes: then the later mapping replaces the earlier, whose keys mean something
//! else. A section that is left empty (`api:` with only comments below) changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::Schema;
use serde_json::{Value, json};

use crate::diagnostics::{Diagnostics, Problem, advise};
use crate::located::Located;
use crate::node::{Entry, Key, Mapping, Node, NodeValue, Origin, Scalar, SourceText, Span, Style};
use crate::parse::{parse, parse_with_schema};
use crate::schema::{anything, check_part};
use crate::settings::{ResourceSpec, Settings};
use crate::spec::is_id;
use crate::yaml::{DEPTH_MAX, read_yaml};

mod merge;

/// The built-in defaults: the text of `config/default.yaml`.
pub const DEFAULT_YAML: &str = include_str!("../default.yaml");

/// What environment variables of settings start with.
const PREFIX: &str = "SMARTPULSE__";

/// Where settings come from.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// Folder of `default.yaml`, `<environment>.yaml` and `local.yaml`, each of which may be absent; `None`
    /// reads no files.
    pub config_dir: Option<PathBuf>,
    /// The environment, as given by `--env`; before `SMARTPULSE_ENV` and `SMARTPULSE__ENVIRONMENT`.
    pub environment: Option<String>,
    /// The `--set` arguments, such as `cache.l1_ttl_s=300`.
    pub sets: Vec<String>,
    /// The process environment.
    pub env: BTreeMap<String, String>,
}

impl LoadOptions {
    /// No files and no sets, but the environment of this process. Variables that are not UTF-8 are left out.
    pub fn from_process() -> Self {
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { env: env.collect(), ..Self::default() }
    }

    /// Looks a variable up, as [`read_yaml`] wants it.
    pub fn lookup(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }
}

impl std::fmt::Debug for LoadOptions {
    /// Without values, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("config_dir", &self.config_dir)
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

pub(crate) fn load(options: &LoadOptions) -> Result<Settings, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let environment = environment(options, &mut diagnostics);
    let schema = layer_schema();
    let mut merged: Option<Node> = None;
    for layer in layers(options, &environment, &mut diagnostics) {
        check_part(&layer, &schema, &mut diagnostics);
        merged = Some(match merged {
            Some(base) => merge::merge(base, layer),
            None => layer,
        });
    }
    let settings = merged.and_then(|node| typed(&node, &environment, &mut diagnostics));
    diagnostics.into_result(settings)
}

/// The settings of the merged tree.
fn typed(node: &Node, environment: &Chosen, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mapping = node.as_mapping()?;
    let resources = mapping.get("resources").map(|entry| resources(entry, diagnostics)).unwrap_or_default();
    let mut rest = mapping.without(&["resources", "environment"]);
    rest.entries.push(scalar_entry("environment", &environment.name, &Span::start_of(&environment.source)));
    let node = Node::mapping(node.span.clone(), rest);
    let schema = schemars::schema_for!(Settings);
    let mut settings: Settings = parse_with_schema(&node, "", None, &schema, diagnostics)?;
    settings.resources = resources;
    Some(settings)
}

fn resources(section: &Entry, diagnostics: &mut Diagnostics) -> BTreeMap<String, ResourceSpec> {
    let mut resources = BTreeMap::new();
    for entry in section.value.as_mapping().into_iter().flat_map(|mapping| &mapping.entries) {
        let name = entry.key.name.to_string();
        let path = format!("resources.{name}");
        let located = Located::new(entry.value.clone(), &path, Some(&entry.key.span));
        if !is_id(&name) {
            let help = "use 1 to 64 lower-case letters, digits and `_`, starting with a letter";
            let message = format!("`{name}` cannot be the name of a resource");
            diagnostics.push(located.problem_at_key("", message, Some(help.into())));
        }
        // A layer that is no mapping was reported when it was checked by itself.
        let Some(mapping) = entry.value.as_mapping() else {
            continue;
        };
        let Some(type_entry) = mapping.get("type") else {
            let help = "`smartpulse list` names the types".to_owned();
            diagnostics.push(located.problem("", "missing key `type`", Some(help)));
            continue;
        };
        let anchor = Some(&type_entry.key.span);
        let type_name = parse::<String>(&type_entry.value, &format!("{path}.type"), anchor, diagnostics);
        let Some(type_name) = type_name else { continue };
        let params = Node::mapping(entry.value.span.clone(), mapping.without(&["type"]));
        resources.insert(name.clone(), ResourceSpec { name, type_name, params, located });
    }
    resources
}

/// The environment, and who chose it.
struct Chosen {
    name: String,
    source: Arc<SourceText>,
    explicit: bool,
}

fn environment(options: &LoadOptions, diagnostics: &mut Diagnostics) -> Chosen {
    let variable = |name: &str| {
        let value = options.env.get(name).filter(|value| !value.is_empty())?;
        Some((format!("environment variable {name}"), value.clone()))
    };
    let given = options.environment.clone().map(|value| ("--env".to_owned(), value));
    let given = given.or_else(|| variable("SMARTPULSE_ENV")).or_else(|| variable("SMARTPULSE__ENVIRONMENT"));
    let explicit = given.is_some();
    let (by, name) = given.unwrap_or_else(|| ("built-in default".into(), "development".into()));
    let source = SourceText::variable(by, &*name);
    // The name becomes part of a path.
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    if !plain || name.is_empty() || name.len() > 64 || ["default", "local"].contains(&&*name) {
        let problem = Problem::new(format!("`{name}` cannot be the name of an environment"));
        let help = "use lower-case letters, digits, `-` and `_`; `default` and `local` are taken";
        diagnostics.push(problem.at(&Span::start_of(&source)).path("environment").help(help));
        return Chosen { name: "development".into(), source, explicit: false };
    }
    Chosen { name, source, explicit }
}

/// All layers that could be read, first to last.
fn layers(options: &LoadOptions, environment: &Chosen, diagnostics: &mut Diagnostics) -> Vec<Node> {
    let lookup = |name: &str| options.lookup(name);
    let mut texts = vec![SourceText::file("(built-in) default.yaml", DEFAULT_YAML)];
    if let Some(directory) = &options.config_dir {
        files(directory, environment, &mut texts, diagnostics);
    }
    let mut layers = Vec::new();
    for text in &texts {
        // A file of comments only changes nothing.
        if text.text().lines().all(|line| matches!(line.trim_start().bytes().next(), None | Some(b'#'))) {
            continue;
        }
        if let Some(layer) = read_yaml(text, &lookup, diagnostics) {
            refuse_environment(&layer, environment, diagnostics);
            layers.push(layer);
        }
    }
    let variables = options.env.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)));
    let mut variables: Vec<(&String, String, &String)> =
        variables.map(|(name, path, value)| (name, path.to_ascii_lowercase().replace("__", "."), value)).collect();
    variables.sort_by_key(|(_, path, _)| !says_type(path));
    for (name, path, value) in variables {
        if path != "environment" {
            let source = SourceText::variable(format!("environment variable {name}"), &**value);
            layers.extend(value_layer(&path, value, &source, diagnostics));
        }
    }
    let mut sets: Vec<&String> = options.sets.iter().collect();
    sets.sort_by_key(|set| !says_type(set.split_once('=').map_or(set, |(path, _)| path)));
    for set in sets {
        let Some((path, value)) = set.split_once('=') else {
            let source = SourceText::variable("--set", &**set);
            diagnostics.order(&source);
            let problem = Problem::new("expected `path=value`").at(&Span::start_of(&source));
            diagnostics.push(problem.help("for example `--set cache.l1_ttl_s=300`"));
            continue;
        };
        let source = SourceText::variable(format!("--set {path}"), value);
        if path == "environment" {
            diagnostics.order(&source);
            let problem = Problem::new("the environment is not chosen by --set").at(&Span::start_of(&source));
            diagnostics.push(problem.path("environment").help("use `--env` or `SMARTPULSE_ENV`"));
            continue;
        }
        layers.extend(value_layer(path, value, &source, diagnostics));
    }
    layers
}

/// Whether a path is of what a mapping is: `resources.main_db.type`. Another type replaces the mapping, so that it has to be
/// said before the keys beside it, in whichever order they were given.
fn says_type(path: &str) -> bool {
    path.ends_with(".type") || path.ends_with(".kind")
}

/// The files of the folder that exist.
fn files(directory: &Path, environment: &Chosen, texts: &mut Vec<Arc<SourceText>>, diagnostics: &mut Diagnostics) {
    if !directory.is_dir() {
        let problem = Problem::new(format!("there is no folder {}", directory.display()));
        diagnostics.push(problem.help("check the path of the configuration folder"));
        return;
    }
    for name in ["default", &environment.name, "local"] {
        let path = directory.join(format!("{name}.yaml"));
        if path.exists() {
            match SourceText::read(&path) {
                Ok(text) => texts.push(text),
                Err(problem) => diagnostics.push(problem),
            }
        } else if name == environment.name && environment.explicit {
            // Going on with defaults where `prodution` was meant would be worse than stopping.
            let problem = Problem::new(format!("there is no {}", path.display()));
            let known = environments(directory);
            let help = advise(name, known.iter().map(String::as_str), "environments");
            let span = Span::start_of(&environment.source);
            diagnostics.push(problem.at(&span).path("environment").help(help));
        }
    }
}

/// The environments that have a file.
fn environments(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let name = name.strip_suffix(".yaml")?;
        (!["default", "local"].contains(&name)).then(|| name.to_owned())
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn refuse_environment(layer: &Node, environment: &Chosen, diagnostics: &mut Diagnostics) {
    let Some(entry) = layer.as_mapping().and_then(|mapping| mapping.get("environment")) else {
        return;
    };
    if entry.value.as_text() != Some(&environment.name) {
        let message = format!("the environment is `{}`, and a file cannot change it", environment.name);
        let problem = Problem::new(message).at(&entry.value.span).path("environment");
        diagnostics.push(problem.help("remove the key; choose with `--env` or `SMARTPULSE_ENV`"));
    }
}

/// The layer of one variable or `--set`. A value that starts with `[` or `{` is YAML; any other is a scalar.
fn value_layer(path: &str, value: &str, source: &Arc<SourceText>, diagnostics: &mut Diagnostics) -> Option<Node> {
    diagnostics.order(source);
    let span = Span::start_of(source);
    let steps: Vec<_> = path.split('.').collect();
    if steps.iter().any(|step| step.is_empty()) || steps.len() >= DEPTH_MAX {
        let problem = Problem::new("this is not a path of settings").at(&span);
        diagnostics.push(problem.help("write it as `SMARTPULSE__API__LISTEN` or `--set api.listen=..`"));
        return None;
    }
    let from_environment = source.name().starts_with("environment variable");
    // A variable may carry a secret; an argument, which every user of the machine can list, may not.
    let origin = if from_environment { Origin::Outside } else { Origin::Literal };
    let scalar = Scalar { text: value.into(), style: Style::Plain, origin };
    let mut node = Node { span: span.clone(), value: NodeValue::Scalar(scalar) };
    if value.starts_with(['[', '{']) {
        let mut problems = Diagnostics::new();
        match read_yaml(source, &|_| None, &mut problems) {
            Some(tree) if problems.is_empty() => node = merge::from_origin(&tree, origin),
            // A password may well start with a bracket.
            _ if from_environment => {}
            _ => {
                diagnostics.extend(problems);
                return None;
            }
        }
    }
    for step in steps.into_iter().rev() {
        let key = Key { name: step.into(), span: span.clone() };
        node = Node::mapping(span.clone(), Mapping { entries: vec![Entry { key, value: node }] });
    }
    Some(node)
}

fn scalar_entry(name: &str, text: &str, span: &Span) -> Entry {
    let scalar = Scalar { text: text.into(), style: Style::Quoted, origin: Origin::Literal };
    let value = Node { span: span.clone(), value: NodeValue::Scalar(scalar) };
    Entry { key: Key { name: name.into(), span: span.clone() }, value }
}

/// The schema of one layer: the settings' own, with resources, with defaults, and nothing required.
pub(crate) fn layer_schema() -> Schema {
    let schema = schemars::schema_for!(Settings);
    let resources = json!({
        "description": "What the resource names in pipelines stand for: mappings with a `type`.",
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": { "type": { "type": "string", "description": "Type of the resource." } },
            "additionalProperties": true,
        },
    });
    let mut value = Value::from(schema);
    value["properties"]["resources"] = resources;
    let mut ignored = Diagnostics::new();
    let defaults = read_yaml(&SourceText::file("default.yaml", DEFAULT_YAML), &|_| None, &mut ignored);
    if let Some(defaults) = defaults {
        fill_in_defaults(&mut value, "", &anything(&defaults));
    }
    Schema::try_from(value).expect("a schema stays one when properties are added")
}

/// Puts defaults beside the properties of the object schema at `pointer`, and in those it refers to.
fn fill_in_defaults(root: &mut Value, pointer: &str, defaults: &Value) {
    let Some(schema) = root.pointer_mut(pointer).and_then(Value::as_object_mut) else {
        return;
    };
    schema.remove("required");
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    let mut sections = Vec::new();
    for (name, property) in properties {
        let (Some(property), Some(default)) = (property.as_object_mut(), defaults.get(name)) else {
            continue;
        };
        match property.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#')) {
            Some(target) if default.is_object() => sections.push((target.to_owned(), default)),
            _ => {
                property.insert("default".into(), default.clone());
            }
        }
    }
    for (target, default) in sections {
        fill_in_defaults(root, &target, default);
    }
}
