//! What rows, changes and tombstones become.

use super::Step;
use super::position::Phase;
use smartpulse_clients::database::{Change, Row, Tombstone};
use smartpulse_json::Document;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::source::{Emission, Unreadable};
use smartpulse_pipeline::state::Origin;
use smartpulse_pipeline::{Event, Key, Operation, Position, Timestamp};
use std::sync::Arc;

/// A captured table at work.
pub(super) struct TableState {
    pub(super) name: String,
    pub(super) section: Arc<str>,
    pub(super) position_id: String,
    /// None until the source has decided where to start.
    pub(super) phase: Option<Phase>,
    pub(super) epoch: u64,
    /// The request for a snapshot that was taken last. It stays in the store until the sweep's position is
    /// committed, so that a crash in between does not lose it.
    pub(super) taken: Option<Position>,
}

/// What a page becomes.
#[derive(Default)]
pub(super) struct Events {
    pub(super) events: Vec<Event>,
    pub(super) unreadable: Vec<Unreadable>,
}

impl Events {
    pub(super) fn push(&mut self, table: &TableState, event: Result<Event, String>, key: &Key, payload: bytes::Bytes) {
        match event {
            Ok(event) => self.events.push(event),
            Err(reason) => self.unreadable.push(Unreadable {
                payload,
                reason: format!("the row is no JSON document: {reason}"),
                key: Some(key.to_string()),
                origin: Origin::Channel(format!("table {}", table.name)),
            }),
        }
    }

    pub(super) fn append(&mut self, mut later: Self) {
        self.events.append(&mut later.events);
        self.unreadable.append(&mut later.unreadable);
    }

    pub(super) fn is_about(&self, key: &Key) -> bool {
        self.events.iter().any(|event| event.key == *key)
            || self.unreadable.iter().any(|input| input.key.as_deref() == Some(&**key))
    }
}

pub(super) fn page(table: &TableState, events: Events, next: Phase, more: bool) -> Result<Step> {
    let position = Some(next.to_position(&table.position_id)?);
    let Events { events, unreadable } = events;
    let emission = Emission { events, unreadable, position, after_loss: false };
    Ok(Step { emission, next, more, position_lost: false })
}

pub(super) fn event_of(table: &TableState, key: Key, version: i64, operation: Operation) -> Event {
    let mut event = Event::new(table.section.clone(), key, version, operation, None);
    event.epoch = table.epoch;
    event.capture_time = Some(Timestamp::now());
    event
}

pub(super) fn vanished(table: &TableState, tombstone: Tombstone) -> Event {
    let mut event = event_of(table, tombstone.key, tombstone.version, Operation::Delete);
    event.snapshot = true;
    event.commit_time = Some(tombstone.deleted_at);
    event
}

pub(super) fn scanned(table: &TableState, row: &Row) -> Result<Event, String> {
    if let Some(reason) = &row.unreadable {
        return Err(reason.clone());
    }
    let mut event = event_of(table, row.key.clone(), row.version, Operation::Insert);
    event.snapshot = true;
    // When it was committed is not known any more; that it was true when it was read is.
    event.commit_time = event.capture_time;
    event.document = Some(Document::parse(row.document.clone()).map_err(|error| error.to_string())?);
    Ok(event)
}

pub(super) fn changed(table: &TableState, change: Change) -> Result<Event, String> {
    if let Some(reason) = change.unreadable {
        return Err(reason);
    }
    let mut event = event_of(table, change.key, change.version, change.operation);
    event.document = change.document.map(Document::parse).transpose().map_err(|error| error.to_string())?;
    event.commit_time = Some(change.commit_time);
    event.position = Some(change.position.0);
    Ok(event)
}
