//! What a table's capture needs and gives, for `smartpulse plan`. Everything is read; nothing is written.
//!
//! [`facts`] asks the server, and [`Facts::plan`], which is pure, says what follows. Statements are complete and in order: what
//! a DBA runs as they stand, in the captured database. Names are quoted.

use crate::capture::health::{Jobs, minutes};
use crate::catalogue::{Kind, TableInfo, literal, quote};
use crate::connection::{Connection, Param};
use crate::database::Context;
use crate::errors::Outcome;
use crate::retrying;
use crate::rows;
use crate::statements::{CapturedTable, health as sql, table_batches};
use smartpulse_clients::database::{CaptureMode, CapturePlan, ModePlan};
use smartpulse_pipeline::error::Result;
use std::sync::Arc;
use std::time::Duration;

/// `EngineEdition` of Azure SQL Database.
const AZURE: i64 = 5;

/// The first version that everything here is known by: SQL Server 2017.
const MAJOR_MIN: u32 = 14;

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
    /// How long net changes are kept; nothing when they are not cleaned or not kept.
    pub tracking_retention: Option<Duration>,
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
    /// Columns that change tables lack, where the table is captured.
    pub absent: Vec<String>,
}

/// What a login may do.
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
    /// UPDATE of the ledger.
    pub ledger: bool,
}

/// The plan of a table's capture.
///
/// # Errors
/// Rejected for a table that is not there; otherwise when the server cannot be asked.
pub async fn capture_plan(context: &Context, table: &str) -> Result<CapturePlan> {
    let facts = retrying!(context.pool, "plan", c => facts(context, c, table).await.map_err(|f| context.catalogue.learn(table, f)))?;
    Ok(facts.plan())
}

/// Asks the server.
///
/// # Errors
/// Rejected for a table that is not there; otherwise when the server cannot be asked.
pub async fn facts(context: &Context, connection: &mut Connection, table: &str) -> Outcome<Facts> {
    // What was learned before somebody ran the statements is of no use.
    context.catalogue.forget(table);
    let table = context.catalogue.get(connection, table).await?;
    let server = connection.rows("plan", sql::PLAN_SERVER, &[]).await?;
    let server = server.first().ok_or_else(|| {
        smartpulse_pipeline::error::Error::unavailable("plan: the server does not know its own database")
    })?;
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
    let cleaned = retention.first().filter(|row| rows::integer(row, 1) != Some(0));
    let tracking_retention = cleaned.and_then(|row| minutes(row, 0));
    let cdc = flag(6);
    let jobs = if cdc { Jobs::read(connection).await? } else { Jobs::default() };
    let may_read_cdc = !cdc || flag(12);
    let absent = if table.table.capture.contains(&CaptureMode::Cdc) && may_read_cdc {
        let rows = connection.rows("plan", sql::PLAN_ABSENT, &[Param::int(table.object_id)]).await?;
        rows.iter().filter_map(|row| rows::text(row, 0).map(str::to_owned)).collect()
    } else {
        Vec::new()
    };
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
            ledger: !flag(10) || flag(11),
        },
        triggers,
        ledger: flag(10),
        absent,
        table,
    })
}

impl Facts {
    /// What follows from the facts.
    #[must_use]
    pub fn plan(&self) -> CapturePlan {
        let product = if self.azure() { "Azure SQL Database" } else { "SQL Server" };
        CapturePlan {
            table: self.table.table.name.clone(),
            server: format!("{product} {}, {}", self.version, self.edition),
            modes: vec![self.change_tracking(), self.cdc()],
            notes: self.notes(),
        }
    }

    fn azure(&self) -> bool {
        self.engine == AZURE
    }

    fn enabled(&self, mode: CaptureMode) -> bool {
        self.table.table.capture.contains(&mode)
    }

    fn change_tracking(&self) -> ModePlan {
        let (name, user) = (&self.table.sql_name, quote(&self.user));
        let enabled = self.enabled(CaptureMode::ChangeTracking);
        let mut statements = Vec::new();
        if !self.tracked {
            statements.push(
                "ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON);"
                    .to_owned(),
            );
        }
        if self.snapshot != 1 {
            statements.push("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON;".to_owned());
        }
        if !enabled {
            statements.push(format!("ALTER TABLE {name} ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);"));
        }
        statements.extend(self.versions());
        let mut missing = Vec::new();
        // A table that is not tracked has no such right yet.
        if enabled && !self.may.track {
            missing.push(format!("VIEW CHANGE TRACKING on {name}"));
            statements.push(format!("GRANT VIEW CHANGE TRACKING ON {name} TO {user};"));
        }
        self.common_rights(&mut missing, &mut statements);
        if !self.may.state {
            missing.push("VIEW DATABASE STATE, without which commit times are when a change was found, and the runway is unknown".to_owned());
            statements.push(format!("GRANT VIEW DATABASE STATE TO {user};"));
        }
        let versions = if self.table.table.tombstones {
            "deletes have the version of their tombstone"
        } else {
            "deletes have no version of their own"
        };
        ModePlan {
            mode: CaptureMode::ChangeTracking,
            enabled: enabled && self.tracked,
            latency_floor: "half the poll interval and a round trip: below 100 ms with a poll every 50 ms".to_owned(),
            retention: self.tracking_retention,
            loses: format!(
                "what a row was in between: several writes of a row are one change, with the row as it is now; {versions}, and \
                 no last image; a row that came and went between two polls is a DELETE of something never seen"
            ),
            missing_rights: missing,
            statements,
        }
    }

    fn cdc(&self) -> ModePlan {
        let (table, user) = (&self.table, quote(&self.user));
        let enabled = self.enabled(CaptureMode::Cdc);
        let mut statements = Vec::new();
        if !self.cdc {
            statements.push("EXEC sys.sp_cdc_enable_db;".to_owned());
        }
        if !enabled {
            statements.push(format!(
                "EXEC sys.sp_cdc_enable_table @source_schema = {}, @source_name = {}, @role_name = NULL, \
                 @supports_net_changes = 0;",
                literal(&table.schema),
                literal(&table.table.name)
            ));
        }
        if self.snapshot != 1 {
            statements.push("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON;".to_owned());
        }
        statements.extend(self.versions());
        // Of a capture that works already it is advice: see the notes.
        if !self.cdc {
            statements.extend(self.faster_job());
        }
        if !self.absent.is_empty() {
            statements.push(format!(
                "EXEC sys.sp_cdc_enable_table @source_schema = {}, @source_name = {}, @capture_instance = {}, \
                 @role_name = NULL, @supports_net_changes = 0;",
                literal(&table.schema),
                literal(&table.table.name),
                literal(&format!("{}_{}_2", table.schema, table.table.name)),
            ));
        }
        let mut missing = Vec::new();
        if !self.may.read_cdc {
            missing.push("SELECT on the schema cdc".to_owned());
        }
        if !self.may.read_cdc || !self.cdc {
            statements.push(format!("GRANT SELECT ON SCHEMA::[cdc] TO {user};"));
        }
        self.common_rights(&mut missing, &mut statements);
        if !self.may.state {
            missing.push("VIEW DATABASE STATE, without which a stopped capture job is noticed late".to_owned());
            statements.push(format!("GRANT VIEW DATABASE STATE TO {user};"));
        }
        if self.cdc && !self.azure() && self.jobs == Jobs::default() {
            missing.push(
                "SELECT on msdb.dbo.cdc_jobs, without which retention, runway and the job's interval are unknown"
                    .to_owned(),
            );
            // A user in msdb is the DBA's to name: its login may be called otherwise there.
            statements.push(format!(
                "-- in msdb, for the user of this login there:\n\
                 -- GRANT SELECT ON [dbo].[cdc_jobs] TO {user}; GRANT SELECT ON [dbo].[sysjobs] TO {user}; \
                 GRANT SELECT ON [dbo].[sysjobactivity] TO {user};"
            ));
        }
        ModePlan {
            mode: CaptureMode::Cdc,
            enabled: enabled && self.cdc,
            latency_floor: self.cdc_floor(),
            retention: self.jobs.retention,
            loses:
                "nothing that was committed; values of max types that an update left alone, and computed columns, come \
                    from the row as it is when the change is read; TRUNCATE is refused by the server"
                    .to_owned(),
            missing_rights: missing,
            statements,
        }
    }

    fn cdc_floor(&self) -> String {
        if self.azure() {
            return "about 20 s: Azure SQL scans the log so often, which cannot be changed; change_tracking has a poll \
                    interval of your own"
                .to_owned();
        }
        let Some(polling) = self.jobs.polling else {
            return "the capture job's polling interval, 5 s unless it was changed, and half the poll interval; at its \
                    defaults the job takes at most about 1,000 transactions a second"
                .to_owned();
        };
        let (transactions, scans) = (self.jobs.transactions_max.unwrap_or(500), self.jobs.scans_max.unwrap_or(10));
        let whole = transactions.saturating_mul(scans);
        let seconds = polling.as_secs();
        if seconds == 0 {
            return format!(
                "a scan of the log and half the poll interval: the capture job scans without a pause, {transactions} \
                 transactions at a time"
            );
        }
        let rate = whole / i64::try_from(seconds).unwrap_or(i64::MAX).max(1);
        format!(
            "up to {seconds} s (the capture job's polling interval) and half the poll interval; with {transactions} \
             transactions x {scans} scans per interval the job takes at most about {rate} transactions a second"
        )
    }

    /// What makes the capture job as fast as it can be.
    fn faster_job(&self) -> Vec<String> {
        let fast = self.jobs.polling == Some(Duration::ZERO) && self.jobs.transactions_max.is_some_and(|t| t >= 5_000);
        if self.azure() || fast {
            return Vec::new();
        }
        vec![
            "EXEC sys.sp_cdc_change_job @job_type = N'capture', @pollinginterval = 0, @maxtrans = 5000, @maxscans = 100;"
                .to_owned(),
            // Settings count from the next start on.
            "EXEC sys.sp_cdc_stop_job @job_type = N'capture';".to_owned(),
            "EXEC sys.sp_cdc_start_job @job_type = N'capture';".to_owned(),
        ]
    }

    /// Rights that both modes need.
    fn common_rights(&self, missing: &mut Vec<String>, statements: &mut Vec<String>) {
        let (name, user) = (&self.table.sql_name, quote(&self.user));
        if !self.may.read {
            missing.push(format!("SELECT on {name}"));
            statements.push(format!("GRANT SELECT ON {name} TO {user};"));
        }
        if !self.may.ledger {
            missing.push("SELECT, INSERT and UPDATE on [dbo].[SmartPulseCapture]".to_owned());
            statements.push(format!("GRANT SELECT, INSERT, UPDATE ON [dbo].[SmartPulseCapture] TO {user};"));
        }
    }

    /// Whether our triggers can keep the versions of the table.
    fn may_be_versioned(&self) -> bool {
        let keys = self.table.keys();
        let id = keys.len() == 1 && keys.first().is_some_and(|key| key.kind == Kind::Uuid);
        id && self.has_version()
    }

    fn has_version(&self) -> bool {
        self.table.columns.iter().any(|column| column.name == "VersionId")
    }

    /// The triggers that keep versions and tombstones, where they are not there and can be.
    fn versions(&self) -> Vec<String> {
        let (table, keys) = (&self.table, self.table.keys());
        let Some(key) = keys.first().filter(|_| !table.table.tombstones && self.may_be_versioned()) else {
            return Vec::new();
        };
        let captured = CapturedTable {
            schema: &table.schema,
            table: &table.table.name,
            key: &key.name,
            section: &table.section,
            versions: true,
        };
        // The batches of capture itself stand in the mode that they belong to.
        let batches = table_batches(&captured);
        batches.into_iter().filter(|batch| batch.contains("_versions_") || batch.contains("_truncate_guard")).collect()
    }

    fn notes(&self) -> Vec<String> {
        let (table, name) = (&self.table, &self.table.table.name);
        let mut notes = Vec::new();
        let major: u32 = self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if !self.azure() && major < MAJOR_MIN {
            notes.push(format!("version {} is older than SQL Server 2017 (14), which is needed", self.version));
        }
        notes.push(if self.snapshot == 1 {
            "SNAPSHOT isolation is allowed: a poll reads changes and rows of one moment, and blocks nobody".to_owned()
        } else {
            "SNAPSHOT isolation is not allowed: polls wait for writers, and a change may be told with a newer row"
                .to_owned()
        });
        let keys: Vec<&str> = table.keys().into_iter().map(|key| key.name.as_str()).collect();
        let faster = self.faster_job();
        if self.cdc && !faster.is_empty() {
            notes.push(format!("cdc is faster, at some more work for the server, after: {}", faster.join(" ")));
        }
        notes.push(format!("the key is {}", keys.join(", ")));
        if !self.has_version() {
            notes.push(format!("{name} has no VersionId bigint NOT NULL: capture cannot order its changes; add one"));
        } else if table.table.tombstones {
            notes.push("triggers keep VersionId, deletes leave tombstones, and TRUNCATE is refused".to_owned());
        } else if self.triggers.is_empty() {
            notes.push(
                "no trigger keeps VersionId: whoever writes must raise it by one, and versions begin anew when a deleted row \
                 is created again"
                    .to_owned(),
            );
        } else {
            notes.push(format!(
                "deletes leave no tombstones, or TRUNCATE is not refused; the enabled triggers are {}",
                self.triggers.join(", ")
            ));
        }
        if self.has_version() && !table.table.tombstones && !self.may_be_versioned() {
            notes.push("tombstones need a key of one uniqueidentifier: capture remembers the keys instead".to_owned());
        }
        if !self.absent.is_empty() {
            notes.push(format!(
                "no capture instance has {}: documents of changes lack what scans have; a second instance brings it, and \
                 on_schema_change says what happens then",
                self.absent.join(", ")
            ));
        }
        if !self.ledger {
            notes.push("dbo.SmartPulseCapture, where capture keeps its place, is missing: run schema.sql".to_owned());
        }
        if !self.owner {
            notes.push(format!("{} does not own the database: the statements are for somebody who does", self.user));
        }
        notes
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
