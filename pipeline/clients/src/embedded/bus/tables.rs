//! The bus's tables: every statement that it runs. Each function is one transaction.

use super::ledger::{Ledger, Unsaved};
use crate::bus::{InitialPosition, Message, MessageId, Outgoing};
use crate::embedded::connection::Failure;
use bytes::Bytes;
use rusqlite::{Connection, Row, TransactionBehavior, params};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::error::Error;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many messages one clean-up transaction removes: a few milliseconds of the writer's time.
const CLEAN_STEP_ROWS: i64 = 2_000;

const MESSAGE_COLUMNS: &str = "id, key, payload, properties, publish_time";

/// The id of a topic, which is created if it is new, and its newest message's.
pub(super) fn open_topic(connection: &mut Connection, name: &str) -> Result<(i64, i64), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("INSERT INTO bus_topics (name) VALUES (?1) ON CONFLICT (name) DO NOTHING", [name])?;
    let topic = transaction.query_row("SELECT id FROM bus_topics WHERE name = ?1", [name], |row| row.get(0))?;
    let newest = newest(&transaction, topic)?;
    transaction.commit()?;
    Ok((topic, newest))
}

/// The id of a topic's newest message; 0 when there is none.
pub(super) fn newest(connection: &Connection, topic: i64) -> Result<i64, Failure> {
    let mut statement = connection.prepare_cached("SELECT max(id) FROM bus_messages WHERE topic = ?1")?;
    Ok(statement.query_row([topic], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0))
}

/// Appends messages in order; gives the last one's id.
pub(super) fn append(connection: &mut Connection, topic: i64, messages: &[Outgoing]) -> Result<i64, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut bytes = 0_i64;
    let mut last = 0;
    let now = Timestamp::now().as_millis();
    {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO bus_messages (topic, key, payload, properties, publish_time) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for message in messages {
            let properties = if message.properties.is_empty() {
                None
            } else {
                let text = serde_json::to_string(&message.properties);
                Some(text.map_err(|e| Error::rejected("properties have no JSON form").because(e))?)
            };
            let size = message.payload.len()
                + message.key.as_deref().map_or(0, str::len)
                + properties.as_deref().map_or(0, str::len);
            bytes += i64::try_from(size).unwrap_or(i64::MAX);
            last = statement.insert(params![topic, message.key, &*message.payload, properties, now])?;
        }
        let mut count = transaction.prepare_cached("UPDATE bus_topics SET bytes = bytes + ?1 WHERE id = ?2")?;
        count.execute([bytes, topic])?;
    }
    transaction.commit()?;
    Ok(last)
}

/// The id and ledger of a durable subscription, which is created if it is new.
pub(super) fn open_subscription(
    connection: &mut Connection,
    topic: i64,
    name: &str,
    initial: InitialPosition,
) -> Result<(i64, Ledger), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let start = match initial {
        InitialPosition::Earliest => 0,
        InitialPosition::Latest => newest(&transaction, topic)?,
    };
    transaction.execute(
        "INSERT INTO bus_subscriptions (topic, name, cursor) VALUES (?1, ?2, ?3)
         ON CONFLICT (topic, name) DO NOTHING",
        params![topic, name, start],
    )?;
    let (id, cursor): (i64, i64) = transaction.query_row(
        "SELECT id, cursor FROM bus_subscriptions WHERE topic = ?1 AND name = ?2",
        params![topic, name],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let acked = transaction
        .prepare("SELECT message FROM bus_acks WHERE subscription = ?1 AND message > ?2")?
        .query_map([id, cursor], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let redeliveries = transaction
        .prepare("SELECT message, count FROM bus_redeliveries WHERE subscription = ?1 AND message > ?2")?
        .query_map([id, cursor], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    transaction.commit()?;
    Ok((id, Ledger::new(cursor, acked, redeliveries)))
}

/// Forgets a durable subscription; false when there is none such.
pub(super) fn delete_subscription(connection: &mut Connection, topic: i64, name: &str) -> Result<bool, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in ["bus_acks", "bus_redeliveries"] {
        transaction.execute(
            &format!(
                "DELETE FROM {table} WHERE subscription IN
                 (SELECT id FROM bus_subscriptions WHERE topic = ?1 AND name = ?2)"
            ),
            params![topic, name],
        )?;
    }
    let deleted =
        transaction.execute("DELETE FROM bus_subscriptions WHERE topic = ?1 AND name = ?2", params![topic, name])?;
    transaction.commit()?;
    Ok(deleted > 0)
}

/// Makes the bookkeeping of subscriptions durable.
pub(super) fn save(connection: &mut Connection, changes: &[(i64, Unsaved)]) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (subscription, unsaved) in changes {
        let cursor = unsaved.cursor;
        transaction
            .prepare_cached("UPDATE bus_subscriptions SET cursor = max(cursor, ?1) WHERE id = ?2")?
            .execute([cursor, *subscription])?;
        for table in ["bus_acks", "bus_redeliveries"] {
            transaction
                .prepare_cached(&format!("DELETE FROM {table} WHERE subscription = ?1 AND message <= ?2"))?
                .execute([*subscription, cursor])?;
        }
        let mut ack = transaction.prepare_cached("INSERT OR IGNORE INTO bus_acks VALUES (?1, ?2)")?;
        for message in &unsaved.acked {
            ack.execute([*subscription, *message])?;
        }
        let mut count = transaction.prepare_cached("INSERT OR REPLACE INTO bus_redeliveries VALUES (?1, ?2, ?3)")?;
        for (message, redeliveries) in &unsaved.redeliveries {
            count.execute([*subscription, *message, i64::from(*redeliveries)])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Messages with their ids, and how far the topic was read.
pub(super) type Loaded = (Vec<(i64, Message)>, i64);

/// The messages of `returned`, then those after the first of `unread`, at most `rows` in all or about `bytes` of payload.
/// A topic read to its end counts as read up to the second of `unread`, the newest id known before, whether or not retention
/// has removed that message.
pub(super) fn load(
    connection: &mut Connection,
    topic: (i64, &Arc<str>),
    returned: &[i64],
    unread: Option<(i64, i64)>,
    rows: usize,
    bytes: usize,
) -> Result<Loaded, Failure> {
    let (topic, name) = topic;
    let transaction = connection.transaction()?;
    let mut messages = Vec::new();
    let mut again = transaction.prepare_cached(&format!("SELECT {MESSAGE_COLUMNS} FROM bus_messages WHERE id = ?1"))?;
    for id in returned {
        let mut found = again.query([id])?;
        if let Some(row) = found.next()? {
            messages.push(message(row, name)?);
        }
    }
    let mut read_to = 0;
    if let Some((after, newest)) = unread {
        let sql =
            format!("SELECT {MESSAGE_COLUMNS} FROM bus_messages WHERE topic = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
        let limit = i64::try_from(rows.saturating_sub(messages.len())).unwrap_or(i64::MAX);
        let mut statement = transaction.prepare_cached(&sql)?;
        let mut found = statement.query([topic, after, limit])?;
        let (mut size, mut count) = (0, 0);
        while size < bytes
            && let Some(row) = found.next()?
        {
            let (id, message) = message(row, name)?;
            size += message.payload.len();
            count += 1;
            read_to = id;
            messages.push((id, message));
        }
        if size < bytes && count < limit {
            read_to = read_to.max(newest);
        }
    }
    Ok((messages, read_to))
}

/// How one topic is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    /// Acked messages published before this go.
    pub before: Timestamp,
    /// The oldest acked messages go while the topic holds more bytes than this.
    pub bytes_max: i64,
    /// Nothing above this goes: what consumers of this process have yet to ack.
    pub floor: i64,
}

/// Removes a step of what every durable subscription has acked and retention no longer keeps. True when there may be more.
pub(super) fn clean(connection: &mut Connection, topic: i64, retention: Retention) -> Result<bool, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut bytes: i64 =
        transaction.query_row("SELECT bytes FROM bus_topics WHERE id = ?1", [topic], |row| row.get(0))?;
    let acked: Option<i64> =
        transaction
            .query_row("SELECT min(cursor) FROM bus_subscriptions WHERE topic = ?1", [topic], |row| row.get(0))?;
    let floor = acked.unwrap_or(i64::MAX).min(retention.floor);
    let (mut edge, mut seen, mut removed) = (None, 0, 0);
    {
        let mut statement = transaction.prepare_cached(
            "SELECT id, publish_time, length(payload) + coalesce(length(CAST(key AS BLOB)), 0)
                 + coalesce(length(CAST(properties AS BLOB)), 0)
             FROM bus_messages WHERE topic = ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query([topic, floor, CLEAN_STEP_ROWS])?;
        while let Some(row) = rows.next()? {
            let (id, time, size): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if time >= retention.before.as_millis() && bytes <= retention.bytes_max {
                break;
            }
            edge = Some(id);
            seen += 1;
            bytes -= size;
            removed += size;
        }
    }
    let Some(edge) = edge else { return Ok(false) };
    transaction.execute("DELETE FROM bus_messages WHERE topic = ?1 AND id <= ?2", [topic, edge])?;
    transaction.execute("UPDATE bus_topics SET bytes = bytes - ?1 WHERE id = ?2", [removed, topic])?;
    transaction.commit()?;
    Ok(seen == CLEAN_STEP_ROWS)
}

fn message(row: &Row<'_>, topic: &Arc<str>) -> Result<(i64, Message), Failure> {
    let id: i64 = row.get(0)?;
    let properties: Option<String> = row.get(3)?;
    let properties = match properties {
        None => BTreeMap::new(),
        Some(text) => serde_json::from_str(&text)
            .map_err(|e| Error::fatal(format!("message {id} has unreadable properties")).because(e))?,
    };
    let message = Message {
        id: MessageId(Bytes::copy_from_slice(&id.to_be_bytes())),
        topic: Arc::clone(topic),
        key: row.get(1)?,
        payload: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        properties,
        publish_time: Timestamp::from_millis(row.get(4)?),
        redeliveries: 0,
    };
    Ok((id, message))
}
