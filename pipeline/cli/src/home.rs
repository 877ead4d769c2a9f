//! The data folder, and the store in it.

use crate::failure::Failure;
use crate::setup::{Session, shown};
use anyhow::anyhow;
use smartpulse_clients::embedded::{DataFolder, MemoryStore, SqliteStore, StateConfig, StateFile};
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::state::Store;
use std::sync::Arc;

/// The name that a state file has in the data folder.
pub const STATE_FILE: &str = "smartpulse.db";

/// An open data folder. Held as long as the graph runs: the lock ends with it.
pub struct Home {
    pub store: Arc<dyn Store>,
    _folder: DataFolder,
}

impl Home {
    /// For a graph that runs on: locked, with a durable store.
    ///
    /// # Errors
    /// When another process holds the folder, or its files cannot be opened.
    pub async fn live(session: &Session, folder: DataFolder) -> Result<Self> {
        let store = Arc::new(SqliteStore::new(state_file(session, &folder).await?));
        Ok(Self { store, _folder: folder })
    }

    /// For a bounded graph, beside a running one: nothing is kept but dead letters.
    ///
    /// # Errors
    /// When the folder's files cannot be opened.
    pub async fn bounded(session: &Session) -> Result<Self> {
        let folder = DataFolder::beside(&session.settings.data_dir)?;
        let letters = Arc::new(SqliteStore::new(state_file(session, &folder).await?));
        Ok(Self { store: Arc::new(MemoryStore::with_dead_letters(letters)), _folder: folder })
    }

    /// For commands that look into a folder that is there, beside a running graph.
    ///
    /// # Errors
    /// When there is none.
    pub async fn existing(session: &Session) -> Result<Self, Failure> {
        refuse_missing(session)?;
        let folder = DataFolder::beside(&session.settings.data_dir)?;
        Ok(Self::live(session, folder).await?)
    }

    /// The same for commands that no graph may run beside.
    ///
    /// # Errors
    /// When there is no folder, or a graph runs on it.
    pub async fn existing_alone(session: &Session) -> Result<Self, Failure> {
        refuse_missing(session)?;
        let folder = DataFolder::open(&session.settings.data_dir)?;
        Ok(Self::live(session, folder).await?)
    }
}

/// The state file: that of the resource which the bus uses too, so that both share one writer; without such a
/// resource, one of the store's own.
async fn state_file(session: &Session, folder: &DataFolder) -> Result<StateFile> {
    match session.declared.kinds.iter().find(|(_, kind)| **kind == "state") {
        Some((name, _)) => session.resources.get(name).await,
        None => StateFile::open(folder, &StateConfig::default()).await,
    }
}

fn refuse_missing(session: &Session) -> Result<(), Failure> {
    let folder = &session.settings.data_dir;
    if folder.join(STATE_FILE).exists() {
        return Ok(());
    }
    Err(anyhow!(
        "nothing has run on the data folder {} yet\nchoose another with SMARTPULSE__DATA_DIR or --set data_dir=..",
        shown(folder)
    )
    .into())
}
