//! NOT NULL, unique keys, CHECK, FOREIGN KEY.

use super::super::ast::Event;
use super::super::catalog::{DATABASE, Foreign, Index, Table};
use super::super::errors::{Fault, Result, fault};
use super::super::{parser, repr};
use super::apply::Change;
use super::{EngineSession, Out};
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

pub(super) fn not_null(table: &Table, row: &[Cell], event: Event) -> Result<()> {
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

pub(super) fn equals(columns: &[i64]) -> String {
    columns.iter().enumerate().map(|(at, id)| format!("c{id} = ?{}", at + 1)).collect::<Vec<_>>().join(" AND ")
}

/// The key of a row; none when a part of it is NULL, which refers to nothing.
pub(super) fn key(table: &Table, columns: &[i64], row: &[Cell]) -> Option<Vec<Cell>> {
    let key: Vec<Cell> = columns.iter().filter_map(|id| table.place(*id)).map(|place| row[place].clone()).collect();
    (!key.contains(&Cell::Null)).then_some(key)
}

pub(super) fn reference(word: &str, kind: &str, foreign: &Foreign, other: &Table, columns: &[i64]) -> Box<Fault> {
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

pub(super) fn shown(cell: &Cell, sql_type: SqlType) -> String {
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

impl EngineSession {
    /// CHECK and FOREIGN KEY constraints of the table itself.
    pub(super) fn check(&mut self, table: &Arc<Table>, changes: &[Change], event: Event) -> Result<()> {
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
    pub(super) fn cascade(
        &mut self,
        table: &Arc<Table>,
        changes: &[Change],
        event: Event,
        out: &mut Out<'_>,
    ) -> Result<()> {
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
}
