//! Problems as text, in the look of rustc's errors.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, renderer::DecorStyle};

use crate::diagnostics::{Diagnostics, PROBLEMS_MAX, Problem};
use crate::node::Span;

/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "<redacted>";

/// Lines longer than this are excerpted around the problem: a line may be the whole file.
const LINE_BYTES_MAX: usize = 160;

/// Keys with one of these words in their name have their value hidden in every excerpt, since a file that
/// is too broken to be checked against a schema may hold a secret all the same.
const SECRET_WORDS: [&str; 7] =
    ["password", "passwd", "secret", "token", "private_key", "api_key", "connection_string"];

pub(crate) fn render(diagnostics: &Diagnostics, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let problems = diagnostics.problems();
    let mut blocks: Vec<String> =
        problems.iter().take(PROBLEMS_MAX).map(|problem| render_problem(&renderer, diagnostics, problem)).collect();
    let hidden = diagnostics.len().saturating_sub(PROBLEMS_MAX);
    if hidden > 0 {
        blocks.push(format!("... and {hidden} more"));
    }
    if diagnostics.len() > 1 {
        let summary = Level::ERROR.primary_title(format!("{} problems", diagnostics.len()));
        blocks.push(renderer.render(&[Group::with_title(summary)]));
    }
    blocks.join("\n\n")
}

fn render_problem(renderer: &Renderer, diagnostics: &Diagnostics, problem: &Problem) -> String {
    let title = Level::ERROR.primary_title(diagnostics.scrub(&problem.message));
    let mut group = Group::with_title(title);
    // The column shown, and the true one where redaction or clipping moved it.
    let mut moved = None;
    if let Some(span) = &problem.span {
        let name = span.source.name();
        if span.source.is_file() {
            let excerpt = Excerpt::new(span, diagnostics.redactions());
            let shown = excerpt.text[..excerpt.start].chars().count() + 1;
            if shown != span.column as usize {
                moved = Some((format!("{name}:{}:{shown}", span.line), span.to_string()));
            }
            group = group.element(
                Snippet::source(excerpt.text)
                    .path(name)
                    .line_start(span.line as usize)
                    .annotation(AnnotationKind::Primary.span(excerpt.start..excerpt.end)),
            );
        } else {
            group = group.element(Origin::path(name));
        }
    }
    if !problem.path.is_empty() {
        group = group.element(Level::NOTE.message(format!("at `{}`", problem.path)));
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(diagnostics.scrub(help)));
    }
    let text = renderer.render(&[group]);
    match moved {
        Some((shown, real)) => text.replacen(&shown, &real, 1),
        None => text,
    }
}

/// The line a problem starts on, without secrets, and the bytes of it to underline.
struct Excerpt {
    text: String,
    start: usize,
    end: usize,
}

impl Excerpt {
    fn new(span: &Span, redactions: &[Span]) -> Self {
        let source = span.source.text();
        let offset = floor_boundary(source, span.offset as usize);
        let line_start = source[..offset].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[offset..].find(['\n', '\r']).map_or(source.len(), |at| offset + at);
        // A problem may stand at the line break itself, or at the end of the text.
        let line_end = line_end.max(line_start);
        let line = &source[line_start..line_end];

        let start = offset.min(line_end) - line_start;
        let end = floor_boundary(source, span.end() as usize).clamp(offset, line_end.max(offset)).min(line_end);
        let end = (end.max(line_start) - line_start).max(start);

        let mut hidden: Vec<(usize, usize)> = redactions
            .iter()
            .filter(|redaction| std::sync::Arc::ptr_eq(&redaction.source, &span.source))
            .map(|redaction| (redaction.offset as usize, redaction.end() as usize))
            .filter(|&(from, to)| from < line_end && to > line_start)
            .map(|(from, to)| (from.max(line_start) - line_start, to.min(line_end) - line_start))
            .collect();
        hidden.extend(secret_like(line));
        hidden.sort_unstable();
        Self::redacted(line, start, end, &hidden).clipped()
    }

    fn redacted(line: &str, start: usize, end: usize, hidden: &[(usize, usize)]) -> Self {
        let mut text = String::new();
        let mut copied = 0;
        let (mut new_start, mut new_end) = (None, None);
        for &(from, to) in hidden {
            let (from, to) = (floor_boundary(line, from), floor_boundary(line, to));
            if from < copied || to <= from {
                continue;
            }
            for (position, mapped) in [(start, &mut new_start), (end, &mut new_end)] {
                if mapped.is_none() && position <= from {
                    *mapped = Some(text.len() + position.saturating_sub(copied));
                }
            }
            text.push_str(&line[copied..from]);
            let hidden_at = text.len();
            text.push_str(REDACTED);
            copied = to;
            if new_start.is_none() && start < to {
                new_start = Some(hidden_at);
            }
            if new_end.is_none() && end <= to {
                new_end = Some(text.len());
            }
        }
        let tail = text.len();
        text.push_str(&line[copied..]);
        let start = new_start.unwrap_or(tail + start.saturating_sub(copied));
        let end = new_end.unwrap_or(tail + end.saturating_sub(copied));
        Self { text, start, end: end.max(start) }
    }

    /// A window of the line, when the line is too long to show.
    fn clipped(self) -> Self {
        if self.text.len() <= LINE_BYTES_MAX {
            return self;
        }
        let from = floor_boundary(&self.text, self.start.saturating_sub(LINE_BYTES_MAX / 2));
        let to = floor_boundary(&self.text, (from + LINE_BYTES_MAX).min(self.text.len()));
        let lead = if from > 0 { "..." } else { "" };
        let trail = if to < self.text.len() { "..." } else { "" };
        let text = format!("{lead}{}{trail}", &self.text[from..to]);
        let start = self.start - from + lead.len();
        let end = self.end.min(to) - from + lead.len();
        Self { text, start, end: end.max(start) }
    }
}

/// The values on a line whose keys look like secrets.
fn secret_like(line: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let lower = line.to_ascii_lowercase();
    for word in SECRET_WORDS {
        let mut from = 0;
        while let Some(at) = lower[from..].find(word).map(|at| from + at) {
            from = at + word.len();
            let rest = &line[from..];
            let name =
                rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-\"'".contains(c)).len();
            let Some(value) = rest[name..].trim_start().strip_prefix(':') else {
                continue;
            };
            let value = value.trim_start();
            // References are not secrets, and seeing them helps.
            if value.is_empty() || value.starts_with("${") || value.starts_with("\"${") {
                continue;
            }
            found.push((line.len() - value.len(), line.len()));
        }
    }
    found
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
