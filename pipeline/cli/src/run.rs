//! `smartpulse run`: pipelines until their input ends, or until someone stops them.

use crate::args::{RunArgs, SettingsArgs};
use crate::engine::{self, Display};
use crate::failure::Failure;
use crate::home::Home;
use crate::log_table::{self, LogTable};
use crate::logging;
use crate::reading::Reading;
use crate::screen::Screen;
use crate::serve::{self, Serving};
use crate::setup::{self, Pipeline, Session};
use crate::signals::Stop;
use crate::style::{Paint, duration, rate, thousands};
use crate::summary;
use crate::traces::Traces;
use anyhow::{Context, anyhow};
use smartpulse_clients::embedded::DataFolder;
use std::time::Duration;

/// Often enough to look alive, seldom enough to cost nothing.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

pub fn run(args: &SettingsArgs, run: &RunArgs) -> Result<(), Failure> {
    let options = setup::load_options(args);
    let (session, pipelines) = setup::ready(&options, setup::read_files(&run.files))?;
    let bounded = pipelines.iter().all(|pipeline| pipeline.blueprint.bounded());
    let serving = (run.serve || !bounded) && serve::possible(&session);
    if run.serve && !serving {
        return Err(anyhow!(
            "--serve needs the resources `{}` (a cache) and `{}` (a database) in the settings",
            serve::CACHE,
            serve::DATABASE
        )
        .into());
    }
    let screen = Screen::new();
    let (lines, table) =
        log_table::queue(session.instance, &session.metrics).context("the log table's metrics cannot be registered")?;
    logging::start(&session.settings.log, &screen, serving.then_some(lines))?;
    let runtime = setup::runtime(&session.settings)?;
    let job = Job { session: &session, pipelines: &pipelines, screen: &screen };
    let outcome = runtime.block_on(job.run(bounded, serving.then_some(table)));
    // Threads that hang in a system call are not waited for.
    runtime.shutdown_background();
    outcome
}

struct Job<'a> {
    session: &'a Session,
    pipelines: &'a [Pipeline],
    screen: &'a Screen,
}

impl Job<'_> {
    async fn run(&self, bounded: bool, serving: Option<LogTable>) -> Result<(), Failure> {
        let Self { session, pipelines, screen } = *self;
        let stop = Stop::listen(screen)?;
        let prepared = tokio::select! {
            prepared = self.prepare(bounded, serving) => prepared?,
            () = stop.requested() => return Ok(()),
        };
        let (_home, _traces, running, serving) = prepared;
        let block = (bounded && screen.is_terminal()).then(|| screen.block());
        let display = block.as_ref().map(|block| Display {
            interval: PROGRESS_INTERVAL,
            draw: Box::new(|elapsed| block.set(&progress(&Reading::of(&session.metrics), elapsed))),
        });
        let finish = engine::finish(session, pipelines, screen, running, &stop, display);
        let outcome = match &serving {
            Some(serving) => {
                let warming = async {
                    engine::warm(serving, session).await;
                    std::future::pending::<std::convert::Infallible>().await
                };
                tokio::select! {
                    outcome = Box::pin(finish) => outcome,
                    never = warming => match never {},
                }
            }
            None => finish.await,
        };
        if let Some(serving) = serving {
            serving.end().await;
        }
        outcome
    }

    /// Opens everything, the data folder first: a second graph on it must not get as far as a socket.
    async fn prepare(
        &self,
        bounded: bool,
        serving: Option<LogTable>,
    ) -> Result<(Home, Traces, smartpulse_pipeline::topology::Running, Option<Serving>), Failure> {
        let session = self.session;
        let home = if bounded {
            Home::bounded(session).await?
        } else {
            Home::live(session, DataFolder::open(&session.settings.data_dir)?).await?
        };
        let traces = Traces::start(session)?;
        let serving = match serving {
            Some(logs) => {
                let listener = Serving::bind(session).await?;
                Some(Serving::start(session, listener, logs, &traces).await?)
            }
            None => None,
        };
        let running = engine::start(session, self.pipelines, home.store.clone(), &traces).await?;
        Ok((home, traces, running, serving))
    }
}

/// One line: events in, rate, time.
fn progress(reading: &Reading, elapsed: Duration) -> String {
    let paint = Paint::stderr();
    let events = summary::events_in(reading, &[]);
    let rate = format!("{}/s", rate(events, elapsed));
    format!("{} events in  {}  {}", paint.bold(thousands(events)), paint.cyan(rate), paint.dim(duration(elapsed)))
}
