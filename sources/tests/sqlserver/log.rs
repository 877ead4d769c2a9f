//! What is logged on this thread. Tests run everything but the server on one thread, so this is all of one test, and of no
//! other.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// The lines logged since it was made: level, message, fields.
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Log {
    pub fn new() -> Self {
        let lines = Arc::new(Mutex::default());
        Self { _guard: tracing::subscriber::set_default(Lines(Arc::clone(&lines))), lines }
    }

    /// Fails unless a line has all of these parts.
    pub fn assert_says(&self, parts: &[&str]) {
        let lines = self.lines.lock().unwrap();
        let says = lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(says, "nothing says {parts:?}:\n{}", lines.join("\n"));
    }
}

struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
