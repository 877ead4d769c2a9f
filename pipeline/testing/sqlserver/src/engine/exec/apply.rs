//! Changes of rows: constraints, change tracking, the log of change data capture, triggers.

use super::super::ast::Event;
use super::super::catalog::{Column, Table};
use super::super::errors::{Result, fault};
use super::super::repr;
use super::constraints::{duplicate, not_null};
use super::{EngineSession, Out};
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

/// A row before and after.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub rid: i64,
    pub old: Option<Vec<Cell>>,
    pub new: Option<Vec<Cell>>,
}

/// What a change of rows sets off besides itself: bulk load switches each off by itself.
#[derive(Clone, Copy)]
pub(super) struct Effects {
    pub checks: bool,
    pub triggers: bool,
}

impl EngineSession {
    /// Applies the changes of one statement, with everything that follows from them.
    pub(super) fn apply(
        &mut self,
        table: &Arc<Table>,
        changes: Vec<Change>,
        event: Event,
        updated: &[i64],
        out: &mut Out<'_>,
    ) -> Result<Vec<Change>> {
        self.apply_with(table, changes, event, updated, Effects { checks: true, triggers: true }, out)
    }

    pub(super) fn apply_with(
        &mut self,
        table: &Arc<Table>,
        mut changes: Vec<Change>,
        event: Event,
        updated: &[i64],
        effects: Effects,
        out: &mut Out<'_>,
    ) -> Result<Vec<Change>> {
        if event == Event::Insert {
            self.number(table, &mut changes)?;
        }
        self.stamp(table, &mut changes)?;
        for change in &changes {
            if let Some(new) = &change.new {
                not_null(table, new, event)?;
            }
        }
        self.write(table, &mut changes, updated)?;
        if !table.physical.starts_with("temp.") {
            if effects.checks {
                self.check(table, &changes, event)?;
            }
            self.transaction.tracking.changed(&self.connection, &self.core, table, &changes_of(&changes))?;
            if event == Event::Delete || event == Event::Update {
                self.cascade(table, &changes, event, out)?;
            }
        }
        if effects.triggers {
            self.fire(table, &changes, event, updated, out)?;
        }
        Ok(changes)
    }

    /// Identity values.
    fn number(&mut self, table: &Table, changes: &mut [Change]) -> Result<()> {
        let Some(place) = table.identity() else { return Ok(()) };
        let (seed, step) = table.columns[place].identity.unwrap_or((1, 1));
        let explicit = self.options.identity_insert == Some(table.id);
        let identities = if table.physical.starts_with("temp.") { "temp.sp_identity" } else { "main.sp_identity" };
        if identities.starts_with("temp") {
            self.connection.execute_batch("CREATE TEMP TABLE IF NOT EXISTS sp_identity(object_id INTEGER PRIMARY KEY, next INTEGER, last INTEGER)")?;
        }
        let known = self
            .connection
            .prepare_cached(&format!("SELECT next FROM {identities} WHERE object_id = ?1"))?
            .query_row([table.id], |row| row.get::<_, i64>(0));
        let mut next = match known {
            Ok(next) => next,
            Err(rusqlite::Error::QueryReturnedNoRows) => seed,
            Err(error) => return Err(error.into()),
        };
        let mut last = None;
        for change in changes.iter_mut() {
            let Some(new) = &mut change.new else { continue };
            match (&new[place], explicit) {
                (Cell::Integer(given), true) => {
                    last = Some(*given);
                    if (step > 0 && *given >= next) || (step < 0 && *given <= next) {
                        next = given + step;
                    }
                }
                (Cell::Null, true) => {
                    return Err(fault(
                        545,
                        16,
                        format!(
                            "Explicit value must be specified for identity column in table '{}' either when IDENTITY_INSERT is set to ON or when a replication user is inserting into a NOT FOR REPLICATION identity column.",
                            table.name
                        ),
                    ));
                }
                _ => {
                    let value = repr::encode(match table.columns[place].sql_type {
                        SqlType::Decimal(_, scale) => {
                            Value::Decimal(i128::from(next) * super::super::convert::power(scale), scale)
                        }
                        _ => Value::Int(next),
                    });
                    new[place] = value;
                    last = Some(next);
                    next += step;
                }
            }
        }
        if let Some(last) = last {
            self.connection
                .prepare_cached(&format!(
                    "INSERT OR REPLACE INTO {identities} (object_id, next, last) VALUES (?1, ?2, ?3)"
                ))?
                .execute([table.id, next, last])?;
            self.identity = Some(last);
            self.frame_mut().scope_identity = Some(last);
        }
        Ok(())
    }

    /// `rowversion` columns.
    fn stamp(&mut self, table: &Table, changes: &mut [Change]) -> Result<()> {
        let Some(place) = table.columns.iter().position(|column| column.rowversion) else { return Ok(()) };
        for change in changes.iter_mut() {
            if let Some(new) = &mut change.new {
                let next: i64 = self.connection.query_row(
                    "INSERT INTO sp_state (name, value) VALUES ('rowversion', 2001) ON CONFLICT (name) DO UPDATE SET value = value + 1 \
                     RETURNING value",
                    [],
                    |row| row.get(0),
                )?;
                new[place] = Cell::Blob(next.to_be_bytes().to_vec());
            }
        }
        Ok(())
    }

    /// Writes the rows. A unique constraint holds for the statement as a whole, so rows whose keys change are taken out
    /// first and then put back.
    fn write(&mut self, table: &Table, changes: &mut [Change], updated: &[i64]) -> Result<()> {
        let unique = |id: &i64| {
            table.indexes.iter().any(|index| index.unique && index.columns.iter().any(|(column, _)| column == id))
        };
        let keys_change = changes.len() > 1 && updated.iter().any(unique);
        let list =
            |prefix: &str| table.columns.iter().map(|column| format!("{prefix}{}", column.id)).collect::<Vec<_>>();
        let names = list("c").join(", ");
        let marks = (1..=table.columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        let rid = table.columns.len() + 1;
        let physical = &table.physical;
        if keys_change {
            let mut delete = self.connection.prepare_cached(&format!("DELETE FROM {physical} WHERE rid = ?1"))?;
            for change in changes.iter() {
                delete.execute([change.rid])?;
            }
            let mut insert = self
                .connection
                .prepare_cached(&format!("INSERT INTO {physical} ({names}, rid) VALUES ({marks}, ?{rid})"))?;
            for change in changes.iter() {
                let Some(new) = &change.new else { continue };
                let values = new.iter().cloned().chain([Cell::Integer(change.rid)]);
                insert.execute(rusqlite::params_from_iter(values)).map_err(|error| duplicate(error, table, new))?;
            }
            return Ok(());
        }
        let insert = format!("INSERT INTO {physical} ({names}) VALUES ({marks})");
        let sets = if updated.is_empty() {
            table.columns.iter().map(|column| column.id).collect()
        } else {
            let stamped = table.columns.iter().filter(|column| column.rowversion).map(|column| column.id);
            updated.iter().copied().chain(stamped).collect::<Vec<_>>()
        };
        let update = format!(
            "UPDATE {physical} SET {} WHERE rid = ?{}",
            sets.iter().enumerate().map(|(at, id)| format!("c{id} = ?{}", at + 1)).collect::<Vec<_>>().join(", "),
            sets.len() + 1
        );
        let delete = format!("DELETE FROM {physical} WHERE rid = ?1");
        // All changes of a statement are of one kind.
        let sql = match changes.first() {
            Some(Change { old: None, .. }) => insert,
            Some(Change { new: Some(_), .. }) => update,
            Some(_) => delete,
            None => return Ok(()),
        };
        let places: Vec<usize> = sets.iter().filter_map(|id| table.place(*id)).collect();
        let mut statement = self.connection.prepare_cached(&sql)?;
        for change in changes.iter_mut() {
            match (&change.old, &change.new) {
                (None, Some(new)) => {
                    let rid = statement.insert(rusqlite::params_from_iter(new));
                    change.rid = rid.map_err(|error| duplicate(error, table, new))?;
                }
                (Some(_), Some(new)) => {
                    let rid = Cell::Integer(change.rid);
                    let values = places.iter().map(|place| &new[*place]).chain([&rid]);
                    statement
                        .execute(rusqlite::params_from_iter(values))
                        .map_err(|error| duplicate(error, table, new))?;
                }
                _ => {
                    statement.execute([change.rid])?;
                }
            }
        }
        Ok(())
    }
}

/// A column of a table in SQLite.
pub(super) fn definition(column: &Column) -> String {
    let collate = if super::super::types::is_text(column.sql_type) { " COLLATE CI" } else { "" };
    format!("c{}{collate}", column.id)
}

fn changes_of(changes: &[Change]) -> Vec<super::super::track::Image<'_>> {
    changes
        .iter()
        .map(|change| super::super::track::Image { old: change.old.as_deref(), new: change.new.as_deref() })
        .collect()
}
