//! All T-SQL that is sent, in one place. `statements.golden.sql` lists it as it is sent for `Forecasts`.
//!
//! Parameters are `@P1`, `@P2`, ... in order. Names come from the catalogue and are quoted. Nothing here is newer than
//! SQL Server 2017.

use crate::catalogue::{ColumnInfo, TableInfo, list, quote};
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

/// The tables named `@P1`, in whichever schema, with what the catalogue says of their capture and tombstones.
pub const TABLE: &str = "\
SELECT t.object_id AS ObjectId, s.name AS SchemaName, t.name AS TableName,
    CASE WHEN EXISTS (SELECT 1 FROM sys.change_tracking_tables AS ct WHERE ct.object_id = t.object_id) THEN 1 ELSE 0 END AS Tracking,
    t.is_tracked_by_cdc AS Cdc,
    CASE WHEN EXISTS (SELECT 1 FROM sys.triggers AS g WHERE g.parent_id = t.object_id
        AND g.name = t.name + N'_versions_delete' AND g.is_disabled = 0) THEN 1 ELSE 0 END AS DeleteTrigger,
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
    c.precision AS NumericPrecision, c.scale AS NumericScale, c.is_nullable AS Nullable,
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

/// Rows by ascending key: at most `@P1`, those after the key in the parameters that follow where there is one.
#[must_use]
pub fn scan(table: &TableInfo, after: bool) -> String {
    let from = if after { format!("\nWHERE {}", after_key(table, "", 2)) } else { String::new() };
    format!(
        "SELECT TOP (@P1) {}\nFROM {}{from}\nORDER BY {}",
        table.columns_sql(""),
        table.sql_name,
        key_list(table, "")
    )
}

/// The rows of `count` keys.
#[must_use]
pub fn get(table: &TableInfo, count: usize) -> String {
    let keys = table.keys();
    let condition = match keys.as_slice() {
        [key] => {
            let holes = list(1..=count, |number| key.typed(&format!("@P{number}")));
            format!("{} IN ({holes})", quote(&key.name))
        }
        several => {
            let one = |place: usize| format!("({})", key_is(table, "", 1 + place * several.len()));
            (0..count).map(one).collect::<Vec<_>>().join(" OR ")
        }
    };
    format!("SELECT {}\nFROM {}\nWHERE {condition}", table.columns_sql(""), table.sql_name)
}

/// A page of forecasts with the number of all that match, of one moment where the database allows SNAPSHOT. The
/// parameters are those of the filters, then how many to pass over and how many to give.
#[must_use]
pub fn list_forecasts(table: &TableInfo, filters: &[ForecastFilter]) -> String {
    let conditions: Vec<String> =
        filters.iter().enumerate().map(|(i, filter)| format!("{} @P{}", filter.condition(), i + 1)).collect();
    let filter = if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) };
    let (skip, take) = (filters.len() + 1, filters.len() + 2);
    let (columns, name) = (table.columns_sql(""), &table.sql_name);
    let body = format!(
        "SELECT COUNT_BIG(*) AS Total\nFROM {name}{filter};\n\
         SELECT {columns}\nFROM {name}{filter}\nORDER BY [ForecastDate] DESC, [Id]\n\
         OFFSET @P{skip} ROWS FETCH NEXT @P{take} ROWS ONLY;"
    );
    if table.snapshot_isolation { in_snapshot(&body) } else { body }
}

/// A filter of the list of forecasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForecastFilter {
    /// Of a company.
    Company,
    /// Of a unit.
    Unit,
    /// At or after a time.
    From,
    /// Before a time.
    To,
}

impl ForecastFilter {
    fn condition(self) -> &'static str {
        match self {
            Self::Company => "[CompanyId] =",
            Self::Unit => "[ProductionUnitId] =",
            Self::From => "[ForecastDate] >=",
            Self::To => "[ForecastDate] <",
        }
    }
}

/// The tombstones of section `@P2` by ascending id, at most `@P1`, those after `@P3` where there is one.
#[must_use]
pub fn tombstones(after: bool) -> String {
    let from = if after { " AND Id > @P3" } else { "" };
    format!(
        "SELECT TOP (@P1) Id, VersionId, DeletedAt\nFROM [dbo].[Tombstones]\nWHERE Section = @P2{from}\nORDER BY Id"
    )
}

/// Reads in one SNAPSHOT transaction. The batch puts the isolation level back: a connection may be used by others after.
#[must_use]
pub fn in_snapshot(body: &str) -> String {
    format!(
        "SET TRANSACTION ISOLATION LEVEL SNAPSHOT;\nBEGIN TRANSACTION;\n{body}\nCOMMIT;\n\
         SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
    )
}

/// Opens a transaction of writes that takes several calls.
pub const BEGIN: &str = "BEGIN TRANSACTION";

/// Ends it.
pub const COMMIT: &str = "COMMIT";

/// The writes of one call: all of them in one transaction when `whole`, else in the one that is open.
#[must_use]
pub fn writes(parts: &[String], whole: bool) -> String {
    let parts = parts.join("\n");
    let (begin, commit) = if whole { ("BEGIN TRANSACTION;\n", "\nCOMMIT;") } else { ("", "") };
    format!("DECLARE @n int;\n{begin}{parts}{commit}")
}

/// Inserts a row unless its key exists; gives the number of rows that were inserted beside the row as it then is. `key`
/// and `values` are the numbers of their first parameters.
#[must_use]
pub fn insert(table: &TableInfo, columns: &[&ColumnInfo], values: usize, key: usize) -> String {
    format!(
        "INSERT INTO {name} ({columns})\nSELECT {values}\n\
         WHERE NOT EXISTS (SELECT 1 FROM {name} WITH (UPDLOCK, HOLDLOCK) WHERE {is});\n{after}",
        name = table.sql_name,
        columns = list(columns, |c| quote(&c.name)),
        values = list(columns.iter().enumerate(), |(i, c)| c.stored(&format!("@P{}", values + i))),
        is = key_is(table, "", key),
        after = changed(table, key),
    )
}

/// Sets columns of a row, if it has the version in the parameter `expected` where one is given; gives the number of rows
/// that were changed beside the row as it then is.
#[must_use]
pub fn update(
    table: &TableInfo,
    columns: &[&ColumnInfo],
    values: usize,
    key: usize,
    expected: Option<usize>,
) -> String {
    let set = list(columns.iter().enumerate(), |(i, c)| {
        format!("{} = {}", quote(&c.name), c.stored(&format!("@P{}", values + i)))
    });
    let (name, is, version, after) = (&table.sql_name, key_is(table, "", key), expects(expected), changed(table, key));
    format!("UPDATE {name} SET {set}\nWHERE {is}{version};\n{after}")
}

/// The row as it is, held until the end of the transaction: for an update that sets nothing.
#[must_use]
pub fn touch(table: &TableInfo, key: usize) -> String {
    format!(
        "SELECT 1 AS Changed, {}\nFROM {} WITH (UPDLOCK)\nWHERE {};",
        table.columns_sql(""),
        table.sql_name,
        key_is(table, "", key)
    )
}

/// Removes a row, if it has the version in the parameter `expected` where one is given. Gives the row as it was, then how many
/// rows were removed, with the version of its tombstone where the table has them (`section` is its parameter).
#[must_use]
pub fn delete(table: &TableInfo, key: usize, expected: Option<usize>, section: usize) -> String {
    let tombstone = if table.table.tombstones {
        format!("(SELECT b.VersionId FROM [dbo].[Tombstones] AS b WHERE b.Section = @P{section} AND b.Id = @P{key})")
    } else {
        "CAST(NULL AS bigint)".to_owned()
    };
    format!(
        "SELECT {columns}\nFROM {name} WITH (UPDLOCK, HOLDLOCK)\nWHERE {is};\n\
         DELETE FROM {name}\nWHERE {is}{version};\n\
         SET @n = @@ROWCOUNT;\nSELECT @n AS Changed, {tombstone} AS Tombstone;",
        columns = table.columns_sql(""),
        name = table.sql_name,
        is = key_is(table, "", key),
        version = expects(expected),
    )
}

fn expects(expected: Option<usize>) -> String {
    expected.map_or_else(String::new, |number| format!(" AND [VersionId] = @P{number}"))
}

/// What an INSERT or UPDATE did, and the row after its triggers: OUTPUT would show it before them, and is refused on a
/// table that has some.
fn changed(table: &TableInfo, key: usize) -> String {
    format!(
        "SET @n = @@ROWCOUNT;\nSELECT @n AS Changed, {}\nFROM {}\nWHERE {};",
        table.columns_sql(""),
        table.sql_name,
        key_is(table, "", key)
    )
}

/// The temporary table that rows are loaded into.
pub const STAGING: &str = "#staging";

/// Creates it: their number `n`, the group `g` of rows with the same members, and a
/// column `c0`, `c1`, ... per column. Names of our own, because bulk loads take no others safely.
#[must_use]
pub fn staging(columns: &[&ColumnInfo]) -> String {
    let columns =
        columns.iter().enumerate().map(|(i, column)| format!(", c{i} {}{} NULL", column.holder(), column.collate()));
    format!("CREATE TABLE #staging (n int NOT NULL, g int NOT NULL{});", columns.collect::<String>())
}

/// Inserts what is in the staging table, where its key is absent, the first row of a key alone; one INSERT per group of
/// rows with the same members. Gives the number of inserted rows of each.
#[must_use]
pub fn insert_staged(table: &TableInfo, columns: &[&ColumnInfo], groups: &[Vec<usize>]) -> String {
    let place = |key: &ColumnInfo| columns.iter().position(|c| c.name == key.name).unwrap_or_default();
    let keys: Vec<&ColumnInfo> = table.keys();
    let partition = list(&keys, |key| format!("c{}", place(key)));
    let is = keys.iter().map(|key| format!("t.{} = {}", quote(&key.name), key.stored(&format!("s.c{}", place(key)))));
    let is = is.collect::<Vec<_>>().join(" AND ");
    let name = &table.sql_name;
    let mut sql = String::from("DECLARE @n bigint = 0;\n");
    for (group, members) in groups.iter().enumerate() {
        let members: Vec<(usize, &ColumnInfo)> =
            members.iter().filter_map(|place| columns.get(*place).map(|column| (*place, *column))).collect();
        let names = list(&members, |(_, column)| quote(&column.name));
        let values = list(&members, |(place, column)| column.stored(&format!("s.c{place}")));
        sql.push_str(&format!(
            "INSERT INTO {name} ({names})\nSELECT {values}\n\
             FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY n) AS r FROM #staging) AS s\n\
             WHERE s.r = 1 AND s.g = {group}\n\
             AND NOT EXISTS (SELECT 1 FROM {name} AS t WITH (UPDLOCK, HOLDLOCK) WHERE {is})\n\
             ORDER BY s.n;\nSET @n = @n + @@ROWCOUNT;\n"
        ));
    }
    sql.push_str("DROP TABLE #staging;\nSELECT @n AS Inserted;");
    sql
}

/// Inserts one row where its key is absent, and says how many that were: what a few rows are inserted by.
#[must_use]
pub fn insert_absent(table: &TableInfo, columns: &[&ColumnInfo], values: usize, key: usize) -> String {
    format!(
        "INSERT INTO {name} ({columns})\nSELECT {values}\n\
         WHERE NOT EXISTS (SELECT 1 FROM {name} WITH (UPDLOCK, HOLDLOCK) WHERE {is});\nSET @n = @n + @@ROWCOUNT;",
        name = table.sql_name,
        columns = list(columns, |c| quote(&c.name)),
        values = list(columns.iter().enumerate(), |(i, c)| c.stored(&format!("@P{}", values + i))),
        is = key_is(table, "", key),
    )
}

/// The inserts of one call, in one transaction.
#[must_use]
pub fn inserts_absent(parts: &[String]) -> String {
    format!("DECLARE @n bigint = 0;\nBEGIN TRANSACTION;\n{}\nCOMMIT;\nSELECT @n AS Inserted;", parts.join("\n"))
}

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

/// The scripts that create the schema and do not depend on a captured table, cut at their GO lines: GO is an order to SQL
/// Server's own tools and never sent.
#[must_use]
pub fn schema_batches() -> Vec<String> {
    [SCHEMA, DATABASE, PROCEDURES].into_iter().flat_map(split_go).collect()
}

/// The scripts of a captured table, with its names filled in.
#[must_use]
pub fn table_batches(table: &CapturedTable<'_>) -> Vec<String> {
    let fill = |template: &str| {
        let filled = template.replace("{schema}", table.schema).replace("{table}", table.table);
        split_go(&filled.replace("{key}", table.key).replace("{section}", table.section))
    };
    let versions = if table.versions { fill(VERSIONS) } else { Vec::new() };
    versions.into_iter().chain(fill(CAPTURE)).collect()
}

/// The names that the scripts of a captured table need.
#[derive(Debug, Clone, Copy)]
pub struct CapturedTable<'a> {
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub table: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Its section.
    pub section: &'a str,
    /// Whether its versions are kept by our triggers: its key must be one `uniqueidentifier`, as tombstones have it.
    pub versions: bool,
}

const SCHEMA: &str = include_str!("../../../../config/sql/sqlserver/schema.sql");
const DATABASE: &str = include_str!("../../../../config/sql/sqlserver/database.sql");
const VERSIONS: &str = include_str!("../../../../config/sql/sqlserver/versions.sql");
const CAPTURE: &str = include_str!("../../../../config/sql/sqlserver/capture.sql");
const PROCEDURES: &str = include_str!("../../../../config/sql/sqlserver/procedures.sql");

/// The batches of a script.
fn split_go(script: &str) -> Vec<String> {
    let mut batches = vec![String::new()];
    for line in script.lines() {
        if line.trim().eq_ignore_ascii_case("go") {
            batches.push(String::new());
        } else if let Some(batch) = batches.last_mut() {
            batch.push_str(line);
            batch.push('\n');
        }
    }
    let says = |batch: &String| batch.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with("--"));
    batches.into_iter().filter(says).map(|batch| batch.trim_end().to_owned()).collect()
}
