//! SELECT: rows go out as SQLite gives them.

use super::super::ast::{Query, SetExpr};
use super::super::bind::BoundQuery;
use super::super::errors::Result;
use super::super::{clock, repr};
use super::{BoundTo, EngineSession, Out};
use crate::session::{Column, Output};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

/// How often an attention is looked for.
const ROWS_BETWEEN_CHECKS: u64 = 256;

impl EngineSession {
    pub(super) fn select(&mut self, query: &Query, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        self.now = clock::utc_ticks();
        if let SetExpr::Select(select) = &query.body
            && let Some(into) = &select.into
        {
            return self.select_into(query, into, out);
        }
        let (bound, to) = self.bind(|binder| binder.query(query))?;
        if !bound.assigns.is_empty() {
            return self.assign(&bound, &to);
        }
        self.prepare_to_read(&to)?;
        let rows = self.stream(&bound, &to, out)?;
        self.done(i64::try_from(rows).unwrap_or(i64::MAX), out)
    }

    /// Sends the rows of a query.
    pub(super) fn stream(&mut self, bound: &BoundQuery, to: &BoundTo, out: &mut Out<'_>) -> Result<u64> {
        let values = self.values(to);
        let columns: Arc<[Column]> = bound
            .columns
            .iter()
            .map(|column| Column {
                name: column.name.clone(),
                sql_type: column.sql_type,
                nullable: column.nullable,
                identity: column.identity,
            })
            .collect();
        let mut statement = self.connection.prepare_cached(&bound.sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let limit =
            if self.options.rowcount > 0 { u64::try_from(self.options.rowcount).unwrap_or(0) } else { u64::MAX };
        let mut count = 0;
        // An error before the first row comes before the columns: none of them may be sent then.
        let mut next = rows.next()?;
        out.put(Output::Columns(Arc::clone(&columns)))?;
        while let Some(row) = next {
            let mut cells = Vec::with_capacity(columns.len());
            for (at, column) in columns.iter().enumerate() {
                cells.push(repr::decode(row.get_ref(at)?, column.sql_type));
            }
            out.put(Output::Row(cells))?;
            count += 1;
            if count % ROWS_BETWEEN_CHECKS == 0 {
                out.check()?;
            }
            if count == limit {
                break;
            }
            next = rows.next()?;
        }
        Ok(count)
    }

    /// All rows of a query, as SQLite keeps them.
    pub(super) fn rows(&mut self, sql: &str, to: &BoundTo) -> Result<Vec<Vec<Cell>>> {
        let values = self.values(to);
        let mut statement = self.connection.prepare_cached(sql)?;
        let width = statement.column_count();
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let mut cells = Vec::with_capacity(width);
            for at in 0..width {
                cells.push(repr::cell(row.get_ref(at)?));
            }
            all.push(cells);
        }
        Ok(all)
    }

    /// `SELECT @a = ...`: the last row stays.
    fn assign(&mut self, bound: &BoundQuery, to: &BoundTo) -> Result<()> {
        self.prepare_to_read(to)?;
        // An assignment that reads its own variable accumulates over the rows, so that each row is taken by itself then.
        let rows = self.rows(&bound.sql, to)?;
        self.rowcount = i64::try_from(rows.len()).unwrap_or(0);
        self.error = 0;
        if let Some(last) = rows.into_iter().next_back() {
            for (variable, cell) in bound.assigns.iter().zip(last) {
                self.frame_mut().values.insert(variable.clone(), cell);
            }
        }
        Ok(())
    }
}
