//! Where the spans of this process go.

use crate::setup::Session;
use smartpulse_config::{Problem, TraceSettings};
use smartpulse_pipeline::Tracer;
use smartpulse_pipeline::error::Result;

/// Sends spans as long as it lives.
#[cfg(feature = "otlp")]
#[derive(Debug)]
pub struct Traces(Option<smartpulse_otlp::Otlp>);

#[cfg(feature = "otlp")]
impl Traces {
    /// As the settings say.
    ///
    /// # Errors
    /// When the collector's address cannot be one.
    pub fn start(session: &Session) -> Result<Self> {
        Ok(Self(smartpulse_otlp::Otlp::start(&session.settings.traces, session.instance, &session.metrics)?))
    }

    /// What takes the spans.
    pub fn tracer(&self) -> Option<Tracer> {
        self.0.as_ref().map(smartpulse_otlp::Otlp::tracer)
    }
}

/// What is wrong with the settings.
#[cfg(feature = "otlp")]
pub fn problem(settings: &TraceSettings) -> Option<Problem> {
    smartpulse_otlp::problem(settings)
}

/// Nothing is traced by this build.
#[cfg(not(feature = "otlp"))]
#[derive(Debug)]
pub struct Traces;

#[cfg(not(feature = "otlp"))]
impl Traces {
    /// As the settings say: they name no collector, or [`problem`] has refused them.
    ///
    /// # Errors
    /// None.
    pub fn start(_session: &Session) -> Result<Self> {
        Ok(Self)
    }

    /// Nothing takes spans.
    pub fn tracer(&self) -> Option<Tracer> {
        None
    }
}

/// What is wrong with the settings.
#[cfg(not(feature = "otlp"))]
pub fn problem(settings: &TraceSettings) -> Option<Problem> {
    (!settings.endpoint.is_empty()).then(|| {
        Problem::new("this build sends no traces")
            .path("traces.endpoint")
            .help("build with `--features otlp` (or `full`), or leave it empty")
    })
}
