//! Waiting between tries, for sinks by their policy and for the runtime's own memory without end.

use crate::error::{Error, ErrorKind, Result};
use smartpulse_config::RetryPolicy;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait for a dependency that is away.
const OUTAGE_FIRST: Duration = Duration::from_millis(100);

/// The longest one: after an outage nobody waits longer than this for the stream to go on.
const OUTAGE_LONGEST: Duration = Duration::from_secs(2);

/// The longest wait that somebody else may ask for.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Counts the tries of one operation.
pub(crate) struct Backoff<'a> {
    policy: &'a RetryPolicy,
    retries: u32,
    outage: Duration,
}

impl<'a> Backoff<'a> {
    pub fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, retries: 0, outage: OUTAGE_FIRST }
    }

    /// Tries made so far, once the last of them has failed.
    pub fn attempts(&self) -> u32 {
        self.retries + 1
    }

    /// The wait before the next try, or none when the policy gives up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        let delay = self.policy.delay_ms(self.retries, random())?;
        self.retries += 1;
        Some(Duration::from_millis(delay))
    }

    /// The wait for a dependency that is away: it doubles up to its limit, and there is always another.
    pub fn outage_delay(&mut self) -> Duration {
        let delay = self.outage;
        self.outage = (delay * 2).min(OUTAGE_LONGEST);
        delay
    }
}

/// The patience of the runtime with its own durable memory: without it neither going on nor giving up would
/// keep the promise that nothing is lost, so there is always another try.
pub(crate) struct Patience {
    what: &'static str,
    delay: Duration,
}

impl Patience {
    pub fn new(what: &'static str) -> Self {
        Self { what, delay: OUTAGE_FIRST }
    }

    /// Waits after a failure.
    ///
    /// # Errors
    /// When trying again cannot help.
    pub async fn after(&mut self, error: Error) -> Result<()> {
        let Self { what, delay } = *self;
        if matches!(error.kind(), ErrorKind::Fatal | ErrorKind::Rejected) {
            return Err(Error::fatal(format!("{what} cannot be kept")).because(error));
        }
        tracing::warn!(what, error = error.chain(), ?delay, "the store is away; trying again");
        tokio::time::sleep(delay).await;
        self.delay = (delay * 2).min(OUTAGE_LONGEST);
        Ok(())
    }
}

/// Repeats an operation on the durable memory until it succeeds.
///
/// # Errors
/// When trying again cannot help.
pub(crate) async fn until_durable<T, F>(what: &'static str, mut operation: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut patience = Patience::new(what);
    loop {
        match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => patience.after(error).await?,
        }
    }
}

/// A number in 0.0..1.0 for jitter; the standard library's hash seeds are random enough for that.
fn random() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}
