//! Pipeline files: what is accepted, and what every mistake is told.

use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_config::{Diagnostics, Kind, PipelineSpec, RetryRef, Secret, SourceText};

/// Stands for the parameters of any sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    channel: String,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    count: Option<u16>,
    #[serde(default)]
    compress: bool,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    on_gap: Option<OnGap>,
    #[serde(default)]
    window: Option<Window>,
    #[serde(default)]
    anything: serde_json::Value,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnGap {
    /// Reads the document again.
    Resync,
    /// Goes on.
    Ignore,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Window {
    Time { ms: u32 },
    Count { events: u32 },
}

const HEAD: &str = "name: p\nsources:\n  changes: { type: topic }\n";

fn read(text: &str) -> (Option<PipelineSpec>, Vec<Option<Params>>, Diagnostics) {
    let lookup = |name: &str| match name {
        "PORT" => Some("8080".to_owned()),
        "PASSWORD" => Some("hunter2".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let mut diagnostics = Diagnostics::new();
    let spec = PipelineSpec::parse(&SourceText::file("p.yaml", text), &lookup, &mut diagnostics);
    let mut params = Vec::new();
    if let Some(spec) = &spec {
        params = spec.sinks.iter().map(|sink| sink.parse_params(&mut diagnostics)).collect();
        spec.check_consumed(&|type_name| type_name != "silent", &mut diagnostics);
    }
    (spec, params, diagnostics)
}

/// The problems of a file as `line:column path: message (help)`, for tables.
fn problems(text: &str) -> Vec<String> {
    let (_, _, diagnostics) = read(text);
    let lines = diagnostics.problems().into_iter().map(|problem| {
        let at = problem.span.as_ref().map_or_else(String::new, |span| format!("{}:{}", span.line, span.column));
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
        format!("{at} {}: {}{help}", problem.path, problem.message)
    });
    lines.collect()
}

/// Checks the problems of a file with one sink `out`, whose parameters are `params`.
#[track_caller]
fn check(params: &str, expected: &[&str]) {
    let text = format!("{HEAD}sinks:\n  out: {{ type: pubsub, inputs: [changes], {params} }}\n");
    assert_eq!(problems(&text), expected, "{params}");
}

#[track_caller]
fn accepted(params: &str) -> Params {
    let text = format!("{HEAD}sinks:\n  out: {{ type: pubsub, inputs: [changes], {params} }}\n");
    let (_, mut params, diagnostics) = read(&text);
    assert!(diagnostics.is_empty(), "{diagnostics}");
    params.pop().flatten().expect("there is one sink")
}

#[test]
fn a_pipeline_keeps_order_inputs_and_options() {
    let text = r#"
name: forecast-sync
description: Patches to the browsers.
sources:
  changes: { type: topic, bus: bus, topic: "cdc:forecasts" }
operators:
  ordered: { type: detect_gap, inputs: [changes], on_gap: resync }
  patches: { type: diff, inputs: [ordered], parallelism: 4 }
sinks:
  broadcast:
    type: pubsub
    inputs: [patches]
    channel: "__dataChanged:{key}"
    retry: redis
    buffer: 8
"#;
    let (spec, _, diagnostics) = read(text);
    assert!(diagnostics.is_empty(), "{diagnostics}");
    let spec = spec.expect("it is valid");
    let ids: Vec<_> = spec.components().map(|component| (component.kind, &*component.id)).collect();
    assert_eq!(
        ids,
        [
            (Kind::Source, "changes"),
            (Kind::Operator, "ordered"),
            (Kind::Operator, "patches"),
            (Kind::Sink, "broadcast")
        ]
    );
    let patches = spec.component("patches").expect("it exists");
    assert_eq!((patches.parallelism, &*patches.inputs[0].id, &*patches.type_name), (Some(4), "ordered", "diff"));
    let sink = &spec.sinks[0];
    assert_eq!((&sink.retry, sink.buffer), (&Some(RetryRef::Name("redis".into())), Some(8)));
    let keys: Vec<_> =
        sink.params.as_mapping().expect("a mapping").entries.iter().map(|entry| &*entry.key.name).collect();
    assert_eq!(keys, ["channel"]);
    let problem = sink.located.problem("retry.attempts", "too many", None);
    let span = problem.span.expect("it points into the file");
    assert_eq!((span.to_string(), &*problem.path), ("p.yaml:14:12".into(), "sinks.broadcast.retry.attempts"));
}

#[test]
fn all_problems_are_reported_at_once_in_the_look_of_rustc() {
    let text = "\
name: p
sources:
  changes: { type: topic }
operators:
  ordered: { type: detect_gap, inputs: [chnges] }
sinks:
  broadcast:
    type: pubsub
    inputs: [ordered]
    chanel: \"__dataChanged\"
    password: hunter2
    retry: { kind: fixed, atempts: 5, attempts: 5, delay_ms: \"10\" }
";
    let (_, _, diagnostics) = read(text);
    let expected = "\
error: there is no source or operator `chnges`
 --> p.yaml:5:41
  |
5 |   ordered: { type: detect_gap, inputs: [chnges] }
  |                                         ^^^^^^
  |
  = note: at `operators.ordered.inputs[0]`
  = help: did you mean `changes`?

error: missing key `channel`
 --> p.yaml:7:3
  |
7 |   broadcast:
  |   ^^^^^^^^^
  |
  = note: at `sinks.broadcast`
  = help: add `channel:`, a string

error: unknown key `chanel` in `sinks.broadcast`
  --> p.yaml:10:5
   |
10 |     chanel: \"__dataChanged\"
   |     ^^^^^^
   |
   = note: at `sinks.broadcast.chanel`
   = help: did you mean `channel`?

error: `password` is a secret and must not be written out
  --> p.yaml:11:15
   |
11 |     password: <redacted>
   |               ^^^^^^^^^^
   |
   = note: at `sinks.broadcast.password`
   = help: take it from the environment or a file: `${env:NAME}` or `${file:path}`

error: unknown key `atempts` in `sinks.broadcast.retry`
  --> p.yaml:12:27
   |
12 |     retry: { kind: fixed, atempts: 5, attempts: 5, delay_ms: \"10\" }
   |                           ^^^^^^^
   |
   = note: at `sinks.broadcast.retry.atempts`
   = help: `attempts` is given already: remove this one

error: expected an integer, found the string `10`
  --> p.yaml:12:62
   |
12 |     retry: { kind: fixed, atempts: 5, attempts: 5, delay_ms: \"10\" }
   |                                                              ^^^^
   |
   = note: at `sinks.broadcast.retry.delay_ms`
   = help: write `10`, without quotes

error: 6 problems";
    assert_eq!(diagnostics.to_string(), expected);
}

#[test]
fn color_adds_styles_and_nothing_else() {
    let (_, _, diagnostics) = read("name: p\nsink: {}\n");
    let mut plain = String::new();
    let mut rest = &*diagnostics.render(true);
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').expect("a style ends with m").1;
    }
    plain.push_str(rest);
    assert_eq!(plain, diagnostics.render(false));
}

#[test]
fn unknown_keys_are_named_with_their_nearest_spelling_at_every_depth() {
    let text = format!(
        "{HEAD}sink:\n  x: 1\nsinks:\n  out: {{ type: pubsub, inputs: [changes], channel: c, cuont: 1, window: {{ kind: \
         time, ms: 1, evnts: 2 }} }}\n"
    );
    assert_eq!(
        problems(&text),
        [
            "4:1 sink: unknown key `sink` (did you mean `sinks`?)",
            "7:55 sinks.out.cuont: unknown key `cuont` in `sinks.out` (did you mean `count`?)",
            "7:94 sinks.out.window.evnts: unknown key `evnts` in `sinks.out.window` (the keys are `kind`, `ms`)",
        ]
    );
}

#[test]
fn values_of_the_wrong_type_say_what_was_expected() {
    for (params, expected) in [
        ("channel: [a]", "4 channel: expected a string, found a list"),
        ("channel: ", "expected a string, found nothing (give a value, or remove the key)"),
        ("channel: null", "expected a string, found null (write `\"null\"` if the text is meant)"),
        ("channel: c, count: many", "expected an integer, found the string `many`"),
        ("channel: c, count: \"10\"", "expected an integer, found the string `10` (write `10`, without quotes)"),
        ("channel: c, count: 1_000", "expected an integer, found the string `1_000` (write `1000`, without `_`)"),
        ("channel: c, count: 1.5", "expected an integer, found the number 1.5"),
        ("channel: c, count: 70000", "expected a number from 0 to 65535, found 70000"),
        ("channel: c, count: -1", "expected a number from 0 to 65535, found -1"),
        ("channel: c, compress: yes", "expected true or false, found the string `yes` (write `true`, without quotes)"),
        ("channel: c, fields: a", "expected a list, found the string `a` (write it as a list: `[a]`)"),
        ("channel: c, on_gap: resinc", "unknown value `resinc` (did you mean `resync`?)"),
        ("channel: c, on_gap: x", "unknown value `x` (the values are `resync`, `ignore`)"),
        ("channel: c, on_gap: [x]", "expected a string, found a list"),
        ("channel: c, window: { ms: 1 }", "missing key `kind` (add `kind:`, one of `time`, `count`)"),
        ("channel: c, window: { kind: tine }", "unknown value `tine` (did you mean `time`?)"),
        ("channel: c, window: { kind: count }", "missing key `events` (add `events:`, an integer)"),
        ("channel: c, window: 5", "expected a mapping, found the number 5"),
    ] {
        let text = format!("{HEAD}sinks:\n  out: {{ type: pubsub, inputs: [changes], {params} }}\n");
        let problems = problems(&text);
        let expected = expected.trim_start_matches("4 channel: ");
        assert!(problems.len() == 1 && problems[0].ends_with(expected), "{params}: {problems:?}");
    }
}

#[test]
fn bare_words_stay_strings_where_strings_are_wanted() {
    for (written, read) in [("no", "no"), ("10", "10"), ("true", "true"), ("1e3", "1e3"), ("0x1f", "0x1f")] {
        assert_eq!(accepted(&format!("channel: {written}")).channel, read);
    }
    let params =
        accepted("channel: c, fields: [no, 1, a], anything: { a: no, b: 1, c: 0x10, d: true, e: ~, f: \"1\" }");
    assert_eq!(params.fields, ["no", "1", "a"]);
    assert_eq!(params.anything, serde_json::json!({ "a": "no", "b": 1, "c": 16, "d": true, "e": null, "f": "1" }));
}

#[test]
fn enums_options_and_numbers_are_read() {
    let params = accepted("channel: c, on_gap: ignore, window: { kind: count, events: 5 }, count: 7, compress: true");
    assert_eq!(
        (params.on_gap, params.window, params.count, params.compress),
        (Some(OnGap::Ignore), Some(Window::Count { events: 5 }), Some(7), true)
    );
    let params = accepted("channel: c, on_gap: null, window: ~, count:");
    assert_eq!((params.on_gap, params.window, params.count), (None, None, None));
}

#[test]
fn interpolation_fills_in_variables_defaults_and_escapes() {
    for (written, read) in [
        ("\"${env:PORT}\"", "8080"),
        ("\"a${env:PORT}b${env:MISSING:-c}\"", "a8080bc"),
        ("\"${env:EMPTY:-c}\"", "c"),
        ("\"${env:EMPTY}x\"", "x"),
        ("\"${env:MISSING:-}x\"", "x"),
        ("\"$${env:PORT} $5 {key}\"", "${env:PORT} $5 {key}"),
    ] {
        assert_eq!(accepted(&format!("channel: {written}")).channel, read, "{written}");
    }
    // An interpolated scalar may become a number even in quotes: YAML needs them around `{`.
    assert_eq!(accepted("channel: c, count: \"${env:PORT}\"").count, Some(8080));
    check(
        "channel: \"${env:MISSING}${env:ALSO}\", count: \"${env:PASSWORD}\"",
        &[
            "5:52 sinks.out.channel: environment variable `MISSING` is not set (set it, or give a default: \
             `${env:MISSING:-default}`)",
            "5:52 sinks.out.channel: environment variable `ALSO` is not set (set it, or give a default: \
             `${env:ALSO:-default}`)",
            "5:88 sinks.out.count: expected an integer, found the string `hunter2`",
        ],
    );
    check(
        "channel: \"${HOME}\"",
        &["5:52 sinks.out.channel: `${HOME}` is not something to fill in (the forms are `${env:NAME}`, \
           `${env:NAME:-default}` and `${file:path}`; write `$${` for a literal `${`)"],
    );
}

#[test]
fn files_are_read_relative_to_the_yaml_file() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("password"), "from-file\n").expect("written");
    std::fs::write(folder.path().join("large"), vec![b'x'; 65 * 1024]).expect("written");
    let file = folder.path().join("p.yaml");
    let read = |reference: &str| {
        let sink = format!("{{ type: t, inputs: [changes], channel: c, password: \"${{file:{reference}}}\" }}");
        std::fs::write(&file, format!("{HEAD}sinks:\n  out: {sink}\n")).expect("written");
        let mut diagnostics = Diagnostics::new();
        let source = SourceText::read(&file).expect("a text");
        let spec = PipelineSpec::parse(&source, &|_| None, &mut diagnostics).expect("a spec");
        let params: Option<Params> = spec.sinks[0].parse_params(&mut diagnostics);
        (params.and_then(|params| params.password), diagnostics)
    };
    let (password, diagnostics) = read("password");
    assert!(diagnostics.is_empty(), "{diagnostics}");
    assert_eq!(password.as_ref().map(Secret::expose), Some("from-file"));
    assert_eq!(format!("{password:?}"), "Some(<redacted>)");
    for (reference, reason) in [("missing", "cannot read `missing`"), ("large", "it is larger than 65536 bytes")] {
        let (password, diagnostics) = read(reference);
        assert!(password.is_none() && diagnostics.len() == 1, "{diagnostics}");
        assert!(diagnostics.to_string().contains(reason), "{diagnostics}");
    }
}

#[test]
fn a_secret_never_shows_in_a_message_or_an_excerpt() {
    assert_eq!(
        accepted("channel: c, password: \"${env:PASSWORD}\"").password.as_ref().map(Secret::expose),
        Some("hunter2")
    );
    for params in [
        // A literal; a default, which is a literal too; literals made to look interpolated.
        "channel: c, password: hunter2",
        "channel: c, password: \"hunter2\", cuont: 1",
        "channel: c, password: \"${env:MISSING:-hunter2}\"",
        "channel: c, password: \"hunter2${env:EMPTY}\"",
        "channel: c, password: \"hunter2${env:EMPTY:-}\"",
        // Misspelled; the wrong shape; beside another problem; in a file that is not even YAML.
        "channel: c, pasword: hunter2",
        "channel: c, password: [hunter2]",
        "channel: c, password: { x: hunter2 }",
        "channel: [x], password: hunter2",
        "channel: c, password: hunter2, count: }",
        "channel: c, password: hunter2 ]",
        // From outside, and met again in a message elsewhere.
        "channel: c, password: \"${env:PASSWORD}\", count: \"${env:PASSWORD}\"",
    ] {
        let text = format!("{HEAD}sinks:\n  out: {{ type: pubsub, inputs: [changes], {params} }}\n");
        let (spec, _, diagnostics) = read(&text);
        assert!(!diagnostics.is_empty(), "{params}");
        for shown in [diagnostics.to_string(), format!("{diagnostics:?}"), diagnostics.render(true)] {
            assert!(!shown.contains("hunter2"), "{params}: {shown}");
        }
        drop(spec);
    }
}

#[test]
fn the_graph_is_checked() {
    for (body, expected) in [
        (
            "operators:\n  a: { type: diff, inputs: [c, changes] }\n  b: { type: diff, inputs: [a] }\n  c: { type: diff, \
             inputs: [b] }\nsinks:\n  out: { type: s, inputs: [c], channel: x }\n",
            "6:29 operators.b.inputs[0]: `b` feeds itself: b -> c -> a -> b (events flow one way: remove one of these \
             inputs)",
        ),
        (
            "operators:\n  a: { type: diff, inputs: [a, changes] }\nsinks:\n  out: { type: s, inputs: [a], channel: x }\n",
            "5:29 operators.a.inputs[0]: `a` feeds itself: a -> a (events flow one way: remove one of these inputs)",
        ),
        (
            "sinks:\n  out: { type: s, inputs: [change], channel: x }\n",
            "5:28 sinks.out.inputs[0]: there is no source or operator `change` (did you mean `changes`?)",
        ),
        (
            "sinks:\n  out: { type: s, inputs: [changes], channel: x }\n  two: { type: s, inputs: [out], channel: x }\n",
            "6:28 sinks.two.inputs[0]: `out` is a sink, which has no output (read from what that sink reads from)",
        ),
        (
            "sinks:\n  out: { type: s, inputs: [changes, changes], channel: x }\n",
            "5:37 sinks.out.inputs[1]: `changes` is listed twice (remove one)",
        ),
        (
            "operators:\n  a: { type: diff, inputs: [] }\nsinks:\n  out: { type: s, inputs: [changes, a], channel: x }\n",
            "5:20 operators.a.inputs: `a` has no `inputs` (list the ids it reads from: `inputs: [..]`)",
        ),
        (
            "operators:\n  a: { type: diff, inputs: [changes] }\n  quiet: { type: silent, inputs: [changes] }\nsinks:\n  \
             out: { type: s, inputs: [changes], channel: x }\n",
            "5:3 operators.a: nothing reads from the operator `a` (name it in the `inputs` of an operator or a sink, or \
             remove it: `inputs: [a]`)",
        ),
        (
            "sinks:\n  changes: { type: s, inputs: [changes], channel: x }\n",
            "5:3 sinks.changes: the id `changes` is taken (ids are unique across sources, operators and sinks; the \
             first is at p.yaml:3:3)",
        ),
        (
            "sinks:\n  Out: { type: s, inputs: [changes], channel: x }\n",
            "5:3 sinks.Out: `Out` cannot be an id (use 1 to 64 lower-case letters, digits and `_`, starting with a \
             letter)",
        ),
        (
            "sinks:\n  out: { inputs: [changes], channel: x }\n",
            "5:3 sinks.out: missing key `type` (`smartpulse list` names the types)",
        ),
        (
            "operators:\n  a: { type: diff, inputs: [changes], parallelism: 257 }\nsinks:\n  out: { type: s, inputs: [a], \
             channel: x }\n",
            "5:52 operators.a.parallelism: expected a number from 1 to 256, found 257",
        ),
    ] {
        let found = problems(&format!("{HEAD}{body}"));
        // Where there is no sink, the source has no reader either; only the first is the point here.
        assert_eq!(found.iter().find(|line| !line.starts_with("3:3 ")).map(String::as_str), Some(expected), "{body}");
        let others = found.iter().filter(|line| !line.starts_with("3:3 ")).count();
        assert_eq!(others, 1, "{found:?}");
    }
}

#[test]
fn a_pipeline_needs_a_source() {
    for (text, expected) in [
        ("name: p\n", "1:1 sources: a pipeline needs at least one source (add one under `sources:`)"),
        ("name: p\nsources:\n", "2:1 sources: a pipeline needs at least one source (add one under `sources:`)"),
        ("name: p\nsources: {}\n", "2:1 sources: a pipeline needs at least one source (add one under `sources:`)"),
        (
            "name: p\nsources: [a]\n",
            "2:1 sources: `sources` must be a mapping of ids (write each source as `id: { type: .. }`, without `-`)",
        ),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn an_input_may_name_a_port() {
    let text = format!("{HEAD}sinks:\n  out: {{ type: s, inputs: [changes.late, changes], channel: c }}\n");
    let (spec, _, diagnostics) = read(&text);
    assert!(diagnostics.is_empty(), "{diagnostics}");
    let spec = spec.expect("it is valid");
    let inputs: Vec<_> = spec.sinks[0].inputs.iter().map(|input| (&*input.id, input.port.as_deref())).collect();
    assert_eq!(inputs, [("changes", Some("late")), ("changes", None)]);
}

#[test]
fn options_of_another_kind_are_refused_with_the_reason() {
    let text = "name: p\nsources:\n  a: { type: t, retry: redis, inputs: [b] }\nsinks:\n  b: { type: t, inputs: [a], channel: \
                c }\n";
    assert_eq!(
        problems(text),
        [
            "3:17 sources.a.retry: sources have no `retry` (the resource it reads from retries by itself; `retry` \
             belongs to sinks)",
            "3:31 sources.a.inputs: sources have no `inputs` (a source reads from outside; name it in the `inputs` of \
             others instead)",
        ]
    );
}

#[test]
fn a_hopeless_file_gives_fifty_problems_and_a_count() {
    let keys: String = (0..20_000).map(|at| format!("    key{at}: 1\n")).collect();
    let text = format!("{HEAD}sinks:\n  out:\n    type: t\n    inputs: [changes]\n    channel: c\n{keys}");
    let start = std::time::Instant::now();
    let (_, _, diagnostics) = read(&text);
    let shown = diagnostics.to_string();
    assert_eq!(diagnostics.len(), 20_000);
    assert_eq!(shown.matches("error: unknown key").count(), 50);
    assert!(shown.ends_with("... and 19950 more\n\nerror: 20000 problems"), "{shown}");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
