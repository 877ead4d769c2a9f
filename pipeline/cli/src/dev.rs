//! `smartpulse dev`: files for trials and benches.

use crate::args::DevCommand;
use crate::failure::Failure;
use crate::setup::shown;
use crate::style::{counted, duration, thousands};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use smartpulse_sources::real_data::{Series, write_history};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

const PROGRESS: &str = "  {bar:30} {human_pos} of {human_len} revisions  {per_sec}  {eta} left";

pub fn dev(command: &DevCommand) -> Result<(), Failure> {
    match command {
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
