//! A value that knows its place, for checks that come after parsing.

use crate::diagnostics::Problem;
use crate::node::{Node, NodeValue, Span};

/// A node with its config path, kept beside a typed value so that later checks can point into the file.
#[derive(Clone, Debug)]
pub struct Located {
    /// The node.
    pub node: Node,
    /// Its config path, such as `sinks.broadcast`.
    pub path: String,
    /// What to point at when the node is a collection: its key, for the collection itself spans many lines.
    pub anchor: Span,
}

impl Located {
    /// A located node; `anchor` is its key's span, if it has one.
    pub fn new(node: Node, path: impl Into<String>, anchor: Option<&Span>) -> Self {
        let anchor = anchor.unwrap_or(&node.span).clone();
        Self { node, path: path.into(), anchor }
    }

    /// A problem with the value at `pointer`, a path relative to this node such as `retry.attempts` or
    /// `inputs[0]`; empty means the node itself. It points at the deepest part of the path that exists.
    pub fn problem(&self, pointer: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        Problem { span: Some(self.span_of(pointer)), path: self.path_of(pointer), message: message.into(), help }
    }

    /// A problem with the *key* at `pointer`, where the value is beside the point.
    pub fn problem_at_key(&self, pointer: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        let (_, key, _) = self.descend(pointer);
        Problem { span: Some(key.clone()), path: self.path_of(pointer), message: message.into(), help }
    }

    /// The position of the deepest existing part of `pointer`: of a scalar its value, of a collection its key.
    pub fn span_of(&self, pointer: &str) -> Span {
        let (node, key, _) = self.descend(pointer);
        match node.value {
            NodeValue::Scalar(_) => node.span.clone(),
            _ => key.clone(),
        }
    }

    /// The value at `pointer`, if it exists, with its full path.
    pub fn get(&self, pointer: &str) -> Option<Located> {
        let (node, key, complete) = self.descend(pointer);
        complete.then(|| Located::new(node.clone(), self.path_of(pointer), Some(key)))
    }

    fn path_of(&self, pointer: &str) -> String {
        match (self.path.is_empty(), pointer.is_empty()) {
            (_, true) => self.path.clone(),
            (true, false) => pointer.to_owned(),
            (false, false) if pointer.starts_with('[') => format!("{}{pointer}", self.path),
            (false, false) => format!("{}.{pointer}", self.path),
        }
    }

    fn descend(&self, pointer: &str) -> (&Node, &Span, bool) {
        let (mut node, mut key) = (&self.node, &self.anchor);
        for step in pointer.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match &node.value {
                NodeValue::Mapping(mapping) => mapping.get(step).map(|entry| (&entry.value, &entry.key.span)),
                NodeValue::Sequence(items) => {
                    step.parse::<usize>().ok().and_then(|at| items.get(at)).map(|item| (item, &item.span))
                }
                NodeValue::Scalar(_) => None,
            };
            match next {
                Some((child, child_key)) => (node, key) = (child, child_key),
                None => return (node, key, false),
            }
        }
        (node, key, true)
    }
}
