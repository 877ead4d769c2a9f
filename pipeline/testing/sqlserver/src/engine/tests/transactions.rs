//! Transactions, isolation, locks.

use super::{client, engine, parameter};
use crate::value::{SqlType, Value};

#[test]
fn others_see_nothing_before_the_commit() {
    let engine = engine();
    let (mut a, mut b) = (client(&engine), client(&engine));
    a.run("CREATE TABLE t (Id int PRIMARY KEY)");
    a.run("BEGIN TRAN; INSERT INTO t VALUES (1)");
    assert_eq!(a.one("SELECT COUNT(*) FROM t"), "1");
    assert_eq!(b.one("SELECT COUNT(*) FROM t"), "0");
    a.run("COMMIT");
    assert_eq!(b.one("SELECT COUNT(*) FROM t"), "1");
}

#[test]
fn a_second_writer_waits_for_the_lock_timeout() {
    let engine = engine();
    let (mut a, mut b) = (client(&engine), client(&engine));
    a.run("CREATE TABLE t (Id int PRIMARY KEY)");
    a.run("BEGIN TRAN; INSERT INTO t VALUES (1)");
    assert_eq!(b.error("SET LOCK_TIMEOUT 20; INSERT INTO t VALUES (2)"), 1222);
    a.run("ROLLBACK");
    b.run("INSERT INTO t VALUES (2)");
    assert_eq!(a.rows("SELECT Id FROM t"), ["2"]);
}

#[test]
fn read_committed_sees_the_newest_commit_within_a_transaction() {
    let engine = engine();
    let (mut a, mut b) = (client(&engine), client(&engine));
    a.run("CREATE TABLE t (Id int PRIMARY KEY)");
    a.run("BEGIN TRAN; SELECT * FROM t");
    b.run("INSERT INTO t VALUES (1)");
    assert_eq!(a.one("SELECT COUNT(*) FROM t"), "1");
    a.run("INSERT INTO t VALUES (2); COMMIT");
}

#[test]
fn a_snapshot_that_writes_after_another_wrote_is_error_3960() {
    let engine = engine();
    let (mut a, mut b) = (client(&engine), client(&engine));
    a.run("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON");
    a.run("CREATE TABLE t (Id int PRIMARY KEY, V int); INSERT INTO t VALUES (1, 1)");
    a.run("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN; SELECT * FROM t");
    b.run("UPDATE t SET V = 2");
    assert_eq!(a.error("UPDATE t SET V = 3"), 3960);
    assert_eq!(a.one("SELECT @@TRANCOUNT"), "0");
}

#[test]
fn nesting_counts_and_only_the_outermost_commit_commits() {
    let engine = engine();
    let mut a = client(&engine);
    a.run("CREATE TABLE t (Id int PRIMARY KEY)");
    assert_eq!(a.one("BEGIN TRAN; BEGIN TRAN; INSERT INTO t VALUES (1); COMMIT; SELECT @@TRANCOUNT"), "1");
    a.run("ROLLBACK");
    assert_eq!(a.one("SELECT COUNT(*) FROM t"), "0");
    a.run("BEGIN TRAN; INSERT INTO t VALUES (1); SAVE TRAN s; INSERT INTO t VALUES (2); ROLLBACK TRAN s; COMMIT");
    assert_eq!(a.rows("SELECT Id FROM t"), ["1"]);
}

#[test]
fn a_lease_is_taken_once() {
    let engine = engine();
    let mut a = client(&engine);
    a.run("CREATE TABLE lease (Id nvarchar(400) PRIMARY KEY, Epoch bigint NOT NULL, Position varbinary(4000) NULL, Until datetime2(3) NOT NULL)");
    a.run("INSERT INTO lease VALUES (N'x', 1, NULL, DATEADD(second, -1, SYSUTCDATETIME()))");
    let sql = "UPDATE lease SET Epoch = Epoch + 1, Until = DATEADD(millisecond, @P1, SYSUTCDATETIME()) \
               OUTPUT inserted.Epoch, inserted.Position WHERE Id = @P2 AND Until <= SYSUTCDATETIME()";
    let parameters = [
        parameter("@P1", SqlType::Int, Value::Int(600_000)),
        parameter("@P2", SqlType::NVarChar(Some(4000)), Value::Text("X".into())),
    ];
    let first = a.run_with(sql, &parameters);
    assert_eq!(first.results[0].rows, [[Value::Int(2), Value::Null]]);
    assert_eq!(first.counts, [Some(1)]);
    assert!(a.run_with(sql, &parameters).results[0].rows.is_empty());
}

#[test]
fn application_locks_exclude_each_other() {
    let engine = engine();
    let (mut a, mut b) = (client(&engine), client(&engine));
    let take = "DECLARE @r int; EXEC @r = sp_getapplock @Resource = N'x', @LockMode = N'Exclusive', @LockOwner = N'Session', \
                @LockTimeout = 0; SELECT @r";
    assert_eq!(a.one(take), "0");
    assert_eq!(b.one(take), "-1");
    a.run("EXEC sp_releaseapplock @Resource = N'x', @LockOwner = N'Session'");
    assert_eq!(b.one(take), "0");
}

#[test]
fn a_reset_session_is_like_a_new_one() {
    let engine = engine();
    let mut a = client(&engine);
    a.run("CREATE TABLE t (Id int)");
    a.run("SET NOCOUNT ON; BEGIN TRAN; INSERT INTO t VALUES (1); CREATE TABLE #x (Id int)");
    a.session.reset();
    assert_eq!(a.one("SELECT @@TRANCOUNT, (SELECT COUNT(*) FROM t)"), "0|0");
    assert_eq!(a.error("SELECT * FROM #x"), 208);
}
