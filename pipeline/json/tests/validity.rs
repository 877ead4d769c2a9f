//! What counts as a document: hand-picked cases, and agreement with `serde_json` on everything else.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use smartpulse_json::{DEPTH_MAX, Document, JsonError};

fn parse(text: &[u8]) -> Result<Document, JsonError> {
    Document::parse(Bytes::copy_from_slice(text))
}

#[test]
fn valid_texts_become_the_values_of_serde_json() {
    let accept = |text: &str| {
        let document = parse(text.as_bytes()).expect(text);
        assert_eq!(document.to_value(), serde_json::from_str::<Value>(text).expect(text));
        assert_eq!(document.as_str(), text);
    };
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "10",
        "1.5",
        "1e5",
        "1E+5",
        "-1.25e-300",
        "1e-999",
        "123456789012345678901234567890",
        "0.1000",
        "0e99999",
        r#""""#,
        r#""a""#,
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0000\u00e9\uD83D\uDE00""#,
        "\"é😀\u{7f}\u{2028}\"",
        "[]",
        "[ ]",
        "[1]",
        "[1,[2,[]],{}]",
        "{}",
        " { } ",
        "\t\n\r 1 \n",
        r#"{"a":1}"#,
        r#"{ "a" : 1 , "b" : [ true , null ] }"#,
        r#"{"":0}"#,
        r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#,
        r#"[{"a":1},{"a":1}]"#,
        r#"{"a/b":1,"a~b":2}"#,
        r#"{"long name of a member":"a value that is longer than eight bytes"}"#,
    ] {
        accept(text);
    }
}

#[test]
fn invalid_texts_are_refused_where_they_go_wrong() {
    let refuse = |text: &str, message: &str| {
        assert_eq!(parse(text.as_bytes()).expect_err(text).to_string(), message, "{text}");
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
    };
    refuse("", "expected a value at byte 0");
    refuse("  ", "expected a value at byte 2");
    refuse("nul", "expected null at byte 0");
    refuse("truE", "expected true at byte 0");
    refuse("nulll", "expected end of text at byte 4");
    refuse("NaN", "expected a value at byte 0");
    refuse("Infinity", "expected a value at byte 0");
    refuse("'a'", "expected a value at byte 0");
    refuse("// c\n1", "expected a value at byte 0");
    refuse("\u{feff}1", "expected a value at byte 0");
    refuse("\u{a0}1", "expected a value at byte 0");
    refuse("1 2", "expected end of text at byte 2");
    refuse("1\0", "expected end of text at byte 1");
    refuse("01", "expected end of text at byte 1");
    refuse("-", "expected a digit at byte 1");
    refuse("+1", "expected a value at byte 0");
    refuse("-01", "expected end of text at byte 2");
    refuse(".5", "expected a value at byte 0");
    refuse("1.", "expected a digit at byte 2");
    refuse("1.e5", "expected a digit at byte 2");
    refuse("1e", "expected a digit at byte 2");
    refuse("1e+", "expected a digit at byte 3");
    refuse("0x10", "expected end of text at byte 1");
    refuse("1e400", "number out of range at byte 0");
    refuse("[-1e400]", "number out of range at byte 1");
    refuse(r#"""#, "expected `\"` at byte 1");
    refuse(r#""12345678901234"#, "expected `\"` at byte 15");
    refuse("\"a\nb\"", "expected an escape instead of a control character at byte 2");
    refuse("\"1234567\u{1f}\"", "expected an escape instead of a control character at byte 8");
    refuse(r#""\x""#, "expected an escape character at byte 2");
    refuse(r#""\"#, "expected an escape character at byte 2");
    refuse(r#""\u12g4""#, "expected four hexadecimal digits at byte 3");
    refuse(r#""\u+123""#, "expected four hexadecimal digits at byte 3");
    refuse(r#""\u12"#, "expected four hexadecimal digits at byte 3");
    refuse(r#""\ud800""#, "lone surrogate escape at byte 1");
    refuse(r#""\ude00""#, "lone surrogate escape at byte 1");
    refuse(r#""\ud800\u0041""#, "lone surrogate escape at byte 1");
    refuse(r#""\ud800\n""#, "lone surrogate escape at byte 1");
    refuse("[", "expected a value at byte 1");
    refuse("[1", "expected `,` or `]` at byte 2");
    refuse("[1,]", "expected a value at byte 3");
    refuse("[,1]", "expected a value at byte 1");
    refuse("[1 2]", "expected `,` or `]` at byte 3");
    refuse("[1}", "expected `,` or `]` at byte 2");
    refuse("]", "expected a value at byte 0");
    refuse("{", "expected a member name at byte 1");
    refuse("{a:1}", "expected a member name at byte 1");
    refuse("{1:1}", "expected a member name at byte 1");
    refuse(r#"{"a"}"#, "expected `:` at byte 4");
    refuse(r#"{"a":}"#, "expected a value at byte 5");
    refuse(r#"{"a":1,}"#, "expected a member name at byte 7");
    refuse(r#"{"a":1 "b":2}"#, "expected `,` or `}` at byte 7");
    refuse(r#"{"a":1]"#, "expected `,` or `}` at byte 6");
    refuse(r#"{"a":1}}"#, "expected end of text at byte 7");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let refuse = |text: &[u8], offset| assert_eq!(parse(text), Err(JsonError::Utf8 { offset }));
    refuse(b"\"\xff\"", 1);
    refuse(b"\"\xc0\xaf\"", 1);
    refuse(b"\"ab\xed\xa0\x80\"", 3);
    refuse(b"\"\xe2\x82", 1);
}

#[test]
fn duplicate_names_are_refused_at_any_depth() {
    let refuse = |text: &str, name: &str, offset| {
        let expected = JsonError::DuplicateMember { name: name.into(), offset };
        assert_eq!(parse(text.as_bytes()), Err(expected), "{text}");
    };
    refuse(r#"{"a":1,"a":1}"#, "a", 7);
    refuse(r#"{"a":1,"b":2,"\u0061":3}"#, "a", 13);
    refuse(r#"{"\u0061":1,"b":2,"a":3}"#, "a", 18);
    refuse(r#"{"":1,"":1}"#, "", 6);
    refuse(r#"[{"b":{"a":{},"a":1}}]"#, "a", 14);
    refuse(r#"{"x":{"a":1},"y":[{"a":1}],"x":0}"#, "x", 27);

    let members: Vec<String> = (0..1000).map(|n| format!("\"member{n}\":{n}")).collect();
    let large = format!("{{{}}}", members.join(","));
    let document = parse(large.as_bytes()).expect("1000 different names");
    assert_eq!(document.members().len(), 1000);
    assert_eq!(document.get("member999").and_then(|value| value.as_i64()), Some(999));
    for n in [0, 31, 32, 33, 999] {
        let text = format!("{{{},\"member{n}\":0}}", members.join(","));
        refuse(&text, &format!("member{n}"), large.len());
    }
}

#[test]
fn nesting_is_refused_where_serde_json_refuses_it() {
    let nested = |depth: usize, open: &str, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deepest = nested(DEPTH_MAX - 1, open, close);
        let document = parse(deepest.as_bytes()).expect("one less than the limit");
        assert_eq!(document.to_value().to_string(), deepest);
        for depth in [DEPTH_MAX, 100_000] {
            let text = nested(depth, open, close);
            let offset = open.len() * (DEPTH_MAX - 1);
            assert_eq!(parse(text.as_bytes()), Err(JsonError::TooDeep { offset }));
            assert!(serde_json::from_str::<Value>(&text).is_err());
        }
    }
}

#[test]
fn numbers_keep_every_digit() {
    let text = r#"{"a":12345678901234567890.12345678901234567890,"b":1.00}"#;
    let document = parse(text.as_bytes()).expect("valid");
    let raw = document.get("a").expect("present").as_raw();
    assert_eq!(raw, "12345678901234567890.12345678901234567890");
    assert_eq!(document.get("b").and_then(|value| value.as_f64()), Some(1.0));
}

#[test]
fn a_detached_document_has_bytes_of_its_own() {
    let buffer = Bytes::from(vec![b' '; 1 << 20]);
    let mut text = buffer.to_vec();
    text[10..17].copy_from_slice(br#"{"a":1}"#);
    let document = Document::parse(Bytes::from(text).slice(8..20)).expect("valid");
    let detached = document.detach();
    assert_eq!(detached, document);
    assert_eq!(detached.get("a").map(|value| value.as_raw()), Some("1"));
    assert_ne!(detached.bytes().as_ptr(), document.bytes().as_ptr());
}

/// Pieces of JSON, put together at random, come much closer to validity than random bytes.
fn almost_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\"a\"",
        "\"b\"",
        "\"\\u0061\"",
        "\\",
        "\\u",
        "d800",
        "\\n",
        " ",
        "\n",
        "1",
        "0",
        "-",
        ".",
        "e",
        "e5",
        "true",
        "null",
        "fals",
        "é",
        "\u{1}",
        "{\"a\":",
        "[1,",
        "1e400",
        "12345678",
    ]);
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

fn agrees_with_serde_json(text: &[u8]) -> Result<(), TestCaseError> {
    let theirs = serde_json::from_slice::<Value>(text);
    match (parse(text), theirs) {
        (Ok(document), Ok(value)) => prop_assert_eq!(document.to_value(), value),
        (Err(JsonError::DuplicateMember { .. }), _) | (Err(_), Err(_)) => {}
        (ours, theirs) => prop_assert!(false, "{ours:?} but {theirs:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes_are_judged_as_serde_json_judges_them(text in any::<Vec<u8>>()) {
        agrees_with_serde_json(&text)?;
    }

    #[test]
    fn almost_json_is_judged_as_serde_json_judges_it(text in almost_json()) {
        agrees_with_serde_json(&text)?;
    }

    #[test]
    fn a_damaged_document_is_judged_as_serde_json_judges_it(
        at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut text = br#"{"id":"a0\u00e9-4c","n":[-1.5e3,0,{"x":null}],"ok":true,"name":"caf\u00c3"}"#.to_vec();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        agrees_with_serde_json(&text)?;
    }
}
