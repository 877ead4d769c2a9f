//! The laws of diff and apply, over arbitrary JSON, with the `json-patch` crate as the oracle.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use smartpulse_json::{
    Document, Patched, Pointer, apply, changed_members, diff, whole_add, whole_remove, whole_replace,
};

/// Names that pointers and strings must escape, and a few that collide often.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec![
            "a", "b", "c", "", "/", "~", "~1", "a/b", "m~n", "é", "😀", "\"", "\\", "\n", "0", "-",
        ]).prop_map(String::from),
        1 => any::<String>(),
    ]
}

/// Numbers as text, so that digits beyond 64 bits are among them.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:?}")),
        select(vec!["0", "-0", "1", "1.0", "1.00", "1e2", "100", "12345678901234567890123456789", "0.1000"])
            .prop_map(String::from),
    ]
}

/// Every operation but `test`, where the oracle takes 1 and 1.0 to be different.
fn op() -> impl Strategy<Value = &'static str> {
    select(vec!["add", "remove", "replace", "move", "copy"])
}

/// A JSON text: members in any order, with white space here and there, no duplicate names.
fn json_text() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        select(vec!["null", "true", "false", "{}", "[]", r#""x""#, r#""\u0078""#]).prop_map(String::from),
        number(),
        any::<String>().prop_map(|text| json!(text).to_string()),
    ];
    scalar.prop_recursive(5, 60, 6, |inner| {
        let array = vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(",")));
        let object = vec((name(), inner, any::<bool>()), 0..6).prop_map(|members| {
            let mut names = Vec::new();
            let mut texts = Vec::new();
            for (name, value, wide) in members {
                if !names.contains(&name) {
                    let colon = if wide { " :\n" } else { ":" };
                    texts.push(format!("{}{colon}{value}", json!(name)));
                    names.push(name);
                }
            }
            format!("{{{}}}", texts.join(", "))
        });
        prop_oneof![array, object]
    })
}

fn document() -> impl Strategy<Value = Document> {
    json_text().prop_map(|text| text.parse().expect(&text))
}

/// Two documents that have much in common: the second is the first after a few edits.
fn relatives() -> impl Strategy<Value = (Document, Document)> {
    let edits = vec((any::<Index>(), any::<Index>(), name(), json_text()), 0..6);
    let edited = (json_text(), edits).prop_map(|(text, edits)| {
        let old: Document = text.parse().expect(&text);
        let mut new = old.to_value();
        for (place, action, name, value) in edits {
            edit(&mut new, place, action, name, serde_json::from_str(&value).expect(&value));
        }
        (old, Document::from(new))
    });
    prop_oneof![3 => edited, 1 => (document(), document())]
}

/// Changes, adds, removes or moves something in a container found by walking down.
fn edit(value: &mut Value, place: Index, action: Index, name: String, new: Value) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            let at = place.index(items.len());
            match action.index(5) {
                0 => items.insert(at, new),
                1 => drop(items.remove(at)),
                2 => items.rotate_left(at),
                _ => edit(&mut items[at], place, action, name, new),
            }
        }
        Value::Object(members) if !members.is_empty() => {
            let at = place.index(members.len());
            let key = members.keys().nth(at).expect("within its length").clone();
            match action.index(6) {
                0 => drop(members.insert(name, new)),
                1 => drop(members.shift_remove(&key)),
                2 => drop(members.swap_remove(&key)),
                _ => edit(&mut members[&key], place, action, name, new),
            }
        }
        other => *other = new,
    }
}

fn diffed(old: &Document, new: &Document) -> (Vec<u8>, usize) {
    let mut patch = Vec::new();
    let operations = diff(old, new, &mut patch);
    (patch, operations)
}

fn patched(base: Option<&Document>, patch: &[u8]) -> Document {
    match apply(base, patch) {
        Ok(Patched::Document(document)) => document,
        other => panic!("{other:?} from {} on {base:?}", String::from_utf8_lossy(patch)),
    }
}

/// The patch as RFC 6902 spells it, for the oracle.
fn standard(patch: &[u8]) -> Vec<Value> {
    let items: Vec<Value> = serde_json::from_slice(patch).expect("a patch is an array");
    let lower = |item: Value| {
        let members = item.as_object().expect("operations are objects").clone();
        members.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()
    };
    items.into_iter().map(lower).collect()
}

fn oracle(base: &Document, patch: &[u8]) -> Result<Value, String> {
    let patch: json_patch::Patch =
        serde_json::from_value(Value::Array(standard(patch))).map_err(|error| error.to_string())?;
    let mut value = base.to_value();
    // Without undoing what a patch did before it failed: that panics for some patches, and the value is given up anyway.
    json_patch::patch_unsafe(&mut value, &patch).map_err(|error| error.to_string())?;
    Ok(value)
}

/// A canonical text: members sorted, numbers digit for digit, strings unescaped.
fn canonical(document: &Document, pointer: &mut Vec<String>) -> String {
    let raw = document.pointer(&Pointer::from_tokens(pointer.clone())).expect("the path exists");
    match raw.to_value() {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            let member = |name: &&String| {
                pointer.push((*name).clone());
                let text = format!("{name:?}:{}", canonical(document, pointer));
                pointer.pop();
                text
            };
            format!("{{{}}}", names.iter().map(member).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let element = |index: usize| {
                pointer.push(index.to_string());
                let text = canonical(document, pointer);
                pointer.pop();
                text
            };
            format!("[{}]", (0..items.len()).map(element).collect::<Vec<_>>().join(","))
        }
        Value::Number(_) => raw.as_raw().to_owned(),
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_patch_leads_from_old_to_new_digit_for_digit((old, new) in relatives()) {
        let (patch, operations) = diffed(&old, &new);
        let result = patched(Some(&old), &patch);
        prop_assert_eq!(canonical(&result, &mut vec![]), canonical(&new, &mut vec![]));
        prop_assert!(result.root().same_value(new.root()));
        prop_assert_eq!(standard(&patch).len(), operations);
    }

    #[test]
    fn the_oracle_applies_our_patches_alike((old, new) in relatives()) {
        let (patch, _) = diffed(&old, &new);
        prop_assert_eq!(oracle(&old, &patch), Ok(new.to_value()));
    }

    #[test]
    fn we_apply_the_patches_of_the_oracle_alike((old, new) in relatives()) {
        let patch = json_patch::diff(&old.to_value(), &new.to_value());
        let result = patched(Some(&old), json!(patch).to_string().as_bytes());
        prop_assert_eq!(result.to_value(), new.to_value());
    }

    #[test]
    fn a_document_and_its_reordered_copy_have_no_difference(document in document()) {
        prop_assert_eq!(diffed(&document, &document), (b"[]".to_vec(), 0));
        let mut value = document.to_value();
        if let Value::Object(members) = &mut value {
            *members = members.clone().into_iter().rev().collect();
            let reversed = Document::from(value);
            let printed = Document::from(document.to_value());
            prop_assert_eq!(diffed(&printed, &reversed), (b"[]".to_vec(), 0));
            prop_assert!(changed_members(&printed, &reversed).is_empty());
        }
    }

    #[test]
    fn changed_members_are_the_first_tokens_of_the_patch((old, new) in relatives()) {
        if old.is_object() && new.is_object() {
            let (patch, _) = diffed(&old, &new);
            let first = |item: Value| {
                let pointer: Pointer = item["path"].as_str().unwrap().parse().unwrap();
                pointer.first().unwrap().to_owned()
            };
            let mut from_patch: Vec<String> = standard(&patch).into_iter().map(first).collect();
            from_patch.dedup();
            let changed = changed_members(&old, &new);
            let names: Vec<&str> = changed.iter().map(|member| member.name.as_ref()).collect();
            prop_assert_eq!(&names, &from_patch);
            for member in &changed {
                prop_assert_eq!(member.old, old.get(&member.name));
                prop_assert_eq!(member.new, new.get(&member.name));
            }
        }
    }

    #[test]
    fn no_member_costs_more_than_replacing_it((old, new) in relatives()) {
        if old.is_object() && new.is_object() {
            let (patch, _) = diffed(&old, &new);
            let whole: usize = changed_members(&old, &new).iter().map(|member| {
                let path = json!(Pointer::from_tokens([member.name.as_ref()])).to_string();
                r#"{"Op":"replace","Path":,"Value":},"#.len()
                    + path.len() + member.new.map_or(0, |value| value.as_raw().len())
            }).sum();
            prop_assert!(patch.len() <= whole + 2, "{}", String::from_utf8_lossy(&patch));
        }
    }

    #[test]
    fn arbitrary_operations_end_as_the_oracle_ends(
        base in document(),
        operations in vec((op(), vec(name(), 1..3), vec(name(), 1..3), json_text()), 0..4),
    ) {
        let items: Vec<Value> = operations.iter().map(|(op, path, from, value)| json!({
            "op": *op,
            "path": Pointer::from_tokens(path.clone()),
            "from": Pointer::from_tokens(from.clone()),
            "value": serde_json::from_str::<Value>(value).unwrap(),
        })).collect();
        // The oracle lets a value vanish into itself.
        prop_assume!(operations.iter().all(|(op, path, from, _)| {
            *op != "move" || !path.starts_with(from)
        }));
        let patch = json!(items).to_string();
        let ours = match apply(Some(&base), patch.as_bytes()) {
            Ok(Patched::Document(document)) => Some(document.to_value()),
            _ => None,
        };
        prop_assert_eq!(ours, oracle(&base, patch.as_bytes()).ok(), "{}", patch);
    }

    #[test]
    fn a_known_predecessor_changes_nothing_of_the_parse(
        (old, new) in relatives(), at in any::<Index>(), byte in prop_oneof![any::<u8>(), Just(b'"'), Just(b'0')],
    ) {
        let mut damaged = new.bytes().to_vec();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        for text in [new.bytes().clone(), old.bytes().clone(), damaged.into()] {
            let plain = Document::parse(text.clone());
            let after = Document::parse_after(text, &old);
            if let (Ok(plain), Ok(after)) = (&plain, &after) {
                prop_assert!(plain.members().eq(after.members()));
                prop_assert_eq!(plain.root(), after.root());
            }
            prop_assert_eq!(plain, after);
        }
    }

    #[test]
    fn whole_operations_set_and_remove_the_document(old in document(), new in document()) {
        let (mut add, mut replace, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        whole_add(&new, &mut add);
        whole_replace(&new, &mut replace);
        whole_remove(&mut remove);
        for base in [None, Some(&old)] {
            for patch in [&add, &replace] {
                let result = patched(base, patch);
                prop_assert_eq!(result.as_str(), new.root().as_raw());
            }
            prop_assert_eq!(apply(base, &remove), Ok(Patched::Removed));
        }
    }

    #[test]
    fn a_patch_of_any_bytes_is_an_error_not_a_panic(base in document(), patch in any::<Vec<u8>>()) {
        prop_assert!(apply(Some(&base), &patch).is_err());
    }
}
