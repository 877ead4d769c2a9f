//! The embedded resources: a SQLite database, a bus on SQLite tables, an in-process pub/sub, and the store.
//!
//! Nothing to install: all of them live in the data folder. The bus and the store share one file,
//! `smartpulse.db`; a database is a file of its own, that any other program may write at the same time.

pub mod bus;
mod capture;
pub mod connection;
pub mod database;
mod delivery;
pub mod folder;
pub mod memory;
mod migrate;
mod notifications;
mod plan;
pub mod pubsub;
mod rows;
mod state_file;
mod statements;
pub mod store;

pub use bus::{BusConfig, EmbeddedBus};
pub use database::{SqliteConfig, SqliteDatabase};
pub use folder::DataFolder;
pub use memory::MemoryStore;
pub use pubsub::{EmbeddedPubSub, PubSubConfig};
pub use state_file::{StateConfig, StateFile};
pub use store::SqliteStore;
