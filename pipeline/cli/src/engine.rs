//! Graphs from start to end: connected, started, watched, drained, summed up.

use crate::failure::Failure;
use crate::reading::Reading;
use crate::screen::Screen;
use crate::serve::Serving;
use crate::setup::{Pipeline, Session};
use crate::signals::Stop;
use crate::style::Paint;
use crate::summary;
use crate::traces::Traces;
use anyhow::Context;
use smartpulse_pipeline::state::Store;
use smartpulse_pipeline::telemetry::Telemetry;
use smartpulse_pipeline::topology::{BuildEnv, Built, Running};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is shown while graphs run: drawn at the interval, with the time since they started.
pub struct Display<'a> {
    pub interval: Duration,
    pub draw: Box<dyn FnMut(Duration) + 'a>,
}

/// Connects the parts of all pipelines and starts them together.
///
/// # Errors
/// When something cannot be opened; nothing has started then.
pub async fn start(
    session: &Session,
    pipelines: &[Pipeline],
    store: Arc<dyn Store>,
    traces: &Traces,
) -> Result<Running, Failure> {
    let telemetry = Telemetry::register(&session.metrics)
        .context("the runtime's metrics cannot be registered")?
        .with_tracer(traces.tracer());
    let env = BuildEnv {
        settings: session.settings.clone(),
        store,
        resources: session.resources.clone(),
        telemetry,
        instance: session.instance,
    };
    let mut graphs = Vec::new();
    for pipeline in pipelines {
        let built = pipeline.blueprint.build(&env).await;
        graphs.push(built.with_context(|| format!("pipeline {} cannot start", pipeline.spec.name))?);
    }
    Ok(Built::start(graphs))
}

/// Runs graphs that have been started to their end, and prints what they did, however they end.
///
/// # Errors
/// The first failure of a component.
pub async fn finish(
    session: &Session,
    pipelines: &[Pipeline],
    screen: &Screen,
    running: Running,
    stop: &Stop,
    display: Option<Display<'_>>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let drain = Duration::from_millis(session.settings.runtime.drain_timeout_ms);
    let ended = tokio::select! {
        ended = running.wait(stop.requested(), drain) => ended,
        never = watch(display, started) => match never {},
    };
    let elapsed = started.elapsed();
    let names: Vec<&str> = pipelines.iter().map(|pipeline| pipeline.spec.name.as_str()).collect();
    screen.print(&summary::closing(&Reading::of(&session.metrics), &names, elapsed, Paint::stderr()));
    ended.map(|_| ()).map_err(Failure::from)
}

/// Draws for ever.
async fn watch(display: Option<Display<'_>>, started: Instant) -> std::convert::Infallible {
    let Some(mut display) = display else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(display.interval).await;
        (display.draw)(started.elapsed());
    }
}

/// Warms the API's cache in the background: requests are answered meanwhile, from the database.
pub async fn warm(serving: &Serving, session: &Session) {
    match serving.warm(session).await {
        Ok(rows) => tracing::info!(rows, address = %serving.address, "the cache is warm; serving"),
        Err(error) => tracing::warn!(error = error.chain(), "the cache starts cold"),
    }
}
