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
use smartpulse_pipeline::topology::{Blueprint, BuildEnv, Built, Running, Summary};
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
    /// Batch sizes that sinks were given.
    pub batches: Mutex<Vec<usize>>,
    /// What the next writes of a sink answer instead of writing.
    pub failures: Mutex<BTreeMap<String, VecDeque<Error>>>,
    /// Keys that sinks refuse.
    pub refused: Mutex<Vec<String>>,
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

    pub fn emit(&self, events: Vec<Event>) {
        self.input.lock().unwrap().push_back(events);
        self.changed.notify_waiters();
    }

    pub fn fail(&self, sink: &str, error: Error) {
        self.failures.lock().unwrap().entry(sink.to_owned()).or_default().push_back(error);
    }

    pub fn versions(&self, sink: &str, key: &str) -> Vec<i64> {
        let written = self.written.lock().unwrap();
        written.iter().filter(|(s, k, _)| s == sink && k == key).map(|(_, _, version)| *version).collect()
    }

    pub fn last_committed(&self) -> Option<u64> {
        self.committed.lock().unwrap().last().copied()
    }
}

/// An update of a key with a document that is a function of its version.
pub fn event(key: &str, version: i64) -> Event {
    let document = Document::parse(Bytes::from(format!(r#"{{"n":{version}}}"#))).unwrap();
    Event::new("forecast".into(), key.into(), version, Operation::Update, Some(document))
}

type SharedProbe = Arc<Probe>;

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
        let mut rejected = Vec::new();
        self.probe.batches.lock().unwrap().push(batch.events.len());
        for (index, event) in batch.events.iter().enumerate() {
            if refused.iter().any(|key| **key == *event.key) {
                rejected.push(Rejected { index, reason: "refused by the test".to_owned() });
            } else {
                let entry = (self.id.clone(), event.key.to_string(), event.version);
                self.probe.written.lock().unwrap().push(entry);
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

pub fn registry() -> Registry {
    let mut registry = Registry::default();
    smartpulse_operators::register(&mut registry);
    registry.source::<ProbeSource>().sink::<ProbeSink>().resource::<ProbeResource>();
    registry
}

/// Checks a pipeline and gives its problems as text.
pub fn problems(yaml: &str) -> String {
    let settings = settings();
    let (_, declared) =
        Resources::declare(&registry(), &settings, &prometheus::Registry::new(), uuid::Uuid::nil()).unwrap();
    let mut diagnostics = Diagnostics::new();
    if let Some(spec) = PipelineSpec::parse(&SourceText::file("p.yaml", yaml), &|_| None, &mut diagnostics) {
        Blueprint::check(&spec, &registry(), &declared, &settings, &mut diagnostics);
    }
    diagnostics.render(false)
}

fn settings() -> Arc<Settings> {
    let sets = ["resources.probe.type=probe", "runtime.channel_batches=2"];
    let options = LoadOptions { sets: sets.map(str::to_owned).to_vec(), ..LoadOptions::default() };
    let mut settings = Settings::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    settings.resources.retain(|name, _| name == "probe");
    Arc::new(settings)
}

/// A running graph.
pub struct Graph {
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<Result<Summary>>,
}

impl Graph {
    /// Builds and starts a pipeline between the probe's ends, on a store that outlives it.
    pub async fn start(yaml: &str, probe: &SharedProbe, store: &Arc<dyn Store>) -> Self {
        let running = PROBE.scope(probe.clone(), build(yaml, store)).await;
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let done = tokio::spawn(running.wait(stopped, Duration::from_secs(20)));
        Self { stop: Some(stop), done }
    }

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

async fn build(yaml: &str, store: &Arc<dyn Store>) -> Running {
    let settings = settings();
    let metrics = prometheus::Registry::new();
    let registry = registry();
    let (resources, declared) = Resources::declare(&registry, &settings, &metrics, uuid::Uuid::nil()).unwrap();
    let mut diagnostics = Diagnostics::new();
    let blueprint = PipelineSpec::parse(&SourceText::file("p.yaml", yaml), &|_| None, &mut diagnostics)
        .and_then(|spec| Blueprint::check(&spec, &registry, &declared, &settings, &mut diagnostics))
        .unwrap_or_else(|| panic!("{diagnostics}"));
    let env = BuildEnv {
        settings,
        store: store.clone(),
        resources: Arc::new(resources),
        telemetry: Telemetry::register(&metrics).unwrap(),
        instance: uuid::Uuid::nil(),
    };
    Built::start(vec![blueprint.build(&env).await.unwrap()])
}
