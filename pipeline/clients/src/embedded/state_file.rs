//! `smartpulse.db`: the one SQLite file in a data folder that holds the bus, positions, keyed state and dead letters.
//!
//! One writer connection, so that bus and store commit in the order of their calls: a position can never be
//! durable before the messages that it stands for. Tools and publishers of other processes may use the file at the same time.

use super::connection::{Failure, Opener, Pool, Synchronous};
use super::folder::DataFolder;
use super::migrate::migrate;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smartpulse_pipeline::error::Result;
use std::path::Path;
use std::sync::Arc;

/// The file's name in the data folder.
pub const FILE_NAME: &str = "smartpulse.db";

/// One per topic in a refill, one for a store's reads and one to spare; a read takes well under a millisecond.
const READERS: usize = 4;

/// SQLite's page size, which `max_page_count` counts in.
const PAGE_BYTES: u64 = 4_096;

const SCRIPTS: [&str; 1] = [include_str!("../../../../config/sql/sqlite/state.sql")];

/// The state file of a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// How large `smartpulse.db` may grow, in bytes. Beyond it, as on a full disk, publishing fails as unavailable until
    /// messages were acked and retention has removed them. Default 64 GiB; at least 1 MiB.
    pub file_bytes_max: u64,
    /// `normal`: what is committed survives the death of the process; `full`: also the loss of power, at a
    /// disk flush per commit. Default `normal`.
    pub synchronous: Synchronous,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { file_bytes_max: 64 << 30, synchronous: Synchronous::Normal }
    }
}

/// An opened state file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateFile {
    pub(super) writer: Arc<Pool<Connection>>,
    pub(super) readers: Arc<Pool<Connection>>,
    /// The connection whose `data_version` tells of commits by others.
    pub(super) watcher: Arc<Pool<Connection>>,
}

impl StateFile {
    /// Opens the file in a folder; creates and migrates it.
    ///
    /// # Errors
    /// Fatal for a later schema version than this program knows, or a file that is no database.
    pub async fn open(folder: &DataFolder, config: &StateConfig) -> Result<Self> {
        Self::open_at(&folder.path().join(FILE_NAME), config).await
    }

    /// As [`Self::open`], for a file of any name.
    ///
    /// # Errors
    /// The same.
    pub async fn open_at(path: &Path, config: &StateConfig) -> Result<Self> {
        let pages = i64::try_from(config.file_bytes_max.max(1 << 20) / PAGE_BYTES).unwrap_or(i64::MAX);
        let opener = Opener::new(path, config.synchronous).pages_max(pages);
        let file = Self {
            writer: Arc::new(Pool::new(opener.clone(), 1)),
            readers: Arc::new(Pool::new(opener.clone(), READERS)),
            watcher: Arc::new(Pool::new(opener, 1)),
        };
        let migrated =
            |connection: &mut Connection| -> Result<(), Failure> { migrate(connection, "smartpulse.db", &SCRIPTS) };
        file.writer.run("open the state file", migrated).await?;
        Ok(file)
    }
}
