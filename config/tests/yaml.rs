//! The reader of YAML: limits, what is refused, and that no text makes it panic.

use proptest::prelude::*;
use smartpulse_config::{DEPTH_MAX, Diagnostics, Node, PipelineSpec, SourceText, TEXT_BYTES_MAX, read_yaml};

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut diagnostics = Diagnostics::new();
    let node = read_yaml(&SourceText::file("f.yaml", text), &|_| None, &mut diagnostics);
    let lines = diagnostics.problems().into_iter().map(|problem| {
        let span = problem.span.as_ref().map_or_else(String::new, ToString::to_string);
        format!("{span}: {}", problem.message)
    });
    (node, lines.collect())
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(read(text).1, expected, "{text}");
}

#[test]
fn what_is_refused_is_named() {
    for (text, expected) in [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: duplicate key `a`"),
        ("a: 1\n\"a\": 3\n", "f.yaml:2:1: duplicate key `a`"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "f.yaml:3:3: merge keys (`<<`) are not supported"),
        ("a: !!int 1\n", "f.yaml:1:4: YAML tags (`!..`) are not supported"),
        ("a: !secret x\n", "f.yaml:1:4: YAML tags (`!..`) are not supported"),
        ("404: x\n", "f.yaml:1:1: the key `404` is not a string"),
        ("true: x\n", "f.yaml:1:1: the key `true` is not a string"),
        ("? [a]\n: x\n", "f.yaml:1:3: a list or mapping cannot be a key"),
        ("a: &x b\n*x : c\n", "f.yaml:2:1: an alias cannot be a key"),
        ("a: &x [*x]\n", "f.yaml:1:8: this alias refers to the value it stands in"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second YAML document starts here"),
        ("", "f.yaml:1:1: there is nothing in this text"),
        ("# only a comment\n", "f.yaml:1:1: there is nothing in this text"),
        ("---\n", "f.yaml:1:1: there is nothing in this text"),
    ] {
        check(text, &[expected]);
    }
}

#[test]
fn syntax_errors_have_a_position() {
    for (text, place) in [("a: [1, 2\n", "f.yaml:2:1"), ("a: b: c\n", "f.yaml:1:5"), ("a: \"x\n", "f.yaml:1:4")] {
        let (node, problems) = read(text);
        assert!(node.is_none());
        assert!(problems.len() == 1 && problems[0].starts_with(place), "{problems:?}");
        assert!(problems[0].contains("not valid YAML: "), "{problems:?}");
    }
}

#[test]
fn positions_count_characters_and_survive_windows_line_ends() {
    let (node, problems) = read("ключ: ü\r\nb: [ä, \"x\"]\r\n");
    assert!(problems.is_empty(), "{problems:?}");
    let node = node.expect("a tree");
    let mapping = node.as_mapping().expect("a mapping");
    let spans: Vec<_> = mapping.entries.iter().map(|entry| entry.value.span.to_string()).collect();
    assert_eq!(spans, ["f.yaml:1:7", "f.yaml:2:4"]);
    let items = mapping.entries[1].value.as_sequence().expect("a list");
    assert_eq!(items[1].span.to_string(), "f.yaml:2:8");
    let span = &items[1].span;
    assert_eq!(&span.source.text()[span.offset as usize..span.end() as usize], "\"x\"");
}

#[test]
fn aliases_share_a_value() {
    let (node, problems) = read("a: &x {b: [1, 2]}\nc: *x\n");
    assert!(problems.is_empty(), "{problems:?}");
    let node = node.expect("a tree");
    let text = |key: &str| format!("{:?}", node.as_mapping().and_then(|mapping| mapping.get(key)).map(|e| &e.value));
    assert_eq!(text("a"), text("c"));
}

#[test]
fn depth_and_length_have_exact_limits() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    check(&nested(DEPTH_MAX), &[]);
    check(&nested(DEPTH_MAX + 1), &["f.yaml:1:65: lists and mappings are nested deeper than 64 levels"]);
    // Through an alias the depth is the sum.
    let through = |depth: usize| format!("a: &a {}\nb: {}*a{}\n", nested(40), "[".repeat(depth), "]".repeat(depth));
    check(&through(23), &[]);
    check(&through(24), &["f.yaml:2:28: lists and mappings are nested deeper than 64 levels"]);
    let long = |bytes: usize| format!("a: {}", "x".repeat(bytes - 3));
    check(&long(TEXT_BYTES_MAX), &[]);
    check(&long(TEXT_BYTES_MAX + 1), &["f.yaml:1:1: the text is longer than 1048576 bytes"]);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = folder.path().join("long.yaml");
    std::fs::write(&long, "é".repeat(TEXT_BYTES_MAX)).expect("written");
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).expect("written");
    for (path, expected) in [
        (folder.path().join("none.yaml"), "cannot read"),
        (long, "the text is longer than 1048576 bytes"),
        (binary, "is not UTF-8 text"),
    ] {
        let mut diagnostics = Diagnostics::new();
        match SourceText::read(&path) {
            Ok(text) => assert!(read_yaml(&text, &|_| None, &mut diagnostics).is_none()),
            Err(problem) => diagnostics.push(problem),
        }
        assert!(diagnostics.len() == 1 && diagnostics.to_string().contains(expected), "{diagnostics}");
    }
}

/// Text made of what matters to a YAML parser, which plain random text seldom hits.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "name",
        "sources",
        "sinks",
        "operators",
        "type",
        "inputs",
        "retry",
        "a",
        "b",
        ":",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a",
        "!t ",
        "\"",
        "'",
        "|",
        ">",
        "#",
        "? ",
        "---\n",
        "...",
        "<<",
        "~",
        "\t",
        "${env:A}",
        "${file:/dev/null}",
        "$${",
        "é",
        "\u{2028}",
        "\r\n",
        "\u{feff}",
        "%",
        "@",
        "`",
        "10",
        "password: x",
        "\0",
        "😀",
        "|-\n",
        ">+2\n",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn survives(text: &str) {
    let mut diagnostics = Diagnostics::new();
    let source = SourceText::file("f.yaml", text);
    let spec = PipelineSpec::parse(&source, &|_| Some("x".into()), &mut diagnostics);
    if let Some(spec) = spec {
        for component in spec.components() {
            let _: Option<serde_json::Value> = component.parse_params(&mut diagnostics);
        }
    }
    let _ = diagnostics.render(true);
    assert!(!diagnostics.to_string().is_empty() || diagnostics.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        survives(&text);
    }

    #[test]
    fn text_that_looks_like_yaml_never_panics(text in yaml_like()) {
        survives(&text);
    }
}
