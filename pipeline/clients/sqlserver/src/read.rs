//! Reads on one connection. Each is one round trip, but for `get` of more than [`KEYS_MAX`] keys.

use crate::catalogue::TableInfo;
use crate::connection::{Connection, Param};
use crate::database::Context;
use crate::errors::{Failure, Outcome};
use crate::rows::{self, to_date_time};
use crate::statements::{self, ForecastFilter};
use smartpulse_clients::database::{ForecastQuery, LogQuery, Page, Row, Tombstone};
use smartpulse_pipeline::error::Error;
use smartpulse_pipeline::{Key, Timestamp};
use tiberius::ColumnData;
use uuid::Uuid;

/// The most keys of one statement. A call takes 2,100 parameters, and a key may have two columns.
const KEYS_MAX: usize = 1_024;

/// Lines of logs removed by one statement, so that other writers are not held up.
const LOGS_PRUNED_AT_ONCE: usize = 1_000;

/// Answers when the server does.
pub(crate) async fn ping(connection: &mut Connection) -> Outcome<()> {
    connection.batch("ping", statements::PING).await.map(|_| ())
}

/// Rows by ascending key in the server's own order.
pub(crate) async fn scan(
    cx: &Context,
    connection: &mut Connection,
    table: &str,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<Row>> {
    let info = cx.catalogue.get(connection, table).await?;
    let mut params = vec![Param::count(limit)];
    if let Some(after) = after {
        params.extend(info.key_params(after).ok_or_else(|| no_key(&info, after))?);
    }
    let mut found = Vec::new();
    let what = format!("scan of {table}");
    connection.set_command_timeout(cx.batch_timeout());
    connection
        .each(&what, &statements::scan(&info, after.is_some()), &params, |_, row| {
            found.push(info.shape.entity(row, 0)?);
            Ok(())
        })
        .await?;
    Ok(found)
}

/// The rows of `keys` that exist.
pub(crate) async fn get(cx: &Context, connection: &mut Connection, table: &str, keys: &[Key]) -> Outcome<Vec<Row>> {
    let info = cx.catalogue.get(connection, table).await?;
    // What is no key of this table names no row.
    let keys: Vec<Vec<Param>> = keys.iter().filter_map(|key| info.key_params(key)).collect();
    let mut found = Vec::with_capacity(keys.len());
    let what = format!("get from {table}");
    for chunk in keys.chunks(KEYS_MAX / info.key.len().max(1)) {
        let keys = padded(chunk);
        let sql = statements::get(&info, keys.len());
        let params: Vec<Param> = keys.into_iter().flatten().collect();
        for row in connection.rows(&what, &sql, &params).await? {
            found.push(readable(info.shape.entity(&row, 0)?)?);
        }
    }
    Ok(found)
}

/// A page of forecasts, with the total of the same moment.
pub(crate) async fn list(cx: &Context, connection: &mut Connection, query: &ForecastQuery) -> Outcome<Page> {
    let info = cx.catalogue.get(connection, "Forecasts").await?;
    let (mut filters, mut params) = (Vec::new(), Vec::new());
    let nothing = Page { total: 0, rows: Vec::new() };
    if let Some(companies) = &query.companies {
        // What is no id names no company.
        let ids: Vec<Param> = companies.iter().filter_map(|company| id(company)).collect();
        if ids.is_empty() {
            return Ok(nothing);
        }
        params = padded(&ids);
        filters.push(ForecastFilter::Companies(params.len()));
    }
    if let Some(unit) = &query.production_unit_id {
        let Some(id) = id(unit) else { return Ok(nothing) };
        filters.push(ForecastFilter::Unit);
        params.push(id);
    }
    for (filter, value) in [(ForecastFilter::From, &query.from), (ForecastFilter::To, &query.to)] {
        let Some(value) = value else { continue };
        let time = to_date_time(value);
        let time = time.ok_or_else(|| Error::rejected(format!("{value:?} is no time: RFC 3339 is needed")))?;
        params.push(Param(ColumnData::DateTime2(Some(time))));
        filters.push(filter);
    }
    params.extend([Param::bigint(i64::from(query.skip)), Param::bigint(i64::from(query.take))]);
    let sql = statements::list_forecasts(&info, &filters);
    let mut results = connection.query("list of forecasts", &sql, &params).await?.into_iter();
    let total = results.next().and_then(|rows| rows::integer(rows.first()?, 0)).unwrap_or_default();
    let rows = results.next().unwrap_or_default();
    let rows = rows.iter().map(|row| readable(info.shape.entity(row, 0)?)).collect::<Outcome<Vec<_>>>()?;
    Ok(Page { total: u64::try_from(total).unwrap_or(0), rows })
}

/// Lines of `dbo.Logs`, newest first.
pub(crate) async fn logs(cx: &Context, connection: &mut Connection, query: &LogQuery) -> Outcome<Vec<Row>> {
    let info = cx.catalogue.get(connection, "Logs").await?;
    if query.levels.is_empty() {
        return Ok(Vec::new());
    }
    let mut params = vec![Param::count(query.limit)];
    params.extend(query.levels.iter().map(|level| Param::text(*level)));
    params.extend(query.since.map(moment));
    params.extend(query.component.as_ref().map(Param::text));
    let sql = statements::logs(&info, query.levels.len(), query.since.is_some(), query.component.is_some());
    let rows = connection.rows("logs", &sql, &params).await?;
    rows.iter().map(|row| readable(info.shape.entity(row, 0)?)).collect()
}

/// Removes the oldest lines of `dbo.Logs` of `before` and earlier, or beyond the newest `rows_max`; how many.
pub(crate) async fn prune_logs(connection: &mut Connection, before: Timestamp, rows_max: u32) -> Outcome<u64> {
    let beyond = connection.rows("clean the logs", statements::LOGS_BEYOND, &[Param::bigint(rows_max.into())]).await?;
    let beyond = beyond.first().and_then(|row| rows::time(row, 0));
    let before = beyond.map_or(before, |beyond| before.max(beyond));
    let params = [Param::count(LOGS_PRUNED_AT_ONCE), moment(before)];
    let removed = connection.rows("clean the logs", statements::PRUNE_LOGS, &params).await?;
    let removed = removed.first().and_then(|row| rows::integer(row, 0)).unwrap_or_default();
    Ok(u64::try_from(removed).unwrap_or(0))
}

/// The tombstones of a table's section by ascending id.
pub(crate) async fn tombstones(
    cx: &Context,
    connection: &mut Connection,
    table: &str,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<Tombstone>> {
    let info = cx.catalogue.get(connection, table).await?;
    if !info.table.tombstones {
        return Ok(Vec::new());
    }
    let mut params = vec![Param::count(limit), Param::text(&info.section)];
    if let Some(after) = after {
        params.extend(info.key_params(after).ok_or_else(|| no_key(&info, after))?);
    }
    let what = format!("tombstones of {table}");
    let found = connection.rows(&what, &statements::tombstones(after.is_some()), &params).await?;
    let tombstone = |row: &tiberius::Row| {
        let key = rows::spell_key(&[rows::value(row, 0)?]);
        let (version, deleted_at) = (rows::integer(row, 1), rows::time(row, 2));
        let whole =
            key.zip(version).zip(deleted_at).map(|((key, version), at)| Tombstone { key, version, deleted_at: at });
        whole.ok_or_else(|| Failure::from(Error::rejected(format!("a tombstone of {} has a NULL", info.section))))
    };
    found.iter().map(tombstone).collect()
}

/// A power of two of them, the last one repeated: the server keeps a plan per text, and so there are few.
pub(crate) fn padded<T: Clone>(given: &[T]) -> Vec<T> {
    let missing = given.len().next_power_of_two() - given.len();
    given.iter().chain(given.last().into_iter().cycle().take(missing)).cloned().collect()
}

fn id(text: &str) -> Option<Param> {
    Uuid::try_parse(text).ok().map(|id| Param(ColumnData::Guid(Some(id))))
}

pub(crate) fn moment(time: Timestamp) -> Param {
    Param(ColumnData::DateTime2(to_date_time(&time.to_string())))
}

fn no_key(info: &TableInfo, key: &str) -> Error {
    let columns: Vec<String> = info.keys().iter().map(|c| format!("{} {}", c.name, c.sql_type)).collect();
    Error::rejected(format!("{key:?} cannot be a key of {}, which is {}", info.table.name, columns.join(", ")))
}

pub(crate) fn readable(row: Row) -> Outcome<Row> {
    match &row.unreadable {
        Some(why) => Err(Failure::from(Error::rejected(why.clone()))),
        None => Ok(row),
    }
}
