//! The log table: what this process logs at or above `log.table.level`, in the table `Logs` of the main database.
//!
//! Contract:
//! - In the main database, whichever it is, and not in a file beside it: so the lines of all instances are in one table, which
//!   outlives them, and T-SQL or SQL reads it. Standard error has every line, also when the database is away.
//! - Nobody who logs waits. A line goes into a bounded queue; where that is full it is dropped, and counted.
//! - One writer sends lines in batches. A database that is away is waited for with the batch in hand; sending it again keeps no
//!   line twice. What the database refuses is dropped, and counted.
//! - What the writer itself meets with goes to standard error alone: a line about a lost line would be the next one.
//! - Lines older than `log.table.days`, and those beyond the newest `log.table.rows_max`, are removed every minute.

mod alerts;

pub use alerts::Alerts;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use serde_json::{Map, Value};
use smartpulse_clients::database::{SharedDatabase, cut};
use smartpulse_config::LogTableSettings;
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::{Error, ErrorKind};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use uuid::Uuid;

/// The table.
pub const TABLE: &str = "Logs";

/// Lines that wait for the database; at most some 20 MiB. The next ones are dropped.
const QUEUE_LINES: usize = 1_000;

/// Lines of one transaction.
const BATCH_LINES: usize = 200;

/// Between two batches: a storm of lines costs the database two transactions a second.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest between two attempts while the database is away.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often old lines are removed.
const CLEAN_INTERVAL: Duration = Duration::from_secs(60);

/// How long the end of the process waits for the last lines.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// The columns' widths, in UTF-16 units as SQL Server counts them.
const MESSAGE_MAX: usize = 4_000;
const COMPONENT_MAX: usize = 200;

/// The longest text of one field, and of all of a line together; what is beyond is cut, or left out.
const FIELD_MAX: usize = 2_000;
const FIELDS_MAX: usize = 8_000;

tokio::task_local! {
    /// Set for all that the writer does.
    static WRITING: ();
}

/// Where lines come in: a layer of the process's subscriber.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: mpsc::Sender<Map<String, Value>>,
    instance: Uuid,
    last_seq: Arc<AtomicI64>,
    metrics: LogMetrics,
}

/// Where they go to: not yet at work.
#[derive(Debug)]
pub struct LogTable {
    queue: mpsc::Receiver<Map<String, Value>>,
    metrics: LogMetrics,
}

#[derive(Debug, Clone)]
struct LogMetrics {
    written: IntCounter,
    dropped: IntCounterVec,
}

/// A queue of log lines, both ends of it.
///
/// # Errors
/// When the registry has metrics of these names already.
pub fn queue(instance: Uuid, registry: &Registry) -> prometheus::Result<(Lines, LogTable)> {
    let written = IntCounter::new("log_lines_written_total", "lines put into the log table")?;
    let dropped = Opts::new("log_lines_dropped_total", "lines that did not come into the log table");
    let dropped = IntCounterVec::new(dropped, &["reason"])?;
    registry.register(Box::new(written.clone()))?;
    registry.register(Box::new(dropped.clone()))?;
    // Told from the start: an alert on a counter that is not there yet misses its first step.
    for reason in ["full", "refused"] {
        dropped.with_label_values(&[reason]);
    }
    let metrics = LogMetrics { written, dropped };
    let (sender, receiver) = mpsc::channel(QUEUE_LINES);
    let lines = Lines { queue: sender, instance, last_seq: Arc::default(), metrics: metrics.clone() };
    Ok((lines, LogTable { queue: receiver, metrics }))
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if WRITING.try_with(|()| ()).is_ok() {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let target = event.metadata().target();
        let component = said.component.unwrap_or_else(|| crate_name(target).to_owned());
        let fields = (!said.fields.is_empty()).then(|| Value::Object(said.fields).to_string());
        let row = [
            ("id", Uuid::new_v4().to_string().into()),
            ("createdAt", Timestamp::now().to_string().into()),
            ("level", event.metadata().level().as_str().into()),
            ("instance", self.instance.to_string().into()),
            ("seq", (self.last_seq.fetch_add(1, Ordering::Relaxed) + 1).into()),
            ("component", cut(&component, COMPONENT_MAX).into()),
            ("message", cut(&said.message, MESSAGE_MAX).into()),
            ("fields", fields.map_or(Value::Null, Value::from)),
        ];
        let row = row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if self.queue.try_send(row).is_err() {
            self.metrics.dropped.with_label_values(&["full"]).inc();
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    component: Option<String>,
    fields: Map<String, Value>,
    bytes: usize,
}

impl Said {
    fn set(&mut self, field: &Field, value: Value) {
        let text = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match field.name() {
            "message" => self.message = text(),
            "component" => self.component = Some(text()),
            name => {
                let value = value.as_str().map(|text| cut(text, FIELD_MAX).into()).unwrap_or(value);
                self.bytes += name.len() + value.as_str().map_or(8, str::len);
                if self.bytes <= FIELDS_MAX {
                    self.fields.insert(name.to_owned(), value);
                }
            }
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}

/// `smartpulse_api::error` is `api`.
fn crate_name(target: &str) -> &str {
    let name = target.split("::").next().unwrap_or(target);
    name.strip_prefix("smartpulse_").unwrap_or(name)
}

impl LogTable {
    /// Begins to write.
    pub fn start(self, database: SharedDatabase, settings: &LogTableSettings, alerts: Option<Alerts>) -> Writing {
        let (stop, stopped) = oneshot::channel::<()>();
        let keep = Duration::from_secs(u64::from(settings.days) * 86_400);
        let rows_max = settings.rows_max;
        let writer = Writer { table: self, database, keep, rows_max, batch: Vec::new(), alerts, quiet: false };
        Writing { stop, task: tokio::spawn(WRITING.scope((), writer.run(stopped))) }
    }
}

/// A writer at work.
#[derive(Debug)]
pub struct Writing {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Writing {
    /// Writes what waits, if the database takes it soon.
    pub async fn end(self) {
        let _ = self.stop.send(());
        if let Err(panic) = self.task.await {
            tracing::error!(%panic, "the log table's writer ended early");
        }
    }
}

struct Writer {
    table: LogTable,
    database: SharedDatabase,
    keep: Duration,
    rows_max: u32,
    /// Taken from the queue, and not known to be in the table.
    batch: Vec<Map<String, Value>>,
    /// Those among them that operators are told.
    alerts: Option<Alerts>,
    /// Whether standard error knows that the table cannot be written.
    quiet: bool,
}

impl Writer {
    async fn run(mut self, stopped: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.work() => {}
            _ = stopped => {}
        }
        let _ = timeout(LAST_LINES_TIMEOUT, self.flush()).await;
    }

    /// For ever, or until nobody can log any more.
    async fn work(&mut self) {
        let (mut clean_at, mut pause) = (Instant::now(), PAUSE);
        loop {
            if Instant::now() >= clean_at {
                self.clean().await;
                clean_at = Instant::now() + CLEAN_INTERVAL;
            }
            if self.batch.is_empty() && self.alert().await {
                tokio::select! {
                    taken = self.table.queue.recv_many(&mut self.batch, BATCH_LINES) => if taken == 0 { return },
                    () = sleep_until(clean_at) => continue,
                }
            }
            pause = if self.write().await { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
            sleep(pause).await;
        }
    }

    /// Writes all that waits, as long as the database takes it.
    async fn flush(&mut self) {
        while self.batch.is_empty() || self.write().await {
            match self.table.queue.try_recv() {
                Ok(line) => self.batch.push(line),
                Err(_) => return,
            }
            while self.batch.len() < BATCH_LINES
                && let Ok(line) = self.table.queue.try_recv()
            {
                self.batch.push(line);
            }
        }
    }

    /// Writes the batch. False when it has to be tried again.
    async fn write(&mut self) -> bool {
        if self.batch.is_empty() {
            return self.alert().await;
        }
        let outcome = self.database.insert_absent(TABLE, &self.batch).await;
        let lines = self.batch.len() as u64;
        match &outcome {
            Ok(_) => self.table.metrics.written.inc_by(lines),
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Transient) => {
                self.tell(error, "the log table cannot be written; its lines wait");
                return false;
            }
            Err(error) => {
                self.table.metrics.dropped.with_label_values(&["refused"]).inc_by(lines);
                self.tell(error, "the log table refuses lines, and lacks them");
            }
        }
        if outcome.is_ok() {
            self.quiet = false;
        }
        if let Some(alerts) = &mut self.alerts {
            alerts.note(&self.batch);
        }
        self.batch.clear();
        self.alert().await
    }

    /// Queues the operators' mails. False when it has to be tried again.
    async fn alert(&mut self) -> bool {
        let Some(alerts) = &mut self.alerts else { return true };
        match alerts.queue(&*self.database).await {
            Ok(()) => true,
            Err(error) => {
                self.tell(&error, "operators' alerts cannot be queued as mails");
                !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Transient)
            }
        }
    }

    async fn clean(&mut self) {
        let keep = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(Timestamp::now().as_millis().saturating_sub(keep));
        loop {
            match self.database.prune_logs(before, self.rows_max).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return self.tell(&error, "old lines cannot be removed from the log table"),
            }
        }
    }

    /// Once per outage.
    fn tell(&mut self, error: &Error, what: &str) {
        if !std::mem::replace(&mut self.quiet, true) {
            tracing::warn!(error = error.chain(), "{what}");
        }
    }
}

#[cfg(test)]
mod tests;
