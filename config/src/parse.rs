//! Node -> typed value, through the type's own JSON Schema.

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;

use crate::diagnostics::Diagnostics;
use crate::located::Located;
use crate::node::{Node, Span};
use crate::schema::check_at;

/// Reads a typed value. `path` is the node's config path and `anchor` its key, if it has one. `None` when
/// there was a problem, which then stands in `diagnostics`.
pub fn parse<T: DeserializeOwned + JsonSchema>(
    node: &Node,
    path: &str,
    anchor: Option<&Span>,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    parse_with_schema(node, path, anchor, &schemars::schema_for!(T), diagnostics)
}

/// As [`parse`], with a schema that was made before.
pub fn parse_with_schema<T: DeserializeOwned>(
    node: &Node,
    path: &str,
    anchor: Option<&Span>,
    schema: &Schema,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    // Counted apart: a problem that is already known from elsewhere must still refuse the value.
    let mut own = Diagnostics::new();
    let value = check_at(node, path, anchor, schema, &mut own);
    let sound = own.is_empty() && !has_unresolved(node);
    diagnostics.extend(own);
    if !sound {
        return None;
    }
    match serde_path_to_error::deserialize(value) {
        Ok(value) => Some(value),
        Err(error) => {
            let pointer = error.path().to_string();
            let pointer = if pointer == "." || pointer.contains('?') { "" } else { &pointer };
            let located = Located::new(node.clone(), path, anchor);
            diagnostics.push(located.problem(pointer, error.inner().to_string(), None));
            None
        }
    }
}

/// Whether a scalar in the tree could not be interpolated (which was reported when the text was read).
fn has_unresolved(node: &Node) -> bool {
    use crate::node::{NodeValue, Origin};
    match &node.value {
        NodeValue::Scalar(scalar) => scalar.origin == Origin::Unresolved,
        NodeValue::Sequence(items) => items.iter().any(has_unresolved),
        NodeValue::Mapping(mapping) => mapping.entries.iter().any(|entry| has_unresolved(&entry.value)),
    }
}
