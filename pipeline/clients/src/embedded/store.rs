//! The store of a running graph on `smartpulse.db`: positions, keyed state, dead letters.
//!
//! Contract: that of [`Store`]. Every call is one transaction, durable when it returns as the file's
//! `synchronous` setting says. `smartpulse position` and `dlq` may work on the same file at the same time.
//!
//! Bounds: dead letters are at most `dead_letters_max`. Beyond that `put_dead_letters` fails as unavailable
//! and stores none of its letters: the stream is held until letters were discarded or replayed, because silently
//! dropping the oldest would lose events. Positions are few; keyed state is as large as the set of keys.

use super::connection::Failure;
use super::state_file::StateFile;
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::event::{Key, Operation};
use smartpulse_pipeline::state::{DeadLetter, DeadLetterFilter, KeyState, Store, StoredDeadLetter, StoredPosition};
use smartpulse_pipeline::{Position, Timestamp};
use uuid::Uuid;

/// How many dead letters are kept unless set otherwise. At a typical kilobyte each, 100 MB; a human who has not
/// looked at so many will not be helped by more.
pub const DEAD_LETTERS_MAX: usize = 100_000;

const LETTER_COLUMNS: &str = "id, pipeline, component, reason, attempts, section, key, version, operation, time, \
                              origin, payload, replay_requested";

/// The store on a state file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    file: StateFile,
    dead_letters_max: usize,
}

impl SqliteStore {
    /// A store that keeps at most [`DEAD_LETTERS_MAX`] dead letters.
    #[must_use]
    pub fn new(file: StateFile) -> Self {
        Self { file, dead_letters_max: DEAD_LETTERS_MAX }
    }

    /// The same with another limit.
    #[must_use]
    pub fn dead_letters_max(mut self, limit: usize) -> Self {
        self.dead_letters_max = limit;
        self
    }

    async fn read<R: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R> {
        self.file.readers.run(what, move |connection| work(&connection.transaction()?)).await
    }

    async fn write<R: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R> {
        let run = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        self.file.writer.run(what, run).await
    }

    async fn remove(&self, ids: &[i64], sql: &'static str) -> Result<usize> {
        let ids = ids.to_vec();
        self.write("remove dead letters", move |transaction| {
            let mut statement = transaction.prepare_cached(sql)?;
            let mut removed = 0;
            for id in ids {
                removed += statement.execute([id])?;
            }
            Ok(removed)
        })
        .await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn position(&self, id: &str) -> Result<Option<Position>> {
        let id = id.to_owned();
        self.read("read a position", move |transaction| {
            let mut statement = transaction.prepare_cached("SELECT position FROM positions WHERE id = ?1")?;
            let bytes: Option<Vec<u8>> = statement.query_row([id], |row| row.get(0)).optional()?;
            Ok(bytes.map(Position::from))
        })
        .await
    }

    async fn commit_position(&self, id: &str, position: &Position) -> Result<()> {
        let (id, position) = (id.to_owned(), position.clone());
        self.write("commit a position", move |transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO positions (id, position, updated_at) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE
                     SET position = excluded.position, updated_at = excluded.updated_at",
                )?
                .execute(params![id, position.as_bytes(), Timestamp::now().as_millis()])?;
            Ok(())
        })
        .await
    }

    async fn reset_position(&self, id: &str) -> Result<usize> {
        let id = id.to_owned();
        self.write("reset positions", move |transaction| {
            // '0' follows '/', so the range is everything below `id/`; LIKE would read wildcards in the id.
            let sql = "DELETE FROM positions WHERE id = ?1 OR (id >= ?1 || '/' AND id < ?1 || '0')";
            Ok(transaction.execute(sql, [id])?)
        })
        .await
    }

    async fn positions(&self) -> Result<Vec<StoredPosition>> {
        self.read("list positions", |transaction| {
            let mut statement = transaction.prepare("SELECT id, position, updated_at FROM positions ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                Ok(StoredPosition {
                    id: row.get(0)?,
                    position: Position::from(row.get::<_, Vec<u8>>(1)?),
                    updated_at: Timestamp::from_millis(row.get(2)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn load_state(&self, chain: &str, keys: &[Key]) -> Result<Vec<Option<KeyState>>> {
        let (chain, keys) = (chain.to_owned(), keys.to_vec());
        self.read("load keyed state", move |transaction| {
            let Some(chain) = chain_id(transaction, &chain)? else { return Ok(vec![None; keys.len()]) };
            let mut statement =
                transaction.prepare_cached("SELECT version, document FROM key_states WHERE chain = ?1 AND key = ?2")?;
            let load = |key: Key| -> Result<Option<KeyState>, Failure> {
                let found = statement.query_row(params![chain, &*key], |row| Ok((row.get(0)?, row.get(1)?)));
                let found: Option<(i64, Option<Vec<u8>>)> = found.optional()?;
                Ok(found.map(|(version, document)| KeyState { key, version, document: document.map(Bytes::from) }))
            };
            keys.into_iter().map(load).collect()
        })
        .await
    }

    async fn commit_state(&self, chain: &str, entries: &[KeyState]) -> Result<()> {
        let (chain, entries) = (chain.to_owned(), entries.to_vec());
        self.write("commit keyed state", move |transaction| {
            transaction
                .prepare_cached("INSERT INTO chains (name) VALUES (?1) ON CONFLICT (name) DO NOTHING")?
                .execute([&chain])?;
            let chain = chain_id(transaction, &chain)?;
            let mut statement = transaction.prepare_cached(
                "INSERT INTO key_states (chain, key, version, document) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (chain, key) DO UPDATE SET version = excluded.version, document = excluded.document
                 WHERE excluded.version >= key_states.version",
            )?;
            for entry in &entries {
                statement.execute(params![chain, &*entry.key, entry.version, entry.document.as_deref()])?;
            }
            Ok(())
        })
        .await
    }

    async fn state_page(&self, chain: &str, after: Option<&str>, limit: usize) -> Result<Vec<KeyState>> {
        let (chain, after) = (chain.to_owned(), after.map(str::to_owned));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read("read a page of keyed state", move |transaction| {
            let Some(chain) = chain_id(transaction, &chain)? else { return Ok(Vec::new()) };
            let mut statement = transaction.prepare_cached(
                "SELECT key, version, document FROM key_states
                 WHERE chain = ?1 AND (?2 IS NULL OR key > ?2) ORDER BY key LIMIT ?3",
            )?;
            let rows = statement.query_map(params![chain, after, limit], |row| {
                let key: String = row.get(0)?;
                let document: Option<Vec<u8>> = row.get(2)?;
                Ok(KeyState { key: key.into(), version: row.get(1)?, document: document.map(Bytes::from) })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn reset_state(&self, chain: &str) -> Result<()> {
        let chain = chain.to_owned();
        self.write("reset keyed state", move |transaction| {
            let chain = chain_id(transaction, &chain)?;
            transaction.execute("DELETE FROM key_states WHERE chain = ?1", [chain])?;
            transaction.execute("DELETE FROM chains WHERE id = ?1", [chain])?;
            Ok(())
        })
        .await
    }

    async fn put_dead_letters(&self, letters: &[DeadLetter]) -> Result<()> {
        let (letters, limit) = (letters.to_vec(), self.dead_letters_max);
        self.write("store dead letters", move |transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO dead_letters (fingerprint, pipeline, component, reason, attempts, section, key, version,
                     operation, time, origin, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (fingerprint) DO UPDATE SET reason = excluded.reason, attempts = excluded.attempts,
                     time = excluded.time, origin = excluded.origin, replay_requested = 0",
            )?;
            for letter in &letters {
                statement.execute(params![
                    fingerprint(letter),
                    letter.pipeline,
                    letter.component,
                    letter.reason,
                    letter.attempts,
                    letter.section,
                    letter.key,
                    letter.version,
                    letter.operation.map(operation_text),
                    letter.time.as_millis(),
                    serde_json::to_string(&letter.origin)
                        .map_err(|e| Error::rejected("the origin of a dead letter has no JSON form").because(e))?,
                    &*letter.payload,
                ])?;
            }
            let count: i64 = transaction.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0))?;
            if usize::try_from(count).unwrap_or(0) > limit {
                return Err(Failure::Own(Error::unavailable(format!(
                    "the store holds {limit} dead letters and takes no more: discard or replay some (smartpulse dlq)"
                ))));
            }
            Ok(())
        })
        .await
    }

    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<StoredDeadLetter>> {
        let filter = filter.clone();
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        self.read("list dead letters", move |transaction| {
            let sql = format!(
                "SELECT {LETTER_COLUMNS} FROM dead_letters WHERE (?1 IS NULL OR pipeline = ?1)
                 AND (?2 IS NULL OR component = ?2) ORDER BY id DESC LIMIT ?3"
            );
            letters(transaction, &sql, params![filter.pipeline, filter.component, limit])
        })
        .await
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<StoredDeadLetter>> {
        self.read("read a dead letter", move |transaction| {
            let sql = format!("SELECT {LETTER_COLUMNS} FROM dead_letters WHERE id = ?1");
            Ok(letters(transaction, &sql, [id])?.pop())
        })
        .await
    }

    async fn request_replay(&self, id: i64) -> Result<bool> {
        self.write("request a replay", move |transaction| {
            Ok(transaction.execute("UPDATE dead_letters SET replay_requested = 1 WHERE id = ?1", [id])? > 0)
        })
        .await
    }

    async fn requested_replays(&self, pipeline: &str, component: &str, limit: usize) -> Result<Vec<StoredDeadLetter>> {
        let (pipeline, component) = (pipeline.to_owned(), component.to_owned());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read("list requested replays", move |transaction| {
            let sql = format!(
                "SELECT {LETTER_COLUMNS} FROM dead_letters WHERE pipeline = ?1 AND component = ?2
                 AND replay_requested = 1 ORDER BY id LIMIT ?3"
            );
            letters(transaction, &sql, params![pipeline, component, limit])
        })
        .await
    }

    async fn remove_dead_letters(&self, ids: &[i64]) -> Result<usize> {
        self.remove(ids, "DELETE FROM dead_letters WHERE id = ?1").await
    }

    async fn remove_replayed(&self, ids: &[i64]) -> Result<usize> {
        self.remove(ids, "DELETE FROM dead_letters WHERE id = ?1 AND replay_requested = 1").await
    }
}

fn chain_id(connection: &Connection, chain: &str) -> Result<Option<i64>, Failure> {
    let mut statement = connection.prepare_cached("SELECT id FROM chains WHERE name = ?1")?;
    Ok(statement.query_row([chain], |row| row.get(0)).optional()?)
}

/// What makes two letters the same one: UUIDv5 (SHA-1) over the parts, each after its length.
pub(super) fn fingerprint(letter: &DeadLetter) -> [u8; 16] {
    let mut text = Vec::with_capacity(letter.payload.len() + 128);
    let version = letter.version.map(|v| v.to_string());
    let parts = [
        Some(letter.pipeline.as_bytes()),
        Some(letter.component.as_bytes()),
        letter.key.as_deref().map(str::as_bytes),
        version.as_deref().map(str::as_bytes),
        Some(&*letter.payload),
    ];
    for part in parts {
        text.push(u8::from(part.is_some()));
        let part = part.unwrap_or_default();
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &text).into_bytes()
}

fn operation_text(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "INSERT",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    }
}

fn letters(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<StoredDeadLetter>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(letter(row)?);
    }
    Ok(found)
}

fn letter(row: &Row<'_>) -> Result<StoredDeadLetter, Failure> {
    let origin: String = row.get(10)?;
    let operation: Option<String> = row.get(8)?;
    Ok(StoredDeadLetter {
        id: row.get(0)?,
        replay_requested: row.get(12)?,
        letter: DeadLetter {
            pipeline: row.get(1)?,
            component: row.get(2)?,
            reason: row.get(3)?,
            attempts: row.get(4)?,
            section: row.get(5)?,
            key: row.get(6)?,
            version: row.get(7)?,
            operation: operation.and_then(|text| match text.as_str() {
                "INSERT" => Some(Operation::Insert),
                "UPDATE" => Some(Operation::Update),
                "DELETE" => Some(Operation::Delete),
                _ => None,
            }),
            time: Timestamp::from_millis(row.get(9)?),
            origin: serde_json::from_str(&origin)
                .map_err(|e| Error::fatal("a stored dead letter has an unreadable origin").because(e))?,
            payload: Bytes::from(row.get::<_, Vec<u8>>(11)?),
        },
    })
}
