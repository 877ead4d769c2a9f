//! What a commit leaves for the two kinds of capture: rows of change tracking, and records of the log.
//!
//! There is one writer at a time, so the version and the LSN of a transaction are known at its first change: nobody else
//! can commit in between. A rollback takes the rows back together with the change.

use super::Core;
use super::catalog::{Index, Instance, Table};
use super::errors::Result;
use super::{Deferred, clock, repr, types};
use rusqlite::Connection;
use rusqlite::types::Value as Cell;

/// A row before and after.
pub(crate) struct Image<'r> {
    pub old: Option<&'r [Cell]>,
    pub new: Option<&'r [Cell]>,
}

/// A transaction's part in change tracking and in the log.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    began: i64,
    version: Option<i64>,
    tracked: i64,
    lsn: Option<i64>,
    instance: Option<i64>,
    logged: i64,
    command: i64,
}

/// Operations of change tracking, as they stand in the last two bits of `seq`.
const INSERTED: i64 = 0;
const UPDATED: i64 = 1;
const DELETED: i64 = 2;

/// An LSN's bytes: virtual log file, block, slot. The file changes every 1,000 transactions, and begins just below where
/// two bytes would do, so that whoever squeezes or compares LSNs wrongly is found out.
pub(crate) fn lsn_bytes(number: i64) -> [u8; 10] {
    let mut bytes = [0; 10];
    let file = u32::try_from(0xfff0 + number / 1000).unwrap_or(u32::MAX);
    let block = u32::try_from((number % 1000) * 64 + 16).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&file.to_be_bytes());
    bytes[4..8].copy_from_slice(&block.to_be_bytes());
    bytes[8..].copy_from_slice(&3_u16.to_be_bytes());
    bytes
}

/// The number of an LSN.
pub(crate) fn lsn_number(bytes: &[u8]) -> i64 {
    let part = |range: std::ops::Range<usize>| {
        bytes.get(range).map_or(0, |part| part.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
    };
    (part(0..4) - 0xfff0) * 1000 + (part(4..8) - 16) / 64
}

fn seqval(lsn: i64, place: i64) -> Vec<u8> {
    let mut bytes = lsn_bytes(lsn).to_vec();
    let low = u64::try_from(place).unwrap_or(0).to_be_bytes();
    bytes[4..].copy_from_slice(&low[2..]);
    bytes
}

impl Tracking {
    pub(crate) fn begun(now: i64) -> Self {
        Self { began: now, ..Self::default() }
    }

    /// Notes the changes of one statement.
    pub(crate) fn changed(
        &mut self,
        connection: &Connection,
        core: &Core,
        table: &Table,
        changes: &[Image<'_>],
    ) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        if table.change_tracking {
            self.track(connection, table, changes)?;
        }
        if !table.instances.is_empty() {
            self.command += 1;
            let lsn = self.log(connection)?;
            let (deferred, shuffled) = core.log_switches();
            let before = self.logged;
            for instance in &table.instances {
                // Both instances see the same log.
                self.logged = before;
                let mut writer = LogWriter {
                    connection,
                    table,
                    instance,
                    lsn,
                    command: self.command,
                    shuffled,
                    insert: insert_record(instance),
                };
                for change in changes {
                    self.logged += writer.write(change, self.logged, deferred)?;
                }
            }
        }
        Ok(())
    }

    fn track(&mut self, connection: &Connection, table: &Table, changes: &[Image<'_>]) -> Result<()> {
        let Some(key) = table.primary_key() else { return Ok(()) };
        let version = match self.version {
            Some(version) => version,
            None => {
                let last: i64 = connection
                    .prepare_cached("SELECT value FROM sp_state WHERE name = 'ct_version'")?
                    .query_row([], |row| row.get(0))?;
                self.version = Some(last + 1);
                last + 1
            }
        };
        let places: Vec<usize> = key.columns.iter().filter_map(|(id, _)| table.place(*id)).collect();
        let names = key.columns.iter().map(|(id, _)| format!("k{id}")).collect::<Vec<_>>().join(", ");
        let marks = (3..places.len() + 3).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        let mut insert = connection
            .prepare_cached(&format!("INSERT INTO ct{} (version, seq, {names}) VALUES (?1, ?2, {marks})", table.id))?;
        let mut note = |row: &[Cell], operation: i64| -> Result<()> {
            let seq = (((version << 30) + self.tracked) << 2) | operation;
            self.tracked += 1;
            let head = [Cell::Integer(version), Cell::Integer(seq)];
            insert.execute(rusqlite::params_from_iter(head.iter().chain(places.iter().map(|place| &row[*place]))))?;
            Ok(())
        };
        for change in changes {
            match (change.old, change.new) {
                (None, Some(new)) => note(new, INSERTED)?,
                (Some(old), None) => note(old, DELETED)?,
                // Another key is a deletion and an insertion.
                (Some(old), Some(new)) if places.iter().any(|place| old[*place] != new[*place]) => {
                    note(old, DELETED)?;
                    note(new, INSERTED)?;
                }
                (_, Some(new)) => note(new, UPDATED)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// The LSN of instances that the transaction makes. Changes of the same transaction come at a later one, for the record of
    /// the instance is a record by itself.
    pub(crate) fn instance_lsn(&mut self, connection: &Connection) -> Result<i64> {
        if let Some(lsn) = self.instance {
            return Ok(lsn);
        }
        let lsn = next_lsn(connection)?;
        self.instance = Some(lsn);
        Ok(lsn)
    }

    fn log(&mut self, connection: &Connection) -> Result<i64> {
        if let Some(lsn) = self.lsn {
            return Ok(lsn);
        }
        let lsn = next_lsn(connection)?;
        self.lsn = Some(lsn);
        Ok(lsn)
    }

    /// At the commit: the version and the record of the transaction.
    pub(crate) fn finish(&self, connection: &Connection) -> Result<()> {
        let now = clock::utc_ticks();
        if let Some(version) = self.version {
            connection
                .prepare_cached("UPDATE sp_state SET value = ?1 WHERE name = 'ct_version'")?
                .execute([version])?;
            connection.prepare_cached("INSERT INTO sp_commit (ts, time) VALUES (?1, ?2)")?.execute([version, now])?;
        }
        if let Some(lsn) = self.lsn {
            connection
                .prepare_cached("INSERT INTO sp_log_tx (lsn, began, ended, commands) VALUES (?1, ?2, ?3, ?4)")?
                .execute([lsn, self.began, now, self.logged])?;
        }
        Ok(())
    }
}

/// Takes the next LSN.
pub(crate) fn next_lsn(connection: &Connection) -> Result<i64> {
    let lsn = connection
        .prepare_cached("UPDATE sp_state SET value = value + 1 WHERE name = 'lsn' RETURNING value")?
        .query_row([], |row| row.get(0))?;
    Ok(lsn)
}

/// Operations of the log.
const LOG_DELETE: i64 = 1;
const LOG_INSERT: i64 = 2;
const LOG_BEFORE: i64 = 3;
const LOG_AFTER: i64 = 4;

struct LogWriter<'w> {
    connection: &'w Connection,
    table: &'w Table,
    instance: &'w Instance,
    lsn: i64,
    command: i64,
    shuffled: bool,
    insert: String,
}

/// The text that writes one record.
fn insert_record(instance: &Instance) -> String {
    // The columns of the system and the captured ones, behind the number of the LSN.
    let width = instance.columns.len() + 6;
    let columns = (1..=width).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let marks = (1..=width + 1).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    format!("INSERT INTO {} (lsn, {columns}) VALUES ({marks})", instance.log)
}

impl LogWriter<'_> {
    /// Writes the records of one change; how many places of the transaction they take.
    fn write(&mut self, change: &Image<'_>, at: i64, deferred: Deferred) -> Result<i64> {
        let all = vec![true; self.instance.columns.len()];
        match (change.old, change.new) {
            (None, Some(new)) => {
                self.record(at, LOG_INSERT, &all, new, None)?;
                Ok(1)
            }
            (Some(old), None) => {
                self.record(at, LOG_DELETE, &all, old, None)?;
                Ok(1)
            }
            (Some(old), Some(new)) => {
                let changed: Vec<bool> = self
                    .instance
                    .columns
                    .iter()
                    .map(|id| self.table.place(*id).is_some_and(|place| old[place] != new[place]))
                    .collect();
                // An update that changes nothing leaves nothing in the log.
                if old == new {
                    return Ok(0);
                }
                let keys = self.table.indexes.iter().filter(|index| index.unique).flat_map(|index| &index.columns);
                let key_changed =
                    keys.filter_map(|(id, _)| self.table.place(*id)).any(|place| old[place] != new[place]);
                match deferred {
                    Deferred::DeleteThenInsert => self.pair(at, at + 1, old, new),
                    Deferred::InsertThenDelete => self.pair(at + 1, at, old, new),
                    Deferred::SameSeqval => self.pair(at, at, old, new),
                    Deferred::KeysOnly if key_changed => self.pair(at, at + 1, old, new),
                    Deferred::KeysOnly => {
                        self.record(at, LOG_BEFORE, &changed, old, Some(&changed))?;
                        self.record(at, LOG_AFTER, &changed, new, Some(&changed))?;
                        Ok(1)
                    }
                }
            }
            (None, None) => Ok(0),
        }
    }

    /// An update as a deletion and an insertion, at two places of the log.
    fn pair(&mut self, delete_at: i64, insert_at: i64, old: &[Cell], new: &[Cell]) -> Result<i64> {
        let all = vec![true; self.instance.columns.len()];
        if insert_at < delete_at {
            self.record(insert_at, LOG_INSERT, &all, new, None)?;
            self.record(delete_at, LOG_DELETE, &all, old, None)?;
        } else {
            self.record(delete_at, LOG_DELETE, &all, old, None)?;
            self.record(insert_at, LOG_INSERT, &all, new, None)?;
        }
        Ok(2)
    }

    /// One record. In the images of an update a `max` column that did not change is NULL.
    fn record(&mut self, at: i64, operation: i64, bits: &[bool], row: &[Cell], changed: Option<&[bool]>) -> Result<()> {
        let place = if self.shuffled { (1_000_000 - self.command) * 1_000_000 + at } else { at + 1 };
        let mut values = vec![
            Cell::Integer(self.lsn),
            Cell::Blob(lsn_bytes(self.lsn).to_vec()),
            Cell::Null,
            Cell::Blob(seqval(self.lsn, place)),
            Cell::Integer(operation),
            Cell::Blob(mask(bits)),
        ];
        for (ordinal, id) in self.instance.columns.iter().enumerate() {
            let cell = match self.table.place(*id) {
                Some(place) => {
                    let column = &self.table.columns[place];
                    let hidden = types::is_max(column.sql_type) && changed.is_some_and(|changed| !changed[ordinal]);
                    if hidden { Cell::Null } else { row[place].clone() }
                }
                None => Cell::Null,
            };
            values.push(cell);
        }
        values.push(Cell::Integer(self.command));
        self.connection.prepare_cached(&self.insert)?.execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }
}

/// Bits as bytes: column 1 is the lowest bit of the last byte.
fn mask(bits: &[bool]) -> Vec<u8> {
    let length = bits.len().div_ceil(8);
    let mut bytes = vec![0; length];
    for (at, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
        bytes[length - 1 - at / 8] |= 1 << (at % 8);
    }
    bytes
}

/// Begins change tracking of a table: what happened before is not known.
pub(crate) fn enable(connection: &Connection, table: &Table, key: &Index) -> Result<()> {
    let columns = key
        .columns
        .iter()
        .filter_map(|(id, _)| table.column_by_id(*id))
        .map(|column| format!("k{}{}", column.id, if types::is_text(column.sql_type) { " COLLATE CI" } else { "" }))
        .collect::<Vec<_>>()
        .join(", ");
    let names = key.columns.iter().map(|(id, _)| format!("k{id}")).collect::<Vec<_>>().join(", ");
    let id = table.id;
    connection.execute_batch(&format!(
        "CREATE TABLE ct{id} (version INTEGER NOT NULL, seq INTEGER PRIMARY KEY, {columns}); \
         CREATE INDEX ct{id}_version ON ct{id} (version); CREATE INDEX ct{id}_key ON ct{id} ({names})"
    ))?;
    connection.execute(
        "INSERT INTO sp_ct_table (object_id, begun, cleanup, min_valid) SELECT ?1, value, 0, value FROM sp_state WHERE name = 'ct_version'",
        [id],
    )?;
    Ok(())
}

/// Ends change tracking of a table.
pub(crate) fn disable(connection: &Connection, id: i64) -> Result<()> {
    connection
        .execute_batch(&format!("DROP TABLE IF EXISTS ct{id}; DELETE FROM sp_ct_table WHERE object_id = {id}"))?;
    Ok(())
}

/// TRUNCATE is not tracked row by row: what was known is gone, and who has read up to now must read everything again.
pub(crate) fn truncated(connection: &Connection, id: i64) -> Result<()> {
    connection.execute_batch(&format!("DELETE FROM ct{id}"))?;
    let version: i64 = connection.query_row(
        "UPDATE sp_state SET value = value + 1 WHERE name = 'ct_version' RETURNING value",
        [],
        |row| row.get(0),
    )?;
    connection.execute("INSERT INTO sp_commit (ts, time) VALUES (?1, ?2)", [version, clock::utc_ticks()])?;
    connection.execute("UPDATE sp_ct_table SET begun = ?2, min_valid = ?2 WHERE object_id = ?1", [id, version])?;
    Ok(())
}

/// Forgets changes up to a version: who has read up to it or further loses nothing.
pub(crate) fn clean_up(connection: &Connection, table: i64, version: i64) -> Result<()> {
    connection.execute(&format!("DELETE FROM ct{table} WHERE version <= ?1"), [version])?;
    connection.execute(
        "UPDATE sp_ct_table SET cleanup = max(cleanup, ?2), min_valid = max(min_valid, ?2) WHERE object_id = ?1",
        [table, version],
    )?;
    Ok(())
}

/// A day of the log in units of 100 ns, for retention.
pub(crate) fn retention_ticks(count: i64, units: u8) -> i64 {
    let minutes = match units {
        1 => 1,
        2 => 60,
        _ => 1440,
    };
    count * minutes * 60 * repr::TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::{lsn_bytes, lsn_number, mask};

    #[test]
    fn lsns_rise_as_bytes_and_cannot_be_squeezed_into_64_bits() {
        let mut last = lsn_bytes(0);
        for number in 1..40_000 {
            let lsn = lsn_bytes(number);
            assert!(lsn > last, "{number}");
            assert_eq!(lsn_number(&lsn), number);
            last = lsn;
        }
        assert_eq!(&lsn_bytes(15_999)[..4], [0, 0, 0xff, 0xff]);
        assert_eq!(&lsn_bytes(16_000)[..4], [0, 1, 0, 0]);
    }

    #[test]
    fn the_first_column_is_the_lowest_bit_of_the_last_byte() {
        assert_eq!(mask(&[true, false, false, false, true]), [0x11]);
        assert_eq!(mask(&[true; 9]), [0x01, 0xff]);
    }
}
