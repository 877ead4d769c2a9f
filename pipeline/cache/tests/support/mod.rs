//! A database in memory, for tests: honest about versions, deterministic, and with its answers under control.
//! A read takes its snapshot when it is called and gives it back when the test lets it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use smartpulse_clients::database::{
    CaptureHealth, CaptureMode, CapturePlan, Database, ForecastQuery, Inserted, Page, Poll, Row, SharedDatabase, Table,
    Tombstone, Write, Written,
};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Key, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// How the double behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Answers at once.
    #[default]
    Up,
    /// Answers after a while.
    Distant(Duration),
    /// Refuses at once.
    Away,
    /// Never answers.
    Silent,
}

/// An answer that waits to be given.
pub struct HeldAnswer {
    pub what: String,
    release: oneshot::Sender<()>,
}

impl HeldAnswer {
    pub fn release(self) {
        // The asker may have given up.
        let _ = self.release.send(());
    }
}

#[derive(Default)]
struct State {
    rows: BTreeMap<String, (i64, Map<String, Value>)>,
    tombstones: BTreeMap<String, i64>,
    unreadable: BTreeSet<String>,
    mode: Mode,
    hold: bool,
    held: Vec<HeldAnswer>,
}

#[derive(Default)]
pub struct MemoryDatabase {
    state: Mutex<State>,
    pub gets: AtomicUsize,
    pub lists: AtomicUsize,
    pub scans: AtomicUsize,
}

impl MemoryDatabase {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn shared(self: &Arc<Self>) -> SharedDatabase {
        Arc::clone(self) as SharedDatabase
    }

    pub fn set_mode(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// From now on nobody can read this key's row.
    pub fn make_unreadable(&self, key: &str) {
        self.state.lock().unwrap().unreadable.insert(key.to_owned());
    }

    /// From now on answers wait for [`MemoryDatabase::take_held`], or no longer.
    pub fn hold_answers(&self, hold: bool) {
        self.state.lock().unwrap().hold = hold;
    }

    /// The answers that wait, oldest first.
    pub fn take_held(&self) -> Vec<HeldAnswer> {
        std::mem::take(&mut self.state.lock().unwrap().held)
    }

    /// Waits until an answer is being held, and takes it.
    pub async fn next_held(&self) -> HeldAnswer {
        // Yields, not time, which tests pause: seconds of them, where microseconds are needed.
        for _ in 0..10_000_000 {
            if let Some(held) = self.first_held() {
                return held;
            }
            tokio::task::yield_now().await;
        }
        panic!("nobody asked the database");
    }

    fn first_held(&self) -> Option<HeldAnswer> {
        let mut state = self.state.lock().unwrap();
        (!state.held.is_empty()).then(|| state.held.remove(0))
    }

    /// Commits a write as another writer would, whatever the mode.
    pub fn commit(&self, write: Write) -> Written {
        self.state.lock().unwrap().commit(write)
    }

    /// Commits an insert or an update of these members, and gives the row.
    pub fn set(&self, key: &str, members: Value) -> Row {
        let Value::Object(members) = members else { panic!("members are an object") };
        let mut state = self.state.lock().unwrap();
        let exists = state.rows.contains_key(key);
        let written = state.commit(if exists {
            Write::Update { key: key.into(), expected_version: None, members }
        } else {
            let mut with_id = members;
            with_id.insert("id".into(), key.into());
            Write::Insert { members: with_id }
        });
        match written {
            Written::Done(row) => row,
            other => panic!("{other:?}"),
        }
    }

    /// Commits a delete, and gives the tombstone's version.
    pub fn delete(&self, key: &str) -> i64 {
        match self.commit(Write::Delete { key: key.into(), expected_version: None }) {
            Written::Done(row) => row.version,
            other => panic!("{other:?}"),
        }
    }

    /// The truth about a key.
    pub fn row(&self, key: &str) -> Option<Row> {
        self.state.lock().unwrap().row(key)
    }

    /// What every call does before it answers: take the snapshot, then wait as long as the test wants.
    async fn answer<T>(&self, what: impl Into<String>, snapshot: impl FnOnce(&mut State) -> T) -> Result<T> {
        let (taken, wait, distance) = {
            let mut state = self.state.lock().unwrap();
            match state.mode {
                Mode::Away => return Err(Error::unavailable("the database is away")),
                Mode::Silent => (None, None, None),
                Mode::Up | Mode::Distant(_) => {
                    let taken = snapshot(&mut state);
                    let wait = state.hold.then(|| {
                        let (release, wait) = oneshot::channel();
                        state.held.push(HeldAnswer { what: what.into(), release });
                        wait
                    });
                    let distance = if let Mode::Distant(time) = state.mode { Some(time) } else { None };
                    (Some(taken), wait, distance)
                }
            }
        };
        let Some(taken) = taken else {
            return std::future::pending().await;
        };
        if let Some(wait) = wait {
            // A test that ends drops the sender.
            let _ = wait.await;
        }
        if let Some(time) = distance {
            tokio::time::sleep(time).await;
        }
        Ok(taken)
    }
}

impl State {
    fn row(&self, key: &str) -> Option<Row> {
        let (version, members) = self.rows.get(key)?;
        let unreadable = self.unreadable.contains(key).then(|| "it is no UTF-8".to_owned());
        Some(Row { key: key.into(), version: *version, document: image(*version, members), unreadable })
    }

    fn commit(&mut self, write: Write) -> Written {
        match write {
            Write::Insert { members } => {
                let id = members["id"].as_str().unwrap().to_owned();
                if self.rows.contains_key(&id) {
                    return Written::Exists;
                }
                let version = self.tombstones.get(&id).map_or(1, |version| version + 1);
                self.rows.insert(id.clone(), (version, members));
                Written::Done(self.row(&id).unwrap())
            }
            Write::Update { key, expected_version, members } => {
                let Some((version, row)) = self.rows.get_mut(&*key) else {
                    return Written::NotFound;
                };
                if expected_version.is_some_and(|expected| expected != *version) {
                    return Written::VersionMismatch(*version);
                }
                *version += 1;
                row.extend(members);
                Written::Done(self.row(&key).unwrap())
            }
            Write::Delete { key, expected_version } => {
                let Some((version, _)) = self.rows.get(&*key) else {
                    return Written::NotFound;
                };
                if expected_version.is_some_and(|expected| expected != *version) {
                    return Written::VersionMismatch(*version);
                }
                let (version, last) = self.rows.remove(&*key).unwrap();
                self.tombstones.insert(key.to_string(), version + 1);
                Written::Done(Row { key, version: version + 1, document: image(version, &last), unreadable: None })
            }
        }
    }
}

fn image(version: i64, members: &Map<String, Value>) -> Bytes {
    let mut row = members.clone();
    let variance = match (row.get("supply").and_then(Value::as_f64), row.get("demand").and_then(Value::as_f64)) {
        (Some(supply), Some(demand)) => json!(supply - demand),
        _ => Value::Null,
    };
    row.insert("variance".into(), variance);
    row.insert("versionId".into(), version.into());
    Bytes::from(Value::Object(row).to_string())
}

#[async_trait]
impl Database for MemoryDatabase {
    async fn ping(&self) -> Result<()> {
        self.answer("ping", |_| ()).await
    }

    async fn create_schema(&self) -> Result<()> {
        Ok(())
    }

    async fn table(&self, name: &str) -> Result<Table> {
        Ok(Table { name: name.to_owned(), columns: Vec::new(), capture: Vec::new(), tombstones: true })
    }

    async fn head(&self, _: &str, _: CaptureMode) -> Result<Position> {
        Err(Error::fatal("the double captures nothing"))
    }

    async fn changes(&self, _: &str, _: CaptureMode, _: &Position, _: usize) -> Result<Poll> {
        Err(Error::fatal("the double captures nothing"))
    }

    async fn capture_health(&self, _: &str, _: CaptureMode, _: &Position) -> Result<CaptureHealth> {
        Err(Error::fatal("the double captures nothing"))
    }

    async fn capture_plan(&self, _: &str) -> Result<CapturePlan> {
        Err(Error::fatal("the double captures nothing"))
    }

    async fn insert_absent(&self, _: &str, _: &[Map<String, Value>]) -> Result<Inserted> {
        Err(Error::fatal("the double inserts nothing in bulk"))
    }

    async fn tombstones(&self, _: &str, after: Option<&str>, limit: usize) -> Result<Vec<Tombstone>> {
        let after = after.map(str::to_owned);
        self.answer("tombstones", |state| {
            let buried = state.tombstones.iter().filter(|(key, _)| !state.rows.contains_key(*key));
            let next = buried.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
            let deleted_at = smartpulse_pipeline::Timestamp::from_millis(0);
            next.take(limit)
                .map(|(key, version)| Tombstone { key: key.as_str().into(), version: *version, deleted_at })
                .collect()
        })
        .await
    }

    async fn scan(&self, _: &str, after: Option<&str>, limit: usize) -> Result<Vec<Row>> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        let after = after.map(str::to_owned);
        self.answer("scan", |state| {
            let keys: Vec<String> = state
                .rows
                .keys()
                .filter(|key| after.as_ref().is_none_or(|after| *key > after))
                .take(limit)
                .cloned()
                .collect();
            keys.iter().filter_map(|key| state.row(key)).collect()
        })
        .await
    }

    async fn get(&self, _: &str, keys: &[Key]) -> Result<Vec<Row>> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let what = keys.join(",");
        let rows: Vec<Row> = self.answer(what, |state| keys.iter().filter_map(|key| state.row(key)).collect()).await?;
        match rows.iter().find_map(|row| row.unreadable.clone()) {
            Some(reason) => Err(Error::rejected(reason)),
            None => Ok(rows),
        }
    }

    async fn list_forecasts(&self, query: &ForecastQuery) -> Result<Page> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.answer("list", |state| {
            let is = |row: &Map<String, Value>, member: &str, wanted: &Option<String>| {
                wanted.as_deref().is_none_or(|wanted| row.get(member).and_then(Value::as_str) == Some(wanted))
            };
            let mut keys: Vec<(String, String)> = state
                .rows
                .iter()
                .filter(|(_, (_, row))| {
                    let company = row.get("companyId").and_then(Value::as_str);
                    let companies = query.companies.as_deref();
                    companies.is_none_or(|all| all.iter().any(|one| Some(&**one) == company))
                        && is(row, "productionUnitId", &query.production_unit_id)
                })
                .map(|(key, (_, row))| {
                    (row.get("forecastDate").and_then(Value::as_str).unwrap_or("").to_owned(), key.clone())
                })
                .filter(|(date, _)| {
                    query.from.as_ref().is_none_or(|from| date >= from) && query.to.as_ref().is_none_or(|to| date < to)
                })
                .collect();
            keys.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            let total = keys.len() as u64;
            let rows = keys.iter().skip(query.skip as usize).take(query.take as usize);
            Page { total, rows: rows.filter_map(|(_, key)| state.row(key)).collect() }
        })
        .await
    }

    async fn write(&self, _: &str, writes: Vec<Write>) -> Result<Vec<Written>> {
        self.answer("write", |state| writes.into_iter().map(|write| state.commit(write)).collect()).await
    }
}
