//! Connections to a SQLite file: a small pool per role, and the classification of what SQLite answers.
//!
//! SQLite calls block, so every call runs on a blocking thread with a connection of its own. A call whose future is
//! dropped still runs to its end: a transaction is never left half done. A connection whose call failed for
//! a reason outside the statement (I/O, corruption) is closed, and the next call opens another.

use rusqlite::{Connection, ErrorCode, OpenFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a statement waits for another process that writes, before it fails as unavailable. It equals the
/// time after which any peer counts as away.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements that each connection keeps prepared. There are about ten per table and a few per bus topic.
const STATEMENTS_MAX: usize = 128;

/// When SQLite asks the disk to keep what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// At checkpoints: a commit survives the death of the process, and the last ones may be lost when power is.
    #[default]
    Normal,
    /// At every commit: it survives the loss of power, and costs a disk flush.
    Full,
}

/// How connections to one file are opened.
#[derive(Debug, Clone)]
pub struct Opener {
    path: PathBuf,
    synchronous: Synchronous,
    pages_max: Option<i64>,
}

impl Opener {
    /// Connections to the file at `path`, which is created by the first.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, synchronous: Synchronous) -> Self {
        Self { path: path.into(), synchronous, pages_max: None }
    }

    /// Refuses to let the file grow beyond so many pages of 4 KiB: a write then fails as on a full disk.
    #[must_use]
    pub fn pages_max(mut self, pages: i64) -> Self {
        self.pages_max = Some(pages);
        self
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a connection; the file's folder is created where it is missing.
    ///
    /// # Errors
    /// As [`classify`] says; a file that is no database is fatal, and so is a folder that cannot be created.
    pub fn open(&self) -> Result<Connection> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| Error::fatal(format!("cannot create {}", folder.display())).because(e))?;
        }
        self.try_open().map_err(|e| classify(&format!("open {}", self.path.display()), e))
    }

    fn try_open(&self) -> rusqlite::Result<Connection> {
        // Each connection is used by one thread at a time, so SQLite's own mutexes are not needed.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        let synchronous = match self.synchronous {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        // Entities refer to each other across services; the schema declares no foreign keys to enforce.
        connection.pragma_update(None, "foreign_keys", false)?;
        if let Some(pages) = self.pages_max {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        Ok(connection)
    }
}

/// A connection, perhaps with something that must not outlive it.
pub trait Slot: Send + Sized + 'static {
    /// Opens a new one.
    ///
    /// # Errors
    /// When the file cannot be opened.
    fn open(opener: &Opener) -> Result<Self>;
}

impl Slot for Connection {
    fn open(opener: &Opener) -> Result<Self> {
        opener.open()
    }
}

/// At most `size` connections of one role, opened when first needed.
#[derive(Debug)]
pub struct Pool<T> {
    opener: Opener,
    idle: Arc<Mutex<Vec<T>>>,
    permits: Arc<Semaphore>,
}

// Another handle to the same connections.
impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { opener: self.opener.clone(), idle: Arc::clone(&self.idle), permits: Arc::clone(&self.permits) }
    }
}

impl<T: Slot> Pool<T> {
    /// A pool of at most `size` connections.
    #[must_use]
    pub fn new(opener: Opener, size: usize) -> Self {
        Self { opener, idle: Arc::default(), permits: Arc::new(Semaphore::new(size)) }
    }

    /// Runs `work` on a blocking thread with a connection, waiting for a free one. `what` names it in errors.
    ///
    /// # Errors
    /// Those of `work`, and those of opening a connection.
    pub async fn run<R: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut T) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R> {
        let closed = |_| Error::fatal("the database is closed");
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        let (idle, opener) = (Arc::clone(&self.idle), self.opener.clone());
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut slot = match free {
                Some(slot) => slot,
                None => T::open(&opener)?,
            };
            let result = work(&mut slot).map_err(|failure| failure.into_error(what));
            if !result.as_ref().is_err_and(|e| matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Fatal)) {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
            }
            result
        });
        task.await.map_err(|e| Error::fatal(format!("{what} broke off")).because(e))?
    }
}

/// What a call fails with inside a blocking thread: SQLite's error, to be classified, or one of our own.
#[derive(Debug)]
pub enum Failure {
    /// From SQLite.
    Sqlite(rusqlite::Error),
    /// Classified already.
    Own(Error),
}

impl Failure {
    /// The error of the call named `what`.
    #[must_use]
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::Sqlite(error) => classify(what, error),
            Self::Own(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

/// What the runtime should do about an error of SQLite.
///
/// A file that is busy, full or out of reach is unavailable: the stream is held back until it is not.
/// A violated constraint rejects the input. Corruption, and statements that do not fit the schema, are fatal.
#[must_use]
pub fn classify(what: &str, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory,
        ) => ErrorKind::Unavailable,
        Some(ErrorCode::SchemaChanged | ErrorCode::OperationInterrupted | ErrorCode::OperationAborted) => {
            ErrorKind::Transient
        }
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => ErrorKind::Rejected,
        _ => ErrorKind::Fatal,
    };
    Error::new(kind, format!("{what} failed")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified_by_what_helps_against_them() {
        for (code, kind) in [
            (rusqlite::ffi::SQLITE_BUSY, ErrorKind::Unavailable),
            (rusqlite::ffi::SQLITE_FULL, ErrorKind::Unavailable),
            (rusqlite::ffi::SQLITE_IOERR_WRITE, ErrorKind::Unavailable),
            (rusqlite::ffi::SQLITE_CONSTRAINT_CHECK, ErrorKind::Rejected),
            (rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER, ErrorKind::Rejected),
            (rusqlite::ffi::SQLITE_CORRUPT, ErrorKind::Fatal),
            (rusqlite::ffi::SQLITE_NOTADB, ErrorKind::Fatal),
            (rusqlite::ffi::SQLITE_ERROR, ErrorKind::Fatal),
        ] {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            assert_eq!(classify("test", error).kind(), kind, "code {code}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_fatal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        std::fs::write(&path, "this is a text, and a long one, that no database begins with".repeat(100)).unwrap();
        let pool: Pool<Connection> = Pool::new(Opener::new(path, Synchronous::Normal), 1);
        let error = pool.run("read", |c| Ok(c.query_row("SELECT 1", [], |r| r.get::<_, i64>(0))?)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Fatal);
    }
}
