//! One layer laid on another.

use std::sync::Arc;

use crate::node::{Entry, Mapping, Node, NodeValue, Origin, Scalar, Style};

/// `over` laid on `base`.
pub(super) fn merge(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (NodeValue::Mapping(base), NodeValue::Mapping(over_mapping)) if !changes_type(&base, &over_mapping) => {
            let mut merged = Arc::unwrap_or_clone(base);
            for entry in Arc::unwrap_or_clone(over_mapping).entries {
                match merged.entries.iter_mut().find(|known| known.key.name == entry.key.name) {
                    Some(known) => {
                        let Entry { key, value } = known.clone();
                        let kept = value.as_mapping().is_some() && entry.value.is_empty();
                        *known = Entry { key: if kept { key } else { entry.key }, value: merge(value, entry.value) };
                    }
                    None => merged.entries.push(entry),
                }
            }
            Node::mapping(over.span, merged)
        }
        (NodeValue::Mapping(base_mapping), NodeValue::Scalar(scalar))
            if scalar.text.is_empty() && scalar.style == Style::Plain && scalar.origin == Origin::Literal =>
        {
            Node { span: base.span, value: NodeValue::Mapping(base_mapping) }
        }
        (_, value) => Node { span: over.span, value },
    }
}

/// Whether the mappings say different things of what they are.
fn changes_type(base: &Mapping, over: &Mapping) -> bool {
    ["type", "kind"].iter().any(|tag| {
        let text = |mapping: &Mapping| Some(mapping.get(tag)?.value.as_text()?.to_owned());
        matches!((text(base), text(over)), (Some(base), Some(over)) if base != over)
    })
}

/// The tree with every scalar said to come from `origin`.
pub(super) fn from_origin(node: &Node, origin: Origin) -> Node {
    let value = match &node.value {
        NodeValue::Scalar(scalar) => NodeValue::Scalar(Scalar { origin, ..scalar.clone() }),
        NodeValue::Sequence(items) => {
            NodeValue::Sequence(Arc::new(items.iter().map(|item| from_origin(item, origin)).collect()))
        }
        NodeValue::Mapping(mapping) => {
            let entries = mapping
                .entries
                .iter()
                .map(|entry| Entry { key: entry.key.clone(), value: from_origin(&entry.value, origin) });
            NodeValue::Mapping(Arc::new(Mapping { entries: entries.collect() }))
        }
    };
    Node { span: node.span.clone(), value }
}
