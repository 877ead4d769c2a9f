use super::*;

const TRIGGERS: Rules = Rules { bumped: true, tombstones: true };
const PLAIN: Rules = Rules { bumped: false, tombstones: false };

fn lsn(number: u8) -> Lsn {
    Lsn([0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

/// A row of transaction `t` that is the `n`th.
fn raw(t: u8, n: i32, operation: i32, key: &str, version: i64) -> Raw {
    let place = Place { lsn: lsn(t), command: n, seqval: lsn(1), operation };
    Raw { place, key: key.into(), version, before: None, tombstone: None, exists: false }
}

fn insert(t: u8, n: i32, key: &str, version: i64, tombstone: Option<i64>) -> Raw {
    Raw { tombstone, ..raw(t, n, INSERT, key, version) }
}

fn update(t: u8, n: i32, key: &str, before: i64, version: i64) -> Raw {
    Raw { before: Some(before), ..raw(t, n, UPDATE, key, version) }
}

fn delete(t: u8, n: i32, key: &str, version: i64, tombstone: Option<i64>) -> Raw {
    Raw { tombstone, exists: tombstone.is_none(), ..raw(t, n, DELETE, key, version) }
}

type Story<'a> = Vec<(Operation, &'a str, i64)>;

fn changes(rows: &[Raw], rules: Rules) -> Story<'_> {
    let window = Window::new(rows, &[], true, rules);
    let told = |index: usize| match window.fate(index) {
        Fate::Dropped | Fate::Trailing => None,
        Fate::Change(operation, version) => Some((operation, &*rows[index].key, version)),
    };
    (0..rows.len()).filter_map(told).collect()
}

fn check(rows: &[Raw], rules: Rules, expected: &[(Operation, &str, i64)]) {
    assert_eq!(changes(rows, rules), expected);
}

/// As [`check`], and the same when reading goes on behind any row that was told, as after a restart.
fn check_restarts(rows: &[Raw], rules: Rules, expected: &[(Operation, &str, i64)]) {
    check(rows, rules, expected);
    let window = Window::new(rows, &[], true, rules);
    let mut told = 0;
    for index in 0..rows.len() {
        if matches!(window.fate(index), Fate::Change(..)) {
            told += 1;
            assert_eq!(changes(&rows[index + 1..], rules), expected[told..], "behind row {index}");
        }
    }
}

#[test]
fn plain_writes_are_told_as_they_are_and_a_delete_has_the_next_version() {
    let rows = [
        insert(1, 1, "a", 1, Some(4)),
        update(2, 1, "a", 1, 2),
        update(2, 2, "a", 2, 3),
        delete(3, 1, "a", 3, Some(4)),
    ];
    let expected = [
        (Operation::Insert, "a", 1),
        (Operation::Update, "a", 2),
        (Operation::Update, "a", 3),
        (Operation::Delete, "a", 4),
    ];
    check_restarts(&rows, TRIGGERS, &expected);
    check_restarts(&rows, PLAIN, &expected);
}

#[test]
fn an_image_whose_version_did_not_rise_is_dropped_for_the_trigger_s() {
    // All rows of the statement come before all of the trigger.
    let rows = [update(1, 1, "a", 1, 1), update(1, 2, "b", 4, 4), update(1, 3, "a", 1, 2), update(1, 4, "b", 4, 5)];
    check_restarts(&rows, TRIGGERS, &[(Operation::Update, "a", 2), (Operation::Update, "b", 5)]);
}

#[test]
fn without_a_trigger_an_update_that_left_its_version_is_told_as_it_is() {
    check_restarts(&[update(1, 1, "a", 3, 3)], PLAIN, &[(Operation::Update, "a", 3)]);
}

#[test]
fn a_re_created_row_that_its_trigger_renumbers_is_one_insert_with_the_later_image() {
    let rows = [
        delete(1, 1, "a", 3, Some(4)),
        insert(2, 1, "a", 1, Some(4)),
        insert(2, 2, "b", 1, None),
        update(2, 3, "a", 1, 5),
        update(3, 1, "a", 5, 6),
    ];
    let expected = [
        (Operation::Delete, "a", 4),
        (Operation::Insert, "b", 1),
        (Operation::Insert, "a", 5),
        (Operation::Update, "a", 6),
    ];
    check_restarts(&rows, TRIGGERS, &expected);
}

#[test]
fn deleted_and_re_created_in_one_transaction_at_the_first_version() {
    let rows = [delete(1, 1, "a", 1, Some(2)), insert(1, 2, "a", 1, Some(2)), update(1, 3, "a", 1, 3)];
    check_restarts(&rows, TRIGGERS, &[(Operation::Delete, "a", 2), (Operation::Insert, "a", 3)]);
    // By now it was deleted once more, so that its tombstone decides nothing.
    let rows = [delete(1, 1, "a", 1, Some(4)), insert(1, 2, "a", 1, Some(4)), update(1, 3, "a", 1, 3)];
    check_restarts(&rows, TRIGGERS, &[(Operation::Delete, "a", 2), (Operation::Insert, "a", 3)]);
}

#[test]
fn the_first_insert_is_told_also_when_the_row_was_deleted_later() {
    let rows = [insert(1, 1, "a", 1, Some(9)), update(1, 2, "a", 1, 1), update(1, 3, "a", 1, 2)];
    check_restarts(&rows, TRIGGERS, &[(Operation::Insert, "a", 1), (Operation::Update, "a", 2)]);
}

#[test]
fn edge_03_rows_of_a_transaction_count_by_command_and_not_by_seqval() {
    let at = |command, seqval: u8, row: Raw| Raw { place: Place { command, seqval: lsn(seqval), ..row.place }, ..row };
    let mut rows = vec![
        at(2, 3, update(1, 0, "a", 1, 2)),
        at(1, 9, insert(1, 0, "a", 1, None)),
        at(3, 1, update(1, 0, "a", 2, 3)),
    ];
    rows.sort_by_key(|row| row.place);
    check_restarts(
        &rows,
        TRIGGERS,
        &[(Operation::Insert, "a", 1), (Operation::Update, "a", 2), (Operation::Update, "a", 3)],
    );
}

#[test]
fn edge_12_an_update_logged_as_delete_and_insert_in_either_order_is_an_update() {
    let (gone, back) = (delete(1, 1, "a", 4, None), insert(1, 2, "a", 5, None));
    check_restarts(&[gone, back], TRIGGERS, &[(Operation::Update, "a", 5)]);
    let (back, gone) = (insert(1, 1, "a", 5, None), delete(1, 2, "a", 4, None));
    check_restarts(&[back.clone(), gone.clone()], TRIGGERS, &[(Operation::Update, "a", 5)]);
    check(&[back, gone], PLAIN, &[(Operation::Update, "a", 5)]);
    // One whose version was left: the trigger's update follows.
    let rows = [delete(1, 1, "a", 4, None), insert(1, 1, "a", 4, None), update(1, 2, "a", 4, 5)];
    check_restarts(&rows, TRIGGERS, &[(Operation::Update, "a", 5)]);
    // The row was deleted once before: its tombstone is older than the version.
    let rows = [delete(1, 1, "a", 6, Some(5)), insert(1, 2, "a", 7, Some(5))];
    let rows = [Raw { exists: true, ..rows[0].clone() }, rows[1].clone()];
    check(&rows, TRIGGERS, &[(Operation::Update, "a", 7)]);
}

#[test]
fn edge_12_a_real_delete_and_re_creation_rises_by_two() {
    let rows = [delete(1, 1, "a", 4, Some(5)), insert(1, 2, "a", 6, Some(5))];
    check_restarts(&rows, TRIGGERS, &[(Operation::Delete, "a", 5), (Operation::Insert, "a", 6)]);
    check_restarts(&rows, PLAIN, &[(Operation::Delete, "a", 5), (Operation::Insert, "a", 6)]);
    // In two transactions they have nothing to do with each other, whatever the versions say.
    let rows = [delete(1, 1, "a", 4, Some(5)), insert(2, 1, "a", 5, None)];
    check(&rows, PLAIN, &[(Operation::Delete, "a", 5), (Operation::Insert, "a", 5)]);
}

#[test]
fn edge_12_rows_of_several_updates_may_stand_between_the_halves() {
    let halves = [
        delete(1, 1, "a", 1, None),
        delete(1, 2, "b", 1, None),
        insert(1, 3, "a", 2, None),
        insert(1, 4, "b", 2, None),
    ];
    check(&halves, TRIGGERS, &[(Operation::Update, "a", 2), (Operation::Update, "b", 2)]);
    // Behind the first change no document is lost, although nobody knows any more that it was an update.
    check(&halves[3..], TRIGGERS, &[(Operation::Insert, "b", 2)]);
    let halves = [
        insert(1, 1, "a", 2, None),
        insert(1, 2, "b", 2, None),
        delete(1, 3, "a", 1, None),
        delete(1, 4, "b", 1, None),
    ];
    check_restarts(&halves, TRIGGERS, &[(Operation::Update, "a", 2), (Operation::Update, "b", 2)]);
}

#[test]
fn edge_13_a_changed_key_is_a_delete_and_an_insert_also_with_a_restart_between_the_halves() {
    let rows = [delete(1, 1, "old", 4, Some(5)), insert(1, 1, "new", 4, None)];
    check_restarts(&rows, TRIGGERS, &[(Operation::Delete, "old", 5), (Operation::Insert, "new", 4)]);
    check_restarts(&rows, PLAIN, &[(Operation::Delete, "old", 5), (Operation::Insert, "new", 4)]);
}

#[test]
fn edge_14_what_a_page_cannot_judge_is_named_and_nothing_else() {
    let open = |rows: &[Raw], rules| Window::new(rows, &[], false, rules).unresolved(rows.len());
    // A million new rows, or a million deletes of rows that stay deleted, need no look at what follows.
    assert_eq!(open(&[insert(1, 1, "a", 1, None), insert(1, 2, "b", 1, None)], TRIGGERS), [0; 0]);
    assert_eq!(open(&[delete(1, 1, "a", 1, Some(2)), delete(1, 2, "b", 7, Some(8))], TRIGGERS), [0; 0]);
    assert_eq!(open(&[Raw { exists: false, ..delete(1, 1, "a", 1, None) }], PLAIN), [0; 0]);
    // A re-created row whose trigger comes later in the transaction does, and a delete of a row that exists.
    let rows = [insert(1, 1, "a", 1, Some(4)), insert(2, 1, "a", 1, Some(4)), delete(2, 2, "b", 3, None)];
    assert_eq!(open(&rows, TRIGGERS), [1, 2], "the first transaction is known in full");
    let beyond = [update(2, 9, "a", 1, 5), insert(2, 8, "b", 4, None)];
    let window = Window::new(&rows, &beyond, false, TRIGGERS);
    assert_eq!(window.unresolved(3), [0_usize; 0]);
    assert_eq!([1, 2].map(|index| window.fate(index)), [Fate::Dropped, Fate::Dropped]);
    // And the other way: what follows says nothing of it.
    let window = Window::new(&rows, &[], true, TRIGGERS);
    assert_eq!(window.fate(1), Fate::Change(Operation::Insert, 1));
}

#[test]
fn inserted_deleted_and_inserted_again_in_one_transaction() {
    for tombstone in [2, 7] {
        let rows = [
            insert(1, 1, "a", 1, Some(tombstone)),
            delete(1, 2, "a", 1, Some(tombstone)),
            insert(1, 3, "a", 1, Some(tombstone)),
            update(1, 4, "a", 1, 3),
        ];
        let expected = [(Operation::Insert, "a", 1), (Operation::Delete, "a", 2), (Operation::Insert, "a", 3)];
        check_restarts(&rows, TRIGGERS, &expected);
    }
}

#[test]
fn edge_12_every_step_of_a_life_logged_as_delete_and_insert() {
    // Inserted; updated with its version left, and bumped; deleted and created again with a renumbering; deleted.
    let t = Some(6);
    let expected = [
        (Operation::Insert, "a", 1),
        (Operation::Update, "a", 2),
        (Operation::Delete, "a", 3),
        (Operation::Insert, "a", 4),
        (Operation::Update, "a", 5),
        (Operation::Delete, "a", 6),
    ];
    let life = |halves: fn(u8, i32, i64, i64) -> [Raw; 2]| {
        let mut rows = vec![insert(1, 1, "a", 1, t)];
        rows.extend(halves(2, 1, 1, 1));
        rows.extend(halves(2, 3, 1, 2));
        rows.extend([delete(3, 1, "a", 2, t), insert(3, 2, "a", 1, t)]);
        rows.extend(halves(3, 3, 1, 4));
        rows.extend(halves(4, 1, 4, 5));
        rows.push(delete(5, 1, "a", 5, t));
        rows
    };
    check(
        &life(|tx, n, from, to| [delete(tx, n, "a", from, Some(6)), insert(tx, n + 1, "a", to, Some(6))]),
        TRIGGERS,
        &expected,
    );
    check(
        &life(|tx, n, from, to| [insert(tx, n, "a", to, Some(6)), delete(tx, n + 1, "a", from, Some(6))]),
        TRIGGERS,
        &expected,
    );
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A life of one row: what the log has of it, and what happened.
#[derive(Default)]
struct Life {
    rows: Vec<Raw>,
    told: Vec<(Operation, i64)>,
    version: Option<i64>,
    tombstone: Option<i64>,
    transaction: u8,
    command: i32,
}

impl Life {
    fn log(&mut self, operation: i32, before: Option<i64>, version: i64) {
        self.command += 1;
        self.rows.push(Raw { before, ..raw(self.transaction, self.command, operation, "a", version) });
    }

    /// An update, in one of the ways in which it may be logged.
    fn step(&mut self, dice: &mut Dice, from: i64, to: i64) {
        match dice.roll(3) {
            0 => self.log(UPDATE, Some(from), to),
            1 => {
                self.log(DELETE, None, from);
                self.log(INSERT, None, to);
            }
            _ => {
                self.log(INSERT, None, to);
                self.log(DELETE, None, from);
            }
        }
    }

    fn write(&mut self, dice: &mut Dice) {
        let choice = dice.roll(4);
        match self.version {
            None => {
                self.log(INSERT, None, 1);
                let version = self.tombstone.map_or(1, |tombstone| tombstone + 1);
                if version != 1 {
                    self.step(dice, 1, version);
                }
                self.told.push((Operation::Insert, version));
                self.version = Some(version);
            }
            Some(version) if choice == 0 => {
                self.log(DELETE, None, version);
                self.told.push((Operation::Delete, version + 1));
                (self.version, self.tombstone) = (None, Some(version + 1));
            }
            Some(version) => {
                if choice == 1 {
                    // Its version was left, and the trigger bumps it.
                    self.step(dice, version, version);
                }
                self.step(dice, version, version + 1);
                self.told.push((Operation::Update, version + 1));
                self.version = Some(version + 1);
            }
        }
    }

    /// What a reader sees by now.
    fn read(mut self) -> Self {
        for row in self.rows.iter_mut().filter(|row| row.place.operation != UPDATE) {
            row.tombstone = self.tombstone;
            row.exists = self.version.is_some();
        }
        self
    }

    fn random(dice: &mut Dice) -> Self {
        let mut life = Self::default();
        for transaction in 1..=3 {
            (life.transaction, life.command) = (transaction, 0);
            for _ in 0..dice.roll(5) {
                life.write(dice);
            }
        }
        life.read()
    }
}

fn told(rows: &[Raw]) -> Vec<(Operation, i64)> {
    changes(rows, TRIGGERS).into_iter().map(|(operation, _, version)| (operation, version)).collect()
}

#[test]
fn whatever_a_row_went_through_and_however_it_was_logged_it_is_told_as_it_was() {
    let mut dice = Dice(7);
    for life in (0..20_000).map(|_| Life::random(&mut dice)) {
        assert_eq!(told(&life.rows), life.told, "{:#?}", life.rows);
    }
}

#[test]
fn behind_any_change_nothing_is_lost_and_what_comes_again_is_no_news() {
    let mut dice = Dice(11);
    for life in (0..20_000).map(|_| Life::random(&mut dice)) {
        let window = Window::new(&life.rows, &[], true, TRIGGERS);
        let mut given = 0;
        for (index, row) in life.rows.iter().enumerate() {
            let Fate::Change(_, version) = window.fate(index) else { continue };
            given += 1;
            // The place of a change is that of its last row.
            let trailing = (index + 1..life.rows.len()).take_while(|at| window.fate(*at) == Fate::Trailing).count();
            // Whoever has this version passes over what is not above it.
            let news: Vec<_> =
                told(&life.rows[index + 1 + trailing..]).into_iter().filter(|(_, v)| *v > version).collect();
            let expected = &life.told[given..];
            let what = |changes: &[(Operation, i64)]| -> Vec<(bool, i64)> {
                changes.iter().map(|(operation, version)| (*operation == Operation::Delete, *version)).collect()
            };
            assert_eq!(what(&news), what(expected), "behind {:?} of {:#?}", row.place, life.rows);
        }
    }
}

#[test]
fn edge_14_a_page_that_ends_anywhere_is_judged_as_the_whole_once_the_server_was_asked() {
    let mut dice = Dice(13);
    for life in (0..20_000).map(|_| Life::random(&mut dice)) {
        let whole = Window::new(&life.rows, &[], true, TRIGGERS);
        for end in 1..life.rows.len() {
            let (page, rest) = life.rows.split_at(end);
            let open = Window::new(page, &[], false, TRIGGERS).unresolved(end);
            let beyond: Vec<Raw> = match open.first() {
                Some(_) => rest.iter().filter(|row| row.place.lsn == page[end - 1].place.lsn).cloned().collect(),
                None => Vec::new(),
            };
            let page_window = Window::new(page, &beyond, !open.is_empty() && beyond.is_empty(), TRIGGERS);
            // The halves of one update may fall on two pages; whether a row is told, and with what version, may not differ.
            for index in 0..end.saturating_sub(1) {
                assert_eq!(
                    page_window.fate(index),
                    whole.fate(index),
                    "row {index} of a page of {end}: {:#?}",
                    life.rows
                );
            }
        }
    }
}
