//! What every [`Notifications`](smartpulse_clients::notifications::Notifications) must do.

use crate::database::{DatabaseFixture, company_forecast};
use crate::delivery::{device, id};
use crate::{cases, notification, until, uuid};
use serde_json::{Map, Value, json};
use smartpulse_clients::database::{Row, SharedDatabase};
use smartpulse_clients::deliveries::{Attempt, DELIVERIES, record, told};
use smartpulse_clients::delivery::{DEVICES_MAX, Integration};
use smartpulse_clients::notifications::{
    Audience, Channel, DeliveryQuery, NewDevice, Quiet, Registered, SharedNotifications, USERS_MAX,
};
use smartpulse_pipeline::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// A quiet period that no case outlives.
const LONG: Duration = Duration::from_secs(600);

/// Runs all cases.
///
/// # Panics
/// In the first case that fails.
pub async fn notifications_suite<F: DatabaseFixture>(make: impl Fn() -> F) {
    cases!(
        make,
        audiences_are_users_page_by_page,
        channels_are_on_until_a_user_switches_them_off,
        a_quiet_period_is_opened_by_one_event_and_answers_it_the_same_again,
        a_quiet_period_that_is_over_is_opened_anew,
        an_event_that_comes_again_keeps_its_quiet_period_open,
        an_inbox_is_its_user_s_own,
        devices_are_registered_once_and_belong_to_who_registered_them_last,
        nobody_registers_devices_without_end,
        attempts_are_kept_and_what_was_told_is_known,
    );
}

/// The members of a row of `SysUser`.
///
/// # Panics
/// Never: the members are an object.
#[must_use]
pub fn user(id: u64, company: u64, role: &str) -> Map<String, Value> {
    let members = json!({
        "id": uuid(id), "companyId": uuid(company), "email": format!("user{id}@example.com"),
        "displayName": format!("J\u{f6}rg {id}"), "role": role,
    });
    members.as_object().cloned().expect("an object")
}

fn notifications(database: &SharedDatabase) -> SharedNotifications {
    database.notifications().expect("a database with notifications")
}

fn documents(rows: &[Row]) -> Vec<Value> {
    rows.iter().map(|row| serde_json::from_slice(&row.document).expect("JSON")).collect()
}

async fn audiences_are_users_page_by_page(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let users = [user(1, 50, "viewer"), user(2, 50, "editor"), user(3, 50, "viewer"), user(4, 51, "viewer")];
    database.insert_absent("SysUser", &users).await.unwrap();
    database.insert_absent("Forecasts", &[company_forecast(9, 51, "2016-01-02T00:00:00.000Z", 1.0)]).await.unwrap();
    let people = notifications(&database);
    let role = |company| Audience::Role { role: "viewer".to_owned(), company };
    for (audience, expected) in [
        (Audience::User(id(2)), vec![2]),
        (Audience::User(id(99)), vec![]),
        (Audience::Company(id(50)), vec![1, 2, 3]),
        (role(None), vec![1, 3, 4]),
        (role(Some(id(50))), vec![1, 3]),
        (Audience::Forecast(id(9)), vec![4]),
        (Audience::Forecast(id(8)), vec![]),
    ] {
        // A page ends anywhere, and nobody is on two.
        for limit in [1, 2, 10] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = people.users(&audience, after, limit).await.unwrap();
                found.extend(page.iter().map(|user| user.id));
                after = page.last().map(|user| user.id);
                if page.len() < limit as usize {
                    break;
                }
            }
            found.sort_unstable();
            let expected: Vec<Uuid> = expected.iter().map(|number| id(*number)).collect();
            assert_eq!(found, expected, "{audience:?}, {limit} a page");
        }
    }
    let found = people.users(&Audience::User(id(4)), None, 1).await.unwrap().remove(0);
    assert_eq!((found.company, found.email.as_str()), (id(51), "user4@example.com"));
    assert_eq!((found.display_name.as_str(), found.role.as_str()), ("J\u{f6}rg 4", "viewer"));
}

async fn channels_are_on_until_a_user_switches_them_off(fixture: impl DatabaseFixture) {
    let people = notifications(&fixture.open().await);
    let users: Vec<Uuid> = (0..USERS_MAX as u64).map(id).collect();
    assert_eq!(people.switched_off(&users).await.unwrap(), []);
    assert_eq!(people.switched_off(&[]).await.unwrap(), []);
    people.switch(id(1), &[(Channel::Email, false), (Channel::InApp, false), (Channel::InApp, true)]).await.unwrap();
    people.switch(id(2), &[(Channel::PushNotification, false)]).await.unwrap();
    people.switch(id(3), &[(Channel::Email, false)]).await.unwrap();
    people.switch(id(3), &[(Channel::Email, true)]).await.unwrap();
    people.switch(id(9_999), &[(Channel::Email, false)]).await.unwrap();
    let mut off = people.switched_off(&users).await.unwrap();
    off.sort_unstable();
    assert_eq!(off, [(id(1), Channel::Email), (id(2), Channel::PushNotification)]);
}

async fn a_quiet_period_is_opened_by_one_event_and_answers_it_the_same_again(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let (people, other) = (notifications(&database), notifications(&fixture.open().await));
    let quiet = |rule, event| Quiet { rule, event, period: LONG };
    let few = [id(1), id(2)];
    let more = [id(1), id(2), id(3)];
    let sorted = |mut users: Vec<Uuid>| {
        users.sort_unstable();
        users
    };
    assert_eq!(sorted(people.claim_quiet(quiet("drop", "e1"), &few).await.unwrap()), few);
    for _ in 0..2 {
        assert_eq!(sorted(other.claim_quiet(quiet("drop", "e1"), &few).await.unwrap()), few, "the same event again");
        assert_eq!(other.claim_quiet(quiet("drop", "e2"), &more).await.unwrap(), [id(3)], "who was in none");
    }
    assert!(people.claim_quiet(quiet("drop", "e2"), &[]).await.unwrap().is_empty());
    assert_eq!(sorted(people.claim_quiet(quiet("rise", "e2"), &few).await.unwrap()), few, "each rule has its own");
    // Of two at once, one wins each user.
    let users: Vec<Uuid> = (0..USERS_MAX as u64).map(id).collect();
    let (a, b) =
        tokio::join!(people.claim_quiet(quiet("race", "a"), &users), other.claim_quiet(quiet("race", "b"), &users));
    let (a, b) = (a.unwrap(), b.unwrap());
    let all: BTreeSet<Uuid> = a.iter().chain(&b).copied().collect();
    assert_eq!((a.len() + b.len(), all.len()), (USERS_MAX, USERS_MAX));
}

/// While its messages cannot be published an event is claimed again and again: another must not get in between.
async fn an_event_that_comes_again_keeps_its_quiet_period_open(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let people = notifications(&database);
    let quiet = |event, period| Quiet { rule: "renewed", event, period };
    let moment = Duration::from_millis(1);
    assert_eq!(people.claim_quiet(quiet("e1", moment), &[id(1)]).await.unwrap(), [id(1)]);
    assert_eq!(people.claim_quiet(quiet("e1", LONG), &[id(1)]).await.unwrap(), [id(1)]);
    assert!(people.claim_quiet(quiet("e2", LONG), &[id(1)]).await.unwrap().is_empty());
}

async fn a_quiet_period_that_is_over_is_opened_anew(fixture: impl DatabaseFixture) {
    let people = notifications(&fixture.open().await);
    let short = Quiet { rule: "drop", event: "e1", period: Duration::from_millis(30) };
    assert_eq!(people.claim_quiet(short, &[id(1)]).await.unwrap(), [id(1)]);
    let next = Quiet { rule: "drop", event: "e2", period: LONG };
    until("the period is over", async || !people.claim_quiet(next, &[id(1)]).await.unwrap().is_empty()).await;
    let late = people.claim_quiet(short, &[id(1)]).await.unwrap();
    assert!(late.is_empty(), "it was over, and another has opened the next one");
}

async fn an_inbox_is_its_user_s_own(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let people = notifications(&database);
    let row = |number: u64, user: u64| {
        let mut row = notification(number, &format!("n{number}"));
        row.insert("userId".to_owned(), json!(uuid(user)));
        row.insert("createdAt".to_owned(), json!(format!("2016-01-02T03:04:05.{number:03}Z")));
        row
    };
    let rows: Vec<_> = (0..10).map(|number| row(number, 7)).chain([row(20, 8)]).collect();
    database.insert_absent("Notifications", &rows).await.unwrap();
    let titles = |rows: &[Row]| documents(rows).iter().map(|row| row["title"].clone()).collect::<Vec<_>>();
    let page = people.inbox(id(7), 2, 3).await.unwrap();
    assert_eq!((page.total, titles(&page.rows)), (10, vec![json!("n7"), json!("n6"), json!("n5")]), "newest first");
    assert_eq!(documents(&page.rows)[0]["readAt"], Value::Null);
    assert_eq!(people.inbox(id(7), 10, 3).await.unwrap().rows, []);
    assert_eq!(people.inbox(id(9), 0, 3).await.unwrap().total, 0);
    let since: Timestamp = "2016-01-02T03:04:05.007Z".parse().unwrap();
    let newer = people.inbox_after(id(7), (since, Uuid::nil()), 2).await.unwrap();
    assert_eq!(titles(&newer), [json!("n7"), json!("n8")], "oldest first, the limit kept");
    let newer = people.inbox_after(id(7), (since, id(7)), 10).await.unwrap();
    assert_eq!(titles(&newer), [json!("n8"), json!("n9")], "behind that one");
    assert_eq!(people.unread(id(7)).await.unwrap(), 10);
    assert!(!people.mark_read(id(8), id(3)).await.unwrap(), "another's");
    assert!(!people.mark_read(id(7), id(99)).await.unwrap(), "nobody's");
    assert!(people.mark_read(id(7), id(3)).await.unwrap());
    assert_eq!(people.unread(id(7)).await.unwrap(), 9);
    let read = documents(&people.inbox(id(7), 6, 1).await.unwrap().rows).remove(0);
    assert!(read["title"] == "n3" && read["readAt"].is_string(), "{read}");
    assert!(people.mark_read(id(7), id(3)).await.unwrap());
    assert_eq!(documents(&people.inbox(id(7), 6, 1).await.unwrap().rows), [read], "read since the first time");
}

fn phone(number: u64, user: u64) -> NewDevice {
    let (token, os_version) = (Some(format!("token{number}")), Some("17.1".to_owned()));
    NewDevice { id: id(number), user: id(user), integration: Integration::Fcm, token, subscription: None, os_version }
}

async fn devices_are_registered_once_and_belong_to_who_registered_them_last(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let (people, delivery) = (notifications(&database), database.delivery().unwrap());
    assert_eq!(people.add_device(&phone(1, 7)).await.unwrap(), Registered::New);
    assert_eq!(people.add_device(&phone(1, 7)).await.unwrap(), Registered::Known);
    let browser = NewDevice {
        integration: Integration::WebPush,
        token: None,
        subscription: Some(r#"{"endpoint":"e"}"#.to_owned()),
        os_version: None,
        ..phone(2, 7)
    };
    assert_eq!(people.add_device(&browser).await.unwrap(), Registered::New);
    let found = delivery.devices(id(7)).await.unwrap();
    assert_eq!(found.len(), 2);
    let told = found.iter().find(|device| device.id == id(2)).unwrap();
    assert_eq!(told.subscription.as_deref(), Some(r#"{"endpoint":"e"}"#));
    assert_eq!(people.add_device(&phone(1, 8)).await.unwrap(), Registered::New, "another person, on the same device");
    assert_eq!(delivery.devices(id(7)).await.unwrap().len(), 1);
    assert!(!people.remove_own_device(id(7), id(1)).await.unwrap(), "it is another's now");
    assert!(people.remove_own_device(id(8), id(1)).await.unwrap());
    assert!(!people.remove_own_device(id(8), id(1)).await.unwrap(), "it is gone");
}

async fn nobody_registers_devices_without_end(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let people = notifications(&database);
    let most = u64::from(DEVICES_MAX);
    let rows: Vec<_> = (0..most).map(|number| device(number, 7, 1, "token")).collect();
    database.insert_absent("SysUserDeviceInfo", &rows).await.unwrap();
    assert_eq!(people.add_device(&phone(most, 7)).await.unwrap(), Registered::Full);
    assert_eq!(people.add_device(&phone(0, 7)).await.unwrap(), Registered::Known);
    assert_eq!(people.add_device(&phone(most, 8)).await.unwrap(), Registered::New);
    assert_eq!(people.add_device(&phone(most, 7)).await.unwrap(), Registered::Full, "nor takes another's");
    assert_eq!(database.delivery().unwrap().devices(id(8)).await.unwrap().len(), 1);
}

/// An attempt number `number` of the delivery `of` to the user 7.
fn attempt(number: u64, of: u64, outcome: &'static str) -> Attempt {
    Attempt {
        id: id(number),
        delivery: id(of),
        channel: Channel::Email,
        user: id(7),
        rule: "drop".to_owned(),
        entity: uuid(50),
        version: "101".to_owned(),
        outcome,
        detail: None,
    }
}

async fn attempts_are_kept_and_what_was_told_is_known(fixture: impl DatabaseFixture) {
    let database = fixture.open().await;
    let people = notifications(&database);
    let failed = Attempt { detail: Some("\u{fc}".repeat(5_000)), ..attempt(101, 1, "failed") };
    let long = Attempt { rule: "r".repeat(201), ..attempt(3, 3, "told") };
    let other = Attempt { user: id(8), rule: "rise".to_owned(), entity: "e".to_owned(), ..attempt(2, 2, "told") };
    record(&*database, std::slice::from_ref(&failed)).await.unwrap();
    for _ in 0..2 {
        record(&*database, &[attempt(1, 1, "told"), long.clone(), other.clone()]).await.unwrap();
    }
    assert_eq!(told(&*database, &[id(1), id(2), id(3), id(101)]).await.unwrap(), [id(1), id(2), id(101)].into());
    assert_eq!(told(&*database, &[]).await.unwrap(), [].into());
    let all = DeliveryQuery { take: 10, ..DeliveryQuery::default() };
    let some = |text: &str| Some(text.to_owned());
    for (query, expected) in [
        (all.clone(), vec![1, 2, 101]),
        (DeliveryQuery { delivery: Some(id(1)), ..all.clone() }, vec![1, 101]),
        (DeliveryQuery { user: Some(id(8)), ..all.clone() }, vec![2]),
        (DeliveryQuery { rule: some("drop"), outcome: some("told"), ..all.clone() }, vec![1]),
        (DeliveryQuery { entity: some("e"), user: Some(id(8)), ..all.clone() }, vec![2]),
        (DeliveryQuery { outcome: some("no such"), ..all.clone() }, vec![]),
    ] {
        let mut found: Vec<Uuid> =
            people.deliveries(&query).await.unwrap().iter().map(|row| row.key.parse().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, expected.into_iter().map(id).collect::<Vec<_>>(), "{query:?}");
    }
    let (first, rest) = (DeliveryQuery { take: 2, ..all.clone() }, DeliveryQuery { skip: 2, ..all.clone() });
    let mut paged = people.deliveries(&first).await.unwrap();
    assert_eq!(paged.len(), 2);
    paged.extend(people.deliveries(&rest).await.unwrap());
    assert_eq!(paged, people.deliveries(&all).await.unwrap());
    let kept = database.get(DELIVERIES, &[uuid(101).into()]).await.unwrap();
    let kept = documents(&kept).remove(0);
    assert_eq!((&kept["deliveryId"], &kept["channel"]), (&json!(uuid(1)), &json!("Email")));
    assert_eq!((&kept["outcome"], kept["detail"].as_str().unwrap().chars().count()), (&json!("failed"), 4_000));
    assert!(kept["createdAt"].is_string(), "{kept}");
}
