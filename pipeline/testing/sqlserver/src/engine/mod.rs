//! The T-SQL half of the stand-in: SQL Server's language, types, errors, change tracking and change data capture, on SQLite.
//!
//! A batch is parsed (`parser`), its procedural part interpreted (`exec`), its queries translated to SQLite (`bind`) with
//! the types that SQL Server would give each column. Every change of a row goes through one place (`exec/apply.rs`), which
//! checks constraints, notes the change for both kinds of capture (`track`) and fires triggers.
//!
//! # What it cannot prove
//!
//! - Performance, plans, locking and deadlocks: there is one writer at a time, so that no two writers ever deadlock, and a
//!   reader under READ COMMITTED sees the last commit instead of waiting. Error 1205 comes only from fault injection.
//! - SNAPSHOT conflicts are found per database, not per row: error 3960 comes more often than on a real server.
//! - Permissions: everybody is `sa`; a test can deny single permissions by name.
//! - Collations: one, that of `SQL_Latin1_General_CP1_CI_AS` approximately (case-folded code points, no linguistic order).
//! - The log: LSNs, seqvals and command ids follow the rules that a reader may rely on, not the layout of a real log.
//! - Temporary tables outside of a writing transaction are not rolled back.
//! - T-SQL beyond what the product and its tests use: it says so with error 40510, whose text names what is missing.

mod ast;
mod bind;
mod capture;
mod catalog;
mod clock;
mod convert;
mod core;
mod errors;
mod exec;
mod functions;
mod lexer;
mod parser;
mod repr;
mod sysviews;
#[cfg(test)]
mod tests;
mod track;
mod types;

pub use capture::CaptureRun;
pub(crate) use core::Core;

use crate::session::Session;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How updates are written to the log, as capture sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deferred {
    /// An update is a pair of images (operations 3 and 4), but one that changes a unique key is a deletion and an insertion.
    #[default]
    KeysOnly,
    /// Every update is a deletion, then an insertion.
    DeleteThenInsert,
    /// Every update is an insertion, then a deletion: their seqvals say so.
    InsertThenDelete,
    /// Every update is a deletion and an insertion with the same seqval.
    SameSeqval,
}

/// A server: one database `smartpulse`, and the names `master`, `msdb` and `tempdb`.
///
/// Cheap to clone; the server ends with its last clone and session.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
}

impl Engine {
    /// Opens the server over a file of SQLite, which is made when it is missing.
    ///
    /// # Errors
    /// The file cannot be opened or is no database of this program.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::start(path.to_owned(), false)
    }

    /// A server whose file goes with it.
    ///
    /// # Errors
    /// The folder for temporary files cannot be written.
    pub fn temporary() -> io::Result<Self> {
        let name = format!("smartpulse-stand-in-{}.db", uuid::Uuid::new_v4().simple());
        Self::start(std::env::temp_dir().join(name), true)
    }

    fn start(path: PathBuf, temporary: bool) -> io::Result<Self> {
        let core = Core::open(path, temporary).map_err(|fault| io::Error::other(fault.text))?;
        let core = Arc::new(core);
        capture::start(&core)?;
        Ok(Self { core })
    }

    /// A new session of a login.
    ///
    /// # Errors
    /// SQLite cannot open the file once more.
    pub fn session(&self, login: &str) -> io::Result<Box<dyn Session>> {
        match exec::EngineSession::open(&self.core, login) {
            Ok(session) => Ok(Box::new(session)),
            Err(fault) => Err(io::Error::other(fault.text)),
        }
    }

    /// The databases that a login may name.
    #[must_use]
    pub fn has_database(&self, name: &str) -> bool {
        catalog::DATABASES.iter().any(|(known, _)| catalog::same(known, name))
    }

    /// How old a commit must be before the capture job takes it. Zero by default: the job's polling interval alone decides.
    pub fn set_capture_delay(&self, delay: Duration) {
        self.core.settings().capture_delay = delay;
    }

    /// How often the capture job looks, in the place of `pollinginterval`, which knows whole seconds only. None goes back to
    /// that.
    pub fn set_capture_polling(&self, polling: Option<Duration>) {
        self.core.settings().polling = polling;
    }

    /// After how long without captured changes the job notes in `cdc.lsn_time_mapping` how far it has come (`tran_id` 0), so
    /// that `max_lsn` rises. Five minutes on a real server, five seconds here by default.
    pub fn set_idle_mark(&self, interval: Duration) {
        self.core.settings().idle_mark = interval;
    }

    /// Stops the capture job, like `sp_cdc_stop_job`.
    pub fn stop_capture(&self) {
        self.core.run_capture_job(false);
    }

    /// Starts the capture job, like `sp_cdc_start_job`.
    pub fn start_capture(&self) {
        self.core.run_capture_job(true);
    }

    /// One scan of the log now, whether the job runs or not, and without its delay.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn run_capture_now(&self) -> io::Result<CaptureRun> {
        capture::scan(&self.core, true).map_err(|fault| io::Error::other(fault.text))
    }

    /// Change tracking forgets changes up to and including a version, of every table: `CHANGE_TRACKING_MIN_VALID_VERSION` becomes that version.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn clean_up_ct(&self, version: i64) -> io::Result<()> {
        capture::clean_up_ct(&self.core, Some(version)).map_err(|fault| io::Error::other(fault.text))
    }

    /// Every capture instance forgets changes below an LSN, which becomes its `min_lsn`.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn clean_up_cdc(&self, lsn: [u8; 10]) -> io::Result<()> {
        capture::clean_up_cdc(&self.core, None, &lsn).map_err(|fault| io::Error::other(fault.text))
    }

    /// What the clean-up jobs do by retention, now.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn clean_up_by_retention(&self) -> io::Result<()> {
        capture::clean_up_by_retention(&self.core).map_err(|fault| io::Error::other(fault.text))
    }

    /// The server's zone as minutes east of UTC: `GETDATE()` and `cdc.lsn_time_mapping` speak in it. It may change at any
    /// time, as it does where clocks change.
    pub fn set_time_zone(&self, offset_minutes: i32) {
        self.core.settings().offset_minutes = offset_minutes;
    }

    /// How updates are logged from now on.
    pub fn defer_updates(&self, deferred: Deferred) {
        self.core.settings().deferred = deferred;
    }

    /// Whether seqvals fall from statement to statement of a transaction instead of rising.
    pub fn shuffle_seqval(&self, shuffle: bool) {
        self.core.settings().shuffled = shuffle;
    }

    /// Whether CHANGETABLE reports an insertion that was updated since as U instead of I.
    pub fn report_updated_insertions_as_updates(&self, report: bool) {
        self.core.settings().net_update = report;
    }

    /// Takes a permission away, such as `VIEW DATABASE STATE`, `VIEW CHANGE TRACKING`, `SELECT CDC`, or a role, such as
    /// `sysadmin`; on one object with `VIEW CHANGE TRACKING ON dbo.Forecasts`.
    pub fn deny(&self, permission: &str) {
        self.core.settings().denied.insert(permission.to_uppercase());
    }

    /// Gives a permission back.
    pub fn grant(&self, permission: &str) {
        self.core.settings().denied.remove(&permission.to_uppercase());
    }

    /// A copy of the database as it is now.
    ///
    /// # Errors
    /// The folder for temporary files cannot be written.
    pub fn backup(&self) -> io::Result<Backup> {
        self.core.backup().map(|path| Backup { path }).map_err(|fault| io::Error::other(fault.text))
    }

    /// The database goes back to a copy: data, versions, LSNs, catalogue. `recovery_fork_guid` changes, and every session ends
    /// at its next request.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn restore(&self, backup: &Backup) -> io::Result<()> {
        self.core.restore(&backup.path).map_err(|fault| io::Error::other(fault.text))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A copy of the database; its file goes with it.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
}

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
