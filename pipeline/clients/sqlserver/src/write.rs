//! Writes on one connection: all of a call in one transaction.
//!
//! A call of up to [`WRITES_MAX`] writes is one round trip, transaction included: its outcomes come back from the same batch.
//! A larger one takes as many more, and two for the transaction.
//!
//! What was lost on the way (a broken connection, a time-out) after COMMIT was sent may have been committed: such a
//! failure says so and is never tried again here. Everything else has left nothing and may be tried again.

use crate::catalogue::{ColumnInfo, TableInfo};
use crate::connection::{Connection, Param};
use crate::database::Context;
use crate::errors::{Failure, Outcome};
use crate::rows;
use crate::statements;
use serde_json::{Map, Value};
use smartpulse_clients::database::{Row, Write, Written};
use smartpulse_pipeline::error::{Error, Result};

/// The most writes of one statement text: the server compiles it as a whole.
const WRITES_MAX: usize = 50;

/// The most parameters of a call: the server takes 2,100.
pub(crate) const PARAMS_MAX: usize = 2_000;

/// Writes in one transaction.
pub(crate) async fn write(
    cx: &Context,
    connection: &mut Connection,
    table: &str,
    writes: &[Write],
) -> Outcome<Vec<Written>> {
    let info = cx.catalogue.get(connection, table).await?;
    let mut calls = plan(&info, writes)?;
    let what = format!("write to {table}");
    let mut written = Vec::with_capacity(writes.len());
    if calls.len() == 1
        && let Some(call) = calls.pop()
    {
        call.run(&info, connection, &what, true, &mut written).await.map_err(in_doubt)?;
    } else {
        connection.batch(&what, statements::BEGIN).await?;
        for call in calls {
            call.run(&info, connection, &what, false, &mut written).await?;
        }
        connection.batch(&what, statements::COMMIT).await.map_err(in_doubt)?;
    }
    Ok(written)
}

/// A failure of what contained a COMMIT.
fn in_doubt(failure: Failure) -> Failure {
    if failure.lost() {
        failure.context("it is not known whether a write was committed: read before writing again").once()
    } else {
        failure
    }
}

/// What one write needs of the server, and what its answer means.
#[derive(Debug)]
enum Step {
    /// Nothing: its outcome is known.
    Known(Written),
    /// The number of changed rows with the row.
    Insert,
    /// The same.
    Update,
    /// The row as it is; the version that was expected of it.
    Touch(Option<i64>),
    /// The row as it was, then the number of removed rows with the tombstone's version.
    Delete,
}

/// What goes to the server at once.
#[derive(Debug, Default)]
struct Call {
    parts: Vec<String>,
    params: Vec<Param>,
    steps: Vec<Step>,
}

/// Cuts writes into calls.
fn plan(info: &TableInfo, writes: &[Write]) -> Result<Vec<Call>> {
    let mut calls: Vec<Call> = Vec::new();
    for write in writes {
        let fits = |call: &Call| call.parts.len() < WRITES_MAX && call.params.len() + room(info) <= PARAMS_MAX;
        if !calls.last().is_some_and(fits) {
            calls.push(Call::default());
        }
        if let Some(call) = calls.last_mut() {
            call.add(info, write)?;
        }
    }
    Ok(calls)
}

/// The most parameters that one write takes.
fn room(info: &TableInfo) -> usize {
    info.columns.len() + info.key.len() + 2
}

impl Call {
    fn add(&mut self, info: &TableInfo, write: &Write) -> Result<()> {
        let step = match write {
            Write::Insert { members } => {
                let (columns, values, key) = insert_params(info, members)?;
                let (values, key) = (self.push(values), self.push(key));
                self.parts.push(statements::insert(info, &columns, values, key));
                Step::Insert
            }
            Write::Update { key, expected_version, members } => {
                let (columns, values): (Vec<_>, Vec<_>) = info.values(members)?.into_iter().unzip();
                let Some(key) = info.key_params(key) else {
                    self.steps.push(Step::Known(Written::NotFound));
                    return Ok(());
                };
                let (values, key) = (self.push(values), self.push(key));
                if columns.is_empty() {
                    self.parts.push(statements::touch(info, key));
                    Step::Touch(*expected_version)
                } else {
                    let expected = self.expect(info, *expected_version)?;
                    self.parts.push(statements::update(info, &columns, values, key, expected));
                    Step::Update
                }
            }
            Write::Delete { key, expected_version } => {
                let Some(key) = info.key_params(key) else {
                    self.steps.push(Step::Known(Written::NotFound));
                    return Ok(());
                };
                let key = self.push(key);
                let expected = self.expect(info, *expected_version)?;
                let section = if info.table.tombstones { self.push(vec![Param::text(&info.section)]) } else { 0 };
                self.parts.push(statements::delete(info, key, expected, section));
                Step::Delete
            }
        };
        self.steps.push(step);
        Ok(())
    }

    /// Adds parameters, and gives the number of the first.
    fn push(&mut self, params: Vec<Param>) -> usize {
        let first = self.params.len() + 1;
        self.params.extend(params);
        first
    }

    fn expect(&mut self, info: &TableInfo, version: Option<i64>) -> Result<Option<usize>> {
        let Some(version) = version else { return Ok(None) };
        if !info.shape.is_versioned() {
            let text = format!("{} has no VersionId, so no version of it can be expected", info.table.name);
            return Err(Error::rejected(text));
        }
        Ok(Some(self.push(vec![Param::bigint(version)])))
    }

    async fn run(
        self,
        info: &TableInfo,
        connection: &mut Connection,
        what: &str,
        whole: bool,
        written: &mut Vec<Written>,
    ) -> Outcome<()> {
        let results = if self.parts.is_empty() {
            Vec::new()
        } else {
            connection.query(what, &statements::writes(&self.parts, whole), &self.params).await?
        };
        let mut results = results.into_iter();
        for step in self.steps {
            written.push(step.outcome(info, &mut results)?);
        }
        Ok(())
    }
}

impl Step {
    fn outcome(self, info: &TableInfo, results: &mut impl Iterator<Item = Vec<tiberius::Row>>) -> Result<Written> {
        let mut next = || {
            let text =
                || Error::fatal(format!("the server gave fewer results than there were writes to {}", info.table.name));
            results.next().ok_or_else(text)
        };
        let changed = |row: &tiberius::Row| rows::integer(row, 0).unwrap_or_default() > 0;
        Ok(match self {
            Self::Known(written) => written,
            Self::Insert => match next()?.first() {
                Some(row) if changed(row) => Written::Done(info.shape.entity(row, 1)?),
                Some(_) => Written::Exists,
                None => return Err(Error::fatal("a row vanished within its transaction")),
            },
            Self::Update => match next()?.first() {
                Some(row) if changed(row) => Written::Done(info.shape.entity(row, 1)?),
                Some(row) => Written::VersionMismatch(info.shape.version(row, 1)?),
                None => Written::NotFound,
            },
            Self::Touch(expected) => match next()?.first() {
                Some(row) => {
                    let entity = info.shape.entity(row, 1)?;
                    if expected.is_some_and(|version| version != entity.version) {
                        Written::VersionMismatch(entity.version)
                    } else {
                        Written::Done(entity)
                    }
                }
                None => Written::NotFound,
            },
            Self::Delete => {
                let (before, after) = (next()?, next()?);
                let Some(row) = before.first() else { return Ok(Written::NotFound) };
                let last = info.shape.entity(row, 0)?;
                match after.first() {
                    Some(after) if changed(after) => Written::Done(removed(info, row, last, rows::integer(after, 1))),
                    _ => Written::VersionMismatch(last.version),
                }
            }
        })
    }
}

/// The last image of a deleted row, with the version of its delete where it has one.
fn removed(info: &TableInfo, row: &tiberius::Row, last: Row, tombstone: Option<i64>) -> Row {
    if !info.shape.is_versioned() {
        return last;
    }
    let version = tombstone.unwrap_or(last.version + 1);
    let (document, unreadable) = info.shape.image(row, 0, Some(version));
    Row { key: last.key, version, document: document.unwrap_or_default(), unreadable }
}

/// The columns and values of a new row, and the parameters of its key once more.
///
/// # Errors
/// Rejected when a value does not fit, or the key is not among them.
pub(crate) fn insert_params<'a>(
    info: &'a TableInfo,
    members: &Map<String, Value>,
) -> Result<(Vec<&'a ColumnInfo>, Vec<Param>, Vec<Param>)> {
    let values = info.values(members)?;
    let missing =
        |key: &ColumnInfo| Error::rejected(format!("a row of {} needs its key {}", info.table.name, key.member));
    let key = |key: &ColumnInfo| {
        let value = values.iter().find(|(column, _)| column.name == key.name);
        let value = value.map(|(_, param)| param.clone()).filter(|param| !param.is_null());
        value.ok_or_else(|| missing(key))
    };
    let key = info.keys().into_iter().map(key).collect::<Result<Vec<_>>>()?;
    let (columns, values) = values.into_iter().unzip();
    Ok((columns, values, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::{forecasts, orders};
    use serde_json::json;
    use smartpulse_pipeline::Key;
    use tiberius::{ColumnData, ColumnType};

    const ID: &str = "00000000-0000-4000-8000-000000000001";

    fn members(json: Value) -> Map<String, Value> {
        match json {
            Value::Object(members) => members,
            other => panic!("{other} has no members"),
        }
    }

    fn update(expected_version: Option<i64>, set: Value) -> Write {
        Write::Update { key: Key::from(ID), expected_version, members: members(set) }
    }

    /// A result as the server gives it: `Changed`, where it is given, before the columns of `Orders`.
    fn result(changed: Option<i32>, rows: usize) -> Vec<tiberius::Row> {
        let order = || {
            let mut row = tiberius::Row::builder();
            if let Some(changed) = changed {
                row = row.column("Changed", ColumnType::Int4, ColumnData::I32(Some(changed)));
            }
            row.column("region", ColumnType::BigVarChar, ColumnData::String(Some("north".into())))
                .column("no", ColumnType::Int4, ColumnData::I32(Some(7)))
                .column("price", ColumnType::Decimaln, ColumnData::Numeric(None))
                .build()
        };
        (0..rows).map(|_| order()).collect()
    }

    fn outcome(step: Step, results: Vec<Vec<tiberius::Row>>) -> Result<Written> {
        step.outcome(&orders(), &mut results.into_iter())
    }

    #[test]
    fn parameters_are_numbered_over_all_writes_of_a_call() {
        let info = forecasts();
        let writes = [
            Write::Insert { members: members(json!({ "id": ID, "demand": 1.0 })) },
            update(Some(4), json!({ "supply": null })),
            update(None, json!({})),
            Write::Delete { key: Key::from(ID), expected_version: None },
        ];
        let calls = plan(&info, &writes).unwrap();
        let [call] = calls.as_slice() else { panic!("{calls:?}") };
        assert_eq!(call.parts.len(), 4);
        for (part, text) in call.parts.iter().zip([
            "([Id], [Demand])\nSELECT @P1, @P2\nWHERE NOT EXISTS (SELECT 1 FROM [dbo].[Forecasts] WITH (UPDLOCK, HOLDLOCK) WHERE [Id] = @P3)",
            "SET [Supply] = @P4\nWHERE [Id] = @P5 AND [VersionId] = @P6",
            "WITH (UPDLOCK)\nWHERE [Id] = @P7",
            "b.Section = @P9 AND b.Id = @P8",
        ]) {
            assert!(part.contains(text), "{text} is not in {part}");
        }
        assert_eq!(call.params.len(), 9);
        assert_eq!(call.params.get(3), Some(&Param(ColumnData::F64(None))));
    }

    #[test]
    fn many_writes_are_cut_into_calls_that_the_server_takes() {
        let info = forecasts();
        let writes: Vec<Write> = (0..120).map(|n| update(None, json!({ "demand": n }))).collect();
        let calls = plan(&info, &writes).unwrap();
        assert_eq!(calls.iter().map(|call| call.parts.len()).collect::<Vec<_>>(), [50, 50, 20]);
        assert!(calls.iter().all(|call| call.params.len() <= PARAMS_MAX));
    }

    #[test]
    fn what_is_no_key_is_not_found_and_sends_nothing() {
        let info = forecasts();
        let writes = [Write::Delete { key: Key::from("no id"), expected_version: None }];
        let calls = plan(&info, &writes).unwrap();
        assert!(calls.iter().all(|call| call.parts.is_empty()));
        assert!(matches!(calls[0].steps.as_slice(), [Step::Known(Written::NotFound)]));
    }

    #[test]
    fn a_row_without_its_key_and_a_version_where_there_is_none_are_refused() {
        let insert = |json| plan(&forecasts(), &[Write::Insert { members: members(json) }]).unwrap_err().chain();
        assert!(insert(json!({ "demand": 1.0 })).contains("needs its key id"));
        assert!(insert(json!({ "id": null })).contains("needs its key id"));
        let key = Key::from("[\"north\",7]");
        let error = plan(&orders(), &[Write::Delete { key, expected_version: Some(1) }]).unwrap_err();
        assert!(error.chain().contains("no VersionId"), "{}", error.chain());
    }

    #[test]
    fn outcomes_are_read_from_what_the_server_answers() {
        let done = |written: Written| matches!(written, Written::Done(row) if &*row.key == "[\"north\",7]");
        assert!(done(outcome(Step::Insert, vec![result(Some(1), 1)]).unwrap()));
        assert_eq!(outcome(Step::Insert, vec![result(Some(0), 1)]).unwrap(), Written::Exists);
        assert!(done(outcome(Step::Update, vec![result(Some(1), 1)]).unwrap()));
        assert_eq!(outcome(Step::Update, vec![result(Some(0), 0)]).unwrap(), Written::NotFound);
        assert_eq!(outcome(Step::Update, vec![result(Some(0), 1)]).unwrap(), Written::VersionMismatch(0));
        assert!(done(outcome(Step::Touch(None), vec![result(Some(1), 1)]).unwrap()));
        assert_eq!(outcome(Step::Touch(Some(3)), vec![result(Some(1), 1)]).unwrap(), Written::VersionMismatch(0));
        assert_eq!(outcome(Step::Delete, vec![result(None, 0), result(Some(0), 1)]).unwrap(), Written::NotFound);
        assert!(done(outcome(Step::Delete, vec![result(None, 1), result(Some(1), 1)]).unwrap()));
        assert_eq!(
            outcome(Step::Delete, vec![result(None, 1), result(Some(0), 1)]).unwrap(),
            Written::VersionMismatch(0)
        );
        assert!(outcome(Step::Delete, vec![result(None, 1)]).is_err(), "an answer that is too short is no outcome");
    }
}
