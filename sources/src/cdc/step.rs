//! One step of one table: what to read next, and what it becomes. It changes nothing: the source that emits the result
//! goes on from it.

use super::events::Events;
use super::memory::Known;
use super::position::{Phase, Text};
use super::{OnSchemaChange, Snapshot, Table};
use smartpulse_clients::database::{Change, Poll, SchemaChange, Tombstone};
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::source::Unreadable;
use smartpulse_pipeline::{Event, Key, Operation, Timestamp};
use std::collections::HashMap;

/// What one step gave.
pub(super) struct Step {
    pub(super) events: Vec<Event>,
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) next: Phase,
    /// True when there is more to be had at once.
    pub(super) more: bool,
    /// True when the stream's place was cleaned up.
    pub(super) position_lost: bool,
    /// Why the table waits, where its schema has changed and it does.
    pub(super) blocked: Option<String>,
    /// How many deletes were of keys that nobody was ever told of.
    pub(super) unknown_deletes: u64,
}

/// What the stream gave.
enum Streamed<'a> {
    Changes(Changes<'a>),
    /// Nothing more from this place: what to do instead.
    Instead(Step),
}

struct Changes<'a> {
    events: Events<'a>,
    next: Text,
    more: bool,
    unknown_deletes: u64,
}

/// A table's step under one lease.
pub(super) struct Reader<'a> {
    pub(super) table: &'a Table,
    pub(super) epoch: u64,
    /// Whether the table was captured before, so that keys may have gone since.
    pub(super) known: bool,
}

impl<'a> Reader<'a> {
    /// One page.
    pub(super) async fn step(&self, phase: Option<Phase>) -> Result<Step> {
        let table = self.table;
        let Some(phase) = phase else {
            // Committed before anything else is, so that the stream's start is never noted again.
            let stream = Text::of(&table.database.head(&table.name, table.mode).await?);
            return Ok(self.moved(match table.settings.snapshot {
                Snapshot::Initial if self.known => table.anew(stream),
                Snapshot::Initial => Phase::Snapshot { stream, after: None },
                Snapshot::Never => Phase::Stream { stream },
            }));
        };
        match phase {
            Phase::Sweep { stream, after } => self.sweep(stream, after).await,
            Phase::Snapshot { stream, after } => self.snapshot(stream, after).await,
            Phase::Vanish { stream, after } => self.vanish(stream, after).await,
            Phase::Stream { stream } => {
                let phase = Phase::Stream { stream };
                match self.changes(&phase).await? {
                    Streamed::Changes(changes) => {
                        let next = phase.with_stream(changes.next.clone());
                        Ok(self.page(changes, next))
                    }
                    Streamed::Instead(step) => Ok(step),
                }
            }
        }
    }

    /// A page of tombstones.
    async fn sweep(&self, stream: Text, after: Option<String>) -> Result<Step> {
        let (table, limit) = (self.table, self.table.settings.changes_max);
        let gone = table.database.tombstones(&table.name, after.as_deref(), limit).await?;
        let next = match gone.last() {
            Some(last) if gone.len() >= limit => Phase::Sweep { stream, after: Some(last.key.to_string()) },
            _ => Phase::Snapshot { stream, after: None },
        };
        let mut events = Events::new(table, self.epoch);
        gone.into_iter().for_each(|tombstone| events.vanished(tombstone));
        Ok(self.give(events, next, true))
    }

    /// A page of rows between two readings of the stream.
    async fn snapshot(&self, stream: Text, after: Option<String>) -> Result<Step> {
        let (table, limit) = (self.table, self.table.settings.changes_max);
        let phase = Phase::Snapshot { stream, after };
        let mut before = match self.changes(&phase).await? {
            Streamed::Changes(changes) => changes,
            Streamed::Instead(step) => return Ok(step),
        };
        let phase = phase.with_stream(before.next.clone());
        if before.more {
            return Ok(self.page(before, phase));
        }
        let after = match &phase {
            Phase::Snapshot { after, .. } => after.as_deref(),
            _ => None,
        };
        let rows = table.database.scan(&table.name, after, limit).await?;
        let Streamed::Changes(meanwhile) = self.changes(&phase).await? else {
            // Found again by the next step; what was read before is told first.
            return Ok(self.page_more(before, phase));
        };
        let phase = phase.with_stream(meanwhile.next.clone());
        if meanwhile.more {
            // What changed since the page was read is not all known: the page is read again.
            before.join(meanwhile);
            return Ok(self.page(before, phase));
        }
        let last = (rows.len() >= limit).then(|| rows.last().map(|row| row.key.to_string())).flatten();
        for row in rows {
            if !meanwhile.events.is_about(&row.key) {
                before.events.scanned(row);
            }
        }
        let stream = meanwhile.next.clone();
        before.join(meanwhile);
        let next = match last {
            Some(last) => Phase::Snapshot { stream, after: Some(last) },
            None if table.memory.is_some() => Phase::Vanish { stream, after: None },
            None => {
                tracing::info!(table = table.name, "snapshot complete; streaming");
                Phase::Stream { stream }
            }
        };
        Ok(self.page_more(before, next))
    }

    /// A page of remembered keys: those of them that are not there, and of which the stream does not tell, have vanished.
    async fn vanish(&self, stream: Text, after: Option<String>) -> Result<Step> {
        let (table, limit) = (self.table, self.table.settings.changes_max);
        let Some(memory) = &table.memory else { return Ok(self.moved(Phase::Stream { stream })) };
        let (remembered, last) = memory.page(after.as_deref(), limit).await?;
        let keys: Vec<Key> = remembered.iter().map(|(key, _)| key.clone()).collect();
        let there = if keys.is_empty() { Vec::new() } else { table.database.get(&table.name, &keys).await? };
        let phase = Phase::Vanish { stream, after };
        let mut changes = match self.changes(&phase).await? {
            Streamed::Changes(changes) => changes,
            Streamed::Instead(step) => return Ok(step),
        };
        if changes.more {
            let phase = phase.with_stream(changes.next.clone());
            return Ok(self.page(changes, phase));
        }
        let mut vanished = Events::new(table, self.epoch);
        for (key, version) in remembered {
            if !there.iter().any(|row| row.key == key) && !changes.events.is_about(&key) {
                vanished.vanished(Tombstone { key, version: version + 1, deleted_at: Timestamp::now() });
            }
        }
        changes.events.append(vanished);
        let stream = changes.next.clone();
        let next = match last {
            Some(last) => Phase::Vanish { stream, after: Some(last) },
            None => {
                tracing::info!(table = table.name, "snapshot complete; streaming");
                Phase::Stream { stream }
            }
        };
        Ok(self.page_more(changes, next))
    }

    /// What was committed after the place of a phase.
    async fn changes(&self, phase: &Phase) -> Result<Streamed<'a>> {
        let table = self.table;
        let position = phase.stream().position();
        let limit = table.settings.changes_max;
        match table.database.changes(&table.name, table.mode, &position, limit).await? {
            Poll::Changes(found) => {
                let mut changes = Changes {
                    events: Events::new(table, self.epoch),
                    next: Text::of(&found.next),
                    more: found.more,
                    unknown_deletes: 0,
                };
                let versions = self.versions(&found.changes).await?;
                changes.take(found.changes, versions);
                Ok(Streamed::Changes(changes))
            }
            Poll::PositionLost(reason) => {
                tracing::error!(
                    table = table.name,
                    reason,
                    "changes were cleaned up before they were captured; taking a new snapshot, which tells of what vanished"
                );
                let stream = Text::of(&table.database.head(&table.name, table.mode).await?);
                Ok(Streamed::Instead(Step { position_lost: true, ..self.moved(table.anew(stream)) }))
            }
            Poll::SchemaChanged(change) => Ok(Streamed::Instead(self.schema_changed(phase.clone(), change))),
        }
    }

    fn schema_changed(&self, phase: Phase, change: SchemaChange) -> Step {
        let SchemaChange { reason, next } = change;
        let table = &self.table.name;
        match self.table.settings.on_schema_change {
            OnSchemaChange::Block => Step { blocked: Some(reason), ..self.moved(phase) },
            OnSchemaChange::Switch => {
                tracing::warn!(table, reason, "the table has another shape from here on; capture goes on in it");
                self.moved(phase.with_stream(Text::of(&next)))
            }
            OnSchemaChange::Resnapshot => {
                tracing::warn!(table, reason, "the table has another shape from here on; taking a new snapshot");
                self.moved(self.table.anew(Text::of(&next)))
            }
        }
    }

    /// What is known of the keys whose deletes came without a version.
    async fn versions(&self, changes: &[Change]) -> Result<HashMap<Key, Known>> {
        let Some(memory) = &self.table.memory else { return Ok(HashMap::new()) };
        let keys: Vec<Key> = changes.iter().filter(|change| is_unversioned(change)).map(|c| c.key.clone()).collect();
        let known = memory.load(&keys).await?;
        Ok(keys.into_iter().zip(known).filter_map(|(key, known)| Some((key, known?))).collect())
    }

    fn moved(&self, next: Phase) -> Step {
        self.give(Events::new(self.table, self.epoch), next, true)
    }

    fn page(&self, changes: Changes<'a>, next: Phase) -> Step {
        let Changes { events, more, unknown_deletes, .. } = changes;
        Step { unknown_deletes, ..self.give(events, next, more) }
    }

    fn page_more(&self, changes: Changes<'a>, next: Phase) -> Step {
        Step { more: true, ..self.page(changes, next) }
    }

    fn give(&self, events: Events<'a>, next: Phase, more: bool) -> Step {
        let Events { events, unreadable, .. } = events;
        Step { events, unreadable, next, more, position_lost: false, blocked: None, unknown_deletes: 0 }
    }
}

impl Changes<'_> {
    /// Changes in their order. A delete without a version follows the last version that is known of its key; one of a
    /// key that nobody was told of (inserted and deleted between two polls) tells nothing.
    fn take(&mut self, changes: Vec<Change>, mut known: HashMap<Key, Known>) {
        for mut change in changes {
            if is_unversioned(&change) {
                match known.get(&change.key) {
                    Some(Known { version, there: true }) => change.version = version + 1,
                    // Told before: repeated as it was.
                    Some(Known { version, there: false }) => change.version = *version,
                    None => {
                        self.unknown_deletes += 1;
                        continue;
                    }
                }
            }
            let there = change.operation != Operation::Delete;
            // Only where a later delete may ask; a page has each such key in the map already, or nobody knows it.
            if there || known.contains_key(&change.key) {
                known.insert(change.key.clone(), Known { version: change.version, there });
            }
            self.events.changed(change);
        }
    }

    fn join(&mut self, later: Self) {
        self.events.append(later.events);
        self.next = later.next;
        self.more = later.more;
        self.unknown_deletes += later.unknown_deletes;
    }
}

fn is_unversioned(change: &Change) -> bool {
    change.operation == Operation::Delete && change.version == 0
}
