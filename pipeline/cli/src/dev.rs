//! `smartpulse dev`: files and databases for trials and benches.

use crate::args::{DevCommand, SettingsArgs};
use crate::failure::Failure;
use crate::serve;
use crate::setup::{self, shown};
use crate::style::{counted, duration, thousands};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_sources::real_data::{Series, write_history};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

const PROGRESS: &str = "  {bar:30} {human_pos} of {human_len} revisions  {per_sec}  {eta} left";

pub fn dev(args: &SettingsArgs, command: &DevCommand) -> Result<(), Failure> {
    match command {
        DevCommand::Database { week } => database(args, *week),
        #[cfg(feature = "stand-in")]
        DevCommand::Sqlserver { listen, data } => crate::stand_in::sqlserver(args, *listen, data.as_deref()),
        #[cfg(feature = "cluster")]
        DevCommand::Cluster => crate::cluster::cluster(args),
        DevCommand::Revisions { input, output } => revisions(input.as_deref(), output),
    }
}

/// Writes every revision of every forecast, in order, as one document per line.
fn revisions(input: Option<&Path>, output: &Path) -> Result<(), Failure> {
    let started = Instant::now();
    let series = match input {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            Series::read(BufReader::new(file)).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => Series::week(),
    };
    let cannot = || format!("cannot write {}", output.display());
    let mut out = BufWriter::new(File::create(output).with_context(cannot)?);
    // indicatif draws on standard error, and not at all where that is no terminal.
    let style = ProgressStyle::with_template(PROGRESS).context("the bar's template is wrong")?;
    let bar = ProgressBar::new(series.revision_count() as u64).with_style(style.progress_chars("=> "));
    let lines = write_history(&series, &mut out, |lines| bar.set_position(lines)).with_context(cannot)?;
    out.flush().with_context(cannot)?;
    bar.finish_and_clear();
    let bytes = out.get_ref().metadata().map_or(0, |file| file.len());
    eprintln!(
        "{} of {} units over {} in {} ({} bytes), {}",
        counted(lines, "revision"),
        series.units().len(),
        counted(series.days() as u64, "day"),
        shown(output),
        thousands(bytes),
        duration(started.elapsed())
    );
    Ok(())
}

/// Creates the schema, and loads the week where it is asked for.
fn database(args: &SettingsArgs, week: bool) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    runtime.block_on(async {
        let database: SharedDatabase = session.resources.get(serve::DATABASE).await?;
        database.create_schema().await?;
        eprintln!("the schema of {} stands", serve::DATABASE);
        if week {
            let loaded = smartpulse_sources::load_week(database.as_ref()).await.context("the week cannot be loaded")?;
            let (units, forecasts) = (loaded.units_inserted as u64, loaded.forecasts_inserted as u64);
            eprintln!("{} and {} inserted", counted(units, "unit"), counted(forecasts, "forecast"));
        }
        Ok(())
    })
}
