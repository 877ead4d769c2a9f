//! Devices and the mail queue in SQL Server.
//!
//! Contract: that of [`Delivery`]. A settlement whose answer was lost is sent again and then finds nothing more to change: it
//! counts as not held, which is what a sender that comes late is told, too.

use crate::connection::Param;
use crate::database::Context;
use crate::retrying;
use crate::rows;
use crate::statements::delivery as sql;
use async_trait::async_trait;
use smartpulse_clients::delivery::{DEVICES_MAX, Delivery, Device, Integration, QueuedMail, Settlement};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tiberius::{ColumnData, Row};
use uuid::Uuid;

/// Claims that are ended by one text: the server compiles it as a whole.
const SETTLED_MAX: usize = 50;

/// Devices and mails in SQL Server, and its notifications.
#[derive(Debug)]
pub(crate) struct SqlServerDelivery {
    pub cx: Arc<Context>,
}

impl SqlServerDelivery {
    pub fn new(cx: Arc<Context>) -> Self {
        Self { cx }
    }

    pub async fn rows(&self, what: &'static str, sql: &str, params: &[Param]) -> Result<Vec<Row>> {
        let start = Instant::now();
        let result = retrying!(self.cx.pool, what, c => c.rows(what, sql, params).await);
        self.cx.metrics.observe(what, start);
        result
    }
}

/// `uniqueidentifier`.
pub(crate) fn guid(id: Uuid) -> Param {
    Param(ColumnData::Guid(Some(id)))
}

/// The id at a place.
pub(crate) fn id(row: &Row, place: usize) -> Result<Uuid> {
    match rows::value(row, place)? {
        ColumnData::Guid(Some(id)) => Ok(*id),
        other => Err(Error::rejected(format!("{other:?} is no UUID"))),
    }
}

/// The text at a place; nothing for NULL.
pub(crate) fn text(row: &Row, place: usize) -> Option<String> {
    rows::text(row, place).map(str::to_owned)
}

#[async_trait]
impl Delivery for SqlServerDelivery {
    async fn devices(&self, user: Uuid) -> Result<Vec<Device>> {
        let found = self.rows("devices", sql::DEVICES, &[guid(user)]).await?;
        // Id, UserId, IntegrationType, Token, SubscriptionJson, OSVersion.
        let device = |row: &Row| -> Option<Result<Device>> {
            let integration = rows::integer(row, 2).and_then(Integration::of)?;
            let (token, subscription, os_version) = (text(row, 3), text(row, 4), text(row, 5));
            Some(id(row, 0).map(|id| Device { id, integration, token, subscription, os_version }))
        };
        found.iter().filter_map(device).take(DEVICES_MAX as usize).collect()
    }

    async fn remove_device(&self, device: Uuid) -> Result<bool> {
        Ok(!self.rows("remove_device", sql::REMOVE_DEVICE, &[guid(device)]).await?.is_empty())
    }

    async fn claim_mails(&self, limit: u32, lease: Duration) -> Result<Vec<QueuedMail>> {
        let lease = i32::try_from(lease.as_millis()).unwrap_or(i32::MAX);
        let params = [Param::bigint(i64::from(limit)), Param::int(lease)];
        let found = self.rows("claim_mails", sql::CLAIM_MAILS, &params).await?;
        let mail = |row: &Row| {
            let attempts = rows::integer(row, 6).and_then(|attempts| i32::try_from(attempts).ok());
            Ok(QueuedMail {
                id: id(row, 0)?,
                to_address: text(row, 1).unwrap_or_default(),
                subject: text(row, 2).unwrap_or_default(),
                body_html: text(row, 3),
                body_text: text(row, 4),
                attachments: text(row, 5),
                unsubscribe_url: text(row, 7),
                attempts: attempts.ok_or_else(|| Error::rejected("Attempts of a mail is no number"))?,
            })
        };
        found.iter().map(mail).collect()
    }

    async fn settle_mails(&self, settled: &[Settlement]) -> Result<usize> {
        let mut held = 0;
        for part in settled.chunks(SETTLED_MAX) {
            let mut params = Vec::with_capacity(part.len() * sql::SETTLE_PARAMS);
            for settlement in part {
                let (status, error, wait, step) = settlement.columns();
                let number = |number: Option<i32>| Param(ColumnData::I32(number));
                let error = Param(ColumnData::String(error.map(Into::into)));
                let claim = [guid(settlement.id), Param::int(settlement.attempts), Param::text(status)];
                params.extend(claim.into_iter().chain([error, number(wait), Param::int(step)]));
            }
            let found = self.rows("settle_mails", &sql::settle_mails(part.len()), &params).await?;
            let count = found.first().and_then(|row| rows::integer(row, 0));
            held += count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        }
        Ok(held)
    }
}
