//! Notifications in the embedded database: users, preferences, quiet periods, inboxes, devices, the ledger.
//!
//! Contract: that of [`Notifications`]. Calls about several users are one transaction.
//!
//! Queries in the metrics: `users`, `switched_off`, `switch`, `claim_quiet`, `inbox`, `inbox_after`, `unread`, `mark_read`,
//! `add_device`, `remove_device`, `deliveries`.

use super::connection::Failure;
use super::delivery::{SqliteDelivery, id};
use super::statements::select;
use crate::database::{Page, Row};
use crate::deliveries::DELIVERIES;
use crate::delivery::DEVICES_MAX;
use crate::notifications::{
    Audience, Channel, DeliveryQuery, NewDevice, Notifications, Quiet, Registered, Sought, User,
};
use async_trait::async_trait;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params, params_from_iter};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use uuid::Uuid;

/// The table of inboxes.
const INBOX: &str = "Notifications";

const SWITCHED_OFF: &str = "SELECT Channel FROM NotificationPreferences WHERE UserId = ?1 AND Enabled = 0";

const SWITCH: &str = "INSERT INTO NotificationPreferences (UserId, Channel, Enabled) VALUES (?1, ?2, ?3)
    ON CONFLICT (UserId, Channel) DO UPDATE SET Enabled = excluded.Enabled, UpdatedAt = excluded.UpdatedAt";

/// The quiet period ?4, in seconds, of the user ?1 for the event ?3 of the rule ?2: no row changes while another holds.
const CLAIM_QUIET: &str = "INSERT INTO NotificationQuiet (UserId, Rule, LastEvent, QuietUntil)
    VALUES (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('+%.3f seconds', ?4)))
    ON CONFLICT (UserId, Rule) DO UPDATE SET LastEvent = excluded.LastEvent, QuietUntil = excluded.QuietUntil
    WHERE LastEvent = excluded.LastEvent OR QuietUntil <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

/// Marks it, unless it is marked; it stays read since the first time.
const MARK_READ: &str = "UPDATE Notifications SET ReadAt = COALESCE(ReadAt, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
    WHERE Id = ?1 AND UserId = ?2";

const ADD_DEVICE: &str =
    "INSERT INTO SysUserDeviceInfo (Id, UserId, IntegrationType, Token, SubscriptionJson, OSVersion)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (Id) DO UPDATE SET UserId = excluded.UserId, IntegrationType = excluded.IntegrationType,
        Token = excluded.Token, SubscriptionJson = excluded.SubscriptionJson, OSVersion = excluded.OSVersion";

/// Which users an audience is, and what the conditions' holes are.
fn of_audience(audience: &Audience) -> (&'static str, Vec<SqlValue>) {
    let text = |id: &Uuid| SqlValue::Text(id.to_string());
    match audience {
        Audience::User(user) => ("Id = ?", vec![text(user)]),
        Audience::Company(company) => ("CompanyId = ?", vec![text(company)]),
        Audience::Role { role, company: None } => ("Role = ?", vec![SqlValue::Text(role.clone())]),
        Audience::Role { role, company: Some(company) } => {
            ("Role = ? AND CompanyId = ?", vec![SqlValue::Text(role.clone()), text(company)])
        }
        Audience::Forecast(forecast) => {
            ("CompanyId = (SELECT CompanyId FROM Forecasts WHERE Id = ?)", vec![text(forecast)])
        }
    }
}

#[async_trait]
impl Notifications for SqliteDelivery {
    async fn users(&self, audience: &Audience, after: Option<Uuid>, limit: u32) -> Result<Vec<User>> {
        let (condition, mut values) = of_audience(audience);
        values.push(SqlValue::Text(after.map(|id| id.to_string()).unwrap_or_default()));
        values.push(SqlValue::Integer(i64::from(limit)));
        self.run(&self.readers, "users", move |connection| {
            let sql = format!(
                "SELECT Id, CompanyId, Email, DisplayName, Role FROM SysUser WHERE {condition} AND Id > ? ORDER BY Id LIMIT ?"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(&values))?;
            let mut users = Vec::new();
            while let Some(row) = rows.next()? {
                let (email, display_name, role) = (row.get(2)?, row.get(3)?, row.get(4)?);
                users.push(User { id: id(row, 0)?, company: id(row, 1)?, email, display_name, role });
            }
            Ok(users)
        })
        .await
    }

    async fn switched_off(&self, users: &[Uuid]) -> Result<Vec<(Uuid, Channel)>> {
        let users = users.to_vec();
        self.run(&self.readers, "switched_off", move |connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(SWITCHED_OFF)?;
            let mut off = Vec::new();
            for user in users {
                let mut rows = statement.query([user.to_string()])?;
                while let Some(row) = rows.next()? {
                    off.extend(Channel::of(&row.get::<_, String>(0)?).map(|channel| (user, channel)));
                }
            }
            Ok(off)
        })
        .await
    }

    async fn switch(&self, user: Uuid, channels: &[(Channel, bool)]) -> Result<()> {
        let channels = channels.to_vec();
        self.run(&self.writer, "switch", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (channel, enabled) in channels {
                transaction.prepare_cached(SWITCH)?.execute(params![user.to_string(), channel.name(), enabled])?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    async fn claim_quiet(&self, quiet: Quiet<'_>, users: &[Uuid]) -> Result<Vec<Uuid>> {
        let (rule, event, seconds) = (quiet.rule.to_owned(), quiet.event.to_owned(), quiet.period.as_secs_f64());
        let users = users.to_vec();
        self.run(&self.writer, "claim_quiet", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut told = Vec::with_capacity(users.len());
            for user in users {
                let mut statement = transaction.prepare_cached(CLAIM_QUIET)?;
                if statement.execute(params![user.to_string(), rule, event, seconds])? > 0 {
                    told.push(user);
                }
            }
            transaction.commit()?;
            Ok(told)
        })
        .await
    }

    async fn inbox(&self, user: Uuid, skip: u32, take: u32) -> Result<Page> {
        let catalogue = Arc::clone(&self.catalogue);
        self.run(&self.readers, "inbox", move |connection| {
            let info = catalogue.get(connection, INBOX)?;
            // One transaction, so that the total is that of the moment of the page.
            let transaction = connection.transaction()?;
            let total = count(&transaction, "SELECT count(*) FROM Notifications WHERE UserId = ?1", user)?;
            let columns = &info.columns_sql;
            let sql = format!(
                "SELECT {columns} FROM Notifications WHERE UserId = ?1 ORDER BY CreatedAt DESC, Id LIMIT ?2 OFFSET ?3"
            );
            Ok(Page { total, rows: select(&transaction, &info, &sql, params![user.to_string(), take, skip])? })
        })
        .await
    }

    async fn inbox_after(&self, user: Uuid, after: (Timestamp, Uuid), limit: u32) -> Result<Vec<Row>> {
        let catalogue = Arc::clone(&self.catalogue);
        self.run(&self.readers, "inbox_after", move |connection| {
            let info = catalogue.get(connection, INBOX)?;
            let columns = &info.columns_sql;
            let sql = format!(
                "SELECT {columns} FROM Notifications WHERE UserId = ?1 AND CreatedAt >= ?2
                    AND (CreatedAt > ?2 OR Id > ?3) ORDER BY CreatedAt, Id LIMIT ?4"
            );
            let (time, id) = after;
            select(connection, &info, &sql, params![user.to_string(), time.to_string(), id.to_string(), limit])
        })
        .await
    }

    async fn unread(&self, user: Uuid) -> Result<u64> {
        self.run(&self.readers, "unread", move |connection| {
            count(connection, "SELECT count(*) FROM Notifications WHERE UserId = ?1 AND ReadAt IS NULL", user)
        })
        .await
    }

    async fn mark_read(&self, user: Uuid, id: Uuid) -> Result<bool> {
        self.run(&self.writer, "mark_read", move |connection| {
            let mut statement = connection.prepare_cached(MARK_READ)?;
            Ok(statement.execute([id.to_string(), user.to_string()])? > 0)
        })
        .await
    }

    async fn add_device(&self, device: &NewDevice) -> Result<Registered> {
        let device = device.clone();
        self.run(&self.writer, "add_device", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (id, user) = (device.id.to_string(), device.user.to_string());
            let owner: Option<String> = transaction
                .prepare_cached("SELECT UserId FROM SysUserDeviceInfo WHERE Id = ?1")?
                .query_row([&id], |row| row.get(0))
                .optional()?;
            let known = owner.is_some_and(|owner| owner == user);
            let owned = count(&transaction, "SELECT count(*) FROM SysUserDeviceInfo WHERE UserId = ?1", device.user)?;
            if !known && owned >= u64::from(DEVICES_MAX) {
                return Ok(Registered::Full);
            }
            transaction.prepare_cached(ADD_DEVICE)?.execute(params![
                id,
                user,
                device.integration.number(),
                device.token,
                device.subscription,
                device.os_version
            ])?;
            transaction.commit()?;
            Ok(if known { Registered::Known } else { Registered::New })
        })
        .await
    }

    async fn remove_own_device(&self, user: Uuid, device: Uuid) -> Result<bool> {
        self.run(&self.writer, "remove_device", move |connection| {
            let sql = "DELETE FROM SysUserDeviceInfo WHERE Id = ?1 AND UserId = ?2";
            Ok(connection.execute(sql, [device.to_string(), user.to_string()])? > 0)
        })
        .await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Row>> {
        let (query, catalogue) = (query.clone(), Arc::clone(&self.catalogue));
        self.run(&self.readers, "deliveries", move |connection| {
            let info = catalogue.get(connection, DELIVERIES)?;
            let given = query.filters().into_iter().map(|(column, sought)| {
                let text = match sought {
                    Sought::Id(id) => id.to_string(),
                    Sought::Text(text) => text,
                };
                (format!("{column} = ?"), SqlValue::Text(text))
            });
            let (conditions, mut values): (Vec<String>, Vec<SqlValue>) = given.unzip();
            values.extend([query.take, query.skip].map(|number| SqlValue::Integer(i64::from(number))));
            let filter =
                if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
            let columns = &info.columns_sql;
            let sql =
                format!("SELECT {columns} FROM {DELIVERIES} {filter} ORDER BY CreatedAt DESC, Id LIMIT ? OFFSET ?");
            select(connection, &info, &sql, params_from_iter(&values))
        })
        .await
    }
}

/// What a statement about a user counts.
fn count(connection: &Connection, sql: &str, user: Uuid) -> Result<u64, Failure> {
    let count: i64 = connection.prepare_cached(sql)?.query_row([user.to_string()], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
