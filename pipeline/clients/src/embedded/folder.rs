//! The data folder: where embedded resources and the state of a running graph live.
//!
//! One running graph per folder, held by an advisory lock that the system releases when the process dies,
//! however it dies. Tools that look at the folder (`sql`, `position`, `dlq`) work beside the graph without the lock.

use smartpulse_pipeline::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A data folder, locked or not.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    // Held for its lock, which ends when the file is closed.
    _lock: Option<File>,
}

impl DataFolder {
    /// Creates the folder where it is missing and locks it for a running graph.
    ///
    /// # Errors
    /// Fatal when another process holds the lock (it is named) or when the folder cannot be created.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let mut folder = Self::beside(path)?;
        let lock = folder.path.join("lock");
        let failed = |e| Error::fatal(format!("cannot lock the data folder {}", folder.path.display())).because(e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(failed(e)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(Error::fatal(format!(
                    "the data folder {} is in use by {holder}: stop it, or choose another folder",
                    folder.path.display()
                )));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .and_then(|()| file.flush())
            .map_err(failed)?;
        folder._lock = Some(file);
        Ok(folder)
    }

    /// The folder without its lock, for tools that work beside a running graph; created where it is missing.
    ///
    /// # Errors
    /// Fatal when the folder cannot be created.
    pub fn beside(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)
            .map_err(|e| Error::fatal(format!("cannot create the data folder {}", path.display())).because(e))?;
        Ok(Self { path, _lock: None })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_graph_is_refused_by_the_pid_of_the_first_and_let_in_after_it() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let first = DataFolder::open(&path).unwrap();
        let refused = DataFolder::open(&path).unwrap_err().chain();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert_eq!(DataFolder::beside(&path).unwrap().path(), path);
        drop(first);
        DataFolder::open(&path).unwrap();
    }
}
