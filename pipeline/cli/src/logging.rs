//! The logs of this process, on standard error.

use crate::failure::Failure;
use crate::screen::Screen;
use crate::style::Paint;
use smartpulse_config::{LogFormat, LogSettings, Problem};
use tracing_subscriber::EnvFilter;

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

/// Sends the logs of this process to the screen, above whatever is redrawn there.
///
/// # Errors
/// When the level cannot be read.
pub fn start(settings: &LogSettings, screen: &Screen) -> Result<(), Failure> {
    let filter = filter(settings)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone());
    // A second start, in a test of this process, keeps the first.
    let _ = match settings.format {
        LogFormat::Text => subscriber.with_ansi(Paint::stderr().colours()).try_init(),
        LogFormat::Json => subscriber.json().with_ansi(false).flatten_event(true).try_init(),
    };
    Ok(())
}
