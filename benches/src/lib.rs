//! What the benchmarks share: a graph run in this process, and medians.

use smartpulse_clients::embedded::MemoryStore;
use smartpulse_config::{Diagnostics, PipelineSpec, Settings, SourceText};
use smartpulse_pipeline::registry::{Registry, Resources};
use smartpulse_pipeline::telemetry::Telemetry;
use smartpulse_pipeline::topology::{Blueprint, BuildEnv, Built, Summary};
use std::sync::Arc;
use std::time::Duration;

/// Runs a pipeline of bounded sources to its end, with `variables` as its environment.
///
/// # Panics
/// When the pipeline is wrong or fails: a benchmark of that is worth nothing.
pub async fn run_to_end(name: &str, yaml: &str, variables: &[(&str, &str)]) -> Summary {
    let mut registry = Registry::default();
    smartpulse_clients::register(&mut registry);
    smartpulse_sources::register(&mut registry);
    smartpulse_operators::register(&mut registry);
    smartpulse_sinks::register(&mut registry);
    let mut settings = Settings::default();
    settings.resources.clear();
    let settings = Arc::new(settings);
    let metrics = prometheus::Registry::new();
    let instance = uuid::Uuid::nil();
    let (resources, declared) =
        Resources::declare(&registry, &settings, &metrics, instance).unwrap_or_else(|problems| panic!("{problems}"));
    let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let mut problems = Diagnostics::new();
    let blueprint = PipelineSpec::parse(&SourceText::file(name, yaml), &lookup, &mut problems)
        .and_then(|spec| Blueprint::check(&spec, &registry, &declared, &settings, &mut problems));
    let blueprint = blueprint.unwrap_or_else(|| panic!("{problems}"));
    let env = BuildEnv {
        settings,
        store: Arc::new(MemoryStore::new()),
        resources: Arc::new(resources),
        telemetry: Telemetry::register(&metrics).expect("a fresh registry"),
        instance,
    };
    let built = blueprint.build(&env).await.unwrap_or_else(|error| panic!("{error:?}"));
    let running = Built::start(vec![built]);
    let done = running.wait(std::future::pending(), Duration::from_secs(60)).await;
    done.unwrap_or_else(|error| panic!("{error:?}"))
}

/// The middle of an odd number of measurements.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
