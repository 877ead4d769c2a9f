//! Procedures of the system: change data capture, renaming, application locks, and a few that clients call.

use super::super::capture;
use super::super::catalog::same;
use super::super::errors::{Reach, Result, fault, unsupported};
use super::super::functions::lock;
use super::super::parser;
use super::procedures::{Given, Ran};
use super::{EngineSession, Flow, Out};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl EngineSession {
    /// Runs a procedure of the system; none when there is no such one.
    pub(super) fn run_system(&mut self, name: &str, given: &[Given], out: &mut Out<'_>) -> Result<Option<Ran>> {
        let mut status = 0;
        match name {
            "sp_cdc_enable_db" => self.writing(out, |session, _| session.enable_cdc())?,
            "sp_cdc_disable_db" => self.writing(out, |session, _| session.disable_cdc())?,
            "sp_cdc_enable_table" => self.writing(out, |session, _| session.enable_instance(given))?,
            "sp_cdc_disable_table" => self.writing(out, |session, _| session.disable_instance(given))?,
            "sp_cdc_change_job" => self.writing(out, |session, _| session.change_job(given))?,
            "sp_cdc_start_job" | "sp_cdc_stop_job" => {
                self.need_cdc()?;
                let kind =
                    argument(given, 0, "@job_type").and_then(Given::text).unwrap_or_else(|| "capture".to_owned());
                if same(kind.trim(), "capture") {
                    self.core.run_capture_job(name == "sp_cdc_start_job");
                }
            }
            "sp_cdc_cleanup_change_table" => self.cleanup_change_table(given, out)?,
            "sp_cdc_add_job" | "sp_cdc_drop_job" => self.need_cdc()?,
            "sp_cdc_scan" => {
                // One scan by hand; it may not run inside of a transaction.
                if self.transaction.open {
                    return Err(fault(
                        22903,
                        16,
                        "Another connection is already running 'sp_replcmds' for Change Data Capture in the current database.",
                    ));
                }
                capture::scan(&self.core, true)?;
            }
            "sp_cdc_help_change_data_capture" => self.help_cdc(out)?,
            "sp_rename" => {
                self.writing(out, |session, _| session.rename(given))?;
                self.info(
                    "Caution: Changing any part of an object name could break scripts and stored procedures.",
                    15477,
                    out,
                )?;
            }
            "sp_getapplock" => status = self.get_lock(given, out)?,
            "sp_releaseapplock" => status = self.release_lock(given)?,
            "sp_flush_ct_internal_table_on_demand" => {
                if self.transaction.open {
                    return Err(unsupported("sp_flush_CT_internal_table_on_demand inside of a transaction"));
                }
                capture::clean_up_ct(&self.core, None)?;
            }
            "sp_reset_connection" => {
                crate::session::Session::reset(self);
                self.frames.push(super::Frame::default());
            }
            "sp_help_job" | "sp_helptext" | "sp_who" | "sp_lock" | "sp_databases" => {
                return Err(unsupported(format!("the procedure {name}")));
            }
            "sp_recompile"
            | "sp_updatestats"
            | "sp_addrolemember"
            | "sp_refreshview"
            | "sp_set_session_context"
            | "sp_configure" => {}
            _ => return Ok(None),
        }
        Ok(Some(Ran { flow: Flow::Next, status, outputs: Vec::new() }))
    }

    fn rename(&mut self, given: &[Given]) -> Result<()> {
        let text = |place, name| argument(given, place, name).and_then(Given::text);
        let (Some(old), Some(new)) = (text(0, "@objname"), text(1, "@newname")) else {
            return Err(fault(
                201,
                16,
                "Procedure or function 'sp_rename' expects parameter '@objname', which was not supplied.",
            ));
        };
        let kind = text(2, "@objtype").unwrap_or_default().to_uppercase();
        let no_item = || {
            fault(
                15225,
                11,
                format!(
                    "No item by the name of '{old}' could be found in the current database '{}', given that @itemtype was input as '{kind}'.",
                    super::DATABASE
                ),
            )
        };
        let mut name = parser::parse_name(&old).ok_or_else(no_item)?;
        if kind == "COLUMN" || kind == "INDEX" {
            let part = name.0.pop().ok_or_else(no_item)?;
            let (table, _) = self.bind(|binder| binder.table(&name)).map_err(|_| no_item())?;
            if kind == "INDEX" {
                return self.change_table(table.id, |table| {
                    for index in table.indexes.iter_mut().filter(|index| same(&index.name, &part)) {
                        index.name.clone_from(&new);
                    }
                });
            }
            let id = table.column(&part).map(|column| column.id).ok_or_else(|| {
                fault(
                    15248,
                    11,
                    format!("Either the parameter @objname is ambiguous or the claimed @objtype ({kind}) is wrong."),
                )
            })?;
            self.record_ddl(&table, &format!("EXEC sp_rename '{old}', '{new}', 'COLUMN'"))?;
            return self.change_table(table.id, |table| {
                for column in table.columns.iter_mut().filter(|column| column.id == id) {
                    column.name.clone_from(&new);
                }
            });
        }
        let schema = name.schema().unwrap_or("dbo").to_owned();
        let Some((id, _)) = self.catalog.object_id(&schema, name.last()) else { return Err(no_item()) };
        if self.catalog.object_id(&schema, &new).is_some() {
            return Err(fault(
                15335,
                11,
                format!(
                    "Error: The new name '{new}' is already in use as a object name and would cause a duplicate that is not permitted."
                ),
            ));
        }
        if let Some(table) = self.catalog.tables.get(&id).cloned() {
            self.record_ddl(&table, &format!("EXEC sp_rename '{old}', '{new}'"))?;
            return self.change_table(id, |table| table.name.clone_from(&new));
        }
        self.change_catalog(|catalog| {
            if let Some(module) = catalog.modules.get_mut(&id) {
                Arc::make_mut(module).name.clone_from(&new);
            }
            Ok(())
        })
    }

    /// `sp_getapplock`: 0 granted, 1 after waiting, -1 timed out, -999 wrong.
    fn get_lock(&mut self, given: &[Given], out: &mut Out<'_>) -> Result<i64> {
        let text = |place, name| argument(given, place, name).and_then(Given::text);
        let Some(resource) = text(0, "@resource") else { return Ok(-999) };
        let mode = text(1, "@lockmode").unwrap_or_else(|| "Exclusive".to_owned()).to_lowercase();
        let transaction = !text(2, "@lockowner").is_some_and(|owner| same(&owner, "session"));
        if transaction && self.transaction.count == 0 {
            return Err(fault(
                1204,
                16,
                "The statement or function must be executed in the context of a user transaction.",
            )
            .reaching(Reach::Statement));
        }
        let patience = argument(given, 3, "@locktimeout").and_then(Given::number).unwrap_or(self.options.lock_timeout);
        let start = Instant::now();
        let mut waited = false;
        let core = Arc::clone(&self.core);
        let mut locks = lock(&core.locks);
        loop {
            let holders = locks.entry(resource.clone()).or_default();
            let free =
                holders.iter().all(|(holder, held, _)| *holder == self.id || (mode == "shared" && held == "shared"));
            if free {
                holders.push((self.id, mode, transaction));
                return Ok(i64::from(waited));
            }
            if let Ok(patience) = u64::try_from(patience)
                && start.elapsed() >= Duration::from_millis(patience)
            {
                return Ok(-1);
            }
            out.check()?;
            waited = true;
            locks = match core.locks_free.wait_timeout(locks, Duration::from_millis(20)) {
                Ok((locks, _)) => locks,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn release_lock(&mut self, given: &[Given]) -> Result<i64> {
        let Some(resource) = argument(given, 0, "@resource").and_then(Given::text) else { return Ok(-999) };
        let mut locks = lock(&self.core.locks);
        let Some(holders) = locks.get_mut(&resource) else { return Ok(-999) };
        let Some(at) = holders.iter().rposition(|(holder, _, _)| *holder == self.id) else { return Ok(-999) };
        holders.remove(at);
        drop(locks);
        self.core.locks_free.notify_all();
        Ok(0)
    }
}

/// An argument by its name, or by its place among those without one.
pub(super) fn argument<'g>(given: &'g [Given], place: usize, name: &str) -> Option<&'g Given> {
    given
        .iter()
        .find(|given| given.name.as_deref() == Some(name))
        .or_else(|| given.get(place).filter(|given| given.name.is_none()))
}
