//! From rows of a change table to changes: pure, and the same wherever reading was broken off.
//!
//! What a change table has is not what happened to a row:
//! - A trigger that bumps `VersionId` makes a second update of one write. The first has an image whose version did not
//!   rise: it is dropped.
//! - A trigger that renumbers a re-created row makes an update of an insert. The insert is dropped, and the update,
//!   recognisable by a version that rises by more than one, becomes the INSERT.
//! - An update may be logged as a delete and an insert, in either order. Then the versions differ by one, and it becomes
//!   an UPDATE at the place of the insert; or by none, and a trigger's update follows. After a real delete the row comes
//!   back two versions later.
//! - A delete has the version of the row before it; the change has the next one.
//!
//! To tell these apart a delete or an insert may need the rows of its transaction that follow. A page has some beyond
//! its end; where that is not enough, [`Window::unresolved`] names the rows for which the server must be asked. The tombstones
//! decide most cases without looking: a delete whose tombstone has the version behind it was real, and what never had one
//! was never renumbered. So nothing is kept between pages, and capture can go on behind any change.

use super::position::{Lsn, Place};
use smartpulse_pipeline::{Key, Operation};
use std::collections::HashMap;

/// `__$operation` of a delete.
pub const DELETE: i32 = 1;
/// `__$operation` of an insert.
pub const INSERT: i32 = 2;
/// `__$operation` of the image after an update. Those before it, 3, are not read but for their version.
pub const UPDATE: i32 = 4;

/// A row of a change table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Where it is.
    pub place: Place,
    /// The entity.
    pub key: Key,
    /// The `VersionId` of its image.
    pub version: i64,
    /// Of an update: the version before it.
    pub before: Option<i64>,
    /// Of a delete or an insert: the version of the entity's newest tombstone.
    pub tombstone: Option<i64>,
    /// Of a delete: whether the entity exists by now.
    pub exists: bool,
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is part of another change, or none.
    Dropped,
    /// A change with this version.
    Change(Operation, i64),
}

/// What keeps the versions of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A trigger bumps what an update left: an image whose version did not rise is no change.
    pub bumped: bool,
    /// Every delete leaves a tombstone, and a re-created row goes on behind it.
    pub tombstones: bool,
}

/// The rows of one page, with what is known of those that follow.
#[derive(Debug)]
pub struct Window<'a> {
    rows: &'a [Raw],
    /// Whether the last transaction has no rows beyond these.
    complete: bool,
    rules: Rules,
    /// The rows of a transaction about one entity, where somebody must look them up.
    places: HashMap<(Lsn, &'a Key), Vec<&'a Raw>>,
}

impl<'a> Window<'a> {
    /// `complete`: there are no rows behind these. `beyond`: rows that follow in the last transaction, about the entities
    /// that [`Self::unresolved`] named.
    #[must_use]
    pub fn new(rows: &'a [Raw], beyond: &'a [Raw], complete: bool, rules: Rules) -> Self {
        let mut places: HashMap<(Lsn, &Key), Vec<&Raw>> = HashMap::new();
        // Only deletes and inserts that may be something else need their neighbours.
        if rows.iter().any(|row| row.place.operation == DELETE || (row.place.operation == INSERT && renumberable(row)))
        {
            for row in rows.iter().chain(beyond) {
                places.entry((row.place.lsn, &row.key)).or_default().push(row);
            }
        }
        Self { rows, complete, rules, places }
    }

    /// What becomes of the row at an index.
    #[must_use]
    pub fn fate(&self, index: usize) -> Fate {
        let Some(row) = self.rows.get(index) else { return Fate::Dropped };
        match row.place.operation {
            UPDATE => self.update(row),
            INSERT => self.insert(row),
            DELETE => self.delete(row),
            _ => Fate::Dropped,
        }
    }

    /// The first `count` rows that cannot be judged by what is here: the rest of their transaction must be looked at.
    #[must_use]
    pub fn unresolved(&self, count: usize) -> Vec<usize> {
        let Some(last) = self.rows.last().filter(|_| !self.complete) else { return Vec::new() };
        let judged = self.rows.iter().enumerate().take(count);
        let open = judged.filter(|(_, row)| row.place.lsn == last.place.lsn && self.is_open(row));
        open.map(|(index, _)| index).collect()
    }

    fn is_open(&self, row: &Raw) -> bool {
        match row.place.operation {
            INSERT => renumberable(row) && self.next_update(row).is_none(),
            DELETE => !self.is_certain(row) && row.exists && self.insert_of(row).is_none(),
            _ => false,
        }
    }

    fn update(&self, row: &Raw) -> Fate {
        let Some(before) = row.before else { return Fate::Change(Operation::Update, row.version) };
        if row.version <= before && self.rules.bumped {
            return Fate::Dropped;
        }
        // Only the renumbering of a re-created row may leave versions out.
        let renumbered = self.rules.tombstones && row.version > before.saturating_add(1);
        let operation = if renumbered { Operation::Insert } else { Operation::Update };
        Fate::Change(operation, row.version)
    }

    fn insert(&self, row: &Raw) -> Fate {
        if self.is_renumbered(row) {
            return Fate::Dropped;
        }
        match self.delete_of(row) {
            Some(delete) if delete.version == row.version && self.rules.bumped => Fate::Dropped,
            Some(_) => Fate::Change(Operation::Update, row.version),
            None => Fate::Change(Operation::Insert, row.version),
        }
    }

    fn delete(&self, row: &Raw) -> Fate {
        let real = Fate::Change(Operation::Delete, row.version.saturating_add(1));
        if self.is_certain(row) {
            return real;
        }
        if self.insert_of(row).is_some() {
            return Fate::Dropped;
        }
        // No delete has happened behind this version, and the row is there: the insert came before the place that was
        // read from.
        let undone = self.rules.tombstones && row.exists && row.tombstone.is_none_or(|t| t <= row.version);
        if undone { Fate::Dropped } else { real }
    }

    /// The step from this version to the next was a delete: it has left its tombstone.
    fn is_certain(&self, delete: &Raw) -> bool {
        self.rules.tombstones && delete.tombstone == Some(delete.version.saturating_add(1))
    }

    fn of<'b>(&'b self, row: &'b Raw) -> impl Iterator<Item = &'a Raw> + 'b {
        self.places.get(&(row.place.lsn, &row.key)).into_iter().flatten().copied()
    }

    /// The first update in its transaction that changed the version which an insert has.
    fn next_update(&self, insert: &Raw) -> Option<&'a Raw> {
        self.of(insert).find(|row| {
            row.place > insert.place
                && row.place.operation == UPDATE
                && row.before == Some(insert.version)
                && row.version > insert.version
        })
    }

    fn is_renumbered(&self, insert: &Raw) -> bool {
        renumberable(insert)
            && self.next_update(insert).is_some_and(|update| update.version > insert.version.saturating_add(1))
    }

    /// The insert that makes an update of a delete.
    fn insert_of(&self, delete: &Raw) -> Option<&'a Raw> {
        self.of(delete).find(|row| row.place.operation == INSERT && self.are_halves(delete, row))
    }

    /// The delete that makes an update of an insert.
    fn delete_of(&self, insert: &Raw) -> Option<&'a Raw> {
        self.of(insert).find(|row| row.place.operation == DELETE && self.are_halves(row, insert))
    }

    fn are_halves(&self, delete: &Raw, insert: &Raw) -> bool {
        (insert.version == delete.version || insert.version == delete.version.saturating_add(1))
            && !self.is_certain(delete)
            && !self.is_renumbered(insert)
    }
}

/// Whether a trigger may have renumbered an inserted row: only where there was a tombstone, of another version than the
/// one before.
fn renumberable(insert: &Raw) -> bool {
    insert.tombstone.is_some_and(|tombstone| insert.version != tombstone.saturating_add(1))
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
