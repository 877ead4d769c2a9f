//! What a table's capture needs and gives, for `smartpulse plan`. Everything is read; nothing is written.
//!
//! [`facts()`] asks the server, and [`Facts::plan`], which is pure, says what follows. Statements are complete and in order: what
//! a DBA runs as they stand, in the captured database, with the tables that triggers and capture need before those that
//! need them. Names are quoted. Who owns the database is granted nothing: the server refuses it, and there is no need.

mod absent;
mod facts;

pub use facts::{Facts, Rights, facts};

use crate::capture::AZURE;
use crate::capture::health::Jobs;
use crate::catalogue::{Kind, literal, quote};
use crate::database::Context;
use crate::retrying;
use crate::statements::{self, CapturedTable, schema_batches, table_batches};
use smartpulse_clients::database::{CaptureMode, CapturePlan, ModePlan};
use smartpulse_pipeline::error::{ErrorKind, Result};
use std::time::Duration;

/// The first version that everything here is known by: SQL Server 2017.
const MAJOR_MIN: u32 = 14;

/// The plan of a table's capture.
///
/// # Errors
/// Rejected for a table that is not there and that the schema does not make; otherwise when the server cannot be asked.
pub async fn capture_plan(context: &Context, table: &str) -> Result<CapturePlan> {
    let facts = retrying!(context.pool, "plan", c => facts(context, c, table).await.map_err(|f| context.catalogue.learn(table, f)));
    match facts {
        Ok(facts) => Ok(facts.plan()),
        Err(error) if error.kind() == ErrorKind::Rejected && statements::makes(table) => {
            retrying!(context.pool, "plan", c => absent::plan(context, c, table).await)
        }
        Err(error) => Err(error),
    }
}

fn product(engine: Option<i64>) -> &'static str {
    if engine == Some(AZURE) { "Azure SQL Database" } else { "SQL Server" }
}

impl Facts {
    /// What follows from the facts.
    #[must_use]
    pub fn plan(&self) -> CapturePlan {
        CapturePlan {
            table: self.table.table.name.clone(),
            server: format!("{} {}, {}", product(Some(self.engine)), self.version, self.edition),
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
        statements.extend(self.tables(CaptureMode::ChangeTracking));
        statements.extend(self.versions());
        let mut missing = Vec::new();
        if !self.owner && !self.may.track {
            if enabled {
                missing.push(format!("VIEW CHANGE TRACKING on {name}"));
            }
            statements.push(format!("GRANT VIEW CHANGE TRACKING ON {name} TO {user};"));
        }
        self.common_rights(&mut missing, &mut statements);
        if !self.owner && !self.may.state {
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
        statements.extend(self.tables(CaptureMode::Cdc));
        statements.extend(self.versions());
        // Of a capture that works already it is advice: see the notes.
        if !self.cdc {
            statements.extend(self.faster_job());
        }
        statements.extend(self.second_instance());
        let mut missing = Vec::new();
        if !self.owner && (!self.may.read_cdc || !self.cdc) {
            if !self.may.read_cdc {
                missing.push("SELECT on the schema cdc".to_owned());
            }
            statements.push(format!("GRANT SELECT ON SCHEMA::[cdc] TO {user};"));
        }
        if !self.owner && !self.may.mark {
            if self.watermark {
                missing.push("UPDATE on [dbo].[SmartPulseWatermark]".to_owned());
            }
            statements.push(format!("GRANT UPDATE ON [dbo].[SmartPulseWatermark] TO {user};"));
        }
        self.common_rights(&mut missing, &mut statements);
        if !self.owner && !self.may.state {
            missing.push("VIEW DATABASE STATE, without which a stopped capture job is noticed late".to_owned());
            statements.push(format!("GRANT VIEW DATABASE STATE TO {user};"));
        }
        if self.cdc && !self.azure() && self.jobs == Jobs::default() {
            missing.push(
                "SELECT on msdb.dbo.cdc_jobs, without which retention (3 days unless it was changed), runway and the job's interval are unknown"
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
                    from the row as it is when the change is read; TRUNCATE is refused by the server, and what a partition SWITCH or WRITETEXT moves is not told"
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
        let leaves = self.table.table.tombstones || self.may_be_versioned();
        for (needed, may, there, rights, on) in [
            (true, self.may.read, true, "SELECT", name.as_str()),
            (leaves, self.may.tombstones, self.tombstones, "SELECT", "[dbo].[Tombstones]"),
            (true, self.may.ledger, self.ledger, "SELECT, INSERT, UPDATE", "[dbo].[SmartPulseCapture]"),
        ] {
            if !needed || may || self.owner {
                continue;
            }
            // What is not there yet is granted with what makes it.
            if there {
                missing.push(format!("{rights} on {on}"));
            }
            statements.push(format!("GRANT {rights} ON {on} TO {user};"));
        }
    }

    /// The tables that a mode needs and that are not there: triggers that name a missing one would break every write.
    fn tables(&self, mode: CaptureMode) -> Vec<String> {
        let needed = [
            ("dbo.Tombstones", !self.tombstones && self.may_be_versioned()),
            ("dbo.SmartPulseCapture", !self.ledger),
            ("dbo.SmartPulseWatermark", !self.watermark && mode == CaptureMode::Cdc),
        ];
        let makes = |batch: &String| needed.iter().any(|(table, missing)| *missing && batch.contains(table));
        schema_batches().into_iter().filter(makes).collect()
    }

    /// What captures columns that no instance has. A table has two instances at most: the older one goes first.
    fn second_instance(&self) -> Vec<String> {
        if self.absent.is_empty() {
            return Vec::new();
        }
        let (table, mut statements) = (&self.table, Vec::new());
        let source =
            format!("@source_schema = {}, @source_name = {}", literal(&table.schema), literal(&table.table.name));
        if let [older, _, ..] = self.instances.as_slice() {
            statements.push(format!("EXEC sys.sp_cdc_disable_table {source}, @capture_instance = {};", literal(older)));
        }
        let free = |name: &String| {
            !self.instances.iter().chain(&self.other_instances).any(|other| other.eq_ignore_ascii_case(name))
        };
        let names = (2..).map(|number| format!("{}_{}_{number}", table.schema, table.table.name));
        statements.extend(names.filter(free).take(1).map(|name| {
            format!(
                "EXEC sys.sp_cdc_enable_table {source}, @capture_instance = {}, @role_name = NULL, \
                 @supports_net_changes = 0;",
                literal(&name)
            )
        }));
        statements
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
            if let [older, newer, ..] = self.instances.as_slice() {
                notes.push(format!(
                    "a table has two capture instances at most, and it has: {older} is to go, once capture has gone on to {newer}"
                ));
            }
        }
        if !self.ledger {
            notes.push("dbo.SmartPulseCapture, where capture keeps its place, is missing".to_owned());
        }
        if !self.azure() && !self.may.server_state {
            notes.push(
                "without VIEW SERVER STATE, which only a server's administrator can grant, SQL Server shows commit times of \
                 change tracking from the next checkpoint on: until then the lag of capture in this mode counts from when a \
                 change was found"
                    .to_owned(),
            );
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
