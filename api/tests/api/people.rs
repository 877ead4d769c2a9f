//! Notifications, devices, preferences and push: whose they are, and what bad input gets.

use crate::common::{Answer, COMPANY, OTHER_COMPANY, World, settings, support::MemoryDatabase};
use async_trait::async_trait;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use smartpulse_api::{Api, DevelopmentToken, Parts, Readiness, Role, development_token};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::deliveries::{Delivery, record};
use smartpulse_clients::embedded::{EmbeddedPubSub, PubSubConfig, SqliteConfig, SqliteDatabase};
use smartpulse_clients::notifications::Channel;
use smartpulse_clients::pubsub::{Publication, SharedPubSub};
use smartpulse_clients::push::{DeviceResult, DeviceType, Push, SendPush, SendReport};
use smartpulse_clients::unsubscribe::Unsubscribe;
use smartpulse_config::{NotificationSettings, Settings};
use smartpulse_pipeline::error::Result;
use smartpulse_testing::{notification, user, uuid, within};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use uuid::Uuid;

const JSON: (&str, &str) = ("content-type", "application/json");

/// Tells nobody, and remembers nothing.
pub struct Nobody;

#[async_trait]
impl Push for Nobody {
    fn public_key(&self) -> Option<&str> {
        Some("BNone")
    }

    async fn send(&self, _: &SendPush) -> Result<SendReport> {
        Ok(SendReport { sent: 0, failed: 0, results: Vec::new() })
    }
}

/// Remembers what it was asked to tell.
#[derive(Default)]
struct Asked(Mutex<Vec<SendPush>>);

#[async_trait]
impl Push for Asked {
    fn public_key(&self) -> Option<&str> {
        Some("BKey")
    }

    async fn send(&self, request: &SendPush) -> Result<SendReport> {
        self.0.lock().unwrap().push(request.clone());
        let results =
            vec![DeviceResult { device_id: id(1), status: "sent" }, DeviceResult { device_id: id(2), status: "gone" }];
        Ok(SendReport { sent: 1, failed: 1, results })
    }
}

/// Links as in development.
pub fn links() -> Option<Unsubscribe> {
    let url = "http://127.0.0.1:8080/unsubscribe".to_owned();
    let settings = NotificationSettings { unsubscribe_url: url, ..Settings::default().notifications };
    Unsubscribe::new(&settings, "development").unwrap()
}

fn id(number: u64) -> Uuid {
    uuid(number).parse().unwrap()
}

struct Place {
    world: World,
    database: SharedDatabase,
    pubsub: SharedPubSub,
    asked: Arc<Asked>,
    stop: Option<oneshot::Sender<()>>,
    address: std::net::SocketAddr,
    _folder: TempDir,
}

/// Users 7 and 9 are of the company, 8 is of another one.
async fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let registry = prometheus::Registry::new();
    let database: SharedDatabase =
        Arc::new(SqliteDatabase::open("main", &SqliteConfig::default(), folder.path(), &registry).unwrap());
    database.create_schema().await.unwrap();
    let mut users = [user(7, 0, "viewer"), user(8, 0, "viewer"), user(9, 0, "viewer")];
    for (user, company) in users.iter_mut().zip([COMPANY, OTHER_COMPANY, COMPANY]) {
        user.insert("companyId".to_owned(), json!(company));
    }
    database.insert_absent("SysUser", &users).await.unwrap();
    let cache = Cache::new(CacheConfig::default(), Arc::clone(&database), &registry).unwrap();
    let readiness = Arc::new(Readiness::default());
    let pubsub: SharedPubSub = Arc::new(EmbeddedPubSub::new(&PubSubConfig::default()));
    let asked = Arc::new(Asked::default());
    let parts = Parts {
        cache: cache.clone(),
        database: Arc::clone(&database),
        bus: None,
        pubsub: Some(Arc::clone(&pubsub)),
        push: Some(asked.clone()),
        unsubscribe: links().map(Arc::new),
        partition: "production".into(),
        readiness: Arc::clone(&readiness),
        registry,
        tracer: None,
    };
    let settings = settings();
    let listener = smartpulse_api::bind(&settings).await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Api::new(settings, "development", parts).unwrap();
    let world = World { database: MemoryDatabase::new(), cache, readiness, service: api.service() };
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(api.serve(listener, async {
        let _ = stopped.await;
    }));
    Place { world, database, pubsub, asked, stop: Some(stop), address, _folder: folder }
}

fn bearer(user: u64, role: Role) -> String {
    let companies = vec![COMPANY.parse().unwrap()];
    let token = DevelopmentToken { user: id(user), role, companies, ttl: Duration::from_secs(600) };
    format!("Bearer {}", development_token(&Settings::default().api.auth, "development", &token).unwrap())
}

impl Place {
    /// As a user: a viewer.
    async fn send(&self, user: u64, method: &str, path: &str, body: Value) -> Answer {
        self.send_as(&bearer(user, Role::Viewer), method, path, body).await
    }

    async fn send_as(&self, authorization: &str, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.world.send(method, path, &[JSON, ("authorization", authorization)], body).await
    }

    async fn notify(&self, numbers: std::ops::Range<u64>, user: u64) {
        let row = |number: u64| {
            let mut row = notification(number, &format!("n{number}"));
            row.insert("userId".to_owned(), json!(uuid(user)));
            row.insert("createdAt".to_owned(), json!(format!("2016-01-02T03:04:{:02}.000Z", number % 60)));
            row
        };
        let rows: Vec<_> = numbers.map(row).collect();
        self.database.insert_absent("Notifications", &rows).await.unwrap();
    }

    async fn announce(&self, user: u64) {
        let message = bytes::Bytes::from(json!({ "userId": uuid(user), "ids": [] }).to_string());
        let publication = Publication {
            channel: format!("__notification:production:{}", uuid(user)).into(),
            section: "notification".into(),
            key: uuid(user).into(),
            version: 1,
            previous_version: None,
            patch: message.clone(),
            whole: message,
            document: None,
            resync: true,
            known_only: false,
        };
        self.pubsub.publish(&[publication]).await.unwrap();
    }
}

fn titles(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["title"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_inbox_is_its_user_s_own() {
    let place = place().await;
    place.notify(0..30, 7).await;
    place.notify(40..41, 8).await;
    let page = place.send(7, "GET", "/api/notifications?skip=1&take=2", Value::Null).await.json();
    assert_eq!((&page["total"], titles(&page)), (&json!(30), vec!["n28", "n27"]));
    let item = &page["items"][0];
    assert_eq!(
        (&item["readAt"], &item["userId"], &item["type"]),
        (&Value::Null, &json!(uuid(7)), &json!("ForecastCompleted"))
    );
    assert_eq!(
        place.send(7, "GET", "/api/notifications", Value::Null).await.json()["items"].as_array().unwrap().len(),
        20
    );
    let read = format!("/api/notifications/{}/read", uuid(3));
    let theirs = place.send(8, "PUT", &read, Value::Null).await;
    let unknown = place.send(8, "PUT", &format!("/api/notifications/{}/read", uuid(999)), Value::Null).await;
    let none = place.send(8, "PUT", "/api/notifications/x/read", Value::Null).await;
    assert_eq!((theirs.status.as_u16(), &theirs.text, &theirs.headers), (404, &unknown.text, &unknown.headers));
    assert_eq!(theirs.json(), json!({"error": "you have no such notification", "code": "NOTIFICATION_NOT_FOUND"}));
    assert_eq!(none.text, unknown.text);
    assert_eq!(place.send(7, "PUT", &read, Value::Null).await.json(), json!({"success": true}));
    assert_eq!(place.send(7, "PUT", &read, Value::Null).await.json(), json!({"success": true}), "again");
    assert_eq!(
        place.send(7, "GET", "/api/notifications/unread-count", Value::Null).await.json(),
        json!({"unread": 29})
    );
    assert_eq!(place.send(8, "GET", "/api/notifications/unread-count", Value::Null).await.json(), json!({"unread": 1}));
}

fn browser(endpoint: &str) -> Value {
    let keys = json!({"p256dh": "B".repeat(87), "auth": "A".repeat(22)});
    json!({"deviceType": "WebPush", "subscription": {"endpoint": endpoint, "expirationTime": null, "keys": keys}})
}

#[tokio::test]
async fn devices_are_their_owner_s_and_their_addresses_are_told_to_nobody() {
    let place = place().await;
    let phone = json!({"deviceType": "FCM", "token": "secret-token", "osVersion": "17.1"});
    let added = place.send(7, "POST", "/api/devices", phone.clone()).await;
    assert_eq!(added.status.as_u16(), 201, "{}", added.text);
    assert_eq!((&added.json()["deviceType"], &added.json()["osVersion"]), (&json!("FCM"), &json!("17.1")));
    assert_eq!(place.send(7, "POST", "/api/devices", phone.clone()).await.status.as_u16(), 200, "it is known");
    assert_eq!(place.send(7, "POST", "/api/devices", browser("https://push.example/1")).await.status.as_u16(), 201);
    let list = place.send(7, "GET", "/api/devices", Value::Null).await;
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 2);
    assert!(!list.text.contains("secret-token") && !list.text.contains("push.example"), "{}", list.text);
    let path = format!("/api/devices/{}", added.json()["id"].as_str().unwrap());
    let theirs = place.send(8, "DELETE", &path, Value::Null).await;
    let unknown = place.send(8, "DELETE", &format!("/api/devices/{}", uuid(999)), Value::Null).await;
    assert_eq!((theirs.status.as_u16(), &theirs.text), (404, &unknown.text));
    // Another person, on the same device.
    assert_eq!(place.send(8, "POST", "/api/devices", phone).await.status.as_u16(), 201);
    assert_eq!(place.send(7, "DELETE", &path, Value::Null).await.status.as_u16(), 404);
    assert_eq!(place.send(8, "DELETE", &path, Value::Null).await.status.as_u16(), 204);
    for number in 0..49 {
        let device = json!({"deviceType": "FCM", "token": format!("t{number}")});
        assert_eq!(place.send(7, "POST", "/api/devices", device).await.status.as_u16(), 201, "{number}");
    }
    let full = place.send(7, "POST", "/api/devices", json!({"deviceType": "FCM", "token": "x"})).await;
    assert_eq!((full.status.as_u16(), &full.json()["code"]), (409, &json!("TOO_MANY_DEVICES")));
}

#[tokio::test]
async fn bad_input_gets_every_error_at_once() {
    let place = place().await;
    let mut long = browser("https://push.example/");
    long["subscription"]["endpoint"] = json!(format!("https://push.example/{}", "x".repeat(2_000)));
    let mut no_key = browser("https://push.example/");
    no_key["subscription"]["keys"]["auth"] = json!("A");
    let devices = "/api/devices";
    let send = "/api/send-push-notification";
    let whole = json!({"userId": uuid(7), "title": "t", "body": "b", "deviceType": "Both"});
    let with = |member: &str, value: Value| {
        let mut body = whole.clone();
        body[member] = value;
        body
    };
    for (method, path, body, fields) in [
        ("POST", devices, json!([]), vec![""]),
        ("POST", devices, json!({}), vec!["deviceType"]),
        ("POST", devices, json!({"deviceType": "Pager", "token": "t"}), vec!["deviceType"]),
        ("POST", devices, json!({"deviceType": "FCM"}), vec!["token"]),
        (
            "POST",
            devices,
            json!({"deviceType": "FCM", "token": "a b", "osVersion": "", "x": 1}),
            vec!["osVersion", "token", "x"],
        ),
        ("POST", devices, json!({"deviceType": "FCM", "token": "t".repeat(4_001)}), vec!["token"]),
        ("POST", devices, json!({"deviceType": "FCM", "token": "t", "osVersion": "x".repeat(65)}), vec!["osVersion"]),
        ("POST", devices, json!({"deviceType": "WebPush", "token": "t"}), vec!["subscription", "token"]),
        ("POST", devices, browser("http://push.example/"), vec!["subscription"]),
        ("POST", devices, browser("https://me@push.example/"), vec!["subscription"]),
        ("POST", devices, browser("https://"), vec!["subscription"]),
        ("POST", devices, browser("https://push.example/a b"), vec!["subscription"]),
        ("POST", devices, browser("file:///etc/passwd"), vec!["subscription"]),
        ("POST", devices, long, vec!["subscription"]),
        ("POST", devices, no_key, vec!["subscription"]),
        ("PUT", "/api/notification-preferences", json!({"email": 1, "sms": true}), vec!["email", "sms"]),
        ("PUT", "/api/notification-preferences", json!(null), vec![""]),
        ("POST", send, json!({}), vec!["userId", "title", "body", "deviceType"]),
        ("POST", send, with("title", json!("")), vec!["title"]),
        ("POST", send, with("body", json!("x".repeat(601))), vec!["body"]),
        ("POST", send, with("deviceType", json!("fcm")), vec!["deviceType"]),
        ("POST", send, with("cc", json!(1)), vec!["cc"]),
        ("GET", "/api/notifications?take=0&skip=-1&x=1", Value::Null, vec!["take", "skip", "x"]),
        ("GET", "/api/notifications?take=501", Value::Null, vec!["take"]),
        ("GET", "/api/notifications?take=1&take=2", Value::Null, vec!["take"]),
        ("GET", "/api/notifications/deliveries?userId=x&rule=&take=x", Value::Null, vec!["userId", "rule", "take"]),
        ("GET", "/api/notifications/stream?lastEventId=x", Value::Null, vec!["lastEventId"]),
        ("GET", "/api/notifications/stream?companyId=x", Value::Null, vec!["companyId"]),
    ] {
        let sent = if body.is_null() && method != "GET" { "null".to_owned() } else { body.to_string() };
        let headers = [JSON, ("authorization", &bearer(7, Role::Admin))];
        let answer = place.world.send(method, path, &headers, if method == "GET" { String::new() } else { sent }).await;
        let label = format!("{method} {path} {body}");
        assert_eq!(answer.status.as_u16(), 400, "{label}: {}", answer.text);
        let refused = answer.json();
        let named: Vec<&str> =
            refused["fields"].as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{label}: {}", answer.text);
    }
    assert_eq!(place.send(7, "GET", "/api/devices", Value::Null).await.json(), json!({"items": []}));
}

#[tokio::test]
async fn channels_are_switched_by_their_user_or_by_a_link_that_was_signed() {
    let place = place().await;
    let path = "/api/notification-preferences";
    let all = |email: bool, push: bool| json!({"inApp": true, "pushNotification": push, "email": email});
    assert_eq!(place.send(7, "GET", path, Value::Null).await.json(), all(true, true));
    assert_eq!(place.send(7, "PUT", path, json!({"pushNotification": false})).await.json(), all(true, false));
    assert_eq!(place.send(7, "PUT", path, json!({})).await.json(), all(true, false));
    assert_eq!(place.send(8, "GET", path, Value::Null).await.json(), all(true, true), "another's are another's");
    let link = links().unwrap().link(id(7), Channel::Email);
    let link = link.strip_prefix("http://127.0.0.1:8080").unwrap();
    let anonymous = [("authorization", "")];
    let asked = place.world.send("GET", link, &anonymous, "").await;
    assert_eq!(asked.status.as_u16(), 200);
    assert!(asked.text.contains("<form method=\"post\">") && !asked.text.contains("<script"), "{}", asked.text);
    assert_eq!(asked.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(
        place.send(7, "GET", path, Value::Null).await.json(),
        all(true, false),
        "who only looks changes nothing"
    );
    // As a mail program does (RFC 8058, section 3.2).
    let form = [("authorization", ""), ("content-type", "application/x-www-form-urlencoded")];
    for _ in 0..2 {
        let done = place.world.send("POST", link, &form, "List-Unsubscribe=One-Click").await;
        assert_eq!(done.status.as_u16(), 200, "{}", done.text);
    }
    assert_eq!(place.send(7, "GET", path, Value::Null).await.json(), all(false, false));
    for bad in
        ["/unsubscribe", "/unsubscribe?token=", "/unsubscribe?token=AAAA", &format!("{link}A"), &link[..link.len() - 1]]
    {
        for method in ["GET", "POST"] {
            let refused = place.world.send(method, bad, &anonymous, "").await;
            assert_eq!(
                (refused.status.as_u16(), &refused.json()["code"]),
                (404, &json!("LINK_UNKNOWN")),
                "{method} {bad}"
            );
        }
    }
}

#[tokio::test]
async fn an_editor_tells_the_devices_of_users_of_the_company() {
    let place = place().await;
    let path = "/api/send-push-notification";
    let body = |user: u64| json!({"userId": uuid(user), "title": "t", "body": "b", "deviceType": "FCM"});
    let editor = bearer(7, Role::Editor);
    let told = place.send_as(&editor, "POST", path, body(9)).await;
    let results = json!([{"deviceId": uuid(1), "status": "sent"}, {"deviceId": uuid(2), "status": "gone"}]);
    assert_eq!(told.json(), json!({"sent": 1, "failed": 1, "results": results}));
    let theirs = place.send_as(&editor, "POST", path, body(8)).await;
    let unknown = place.send_as(&editor, "POST", path, body(99)).await;
    assert_eq!((theirs.status.as_u16(), &theirs.text), (404, &unknown.text));
    assert_eq!(place.send(7, "POST", path, body(9)).await.status.as_u16(), 403, "a viewer tells nobody");
    assert_eq!(place.send_as(&bearer(7, Role::Admin), "POST", path, body(8)).await.status.as_u16(), 200);
    let asked = place.asked.0.lock().unwrap().clone();
    assert_eq!(asked.iter().map(|push| push.user_id).collect::<Vec<_>>(), [id(9), id(8)]);
    assert_eq!(asked[0].device_type, DeviceType::Fcm);
    assert_eq!(place.send(7, "GET", "/api/push/public-key", Value::Null).await.json(), json!({"publicKey": "BKey"}));
}

#[tokio::test]
async fn an_admin_reads_the_ledger_by_what_it_is_of() {
    let place = place().await;
    let delivery = |number: u64, user: u64, rule: &str| Delivery {
        id: id(number),
        user_id: id(user),
        rule: rule.to_owned(),
        entity: format!("e{number}"),
        version: "7".to_owned(),
    };
    let attempts = [
        delivery(1, 7, "drop").attempt(Channel::InApp, "told", None).last(),
        delivery(2, 7, "rise").attempt(Channel::Email, "failed", Some("busy".to_owned())),
        delivery(2, 7, "rise").attempt(Channel::Email, "queued", None).last(),
        delivery(3, 8, "drop").attempt(Channel::Email, "queued", None).last(),
    ];
    record(&*place.database, &attempts).await.unwrap();
    let admin = bearer(1, Role::Admin);
    for (query, count) in [
        ("", 4),
        (&*format!("?userId={}", uuid(7)), 3),
        ("?rule=drop", 2),
        ("?entity=e2&outcome=failed", 1),
        (&*format!("?deliveryId={}", uuid(2)), 2),
        ("?rule=none", 0),
        ("?skip=3", 1),
    ] {
        let answer = place.send_as(&admin, "GET", &format!("/api/notifications/deliveries{query}"), Value::Null).await;
        let page = answer.json();
        assert_eq!((page["items"].as_array().unwrap().len(), &page["more"]), (count, &json!(false)), "{query}");
    }
    let first = place.send_as(&admin, "GET", "/api/notifications/deliveries?take=3", Value::Null).await.json();
    assert_eq!((first["items"].as_array().unwrap().len(), &first["more"]), (3, &json!(true)));
    let failed = place.send_as(&admin, "GET", "/api/notifications/deliveries?outcome=failed", Value::Null).await.json();
    assert_eq!((&failed["items"][0]["detail"], &failed["items"][0]["channel"]), (&json!("busy"), &json!("Email")));
    assert_eq!(place.send(7, "GET", "/api/notifications/deliveries", Value::Null).await.status.as_u16(), 403);
}

/// Events of a stream, as they come over a socket.
struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    async fn open(place: &Place, path: &str, authorization: Option<&str>) -> Self {
        let stream = tokio::net::TcpStream::connect(place.address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::get(path).header("host", "localhost");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let response = sender.send_request(request.body(String::new()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        Self { body: response.into_body(), text: String::new() }
    }

    /// The id and the title of the next event.
    async fn next(&mut self) -> (String, String) {
        within("an event", async {
            loop {
                if let Some(end) = self.text.find("\n\n") {
                    let block: String = self.text.drain(..end + 2).collect();
                    let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                    let (Some(id), Some(data)) = (line("id: "), line("data: ")) else { continue };
                    let data: Value = serde_json::from_str(&data).unwrap();
                    return (id, data["title"].as_str().unwrap().to_owned());
                }
                let frame = self.body.frame().await.expect("more").unwrap();
                self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        })
        .await
    }
}

#[tokio::test]
async fn new_notifications_are_streamed_and_a_cursor_goes_on_after_them() {
    let mut place = place().await;
    place.notify(0..20, 7).await;
    let me = bearer(7, Role::Viewer);
    let mut events = Events::open(&place, "/api/notifications/stream", Some(&me)).await;
    place.notify(30..31, 8).await;
    place.notify(31..33, 7).await;
    place.announce(7).await;
    let (_, first) = events.next().await;
    let (cursor, second) = events.next().await;
    assert_eq!((first.as_str(), second.as_str()), ("n31", "n32"), "what was there is not told, nor another's");
    drop(events);
    // More than a page, while nobody listens.
    place.notify(33..53, 7).await;
    let ticket = place.send(7, "POST", "/api/tickets", Value::Null).await.json()["ticket"].as_str().unwrap().to_owned();
    let path = format!("/api/notifications/stream?lastEventId={cursor}&ticket={ticket}");
    let mut events = Events::open(&place, &path, None).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "n52") {
        seen.push(events.next().await.1);
    }
    let expected: Vec<String> = (33..53).map(|number| format!("n{number}")).collect();
    let new: Vec<String> = seen.iter().filter(|title| expected.contains(title)).cloned().collect();
    assert_eq!(new, expected, "each after the cursor, in order");
    assert!(seen.iter().all(|title| title != "n32"), "not the one that the cursor names");
    drop(place.stop.take());
    let end = within("the stream ends with the server", async {
        loop {
            match events.body.frame().await {
                Some(Ok(_)) => {}
                other => break other.is_none(),
            }
        }
    });
    assert!(end.await);
}
