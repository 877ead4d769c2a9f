//! `mail_sender`: sends what is in the mail queue.
//!
//! Output: none; its effects are mails that leave and rows that say what became of them. It claims due mails of
//! `NheaMailQueue`, the oldest first, has the relay send them, several at once, and settles each: `Sent`; `Failed` when it can
//! never be sent, or not with `attempts_max` tries; `Queued` again after a wait that doubles, where it may be later. A relay
//! that is away costs no mail a try: what was claimed is given back, and the sender waits.
//!
//! Delivery: at least once. A sender that dies holds its claims until `lease_ms` is over, and then another, or the same after its
//! restart, sends them: at most one batch twice, under the same message ids. Several instances share the queue. At shutdown
//! the batch under way is finished.

use crate::relay::{SendError, SharedRelay};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::deliveries::DeliveryLedger;
use smartpulse_clients::delivery::{MailOutcome, QueuedMail, Settlement, SharedDelivery};
use smartpulse_clients::notifications::Channel;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SourceConfig};
use smartpulse_pipeline::source::{BuiltSource, Source, SourceContext};
use smartpulse_pipeline::telemetry::ComponentMetrics;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The pause after a failure of the relay or the database: doubled up to the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The longest wait before another try of a mail.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Sends what is in the mail queue.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MailSenderConfig {
    /// The database resource with the table `NheaMailQueue`.
    database: String,
    /// The resource that takes mails: of type `smtp`, or `mail_folder` for trials.
    relay: String,
    /// Mails claimed at once, 1 to 1000; 50 by default. So many may be sent twice after a crash.
    #[serde(default = "batch_default")]
    #[schemars(range(min = 1, max = 1_000))]
    batch: u32,
    /// How long a claim holds, in milliseconds, 1000 to 3600000; 120000 by default. So long the mails of a sender that died
    /// wait.
    #[serde(default = "lease_default")]
    #[schemars(range(min = 1_000, max = 3_600_000))]
    lease_ms: u64,
    /// How often an empty queue is looked at, in milliseconds, 10 to 60000; 500 by default.
    #[serde(default = "poll_default")]
    #[schemars(range(min = 10, max = 60_000))]
    poll_interval_ms: u64,
    /// Tries of a mail that may be taken later, 1 to 100; 10 by default.
    #[serde(default = "attempts_default")]
    #[schemars(range(min = 1, max = 100))]
    attempts_max: i32,
    /// The wait before the second try, in milliseconds, 0 to 3600000; it doubles up to an hour. 60000 by default: a server
    /// that tests whether one comes back wants some minutes.
    #[serde(default = "wait_default")]
    #[schemars(range(max = 3_600_000))]
    wait_ms: u64,
    /// The database resource whose table `NotificationDeliveries` keeps each try of a mail that `mail_queue` has noted there;
    /// none by default.
    #[serde(default)]
    ledger: Option<String>,
}

fn batch_default() -> u32 {
    50
}

fn lease_default() -> u64 {
    120_000
}

fn poll_default() -> u64 {
    500
}

fn attempts_default() -> i32 {
    10
}

fn wait_default() -> u64 {
    60_000
}

impl Config for MailSenderConfig {
    const TYPE: &'static str = "mail_sender";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
        if let Some(ledger) = &self.ledger {
            check.resource("ledger", ledger, "database");
        }
        check.resource("relay", &self.relay, "mail");
    }
}

#[async_trait]
impl SourceConfig for MailSenderConfig {
    const EMITS: bool = false;

    async fn build(&self, cx: &BuildContext<'_>) -> Result<BuiltSource> {
        let database: SharedDatabase = cx.resource(&self.database).await?;
        let delivery = database.delivery();
        let delivery =
            delivery.ok_or_else(|| Error::fatal(format!("the database {} queues no mails", self.database)))?;
        let relay: SharedRelay = cx.resource(&self.relay).await?;
        let lease = Duration::from_millis(self.lease_ms);
        if lease <= relay.patience() {
            return Err(Error::fatal(format!(
                "lease_ms ({}) must be longer than the relay takes for one mail ({} ms)",
                self.lease_ms,
                relay.patience().as_millis()
            )));
        }
        let metrics = cx.metrics.clone();
        let ledger = DeliveryLedger::open(cx, self.ledger.as_deref(), Channel::Email).await?;
        Ok(BuiltSource::forgetful(MailSender { config: self.clone(), lease, delivery, relay, ledger, metrics }))
    }
}

struct MailSender {
    config: MailSenderConfig,
    lease: Duration,
    delivery: SharedDelivery,
    relay: SharedRelay,
    ledger: Option<DeliveryLedger>,
    metrics: Arc<ComponentMetrics>,
}

#[async_trait]
impl Source for MailSender {
    async fn run(self: Box<Self>, cx: &mut SourceContext) -> Result<()> {
        let mut pause = PAUSE.0;
        // Asked without being interrupted: a claim that nobody heard of would rest for its lease.
        while cx.next(std::future::ready(())).await?.is_some() {
            let wait = match self.round().await {
                Ok(0) => Duration::from_millis(self.config.poll_interval_ms),
                Ok(_) => {
                    pause = PAUSE.0;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                Err(error) => {
                    tracing::warn!(error = error.chain(), ?pause, "mails wait");
                    let wait = pause;
                    pause = (pause * 2).min(PAUSE.1);
                    wait
                }
            };
            if cx.next(tokio::time::sleep(wait)).await?.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl MailSender {
    /// Claims, sends and settles one batch, and says how many mails it had.
    async fn round(&self) -> Result<usize> {
        let claimed = Instant::now();
        let mails = self.delivery.claim_mails(self.config.batch, self.lease).await?;
        if mails.is_empty() {
            return Ok(0);
        }
        // Why no further mail of the batch is tried.
        let away: Mutex<Option<String>> = Mutex::new(None);
        let sending: Vec<_> = mails.iter().map(|mail| self.try_one(mail, claimed, &away)).collect();
        let settled: Vec<Settlement> = stream::iter(sending).buffer_unordered(self.relay.concurrency()).collect().await;
        for settlement in &settled {
            let what = match settlement.outcome {
                MailOutcome::Sent => "sent",
                MailOutcome::Again { .. } => "again",
                MailOutcome::Failed { .. } => "failed",
                MailOutcome::Untried => "untried",
            };
            self.metrics.note(what, 1);
        }
        self.settle(&settled, claimed).await?;
        self.keep(&settled).await;
        match away.into_inner().unwrap_or_default() {
            Some(reason) => Err(Error::unavailable(reason)),
            None => Ok(mails.len()),
        }
    }

    /// Keeps the tries in the ledger. What cannot be kept is said: the mails themselves are settled.
    async fn keep(&self, settled: &[Settlement]) {
        let Some(ledger) = &self.ledger else { return };
        let tried = |settlement: &Settlement| match &settlement.outcome {
            MailOutcome::Sent => Some((settlement.id, "sent", None)),
            MailOutcome::Again { error, .. } => Some((settlement.id, "failed", Some(error.clone()))),
            MailOutcome::Failed { error } => Some((settlement.id, "refused", Some(error.clone()))),
            MailOutcome::Untried => None,
        };
        let tries: Vec<_> = settled.iter().filter_map(tried).collect();
        if let Err(error) = ledger.record_tries(&tries).await {
            tracing::warn!(error = error.chain(), "tries of mails cannot be kept in the ledger");
        }
    }

    /// Sends a mail, unless it is too late for this claim or the relay is known to be away.
    async fn try_one(&self, mail: &QueuedMail, claimed: Instant, away: &Mutex<Option<String>>) -> Settlement {
        // No try begins that might outlast the claim: another would send the mail meanwhile.
        let late = claimed.elapsed() + self.relay.patience() >= self.lease;
        let outcome = if late || lock(away).is_some() { MailOutcome::Untried } else { self.send(mail, away).await };
        Settlement { id: mail.id, attempts: mail.attempts, outcome }
    }

    async fn send(&self, mail: &QueuedMail, away: &Mutex<Option<String>>) -> MailOutcome {
        match self.relay.send(mail).await {
            Ok(()) => MailOutcome::Sent,
            Err(SendError::Refused(error)) => failed(mail, error),
            Err(SendError::Later(error)) if mail.attempts >= self.config.attempts_max => {
                failed(mail, format!("{error} (after {} tries)", mail.attempts))
            }
            Err(SendError::Later(error)) => {
                let doubled = u32::try_from(mail.attempts - 1).unwrap_or_default().min(30);
                let wait = Duration::from_millis(self.config.wait_ms).saturating_mul(1 << doubled).min(WAIT_MAX);
                MailOutcome::Again { error, wait }
            }
            Err(SendError::Away(reason)) => {
                lock(away).get_or_insert(reason);
                MailOutcome::Untried
            }
        }
    }

    /// Keeps what became of the mails. While it cannot, it tries again until the claims are over: what was sent would be
    /// sent again.
    async fn settle(&self, settled: &[Settlement], claimed: Instant) -> Result<()> {
        let mut pause = PAUSE.0;
        loop {
            match self.delivery.settle_mails(settled).await {
                Ok(held) if held < settled.len() => {
                    let lost = settled.len() - held;
                    tracing::warn!(lost, "claims of mails were over before they were settled: these may be sent twice");
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Fatal || claimed.elapsed() >= self.lease => return Err(error),
                Err(error) => {
                    tracing::warn!(error = error.chain(), ?pause, "what became of mails cannot be kept; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }
}

fn failed(mail: &QueuedMail, error: String) -> MailOutcome {
    tracing::error!(mail = %mail.id, error, "a mail will not be sent");
    MailOutcome::Failed { error }
}

fn lock(away: &Mutex<Option<String>>) -> std::sync::MutexGuard<'_, Option<String>> {
    away.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
