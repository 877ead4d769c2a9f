//! Transactions: opened in SQLite only when something is written, or when SNAPSHOT isolation reads.

use super::super::catalog::Catalog;
use super::super::errors::{Fault, Reach, Result, fault};
use super::super::track::Tracking;
use super::super::{clock, sysviews};
use super::{BoundTo, EngineSession, Out};
use crate::session::Output;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The state of a session's transaction.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// `@@TRANCOUNT`
    pub count: u32,
    pub id: u64,
    /// XACT_STATE() is -1: only ROLLBACK is left.
    pub doomed: bool,
    /// SQLite has a transaction open.
    pub open: bool,
    /// This session is the writer.
    pub writing: bool,
    /// The catalogue that this transaction has changed.
    pub catalog: Option<Arc<Catalog>>,
    pub savepoints: Vec<String>,
    pub tracking: Tracking,
    statements: u64,
}

impl EngineSession {
    pub(super) fn begin_transaction(&mut self, out: &mut Out<'_>) -> Result<()> {
        if self.transaction.count == 0 {
            self.transaction.id = self.core.next_transaction();
            self.transaction.tracking = Tracking::begun(clock::utc_ticks());
            self.transaction.count = 1;
            return out.put(Output::Began(self.transaction.id));
        }
        self.transaction.count += 1;
        Ok(())
    }

    pub(super) fn commit_transaction(&mut self, out: &mut Out<'_>) -> Result<()> {
        match self.transaction.count {
            0 => Err(fault(3902, 16, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.")),
            1 if self.transaction.doomed => Err(fault(
                3930,
                16,
                "The current transaction cannot be committed and cannot support operations that write to the log file. Roll back the \
                 transaction.",
            )),
            1 => {
                let id = self.transaction.id;
                if let Err(fault) = self.commit_work() {
                    self.rollback_all(Some(out))?;
                    return Err(fault);
                }
                self.transaction = Transaction::default();
                self.core.release_transaction_locks(self.id);
                out.put(Output::Committed(id))
            }
            _ => {
                self.transaction.count -= 1;
                Ok(())
            }
        }
    }

    /// Makes the work durable: versions and log records first, then the catalogue, then the commit itself.
    fn commit_work(&mut self) -> Result<()> {
        if !self.transaction.open {
            return Ok(());
        }
        if self.transaction.writing {
            self.transaction.tracking.finish(&self.connection)?;
            if let Some(catalog) = &self.transaction.catalog {
                self.core.store_catalog(&self.connection, catalog)?;
            }
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.transaction.open = false;
        if let Some(catalog) = self.transaction.catalog.take() {
            self.core.publish(&catalog);
        }
        if self.transaction.writing {
            self.transaction.writing = false;
            self.core.end_write(self.id);
        }
        Ok(())
    }

    /// Undoes everything.
    pub(super) fn rollback_all(&mut self, out: Option<&mut Out<'_>>) -> Result<()> {
        let id = self.transaction.id;
        let had = self.transaction.count > 0;
        if self.transaction.open {
            self.connection.execute_batch("ROLLBACK")?;
        }
        if self.transaction.writing {
            self.core.end_write(self.id);
        }
        let changed = self.transaction.catalog.is_some();
        self.transaction = Transaction::default();
        self.core.release_transaction_locks(self.id);
        if changed {
            self.catalog = self.core.catalog();
        }
        self.forget_lost_tables()?;
        match out {
            Some(out) if had => out.put(Output::RolledBack(id)),
            _ => Ok(()),
        }
    }

    /// Temporary tables that a rollback took away are forgotten.
    fn forget_lost_tables(&mut self) -> Result<()> {
        if self.temporary.is_empty() {
            return Ok(());
        }
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM sqlite_temp_master WHERE name = ?1")?;
        let mut lost = Vec::new();
        for (name, table) in &self.temporary {
            let physical = table.physical.strip_prefix("temp.").unwrap_or(&table.physical);
            if !statement.exists([physical])? {
                lost.push(name.clone());
            }
        }
        drop(statement);
        for name in lost {
            self.temporary.remove(&name);
        }
        Ok(())
    }

    /// Becomes the writer, waiting for the one before.
    pub(super) fn begin_write(&mut self, cancelled: Option<&AtomicBool>) -> Result<()> {
        if self.transaction.doomed {
            return Err(fault(
                3930,
                16,
                "The current transaction cannot be committed and cannot support operations that write to the log file. Roll back the \
                 transaction.",
            )
            .reaching(Reach::Batch));
        }
        if self.transaction.writing {
            return Ok(());
        }
        let patience = u64::try_from(self.options.lock_timeout).ok().map(Duration::from_millis);
        self.core.begin_write(self.id, patience, cancelled)?;
        let begun = if self.transaction.open {
            // A SNAPSHOT transaction becomes the writer only while nobody else has written.
            self.connection.execute("UPDATE sp_state SET value = value + 1 WHERE name = 'writer'", []).map(|_| ())
        } else {
            self.connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])).map(|_| ())
        };
        if let Err(error) = begun {
            self.core.end_write(self.id);
            return Err(error.into());
        }
        self.transaction.open = true;
        self.transaction.writing = true;
        if self.transaction.count == 0 {
            self.transaction.tracking = Tracking::begun(clock::utc_ticks());
        }
        self.refresh();
        Ok(())
    }

    /// What reading needs: a SNAPSHOT transaction's snapshot, the locks that hints and levels ask for, views of the system.
    pub(super) fn prepare_to_read(&mut self, to: &BoundTo) -> Result<()> {
        let held = self.transaction.count > 0;
        if to.reads && self.options.isolation == 5 && !self.transaction.writing {
            if !self.catalog.options.snapshot_isolation {
                return Err(fault(
                    3952,
                    16,
                    format!(
                        "Snapshot isolation transaction failed accessing database '{}' because snapshot isolation is not allowed in \
                         this database. Use ALTER DATABASE to allow snapshot isolation.",
                        super::DATABASE
                    ),
                ));
            }
            if held && !self.transaction.open {
                self.connection.execute_batch("BEGIN DEFERRED")?;
                self.transaction.open = true;
            }
        } else if to.reads && held && (to.locks || matches!(self.options.isolation, 3 | 4)) {
            self.begin_write(None)?;
        }
        for view in &to.views {
            self.fill_view(view)?;
        }
        Ok(())
    }

    fn fill_view(&mut self, physical: &'static str) -> Result<()> {
        sysviews::fill(
            &self.connection,
            physical,
            &sysviews::Look {
                core: &self.core,
                catalog: &self.catalog,
                session: self.id,
                login: &self.login,
                denied: &self.core.switches().0,
            },
        )
    }

    /// Runs something that writes: all of it or nothing, within the transaction or in one of its own.
    pub(super) fn writing<T>(
        &mut self,
        out: &mut Out<'_>,
        work: impl FnOnce(&mut Self, &mut Out<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.options.implicit_transactions && self.transaction.count == 0 {
            self.begin_transaction(out)?;
        }
        if self.transaction.count == 0 && !self.transaction.open {
            self.begin_write(Some(out.cancelled))?;
            let result = work(self, out);
            return match result {
                Ok(value) => {
                    // A trigger may have rolled back, or begun a transaction of its own.
                    if self.transaction.count == 0
                        && let Err(fault) = self.commit_work()
                    {
                        self.rollback_all(None)?;
                        return Err(fault);
                    }
                    Ok(value)
                }
                Err(fault) => {
                    self.rollback_all(None)?;
                    Err(fault)
                }
            };
        }
        self.begin_write(Some(out.cancelled))?;
        self.in_savepoint(out, work)
    }

    /// Runs something that writes temporary tables only.
    pub(super) fn writing_temporary<T>(
        &mut self,
        out: &mut Out<'_>,
        work: impl FnOnce(&mut Self, &mut Out<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.transaction.open {
            return self.in_savepoint(out, work);
        }
        // Its own little transaction: `BEGIN` here would pin what READ COMMITTED reads later.
        self.in_savepoint(out, work)
    }

    fn in_savepoint<T>(
        &mut self,
        out: &mut Out<'_>,
        work: impl FnOnce(&mut Self, &mut Out<'_>) -> Result<T>,
    ) -> Result<T> {
        self.transaction.statements += 1;
        let name = format!("st{}", self.transaction.statements);
        self.connection.execute_batch(&format!("SAVEPOINT {name}"))?;
        let catalog = self.transaction.catalog.clone();
        let before = (self.catalog.clone(), self.temporary.clone());
        let id = self.transaction.id;
        let result = work(self, out);
        // A ROLLBACK inside took the savepoint away with the transaction.
        let gone = self.transaction.id != id || self.connection.is_autocommit();
        match result {
            Ok(value) if gone => Ok(value),
            Err(fault) if gone => Err(fault),
            Ok(value) => {
                self.connection.execute_batch(&format!("RELEASE {name}"))?;
                Ok(value)
            }
            Err(fault) => {
                self.connection.execute_batch(&format!("ROLLBACK TO {name}; RELEASE {name}"))?;
                self.transaction.catalog = catalog;
                (self.catalog, self.temporary) = before;
                Err(fault)
            }
        }
    }

    pub(super) fn save(&mut self, name: &str) -> Result<()> {
        if self.transaction.count == 0 {
            return Err(fault(628, 16, "Cannot issue SAVE TRANSACTION when there is no active transaction."));
        }
        self.begin_write(None)?;
        self.transaction.savepoints.push(name.to_lowercase());
        let place = self.transaction.savepoints.len();
        self.connection.execute_batch(&format!("SAVEPOINT user{place}"))?;
        Ok(())
    }

    pub(super) fn rollback_to(&mut self, name: Option<&str>, out: &mut Out<'_>) -> Result<()> {
        if self.transaction.count == 0 {
            return Err(fault(3903, 16, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."));
        }
        if let Some(name) = name
            && let Some(at) = self.transaction.savepoints.iter().rposition(|known| *known == name.to_lowercase())
        {
            self.connection.execute_batch(&format!("ROLLBACK TO user{}", at + 1))?;
            self.transaction.savepoints.truncate(at + 1);
            return self.forget_lost_tables();
        }
        self.rollback_all(Some(out))
    }

    /// The catalogue, to change it in this transaction.
    pub(super) fn change_catalog<T>(&mut self, change: impl FnOnce(&mut Catalog) -> Result<T>) -> Result<T> {
        let mut catalog = Catalog::clone(&self.catalog);
        let value = change(&mut catalog)?;
        catalog.version = self.core.next_version();
        let catalog = Arc::new(catalog);
        self.transaction.catalog = Some(Arc::clone(&catalog));
        self.catalog = catalog;
        self.refresh();
        Ok(value)
    }
}

/// An error inside a trigger ends the transaction.
pub(super) fn from_trigger(mut fault: Box<Fault>) -> Box<Fault> {
    if fault.reach != Reach::Cancelled {
        fault.reach = Reach::Transaction;
    }
    fault
}
