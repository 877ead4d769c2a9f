//! A pipeline file as a checked graph of components whose parameters are still nodes.
//!
//! Structure is checked here (keys, ids, inputs, cycles); parameters are checked by who knows the types, who
//! finds them in [`ComponentSpec::params`].

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::diagnostics::{Diagnostics, Problem, advise};
use crate::graph;
use crate::interpolate::Lookup;
use crate::located::Located;
use crate::node::{Entry, Mapping, Node, SourceText, Span};
use crate::parse::parse;
use crate::retry::RetryRef;
use crate::yaml::read_yaml;

const TOP_KEYS: [&str; 5] = ["name", "description", "sources", "operators", "sinks"];

/// More lanes than this are no faster on any machine this runs on, and each has its own state.
const PARALLELISM_MAX: u64 = 256;

/// A buffer is memory that a slow sink holds: that many batches, each as large as what feeds it makes them.
const BUFFER_MAX: u64 = 1_024;

/// Components of one pipeline. Nobody reads a file of more, and what is checked between them costs the square of it.
const COMPONENTS_MAX: usize = 256;

/// A pipeline, as written.
#[derive(Clone, Debug)]
pub struct PipelineSpec {
    /// The pipeline's name: part of its consumer names and metrics.
    pub name: String,
    /// What it is for, in the author's words.
    pub description: Option<String>,
    /// The sources, in the order written.
    pub sources: Vec<ComponentSpec>,
    /// The operators, in the order written.
    pub operators: Vec<ComponentSpec>,
    /// The sinks, in the order written.
    pub sinks: Vec<ComponentSpec>,
    /// The whole document.
    pub located: Located,
}

/// What a component does in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Makes events.
    Source,
    /// Turns events into events.
    Operator,
    /// Takes events out of the pipeline.
    Sink,
}

impl Kind {
    /// `source`, `operator` or `sink`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Operator => "operator",
            Self::Sink => "sink",
        }
    }

    /// The key of a pipeline file that holds components of this kind.
    pub fn section(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Operator => "operators",
            Self::Sink => "sinks",
        }
    }

    /// The keys of a component that the runtime owns; all others are parameters.
    fn common_keys(self) -> &'static [&'static str] {
        match self {
            Self::Source => &["type"],
            Self::Operator => &["type", "inputs", "parallelism"],
            Self::Sink => &["type", "inputs", "retry", "buffer"],
        }
    }
}

/// One component, as written.
#[derive(Clone, Debug)]
pub struct ComponentSpec {
    /// Its id: the key it stands under. State hangs on it.
    pub id: String,
    /// What it does in the graph.
    pub kind: Kind,
    /// Its `type`.
    pub type_name: String,
    /// The ids it reads from; empty for sources.
    pub inputs: Vec<Input>,
    /// How failed writes are tried again (sinks).
    pub retry: Option<RetryRef>,
    /// Lanes that keys are spread over, 1 to 256 (operators).
    pub parallelism: Option<u32>,
    /// Batches held between this sink and what feeds it.
    pub buffer: Option<u32>,
    /// The mapping without the keys above: what the type's own schema is checked against.
    pub params: Node,
    /// The whole component, for later problems; its path is such as `sinks.broadcast`.
    pub located: Located,
}

/// An entry of `inputs`: `id`, or `id.port` where a component has several outputs.
#[derive(Clone, Debug)]
pub struct Input {
    /// The id.
    pub id: String,
    /// The output of that component, if one is named.
    pub port: Option<String>,
    /// Where it stands.
    pub span: Span,
}

impl ComponentSpec {
    /// Its typed parameters; `None` when there was a problem, which then stands in `diagnostics`.
    pub fn parse_params<T: DeserializeOwned + JsonSchema>(&self, diagnostics: &mut Diagnostics) -> Option<T> {
        parse(&self.params, &self.located.path, Some(&self.located.anchor), diagnostics)
    }
}

/// Whether `text` can be an id: `^[a-z][a-z0-9_]{0,63}$`.
pub fn is_id(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

impl PipelineSpec {
    /// Reads a pipeline. Gives the spec even when there are problems, as far as it could be read, so that the
    /// caller can add what it finds in the parameters: all problems are reported at once. The spec is usable
    /// only if `diagnostics` stays empty.
    pub fn parse(source: &Arc<SourceText>, lookup: Lookup<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let root = read_yaml(source, lookup, diagnostics)?;
        let Some(mapping) = root.as_mapping() else {
            let problem = Problem::new("expected a mapping with `name`, `sources` and `sinks`").at(&root.span);
            diagnostics.push(problem.help("see `smartpulse schema`, or start from a file of config/pipelines"));
            return None;
        };
        for entry in &mapping.entries {
            if !TOP_KEYS.contains(&&*entry.key.name) {
                if diagnostics.is_full() {
                    diagnostics.push(Problem::new("unknown key"));
                    continue;
                }
                let problem = Problem::new(format!("unknown key `{}`", entry.key.name)).at(&entry.key.span);
                let help = advise(&entry.key.name, TOP_KEYS, "keys");
                diagnostics.push(problem.path(&*entry.key.name).help(help));
            }
        }
        let kinds = [Kind::Source, Kind::Operator, Kind::Sink];
        let sections = kinds.iter().filter_map(|kind| mapping.get(kind.section()));
        let components: usize =
            sections.filter_map(|entry| entry.value.as_mapping()).map(|section| section.entries.len()).sum();
        if components > COMPONENTS_MAX {
            let start = Span { len: 0, ..root.span.clone() };
            let problem = Problem::new(format!(
                "the pipeline has {components} components, and at most {COMPONENTS_MAX} are taken"
            ));
            diagnostics.push(problem.at(&start).help("make several pipelines of it: topics connect them"));
            return None;
        }
        let mut reader = SpecReader { diagnostics, ids: HashMap::new() };
        let name = reader.name(&root, mapping);
        let description = mapping.get("description").and_then(|entry| reader.text(entry, "description"));
        let mut section = |kind| reader.section(kind, &root, mapping);
        let (sources, operators, sinks) = (section(Kind::Source), section(Kind::Operator), section(Kind::Sink));
        let located = Located::new(root.clone(), "", Some(&Span { len: 0, ..root.span.clone() }));
        let spec = Self { name, description, sources, operators, sinks, located };
        graph::check(&spec, diagnostics);
        Some(spec)
    }

    /// All components: sources, operators, sinks, each in the order written.
    pub fn components(&self) -> impl Iterator<Item = &ComponentSpec> {
        self.sources.iter().chain(&self.operators).chain(&self.sinks)
    }

    /// The component of that id.
    pub fn component(&self, id: &str) -> Option<&ComponentSpec> {
        self.components().find(|component| component.id == id)
    }

    /// Reports sources and operators that nothing reads from, except those whose type `produces_events`
    /// denies (an operator may exist for its side effect).
    pub fn check_consumed(&self, produces_events: &dyn Fn(&str) -> bool, diagnostics: &mut Diagnostics) {
        graph::check_consumed(self, produces_events, diagnostics);
    }
}

struct SpecReader<'d> {
    diagnostics: &'d mut Diagnostics,
    /// Every id with the place of its first use.
    ids: HashMap<String, Span>,
}

impl SpecReader<'_> {
    fn name(&mut self, root: &Node, mapping: &Mapping) -> String {
        let Some(entry) = mapping.get("name") else {
            let start = Span { len: 0, ..root.span.clone() };
            self.diagnostics.push(Problem::new("missing key `name`").at(&start).help("add `name: my-pipeline`"));
            return String::new();
        };
        let Some(name) = self.text(entry, "name") else {
            return String::new();
        };
        let valid = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
        if !valid {
            let problem = Problem::new(format!("`{name}` cannot be the name of a pipeline")).at(&entry.value.span);
            let help = "use 1 to 64 lower-case letters, digits, `-` and `_`, starting with a letter";
            self.diagnostics.push(problem.path("name").help(help));
        }
        name
    }

    fn text(&mut self, entry: &Entry, path: &str) -> Option<String> {
        parse::<String>(&entry.value, path, Some(&entry.key.span), self.diagnostics)
    }

    fn section(&mut self, kind: Kind, root: &Node, top: &Mapping) -> Vec<ComponentSpec> {
        let section = kind.section();
        let Some(entry) = top.get(section).filter(|entry| !entry.value.is_empty()) else {
            if kind == Kind::Source {
                let span = top.get(section).map(|entry| entry.key.span.clone());
                let span = span.unwrap_or_else(|| Span { len: 0, ..root.span.clone() });
                let problem = Problem::new(format!("a pipeline needs at least one {}", kind.name())).at(&span);
                self.diagnostics.push(problem.path(section).help(format!("add one under `{section}:`")));
            }
            return Vec::new();
        };
        let Some(mapping) = entry.value.as_mapping() else {
            let problem = Problem::new(format!("`{section}` must be a mapping of ids")).at(&entry.key.span);
            let help = format!("write each {} as `id: {{ type: .. }}`, without `-`", kind.name());
            self.diagnostics.push(problem.path(section).help(help));
            return Vec::new();
        };
        if mapping.entries.is_empty() && kind == Kind::Source {
            let problem = Problem::new(format!("a pipeline needs at least one {}", kind.name()));
            let help = format!("add one under `{section}:`");
            self.diagnostics.push(problem.at(&entry.key.span).path(section).help(help));
        }
        mapping.entries.iter().filter_map(|entry| self.component(kind, entry)).collect()
    }

    fn component(&mut self, kind: Kind, entry: &Entry) -> Option<ComponentSpec> {
        let id = entry.key.name.to_string();
        let path = format!("{}.{id}", kind.section());
        let located = Located::new(entry.value.clone(), &path, Some(&entry.key.span));
        let at_key = |message: String| Problem::new(message).at(&entry.key.span).path(&path);
        if !is_id(&id) {
            let problem = at_key(format!("`{id}` cannot be an id"));
            let help = "use 1 to 64 lower-case letters, digits and `_`, starting with a letter";
            self.diagnostics.push(problem.help(help));
        } else if let Some(first) = self.ids.get(&id) {
            let problem = at_key(format!("the id `{id}` is taken"));
            let help = format!("ids are unique across sources, operators and sinks; the first is at {first}");
            self.diagnostics.push(problem.help(help));
        } else {
            self.ids.insert(id.clone(), entry.key.span.clone());
        }
        let Some(mapping) = entry.value.as_mapping() else {
            let problem = at_key(format!("the {} `{id}` must be a mapping", kind.name()));
            self.diagnostics.push(problem.help("give it a `type` and its parameters"));
            return None;
        };
        self.refuse_foreign(kind, mapping, &path);
        let retry = self.option::<RetryRef>(kind, mapping, "retry", &path);
        let parallelism = self.count(kind, mapping, "parallelism", PARALLELISM_MAX, &path);
        let buffer = self.count(kind, mapping, "buffer", BUFFER_MAX, &path);
        let inputs = if kind == Kind::Source { Vec::new() } else { self.inputs(mapping, &located, &id) };
        let Some(type_entry) = mapping.get("type") else {
            self.diagnostics.push(at_key("missing key `type`".into()).help("`smartpulse list` names the types"));
            return None;
        };
        let type_name = self.text(type_entry, &format!("{path}.type"))?;
        let params = Node::mapping(entry.value.span.clone(), mapping.without(kind.common_keys()));
        Some(ComponentSpec { id, kind, type_name, inputs, retry, parallelism, buffer, params, located })
    }

    /// Options that belong to another kind, said so rather than called unknown.
    fn refuse_foreign(&mut self, kind: Kind, mapping: &Mapping, path: &str) {
        let foreign: &[(&str, &str)] = match kind {
            Kind::Source => &[
                ("inputs", "a source reads from outside; name it in the `inputs` of others instead"),
                ("retry", "the resource it reads from retries by itself; `retry` belongs to sinks"),
            ],
            Kind::Operator => &[("retry", "an operator does no I/O; `retry` belongs to sinks")],
            Kind::Sink => &[],
        };
        for (name, help) in foreign {
            if let Some(entry) = mapping.get(name) {
                let problem = Problem::new(format!("{}s have no `{name}`", kind.name())).at(&entry.key.span);
                self.diagnostics.push(problem.path(format!("{path}.{name}")).help(*help));
            }
        }
    }

    fn option<T: DeserializeOwned + JsonSchema>(
        &mut self,
        kind: Kind,
        mapping: &Mapping,
        name: &str,
        path: &str,
    ) -> Option<T> {
        let entry = mapping.get(name).filter(|_| kind.common_keys().contains(&name))?;
        parse(&entry.value, &format!("{path}.{name}"), Some(&entry.key.span), self.diagnostics)
    }

    fn count(&mut self, kind: Kind, mapping: &Mapping, name: &str, most: u64, path: &str) -> Option<u32> {
        let count = self.option::<u64>(kind, mapping, name, path)?;
        if (1..=most).contains(&count) {
            return u32::try_from(count).ok();
        }
        let entry = mapping.get(name)?;
        let problem = Problem::new(format!("expected a number from 1 to {most}, found {count}"));
        self.diagnostics.push(problem.at(&entry.value.span).path(format!("{path}.{name}")));
        None
    }

    fn inputs(&mut self, mapping: &Mapping, located: &Located, id: &str) -> Vec<Input> {
        let none = |message: String| {
            located.problem("inputs", message, Some("list the ids it reads from: `inputs: [..]`".into()))
        };
        let Some(entry) = mapping.get("inputs") else {
            self.diagnostics.push(none(format!("`{id}` has no `inputs`")));
            return Vec::new();
        };
        let path = format!("{}.inputs", located.path);
        let Some(ids) = parse::<Vec<String>>(&entry.value, &path, Some(&entry.key.span), self.diagnostics) else {
            return Vec::new();
        };
        if ids.is_empty() {
            self.diagnostics.push(none(format!("`{id}` has no `inputs`")));
        }
        let items = entry.value.as_sequence().unwrap_or_default();
        let input = |(text, node): (String, &Node)| match text.split_once('.') {
            Some((id, port)) => Input { id: id.to_owned(), port: Some(port.to_owned()), span: node.span.clone() },
            None => Input { id: text, port: None, span: node.span.clone() },
        };
        ids.into_iter().zip(items).map(input).collect()
    }
}
