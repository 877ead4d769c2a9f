//! INSERT, UPDATE, DELETE, TRUNCATE: find the rows first, then change them.

use super::super::ast::{Assignment, Delete, Event, From, Name, Update};
use super::super::catalog::Table;
use super::super::convert::{Excess, TOO_LONG, convert};
use super::super::errors::{Result, fault, unsupported};
use super::super::{clock, repr, types};
use super::apply::Change;
use super::{EngineSession, Out};
use crate::session::Output;
use crate::value::SqlType;
use rusqlite::types::{Value as Cell, ValueRef};
use std::sync::Arc;

/// A value as a column takes it.
pub(super) fn fit(cell: Cell, from: SqlType, table: &Table, place: usize) -> Result<Cell> {
    let column = &table.columns[place];
    let to = column.sql_type;
    if cell == Cell::Null || (from == to && !types::is_text(to) && !types::is_binary(to)) {
        return Ok(cell);
    }
    let value = repr::decode(ValueRef::from(&cell), from);
    convert(value, from, to, 0, Excess::Refuse).map(repr::encode).map_err(|error| {
        if error.number != TOO_LONG {
            return error;
        }
        fault(
            TOO_LONG,
            16,
            format!(
                "String or binary data would be truncated in table '{}', column '{}'. Truncated value: '{}'.",
                EngineSession::shown(table),
                column.name,
                error.text
            ),
        )
    })
}

impl EngineSession {
    /// The table that a statement writes to.
    pub(super) fn target(&self, target: &From) -> Result<Arc<Table>> {
        match target {
            From::Table { name, .. } => self.bind(|binder| binder.table(name)).map(|(table, _)| table),
            From::Variable { name, .. } => self
                .frame()
                .tables
                .get(name)
                .cloned()
                .ok_or_else(|| fault(1087, 15, format!("Must declare the table variable \"{name}\"."))),
            _ => Err(unsupported("this target")),
        }
    }

    /// Runs a change of a table, as what it is: of the database or temporary.
    pub(super) fn changing<T>(
        &mut self,
        table: &Table,
        out: &mut Out<'_>,
        work: impl FnOnce(&mut Self, &mut Out<'_>) -> Result<T>,
    ) -> Result<T> {
        self.now = clock::utc_ticks();
        if table.physical.starts_with("temp.") { self.writing_temporary(out, work) } else { self.writing(out, work) }
    }

    pub(super) fn update(&mut self, update: &Update, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        let bind = |session: &Self| {
            session.bind(|binder| {
                binder.change(
                    &update.ctes,
                    update.top.as_ref(),
                    &update.target,
                    &update.from,
                    update.filter.as_ref(),
                    &update.sets,
                )
            })
        };
        let (bound, _) = bind(self)?;
        let table = Arc::clone(&bound.table);
        self.refuse_output(&table, update.output.as_ref(), Event::Update)?;
        let count = self.changing(&table, out, |session, out| {
            let (bound, to) = bind(session)?;
            let table = Arc::clone(&bound.table);
            session.prepare_to_read(&to)?;
            let width = table.columns.len();
            let mut seen = std::collections::HashSet::new();
            let mut changes = Vec::new();
            let mut last = Vec::new();
            for mut cells in session.rows(&bound.sql, &to)? {
                let Cell::Integer(rid) = cells[0] else { continue };
                // A row that joins several times is changed once.
                if !seen.insert(rid) {
                    continue;
                }
                let variables = cells.split_off(1 + width + bound.sets.len());
                let values = cells.split_off(1 + width);
                cells.remove(0);
                let mut new = cells.clone();
                for (cell, (place, from)) in values.into_iter().zip(&bound.sets) {
                    new[*place] = fit(cell, *from, &table, *place)?;
                }
                changes.push(Change { rid, old: Some(cells), new: Some(new) });
                last = variables;
            }
            for (variable, cell) in bound.variables.iter().zip(last) {
                session.frame_mut().values.insert(variable.clone(), cell);
            }
            let updated: Vec<i64> = bound.sets.iter().map(|(place, _)| table.columns[*place].id).collect();
            let changes = session.apply(&table, changes, Event::Update, &updated, out)?;
            let count = changes.len();
            session.give_output(update.output.as_ref(), &table, &changes, out)?;
            Ok(count)
        })?;
        self.done(i64::try_from(count).unwrap_or(0), out)
    }

    pub(super) fn delete(&mut self, delete: &Delete, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        let none: &[Assignment] = &[];
        let bind = |session: &Self| {
            session.bind(|binder| {
                binder.change(
                    &delete.ctes,
                    delete.top.as_ref(),
                    &delete.target,
                    &delete.from,
                    delete.filter.as_ref(),
                    none,
                )
            })
        };
        let (bound, _) = bind(self)?;
        let table = Arc::clone(&bound.table);
        self.refuse_output(&table, delete.output.as_ref(), Event::Delete)?;
        let count = self.changing(&table, out, |session, out| {
            let (bound, to) = bind(session)?;
            let table = Arc::clone(&bound.table);
            session.prepare_to_read(&to)?;
            let mut seen = std::collections::HashSet::new();
            let mut changes = Vec::new();
            for mut cells in session.rows(&bound.sql, &to)? {
                let Cell::Integer(rid) = cells[0] else { continue };
                if seen.insert(rid) {
                    cells.remove(0);
                    changes.push(Change { rid, old: Some(cells), new: None });
                }
            }
            let changes = session.apply(&table, changes, Event::Delete, &[], out)?;
            let count = changes.len();
            session.give_output(delete.output.as_ref(), &table, &changes, out)?;
            Ok(count)
        })?;
        self.done(i64::try_from(count).unwrap_or(0), out)
    }

    pub(super) fn truncate(&mut self, name: &Name, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        let (table, _) = self.bind(|binder| binder.table(name))?;
        let cannot =
            |number: i32, why: &str| fault(number, 16, format!("Cannot truncate table '{name}' because {why}"));
        if self
            .catalog
            .tables
            .values()
            .any(|other| other.id != table.id && other.foreign.iter().any(|foreign| foreign.table == table.id))
        {
            return Err(cannot(4712, "it is being referenced by a FOREIGN KEY constraint."));
        }
        if !table.instances.is_empty() {
            return Err(cannot(4711, "it is published for replication or enabled for Change Data Capture."));
        }
        self.changing(&table, out, |session, _| {
            session.connection.execute(&format!("DELETE FROM {}", table.physical), [])?;
            if let Some(at) = table.identity() {
                let seed = table.columns[at].identity.map_or(1, |(seed, _)| seed);
                session
                    .connection
                    .execute("UPDATE sp_identity SET next = ?2, last = NULL WHERE object_id = ?1", [table.id, seed])?;
            }
            if table.change_tracking {
                super::super::track::truncated(&session.connection, table.id)?;
            }
            Ok(())
        })?;
        self.rowcount = 0;
        self.error = 0;
        out.put(Output::Done { rows: None })
    }
}
