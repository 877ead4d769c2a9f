//! Traces: one of every change, from its commit to every instance that took it over.
//!
//! A change's trace has the id of its event (a function of section, key and version), so whoever knows the change knows its
//! trace: nothing has to cross the database, or a message whose form is fixed. Beside a bus message the context travels
//! as the property `traceparent` (W3C Trace Context). Which traces are kept follows from the id's rightmost 56 bits,
//! as OpenTelemetry's consistent sampling has it: all instances with the same ratio keep the same ones.
//!
//! The first span is `commit`: from the commit to the moment somebody took the change in. Every component that handles it
//! adds one, as a child of the one before. Rows of a snapshot are no changes, and have none.

use crate::event::{Batch, Event};
use crate::message::event_id;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The property of a message that carries the context, by W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// The bits of a trace id that count as random (W3C Trace Context level 2, random-trace-id flag).
const RANDOM_BITS: u32 = 56;

/// A place in a trace: what happens next is a child of its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
}

impl TraceContext {
    /// The first span of a change's trace.
    #[must_use]
    pub fn of_change(section: &str, key: &str, version: i64) -> Self {
        let trace = event_id(section, key, version).as_u128();
        Self { trace, span: trace as u64 }
    }

    /// A place in a trace of its own.
    #[must_use]
    pub fn fresh() -> Self {
        Self { trace: u128::from(span_id()) << 64 | u128::from(span_id()), span: span_id() }
    }

    /// Another place in the same trace.
    #[must_use]
    pub fn next(self) -> Self {
        Self { span: span_id(), ..self }
    }

    /// Reads a `traceparent` of any version; nothing where it is malformed, or says that its trace is not kept.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = [version, trace, span, flags].map(str::len) == [2, 32, 16, 2];
        if !lengths || ![version, trace, span, flags].into_iter().all(hex) || version == "ff" {
            return None;
        }
        // Later versions may append members; this one has four.
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let context = Self { trace: u128::from_str_radix(trace, 16).ok()?, span: u64::from_str_radix(span, 16).ok()? };
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (sampled && context.trace != 0 && context.span != 0).then_some(context)
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

/// A number that no other span of a trace has, and that is not 0.
fn span_id() -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    SEED.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)).max(1)
}

/// What a span was for (OpenTelemetry's span kinds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within this process.
    Internal,
    /// Answers a request.
    Server,
    /// Asks another system.
    Client,
    /// Hands something over to be taken up later.
    Producer,
    /// Takes up what was handed over.
    Consumer,
}

/// Something that took time, in its trace.
#[derive(Debug, Clone)]
pub struct Span {
    /// Itself.
    pub context: TraceContext,
    /// The span that it follows from.
    pub parent: Option<u64>,
    /// What was done; not to whom.
    pub name: String,
    /// What it was for.
    pub kind: SpanKind,
    /// Its begin.
    pub start: SystemTime,
    /// Its end.
    pub end: SystemTime,
    /// What it was done to.
    pub attributes: Vec<(&'static str, String)>,
    /// A place in another trace that led to it.
    pub link: Option<TraceContext>,
    /// True when it failed.
    pub failed: bool,
}

/// Where spans go. Must not wait: what cannot be kept is dropped, and counted by the exporter.
pub trait SpanExporter: Send + Sync {
    /// Takes a finished span.
    fn export(&self, span: Span);
}

/// Decides which traces are kept, and passes their spans on. Cheap to clone.
#[derive(Clone)]
pub struct Tracer {
    exporter: Arc<dyn SpanExporter>,
    /// Traces whose random bits are below are not kept.
    rejected_below: u64,
}

impl Tracer {
    /// Keeps a share of all traces, 0 to 1.
    #[must_use]
    pub fn new(exporter: Arc<dyn SpanExporter>, ratio: f64) -> Self {
        let all = (1u64 << RANDOM_BITS) as f64;
        Self { exporter, rejected_below: ((1.0 - ratio.clamp(0.0, 1.0)) * all) as u64 }
    }

    /// Whether the trace is kept: the same answer everywhere.
    #[must_use]
    pub fn keeps(&self, trace: u128) -> bool {
        trace as u64 & ((1 << RANDOM_BITS) - 1) >= self.rejected_below
    }

    /// Records a finished span.
    pub fn record(&self, span: Span) {
        self.exporter.export(span);
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("rejected_below", &self.rejected_below).finish_non_exhaustive()
    }
}

/// The spans of one component.
#[derive(Debug)]
pub(crate) struct ComponentSpans {
    pub tracer: Tracer,
    pub pipeline: String,
    pub component: String,
    pub kind: SpanKind,
}

/// Spans that have begun.
#[derive(Debug)]
pub(crate) struct Begun {
    start: SystemTime,
    /// Each with its parent, and its event.
    spans: Vec<(TraceContext, u64, Subject)>,
}

/// What a span is about.
#[derive(Debug, Clone)]
struct Subject {
    section: Arc<str>,
    key: Arc<str>,
    version: i64,
}

impl Subject {
    fn of(event: &Event) -> Self {
        Self { section: event.section.clone(), key: event.key.clone(), version: event.version }
    }

    fn attributes(&self) -> Vec<(&'static str, String)> {
        vec![
            ("smartpulse.section", self.section.to_string()),
            ("smartpulse.key", self.key.to_string()),
            ("smartpulse.version", self.version.to_string()),
        ]
    }
}

impl ComponentSpans {
    /// A source took these events in: finds their places, and begins its own spans.
    pub fn arrive(&self, events: &mut [Event]) -> Begun {
        let now = SystemTime::now();
        for event in events.iter_mut().filter(|event| !event.snapshot && event.trace.is_none()) {
            let first = TraceContext::of_change(&event.section, &event.key, event.version);
            if !self.tracer.keeps(first.trace) {
                continue;
            }
            event.trace = Some(first);
            // Whoever meets a captured change first tells of its commit; after him it has a context.
            if event.position.is_some() {
                self.tracer.record(Span {
                    context: first,
                    parent: None,
                    name: format!("commit {}", event.section),
                    kind: SpanKind::Producer,
                    start: event.commit_time.map_or(now, system_time).min(now),
                    end: now,
                    attributes: Subject::of(event).attributes(),
                    link: None,
                    failed: false,
                });
            }
        }
        self.begin(events)
    }

    /// Begins a span of each event that has a place, which is its place from now on.
    pub fn begin(&self, events: &mut [Event]) -> Begun {
        let mut spans = Vec::new();
        for event in events {
            if let Some(place) = event.trace {
                let next = place.next();
                event.trace = Some(next);
                spans.push((next, place.span, Subject::of(event)));
            }
        }
        Begun { start: SystemTime::now(), spans }
    }

    /// Ends the spans, with those failed that `failed` names by key and version.
    pub fn end(&self, begun: Begun, failed: impl Fn(&str, i64) -> bool) {
        let end = SystemTime::now();
        for (context, parent, subject) in begun.spans {
            let mut attributes = subject.attributes();
            attributes.push(("smartpulse.pipeline", self.pipeline.clone()));
            attributes.push(("smartpulse.component", self.component.clone()));
            self.tracer.record(Span {
                context,
                parent: Some(parent),
                name: format!("{}/{}", self.pipeline, self.component),
                kind: self.kind,
                start: begun.start,
                end,
                attributes,
                link: None,
                failed: failed(&subject.key, subject.version),
            });
        }
    }
}

/// Begins spans where they are recorded at all.
pub(crate) fn begin(spans: Option<&ComponentSpans>, batch: &mut Batch) -> Option<Begun> {
    spans.map(|spans| spans.begin(&mut batch.events)).filter(|begun| !begun.spans.is_empty())
}

fn system_time(time: crate::Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Span>>);

    impl SpanExporter for Kept {
        fn export(&self, span: Span) {
            self.0.lock().unwrap().push(span);
        }
    }

    fn change(version: i64) -> Event {
        let mut event = Event::new("forecast".into(), "a".into(), version, crate::Operation::Update, None);
        event.commit_time = Some(crate::Timestamp::from_millis(1_000));
        event.position = Some(bytes::Bytes::from_static(b"1"));
        event
    }

    fn spans(kept: &Arc<Kept>, ratio: f64, component: &str) -> ComponentSpans {
        let tracer = Tracer::new(kept.clone(), ratio);
        ComponentSpans { tracer, pipeline: "p".to_owned(), component: component.to_owned(), kind: SpanKind::Internal }
    }

    #[test]
    fn a_traceparent_is_read_and_written_as_the_recommendation_says() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text).unwrap();
        assert_eq!(context.to_string(), text);
        assert_eq!(TraceContext::parse(&text.replacen("00", "42", 1)), Some(context), "a later version");
        assert_eq!(TraceContext::parse(&format!("{}-more", text.replacen("00", "42", 1))), Some(context));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_instance_keeps_the_same_share_of_traces() {
        let kept = Arc::new(Kept::default());
        let keeps = |ratio: f64| {
            let tracer = Tracer::new(kept.clone(), ratio);
            (0..10_000).filter(|n| tracer.keeps(TraceContext::of_change("forecast", "a", *n).trace)).count()
        };
        assert_eq!((keeps(0.0), keeps(1.0)), (0, 10_000));
        let tenth = keeps(0.1);
        assert!((900..1_100).contains(&tenth), "{tenth}");
        assert_eq!(tenth, keeps(0.1), "by another tracer");
    }

    #[test]
    fn a_change_is_a_chain_of_spans_from_its_commit() {
        let kept = Arc::new(Kept::default());
        let mut events = vec![change(7)];
        let (source, sink) = (spans(&kept, 1.0, "source"), spans(&kept, 1.0, "sink"));
        let first = source.arrive(&mut events);
        let second = sink.begin(&mut events);
        sink.end(second, |_, version| version == 7);
        source.end(first, |_, _| false);
        // A second process reads the message, with the context that it was published with.
        let again = spans(&kept, 1.0, "again").arrive(&mut events);
        spans(&kept, 1.0, "again").end(again, |_, _| false);
        let spans = kept.0.lock().unwrap();
        let named: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(named, ["commit forecast", "p/sink", "p/source", "p/again"]);
        let [commit, sink, source, again] = &spans[..] else { panic!("four") };
        assert_eq!(commit.context, TraceContext::of_change("forecast", "a", 7));
        assert_eq!((commit.parent, commit.start), (None, UNIX_EPOCH + Duration::from_secs(1)));
        assert_eq!(source.parent, Some(commit.context.span));
        assert_eq!(sink.parent, Some(source.context.span));
        assert_eq!(again.parent, Some(sink.context.span));
        assert!(spans.iter().all(|span| span.context.trace == commit.context.trace));
        assert_eq!(spans.iter().map(|span| span.failed).collect::<Vec<_>>(), [false, true, false, false]);
    }

    #[test]
    fn rows_of_a_snapshot_and_traces_that_are_not_kept_leave_no_spans() {
        let kept = Arc::new(Kept::default());
        let mut row = change(1);
        row.snapshot = true;
        let mut events = vec![row];
        spans(&kept, 1.0, "source").arrive(&mut events);
        assert_eq!(events[0].trace, None);
        events = vec![change(1)];
        spans(&kept, 0.0, "source").arrive(&mut events);
        assert_eq!(events[0].trace, None);
        assert!(kept.0.lock().unwrap().is_empty());
    }
}
