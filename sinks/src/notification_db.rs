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

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use smartpulse_clients::database::{SharedDatabase, insert_each};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::{BuildContext, Check, Config, SinkConfig};
use smartpulse_pipeline::sink::{Rejected, Sink};
use smartpulse_pipeline::{Batch, Event, Operation};

/// Inserts rows into a table, where their id is absent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationDbConfig {
    /// The database resource.
    database: String,
    /// The table; `Notifications` by default. It needs a primary key of one column, which is among the members of each row.
    #[serde(default = "default_table")]
    table: String,
}

fn default_table() -> String {
    "Notifications".to_owned()
}

impl Config for NotificationDbConfig {
    const TYPE: &'static str = "notification_db";

    fn validate(&self, check: &mut Check<'_>) {
        check.resource("database", &self.database, "database");
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
        Ok(Box::new(NotificationDb { database, table: self.table.clone() }))
    }
}

struct NotificationDb {
    database: SharedDatabase,
    table: String,
}

#[async_trait]
impl Sink for NotificationDb {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        let (mut rows, mut places, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        for (index, event) in batch.events.iter().enumerate() {
            match row(event) {
                Ok(row) => {
                    rows.push(row);
                    places.push(index);
                }
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        let refused = insert_each(&*self.database, &self.table, &rows).await?;
        rejected.extend(refused.into_iter().map(|(place, reason)| Rejected { index: places[place], reason }));
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
