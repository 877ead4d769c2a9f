//! Notifications in SQL Server: users, preferences, quiet periods, inboxes, devices, the ledger.
//!
//! Contract: that of [`Notifications`]. A device whose answer was lost is registered again, and then known.

use crate::catalogue::TableInfo;
use crate::connection::Param;
use crate::delivery::{SqlServerDelivery, guid, id, text};
use crate::errors::Outcome;
use crate::read::{moment, padded, readable};
use crate::retrying;
use crate::rows;
use crate::statements::notifications as sql;
use async_trait::async_trait;
use smartpulse_clients::database::{Page, Row};
use smartpulse_clients::deliveries::DELIVERIES;
use smartpulse_clients::delivery::DEVICES_MAX;
use smartpulse_clients::notifications::{
    Audience, Channel, DeliveryQuery, NewDevice, Notifications, Quiet, Registered, Sought, User,
};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;
use std::time::Instant;
use tiberius::ColumnData;
use uuid::Uuid;

/// The table of inboxes.
const INBOX: &str = "Notifications";

/// What a query about a table gave: its results, and the table as it was asked for.
type Answer = (Arc<TableInfo>, Vec<Vec<tiberius::Row>>);

impl SqlServerDelivery {
    /// Asks for documents of a table.
    async fn about(
        &self,
        what: &'static str,
        table: &str,
        sql: impl Fn(&TableInfo) -> String + Send + Sync,
        params: &[Param],
    ) -> Result<Answer> {
        let start = Instant::now();
        let answer = retrying!(self.cx.pool, what, c => {
            let answer: Outcome<Answer> = async {
                let info = self.cx.catalogue.get(c, table).await?;
                let results = c.query(what, &sql(&info), params).await?;
                Ok((info, results))
            }
            .await;
            answer.map_err(|failure| self.cx.catalogue.learn(table, failure))
        });
        self.cx.metrics.observe(what, start);
        answer
    }
}

/// The documents of a result's rows.
fn documents(info: &TableInfo, result: Option<Vec<tiberius::Row>>) -> Result<Vec<Row>> {
    let rows = result.unwrap_or_default();
    rows.iter().map(|row| readable(info.shape.entity(row, 0)?)).collect::<Outcome<_>>().map_err(Error::from)
}

/// The users, padded so that the server keeps few plans; in order, so that two claims do not wait for each other.
fn guids(users: &[Uuid]) -> Vec<Param> {
    let mut users = users.to_vec();
    users.sort_unstable();
    padded(&users).into_iter().map(guid).collect()
}

fn number(row: Option<&tiberius::Row>, place: usize) -> u64 {
    row.and_then(|row| rows::integer(row, place)).and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

#[async_trait]
impl Notifications for SqlServerDelivery {
    async fn users(&self, audience: &Audience, after: Option<Uuid>, limit: u32) -> Result<Vec<User>> {
        let mut params = vec![Param::bigint(i64::from(limit))];
        match audience {
            Audience::User(id) | Audience::Company(id) | Audience::Forecast(id) => params.push(guid(*id)),
            Audience::Role { role, company } => {
                params.push(Param::text(role));
                params.extend(company.map(guid));
            }
        }
        params.extend(after.map(guid));
        let found = self.rows("users", &sql::users(audience, after.is_some()), &params).await?;
        let user = |row: &tiberius::Row| {
            let word = |place| text(row, place).unwrap_or_default();
            Ok(User { id: id(row, 0)?, company: id(row, 1)?, email: word(2), display_name: word(3), role: word(4) })
        };
        found.iter().map(user).collect()
    }

    async fn switched_off(&self, users: &[Uuid]) -> Result<Vec<(Uuid, Channel)>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let params = guids(users);
        let found = self.rows("switched_off", &sql::switched_off(params.len()), &params).await?;
        let off = |row: &tiberius::Row| {
            let channel = rows::text(row, 1).and_then(Channel::of)?;
            Some(id(row, 0).map(|user| (user, channel)))
        };
        found.iter().filter_map(off).collect()
    }

    async fn switch(&self, user: Uuid, channels: &[(Channel, bool)]) -> Result<()> {
        for (channel, enabled) in channels {
            let params = [guid(user), Param::text(channel.name()), Param::int(i32::from(*enabled))];
            self.rows("switch", sql::SWITCH, &params).await?;
        }
        Ok(())
    }

    async fn claim_quiet(&self, quiet: Quiet<'_>, users: &[Uuid]) -> Result<Vec<Uuid>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let seconds = i32::try_from(quiet.period.as_secs()).unwrap_or(i32::MAX);
        let millis = i32::try_from(quiet.period.subsec_millis()).unwrap_or(0);
        let mut params =
            vec![Param::text(quiet.rule), Param::text(quiet.event), Param::int(seconds), Param::int(millis)];
        params.extend(guids(users));
        let sql = sql::claim_quiet(params.len() - sql::QUIET_PARAMS);
        self.rows("claim_quiet", &sql, &params).await?.iter().map(|row| id(row, 0)).collect()
    }

    async fn inbox(&self, user: Uuid, skip: u32, take: u32) -> Result<Page> {
        let params = [guid(user), Param::bigint(i64::from(skip)), Param::bigint(i64::from(take))];
        let (info, results) = self.about("inbox", INBOX, sql::inbox, &params).await?;
        let mut results = results.into_iter();
        let total = number(results.next().unwrap_or_default().first(), 0);
        Ok(Page { total, rows: documents(&info, results.next())? })
    }

    async fn inbox_after(&self, user: Uuid, after: (Timestamp, Uuid), limit: u32) -> Result<Vec<Row>> {
        let params = [Param::bigint(i64::from(limit)), guid(user), moment(after.0), guid(after.1)];
        let (info, results) = self.about("inbox_after", INBOX, sql::inbox_after, &params).await?;
        documents(&info, results.into_iter().next())
    }

    async fn unread(&self, user: Uuid) -> Result<u64> {
        Ok(number(self.rows("unread", sql::UNREAD, &[guid(user)]).await?.first(), 0))
    }

    async fn mark_read(&self, user: Uuid, id: Uuid) -> Result<bool> {
        Ok(!self.rows("mark_read", sql::MARK_READ, &[guid(id), guid(user)]).await?.is_empty())
    }

    async fn add_device(&self, device: &NewDevice) -> Result<Registered> {
        let text = |text: &Option<String>| Param(ColumnData::String(text.clone().map(Into::into)));
        let params = [
            guid(device.id),
            guid(device.user),
            Param::int(device.integration.number()),
            text(&device.token),
            text(&device.subscription),
            text(&device.os_version),
            Param::bigint(i64::from(DEVICES_MAX)),
        ];
        let found = self.rows("add_device", sql::ADD_DEVICE, &params).await?;
        let (known, owned) = (number(found.first(), 0), number(found.first(), 1));
        Ok(match known {
            0 if owned >= u64::from(DEVICES_MAX) => Registered::Full,
            0 => Registered::New,
            _ => Registered::Known,
        })
    }

    async fn remove_own_device(&self, user: Uuid, device: Uuid) -> Result<bool> {
        Ok(!self.rows("remove_device", sql::REMOVE_OWN_DEVICE, &[guid(device), guid(user)]).await?.is_empty())
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Row>> {
        let (columns, sought): (Vec<&str>, Vec<Sought>) = query.filters().into_iter().unzip();
        let mut params = vec![Param::bigint(i64::from(query.skip)), Param::bigint(i64::from(query.take))];
        params.extend(sought.into_iter().map(|sought| match sought {
            Sought::Id(id) => guid(id),
            Sought::Text(text) => Param::text(text),
        }));
        let sql = |info: &TableInfo| sql::deliveries(info, &columns);
        let (info, results) = self.about("deliveries", DELIVERIES, sql, &params).await?;
        documents(&info, results.into_iter().next())
    }
}
