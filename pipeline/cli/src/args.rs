//! The grammar of the command line, with help that teaches.

use crate::token::{RoleArg, parse_duration};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

const MAIN_HELP: &str = "\
Examples:
  smartpulse demo                                         see all of it work, with nothing installed
  smartpulse validate config/pipelines/*.yaml             check files; opens nothing
  smartpulse run config/pipelines/sync.yaml               run until Ctrl-C
  INPUT=in.ndjson OUTPUT=out.ndjson smartpulse run config/pipelines/diff-file.yaml
  smartpulse list operators detect_gap                    what a component can be told

Where settings come from, later wins:
  built in < config/default.yaml < config/<environment>.yaml < config/local.yaml
           < SMARTPULSE__SECTION__KEY=value < --set section.key=value

Exit codes:
  0    done: the input ended, or what was under way was finished after a stop
  1    a failure while running; the last lines say what to do
  2    wrong configuration or usage; nothing was opened
  130  aborted by a second Ctrl-C";

const RUN_HELP: &str = "\
Examples:
  smartpulse run config/pipelines/capture.yaml config/pipelines/sync.yaml
  smartpulse run sync.yaml --env staging --set runtime.channel_batches=64
  INPUT=in.ndjson OUTPUT=out.ndjson smartpulse run config/pipelines/diff-file.yaml

A database needs its schema first: `smartpulse demo` and `smartpulse dev database` create it.

All files run in one process, which holds the data folder. A graph whose sources all end by themselves (`file`) is
bounded: it starts fresh, shows its progress, and needs no lock. Any other runs until Ctrl-C or SIGTERM: then the
sources stop and what is on its way is finished (runtime.drain_timeout_ms). A second Ctrl-C aborts; what was not
finished comes again at the next start.

Exit codes: 0 done, 1 failed, 2 wrong configuration, 130 aborted.";

const VALIDATE_HELP: &str = "\
Examples:
  smartpulse validate config/pipelines/*.yaml
  INPUT=- OUTPUT=- smartpulse validate config/pipelines/diff-file.yaml

Every problem of every file is reported at once, with its place and the nearest valid spelling. No socket, file or
folder is opened. Exit codes: 0 all are right, 2 something is wrong.";

const PLAN_HELP: &str = "\
Examples:
  smartpulse plan config/pipelines/capture.yaml
  smartpulse plan config/pipelines/*.yaml --json | jq -r '.[].plan.modes[].statements[]'
  smartpulse plan config/pipelines/{events,notify}.yaml --event changes.json

Connects to the databases that the pipelines capture from, and writes nothing. For each captured table it says which modes
are enabled, which one would be taken, what each loses and how late it is, which rights are missing, and which statements
somebody with the rights must run, in their order.

With --event it follows the events of a file through the operators, from topic to topic, and says who would be told what, by
which channel, and why not: captured changes as on cdc:forecasts (the version before it first), completions, or requests,
one JSON value after another.

Exit codes: 0 everything is as it should be, 1 something has to be done first, 2 wrong configuration.";

const LIST_HELP: &str = "\
Examples:
  smartpulse list                    every type of this build, in a line each
  smartpulse list sinks              those of one kind
  smartpulse list sources cdc        every field of a type, with its default
  smartpulse list pubsub             of every kind that has such a type";

const SCHEMA_HELP: &str = "\
Examples:
  smartpulse schema > pipeline.schema.json
  smartpulse schema settings > settings.schema.json

An editor that knows YAML (VS Code with the YAML extension) completes and checks with it, when a file begins with
  # yaml-language-server: $schema=pipeline.schema.json";

const POSITION_HELP: &str = "\
Examples:
  smartpulse position show
  smartpulse position reset capture/rows                forget where the source is; it starts over
  smartpulse position reset capture/rows/Forecasts      one table of it

To scan a table again beside a running graph, use `smartpulse resnapshot`.";

const EXPLAIN_HELP: &str = "\
Examples:
  smartpulse explain --key 3661d4e6-05d5-5993-a6bf-3ee0196d7164
  smartpulse explain --key UUID --instance 10.0.0.1:8080 --instance 10.0.0.2:8080
  smartpulse explain --notification 5b6c0c52-6f0e-5b0e-9d0a-0d5f2f7c1b7e

For one forecast: the database's version, where capture is, the shared version, the version that each instance answers
with, and the last changes with when they were on each topic. For a notification: whom it tells what, by which channel, and
what became of each attempt. Nothing is written.";

const RESNAPSHOT_HELP: &str = "\
Examples:
  smartpulse resnapshot capture/rows
  smartpulse resnapshot capture/rows/Forecasts

A running graph takes it up within a second, another at its next start. Rows that are sent again heal what is behind
and notify nobody.";

#[cfg(feature = "stand-in")]
const SQLSERVER_HELP: &str = "\
Examples:
  smartpulse dev sqlserver
  smartpulse dev sqlserver --listen 127.0.0.1:14330 --data /tmp/stand-in

It prints the settings that make the same pipelines run on it, and runs until Ctrl-C.";

#[cfg(feature = "cluster")]
const CLUSTER_HELP: &str = "\
Examples:
  smartpulse dev cluster
  SMARTPULSE__PLAYER__CHANGES_PER_SECOND=1000 smartpulse dev cluster
  smartpulse dev cluster --set api.listen=127.0.0.1:9080

For each instance it prints `instance N pid P http://127.0.0.1:PORT`: the API's port and those after it, or free ones
where that is 0. Kill any of them: the others go on. Ctrl-C or SIGTERM ends all of it, and nothing is kept.";

const DLQ_HELP: &str = "\
Examples:
  smartpulse dlq list
  smartpulse dlq list --pipeline sync --json | jq -r .reason | sort | uniq -c
  smartpulse dlq show 17
  smartpulse dlq replay 17 18        hand them in again
  smartpulse dlq discard 19          give them up
  smartpulse dlq discard --all --pipeline diff-file

All of it works beside a running graph.";

const TOKEN_HELP: &str = "\
Examples:
  smartpulse token --user 0b0a1c60-0000-4000-8000-0000000000aa
  smartpulse token --user 0b0a1c60-0000-4000-8000-0000000000aa --role viewer --company UUID --ttl 8h
  curl -H \"Authorization: Bearer $(smartpulse token --user UUID)\" localhost:8080/api/forecasts

Signed with the first shared secret of api.auth.keys; the built-in one is known to everybody. In every other
environment than development a token is the issuer's to give.";

#[cfg(feature = "push")]
const VAPID_HELP: &str = "\
Examples:
  smartpulse vapid generate
  smartpulse vapid generate --json | jq -r .publicKey

Made once per installation (RFC 8292): the private key goes to the settings of push_services, the public one to the pages.
With another key every browser has to subscribe again.";

const LOGS_HELP: &str = "\
Examples:
  smartpulse logs                                       the newest lines, the last one at the bottom
  smartpulse logs --level error --since 1d --component api
  smartpulse logs --json --limit 1000 | jq -r 'select(.error) | .error'

Running graphs keep what they log at or above `log.table.level` (`warn` unless the settings say otherwise) in the table
`Logs` of the main database, all instances in one: any SQL reads it, too. Works beside them.";

const DEMO_HELP: &str = "\
Examples:
  smartpulse demo
  smartpulse demo --fresh                                 start over with an empty data folder
  SMARTPULSE__DATA_DIR=/tmp/pulse smartpulse demo
  smartpulse demo --set player.changes_per_second=0       only your own changes
  smartpulse demo --set api.listen=127.0.0.1:9090";

/// Streams database changes to caches, APIs and people, as YAML says.
#[derive(Debug, Parser)]
#[command(name = "smartpulse", version, max_term_width = 110, after_help = MAIN_HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Where settings come from besides files and environment variables.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    /// Environment: selects config/NAME.yaml [default: development]
    #[arg(long, global = true, value_name = "NAME")]
    pub env: Option<String>,
    /// Sets one key, such as api.listen=127.0.0.1:9090; wins over everything; may be repeated
    #[arg(long = "set", global = true, value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// Folder of the settings' files [default: config, where there is one]
    #[arg(long, global = true, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run pipelines until their input ends, or until Ctrl-C
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Check pipelines and settings; opens nothing
    #[command(after_help = VALIDATE_HELP)]
    Validate {
        /// Pipeline files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what capturing a pipeline's tables needs and gives, or who would be told of events; writes nothing
    #[command(after_help = PLAN_HELP)]
    Plan {
        /// Pipeline files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Events: says who would be told what of them, and sends nothing
        #[arg(long, value_name = "FILE")]
        event: Option<PathBuf>,
        /// JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Print a pipeline as a Mermaid flowchart
    Graph {
        /// Pipeline file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List component types, or all fields of one
    #[command(after_help = LIST_HELP)]
    List {
        /// sources, operators, sinks or resources; or a type
        #[arg(value_name = "KIND")]
        what: Option<String>,
        /// A type of that kind
        #[arg(value_name = "TYPE")]
        type_name: Option<String>,
    },
    /// Print the JSON Schema of pipeline files, or of settings
    #[command(after_help = SCHEMA_HELP)]
    Schema {
        /// What the schema is of
        #[arg(value_enum, default_value_t = SchemaOf::Pipeline)]
        of: SchemaOf,
    },
    /// Show or forget how far sources have come
    #[command(after_help = POSITION_HELP)]
    Position {
        #[command(subcommand)]
        command: PositionCommand,
    },
    /// Say where one forecast stands: in the database, on the bus, shared, in each instance
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArgs),
    /// Have a capture source scan its tables again, beside the running graph
    #[command(after_help = RESNAPSHOT_HELP)]
    Resnapshot {
        /// The source, or one table of it
        #[arg(value_name = "PIPELINE/SOURCE[/TABLE]")]
        id: String,
    },
    /// Look at events that were set aside, and hand them in again
    #[command(after_help = DLQ_HELP)]
    Dlq {
        #[command(subcommand)]
        command: DlqCommand,
    },
    /// Print what instances have logged
    #[command(after_help = LOGS_HELP)]
    Logs(LogsArgs),
    /// Run everything on a week of real data, with nothing installed
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Print a bearer token of the API, for development
    #[command(after_help = TOKEN_HELP)]
    Token(TokenArgs),
    /// Make the key pair that Web Push is signed with
    #[cfg(feature = "push")]
    #[command(after_help = VAPID_HELP)]
    Vapid {
        #[command(subcommand)]
        command: VapidCommand,
    },
    /// Make files and databases for trials and benches
    Dev {
        #[command(subcommand)]
        command: DevCommand,
    },
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Serve the API beside a bounded run too
    #[arg(long)]
    pub serve: bool,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The forecast's id
    #[arg(long, value_name = "KEY", required_unless_present = "notification")]
    pub key: Option<String>,
    /// The delivery of a notification instead, by its id or by that of an attempt
    #[arg(long, value_name = "ID", conflicts_with_all = ["key", "instances"])]
    pub notification: Option<Uuid>,
    /// An instance's API; may be repeated; that of the settings by default
    #[arg(long = "instance", value_name = "HOST:PORT")]
    pub instances: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SchemaOf {
    /// Pipeline files
    Pipeline,
    /// Settings files
    Settings,
}

#[derive(Debug, Subcommand)]
pub enum PositionCommand {
    /// Print every stored position
    Show,
    /// Forget a position, so that its source starts over; the graph must be stopped
    Reset {
        /// The source, or one table of it
        #[arg(value_name = "PIPELINE/SOURCE[/TABLE]")]
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Print dead letters, newest first
    List {
        #[command(flatten)]
        of: LettersOf,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Print one with its payload
    Show {
        /// Its number, as `dlq list` prints it
        #[arg(value_name = "ID")]
        id: i64,
    },
    /// Hand them in again
    Replay {
        /// Their numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Give them up
    Discard {
        /// Their numbers
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
        ids: Vec<i64>,
        /// All of them, or all that --pipeline and --component select
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        of: LettersOf,
    },
}

/// Whose dead letters.
#[derive(Debug, Clone, Args)]
pub struct LettersOf {
    /// Only those of a pipeline
    #[arg(long, value_name = "P")]
    pub pipeline: Option<String>,
    /// Only those of a component
    #[arg(long, value_name = "C")]
    pub component: Option<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The least severe that is printed
    #[arg(long, value_enum, default_value_t = LevelArg::Debug)]
    pub level: LevelArg,
    /// Only lines of the last 90s, 30m, 1h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Only lines of this component of a pipeline, or part of the program such as `api`
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// How severe a line is, the most severe first.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LevelArg {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Who calls: what writes are signed with
    #[arg(long, value_name = "UUID")]
    pub user: Uuid,
    /// What it may do
    #[arg(long, value_enum, default_value_t = RoleArg::Admin)]
    pub role: RoleArg,
    /// Whose forecasts it sees; may be repeated; an admin sees all
    #[arg(long = "company", value_name = "UUID")]
    pub companies: Vec<Uuid>,
    /// How long it is good, such as 30m or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub ttl: Duration,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Remove the databases of the data folder first
    #[arg(long)]
    pub fresh: bool,
}

#[cfg(feature = "push")]
#[derive(Debug, Subcommand)]
pub enum VapidCommand {
    /// Print a new key pair, and the settings that take it
    Generate {
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Write the change history of the real data as JSON lines: every revision of every forecast, in order
    Revisions {
        /// The CSV of a year (.csv or .csv.gz); without it the week that is built in
        #[arg(long, value_name = "CSV[.gz]")]
        input: Option<PathBuf>,
        /// Where to write
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Start the stand-in for SQL Server, with the schema and the week of real data; for trials, never for production
    #[cfg(feature = "stand-in")]
    #[command(after_help = SQLSERVER_HELP)]
    Sqlserver {
        /// Where it listens
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1433")]
        listen: std::net::SocketAddr,
        /// Where its data is kept; without it the data ends with the process
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
    },
    /// Start Redis, Pulsar, the stand-in for SQL Server, three instances on them and a player; for trials
    #[cfg(feature = "cluster")]
    #[command(after_help = CLUSTER_HELP)]
    Cluster,
    /// Create what is missing of the schema of `main_db`: tables, triggers and capture
    Database {
        /// Load the week of real data too, as the demo does
        #[arg(long)]
        week: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }
}
