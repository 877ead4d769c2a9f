//! Every statement, as it is sent for `Forecasts`, is listed in `statements.golden.sql`, so that somebody with a real
//! server can check it by reading or running. `UPDATE_GOLDEN=1 cargo test` writes the list anew.

#[path = "golden_capture.rs"]
mod captured;

use super::*;
use crate::catalogue::tests::{forecasts, inboxes, orders};
use smartpulse_clients::notifications::Audience;
use std::fmt::Write as _;
use std::time::Duration;
use uuid::Uuid;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/statements.golden.sql");

/// The statements with their names.
fn all() -> Vec<(&'static str, String)> {
    let table = forecasts();
    let column = |name: &str| table.columns.iter().find(|c| c.name == name).unwrap();
    let few = [column("Id"), column("Demand"), column("UpdatedVia")];
    let section = "forecast";
    let captured = CapturedTable { schema: "dbo", table: "Forecasts", key: "Id", section, versions: true };
    use ForecastFilter::{Companies, From, To, Unit};
    let mut list = vec![
        ("ping", PING.to_owned()),
        ("session", session(Duration::from_millis(4_000))),
        ("table", TABLE.to_owned()),
        ("columns", COLUMNS.to_owned()),
        ("tables", TABLES.to_owned()),
        ("schema: whether change data capture can be had", MAY_ENABLE_CDC.to_owned()),
        ("scan from the beginning", scan(&table, false)),
        ("scan", scan(&table, true)),
        ("scan of a table with a key of two columns, one of them varchar", scan(&orders(), true)),
        ("get", get(&table, 4)),
        ("get from a table with a key of two columns", get(&orders(), 2)),
        ("list of forecasts", list_forecasts(&table, &[Companies(1), Unit, From, To])),
        ("list of the forecasts of three or four companies", list_forecasts(&table, &[Companies(4), From])),
        ("logs of a component since a time", logs(&crate::catalogue::tests::logs(), 2, true, true)),
        ("logs: where those beyond a number of lines begin", LOGS_BEYOND.to_owned()),
        ("logs: removing the oldest", PRUNE_LOGS.to_owned()),
        ("tombstones", tombstones(true)),
        ("tombstones from the beginning", tombstones(false)),
        ("begin of a write that takes several calls", BEGIN.to_owned()),
        ("end of a write that takes several calls", COMMIT.to_owned()),
        ("write: insert", writes(&[insert(&table, &few, 1, 4)], true)),
        ("write: update", writes(&[update(&table, &few[1..], 1, 3, None)], true)),
        ("write: update if a version is expected", writes(&[update(&table, &few[1..2], 1, 2, Some(3))], true)),
        ("write: update that sets nothing", writes(&[touch(&table, 1)], true)),
        ("write: delete", writes(&[delete(&table, 1, Some(2), 3)], true)),
        ("write: delete from a table without tombstones", writes(&[delete(&orders(), 1, None, 0)], true)),
        ("insert of a few rows where absent", inserts_absent(&[insert_absent(&table, &few, 1, 4)])),
        ("staging table of a bulk insert", staging(&few)),
        ("insert of what was loaded", insert_staged(&table, &few, &[vec![0, 1, 2], vec![0, 1]])),
        ("the same, of a table with a varchar in its key", {
            let orders = orders();
            let columns: Vec<&ColumnInfo> = orders.columns.iter().collect();
            format!("{}\n{}", staging(&columns), insert_staged(&orders, &columns, &[vec![0, 1, 2]]))
        }),
    ];
    list.extend([
        ("devices of a user", delivery::DEVICES.to_owned()),
        ("device removed", delivery::REMOVE_DEVICE.to_owned()),
        ("mails claimed", delivery::CLAIM_MAILS.to_owned()),
        ("mails settled", delivery::settle_mails(2)),
    ]);
    let role = |company| Audience::Role { role: String::new(), company };
    let nil = Uuid::nil();
    list.extend([
        ("users: one", notifications::users(&Audience::User(nil), false)),
        ("users of a company, a further page", notifications::users(&Audience::Company(nil), true)),
        ("users with a role", notifications::users(&role(None), false)),
        ("users with a role in a company, a further page", notifications::users(&role(Some(nil)), true)),
        ("users of the company of a forecast", notifications::users(&Audience::Forecast(nil), false)),
        ("channels switched off", notifications::switched_off(2)),
        ("channel switched", notifications::SWITCH.to_owned()),
        ("quiet periods opened", notifications::claim_quiet(2)),
        ("notifications of a user", notifications::inbox(&inboxes())),
        ("notifications of a user behind a time and an id", notifications::inbox_after(&inboxes())),
        ("notifications not read", notifications::UNREAD.to_owned()),
        ("notification marked as read", notifications::MARK_READ.to_owned()),
        ("device registered", notifications::ADD_DEVICE.to_owned()),
        ("device removed by its owner", notifications::REMOVE_OWN_DEVICE.to_owned()),
        ("deliveries", notifications::deliveries(&inboxes(), &[])),
        ("deliveries to a user with an outcome", notifications::deliveries(&inboxes(), &["UserId", "Outcome"])),
    ]);
    list.extend(captured::all());
    list.extend(schema_batches().into_iter().map(|batch| ("schema", batch)));
    list.extend(table_batches(&captured).into_iter().map(|batch| ("schema of a captured table", batch)));
    list
}

#[test]
fn what_is_sent_is_what_the_golden_file_lists() {
    let mut text = String::from(
        "-- All T-SQL that the client sends, as it is sent for Forecasts. Written by its tests: UPDATE_GOLDEN=1.\n",
    );
    for (name, sql) in all() {
        let _ = write!(text, "\n-- {name}\n{sql}\n");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let differs = golden.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(
        golden == text,
        "statements.golden.sql is out of date from line {:?} on: run with UPDATE_GOLDEN=1 and read the difference",
        differs.map(|line| line + 1)
    );
}

#[test]
fn go_lines_cut_scripts_and_are_never_sent() {
    let batches = schema_batches();
    assert!(batches.len() > 10);
    for batch in &batches {
        assert!(!batch.lines().any(|line| line.trim().eq_ignore_ascii_case("go")), "{batch}");
        assert!(!batch.contains('{') && !batch.contains('}'), "{batch}");
    }
}

#[test]
fn what_is_sent_carries_no_value() {
    let whole = |name: &str| name.starts_with("schema") || name.starts_with("health");
    for (name, sql) in all().iter().filter(|(name, _)| !whole(name)) {
        // Texts in quotes are names from the catalogue's own tables.
        for text in sql.split('\'').skip(1).step_by(2) {
            let known = ["cdc", "_versions_delete", "_truncate_guard", "Queued", "Sending", "Sent"].contains(&text)
                || captured::NAMES.contains(&text);
            assert!(known, "{name}: {text:?}");
        }
    }
}

/// What `sqlparser` lacks of T-SQL: batches with these words are left to the stand-in's parser alone.
const UNKNOWN: [&str; 3] = ["ALTER DATABASE CURRENT SET", "CREATE OR ALTER PROCEDURE", "ENABLE CHANGE_TRACKING"];

/// What it lacks within statements, in words that it knows.
fn rewritten(sql: &str) -> String {
    let mut sql = sql.to_owned();
    while let Some(at) = sql.find("FETCH NEXT @P") {
        sql.replace_range(at..at + "FETCH NEXT @P".len(), "FETCH NEXT ");
    }
    while let Some(at) = sql.find("CHANGETABLE(CHANGES ") {
        let end = sql[at..].find(") AS").expect("an alias") + at;
        sql.replace_range(at..=end, "[changes]");
    }
    sql
}

#[test]
fn what_is_sent_is_t_sql_for_a_parser_that_is_not_ours() {
    let dialect = sqlparser::dialect::MsSqlDialect {};
    for (name, sql) in all().iter().filter(|(_, sql)| !UNKNOWN.iter().any(|words| sql.contains(words))) {
        let parsed = sqlparser::parser::Parser::parse_sql(&dialect, &rewritten(sql));
        assert!(parsed.is_ok_and(|statements| !statements.is_empty()), "{name}:\n{sql}");
    }
}

/// SQL Server 2017 is the oldest that is supported. Source: the pages of the T-SQL functions and clauses, "Applies to".
#[test]
fn nothing_is_sent_that_only_later_servers_know() {
    const SINCE_2019: [&str; 2] = ["APPROX_COUNT_DISTINCT", "OPTIMIZE_FOR_SEQUENTIAL_KEY"];
    const SINCE_2022: [&str; 14] = [
        "APPROX_PERCENTILE_CONT",
        "APPROX_PERCENTILE_DISC",
        "BIT_COUNT",
        "DATETRUNC",
        "DATE_BUCKET",
        "DISTINCT FROM",
        "GENERATE_SERIES",
        "GET_BIT",
        "GREATEST",
        "JSON_ARRAY",
        "JSON_OBJECT",
        "JSON_PATH_EXISTS",
        "LEAST",
        "SET_BIT",
    ];
    const SINCE_2025: [&str; 4] = ["JSON_ARRAYAGG", "JSON_OBJECTAGG", "REGEXP_LIKE", "VECTOR_DISTANCE"];
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (name, statement) in all() {
        let text = statement.to_ascii_uppercase();
        for word in SINCE_2019.iter().chain(&SINCE_2022).chain(&SINCE_2025) {
            let alone = text
                .match_indices(word)
                .any(|(at, _)| !text[..at].ends_with(is_name) && !text[at + word.len()..].starts_with(is_name));
            assert!(!alone, "{word} in: {name}\n{statement}");
        }
    }
}
