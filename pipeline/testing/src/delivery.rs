//! What every [`Delivery`](smartpulse_clients::delivery::Delivery) must do.

use crate::database::DatabaseFixture;
use crate::{PATIENCE, cases, uuid};
use serde_json::{Map, Value, json};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::delivery::{Integration, MailOutcome, QueuedMail, Settlement, SharedDelivery};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A lease that no case outlives.
const LONG: Duration = Duration::from_secs(600);

/// Runs all cases.
///
/// # Panics
/// In the first case that fails.
pub async fn delivery_suite<F: DatabaseFixture>(make: impl Fn() -> F) {
    cases!(
        make,
        a_user_s_devices_are_given_and_removed,
        a_mail_is_claimed_by_one_sender_at_a_time,
        a_claim_that_ran_out_is_given_again_and_its_holder_changes_nothing_any_more,
        outcomes_are_kept_with_the_mail,
    );
}

/// The members of a row of `SysUserDeviceInfo`.
///
/// # Panics
/// Never: the members are an object.
#[must_use]
pub fn device(id: u64, user: u64, integration: u8, address: &str) -> Map<String, Value> {
    let (token, subscription) = if integration == 0 { (None, Some(address)) } else { (Some(address), None) };
    let members = json!({
        "id": uuid(id), "userId": uuid(user), "integrationType": integration, "token": token,
        "subscriptionJson": subscription, "osVersion": "17.1",
    });
    members.as_object().cloned().expect("an object")
}

/// The members of a row of `NheaMailQueue`, the older the lower its number.
///
/// # Panics
/// Never: the members are an object.
#[must_use]
pub fn queued_mail(id: u64, to: &str) -> Map<String, Value> {
    let members = json!({
        "id": uuid(id), "toAddress": to, "subject": "Gr\u{fc}\u{df}e", "bodyHtml": "<p>Hello</p>", "bodyText": "Hello",
        "attachments": null, "createdAt": format!("2016-01-02T03:04:05.{id:03}Z"),
    });
    members.as_object().cloned().expect("an object")
}

pub(crate) fn id(number: u64) -> Uuid {
    Uuid::parse_str(&uuid(number)).expect("a uuid")
}

fn delivery(database: &SharedDatabase) -> SharedDelivery {
    database.delivery().expect("a database with devices and mails")
}

async fn queue(database: &SharedDatabase, mails: std::ops::Range<u64>) {
    let rows: Vec<_> = mails.map(|id| queued_mail(id, "a@example.com")).collect();
    database.insert_absent("NheaMailQueue", &rows).await.unwrap();
}

fn settle(mail: &QueuedMail, outcome: MailOutcome) -> Settlement {
    Settlement { id: mail.id, attempts: mail.attempts, outcome }
}

/// The members of a mail's row.
async fn row(database: &SharedDatabase, mail: u64) -> Value {
    let rows = database.get("NheaMailQueue", &[uuid(mail).into()]).await.unwrap();
    serde_json::from_slice(&rows[0].document).unwrap()
}

async fn a_user_s_devices_are_given_and_removed(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let delivery = delivery(&database);
    let rows = [device(1, 7, 0, r#"{"endpoint":"e"}"#), device(2, 7, 1, "token"), device(3, 8, 1, "other")];
    database.insert_absent("SysUserDeviceInfo", &rows).await.unwrap();
    let found = delivery.devices(id(7)).await.unwrap();
    assert_eq!(found.iter().map(|device| device.id).collect::<Vec<_>>(), [id(1), id(2)]);
    assert_eq!(found[0].integration, Integration::WebPush);
    assert_eq!(found[0].subscription.as_deref(), Some(r#"{"endpoint":"e"}"#));
    assert_eq!((found[1].integration, found[1].token.as_deref()), (Integration::Fcm, Some("token")));
    assert!(delivery.remove_device(id(1)).await.unwrap());
    assert!(!delivery.remove_device(id(1)).await.unwrap(), "it was gone already");
    assert_eq!(delivery.devices(id(7)).await.unwrap().len(), 1);
    assert_eq!(delivery.devices(id(9)).await.unwrap(), []);
}

async fn a_mail_is_claimed_by_one_sender_at_a_time(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    queue(&database, 0..40).await;
    let (one, other) = (delivery(&database), delivery(&fixture.open().await));
    let first = one.claim_mails(3, LONG).await.unwrap();
    let mut ids: Vec<Uuid> = first.iter().map(|mail| mail.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [id(0), id(1), id(2)], "the oldest first");
    assert_eq!(first[0].attempts, 1);
    assert_eq!((first[0].subject.as_str(), first[0].body_text.as_deref()), ("Gr\u{fc}\u{df}e", Some("Hello")));
    let mut claimed: Vec<Uuid> = ids;
    loop {
        let (a, b) = tokio::join!(one.claim_mails(4, LONG), other.claim_mails(4, LONG));
        let (a, b) = (a.unwrap(), b.unwrap());
        if a.is_empty() && b.is_empty() {
            break;
        }
        claimed.extend(a.iter().chain(&b).map(|mail| mail.id));
    }
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 40, "each once");
}

async fn a_claim_that_ran_out_is_given_again_and_its_holder_changes_nothing_any_more(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let delivery = delivery(&database);
    queue(&database, 0..1).await;
    let paused = delivery.claim_mails(1, Duration::from_millis(50)).await.unwrap().remove(0);
    let started = Instant::now();
    let next = loop {
        assert!(started.elapsed() < PATIENCE, "the claim does not run out");
        match delivery.claim_mails(1, LONG).await.unwrap().pop() {
            Some(mail) => break mail,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!((next.id, next.attempts), (paused.id, 2));
    assert_eq!(delivery.settle_mails(&[settle(&paused, MailOutcome::Sent)]).await.unwrap(), 0);
    assert_eq!(row(&database, 0).await["status"], "Sending");
    assert_eq!(delivery.settle_mails(&[settle(&next, MailOutcome::Sent)]).await.unwrap(), 1);
    assert_eq!(delivery.settle_mails(&[settle(&next, MailOutcome::Sent)]).await.unwrap(), 0, "settled already");
}

async fn outcomes_are_kept_with_the_mail(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let delivery = delivery(&database);
    queue(&database, 0..5).await;
    let mut mails = delivery.claim_mails(10, LONG).await.unwrap();
    mails.sort_by_key(|mail| mail.id);
    let again = |wait| MailOutcome::Again { error: "busy".repeat(2_000), wait };
    let outcomes = [
        MailOutcome::Sent,
        MailOutcome::Failed { error: "550 no such user".to_owned() },
        again(LONG),
        again(Duration::ZERO),
        MailOutcome::Untried,
    ];
    let settled: Vec<Settlement> = mails.iter().zip(outcomes).map(|(mail, outcome)| settle(mail, outcome)).collect();
    assert_eq!(delivery.settle_mails(&settled).await.unwrap(), 5);
    let sent = row(&database, 0).await;
    assert_eq!((&sent["status"], &sent["attempts"], &sent["lastError"]), (&json!("Sent"), &json!(1), &json!(null)));
    assert!(sent["sentAt"].is_string(), "{sent}");
    let failed = row(&database, 1).await;
    assert_eq!((&failed["status"], &failed["lastError"]), (&json!("Failed"), &json!("550 no such user")));
    assert_eq!(failed["sentAt"], Value::Null);
    let later = row(&database, 2).await;
    assert_eq!((&later["status"], &later["attempts"]), (&json!("Queued"), &json!(1)));
    assert_eq!(later["lastError"].as_str().unwrap().len(), 4_000, "cut to the column");
    assert_eq!(row(&database, 4).await["attempts"], 0, "an attempt that was none");
    let mut due = delivery.claim_mails(10, LONG).await.unwrap();
    due.sort_by_key(|mail| mail.id);
    let due: Vec<(Uuid, i32)> = due.iter().map(|mail| (mail.id, mail.attempts)).collect();
    assert_eq!(due, [(id(3), 2), (id(4), 1)], "what rests, is sent or has failed is not given");
}
