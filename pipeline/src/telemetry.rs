//! What the runtime measures of every component, once for all of them.
//!
//! Labels are `pipeline`, `component` and `kind`, all of which are fixed by the YAML: their number is bounded.

use crate::trace::{ComponentSpans, SpanKind, Tracer};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const LABELS: &[&str] = &["pipeline", "component", "kind"];

/// The families of all components, registered once per process.
#[derive(Debug, Clone)]
pub struct Telemetry {
    events_in: IntCounterVec,
    events_out: IntCounterVec,
    dropped: IntCounterVec,
    noted: IntCounterVec,
    retries: IntCounterVec,
    dead_letters: IntCounterVec,
    batch_events: HistogramVec,
    latency_seconds: HistogramVec,
    queue_batches: IntGaugeVec,
    lag_seconds: GaugeVec,
    tracer: Option<Tracer>,
}

/// One component's share of the families.
#[derive(Debug)]
pub struct ComponentMetrics {
    /// Events that came in.
    pub events_in: IntCounter,
    /// Events that went out: emitted, passed on or written.
    pub events_out: IntCounter,
    /// Attempts after the first.
    pub retries: IntCounter,
    /// Events set aside.
    pub dead_letters: IntCounter,
    /// Events per batch.
    pub batch_events: Histogram,
    /// Time to handle one batch.
    pub latency_seconds: Histogram,
    /// Batches that wait in front of the component.
    pub queue_batches: IntGauge,
    /// Age of the newest event when it was taken in.
    pub lag_seconds: Gauge,
    pub(crate) spans: Option<ComponentSpans>,
    counted: Mutex<BTreeMap<&'static str, (IntCounter, bool)>>,
    dropped: IntCounterVec,
    noted: IntCounterVec,
    labels: [String; 3],
}

/// A component's totals, for the closing summary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Events that came in.
    pub events_in: u64,
    /// Events that went out.
    pub events_out: u64,
    /// Events dropped on purpose, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Things noted, such as gaps.
    pub noted: BTreeMap<&'static str, u64>,
    /// Events set aside.
    pub dead_letters: u64,
}

impl Telemetry {
    /// Registers the families.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, extra: &[&str]| -> prometheus::Result<IntCounterVec> {
            let labels: Vec<&str> = LABELS.iter().chain(extra).copied().collect();
            let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<HistogramVec> {
            let family = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), LABELS)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let queue_batches = IntGaugeVec::new(
            Opts::new("component_queue_batches", "batches that wait in front of the component"),
            LABELS,
        )?;
        registry.register(Box::new(queue_batches.clone()))?;
        let lag_seconds = GaugeVec::new(
            Opts::new("component_lag_seconds", "age of the newest event when the source took it in"),
            LABELS,
        )?;
        registry.register(Box::new(lag_seconds.clone()))?;
        Ok(Self {
            events_in: counter("component_events_in_total", "events that came in", &[])?,
            events_out: counter("component_events_out_total", "events emitted, passed on or written", &[])?,
            dropped: counter("component_events_dropped_total", "events dropped on purpose", &["reason"])?,
            noted: counter("component_events_noted_total", "events worth knowing of, such as gaps", &["what"])?,
            retries: counter("component_retries_total", "attempts after the first", &[])?,
            dead_letters: counter("component_dead_letters_total", "events set aside with a reason", &[])?,
            batch_events: histogram(
                "component_batch_events",
                "events per batch",
                vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0],
            )?,
            latency_seconds: histogram(
                "component_latency_seconds",
                "time to handle one batch",
                vec![1e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            )?,
            queue_batches,
            lag_seconds,
            tracer: None,
        })
    }

    /// Records spans as well.
    #[must_use]
    pub fn with_tracer(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// The metrics of one component.
    #[must_use]
    pub fn component(&self, pipeline: &str, component: &str, kind: &str) -> Arc<ComponentMetrics> {
        let labels = [pipeline, component, kind];
        Arc::new(ComponentMetrics {
            events_in: self.events_in.with_label_values(&labels),
            events_out: self.events_out.with_label_values(&labels),
            retries: self.retries.with_label_values(&labels),
            dead_letters: self.dead_letters.with_label_values(&labels),
            batch_events: self.batch_events.with_label_values(&labels),
            latency_seconds: self.latency_seconds.with_label_values(&labels),
            queue_batches: self.queue_batches.with_label_values(&labels),
            lag_seconds: self.lag_seconds.with_label_values(&labels),
            spans: self.tracer.clone().map(|tracer| ComponentSpans {
                tracer,
                pipeline: pipeline.to_owned(),
                component: component.to_owned(),
                kind: match kind {
                    "source" => SpanKind::Consumer,
                    "sink" => SpanKind::Producer,
                    _ => SpanKind::Internal,
                },
            }),
            counted: Mutex::default(),
            dropped: self.dropped.clone(),
            noted: self.noted.clone(),
            labels: labels.map(str::to_owned),
        })
    }
}

impl ComponentMetrics {
    /// Counts events that were dropped on purpose.
    pub fn drop_events(&self, reason: &'static str, count: u64) {
        self.count(&self.dropped, reason, true, count);
    }

    /// Counts something worth knowing.
    pub fn note(&self, what: &'static str, count: u64) {
        self.count(&self.noted, what, false, count);
    }

    fn count(&self, family: &IntCounterVec, label: &'static str, drops: bool, count: u64) {
        let [pipeline, component, kind] = &self.labels;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (counter, _) = counted
            .entry(label)
            .or_insert_with(|| (family.with_label_values(&[pipeline, component, kind, label]), drops));
        counter.inc_by(count);
    }

    /// What has been counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let pick = |drops: bool| {
            counted.iter().filter(|(_, entry)| entry.1 == drops).map(|(name, entry)| (*name, entry.0.get())).collect()
        };
        Totals {
            events_in: self.events_in.get(),
            events_out: self.events_out.get(),
            dropped: pick(true),
            noted: pick(false),
            dead_letters: self.dead_letters.get(),
        }
    }
}
