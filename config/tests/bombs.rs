//! Texts made to exhaust time or memory. Alone in its process, for the memory is the process's.

use std::time::{Duration, Instant};

use smartpulse_config::{Diagnostics, Node, SourceText, read_yaml};

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut diagnostics = Diagnostics::new();
    let node = read_yaml(&SourceText::file("f.yaml", text), &|_| None, &mut diagnostics);
    (node, diagnostics.problems().into_iter().map(|problem| problem.message.clone()).collect())
}

/// Resident memory at its highest, in KiB; `None` where the system does not tell.
fn memory_peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn bombs_end_fast_with_a_clear_error() {
    let laughs: String = (0..30)
        .map(|at| match at {
            0 => "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned(),
            _ => format!("a{at}: &a{at} [{}]\n", vec![format!("*a{}", at - 1); 9].join(", ")),
        })
        .collect();
    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 10_000].join(", "));
    let nested = format!("{}x{}", "&a [".repeat(60), ", y]".repeat(60));
    let wide = format!("[{}]", "a,".repeat(200_000));
    // As many as the first look lets pass.
    let widest = format!("[{}]", "a: b,".repeat(49_999));
    let pairs = format!("{{{}}}", (0..40_000).map(|at| format!("a{at}: b,")).collect::<String>());
    let before = memory_peak_kib();
    for (name, text, expected) in [
        ("billion laughs", laughs, Some("the document grows to more than 50000 values here")),
        ("long text repeated", long, Some("the document grows to more than 4194304 bytes of text here")),
        ("anchors at every level", nested, None),
        ("wide list", wide, Some("more than 50000 of `,`, `[` and `{`: too many values")),
        ("widest list", widest, Some("the document grows to more than 50000 values here")),
        ("wide mapping", pairs, None),
        ("wide block list", "- a\n".repeat(200_000), Some("the document grows to more than 50000 values here")),
        ("deep block list", "- ".repeat(500_000), Some("lists and mappings are nested deeper than 64 levels")),
        ("deep flow list", "[".repeat(40_000), Some("lists and mappings are nested deeper than 64 levels")),
        ("deep mapping", (0..800).map(|at| format!("{}a:\n", " ".repeat(at))).collect(), Some("nested deeper than 64")),
    ] {
        let start = Instant::now();
        let (_, problems) = read(&text);
        // The promise is 200 ms for the released program; this is unoptimised, beside other tests.
        assert!(start.elapsed() < Duration::from_secs(2), "{name} took {:?}", start.elapsed());
        println!("{name}: {:?}", start.elapsed());
        match expected {
            Some(expected) => assert!(problems.len() == 1 && problems[0].contains(expected), "{name}: {problems:?}"),
            None => assert!(problems.is_empty(), "{name}: {problems:?}"),
        }
    }
    if let (Some(before), Some(after)) = (before, memory_peak_kib()) {
        assert!(after - before < 64 * 1024, "{} KiB", after - before);
    }
}
