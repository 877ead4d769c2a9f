//! The demo, by the lines that it prints.

mod support;

use rusqlite::Connection;
use serde_json::Value;
use support::{Live, PATIENCE, Place, wait_until};

/// What stands between two marks.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in\n{text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in\n{rest}")).0
}

#[test]
fn the_lines_to_try_do_what_they_say() {
    let place = Place::new();
    let mut command = place.command();
    command.arg("demo").env("SMARTPULSE__PLAYER__CHANGES_PER_SECOND", "0");
    let demo = Live::printing(&mut command, &place.path("lines"));
    wait_until("the lines to try", || place.read("lines").contains("Ctrl-C ends it"));
    let lines = place.read("lines");
    let token = between(&lines, "TOKEN=", "\n");
    let url = between(&lines, "curl -i -H \"Authorization: Bearer $TOKEN\" ", "\n");
    let file = between(&lines, "sqlite3 -cmd '.timeout 2000' ", " ");
    let update = between(&lines, "\"UPDATE", "\"");

    let read = || {
        let request = ureq::get(url).header("Authorization", format!("Bearer {token}"));
        let mut response = request.call().expect("an answer");
        let level = response.headers()["x-cache-level"].to_str().expect("text").to_owned();
        let document: Value =
            serde_json::from_str(&response.body_mut().read_to_string().expect("a body")).expect("JSON");
        (level, document)
    };
    let (level, before) = read();
    assert_eq!(level, "L1", "{before}");
    let other = Connection::open(place.path(file)).expect("the database");
    other.busy_timeout(PATIENCE).expect("a time-out");
    assert_eq!(other.execute(&format!("UPDATE{update}"), []).expect("the statement of the demo"), 1);
    let next = before["versionId"].as_i64().expect("a version") + 1;
    wait_until("the next version", || read().1["versionId"] == next);
    let (level, after) = read();
    assert_eq!((level.as_str(), &after["demand"]), ("L1", &Value::from(0.5)));

    // It falls by more than 30 %, and a person of its company reads so.
    let (key, anna) = (before["id"].as_str().expect("an id"), between(&lines, "ANNA=", "\n"));
    for demand in [0.9, 0.4] {
        let sql = "UPDATE Forecasts SET Demand = ?1 WHERE Id = ?2";
        assert_eq!(other.execute(sql, rusqlite::params![demand, key]).expect("an update"), 1);
    }
    let inbox = between(&lines, "curl -H \"Authorization: Bearer $ANNA\" '", "'");
    wait_until("a notification", || {
        let request = ureq::get(inbox).header("Authorization", format!("Bearer {anna}"));
        let text = request.call().expect("an answer").body_mut().read_to_string().expect("a body");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        page["items"].as_array().is_some_and(|items| items.iter().any(|item| item["type"] == "DemandDropped"))
    });

    demo.signal("TERM");
    demo.end().exits(0);
}
