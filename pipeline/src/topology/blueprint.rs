//! The checked graph: typed components, who feeds whom, and the rules that hold between them.

use crate::registry::{AnyOperator, AnySink, AnySource, Check, Declared, Registry};
use smartpulse_config::{ComponentSpec, Diagnostics, Kind, PipelineSpec, RetryPolicy, RetryRef, Settings, nearest};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A pipeline whose every part is known and fits.
pub struct Blueprint {
    /// The pipeline's name.
    pub name: Arc<str>,
    pub(super) components: Vec<Component>,
}

pub(super) struct Component {
    pub id: Arc<str>,
    pub type_name: String,
    pub part: Part,
    /// Who feeds it: component and output port.
    pub inputs: Vec<(usize, usize)>,
    pub lanes: usize,
    pub buffer: Option<usize>,
}

pub(super) enum Part {
    Source(Box<dyn AnySource>),
    Operator(Box<dyn AnyOperator>),
    Sink { config: Box<dyn AnySink>, retry: RetryPolicy },
}

impl Component {
    pub fn kind(&self) -> &'static str {
        match self.part {
            Part::Source(_) => "source",
            Part::Operator(_) => "operator",
            Part::Sink { .. } => "sink",
        }
    }

    pub fn ports(&self) -> Vec<String> {
        match &self.part {
            Part::Operator(config) => config.ports(),
            _ => Vec::new(),
        }
    }

    fn stateful(&self) -> bool {
        matches!(&self.part, Part::Operator(config) if config.stateful())
    }

    /// True when a task of its own begins here: a sink, a merge, or lanes.
    pub fn begins_stage(&self) -> bool {
        match self.part {
            Part::Source(_) => false,
            Part::Sink { .. } => true,
            Part::Operator(_) => self.inputs.len() > 1 || self.lanes > 1,
        }
    }
}

impl Blueprint {
    /// Checks a pipeline against what exists. Everything that is wrong goes to `diagnostics`; nothing is opened.
    pub fn check(
        spec: &PipelineSpec,
        registry: &Registry,
        declared: &Declared,
        settings: &Settings,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let mut components = Vec::new();
        let mut complete = true;
        for component in spec.components() {
            match typed(component, registry, declared, settings, diagnostics) {
                Some(typed) => components.push(typed),
                None => complete = false,
            }
        }
        spec.check_consumed(&|type_name| registry.emits(type_name), diagnostics);
        // Without all parts the graph has holes, and complaints about them would only repeat.
        if !complete {
            return None;
        }
        let mut blueprint = Self { name: spec.name.as_str().into(), components };
        blueprint.connect(spec, diagnostics);
        blueprint.check_state(spec, diagnostics);
        diagnostics.is_empty().then_some(blueprint)
    }

    /// True when every source ends by itself, so that the run starts fresh.
    #[must_use]
    pub fn bounded(&self) -> bool {
        let mut sources = self.components.iter().filter_map(|component| match &component.part {
            Part::Source(config) => Some(config.bounded()),
            _ => None,
        });
        sources.all(|bounded| bounded)
    }

    /// Resolves the inputs of the file to places in the graph.
    fn connect(&mut self, spec: &PipelineSpec, diagnostics: &mut Diagnostics) {
        let index: HashMap<Arc<str>, usize> =
            self.components.iter().enumerate().map(|(at, component)| (component.id.clone(), at)).collect();
        let ports: Vec<Vec<String>> = self.components.iter().map(Component::ports).collect();
        for (at, component) in spec.components().enumerate() {
            for (place, input) in component.inputs.iter().enumerate() {
                let Some(&from) = index.get(input.id.as_str()) else { continue };
                match port_of(&ports[from], input.port.as_deref()) {
                    Ok(port) => self.components[at].inputs.push((from, port)),
                    Err((message, help)) => diagnostics.push(component.located.problem(
                        &format!("inputs[{place}]"),
                        message.replace("{id}", &input.id),
                        Some(help.replace("{id}", &input.id)),
                    )),
                }
            }
        }
    }

    /// A stateful chain ends in exactly one sink: with two, the first one's success would hide the second
    /// one's loss when the process dies between them.
    fn check_state(&self, spec: &PipelineSpec, diagnostics: &mut Diagnostics) {
        for (at, component) in self.components.iter().enumerate().filter(|(_, component)| component.stateful()) {
            let sinks = self.sinks_behind(at);
            if sinks.len() > 1 {
                let names: Vec<String> = sinks.iter().map(|&sink| format!("`{}`", self.components[sink].id)).collect();
                if let Some(spec) = spec.component(&component.id) {
                    diagnostics.push(spec.located.problem(
                        "type",
                        format!(
                            "`{}` keeps state, but ends in {} sinks: {}",
                            component.id,
                            sinks.len(),
                            names.join(", ")
                        ),
                        Some("give each sink a chain of its own, with its own source and subscription".to_owned()),
                    ));
                }
            }
        }
    }

    /// The sinks that a component's events can reach.
    pub(super) fn sinks_behind(&self, component: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open = vec![component];
        let mut seen = BTreeSet::new();
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            if matches!(self.components[at].part, Part::Sink { .. }) {
                reached.insert(at);
            }
            let feeds = |other: &Component| other.inputs.iter().any(|(from, _)| *from == at);
            open.extend((0..self.components.len()).filter(|&other| feeds(&self.components[other])));
        }
        reached
    }

    /// The first of the directly connected stateful operators that a stateful operator is one of: they see the same
    /// events, so that one record of what went through serves them all. With anything in between they do not.
    pub(super) fn state_head(&self, component: usize) -> Option<usize> {
        if !self.components[component].stateful() {
            return None;
        }
        let mut head = component;
        while let [(before, _)] = self.components[head].inputs.as_slice() {
            // Lanes are dealt anew at each stage, so that only operators of one stage share.
            if !self.components[*before].stateful() || self.components[head].begins_stage() {
                break;
            }
            head = *before;
        }
        Some(head)
    }

    /// Where the keyed state of a component is kept, if it has any: `<pipeline>/<operator>`.
    pub(super) fn state_chain(&self, component: usize) -> Option<Arc<str>> {
        let head = self.state_head(component)?;
        Some(format!("{}/{}", self.name, self.components[head].id).into())
    }

    /// The graph as a Mermaid flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for component in &self.components {
            let (open, close) = match component.part {
                Part::Source(_) => ("([", "])"),
                Part::Operator(_) => ("[", "]"),
                Part::Sink { .. } => ("[/", "/]"),
            };
            let lanes = if component.lanes > 1 { format!(" x{}", component.lanes) } else { String::new() };
            text.push_str(&format!(
                "    {id}{open}\"{id}<br/><i>{type_name}</i>{lanes}\"{close}\n",
                id = component.id,
                type_name = component.type_name
            ));
        }
        for component in &self.components {
            for &(from, port) in &component.inputs {
                let source = &self.components[from];
                let arrow = match source.ports().get(port) {
                    Some(port) => format!("-- {port} -->"),
                    None => "-->".to_owned(),
                };
                text.push_str(&format!("    {} {arrow} {}\n", source.id, component.id));
            }
        }
        text
    }
}

/// The place of a port among those of a component.
fn port_of(ports: &[String], wanted: Option<&str>) -> Result<usize, (String, String)> {
    match (ports, wanted) {
        ([], None) => Ok(0),
        ([], Some(port)) => {
            Err((format!("`{{id}}` has no outputs by name, so `.{port}` says nothing"), "write `{id}`".into()))
        }
        (ports, None) => {
            let names: Vec<String> = ports.iter().map(|port| format!("`{{id}}.{port}`")).collect();
            Err(("`{id}` has several outputs".to_owned(), format!("name one: {}", names.join(", "))))
        }
        (ports, Some(wanted)) => ports.iter().position(|port| port == wanted).ok_or_else(|| {
            let near = nearest(wanted, ports.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `{{id}}.{near}`?"),
                None => format!("its outputs are {}", ports.join(", ")),
            };
            (format!("`{{id}}` has no output `{wanted}`"), help)
        }),
    }
}

/// The typed component of a spec.
fn typed(
    spec: &ComponentSpec,
    registry: &Registry,
    declared: &Declared,
    settings: &Settings,
    diagnostics: &mut Diagnostics,
) -> Option<Component> {
    let path = spec.located.path.as_str();
    let anchor = Some(&spec.located.anchor);
    let part = match spec.kind {
        Kind::Source => match registry.sources.get(spec.type_name.as_str()) {
            Some(entry) => Part::Source(entry.parse(&spec.params, path, anchor, diagnostics)?),
            None => return unknown(spec, registry, diagnostics),
        },
        Kind::Operator => match registry.operators.get(spec.type_name.as_str()) {
            Some(entry) => Part::Operator(entry.parse(&spec.params, path, anchor, diagnostics)?),
            None => return unknown(spec, registry, diagnostics),
        },
        Kind::Sink => match registry.sinks.get(spec.type_name.as_str()) {
            Some(entry) => {
                let config = entry.parse(&spec.params, path, anchor, diagnostics)?;
                let named = RetryRef::Name(config.retry().to_owned());
                let retry = spec.retry.as_ref().unwrap_or(&named);
                match retry.resolve(&settings.retries, &spec.located) {
                    Ok(policy) => Part::Sink { config, retry: policy.clone() },
                    Err(problem) => {
                        diagnostics.push(problem);
                        return None;
                    }
                }
            }
            None => return unknown(spec, registry, diagnostics),
        },
    };
    let mut check = Check::new(&spec.located, declared, diagnostics);
    match &part {
        Part::Source(config) => config.validate(&mut check),
        Part::Operator(config) => config.validate(&mut check),
        Part::Sink { config, .. } => config.validate(&mut check),
    }
    let lanes = spec.parallelism.map_or(1, |lanes| lanes as usize);
    if lanes > 1 && !matches!(&part, Part::Operator(config) if config.stateful()) {
        check.problem(
            "parallelism",
            format!("`{}` keeps no state by key, so lanes would only cost order between keys", spec.type_name),
            Some("give `parallelism` to a keyed operator: detect_gap or diff".to_owned()),
        );
    }
    Some(Component {
        id: spec.id.as_str().into(),
        type_name: spec.type_name.clone(),
        part,
        inputs: Vec::new(),
        lanes,
        buffer: spec.buffer.map(|batches| batches as usize),
    })
}

fn unknown<T>(spec: &ComponentSpec, registry: &Registry, diagnostics: &mut Diagnostics) -> Option<T> {
    let types: Vec<&str> = match spec.kind {
        Kind::Source => registry.sources.keys().copied().collect(),
        Kind::Operator => registry.operators.keys().copied().collect(),
        Kind::Sink => registry.sinks.keys().copied().collect(),
    };
    let help = match nearest(&spec.type_name, types.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{} types of this build: {}", spec.kind.name(), types.join(", ")),
    };
    diagnostics.push(spec.located.problem(
        "type",
        format!("there is no {} type `{}`", spec.kind.name(), spec.type_name),
        Some(help),
    ));
    None
}
