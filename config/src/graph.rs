//! Checks of the graph that need no knowledge of component types.

use std::collections::{HashMap, HashSet};

use crate::diagnostics::{Diagnostics, Problem, advise, nearest};
use crate::spec::{ComponentSpec, Kind, PipelineSpec};

/// Inputs exist, are not sinks and are named once; no operator feeds itself.
pub(crate) fn check(spec: &PipelineSpec, diagnostics: &mut Diagnostics) {
    let mut components: HashMap<&str, &ComponentSpec> = HashMap::new();
    for component in spec.components() {
        components.entry(&component.id).or_insert(component);
    }
    // An id whose component could not be read still exists; complaining of it twice would mislead.
    let declared: HashSet<&str> = [Kind::Source, Kind::Operator, Kind::Sink]
        .into_iter()
        .filter_map(|kind| spec.located.node.as_mapping()?.get(kind.section())?.value.as_mapping())
        .flat_map(|section| section.entries.iter().map(|entry| &*entry.key.name))
        .collect();
    for component in spec.components() {
        check_inputs(component, spec, &components, &declared, diagnostics);
    }
    check_cycles(spec, &components, diagnostics);
}

fn check_inputs(
    component: &ComponentSpec,
    spec: &PipelineSpec,
    components: &HashMap<&str, &ComponentSpec>,
    declared: &HashSet<&str>,
    diagnostics: &mut Diagnostics,
) {
    let mut seen = HashSet::new();
    for (at, input) in component.inputs.iter().enumerate() {
        if diagnostics.is_full() {
            return;
        }
        let problem = |message: String| {
            let path = format!("{}.inputs[{at}]", component.located.path);
            Problem::new(message).at(&input.span).path(path)
        };
        if !seen.insert((&*input.id, &input.port)) {
            diagnostics.push(problem(format!("`{}` is listed twice", input.id)).help("remove one"));
        }
        match components.get(&*input.id) {
            Some(found) if found.kind == Kind::Sink => {
                let problem = problem(format!("`{}` is a sink, which has no output", input.id));
                diagnostics.push(problem.help("read from what that sink reads from"));
            }
            None if !declared.contains(&*input.id) => {
                let candidates = spec.sources.iter().chain(&spec.operators).map(|other| &*other.id);
                let candidates: Vec<_> = candidates.filter(|id| *id != component.id).collect();
                let problem = problem(format!("there is no source or operator `{}`", input.id));
                diagnostics.push(problem.help(advise(&input.id, candidates, "ids")));
            }
            _ => {}
        }
    }
}

/// Depth-first without recursion: a pipeline of thousands of operators in a row must not end in the stack.
fn check_cycles(spec: &PipelineSpec, components: &HashMap<&str, &ComponentSpec>, diagnostics: &mut Diagnostics) {
    let mut done: HashSet<&str> = HashSet::new();
    for start in &spec.operators {
        let mut path: Vec<(&ComponentSpec, usize)> = Vec::new();
        let mut on_path: HashMap<&str, usize> = HashMap::new();
        if done.insert(&start.id) {
            on_path.insert(&start.id, 0);
            path.push((start, 0));
        }
        while let Some((component, next)) = path.last_mut() {
            let Some(input) = component.inputs.get(*next) else {
                on_path.remove(&*component.id);
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(&from) = on_path.get(&*input.id) {
                report_cycle(&path[from..], diagnostics);
            } else if let Some(&found) = components.get(&*input.id).filter(|found| found.kind == Kind::Operator)
                && done.insert(&found.id)
            {
                on_path.insert(&found.id, path.len());
                path.push((found, 0));
            }
        }
    }
}

/// `path` goes against the flow of events: each member reads from the next, and the last from the first.
fn report_cycle(path: &[(&ComponentSpec, usize)], diagnostics: &mut Diagnostics) {
    /// A longer cycle is cut in the message.
    const NAMED_MAX: usize = 12;
    let Some((last, next)) = path.last() else {
        return;
    };
    let at = next.saturating_sub(1);
    let Some(input) = last.inputs.get(at) else {
        return;
    };
    let ids = path.iter().rev().map(|(component, _)| &*component.id);
    let mut names: Vec<_> = ids.chain([&*last.id]).collect();
    if names.len() > NAMED_MAX {
        names.splice(NAMED_MAX / 2..names.len() - NAMED_MAX / 2, ["..."]);
    }
    let problem = Problem::new(format!("`{}` feeds itself: {}", last.id, names.join(" -> ")));
    let path = format!("{}.inputs[{at}]", last.located.path);
    diagnostics.push(problem.at(&input.span).path(path).help("events flow one way: remove one of these inputs"));
}

/// Sources and operators that make events for nobody.
pub(crate) fn check_consumed(
    spec: &PipelineSpec,
    produces_events: &dyn Fn(&str) -> bool,
    diagnostics: &mut Diagnostics,
) {
    let consumed: HashSet<&str> =
        spec.components().flat_map(|component| component.inputs.iter().map(|input| &*input.id)).collect();
    // An input that was misspelled is reported already.
    let known: HashSet<&str> = spec.components().map(|component| &*component.id).collect();
    let missing: Vec<&str> = consumed.difference(&known).copied().collect();
    let misspelled = |id: &str| missing.iter().any(|input| nearest(input, [id]).is_some());
    for component in spec.sources.iter().chain(&spec.operators) {
        let id = &*component.id;
        if diagnostics.is_full() {
            return;
        }
        if !consumed.contains(id) && produces_events(&component.type_name) && !misspelled(id) {
            let message = format!("nothing reads from the {} `{id}`", component.kind.name());
            let help = format!("name it in the `inputs` of an operator or a sink, or remove it: `inputs: [{id}]`");
            let problem = Problem::new(message).at(&component.located.anchor).path(&component.located.path);
            diagnostics.push(problem.help(help));
        }
    }
}
