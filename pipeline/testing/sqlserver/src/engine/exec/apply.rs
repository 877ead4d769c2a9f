//! Changes of rows: constraints, change tracking, the log of change data capture, triggers.

use super::super::ast::Event;
use super::super::catalog::{Column, DATABASE, Foreign, Index, Module, Table};
use super::super::errors::{Fault, Reach, Result, fault};
use super::super::{parser, repr};
use super::transaction::from_trigger;
use super::{EngineSession, Flow, Frame, Out, TriggerTables};
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

/// Deep enough for anything sane; SQL Server's limit.
const NESTING_MAX: usize = 32;

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
        self.apply_with(table, changes, event, updated, true, true, out)
    }

    #[allow(clippy::too_many_arguments)] // Bulk load switches triggers and checks off one by one.
    pub(super) fn apply_with(
        &mut self,
        table: &Arc<Table>,
        mut changes: Vec<Change>,
        event: Event,
        updated: &[i64],
        checks: bool,
        fire: bool,
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
            if checks {
                self.check(table, &changes, event)?;
            }
            self.transaction.tracking.changed(&self.connection, &self.core, table, &changes_of(&changes))?;
            if event == Event::Delete || event == Event::Update {
                self.cascade(table, &changes, event, out)?;
            }
        }
        if fire {
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

    /// CHECK and FOREIGN KEY constraints of the table itself.
    fn check(&mut self, table: &Arc<Table>, changes: &[Change], event: Event) -> Result<()> {
        let word = if event == Event::Insert { "INSERT" } else { "UPDATE" };
        for check in table.checks.iter().filter(|check| !check.disabled) {
            let expr = parser::parse_expr(&check.text, &self.core.ids)?;
            let (sql, to) = self.bind(|binder| binder.row_check(table, &expr))?;
            let values = self.values(&to);
            let mut statement = self.connection.prepare_cached(&sql)?;
            for change in changes.iter().filter(|change| change.new.is_some()) {
                let bound = values.iter().cloned().chain([Cell::Integer(change.rid)]);
                if statement.exists(rusqlite::params_from_iter(bound))? {
                    return Err(fault(
                        547,
                        16,
                        format!(
                            "The {word} statement conflicted with the CHECK constraint \"{}\". The conflict occurred in database \
                             \"{DATABASE}\", table \"{}\".",
                            check.name,
                            table.qualified()
                        ),
                    ));
                }
            }
        }
        for foreign in table.foreign.iter().filter(|foreign| !foreign.disabled) {
            let Some(parent) = self.catalog.tables.get(&foreign.table).cloned() else { continue };
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT 1 FROM {} WHERE {}",
                parent.physical,
                equals(&foreign.referenced)
            ))?;
            for change in changes {
                let Some(new) = &change.new else { continue };
                let Some(key) = key(table, &foreign.columns, new) else { continue };
                if !statement.exists(rusqlite::params_from_iter(key))? {
                    return Err(reference(word, "FOREIGN KEY", foreign, &parent, &foreign.referenced));
                }
            }
        }
        Ok(())
    }

    /// Rows of other tables that refer to what went away.
    fn cascade(&mut self, table: &Arc<Table>, changes: &[Change], event: Event, out: &mut Out<'_>) -> Result<()> {
        let children: Vec<(Arc<Table>, Foreign)> = self
            .catalog
            .tables
            .values()
            .flat_map(|child| {
                let foreign = child.foreign.iter().filter(|foreign| foreign.table == table.id && !foreign.disabled);
                foreign.map(|foreign| (Arc::clone(child), foreign.clone()))
            })
            .collect();
        for (child, foreign) in children {
            let mut doomed = Vec::new();
            for change in changes {
                let Some(old) = &change.old else { continue };
                let Some(gone) = key(table, &foreign.referenced, old) else { continue };
                if change.new.as_ref().is_some_and(|new| key(table, &foreign.referenced, new).as_ref() == Some(&gone)) {
                    continue;
                }
                let list = child.columns.iter().map(|column| format!("c{}", column.id)).collect::<Vec<_>>().join(", ");
                let mut statement = self.connection.prepare_cached(&format!(
                    "SELECT rid, {list} FROM {} WHERE {}",
                    child.physical,
                    equals(&foreign.columns)
                ))?;
                let mut rows = statement.query(rusqlite::params_from_iter(gone))?;
                while let Some(row) = rows.next()? {
                    if !foreign.cascade || event == Event::Update {
                        let word = if event == Event::Delete { "DELETE" } else { "UPDATE" };
                        return Err(reference(word, "REFERENCE", &foreign, &child, &foreign.columns));
                    }
                    let old = (1..=child.columns.len())
                        .map(|at| row.get_ref(at).map(repr::cell))
                        .collect::<rusqlite::Result<_>>()?;
                    doomed.push(Change { rid: row.get(0)?, old: Some(old), new: None });
                }
            }
            if !doomed.is_empty() {
                self.apply(&child, doomed, Event::Delete, &[], out)?;
            }
        }
        Ok(())
    }

    /// The triggers that an event fires, in the order in which they were made.
    pub(super) fn triggers_for(&self, table: &Table, event: Event) -> Vec<Arc<Module>> {
        let at = match event {
            Event::Insert => 0,
            Event::Update => 1,
            Event::Delete => 2,
        };
        self.catalog.triggers(table.id).filter(|trigger| trigger.events[at] && !trigger.disabled).cloned().collect()
    }

    /// Fills the tables `inserted` and `deleted`; their names in SQLite.
    pub(super) fn fill_images(&mut self, table: &Table, changes: &[Change], use_: &str) -> Result<(String, String)> {
        let level = self.triggers_running.len();
        let base = format!("img_{use_}_{}_{}_{level}", table.id.unsigned_abs(), table.next_column);
        let definitions = table.columns.iter().map(definition).collect::<Vec<_>>().join(", ");
        let marks = (2..=table.columns.len() + 1).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        let names = ["i", "d"].map(|side| format!("temp.{base}_{side}"));
        for (side, name) in names.iter().enumerate() {
            self.connection.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {name} (rid INTEGER PRIMARY KEY, {definitions})"
            ))?;
            self.connection.prepare_cached(&format!("DELETE FROM {name}"))?.execute([])?;
            let mut insert = self.connection.prepare_cached(&format!("INSERT INTO {name} VALUES (?1, {marks})"))?;
            for (at, change) in changes.iter().enumerate() {
                let image = if side == 0 { &change.new } else { &change.old };
                if let Some(image) = image {
                    let place = Cell::Integer(i64::try_from(at).unwrap_or(0));
                    insert.execute(rusqlite::params_from_iter([place].iter().chain(image)))?;
                }
            }
        }
        let [inserted, deleted] = names;
        Ok((inserted, deleted))
    }

    fn fire(
        &mut self,
        table: &Arc<Table>,
        changes: &[Change],
        event: Event,
        updated: &[i64],
        out: &mut Out<'_>,
    ) -> Result<()> {
        let triggers = self.triggers_for(table, event);
        for trigger in triggers {
            // Without RECURSIVE_TRIGGERS a trigger does not fire itself.
            if self.triggers_running.last() == Some(&trigger.id) && !self.catalog.options.recursive_triggers {
                continue;
            }
            if self.frames.len() > NESTING_MAX {
                return Err(fault(
                    217,
                    16,
                    "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
                )
                .reaching(Reach::Transaction));
            }
            let (inserted, deleted) = self.fill_images(table, changes, "trg")?;
            let all = || table.columns.iter().map(|column| column.id).collect();
            let updated = if event == Event::Insert { all() } else { updated.to_vec() };
            let tables = TriggerTables { table: Arc::clone(table), inserted, deleted, updated };
            self.run_trigger(&trigger, tables, changes.len(), out)?;
        }
        Ok(())
    }

    fn run_trigger(&mut self, trigger: &Module, tables: TriggerTables, rows: usize, out: &mut Out<'_>) -> Result<()> {
        let batch = self.parse(&trigger.text)?;
        let options = self.options.clone();
        let count = self.transaction.count;
        let id = self.transaction.id;
        // Inside a trigger there always is a transaction, and an error ends it.
        self.transaction.count += 1;
        self.triggers_running.push(trigger.id);
        self.options.xact_abort = true;
        self.rowcount = i64::try_from(rows).unwrap_or(0);
        let frame = Frame {
            trigger: Some(tables),
            module: trigger.name.clone(),
            module_id: trigger.id,
            line: trigger.line,
            ..Frame::default()
        };
        self.frames.push(frame);
        let depth = self.frames.len();
        let result = self.run(&batch, out);
        while self.frames.len() >= depth {
            self.pop_frame();
        }
        self.triggers_running.pop();
        let transaction = std::mem::take(&mut self.options);
        self.options = super::Options { identity_insert: transaction.identity_insert, ..options };
        if self.transaction.id != id || self.transaction.count <= count {
            return Err(fault(3609, 16, "The transaction ended in the trigger. The batch has been aborted."));
        }
        self.transaction.count = count;
        match result {
            Ok(Flow::Abort) => {
                Err(fault(3609, 16, "The transaction ended in the trigger. The batch has been aborted."))
            }
            Ok(_) => Ok(()),
            Err(fault) => Err(from_trigger(fault)),
        }
    }
}

/// A column of a table in SQLite.
pub(super) fn definition(column: &Column) -> String {
    let collate = if super::super::types::is_text(column.sql_type) { " COLLATE CI" } else { "" };
    format!("c{}{collate}", column.id)
}

fn not_null(table: &Table, row: &[Cell], event: Event) -> Result<()> {
    for (column, cell) in table.columns.iter().zip(row) {
        if *cell == Cell::Null && !column.nullable {
            let word = if event == Event::Insert { "INSERT" } else { "UPDATE" };
            return Err(fault(
                515,
                16,
                format!(
                    "Cannot insert the value NULL into column '{}', table '{}'; column does not allow nulls. {word} fails.",
                    column.name,
                    EngineSession::shown(table)
                ),
            )
            .state(2));
        }
    }
    Ok(())
}

fn equals(columns: &[i64]) -> String {
    columns.iter().enumerate().map(|(at, id)| format!("c{id} = ?{}", at + 1)).collect::<Vec<_>>().join(" AND ")
}

/// The key of a row; none when a part of it is NULL, which refers to nothing.
fn key(table: &Table, columns: &[i64], row: &[Cell]) -> Option<Vec<Cell>> {
    let key: Vec<Cell> = columns.iter().filter_map(|id| table.place(*id)).map(|place| row[place].clone()).collect();
    (!key.contains(&Cell::Null)).then_some(key)
}

fn reference(word: &str, kind: &str, foreign: &Foreign, other: &Table, columns: &[i64]) -> Box<Fault> {
    let column = match columns {
        [one] => other.column_by_id(*one).map_or_else(String::new, |column| format!(", column '{}'", column.name)),
        _ => String::new(),
    };
    fault(
        547,
        16,
        format!(
            "The {word} statement conflicted with the {kind} constraint \"{}\". The conflict occurred in database \"{DATABASE}\", table \
             \"{}\"{column}.",
            foreign.name,
            other.qualified()
        ),
    )
}

/// SQLite's refusal of a second key, in SQL Server's words.
pub(super) fn duplicate(error: rusqlite::Error, table: &Table, row: &[Cell]) -> Box<Fault> {
    let text = error.to_string();
    let Some(found) = text.split("UNIQUE constraint failed: ").nth(1) else { return error.into() };
    let bare = table.physical.rsplit('.').next().unwrap_or_default();
    let named = |index: &Index| {
        let columns = index.columns.iter().map(|(id, _)| format!("{bare}.c{id}")).collect::<Vec<_>>().join(", ");
        found == columns || found == format!("index '{}'", index.physical)
    };
    let Some(index) = table.indexes.iter().find(|index| index.unique && named(index)) else { return error.into() };
    let values = index
        .columns
        .iter()
        .filter_map(|(id, _)| table.place(*id))
        .map(|place| shown(&row[place], table.columns[place].sql_type))
        .collect::<Vec<_>>()
        .join(", ");
    let object = if table.schema.is_empty() { table.name.clone() } else { table.qualified() };
    if index.constraint.is_some() {
        let kind = if index.primary { "PRIMARY KEY" } else { "UNIQUE KEY" };
        return fault(
            2627,
            14,
            format!(
                "Violation of {kind} constraint '{}'. Cannot insert duplicate key in object '{object}'. The duplicate key value is \
                 ({values}).",
                index.name
            ),
        );
    }
    fault(
        2601,
        14,
        format!(
            "Cannot insert duplicate key row in object '{object}' with unique index '{}'. The duplicate key value is ({values}).",
            index.name
        ),
    )
}

fn shown(cell: &Cell, sql_type: SqlType) -> String {
    match repr::decode(cell.into(), sql_type) {
        Value::Null => "<NULL>".to_owned(),
        Value::Guid(guid) => guid.hyphenated().to_string(),
        value => {
            let text = super::convert(value, sql_type, SqlType::NVarChar(None), 0, super::Excess::Cut);
            match text {
                Ok(Value::Text(text)) => text,
                _ => String::new(),
            }
        }
    }
}

fn changes_of(changes: &[Change]) -> Vec<super::super::track::Image<'_>> {
    changes
        .iter()
        .map(|change| super::super::track::Image { old: change.old.as_deref(), new: change.new.as_deref() })
        .collect()
}
