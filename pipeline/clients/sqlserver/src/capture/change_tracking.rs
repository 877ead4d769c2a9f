//! Net changes by `CHANGETABLE`.
//!
//! One change per key, with the row as it is. An operation is relative to the version that the page began at: I and U are both
//! "this is the row now", and the first is told as an INSERT when the row was created since. A key that came and went in
//! between is a DELETE of something never seen. A deleted row has the version of its tombstone; where a table has none it
//! is 0, which means unknown.
//!
//! A page that does not hold everything keeps its upper version in its positions, so that the pages of one poll are of one
//! range: what changes meanwhile gets a version above and is found by the next. Each page asks for what changed since the
//! last version that was given as a whole, so that all pages together read everything once; it keeps the first one's
//! baseline too, but only to tell rows that were created since from others.
//!
//! Without SNAPSHOT isolation the row may be newer than the change (the next poll repeats it), or gone: then its delete is on
//! its way, and the change is left out. What clean-up took while rows were read is noticed, because the lowest
//! valid version is read again behind them.

use super::position::{CtAt, CtPosition};
use super::{Capture, Clock, incarnation};
use crate::catalogue::TableInfo;
use crate::connection::{Connection, Param};
use crate::errors::Outcome;
use crate::rows;
use crate::statements::capture::{self as sql, CT_COLUMNS, CtPage};
use smartpulse_clients::database::{Change, ChangePage, Poll};
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::{Operation, Position};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tiberius::{ColumnData, Row};

/// How far change tracking is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CtState {
    pub incarnation: String,
    pub current: i64,
    pub min_valid: i64,
    pub clock: Clock,
}

impl CtState {
    fn read(table: &str, row: &Row) -> Result<Self> {
        let versions = rows::integer(row, 0).zip(rows::integer(row, 1));
        let (current, min_valid) = versions.ok_or_else(|| {
            Error::fatal(format!(
                "change tracking of {table} is off, or the login lacks VIEW CHANGE TRACKING on it: `smartpulse plan` \
                 prints the statements that switch it on and grant it"
            ))
        })?;
        Ok(Self { incarnation: incarnation(row, 3), current, min_valid, clock: Clock::read(row, 2) })
    }

    /// Why changes since a position cannot be told any more.
    fn lost(&self, info: &TableInfo, position: &CtPosition) -> Option<String> {
        let (since, upto) = match position.at {
            CtAt::Version(version) => (version, version),
            CtAt::Inside { upto, .. } => (position.at.since(), upto),
        };
        let name = &info.table.name;
        if position.incarnation != self.incarnation {
            return Some(format!(
                "the position is of the database {}, and this one is {}: it was restored, or is another",
                position.incarnation, self.incarnation
            ));
        }
        if position.table != info.object_id {
            return Some(format!("the position is of another table than the {name} there is now"));
        }
        if since < self.min_valid {
            return Some(format!(
                "changes of {name} since version {since} were cleaned up, or it was truncated: the lowest valid version \
                 is {}",
                self.min_valid
            ));
        }
        (upto > self.current).then(|| {
            format!("the position is at version {upto}, and the newest is {}: an older copy was restored", self.current)
        })
    }
}

/// The position after the newest committed change.
pub(super) async fn head(capture: &Capture, connection: &mut Connection, table: &str) -> Outcome<Position> {
    let info = capture.cx.catalogue.get(connection, table).await?;
    let state = state(capture, connection, &info).await?;
    let at = CtAt::Version(state.current);
    Ok(CtPosition { incarnation: state.incarnation, table: info.object_id, at }.to_position())
}

/// How far change tracking is: one statement.
pub(super) async fn state(capture: &Capture, connection: &mut Connection, info: &TableInfo) -> Outcome<CtState> {
    let azure = capture.azure(connection).await?;
    let what = format!("poll of {}", info.table.name);
    let found = connection.rows(&what, &sql::ct_state(azure), &[Param::int(info.object_id)]).await?;
    let row = found.first().ok_or_else(|| Error::unavailable(format!("{what} gave no row")))?;
    Ok(CtState::read(&info.table.name, row)?)
}

/// The changes after a position.
pub(super) async fn poll(
    capture: &Capture,
    connection: &mut Connection,
    table: &str,
    after: &Position,
    limit: usize,
) -> Outcome<Poll> {
    let position = match CtPosition::parse(after) {
        Ok(position) => position,
        Err(why) => return Ok(Poll::PositionLost(why)),
    };
    let info = capture.cx.catalogue.get(connection, table).await?;
    let state = state(capture, connection, &info).await?;
    if let Some(why) = state.lost(&info, &position) {
        return Ok(Poll::PositionLost(why));
    }
    if position.at == CtAt::Version(state.current) {
        return Ok(Poll::Changes(ChangePage { changes: Vec::new(), next: after.clone(), more: false }));
    }
    let page = CtPage {
        azure: capture.azure(connection).await?,
        commit_times: capture.commit_times.load(Ordering::Relaxed),
        resumed: matches!(position.at, CtAt::Inside { .. }),
    };
    read(connection, &info, &position, page, limit, capture.cx.batch_timeout()).await
}

async fn read(
    connection: &mut Connection,
    info: &TableInfo,
    position: &CtPosition,
    page: CtPage,
    limit: usize,
    timeout: Duration,
) -> Outcome<Poll> {
    let (baseline, fixed) = match &position.at {
        CtAt::Version(version) => (*version, None),
        CtAt::Inside { baseline, upto, .. } => (*baseline, Some(*upto)),
    };
    // One more than asked for tells whether more wait.
    let mut params = vec![
        Param::int(info.object_id),
        Param::count(limit.saturating_add(1)),
        Param::bigint(position.at.since()),
        Param::text(info.section.as_str()),
    ];
    if let CtAt::Inside { upto, version, key, .. } = &position.at {
        let Some(key) = info.key_params(key) else {
            return Ok(Poll::PositionLost(format!("{key:?}, in the position, is no key of {}", info.table.name)));
        };
        params.extend([Param::bigint(*upto), Param::bigint(*version)]);
        params.extend(key);
    }
    let what = format!("changes of {}", info.table.name);
    connection.set_command_timeout(timeout);
    let (mut state, mut min_after, mut found) = (None, None, Vec::new());
    connection
        .each(&what, &sql::ct_page(info, page), &params, |result, row| {
            match (result, &state) {
                (0, _) => state = Some(CtState::read(&info.table.name, row)?),
                (1, Some(state)) => found.push(Net::read(info, row, baseline, &state.clock)?),
                _ => min_after = rows::integer(row, 0),
            }
            Ok(())
        })
        .await?;
    let (Some(state), Some(min_after)) = (state, min_after) else {
        return Err(Error::unavailable(format!("{what} gave no versions")).into());
    };
    let state = CtState { min_valid: state.min_valid.max(min_after), ..state };
    if let Some(why) = state.lost(info, position) {
        return Ok(Poll::PositionLost(why));
    }
    let upto = fixed.unwrap_or(state.current);
    let more_here = found.len() > limit;
    found.truncate(limit);
    let place = |at| CtPosition { incarnation: position.incarnation.clone(), table: position.table, at };
    let inside = |net: &Net| {
        place(CtAt::Inside { baseline, upto, version: net.version, key: net.change.key.to_string() }).to_position()
    };
    let next = match found.last().filter(|_| more_here) {
        Some(last) => inside(last),
        None => place(CtAt::Version(upto)).to_position(),
    };
    let told = found.into_iter().filter(|net| net.told).map(|net| {
        let position = inside(&net);
        Change { position, ..net.change }
    });
    let changes = told.collect();
    Ok(Poll::Changes(ChangePage { changes, next, more: more_here || state.current > upto }))
}

/// A net change, and the tracking version that it is ordered by.
struct Net {
    version: i64,
    /// False when the row is gone by now: its delete is on its way.
    told: bool,
    change: Change,
}

impl Net {
    fn read(info: &TableInfo, row: &Row, baseline: i64, clock: &Clock) -> Result<Self> {
        let number = |place| {
            rows::integer(row, place)
                .ok_or_else(|| Error::fatal(format!("a change of {} has no version", info.table.name)))
        };
        let keys = (0..info.key.len()).map(|i| rows::value(row, CT_COLUMNS + i)).collect::<Result<Vec<_>>>()?;
        let key = rows::spell_key(&keys)
            .ok_or_else(|| Error::rejected(format!("a key of {} is NULL or of no key type", info.table.name)))?;
        let (version, image) = (number(0)?, CT_COLUMNS + info.key.len());
        let position = Position::from("");
        let commit_time = clock.commit_time(row, 4);
        let deleted = rows::text(row, 2).is_some_and(|operation| operation.trim_end() == "D");
        if deleted {
            let change = Change {
                key,
                version: rows::integer(row, 3).unwrap_or(0),
                operation: Operation::Delete,
                document: None,
                unreadable: None,
                commit_time,
                position,
            };
            return Ok(Self { version, told: true, change });
        }
        // The creation is older than the page, or unknown: an update. A row that was deleted and created again counts as
        // created, whatever the server calls it.
        let created = rows::integer(row, 1).is_some_and(|created| created > baseline);
        let operation = if created { Operation::Insert } else { Operation::Update };
        let first_key = info.key.first().map_or(image, |place| image + place);
        let told = !is_null(rows::value(row, first_key)?);
        let (mut document, mut unreadable, mut row_version) = (None, None, 0);
        if told {
            (document, unreadable) = info.shape.image(row, image, None);
            match info.shape.version(row, image) {
                Ok(version) => row_version = version,
                Err(error) => (document, unreadable) = (None, Some(error.chain())),
            }
        }
        let change = Change { key, version: row_version, operation, document, unreadable, commit_time, position };
        Ok(Self { version, told, change })
    }
}

fn is_null(value: &ColumnData<'static>) -> bool {
    matches!(
        value,
        ColumnData::Guid(None)
            | ColumnData::String(None)
            | ColumnData::I64(None)
            | ColumnData::I32(None)
            | ColumnData::I16(None)
            | ColumnData::U8(None)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::forecasts;
    use smartpulse_pipeline::Timestamp;

    fn lost(position: CtAt, min_valid: i64) -> Option<String> {
        let clock = Clock { now: Timestamp::from_millis(0), offset_minutes: 0 };
        let state = CtState { incarnation: "a".into(), current: 9, min_valid, clock };
        state.lost(&forecasts(), &CtPosition { incarnation: "a".into(), table: forecasts().object_id, at: position })
    }

    #[test]
    fn edge_06_a_position_at_the_lowest_valid_version_is_good_and_one_below_is_lost() {
        assert_eq!(lost(CtAt::Version(5), 5), None);
        assert!(lost(CtAt::Version(4), 5).is_some_and(|why| why.contains("cleaned up")));
        // All up to the version before is given: whether that is still known is what counts, not where the pages began.
        let inside = |version| CtAt::Inside { baseline: 1, upto: 8, version, key: "k".into() };
        assert_eq!(lost(inside(6), 5), None);
        assert!(lost(inside(5), 5).is_some_and(|why| why.contains("since version 4")));
    }

    #[test]
    fn a_position_above_the_newest_version_or_of_another_database_or_table_is_lost() {
        assert_eq!(lost(CtAt::Version(9), 0), None);
        assert!(lost(CtAt::Version(10), 0).is_some_and(|why| why.contains("older copy")));
        let clock = Clock { now: Timestamp::from_millis(0), offset_minutes: 0 };
        let state = CtState { incarnation: "a".into(), current: 9, min_valid: 0, clock };
        for (incarnation, table, why) in [("b", 0, "restored"), ("a", 77, "another table")] {
            let at = CtAt::Version(5);
            let position = CtPosition { incarnation: incarnation.into(), table, at };
            assert!(state.lost(&forecasts(), &position).is_some_and(|text| text.contains(why)), "{why}");
        }
    }
}
