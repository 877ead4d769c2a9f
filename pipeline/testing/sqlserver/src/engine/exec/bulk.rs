//! Bulk load.

use super::super::ast::{Event, TypeName};
use super::super::catalog::Table;
use super::super::errors::{Result, fault, unknown_column};
use super::super::{parser, repr};
use super::apply::{Change, Effects};
use super::{EngineSession, Frame, Out};
use crate::session::Column;
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A bulk load that was announced.
pub(crate) struct Bulk {
    table: Arc<Table>,
    places: Vec<usize>,
    types: Vec<SqlType>,
    checks: bool,
    triggers: bool,
    keep_nulls: bool,
    keep_identity: bool,
}

impl EngineSession {
    pub(super) fn begin_bulk(&mut self, text: &str) -> Result<Arc<[Column]>> {
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
        self.refresh();
        let (name, columns, options) = parser::parse_insert_bulk(text)?;
        let (table, _) = self.bind(|binder| binder.table(&name))?;
        let has = |option: &str| options.iter().any(|known| known == option);
        let (mut places, mut types, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        let all: Vec<(String, TypeName)> = if columns.is_empty() {
            table.columns.iter().map(|column| (column.name.clone(), TypeName::Known(column.sql_type))).collect()
        } else {
            columns
        };
        for (name, sql_type) in &all {
            let place = table
                .columns
                .iter()
                .position(|column| super::same(&column.name, name))
                .ok_or_else(|| unknown_column(name))?;
            let (sql_type, _) = self.bind(|binder| binder.resolve_type(sql_type))?;
            let column = &table.columns[place];
            places.push(place);
            types.push(sql_type);
            shown.push(Column {
                name: column.name.clone(),
                sql_type,
                nullable: column.nullable,
                identity: column.identity.is_some(),
            });
        }
        self.bulk = Some(Bulk {
            table,
            places,
            types,
            checks: has("CHECK_CONSTRAINTS"),
            triggers: has("FIRE_TRIGGERS"),
            keep_nulls: has("KEEP_NULLS"),
            keep_identity: has("KEEP_IDENTITY"),
        });
        Ok(shown.into())
    }

    pub(super) fn run_bulk(&mut self, rows: Vec<Vec<Value>>) -> Result<u64> {
        let Some(bulk) = self.bulk.take() else {
            return Err(fault(
                4002,
                16,
                "The incoming tabular data stream (TDS) protocol stream is incorrect: rows without INSERT BULK.",
            ));
        };
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
        self.refresh();
        let never = AtomicBool::new(false);
        let sink = &mut |_| true;
        let mut out = Out { sink, cancelled: &never };
        let count = rows.len();
        let explicit = self.options.identity_insert;
        if bulk.keep_identity {
            self.options.identity_insert = Some(bulk.table.id);
        }
        let table = Arc::clone(&bulk.table);
        let result = self.changing(&table, &mut out, |session, out| {
            let defaults =
                if bulk.keep_nulls { vec![Cell::Null; table.columns.len()] } else { session.defaults_of(&table)? };
            let mut changes = Vec::with_capacity(rows.len());
            for row in rows {
                if row.len() != bulk.places.len() {
                    return Err(fault(4815, 16, "Received an invalid column length from the bcp client."));
                }
                let mut new = defaults.clone();
                for ((value, place), from) in row.into_iter().zip(&bulk.places).zip(&bulk.types) {
                    // NULL stands for the default unless KEEP_NULLS was said.
                    if value != Value::Null || bulk.keep_nulls {
                        new[*place] = super::dml::fit(repr::encode(value), *from, &table, *place)?;
                    }
                }
                changes.push(Change { rid: 0, old: None, new: Some(new) });
            }
            let effects = Effects { checks: bulk.checks, triggers: bulk.triggers };
            session.apply_with(&table, changes, Event::Insert, &[], effects, out)
        });
        self.options.identity_insert = explicit;
        if let Err(error) = result {
            if (self.options.xact_abort || error.reach == super::Reach::Transaction) && self.transaction.count > 0 {
                self.rollback_all(None)?;
            }
            return Err(error);
        }
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
