//! What order the log has, and what it makes of writes.

use super::*;
use Operation::{Delete, Insert, Update};
use smartpulse_stand_in::engine::Deferred;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_01_a_transaction_that_was_told_in_part_goes_on_behind_its_last_change() {
    let rig = Rig::new().await;
    let head = rig.head(TABLE, CDC).await;
    rig.write(vec![insert(1, 1.0), insert(2, 1.0), update(1, 2.0), delete(2), insert(3, 1.0), insert(2, 5.0)]).await;
    let (all, _) = rig.all(TABLE, CDC, &head, 100).await;
    let expected = [(Insert, 1), (Insert, 1), (Update, 2), (Delete, 2), (Insert, 1), (Insert, 3)];
    assert_eq!(story(&all), expected);
    for limit in [1, 2, 4] {
        assert_eq!(rig.all(TABLE, CDC, &head, limit).await.0, all, "pages of {limit}");
    }
    for (at, change) in all.iter().enumerate() {
        // All of them share an LSN.
        let rest = rig.again().changes(TABLE, CDC, &change.position, 100).await.unwrap();
        let Poll::Changes(rest) = rest else { panic!("{rest:?}") };
        assert_eq!(rest.changes, all[at + 1..], "behind change {at}");
        assert!(!rest.more);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_03_seqvals_that_fall_within_a_transaction_change_no_order() {
    let rig = Rig::new().await;
    rig.server.engine.shuffle_seqval(true);
    let head = rig.head(TABLE, CDC).await;
    rig.write(vec![insert(1, 1.0), update(1, 2.0), update(1, 3.0), delete(1)]).await;
    for limit in [1, 100] {
        let (all, _) = rig.all(TABLE, CDC, &head, limit).await;
        assert_eq!(story(&all), [(Insert, 1), (Update, 2), (Update, 3), (Delete, 4)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_04_operations_that_share_lsn_and_seqval_are_all_told() {
    let rig = Rig::new().await;
    rig.write(vec![insert(1, 1.0), insert(2, 1.0)]).await;
    rig.scan().await;
    rig.server.engine.defer_updates(Deferred::SameSeqval);
    let head = rig.head(TABLE, CDC).await;
    rig.run("UPDATE dbo.Forecasts SET Demand = 7").await;
    for limit in [1, 2, 100] {
        let (all, _) = rig.all(TABLE, CDC, &head, limit).await;
        let told: BTreeSet<(String, i64)> = all.iter().map(|c| (c.key.to_string(), c.version)).collect();
        assert_eq!(told, BTreeSet::from([(uuid(1), 2), (uuid(2), 2)]), "{limit}");
        assert_eq!(all.len(), 2, "{limit}");
        assert!(all.iter().all(|change| document(change)["demand"] == 7.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_12_an_update_that_is_logged_as_delete_and_insert_is_one_update() {
    for deferred in [Deferred::DeleteThenInsert, Deferred::InsertThenDelete, Deferred::SameSeqval] {
        let rig = Rig::new().await;
        rig.server.engine.defer_updates(deferred);
        let head = rig.head(TABLE, CDC).await;
        rig.write(vec![insert(1, 1.0)]).await;
        // Whether the version is left to the trigger or is set.
        rig.run("UPDATE dbo.Forecasts SET Demand = 2").await;
        rig.run("UPDATE dbo.Forecasts SET Demand = 3, VersionId = VersionId + 1").await;
        rig.write(vec![delete(1), insert(1, 4.0)]).await;
        rig.write(vec![delete(1)]).await;
        let expected = [(Insert, 1), (Update, 2), (Update, 3), (Delete, 4), (Insert, 5), (Delete, 6)];
        let (all, _) = rig.all(TABLE, CDC, &head, 100).await;
        assert_eq!(story(&all), expected, "{deferred:?}");
        let (in_pages, _) = rig.all(TABLE, CDC, &head, 1).await;
        assert_eq!(in_pages, all, "{deferred:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_14_a_huge_transaction_comes_in_pages_that_are_bounded() {
    const ROWS: u64 = 1_200;
    let rig = Rig::new().await;
    let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    rig.write((0..ROWS).map(|id| insert(id, 1.0)).collect()).await;
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let (all, _) = rig.all(TABLE, mode, head, 100).await;
        let keys: BTreeSet<&str> = all.iter().map(|change| &*change.key).collect();
        assert_eq!((all.len() as u64, keys.len() as u64), (ROWS, ROWS), "{mode:?}");
    }
    // An update of all: first every row of the statement, then every row of its trigger.
    let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    rig.run("UPDATE dbo.Forecasts SET Demand = 2").await;
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let (all, _) = rig.all(TABLE, mode, head, 100).await;
        assert_eq!(all.len() as u64, ROWS, "{mode:?}");
        assert!(all.iter().all(|change| (change.operation, change.version) == (Update, 2)), "{mode:?}");
    }
    // All of them deleted and created again, in one transaction.
    let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    let columns = "Id, CompanyId, ProductionUnitId, ForecastDate, Demand";
    rig.run(&format!(
        "BEGIN TRANSACTION; SELECT {columns} INTO #kept FROM dbo.Forecasts; DELETE FROM dbo.Forecasts; \
         INSERT INTO dbo.Forecasts ({columns}) SELECT {columns} FROM #kept; COMMIT; DROP TABLE #kept;"
    ))
    .await;
    let (all, _) = rig.all(TABLE, CDC, &heads[1], 100).await;
    let count = |wanted| all.iter().filter(|c| (c.operation, c.version) == wanted).count() as u64;
    assert_eq!((count((Delete, 3)), count((Insert, 4)), all.len() as u64), (ROWS, ROWS, 2 * ROWS));
    let (net, _) = rig.all(TABLE, CT, &heads[0], 100).await;
    assert_eq!(net.len() as u64, ROWS);
    assert!(net.iter().all(|change| change.operation != Delete && change.version == 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_16_ids_are_ordered_by_the_server_and_not_by_their_text() {
    // SQL Server compares the last six bytes first.
    const IDS: [&str; 4] = [
        "ffffffff-0000-4000-8000-000000000001",
        "00000000-0000-4000-8000-000000000003",
        "80000000-0000-4000-9000-000000000002",
        "10000000-0000-4000-8000-000000000002",
    ];
    let rig = Rig::new().await;
    let heads = [rig.head(TABLE, CT).await, rig.head(TABLE, CDC).await];
    let writes = IDS.iter().map(|id| {
        let mut members = forecast(0, 1.0);
        members.insert("id".into(), (*id).into());
        Write::Insert { members }
    });
    rig.write(writes.collect()).await;
    for (mode, head) in BOTH.into_iter().zip(&heads) {
        let (all, _) = rig.all(TABLE, mode, head, 1).await;
        let keys: BTreeSet<&str> = all.iter().map(|change| &*change.key).collect();
        assert_eq!((keys, all.len()), (BTreeSet::from(IDS), IDS.len()), "{mode:?}");
    }
    let (mut scanned, mut after) = (Vec::new(), None);
    while let Some(row) = rig.database.scan(TABLE, after.as_deref(), 1).await.unwrap().pop() {
        after = Some(row.key.to_string());
        scanned.push(row.key.to_string());
    }
    assert_eq!(scanned, [IDS[0], IDS[3], IDS[2], IDS[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_21_deleted_and_inserted_again_is_the_row_as_it_is_whatever_it_is_called() {
    for called_update in [false, true] {
        let rig = Rig::new().await;
        rig.server.engine.report_updated_insertions_as_updates(called_update);
        rig.write(vec![insert(1, 1.0)]).await;
        let head = rig.head(TABLE, CT).await;
        rig.write(vec![delete(1)]).await;
        rig.write(vec![insert(1, 2.0), update(1, 3.0), insert(2, 1.0), update(2, 2.0), insert(3, 1.0), delete(3)])
            .await;
        let (mut all, _) = rig.all(TABLE, CT, &head, 100).await;
        all.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(all.len(), 3);
        assert_ne!(all[0].operation, Delete);
        assert_eq!((all[0].version, &document(&all[0])["demand"]), (4, &json!(3.0)));
        assert_ne!(all[1].operation, Delete);
        assert_eq!((all[1].version, &document(&all[1])["demand"]), (2, &json!(2.0)));
        assert_eq!(story(&all[2..]), [(Delete, 2)], "never seen, and gone again");
    }
}
