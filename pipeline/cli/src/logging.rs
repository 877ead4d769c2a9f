//! The logs of this process, on standard error, and in the log table while a graph runs on.

use crate::failure::Failure;
use crate::log_table::Lines;
use crate::screen::Screen;
use crate::style::Paint;
use smartpulse_config::{LogFormat, LogSettings, LogTableLevel, Problem};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// The directives of `log.level`.
///
/// # Errors
/// When they cannot be read.
pub fn filter(settings: &LogSettings) -> Result<EnvFilter, Problem> {
    EnvFilter::try_new(&settings.level).map_err(|error| {
        Problem::new(format!("`{}` is no log level: {error}", settings.level))
            .path("log.level")
            .help("write a level (error, warn, info, debug, trace), or directives such as `info,smartpulse=debug`")
    })
}

/// Sends the logs of this process to the screen, above whatever is redrawn there, and to a log table.
///
/// # Errors
/// When the level cannot be read.
pub fn start(settings: &LogSettings, screen: &Screen, table: Option<Lines>) -> Result<(), Failure> {
    let layer = fmt::layer().with_writer(screen.clone());
    let shown = match settings.format {
        LogFormat::Text => layer.with_ansi(Paint::stderr().colours()).boxed(),
        LogFormat::Json => layer.json().with_ansi(false).flatten_event(true).boxed(),
    };
    let kept = table.map(|lines| lines.with_filter(kept(settings.table.level)));
    let subscriber = tracing_subscriber::registry().with(shown.with_filter(filter(settings)?)).with(kept);
    // A second start, in a test of this process, keeps the first.
    let _ = subscriber.try_init();
    Ok(())
}

fn kept(level: LogTableLevel) -> LevelFilter {
    match level {
        LogTableLevel::Off => LevelFilter::OFF,
        LogTableLevel::Error => LevelFilter::ERROR,
        LogTableLevel::Warn => LevelFilter::WARN,
        LogTableLevel::Info => LevelFilter::INFO,
        LogTableLevel::Debug => LevelFilter::DEBUG,
    }
}
