//! What a plan is made from: the table, the server and the login, as the server knows them.

use crate::capture::health::{Jobs, tracking_retention};
use crate::catalogue::TableInfo;
use crate::connection::{Connection, Param};
use crate::database::Context;
use crate::errors::Outcome;
use crate::rows;
use crate::statements::health as sql;
use smartpulse_clients::database::{CaptureMode, Kept};
use smartpulse_pipeline::error::Error;
use std::sync::Arc;
use tiberius::Row;

/// What is known of a server, a table and a login.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The table.
    pub table: Arc<TableInfo>,
    /// Such as `14.0.1000.169`.
    pub version: String,
    /// Such as `Developer Edition (64-bit)`.
    pub edition: String,
    /// 5 is Azure SQL Database.
    pub engine: i64,
    /// Who the login is in the database.
    pub user: String,
    /// Whether it owns the database.
    pub owner: bool,
    /// 1 when SNAPSHOT isolation is allowed.
    pub snapshot: i64,
    /// Whether change tracking of the database is on.
    pub tracked: bool,
    /// How long net changes are kept.
    pub tracking_retention: Kept,
    /// Whether change data capture of the database is on.
    pub cdc: bool,
    /// The settings of its jobs.
    pub jobs: Jobs,
    /// What the login may: each nothing when the server does not say.
    pub may: Rights,
    /// The enabled triggers of the table.
    pub triggers: Vec<String>,
    /// Whether the ledger's table is there.
    pub ledger: bool,
    /// Whether the table of tombstones is there.
    pub tombstones: bool,
    /// Whether the watermark's table is there, and captured.
    pub watermark: bool,
    /// The capture instances of the table, the oldest first.
    pub instances: Vec<String>,
    /// Those of other tables.
    pub other_instances: Vec<String>,
    /// Columns that change tables lack, where the table is captured.
    pub absent: Vec<String>,
}

/// What a login may do, with what is there: of what is not nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// SELECT on the table.
    pub read: bool,
    /// VIEW CHANGE TRACKING on the table.
    pub track: bool,
    /// SELECT on the schema `cdc`.
    pub read_cdc: bool,
    /// VIEW DATABASE STATE.
    pub state: bool,
    /// VIEW SERVER STATE.
    pub server_state: bool,
    /// SELECT, INSERT and UPDATE of the ledger.
    pub ledger: bool,
    /// SELECT of the tombstones.
    pub tombstones: bool,
    /// UPDATE of the watermark.
    pub mark: bool,
}

/// Asks the server.
///
/// # Errors
/// Rejected for a table that is not there; otherwise when the server cannot be asked.
pub async fn facts(context: &Context, connection: &mut Connection, table: &str) -> Outcome<Facts> {
    // What was learned before somebody ran the statements is of no use.
    context.catalogue.forget(table);
    let table = context.catalogue.get(connection, table).await?;
    let server = &server(connection).await?;
    let flag = |place| rows::integer(server, place) == Some(1);
    let text = |place| rows::text(server, place).unwrap_or_default().to_owned();
    let found = connection
        .rows("plan", sql::PLAN_TABLE, &[Param::int(table.object_id), Param::text(table.sql_name.as_str())])
        .await?;
    let right = |place| found.first().and_then(|row| rows::integer(row, place)) == Some(1);
    let triggers = found.iter().filter(|row| rows::integer(row, 3) == Some(0));
    let triggers = triggers.filter_map(|row| rows::text(row, 2).map(str::to_owned)).collect();
    let tracked = flag(7);
    let retention = if tracked { connection.rows("plan", sql::CT_RETENTION, &[]).await? } else { Vec::new() };
    let tracking_retention = retention.first().map_or(Kept::Unknown, tracking_retention);
    let cdc = flag(6);
    let jobs = if cdc { Jobs::read(connection).await? } else { Jobs::default() };
    let may_read_cdc = !cdc || flag(12);
    let absent = if table.table.capture.contains(&CaptureMode::Cdc) && may_read_cdc {
        let rows = connection.rows("plan", sql::PLAN_ABSENT, &[Param::int(table.object_id)]).await?;
        rows.iter().filter_map(|row| rows::text(row, 0).map(str::to_owned)).collect()
    } else {
        Vec::new()
    };
    let (mut instances, mut other_instances) = (Vec::new(), Vec::new());
    if cdc && may_read_cdc {
        for row in connection.rows("plan", sql::PLAN_INSTANCES, &[Param::int(table.object_id)]).await? {
            let own = rows::integer(&row, 1) == Some(1);
            let names = if own { &mut instances } else { &mut other_instances };
            names.extend(rows::text(&row, 0).map(str::to_owned));
        }
    }
    Ok(Facts {
        version: text(0),
        edition: text(1),
        engine: rows::integer(server, 2).unwrap_or_default(),
        user: text(4),
        owner: flag(9),
        snapshot: rows::integer(server, 5).unwrap_or_default(),
        tracked,
        tracking_retention,
        cdc,
        jobs,
        may: Rights {
            read: right(0),
            track: right(1),
            read_cdc: may_read_cdc,
            state: flag(8),
            server_state: flag(17),
            ledger: flag(11),
            tombstones: flag(14),
            mark: flag(16),
        },
        triggers,
        ledger: flag(10),
        tombstones: flag(13),
        watermark: flag(15),
        instances,
        other_instances,
        absent,
        table,
    })
}

/// What kind of server it is, and what the database and the login have: see [`sql::PLAN_SERVER`].
pub(super) async fn server(connection: &mut Connection) -> Outcome<Row> {
    let found = connection.rows("plan", sql::PLAN_SERVER, &[]).await?;
    Ok(found.into_iter().next().ok_or_else(|| Error::unavailable("plan: the server does not know its own database"))?)
}
