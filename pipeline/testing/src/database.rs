//! What every [`Database`](smartpulse_clients::database::Database) must do.

use crate::{cases, within};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use smartpulse_clients::database::{
    CaptureMode, Change, ChangePage, ForecastQuery, Inserted, Kept, LogQuery, Poll, Row, SharedDatabase, Write, Written,
};
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_pipeline::{Key, Operation, Position, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

const TABLE: &str = "Forecasts";
const BOTH: [CaptureMode; 2] = [CaptureMode::ChangeTracking, CaptureMode::Cdc];

/// One database that exists for one case.
#[async_trait]
pub trait DatabaseFixture: Send + Sync {
    /// Opens it, with its schema. Opening again is another process, or a restart.
    async fn open(&self) -> SharedDatabase;

    /// Lets clean-up pass everything that was captured so far in `cdc` mode. False when it cannot.
    async fn clean_up(&self, _database: &SharedDatabase) -> bool {
        false
    }

    /// Whether what records changes runs. Not where the fixture does its work by hand.
    fn records_changes(&self) -> bool {
        true
    }

    /// True where a position moves on although nothing happened in its table, as it must where the log is one of the
    /// whole database: clean-up would overtake an idle table.
    fn idle_positions_move(&self) -> bool {
        false
    }
}

/// Runs all cases.
///
/// # Panics
/// In the first case that fails.
pub async fn database_suite<F: DatabaseFixture>(make: impl Fn() -> F) {
    cases!(
        make,
        versions_rise_by_one_over_updates_deletes_and_re_creations,
        nothing_collapses_in_cdc_mode,
        net_changes_collapse_to_the_row_as_it_is,
        deletes_and_re_creations_never_go_back,
        a_snapshot_is_handed_over_without_a_gap,
        capture_goes_on_from_its_position_after_a_restart,
        pages_join_without_a_gap_or_an_overlap,
        two_writers_never_share_a_version,
        a_lost_position_is_explicit,
        a_row_has_one_spelling,
        writes_say_what_became_of_them,
        a_failed_write_leaves_nothing,
        unknown_names_are_refused_with_the_known_ones,
        lists_are_newest_first_filtered_and_paged,
        rows_are_inserted_where_absent_and_a_repetition_changes_nothing,
        of_rows_with_one_id_the_first_counts,
        a_poisoned_row_is_rejected_and_none_of_its_batch_goes_in,
        inserted_rows_of_a_captured_table_are_captured,
        logs_are_read_newest_first_and_pruned_by_age_and_number,
        capture_says_how_it_is_doing_and_what_it_needs,
    );
}

/// A uuid that sorts by its number.
#[must_use]
pub fn uuid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// The members of a forecast with this id and demand.
#[must_use]
pub fn forecast(id: u64, demand: f64) -> Map<String, Value> {
    company_forecast(id, 1, "2016-01-02T03:04:05.000Z", demand)
}

/// The members of a forecast of a company (its unit has the number of the company plus 1,000).
///
/// # Panics
/// Never: the members are an object.
#[must_use]
pub fn company_forecast(id: u64, company: u64, date: &str, demand: f64) -> Map<String, Value> {
    let members = json!({
        "id": uuid(id), "companyId": uuid(company), "productionUnitId": uuid(company + 1_000),
        "forecastDate": date, "demand": demand, "supply": null, "confidenceLevel": 0.9, "status": "Draft",
        "createdAt": "2016-01-01T00:00:00.000Z", "updatedAt": "2016-01-01T00:00:00.000Z",
    });
    members.as_object().cloned().expect("an object")
}

/// The members of a row of `Notifications`.
///
/// # Panics
/// Never: the members are an object.
#[must_use]
pub fn notification(id: u64, title: &str) -> Map<String, Value> {
    let members = json!({
        "id": uuid(id), "userId": uuid(7), "title": title, "body": "B\u{f6}dy \u{1f300}", "type": "ForecastCompleted",
        "readAt": null, "createdAt": "2016-01-02T03:04:05.678Z",
    });
    members.as_object().cloned().expect("an object")
}

fn mail(id: u64, to: &str) -> Map<String, Value> {
    let members = json!({
        "id": uuid(id), "toAddress": to, "subject": "Hello", "bodyHtml": "<p>x</p>".repeat(2_000), "bodyText": null,
        "attachments": null, "createdAt": "2016-01-02T03:04:05.678Z",
    });
    members.as_object().cloned().expect("an object")
}

fn key(id: u64) -> Key {
    uuid(id).into()
}

fn update(id: u64, demand: f64) -> Write {
    let members = json!({ "demand": demand }).as_object().cloned().unwrap();
    Write::Update { key: key(id), expected_version: None, members }
}

fn delete(id: u64) -> Write {
    Write::Delete { key: key(id), expected_version: None }
}

fn insert(id: u64, demand: f64) -> Write {
    Write::Insert { members: forecast(id, demand) }
}

async fn write(database: &SharedDatabase, write: Write) -> Row {
    match database.write(TABLE, vec![write]).await.unwrap().remove(0) {
        Written::Done(row) => row,
        other => panic!("the write was not done: {other:?}"),
    }
}

async fn page(database: &SharedDatabase, mode: CaptureMode, after: &Position, limit: usize) -> ChangePage {
    match within("a poll", database.changes(TABLE, mode, after, limit)).await.unwrap() {
        Poll::Changes(page) => page,
        Poll::PositionLost(why) => panic!("the position is lost: {why}"),
        Poll::SchemaChanged(change) => panic!("the shape has changed: {}", change.reason),
    }
}

async fn all(database: &SharedDatabase, mode: CaptureMode, after: &Position) -> (Vec<Change>, Position) {
    let (mut found, mut position) = (Vec::new(), after.clone());
    loop {
        let page = page(database, mode, &position, 7).await;
        found.extend(page.changes);
        position = page.next;
        if !page.more {
            return (found, position);
        }
    }
}

fn story(changes: &[Change]) -> Vec<(Operation, i64, Option<f64>)> {
    changes
        .iter()
        .map(|change| (change.operation, change.version, change.document.as_ref().map(|d| demand(d))))
        .collect()
}

fn demand(document: &[u8]) -> f64 {
    serde_json::from_slice::<Value>(document).unwrap()["demand"].as_f64().unwrap()
}

async fn versions_rise_by_one_over_updates_deletes_and_re_creations(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let steps = [insert(1, 1.0), update(1, 2.0), update(1, 2.0), delete(1), insert(1, 3.0), update(1, 4.0), delete(1)];
    for (step, expected) in steps.into_iter().zip(1..) {
        let row = write(&database, step).await;
        assert_eq!((&*row.key, row.version), (uuid(1).as_str(), expected));
    }
    assert_eq!(write(&database, insert(1, 5.0)).await.version, 8);
    assert_eq!(write(&database, insert(2, 5.0)).await.version, 1);
}

async fn nothing_collapses_in_cdc_mode(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let head = database.head(TABLE, CaptureMode::Cdc).await.unwrap();
    // All in one transaction, where net changes would see one.
    let writes = vec![insert(1, 1.0), update(1, 2.0), update(1, 3.0), delete(1), insert(1, 4.0)];
    database.write(TABLE, writes).await.unwrap();
    let (changes, next) = all(&database, CaptureMode::Cdc, &head).await;
    let expected = [
        (Operation::Insert, 1, Some(1.0)),
        (Operation::Update, 2, Some(2.0)),
        (Operation::Update, 3, Some(3.0)),
        (Operation::Delete, 4, Some(3.0)),
        (Operation::Insert, 5, Some(4.0)),
    ];
    assert_eq!(story(&changes), expected);
    for change in &changes {
        let document: Value = serde_json::from_slice(change.document.as_ref().unwrap()).unwrap();
        assert_eq!(document["versionId"], change.version, "the image of {:?}", change.operation);
    }
    let empty = page(&database, CaptureMode::Cdc, &next, 10).await;
    if !fixture.idle_positions_move() {
        assert_eq!(empty.next, next);
    }
    assert_eq!((empty.changes, empty.more), (vec![], false));
    assert_eq!(page(&database, CaptureMode::Cdc, &empty.next, 10).await.changes, []);
}

async fn net_changes_collapse_to_the_row_as_it_is(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    write(&database, insert(1, 1.0)).await;
    write(&database, insert(3, 1.0)).await;
    let head = database.head(TABLE, CaptureMode::ChangeTracking).await.unwrap();
    let writes =
        vec![update(1, 2.0), insert(2, 1.0), update(1, 3.0), update(2, 2.0), delete(3), insert(4, 1.0), delete(4)];
    database.write(TABLE, writes).await.unwrap();
    let (changes, next) = all(&database, CaptureMode::ChangeTracking, &head).await;
    let net: BTreeMap<&str, _> = changes.iter().zip(story(&changes)).map(|(c, story)| (&*c.key, story)).collect();
    assert_eq!(changes.len(), 4, "one change per key");
    let [one, two, three, four] = [1, 2, 3, 4].map(uuid);
    let upsert = |key: &str| (net[key].0 != Operation::Delete, net[key].1, net[key].2);
    assert_eq!(upsert(&one), (true, 3, Some(3.0)));
    assert_eq!(upsert(&two), (true, 2, Some(2.0)));
    assert_eq!(net[&*three], (Operation::Delete, 2, None));
    assert_eq!(net[&*four], (Operation::Delete, 2, None));
    assert_eq!(page(&database, CaptureMode::ChangeTracking, &next, 10).await.changes, []);
}

async fn deletes_and_re_creations_never_go_back(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    for mode in BOTH {
        let mut position = database.head(TABLE, mode).await.unwrap();
        let mut last = 0;
        for step in [insert(1, 1.0), delete(1), insert(1, 2.0), update(1, 3.0), delete(1), insert(1, 4.0), delete(1)] {
            let row = write(&database, step).await;
            let (changes, next) = all(&database, mode, &position).await;
            assert_eq!(changes.len(), 1, "{mode:?}");
            assert_eq!(changes[0].version, row.version, "{mode:?}");
            assert!(last == 0 || row.version == last + 1, "{mode:?}: {} follows {last}", row.version);
            last = row.version;
            position = next;
        }
    }
}

async fn a_snapshot_is_handed_over_without_a_gap(fixture: impl DatabaseFixture) {
    for mode in BOTH {
        let database = fixture.open().await;
        let first: Vec<Write> = (0..40).map(|id| Write::Insert { members: forecast(id, 0.0) }).collect();
        database.write(TABLE, first).await.unwrap();
        let head = database.head(TABLE, mode).await.unwrap();
        // Another process writes while the snapshot is read chunk by chunk.
        let other = fixture.open().await;
        let writer = tokio::spawn(async move {
            for round in 1..=20_u32 {
                let id = u64::from(round * 7 % 40);
                other.write(TABLE, vec![update(id, f64::from(round))]).await.unwrap();
                other.write(TABLE, vec![insert(100 + u64::from(round), 1.0), delete(id + 1)]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut copy: BTreeMap<Key, (i64, Option<Value>)> = BTreeMap::new();
        let mut after: Option<Key> = None;
        loop {
            let rows = database.scan(TABLE, after.as_deref(), 6).await.unwrap();
            let end = rows.len() < 6;
            for row in rows {
                assert!(after.as_ref().is_none_or(|a| **a < *row.key), "keys ascend");
                after = Some(Key::clone(&row.key));
                copy.insert(row.key, (row.version, Some(serde_json::from_slice(&row.document).unwrap())));
            }
            if end {
                break;
            }
        }
        within("the writer's end", writer).await.unwrap();
        for change in all(&database, mode, &head).await.0 {
            let kept = copy.entry(change.key).or_insert((0, None));
            if change.version > kept.0 {
                let document = change.document.filter(|_| change.operation != Operation::Delete);
                *kept = (change.version, document.map(|d| serde_json::from_slice(&d).unwrap()));
            }
        }
        copy.retain(|_, (_, document)| document.is_some());
        let truth = database.scan(TABLE, None, 1_000).await.unwrap().into_iter();
        let truth: BTreeMap<_, _> =
            truth.map(|row| (row.key, (row.version, Some(serde_json::from_slice(&row.document).unwrap())))).collect();
        assert_eq!(copy, truth, "{mode:?}");
        for key in truth.keys() {
            write(&database, Write::Delete { key: Key::clone(key), expected_version: None }).await;
        }
    }
}

async fn capture_goes_on_from_its_position_after_a_restart(fixture: impl DatabaseFixture) {
    for mode in BOTH {
        let database = fixture.open().await;
        let head = database.head(TABLE, mode).await.unwrap();
        let id = mode as u64 + 1;
        write(&database, insert(id, 1.0)).await;
        let (first, position) = all(&database, mode, &head).await;
        assert_eq!(first.len(), 1);
        drop(database);
        let database = fixture.open().await;
        assert_eq!(page(&database, mode, &position, 10).await.changes, [], "{mode:?}");
        write(&database, update(id, 2.0)).await;
        let (second, _) = all(&database, mode, &position).await;
        assert_eq!(story(&second), [(Operation::Update, 2, Some(2.0))], "{mode:?}");
    }
}

async fn pages_join_without_a_gap_or_an_overlap(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    for mode in BOTH {
        let head = database.head(TABLE, mode).await.unwrap();
        let base = 100 * (mode as u64 + 1);
        let inserts: Vec<Write> = (0..10).map(|id| insert(base + id, 1.0)).collect();
        database.write(TABLE, inserts).await.unwrap();
        let first = page(&database, mode, &head, 4).await;
        assert_eq!((first.changes.len(), first.more), (4, true), "{mode:?}");
        assert_eq!(first.changes[3].position, first.next, "{mode:?}");
        // From the middle of a page too.
        let rest = page(&database, mode, &first.changes[1].position, 100).await;
        assert_eq!((rest.changes.len(), rest.more), (8, false), "{mode:?}");
        assert_eq!(rest.changes[..2], first.changes[2..], "{mode:?}");
        let exactly = page(&database, mode, &head, 10).await;
        assert_eq!((exactly.changes.len(), exactly.more), (10, false), "{mode:?}");
    }
}

async fn two_writers_never_share_a_version(fixture: impl DatabaseFixture) {
    const EACH: i64 = 50;
    let database = fixture.open().await;
    write(&database, insert(1, 0.0)).await;
    let head = database.head(TABLE, CaptureMode::Cdc).await.unwrap();
    let mut writers = Vec::new();
    for _ in 0..2 {
        let other = fixture.open().await;
        writers.push(tokio::spawn(async move {
            for n in 0..EACH {
                write(&other, update(1, n as f64)).await;
            }
        }));
    }
    for writer in writers {
        within("the writers' end", writer).await.unwrap();
    }
    let versions: Vec<i64> = all(&database, CaptureMode::Cdc, &head).await.0.iter().map(|c| c.version).collect();
    assert_eq!(versions, (2..=2 * EACH + 1).collect::<Vec<_>>());
}

async fn a_lost_position_is_explicit(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let start = database.head(TABLE, CaptureMode::Cdc).await.unwrap();
    database.write(TABLE, vec![insert(1, 1.0), update(1, 2.0)]).await.unwrap();
    let (_, end) = all(&database, CaptureMode::Cdc, &start).await;
    for mode in BOTH {
        let strange = Position::from("no position of this database");
        assert!(
            matches!(database.changes(TABLE, mode, &strange, 10).await.unwrap(), Poll::PositionLost(_)),
            "{mode:?}"
        );
    }
    if fixture.clean_up(&database).await {
        let lost = database.changes(TABLE, CaptureMode::Cdc, &start, 10).await.unwrap();
        assert!(matches!(lost, Poll::PositionLost(_)), "{lost:?}");
        // One that had seen everything has lost nothing.
        write(&database, update(1, 3.0)).await;
        assert_eq!(story(&all(&database, CaptureMode::Cdc, &end).await.0), [(Operation::Update, 3, Some(3.0))]);
    }
}

async fn a_row_has_one_spelling(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let heads = [database.head(TABLE, BOTH[0]).await.unwrap(), database.head(TABLE, BOTH[1]).await.unwrap()];
    let mut members = forecast(0xABC, 0.1 + 0.2);
    members.insert("id".into(), uuid(0xABC).to_uppercase().into());
    members.insert("supply".into(), json!(1.5));
    members.insert("status".into(), "a \"quoted\" \u{e9}\n".into());
    members.insert("forecastDate".into(), "2016-01-01T01:00:00+01:00".into());
    let written = write(&database, Write::Insert { members }).await;
    assert_eq!(&*written.key, uuid(0xABC), "ids are lower case");
    let text = std::str::from_utf8(&written.document).unwrap();
    for part in [
        r#"{"id":"00000000-0000-4000-8000-000000000abc","companyId":"#,
        r#","forecastDate":"2016-01-01T00:00:00.000Z","demand":0.30000000000000004,"supply":1.5,"variance":1.2,"confidenceLevel":0.9,"#,
        r#""status":"a \"quoted\" é\n","#,
        r#""updatedBy":null,"updatedVia":null,"versionId":1}"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(database.scan(TABLE, None, 10).await.unwrap(), std::slice::from_ref(&written));
    assert_eq!(database.get(TABLE, &[key(0xABC), key(7)]).await.unwrap(), std::slice::from_ref(&written));
    let listed = database.list_forecasts(&ForecastQuery { take: 10, ..ForecastQuery::default() }).await.unwrap();
    assert_eq!(listed.rows, std::slice::from_ref(&written));
    for (mode, head) in BOTH.into_iter().zip(heads) {
        let change = all(&database, mode, &head).await.0.remove(0);
        assert_eq!(
            (change.key, change.document),
            (Key::clone(&written.key), Some(written.document.clone())),
            "{mode:?}"
        );
    }
}

async fn writes_say_what_became_of_them(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    write(&database, insert(1, 1.0)).await;
    let members = || json!({ "demand": 9.0 }).as_object().cloned().unwrap();
    let writes = vec![
        update(7, 1.0),
        delete(7),
        insert(1, 2.0),
        Write::Update { key: key(1), expected_version: Some(7), members: members() },
        Write::Delete { key: key(1), expected_version: Some(7) },
        Write::Update { key: key(1), expected_version: Some(1), members: members() },
    ];
    let mut written = database.write(TABLE, writes).await.unwrap();
    let Some(Written::Done(row)) = written.pop() else { panic!("{written:?}") };
    assert_eq!((row.version, demand(&row.document)), (2, 9.0));
    let mismatch = || Written::VersionMismatch(1);
    assert_eq!(written, [Written::NotFound, Written::NotFound, Written::Exists, mismatch(), mismatch()]);
}

async fn a_failed_write_leaves_nothing(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let head = database.head(TABLE, CaptureMode::Cdc).await.unwrap();
    let mut wrong = forecast(2, 1.0);
    wrong.insert("demand".into(), Value::Null);
    let error = database.write(TABLE, vec![insert(1, 1.0), Write::Insert { members: wrong }]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{}", error.chain());
    assert_eq!(database.scan(TABLE, None, 10).await.unwrap(), []);
    assert_eq!(page(&database, CaptureMode::Cdc, &head, 10).await.changes, []);
    // The numbering is untouched too.
    assert_eq!(write(&database, insert(1, 1.0)).await.version, 1);
}

async fn unknown_names_are_refused_with_the_known_ones(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let error = database.table("Forecast").await.unwrap_err().chain();
    assert!(error.contains("Forecasts") && error.contains("ProductionUnits"), "{error}");
    let error = database.scan("x\"; DROP TABLE Forecasts; --", None, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    for (member, hint) in [("demnad", "demand"), ("variance", "computed"), ("qqq", "forecastDate")] {
        let mut members = forecast(1, 1.0);
        members.insert(member.into(), json!(1.0));
        let error = database.write(TABLE, vec![Write::Insert { members }]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.chain().contains(hint), "{}", error.chain());
    }
    let table = database.table(TABLE).await.unwrap();
    let members: Vec<&str> = table.columns.iter().map(|c| c.member.as_str()).collect();
    let expected = "id companyId productionUnitId forecastDate demand supply confidenceLevel status createdAt \
                    updatedAt updatedBy updatedVia versionId";
    assert_eq!(members.join(" "), expected);
    let supply = table.columns.iter().find(|c| c.member == "supply").unwrap();
    assert_eq!((supply.name.as_str(), supply.declared_type.as_str(), supply.nullable), ("Supply", "float", true));
    assert_eq!(table.capture, BOTH);
}

async fn lists_are_newest_first_filtered_and_paged(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let rows = (0..12).map(|id| {
        // Two forecasts of a company share each date.
        let date = format!("2016-01-{:02}T00:00:00.000Z", 1 + id / 4);
        Write::Insert { members: company_forecast(id, id % 2, &date, 1.0) }
    });
    // And a third company has one on one of them.
    let third = Write::Insert { members: company_forecast(12, 2, "2016-01-02T00:00:00.000Z", 1.0) };
    let rows = rows.chain([third]);
    database.write(TABLE, rows.collect()).await.unwrap();
    let list = |query: ForecastQuery| {
        let database = SharedDatabase::clone(&database);
        async move {
            let page = database.list_forecasts(&query).await.unwrap();
            let number = |row: &Row| u64::from_str_radix(&row.key[24..], 16).unwrap();
            (page.total, page.rows.iter().map(number).collect::<Vec<_>>())
        }
    };
    let all = ForecastQuery { take: 20, ..ForecastQuery::default() };
    assert_eq!(list(all.clone()).await, (13, vec![8, 9, 10, 11, 4, 5, 6, 7, 12, 0, 1, 2, 3]));
    let of = |companies: &[u64]| {
        let companies = companies.iter().map(|company| uuid(*company).into_boxed_str()).collect();
        ForecastQuery { companies: Some(companies), ..all.clone() }
    };
    let company = of(&[1]);
    assert_eq!(list(company.clone()).await, (6, vec![9, 11, 5, 7, 1, 3]));
    assert_eq!(list(ForecastQuery { skip: 1, take: 2, ..company.clone() }).await, (6, vec![11, 5]));
    assert_eq!(list(ForecastQuery { skip: 99, ..company.clone() }).await, (6, vec![]));
    // Of several companies it is one list: one total, one order, one place to go on from.
    assert_eq!(list(of(&[0, 2])).await, (7, vec![8, 10, 4, 6, 12, 0, 2]));
    assert_eq!(list(of(&[0, 1, 2, 7])).await, list(all.clone()).await);
    assert_eq!(list(ForecastQuery { skip: 3, take: 3, ..of(&[0, 1, 2]) }).await, (13, vec![11, 4, 5]));
    assert_eq!(list(of(&[7])).await, (0, vec![]));
    assert_eq!(list(of(&[])).await, (0, vec![]), "none of all companies, not all of them");
    let unit = ForecastQuery { production_unit_id: Some(uuid(1_000)), ..company };
    assert_eq!(list(unit).await, (0, vec![]));
    let day = ForecastQuery {
        from: Some("2016-01-02T00:00:00.000Z".into()),
        to: Some("2016-01-03T00:00:00.000Z".into()),
        ..all
    };
    assert_eq!(list(day).await, (5, vec![4, 5, 6, 7, 12]));
}

/// The members of a row of `Logs`, logged so many milliseconds after the first.
fn line(seq: i64, level: &str, component: &str, millis: i64) -> Map<String, Value> {
    let members = json!({
        "id": uuid(u64::try_from(seq).unwrap()), "createdAt": Timestamp::from_millis(LOGGED + millis).to_string(),
        "level": level, "instance": uuid(7), "seq": seq, "component": component, "message": format!("m{seq}"),
        "fields": if seq % 2 == 0 { json!("{\"n\":1}") } else { Value::Null },
    });
    members.as_object().cloned().unwrap()
}

/// When the first line of the test's logs was logged.
const LOGGED: i64 = 1_451_606_400_000;

async fn logs_are_read_newest_first_and_pruned_by_age_and_number(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    // The last two in one millisecond.
    let lines: Vec<_> = [("ERROR", "api", 0), ("WARN", "changes", 10), ("INFO", "api", 20), ("ERROR", "api", 20)]
        .into_iter()
        .zip(1..)
        .map(|((level, component, millis), seq)| line(seq, level, component, millis))
        .collect();
    database.insert_absent("Logs", &lines).await.unwrap();
    let read = async |query: LogQuery| {
        let rows = database.logs(&query).await.unwrap();
        let document = |row: &Row| serde_json::from_slice::<Value>(&row.document).unwrap();
        rows.iter().map(document).collect::<Vec<_>>()
    };
    let numbers = |rows: Vec<Value>| rows.iter().map(|row| row["seq"].as_i64().unwrap()).collect::<Vec<_>>();
    let all = LogQuery { levels: vec!["ERROR", "WARN", "INFO"], limit: 10, ..LogQuery::default() };
    let rows = read(all.clone()).await;
    assert_eq!(rows[0], Value::Object(lines[3].clone()));
    assert_eq!(numbers(rows), [4, 3, 2, 1]);
    assert_eq!(numbers(read(LogQuery { levels: vec!["ERROR"], ..all.clone() }).await), [4, 1]);
    assert_eq!(numbers(read(LogQuery { limit: 2, ..all.clone() }).await), [4, 3]);
    let since = Timestamp::from_millis(LOGGED + 10);
    assert_eq!(numbers(read(LogQuery { since: Some(since), ..all.clone() }).await), [4, 3, 2]);
    let of = LogQuery { component: Some("changes".into()), since: Some(since), ..all.clone() };
    assert_eq!(numbers(read(of).await), [2]);

    assert_eq!(database.prune_logs(Timestamp::from_millis(LOGGED - 1), 10).await.unwrap(), 0);
    assert_eq!(database.prune_logs(Timestamp::from_millis(LOGGED), 10).await.unwrap(), 1, "by age");
    assert_eq!(numbers(read(all.clone()).await), [4, 3, 2]);
    assert_eq!(database.prune_logs(Timestamp::from_millis(LOGGED), 2).await.unwrap(), 1, "by number");
    assert_eq!(numbers(read(all.clone()).await), [4, 3]);
    assert_eq!(database.prune_logs(Timestamp::from_millis(LOGGED), 2).await.unwrap(), 0);
}

/// All rows of a table as documents, by key.
async fn rows(database: &SharedDatabase, table: &str) -> Vec<Value> {
    let rows = database.scan(table, None, 10_000).await.unwrap();
    rows.iter().map(|row| serde_json::from_slice(&row.document).unwrap()).collect()
}

async fn rows_are_inserted_where_absent_and_a_repetition_changes_nothing(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    assert_eq!(database.insert_absent("Notifications", &[]).await.unwrap(), Inserted::default());
    // Few, and so many that they go in bulk where the database can.
    for (first, count) in [(1_000, 3_u64), (2_000, 700)] {
        let batch: Vec<_> = (first..first + count).map(|id| notification(id, &format!("n{id}"))).collect();
        let count = usize::try_from(count).unwrap();
        let all = Inserted { inserted: count, present: 0 };
        assert_eq!(database.insert_absent("Notifications", &batch).await.unwrap(), all);
        let none = Inserted { inserted: 0, present: count };
        assert_eq!(database.insert_absent("Notifications", &batch).await.unwrap(), none, "as after a crash");
        let expected: Vec<Value> = batch.into_iter().map(Value::Object).collect();
        let kept = rows(&database, "Notifications").await;
        assert_eq!(kept[kept.len() - count..], expected);
    }
    // What is there stays as it is, and what is not goes in beside it.
    let mut mixed: Vec<_> = (1_000..1_020).map(|id| notification(id, "another title")).collect();
    mixed.rotate_left(7);
    let outcome = database.insert_absent("Notifications", &mixed).await.unwrap();
    assert_eq!(outcome, Inserted { inserted: 17, present: 3 });
    let kept = rows(&database, "Notifications").await;
    assert_eq!((kept[0]["title"].as_str(), kept[3]["title"].as_str()), (Some("n1000"), Some("another title")));

    // Columns that are left out have their defaults.
    for (first, count) in [(1, 2_u64), (100, 40)] {
        let batch: Vec<_> = (first..first + count).map(|id| mail(id, "a@example.org")).collect();
        database.insert_absent("NheaMailQueue", &batch).await.unwrap();
    }
    let mails = rows(&database, "NheaMailQueue").await;
    assert_eq!(mails.len(), 42);
    for mail in mails {
        assert_eq!((mail["status"].as_str(), mail["attempts"].as_i64()), (Some("Queued"), Some(0)));
        assert_eq!(mail["bodyHtml"].as_str().map(str::len), Some(16_000));
        assert_eq!(mail["sentAt"], Value::Null);
    }
}

async fn of_rows_with_one_id_the_first_counts(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    for (base, count) in [(1, 4_u64), (100, 30)] {
        let mut batch: Vec<_> = (base..base + count).map(|id| notification(id, "first")).collect();
        batch.extend((base..base + count).map(|id| notification(id, "second")));
        let mut upper = notification(base, "third");
        upper["id"] = json!(uuid(base).to_uppercase());
        batch.push(upper);
        let count = usize::try_from(count).unwrap();
        let outcome = database.insert_absent("Notifications", &batch).await.unwrap();
        assert_eq!(outcome, Inserted { inserted: count, present: count + 1 });
    }
    assert!(rows(&database, "Notifications").await.iter().all(|row| row["title"] == "first"));
}

async fn a_poisoned_row_is_rejected_and_none_of_its_batch_goes_in(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    database.insert_absent("Notifications", &[notification(1, "kept")]).await.unwrap();
    let poison: [(&str, Value); 6] = [
        ("title", json!("x".repeat(201))),
        ("userId", json!("no uuid")),
        ("createdAt", json!("yesterday")),
        ("title", Value::Null),
        ("id", Value::Null),
        ("body", json!(5)),
    ];
    for count in [3_u64, 50] {
        for (member, value) in &poison {
            let mut batch: Vec<_> = (10..10 + count).map(|id| notification(id, "good")).collect();
            batch[2][*member] = value.clone();
            let error = database.insert_absent("Notifications", &batch).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected, "{member} {value}: {}", error.chain());
            assert_eq!(rows(&database, "Notifications").await.len(), 1, "{member}");
            // Alone it says why, and its neighbours go in.
            let alone = database.insert_absent("Notifications", &batch[2..3]).await.unwrap_err();
            assert_eq!(alone.kind(), ErrorKind::Rejected, "{member} {value}: {}", alone.chain());
        }
        let mut unknown = notification(10, "good");
        unknown.insert("colour".into(), json!("red"));
        let error = database.insert_absent("Notifications", &[unknown]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.chain().contains("colour"), "{}", error.chain());
    }
    let good = [notification(10, "good"), notification(11, "good")];
    assert_eq!(database.insert_absent("Notifications", &good).await.unwrap().inserted, 2);
}

async fn inserted_rows_of_a_captured_table_are_captured(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    write(&database, insert(5, 1.0)).await;
    write(&database, delete(5)).await;
    let head = database.head(TABLE, CaptureMode::Cdc).await.unwrap();
    let batch: Vec<_> = (1..=20).map(|id| forecast(id, 1.0)).collect();
    assert_eq!(database.insert_absent(TABLE, &batch).await.unwrap().inserted, 20);
    assert_eq!(database.insert_absent(TABLE, &batch).await.unwrap().present, 20);
    let (changes, _) = all(&database, CaptureMode::Cdc, &head).await;
    let told: BTreeMap<Key, i64> = changes.iter().map(|change| (change.key.clone(), change.version)).collect();
    assert_eq!(told.len(), 20);
    for (key, version) in told {
        let expected = if *key == *uuid(5) { 3 } else { 1 };
        assert_eq!(version, expected, "{key} goes on behind its tombstone");
    }
}

async fn capture_says_how_it_is_doing_and_what_it_needs(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    for mode in BOTH {
        let head = database.head(TABLE, mode).await.unwrap();
        let health = within("the health", database.capture_health(TABLE, mode, &head)).await.unwrap();
        let by_hand = mode == CaptureMode::Cdc && !fixture.records_changes();
        assert!(health.stopped.is_none() || by_hand, "{mode:?}: {health:?}");
        let short = matches!(health.runway, Kept::For(runway) if runway <= Duration::from_secs(3_600));
        assert!(!short, "{mode:?}: {health:?}");
    }
    let plan = database.capture_plan(TABLE).await.unwrap();
    assert_eq!(plan.table, TABLE);
    assert!(!plan.server.is_empty());
    for mode in BOTH {
        let of = plan.modes.iter().find(|plan| plan.mode == mode).unwrap();
        assert!(of.enabled && !of.latency_floor.is_empty() && !of.loses.is_empty(), "{of:?}");
        assert_eq!((&of.missing_rights, &of.statements), (&Vec::new(), &Vec::new()), "everything is as it should be");
    }
    let plan = database.capture_plan("Notifications").await.unwrap();
    assert!(plan.modes.iter().all(|mode| !mode.enabled && !mode.statements.is_empty()), "{plan:?}");
}
