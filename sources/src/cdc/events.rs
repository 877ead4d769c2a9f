//! What rows, changes, tombstones and remembered keys become.

use super::Table;
use bytes::Bytes;
use smartpulse_clients::database::{Change, Row, Tombstone};
use smartpulse_json::Document;
use smartpulse_pipeline::source::Unreadable;
use smartpulse_pipeline::state::Origin;
use smartpulse_pipeline::{Event, Key, Operation, Timestamp};
use std::collections::HashSet;

/// What a page becomes, under one lease.
pub(super) struct Events<'a> {
    table: &'a Table,
    epoch: u64,
    pub(super) events: Vec<Event>,
    pub(super) unreadable: Vec<Unreadable>,
}

impl<'a> Events<'a> {
    pub(super) fn new(table: &'a Table, epoch: u64) -> Self {
        Self { table, epoch, events: Vec::new(), unreadable: Vec::new() }
    }

    /// A row of a scan.
    pub(super) fn scanned(&mut self, row: Row) {
        let Row { key, version, document, unreadable } = row;
        if let Some(reason) = unreadable {
            return self.refuse(&key, document, no_json(&reason));
        }
        let mut event = self.event(key, version, Operation::Insert);
        event.snapshot = true;
        // When it was committed is not known any more; that it was true when it was read is.
        event.commit_time = event.capture_time;
        self.push(event, Some(document));
    }

    /// A committed change.
    pub(super) fn changed(&mut self, change: Change) {
        if let Some(reason) = change.unreadable {
            return self.refuse(&change.key, change.document.unwrap_or_default(), no_json(&reason));
        }
        let mut event = self.event(change.key, change.version, change.operation);
        event.commit_time = Some(change.commit_time);
        event.position = Some(change.position.0);
        self.push(event, change.document);
    }

    /// A delete whose version nobody knows, of a table that leaves tombstones: it cannot be told.
    pub(super) fn untold(&mut self, change: &Change) {
        let reason = "the row was deleted and left no tombstone, so that the version of its delete is not known: were the \
                      triggers of versions.sql off? Until the entity is created again, with a higher VersionId, and deleted, \
                      it stays with those who read its events";
        self.refuse(&change.key, Bytes::new(), reason.to_owned());
    }

    /// A key that a scan cannot find, because its row was deleted some time.
    pub(super) fn vanished(&mut self, tombstone: Tombstone) {
        let mut event = self.event(tombstone.key, tombstone.version, Operation::Delete);
        event.snapshot = true;
        event.commit_time = Some(tombstone.deleted_at);
        self.push(event, None);
    }

    pub(super) fn append(&mut self, mut later: Self) {
        self.events.append(&mut later.events);
        self.unreadable.append(&mut later.unreadable);
    }

    /// The keys that it tells of.
    pub(super) fn keys(&self) -> HashSet<&str> {
        let unreadable = self.unreadable.iter().filter_map(|input| input.key.as_deref());
        self.events.iter().map(|event| &*event.key).chain(unreadable).collect()
    }

    fn event(&self, key: Key, version: i64, operation: Operation) -> Event {
        let mut event = Event::new(self.table.section.clone(), key, version, operation, None);
        event.epoch = self.epoch;
        event.capture_time = Some(Timestamp::now());
        event
    }

    fn push(&mut self, mut event: Event, document: Option<Bytes>) {
        match document.clone().map(Document::parse).transpose() {
            Ok(parsed) => {
                event.document = parsed;
                self.events.push(event);
            }
            Err(error) => self.refuse(&event.key, document.unwrap_or_default(), no_json(&error.to_string())),
        }
    }

    fn refuse(&mut self, key: &Key, payload: Bytes, reason: String) {
        self.unreadable.push(Unreadable {
            payload,
            reason,
            key: Some(key.to_string()),
            origin: Origin::Channel(format!("table {}", self.table.name)),
        });
    }
}

fn no_json(reason: &str) -> String {
    format!("the row is no JSON document: {reason}")
}
