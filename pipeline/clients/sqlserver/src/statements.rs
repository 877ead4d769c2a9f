//! All T-SQL that is sent, in one place. `statements.golden.sql` lists it as it is sent for `Forecasts`.
//!
//! Parameters are `@P1`, `@P2`, ... in order. Names come from the catalogue and are quoted. Nothing here is newer than
//! SQL Server 2017.

pub mod capture;
pub mod delivery;
#[cfg(test)]
mod golden;
pub mod health;
pub mod ledger;
pub mod notifications;
mod reads;
mod scripts;
mod writes;

pub use reads::{ForecastFilter, LOGS_BEYOND, PRUNE_LOGS, get, in_snapshot, list_forecasts, logs, scan, tombstones};
pub use scripts::{CapturedTable, MAY_ENABLE_CDC, is_cdc, makes, schema_batches, table_batches};
pub use writes::{
    BEGIN, COMMIT, STAGING, delete, insert, insert_absent, insert_staged, inserts_absent, staging, touch, update,
    writes,
};

use crate::catalogue::{ColumnInfo, TableInfo, list, literal, quote};
use std::time::Duration;

/// Asks whether the server answers.
pub const PING: &str = "SELECT 1 AS Alive";

/// What every session starts with. No counts of rows beside results; an error undoes the whole transaction; a lock is
/// waited for no longer than we wait for the server.
#[must_use]
pub fn session(lock_timeout: Duration) -> String {
    format!(
        "SET NOCOUNT ON; SET XACT_ABORT ON; SET LOCK_TIMEOUT {}; SET TRANSACTION ISOLATION LEVEL READ COMMITTED;",
        lock_timeout.as_millis()
    )
}

/// What the delete trigger of a section's table says, by which it is told from that of another section.
#[must_use]
pub fn tombstones_of(section: &str) -> String {
    format!("b.Section = {}", literal(section))
}

/// The tables named `@P1`, in whichever schema, with what the catalogue says of their capture and tombstones. `@P2` is what
/// their delete trigger says; where the login may not read it, its name counts.
pub const TABLE: &str = "\
SELECT t.object_id AS ObjectId, s.name AS SchemaName, t.name AS TableName,
    CASE WHEN EXISTS (SELECT 1 FROM sys.change_tracking_tables AS ct WHERE ct.object_id = t.object_id) THEN 1 ELSE 0 END AS Tracking,
    t.is_tracked_by_cdc AS Cdc,
    CASE WHEN EXISTS (SELECT 1 FROM sys.triggers AS g WHERE g.parent_id = t.object_id
        AND g.name = t.name + N'_versions_delete' AND g.is_disabled = 0
        AND COALESCE(CHARINDEX(@P2, OBJECT_DEFINITION(g.object_id)), 1) > 0) THEN 1 ELSE 0 END AS DeleteTrigger,
    CASE WHEN EXISTS (SELECT 1 FROM sys.tables AS f WHERE f.schema_id = t.schema_id
        AND f.name = t.name + N'_truncate_guard') THEN 1 ELSE 0 END AS TruncateGuard,
    (SELECT d.snapshot_isolation_state FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS SnapshotState
FROM sys.tables AS t
JOIN sys.schemas AS s ON s.schema_id = t.schema_id
WHERE t.name = @P1 AND s.name <> N'cdc'
ORDER BY s.name";

/// The columns of the table with the number `@P1`. An alias type shows as the type that it stands for.
pub const COLUMNS: &str = "\
SELECT c.name AS ColumnName, c.column_id AS ColumnId, y.name AS TypeName, c.max_length AS MaxLength,
    c.[precision] AS NumericPrecision, c.scale AS NumericScale, c.is_nullable AS Nullable,
    c.collation_name AS Collation, k.key_ordinal AS KeyOrdinal
FROM sys.columns AS c
JOIN sys.types AS y
    ON y.user_type_id = CASE WHEN c.system_type_id = 240 THEN c.user_type_id ELSE c.system_type_id END
LEFT JOIN sys.indexes AS i ON i.object_id = c.object_id AND i.is_primary_key = 1
LEFT JOIN sys.index_columns AS k
    ON k.object_id = i.object_id AND k.index_id = i.index_id AND k.column_id = c.column_id
WHERE c.object_id = @P1
ORDER BY c.column_id";

/// The tables that pipelines may name.
pub const TABLES: &str = "\
SELECT t.name AS TableName
FROM sys.tables AS t
JOIN sys.schemas AS s ON s.schema_id = t.schema_id
WHERE t.is_ms_shipped = 0 AND s.name <> N'cdc'
ORDER BY t.name";

/// The columns of the key, each behind `alias`.
#[must_use]
pub fn key_list(table: &TableInfo, alias: &str) -> String {
    list(table.keys(), |key| format!("{alias}{}", quote(&key.name)))
}

/// That the key is the one in the parameters from `first` on.
#[must_use]
pub fn key_is(table: &TableInfo, alias: &str, first: usize) -> String {
    let one = |(i, key): (usize, &ColumnInfo)| {
        format!("{alias}{} = {}", quote(&key.name), key.typed(&format!("@P{}", first + i)))
    };
    table.keys().into_iter().enumerate().map(one).collect::<Vec<_>>().join(" AND ")
}

/// That the key comes after the one in the parameters from `first` on, in the order of its columns: T-SQL has no comparison
/// of rows.
#[must_use]
pub fn after_key(table: &TableInfo, alias: &str, first: usize) -> String {
    let keys = table.keys();
    let column = |i: usize, sign: &str| {
        keys.get(i).map_or_else(String::new, |key| {
            format!("{alias}{} {sign} {}", quote(&key.name), key.typed(&format!("@P{}", first + i)))
        })
    };
    let last = keys.len().saturating_sub(1);
    let mut condition = column(last, ">");
    for i in (0..last).rev() {
        condition = format!("({} OR ({} AND {condition}))", column(i, ">"), column(i, "="));
    }
    condition
}
