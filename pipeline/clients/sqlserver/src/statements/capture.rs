//! What capture sends.
//!
//! A poll that finds nothing is one statement without a transaction: [`ct_state`] or [`cdc_state`]. LSNs are compared as
//! `binary(10)`, which is what the columns are. Change tables are read directly, because the server's own functions
//! leave out `__$command_id`; what those functions check is checked by the caller, before and after.

use super::{after_key, in_snapshot, key_list};
use crate::capture::instances::{Captured, InstanceShape};
use crate::catalogue::{ColumnInfo, TableInfo, list, quote};

/// What kind of server answers, and whether commit times can be asked for: 5 is Azure SQL Database.
pub const SERVER: &str = "\
SELECT CAST(SERVERPROPERTY(N'EngineEdition') AS int) AS EngineEdition,
    HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') AS MayViewState";

/// What tells this database from an older copy of itself. A restore begins a new recovery fork. Azure SQL Database has
/// no such view, and restores into another database.
fn incarnation(azure: bool) -> String {
    let fork = if azure {
        "CAST(NULL AS uniqueidentifier)"
    } else {
        "(SELECT r.recovery_fork_guid FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID())"
    };
    format!(
        "SYSDATETIMEOFFSET() AS ServerTime,\n    {fork} AS RecoveryFork,\n    \
         (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid"
    )
}

/// How far change tracking is, and from which version on it knows the table with the number `@P1`.
#[must_use]
pub fn ct_state(azure: bool) -> String {
    format!(
        "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS CurrentVersion,\n    \
         CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,\n    {}",
        incarnation(azure)
    )
}

/// How a page of net changes is asked for.
#[derive(Debug, Clone, Copy)]
pub struct CtPage {
    /// As of [`ct_state`].
    pub azure: bool,
    /// Whether commit times may be asked for.
    pub commit_times: bool,
    /// Whether it goes on inside a page: up to version `@P5`, behind version `@P6` and the key from `@P7` on. Otherwise
    /// all up to the current version.
    pub resumed: bool,
}

/// The columns of a page of net changes that come before the key's and the row's.
pub const CT_COLUMNS: usize = 5;

/// Net changes after version `@P3` of the table with the number `@P1`, at most `@P2`, by version and key; tombstones are
/// those of section `@P4`. Three results: as [`ct_state`], read first; the changes; the lowest valid version, read last.
#[must_use]
pub fn ct_page(table: &TableInfo, page: CtPage) -> String {
    let on = |alias: &str| {
        let is = table.keys().into_iter().map(|key| format!("{alias}.{0} = ct.{0}", quote(&key.name)));
        is.collect::<Vec<_>>().join(" AND ")
    };
    let tombstones = table.table.tombstones;
    let (tombstone, tombstones) = match table.keys().first() {
        Some(key) if tombstones => (
            "b.VersionId",
            format!(
                "\nLEFT JOIN [dbo].[Tombstones] AS b\n    ON b.Section = @P4 AND b.Id = ct.{} AND ct.SYS_CHANGE_OPERATION = N'D'",
                quote(&key.name)
            ),
        ),
        // The parameter is there all the same.
        _ => ("CAST(NULL AS bigint)", String::new()),
    };
    let (time, times) = if page.commit_times {
        ("m.commit_time", "\nLEFT JOIN sys.dm_tran_commit_table AS m ON m.commit_ts = ct.SYS_CHANGE_VERSION")
    } else {
        ("CAST(NULL AS datetime)", "")
    };
    let (upto, from) = if page.resumed {
        let after = after_key(table, "ct.", 7);
        ("@P5", format!("\n    AND (ct.SYS_CHANGE_VERSION > @P6 OR (ct.SYS_CHANGE_VERSION = @P6 AND {after}))"))
    } else {
        ("@v", String::new())
    };
    let body = format!(
        "DECLARE @v bigint = CHANGE_TRACKING_CURRENT_VERSION();\n\
         SELECT @v AS CurrentVersion, CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,\n    {state};\n\
         SELECT TOP (@P2) ct.SYS_CHANGE_VERSION, ct.SYS_CHANGE_CREATION_VERSION, ct.SYS_CHANGE_OPERATION,\n    \
         {tombstone} AS Tombstone, {time} AS CommitTime,\n    {key},\n    {columns}\n\
         FROM CHANGETABLE(CHANGES {name}, @P3) AS ct\n\
         LEFT JOIN {name} AS t ON {joined}{tombstones}{times}\n\
         WHERE ct.SYS_CHANGE_VERSION <= {upto}{from}\n\
         ORDER BY ct.SYS_CHANGE_VERSION, {keys};\n\
         SELECT CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid;",
        state = incarnation(page.azure),
        key = list(table.keys(), |key| key.selected("ct.")),
        keys = key_list(table, "ct."),
        columns = table.columns_sql("t."),
        name = table.sql_name,
        joined = on("t"),
    );
    if table.snapshot_isolation { in_snapshot(&body) } else { body }
}

/// How far the capture job is, and the capture instances of the table with the number `@P1`.
#[must_use]
pub fn cdc_state(azure: bool) -> String {
    format!(
        "SELECT sys.fn_cdc_get_max_lsn() AS MaxLsn, sys.fn_cdc_get_min_lsn(c.capture_instance) AS MinLsn,\n    \
         c.start_lsn AS StartLsn, c.object_id AS ObjectId, c.create_date AS Created,\n    \
         c.capture_instance AS InstanceName,\n    {}\n\
         FROM cdc.change_tables AS c\nWHERE c.source_object_id = @P1\nORDER BY c.create_date, c.object_id",
        incarnation(azure)
    )
}

/// Marks this moment with `@P1`; how far the capture job was before it, and how many rows took the mark.
pub const MARK: &str = "\
DECLARE @max binary(10) = sys.fn_cdc_get_max_lsn();
UPDATE [dbo].[SmartPulseWatermark] SET Mark = @P1;
SELECT @max AS MaxLsn, @@ROWCOUNT AS Marked;";

/// A row when the capture job has come past the mark `@P1`, which was made behind LSN `@P2`.
pub const MARKED: &str = "\
SELECT TOP (1) x.[__$start_lsn]
FROM [cdc].[dbo_SmartPulseWatermark_CT] AS x
WHERE x.[__$start_lsn] > CAST(@P2 AS binary(10)) AND x.Mark = @P1";

/// The columns of the change table with the number `@P1`. Names are those the table had when it was made; the numbers
/// are those of the table's columns.
pub const CDC_COLUMNS: &str = "\
SELECT k.column_name AS ColumnName, k.column_id AS ColumnId, k.column_ordinal AS Ordinal,
    k.is_computed AS Computed
FROM cdc.captured_columns AS k
WHERE k.object_id = @P1
ORDER BY k.column_ordinal";

/// Whether a trigger of the table with the number `@P1` may bump versions.
pub const TRIGGERED: &str = "\
SELECT COUNT_BIG(*) AS Triggers FROM sys.triggers AS g WHERE g.parent_id = @P1 AND g.is_disabled = 0";

/// The columns of a page of a change table that come before those of the row.
pub const CDC_PAGE_COLUMNS: usize = 8;

/// Rows of a change table in the order in which they happened, at most `@P1`, up to LSN `@P3`; tombstones are those of
/// section `@P4`, and `@P5` is the name of the instance. They begin behind LSN `@P2`, or, `inside` it, behind command
/// `@P6`, seqval `@P7` and operation `@P8`. Images before updates are joined for their version alone. A second result
/// has the lowest LSN, read last.
#[must_use]
pub fn cdc_page(table: &TableInfo, instance: &InstanceShape, inside: bool) -> String {
    let from = if inside {
        format!("x.[__$start_lsn] >= {}\n    AND {}", lsn("@P2"), behind("@P2", 6))
    } else {
        format!("x.[__$start_lsn] > {}", lsn("@P2"))
    };
    let rows = instance.rows_sql(table);
    let body = format!(
        "SELECT TOP (@P1) x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],\n    \
         m.tran_end_time AS CommitTime, {before} AS Before, {tombstone} AS Tombstone, {exists} AS RowExists,\n    {columns}\n\
         FROM {from_table}\n\
         LEFT JOIN cdc.lsn_time_mapping AS m ON m.start_lsn = x.[__$start_lsn]{joins}\n\
         WHERE {from} AND x.[__$start_lsn] <= {upto} AND x.[__$operation] <> 3\n\
         ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation];\n\
         SELECT sys.fn_cdc_get_min_lsn(@P5) AS MinLsn;",
        before = rows.before,
        tombstone = rows.tombstone,
        exists = rows.exists,
        columns = rows.columns,
        from_table = rows.from,
        joins = format_args!("{}{}", rows.joins, rows.existing),
        upto = lsn("@P3"),
    );
    if table.snapshot_isolation { in_snapshot(&body) } else { body }
}

/// What follows in transaction `@P1`, behind command `@P2`, seqval `@P3` and operation `@P5`, about `count` entities, whose
/// keys are the parameters from `@P6` on; tombstones are those of section `@P4`.
#[must_use]
pub fn cdc_beyond(table: &TableInfo, instance: &InstanceShape, count: usize) -> String {
    let rows = instance.rows_sql(table);
    let keys = instance.keys(table);
    let one = |place: usize| {
        let is = keys.iter().enumerate().map(|(i, (column, captured))| {
            format!("x.{} = {}", quote(captured), column.typed(&format!("@P{}", 6 + place * keys.len() + i)))
        });
        format!("({})", is.collect::<Vec<_>>().join(" AND "))
    };
    let wanted = (0..count).map(one).collect::<Vec<_>>().join("\n    OR ");
    format!(
        "SELECT x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],\n    \
         CAST(NULL AS datetime) AS CommitTime, {before} AS Before, {tombstone} AS Tombstone, 1 AS RowExists,\n    {columns}\n\
         FROM {from}{joins}\n\
         WHERE x.[__$start_lsn] = {at} AND x.[__$operation] <> 3\n    AND (x.[__$command_id] > @P2 OR (x.[__$command_id] = @P2 \
         AND (x.[__$seqval] > {seqval} OR (x.[__$seqval] = {seqval} AND x.[__$operation] > @P5))))\n    AND ({wanted})\n\
         ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation]",
        before = rows.before,
        tombstone = rows.tombstone,
        columns = rows.judged,
        from = rows.from,
        joins = rows.joins,
        at = lsn("@P1"),
        seqval = lsn("@P3"),
    )
}

/// The pieces of a SELECT from a change table.
#[derive(Debug)]
pub struct RowsSql {
    before: String,
    tombstone: &'static str,
    exists: String,
    /// The image, with the parts that the log leaves out filled in from the row.
    columns: String,
    /// Of the image, in its places, what rows are judged by: key and version.
    judged: String,
    from: String,
    joins: String,
    existing: String,
}

impl InstanceShape {
    fn rows_sql(&self, table: &TableInfo) -> RowsSql {
        let name = format!("[cdc].{}", quote(&format!("{}_CT", self.name)));
        let same = "p.[__$start_lsn] = x.[__$start_lsn] AND p.[__$command_id] = x.[__$command_id]\n    \
                    AND p.[__$seqval] = x.[__$seqval] AND p.[__$operation] = 3 AND x.[__$operation] = 4";
        let (before, earlier) = match &self.version {
            Some(version) => (format!("p.{}", quote(version)), format!("\nLEFT JOIN {name} AS p\n    ON {same}")),
            None => ("CAST(NULL AS bigint)".to_owned(), String::new()),
        };
        let keys = self.keys(table);
        let (tombstone, tombstones) = match keys.first() {
            Some((_, captured)) if table.table.tombstones => (
                "b.VersionId",
                format!(
                    "\nLEFT JOIN [dbo].[Tombstones] AS b\n    ON b.Section = @P4 AND b.Id = x.{} AND x.[__$operation] IN (1, 2)",
                    quote(captured)
                ),
            ),
            _ => ("CAST(NULL AS bigint)", String::new()),
        };
        // The row as it is: asked for by deletes, and where the image may lack something.
        let wanted = if self.is_partial() { "IN (1, 2, 4)" } else { "= 1" };
        let is = keys.iter().map(|(column, captured)| format!("l.{} = x.{}", quote(&column.name), quote(captured)));
        let is = is.collect::<Vec<_>>().join(" AND ");
        let existing = format!("\nLEFT JOIN {} AS l ON {is} AND x.[__$operation] {wanted}", table.sql_name);
        let exists = keys.first().map_or_else(
            || "0".to_owned(),
            |(column, _)| format!("CASE WHEN l.{} IS NULL THEN 0 ELSE 1 END", quote(&column.name)),
        );
        let image = |(column, captured): (&ColumnInfo, &Captured)| {
            let here = column.unicode(format!("x.{}", quote(&captured.name)));
            let there = column.selected("l.");
            if captured.computed {
                // The log has no values of computed columns.
                return format!("{there} AS {}", quote(&column.name));
            }
            if !captured.partial {
                return here;
            }
            format!(
                "CASE WHEN x.[__$operation] = 4 AND sys.fn_cdc_is_bit_set({ordinal}, x.[__$update_mask]) = 0\n        \
                 THEN {there} ELSE {here} END AS {name}",
                ordinal = captured.ordinal,
                name = quote(&column.name)
            )
        };
        let judged = |(column, captured): (&ColumnInfo, &Captured)| {
            let needed = column.name == "VersionId" || keys.iter().any(|(key, _)| key.id == column.id);
            if needed { column.unicode(format!("x.{}", quote(&captured.name))) } else { "NULL".to_owned() }
        };
        RowsSql {
            before,
            tombstone,
            exists,
            columns: list(self.images(table), image),
            judged: list(self.images(table), judged),
            from: format!("{name} AS x"),
            joins: format!("{earlier}{tombstones}"),
            existing,
        }
    }
}

fn lsn(parameter: &str) -> String {
    format!("CAST({parameter} AS binary(10))")
}

/// That a row comes behind a place: T-SQL has no comparison of rows.
fn behind(at: &str, first: usize) -> String {
    let (at, command, seqval, operation) = (lsn(at), first, lsn(&format!("@P{}", first + 1)), first + 2);
    format!(
        "(x.[__$start_lsn] > {at} OR (x.[__$start_lsn] = {at}\n    AND (x.[__$command_id] > @P{command} OR (x.[__$command_id] = @P{command}\n    \
         AND (x.[__$seqval] > {seqval} OR (x.[__$seqval] = {seqval} AND x.[__$operation] > @P{operation}))))))"
    )
}
