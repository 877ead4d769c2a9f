//! `mail_sender`: through a real server, to files, and over deaths.

use crate::server::Server;
use crate::site::{On, SENDER, Site};
use serde_json::{Map, Value, json};
use smartpulse_testing::{queued_mail, uuid, within};
use std::collections::BTreeSet;
use std::time::Duration;

const FOLDER: &str = "{type: mail_folder}";

fn smtp(port: u16) -> String {
    format!(
        "{{type: smtp, host: 127.0.0.1, port: {port}, tls: none, from: 'SmartPulse <pulse@example.com>', connections: 3, \
         timeout_ms: 1000}}"
    )
}

async fn queue(site: &Site, mails: &[Map<String, Value>]) {
    site.database.insert_absent("NheaMailQueue", mails).await.unwrap();
}

fn with(mut mail: Map<String, Value>, member: &str, value: Value) -> Map<String, Value> {
    mail.insert(member.to_owned(), value);
    mail
}

async fn a_mail_arrives_as_it_was_meant(on: On) {
    let Some(server) = Server::start(0) else { return };
    let site = Site::new(on, &smtp(server.port)).await;
    let text = "dots:\n.\r\n..\r\n.\nbare\rreturn\r\n\u{1f300} \u{e4}\u{f6}\u{fc} ".to_owned() + &"long ".repeat(500);
    let files =
        json!([{"Name": "w\u{f6}rld.csv", "ContentType": "text/csv; charset=utf-8", "Content": "YTti"}]).to_string();
    let mail = with(queued_mail(0, "anna@example.com"), "bodyText", json!(text));
    let mail = with(mail, "bodyHtml", json!("<p>\u{1f300}</p>\n.\n<p>x</p>"));
    let mail = with(mail, "attachments", json!(files));
    let link = format!("https://app.example/unsubscribe?token={}", "x".repeat(100));
    let mail = with(mail, "unsubscribeUrl", json!(link));
    let injected =
        with(queued_mail(1, "bob@example.com"), "subject", json!("Hello\r\nBcc: eve@example.com\r\n\r\nbody"));
    let plain = with(queued_mail(2, "carl@example.com"), "bodyHtml", Value::Null);
    queue(&site, &[mail, injected, plain]).await;
    let graph = site.rig.start(SENDER).await;
    let rows = site.until(0..3, &["Sent"; 3]).await;
    graph.stop().await.unwrap();
    assert!(rows.iter().all(|row| row["attempts"] == 1 && row["sentAt"].is_string()), "{rows:?}");
    let taken = server.taken();
    assert_eq!(taken.len(), 3);
    let to = |to: &str| taken.iter().find(|mail| mail["to"] == json!([to])).unwrap();
    let first = to("anna@example.com");
    assert_eq!(first["defects"], json!([]));
    assert_eq!(first["from"], "pulse@example.com");
    assert_eq!(first["headers"]["From"], "SmartPulse <pulse@example.com>");
    assert_eq!(
        (&first["headers"]["To"], &first["headers"]["Subject"]),
        (&json!("anna@example.com"), &json!("Gr\u{fc}\u{df}e"))
    );
    assert_eq!(first["headers"]["Message-ID"], format!("<{}@example.com>", uuid(0)));
    assert!(first["headers"]["Date"].is_string());
    assert_eq!(first["headers"]["List-Unsubscribe"], format!("<{link}>"));
    assert_eq!(first["headers"]["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click");
    // A mail's lines end as its medium has them.
    let lines = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(lines(first["text"].as_str().unwrap()).trim_end(), lines(&text).trim_end());
    assert_eq!(lines(first["html"].as_str().unwrap()).trim_end(), "<p>\u{1f300}</p>\n.\n<p>x</p>");
    assert_eq!(first["files"], json!([["w\u{f6}rld.csv", "text/csv", "a;b"]]));
    let body = |mail: &Value| mail["text"].as_str().unwrap_or_default().trim_end().to_owned();
    let second = to("bob@example.com");
    assert_eq!((&second["headers"]["Bcc"], body(second).as_str()), (&Value::Null, "Hello"), "{second}");
    assert!(second["headers"]["Subject"].as_str().unwrap().contains("eve@example.com"), "it is all subject: {second}");
    let third = to("carl@example.com");
    assert_eq!((&third["html"], body(third).as_str()), (&Value::Null, "Hello"));
    assert_eq!(third["headers"]["List-Unsubscribe"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_arrives_as_it_was_meant_from_the_embedded_database() {
    a_mail_arrives_as_it_was_meant(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_arrives_as_it_was_meant_from_the_stand_in_for_sql_server() {
    a_mail_arrives_as_it_was_meant(On::SqlServer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_decides_over_the_mail() {
    let Some(server) = Server::start(0) else { return };
    let site = Site::new(On::Embedded, &smtp(server.port)).await;
    let names = ["anna", "nobody", "full", "shy", "cut", "silent", "busy", "closing"];
    let mut mails: Vec<_> =
        names.iter().zip(0..).map(|(name, id)| queued_mail(id, &format!("{name}@example.com"))).collect();
    mails.push(queued_mail(8, "no address"));
    mails.push(with(queued_mail(9, "zoe@example.com"), "attachments", json!("no json")));
    queue(&site, &mails).await;
    let graph = site.rig.start(SENDER).await;
    let states = ["Sent", "Failed", "Failed", "Sent", "Sent", "Sent", "Failed", "Sent", "Failed", "Failed"];
    let rows = site.until(0..10, &states).await;
    graph.stop().await.unwrap();
    let says = |row: usize, what: &str| {
        assert!(rows[row]["lastError"].as_str().unwrap_or_default().contains(what), "{}", rows[row]);
    };
    says(1, "no such user");
    says(2, "too large");
    says(3, "come again");
    says(5, "did not answer");
    says(6, "(after 3 tries)");
    says(8, "no address");
    says(9, "attachments");
    let attempts: Vec<i64> = rows.iter().map(|row| row["attempts"].as_i64().unwrap()).collect();
    assert_eq!(attempts, [1, 1, 1, 2, 2, 2, 3, 1, 1, 1], "a server that closes costs a mail no try");
    assert_eq!(server.taken().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_costs_no_mail_a_try() {
    let Some(first) = Server::start(0) else { return };
    let port = first.port;
    drop(first);
    let site = Site::new(On::Embedded, &smtp(port)).await;
    let mails: Vec<_> = (0..60).map(|id| queued_mail(id, "anna@example.com")).collect();
    queue(&site, &mails).await;
    let graph = site.rig.start(SENDER).await;
    let tried = async {
        while site.rig.metric("component_events_noted_total", &["untried"]).unwrap_or_default() < 2.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("a try", tried).await;
    let server = Server::start(port).expect("it was there before");
    let rows = site.until(0..60, &["Sent"; 60]).await;
    graph.stop().await.unwrap();
    assert!(rows.iter().all(|row| row["attempts"] == 1), "{rows:?}");
    assert_eq!(server.taken().len(), 60);
}

/// Two senders share a queue, die again and again with mails claimed, and are followed by others.
async fn none_is_lost_and_at_most_a_batch_per_death_is_sent_twice(on: On) {
    const MAILS: usize = 300;
    const BATCH: usize = 10;
    const DEATHS: usize = 8;
    let Some(server) = Server::start(0) else { return };
    let site = Site::new(on, &smtp(server.port)).await;
    let mails: Vec<_> = (0..MAILS as u64).map(|id| queued_mail(id, &format!("user{id}@example.com"))).collect();
    queue(&site, &mails).await;
    let sender = SENDER.replace("lease_ms: 5000", "lease_ms: 1200, batch: 10");
    for _ in 0..DEATHS / 2 {
        let (one, two) =
            (site.rig.start(&sender).await, site.rig.start(&sender.replace("name: sender", "name: two")).await);
        let before = server.taken().len();
        let some = async {
            while server.taken().len() < (before + 20).min(MAILS) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("some mails", some).await;
        tokio::join!(one.crash(), two.crash());
    }
    let graph = site.rig.start(&sender).await;
    site.until(0..MAILS as u64, &["Sent"; MAILS]).await;
    graph.stop().await.unwrap();
    let taken = server.taken();
    let ids: BTreeSet<&str> = taken.iter().filter_map(|mail| mail["headers"]["Message-ID"].as_str()).collect();
    assert_eq!(ids.len(), MAILS, "each arrived");
    assert!(taken.len() <= MAILS + DEATHS * BATCH, "{} of {MAILS} mails arrived", taken.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_die_lose_no_mail_of_the_embedded_database() {
    none_is_lost_and_at_most_a_batch_per_death_is_sent_twice(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_die_lose_no_mail_of_the_stand_in() {
    none_is_lost_and_at_most_a_batch_per_death_is_sent_twice(On::SqlServer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_takes_mails_as_files() {
    let site = Site::new(On::Embedded, FOLDER).await;
    queue(&site, &[queued_mail(0, "anna@example.com"), queued_mail(1, "bob@example.com")]).await;
    let graph = site.rig.start(SENDER).await;
    site.until(0..2, &["Sent"; 2]).await;
    graph.stop().await.unwrap();
    let folder = site.folder.path().join("mails");
    let names: BTreeSet<String> =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let expected = (0..2).flat_map(|id| [format!("{}.txt", uuid(id)), format!("{}.html", uuid(id))]);
    assert_eq!(names, expected.collect::<BTreeSet<_>>());
    let mail = std::fs::read_to_string(folder.join(format!("{}.txt", uuid(0)))).unwrap();
    assert_eq!(mail, "To: anna@example.com\nSubject: Gr\u{fc}\u{df}e\n\nHello\n");
    assert_eq!(std::fs::read_to_string(folder.join(format!("{}.html", uuid(1)))).unwrap(), "<p>Hello</p>");
}

#[tokio::test]
async fn a_relay_that_makes_no_sense_is_refused() {
    for (relay, why) in [
        (smtp(25).replace("tls: none", "tls: none, username: u"), "a login has a name and a password"),
        (smtp(25).replace("pulse@example.com", "pulse"), "no sender"),
    ] {
        let site = Site::new(On::Embedded, &relay).await;
        assert!(site.rig.problems(SENDER).contains(why), "{relay}: {}", site.rig.problems(SENDER));
    }
}
