//! The tasks of running graphs, their end and their summary.

use super::build::{Built, Measured, SourceTask};
use super::chain::CHAIN_BROKEN;
use super::retry::Patience;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::source::{COMMITTER_GONE, Committer};
use crate::telemetry::Totals;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

/// Lists of positions that may wait for the committer; beyond it the source waits.
const COMMITS_MAX: usize = 64;

/// Running graphs.
pub struct Running {
    tasks: JoinSet<Result<()>>,
    shutdown: watch::Sender<bool>,
    measured: Vec<(Arc<str>, Measured)>,
}

/// What the graphs have done.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Every component, in the order of the files.
    pub components: Vec<ComponentSummary>,
}

/// What one component has done.
#[derive(Debug, Clone)]
pub struct ComponentSummary {
    /// Its pipeline.
    pub pipeline: Arc<str>,
    /// Its id.
    pub id: Arc<str>,
    /// `source`, `operator` or `sink`.
    pub kind: &'static str,
    /// Its totals.
    pub totals: Totals,
}

impl Summary {
    /// A sum over the components of a kind.
    pub fn sum(&self, kind: &str, of: impl Fn(&Totals) -> u64) -> u64 {
        self.components.iter().filter(|component| component.kind == kind).map(|component| of(&component.totals)).sum()
    }

    /// How many events were dropped for a reason, anywhere.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> u64 {
        self.components.iter().filter_map(|component| component.totals.dropped.get(reason)).sum()
    }

    /// How often something was noted, anywhere.
    #[must_use]
    pub fn noted(&self, what: &str) -> u64 {
        self.components.iter().filter_map(|component| component.totals.noted.get(what)).sum()
    }

    /// How many events were set aside, anywhere.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        self.components.iter().map(|component| component.totals.dead_letters).sum()
    }
}

impl Running {
    pub(super) fn start(graphs: Vec<Built>) -> Self {
        let (shutdown, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut measured = Vec::new();
        for graph in graphs {
            let pipeline = graph.pipeline;
            for (id, task) in graph.sinks {
                let span = tracing::info_span!("sink", %pipeline, component = %id);
                tasks.spawn(task.run().instrument(span));
            }
            for (id, task) in graph.stages {
                let span = tracing::info_span!("stage", %pipeline, component = %id);
                tasks.spawn(task.run().instrument(span));
            }
            for task in graph.sources {
                let span = tracing::info_span!("source", %pipeline, component = %task.id);
                tasks.spawn(run_source(task, pipeline.clone(), stop.clone()).instrument(span));
            }
            measured.extend(graph.measured.into_iter().map(|part| (pipeline.clone(), part)));
        }
        Self { tasks, shutdown, measured }
    }

    /// What has been done so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let components = self
            .measured
            .iter()
            .map(|(pipeline, part)| ComponentSummary {
                pipeline: pipeline.clone(),
                id: part.id.clone(),
                kind: part.kind,
                totals: part.metrics.totals(),
            })
            .collect();
        Summary { components }
    }

    /// Waits until all graphs have ended by themselves, or drains them once `stop` resolves.
    ///
    /// # Errors
    /// The first failure of a component; or that draining took longer than `drain`, in which case what was not
    /// acknowledged comes again after the restart.
    pub async fn wait(mut self, stop: impl Future<Output = ()>, drain: Duration) -> Result<Summary> {
        tokio::pin!(stop);
        let mut deadline: Option<tokio::time::Instant> = None;
        let mut failure: Option<Error> = None;
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => {
                    let result = match ended {
                        None => break,
                        Some(Ok(result)) => result,
                        Some(Err(panic)) => Err(Error::fatal("a component panicked").because(panic)),
                    };
                    if let Err(error) = result {
                        tracing::debug!(error = error.chain(), "a task ended with an error");
                        // A broken chain is the echo of a failure further down, whichever is heard first.
                        let echo = |error: &Error| error.to_string() == CHAIN_BROKEN;
                        if failure.as_ref().is_none_or(|first| echo(first) && !echo(&error)) {
                            failure = Some(error);
                        }
                        self.shutdown.send_replace(true);
                        deadline.get_or_insert_with(|| tokio::time::Instant::now() + drain);
                    }
                }
                () = &mut stop, if deadline.is_none() => {
                    tracing::info!("stopping: sources stop, what is on its way is finished");
                    self.shutdown.send_replace(true);
                    deadline = Some(tokio::time::Instant::now() + drain);
                }
                () = until(deadline) => {
                    let waiting = self.tasks.len();
                    self.tasks.abort_all();
                    let late = format!(
                        "{waiting} tasks did not finish within {drain:?} (runtime.drain_timeout_ms); what was not acknowledged comes again after the restart"
                    );
                    return Err(failure.unwrap_or_else(|| Error::unavailable(late)));
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(self.summary()),
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn run_source(mut task: SourceTask, pipeline: Arc<str>, stop: watch::Receiver<bool>) -> Result<()> {
    let mut cx = task.context(stop);
    let committing = task.built.committer.map(|committer| {
        let (sender, receiver) = mpsc::channel(COMMITS_MAX);
        cx.committer = Some(sender);
        // In a task of its own, so that a slow commit holds nothing back until its queue is full.
        tokio::spawn(commit(committer, receiver))
    });
    let result = match task.built.source.run(&mut cx).await {
        Ok(()) => cx.finish().await,
        Err(error) => Err(error),
    };
    drop(cx);
    let committed = match committing {
        Some(handle) => handle.await.unwrap_or_else(|panic| Err(Error::fatal("the committer panicked").because(panic))),
        None => Ok(()),
    };
    let result = match result {
        Err(error) if error.to_string() == COMMITTER_GONE => committed.and(Err(error)),
        result => result.and(committed),
    };
    result.map_err(|error| {
        if error.to_string() == CHAIN_BROKEN {
            return error;
        }
        Error::new(error.kind(), format!("source {} of pipeline {pipeline} failed", task.id)).because(error)
    })
}

async fn commit(mut committer: Box<dyn Committer>, mut receiver: mpsc::Receiver<Vec<Position>>) -> Result<()> {
    while let Some(mut positions) = receiver.recv().await {
        while let Ok(more) = receiver.try_recv() {
            positions.extend(more);
        }
        let mut patience = Patience::new("positions");
        while let Err(error) = committer.commit(&positions).await {
            patience.after(error).await?;
        }
    }
    committer.close().await
}
