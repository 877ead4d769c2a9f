//! Problems, collected so that all are reported at once.

use std::fmt;
use std::sync::Arc;

use crate::node::{SourceText, Span};
use crate::render;

/// How many problems are rendered. More than a screenful helps nobody, and one mistake in an anchor can
/// cause thousands.
pub const PROBLEMS_MAX: usize = 50;

/// How many problems are kept; more are only counted. Bounds the time that a hopeless file takes.
const KEPT_MAX: usize = 500;

/// Words longer than this are not compared for spelling: the comparison is quadratic.
const WORD_CHARS_MAX: usize = 64;

/// Something wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; none when it stands in no text (a missing file).
    pub span: Option<Span>,
    /// The config path, such as `sinks.broadcast.retry`; empty when there is none.
    pub path: String,
    /// What is wrong: a lowercase fragment.
    pub message: String,
    /// What to do about it: a lowercase fragment.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without a position.
    pub fn new(message: impl Into<String>) -> Self {
        Self { span: None, path: String::new(), message: message.into(), help: None }
    }

    /// The problem at a position.
    #[must_use]
    pub fn at(mut self, span: &Span) -> Self {
        self.span = Some(span.clone());
        self
    }

    /// The problem with a config path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// The problem with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A list of problems, and what must not be shown while reporting them.
#[derive(Clone, Default)]
pub struct Diagnostics {
    problems: Vec<Problem>,
    /// Texts in the order they were read, which is the order they are reported in.
    order: Vec<Arc<SourceText>>,
    /// Problems that were counted only.
    dropped: usize,
    redactions: Vec<Span>,
    secrets: Vec<Arc<str>>,
}

impl Diagnostics {
    /// No problems.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a problem; one that says the same of the same place (through an alias) is dropped.
    pub fn push(&mut self, problem: Problem) {
        if self.is_full() {
            self.dropped += 1;
            return;
        }
        let same = |known: &Problem| match (&known.span, &problem.span) {
            (Some(known_span), Some(span)) => known_span == span && known.message == problem.message,
            _ => *known == problem,
        };
        if !self.problems.iter().any(same) {
            self.problems.push(problem);
        }
    }

    /// Adds the problems of another list.
    pub fn extend(&mut self, other: Self) {
        for source in &other.order {
            self.order(source);
        }
        for problem in other.problems {
            self.push(problem);
        }
        self.dropped += other.dropped;
        self.redactions.extend(other.redactions);
        self.secrets.extend(other.secrets);
    }

    /// Says that the problems of `source` come after those of the texts named before.
    pub(crate) fn order(&mut self, source: &Arc<SourceText>) {
        if !self.order.iter().any(|known| Arc::ptr_eq(known, source)) {
            self.order.push(Arc::clone(source));
        }
    }

    /// Hides a stretch of source text in every excerpt.
    pub fn redact(&mut self, span: &Span) {
        self.redactions.push(span.clone());
    }

    /// Hides a text in every message. Texts of fewer than four bytes are left: taking `1` out of every
    /// message would hide the messages rather than the secret.
    pub fn redact_text(&mut self, secret: &Arc<str>) {
        if secret.len() >= 4 && !self.secrets.contains(secret) {
            self.secrets.push(Arc::clone(secret));
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many problems there are.
    pub fn len(&self) -> usize {
        self.problems.len() + self.dropped
    }

    /// Whether further problems are only counted, so that working out advice for them is wasted.
    pub fn is_full(&self) -> bool {
        self.problems.len() >= KEPT_MAX
    }

    /// The problems: those without a position first, then text by text in the order the texts were
    /// read, by position.
    pub fn problems(&self) -> Vec<&Problem> {
        let mut order: Vec<&Arc<SourceText>> = self.order.iter().collect();
        for span in self.problems.iter().filter_map(|problem| problem.span.as_ref()) {
            if !order.iter().any(|known| Arc::ptr_eq(known, &span.source)) {
                order.push(&span.source);
            }
        }
        let rank = |span: &Span| order.iter().position(|known| Arc::ptr_eq(known, &span.source));
        let mut sorted: Vec<_> = self.problems.iter().collect();
        sorted.sort_by_key(|problem| problem.span.as_ref().map(|span| (rank(span), span.offset)));
        sorted
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// The diagnostics themselves when they hold a problem, or when there is no value.
    pub fn into_result<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            Some(_) => Err(self),
            None => {
                if self.is_empty() {
                    self.push(Problem::new("the configuration could not be read"));
                }
                Err(self)
            }
        }
    }

    /// The problems as a person reads them, with excerpts; `color` adds terminal styles.
    pub fn render(&self, color: bool) -> String {
        render::render(self, color)
    }

    pub(crate) fn redactions(&self) -> &[Span] {
        &self.redactions
    }

    /// `text` without any known secret in it.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in &self.secrets {
            clean = clean.replace(&**secret, render::REDACTED);
        }
        clean
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Diagnostics {
    /// The rendering, on lines of its own, so that `unwrap` in a test is readable; never the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// The candidate spelled most like `word`, if one is close enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let chars = word.chars().count();
    if chars > WORD_CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase();
    // A third of the letters may differ: `chanel`, `sqlsever`, `intputs` are found, unrelated words are not.
    let distance_max = (chars / 3).max(1);
    let distance = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        // A word cut short, or with a unit too many: `chan`, `attempts_max`.
        let extends =
            word.len() >= 3 && candidate.starts_with(&word) || candidate.len() >= 3 && word.starts_with(&candidate);
        let distance = strsim::damerau_levenshtein(&word, &candidate);
        if extends { distance.min(distance_max) } else { distance }
    };
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_CHARS_MAX)
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max && *distance < chars)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Advice for a word that is not in a list: its nearest spelling, else the list. `noun` is plural.
pub(crate) fn advise<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>, noun: &str) -> String {
    /// A longer list is cut: the schema command shows all.
    const LISTED_MAX: usize = 24;
    let candidates: Vec<_> = candidates.into_iter().collect();
    if let Some(near) = nearest(word, candidates.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if candidates.is_empty() {
        return format!("there are no {noun} here");
    }
    let mut list: Vec<_> = candidates.iter().take(LISTED_MAX).map(|name| format!("`{name}`")).collect();
    if candidates.len() > LISTED_MAX {
        list.push(format!("and {} more", candidates.len() - LISTED_MAX));
    }
    format!("the {noun} are {}", list.join(", "))
}
