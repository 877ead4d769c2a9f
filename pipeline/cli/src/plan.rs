//! `smartpulse plan`: what capturing a pipeline's tables needs and gives, asked of the databases; with `--event`, who would be told
//! what of events. Writes nothing.

mod rehearsal;

use crate::args::SettingsArgs;
use crate::failure::Failure;
use crate::setup::{self, Pipeline, Session};
use crate::style::{Paint, columns, counted, duration, print, wrap};
use anyhow::Context;
use serde_json::{Value, json};
use smartpulse_clients::database::{CaptureMode, CapturePlan, Kept, ModePlan, SharedDatabase};
use smartpulse_config::Diagnostics;
use smartpulse_sources::{CdcConfig, CdcMode};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where text begins that stands beside a name.
const INDENT: usize = 18;

/// A captured table, as the pipelines have it and as the database sees it.
struct Captured {
    /// `<pipeline>/<source>`.
    source: String,
    database: String,
    wanted: CdcMode,
    plan: CapturePlan,
}

pub fn plan(args: &SettingsArgs, files: &[PathBuf], event: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut options = setup::load_options(args);
    setup::quiet_unless_told(&mut options);
    let (session, pipelines) = setup::ready(&options, setup::read_files(files))?;
    crate::logging::start(&session.settings.log, &crate::screen::Screen::new(), None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(event) = event {
        let report = runtime.block_on(rehearsal::rehearse(&session, &pipelines, event))?;
        let text = if json { format!("{:#}\n", report.json()) } else { report.render(Paint::stdout(), columns()) };
        print(&text)?;
        return Ok(());
    }
    let captured = runtime.block_on(ask(&session, &pipelines))?;
    if json {
        let all: Vec<Value> = captured.iter().map(Captured::json).collect();
        print(&format!("{:#}\n", Value::Array(all)))?;
    } else if captured.is_empty() {
        print("no source of these pipelines captures a database\n")?;
    } else {
        print(&render(&captured, Paint::stdout(), columns()))?;
    }
    if captured.iter().all(Captured::ready) { Ok(()) } else { Err(Failure::Told) }
}

async fn ask(session: &Session, pipelines: &[Pipeline]) -> Result<Vec<Captured>, Failure> {
    let mut captured = Vec::new();
    for Pipeline { spec, .. } in pipelines {
        for source in spec.sources.iter().filter(|source| source.type_name == "cdc") {
            let mut problems = Diagnostics::new();
            let config = source.parse_params::<CdcConfig>(&mut problems);
            let config = problems.into_result(config)?;
            let name = config.database();
            let database: SharedDatabase = session.resources.get(name).await?;
            for table in config.tables() {
                let plan = database.capture_plan(table).await;
                let plan = plan.with_context(|| format!("{name} does not say how {table} can be captured"))?;
                let source = format!("{}/{}", spec.name, source.id);
                captured.push(Captured { source, database: name.to_owned(), wanted: config.mode(), plan });
            }
        }
    }
    Ok(captured)
}

impl Captured {
    /// The mode that the source takes; `auto` takes what is enabled, net changes where nothing is.
    fn taken(&self) -> CaptureMode {
        let enabled = |wanted| self.plan.modes.iter().any(|mode| mode.mode == wanted && mode.enabled);
        match self.wanted {
            CdcMode::Cdc => CaptureMode::Cdc,
            CdcMode::ChangeTracking => CaptureMode::ChangeTracking,
            CdcMode::Auto if enabled(CaptureMode::Cdc) => CaptureMode::Cdc,
            CdcMode::Auto => CaptureMode::ChangeTracking,
        }
    }

    fn taken_plan(&self) -> Option<&ModePlan> {
        self.plan.modes.iter().find(|mode| mode.mode == self.taken())
    }

    /// Whether nothing is to be done first.
    fn ready(&self) -> bool {
        self.taken_plan()
            .is_some_and(|mode| mode.enabled && mode.missing_rights.is_empty() && mode.statements.is_empty())
    }

    fn json(&self) -> Value {
        let mode = |mode: &ModePlan| {
            json!({
                "mode": mode.mode, "enabled": mode.enabled, "latency_floor": mode.latency_floor,
                "retention_s": match mode.retention {
                    Kept::For(retention) => json!(retention.as_secs()),
                    Kept::ForGood => json!("for good"),
                    Kept::Unknown => Value::Null,
                },
                "loses": mode.loses,
                "missing_rights": mode.missing_rights, "statements": mode.statements,
            })
        };
        json!({
            "source": self.source, "database": self.database, "table": self.plan.table, "ready": self.ready(),
            "mode": self.taken(),
            "plan": {
                "server": self.plan.server, "notes": self.plan.notes,
                "modes": self.plan.modes.iter().map(mode).collect::<Vec<_>>(),
            },
        })
    }
}

fn name(mode: CaptureMode) -> &'static str {
    match mode {
        CaptureMode::ChangeTracking => "change_tracking",
        CaptureMode::Cdc => "cdc",
    }
}

fn render(captured: &[Captured], paint: Paint, width: usize) -> String {
    let mut text = String::new();
    for table in captured {
        render_table(&mut text, table, paint, width);
        text.push('\n');
    }
    let waiting = captured.iter().filter(|table| !table.ready()).count();
    let tables = counted(captured.len() as u64, "table");
    let _ = match waiting {
        0 => writeln!(text, "{}  {tables}: nothing is to be done", paint.green("ok")),
        some => writeln!(text, "{}  {some} of {tables}", paint.yellow("to do")),
    };
    text
}

fn render_table(text: &mut String, captured: &Captured, paint: Paint, width: usize) {
    let Captured { source, database, plan, wanted } = captured;
    let verdict = if captured.ready() { paint.green("ready") } else { paint.yellow("to do") };
    let _ = writeln!(text, "{}  {}  {verdict}", paint.bold(&plan.table), paint.dim(source));
    let taken = captured.taken();
    let enabled = captured.taken_plan().is_some_and(|mode| mode.enabled);
    let mode = match (wanted, enabled) {
        (CdcMode::Auto, true) => format!("{}: auto takes it, for it is enabled", name(taken)),
        (CdcMode::Auto, false) => format!("{}: auto would take it; no mode is enabled yet", name(taken)),
        (_, true) => name(taken).to_owned(),
        (_, false) => format!("{}, which is not enabled yet", name(taken)),
    };
    beside(text, "database", &format!("{database}: {}", plan.server), paint, width);
    beside(text, "mode", &mode, paint, width);
    text.push('\n');
    for mode in &plan.modes {
        let keeps = match mode.retention {
            Kept::For(retention) => duration(retention),
            Kept::ForGood => "for good".to_owned(),
            Kept::Unknown => "not known".to_owned(),
        };
        let state = if mode.enabled { "enabled" } else { "not enabled" };
        let mark = if mode.mode == taken { paint.cyan(name(mode.mode)) } else { paint.dim(name(mode.mode)) };
        let padding = " ".repeat((INDENT - 2).saturating_sub(name(mode.mode).len()));
        let _ = writeln!(text, "  {mark}{padding}{state}");
        beside(text, "  is late by", &mode.latency_floor, paint, width);
        beside(text, "  does not tell", &mode.loses, paint, width);
        beside(text, "  keeps changes", &keeps, paint, width);
        for right in &mode.missing_rights {
            beside(text, "  lacks", right, paint, width);
        }
    }
    if !plan.notes.is_empty() {
        text.push('\n');
        for (at, note) in plan.notes.iter().enumerate() {
            beside(text, if at == 0 { "note" } else { "" }, note, paint, width);
        }
    }
    if let Some(mode) = captured.taken_plan().filter(|mode| !mode.statements.is_empty()) {
        let who = "to be run by somebody with the rights, in this order:";
        let _ = writeln!(text, "\n  {}\n", paint.yellow(who));
        for statement in &mode.statements {
            for line in statement.lines() {
                let _ = writeln!(text, "    {}", line.trim_end());
            }
            // So that it can be pasted into sqlcmd or Management Studio as it is.
            if !statement.trim_start().starts_with("--") {
                let _ = writeln!(text, "    {}", paint.dim("GO"));
            }
        }
    }
}

/// A name, and text beside it that is wrapped.
fn beside(text: &mut String, name: &str, value: &str, paint: Paint, width: usize) {
    let lines = wrap(value, width.saturating_sub(INDENT).max(30));
    for (at, line) in lines.iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        let padding = " ".repeat((INDENT - 2).saturating_sub(name.len()));
        let _ = writeln!(text, "  {}{padding}{line}", paint.dim(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn mode(mode: CaptureMode, enabled: bool, statements: &[&str]) -> ModePlan {
        ModePlan {
            mode,
            enabled,
            latency_floor: "half the poll interval and a round trip".to_owned(),
            retention: Kept::For(Duration::from_secs(172_800)),
            loses: "versions that are overwritten between two polls".to_owned(),
            missing_rights: if enabled { Vec::new() } else { vec!["db_owner".to_owned()] },
            statements: statements.iter().map(|statement| (*statement).to_owned()).collect(),
        }
    }

    fn captured(wanted: CdcMode, cdc: bool) -> Captured {
        let plan = CapturePlan {
            table: "Forecasts".to_owned(),
            server: "SQL Server 2022".to_owned(),
            modes: vec![
                mode(CaptureMode::Cdc, cdc, if cdc { &[] } else { &["EXEC sys.sp_cdc_enable_db;"] }),
                mode(CaptureMode::ChangeTracking, true, &[]),
            ],
            notes: vec!["the capture job is running".to_owned()],
        };
        Captured { source: "capture/changes".to_owned(), database: "main_db".to_owned(), wanted, plan }
    }

    #[test]
    fn auto_takes_what_is_enabled_and_a_mode_that_is_not_is_to_do() {
        for (wanted, cdc, taken, ready) in [
            (CdcMode::Cdc, true, CaptureMode::Cdc, true),
            (CdcMode::Cdc, false, CaptureMode::Cdc, false),
            (CdcMode::ChangeTracking, false, CaptureMode::ChangeTracking, true),
            (CdcMode::Auto, true, CaptureMode::Cdc, true),
            (CdcMode::Auto, false, CaptureMode::ChangeTracking, true),
        ] {
            let captured = captured(wanted, cdc);
            assert_eq!((captured.taken(), captured.ready()), (taken, ready), "{wanted:?} {cdc}");
        }
    }

    #[test]
    fn what_is_to_be_run_stands_at_the_end_and_can_be_pasted() {
        let expected = "\
Forecasts  capture/changes  to do
  database        main_db: SQL Server 2022
  mode            cdc, which is not enabled yet

  cdc             not enabled
    is late by    half the poll interval and a round trip
    does not tell versions that are overwritten between two polls
    keeps changes 2 d 0 h
    lacks         db_owner
  change_tracking enabled
    is late by    half the poll interval and a round trip
    does not tell versions that are overwritten between two polls
    keeps changes 2 d 0 h

  note            the capture job is running

  to be run by somebody with the rights, in this order:

    EXEC sys.sp_cdc_enable_db;
    GO

to do  1 of 1 table
";
        assert_eq!(render(&[captured(CdcMode::Cdc, false)], Paint::none(), 100), expected);
    }
}
