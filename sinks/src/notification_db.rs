//! `notification_db`: inserts rows into a table of a database: notifications, queued mails.
//!
//! Input: events whose document is the row, with the columns' names in camelCase (a `map` in front makes it). Rows go in
//! by batch, all or nothing, where their `Id` is absent: what is there already stays as it is, so that a batch that comes
//! again after an error or a crash changes nothing. Ids are therefore a function of what the row tells of
//! (`{ $uuid5: [...] }`), never random.
//!
//! A batch that the database refuses is halved until the rows that can never go in stand alone; these are refused with the
//! database's reason, and all others go in. Each bad row of a batch of n costs about 2 log2 n further calls.
//!
//! A row is inserted, never updated: of two events with one `id` the first counts.
//!
//! With a `ledger` each document says in `delivery` which delivery it is ([`smartpulse_clients::deliveries`]); what was told
//! before is passed over and counted (`told_before`). With `announce` whoever has the inbox open hears of new rows at once,
//! on the channel `__notification:{partition}:{userId}`; what is lost there is found in the table a little later.
//! `CreatedAt` is best left to the database: then the inbox is in the order in which things were told.

use crate::announce::Announcer;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use smartpulse_clients::database::{SharedDatabase, insert_each};
use smartpulse_clients::deliveries::{DeliveryLedger, MEMBER};
use smartpulse_clients::notifications::Channel;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::telemetry::ComponentMetrics;
use smartpulse_pipeline::{Batch, Event, Operation};
use std::sync::Arc;

/// Inserts rows into a table, where their id is absent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationDbConfig {
    /// The database resource.
    database: String,
    /// The table; `Notifications` by default. It needs a primary key of one column, which is among the members of each row.
    #[serde(default = "default_table")]
    table: String,
    /// The database resource whose table `NotificationDeliveries` keeps what was told; none by default.
    #[serde(default)]
    ledger: Option<String>,
    /// The pub/sub resource on which new rows are announced to their users; none by default.
    #[serde(default)]
    announce: Option<String>,
}

fn default_table() -> String {
    "Notifications".to_owned()
}

impl Config for NotificationDbConfig {
    const TYPE: &'static str = "notification_db";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
        if let Some(ledger) = &self.ledger {
            check.resource("ledger", ledger, "database");
        }
        if let Some(pubsub) = &self.announce {
            check.resource("announce", pubsub, "pubsub");
        }
        if self.table.is_empty() {
            let help = "name one, such as `Notifications` or `NheaMailQueue`";
            check.problem("table", "the table has no name", Some(help.to_owned()));
        }
    }
}

#[async_trait]
impl SinkConfig for NotificationDbConfig {
    const RETRY: &'static str = "transient_sql";

    async fn build(&self, cx: &BuildContext<'_>) -> Result<Box<dyn Sink>> {
        let database: SharedDatabase = cx.resource(&self.database).await?;
        let table = database.table(&self.table).await;
        table
            .map_err(|error| Error::new(error.kind(), format!("rows cannot go into {}", self.table)).because(error))?;
        let ledger = DeliveryLedger::open(cx, self.ledger.as_deref(), Channel::InApp).await?;
        let announcer = match &self.announce {
            Some(pubsub) => {
                Some(Announcer { pubsub: cx.resource(pubsub).await?, partition: cx.settings.partition.clone() })
            }
            None => None,
        };
        Ok(Box::new(NotificationDb {
            database,
            table: self.table.clone(),
            ledger,
            announcer,
            metrics: cx.metrics.clone(),
        }))
    }
}

struct NotificationDb {
    database: SharedDatabase,
    table: String,
    ledger: Option<DeliveryLedger>,
    announcer: Option<Announcer>,
    metrics: Arc<ComponentMetrics>,
}

#[async_trait]
impl Sink for NotificationDb {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        let mut round = DeliveryLedger::begin(self.ledger.as_ref(), batch).await?;
        let mut rejected = std::mem::take(&mut round.rejected);
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for (index, event) in batch.events.iter().enumerate().filter(|(index, _)| round.is_due(*index)) {
            match row(event) {
                Ok(mut row) => {
                    if self.ledger.is_some() {
                        row.remove(MEMBER);
                    }
                    rows.push(row);
                    places.push(index);
                }
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        let refused = insert_each(&*self.database, &self.table, &rows).await?;
        rejected.extend(refused.into_iter().map(|(place, reason)| Rejected { index: places[place], reason }));
        if let Some(announcer) = &self.announcer {
            announcer.announce(&rows).await;
        }
        round.end("told", &rejected).await?;
        self.metrics.note("told_before", round.told_before);
        Ok(rejected)
    }
}

/// The row that an event is.
fn row(event: &Event) -> Result<Map<String, Value>, String> {
    if event.operation == Operation::Delete {
        return Err("a delete is no row to insert".to_owned());
    }
    let document = event.document.as_ref().ok_or("the event has no document to insert")?;
    match serde_json::from_slice(document.bytes()) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => Err("the document is no object: a row is made of members".to_owned()),
        Err(error) => Err(format!("the document cannot be read: {error}")),
    }
}
