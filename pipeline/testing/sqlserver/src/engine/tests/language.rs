//! Statements, expressions, types, errors.

use super::{client, engine, parameter};
use crate::value::{SqlType, Value};

#[test]
fn rows_come_back_with_their_types() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int NOT NULL PRIMARY KEY, Name nvarchar(20) NULL, At datetime2(3), Amount decimal(9,2), G uniqueidentifier)");
    client.run_with(
        "INSERT INTO t VALUES (@P1, @P2, '2025-01-02T03:04:05.6789', 12.345, 'A0000000-0000-0000-0000-000000000001')",
        &[
            parameter("@P1", SqlType::Int, Value::Int(7)),
            parameter("@P2", SqlType::NVarChar(Some(4000)), Value::Text("seven".into())),
        ],
    );
    let answer = client.run("SELECT *, Amount * 2 AS Twice, COUNT(*) OVER () AS N FROM t");
    let result = &answer.results[0];
    assert_eq!(
        result.types,
        [
            SqlType::Int,
            SqlType::NVarChar(Some(20)),
            SqlType::DateTime2(3),
            SqlType::Decimal(9, 2),
            SqlType::UniqueIdentifier,
            SqlType::Decimal(11, 2),
            SqlType::Int
        ]
    );
    assert_eq!(
        client.one("SELECT Id, Name, At, Amount, G FROM t"),
        "7|seven|2025-01-02 03:04:05.679|12.35|a0000000-0000-0000-0000-000000000001"
    );
}

#[test]
fn expressions_give_what_sql_server_gives() {
    let engine = engine();
    let mut client = client(&engine);
    for (expression, expected) in [
        ("7 / 2", "3"),
        ("7.0 / 2", "3.500000"),
        ("1e0 / 4", "0.25"),
        ("'a' + N'b'", "ab"),
        ("LEN(N'abc  ')", "3"),
        ("DATALENGTH(N'abc')", "6"),
        ("ISNULL(NULL, 3)", "3"),
        ("COALESCE(NULL, N'x', N'y')", "x"),
        ("CASE WHEN 'A' = 'a ' THEN 1 ELSE 0 END", "1"),
        ("CAST(N'12' AS int) + 1", "13"),
        ("TRY_CONVERT(int, N'x')", "NULL"),
        ("CONVERT(varchar(30), CAST('2025-01-02T03:04:05' AS datetime2(0)), 126)", "2025-01-02T03:04:05"),
        ("DATEADD(millisecond, 1500, CAST('2025-01-01' AS datetime2(3)))", "2025-01-01 00:00:01.500"),
        ("DATEDIFF_BIG(second, '2025-01-01', '2025-01-02')", "86400"),
        ("DATEDIFF(day, '2025-01-01T23:59:59', '2025-01-02')", "1"),
        ("SUBSTRING(N'hello', 2, 3)", "ell"),
        ("CHARINDEX(N'L', N'hello')", "3"),
        ("CONCAT(N'a', NULL, 1)", "a1"),
        ("CONVERT(varbinary(4), 258)", "00000102"),
        ("CONVERT(bigint, 0x00000102)", "258"),
        ("CONVERT(nvarchar(30), 0x0102, 1)", "0x0102"),
        ("CAST(1 AS bit) & 1", "1"),
        ("ROUND(2.5, 0)", "3.0"),
        ("-5 % 3", "-2"),
        ("CAST(0.1 AS float) + 0.2", "0.30000000000000004"),
        ("NULLIF(1, 1)", "NULL"),
        ("IIF(1 > 2, N'a', N'b')", "b"),
        ("QUOTENAME(N'a]b')", "[a]]b]"),
        ("CAST(1234567.891 AS decimal(18, 2))", "1234567.89"),
        ("2147483648 - 1", "2147483647"),
    ] {
        assert_eq!(client.one(&format!("SELECT {expression}")), expected, "{expression}");
    }
}

#[test]
fn errors_have_sql_servers_numbers() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE p (Id int PRIMARY KEY, U int NULL CONSTRAINT UQ_p UNIQUE, Name nvarchar(3) NOT NULL, CONSTRAINT CK_p CHECK (Id < 100))");
    client.run("CREATE TABLE c (Id int PRIMARY KEY, P int NULL CONSTRAINT FK_c REFERENCES p (Id))");
    client.run("INSERT INTO p VALUES (1, 1, N'a'); CREATE UNIQUE INDEX IX ON p (Name)");
    for (sql, number) in [
        ("SELECT * FROM nothing", 208),
        ("SELECT x FROM p", 207),
        ("SELECT z.x FROM p", 4104),
        ("SELEC 1", 2812),
        ("SELECT FROM p", 156),
        ("SELECT 1 +", 102),
        ("SELECT @x", 137),
        ("EXEC dbo.nothing", 2812),
        ("INSERT INTO p VALUES (1, 2, N'b')", 2627),
        ("INSERT INTO p VALUES (2, 1, N'b')", 2627),
        ("INSERT INTO p VALUES (2, 2, N'A')", 2601),
        ("INSERT INTO p VALUES (2, 2, NULL)", 515),
        ("INSERT INTO p VALUES (2, 2, N'abcd')", 2628),
        ("INSERT INTO p VALUES (100, 2, N'b')", 547),
        ("INSERT INTO c VALUES (1, 5)", 547),
        ("INSERT INTO c VALUES (1)", 213),
        ("SELECT CAST(N'x' AS int)", 245),
        ("SELECT CAST(N'x' AS bigint)", 8114),
        ("SELECT CAST(N'x' AS uniqueidentifier)", 8169),
        ("SELECT CAST(N'x' AS datetime2)", 241),
        ("SELECT 1 / 0", 8134),
        ("SELECT CAST(3000000000 AS int)", 8115),
        ("SELECT CAST(300 AS tinyint)", 220),
        ("DECLARE @i int = 2147483647; SET @i = @i + 1", 8115),
        ("COMMIT", 3902),
        ("ROLLBACK", 3903),
        ("THROW 50001, N'mine', 1", 50001),
        ("RAISERROR(N'mine %d', 16, 1, 5)", 50000),
        ("SELECT Name, COUNT(*) FROM p", 8120),
        ("SELECT Id FROM p, c", 209),
        ("CREATE TABLE p (x int)", 2714),
        ("TRUNCATE TABLE p", 4712),
        ("SELECT nothing(1)", 195),
        ("SELECT 1 WHERE 1", 4145),
    ] {
        assert_eq!(client.error(sql), number, "{sql}");
    }
    client.run("INSERT INTO c VALUES (1, 1)");
    assert_eq!(client.error("DELETE FROM p"), 547);
    assert_eq!(
        client
            .error_text("INSERT INTO p VALUES (1, 9, N'z')")
            .split(": ")
            .next()
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .split('\'')
            .nth(2)
            .unwrap(),
        ". Cannot insert duplicate key in object "
    );
}

#[test]
fn a_failed_statement_leaves_the_batch_going_and_xact_abort_ends_it() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY)");
    let answer = client.batch("INSERT INTO t VALUES (1), (1); INSERT INTO t VALUES (2)", &[]);
    assert_eq!(answer.errors[0].number, 2627);
    assert_eq!(client.rows("SELECT Id FROM t"), ["2"]);
    let answer = client.batch(
        "SET XACT_ABORT ON; BEGIN TRAN; INSERT INTO t VALUES (3); INSERT INTO t VALUES (3); INSERT INTO t VALUES (4)",
        &[],
    );
    assert_eq!(answer.errors.len(), 1);
    assert_eq!(client.one("SELECT @@TRANCOUNT"), "0");
    assert_eq!(client.rows("SELECT Id FROM t"), ["2"]);
}

#[test]
fn try_catch_sees_the_error_and_throws_it_again() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE t (Id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let caught = client.one(
        "BEGIN TRY INSERT INTO t VALUES (1); SELECT N'no'; END TRY \
         BEGIN CATCH SELECT ERROR_NUMBER(), ERROR_SEVERITY(), XACT_STATE(); END CATCH",
    );
    assert_eq!(caught, "2627|14|0");
    assert_eq!(client.error("BEGIN TRY SELECT 1/0 END TRY BEGIN CATCH THROW; END CATCH"), 8134);
    let doomed = client.batch(
        "SET XACT_ABORT ON; BEGIN TRY BEGIN TRAN; INSERT INTO t VALUES (1); END TRY \
         BEGIN CATCH SELECT XACT_STATE(); IF XACT_STATE() = -1 ROLLBACK; END CATCH; SELECT @@TRANCOUNT",
        &[],
    );
    assert_eq!(doomed.results[0].rows[0], [Value::Int(-1)]);
    assert_eq!(doomed.results[1].rows[0], [Value::Int(0)]);
}

#[test]
fn guids_sort_as_sql_server_sorts_them() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE g (Id uniqueidentifier PRIMARY KEY)");
    client.run(
        "INSERT INTO g VALUES ('00000000-0000-0000-0000-010000000000'), ('00000000-0000-0000-0001-000000000000'), \
         ('01000000-0000-0000-0000-000000000000'), ('00000000-0000-0100-0000-000000000000')",
    );
    assert_eq!(
        client.rows("SELECT Id FROM g ORDER BY Id"),
        [
            "01000000-0000-0000-0000-000000000000",
            "00000000-0000-0100-0000-000000000000",
            "00000000-0000-0000-0001-000000000000",
            "00000000-0000-0000-0000-010000000000"
        ]
    );
    let after = "SELECT COUNT(*) FROM g WHERE Id > '00000000-0000-0100-0000-000000000000'";
    assert_eq!(client.one(after), "2");
}

#[test]
fn names_may_hold_anything() {
    let engine = engine();
    let mut client = client(&engine);
    client.run("CREATE TABLE [a]]b [c#] ([x]] [y] int NOT NULL PRIMARY KEY, [select] nvarchar(10))");
    client.run("INSERT INTO [dbo].[a]]b [c#] ([x]] [y], [select]) VALUES (1, N'q')");
    assert_eq!(client.one("SELECT [t].[x]] [y], t.[select] FROM [a]]b [c#] AS t"), "1|q");
    assert_eq!(client.one("SELECT OBJECT_NAME(OBJECT_ID(N'[dbo].[a]]b [c#]'))"), "a]b [c#");
}
