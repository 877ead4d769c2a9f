//! The looks of what is printed: colours for terminals, numbers, durations, tables and wrapped text.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

/// Text is never set wider: longer lines are hard to read.
const COLUMNS_MAX: usize = 110;

/// Where the width is not known.
const COLUMNS_DEFAULT: usize = 100;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    colours: bool,
}

impl Paint {
    /// For standard output.
    pub fn stdout() -> Self {
        Self { colours: io::stdout().is_terminal() && wanted() }
    }

    /// For standard error.
    pub fn stderr() -> Self {
        Self { colours: io::stderr().is_terminal() && wanted() }
    }

    /// For text that is measured or kept.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { colours: false }
    }

    pub fn colours(self) -> bool {
        self.colours
    }

    pub fn bold(self, text: impl Display) -> String {
        self.sgr("1", text)
    }

    pub fn dim(self, text: impl Display) -> String {
        self.sgr("2", text)
    }

    pub fn red(self, text: impl Display) -> String {
        self.sgr("1;31", text)
    }

    pub fn green(self, text: impl Display) -> String {
        self.sgr("32", text)
    }

    pub fn cyan(self, text: impl Display) -> String {
        self.sgr("36", text)
    }

    pub fn yellow(self, text: impl Display) -> String {
        self.sgr("33", text)
    }

    fn sgr(self, code: &str, text: impl Display) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// <https://no-color.org>, and terminals that cannot.
fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The columns that text may take.
pub fn columns() -> usize {
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    width.unwrap_or(COLUMNS_DEFAULT).clamp(40, COLUMNS_MAX)
}

/// Prints to standard output. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 event`, `2,000 events`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// Events per second, to three digits below a hundred.
pub fn rate(events: u64, elapsed: Duration) -> String {
    let rate = events as f64 / elapsed.as_secs_f64().max(1e-9);
    if rate < 99.95 { format!("{rate:.1}") } else { thousands(rate.round() as u64) }
}

/// A duration as people say it: `3.1 ms`, `4.20 s`, `2 min 5 s`, `3 h 12 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let whole = duration.as_secs();
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {} s", whole / 60, whole % 60),
        s if s < 86_400.0 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Text broken at spaces, so that no line is longer than `width` where words allow.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Text of at most `width` characters, on one line.
pub fn clip(text: &str, width: usize) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= width {
        return line;
    }
    let mut kept: String = line.chars().take(width.saturating_sub(3)).collect();
    kept.push_str("...");
    kept
}

/// Which side a column is flush with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Columns as wide as their widest cell.
pub struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with a heading.
    pub fn new(heading: &[(&str, Side)]) -> Self {
        let sides = heading.iter().map(|(_, side)| *side).collect();
        Self { sides, rows: vec![heading.iter().map(|(text, _)| (*text).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    /// The lines, the heading dimmed.
    pub fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        for (at, line) in self.lines().enumerate() {
            let line = if at == 0 { paint.dim(line) } else { line };
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// The lines without the heading.
    pub fn body(&self) -> impl Iterator<Item = String> {
        self.lines().skip(1)
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let widths: Vec<usize> = (0..self.sides.len()).map(|column| self.width(column)).collect();
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            for (at, ((cell, width), side)) in row.iter().zip(&widths).zip(&self.sides).enumerate() {
                if at > 0 {
                    line.push_str("  ");
                }
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match side {
                    Side::Left => line.extend([cell.as_str(), &padding]),
                    Side::Right => line.extend([padding.as_str(), cell]),
                }
            }
            line.truncate(line.trim_end().len());
            line
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (983_808, "983,808"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(counted(1, "event"), "1 event");
        assert_eq!(counted(1_200, "event"), "1,200 events");
        assert_eq!(rate(10, Duration::from_secs(4)), "2.5");
        assert_eq!(rate(50_000, Duration::from_secs(2)), "25,000");
    }

    #[test]
    fn durations_are_said_as_people_do() {
        for (millis, text) in [
            (0.25, "250 µs"),
            (3.12, "3.1 ms"),
            (42.0, "42 ms"),
            (4_200.0, "4.20 s"),
            (42_000.0, "42.0 s"),
            (125_000.0, "2 min 5 s"),
            (11_520_000.0, "3 h 12 min"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(millis / 1e3)), text);
        }
    }

    #[test]
    fn columns_are_aligned_and_no_line_ends_in_spaces() {
        let mut table = Table::new(&[("name", Side::Left), ("n", Side::Right), ("note", Side::Left)]);
        table.row(vec!["a".into(), "1,000".into(), String::new()]);
        table.row(vec!["longer".into(), "1".into(), "x".into()]);
        assert_eq!(table.render(Paint::none()), "name        n  note\na       1,000\nlonger      1  x\n");
    }

    #[test]
    fn text_is_wrapped_at_spaces_and_clipped_to_one_line() {
        assert_eq!(wrap("one two  three\nfour", 8), ["one two", "three", "four"]);
        assert_eq!(clip("one\ntwo three", 10), "one two...");
        assert_eq!(clip("one\ntwo", 10), "one two");
    }
}
