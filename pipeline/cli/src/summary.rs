//! The table at the end of a run: what went in, what came out, and what became of the rest.

use crate::reading::Reading;
use crate::style::{Paint, Side, Table, counted, duration, rate, thousands};
use std::time::Duration;

const DROPPED: &str = "component_events_dropped_total";
const NOTED: &str = "component_events_noted_total";

/// What one pipeline did.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    pipeline: String,
    events_in: u64,
    events_out: u64,
    duplicates: u64,
    gaps: u64,
    conflicts: u64,
    dead_letters: u64,
    /// What else was dropped on purpose, by reason.
    dropped: Vec<(String, u64)>,
}

impl Line {
    fn of(reading: &Reading, pipeline: &str) -> Self {
        let of = |name: &'static str, more: &[(&str, &str)]| {
            let labels: Vec<(&str, &str)> = [("pipeline", pipeline)].iter().chain(more).copied().collect();
            reading.sum(name, &labels)
        };
        let mut dropped = reading.sums_by(DROPPED, &[("pipeline", pipeline)], "reason");
        dropped.retain(|(reason, count)| reason != "duplicate" && *count > 0);
        Self {
            pipeline: pipeline.to_owned(),
            events_in: events_in(reading, &[("pipeline", pipeline)]),
            events_out: of("component_events_out_total", &[("kind", "sink")]),
            duplicates: of(DROPPED, &[("reason", "duplicate")]),
            gaps: of(NOTED, &[("what", "gap")]),
            conflicts: of(NOTED, &[("what", "conflict")]),
            dead_letters: of("component_dead_letters_total", &[]),
            dropped,
        }
    }
}

/// What sources have taken in: what they passed on and what they could not read.
pub fn events_in(reading: &Reading, labels: &[(&str, &str)]) -> u64 {
    let labels: Vec<(&str, &str)> = labels.iter().chain(&[("kind", "source")]).copied().collect();
    reading.sum("component_events_out_total", &labels) + reading.sum("component_dead_letters_total", &labels)
}

/// The closing summary of pipelines.
pub fn closing(reading: &Reading, pipelines: &[&str], elapsed: Duration, paint: Paint) -> String {
    let lines: Vec<Line> = pipelines.iter().map(|pipeline| Line::of(reading, pipeline)).collect();
    render(&lines, elapsed, paint)
}

fn render(lines: &[Line], elapsed: Duration, paint: Paint) -> String {
    let mut table = Table::new(&[
        ("pipeline", Side::Left),
        ("events in", Side::Right),
        ("out", Side::Right),
        ("per s", Side::Right),
        ("duplicates", Side::Right),
        ("gaps", Side::Right),
        ("conflicts", Side::Right),
        ("dead letters", Side::Right),
    ]);
    for line in lines {
        let flow = [thousands(line.events_in), thousands(line.events_out), rate(line.events_in, elapsed)];
        let rest = [line.duplicates, line.gaps, line.conflicts, line.dead_letters].map(thousands);
        table.row([line.pipeline.clone()].into_iter().chain(flow).chain(rest).collect());
    }
    let mut text = format!("\n{}\n", table.render(paint));
    text.push_str(&format!("{}\n", paint.bold(format!("ran for {}", duration(elapsed)))));
    for line in lines {
        for (reason, count) in &line.dropped {
            text.push_str(&format!("{}: {} dropped as {reason}\n", line.pipeline, counted(*count, "event")));
        }
    }
    for line in lines.iter().filter(|line| line.dead_letters > 0) {
        let set_aside = paint.yellow(format!("{} set aside", counted(line.dead_letters, "dead letter")));
        text.push_str(&format!("{set_aside}: smartpulse dlq list --pipeline {}\n", line.pipeline));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_says_where_the_dead_letters_are() {
        let line = |pipeline: &str, events_in, dead_letters| Line {
            pipeline: pipeline.to_owned(),
            events_in,
            events_out: events_in - 3,
            duplicates: 1,
            gaps: 2,
            conflicts: 0,
            dead_letters,
            dropped: if dead_letters > 0 { vec![("filtered".to_owned(), 7)] } else { Vec::new() },
        };
        let text = render(&[line("capture", 983_808, 0), line("s", 10, 2)], Duration::from_secs(4), Paint::none());
        let expected = "
pipeline  events in      out    per s  duplicates  gaps  conflicts  dead letters
capture     983,808  983,805  245,952           1     2          0             0
s                10        7      2.5           1     2          0             2

ran for 4.00 s
s: 7 events dropped as filtered
2 dead letters set aside: smartpulse dlq list --pipeline s
";
        assert_eq!(text, expected);
    }
}
