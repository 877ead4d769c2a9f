//! The exact patches of hand-picked differences, and what becomes of hand-picked patches.

use smartpulse_json::{
    Document, JsonError, Kind, Patched, Pointer, apply, changed_members, diff, whole_add, whole_remove, whole_replace,
};

fn document(text: &str) -> Document {
    text.parse().expect(text)
}

#[test]
fn differences_have_the_wire_form_of_the_contract() {
    let check = |old: &str, new: &str, patch: &[&str]| {
        let mut out = Vec::new();
        let operations = diff(&document(old), &document(new), &mut out);
        assert_eq!(String::from_utf8(out), Ok(format!("[{}]", patch.join(","))), "{old} to {new}");
        assert_eq!(operations, patch.len());
    };
    check("{}", "{}", &[]);
    check(r#"{"demand":450.0}"#, r#"{"demand":500.0}"#, &[r#"{"Op":"replace","Path":"/demand","Value":500.0}"#]);
    check(r#"{"a":1}"#, r#"{"a":1,"b":{"c": 2}}"#, &[r#"{"Op":"add","Path":"/b","Value":{"c": 2}}"#]);
    check(r#"{"a":1,"b":2}"#, r#"{"b":2}"#, &[r#"{"Op":"remove","Path":"/a"}"#]);
    check(r#"{"a":1,"b":2}"#, r#" { "b" : 2, "a" : 1 } "#, &[]);
    check(r#"{"a":"\u0041"}"#, r#"{"\u0061":"A"}"#, &[]);
    check(r#"{"a":1.0}"#, r#"{"a":1.00}"#, &[r#"{"Op":"replace","Path":"/a","Value":1.00}"#]);
    check(r#"{"a":null}"#, r#"{"a":[]}"#, &[r#"{"Op":"replace","Path":"/a","Value":[]}"#]);
    check(r#"{"a/b~\"c":1}"#, r#"{"a/b~\"c":2}"#, &[r#"{"Op":"replace","Path":"/a~1b~0\"c","Value":2}"#]);
    check(r#"{"":1}"#, r#"{"":2}"#, &[r#"{"Op":"replace","Path":"/","Value":2}"#]);
    check("[1,2,3,4]", "[1,9,4]", &[r#"{"Op":"replace","Path":"/1","Value":9}"#, r#"{"Op":"remove","Path":"/2"}"#]);
    check("[1,4]", "[1,2,3,4]", &[r#"{"Op":"add","Path":"/1","Value":2}"#, r#"{"Op":"add","Path":"/2","Value":3}"#]);
    check("1", "[1]", &[r#"{"Op":"replace","Path":"","Value":[1]}"#]);
    let long = "a value that is so long that nobody would want to send it twice";
    check(
        &format!(r#"{{"a":{{"b":"{long}","c":[1,2]}}}}"#),
        &format!(r#"{{"a":{{"b":"{long}","c":[1,3]}}}}"#),
        &[r#"{"Op":"replace","Path":"/a/c/1","Value":3}"#],
    );
    check(r#"{"a":[1,2,3]}"#, r#"{"a":[4,5,6]}"#, &[r#"{"Op":"replace","Path":"/a","Value":[4,5,6]}"#]);
}

#[test]
fn whole_documents_have_the_wire_form_of_the_contract() {
    let check = |write: &dyn Fn(&mut Vec<u8>), patch: &str| {
        let mut out = b"before ".to_vec();
        write(&mut out);
        assert_eq!(String::from_utf8(out), Ok(format!("before {patch}")));
    };
    let value = document(r#" {"a":1} "#);
    check(&|out| whole_add(&value, out), r#"[{"Op":"add","Path":"","Value":{"a":1}}]"#);
    check(&|out| whole_replace(&value, out), r#"[{"Op":"replace","Path":"","Value":{"a":1}}]"#);
    check(&whole_remove, r#"[{"Op":"remove","Path":""}]"#);
}

#[test]
fn changed_members_give_both_values() {
    let old = document(r#"{"id":"x","demand":450.0,"note":"n","same":[1, 2]}"#);
    let new = document(r#"{"id":"x","demand":500.0,"same":[1,2],"supply":null}"#);
    let found: Vec<_> = changed_members(&old, &new)
        .into_iter()
        .map(|member| (member.name.into_owned(), member.old.map(|v| v.as_raw()), member.new.map(|v| v.as_raw())))
        .collect();
    assert_eq!(
        found,
        [
            ("demand".into(), Some("450.0"), Some("500.0")),
            ("note".into(), Some(r#""n""#), None),
            ("supply".into(), None, Some("null")),
        ]
    );
    assert_eq!(changed_members(&old, &document("[]")), []);
}

#[test]
fn patches_become_documents() {
    let check = |base: &str, patch: &str, result: &str| {
        let patched = apply(Some(&document(base)), patch.as_bytes()).expect(patch);
        assert_eq!(patched, Patched::Document(document(result)), "{patch}");
    };
    check(r#"{"a":1.00}"#, "[]", r#"{"a":1.00}"#);
    check(r#"{"a": 1, "b": 2}"#, r#"[{"Op":"replace","Path":"/b","Value":3}]"#, r#"{"a":1,"b":3}"#);
    check(r#"{"a":1}"#, r#"[{"op":"add","path":"/b","value":[ ]}]"#, r#"{"a":1,"b":[ ]}"#);
    check(r#"{"a":1}"#, r#"[{"Op":"remove","Path":"/a"}]"#, "{}");
    check(r#"{"a":[1,2]}"#, r#"[{"Op":"add","Path":"/a/-","Value":3}]"#, r#"{"a":[1,2,3]}"#);
    check(r#"{"a":[1,2]}"#, r#"[{"Op":"add","Path":"/a/0","Value":0}]"#, r#"{"a":[0,1,2]}"#);
    check(r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":"/b"}]"#, r#"{"b":1}"#);
    check(r#"{"a":1}"#, r#"[{"op":"copy","from":"","path":"/b"}]"#, r#"{"a":1,"b":{"a":1}}"#);
    check(r#"{"a":[1.0]}"#, r#"[{"op":"test","path":"/a","value":[1]}]"#, r#"{"a":[1.0]}"#);
    check(r#"{"n\n":1}"#, r#"[{"Op":"replace","Path":"/n\n","Value":2}]"#, r#"{"n\n":2}"#);
    check(r#"{"n\n":1}"#, r#"[{"Op":"add","Path":"/n\\n","Value":2}]"#, r#"{"n\n":1,"n\\n":2}"#);
    check("1", r#"[{"Op":"remove","Path":""},{"Op":"add","Path":"","Value":{}}]"#, "{}");
    check("{}", r#"[{"Op":"add","Path":"/a","Value":1,"Extra":{"Path":"/b"}}]"#, r#"{"a":1}"#);
}

#[test]
fn patches_that_fail_say_which_operation_and_why() {
    let check = |base: Option<&str>, patch: &str, message: &str| {
        let base = base.map(document);
        assert_eq!(apply(base.as_ref(), patch.as_bytes()).expect_err(patch).to_string(), message, "{patch}");
    };
    let base = Some(r#"{"a":[1],"b":"x"}"#);
    check(base, "", "patch is not json");
    check(base, "{}", "patch is not json");
    check(base, "[] []", "patch is not json");
    check(base, "[1]", "operation 0: not an object");
    check(base, "[{}]", "operation 0: no path");
    check(base, r#"[{"Path":"/a"}]"#, "operation 0: no op");
    check(base, r#"[{"Op":"put","Path":"/a"}]"#, "operation 0: unknown op");
    check(base, r#"[{"Op":1,"Path":"/a"}]"#, "operation 0: op, path and from must be strings");
    check(base, r#"[{"Op":"add","Path":"/a"}]"#, "operation 0: no value");
    check(base, r#"[{"Op":"move","Path":"/a"}]"#, "operation 0: no from");
    check(base, r#"[{"Op":"remove","Path":"a"}]"#, "operation 0: invalid path");
    check(base, r#"[{"Op":"remove","Path":"/~2"}]"#, "operation 0: invalid path");
    check(base, r#"[{"Op":"remove","Path":"/c"}]"#, "operation 0: nothing at path `/c`");
    check(base, r#"[{"Op":"replace","Path":"/c","Value":1}]"#, "operation 0: nothing at path `/c`");
    check(base, r#"[{"Op":"replace","Path":"/a/-","Value":1}]"#, "operation 0: nothing at path `/a/-`");
    check(base, r#"[{"Op":"add","Path":"/a/2","Value":1}]"#, "operation 0: nothing at path `/a/2`");
    check(base, r#"[{"Op":"add","Path":"/a/01","Value":1}]"#, "operation 0: nothing at path `/a/01`");
    check(base, r#"[{"Op":"add","Path":"/b/c","Value":1}]"#, "operation 0: nothing at path `/b/c`");
    check(base, r#"[{"Op":"add","Path":"/c/d","Value":1}]"#, "operation 0: nothing at path `/c`");
    check(base, r#"[{"Op":"test","Path":"/b","Value":"y"}]"#, "operation 0: test failed at path `/b`");
    check(base, r#"[{"Op":"move","From":"/a","Path":"/a/0"}]"#, "operation 0: a value cannot move into itself");
    check(base, r#"[{"Op":"remove","Path":"/b"},{"Op":"remove","Path":"/b"}]"#, "operation 1: nothing at path `/b`");
    check(None, "[]", "operation 0: no document to patch");
    check(None, r#"[{"Op":"add","Path":"/a","Value":1}]"#, "operation 0: no document to patch");
    check(
        base,
        r#"[{"Op":"remove","Path":""},{"Op":"add","Path":"/a","Value":1}]"#,
        "operation 1: no document to patch",
    );
}

#[test]
fn patches_cannot_multiply_a_document_or_stack_it_too_high() {
    let copy = r#"{"op":"copy","from":"","path":"/a"},{"op":"copy","from":"/a","path":"/b"}"#;
    let patch = format!("[{}]", vec![copy; 40].join(","));
    let error = apply(Some(&document(r#"{"c":"0123456789"}"#)), patch.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "operation 34: copies too many bytes");

    let deep = "/a".repeat(200);
    let deeper = format!(r#"[{{"op":"add","path":"{deep}","value":1}}]"#);
    let error = apply(Some(&document("{}")), deeper.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "operation 0: nested too deep");

    let nested = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    let wrap = format!(r#"[{{"op":"add","path":"/a","value":{nested}}}]"#);
    let error = apply(Some(&document("{}")), wrap.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "patched document is invalid");
    let whole = format!(r#"[{{"op":"add","path":"","value":{nested}}}]"#);
    assert_eq!(apply(None, whole.as_bytes()), Ok(Patched::Document(document(&nested))));
}

#[test]
fn raw_values_answer_without_a_tree() {
    let document =
        document(r#"{"s":"a\u0062\"","i":-5,"f":1.5,"u":18446744073709551615,"t":true,"n":null,"o":{"x":[7]}}"#);
    let get = |name: &str| document.get(name).expect(name);
    assert_eq!(get("s").as_str().as_deref(), Some("ab\""));
    assert_eq!(get("i").as_i64(), Some(-5));
    assert_eq!(get("i").as_u64(), None);
    assert_eq!(get("u").as_u64(), Some(u64::MAX));
    assert_eq!(get("f").as_f64(), Some(1.5));
    assert_eq!(get("f").as_i64(), None);
    assert_eq!(get("s").as_f64(), None);
    assert_eq!(get("t").as_bool(), Some(true));
    assert!(get("n").is_null());
    assert_eq!(get("o").kind(), Kind::Object);
    let pointer: Pointer = "/o/x/0".parse().expect("a pointer");
    assert_eq!(pointer.first(), Some("o"));
    assert_eq!(document.pointer(&pointer).and_then(|value| value.as_i64()), Some(7));
    assert!(document.get("none").is_none());
}

#[test]
fn documents_travel_through_serde_byte_for_byte() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Envelope {
        document: Document,
    }
    let text = r#"{"document":{"a": 1.00}}"#;
    let envelope: Envelope = serde_json::from_str(text).expect("an envelope");
    assert_eq!(serde_json::to_string(&envelope).expect("json"), text);
    let error = serde_json::from_str::<Envelope>(r#"{"document":{"a":1,"a":2}}"#).err().expect("refused");
    let inner = JsonError::DuplicateMember { name: "a".into(), offset: 7 };
    assert!(error.to_string().starts_with(&inner.to_string()), "{error}");
}
