//! INSERT.

use super::super::ast::{Event, Expr, Insert, InsertSource, Query, SetExpr};
use super::super::catalog::{Table, same};
use super::super::errors::{Result, fault, unknown_column};
use super::super::{parser, repr};
use super::apply::Change;
use super::dml::fit;
use super::{EngineSession, Out};
use crate::session::Output;
use crate::value::SqlType;
use rusqlite::types::Value as Cell;
use std::sync::atomic::AtomicBool;

impl EngineSession {
    pub(super) fn insert(&mut self, insert: &Insert, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        let table = self.target(&insert.target)?;
        self.refuse_output(&table, insert.output.as_ref(), Event::Insert)?;
        let places = self.insert_places(&table, &insert.columns)?;
        let count = self.changing(&table, out, |session, out| {
            // Under the writer's lock the table may look otherwise.
            let table = session.target(&insert.target)?;
            let rows = match &insert.source {
                InsertSource::Execute(execute) => session.executed_rows(execute, &table, &places, out)?,
                InsertSource::Defaults => vec![session.defaults_of(&table)?],
                InsertSource::Query(query) => session.insert_rows(insert, query, &table, &places)?,
            };
            let changes = rows.into_iter().map(|row| Change { rid: 0, old: None, new: Some(row) }).collect();
            let changes = session.apply(&table, changes, Event::Insert, &[], out)?;
            let count = changes.len();
            session.give_output(insert.output.as_ref(), &table, &changes, out)?;
            Ok(count)
        })?;
        self.done(i64::try_from(count).unwrap_or(0), out)
    }

    /// The columns of the list by place; all that can be written when there is no list.
    pub(super) fn insert_places(&self, table: &Table, columns: &[String]) -> Result<Vec<usize>> {
        let explicit = self.options.identity_insert == Some(table.id);
        if columns.is_empty() {
            let open = table.columns.iter().enumerate();
            return Ok(open
                .filter(|(_, column)| (column.identity.is_none() || explicit) && !column.rowversion)
                .map(|(at, _)| at)
                .collect());
        }
        let mut places = Vec::new();
        for name in columns {
            let place =
                table.columns.iter().position(|column| same(&column.name, name)).ok_or_else(|| unknown_column(name))?;
            if table.columns[place].identity.is_some() && !explicit && !table.physical.starts_with("temp.v") {
                return Err(fault(
                    544,
                    16,
                    format!(
                        "Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.",
                        table.name
                    ),
                ));
            }
            if table.columns[place].rowversion {
                return Err(fault(273, 16, "Cannot insert an explicit value into a timestamp column."));
            }
            if places.contains(&place) {
                return Err(fault(
                    264,
                    16,
                    format!(
                        "The column name '{name}' is specified more than once in the SET clause or column list of an INSERT."
                    ),
                ));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// One row of defaults.
    pub(super) fn defaults_of(&mut self, table: &Table) -> Result<Vec<Cell>> {
        let mut row = vec![Cell::Null; table.columns.len()];
        for (at, column) in table.columns.iter().enumerate() {
            if let Some(default) = &column.default {
                let expr = parser::parse_expr(&default.text, &self.core.ids)?;
                row[at] = self.evaluate(&expr, column.sql_type)?;
            }
        }
        Ok(row)
    }

    pub(super) fn insert_rows(
        &mut self,
        insert: &Insert,
        query: &Query,
        table: &Table,
        places: &[usize],
    ) -> Result<Vec<Vec<Cell>>> {
        let mut query = query.clone();
        query.ctes.splice(0..0, insert.ctes.iter().cloned());
        if let SetExpr::Values(rows) = &mut query.body {
            for row in rows.iter_mut() {
                if row.len() != places.len() && insert.columns.is_empty() {
                    return Err(fault(
                        213,
                        16,
                        "Column name or number of supplied values does not match table definition.",
                    ));
                }
                if row.len() != places.len() {
                    let more = row.len() > places.len();
                    return Err(fault(
                        if more { 110 } else { 109 },
                        15,
                        format!(
                            "There are {} columns in the INSERT statement than values specified in the VALUES clause. The number of \
                             values in the VALUES clause must match the number of columns specified in the INSERT statement.",
                            if more { "fewer" } else { "more" }
                        ),
                    ));
                }
                for (expr, place) in row.iter_mut().zip(places) {
                    if *expr == Expr::Default {
                        *expr = match &table.columns[*place].default {
                            Some(default) => parser::parse_expr(&default.text, &self.core.ids)?,
                            None => Expr::Null,
                        };
                    }
                }
            }
        }
        let missing: Vec<usize> = (0..table.columns.len())
            .filter(|at| !places.contains(at) && table.columns[*at].default.is_some())
            .collect();
        let ids = &self.core.ids;
        let ((bound, sql, defaults), to) = self.bind(|binder| {
            let bound = binder.query(&query)?;
            let mut defaults = Vec::new();
            let mut sql = String::new();
            for at in &missing {
                let Some(default) = &table.columns[*at].default else { continue };
                let expr = parser::parse_expr(&default.text, ids)?;
                let value = binder.value(&expr)?;
                sql.push_str(&format!(", {}", value.sql));
                defaults.push((*at, value.sql_type));
            }
            let sql = if sql.is_empty() { bound.sql.clone() } else { format!("SELECT *{sql} FROM ({})", bound.sql) };
            Ok((bound, sql, defaults))
        })?;
        if bound.columns.len() != places.len() && insert.columns.is_empty() {
            return Err(fault(213, 16, "Column name or number of supplied values does not match table definition."));
        }
        if bound.columns.len() != places.len() {
            let more = bound.columns.len() > places.len();
            return Err(fault(
                if more { 121 } else { 120 },
                15,
                format!(
                    "The select list for the INSERT statement contains {} items than the insert list. The number of SELECT values must \
                     match the number of INSERT columns.",
                    if more { "more" } else { "fewer" }
                ),
            ));
        }
        self.prepare_to_read(&to)?;
        let mut targets: Vec<(usize, SqlType)> =
            places.iter().zip(&bound.columns).map(|(place, column)| (*place, column.sql_type)).collect();
        targets.extend(defaults);
        let mut rows = self.rows(&sql, &to)?;
        if let Some(top) = &insert.top
            && let Cell::Integer(count) = self.evaluate(top, SqlType::BigInt)?
        {
            rows.truncate(usize::try_from(count).unwrap_or(0));
        }
        rows.into_iter()
            .map(|cells| {
                let mut row = vec![Cell::Null; table.columns.len()];
                for (cell, (place, from)) in cells.into_iter().zip(&targets) {
                    row[*place] = fit(cell, *from, table, *place)?;
                }
                Ok(row)
            })
            .collect()
    }

    /// The rows that a procedure answers, for `INSERT .. EXEC`.
    pub(super) fn executed_rows(
        &mut self,
        execute: &super::super::ast::Execute,
        table: &Table,
        places: &[usize],
        out: &mut Out<'_>,
    ) -> Result<Vec<Vec<Cell>>> {
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        let mut types: Vec<SqlType> = Vec::new();
        let mut failed = None;
        let never: &AtomicBool = out.cancelled;
        let sink = &mut |output: Output| {
            match output {
                Output::Columns(columns) => types = columns.iter().map(|column| column.sql_type).collect(),
                Output::Row(values) => {
                    let mut row = vec![Cell::Null; table.columns.len()];
                    if values.len() != places.len() {
                        failed = Some(fault(
                            213,
                            16,
                            "Column name or number of supplied values does not match table definition.",
                        ));
                        return false;
                    }
                    for ((value, from), place) in values.into_iter().zip(&types).zip(places) {
                        match fit(repr::encode(value), *from, table, *place) {
                            Ok(cell) => row[*place] = cell,
                            Err(error) => {
                                failed = Some(error);
                                return false;
                            }
                        }
                    }
                    rows.push(row);
                }
                _ => {}
            }
            true
        };
        let mut inner = Out { sink, cancelled: never };
        let result = self.execute_procedure(execute, &mut inner);
        if let Some(failed) = failed {
            return Err(failed);
        }
        result?;
        Ok(rows)
    }
}
