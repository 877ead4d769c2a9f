//! Change data capture, by the rules of CHANGE_CAPTURE.md.

use super::{Client, client, engine};
use crate::engine::{Deferred, Engine};
use std::time::{Duration, Instant};

/// A table under capture, its job standing still so that the tests say when it scans.
fn captured(columns: &str) -> (Engine, Client) {
    let engine = engine();
    engine.stop_capture();
    let mut client = client(&engine);
    client.script(&format!("EXEC sys.sp_cdc_enable_db\nGO\nCREATE TABLE dbo.t ({columns})"));
    enable(&mut client, "dbo_t");
    engine.run_capture_now().unwrap();
    (engine, client)
}

fn enable(client: &mut Client, instance: &str) {
    client.run(&format!(
        "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N't', @role_name = NULL, \
         @capture_instance = N'{instance}', @supports_net_changes = 0"
    ));
}

const PLAIN: &str = "Id int NOT NULL PRIMARY KEY, V int NULL";
const ORDER: &str = "ORDER BY [__$start_lsn], [__$command_id], [__$seqval], [__$operation]";

fn log(client: &mut Client, columns: &str) -> Vec<String> {
    client.rows(&format!("SELECT {columns} FROM [cdc].[dbo_t_CT] {ORDER}"))
}

#[test]
fn each_change_is_there_with_its_images_and_mask() {
    let (engine, mut client) = captured(PLAIN);
    client.run("INSERT INTO t VALUES (1, 10)");
    client.run("UPDATE t SET V = 11");
    client.run("DELETE FROM t");
    assert!(log(&mut client, "Id").is_empty(), "nothing before the job has scanned");
    engine.run_capture_now().unwrap();
    assert_eq!(
        log(&mut client, "[__$operation], [__$update_mask], Id, V, [__$command_id]"),
        ["2|03|1|10|1", "3|02|1|10|1", "4|02|1|11|1", "1|03|1|11|1"]
    );
    assert_eq!(client.rows("SELECT DISTINCT [__$start_lsn] FROM cdc.dbo_t_CT").len(), 3);
    assert_eq!(
        client.one("SELECT MAX([__$start_lsn]) FROM cdc.dbo_t_CT"),
        client.one("SELECT sys.fn_cdc_get_max_lsn()")
    );
}

#[test]
fn a_transaction_has_one_start_lsn_and_rising_commands_and_seqvals() {
    let (engine, mut client) = captured(PLAIN);
    client.run("BEGIN TRAN; INSERT INTO t VALUES (1, 1), (2, 1); UPDATE t SET V = 2; COMMIT");
    engine.run_capture_now().unwrap();
    assert_eq!(
        log(&mut client, "[__$operation], Id, [__$command_id]"),
        ["2|1|1", "2|2|1", "3|1|2", "4|1|2", "3|2|2", "4|2|2"]
    );
    assert_eq!(client.one("SELECT COUNT(DISTINCT [__$start_lsn]) FROM cdc.dbo_t_CT"), "1");
    // The two images of an update share a seqval (edge 4), other records do not.
    assert_eq!(client.one("SELECT COUNT(DISTINCT [__$seqval]) FROM cdc.dbo_t_CT"), "4");
}

#[test]
fn a_rollback_and_an_update_that_changes_nothing_leave_nothing() {
    let (engine, mut client) = captured(PLAIN);
    client.run("BEGIN TRAN; INSERT INTO t VALUES (1, 1); ROLLBACK");
    client.run("INSERT INTO t VALUES (1, 1)");
    client.run("UPDATE t SET V = V");
    engine.run_capture_now().unwrap();
    assert_eq!(log(&mut client, "[__$operation]"), ["2"]);
}

#[test]
fn seqvals_can_fall_within_a_transaction() {
    let (engine, mut client) = captured(PLAIN);
    engine.shuffle_seqval(true);
    client.run("BEGIN TRAN; INSERT INTO t VALUES (1, 1); UPDATE t SET V = 2; UPDATE t SET V = 3; COMMIT");
    engine.run_capture_now().unwrap();
    let by_command =
        client.rows("SELECT [__$command_id] FROM cdc.dbo_t_CT WHERE [__$operation] <> 3 ORDER BY [__$seqval]");
    assert_eq!(by_command, ["3", "2", "1"]);
}

#[test]
fn an_update_can_be_a_delete_and_an_insert_in_either_order() {
    let (engine, mut client) = captured(PLAIN);
    client.run("INSERT INTO t VALUES (1, 1)");
    let mut seen = Vec::new();
    for deferred in [Deferred::DeleteThenInsert, Deferred::InsertThenDelete, Deferred::SameSeqval] {
        engine.defer_updates(deferred);
        client.run("UPDATE t SET V = V + 1");
        engine.run_capture_now().unwrap();
        seen.push(log(&mut client, "[__$operation], V").split_off(1 + seen.len() * 2).join(" "));
    }
    assert_eq!(seen, ["1|1 2|2", "2|3 1|2", "1|3 2|4"]);
}

#[test]
fn a_key_update_is_a_delete_and_an_insert_of_one_command() {
    let (engine, mut client) = captured(PLAIN);
    client.run("INSERT INTO t VALUES (1, 1)");
    client.run("UPDATE t SET Id = 2");
    engine.run_capture_now().unwrap();
    assert_eq!(log(&mut client, "[__$operation], Id, [__$command_id]"), ["2|1|1", "1|1|1", "2|2|1"]);
}

#[test]
fn a_max_column_is_null_when_unchanged_and_the_mask_says_so() {
    let (engine, mut client) = captured("Id int NOT NULL PRIMARY KEY, Big nvarchar(max) NULL, V int NULL");
    client.run("INSERT INTO t VALUES (1, N'x', 1)");
    client.run("UPDATE t SET V = 2");
    client.run("UPDATE t SET Big = NULL");
    engine.run_capture_now().unwrap();
    let rows = log(
        &mut client,
        "[__$operation], Big, sys.fn_cdc_is_bit_set(2, [__$update_mask]), \
         sys.fn_cdc_has_column_changed(N'dbo_t', N'V', [__$update_mask])",
    );
    assert_eq!(rows, ["2|x|1|1", "3|NULL|0|1", "4|NULL|0|1", "3|x|1|0", "4|NULL|1|0"]);
}

#[test]
fn an_instance_keeps_the_columns_of_its_making() {
    let (engine, mut client) = captured("Id int NOT NULL PRIMARY KEY, V int NULL, Gone int NULL");
    client.run("INSERT INTO t VALUES (1, 1, 7)");
    client.run("ALTER TABLE t ADD New nvarchar(10) NULL");
    client.run("ALTER TABLE t DROP COLUMN Gone");
    client.run("UPDATE t SET V = 2, New = N'n'");
    enable(&mut client, "second");
    client.run("UPDATE t SET V = 3");
    engine.run_capture_now().unwrap();
    assert_eq!(log(&mut client, "[__$operation], V, Gone"), ["2|1|7", "3|1|NULL", "4|2|NULL", "3|2|NULL", "4|3|NULL"]);
    assert_eq!(client.rows(&format!("SELECT [__$operation], V, New FROM cdc.second_CT {ORDER}")), ["3|2|n", "4|3|n"]);
    let ddl = client.rows("SELECT ddl_command FROM cdc.ddl_history ORDER BY ddl_lsn");
    assert_eq!(ddl, ["ALTER TABLE [dbo].[t] ADD [New] nvarchar(10)", "ALTER TABLE [dbo].[t] DROP COLUMN [Gone]"]);
    let third = client.batch("EXEC sys.sp_cdc_enable_table N'dbo', N't', NULL, N'third'", &[]);
    assert_eq!(third.errors[0].number, 22962);
}

#[test]
fn min_lsn_is_zero_until_the_scan_has_seen_the_instance_and_for_unknown_ones() {
    let engine = engine();
    engine.stop_capture();
    let mut client = client(&engine);
    client.script(&format!("EXEC sys.sp_cdc_enable_db\nGO\nCREATE TABLE dbo.t ({PLAIN})"));
    enable(&mut client, "dbo_t");
    let zero = "0".repeat(20);
    assert_eq!(client.one("SELECT sys.fn_cdc_get_min_lsn('dbo_t')"), zero);
    engine.run_capture_now().unwrap();
    assert_ne!(client.one("SELECT sys.fn_cdc_get_min_lsn(N'dbo_t')"), zero);
    assert_eq!(client.one("SELECT sys.fn_cdc_get_min_lsn('nothing')"), zero);
    engine.deny("SELECT CDC");
    assert_eq!(client.one("SELECT sys.fn_cdc_get_min_lsn('dbo_t')"), zero);
}

#[test]
fn max_lsn_can_be_below_a_new_instances_min_lsn() {
    let (engine, mut client) = captured(PLAIN);
    client.run("INSERT INTO t VALUES (1, 1)");
    engine.run_capture_now().unwrap();
    engine.set_idle_mark(Duration::from_secs(3600));
    engine.set_capture_polling(Some(Duration::from_millis(5)));
    enable(&mut client, "second");
    engine.start_capture();
    wait(|| client.one("SELECT COUNT(*) FROM cdc.change_tables WHERE start_lsn IS NULL") == "0");
    engine.stop_capture();
    assert_eq!(
        client.one("SELECT CASE WHEN sys.fn_cdc_get_max_lsn() < sys.fn_cdc_get_min_lsn('second') THEN 1 ELSE 0 END"),
        "1"
    );
}

#[test]
fn two_instances_of_one_transaction_begin_at_one_lsn() {
    let (engine, mut client) = captured(PLAIN);
    client.run("EXEC sys.sp_cdc_disable_table N'dbo', N't', N'all'");
    client.run(
        "BEGIN TRAN; EXEC sys.sp_cdc_enable_table N'dbo', N't', NULL, N'a'; \
         EXEC sys.sp_cdc_enable_table N'dbo', N't', NULL, N'b'; COMMIT",
    );
    engine.run_capture_now().unwrap();
    assert_eq!(client.one("SELECT COUNT(*), COUNT(DISTINCT start_lsn) FROM cdc.change_tables"), "2|1");
}

#[test]
fn clean_up_moves_min_lsn_and_a_range_below_it_is_error_313() {
    let (engine, mut client) = captured(PLAIN);
    for id in 1..=3 {
        client.run(&format!("INSERT INTO t VALUES ({id}, 1)"));
    }
    engine.run_capture_now().unwrap();
    let second = client.one("SELECT [__$start_lsn] FROM cdc.dbo_t_CT WHERE Id = 2");
    let first = client.one("SELECT [__$start_lsn] FROM cdc.dbo_t_CT WHERE Id = 1");
    client.run(&format!("EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_t', @low_water_mark = 0x{second}, @threshold = 5000"));
    assert_eq!(client.one("SELECT sys.fn_cdc_get_min_lsn('dbo_t')"), second);
    assert_eq!(log(&mut client, "Id"), ["2", "3"]);
    let all = |from: &str| {
        format!("SELECT Id FROM cdc.fn_cdc_get_all_changes_dbo_t(0x{from}, sys.fn_cdc_get_max_lsn(), N'all')")
    };
    assert_eq!(client.rows(&all(&second)), ["2", "3"]);
    assert_eq!(client.error(&all(&first)), 313);
    // Below is exclusive: what is at the mark stays (edge 6).
    let third: Vec<u8> = (0..10)
        .map(|at| u8::from_str_radix(&client.one("SELECT sys.fn_cdc_get_max_lsn()")[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    engine.clean_up_cdc(third.try_into().unwrap()).unwrap();
    assert_eq!(log(&mut client, "Id"), ["3"]);
}

#[test]
fn truncate_is_refused_under_capture() {
    let (_engine, mut client) = captured(PLAIN);
    assert_eq!(client.error("TRUNCATE TABLE dbo.t"), 4711);
}

#[test]
fn the_time_mapping_speaks_the_servers_local_time() {
    let (engine, mut client) = captured(PLAIN);
    engine.set_time_zone(180);
    client.run("INSERT INTO t VALUES (1, 1)");
    engine.run_capture_now().unwrap();
    let behind = client.one(
        "SELECT DATEDIFF(minute, GETUTCDATE(), sys.fn_cdc_map_lsn_to_time([__$start_lsn])), DATEDIFF(hour, GETUTCDATE(), GETDATE()) \
         FROM cdc.dbo_t_CT",
    );
    assert!(["180|3", "179|3"].contains(&behind.as_str()), "{behind}");
}

#[test]
fn the_job_can_lag_be_stopped_and_be_seen_standing() {
    let (engine, mut client) = captured(PLAIN);
    engine.set_capture_polling(Some(Duration::from_millis(5)));
    client.run("INSERT INTO t VALUES (1, 1)");
    assert_eq!(
        client.one("SELECT CASE WHEN stop_execution_date IS NULL THEN 0 ELSE 1 END FROM msdb.dbo.sysjobactivity"),
        "1"
    );
    client.run("EXEC sys.sp_cdc_start_job");
    wait(|| client.one("SELECT COUNT(*) FROM cdc.dbo_t_CT") == "1");
    assert_eq!(client.one("SELECT COUNT(*) FROM msdb.dbo.sysjobactivity WHERE stop_execution_date IS NULL"), "1");
    // The session is told of after what it found.
    let sessions = "SELECT COUNT(*) FROM sys.dm_cdc_log_scan_sessions WHERE tran_count > 0";
    wait(|| client.one(sessions).parse::<i64>().unwrap() > 0);
    engine.set_capture_delay(Duration::from_secs(3600));
    // Behind a scan that may have begun before.
    engine.run_capture_now().unwrap();
    client.run("INSERT INTO t VALUES (2, 1)");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.one("SELECT COUNT(*) FROM cdc.dbo_t_CT"), "1");
    engine.set_capture_delay(Duration::ZERO);
    wait(|| client.one("SELECT COUNT(*) FROM cdc.dbo_t_CT") == "2");
    client.run("EXEC sys.sp_cdc_change_job @job_type = N'capture', @pollinginterval = 0, @maxtrans = 1000");
    assert_eq!(
        client.one("SELECT pollinginterval, maxtrans, maxscans FROM msdb.dbo.cdc_jobs WHERE job_type = N'capture'"),
        "0|1000|10"
    );
}

#[test]
fn an_idle_log_still_moves_max_lsn() {
    let (engine, mut client) = captured(PLAIN);
    let before = client.one("SELECT sys.fn_cdc_get_max_lsn()");
    engine.run_capture_now().unwrap();
    let after = client.one("SELECT sys.fn_cdc_get_max_lsn()");
    assert!(after > before, "{after} {before}");
    assert_eq!(client.one("SELECT TOP (1) tran_id FROM cdc.lsn_time_mapping ORDER BY start_lsn DESC"), "00");
}

#[test]
fn an_instance_made_again_under_its_name_is_another_one() {
    let (engine, mut client) = captured(PLAIN);
    client.run("INSERT INTO t VALUES (1, 1)");
    engine.run_capture_now().unwrap();
    let object = "SELECT object_id FROM cdc.change_tables WHERE capture_instance = N'dbo_t'";
    let before = client.one(object);
    client.run("EXEC sys.sp_cdc_disable_table N'dbo', N't', N'dbo_t'");
    enable(&mut client, "dbo_t");
    engine.run_capture_now().unwrap();
    assert_ne!(client.one(object), before);
    assert!(log(&mut client, "Id").is_empty());
}

#[test]
fn a_renamed_table_is_captured_under_its_instance() {
    let (engine, mut client) = captured(PLAIN);
    client.run("EXEC sp_rename N'dbo.t', N'u'");
    client.run("INSERT INTO u VALUES (1, 1)");
    engine.run_capture_now().unwrap();
    assert_eq!(log(&mut client, "Id"), ["1"]);
    assert_eq!(client.one("SELECT OBJECT_NAME(source_object_id) FROM cdc.change_tables"), "u");
}

#[test]
fn pages_by_the_whole_order_lose_and_repeat_nothing() {
    let (engine, mut client) = captured(PLAIN);
    client.run("BEGIN TRAN; INSERT INTO t VALUES (1, 1), (2, 1), (3, 1); UPDATE t SET V = 2; COMMIT");
    engine.run_capture_now().unwrap();
    let all = log(&mut client, "[__$start_lsn], [__$command_id], [__$seqval], [__$operation]");
    let mut paged: Vec<String> = Vec::new();
    loop {
        let after = match paged.last().map(|row| row.split('|').map(str::to_owned).collect::<Vec<_>>()) {
            Some(last) => format!(
                "WHERE [__$start_lsn] > 0x{0} OR ([__$start_lsn] = 0x{0} AND ([__$command_id] > {1} OR ([__$command_id] = {1} AND \
                 ([__$seqval] > 0x{2} OR ([__$seqval] = 0x{2} AND [__$operation] > {3})))))",
                last[0], last[1], last[2], last[3]
            ),
            None => String::new(),
        };
        let page = client.rows(&format!(
            "DECLARE @n int = 2; SELECT TOP (@n) [__$start_lsn], [__$command_id], [__$seqval], [__$operation] FROM [cdc].[dbo_t_CT] {after} {ORDER}"
        ));
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(all.len(), 9);
}

/// Waits until something holds, generously.
fn wait(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "it did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}
