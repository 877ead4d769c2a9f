//! Every change, from the change tables.
//!
//! One poll asks how far the capture job is and which instances there are, and reads rows only if the job has moved. Rows at
//! or below the LSN that was asked first are stable. They come in the order of the whole tuple, LSN, command, seqval,
//! operation, and pages begin behind such a tuple, so that a transaction of any size is read in pages. What the rows
//! mean is for [`fold`](super::fold) to say.
//!
//! The last page of what there is ends at the LSN that was asked first, also when it is empty: the position of a table at
//! rest must not fall behind clean-up.
//!
//! The job is behind what was committed. Whoever reads rows beside the stream marks the moment with a write of its own, to a
//! captured table of one row, and has come to it when the mark is in that table's change table: the job reads the log in its
//! order.
//!
//! Values of `max` types that an update did not change, and computed columns, are not in the log: they come from the row as
//! it is now. They may be newer than the change, and then the change that brings them follows.

use super::fold::{DELETE, Fate, INSERT, Raw, UPDATE, Window};
use super::instances::{CdcState, Instance, Next};
use super::position::{CdcAt, CdcPosition, InstanceId, Lsn, Place};
use super::{Capture, Clock, Known, incarnation};
use crate::catalogue::TableInfo;
use crate::connection::{Connection, Param};
use crate::errors::Outcome;
use crate::rows;
use crate::statements::capture::{self as sql, CDC_PAGE_COLUMNS};
use bytes::Bytes;
use smartpulse_clients::database::{Change, ChangePage, Poll, SchemaChange, Watermark};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Operation, Position, Timestamp};
use std::sync::Arc;
use tiberius::{ColumnData, Row};
use uuid::Uuid;

/// Rows beyond a page by which its last ones are judged: the other half of an update is next to it nearly always.
const LOOK_AHEAD: usize = 64;

/// The most rows of one page: with two rows of a kilobyte per change, 20 MB.
const ROWS_MAX: usize = 20_000;

/// The most keys that one question about the rest of a transaction names. A call takes 2,100 parameters.
const KEYS_MAX: usize = 512;

/// The position after the newest committed change that the job has come to.
pub(super) async fn head(capture: &Capture, connection: &mut Connection, table: &str) -> Outcome<Position> {
    let info = capture.cx.catalogue.get(connection, table).await?;
    let (state, _) = state(capture, connection, &info).await?;
    Ok(state.head(table)?.to_position())
}

/// How far the job is, and the instances of a table: one statement.
pub(super) async fn state(
    capture: &Capture,
    connection: &mut Connection,
    info: &TableInfo,
) -> Outcome<(CdcState, Clock)> {
    let azure = capture.azure(connection).await?;
    let what = format!("poll of {}", info.table.name);
    let found = connection.rows(&what, &sql::cdc_state(azure), &[Param::int(info.object_id)]).await?;
    let mut state = CdcState { incarnation: String::new(), max: Lsn::ZERO, instances: Vec::new() };
    let mut clock = Clock { now: Timestamp::now(), offset_minutes: 0 };
    for row in &found {
        state.incarnation = incarnation(row, 7);
        state.max = lsn(row, 0).unwrap_or_default();
        clock = Clock::read(row, 6);
        state.instances.push(Instance {
            id: InstanceId {
                object: rows::integer(row, 3).and_then(|id| i32::try_from(id).ok()).unwrap_or_default(),
                created: rows::time(row, 4).map_or(0, Timestamp::as_millis),
            },
            name: rows::text(row, 5).unwrap_or_default().to_owned(),
            start: lsn(row, 2).filter(|start| *start != Lsn::ZERO),
            min: lsn(row, 1).unwrap_or_default(),
        });
    }
    Ok((state, clock))
}

fn lsn(row: &Row, place: usize) -> Option<Lsn> {
    rows::bytes(row, place).and_then(Lsn::from_bytes)
}

/// Marks this moment.
pub(super) async fn mark(connection: &mut Connection) -> Outcome<Watermark> {
    let mark = Uuid::new_v4();
    let found = connection.rows("watermark", sql::MARK, &[Param(ColumnData::Guid(Some(mark)))]).await?;
    let marked = found.first().filter(|row| rows::integer(row, 1) == Some(1));
    let row = marked.ok_or_else(|| {
        Error::fatal("dbo.SmartPulseWatermark has no row to mark: `smartpulse plan` prints what a DBA must run")
    })?;
    let max = lsn(row, 0).unwrap_or_default();
    Ok(Watermark([&max.0[..], mark.as_bytes()].concat()))
}

/// Whether the job has come past a mark.
pub(super) async fn is_past(connection: &mut Connection, mark: &Watermark) -> Outcome<bool> {
    let parsed = mark.0.split_first_chunk::<10>().zip(mark.0.get(10..).and_then(|id| Uuid::from_slice(id).ok()));
    let ((max, _), id) = parsed.ok_or_else(|| Error::fatal("a watermark is none of ours"))?;
    let params = [Param(ColumnData::Guid(Some(id))), Param::bytes(*max)];
    Ok(!connection.rows("watermark", sql::MARKED, &params).await?.is_empty())
}

/// The changes after a position.
pub(super) async fn poll(
    capture: &Capture,
    connection: &mut Connection,
    table: &str,
    after: &Position,
    limit: usize,
) -> Outcome<Poll> {
    let position = match CdcPosition::parse(after) {
        Ok(position) => position,
        Err(why) => return Ok(Poll::PositionLost(why)),
    };
    let info = capture.cx.catalogue.get(connection, table).await?;
    let (state, clock) = state(capture, connection, &info).await?;
    let next = state.next(table, &position)?;
    if capture.is_outdated(&info, &next) {
        capture.cx.catalogue.forget(table);
    }
    let info = capture.cx.catalogue.get(connection, table).await?;
    match next {
        Next::Idle => Ok(Poll::Changes(ChangePage { changes: Vec::new(), next: after.clone(), more: false })),
        Next::Lost(why) => Ok(Poll::PositionLost(why)),
        Next::Changed { from, to, at } => {
            let reason = reason(capture, connection, &info, from.as_ref(), &to).await?;
            let next = CdcPosition { incarnation: state.incarnation, instance: to.id, at }.to_position();
            Ok(Poll::SchemaChanged(SchemaChange { reason, next }))
        }
        Next::Read { instance, upto } => {
            let known = capture.known(connection, &info, &instance).await?;
            connection.set_command_timeout(capture.cx.batch_timeout());
            let page = Page { info: &info, known: &known, instance: &instance, clock, position: &position, upto };
            page.read(connection, limit, upto < state.max).await
        }
    }
}

/// What a person is told when another instance takes over.
async fn reason(
    capture: &Capture,
    connection: &mut Connection,
    info: &Arc<TableInfo>,
    from: Option<&Instance>,
    to: &Instance,
) -> Outcome<String> {
    let (table, new) = (&info.table.name, &to.name);
    let Some(from) = from else {
        return Ok(format!("the capture instance of {table} that was read was dropped; {new} goes on in its place"));
    };
    let (before, after) = (capture.known(connection, info, from).await?, capture.known(connection, info, to).await?);
    let differs = after.shape.differs_from(&before.shape);
    Ok(format!("the capture instance {new} of {table} takes over from {}: it {differs}", from.name))
}

/// One reading of a change table.
struct Page<'a> {
    info: &'a Arc<TableInfo>,
    known: &'a Known,
    instance: &'a Instance,
    clock: Clock,
    position: &'a CdcPosition,
    upto: Lsn,
}

/// What a row of a change table would become.
struct Image {
    document: Option<Bytes>,
    unreadable: Option<String>,
    commit_time: Timestamp,
    /// What happened, where the row has no version by which its neighbours could tell.
    unversioned: Option<Operation>,
}

impl Page<'_> {
    async fn read(&self, connection: &mut Connection, limit: usize, more_behind: bool) -> Outcome<Poll> {
        // Most changes have one row; where a trigger's is a second one, a page has fewer changes.
        let count = limit.saturating_add(LOOK_AHEAD + 1).min(ROWS_MAX);
        let (raws, images, min) = self.rows(connection, count).await?;
        if min > self.position.at.needs() {
            return Ok(Poll::PositionLost(Instance { min, ..self.instance.clone() }.cleaned(self.position.at)));
        }
        let complete = raws.len() < count;
        let judged = if complete { raws.len() } else { raws.len() - LOOK_AHEAD };
        let mut window = Window::new(&raws, &[], complete, self.known.rules);
        let unresolved = window.unresolved(judged);
        let beyond;
        if !unresolved.is_empty() {
            beyond = self.beyond(connection, &raws, &unresolved).await?;
            window = Window::new(&raws, &beyond, complete, self.known.rules);
        }
        let (mut changes, mut boundary, mut full): (Vec<Change>, _, _) = (Vec::new(), None, false);
        // Whether nothing but the rest of the last change came behind it.
        let mut adjacent = false;
        for (index, (raw, image)) in raws.iter().zip(images).enumerate().take(judged) {
            let fate = match image.unversioned {
                Some(operation) => Fate::Change(operation, 0),
                None => window.fate(index),
            };
            match fate {
                Fate::Change(..) if changes.len() == limit => {
                    full = true;
                    break;
                }
                Fate::Change(operation, version) => {
                    (boundary, adjacent) = (Some(raw.place), true);
                    changes.push(Change {
                        key: raw.key.clone(),
                        version,
                        operation,
                        document: image.document,
                        unreadable: image.unreadable,
                        commit_time: image.commit_time,
                        position: self.at(CdcAt::After(raw.place)),
                    });
                }
                Fate::Trailing => {
                    boundary = Some(raw.place);
                    if let Some(last) = changes.last_mut().filter(|_| adjacent) {
                        last.position = self.at(CdcAt::After(raw.place));
                    }
                }
                Fate::Dropped => {
                    adjacent = false;
                    // Not between the halves of an update, where it can be helped.
                    if raw.place.operation == UPDATE {
                        boundary = Some(raw.place);
                    }
                }
            }
        }
        let next = match changes.last() {
            Some(last) if full => last.position.clone(),
            _ if complete => self.at(CdcAt::Through(self.upto)),
            _ => match boundary.or_else(|| raws.get(judged.saturating_sub(1)).map(|raw| raw.place)) {
                Some(place) => self.at(CdcAt::After(place)),
                None => self.position.to_position(),
            },
        };
        Ok(Poll::Changes(ChangePage { changes, next, more: full || !complete || more_behind }))
    }

    fn at(&self, at: CdcAt) -> Position {
        CdcPosition { incarnation: self.position.incarnation.clone(), instance: self.instance.id, at }.to_position()
    }

    /// The rows, what they would become, and the lowest LSN that was still there behind them.
    async fn rows(&self, connection: &mut Connection, count: usize) -> Outcome<(Vec<Raw>, Vec<Image>, Lsn)> {
        let at = self.position.at;
        let mut params = vec![
            Param::count(count),
            Param::bytes(at.lsn().0),
            Param::bytes(self.upto.0),
            Param::text(self.info.section.as_str()),
            Param::text(self.instance.name.as_str()),
        ];
        let inside = matches!(at, CdcAt::After(_));
        if let CdcAt::After(place) = at {
            params.extend([Param::int(place.command), Param::bytes(place.seqval.0), Param::int(place.operation)]);
        }
        let statement = sql::cdc_page(self.info, &self.known.shape, inside);
        let (mut raws, mut images, mut min) = (Vec::new(), Vec::new(), None);
        let what = format!("changes of {}", self.info.table.name);
        connection
            .each(&what, &statement, &params, |result, row| {
                if result == 0 {
                    let raw = self.raw(row)?;
                    images.push(self.image(&raw, row));
                    raws.push(raw);
                } else {
                    min = lsn(row, 0);
                }
                Ok(())
            })
            .await?;
        let Some(min) = min.filter(|min| *min != Lsn::ZERO) else {
            let text = format!("{what}: the capture instance {} was dropped meanwhile", self.instance.name);
            return Err(Error::transient(text).into());
        };
        Ok((raws, images, min))
    }

    /// What follows in the last transaction about the entities of some rows.
    async fn beyond(&self, connection: &mut Connection, raws: &[Raw], unresolved: &[usize]) -> Outcome<Vec<Raw>> {
        let (mut found, Some(last)) = (Vec::new(), raws.last()) else { return Ok(Vec::new()) };
        let wanted = unresolved.iter().filter_map(|index| raws.get(*index));
        let mut keys: Vec<Vec<Param>> = wanted.filter_map(|raw| self.info.key_params(&raw.key)).collect();
        let what = format!("rest of a transaction of {}", self.info.table.name);
        while !keys.is_empty() {
            let mut chunk = keys.split_off(keys.len().saturating_sub(KEYS_MAX / self.info.key.len().max(1)));
            // A power of two of them, the last one repeated: the server keeps a plan per text.
            let count = chunk.len().next_power_of_two();
            if let Some(filler) = chunk.last().cloned() {
                chunk.resize(count, filler);
            }
            let mut params = vec![
                Param::bytes(last.place.lsn.0),
                Param::int(last.place.command),
                Param::bytes(last.place.seqval.0),
                Param::text(self.info.section.as_str()),
                Param::int(last.place.operation),
            ];
            params.extend(chunk.into_iter().flatten());
            let statement = sql::cdc_beyond(self.info, &self.known.shape, count);
            connection
                .each(&what, &statement, &params, |_, row| {
                    found.push(self.raw(row)?);
                    Ok(())
                })
                .await?;
        }
        found.sort_by_key(|raw| raw.place);
        Ok(found)
    }

    fn raw(&self, row: &Row) -> Result<Raw> {
        let broken = || Error::fatal(format!("a row of the change table of {} has no place", self.instance.name));
        let number = |place| rows::integer(row, place).and_then(|n| i32::try_from(n).ok());
        let place = Place {
            lsn: lsn(row, 0).ok_or_else(broken)?,
            // NULL in rows of before an upgrade to a server that knows it.
            command: number(1).unwrap_or_default(),
            seqval: lsn(row, 2).ok_or_else(broken)?,
            operation: number(3).ok_or_else(broken)?,
        };
        Ok(Raw {
            place,
            key: self.known.shape.shape.key(row, CDC_PAGE_COLUMNS)?,
            // A row without one is set aside: see `image`.
            version: self.known.shape.shape.version(row, CDC_PAGE_COLUMNS).unwrap_or(0),
            before: rows::integer(row, 5),
            tombstone: rows::integer(row, 6),
            exists: rows::integer(row, 7) == Some(1),
        })
    }

    fn image(&self, raw: &Raw, row: &Row) -> Image {
        let commit_time = self.clock.commit_time(row, 4);
        if let Err(error) = self.known.shape.shape.version(row, CDC_PAGE_COLUMNS) {
            let operation = match raw.place.operation {
                DELETE => Operation::Delete,
                INSERT => Operation::Insert,
                _ => Operation::Update,
            };
            let unreadable = Some(error.chain());
            return Image { document: None, unreadable, commit_time, unversioned: Some(operation) };
        }
        let unchanged = self.known.rules.bumped && raw.before.is_some_and(|before| raw.version <= before);
        if unchanged {
            return Image { document: None, unreadable: None, commit_time, unversioned: None };
        }
        let deleted = raw.place.operation == DELETE;
        let version = deleted.then(|| raw.version.saturating_add(1));
        let (document, unreadable) = self.known.shape.shape.image(row, CDC_PAGE_COLUMNS, version);
        Image { document, unreadable, commit_time, unversioned: None }
    }
}
