//! `smartpulse dev sqlserver`: the stand-in for SQL Server, with the schema and the week of real data, until it is stopped.
//!
//! The schema is made and the data loaded through the product's own client, over the wire, as on a real server.

use crate::args::SettingsArgs;
use crate::failure::Failure;
use crate::screen::Screen;
use crate::setup;
use crate::signals::Stop;
use crate::style::{Paint, counted, print};
use anyhow::{Context, anyhow};
use smartpulse_clients::database::Database;
use smartpulse_sqlserver::config::SqlServerConfig;
use smartpulse_sqlserver::database::SqlServerDatabase;
use smartpulse_stand_in::server::{Options, StandIn};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// The file's name in the folder of `--data`.
const FILE_NAME: &str = "stand-in.db";

/// How often the capture job looks at the log. SQL Server's default is 5 s, which is what one then waits for a change.
const JOB_POLLING: Duration = Duration::from_millis(100);

/// The port of SQL Server, which settings need not name.
const DEFAULT_PORT: u16 = 1433;

/// Where a name ends and text stands beside it.
const INDENT: usize = 14;

pub fn sqlserver(args: &SettingsArgs, listen: SocketAddr, data: Option<&Path>) -> Result<(), Failure> {
    if !listen.ip().is_loopback() {
        let why = format!("{listen} is not of this machine alone, and everybody knows the stand-in's login");
        return Err(anyhow!("{why}; listen on 127.0.0.1 or [::1]").into());
    }
    let (_session, runtime) = setup::for_tools(args)?;
    let options = Options { listen, ..Options::default() };
    let (user, password) = (options.user.clone(), options.password.clone());
    let server = start(options, data)?;
    let stopped = runtime.block_on(async {
        // From here on, so that Ctrl-C ends it while the data is loaded too.
        let stop = Stop::listen(&Screen::new())?;
        let prepared = tokio::select! {
            prepared = fill(&server) => prepared?,
            () = stop.requested() => return Ok::<_, Failure>(()),
        };
        print(&block(server.address(), &user, &password, &prepared, data, Paint::stdout()))?;
        stop.requested().await;
        Ok(())
    });
    let ended = server.stop();
    stopped?;
    if !ended {
        return Err(anyhow!("the stand-in did not end within its time: statements were still running").into());
    }
    eprintln!("the stand-in has ended");
    Ok(())
}

/// Starts it.
///
/// # Errors
/// When it cannot listen there, or cannot keep its data.
pub fn start(mut options: Options, data: Option<&Path>) -> Result<StandIn, Failure> {
    if let Some(folder) = data {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("the stand-in cannot keep its data in {}", setup::shown(folder)))?;
        options.data = Some(folder.join(FILE_NAME));
    }
    let listen = options.listen;
    let server = StandIn::start(options).map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "something listens there already, perhaps a SQL Server; choose another address with --listen 127.0.0.1:14330"
            }
            _ => "choose another address with --listen, or another folder with --data",
        };
        anyhow::Error::new(error).context(format!("the stand-in cannot be started on {listen}\n{next}"))
    })?;
    server.engine().set_capture_polling(Some(JOB_POLLING));
    Ok(server)
}

/// Makes the schema and loads the week; says what there is.
pub async fn fill(server: &StandIn) -> Result<String, Failure> {
    let config = SqlServerConfig::from_connection_string(server.url());
    let database = SqlServerDatabase::open("stand_in", &config, &prometheus::Registry::new())?;
    database.create_schema().await.context("the schema cannot be made on the stand-in")?;
    let loaded = smartpulse_sources::load_week(&database).await.context("the week cannot be loaded")?;
    let (units, forecasts) = (loaded.units_inserted as u64, loaded.forecasts_inserted as u64);
    Ok(match units + forecasts {
        0 => "as it was left".to_owned(),
        _ => format!("{} and {} of a real week", counted(units, "unit"), counted(forecasts, "forecast")),
    })
}

/// The settings that make pipelines run on it, as environment variables.
pub fn variables(address: SocketAddr, user: &str, password: &str) -> Vec<(String, String)> {
    let mut variables = vec![("TYPE", "sqlserver".to_owned()), ("HOST", address.ip().to_string())];
    if address.port() != DEFAULT_PORT {
        variables.push(("PORT", address.port().to_string()));
    }
    variables.extend([
        ("USER", user.to_owned()),
        ("PASSWORD", password.to_owned()),
        ("TRUST_SERVER_CERTIFICATE", "true".to_owned()),
    ]);
    variables.into_iter().map(|(key, value)| (format!("SMARTPULSE__RESOURCES__MAIN_DB__{key}"), value)).collect()
}

/// What is printed when it stands: what it is, and how to use it.
fn block(address: SocketAddr, user: &str, password: &str, prepared: &str, data: Option<&Path>, paint: Paint) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let padding = " ".repeat(INDENT.saturating_sub(name.len()));
        let _ = writeln!(text, "  {}{padding}{value}", paint.dim(name));
    };
    line("listens on", &paint.bold(address));
    line("login", &format!("{user} / {password}"));
    line("database", &format!("smartpulse: {prepared}"));
    line("captured", "Forecasts and ProductionUnits, by change tracking and by change data capture");
    line("capture job", "looks every 100 ms (SQL Server's default: 5 s)");
    line("data", &data.map_or_else(|| "ends with it (--data FOLDER keeps it)".to_owned(), setup::shown));
    let (host, port) = (address.ip(), address.port());
    let exports: String = variables(address, user, password)
        .into_iter()
        .map(|(name, value)| format!("    export {name}={value}\n"))
        .collect();
    let comma = if port == DEFAULT_PORT { String::new() } else { format!(" port: {port},") };
    format!(
        "{title} speaks TDS 7.4 and keeps its data in SQLite: for trials and tests, {never}\n\n{text}\n\
         the same pipelines on it, in another terminal:\n\n{exports}\
         \x20   smartpulse plan config/pipelines/capture.yaml\n\
         \x20   smartpulse run config/pipelines/{{capture,sync,cache,events,invalidate,player}}.yaml\n\n\
         or, in config/local.yaml, with the password in the environment:\n\n\
         \x20   resources:\n\
         \x20     main_db: {{ type: sqlserver, host: {host},{comma} user: {user}, password: \"${{env:SQLSERVER_PASSWORD}}\",\n\
         \x20                trust_server_certificate: true }}\n\n\
         Ctrl-C ends it\n",
        title = paint.bold("a stand-in for SQL Server"),
        never = paint.yellow("never for production"),
    )
}
