//! How the program ends when it does not end well.

use crate::style::Paint;
use smartpulse_config::{Diagnostics, Problem};
use std::process::ExitCode;

/// The exit code of wrong configuration, which clap uses for wrong usage too.
const CONFIGURATION: u8 = 2;

/// Why a command failed.
pub enum Failure {
    /// The configuration is wrong; nothing was opened.
    Configuration(Box<Diagnostics>),
    /// Something failed while it ran.
    Run(anyhow::Error),
    /// The answer was no, and has been printed.
    Told,
}

impl Failure {
    /// Prints what is wrong and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let paint = Paint::stderr();
        match self {
            Self::Configuration(diagnostics) => {
                eprintln!("{}", diagnostics.render(paint.colours()));
                ExitCode::from(CONFIGURATION)
            }
            Self::Run(error) => {
                eprintln!("{} {}", paint.red("error:"), sentence(error));
                let mut next = error.source();
                while let Some(cause) = next {
                    eprintln!("  {} {}", paint.dim("because"), sentence(&cause));
                    next = cause.source();
                }
                ExitCode::FAILURE
            }
            Self::Told => ExitCode::FAILURE,
        }
    }
}

/// A message may have several lines; the further ones are indented below the first.
fn sentence(message: &impl ToString) -> String {
    message.to_string().replace('\n', "\n  ")
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Configuration(Box::new(diagnostics))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let mut diagnostics = Diagnostics::new();
        diagnostics.push(problem);
        diagnostics.into()
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Run(error)
    }
}

impl From<smartpulse_pipeline::Error> for Failure {
    fn from(error: smartpulse_pipeline::Error) -> Self {
        Self::Run(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Run(error.into())
    }
}
