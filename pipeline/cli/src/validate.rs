//! `smartpulse validate`: a verdict per file, and every problem of all of them.

use crate::args::SettingsArgs;
use crate::failure::Failure;
use crate::setup;
use crate::style::{Paint, Side, Table, counted, print};
use smartpulse_config::Diagnostics;
use std::path::PathBuf;

pub fn validate(args: &SettingsArgs, files: &[PathBuf]) -> Result<(), Failure> {
    let options = setup::load_options(args);
    let (session, checked) = setup::check(&options, setup::read_files(files));
    let mut problems = Diagnostics::new();
    if let Err(more) = session {
        problems.extend(more);
    }
    let mut good = Vec::new();
    for file in checked {
        match file {
            Ok(pipeline) => good.push(pipeline),
            Err(more) => problems.extend(more),
        }
    }
    let count = |many: usize, noun: &str| counted(many as u64, noun);
    let mut table = Table::new(&[("", Side::Left), ("", Side::Left)]);
    for setup::Pipeline { spec, .. } in &good {
        let parts = format!(
            "({}, {}, {})",
            count(spec.sources.len(), "source"),
            count(spec.operators.len(), "operator"),
            count(spec.sinks.len(), "sink")
        );
        table.row(vec![spec.name.clone(), parts]);
    }
    let ok = Paint::stdout().green("ok");
    let lines: String = table.body().map(|line| format!("{ok}  {line}\n")).collect();
    print(&lines)?;
    problems.into_result(Some(())).map_err(Failure::from)
}
