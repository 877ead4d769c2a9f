//! INSERT, UPDATE, DELETE, TRUNCATE: find the rows first, then change them.

use super::super::ast::{
    Assignment, Delete, Event, Expr, From, Insert, InsertSource, Item, Name, Output as OutputClause, Query, SetExpr,
    Update,
};
use super::super::catalog::{Table, same};
use super::super::convert::{Excess, TOO_LONG, convert};
use super::super::errors::{Result, fault, unknown_column, unsupported};
use super::super::{clock, parser, repr, types};
use super::apply::Change;
use super::{EngineSession, Out};
use crate::session::{Column, Output};
use crate::value::SqlType;
use rusqlite::types::{Value as Cell, ValueRef};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
    fn insert_places(&self, table: &Table, columns: &[String]) -> Result<Vec<usize>> {
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

    fn insert_rows(
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
    fn executed_rows(
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

    fn computed_output(
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

    pub(super) fn truncate(&mut self, name: &Name, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        let (table, _) = self.bind(|binder| binder.table(name))?;
        let cannot =
            |number: i32, why: &str| fault(number, 16, format!("Cannot truncate table '{}' because {why}", name));
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

/// Items that are bare columns of `inserted` and `deleted`: which, and the place. None when something is computed.
fn plain(items: &[Item], table: &Table) -> Option<Vec<(bool, usize)>> {
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
