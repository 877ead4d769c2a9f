//! Rows inserted where their key is absent: loaded in bulk into a temporary table, then moved in one statement.
//!
//! All in one transaction, so that nothing remains of a batch of which one row cannot be inserted. `tiberius` sends bulk rows by
//! place with exact types and leaves a load that was not finished on the wire, so every value is converted before
//! the first one is sent, the columns of the temporary table have the types that values are sent as, and a failure
//! costs the connection. What was inserted is known by its key, so that a batch whose answer was lost is safe to send
//! again.
//!
//! Fewer than [`BULK_MIN`] rows go as parameters of one call: the four round trips of a bulk load are not worth it.

use crate::catalogue::{ColumnInfo, Kind, TableInfo};
use crate::connection::{Connection, Param};
use crate::database::Context;
use crate::errors::{Failure, Outcome};
use crate::rows;
use crate::statements;
use crate::write::{PARAMS_MAX, insert_params};
use serde_json::{Map, Value};
use smartpulse_clients::database::Inserted;
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use tiberius::{ColumnData, TokenRow};

/// From so many rows on they are loaded in bulk. Below, one call is faster.
const BULK_MIN: usize = 8;

/// Inserts rows whose key is absent, in one transaction.
pub(crate) async fn insert_absent(
    cx: &Context,
    connection: &mut Connection,
    table: &str,
    members: &[Map<String, Value>],
) -> Outcome<Inserted> {
    if members.is_empty() {
        return Ok(Inserted::default());
    }
    let info = cx.catalogue.get(connection, table).await?;
    let batch = Batch::new(&info, members)?;
    connection.set_command_timeout(cx.batch_timeout());
    let inserted = if members.len() < BULK_MIN && batch.params() <= PARAMS_MAX {
        batch.by_parameters(&info, connection).await?
    } else {
        batch.in_bulk(&info, connection).await?
    };
    let inserted = usize::try_from(inserted).unwrap_or(0);
    Ok(Inserted { inserted, present: members.len().saturating_sub(inserted) })
}

/// A row as it is sent.
struct Converted<'a> {
    columns: Vec<&'a ColumnInfo>,
    values: Vec<Param>,
    key: Vec<Param>,
}

/// Rows with all values converted.
struct Batch<'a> {
    rows: Vec<Converted<'a>>,
}

impl<'a> Batch<'a> {
    fn new(info: &'a TableInfo, members: &[Map<String, Value>]) -> Result<Self> {
        let convert = |(number, members): (usize, &Map<String, Value>)| {
            convert(info, members).map_err(|error| {
                Error::rejected(format!("row {number} cannot be inserted into {}", info.table.name)).because(error)
            })
        };
        Ok(Self { rows: members.iter().enumerate().map(convert).collect::<Result<Vec<_>>>()? })
    }

    /// How many parameters the rows take together.
    fn params(&self) -> usize {
        self.rows.iter().map(|row| row.values.len() + row.key.len()).sum()
    }

    async fn by_parameters(self, info: &TableInfo, connection: &mut Connection) -> Outcome<i64> {
        let (mut parts, mut params) = (Vec::new(), Vec::new());
        for row in self.rows {
            let values = params.len() + 1;
            params.extend(row.values);
            let key = params.len() + 1;
            params.extend(row.key);
            parts.push(statements::insert_absent(info, &row.columns, values, key));
        }
        let what = format!("insert into {}", info.table.name);
        count(connection.rows(&what, &statements::inserts_absent(&parts), &params).await?.first())
    }

    async fn in_bulk(self, info: &TableInfo, connection: &mut Connection) -> Outcome<i64> {
        let (columns, groups) = self.groups(info);
        let what = format!("bulk load for {}", info.table.name);
        let names: Vec<String> =
            ["n".to_owned(), "g".to_owned()].into_iter().chain((0..columns.len()).map(|i| format!("c{i}"))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        connection.batch(&what, &statements::staging(&columns)).await?;
        let mut at = 0;
        let loaded = connection
            .call(&what, async |client| {
                let mut load = client.bulk_insert_columns(statements::STAGING, &names).await?;
                for (number, (row, group)) in self.rows.into_iter().zip(&groups.of_row).enumerate() {
                    at = number;
                    load.send(row.token_row(number, *group, &columns)).await?;
                }
                load.finalize().await
            })
            .await;
        if let Err(failure) = loaded {
            let rejected = failure.kind() == ErrorKind::Rejected;
            return Err(if rejected {
                failure.context(format!("row {at} or one before cannot be loaded"))
            } else {
                failure
            });
        }
        let sql = statements::insert_staged(info, &columns, &groups.members);
        let what = format!("insert into {}", info.table.name);
        count(connection.batch(&what, &sql).await?.first().and_then(|rows| rows.first()))
    }

    /// The columns of all rows together, in table order, and the groups of rows that set the same ones. A row leaves a
    /// column out so that its default counts, which NULL would not do.
    fn groups(&self, info: &'a TableInfo) -> (Vec<&'a ColumnInfo>, Groups) {
        let used = |column: &ColumnInfo| self.rows.iter().any(|row| row.columns.iter().any(|c| c.id_is(column)));
        let columns: Vec<&ColumnInfo> = info.columns.iter().filter(|column| used(column)).collect();
        let mut groups = Groups::default();
        for row in &self.rows {
            let places: Vec<usize> = columns
                .iter()
                .enumerate()
                .filter(|(_, column)| row.columns.iter().any(|c| c.id_is(column)))
                .map(|(place, _)| place)
                .collect();
            let group = groups.members.iter().position(|members| *members == places).unwrap_or_else(|| {
                groups.members.push(places);
                groups.members.len() - 1
            });
            groups.of_row.push(group);
        }
        (columns, groups)
    }
}

/// Which rows set which columns.
#[derive(Debug, Default)]
struct Groups {
    /// The places of the columns that a group sets.
    members: Vec<Vec<usize>>,
    /// The group of each row.
    of_row: Vec<usize>,
}

impl Converted<'_> {
    fn token_row(self, number: usize, group: usize, columns: &[&ColumnInfo]) -> TokenRow<'static> {
        let small = |number: usize| ColumnData::I32(Some(i32::try_from(number).unwrap_or(i32::MAX)));
        let mut row = TokenRow::with_capacity(columns.len() + 2);
        row.push(small(number));
        row.push(small(group));
        let mut values: Vec<(&ColumnInfo, Option<Param>)> =
            self.columns.into_iter().zip(self.values.into_iter().map(Some)).collect();
        for column in columns {
            let own = values.iter_mut().find(|(own, _)| own.id_is(column)).and_then(|(_, value)| value.take());
            row.push(own.map_or_else(|| rows::null(column), |param| param.0));
        }
        row
    }
}

fn convert<'a>(info: &'a TableInfo, members: &Map<String, Value>) -> Result<Converted<'a>> {
    let (columns, values, key) = insert_params(info, members)?;
    for (column, value) in columns.iter().zip(&values) {
        let ColumnData::String(Some(text)) = &value.0 else { continue };
        let length = text.encode_utf16().count();
        if let Some(most) = column.length.filter(|most| column.kind == Kind::Text && length > *most) {
            return Err(Error::rejected(format!(
                "{} has {length} characters, and the column holds {most}",
                column.member
            )));
        }
    }
    Ok(Converted { columns, values, key })
}

fn count(row: Option<&tiberius::Row>) -> Outcome<i64> {
    let inserted = row.and_then(|row| rows::integer(row, 0));
    inserted.ok_or_else(|| Failure::from(Error::fatal("the server did not say how many rows were inserted")))
}
