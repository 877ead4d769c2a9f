use super::*;
use crate::capture::position::Place;
use crate::catalogue::tests::forecasts;
use smartpulse_pipeline::error::ErrorKind;

fn lsn(number: u8) -> Lsn {
    Lsn([0, 0, 0, 0, 0, 0, 0, 0, 1, number])
}

fn instance(object: i32, start: u8, min: u8) -> Instance {
    let id = InstanceId { object, created: i64::from(object) * 1_000 };
    Instance { id, name: format!("dbo_Forecasts_{object}"), start: Some(lsn(start)), min: lsn(min) }
}

fn state(max: u8, instances: Vec<Instance>) -> CdcState {
    CdcState { incarnation: "a".into(), max: lsn(max), instances }
}

fn position(instance: &Instance, at: CdcAt) -> CdcPosition {
    CdcPosition { incarnation: "a".into(), instance: instance.id, at }
}

fn through(number: u8) -> CdcAt {
    CdcAt::Through(lsn(number))
}

fn inside(number: u8) -> CdcAt {
    CdcAt::After(Place { lsn: lsn(number), command: 1, seqval: lsn(9), operation: 4 })
}

fn next(state: &CdcState, instance: &Instance, at: CdcAt) -> Next {
    state.next("Forecasts", &position(instance, at)).unwrap()
}

fn is_lost(next: &Next, why: &str) -> bool {
    matches!(next, Next::Lost(text) if text.contains(why))
}

#[test]
fn a_position_at_the_newest_lsn_has_nothing_to_read_and_one_before_has() {
    let one = instance(1, 10, 10);
    let state = state(20, vec![one.clone()]);
    assert_eq!(next(&state, &one, through(20)), Next::Idle);
    assert_eq!(next(&state, &one, through(19)), Next::Read { instance: one.clone(), upto: lsn(20) });
    // The newest transaction may have rows behind this one.
    assert_eq!(next(&state, &one, inside(20)), Next::Read { instance: one.clone(), upto: lsn(20) });
}

#[test]
fn edge_06_clean_up_exactly_up_to_a_position_takes_nothing() {
    let one = instance(1, 10, 15);
    let state = state(20, vec![one.clone()]);
    assert!(matches!(next(&state, &one, through(15)), Next::Read { .. }));
    assert!(matches!(next(&state, &one, through(14)), Next::Read { .. }), "15 is the first that it needs");
    assert!(is_lost(&next(&state, &one, through(13)), "clean-up"));
    assert!(matches!(next(&state, &one, inside(15)), Next::Read { .. }));
    assert!(is_lost(&next(&state, &one, inside(14)), "clean-up"), "the rest of its transaction is gone");
}

#[test]
fn edge_07_max_lsn_below_a_new_instances_min_lsn() {
    let one = instance(1, 10, 10);
    let early = state(5, vec![one.clone()]);
    let head = early.head("Forecasts").unwrap();
    assert_eq!(head.at, through(9), "everything that the instance will have comes behind it");
    assert_eq!(early.next("Forecasts", &head).unwrap(), Next::Idle);
    let never_ran = CdcState { max: Lsn::ZERO, ..early };
    assert_eq!(never_ran.head("Forecasts").unwrap().at, through(9));
    assert_eq!(never_ran.next("Forecasts", &head).unwrap(), Next::Idle);
    let later = state(12, vec![one.clone()]);
    assert_eq!(later.next("Forecasts", &head).unwrap(), Next::Read { instance: one, upto: lsn(12) });
}

#[test]
fn an_instance_that_the_job_has_not_come_to_is_waited_for_and_one_that_cannot_be_read_is_not() {
    let unborn = Instance { start: None, min: Lsn::ZERO, ..instance(1, 0, 0) };
    let error = state(5, vec![unborn]).head("Forecasts").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("SQL Server Agent"), "{}", error.chain());
    let hidden = Instance { min: Lsn::ZERO, ..instance(1, 10, 0) };
    let error = state(50, vec![hidden.clone()]).next("Forecasts", &position(&hidden, through(20))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.chain().contains("SELECT on the schema cdc"), "{}", error.chain());
    let error = state(50, vec![]).head("Forecasts").unwrap_err();
    assert!(error.chain().contains("smartpulse plan"), "{}", error.chain());
}

#[test]
fn a_position_above_the_newest_lsn_or_of_another_database_is_lost() {
    let one = instance(1, 10, 10);
    let state = state(20, vec![one.clone()]);
    assert!(is_lost(&next(&state, &one, through(21)), "older copy"));
    assert!(is_lost(&next(&state, &one, inside(21)), "older copy"));
    let other = CdcPosition { incarnation: "b".into(), ..position(&one, through(15)) };
    assert!(is_lost(&state.next("Forecasts", &other).unwrap(), "restored"));
}

#[test]
fn the_older_instance_is_read_up_to_where_the_newer_begins() {
    let (old, new) = (instance(1, 10, 10), instance(2, 20, 20));
    let both = state(30, vec![old.clone(), new.clone()]);
    assert_eq!(next(&both, &old, through(12)), Next::Read { instance: old.clone(), upto: lsn(19) });
    let changed = |at| Next::Changed { from: Some(old.clone()), to: new.clone(), at };
    assert_eq!(next(&both, &old, through(19)), changed(through(19)));
    // It had read beyond before the newer one was there.
    assert_eq!(next(&both, &old, inside(25)), changed(inside(25)));
    assert_eq!(next(&both, &new, through(19)), Next::Read { instance: new.clone(), upto: lsn(30) });
    // The job is not there yet.
    let early = state(15, vec![old.clone(), new.clone()]);
    assert_eq!(next(&early, &old, through(12)), Next::Read { instance: old.clone(), upto: lsn(15) });
    assert_eq!(next(&early, &old, through(15)), Next::Idle);
    let unborn = Instance { start: None, min: Lsn::ZERO, ..new };
    let both = state(30, vec![old.clone(), unborn]);
    assert_eq!(next(&both, &old, through(12)), Next::Read { instance: old.clone(), upto: lsn(30) });
    assert_eq!(both.head("Forecasts").unwrap().instance, old.id);
}

#[test]
fn edge_09_two_instances_with_equal_start_lsn_change_over_at_the_same_place() {
    // Clean-up raised both to the same LSN.
    let (old, new) = (instance(1, 15, 15), instance(2, 15, 15));
    let both = state(30, vec![old.clone(), new.clone()]);
    for at in [through(14), through(20), inside(15), inside(30)] {
        assert_eq!(next(&both, &old, at), Next::Changed { from: Some(old.clone()), to: new.clone(), at });
    }
    assert!(matches!(next(&both, &new, through(20)), Next::Read { .. }), "and not back again");
    assert_eq!(both.head("Forecasts").unwrap().instance, new.id);
}

#[test]
fn an_instance_made_anew_under_its_name_has_lost_what_was_in_between() {
    let (old, again) = (instance(1, 10, 10), Instance { name: "dbo_Forecasts_1".into(), ..instance(2, 25, 25) });
    let state = state(30, vec![again.clone()]);
    assert!(is_lost(&next(&state, &old, through(20)), "captured by none"));
    // The newer of two has all that the dropped one had not told yet.
    assert_eq!(next(&state, &old, through(24)), Next::Changed { from: None, to: again, at: through(24) });
}

fn captured(table: &TableInfo) -> Vec<Captured> {
    let column = |column: &ColumnInfo| Captured {
        name: column.name.clone(),
        column: column.id,
        ordinal: column.id,
        computed: false,
        partial: false,
    };
    table.columns.iter().map(column).collect()
}

/// `Forecasts` with numbered columns.
fn numbered() -> TableInfo {
    let mut table = forecasts();
    for (column, id) in table.columns.iter_mut().zip(1..) {
        column.id = id;
    }
    table
}

#[test]
fn edge_10_dropped_new_and_renamed_columns() {
    let table = numbered();
    let mut columns = captured(&table);
    // Gone from the table, still in the instance; new in the table; of another name when the instance was made.
    columns.push(Captured { name: "Gone".into(), column: 99, ordinal: 99, computed: false, partial: false });
    columns.retain(|column| column.name != "Supply");
    for column in columns.iter_mut().filter(|column| column.name == "Status") {
        column.name = "OldStatus".into();
    }
    let shape = InstanceShape::new(&table, "dbo_Forecasts", columns).unwrap();
    assert_eq!(shape.absent, ["Supply"]);
    let images: Vec<(&str, &str)> =
        shape.images(&table).map(|(column, captured)| (&*column.member, &*captured.name)).collect();
    assert!(images.contains(&("status", "OldStatus")), "documents keep the table's names");
    assert!(!images.iter().any(|(_, name)| *name == "Gone"));
    assert_eq!(shape.shape.len(), table.columns.len() - 1);
    let whole = InstanceShape::new(&table, "dbo_Forecasts_2", captured(&table)).unwrap();
    assert_eq!(whole.differs_from(&shape), "has Supply and no longer has Gone");
}

#[test]
fn an_instance_without_key_or_version_is_refused() {
    let table = numbered();
    for missing in ["Id", "VersionId"] {
        let columns = captured(&table).into_iter().filter(|column| column.name != missing).collect();
        let error = InstanceShape::new(&table, "dbo_Forecasts", columns).unwrap_err();
        assert!(error.chain().contains(&format!("does not have {missing}")), "{}", error.chain());
    }
}
