//! `smartpulse dev cluster`: a cluster on one machine, until it is stopped. Redis, Pulsar, the stand-in for SQL Server, three
//! instances of this program that run the same pipelines, and a player that changes the database.
//!
//! Redis, Pulsar and each instance are processes of their own, which end with this one however that ends; the stand-in
//! and the player are in this one. An instance that dies is told of and left dead: the others go on without it. Nothing is
//! kept: the databases end with the cluster, and the instances' folders are emptied when the next one starts.

use crate::args::SettingsArgs;
use crate::engine;
use crate::failure::Failure;
use crate::http;
use crate::logging;
use crate::screen::Screen;
use crate::setup::{self, Pipeline, Session, shown};
use crate::signals::Stop;
use crate::stand_in;
use crate::style::{Paint, print, thousands};
use crate::token::DEMO_USER;
use crate::traces::Traces;
use anyhow::{Context, anyhow};
use futures::future::join_all;
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_config::SourceText;
use smartpulse_pipeline::topology::Running;
use smartpulse_stand_in::server::{Options, StandIn};
use smartpulse_testing::pulsar::Broker;
use smartpulse_testing::redis::RedisServer;
use std::convert::Infallible;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many instances there are.
const INSTANCES: u16 = 3;

/// What every instance runs, as it is in the repository.
const PIPELINES: [(&str, &str); 5] = [
    ("capture.yaml", include_str!("../../../config/pipelines/capture.yaml")),
    ("sync.yaml", include_str!("../../../config/pipelines/sync.yaml")),
    ("cache.yaml", include_str!("../../../config/pipelines/cache.yaml")),
    ("events.yaml", include_str!("../../../config/pipelines/events.yaml")),
    ("invalidate.yaml", include_str!("../../../config/pipelines/invalidate.yaml")),
];

/// What runs here and not in the instances.
const PLAYER: &str = include_str!("../../../config/pipelines/player.yaml");

/// How long an instance may take to be ready: it takes a second on an idle machine.
const READY_PATIENCE: Duration = Duration::from_secs(120);

/// How long an instance may take beyond its own time to drain.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How often the instances are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How much of its log is shown of an instance that does not start.
const LOG_LINES: usize = 20;

pub fn cluster(args: &SettingsArgs) -> Result<(), Failure> {
    let mut options = setup::load_options(args);
    setup::quiet_unless_told(&mut options);
    let server = stand_in::start(Options::default(), None)?;
    let login = Options::default();
    let mut variables = stand_in::variables(server.address(), &login.user, &login.password);
    options.env.extend(variables.iter().cloned());
    let (session, player) = setup::ready(&options, vec![Ok(SourceText::file("(built-in) player.yaml", PLAYER))])?;
    let screen = Screen::new();
    logging::start(&session.settings.log, &screen, None)?;
    eprintln!("starting Redis, and Pulsar, which takes half a minute");
    let redis = RedisServer::try_start(&[]).map_err(|reason| anyhow!("no Redis: {reason}"))?;
    let broker = Broker::start().map_err(|reason| anyhow!("no Pulsar: {}", reason.trim()))?;
    variables.extend(
        [
            ("PUBSUB__TYPE", "redis"),
            ("PUBSUB__URL", &redis.url()),
            ("BUS__TYPE", "pulsar"),
            ("BUS__SERVICE_URL", &broker.service_url),
            ("BUS__ADMIN_URL", &broker.admin_url),
        ]
        .map(|(key, value)| (format!("SMARTPULSE__RESOURCES__{key}"), value.to_owned())),
    );
    let place = Place::make(args, &session, variables)?;
    let show = Show { session: &session, player: &player, screen: &screen, place: &place, server: &server };
    let runtime = setup::runtime(&session.settings)?;
    let outcome = runtime.block_on(show.run());
    runtime.shutdown_background();
    drop((broker, redis));
    server.stop();
    outcome
}

/// Where instances run, and with which settings.
struct Place<'a> {
    args: &'a SettingsArgs,
    variables: Vec<(String, String)>,
    folder: PathBuf,
    files: Vec<PathBuf>,
    listen: SocketAddr,
}

impl<'a> Place<'a> {
    fn make(args: &'a SettingsArgs, session: &Session, variables: Vec<(String, String)>) -> Result<Self, Failure> {
        let folder = session.settings.data_dir.join("cluster");
        let cannot = || format!("the cluster cannot use the folder {}", shown(&folder));
        // What an earlier cluster remembers of its databases is not of these.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(cannot)?;
        }
        std::fs::create_dir_all(&folder).with_context(cannot)?;
        let folder = folder.canonicalize().with_context(cannot)?;
        let mut files = Vec::new();
        for (name, text) in PIPELINES {
            let file = folder.join(name);
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", shown(&file)))?;
            files.push(file);
        }
        Ok(Self { args, variables, folder, files, listen: session.settings.api.listen })
    }

    /// Starts instance `number`, from 1, on the API's port and those after it; on a free one where that is 0.
    fn start(&self, number: u16) -> Result<Instance, Failure> {
        let folder = self.folder.join(format!("instance-{number}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", shown(&folder)))?;
        let log = folder.join("log.txt");
        let output = File::create(&log).with_context(|| format!("cannot write {}", shown(&log)))?;
        let mut address = self.listen;
        match address.port() {
            0 => address = TcpListener::bind(address).and_then(|free| free.local_addr())?,
            first => address.set_port(first.saturating_add(number - 1)),
        }
        let mut command = dies_with_us(&std::env::current_exe().context("where is this program?")?);
        command.arg("run").args(&self.files);
        if let Some(environment) = &self.args.env {
            command.args(["--env", environment]);
        }
        if let Some(folder) = &self.args.config_dir {
            command.arg("--config-dir").arg(folder);
        }
        // Behind what the caller sets: these are each instance's own.
        let own = [
            format!("data_dir={}", folder.display()),
            format!("api.listen={address}"),
            format!("api.streams.instance=instance-{number}"),
        ];
        for set in self.args.sets.iter().chain(&own) {
            command.args(["--set", set]);
        }
        let child = command
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            // Ctrl-C is for this process, which tells the instances.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("an instance cannot be started")?;
        Ok(Instance { number, address, log, child })
    }
}

/// A command that the system ends when this process is gone, where it can: `setpriv` becomes the program.
fn dies_with_us(program: &Path) -> Command {
    let probe = Command::new("setpriv").args(["--pdeathsig", "TERM", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}

/// One of the instances.
struct Instance {
    number: u16,
    address: SocketAddr,
    log: PathBuf,
    child: Child,
}

impl Instance {
    async fn until_ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while !is_ready(self.address).await {
            let why = match self.child.try_wait()? {
                Some(status) => format!("ended with {status}"),
                None if begun.elapsed() > READY_PATIENCE => format!("is not ready after {READY_PATIENCE:?}"),
                None => {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    continue;
                }
            };
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            return Err(anyhow!("instance {} {why}; {} ends with\n{last}", self.number, shown(&self.log)).into());
        }
        Ok(())
    }

    /// Asks it to finish, and waits until it has.
    async fn end(&mut self, patience: Duration) {
        // The system's own program: a signal cannot be sent otherwise without unsafe code.
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let begun = Instant::now();
        while begun.elapsed() < patience && matches!(self.child.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Of one that has ended this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether an API says that it is ready.
async fn is_ready(address: SocketAddr) -> bool {
    http::get(&address.to_string(), "/health/ready", None).await.is_ok_and(|answer| answer.status == 200)
}

struct Show<'a> {
    session: &'a Session,
    player: &'a [Pipeline],
    screen: &'a Screen,
    place: &'a Place<'a>,
    server: &'a StandIn,
}

impl Show<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let stop = Stop::listen(self.screen)?;
        let mut instances = Vec::new();
        let prepared = tokio::select! {
            prepared = self.prepare(&mut instances) => prepared.map(Some),
            () = stop.requested() => Ok(None),
        };
        let outcome = match prepared {
            Ok(Some(running)) => {
                let playing = engine::finish(self.session, self.player, self.screen, running, &stop, None);
                tokio::select! {
                    outcome = Box::pin(playing) => outcome,
                    never = self.watch(&mut instances) => match never {},
                }
            }
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        let patience = Duration::from_millis(self.session.settings.runtime.drain_timeout_ms) + END_PATIENCE;
        join_all(instances.iter_mut().map(|instance| instance.end(patience))).await;
        outcome
    }

    /// Fills the database, starts the instances and then the player, and says what there is.
    async fn prepare(&self, instances: &mut Vec<Instance>) -> Result<Running, Failure> {
        let prepared = stand_in::fill(self.server).await?;
        for number in 1..=INSTANCES {
            instances.push(self.place.start(number)?);
        }
        for instance in instances.iter_mut() {
            instance.until_ready().await?;
        }
        let traces = Traces::start(self.session)?;
        let running = engine::start(self.session, self.player, Arc::new(MemoryStore::new()), &traces).await?;
        print(&self.about(instances, &prepared, Paint::stdout()))?;
        Ok(running)
    }

    fn about(&self, instances: &[Instance], prepared: &str, paint: Paint) -> String {
        let mut text = String::new();
        for Instance { number, address, child, .. } in instances {
            text += &format!("instance {number} pid {} http://{address}\n", child.id());
        }
        let pace = match self.session.settings.player.changes_per_second {
            0 => "nothing is played (player.changes_per_second is 0)".to_owned(),
            rate => format!("a player revises them, {} changes a second", thousands(rate)),
        };
        let program = std::env::args().next().unwrap_or_else(|| "smartpulse".to_owned());
        let url = instances.first().map(|instance| format!("http://{}", instance.address)).unwrap_or_default();
        let commands = [
            format!("TOKEN=$({program} token --user {DEMO_USER})"),
            format!("curl -H \"Authorization: Bearer $TOKEN\" '{url}/api/forecasts?take=2'"),
            format!("curl {url}/health/ready"),
        ];
        text += &format!("\n{prepared} in the database; {pace}\n");
        text += &format!("logs: {}/instance-*/log.txt\n\n", shown(&self.place.folder));
        for command in commands {
            text += &format!("  {}\n", paint.cyan(command));
        }
        text + "\nkill any instance: the others go on. Ctrl-C ends all of it\n"
    }

    /// Tells, for ever, which instances have died.
    async fn watch(&self, instances: &mut [Instance]) -> Infallible {
        let mut dead = vec![false; instances.len()];
        loop {
            for (Instance { number, child, .. }, dead) in instances.iter_mut().zip(&mut dead) {
                if let (Ok(Some(status)), false) = (child.try_wait(), *dead) {
                    self.screen.print(&format!("instance {number} has ended: {status}; the others go on\n"));
                    *dead = true;
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}
