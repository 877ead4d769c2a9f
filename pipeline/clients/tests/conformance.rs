//! The embedded resources pass the suites that every implementation must pass.

use async_trait::async_trait;
use prometheus::Registry;
use smartpulse_clients::bus::SharedBus;
use smartpulse_clients::database::{Database, SharedDatabase};
use smartpulse_clients::embedded::{
    BusConfig, DataFolder, EmbeddedBus, EmbeddedPubSub, MemoryStore, PubSubConfig, SqliteConfig, SqliteDatabase,
    SqliteStore, StateConfig, StateFile,
};
use smartpulse_clients::ledger::{SharedLedger, StoreLedger};
use smartpulse_clients::pubsub::SharedPubSub;
use smartpulse_pipeline::state::Store;
use smartpulse_testing::{
    BusFixture, DatabaseFixture, LedgerFixture, PubSubFixture, StoreFixture, bus_suite, database_suite, delivery_suite,
    ledger_suite, notifications_suite, pubsub_suite, store_suite,
};
use std::sync::Arc;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn database(&self, config: &SqliteConfig) -> SqliteDatabase {
        SqliteDatabase::open("main_db", config, self.0.path(), &Registry::new()).unwrap()
    }

    async fn state_file(&self) -> StateFile {
        let folder = DataFolder::beside(self.0.path()).unwrap();
        StateFile::open(&folder, &StateConfig::default()).await.unwrap()
    }
}

#[async_trait]
impl DatabaseFixture for Folder {
    async fn open(&self) -> SharedDatabase {
        let database = self.database(&SqliteConfig::default());
        database.create_schema().await.unwrap();
        Arc::new(database)
    }

    async fn clean_up(&self, _database: &SharedDatabase) -> bool {
        let config = SqliteConfig { log_rows_max: 0, ..SqliteConfig::default() };
        self.database(&config).clean().await.unwrap();
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_database_conforms() {
    database_suite(Folder::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_and_mails_of_the_embedded_database_conform() {
    delivery_suite(Folder::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_the_embedded_database_conform() {
    notifications_suite(Folder::new).await;
}

#[async_trait]
impl BusFixture for Folder {
    async fn open(&self) -> SharedBus {
        Arc::new(EmbeddedBus::open(self.state_file().await, &BusConfig::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_bus_conforms() {
    bus_suite(Folder::new).await;
}

#[tokio::test]
async fn the_embedded_bus_conforms_on_one_thread() {
    bus_suite(Folder::new).await;
}

#[async_trait]
impl StoreFixture for Folder {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::new(self.state_file().await))
    }

    fn durable(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_embedded_store_conforms() {
    store_suite(Folder::new).await;
}

struct Memory(Arc<MemoryStore>);

#[async_trait]
impl StoreFixture for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0) as Arc<dyn Store>
    }

    fn durable(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    store_suite(|| Memory(Arc::new(MemoryStore::new()))).await;
}

#[async_trait]
impl LedgerFixture for Folder {
    async fn open(&self) -> SharedLedger {
        Arc::new(StoreLedger::new(StoreFixture::open(self).await))
    }

    fn shared(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn the_ledger_in_a_store_conforms() {
    ledger_suite(Folder::new).await;
}

#[tokio::test]
async fn a_memory_store_hands_its_dead_letters_to_the_durable_one() {
    let folder = Folder::new();
    let durable = StoreFixture::open(&folder).await;
    let memory = MemoryStore::with_dead_letters(Arc::clone(&durable));
    memory.put_dead_letters(&[smartpulse_testing::dead_letter("s", 1)]).await.unwrap();
    memory.commit_position("p/a", &"seq:1".into()).await.unwrap();
    assert!(durable.dead_letter(1).await.unwrap().is_some());
    assert_eq!(durable.positions().await.unwrap(), []);
}

struct InProcess(EmbeddedPubSub);

const QUEUE: u32 = 1_000;

impl InProcess {
    fn new() -> Self {
        Self(EmbeddedPubSub::new(&PubSubConfig { counters_max: 2, queue_messages_max: QUEUE }))
    }
}

#[async_trait]
impl PubSubFixture for InProcess {
    async fn open(&self) -> SharedPubSub {
        Arc::new(self.0.clone())
    }

    async fn forget_counters(&self) -> bool {
        // One more than there may be: all are forgotten.
        let publication = |key: &str| smartpulse_clients::pubsub::Publication {
            channel: key.into(),
            section: "forecast".into(),
            key: key.into(),
            version: 1,
            previous_version: None,
            patch: "{}".into(),
            whole: "{}".into(),
            document: None,
            resync: false,
            known_only: false,
        };
        let pubsub = PubSubFixture::open(self).await;
        pubsub.publish(&[publication("x"), publication("y")]).await.unwrap();
        true
    }

    fn overflow(&self) -> Option<usize> {
        Some(QUEUE as usize + 10)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_pubsub_conforms() {
    pubsub_suite(InProcess::new).await;
}
