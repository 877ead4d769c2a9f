//! Triggers.

use super::super::ast::Event;
use super::super::catalog::{Module, Table};
use super::super::errors::{Reach, Result, fault};
use super::apply::{Change, definition};
use super::transaction::from_trigger;
use super::{EngineSession, Flow, Frame, Out, TriggerTables};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

/// Deep enough for anything sane; SQL Server's limit.
pub(super) const NESTING_MAX: usize = 32;

impl EngineSession {
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

    pub(super) fn fire(
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

    pub(super) fn run_trigger(
        &mut self,
        trigger: &Module,
        tables: TriggerTables,
        rows: usize,
        out: &mut Out<'_>,
    ) -> Result<()> {
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
