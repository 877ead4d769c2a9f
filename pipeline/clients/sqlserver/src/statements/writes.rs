//! What writes and bulk inserts send.

use super::key_is;
use crate::catalogue::{ColumnInfo, TableInfo, list, quote};

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
    format!("{}\n{}", where_absent(table, columns, values, key), changed(table, key))
}

fn where_absent(table: &TableInfo, columns: &[&ColumnInfo], values: usize, key: usize) -> String {
    format!(
        "INSERT INTO {name} ({columns})\nSELECT {values}\n\
         WHERE NOT EXISTS (SELECT 1 FROM {name} WITH (UPDLOCK, HOLDLOCK) WHERE {is});",
        name = table.sql_name,
        columns = list(columns, |c| quote(&c.name)),
        values = list(columns.iter().enumerate(), |(i, c)| c.stored(&format!("@P{}", values + i))),
        is = key_is(table, "", key),
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

/// Opens the transaction of a bulk insert and creates the table that it loads: their number `n`, the group `g` of rows with the same members, and a
/// column `c0`, `c1`, ... per column. Names of our own, because bulk loads take no others safely.
#[must_use]
pub fn staging(columns: &[&ColumnInfo]) -> String {
    let columns =
        columns.iter().enumerate().map(|(i, column)| format!(", c{i} {}{} NULL", column.holder(), column.collate()));
    format!(
        "BEGIN TRANSACTION;\nCREATE TABLE #staging (n int NOT NULL, g int NOT NULL{});",
        columns.collect::<String>()
    )
}

/// Inserts what is in the staging table, where its key is absent, the first row of a key alone; one INSERT per group of
/// rows with the same members. Gives the number of inserted rows of each.
#[must_use]
pub fn insert_staged(table: &TableInfo, columns: &[&ColumnInfo], groups: &[Vec<usize>]) -> String {
    let place = |key: &ColumnInfo| columns.iter().position(|c| c.name == key.name).unwrap_or_default();
    let keys: Vec<&ColumnInfo> = table.keys();
    let partition = list(&keys, |key| format!("c{}", place(key)));
    let is = keys.iter().map(|key| format!("t.{} = {}", quote(&key.name), key.typed(&format!("s.c{}", place(key)))));
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
    sql.push_str("DROP TABLE #staging;\nSELECT @n AS Inserted;\nCOMMIT;");
    sql
}

/// Inserts one row where its key is absent, and says how many that were: what a few rows are inserted by.
#[must_use]
pub fn insert_absent(table: &TableInfo, columns: &[&ColumnInfo], values: usize, key: usize) -> String {
    format!("{}\nSET @n = @n + @@ROWCOUNT;", where_absent(table, columns, values, key))
}

/// The inserts of one call, in one transaction.
#[must_use]
pub fn inserts_absent(parts: &[String]) -> String {
    format!("DECLARE @n bigint = 0;\nBEGIN TRANSACTION;\n{}\nCOMMIT;\nSELECT @n AS Inserted;", parts.join("\n"))
}
