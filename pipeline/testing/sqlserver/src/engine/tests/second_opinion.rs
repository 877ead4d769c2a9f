//! `sqlparser`'s T-SQL dialect reads what our own parser reads: two authors are less likely to be wrong in the same place.

use crate::engine::parser;
use sqlparser::dialect::MsSqlDialect;
use sqlparser::parser::Parser;
use std::sync::atomic::AtomicU64;

#[test]
fn both_parsers_take_and_refuse_the_same() {
    for (sql, valid) in [
        ("SELECT TOP (10) Id FROM [dbo].[t] WITH (UPDLOCK, HOLDLOCK) WHERE Id > @P1 ORDER BY Id", true),
        ("SELECT Id FROM t ORDER BY Id OFFSET 10 ROWS FETCH NEXT 5 ROWS ONLY", true),
        ("UPDATE t SET V = 1 OUTPUT inserted.Id WHERE Id = 1", true),
        ("INSERT INTO t (Id) SELECT @P1 WHERE NOT EXISTS (SELECT 1 FROM t WHERE Id = @P1)", true),
        ("DELETE FROM t WHERE Id IN (SELECT Id FROM u)", true),
        ("WITH x AS (SELECT 1 AS a) SELECT a FROM x", true),
        ("SELECT CASE WHEN a = 1 THEN 2 ELSE 3 END FROM t", true),
        ("DECLARE @v bigint = 1", true),
        ("SELECT FROM t", false),
        ("SELECT a FROM t WHERE", false),
        ("UPDATE t SET WHERE Id = 1", false),
        ("INSERT INTO t (Id VALUES (1)", false),
        ("SELECT (1 + FROM t", false),
        ("DELETE FROM WHERE Id = 1", false),
    ] {
        let ours = parser::parse(sql, &AtomicU64::new(0));
        let theirs = Parser::parse_sql(&MsSqlDialect {}, sql);
        assert_eq!(ours.is_ok(), valid, "ours: {sql}: {ours:?}");
        assert_eq!(theirs.is_ok(), valid, "theirs: {sql}: {theirs:?}");
    }
}
