//! OUTPUT.

use super::super::ast::{Event, Expr, Item, Name, Output as OutputClause};
use super::super::catalog::{Table, same};
use super::super::errors::{Result, fault};
use super::super::repr;
use super::apply::Change;
use super::dml::fit;
use super::{EngineSession, Out};
use crate::session::{Column, Output};
use crate::value::SqlType;
use rusqlite::types::Value as Cell;
use std::sync::Arc;

/// Items that are bare columns of `inserted` and `deleted`: which, and the place. None when something is computed.
pub(super) fn plain(items: &[Item], table: &Table) -> Option<Vec<(bool, usize)>> {
    let side = |name: &str| match name {
        _ if same(name, "inserted") => Some(true),
        _ if same(name, "deleted") => Some(false),
        _ => None,
    };
    let mut columns = Vec::new();
    for item in items {
        match item {
            Item::QualifiedStar(name) => {
                let inserted = side(name.last())?;
                columns.extend((0..table.columns.len()).map(|at| (inserted, at)));
            }
            Item::Expr { expr: Expr::Column(Name(parts)), alias: None } if parts.len() == 2 => {
                let place = table.columns.iter().position(|column| same(&column.name, &parts[1]))?;
                columns.push((side(&parts[0])?, place));
            }
            _ => return None,
        }
    }
    Some(columns)
}

impl EngineSession {
    /// OUTPUT to the client does not go together with triggers.
    pub(super) fn refuse_output(&self, table: &Table, output: Option<&OutputClause>, event: Event) -> Result<()> {
        let Some(OutputClause { into: None, .. }) = output else { return Ok(()) };
        if self.triggers_for(table, event).is_empty() {
            return Ok(());
        }
        Err(fault(
            334,
            16,
            format!(
                "The target table '{}' of the DML statement cannot have any enabled triggers if the statement contains an OUTPUT clause \
                 without INTO clause.",
                table.name
            ),
        ))
    }

    /// Sends what OUTPUT asks for, or puts it into a table.
    pub(super) fn give_output(
        &mut self,
        output: Option<&OutputClause>,
        table: &Arc<Table>,
        changes: &[Change],
        out: &mut Out<'_>,
    ) -> Result<()> {
        let Some(output) = output else { return Ok(()) };
        let (columns, rows) = match plain(&output.items, table) {
            Some(columns) => {
                let rows: Vec<Vec<Cell>> = changes
                    .iter()
                    .map(|change| {
                        columns
                            .iter()
                            .map(|(inserted, place)| {
                                let image = if *inserted { &change.new } else { &change.old };
                                image.as_ref().map_or(Cell::Null, |row| row[*place].clone())
                            })
                            .collect()
                    })
                    .collect();
                let columns: Vec<Column> = columns
                    .iter()
                    .map(|(_, place)| {
                        let column = &table.columns[*place];
                        Column {
                            name: column.name.clone(),
                            sql_type: column.sql_type,
                            nullable: column.nullable,
                            identity: column.identity.is_some(),
                        }
                    })
                    .collect();
                (columns, rows)
            }
            None => self.computed_output(&output.items, table, changes)?,
        };
        let Some((into, names)) = &output.into else {
            let types: Vec<SqlType> = columns.iter().map(|column| column.sql_type).collect();
            out.put(Output::Columns(columns.into()))?;
            for row in rows {
                let values =
                    row.iter().zip(&types).map(|(cell, sql_type)| repr::decode(cell.into(), *sql_type)).collect();
                out.put(Output::Row(values))?;
            }
            return Ok(());
        };
        let target = self.target(into)?;
        let places = self.insert_places(&target, names)?;
        if places.len() != columns.len() {
            return Err(fault(213, 16, "Column name or number of supplied values does not match table definition."));
        }
        let mut inserts = Vec::with_capacity(rows.len());
        for row in rows {
            let mut new = self.defaults_of(&target)?;
            for ((cell, column), place) in row.into_iter().zip(&columns).zip(&places) {
                new[*place] = fit(cell, column.sql_type, &target, *place)?;
            }
            inserts.push(Change { rid: 0, old: None, new: Some(new) });
        }
        self.apply(&target, inserts, Event::Insert, &[], out).map(|_| ())
    }

    pub(super) fn computed_output(
        &mut self,
        items: &[Item],
        table: &Arc<Table>,
        changes: &[Change],
    ) -> Result<(Vec<Column>, Vec<Vec<Cell>>)> {
        let (inserted, deleted) = self.fill_images(table, changes, "out")?;
        let has = |image: fn(&Change) -> bool| changes.is_empty() || changes.iter().any(image);
        let inserted = has(|change| change.new.is_some()).then_some(inserted.as_str());
        let deleted = has(|change| change.old.is_some()).then_some(deleted.as_str());
        let (bound, to) = self.bind(|binder| binder.output(items, table, inserted, deleted))?;
        let rows = self.rows(&bound.sql, &to)?;
        let columns = bound
            .columns
            .iter()
            .map(|column| Column {
                name: column.name.clone(),
                sql_type: column.sql_type,
                nullable: column.nullable,
                identity: false,
            })
            .collect();
        Ok((columns, rows))
    }
}
