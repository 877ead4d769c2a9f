//! A source and a sink that a test holds in its hands, and a graph run between them.

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_config::{Diagnostics, LoadOptions, PipelineSpec, Settings, SourceText};
use smartpulse_json::Document;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{
    BuildContext, Config, Registry, ResourceConfig, ResourceContext, Resources, SinkConfig, SourceConfig,
};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::source::{BuiltSource, Committer, Emission, Source, SourceContext};
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::telemetry::Telemetry;
use smartpulse_pipeline::topology::{Blueprint, BuildEnv, Built, Summary};
use smartpulse_pipeline::{Batch, Event, Operation, Position};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// What the test sees and steers. Sinks are told apart by their component id.
#[derive(Default)]
pub struct Probe {
    /// What the source emits next, batch by batch.
    pub input: Mutex<VecDeque<Vec<Event>>>,
    /// What sinks have written, as (sink, key, version).
    pub written: Mutex<Vec<(String, String, i64)>>,
    /// The same in full.
    pub events: Mutex<Vec<Event>>,
    /// Batch sizes that sinks were given.
    pub batches: Mutex<Vec<usize>>,
    /// What the next writes of a sink answer instead of writing.
    pub failures: Mutex<BTreeMap<String, VecDeque<Error>>>,
    /// Keys that sinks refuse.
    pub refused: Mutex<Vec<String>>,
    /// Keys that make sinks panic.
    pub deadly: Mutex<Vec<String>>,
    /// What the next commits answer instead of committing.
    pub commit_failures: Mutex<VecDeque<Error>>,
    /// The positions committed: how many events had been emitted.
    pub committed: Mutex<Vec<u64>>,
    changed: Notify,
}

impl Probe {
    /// Waits until `holds`, at most half a minute.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                let _ = tokio::time::timeout(Duration::from_millis(10), self.changed.notified()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .unwrap_or_else(|_| panic!("waited in vain until {what}"));
    }

    /// Hands the source a batch to emit.
    pub fn emit(&self, events: Vec<Event>) {
        self.input.lock().unwrap().push_back(events);
        self.changed.notify_waiters();
    }

    /// Makes the next write of a sink fail.
    pub fn fail(&self, sink: &str, error: Error) {
        self.failures.lock().unwrap().entry(sink.to_owned()).or_default().push_back(error);
    }

    /// The versions of a key that a sink has written, in order.
    pub fn versions(&self, sink: &str, key: &str) -> Vec<i64> {
        let written = self.written.lock().unwrap();
        written.iter().filter(|(s, k, _)| s == sink && k == key).map(|(_, _, version)| *version).collect()
    }

    /// The last position committed: how many events had been emitted up to it.
    pub fn last_committed(&self) -> Option<u64> {
        self.committed.lock().unwrap().last().copied()
    }
}

/// An update of a key with a document that is a function of its version.
pub fn event(key: &str, version: i64) -> Event {
    let document = Document::parse(Bytes::from(format!(r#"{{"n":{version}}}"#))).unwrap();
    Event::new("forecast".into(), key.into(), version, Operation::Update, Some(document))
}

/// A probe in the hands of a test and of its graph.
pub type SharedProbe = Arc<Probe>;

/// Test source: emits what the probe holds. `ends: true` ends when it holds nothing.
#[derive(Clone, Deserialize, JsonSchema)]
struct ProbeSource {
    #[serde(default)]
    ends: bool,
}

impl Config for ProbeSource {
    const TYPE: &'static str = "probe";
}

#[async_trait]
impl SourceConfig for ProbeSource {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let probe: SharedProbe = cx.resource("probe").await?;
        let committer = ProbeCommitter(probe.clone());
        let source = RunningSource { probe, ends: self.ends };
        Ok(BuiltSource { source: Box::new(source), committer: Some(Box::new(committer)) })
    }
}

struct RunningSource {
    probe: SharedProbe,
    ends: bool,
}

#[async_trait]
impl Source for RunningSource {
    async fn run(self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        let mut emitted: u64 = 0;
        loop {
            let next = self.probe.input.lock().unwrap().pop_front();
            match next {
                Some(events) => {
                    emitted += events.len() as u64;
                    let position = Some(Position::from(emitted.to_string()));
                    cx.emit(Emission { events, position, ..Emission::default() }).await?;
                }
                None if self.ends => return Ok(()),
                None => {
                    let wait = tokio::time::timeout(Duration::from_millis(5), self.probe.changed.notified());
                    if cx.next(wait).await?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

struct ProbeCommitter(SharedProbe);

#[async_trait]
impl Committer for ProbeCommitter {
    async fn commit(&mut self, positions: &[Position]) -> Result<()> {
        if let Some(error) = self.0.commit_failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        let numbers = positions.iter().map(|position| position.to_string().parse::<u64>().unwrap());
        self.0.committed.lock().unwrap().extend(numbers);
        self.0.changed.notify_waiters();
        Ok(())
    }
}

/// Test sink: writes to the probe.
#[derive(Clone, Deserialize, JsonSchema)]
struct ProbeSink {}

impl Config for ProbeSink {
    const TYPE: &'static str = "probe";
}

#[async_trait]
impl SinkConfig for ProbeSink {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(RunningSink { id: cx.component.to_owned(), probe: cx.resource("probe").await? }))
    }
}

struct RunningSink {
    id: String,
    probe: SharedProbe,
}

#[async_trait]
impl Sink for RunningSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        if let Some(error) = self.probe.failures.lock().unwrap().get_mut(&self.id).and_then(VecDeque::pop_front) {
            return Err(error);
        }
        let refused = self.probe.refused.lock().unwrap().clone();
        let deadly = self.probe.deadly.lock().unwrap().clone();
        assert!(batch.events.iter().all(|event| !deadly.contains(&event.key.to_string())), "a bug");
        let mut rejected = Vec::new();
        self.probe.batches.lock().unwrap().push(batch.events.len());
        for (index, event) in batch.events.iter().enumerate() {
            if refused.iter().any(|key| **key == *event.key) {
                rejected.push(Rejected { index, reason: "refused by the test".to_owned() });
            } else {
                let entry = (self.id.clone(), event.key.to_string(), event.version);
                self.probe.written.lock().unwrap().push(entry);
                self.probe.events.lock().unwrap().push(event.clone());
            }
        }
        self.probe.changed.notify_waiters();
        Ok(rejected)
    }
}

/// Test resource: the probe, handed in through a registry of its own.
#[derive(Clone, Deserialize, JsonSchema)]
struct ProbeResource {}

tokio::task_local! {
    static PROBE: SharedProbe;
}

impl Config for ProbeResource {
    const TYPE: &'static str = "probe";
}

#[async_trait]
impl ResourceConfig for ProbeResource {
    const KIND: &'static str = "probe";

    async fn build(&self, _cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        Ok(Arc::new(PROBE.get()))
    }
}

/// What a test builds graphs from: types, settings, a probe and a store that outlive each graph.
pub struct Rig {
    registry: Registry,
    settings: Arc<Settings>,
    /// The source and the sink of the graphs.
    pub probe: SharedProbe,
    /// The durable memory of the graphs.
    pub store: Arc<dyn Store>,
    /// Which process the graphs are.
    pub instance: uuid::Uuid,
    /// How long a graph may take to drain.
    pub drain: Duration,
    metrics: Mutex<prometheus::Registry>,
}

impl Rig {
    /// A rig of the probe and of what `register` adds, with `sets` as `--set` arguments. Of the built-in resources
    /// those stay whose types are registered.
    pub fn new(store: Arc<dyn Store>, sets: &[&str], register: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::default();
        register(&mut registry);
        registry.source::<ProbeSource>().sink::<ProbeSink>().resource::<ProbeResource>();
        let own = ["resources.probe.type=probe", "runtime.channel_batches=2"];
        let sets = own.iter().chain(sets).map(|set| (*set).to_owned()).collect();
        let mut settings = Settings::load(&LoadOptions { sets, ..LoadOptions::default() })
            .unwrap_or_else(|problems| panic!("{problems}"));
        settings.resources.retain(|_, spec| registry.resources.contains_key(spec.type_name.as_str()));
        Self {
            registry,
            settings: Arc::new(settings),
            probe: Arc::default(),
            store,
            instance: uuid::Uuid::nil(),
            drain: Duration::from_secs(20),
            metrics: Mutex::default(),
        }
    }

    /// Checks a pipeline and gives its problems as text.
    #[must_use]
    pub fn problems(&self, yaml: &str) -> String {
        self.check(yaml, &prometheus::Registry::new()).err().map(|problems| problems.render(false)).unwrap_or_default()
    }

    /// Builds and starts a pipeline.
    ///
    /// # Panics
    /// When it is wrong or cannot be built.
    pub async fn start(&self, yaml: &str) -> Graph {
        let metrics = prometheus::Registry::new();
        self.metrics.lock().unwrap().clone_from(&metrics);
        let (blueprint, resources) = self.check(yaml, &metrics).unwrap_or_else(|problems| panic!("{problems}"));
        let env = BuildEnv {
            settings: self.settings.clone(),
            store: self.store.clone(),
            resources: Arc::new(resources),
            telemetry: Telemetry::register(&metrics).expect("a fresh registry"),
            instance: self.instance,
        };
        let built = PROBE.scope(self.probe.clone(), blueprint.build(&env)).await;
        let running = Built::start(vec![built.unwrap_or_else(|error| panic!("{error:?}"))]);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let done = tokio::spawn(running.wait(stopped, self.drain));
        Graph { stop: Some(stop), done }
    }

    /// A gauge or counter of the graph that was started last: the sum over the series with these label values.
    ///
    /// # Panics
    /// When another thread has.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let families = self.metrics.lock().unwrap().gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let has = |metric: &prometheus::proto::Metric, value: &str| {
            metric.get_label().iter().any(|label| label.value() == value)
        };
        let series = family.get_metric().iter().filter(|metric| labels.iter().all(|value| has(metric, value)));
        Some(series.map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value()).sum())
    }

    fn check(&self, yaml: &str, metrics: &prometheus::Registry) -> Result<(Blueprint, Resources), Diagnostics> {
        let (resources, declared) = Resources::declare(&self.registry, &self.settings, metrics, uuid::Uuid::nil())?;
        let mut problems = Diagnostics::new();
        let blueprint = PipelineSpec::parse(&SourceText::file("p.yaml", yaml), &|_| None, &mut problems)
            .and_then(|spec| Blueprint::check(&spec, &self.registry, &declared, &self.settings, &mut problems));
        problems.into_result(blueprint.map(|blueprint| (blueprint, resources)))
    }
}

/// A running graph.
pub struct Graph {
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<Result<Summary>>,
}

impl Graph {
    /// Stops the sources and drains.
    pub async fn stop(mut self) -> Result<Summary> {
        drop(self.stop.take());
        self.end().await
    }

    /// Waits until the graph ends by itself.
    pub async fn end(mut self) -> Result<Summary> {
        // Kept until the end: letting go of it would stop the graph.
        let _stop = self.stop.take();
        self.done.await.expect("no panic")
    }

    /// Ends it as a crash would: nothing drains, nothing is committed any more.
    pub async fn crash(self) {
        self.done.abort();
        let _ = self.done.await;
    }
}
