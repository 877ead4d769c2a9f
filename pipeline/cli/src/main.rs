//! `smartpulse`, the command line: reads settings and pipelines, runs graphs, and looks into the data folder.
//!
//! What people ask for (lists, graphs, schemas, `validate`'s verdicts) goes to standard output; everything about the
//! run itself (problems, logs, progress, the closing summary) goes to standard error. Colours and redrawn lines
//! are for terminals only.
//!
//! | file | idea |
//! | --- | --- |
//! | `args` | the grammar and its help |
//! | `setup` | settings, registry, resources and checked pipelines, before anything is opened |
//! | `home` | the data folder and the store in it |
//! | `engine` | graphs from start to end: API, signals, drain, summary |
//! | `run`, `demo` | what is run, and what is shown meanwhile |
//! | `validate`, `graph`, `list`, `schema` | answers that need nothing but the files |
//! | `plan` | what capture needs, asked of the databases |
//! | `position`, `dlq` | answers from the data folder, beside a running graph |
//! | `logs` | what instances have logged, from the database |
//! | `explain`, `explain_notification` | where one entity stands, from the database to the instances; what became of a notification |
//! | `http` | one question to an instance |
//! | `token` | a bearer token for development |
//! | `vapid` | the key pair of Web Push |
//! | `dev`, `stand_in`, `cluster` | files, databases, a server and a whole cluster for trials and benches |
//! | `reading`, `summary` | numbers of the process's own metrics, and the table at the end |
//! | `screen`, `logging`, `style` | lines that do not tear the block below them; looks |
//! | `log_table` | what this process logs, kept in the database |
//! | `signals`, `failure` | how the program ends |

mod args;
#[cfg(feature = "cluster")]
mod cluster;
mod demo;
mod dev;
mod dlq;
mod engine;
mod explain;
mod explain_notification;
mod failure;
mod graph;
mod home;
mod http;
mod list;
mod log_table;
mod logging;
mod logs;
mod plan;
mod position;
mod reading;
mod run;
mod schema;
mod screen;
mod serve;
mod setup;
mod signals;
#[cfg(feature = "stand-in")]
mod stand_in;
mod style;
mod summary;
mod token;
mod traces;
mod validate;
#[cfg(feature = "push")]
mod vapid;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Cli { command, settings } = Cli::parse();
    let outcome = match &command {
        Command::Run(args) => run::run(&settings, args),
        Command::Validate { files } => validate::validate(&settings, files),
        Command::Plan { files, event, json } => plan::plan(&settings, files, event.as_deref(), *json),
        Command::Graph { file } => graph::graph(&settings, file),
        Command::List { what, type_name } => list::list(what.as_deref(), type_name.as_deref()),
        Command::Schema { of } => schema::schema(*of),
        Command::Position { command } => position::position(&settings, command),
        Command::Explain(args) => explain::explain(&settings, args),
        Command::Resnapshot { id } => position::resnapshot(&settings, id),
        Command::Logs(args) => logs::logs(&settings, args),
        Command::Dlq { command } => dlq::dlq(&settings, command),
        Command::Demo(args) => demo::demo(&settings, args),
        Command::Token(args) => token::token(&settings, args),
        #[cfg(feature = "push")]
        Command::Vapid { command: args::VapidCommand::Generate { json } } => vapid::generate(*json),
        Command::Dev { command } => dev::dev(&settings, command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
