//! The statements of reads and writes on one connection: dynamic columns from the catalogue, every identifier
//! quoted, every value bound.

use super::capture;
use super::connection::Failure;
use super::rows::{TableInfo, quote};
use crate::database::{ForecastQuery, LogQuery, Page, Row, Write, Written};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::Error;

/// Lines of logs removed in one transaction, so that other writers are not held up.
const PRUNED_AT_ONCE: u32 = 1_000;

/// The rows of a query whose columns are those of the table.
pub(super) fn select(
    connection: &Connection,
    info: &TableInfo,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Row>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(info.row(row, 0)?);
    }
    Ok(found)
}

/// Rows by ascending key, those without a JSON form marked.
pub(super) fn scan(
    connection: &Connection,
    info: &TableInfo,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Row>, Failure> {
    let (columns, table, key) = (&info.columns_sql, quote(&info.table.name), quote(&info.key_name));
    let from = if after.is_some() { format!("WHERE {key} > ?2") } else { String::new() };
    let sql = format!("SELECT {columns} FROM {table} {from} ORDER BY {key} LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = match after {
        Some(after) => statement.query(rusqlite::params![limit, after])?,
        None => statement.query([limit])?,
    };
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(info.scanned(row)?);
    }
    Ok(found)
}

/// The row with this key.
pub(super) fn read_row(connection: &Connection, info: &TableInfo, key: &str) -> Result<Option<Row>, Failure> {
    let (columns, table, name) = (&info.columns_sql, quote(&info.table.name), quote(&info.key_name));
    let found = select(connection, info, &format!("SELECT {columns} FROM {table} WHERE {name} = ?1"), [key])?;
    Ok(found.into_iter().next())
}

/// A page of forecasts, with the total of the same moment.
pub(super) fn list(connection: &mut Connection, info: &TableInfo, query: &ForecastQuery) -> Result<Page, Failure> {
    let mut conditions = Vec::new();
    let mut values = Vec::new();
    if let Some(companies) = &query.companies {
        conditions.push(format!("CompanyId IN ({})", vec!["?"; companies.len()].join(", ")));
        values.extend(companies.iter().map(|company| SqlValue::Text(company.to_string())));
    }
    for (condition, value) in [
        ("ProductionUnitId = ?", &query.production_unit_id),
        ("ForecastDate >= ?", &query.from),
        ("ForecastDate < ?", &query.to),
    ] {
        if let Some(value) = value {
            conditions.push(condition.to_owned());
            values.push(SqlValue::Text(value.clone()));
        }
    }
    let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    // One transaction, so that the total is that of the moment of the page.
    let transaction = connection.transaction()?;
    let total: i64 = transaction
        .prepare_cached(&format!("SELECT count(*) FROM Forecasts {filter}"))?
        .query_row(params_from_iter(&values), |row| row.get(0))?;
    values.push(SqlValue::Integer(i64::from(query.take)));
    values.push(SqlValue::Integer(i64::from(query.skip)));
    let columns = &info.columns_sql;
    let sql = format!("SELECT {columns} FROM Forecasts {filter} ORDER BY ForecastDate DESC, Id LIMIT ? OFFSET ?");
    let rows = select(&transaction, info, &sql, params_from_iter(&values))?;
    Ok(Page { total: u64::try_from(total).unwrap_or(0), rows })
}

/// Lines of the table `Logs`, newest first.
pub(super) fn logs(connection: &Connection, info: &TableInfo, query: &LogQuery) -> Result<Vec<Row>, Failure> {
    let mut conditions = vec![format!("Level IN ({})", vec!["?"; query.levels.len()].join(", "))];
    let mut values: Vec<SqlValue> = query.levels.iter().map(|level| SqlValue::Text((*level).to_owned())).collect();
    if let Some(since) = query.since {
        conditions.push("CreatedAt >= ?".to_owned());
        values.push(SqlValue::Text(since.to_string()));
    }
    if let Some(component) = &query.component {
        conditions.push("Component = ?".to_owned());
        values.push(SqlValue::Text(component.clone()));
    }
    values.push(SqlValue::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let (columns, filter) = (&info.columns_sql, conditions.join(" AND "));
    let sql = format!("SELECT {columns} FROM Logs WHERE {filter} ORDER BY CreatedAt DESC, Seq DESC LIMIT ?");
    select(connection, info, &sql, params_from_iter(&values))
}

/// Removes the oldest of the lines of `before` and earlier, and of those beyond the newest `rows_max`.
pub(super) fn prune_logs(connection: &Connection, before: Timestamp, rows_max: u32) -> Result<u64, Failure> {
    let sql = "DELETE FROM Logs WHERE Id IN (
        SELECT Id FROM Logs WHERE CreatedAt <= max(?1, coalesce(
            (SELECT CreatedAt FROM Logs ORDER BY CreatedAt DESC LIMIT 1 OFFSET ?2), ''))
        ORDER BY CreatedAt LIMIT ?3)";
    let removed = connection.execute(sql, rusqlite::params![before.to_string(), rows_max, PRUNED_AT_ONCE])?;
    Ok(removed as u64)
}

/// One write within the caller's transaction.
pub(super) fn write_one(connection: &Connection, info: &TableInfo, write: &Write) -> Result<Written, Failure> {
    match write {
        Write::Insert { members } => insert(connection, info, members),
        Write::Update { key, expected_version, members } => {
            let current = match current(connection, info, key, *expected_version)? {
                Ok(row) => row,
                Err(outcome) => return Ok(outcome),
            };
            if members.is_empty() {
                return Ok(Written::Done(current));
            }
            let values = info.values(members)?;
            let set: Vec<String> = values.iter().map(|(column, _)| format!("{} = ?", quote(column))).collect();
            let (table, name) = (quote(&info.table.name), quote(&info.key_name));
            let sql = format!("UPDATE {table} SET {} WHERE {name} = ?", set.join(", "));
            let key_value = SqlValue::Text(key.to_string());
            let bound = values.iter().map(|(_, value)| value).chain([&key_value]);
            connection.prepare_cached(&sql)?.execute(params_from_iter(bound))?;
            done(connection, info, key)
        }
        Write::Delete { key, expected_version } => {
            let last = match current(connection, info, key, *expected_version)? {
                Ok(row) => row,
                Err(outcome) => return Ok(outcome),
            };
            let (table, name) = (quote(&info.table.name), quote(&info.key_name));
            connection.prepare_cached(&format!("DELETE FROM {table} WHERE {name} = ?1"))?.execute([&**key])?;
            if info.table.capture.is_empty() {
                return Ok(Written::Done(last));
            }
            Ok(Written::Done(capture::last_logged(connection, info, key)?.unwrap_or(last)))
        }
    }
}

/// Inserts a row unless its key is there; whether it did.
pub(super) fn insert_absent(
    connection: &Connection,
    info: &TableInfo,
    members: &Map<String, Value>,
) -> Result<bool, Failure> {
    let values = info.values(members)?;
    if !values.iter().any(|(column, value)| *column == info.key_name && *value != SqlValue::Null) {
        let message = format!("a row of {} needs its key {}", info.table.name, info.key_name);
        return Err(Failure::Own(Error::rejected(message)));
    }
    let columns: Vec<String> = values.iter().map(|(column, _)| quote(column)).collect();
    let holes = vec!["?"; columns.len()].join(", ");
    let (table, key) = (quote(&info.table.name), quote(&info.key_name));
    let columns = columns.join(", ");
    let sql = format!("INSERT INTO {table} ({columns}) VALUES ({holes}) ON CONFLICT ({key}) DO NOTHING");
    let inserted = connection.prepare_cached(&sql)?.execute(params_from_iter(values.iter().map(|(_, value)| value)))?;
    Ok(inserted > 0)
}

fn insert(connection: &Connection, info: &TableInfo, members: &Map<String, Value>) -> Result<Written, Failure> {
    let values = info.values(members)?;
    let key = values.iter().find(|(column, _)| *column == info.key_name).map(|(_, value)| value);
    let Some(SqlValue::Text(key)) = key else {
        let message = format!("a row of {} needs its key {}", info.table.name, info.key_name);
        return Err(Failure::Own(Error::rejected(message)));
    };
    if read_row(connection, info, key)?.is_some() {
        return Ok(Written::Exists);
    }
    let columns: Vec<String> = values.iter().map(|(column, _)| quote(column)).collect();
    let holes = vec!["?"; columns.len()].join(", ");
    let sql = format!("INSERT INTO {} ({}) VALUES ({holes})", quote(&info.table.name), columns.join(", "));
    connection.prepare_cached(&sql)?.execute(params_from_iter(values.iter().map(|(_, value)| value)))?;
    done(connection, info, key)
}

/// The row as it is, or the outcome of a write that cannot be made on it.
fn current(
    connection: &Connection,
    info: &TableInfo,
    key: &str,
    expected: Option<i64>,
) -> Result<Result<Row, Written>, Failure> {
    Ok(match read_row(connection, info, key)? {
        None => Err(Written::NotFound),
        Some(row) if expected.is_some_and(|version| version != row.version) => {
            Err(Written::VersionMismatch(row.version))
        }
        Some(row) => Ok(row),
    })
}

/// The row after its triggers: RETURNING would show it before them.
fn done(connection: &Connection, info: &TableInfo, key: &str) -> Result<Written, Failure> {
    let row = read_row(connection, info, key)?;
    row.map(Written::Done).ok_or_else(|| Failure::Own(Error::fatal(format!("{key} vanished within its transaction"))))
}
