//! `mail_queue`: renders mails and queues them for sending.
//!
//! Input: events whose document is a mail ([`MailRequest`]): `Id`, `To`, `Subject`, `TemplateId`, `TemplateData`,
//! `Attachments`, `UnsubscribeUrl`. An operator `batch` in front makes batches of 100, or of what came within 100 ms. A batch is grouped by template,
//! rendered on all processors, and inserted into `NheaMailQueue` in one transaction, where the id is absent: so a mail is queued once, however
//! often it comes. With a `ledger` what was queued before is passed over and counted (`told_before`), also when the queue was
//! emptied since.
//!
//! A mail that cannot be rendered or inserted is refused with the reason, and its neighbours pass. A database that is away
//! holds the stream back, and what waits is bounded by the channels in front.

use crate::QUEUE;
use crate::request::MailRequest;
use crate::templates::Templates;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use smartpulse_clients::database::{SharedDatabase, insert_each};
use smartpulse_clients::deliveries::DeliveryLedger;
use smartpulse_clients::notifications::Channel;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::telemetry::ComponentMetrics;
use smartpulse_pipeline::{Batch, Event, Operation};
use std::path::PathBuf;
use std::sync::Arc;

/// Mails that are rendered in one go: fewer are not worth another thread.
const RENDERED_TOGETHER: usize = 16;

/// Renders mails and queues them for sending.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MailQueueConfig {
    /// The database resource with the table `NheaMailQueue`.
    database: String,
    /// The folder of the templates, relative to the working folder: `NAME.html`, `NAME.txt`, and parts whose names begin with
    /// `_`. Without it there is the one that is built in, `notification`, with `title`, `body` and perhaps `url` and
    /// `unsubscribeUrl`.
    #[serde(default)]
    templates: Option<PathBuf>,
    /// The database resource whose table `NotificationDeliveries` keeps what was queued; none by default. Each document then says in
    /// `delivery` which delivery it is.
    #[serde(default)]
    ledger: Option<String>,
}

impl Config for MailQueueConfig {
    const TYPE: &'static str = "mail_queue";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
        if let Some(ledger) = &self.ledger {
            check.resource("ledger", ledger, "database");
        }
    }
}

#[async_trait]
impl SinkConfig for MailQueueConfig {
    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let templates = Arc::new(Templates::load(self.templates.as_deref())?);
        let database: SharedDatabase = cx.resource(&self.database).await?;
        let table = database.table(QUEUE).await;
        table.map_err(|error| Error::new(error.kind(), "mails cannot be queued").because(error))?;
        let ledger = DeliveryLedger::open(cx, self.ledger.as_deref(), Channel::Email).await?;
        Ok(Box::new(MailQueue { database, templates, ledger, metrics: cx.metrics.clone() }))
    }
}

struct MailQueue {
    database: SharedDatabase,
    templates: Arc<Templates>,
    ledger: Option<DeliveryLedger>,
    metrics: Arc<ComponentMetrics>,
}

/// A mail and its place in the batch.
type Placed = (usize, MailRequest);

/// What a mail became.
type Made = (usize, Result<Map<String, Value>, String>);

#[async_trait]
impl Sink for MailQueue {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        let mut round = DeliveryLedger::begin(self.ledger.as_ref(), batch).await?;
        let (mut mails, mut rejected) = (Vec::new(), std::mem::take(&mut round.rejected));
        for (index, event) in batch.events.iter().enumerate().filter(|(index, _)| round.is_due(*index)) {
            match read(event) {
                Ok(mail) => mails.push((index, mail)),
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        let mut made = self.render(mails).await?;
        // In the order of the events, so that of two with one id the first counts.
        made.sort_by_key(|(index, _)| *index);
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for (index, row) in made {
            match row {
                Ok(row) => {
                    rows.push(row);
                    places.push(index);
                }
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        let refused = insert_each(&*self.database, QUEUE, &rows).await?;
        rejected.extend(refused.into_iter().map(|(place, reason)| Rejected { index: places[place], reason }));
        round.end("queued", &rejected).await?;
        self.metrics.note("told_before", round.told_before);
        Ok(rejected)
    }
}

impl MailQueue {
    /// Renders mails, those of one template together, on as many threads as there is work for.
    async fn render(&self, mut mails: Vec<Placed>) -> Result<Vec<Made>> {
        mails.sort_by(|(_, a), (_, b)| a.template_id.cmp(&b.template_id));
        if mails.len() <= RENDERED_TOGETHER {
            return Ok(render(&self.templates, &mails));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let size = mails.len().div_ceil(threads).max(RENDERED_TOGETHER);
        let mut tasks = Vec::new();
        while !mails.is_empty() {
            let rest = mails.split_off(size.min(mails.len()));
            let (part, templates) = (std::mem::replace(&mut mails, rest), Arc::clone(&self.templates));
            tasks.push(tokio::task::spawn_blocking(move || render(&templates, &part)));
        }
        let mut made = Vec::new();
        for task in tasks {
            made.extend(task.await.map_err(|error| Error::fatal("rendering mails broke off").because(error))?);
        }
        Ok(made)
    }
}

fn render(templates: &Templates, mails: &[Placed]) -> Vec<Made> {
    let one = |(index, mail): &Placed| {
        let mut data = mail.template_data.clone();
        if let Some(url) = &mail.unsubscribe_url {
            data.entry("unsubscribeUrl").or_insert_with(|| url.as_str().into());
        }
        let data = Value::Object(data);
        let rendered = templates.render(&mail.template_id, &data);
        (*index, rendered.map(|rendered| mail.row(&rendered)))
    };
    mails.iter().map(one).collect()
}

fn read(event: &Event) -> Result<MailRequest, String> {
    if event.operation == Operation::Delete {
        return Err("a delete is no mail".to_owned());
    }
    let document = event.document.as_ref().ok_or("the event has no document to send")?;
    MailRequest::parse(document.bytes())
}
