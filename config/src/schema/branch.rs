//! Which branch of a `oneOf` or `anyOf` is meant, so that problems are reported inside it.
//!
//! serde's enums: internally tagged (a property with a different `const` in each branch), externally tagged
//! (a mapping with one key), unit variants (strings), untagged (whatever fits); and `Option` (null or not).

use serde_json::Value;

use super::shape::{View, word};
use super::words::{describe, is_private, join};
use super::{Checker, Place, Whole};
use crate::diagnostics::{Diagnostics, Problem, advise};
use crate::node::{NodeValue, Style};
use crate::scalar;

/// The outcome of choosing.
pub(super) enum Choice<'s> {
    /// This branch is meant.
    Branch(&'s Value),
    /// None is; it was reported.
    Refused,
    /// The layer does not say; another will.
    Undecided,
}

struct Branch<'s> {
    schema: &'s Value,
    view: View<'s>,
}

impl<'s> Checker<'s, '_> {
    pub(super) fn choose(&mut self, place: Place<'_>, outer: &View<'s>, branches: &'s [Value]) -> Choice<'s> {
        let root = self.root;
        let branches = branches.iter().map(|schema| Branch { schema, view: View::of(root, schema) });
        let (null, mut live): (Vec<_>, Vec<_>) = branches.partition(|branch| branch.view.types() == ["null"]);
        if place.node.is_null()
            && let Some(branch) = null.first()
        {
            return Choice::Branch(branch.schema);
        }
        if live.len() == 1 {
            return Choice::Branch(live[0].schema);
        }
        if let NodeValue::Mapping(_) = place.node.value {
            if let Some(choice) = self.by_tag(place, &live).or_else(|| self.by_key(place, outer, &live)) {
                return choice;
            }
        } else if let Some(choice) = self.by_name(place, &live) {
            return choice;
        }
        let expected = expected(&live);
        live.retain(|branch| fits(place, &branch.view));
        match live.len() {
            0 => {
                let secret = outer.is_secret();
                self.mismatch(place, &expected, secret);
                Choice::Refused
            }
            1 => Choice::Branch(live[0].schema),
            _ => self.by_trial(place, live),
        }
    }

    /// Internally tagged: the branches differ in the `const` of one property.
    fn by_tag(&mut self, place: Place<'_>, live: &[Branch<'s>]) -> Option<Choice<'s>> {
        let objects: Vec<_> = live.iter().filter(|branch| branch.view.accepts("object")).collect();
        let (tag, _) = tags(&objects.first()?.view)
            .into_iter()
            .find(|(tag, _)| objects.iter().all(|branch| tags(&branch.view).iter().any(|(name, _)| name == tag)))?;
        let variant =
            |branch: &Branch<'s>| tags(&branch.view).into_iter().find(|(name, _)| *name == tag).map(|(_, value)| value);
        let names: Vec<_> = objects.iter().filter_map(|branch| variant(branch)).collect();
        let Some(entry) = place.node.as_mapping()?.get(tag) else {
            if self.whole == Whole::No {
                return Some(Choice::Undecided);
            }
            let problem = place.problem(format!("missing key `{tag}`"));
            self.diagnostics.push(problem.help(format!("add `{tag}:`, one of {}", list(&names))));
            return Some(Choice::Refused);
        };
        let path = join(place.path, tag);
        let place = Place { node: &entry.value, anchor: &entry.key.span, path: &path };
        let Some(text) = entry.value.as_text() else {
            let found = describe(place.node, is_private(place.node, true));
            let problem = place.problem(format!("expected one of {}, found {found}", list(&names)));
            self.diagnostics.push(problem);
            return Some(Choice::Refused);
        };
        match objects.iter().find(|branch| variant(branch) == Some(text)) {
            Some(branch) => Some(Choice::Branch(branch.schema)),
            None => {
                self.unknown_value(place, text, names, false);
                Some(Choice::Refused)
            }
        }
    }

    /// Externally tagged: every mapping branch has exactly one property, which is the variant's name.
    fn by_key(&mut self, place: Place<'_>, outer: &View<'s>, live: &[Branch<'s>]) -> Option<Choice<'s>> {
        let objects: Vec<_> = live.iter().filter(|branch| branch.view.accepts("object")).collect();
        let sole = |branch: &Branch<'s>| {
            let mut names = branch.view.property_names();
            let name = names.next()?;
            let required = branch.view.required().any(|required| required == name);
            (names.next().is_none() && required).then_some(name)
        };
        let names: Option<Vec<_>> = objects.iter().map(|branch| sole(branch)).collect();
        let names = names.filter(|names| names.len() > 1)?;
        let mapping = place.node.as_mapping()?;
        // A flattened enum shares its mapping with the fields around it.
        let keys: Vec<_> = mapping.entries.iter().filter(|entry| outer.property(&entry.key.name).is_none()).collect();
        if let Some(at) = names.iter().position(|name| keys.iter().any(|entry| *entry.key.name == **name)) {
            return Some(Choice::Branch(objects[at].schema));
        }
        let problem = match keys.first() {
            Some(entry) => Problem::new(format!("unknown variant `{}`", entry.key.name))
                .at(&entry.key.span)
                .path(join(place.path, &entry.key.name))
                .help(advise(&entry.key.name, names, "variants")),
            None if self.whole == Whole::No => return Some(Choice::Undecided),
            None => place.problem(format!("expected one of the keys {}", list(&names))),
        };
        self.diagnostics.push(problem);
        Some(Choice::Refused)
    }

    /// Unit variants: every branch that takes a string takes only certain strings.
    fn by_name(&mut self, place: Place<'_>, live: &[Branch<'s>]) -> Option<Choice<'s>> {
        let text = place.node.as_text()?;
        let scalars: Vec<_> = live
            .iter()
            .filter(|branch| !["array", "object"].iter().any(|name| branch.view.types() == [*name]))
            .collect();
        if scalars.is_empty() || scalars.iter().any(|branch| branch.view.allowed().is_empty()) {
            return None;
        }
        let names = |branch: &Branch<'s>| -> Vec<&'s str> {
            branch.view.allowed().into_iter().filter_map(Value::as_str).collect()
        };
        if let Some(branch) = scalars.iter().find(|branch| names(branch).contains(&text)) {
            return Some(Choice::Branch(branch.schema));
        }
        let secret = scalars.iter().any(|branch| branch.view.is_secret());
        let names: Vec<_> = scalars.iter().flat_map(|branch| names(branch)).collect();
        self.unknown_value(place, text, names, secret);
        Some(Choice::Refused)
    }

    /// Untagged: the first branch without a problem, else the one with the fewest.
    fn by_trial(&mut self, place: Place<'_>, mut live: Vec<Branch<'s>>) -> Choice<'s> {
        // A bare `10` is a number before it is a string.
        live.sort_by_key(|branch| !exact(place, &branch.view));
        let mut best: Option<(usize, &'s Value)> = None;
        for branch in live {
            let mut scratch = Diagnostics::new();
            let mut checker =
                Checker { root: self.root, whole: self.whole, steps: self.steps, diagnostics: &mut scratch };
            checker.value(place, branch.schema);
            self.steps = checker.steps;
            let problems = scratch.len();
            if problems == 0 {
                return Choice::Branch(branch.schema);
            }
            if best.is_none_or(|(fewest, _)| problems < fewest) {
                best = Some((problems, branch.schema));
            }
        }
        best.map_or(Choice::Refused, |(_, schema)| Choice::Branch(schema))
    }
}

/// The properties that can only have one text, with that text.
fn tags<'s>(view: &View<'s>) -> Vec<(&'s str, &'s str)> {
    let constant = |schema: &'s Value| match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => value.as_str(),
        (None, Some(Value::Array(values))) if values.len() == 1 => values[0].as_str(),
        _ => None,
    };
    view.property_names().filter_map(|name| Some((name, constant(view.property(name)?)?))).collect()
}

/// Whether the node has a shape the schema can take.
fn fits(place: Place<'_>, view: &View<'_>) -> bool {
    if !view.alternatives().is_empty() && !view.is_typed() {
        return true;
    }
    match &place.node.value {
        NodeValue::Mapping(_) => view.accepts("object"),
        NodeValue::Sequence(_) => view.accepts("array"),
        NodeValue::Scalar(_) if place.node.is_null() => view.accepts("null"),
        NodeValue::Scalar(value) => {
            let text = &*value.text;
            view.accepts("string")
                || view.accepts("boolean") && scalar::boolean(text).is_some()
                || view.accepts("integer") && scalar::integer(text).is_some()
                || view.accepts("number") && scalar::float(text).is_some()
        }
    }
}

/// Whether a scalar has the schema's type as it is written.
fn exact(place: Place<'_>, view: &View<'_>) -> bool {
    let Some(value) = place.node.as_scalar() else {
        return true;
    };
    let quoted = value.style == Style::Quoted;
    let typed = scalar::boolean(&value.text).is_some() || scalar::float(&value.text).is_some();
    (quoted || !typed) == view.accepts("string")
}

fn expected(live: &[Branch<'_>]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for branch in live {
        for name in branch.view.types().into_iter().filter(|name| *name != "null") {
            if !words.contains(&word(name)) {
                words.push(word(name));
            }
        }
        if branch.view.types().is_empty() && branch.view.allowed().iter().any(|value| value.is_string()) {
            words.push("a string");
        }
    }
    words.dedup();
    if words.is_empty() { "something else".into() } else { words.join(" or ") }
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
