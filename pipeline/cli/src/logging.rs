//! Log lines and the block that is redrawn, on one terminal without tearing each other.

use crate::failure::Failure;
use crate::style::Paint;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use smartpulse_config::{LogFormat, LogSettings, Problem};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Standard error: lines that stay, above one block that is redrawn. Clones share it.
#[derive(Debug, Clone)]
pub struct Screen {
    blocks: MultiProgress,
    terminal: bool,
}

impl Screen {
    pub fn new() -> Self {
        // indicatif draws to standard error, and not at all where that is no terminal.
        Self { blocks: MultiProgress::new(), terminal: io::stderr().is_terminal() }
    }

    /// Whether a block can be redrawn.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A block that is redrawn when its text is set.
    pub fn block(&self) -> Block {
        let bar = self.blocks.add(ProgressBar::new_spinner());
        bar.set_style(ProgressStyle::with_template("{msg}").expect("a template of one field"));
        Block { bar }
    }

    /// A bar of known length, in bytes or items.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let bar = self.blocks.add(ProgressBar::new(length));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Prints lines above the block.
    pub fn print(&self, text: &str) {
        // Standard error being gone leaves nobody to tell.
        self.blocks.suspend(|| {
            let _ = io::stderr().write_all(text.as_bytes());
        });
    }
}

/// A redrawn block; it vanishes when it is dropped.
pub struct Block {
    bar: ProgressBar,
}

impl Block {
    pub fn set(&self, text: String) {
        self.bar.set_message(text);
        self.bar.tick();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blocks.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

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

/// Sends the logs of this process to the screen.
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
