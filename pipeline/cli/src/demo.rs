//! `smartpulse demo`: a week of real forecasts, changed through SQL, captured, patched, broadcast, cached, served and told to people.

use crate::args::{DemoArgs, SettingsArgs};
use crate::engine::{self, Display};
use crate::failure::Failure;
use crate::home::{self, Home};
use crate::log_table::{self, LogTable};
use crate::logging;
use crate::reading::Reading;
use crate::screen::Screen;
use crate::serve::{self, Serving};
use crate::setup::{self, Pipeline, Session, shown};
use crate::signals::Stop;
use crate::style::{Paint, Side, Table, columns, duration, print, rate, thousands, wrap};
use crate::token::DEMO_USER;
use crate::traces::Traces;
use anyhow::{Context, anyhow};
use smartpulse_api::{DevelopmentToken, Role, development_token};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::embedded::DataFolder;
use smartpulse_config::{ComponentSpec, PipelineSpec, SourceText};
use smartpulse_pipeline::topology::Running;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod people;

/// The pipelines that run, as they are in the repository.
const PIPELINES: [(&str, &str); 7] = [
    ("capture.yaml", include_str!("../../../config/pipelines/capture.yaml")),
    ("sync.yaml", include_str!("../../../config/pipelines/sync.yaml")),
    ("cache.yaml", include_str!("../../../config/pipelines/cache.yaml")),
    ("events.yaml", include_str!("../../../config/pipelines/events.yaml")),
    ("invalidate.yaml", include_str!("../../../config/pipelines/invalidate.yaml")),
    ("notify.yaml", include_str!("../../../config/pipelines/notify.yaml")),
    ("player.yaml", include_str!("../../../config/pipelines/player.yaml")),
];

/// The block on a terminal is redrawn often enough to see the numbers run.
const BLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Elsewhere a line is for a log.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Rates are those of the last seconds.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Where the database's file is unless the settings say otherwise.
const DATABASE_FILE: &str = "main.db";

pub fn demo(args: &SettingsArgs, demo: &DemoArgs) -> Result<(), Failure> {
    let mut options = setup::load_options(args);
    setup::quiet_unless_told(&mut options);
    let texts = PIPELINES.map(|(name, text)| Ok(SourceText::file(format!("(built-in) {name}"), text)));
    let (session, pipelines) = setup::ready(&options, texts.into())?;
    if !serve::possible(&session) {
        let needs =
            format!("the demo needs the resources `{}` and `{}` in the settings", serve::CACHE, serve::DATABASE);
        return Err(anyhow!(needs).into());
    }
    let screen = Screen::new();
    let (lines, logs) =
        log_table::queue(session.instance, &session.metrics).context("the log table's metrics cannot be registered")?;
    logging::start(&session.settings.log, &screen, Some(lines))?;
    let runtime = setup::runtime(&session.settings)?;
    let show = Show { session: &session, pipelines: &pipelines, screen: &screen };
    let outcome = runtime.block_on(show.run(demo, logs));
    runtime.shutdown_background();
    outcome
}

/// Everything that is up before the first line is printed.
struct Stage {
    _home: Home,
    _traces: Traces,
    running: Running,
    serving: Serving,
    /// A forecast of the week, and the company that it belongs to.
    forecast: String,
    company: String,
    forecasts: usize,
    units: usize,
    /// A bearer token of an admin.
    token: String,
}

struct Show<'a> {
    session: &'a Session,
    pipelines: &'a [Pipeline],
    screen: &'a Screen,
}

impl Show<'_> {
    async fn run(&self, demo: &DemoArgs, logs: LogTable) -> Result<(), Failure> {
        let stop = Stop::listen(self.screen)?;
        let stage = tokio::select! {
            stage = self.set(demo, logs) => stage?,
            () = stop.requested() => return Ok(()),
        };
        print(&self.header(&stage, Paint::stdout())?)?;
        let Stage { _home, running, serving, .. } = stage;
        let mut counters = Counters::of(self.pipelines);
        let metrics = &self.session.metrics;
        let block = self.screen.is_terminal().then(|| self.screen.block());
        let display = match &block {
            Some(block) => Display {
                interval: BLOCK_INTERVAL,
                draw: Box::new(move |elapsed| {
                    let now = counters.read(&Reading::of(metrics), elapsed);
                    block.set(&now.block(Paint::stderr()));
                }),
            },
            None => Display {
                interval: LINE_INTERVAL,
                draw: Box::new(move |elapsed| {
                    self.screen.print(&counters.read(&Reading::of(metrics), elapsed).line());
                }),
            },
        };
        let finish = engine::finish(self.session, self.pipelines, self.screen, running, &stop, Some(display));
        let outcome = finish.await;
        serving.end().await;
        outcome
    }

    /// Makes the database, loads the week, starts the graphs, warms the cache.
    async fn set(&self, demo: &DemoArgs, logs: LogTable) -> Result<Stage, Failure> {
        let session = self.session;
        let folder = DataFolder::open(&session.settings.data_dir)?;
        if demo.fresh {
            for file in [self.database_file(), folder.path().join(home::STATE_FILE)] {
                remove_database(&file)?;
            }
        }
        let home = Home::live(session, folder).await?;
        let listener = Serving::bind(session).await?;
        let database: SharedDatabase = session.resources.get(serve::DATABASE).await?;
        database.create_schema().await?;
        let loaded = smartpulse_sources::load_week(database.as_ref()).await.context("the week cannot be loaded")?;
        // The last one: the player comes to it last, so that a change by hand can be looked at for a while.
        let (Some(forecast), Some(company)) = (loaded.forecast_ids.last(), loaded.company_ids.last()) else {
            return Err(anyhow!("the week has no forecasts").into());
        };
        people::settle(database.as_ref(), company).await.context("the demo's users cannot be made")?;
        let traces = Traces::start(session)?;
        let serving = Serving::start(session, listener, logs, &traces).await?;
        let running = engine::start(session, self.pipelines, home.store.clone(), &traces).await?;
        engine::warm(&serving, session).await;
        Ok(Stage {
            _home: home,
            _traces: traces,
            running,
            serving,
            forecast: forecast.to_string(),
            company: company.to_string(),
            forecasts: loaded.forecast_ids.len(),
            units: loaded.unit_ids.len(),
            token: self.token()?,
        })
    }

    /// What the lines to try are sent with.
    fn token(&self) -> Result<String, Failure> {
        let settings = &self.session.settings;
        let token = DevelopmentToken {
            user: DEMO_USER,
            role: Role::Admin,
            companies: Vec::new(),
            ttl: Duration::from_secs(86_400),
        };
        Ok(development_token(&settings.api.auth, &settings.environment, &token)?)
    }

    /// What is going on, where, and what to try.
    fn header(&self, stage: &Stage, paint: Paint) -> Result<String, Failure> {
        let Stage { serving, forecast, company, forecasts, units, token, .. } = stage;
        let url = format!("http://{}", serving.address);
        let file = shown(&self.database_file());
        let pace = match self.session.settings.player.changes_per_second {
            0 => "nothing is played (player.changes_per_second is 0): every change is yours".to_owned(),
            rate => format!("a player revises them through SQL, {} changes a second", thousands(rate)),
        };
        let command = |text: String| format!("  {}", paint.cyan(text));
        let about = format!(
            "{forecasts} real forecasts of {units} production units are in {file}; {pace}. Each change is captured, \
             version-checked, diffed, broadcast, and applied to the cache that the API reads."
        );
        let about = wrap(&about, columns() - 2).join("\n  ");
        let mut lines = vec![
            paint.bold("SmartPulse demo"),
            format!("  {about}"),
            String::new(),
            format!("  {}", paint.bold(&url)),
            String::new(),
            paint.bold("Try"),
            command(format!("TOKEN={token}")),
            command(format!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/forecasts/{forecast}")),
            command(format!(
                "curl -H \"Authorization: Bearer $TOKEN\" '{url}/api/forecasts?companyId={company}&take=2'"
            )),
            command(format!("curl {url}/health/ready")),
            command(format!("curl -s {url}/metrics | grep -E '^(cache_hits_total|database_queries_total)'")),
            String::new(),
            paint.bold("Change a row with any program, then read it again: the next versionId, from L1"),
            // It waits for its turn: by itself, that program gives up at once when the player is just writing.
            command(format!(
                "sqlite3 -cmd '.timeout 2000' {file} \"UPDATE Forecasts SET Demand=0.5 WHERE Id='{forecast}'\""
            )),
            command(format!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/forecasts/{forecast}")),
            String::new(),
        ];
        lines.extend(people::lines(self.session, company, &url, paint)?);
        lines.extend([
            String::new(),
            paint.dim("Ctrl-C ends it; the data stays, and the next start goes on from there (--fresh starts over)."),
            String::new(),
            String::new(),
        ]);
        Ok(lines.join("\n"))
    }

    /// Where the database's file is, for other programs.
    fn database_file(&self) -> PathBuf {
        let settings = &self.session.settings;
        let path = settings.resources.get(serve::DATABASE).and_then(|resource| {
            let mapping = resource.params.as_mapping()?;
            mapping.get("path")?.value.as_text().map(str::to_owned)
        });
        settings.data_dir.join(path.as_deref().unwrap_or(DATABASE_FILE))
    }
}

/// Removes what earlier runs left of a database: its file, and what SQLite keeps beside it.
fn remove_database(file: &Path) -> Result<(), Failure> {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(anyhow::Error::new(error).context(format!("cannot remove {}", name.display())).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Which series are the demo's numbers, and what they were.
struct Counters {
    /// Pipeline and component of what captures, and of what broadcasts.
    captures: Vec<(String, String)>,
    broadcasts: Vec<(String, String)>,
    /// What fills inboxes, and what queues mails.
    inboxes: Vec<(String, String)>,
    mails: Vec<(String, String)>,
    /// Time, captured, sent: no older than the window.
    past: VecDeque<(Duration, u64, u64)>,
}

/// The demo's numbers at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
struct Numbers {
    elapsed: Duration,
    captured: u64,
    captured_rate: String,
    sent: u64,
    sent_rate: String,
    /// The middle and the 99th percentile from commit to cache.
    latency: Option<(Duration, Duration)>,
    l1: u64,
    l2: u64,
    /// Reads that went to the database.
    database: u64,
    /// What people were told, by inbox and by mail.
    told: (u64, u64),
}

impl Counters {
    fn of(pipelines: &[Pipeline]) -> Self {
        let named = |parts: fn(&PipelineSpec) -> &[ComponentSpec], type_name: &str| {
            let mut found = Vec::new();
            for Pipeline { spec, .. } in pipelines {
                let parts = parts(spec).iter().filter(|part| part.type_name == type_name);
                found.extend(parts.map(|part| (spec.name.clone(), part.id.clone())));
            }
            found
        };
        let captures = named(|spec| &spec.sources, "cdc");
        let broadcasts = named(|spec| &spec.sinks, "pubsub");
        let inboxes = named(|spec| &spec.sinks, "notification_db");
        let mails = named(|spec| &spec.sinks, "mail_queue");
        Self { captures, broadcasts, inboxes, mails, past: VecDeque::from([(Duration::ZERO, 0, 0)]) }
    }

    fn read(&mut self, reading: &Reading, elapsed: Duration) -> Numbers {
        let out = |parts: &[(String, String)]| -> u64 {
            let of = |(pipeline, component): &(String, String)| {
                let labels = [("pipeline", pipeline.as_str()), ("component", component.as_str())];
                reading.sum("component_events_out_total", &labels)
            };
            parts.iter().map(of).sum()
        };
        let (captured, sent) = (out(&self.captures), out(&self.broadcasts));
        while self.past.len() > 1 && self.past.front().is_some_and(|(at, ..)| elapsed.saturating_sub(*at) > RATE_WINDOW)
        {
            self.past.pop_front();
        }
        let (since, captured_then, sent_then) = self.past.front().copied().unwrap_or_default();
        self.past.push_back((elapsed, captured, sent));
        let window = elapsed.saturating_sub(since);
        let query = |name| reading.sum("database_queries_total", &[("database", serve::DATABASE), ("query", name)]);
        Numbers {
            elapsed,
            captured,
            captured_rate: rate(captured - captured_then, window),
            sent,
            sent_rate: rate(sent - sent_then, window),
            latency: reading
                .quantile("commit_to_cache_seconds", 0.5)
                .zip(reading.quantile("commit_to_cache_seconds", 0.99)),
            l1: reading.sum("cache_hits_total", &[("level", "L1")]),
            l2: reading.sum("cache_hits_total", &[("level", "L2")]),
            database: query("get") + query("list"),
            told: (out(&self.inboxes), out(&self.mails)),
        }
    }
}

impl Numbers {
    /// The share of reads that the database did not see.
    fn saved(&self) -> Option<String> {
        let reads = self.l1 + self.l2 + self.database;
        (reads > 0).then(|| format!("{:.1} %", (self.l1 + self.l2) as f64 / reads as f64 * 100.0))
    }

    fn block(&self, paint: Paint) -> String {
        let latency = match self.latency {
            Some((p50, p99)) => (duration(p50), format!("p99 {}", duration(p99))),
            None => ("-".to_owned(), String::new()),
        };
        let reads = self.l1 + self.l2;
        let saved = match self.saved() {
            Some(saved) => (saved, format!("{} of {} reads", thousands(reads), thousands(reads + self.database))),
            None => ("-".to_owned(), "no reads yet".to_owned()),
        };
        let hits = format!("L2 {}, database {}", thousands(self.l2), thousands(self.database));
        let mut table = Table::new(&[("", Side::Left), ("", Side::Right), ("", Side::Left)]);
        for (name, value, note) in [
            ("changes captured", thousands(self.captured), format!("{}/s", self.captured_rate)),
            ("patches sent", thousands(self.sent), format!("{}/s", self.sent_rate)),
            ("commit to cache", format!("p50 {}", latency.0), latency.1),
            ("cache hits", format!("L1 {}", thousands(self.l1)), hits),
            ("database reads saved", saved.0, saved.1),
            ("people told", thousands(self.told.0), format!("by inbox, {} by mail", thousands(self.told.1))),
        ] {
            table.row(vec![format!("  {name}"), value, note]);
        }
        let lines: Vec<String> = table.body().collect();
        format!("{}\n  {}", lines.join("\n"), paint.dim(format!("running for {}", duration(self.elapsed))))
    }

    fn line(&self) -> String {
        let latency = match self.latency {
            Some((p50, p99)) => format!("p50 {} p99 {}", duration(p50), duration(p99)),
            None => "-".to_owned(),
        };
        format!(
            "{}: captured {} ({}/s), patches {} ({}/s), commit to cache {latency}, hits L1 {} L2 {}, database reads {} ({} saved), told {} by inbox {} by mail\n",
            duration(self.elapsed),
            thousands(self.captured),
            self.captured_rate,
            thousands(self.sent),
            self.sent_rate,
            thousands(self.l1),
            thousands(self.l2),
            thousands(self.database),
            self.saved().unwrap_or_else(|| "-".to_owned()),
            thousands(self.told.0),
            thousands(self.told.1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_config::LoadOptions;

    #[test]
    fn the_built_in_pipelines_are_valid_together() {
        let texts = PIPELINES.map(|(name, text)| Ok(SourceText::file(name, text))).into();
        let (session, checked) = setup::check(&LoadOptions::default(), texts);
        let problems: Vec<String> = checked.into_iter().filter_map(|file| Some(file.err()?.render(false))).collect();
        assert!(session.is_ok());
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn the_block_is_aligned_and_the_line_says_the_same() {
        let numbers = Numbers {
            elapsed: Duration::from_secs(63),
            captured: 12_345,
            captured_rate: "200".into(),
            sent: 12_340,
            sent_rate: "199".into(),
            latency: Some((Duration::from_micros(3_200), Duration::from_millis(14))),
            l1: 1_204,
            l2: 88,
            database: 31,
            told: (42, 12),
        };
        let expected = "  \
  changes captured          12,345  200/s
  patches sent              12,340  199/s
  commit to cache       p50 3.2 ms  p99 14 ms
  cache hits              L1 1,204  L2 88, database 31
  database reads saved      97.7 %  1,292 of 1,323 reads
  people told                   42  by inbox, 12 by mail
  running for 1 min 3 s";
        assert_eq!(numbers.block(Paint::none()), expected);
        assert_eq!(
            numbers.line(),
            "1 min 3 s: captured 12,345 (200/s), patches 12,340 (199/s), commit to cache p50 3.2 ms p99 14 ms, \
             hits L1 1,204 L2 88, database reads 31 (97.7 % saved), told 42 by inbox 12 by mail\n"
        );
    }
}
