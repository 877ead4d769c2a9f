//! One step of one table: what to read next, and what it becomes. It changes nothing: the source that emits the result
//! goes on from it.

use super::events::Events;
use super::memory::Known;
use super::position::{Phase, Text};
use super::{OnSchemaChange, Snapshot, Table};
use smartpulse_clients::database::{Change, Poll, SchemaChange, Tombstone, Watermark};
use smartpulse_pipeline::error::{ErrorKind, Result};
use smartpulse_pipeline::source::Unreadable;
use smartpulse_pipeline::{Event, Key, Operation, Timestamp};
use std::collections::{HashMap, HashSet};

/// What one step gave.
pub(super) struct Step {
    pub(super) events: Vec<Event>,
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) next: Phase,
    /// What was scanned and waits for the stream.
    pub(super) held: Option<Held>,
    /// True when there is more to be had at once.
    pub(super) more: bool,
    /// True when the stream's place was cleaned up.
    pub(super) position_lost: bool,
    /// Why the table waits, where its schema has changed and it does.
    pub(super) blocked: Option<String>,
    /// How many deletes were of keys that nobody was ever told of.
    pub(super) unknown_deletes: u64,
    /// How many deletes could not be told, because the table left no tombstone where it should have.
    pub(super) untold_deletes: u64,
}

/// A page of a scan, until the stream has come to the moment that it was read at. In memory alone: whoever takes over reads
/// the page again.
pub(super) struct Held {
    events: Vec<Event>,
    unreadable: Vec<Unreadable>,
    /// Where the scan goes on.
    next: Phase,
    /// The moment after the reading; none where the stream is never behind what was committed.
    mark: Option<Watermark>,
}

impl Held {
    /// Leaves out what the stream tells of itself.
    fn leave_out(&mut self, told: &Events<'_>) {
        let keys = told.keys();
        self.events.retain(|event| !keys.contains(&*event.key));
        self.unreadable.retain(|input| input.key.as_deref().is_none_or(|key| !keys.contains(key)));
    }
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
    untold_deletes: u64,
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
    pub(super) async fn step(&self, phase: Option<Phase>, held: Option<Held>) -> Result<Step> {
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
        if !matches!(phase, Phase::Stream { .. }) {
            return self.beside(phase, held).await;
        }
        Ok(match self.changes(&phase).await? {
            Streamed::Changes(changes) => {
                let next = phase.with_stream(changes.next.clone());
                self.page(changes, next)
            }
            Streamed::Instead(step) => step,
        })
    }

    /// A page of a scan, beside the stream. It is told when the stream has come to the moment that it was read at, without
    /// what the stream told of until then; changes are told as they come.
    async fn beside(&self, mut phase: Phase, held: Option<Held>) -> Result<Step> {
        // Asked before the stream is read: what is captured by now is then read too.
        let mut captured = match &held {
            Some(held) => self.has_captured(held).await?,
            None => false,
        };
        let mut changes = match self.changes(&phase).await? {
            Streamed::Changes(changes) => changes,
            Streamed::Instead(step) => return Ok(step),
        };
        phase = phase.with_stream(changes.next.clone());
        let mut held = match held {
            Some(held) => held,
            None if changes.more => return Ok(self.page(changes, phase)),
            None => {
                let held = self.scan(&phase).await?;
                captured = self.has_captured(&held).await?;
                let Streamed::Changes(meanwhile) = self.changes(&phase).await? else {
                    // Found again by the next step; what was read before is told first.
                    return Ok(self.page_more(changes, phase));
                };
                phase = phase.with_stream(meanwhile.next.clone());
                changes.join(meanwhile);
                held
            }
        };
        held.leave_out(&changes.events);
        if changes.more || !captured {
            return Ok(Step { held: Some(held), ..self.page(changes, phase) });
        }
        let Held { mut events, mut unreadable, next, .. } = held;
        changes.events.events.append(&mut events);
        changes.events.unreadable.append(&mut unreadable);
        if matches!(next, Phase::Stream { .. }) {
            tracing::info!(table = self.table.name, "snapshot complete; streaming");
        }
        let next = next.with_stream(changes.next.clone());
        Ok(self.page_more(changes, next))
    }

    async fn has_captured(&self, held: &Held) -> Result<bool> {
        match &held.mark {
            Some(mark) => self.table.database.has_captured(mark).await,
            None => Ok(true),
        }
    }

    /// The next page of what a phase scans, and the moment behind it.
    async fn scan(&self, phase: &Phase) -> Result<Held> {
        let (table, stream) = (self.table, phase.stream().clone());
        let mut told = Events::new(table, self.epoch);
        let next = match phase {
            Phase::Sweep { after, .. } => self.sweep(&mut told, stream, after.as_deref()).await?,
            Phase::Snapshot { after, .. } => self.snapshot(&mut told, stream, after.as_deref()).await?,
            Phase::Vanish { after, .. } => self.vanish(&mut told, stream, after.as_deref()).await?,
            Phase::Stream { .. } => Phase::Stream { stream },
        };
        let mark = table.database.watermark(table.mode).await?;
        let Events { events, unreadable, .. } = told;
        Ok(Held { events, unreadable, next, mark })
    }

    /// A page of tombstones.
    async fn sweep(&self, told: &mut Events<'a>, stream: Text, after: Option<&str>) -> Result<Phase> {
        let (table, limit) = (self.table, self.table.settings.changes_max);
        let gone = table.database.tombstones(&table.name, after, limit).await?;
        let last = gone.last().filter(|_| gone.len() >= limit).map(|last| last.key.to_string());
        gone.into_iter().for_each(|tombstone| told.vanished(tombstone));
        Ok(match last {
            Some(last) => Phase::Sweep { stream, after: Some(last) },
            None => Phase::Snapshot { stream, after: None },
        })
    }

    /// A page of rows.
    async fn snapshot(&self, told: &mut Events<'a>, stream: Text, after: Option<&str>) -> Result<Phase> {
        let (table, limit) = (self.table, self.table.settings.changes_max);
        let rows = table.database.scan(&table.name, after, limit).await?;
        let last = rows.last().filter(|_| rows.len() >= limit).map(|row| row.key.to_string());
        rows.into_iter().for_each(|row| told.scanned(row));
        Ok(match last {
            Some(last) => Phase::Snapshot { stream, after: Some(last) },
            None if table.memory.is_some() => Phase::Vanish { stream, after: None },
            None => Phase::Stream { stream },
        })
    }

    /// A page of remembered keys: those of them that are not there have vanished.
    async fn vanish(&self, told: &mut Events<'a>, stream: Text, after: Option<&str>) -> Result<Phase> {
        let (table, limit) = (self.table, self.table.settings.changes_max);
        let Some(memory) = &table.memory else { return Ok(Phase::Stream { stream }) };
        let (remembered, last) = memory.page(after, limit).await?;
        let keys: Vec<Key> = remembered.iter().map(|(key, _)| key.clone()).collect();
        let there = self.there(&keys).await?;
        for (key, version) in remembered {
            if !there.contains(&key) {
                told.vanished(Tombstone { key, version: version + 1, deleted_at: Timestamp::now() });
            }
        }
        Ok(match last {
            Some(last) => Phase::Vanish { stream, after: Some(last) },
            None => Phase::Stream { stream },
        })
    }

    /// Which of `keys` there are. A row that cannot be read is there all the same, and fails those that it is asked with.
    async fn there(&self, keys: &[Key]) -> Result<HashSet<Key>> {
        let mut there = HashSet::with_capacity(keys.len());
        let mut open = vec![keys];
        while let Some(keys) = open.pop().filter(|keys| !keys.is_empty()) {
            match self.table.database.get(&self.table.name, keys).await {
                Ok(rows) => there.extend(rows.into_iter().map(|row| row.key)),
                Err(error) if error.kind() != ErrorKind::Rejected => return Err(error),
                Err(_) => match keys {
                    [only] => {
                        there.insert(only.clone());
                    }
                    several => open.extend(<[_; 2]>::from(several.split_at(several.len() / 2))),
                },
            }
        }
        Ok(there)
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
                    untold_deletes: 0,
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

    /// What is known of the keys whose deletes came without a version, where keys are remembered.
    async fn versions(&self, changes: &[Change]) -> Result<Option<HashMap<Key, Known>>> {
        let Some(memory) = &self.table.memory else { return Ok(None) };
        let keys: Vec<Key> = changes.iter().filter(|change| is_unversioned(change)).map(|c| c.key.clone()).collect();
        let known = memory.load(&keys).await?;
        Ok(Some(keys.into_iter().zip(known).filter_map(|(key, known)| Some((key, known?))).collect()))
    }

    fn moved(&self, next: Phase) -> Step {
        self.give(Events::new(self.table, self.epoch), next, true)
    }

    fn page(&self, changes: Changes<'a>, next: Phase) -> Step {
        let Changes { events, more, unknown_deletes, untold_deletes, .. } = changes;
        Step { unknown_deletes, untold_deletes, ..self.give(events, next, more) }
    }

    fn page_more(&self, changes: Changes<'a>, next: Phase) -> Step {
        Step { more: true, ..self.page(changes, next) }
    }

    fn give(&self, events: Events<'a>, next: Phase, more: bool) -> Step {
        let Events { events, unreadable, .. } = events;
        Step {
            events,
            unreadable,
            next,
            held: None,
            more,
            position_lost: false,
            blocked: None,
            unknown_deletes: 0,
            untold_deletes: 0,
        }
    }
}

impl Changes<'_> {
    /// Changes in their order. A delete without a version follows the last version that is known of its key; one of a
    /// key that nobody was told of (inserted and deleted between two polls) tells nothing. Where the table leaves tombstones
    /// nothing is remembered, and a delete without one is an error.
    fn take(&mut self, changes: Vec<Change>, remembered: Option<HashMap<Key, Known>>) {
        let remembers = remembered.is_some();
        let mut known = remembered.unwrap_or_default();
        for mut change in changes {
            if is_unversioned(&change) {
                match known.get(&change.key) {
                    Some(Known { version, there: true }) => change.version = version + 1,
                    // Told before: repeated as it was.
                    Some(Known { version, there: false }) => change.version = *version,
                    None if remembers => {
                        self.unknown_deletes += 1;
                        continue;
                    }
                    None => {
                        self.untold_deletes += 1;
                        self.events.untold(&change);
                        continue;
                    }
                }
            }
            let there = change.operation != Operation::Delete;
            // Only where a later delete may ask; a page has each such key in the map already, or nobody knows it.
            if remembers && (there || known.contains_key(&change.key)) {
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
        self.untold_deletes += later.untold_deletes;
    }
}

fn is_unversioned(change: &Change) -> bool {
    change.operation == Operation::Delete && change.version == 0
}
