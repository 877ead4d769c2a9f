//! Spans to a collector, by OTLP over HTTP (OpenTelemetry protocol 1.x, binary protobuf, `POST /v1/traces`).
//!
//! The spans are made by `smartpulse_pipeline::trace`; OpenTelemetry's SDK keeps them in a bounded queue and sends them in
//! batches, from a thread of its own. Recording one never waits: what does not fit into the queue, or cannot be sent, is dropped
//! and counted. A collector that is away disturbs nothing.

#![warn(missing_docs)]

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind as OtelKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter as OtelExporter, SpanLinks,
    SpanProcessor,
};
use prometheus::{IntCounter, Registry};
use smartpulse_config::{Problem, TraceSettings};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::trace::SpanExporter;
use smartpulse_pipeline::{Span, SpanKind, TraceContext, Tracer};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Spans that wait to be sent; more are dropped.
const QUEUE_SPANS_MAX: usize = 16_384;

/// Spans of one request.
const BATCH_SPANS_MAX: usize = 1_024;

/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);

/// A collector that takes longer is away.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of the process waits for the last spans to be sent.
const FAREWELL: Duration = Duration::from_secs(2);

/// Sends spans as long as it lives, and what is left when it is dropped.
pub struct Otlp {
    processor: Arc<Sender>,
    ratio: f64,
}

impl Otlp {
    /// Sends to the collector of the settings; nothing where they name none. Does not connect yet.
    ///
    /// # Errors
    /// When the address cannot be one.
    pub fn start(settings: &TraceSettings, instance: Uuid, metrics: &Registry) -> Result<Option<Self>> {
        if settings.endpoint.is_empty() {
            return Ok(None);
        }
        let endpoint = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'));
        let authorization = settings.authorization.iter();
        let headers: HashMap<String, String> =
            authorization.map(|secret| ("authorization".to_owned(), secret.expose().to_owned())).collect();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&endpoint)
            .with_timeout(TIMEOUT)
            .with_headers(headers)
            .build()
            .map_err(|error| {
                Error::fatal(format!("spans cannot be sent to {endpoint} (traces.endpoint)")).because(error)
            })?;
        let counter = |name: &str, help: &str| -> Result<IntCounter> {
            let refused = |error| Error::fatal("the metrics of traces could not be registered").because(error);
            let counter = IntCounter::new(name, help).map_err(refused)?;
            metrics.register(Box::new(counter.clone())).map_err(refused)?;
            Ok(counter)
        };
        let counted = Counted {
            exporter,
            endpoint,
            sent: counter("trace_spans_sent_total", "spans that the collector took")?,
            failed: counter("trace_spans_failed_total", "spans that could not be sent")?,
            away: AtomicBool::new(false),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::new(counted, config);
        processor.set_resource(
            &Resource::builder_empty()
                .with_service_name("smartpulse")
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                .with_attribute(KeyValue::new("service.instance.id", instance.hyphenated().to_string()))
                .build(),
        );
        let sender = Sender {
            processor,
            scope: InstrumentationScope::builder("smartpulse").with_version(env!("CARGO_PKG_VERSION")).build(),
            recorded: counter(
                "trace_spans_recorded_total",
                "spans made; those neither sent nor failed wait, or were dropped by a full queue",
            )?,
        };
        Ok(Some(Self { processor: Arc::new(sender), ratio: settings.ratio }))
    }

    /// What decides which traces are kept, and takes their spans.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        Tracer::new(self.processor.clone(), self.ratio)
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp").field("ratio", &self.ratio).finish_non_exhaustive()
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        // What is left is sent, if the collector answers soon; that it does not, the exporter has said.
        let _ = self.processor.processor.shutdown_with_timeout(FAREWELL);
    }
}

/// What is wrong with the settings of traces, by reading alone.
#[must_use]
pub fn problem(settings: &TraceSettings) -> Option<Problem> {
    let endpoint = settings.endpoint.as_str();
    let known = endpoint.is_empty() || endpoint.starts_with("http://") || endpoint.starts_with("https://");
    (!known).then(|| {
        Problem::new(format!("`{endpoint}` is no address of a collector"))
            .path("traces.endpoint")
            .help("write it like `http://127.0.0.1:4318`; OTLP over HTTP, not gRPC")
    })
}

struct Sender {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    recorded: IntCounter,
}

impl SpanExporter for Sender {
    fn export(&self, span: Span) {
        self.recorded.inc();
        self.processor.on_end(self.data(span));
    }
}

impl Sender {
    fn data(&self, span: Span) -> SpanData {
        let mut links = SpanLinks::default();
        links.links.extend(span.link.map(|place| Link::new(context(place), Vec::new(), 0)));
        SpanData {
            span_context: context(span.context),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: false,
            span_kind: match span.kind {
                SpanKind::Internal => OtelKind::Internal,
                SpanKind::Server => OtelKind::Server,
                SpanKind::Client => OtelKind::Client,
                SpanKind::Producer => OtelKind::Producer,
                SpanKind::Consumer => OtelKind::Consumer,
            },
            name: span.name.into(),
            start_time: span.start,
            end_time: span.end,
            attributes: span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: if span.failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn context(place: TraceContext) -> SpanContext {
    let (trace, span) = (TraceId::from(place.trace), SpanId::from(place.span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

/// An exporter that counts, and says once when the collector goes away and comes back.
#[derive(Debug)]
struct Counted {
    exporter: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    sent: IntCounter,
    failed: IntCounter,
    away: AtomicBool,
}

impl OtelExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.sent.inc_by(spans);
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!(endpoint = self.endpoint, "spans are sent again");
                }
            }
            Err(error) => {
                self.failed.inc_by(spans);
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(endpoint = self.endpoint, %error, "spans cannot be sent, and are dropped");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
