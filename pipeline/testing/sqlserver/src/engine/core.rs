//! What all sessions share: the file, the catalogue, the one writer's turn, settings, the capture job.

use super::ast::Batch;
use super::catalog::Catalog;
use super::errors::{Result, cancelled as cancelled_fault, fault};
use super::functions::lock;
use super::{Deferred, parser};
use rusqlite::{Connection, OptionalExtension};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Parsed texts that are remembered; all are forgotten when there are more.
const PARSES_MAX: usize = 4096;

/// How often somebody who waits looks for an attention.
const ATTENTION: Duration = Duration::from_millis(20);

/// What tests set.
#[derive(Debug)]
pub(crate) struct Settings {
    pub capture_delay: Duration,
    pub polling: Option<Duration>,
    pub idle_mark: Duration,
    pub offset_minutes: i32,
    pub deferred: Deferred,
    pub shuffled: bool,
    pub net_update: bool,
    pub denied: HashSet<String>,
}

/// The state of the capture job.
#[derive(Debug)]
pub(crate) struct Job {
    pub running: bool,
    pub started: i64,
    pub stopped: Option<i64>,
    pub scans: Vec<super::CaptureRun>,
}

/// Application locks: the holder, how often, and whether for the transaction.
pub(crate) type AppLocks = HashMap<String, Vec<(i64, String, bool)>>;

pub(crate) struct Core {
    path: PathBuf,
    temporary: bool,
    catalog: Mutex<Arc<Catalog>>,
    /// Numbers of parsed statements.
    pub ids: AtomicU64,
    versions: AtomicU64,
    sessions: AtomicI64,
    transactions: AtomicU64,
    epoch: AtomicU64,
    writer: Mutex<Option<i64>>,
    writer_free: Condvar,
    parses: Mutex<HashMap<String, Batch>>,
    settings: Mutex<Settings>,
    pub job: Mutex<Job>,
    pub locks: Mutex<AppLocks>,
    pub locks_free: Condvar,
    pub started: i64,
}

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS sp_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS sp_state (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS sp_ct_table (object_id INTEGER PRIMARY KEY, begun INTEGER, cleanup INTEGER, min_valid INTEGER);
    CREATE TABLE IF NOT EXISTS sp_commit (ts INTEGER PRIMARY KEY, time INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS sp_identity (object_id INTEGER PRIMARY KEY, next INTEGER, last INTEGER);
    CREATE TABLE IF NOT EXISTS sp_log_tx (lsn INTEGER NOT NULL, began INTEGER, ended INTEGER, commands INTEGER);
    CREATE INDEX IF NOT EXISTS sp_log_tx_lsn ON sp_log_tx (lsn);
    CREATE TABLE IF NOT EXISTS sp_job (name TEXT PRIMARY KEY, retention INTEGER, threshold INTEGER, polling INTEGER, maxtrans INTEGER,
        maxscans INTEGER, continuous INTEGER);
    INSERT OR IGNORE INTO sp_state (name, value) VALUES ('ct_version', 0), ('lsn', 0), ('writer', 0);
";

impl Core {
    pub(crate) fn open(path: PathBuf, temporary: bool) -> Result<Self> {
        let connection = connect(&path)?;
        connection.execute_batch(TABLES)?;
        for name in ["service_broker_guid", "recovery_fork_guid", "family_guid"] {
            connection.execute(
                "INSERT OR IGNORE INTO sp_meta (name, value) VALUES (?1, ?2)",
                [name, &uuid::Uuid::new_v4().to_string()],
            )?;
        }
        connection.execute(
            "INSERT OR IGNORE INTO sp_state (name, value) VALUES ('created', ?1)",
            [super::clock::utc_ticks()],
        )?;
        let mut catalog = load(&connection)?;
        catalog.version = 1;
        let now = super::clock::utc_ticks();
        Ok(Self {
            path,
            temporary,
            catalog: Mutex::new(Arc::new(catalog)),
            ids: AtomicU64::new(1),
            versions: AtomicU64::new(2),
            // SQL Server keeps the first fifty for itself.
            sessions: AtomicI64::new(51),
            transactions: AtomicU64::new(1000),
            epoch: AtomicU64::new(0),
            writer: Mutex::new(None),
            writer_free: Condvar::new(),
            parses: Mutex::default(),
            settings: Mutex::new(Settings {
                capture_delay: Duration::ZERO,
                polling: None,
                idle_mark: Duration::from_secs(5),
                offset_minutes: 0,
                deferred: Deferred::KeysOnly,
                shuffled: false,
                net_update: false,
                denied: HashSet::new(),
            }),
            job: Mutex::new(Job { running: true, started: now, stopped: None, scans: Vec::new() }),
            locks: Mutex::default(),
            locks_free: Condvar::new(),
            started: now,
        })
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        connect(&self.path)
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&lock(&self.catalog))
    }

    pub(crate) fn publish(&self, catalog: &Arc<Catalog>) {
        *lock(&self.catalog) = Arc::clone(catalog);
    }

    pub(crate) fn store_catalog(&self, connection: &Connection, catalog: &Catalog) -> Result<()> {
        let text = serde_json::to_string(catalog).map_err(|error| fault(50000, 16, error.to_string()))?;
        connection.execute("INSERT OR REPLACE INTO sp_meta (name, value) VALUES ('catalog', ?1)", [text])?;
        Ok(())
    }

    pub(crate) fn next_session(&self) -> i64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_transaction(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    pub(crate) fn offset_minutes(&self) -> i32 {
        self.settings().offset_minutes
    }

    pub(crate) fn switches(&self) -> (HashSet<String>, bool) {
        let settings = self.settings();
        (settings.denied.clone(), settings.net_update)
    }

    pub(crate) fn log_switches(&self) -> (Deferred, bool) {
        let settings = self.settings();
        (settings.deferred, settings.shuffled)
    }

    pub(crate) fn parse(&self, sql: &str) -> Result<Batch> {
        if let Some(batch) = lock(&self.parses).get(sql) {
            return Ok(Arc::clone(batch));
        }
        let batch = parser::parse(sql, &self.ids)?;
        let mut parses = lock(&self.parses);
        if parses.len() >= PARSES_MAX {
            parses.clear();
        }
        parses.insert(sql.to_owned(), Arc::clone(&batch));
        Ok(batch)
    }

    /// Waits for the writer's turn; for ever without patience, but not beyond an attention.
    pub(crate) fn begin_write(
        &self,
        session: i64,
        patience: Option<Duration>,
        cancelled: Option<&AtomicBool>,
    ) -> Result<()> {
        let start = Instant::now();
        let mut writer = lock(&self.writer);
        while writer.is_some() {
            let left = match patience {
                Some(patience) => match patience.checked_sub(start.elapsed()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return Err(fault(1222, 16, "Lock request time out period exceeded.").state(51)),
                },
                None => ATTENTION,
            };
            if cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                return Err(cancelled_fault());
            }
            writer = match self.writer_free.wait_timeout(writer, left.min(ATTENTION)) {
                Ok((writer, _)) => writer,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *writer = Some(session);
        Ok(())
    }

    /// The turn ends.
    pub(crate) fn end_write(&self, session: i64) {
        let mut writer = lock(&self.writer);
        if *writer == Some(session) {
            *writer = None;
        }
        drop(writer);
        self.writer_free.notify_one();
    }

    pub(crate) fn run_capture_job(&self, run: bool) {
        let mut job = lock(&self.job);
        let now = super::clock::utc_ticks();
        if run && !job.running {
            (job.started, job.stopped) = (now, None);
        }
        if !run && job.running {
            job.stopped = Some(now);
        }
        job.running = run;
    }

    /// Gives up what a session holds.
    pub(crate) fn release_locks(&self, session: i64) {
        let mut locks = lock(&self.locks);
        for holders in locks.values_mut() {
            holders.retain(|(holder, _, _)| *holder != session);
        }
        locks.retain(|_, holders| !holders.is_empty());
        drop(locks);
        self.locks_free.notify_all();
    }

    /// Gives up what a session's transaction holds.
    pub(crate) fn release_transaction_locks(&self, session: i64) {
        let mut locks = lock(&self.locks);
        if locks.is_empty() {
            return;
        }
        for holders in locks.values_mut() {
            holders.retain(|(holder, _, transaction)| *holder != session || !*transaction);
        }
        locks.retain(|_, holders| !holders.is_empty());
        drop(locks);
        self.locks_free.notify_all();
    }

    pub(crate) fn backup(&self) -> Result<PathBuf> {
        let path = std::env::temp_dir().join(format!("smartpulse-stand-in-{}.bak", uuid::Uuid::new_v4().simple()));
        let connection = self.connect()?;
        connection.execute("VACUUM INTO ?1", [path.to_string_lossy()])?;
        Ok(path)
    }

    pub(crate) fn restore(&self, from: &Path) -> Result<()> {
        const RESTORER: i64 = -2;
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.begin_write(RESTORER, Some(Duration::from_secs(30)), None)?;
        let restored = self.restore_as_writer(from);
        self.end_write(RESTORER);
        restored
    }

    fn restore_as_writer(&self, from: &Path) -> Result<()> {
        let source = Connection::open(from)?;
        let mut target = self.connect()?;
        target.busy_timeout(Duration::from_secs(30))?;
        {
            let backup = rusqlite::backup::Backup::new(&source, &mut target)?;
            backup.run_to_completion(1000, Duration::from_millis(5), None)?;
        }
        let guid = uuid::Uuid::new_v4().to_string();
        target.execute("UPDATE sp_meta SET value = ?1 WHERE name = 'recovery_fork_guid'", [guid])?;
        let mut catalog = load(&target)?;
        catalog.version = self.next_version();
        self.publish(&Arc::new(catalog));
        Ok(())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.temporary {
            for end in ["", "-wal", "-shm"] {
                let mut name = self.path.as_os_str().to_owned();
                name.push(end);
                let _ = std::fs::remove_file(name);
            }
        }
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // The data is for tests: a crash of the process loses nothing, one of the machine may.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY; PRAGMA recursive_triggers = OFF; \
         PRAGMA cache_size = -16000;",
    )?;
    connection.set_prepared_statement_cache_capacity(256);
    // Copying a database sorts its indexes, and texts are in this order.
    connection.create_collation("CI", super::repr::compare_text)?;
    Ok(connection)
}

fn load(connection: &Connection) -> Result<Catalog> {
    let text: Option<String> =
        connection.query_row("SELECT value FROM sp_meta WHERE name = 'catalog'", [], |row| row.get(0)).optional()?;
    match text {
        Some(text) => serde_json::from_str(&text)
            .map_err(|error| fault(50000, 16, format!("the catalogue cannot be read: {error}"))),
        None => Ok(Catalog::new()),
    }
}
