//! Devices and the mail queue in the embedded database.
//!
//! Contract: that of [`Delivery`]. A claim is one statement within one transaction, so that two senders, of whatever
//! process, never get the same mail.
//!
//! Queries in the metrics: `devices`, `remove_device`, `claim_mails`, `settle_mails`.

use super::connection::{Failure, Pool};
use super::rows::Catalogue;
use crate::delivery::{DEVICES_MAX, Delivery, Device, Integration, QueuedMail, Settlement};
use crate::metrics::DatabaseMetrics;
use async_trait::async_trait;
use rusqlite::{Connection, Row, TransactionBehavior, params};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What `dbo.GetUserDevices` does.
const DEVICES: &str = "SELECT Id, IntegrationType, Token, SubscriptionJson, OSVersion FROM SysUserDeviceInfo
    WHERE UserId = ?1 ORDER BY Id LIMIT ?2";

/// The oldest ?1 mails that are due, claimed for ?2 seconds.
const CLAIM: &str = "UPDATE NheaMailQueue SET Status = 'Sending', Attempts = Attempts + 1,
        NotBefore = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('+%.3f seconds', ?2))
    WHERE Id IN (SELECT Id FROM NheaMailQueue WHERE Status IN ('Queued', 'Sending')
        AND (NotBefore IS NULL OR NotBefore <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) ORDER BY CreatedAt, Id LIMIT ?1)
    RETURNING Id, ToAddress, Subject, BodyHtml, BodyText, Attachments, Attempts, UnsubscribeUrl";

/// The claim ?2 of the mail ?1 ends with status ?3, error ?4, a wait of ?5 milliseconds and ?6 attempts more.
const SETTLE: &str =
    "UPDATE NheaMailQueue SET Status = ?3, LastError = COALESCE(?4, LastError), Attempts = Attempts + ?6,
        NotBefore = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('+%.3f seconds', ?5 / 1000.0)),
        SentAt = CASE WHEN ?3 = 'Sent' THEN strftime('%Y-%m-%dT%H:%M:%fZ', 'now') END
    WHERE Id = ?1 AND Attempts = ?2 AND Status = 'Sending'";

/// Devices and mails of one embedded database, and its notifications.
#[derive(Debug)]
pub(super) struct SqliteDelivery {
    pub writer: Pool<Connection>,
    pub readers: Pool<Connection>,
    pub catalogue: Arc<Catalogue>,
    metrics: DatabaseMetrics,
}

impl SqliteDelivery {
    /// With the connections of the database.
    pub fn new(
        writer: Pool<Connection>,
        readers: Pool<Connection>,
        catalogue: Arc<Catalogue>,
        metrics: DatabaseMetrics,
    ) -> Self {
        Self { writer, readers, catalogue, metrics }
    }

    pub async fn run<R: Send + 'static>(
        &self,
        pool: &Pool<Connection>,
        query: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R> {
        let start = Instant::now();
        let result = pool.run(query, work).await;
        self.metrics.observe(query, start);
        result
    }
}

/// A column that holds an id.
pub(super) fn id(row: &Row<'_>, place: usize) -> Result<Uuid, Failure> {
    let text: String = row.get(place)?;
    Uuid::parse_str(&text).map_err(|error| Failure::Own(Error::rejected(format!("{text:?} is no UUID")).because(error)))
}

#[async_trait]
impl Delivery for SqliteDelivery {
    async fn devices(&self, user: Uuid) -> Result<Vec<Device>> {
        self.run(&self.readers, "devices", move |connection| {
            let mut statement = connection.prepare_cached(DEVICES)?;
            let mut rows = statement.query(params![user.to_string(), DEVICES_MAX])?;
            let mut devices = Vec::new();
            while let Some(row) = rows.next()? {
                let Some(integration) = Integration::of(row.get(1)?) else { continue };
                let (token, subscription, os_version) = (row.get(2)?, row.get(3)?, row.get(4)?);
                devices.push(Device { id: id(row, 0)?, integration, token, subscription, os_version });
            }
            Ok(devices)
        })
        .await
    }

    async fn remove_device(&self, device: Uuid) -> Result<bool> {
        self.run(&self.writer, "remove_device", move |connection| {
            let removed = connection.execute("DELETE FROM SysUserDeviceInfo WHERE Id = ?1", [device.to_string()])?;
            Ok(removed > 0)
        })
        .await
    }

    async fn claim_mails(&self, limit: u32, lease: Duration) -> Result<Vec<QueuedMail>> {
        self.run(&self.writer, "claim_mails", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut mails = Vec::new();
            {
                let mut statement = transaction.prepare_cached(CLAIM)?;
                let mut rows = statement.query(params![limit, lease.as_secs_f64()])?;
                while let Some(row) = rows.next()? {
                    mails.push(QueuedMail {
                        id: id(row, 0)?,
                        to_address: row.get(1)?,
                        subject: row.get(2)?,
                        body_html: row.get(3)?,
                        body_text: row.get(4)?,
                        attachments: row.get(5)?,
                        attempts: row.get(6)?,
                        unsubscribe_url: row.get(7)?,
                    });
                }
            }
            transaction.commit()?;
            Ok(mails)
        })
        .await
    }

    async fn settle_mails(&self, settled: &[Settlement]) -> Result<usize> {
        let settled = settled.to_vec();
        self.run(&self.writer, "settle_mails", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut held = 0;
            for settlement in &settled {
                let (status, error, wait, step) = settlement.columns();
                held += transaction.prepare_cached(SETTLE)?.execute(params![
                    settlement.id.to_string(),
                    settlement.attempts,
                    status,
                    error,
                    wait,
                    step
                ])?;
            }
            transaction.commit()?;
            Ok(held)
        })
        .await
    }
}
