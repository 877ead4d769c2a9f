//! `smartpulse graph`: a pipeline as a Mermaid flowchart.

use crate::args::SettingsArgs;
use crate::failure::Failure;
use crate::setup;
use crate::style::print;
use std::path::PathBuf;

pub fn graph(args: &SettingsArgs, file: &PathBuf) -> Result<(), Failure> {
    let options = setup::load_options(args);
    let (_, pipelines) = setup::ready(&options, setup::read_files(std::slice::from_ref(file)))?;
    for pipeline in pipelines {
        print(&pipeline.blueprint.mermaid())?;
    }
    Ok(())
}
