//! From the checked graph to connected parts, channels and tasks.

use super::blueprint::{Blueprint, Part};
use super::chain::{Chain, Desk, Gate, Lane, Node, Outlet, Target};
use super::running::Running;
use super::sink_task::SinkTask;
use super::stage_task::StageTask;
use crate::ack::AckQueue;
use crate::error::Result;
use crate::event::Batch;
use crate::registry::{BuildContext, Resources};
use crate::source::{BuiltSource, SourceContext};
use crate::state::Store;
use crate::telemetry::{ComponentMetrics, Telemetry};
use smartpulse_config::Settings;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;

/// What graphs are built with, once per process.
#[derive(Clone)]
pub struct BuildEnv {
    /// The settings.
    pub settings: Arc<Settings>,
    /// The durable memory.
    pub store: Arc<dyn Store>,
    /// Connections by name.
    pub resources: Arc<Resources>,
    /// Where components are measured.
    pub telemetry: Telemetry,
    /// This process.
    pub instance: Uuid,
}

/// A graph whose connections stand and whose tasks wait to be started.
pub struct Built {
    pub(super) pipeline: Arc<str>,
    pub(super) sources: Vec<SourceTask>,
    pub(super) stages: Vec<(Arc<str>, StageTask)>,
    pub(super) sinks: Vec<(Arc<str>, SinkTask)>,
    pub(super) measured: Vec<Measured>,
}

pub(super) struct SourceTask {
    pub id: Arc<str>,
    pub built: BuiltSource,
    pub chain: Chain,
    pub metrics: Arc<ComponentMetrics>,
    pub document_bytes_max: usize,
}

pub(super) struct Measured {
    pub id: Arc<str>,
    pub kind: &'static str,
    pub metrics: Arc<ComponentMetrics>,
}

impl SourceTask {
    pub fn context(&mut self, shutdown: tokio::sync::watch::Receiver<bool>) -> SourceContext {
        let idle = Chain::new(self.chain.desk.clone(), Vec::new(), Vec::new(), Vec::new());
        SourceContext {
            chain: std::mem::replace(&mut self.chain, idle),
            acks: AckQueue::default(),
            committer: None,
            shutdown,
            metrics: self.metrics.clone(),
            document_bytes_max: self.document_bytes_max,
        }
    }
}

impl Built {
    /// Starts the tasks of several graphs.
    #[must_use]
    pub fn start(graphs: Vec<Self>) -> Running {
        Running::start(graphs)
    }
}

impl Blueprint {
    /// Connects the parts. This is where sockets and files are opened.
    ///
    /// # Errors
    /// When something cannot be opened.
    pub async fn build(&self, env: &BuildEnv) -> Result<Built> {
        let mut builder = Builder::new(self, env);
        let mut receivers = builder.open_channels();
        let mut sources = Vec::new();
        let mut stages = Vec::new();
        let mut sinks = Vec::new();
        for (at, component) in self.components.iter().enumerate() {
            let cx = builder.context(at);
            match &component.part {
                Part::Source(config) => {
                    let built = config.build(&cx).await?;
                    let chain = builder.chain(at, Entry::BehindPart)?;
                    sources.push(SourceTask {
                        id: component.id.clone(),
                        built,
                        chain,
                        metrics: builder.metrics[at].clone(),
                        document_bytes_max: env.settings.runtime.document_bytes_max,
                    });
                }
                Part::Operator(_) if component.begins_stage() => {
                    for (receiver, gate) in receivers.remove(&at).unwrap_or_default() {
                        let chain = builder.chain(at, Entry::AtPart)?;
                        stages.push((component.id.clone(), StageTask { receiver, gate, chain }));
                    }
                }
                Part::Operator(_) => {}
                Part::Sink { config, retry } => {
                    let sink = config.build(&cx).await?;
                    // A sink has one lane.
                    let Some((receiver, gate)) = receivers.remove(&at).and_then(|mut lanes| lanes.pop()) else {
                        continue;
                    };
                    let mut state_chains: Vec<Arc<str>> = (0..self.components.len())
                        .filter(|_| config.newest_only())
                        .filter_map(|other| self.state_chain(other).filter(|_| self.sinks_behind(other).contains(&at)))
                        .collect();
                    state_chains.dedup();
                    let task =
                        SinkTask { sink, receiver, gate, desk: builder.desk(at), policy: retry.clone(), state_chains };
                    sinks.push((component.id.clone(), task));
                }
            }
        }
        let measured = self
            .components
            .iter()
            .zip(&builder.metrics)
            .map(|(component, metrics)| Measured {
                id: component.id.clone(),
                kind: component.kind(),
                metrics: metrics.clone(),
            })
            .collect();
        Ok(Built { pipeline: self.name.clone(), sources, stages, sinks, measured })
    }
}

pub(super) struct Builder<'a> {
    blueprint: &'a Blueprint,
    env: &'a BuildEnv,
    fresh: bool,
    metrics: Vec<Arc<ComponentMetrics>>,
    /// The sending ends, by the component that receives.
    channels: BTreeMap<usize, Outlet>,
}

pub(super) type Receivers = BTreeMap<usize, Vec<(mpsc::Receiver<Batch>, Arc<Gate>)>>;

/// Where a chain begins.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    /// With what follows the component: a source.
    BehindPart,
    /// With the component itself: a stage.
    AtPart,
}

impl<'a> Builder<'a> {
    pub fn new(blueprint: &'a Blueprint, env: &'a BuildEnv) -> Self {
        let components = blueprint.components.iter();
        let metrics = components
            .map(|component| env.telemetry.component(&blueprint.name, &component.id, component.kind()))
            .collect();
        Self { blueprint, env, fresh: blueprint.bounded(), metrics, channels: BTreeMap::new() }
    }

    pub fn open_channels(&mut self) -> Receivers {
        let mut receivers = Receivers::new();
        for (at, component) in self.blueprint.components.iter().enumerate() {
            if !component.begins_stage() {
                continue;
            }
            let batches = component.buffer.unwrap_or(self.env.settings.runtime.channel_batches).max(1);
            let mut lanes = Vec::new();
            for _ in 0..component.lanes {
                let (sender, receiver) = mpsc::channel(batches);
                let gate = Arc::new(Gate::default());
                lanes.push(Lane { sender, gate: gate.clone() });
                receivers.entry(at).or_default().push((receiver, gate));
            }
            self.channels.insert(at, Outlet { lanes });
        }
        receivers
    }

    fn context(&self, at: usize) -> BuildContext<'a> {
        BuildContext {
            pipeline: &self.blueprint.name,
            component: &self.blueprint.components[at].id,
            settings: &self.env.settings,
            store: &self.env.store,
            resources: &self.env.resources,
            instance: self.env.instance,
            fresh: self.fresh,
            metrics: self.metrics[at].clone(),
        }
    }

    fn desk(&self, at: usize) -> Desk {
        Desk {
            pipeline: self.blueprint.name.clone(),
            component: self.blueprint.components[at].id.clone(),
            store: self.env.store.clone(),
            metrics: self.metrics[at].clone(),
            durable: !self.fresh,
        }
    }

    /// The chain that begins at a component and ends where other tasks begin.
    pub fn chain(&self, at: usize, entry: Entry) -> Result<Chain> {
        let mut parts = ChainParts { builder: self, nodes: Vec::new(), outlets: Vec::new(), placed: BTreeMap::new() };
        let entry = match entry {
            Entry::BehindPart => parts.targets(at, 0)?,
            Entry::AtPart => vec![Target::Node(parts.node(at)?)],
        };
        let ChainParts { nodes, outlets, .. } = parts;
        let nodes = nodes.into_iter().flatten().collect();
        let outlets = outlets.into_iter().filter_map(|receiver| self.channels.get(&receiver).cloned()).collect();
        Ok(Chain::new(self.desk(at), nodes, entry, outlets))
    }
}

struct ChainParts<'b, 'a> {
    builder: &'b Builder<'a>,
    /// Filled in order of the flow, so that flushing from the first on passes through all of them. A place is
    /// taken before its successors are known.
    nodes: Vec<Option<Node>>,
    /// The receiving component of each outlet.
    outlets: Vec<usize>,
    placed: BTreeMap<usize, usize>,
}

impl ChainParts<'_, '_> {
    /// Who gets what leaves a port.
    fn targets(&mut self, from: usize, port: usize) -> Result<Vec<Target>> {
        let components = &self.builder.blueprint.components;
        let mut targets = Vec::new();
        for (at, component) in components.iter().enumerate() {
            if !component.inputs.contains(&(from, port)) {
                continue;
            }
            targets.push(if component.begins_stage() {
                let known = self.outlets.iter().position(|&receiver| receiver == at);
                Target::Channel(known.unwrap_or_else(|| {
                    self.outlets.push(at);
                    self.outlets.len() - 1
                }))
            } else {
                Target::Node(self.node(at)?)
            });
        }
        Ok(targets)
    }

    fn node(&mut self, at: usize) -> Result<usize> {
        if let Some(&place) = self.placed.get(&at) {
            return Ok(place);
        }
        let place = self.nodes.len();
        self.nodes.push(None);
        self.placed.insert(at, place);
        let blueprint = self.builder.blueprint;
        let component = &blueprint.components[at];
        let Part::Operator(config) = &component.part else {
            return Err(crate::Error::fatal(format!("`{}` is no operator", component.id)));
        };
        let operator = config.build(&self.builder.context(at))?;
        let ports = config.ports().len().max(1);
        let outputs = (0..ports).map(|port| self.targets(at, port)).collect::<Result<_>>()?;
        self.nodes[place] = Some(Node {
            component: component.id.clone(),
            operator,
            metrics: self.builder.metrics[at].clone(),
            outputs,
            state_chain: blueprint.state_chain(at),
            captures_state: blueprint.state_head(at) == Some(at),
        });
        Ok(place)
    }
}
