//! INSERT, UPDATE, DELETE in their forms; triggers; procedures; bulk load; temporary tables.

use super::{client, engine, parameter};
use crate::session::Output;
use crate::value::{SqlType, Value};
use std::sync::atomic::AtomicBool;

#[test]
fn a_batch_goes_through_a_staging_table() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE n (Id int NOT NULL PRIMARY KEY, Title nvarchar(20) NOT NULL, At datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME())");
    client.run("INSERT INTO n (Id, Title) VALUES (1, N'old')");
    client.run("SELECT TOP (0) Id, Title, CAST(0 AS int) AS n INTO #staging FROM n");
    let columns =
        client.session.bulk_columns("INSERT BULK [#staging] ([Id] int, [Title] nvarchar(20), [n] int)").unwrap();
    assert_eq!(columns.len(), 3);
    let row = |id: i64, title: &str, n: i64| vec![Value::Int(id), Value::Text(title.into()), Value::Int(n)];
    let rows = vec![row(1, "x", 1), row(2, "two", 2), row(2, "again", 3), row(3, "three", 4)];
    assert_eq!(client.session.bulk_insert(rows).unwrap(), 4);
    let answer = client.run(
        "INSERT INTO n (Id, Title) SELECT s.Id, s.Title FROM (SELECT Id, Title, ROW_NUMBER() OVER (PARTITION BY Id ORDER BY n) AS k FROM #staging) AS s \
         WHERE s.k = 1 AND NOT EXISTS (SELECT 1 FROM n WITH (UPDLOCK, HOLDLOCK) WHERE n.Id = s.Id); SELECT @@ROWCOUNT; DROP TABLE #staging",
    );
    assert_eq!(answer.results[0].rows, [[Value::Int(2)]]);
    assert_eq!(client.rows("SELECT Id, Title FROM n ORDER BY Id"), ["1|old", "2|two", "3|three"]);
}

#[test]
fn a_bulk_load_inserts_all_or_nothing() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE b (Id int NOT NULL PRIMARY KEY, V int NOT NULL)");
    client.session.bulk_columns("INSERT BULK b (Id int, V int)").unwrap();
    let error = client
        .session
        .bulk_insert(vec![vec![Value::Int(1), Value::Int(1)], vec![Value::Int(1), Value::Int(2)]])
        .unwrap_err();
    assert_eq!(error.number, 2627);
    assert_eq!(client.one("SELECT COUNT(*) FROM b"), "0");
}

#[test]
fn bulk_load_fires_triggers_and_checks_only_when_told() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE b (Id int NOT NULL PRIMARY KEY CHECK (Id < 10)); CREATE TABLE fired (N int)");
    client.run("CREATE TRIGGER tr ON b AFTER INSERT AS INSERT INTO fired SELECT COUNT(*) FROM inserted");
    client.session.bulk_columns("INSERT BULK b (Id int)").unwrap();
    client.session.bulk_insert(vec![vec![Value::Int(50)]]).unwrap();
    assert_eq!(client.one("SELECT COUNT(*) FROM fired"), "0");
    client.session.bulk_columns("INSERT BULK b (Id int) WITH (CHECK_CONSTRAINTS, FIRE_TRIGGERS)").unwrap();
    assert_eq!(client.session.bulk_insert(vec![vec![Value::Int(60)]]).unwrap_err().number, 547);
    client.session.bulk_columns("INSERT BULK b (Id int) WITH (CHECK_CONSTRAINTS, FIRE_TRIGGERS)").unwrap();
    client.session.bulk_insert(vec![vec![Value::Int(1)], vec![Value::Int(2)]]).unwrap();
    assert_eq!(client.one("SELECT N FROM fired"), "2");
}

#[test]
fn output_gives_what_changed_but_not_beside_triggers() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int IDENTITY(5, 2) PRIMARY KEY, V int)");
    assert_eq!(
        client.rows("INSERT INTO t (V) OUTPUT inserted.Id, inserted.V * 10 AS X VALUES (1), (2)"),
        ["5|10", "7|20"]
    );
    assert_eq!(client.one("SELECT SCOPE_IDENTITY()"), "NULL");
    assert_eq!(
        client.rows("UPDATE t SET V += 1 OUTPUT deleted.V, inserted.V, inserted.V - deleted.V WHERE Id = 5"),
        ["1|2|1"]
    );
    assert_eq!(client.rows("DECLARE @o TABLE (Id int); DELETE t OUTPUT deleted.Id INTO @o (Id) WHERE V = 2; SELECT Id FROM @o ORDER BY Id"), ["5", "7"]);
    client.run("CREATE TRIGGER tr ON t AFTER UPDATE AS RETURN");
    client.run("INSERT INTO t (V) VALUES (1)");
    assert_eq!(client.error("UPDATE t SET V = 1 OUTPUT inserted.Id"), 334);
    client.run("DISABLE TRIGGER tr ON t; UPDATE t SET V = 1 OUTPUT inserted.Id");
    assert_eq!(client.one("INSERT INTO t (V) VALUES (3); SELECT SCOPE_IDENTITY()"), "11");
}

#[test]
fn triggers_are_set_based_nest_and_do_not_fire_themselves() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY, V int); CREATE TABLE log (What nvarchar(40), N int, Level int)");
    client.run(
        "CREATE TRIGGER tr ON t AFTER INSERT, UPDATE, DELETE AS BEGIN SET NOCOUNT ON; \
         INSERT INTO log SELECT CASE WHEN UPDATE(V) THEN N'v' ELSE N'other' END, (SELECT COUNT(*) FROM inserted) - (SELECT COUNT(*) FROM deleted), TRIGGER_NESTLEVEL(); \
         UPDATE t SET V = V + 1 WHERE V < 0; END",
    );
    client.run("INSERT INTO t VALUES (1, -5), (2, 5)");
    client.run("UPDATE t SET Id = Id + 1");
    client.run("DELETE FROM t");
    assert_eq!(client.rows("SELECT What, N, Level FROM log"), ["v|2|1", "other|0|1", "other|-2|1"]);
}

#[test]
fn the_nesting_level_of_one_trigger_counts_it_alone() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY, V int); CREATE TABLE log (Own int, Other int, Whole int)");
    client.run("CREATE TRIGGER first ON t AFTER INSERT AS UPDATE t SET V = 1");
    client.run(
        "CREATE TRIGGER second ON t AFTER UPDATE AS INSERT INTO log SELECT \
         TRIGGER_NESTLEVEL(OBJECT_ID(N'dbo.second'), 'AFTER', 'DML'), TRIGGER_NESTLEVEL(OBJECT_ID(N'dbo.first')), TRIGGER_NESTLEVEL()",
    );
    client.run("INSERT INTO t VALUES (1, 0)");
    client.run("UPDATE t SET V = 2");
    assert_eq!(client.rows("SELECT Own, Other, Whole FROM log"), ["1|1|2", "1|0|1"]);
}

#[test]
fn an_error_in_a_trigger_undoes_the_transaction() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY)");
    client.run(
        "CREATE TRIGGER tr ON t AFTER INSERT AS IF EXISTS (SELECT 1 FROM inserted WHERE Id < 0) THROW 50009, N'no', 1",
    );
    let answer =
        client.batch("BEGIN TRAN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (-1); INSERT INTO t VALUES (2)", &[]);
    assert_eq!(answer.errors[0].number, 50009);
    assert_eq!(answer.errors[0].procedure, "tr");
    assert_eq!(client.one("SELECT @@TRANCOUNT, (SELECT COUNT(*) FROM t)"), "0|0");
    client.run("CREATE OR ALTER TRIGGER tr ON t AFTER INSERT AS ROLLBACK");
    assert_eq!(client.error("INSERT INTO t VALUES (1)"), 3609);
}

#[test]
fn procedures_take_defaults_and_give_outputs_and_a_status() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE PROCEDURE dbo.p @a int, @b int = 4, @sum int OUTPUT AS BEGIN SET @sum = @a + @b; SELECT @sum AS S; RETURN 7; END");
    assert_eq!(client.one("DECLARE @s int, @r int; EXEC @r = dbo.p 3, @sum = @s OUTPUT; SELECT @s, @r"), "7|7");
    let mut output = parameter("@sum", SqlType::Int, Value::Null);
    output.output = true;
    let answer = client.call("dbo.p", &[parameter("@a", SqlType::Int, Value::Int(1)), output]);
    assert_eq!(answer.status, Some(7));
    assert_eq!(answer.returned, [("@sum".to_owned(), Value::Int(5))]);
    assert_eq!(client.call("dbo.p", &[]).errors[0].number, 201);
    assert_eq!(client.call("dbo.q", &[]).errors[0].number, 2812);
    assert_eq!(client.one("EXEC sp_executesql N'SELECT @x + 1', N'@x int', @x = 4"), "5");
    assert_eq!(client.one("EXEC (N'SELECT 3')"), "3");
}

#[test]
fn queries_of_all_sorts() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY, G nvarchar(5), V float); INSERT INTO t VALUES (1, N'a', 1), (2, N'A', 2), (3, N'b', 3)");
    client.run("CREATE VIEW dbo.v AS SELECT G, SUM(V) AS S FROM t GROUP BY G");
    for (sql, expected) in [
        ("SELECT G, COUNT(*) FROM t GROUP BY G ORDER BY G", &["a|2", "b|1"][..]),
        ("SELECT S FROM v ORDER BY S DESC", &["3", "3"]),
        (
            "WITH x AS (SELECT Id, V FROM t WHERE V > 1) SELECT x.Id FROM x JOIN t ON t.Id = x.Id ORDER BY x.V DESC",
            &["3", "2"],
        ),
        ("SELECT TOP (2) Id FROM t ORDER BY Id DESC", &["3", "2"]),
        ("SELECT Id FROM t ORDER BY V DESC, Id OFFSET 1 ROWS FETCH NEXT 1 ROWS ONLY", &["2"]),
        ("SELECT Id FROM t WHERE Id IN (1, 3) UNION ALL SELECT 9 ORDER BY Id", &["1", "3", "9"]),
        ("SELECT DISTINCT G FROM t ORDER BY 1", &["a", "b"]),
        ("SELECT Id FROM t WHERE G LIKE N'[b-z]%'", &["3"]),
        ("SELECT AVG(Id), AVG(V), MIN(G), COUNT(DISTINCT G) FROM t", &["2|2|a|2"]),
        ("SELECT Id, ROW_NUMBER() OVER (PARTITION BY G ORDER BY V DESC) FROM t ORDER BY Id", &["1|2", "2|1", "3|1"]),
        ("SELECT (SELECT MAX(V) FROM t AS u WHERE u.G = t.G) FROM t WHERE Id = 1", &["2"]),
        ("SELECT STRING_AGG(G, N',') WITHIN GROUP (ORDER BY Id) FROM t", &["a,A,b"]),
        ("SELECT value FROM STRING_SPLIT(N'a,b', N',')", &["a", "b"]),
        ("WITH n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT SUM(i) FROM n", &["10"]),
        ("SELECT COUNT(*) FROM t GROUP BY G HAVING COUNT(*) > 1", &["2"]),
        ("SELECT a.Id, b.Id FROM t AS a LEFT JOIN t AS b ON b.Id = a.Id + 1 ORDER BY a.Id", &["1|2", "2|3", "3|NULL"]),
        ("SELECT Id FROM (VALUES (1), (2)) AS x (Id)", &["1", "2"]),
        (
            "DECLARE @i int = 0, @s int = 0; WHILE @i < 5 BEGIN SET @i += 1; IF @i = 3 CONTINUE; SET @s += @i; END; SELECT @s",
            &["12"],
        ),
    ] {
        assert_eq!(client.rows(sql), expected, "{sql}");
    }
}

#[test]
fn unique_holds_for_the_statement_as_a_whole() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)");
    client.run("UPDATE t SET Id = Id + 1");
    assert_eq!(client.rows("SELECT Id FROM t ORDER BY Id"), ["2", "3", "4"]);
}

#[test]
fn an_attention_stops_a_long_answer() {
    let engine = engine();
    let mut client = client(&engine);
    let cancelled = AtomicBool::new(false);
    let mut rows = 0;
    let alive =
        client.session.batch("SELECT value FROM GENERATE_SERIES(1, 100000000)", &[], &cancelled, &mut |output| {
            if matches!(output, Output::Row(_)) {
                rows += 1;
                if rows == 1000 {
                    cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
                }
            }
            true
        });
    assert!(alive);
    assert!(rows < 2000, "{rows}");
    assert_eq!(client.one("SELECT 1"), "1");
}

#[test]
fn the_catalogue_tells_of_columns_and_keys() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id uniqueidentifier NOT NULL, N nvarchar(32) NULL, D decimal(9, 3) NOT NULL, B varbinary(max), CONSTRAINT PK_t PRIMARY KEY (Id))");
    assert_eq!(
        client.rows(
            "SELECT c.name, ty.name, c.max_length, c.precision, c.scale, c.is_nullable FROM sys.columns AS c \
             JOIN sys.types AS ty ON ty.user_type_id = c.user_type_id JOIN sys.tables AS t ON t.object_id = c.object_id \
             JOIN sys.schemas AS s ON s.schema_id = t.schema_id WHERE s.name = N'dbo' AND t.name = N't' ORDER BY c.column_id"
        ),
        ["Id|uniqueidentifier|16|0|0|0", "N|nvarchar|64|0|0|1", "D|decimal|5|9|3|0", "B|varbinary|-1|0|0|1"]
    );
    assert_eq!(
        client.one(
            "SELECT k.name, col.name FROM sys.key_constraints AS k JOIN sys.index_columns AS ic ON ic.object_id = k.parent_object_id \
             AND ic.index_id = k.unique_index_id JOIN sys.columns AS col ON col.object_id = ic.object_id AND col.column_id = ic.column_id \
             WHERE k.type = N'PK' AND k.parent_object_id = OBJECT_ID(N'dbo.t')"
        ),
        "PK_t|Id"
    );
    assert_eq!(client.one("SELECT COUNT(*) FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = N't'"), "4");
    assert_eq!(
        client
            .one("SELECT SERVERPROPERTY('ProductMajorVersion'), HAS_PERMS_BY_NAME(NULL, NULL, 'VIEW DATABASE STATE')"),
        "14|1"
    );
    engine.deny("VIEW DATABASE STATE");
    assert_eq!(client.one("SELECT HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'VIEW DATABASE STATE')"), "0");
    assert_eq!(client.error("SELECT * FROM sys.dm_tran_commit_table"), 300);
}

#[test]
fn merge_decides_for_each_row_once() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY, V int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    client.run(
        "MERGE INTO t USING (VALUES (1, 10), (4, 40), (5, 50)) AS s (Id, V) ON t.Id = s.Id \
         WHEN MATCHED THEN UPDATE SET V = s.V WHEN NOT MATCHED AND s.V < 50 THEN INSERT (Id, V) VALUES (s.Id, s.V) \
         WHEN NOT MATCHED BY SOURCE AND t.V > 2 THEN DELETE;",
    );
    assert_eq!(client.rows("SELECT Id, V FROM t ORDER BY Id"), ["1|10", "2|2", "4|40"]);
}

#[test]
fn what_sp_executesql_sets_and_makes_ends_with_it() {
    let engine = engine();
    let mut client = client(&engine);
    let one = [parameter("@P1", SqlType::Int, Value::Int(1))];
    client.run_with("SET XACT_ABORT ON; CREATE TABLE #t (Id int); INSERT INTO #t VALUES (@P1)", &one);
    assert_eq!(client.error("SELECT * FROM #t"), 208);
    client.run("CREATE TABLE #t (Id int)");
    client.run_with("INSERT INTO #t VALUES (@P1)", &one);
    assert_eq!(client.one("SELECT Id FROM #t"), "1");
}

#[test]
fn a_rowversion_rises_with_every_write() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY, R rowversion); INSERT INTO t (Id) VALUES (1)");
    let before = client.one("SELECT R FROM t");
    client.run("UPDATE t SET Id = 2");
    assert!(client.one("SELECT R FROM t") > before);
}

#[test]
fn an_attention_ends_the_wait_for_a_lock() {
    let engine = engine();
    let (mut a, mut b) = (client(&engine), client(&engine));
    a.run("CREATE TABLE t (Id int PRIMARY KEY)");
    a.run("BEGIN TRAN; INSERT INTO t VALUES (1)");
    let cancelled = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| b.session.batch("INSERT INTO t VALUES (2)", &[], &cancelled, &mut |_| true));
        std::thread::sleep(std::time::Duration::from_millis(50));
        cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(waiting.join().unwrap());
    });
    a.run("ROLLBACK");
    assert_eq!(a.one("SELECT COUNT(*) FROM t"), "0");
}

/// Not a measurement: it prints what the engine manages here, and fails only when that is absurd.
#[test]
fn many_rows_go_in_and_come_out() {
    use std::time::Instant;
    const ROWS: i64 = 100_000;
    let engine = engine();
    engine.stop_capture();
    let mut client = client(&engine);
    client.script("EXEC sys.sp_cdc_enable_db\nGO\nCREATE TABLE t (Id uniqueidentifier NOT NULL PRIMARY KEY, V float NOT NULL, S nvarchar(32) NULL, At datetime2(3) NOT NULL)");
    client.run("EXEC sys.sp_cdc_enable_table N'dbo', N't', NULL");
    let start = Instant::now();
    let say =
        |what: &str, start: Instant| eprintln!("{what}: {:.0} rows/s", ROWS as f64 / start.elapsed().as_secs_f64());
    client.run(&format!(
        "INSERT INTO t SELECT NEWID(), value, N'status', SYSUTCDATETIME() FROM GENERATE_SERIES(1, {ROWS})"
    ));
    say("insert under capture", start);
    engine.run_capture_now().unwrap();
    for (what, sql) in [
        ("scan", "SELECT * FROM t"),
        (
            "read of the change table",
            "SELECT [__$start_lsn], [__$command_id], [__$seqval], [__$operation], [__$update_mask], Id, V, S, At FROM cdc.dbo_t_CT ORDER BY [__$start_lsn], [__$command_id], [__$seqval], [__$operation]",
        ),
    ] {
        let start = Instant::now();
        let mut rows = 0;
        client.session.batch(sql, &[], &AtomicBool::new(false), &mut |output| {
            rows += i64::from(matches!(output, Output::Row(_)));
            true
        });
        say(what, start);
        assert_eq!(rows, ROWS);
    }
    let start = Instant::now();
    for at in 0..2000 {
        client.run_with(
            "INSERT INTO t (Id, V, S, At) VALUES (NEWID(), @P1, N'x', SYSUTCDATETIME())",
            &[parameter("@P1", SqlType::Float, Value::Float(f64::from(at)))],
        );
    }
    eprintln!("single inserts: {:.0}/s", 2000.0 / start.elapsed().as_secs_f64());
}
