//! The components and resources that a graph can name, by their YAML type.
//!
//! A component is a config struct (what the YAML says, with its checks) whose `build` gives the running part.
//! Registering one is one line:
//!
//! ```text
//! registry.source::<FileSource>().operator::<Diff>().sink::<PubSubSink>();
//! ```

use crate::error::{Error, Result};
use crate::operator::Operator;
use crate::sink::Sink;
use crate::source::BuiltSource;
use crate::state::Store;
use crate::telemetry::ComponentMetrics;
use async_trait::async_trait;
use schemars::{JsonSchema, Schema, schema_for};
use serde::de::DeserializeOwned;
use smartpulse_config::{Diagnostics, Located, Node, Settings, Span, nearest};
use std::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// A config struct of any kind of component.
///
/// Its doc comments are its documentation: `smartpulse list`, the JSON Schema and the README are made from them.
pub trait Config: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The `type:` in YAML.
    const TYPE: &'static str;

    /// What the types cannot say. No I/O: nothing is opened by a check.
    fn validate(&self, _check: &mut Check<'_>) {}
}

/// A source's configuration.
#[async_trait]
pub trait SourceConfig: Config {
    /// True when the input ends by itself. A graph whose sources are all bounded starts fresh.
    const BOUNDED: bool = false;
    /// False for a source that has effects of its own and emits nothing.
    const EMITS: bool = true;

    /// Opens what the source needs.
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource>;
}

/// An operator's configuration.
pub trait OperatorConfig: Config {
    /// True for an operator with keyed state.
    const STATEFUL: bool = false;

    /// The names of its output ports; none for the usual single, unnamed one.
    fn ports(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes one instance; there are several where the operator runs in lanes.
    ///
    /// # Errors
    /// When the configuration cannot work in this run.
    fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Operator>>;
}

/// A sink's configuration.
#[async_trait]
pub trait SinkConfig: Config {
    /// The retry policy that holds when the YAML names none.
    const RETRY: &'static str = "exponential";
    /// True for a sink to which a version is worth nothing once a later one went through: a replayed dead letter that
    /// was overtaken is then let go instead of written.
    const NEWEST_ONLY: bool = false;

    /// Opens what the sink needs.
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>>;
}

/// A resource's configuration. What `build` gives is downcast by those who use it, so each kind has one type:
/// a database gives an `Arc<dyn Database>`.
#[async_trait]
pub trait ResourceConfig: Config {
    /// What it can stand for: `database`, `bus`, `pubsub`, `cache`.
    const KIND: &'static str;

    /// Connects.
    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>>;
}

/// What a config's checks may look at and complain to.
pub struct Check<'a> {
    located: &'a Located,
    declared: &'a Declared,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Check<'a> {
    /// A check of the component at `located`.
    pub fn new(located: &'a Located, declared: &'a Declared, diagnostics: &'a mut Diagnostics) -> Self {
        Self { located, declared, diagnostics }
    }

    /// A problem with the value at `pointer`, relative to the component, such as `items` or `outputs.email`.
    pub fn problem(&mut self, pointer: &str, message: impl Into<String>, help: Option<String>) {
        self.diagnostics.push(self.located.problem(pointer, message, help));
    }

    /// Demands that a resource of a kind has this name.
    pub fn resource(&mut self, pointer: &str, name: &str, kind: &str) {
        match self.declared.kinds.get(name) {
            Some(found) if *found == kind => {}
            Some(found) => {
                let help = self.names_of(kind);
                self.problem(pointer, format!("resource `{name}` is a {found}, but a {kind} is needed"), help);
            }
            None => {
                let known: Vec<&str> = self.declared.kinds.keys().map(String::as_str).collect();
                let help = match nearest(name, known) {
                    Some(near) => Some(format!("did you mean `{near}`?")),
                    None => self.names_of(kind),
                };
                self.problem(pointer, format!("no resource is named `{name}`"), help);
            }
        }
    }

    fn names_of(&self, kind: &str) -> Option<String> {
        let names: Vec<String> =
            self.declared.kinds.iter().filter(|(_, k)| **k == kind).map(|(name, _)| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| format!("resources of this kind: {}", names.join(", ")))
    }
}

/// The resources that the settings declare, with their kinds.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Kind by name.
    pub kinds: BTreeMap<String, &'static str>,
}

/// What a component is built with.
pub struct BuildContext<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The component's id.
    pub component: &'a str,
    /// The settings.
    pub settings: &'a Settings,
    /// The durable memory of the graph.
    pub store: &'a Arc<dyn Store>,
    /// Connections, by name.
    pub resources: &'a Resources,
    /// This process, in DataChanged messages and subscription names.
    pub instance: Uuid,
    /// True when the run starts fresh: positions are not read and outputs are truncated.
    pub fresh: bool,
    /// The component's metrics, for what only it can count.
    pub metrics: Arc<ComponentMetrics>,
}

impl BuildContext<'_> {
    /// Under what the source's position is kept: `<pipeline>/<source>`.
    #[must_use]
    pub fn position_id(&self) -> String {
        format!("{}/{}", self.pipeline, self.component)
    }

    /// A connection by name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn resource<T: Any + Clone + Send + Sync>(&self, name: &str) -> Result<T> {
        self.resources.get(name).await
    }
}

/// What a resource is built with.
pub struct ResourceContext<'a> {
    /// The resource's name.
    pub name: &'a str,
    /// The settings.
    pub settings: &'a Settings,
    /// Where files of this process live.
    pub data_dir: PathBuf,
    /// Where metrics are registered.
    pub registry: &'a prometheus::Registry,
    /// This process.
    pub instance: Uuid,
    /// Other connections, by name.
    pub resources: &'a Resources,
}

type Parse<C> = fn(&Node, &str, Option<&Span>, &Schema, &mut Diagnostics) -> Option<Box<C>>;

/// A registered type.
pub struct Entry<C: ?Sized> {
    emits: bool,
    schema: fn() -> Schema,
    parse: Parse<C>,
}

impl<C: ?Sized> Entry<C> {
    /// The JSON Schema of its parameters.
    #[must_use]
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// The typed configuration of a YAML mapping; problems go to `diagnostics`.
    pub fn parse(
        &self,
        node: &Node,
        path: &str,
        anchor: Option<&Span>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Box<C>> {
        (self.parse)(node, path, anchor, &self.schema(), diagnostics)
    }
}

/// Everything that YAML can name.
#[derive(Default)]
pub struct Registry {
    /// Sources by type.
    pub sources: BTreeMap<&'static str, Entry<dyn AnySource>>,
    /// Operators by type.
    pub operators: BTreeMap<&'static str, Entry<dyn AnyOperator>>,
    /// Sinks by type.
    pub sinks: BTreeMap<&'static str, Entry<dyn AnySink>>,
    /// Resources by type.
    pub resources: BTreeMap<&'static str, ResourceEntry>,
}

/// A registered resource type.
pub struct ResourceEntry {
    /// What it can stand for.
    pub kind: &'static str,
    /// Its type.
    pub entry: Entry<dyn AnyResource>,
}

macro_rules! parse_as {
    ($config:ty, $erased:ty) => {
        |node, path, anchor, schema, diagnostics| {
            smartpulse_config::parse_with_schema::<$config>(node, path, anchor, schema, diagnostics)
                .map(|config| Box::new(config) as Box<$erased>)
        }
    };
}

impl Registry {
    /// Adds a source.
    pub fn source<C: SourceConfig>(&mut self) -> &mut Self {
        self.sources
            .insert(C::TYPE, Entry { emits: C::EMITS, schema: || schema_for!(C), parse: parse_as!(C, dyn AnySource) });
        self
    }

    /// Adds an operator.
    pub fn operator<C: OperatorConfig>(&mut self) -> &mut Self {
        self.operators
            .insert(C::TYPE, Entry { emits: true, schema: || schema_for!(C), parse: parse_as!(C, dyn AnyOperator) });
        self
    }

    /// Adds a sink.
    pub fn sink<C: SinkConfig>(&mut self) -> &mut Self {
        self.sinks.insert(C::TYPE, Entry { emits: false, schema: || schema_for!(C), parse: parse_as!(C, dyn AnySink) });
        self
    }

    /// Whether components of a type pass events on; sources with effects of their own do not.
    #[must_use]
    pub fn emits(&self, type_name: &str) -> bool {
        self.sources.get(type_name).is_none_or(|entry| entry.emits)
    }

    /// Adds a resource.
    pub fn resource<C: ResourceConfig>(&mut self) -> &mut Self {
        let entry = Entry { emits: false, schema: || schema_for!(C), parse: parse_as!(C, dyn AnyResource) };
        self.resources.insert(C::TYPE, ResourceEntry { kind: C::KIND, entry });
        self
    }
}

/// A [`SourceConfig`] of any type.
#[async_trait]
pub trait AnySource: Send + Sync {
    /// See [`SourceConfig::BOUNDED`].
    fn bounded(&self) -> bool;
    /// See [`SourceConfig::EMITS`].
    fn emits(&self) -> bool;
    /// See [`Config::validate`].
    fn validate(&self, check: &mut Check<'_>);
    /// See [`SourceConfig::build`].
    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource>;
}

#[async_trait]
impl<C: SourceConfig> AnySource for C {
    fn bounded(&self) -> bool {
        C::BOUNDED
    }

    fn emits(&self) -> bool {
        C::EMITS
    }

    fn validate(&self, check: &mut Check<'_>) {
        Config::validate(self, check);
    }

    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        SourceConfig::build(self, cx).await
    }
}

/// An [`OperatorConfig`] of any type.
pub trait AnyOperator: Send + Sync {
    /// See [`OperatorConfig::STATEFUL`].
    fn stateful(&self) -> bool;
    /// See [`OperatorConfig::ports`].
    fn ports(&self) -> Vec<String>;
    /// See [`Config::validate`].
    fn validate(&self, check: &mut Check<'_>);
    /// See [`OperatorConfig::build`].
    ///
    /// # Errors
    /// As there.
    fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Operator>>;
}

impl<C: OperatorConfig> AnyOperator for C {
    fn stateful(&self) -> bool {
        C::STATEFUL
    }

    fn ports(&self) -> Vec<String> {
        OperatorConfig::ports(self)
    }

    fn validate(&self, check: &mut Check<'_>) {
        Config::validate(self, check);
    }

    fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        OperatorConfig::build(self, cx)
    }
}

/// A [`SinkConfig`] of any type.
#[async_trait]
pub trait AnySink: Send + Sync {
    /// See [`SinkConfig::RETRY`].
    fn retry(&self) -> &'static str;
    /// See [`SinkConfig::NEWEST_ONLY`].
    fn newest_only(&self) -> bool;
    /// See [`Config::validate`].
    fn validate(&self, check: &mut Check<'_>);
    /// See [`SinkConfig::build`].
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>>;
}

#[async_trait]
impl<C: SinkConfig> AnySink for C {
    fn retry(&self) -> &'static str {
        C::RETRY
    }

    fn newest_only(&self) -> bool {
        C::NEWEST_ONLY
    }

    fn validate(&self, check: &mut Check<'_>) {
        Config::validate(self, check);
    }

    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        SinkConfig::build(self, cx).await
    }
}

/// A [`ResourceConfig`] of any type.
#[async_trait]
pub trait AnyResource: Send + Sync {
    /// See [`Config::validate`].
    fn validate(&self, check: &mut Check<'_>);
    /// See [`ResourceConfig::build`].
    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>>;
}

#[async_trait]
impl<C: ResourceConfig> AnyResource for C {
    fn validate(&self, check: &mut Check<'_>) {
        Config::validate(self, check);
    }

    async fn build(&self, cx: &ResourceContext<'_>) -> Result<Arc<dyn Any + Send + Sync>> {
        ResourceConfig::build(self, cx).await
    }
}

/// The resources of a process: declared by the settings, connected when first used, shared by all.
pub struct Resources {
    settings: Arc<Settings>,
    registry: prometheus::Registry,
    instance: Uuid,
    slots: BTreeMap<String, Slot>,
}

struct Slot {
    config: Box<dyn AnyResource>,
    built: OnceCell<Arc<dyn Any + Send + Sync>>,
}

impl Resources {
    /// The resources of the settings, typed and checked but not connected.
    ///
    /// # Errors
    /// All problems of all resources.
    pub fn declare(
        registry: &Registry,
        settings: &Arc<Settings>,
        metrics: &prometheus::Registry,
        instance: Uuid,
    ) -> Result<(Self, Declared), Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let mut declared = Declared::default();
        let mut parsed = Vec::new();
        for (name, spec) in &settings.resources {
            let Some(entry) = registry.resources.get(spec.type_name.as_str()) else {
                let known: Vec<&str> = registry.resources.keys().copied().collect();
                let help = match nearest(&spec.type_name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("resource types of this build: {}", known.join(", ")),
                };
                diagnostics.push(spec.located.problem(
                    "type",
                    format!("unknown resource type `{}`", spec.type_name),
                    Some(help),
                ));
                continue;
            };
            declared.kinds.insert(name.clone(), entry.kind);
            let located = &spec.located;
            if let Some(config) =
                entry.entry.parse(&spec.params, &located.path, Some(&located.anchor), &mut diagnostics)
            {
                parsed.push((name.clone(), located, config));
            }
        }
        let mut slots = BTreeMap::new();
        for (name, located, config) in parsed {
            config.validate(&mut Check::new(located, &declared, &mut diagnostics));
            slots.insert(name, Slot { config, built: OnceCell::new() });
        }
        diagnostics.into_result(Some(()))?;
        let resources = Self { settings: settings.clone(), registry: metrics.clone(), instance, slots };
        Ok((resources, declared))
    }

    /// A connection by name, made at the first call.
    ///
    /// # Errors
    /// When there is none such, it is of another kind, or it cannot be made.
    pub async fn get<T: Any + Clone + Send + Sync>(&self, name: &str) -> Result<T> {
        let slot = self
            .slots
            .get(name)
            .ok_or_else(|| Error::fatal(format!("no resource is named `{name}`; see `resources` in the settings")))?;
        let cx = ResourceContext {
            name,
            settings: &self.settings,
            data_dir: self.settings.data_dir.clone(),
            registry: &self.registry,
            instance: self.instance,
            resources: self,
        };
        let built =
            slot.built.get_or_try_init(|| slot.config.build(&cx)).await.map_err(|error| {
                Error::new(error.kind(), format!("resource `{name}` cannot be used")).because(error)
            })?;
        built
            .downcast_ref::<T>()
            .cloned()
            .ok_or_else(|| Error::fatal(format!("resource `{name}` is not of the kind that is needed here")))
    }

    /// Where metrics are registered, for what the runtime's own cannot say.
    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }
}
