//! From a row that changes to a person who is told, by every channel.
#![cfg(feature = "push")]

mod process;
mod support;
mod told;

use process::{pipeline, until};
use serde_json::json;
use smartpulse_testing::uuid;
use std::process::Command;
use support::Place;
use told::{COMPANY, Scene};

const TIME: &str = "2016-06-01T00:00:00.000Z";

const INBOX: &str = "SELECT count(*) FROM Notifications";

impl Scene {
    fn forecast(&self, id: u64, status: &str) {
        let sql =
            "INSERT INTO Forecasts (Id, CompanyId, ProductionUnitId, ForecastDate, Demand, ConfidenceLevel, Status,
                   CreatedAt, UpdatedAt) VALUES (?1, ?2, ?3, ?4, 450.0, 0.9, ?5, ?4, ?4)";
        self.database().execute(sql, [&uuid(id), &uuid(COMPANY), &uuid(0xc1), TIME, status]).unwrap();
    }

    fn set(&self, id: u64, what: &str) {
        let sql = format!("UPDATE Forecasts SET {what} WHERE Id = ?1");
        assert_eq!(self.database().execute(&sql, [uuid(id)]).unwrap(), 1);
    }

    fn captured(&self, messages: usize) {
        until("the changes are on the bus", || self.topic("cdc:forecasts").len() == messages);
    }

    fn told(&self) -> (i64, u64, usize) {
        (self.number(INBOX), self.service.told(1), self.mails().len())
    }
}

#[test]
fn a_change_is_told_once_by_every_channel_over_snapshots_redelivery_and_a_restart() {
    let scene = Scene::new(2);
    scene.browser(1);
    // The second wants no mails, and has no device.
    let off = "INSERT INTO NotificationPreferences (UserId, Channel, Enabled) VALUES (?1, 'Email', 0)";
    scene.database().execute(off, [uuid(2)]).unwrap();
    scene.forecast(1, "Draft");
    scene.forecast(2, "Completed");
    let instance = scene.run(pipeline("notify"));
    scene.captured(2);
    scene.set(1, "Demand = 300.0");
    until("everybody is told", || scene.told() == (2, 1, 1));
    let title: String = scene.database().query_row("SELECT Title FROM Notifications", [], |row| row.get(0)).unwrap();
    assert_eq!(title, "Demand fell by 30 % or more");
    let mail = scene.mails().pop().unwrap();
    assert!(mail.contains("user1@example.com") && mail.contains("fell from 450.0 to 300.0"), "{mail}");

    // The same rows again, as a repeated snapshot brings them.
    let resnapshot = ["resnapshot", "capture/changes", "--set", "log.level=warn"];
    let resnapshot = Command::new(env!("CARGO_BIN_EXE_smartpulse"))
        .args(resnapshot)
        .env("SMARTPULSE__DATA_DIR", scene.folder.path())
        .current_dir(scene.folder.path())
        .env("SMARTPULSE_VAPID_KEY", "x")
        .output()
        .unwrap();
    assert!(resnapshot.status.success(), "{}", String::from_utf8_lossy(&resnapshot.stderr));
    until("the rows come again", || {
        scene.topic("cdc:forecasts").iter().filter(|change| change["Snapshot"] == true).count() >= 4
    });
    let request = scene.topic("notification:publish").pop().unwrap();
    instance.kill();

    let _again = scene.run(pipeline("notify"));
    scene.request(&[request.clone(), request]);
    // What comes behind it, on each channel.
    let marker = json!({"rule": "marker", "entity": uuid(9), "version": 1, "tell": {"user": uuid(1)}, "channels": ["All"],
                        "title": "m", "body": "m", "type": "m"});
    scene.request(&[marker]);
    until("the marker is told", || scene.told() == (3, 2, 2));
    let telling = scene.topic("notification:publish");
    let rules: Vec<&str> = telling.iter().map(|request| request["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["demand_dropped", "demand_dropped", "demand_dropped", "marker"], "no snapshot tells anybody");
    assert_eq!(scene.number("SELECT count(*) FROM NheaMailQueue WHERE Attempts <> 1 OR Status <> 'Sent'"), 0);
}

#[test]
fn a_completion_tells_the_users_of_the_forecast_s_company() {
    let scene = Scene::new(1);
    scene.forecast(1, "Draft");
    let _instance = scene.run(pipeline("notify"));
    scene.captured(1);
    scene.set(1, "Status = 'Completed'");
    until("its user is told", || scene.number(INBOX) == 1);
    let row = scene.database().query_row("SELECT UserId, Type FROM Notifications", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    });
    assert_eq!(row.unwrap(), (uuid(1), "ForecastCompleted".to_owned()));
}

#[test]
fn a_plan_says_who_would_be_told_and_tells_nobody() {
    let scene = Scene::new(2);
    let off = "INSERT INTO NotificationPreferences (UserId, Channel, Enabled) VALUES (?1, 'Email', 0)";
    scene.database().execute(off, [uuid(2)]).unwrap();
    let change = |version: i64, demand: f64, status: &str, snapshot: bool| {
        json!({"EventId": uuid(5), "Timestamp": TIME, "VersionId": version, "Operation": "UPDATE", "EntityId": uuid(1),
               "Data": {"id": uuid(1), "companyId": uuid(COMPANY), "demand": demand, "status": status}, "Section": "forecast",
               "Epoch": 1, "Position": null, "Snapshot": snapshot})
        .to_string()
    };
    let events = [change(1, 450.0, "Draft", true), change(2, 300.0, "Draft", false), change(3, 300.0, "Draft", false)];
    let place = Place::new();
    let file = place.write("events.json", &events.join("\n"));
    let mut command = place.command();
    command.arg("plan").args(["events", "notify"].map(pipeline)).arg("--event").arg(file);
    let before = std::fs::read_dir(scene.folder.path()).unwrap().count();
    let done = support::done(command.env("SMARTPULSE__DATA_DIR", scene.folder.path()).output().unwrap()).exits(0);
    let expected = format!(
        "\
forecast {forecast} version 1
    nobody      it is of a snapshot, and these tell nobody

forecast {forecast} version 2
  demand_dropped
    title       Demand fell by 30 % or more
    to          company {company}
    at most     once in 30 s to the same person
    people      J\u{f6}rg 1 <user1@example.com>: InApp, PushNotification, Email
                J\u{f6}rg 2 <user2@example.com>: InApp, PushNotification, Email (switched off)

forecast {forecast} version 3
    nobody      no rule holds

plan  5 messages to 2 people; nothing was sent
",
        forecast = uuid(1),
        company = uuid(COMPANY)
    );
    assert_eq!(done.stdout, expected);
    for table in ["Notifications", "NheaMailQueue", "NotificationDeliveries", "NotificationQuiet"] {
        assert_eq!(scene.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    assert_eq!(std::fs::read_dir(scene.folder.path()).unwrap().count(), before, "no file is new");
}
