//! `mail_queue`, on both databases.

use crate::site::{On, SENDER, Site, event, request};
use serde_json::{Value, json};
use smartpulse_clients::notifications::DeliveryQuery;
use smartpulse_testing::uuid;

const YAML: &str = "
name: p
sources: { s: { type: probe } }
operators: { many: { type: batch, inputs: [s], items: 100, window_ms: 100 } }
sinks: { queue: { type: mail_queue, inputs: [many], database: main_db } }
";

const RELAY: &str = "{type: mail_folder}";

async fn mails_are_rendered_and_queued_once_and_bad_ones_are_set_aside(on: On) {
    let site = Site::new(on, RELAY).await;
    let mut requests: Vec<_> = (0..250).map(|id| request(id, "anna@example.com")).collect();
    requests[1]["TemplateId"] = json!("none");
    requests[2]["TemplateData"] = json!({"title": "t"});
    requests[3]["To"] = json!("anna@example.com\r\nBcc: all@example.com");
    requests[4]["Attachments"] = json!([{"Name": "a.csv", "ContentType": "text/csv", "Content": "YTti"}]);
    for _ in 0..2 {
        let graph = site.rig.start(YAML).await;
        site.rig.probe.emit(requests.iter().map(event).collect());
        let before = site.rig.probe.committed.lock().unwrap().len();
        site.rig.probe.until("all is committed", |probe| probe.committed.lock().unwrap().len() > before).await;
        graph.stop().await.unwrap();
    }
    let rows = site.rows(0..250).await;
    assert_eq!(rows.len(), 247);
    assert_eq!((&rows[0]["id"], &rows[0]["toAddress"]), (&json!(uuid(0)), &json!("anna@example.com")));
    assert_eq!((&rows[0]["status"], &rows[0]["attempts"]), (&json!("Queued"), &json!(0)));
    assert_eq!(rows[0]["subject"], "Gr\u{fc}\u{df}e 0");
    assert!(rows[0]["bodyHtml"].as_str().unwrap().contains("Demand &lt;b&gt;"), "{}", rows[0]["bodyHtml"]);
    assert!(rows[0]["bodyText"].as_str().unwrap().starts_with("Demand <b>\n\ncrossed"), "{}", rows[0]["bodyText"]);
    assert!(rows[1]["attachments"].as_str().unwrap().contains("YTti"));
    let letters = site.letters().await;
    let keys: Vec<&str> = letters.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, [uuid(1), uuid(2), uuid(3)]);
    assert!(letters[0].1.contains("there is no mail template \"none\""), "{letters:?}");
    assert!(letters[1].1.contains("undefined"), "{letters:?}");
    assert!(letters[2].1.contains("no address"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_database() {
    mails_are_rendered_and_queued_once_and_bad_ones_are_set_aside(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_stand_in_for_sql_server() {
    mails_are_rendered_and_queued_once_and_bad_ones_are_set_aside(On::SqlServer).await;
}

#[tokio::test]
async fn a_template_that_is_wrong_stops_the_start_with_its_place() {
    let site = Site::new(On::Embedded, RELAY).await;
    std::fs::write(site.folder.path().join("x.html"), "one\n{{ two").unwrap();
    let yaml =
        YAML.replace("database: main_db", &format!("database: main_db, templates: {}", site.folder.path().display()));
    let started = tokio::spawn(async move { site.rig.start(&yaml).await.stop().await.map(|_| ()) }).await;
    let panic = started.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("the mail template x.html:2 is wrong"), "{text}");
}

/// Queues with a ledger, and sends to files with it.
const LEDGER: &str = "
name: p
sources: { s: { type: probe } }
sinks: { queue: { type: mail_queue, inputs: [s], database: main_db, ledger: main_db } }
";

async fn each_attempt_at_a_delivery_is_in_the_ledger(on: On) {
    let site = Site::new(on, RELAY).await;
    let mut requests: Vec<_> = (0..4).map(|id| request(id, "anna@example.com")).collect();
    for (request, id) in requests.iter_mut().zip(0..) {
        request["delivery"] =
            json!({ "id": uuid(id), "userId": uuid(7), "rule": "drop", "entity": uuid(50), "version": "101" });
    }
    requests[2]["TemplateId"] = json!("none");
    requests[3]["delivery"]["id"] = json!("no id");
    for _ in 0..2 {
        let graph = site.rig.start(LEDGER).await;
        let before = site.rig.probe.committed.lock().unwrap().len();
        site.rig.probe.emit(requests.iter().map(event).collect());
        site.rig.probe.until("all is committed", |probe| probe.committed.lock().unwrap().len() > before).await;
        graph.stop().await.unwrap();
    }
    let keys: Vec<String> = site.letters().await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [uuid(2), uuid(3)]);
    let sender = SENDER.replace("database: main_db", "database: main_db, ledger: main_db");
    let graph = site.rig.start(&sender).await;
    site.until(0..2, &["Sent"; 2]).await;
    graph.stop().await.unwrap();
    let people = site.database.notifications().unwrap();
    let attempts = async |id: u64| {
        let delivery = uuid(id).parse().ok();
        let query = DeliveryQuery { delivery, take: 10, ..DeliveryQuery::default() };
        let rows = people.deliveries(&query).await.unwrap();
        let mut rows: Vec<Value> = rows.iter().map(|row| serde_json::from_slice(&row.document).unwrap()).collect();
        rows.sort_by_key(|row| row["outcome"].to_string());
        rows
    };
    for id in 0..2 {
        let rows = attempts(id).await;
        let [queued, sent] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((&queued["outcome"], &sent["outcome"]), (&json!("queued"), &json!("sent")));
        assert_eq!((&queued["id"], &sent["rule"]), (&json!(uuid(id)), &json!("drop")));
        assert_eq!((&sent["channel"], &sent["userId"]), (&json!("Email"), &json!(uuid(7))));
    }
    let refused = attempts(2).await;
    assert_eq!(refused.len(), 2);
    assert!(refused[0]["detail"].as_str().unwrap().contains("no mail template"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_is_in_the_ledger_of_the_embedded_database() {
    each_attempt_at_a_delivery_is_in_the_ledger(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_is_in_the_ledger_of_the_stand_in_for_sql_server() {
    each_attempt_at_a_delivery_is_in_the_ledger(On::SqlServer).await;
}
