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
//! To tell these apart, the rows of one entity in one transaction are read as a sequence (`Sequence`), in which a row is
//! judged by those that follow. A page has some beyond its end; where that is not enough, [`Window::unresolved`] names
//! the rows for which the server must be asked. The tombstones decide most cases without looking: a delete whose tombstone
//! has the version behind it was real, and what never had one was never renumbered. So nothing is kept between pages, and
//! capture can go on behind any change. What is then no longer known is at most whether a row was inserted or updated.

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
    /// It is part of a later change, or of none.
    Dropped,
    /// It is part of the change before it.
    Trailing,
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

/// The rows of one page, judged with what is known of those that follow.
#[derive(Debug)]
pub struct Window {
    fates: Vec<Fate>,
    /// Rows that only what follows in the last transaction can judge.
    open: Vec<usize>,
}

impl Window {
    /// `complete`: there are no rows behind these. `beyond`: rows that follow in the last transaction, about the entities
    /// that [`Self::unresolved`] named.
    #[must_use]
    pub fn new(rows: &[Raw], beyond: &[Raw], complete: bool, rules: Rules) -> Self {
        let mut window = Self { fates: rows.iter().map(|row| rules.alone(row)).collect(), open: Vec::new() };
        // Only deletes and inserts that may be something else need their neighbours.
        if !rows.iter().any(|row| row.place.operation == DELETE || (row.place.operation == INSERT && renumberable(row)))
        {
            return window;
        }
        let last = rows.last().map(|row| row.place.lsn).filter(|_| !complete);
        let mut sequences: HashMap<(Lsn, &Key), Vec<usize>> = HashMap::new();
        for (index, row) in rows.iter().chain(beyond).enumerate() {
            sequences.entry((row.place.lsn, &row.key)).or_default().push(index);
        }
        for ((lsn, _), places) in sequences {
            let row = |index: &usize| rows.get(*index).or_else(|| beyond.get(index - rows.len()));
            let sequence = Sequence { rows: places.iter().filter_map(row).collect(), ends: Some(lsn) != last, rules };
            let (fates, open) = sequence.fates();
            for (index, fate) in places.iter().zip(fates) {
                if let Some(place) = window.fates.get_mut(*index) {
                    *place = fate;
                }
            }
            window.open.extend(open.and_then(|at| places.get(at)).filter(|index| **index < rows.len()));
        }
        window.open.sort_unstable();
        window
    }

    /// What becomes of the row at an index.
    #[must_use]
    pub fn fate(&self, index: usize) -> Fate {
        self.fates.get(index).copied().unwrap_or(Fate::Dropped)
    }

    /// Those of the first `count` rows that cannot be judged by what is here: the rest of their transaction must be looked
    /// at.
    #[must_use]
    pub fn unresolved(&self, count: usize) -> Vec<usize> {
        self.open.iter().copied().filter(|index| *index < count).collect()
    }
}

impl Rules {
    /// What a row is when nothing else is known.
    fn alone(self, row: &Raw) -> Fate {
        match row.place.operation {
            UPDATE => self.update(row.before, row.version),
            INSERT => Fate::Change(Operation::Insert, row.version),
            DELETE => deleted(row),
            _ => Fate::Dropped,
        }
    }

    fn update(self, before: Option<i64>, version: i64) -> Fate {
        match before {
            Some(before) if version <= before && self.bumped => Fate::Dropped,
            // Only the renumbering of a re-created row may leave versions out.
            Some(before) if version > before.saturating_add(1) && self.tombstones => {
                Fate::Change(Operation::Insert, version)
            }
            _ => Fate::Change(Operation::Update, version),
        }
    }
}

fn deleted(row: &Raw) -> Fate {
    Fate::Change(Operation::Delete, row.version.saturating_add(1))
}

/// Whether a trigger may have renumbered an inserted row: only where there was a tombstone, of another version than the
/// one before.
fn renumberable(insert: &Raw) -> bool {
    insert.tombstone.is_some_and(|tombstone| insert.version != tombstone.saturating_add(1))
}

/// The rows of one entity in one transaction, in order.
struct Sequence<'a> {
    rows: Vec<&'a Raw>,
    /// Whether no row follows in the transaction.
    ends: bool,
    rules: Rules,
}

impl Sequence<'_> {
    /// What becomes of each row, and the first that only further rows can judge.
    fn fates(&self) -> (Vec<Fate>, Option<usize>) {
        let (mut fates, mut open) = (Vec::with_capacity(self.rows.len()), None);
        // The version that the row has by what was read so far, where it is known to be there.
        let mut version = None;
        while let Some(row) = self.rows.get(fates.len()) {
            let at = fates.len();
            let undecided = match row.place.operation {
                UPDATE => {
                    fates.push(self.rules.alone(row));
                    version = Some(row.version);
                    false
                }
                INSERT => self.insert(at, row, &mut version, &mut fates),
                DELETE => self.delete(at, row, &mut version, &mut fates),
                _ => {
                    fates.push(Fate::Dropped);
                    false
                }
            };
            if undecided && !self.ends {
                open = open.or(Some(at));
            }
        }
        (fates, open)
    }

    fn insert(&self, at: usize, row: &Raw, version: &mut Option<i64>, fates: &mut Vec<Fate>) -> bool {
        // The insert of a row that is there is half of an update.
        let (replaced, cut) = self.replaced(at, row);
        if let Some(before) = version.or(replaced) {
            let fate = self.rules.update(Some(before), row.version);
            fates.push(fate);
            if self.is(at + 1, DELETE, before) {
                fates.push(if fate == Fate::Dropped { Fate::Dropped } else { Fate::Trailing });
            }
            *version = Some(row.version);
            return false;
        }
        *version = Some(row.version);
        if !renumberable(row) {
            fates.push(Fate::Change(Operation::Insert, row.version));
            return cut;
        }
        // Its trigger comes right behind it.
        match self.step(at + 1, row.version) {
            Found::Step(Step { target, rows }) if target > row.version.saturating_add(1) => {
                fates.push(Fate::Dropped);
                let told = Fate::Change(Operation::Insert, target);
                match rows {
                    Halves::One => fates.push(told),
                    Halves::DeleteFirst => fates.extend([Fate::Dropped, told]),
                    Halves::InsertFirst => fates.extend([told, Fate::Trailing]),
                }
                *version = Some(target);
                false
            }
            found => {
                fates.push(Fate::Change(Operation::Insert, row.version));
                cut || matches!(found, Found::Cut)
            }
        }
    }

    /// The version that an insert has replaced, when a delete right behind it says so; and whether the rows end before
    /// that can be told.
    fn replaced(&self, at: usize, insert: &Raw) -> (Option<i64>, bool) {
        let Some(delete) = self.rows.get(at + 1).filter(|row| row.place.operation == DELETE) else {
            return (None, false);
        };
        let before = delete.version;
        if before == insert.version {
            // Inserted and deleted again, unless the trigger's update of a row that was left as it was comes next.
            return match self.step(at + 2, before) {
                Found::Step(step) if step.target == before.saturating_add(1) => (Some(before), false),
                Found::Cut => (None, !self.is_certain(delete)),
                _ => (None, false),
            };
        }
        ((before < insert.version).then_some(before), false)
    }

    fn delete(&self, at: usize, row: &Raw, version: &mut Option<i64>, fates: &mut Vec<Fate>) -> bool {
        let known = version.take();
        let next = self.rows.get(at + 1);
        let Some(insert) = next.filter(|next| next.place.operation == INSERT) else {
            // No delete has happened behind this version, or one has behind the next: the insert that replaced it came
            // before the place that was read from.
            let undone = self.rules.tombstones
                && known.is_none()
                && ((row.exists && row.tombstone.is_none_or(|t| t <= row.version))
                    || row.tombstone == Some(row.version.saturating_add(2)));
            let open = next.is_none() && row.exists && !self.is_certain(row);
            fates.push(if undone && !self.may_follow(at) { Fate::Trailing } else { deleted(row) });
            return open;
        };
        let next_version = row.version.saturating_add(1);
        let updated = if insert.version == next_version {
            !self.is_certain(row)
        } else if insert.version == row.version {
            match self.step(at + 2, row.version) {
                Found::Step(step) => step.target == next_version,
                // Whether it was left as it was or came back, what follows will say; when nothing does, its tombstone.
                Found::Cut if !self.ends => {
                    fates.push(if self.is_certain(row) { deleted(row) } else { Fate::Dropped });
                    return !self.is_certain(row);
                }
                _ => !self.is_certain(row),
            }
        } else {
            // The renumbering of a re-created row whose insert came before the place that was read from.
            let jump = insert.version > next_version && insert.tombstone == Some(insert.version - 1);
            jump && insert.version > next_version.saturating_add(1) && self.rules.tombstones
        };
        if updated {
            fates.push(Fate::Dropped);
            fates.push(self.rules.update(Some(row.version), insert.version));
            *version = Some(insert.version);
        } else {
            fates.push(deleted(row));
        }
        false
    }

    /// Whether what follows a row may still be unknown.
    fn may_follow(&self, at: usize) -> bool {
        !self.ends && self.rows.len() <= at + 1
    }

    /// The step from this version to the next was a delete: it has left its tombstone.
    fn is_certain(&self, delete: &Raw) -> bool {
        self.rules.tombstones && delete.tombstone == Some(delete.version.saturating_add(1))
    }

    fn is(&self, at: usize, operation: i32, version: i64) -> bool {
        self.rows.get(at).is_some_and(|row| row.place.operation == operation && row.version == version)
    }

    /// The update of a version that begins right at a place, however it is logged.
    fn step(&self, at: usize, before: i64) -> Found {
        let Some(row) = self.rows.get(at) else { return Found::Cut };
        let next = self.rows.get(at + 1);
        match row.place.operation {
            UPDATE if row.before == Some(before) => Found::Step(Step { target: row.version, rows: Halves::One }),
            INSERT if self.is(at + 1, DELETE, before) => {
                Found::Step(Step { target: row.version, rows: Halves::InsertFirst })
            }
            INSERT if next.is_none() => Found::Cut,
            DELETE if row.version == before => match next {
                Some(insert) if insert.place.operation == INSERT => {
                    Found::Step(Step { target: insert.version, rows: Halves::DeleteFirst })
                }
                Some(_) => Found::Nothing,
                None => Found::Cut,
            },
            _ => Found::Nothing,
        }
    }
}

/// What is at a place where an update is looked for.
enum Found {
    Step(Step),
    /// No update.
    Nothing,
    /// The rows end before it can be told.
    Cut,
}

/// An update, as it is logged.
struct Step {
    target: i64,
    rows: Halves,
}

enum Halves {
    One,
    DeleteFirst,
    InsertFirst,
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
