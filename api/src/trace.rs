//! A span of each request; that of a write belongs to the trace of the change that it made.

use axum::response::Response;
use http::{HeaderMap, Method};
use smartpulse_clients::database::Row;
use smartpulse_pipeline::trace::TRACEPARENT;
use smartpulse_pipeline::{Span, SpanKind, TraceContext, Tracer};
use std::time::SystemTime;

/// The section of forecasts, by which their traces are known.
const SECTION: &str = "forecast";

/// When the database was asked, and when it had answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    asked: SystemTime,
    answered: SystemTime,
}

/// What a future gives, and how long it took.
pub(crate) async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<(T, Timing), E> {
    let asked = SystemTime::now();
    let result = work.await?;
    Ok((result, Timing { asked, answered: SystemTime::now() }))
}

/// A committed write.
pub(crate) struct Committed {
    pub row: Row,
    pub timing: Timing,
}

impl Committed {
    /// The answer, which tells the gate of the write.
    pub fn tell(self, mut answer: Response) -> Response {
        let change = TraceContext::of_change(SECTION, &self.row.key, self.row.version);
        answer.extensions_mut().insert(Wrote { change, timing: self.timing });
        answer
    }
}

/// What a committed write says of itself, beside its answer.
#[derive(Debug, Clone, Copy)]
struct Wrote {
    /// Where the change's trace begins.
    change: TraceContext,
    timing: Timing,
}

/// A request under way.
pub(crate) struct Arrived {
    /// Where the caller stands in a trace of its own.
    caller: Option<TraceContext>,
    began: SystemTime,
}

impl Arrived {
    pub(crate) fn now(headers: &HeaderMap) -> Self {
        let given = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        Self { caller: given.and_then(TraceContext::parse), began: SystemTime::now() }
    }

    /// The request was answered. `path` is a route's template.
    pub(crate) fn answered(self, tracer: &Tracer, method: &Method, path: Option<&str>, response: &Response) {
        let wrote = response.extensions().get::<Wrote>();
        let (place, parent, link) = match (wrote, self.caller) {
            // The caller's own trace goes on; it is only named.
            (Some(wrote), caller) => (wrote.change.next(), None, caller),
            (None, Some(caller)) => (caller.next(), Some(caller.span), None),
            (None, None) => (TraceContext::fresh(), None, None),
        };
        if self.caller.is_none() && !tracer.keeps(place.trace) {
            return;
        }
        if let Some(wrote) = wrote {
            tracer.record(Span {
                context: place.next(),
                parent: Some(place.span),
                name: "write".to_owned(),
                kind: SpanKind::Client,
                start: wrote.timing.asked,
                end: wrote.timing.answered,
                attributes: Vec::new(),
                link: None,
                failed: false,
            });
        }
        let status = response.status();
        tracer.record(Span {
            context: place,
            parent,
            name: format!("{method} {}", path.unwrap_or("unmatched")),
            kind: SpanKind::Server,
            start: self.began,
            end: SystemTime::now(),
            attributes: vec![("http.response.status_code", status.as_str().to_owned())],
            link,
            failed: status.is_server_error(),
        });
    }
}
