//! The ledger of deliveries: who was told what, by which channel, and what became of each attempt.
//!
//! The table [`DELIVERIES`] has a row per attempt, inserted and never changed. The row that ends a delivery (somebody was told,
//! or there was nobody to tell) has the delivery's own id: it is there once, and found by its key.
//!
//! A sink with a ledger asks [`DeliveryLedger::begin`] what of a batch is still to be told, does that, and records what became of
//! it with [`Round::record`]. Between the two a crash repeats at most the batch; what the sink does by the delivery's id (a row
//! of the inbox, a queued mail) is there once all the same.

use crate::database::{Database, SharedDatabase, cut, insert_each};
use crate::notifications::Channel;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::BuildContext;
use smartpulse_pipeline::sink::Rejected;
use smartpulse_pipeline::{Batch, Key};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The table of attempts.
pub const DELIVERIES: &str = "NotificationDeliveries";

/// The member of a document that says which delivery it is: the delivery message as it came, or what of it [`Delivery`] has.
pub const MEMBER: &str = "delivery";

/// What the column `Detail` holds, in characters.
const DETAIL_MAX: usize = 4_000;

/// Which delivery a document is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// UUIDv5(rule, entity, version, channel, user).
    pub id: Uuid,
    /// Whom it tells.
    pub user_id: Uuid,
    /// By which rule, 200 characters at most.
    pub rule: String,
    /// About what, 200 characters at most.
    pub entity: String,
    /// Its version, 64 characters at most.
    #[serde(deserialize_with = "text_or_number")]
    pub version: String,
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

impl Delivery {
    /// Which one a document is.
    ///
    /// # Errors
    /// That it does not say so, in one line.
    pub fn of(document: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Holder {
            delivery: Delivery,
        }
        let holder: Result<Holder, _> = serde_json::from_slice(document);
        holder.map(|holder| holder.delivery).map_err(|error| {
            format!(
                "the ledger needs the member `{MEMBER}` with `id`, `userId`, `rule`, `entity` and `version` \
                 (a `map` makes it: `{MEMBER}: \"{{/document}}\"`): {error}"
            )
        })
    }

    /// An attempt at it.
    #[must_use]
    pub fn attempt(&self, channel: Channel, outcome: &'static str, detail: Option<String>) -> Attempt {
        Attempt {
            id: Uuid::new_v4(),
            delivery: self.id,
            channel,
            user: self.user_id,
            rule: self.rule.clone(),
            entity: self.entity.clone(),
            version: self.version.clone(),
            outcome,
            detail,
        }
    }
}

/// One attempt to tell somebody something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which: the delivery's own id when it ends the delivery; else the attempt's own.
    pub id: Uuid,
    /// The delivery: UUIDv5(rule, entity, version, channel, user).
    pub delivery: Uuid,
    /// By what.
    pub channel: Channel,
    /// Whom.
    pub user: Uuid,
    /// By which rule, 200 characters at most.
    pub rule: String,
    /// About what, 200 characters at most.
    pub entity: String,
    /// Its version, 64 characters at most.
    pub version: String,
    /// What became of it, 32 characters at most.
    pub outcome: &'static str,
    /// What else is known, cut to 4,000 characters.
    pub detail: Option<String>,
}

impl Attempt {
    /// The one that ends the delivery: nobody is told again.
    #[must_use]
    pub fn last(self) -> Self {
        Self { id: self.delivery, ..self }
    }

    fn row(&self) -> Map<String, Value> {
        let detail = self.detail.as_deref().map(|detail| cut(detail, DETAIL_MAX));
        let members = [
            ("id", json!(self.id)),
            ("deliveryId", json!(self.delivery)),
            ("channel", json!(self.channel.name())),
            ("userId", json!(self.user)),
            ("rule", json!(self.rule)),
            ("entity", json!(self.entity)),
            ("version", json!(self.version)),
            ("outcome", json!(self.outcome)),
            ("detail", json!(detail)),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The ledger as a sink has it.
pub struct DeliveryLedger {
    database: SharedDatabase,
    channel: Channel,
}

/// The deliveries of a batch. Without a ledger all are to be told, and nothing is kept.
pub struct Round<'a> {
    ledger: Option<&'a DeliveryLedger>,
    /// Those of the batch, by their places; none where there is no ledger or the document names none.
    deliveries: Vec<Option<Delivery>>,
    /// The places of those that were told, or whose delivery stands in the batch before them.
    repeated: HashSet<usize>,
    /// Events that name no delivery.
    pub rejected: Vec<Rejected>,
    /// How many were told before.
    pub told_before: u64,
}

impl DeliveryLedger {
    /// The ledger in the database resource of this name, where one is named.
    ///
    /// # Errors
    /// The resource's; the database's when it has no such table.
    pub async fn open(cx: &BuildContext<'_>, database: Option<&str>, channel: Channel) -> Result<Option<Self>> {
        let Some(name) = database else { return Ok(None) };
        let database: SharedDatabase = cx.resource(name).await?;
        let table = database.table(DELIVERIES).await;
        table.map_err(|error| Error::new(error.kind(), format!("{name} keeps no deliveries")).because(error))?;
        Ok(Some(Self { database, channel }))
    }

    /// What of a batch was not told yet.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin<'a>(ledger: Option<&'a Self>, batch: &Batch) -> Result<Round<'a>> {
        let mut round = Round {
            ledger,
            deliveries: vec![None; batch.events.len()],
            repeated: HashSet::new(),
            rejected: Vec::new(),
            told_before: 0,
        };
        let Some(ledger) = ledger else { return Ok(round) };
        for (index, (event, place)) in batch.events.iter().zip(&mut round.deliveries).enumerate() {
            match Delivery::of(event.document.as_ref().map_or(b"null", |document| document.bytes())) {
                Ok(delivery) => *place = Some(delivery),
                Err(reason) => round.rejected.push(Rejected { index, reason }),
            }
        }
        let ids: Vec<Uuid> = round.deliveries.iter().flatten().map(|delivery| delivery.id).collect();
        let mut seen = told(&*ledger.database, &ids).await?;
        for (index, delivery) in round.deliveries.iter().enumerate() {
            if delivery.as_ref().is_some_and(|delivery| !seen.insert(delivery.id)) {
                round.repeated.insert(index);
            }
        }
        round.told_before = round.repeated.len() as u64;
        Ok(round)
    }
}

impl DeliveryLedger {
    /// Keeps tries of deliveries that ended in a queue, by their ids. What the ledger does not know is no delivery.
    ///
    /// # Errors
    /// The database's.
    pub async fn record_tries(&self, tries: &[(Uuid, &'static str, Option<String>)]) -> Result<()> {
        let keys: Vec<Key> = tries.iter().map(|(id, ..)| id.to_string().into()).collect();
        let rows = self.database.get(DELIVERIES, &keys).await?;
        let known: HashMap<Uuid, Delivery> = rows
            .iter()
            .filter_map(|row| serde_json::from_slice(&row.document).ok())
            .map(|delivery: Delivery| (delivery.id, delivery))
            .collect();
        let attempt = |(id, outcome, detail): &(Uuid, &'static str, Option<String>)| {
            Some(known.get(id)?.attempt(self.channel, outcome, detail.clone()))
        };
        record(&*self.database, &tries.iter().filter_map(attempt).collect::<Vec<_>>()).await
    }
}

impl Round<'_> {
    /// Whether the event at this place is to be told.
    #[must_use]
    pub fn is_due(&self, index: usize) -> bool {
        match self.deliveries.get(index) {
            Some(Some(_)) => !self.repeated.contains(&index),
            _ => self.ledger.is_none(),
        }
    }

    /// An attempt at the event at this place, where it names a delivery that is due.
    #[must_use]
    pub fn attempt(&self, index: usize, outcome: &'static str, detail: Option<String>) -> Option<Attempt> {
        let delivery = self.deliveries.get(index)?.as_ref().filter(|_| self.is_due(index))?;
        Some(delivery.attempt(self.ledger?.channel, outcome, detail))
    }

    /// Keeps attempts.
    ///
    /// # Errors
    /// The database's.
    pub async fn record(&self, attempts: &[Attempt]) -> Result<()> {
        match self.ledger {
            Some(ledger) if !attempts.is_empty() => record(&*ledger.database, attempts).await,
            _ => Ok(()),
        }
    }

    /// Keeps that everything that was due has ended so, but for what was rejected.
    ///
    /// # Errors
    /// The database's.
    pub async fn end(&self, outcome: &'static str, rejected: &[Rejected]) -> Result<()> {
        let refused: HashSet<usize> = rejected.iter().map(|rejected| rejected.index).collect();
        let places = (0..self.deliveries.len()).filter(|index| !refused.contains(index));
        let ended = places.filter_map(|index| Some(self.attempt(index, outcome, None)?.last()));
        let failed = rejected.iter().filter_map(|rejected| self.refused(rejected));
        self.record(&ended.chain(failed).collect::<Vec<_>>()).await
    }

    /// The attempt that was refused.
    #[must_use]
    pub fn refused(&self, rejected: &Rejected) -> Option<Attempt> {
        self.attempt(rejected.index, "refused", Some(rejected.reason.clone()))
    }
}

/// Which of these deliveries the ledger knows as told.
///
/// # Errors
/// The database's; rejected when an id there is no UUID.
pub async fn told(database: &dyn Database, deliveries: &[Uuid]) -> Result<HashSet<Uuid>> {
    if deliveries.is_empty() {
        return Ok(HashSet::new());
    }
    let keys: Vec<Key> = deliveries.iter().map(|id| id.to_string().into()).collect();
    let rows = database.get(DELIVERIES, &keys).await?;
    Ok(rows.iter().filter_map(|row| Uuid::parse_str(&row.key).ok()).collect())
}

/// Writes attempts into the ledger, in bulk; those that are there already stay as they are. What the ledger refuses (a rule with
/// too long a name) is told as a warning and stands in nobody's way.
///
/// # Errors
/// The database's, but for refusals.
pub async fn record(database: &dyn Database, attempts: &[Attempt]) -> Result<()> {
    let rows: Vec<_> = attempts.iter().map(Attempt::row).collect();
    for (place, reason) in insert_each(database, DELIVERIES, &rows).await? {
        let delivery = attempts.get(place).map(|attempt| attempt.delivery.to_string());
        tracing::warn!(delivery, reason, "an attempt cannot be kept in the ledger");
    }
    Ok(())
}
