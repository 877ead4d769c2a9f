//! Settings, registry, resources and checked pipelines: everything that is known before anything is opened.
//!
//! All problems of the settings and of all files are collected, so that they are fixed in one go.

use crate::args::SettingsArgs;
use crate::failure::Failure;
use crate::logging;
use crate::screen::Screen;
use crate::traces;
use smartpulse_config::{ComponentSpec, Diagnostics, Kind, LoadOptions, PipelineSpec, Settings, SourceText, nearest};
use smartpulse_pipeline::registry::{Declared, Entry, Registry, Resources};
use smartpulse_pipeline::topology::Blueprint;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// The folder of the settings' files when none is named.
const CONFIG_DIR: &str = "config";

/// Every type of this build.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    smartpulse_sources::register(&mut registry);
    smartpulse_operators::register(&mut registry);
    smartpulse_sinks::register(&mut registry);
    smartpulse_mail::register(&mut registry);
    #[cfg(feature = "push")]
    smartpulse_push::register(&mut registry);
    smartpulse_clients::resources::register(&mut registry);
    #[cfg(feature = "sqlserver")]
    smartpulse_sqlserver::register(&mut registry);
    smartpulse_cache::register(&mut registry);
    #[cfg(feature = "redis")]
    smartpulse_redis::register(&mut registry);
    #[cfg(feature = "pulsar")]
    smartpulse_pulsar::register(&mut registry);
    registry
}

/// Where settings are read from.
pub fn load_options(args: &SettingsArgs) -> LoadOptions {
    let config_dir = args.config_dir.clone().or_else(|| {
        let folder = PathBuf::from(CONFIG_DIR);
        folder.is_dir().then_some(folder)
    });
    LoadOptions { config_dir, environment: args.env.clone(), sets: args.sets.clone(), ..LoadOptions::from_process() }
}

/// What a process needs to build graphs, nothing of it connected.
pub struct Session {
    pub settings: Arc<Settings>,
    pub registry: Registry,
    pub resources: Arc<Resources>,
    pub declared: Declared,
    pub metrics: prometheus::Registry,
    pub instance: Uuid,
}

impl Session {
    /// Reads the settings and checks the resources.
    ///
    /// # Errors
    /// All problems of all layers.
    pub fn read(options: &LoadOptions) -> Result<Self, Diagnostics> {
        let settings = Arc::new(Settings::load(options)?);
        let registry = registry();
        let metrics = prometheus::Registry::new();
        let instance = Uuid::new_v4();
        let mut problems = Diagnostics::new();
        if let Err(problem) = logging::filter(&settings.log) {
            problems.push(problem);
        }
        if let Some(problem) = traces::problem(&settings.traces) {
            problems.push(problem);
        }
        let (resources, declared) = match Resources::declare(&registry, &settings, &metrics, instance) {
            Ok(declared) => declared,
            Err(more) => {
                problems.extend(more);
                return Err(problems);
            }
        };
        problems.into_result(Some(()))?;
        Ok(Self { settings, registry, resources: Arc::new(resources), declared, metrics, instance })
    }
}

/// A checked pipeline.
pub struct Pipeline {
    pub spec: PipelineSpec,
    pub blueprint: Blueprint,
}

/// What became of a file.
pub type Checked = Result<Pipeline, Diagnostics>;

/// The texts of files; one that cannot be read is a problem of its own.
pub fn read_files(files: &[PathBuf]) -> Vec<Result<Arc<SourceText>, Diagnostics>> {
    let read = |path: &PathBuf| {
        SourceText::read(path).map_err(|problem| {
            let mut problems = Diagnostics::new();
            problems.push(problem);
            problems
        })
    };
    files.iter().map(read).collect()
}

/// Checks pipelines against settings; files are judged one by one, and the settings' problems stand apart.
pub fn check(
    options: &LoadOptions,
    texts: Vec<Result<Arc<SourceText>, Diagnostics>>,
) -> (Result<Session, Diagnostics>, Vec<Checked>) {
    let session = Session::read(options);
    let lookup = |name: &str| options.lookup(name);
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let checked = texts
        .into_iter()
        .map(|text| {
            let text = text?;
            let mut problems = Diagnostics::new();
            let spec = PipelineSpec::parse(&text, &lookup, &mut problems);
            let blueprint = match (&spec, &session) {
                (Some(spec), Ok(session)) => {
                    let Session { registry, declared, settings, .. } = session;
                    Blueprint::check(spec, registry, declared, settings, &mut problems)
                }
                (Some(spec), Err(_)) => {
                    check_parameters(spec, &mut problems);
                    None
                }
                (None, _) => None,
            };
            if let Some(spec) = spec.as_ref().filter(|spec| !spec.name.is_empty()) {
                if let Some(first) = names.get(&spec.name) {
                    let message = format!("the name `{}` is taken by {first}", spec.name);
                    let help = "positions, state and metrics hang on the name: give each pipeline its own".to_owned();
                    problems.push(spec.located.problem("name", message, Some(help)));
                }
                names.entry(spec.name.clone()).or_insert_with(|| text.name().to_owned());
            }
            let pipeline = spec.zip(blueprint).map(|(spec, blueprint)| Pipeline { spec, blueprint });
            match (pipeline, &session) {
                // Without settings nobody knows; the file is not at fault.
                (None, Err(_)) if problems.is_empty() => Err(problems),
                (pipeline, _) => problems.into_result(pipeline),
            }
        })
        .collect();
    (session, checked)
}

/// All pipelines ready to be built.
///
/// # Errors
/// All problems of the settings and of all files.
pub fn ready(
    options: &LoadOptions,
    texts: Vec<Result<Arc<SourceText>, Diagnostics>>,
) -> Result<(Session, Vec<Pipeline>), Failure> {
    let (session, checked) = check(options, texts);
    let mut problems = Diagnostics::new();
    let mut pipelines = Vec::new();
    let session = match session {
        Ok(session) => Some(session),
        Err(more) => {
            problems.extend(more);
            None
        }
    };
    for file in checked {
        match file {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(more) => problems.extend(more),
        }
    }
    let session = problems.into_result(session)?;
    Ok((session, pipelines))
}

/// What can be said of components while the settings are unreadable: types and parameters, not what they refer to.
fn check_parameters(spec: &PipelineSpec, problems: &mut Diagnostics) {
    let registry = registry();
    for component in spec.components() {
        match component.kind {
            Kind::Source => check_component(component, &registry.sources, problems),
            Kind::Operator => check_component(component, &registry.operators, problems),
            Kind::Sink => check_component(component, &registry.sinks, problems),
        }
    }
    spec.check_consumed(&|type_name| registry.emits(type_name), problems);
}

fn check_component<C: ?Sized>(
    component: &ComponentSpec,
    types: &BTreeMap<&'static str, Entry<C>>,
    problems: &mut Diagnostics,
) {
    let name = component.type_name.as_str();
    let Some(entry) = types.get(name) else {
        let help = match nearest(name, types.keys().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`smartpulse list {}` names the types", component.kind.section()),
        };
        let message = format!("there is no {} type `{name}`", component.kind.name());
        problems.push(component.located.problem("type", message, Some(help)));
        return;
    };
    // Parsed for the complaints only.
    entry.parse(&component.params, &component.located.path, Some(&component.located.anchor), problems);
}

/// The runtime that everything of a command runs on.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime(settings: &Settings) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if settings.runtime.worker_threads > 0 {
        builder.worker_threads(settings.runtime.worker_threads);
    }
    builder.enable_all().thread_name("smartpulse").build()
}

/// The settings and a runtime for commands that look into the data folder.
///
/// # Errors
/// All problems of the settings.
pub fn for_tools(args: &SettingsArgs) -> Result<(Session, tokio::runtime::Runtime), Failure> {
    let mut options = load_options(args);
    quiet_unless_told(&mut options);
    let session = Session::read(&options)?;
    logging::start(&session.settings.log, &Screen::new(), None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok((session, runtime))
}

/// Logs warnings only, where the environment does not say otherwise: the screen is for what was asked for.
pub fn quiet_unless_told(options: &mut LoadOptions) {
    options.env.entry("SMARTPULSE__LOG__LEVEL".to_owned()).or_insert_with(|| "warn".to_owned());
}

/// A path as people type it.
pub fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    text.strip_prefix("./").map_or(text.clone(), str::to_owned)
}
