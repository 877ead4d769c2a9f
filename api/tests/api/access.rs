//! Every route, and who may call it.

use crate::common::{
    COMPANY, ID, OTHER_COMPANY, OTHER_ID, UNIT, World, forecast, settings, support::MemoryDatabase, token,
};
use http::Method;
use serde_json::{Value, json};
use smartpulse_api::{Policy, Role};
use std::collections::BTreeSet;

const JSON: (&str, &str) = ("content-type", "application/json");

/// [`ID`] is [`COMPANY`]'s, [`OTHER_ID`] is [`OTHER_COMPANY`]'s.
fn two_companies() -> World {
    let world = crate::common::world();
    let mut other = forecast(7);
    other["companyId"] = json!(OTHER_COMPANY);
    world.database.set(OTHER_ID, other);
    world
}

fn bearer(role: Role, companies: &[&str]) -> String {
    format!("Bearer {}", token(role, companies))
}

/// A route, and what it answers to an editor of the company, an editor of another one, a viewer of the company, an
/// admin and nobody.
struct Row {
    method: &'static str,
    template: &'static str,
    body: Value,
    owner: u16,
    other: u16,
    viewer: u16,
    admin: u16,
    anonymous: u16,
}

fn row(method: &'static str, template: &'static str, body: Value, answers: [u16; 5]) -> Row {
    let [owner, other, viewer, admin, anonymous] = answers;
    Row { method, template, body, owner, other, viewer, admin, anonymous }
}

fn table() -> Vec<Row> {
    let new = json!({
        "companyId": COMPANY, "productionUnitId": UNIT, "forecastDate": "2026-02-01T00:00:00Z", "demand": 7,
        "confidence": 0.9
    });
    let push = json!({"userId": ID, "title": "t", "body": "b", "deviceType": "Both"});
    let one = "/api/forecasts/{id}";
    vec![
        row("GET", "/api/forecasts", Value::Null, [200, 200, 200, 200, 401]),
        row("POST", "/api/forecasts", new, [201, 403, 403, 201, 401]),
        row("POST", "/api/forecasts/query", json!({"ids": [ID]}), [200, 200, 200, 200, 401]),
        row("GET", one, Value::Null, [200, 404, 200, 200, 401]),
        row("PATCH", one, json!({"demand": 1}), [200, 404, 403, 200, 401]),
        row("DELETE", one, Value::Null, [204, 404, 403, 204, 401]),
        row("GET", "/api/forecasts/{id}/changes", Value::Null, [503, 404, 503, 503, 401]),
        row("GET", "/api/changes", Value::Null, [503, 503, 503, 503, 401]),
        row("POST", "/api/tickets", Value::Null, [201, 201, 201, 201, 401]),
        // This world's database keeps no notifications: who may pass is told so. `people.rs` has what they answer.
        row("GET", "/api/notifications", Value::Null, [503, 503, 503, 503, 401]),
        row("GET", "/api/notifications/unread-count", Value::Null, [503, 503, 503, 503, 401]),
        row("GET", "/api/notifications/stream", Value::Null, [503, 503, 503, 503, 401]),
        row("GET", "/api/notifications/deliveries", Value::Null, [403, 403, 403, 503, 401]),
        row("PUT", "/api/notifications/{id}/read", Value::Null, [503, 503, 503, 503, 401]),
        row("GET", "/api/notification-preferences", Value::Null, [503, 503, 503, 503, 401]),
        row("PUT", "/api/notification-preferences", json!({"email": false}), [503, 503, 503, 503, 401]),
        row("GET", "/api/devices", Value::Null, [503, 503, 503, 503, 401]),
        row("POST", "/api/devices", json!({"deviceType": "FCM", "token": "t"}), [503, 503, 503, 503, 401]),
        row("DELETE", "/api/devices/{id}", Value::Null, [503, 503, 503, 503, 401]),
        row("GET", "/api/push/public-key", Value::Null, [503, 503, 503, 503, 401]),
        row("POST", "/api/send-push-notification", push, [503, 503, 403, 503, 401]),
        row("GET", "/unsubscribe", Value::Null, [404, 404, 404, 404, 404]),
        row("POST", "/unsubscribe", Value::Null, [404, 404, 404, 404, 404]),
        row("GET", "/openapi.json", Value::Null, [200, 200, 200, 200, 200]),
        row("GET", "/docs", Value::Null, [200, 200, 200, 200, 200]),
        row("GET", "/health", Value::Null, [200, 200, 200, 200, 200]),
        row("GET", "/health/ready", Value::Null, [503, 503, 503, 503, 503]),
        row("GET", "/metrics", Value::Null, [200, 200, 200, 200, 200]),
    ]
}

#[tokio::test]
async fn every_route_answers_owner_other_viewer_admin_and_nobody_as_tabled() {
    for row in table() {
        for (who, authorization, expected) in [
            ("owner", bearer(Role::Editor, &[COMPANY]), row.owner),
            ("other", bearer(Role::Editor, &[OTHER_COMPANY]), row.other),
            ("viewer", bearer(Role::Viewer, &[COMPANY]), row.viewer),
            ("admin", bearer(Role::Admin, &[]), row.admin),
            ("anonymous", String::new(), row.anonymous),
        ] {
            let world = two_companies();
            let path = row.template.replace("{id}", ID);
            let headers = [JSON, ("authorization", authorization.as_str())];
            let body = if row.body.is_null() { String::new() } else { row.body.to_string() };
            let answer = world.send(row.method, &path, &headers, body).await;
            assert_eq!(answer.status.as_u16(), expected, "{} {} as {who}: {}", row.method, row.template, answer.text);
            if expected >= 401 {
                assert_eq!(world.database.row(ID).unwrap().version, 1, "{} {} as {who}", row.method, row.template);
            }
        }
    }
}

#[tokio::test]
async fn the_table_has_every_route_and_only_open_ones_answer_nobody() {
    let (api, ..) = crate::common::api(&MemoryDatabase::new(), settings());
    let policies = api.policies();
    let tabled: BTreeSet<(String, String)> =
        table().iter().map(|row| (row.method.to_owned(), row.template.to_owned())).collect();
    let routed: BTreeSet<(String, String)> =
        policies.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned())).collect();
    assert_eq!(tabled, routed);
    for row in table() {
        let policy = policies.iter().find(|(method, path, _)| method.as_str() == row.method && *path == row.template);
        let open = policy.is_some_and(|(.., policy)| *policy == Policy::Open);
        assert_eq!(open, row.anonymous != 401, "{} {}", row.method, row.template);
        let reads = ["/api/forecasts/query", "/api/tickets"].contains(&row.template);
        // What is the caller's own, by a token or by a signed link.
        let own = ["/api/notification", "/api/devices", "/unsubscribe"];
        let own = own.iter().any(|start| row.template.starts_with(start));
        let writes = policy.unwrap().0 != Method::GET && !reads && !own;
        assert!(!writes || row.viewer == 403, "{} {}: a viewer writes nothing of others", row.method, row.template);
    }
}

#[tokio::test]
async fn anothers_forecast_is_answered_as_one_that_is_not_there_cached_or_not() {
    let world = two_companies();
    let me = bearer(Role::Editor, &[COMPANY]);
    let nowhere = "0b0a1c60-0000-4000-8000-0000000000ff";
    for round in ["cold", "held by the cache"] {
        for (method, body, headers) in [
            ("GET", "", vec![]),
            ("GET", "", vec![("if-none-match", "\"1\"")]),
            ("PATCH", r#"{"demand":1}"#, vec![JSON]),
            ("PATCH", r#"{"demand":1}"#, vec![JSON, ("if-match", "\"7\"")]),
            ("PATCH", "{}", vec![JSON]),
            (
                "PATCH",
                r#"[{"op":"test","path":"/demand","value":1}]"#,
                vec![("content-type", "application/json-patch+json")],
            ),
            ("DELETE", "", vec![("if-match", "\"7\"")]),
        ] {
            let headers: Vec<_> = headers.into_iter().chain([("authorization", me.as_str())]).collect();
            let theirs = world.send(method, &format!("/api/forecasts/{OTHER_ID}"), &headers, body).await;
            let unknown = world.send(method, &format!("/api/forecasts/{nowhere}"), &headers, body).await;
            assert_eq!(theirs.status.as_u16(), 404, "{round} {method} {body}");
            assert_eq!((theirs.text, theirs.headers), (unknown.text, unknown.headers), "{round} {method} {body}");
        }
        world.get(&format!("/api/forecasts/{OTHER_ID}")).await;
    }
    assert_eq!(world.database.row(OTHER_ID).unwrap().version, 1);
}

#[tokio::test]
async fn a_forecast_that_moved_to_another_company_unheard_is_not_written() {
    let world = two_companies();
    let me = bearer(Role::Editor, &[COMPANY]);
    world.get(&format!("/api/forecasts/{ID}")).await;
    // Another program's write, of which this instance knows nothing: it still holds the forecast as ours.
    world.database.set(ID, json!({"companyId": OTHER_COMPANY}));
    for (method, body) in [("PATCH", r#"{"demand":1}"#), ("DELETE", "")] {
        let headers = [JSON, ("authorization", me.as_str())];
        let answer = world.send(method, &format!("/api/forecasts/{ID}"), &headers, body).await;
        assert_eq!(answer.status.as_u16(), 404, "{method}: {}", answer.text);
    }
    assert_eq!(world.database.row(ID).unwrap().version, 2);
}

#[tokio::test]
async fn lists_hold_the_callers_companies_only() {
    let world = two_companies();
    let check = async |role: Role, companies: &[&str], query: &str, expected: &[&str]| {
        // The second time from memory.
        for _ in 0..2 {
            let authorization = bearer(role, companies);
            let answer =
                world.send("GET", &format!("/api/forecasts{query}"), &[("authorization", &authorization)], "").await;
            let list = answer.json();
            let ids: BTreeSet<&str> =
                list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
            assert_eq!(ids, expected.iter().copied().collect(), "{role:?} of {companies:?} asks {query}");
            assert_eq!(list["total"], expected.len(), "{role:?} of {companies:?} asks {query}");
        }
    };
    check(Role::Admin, &[], "", &[ID, OTHER_ID]).await;
    check(Role::Viewer, &[COMPANY], "", &[ID]).await;
    check(Role::Viewer, &[OTHER_COMPANY], "", &[OTHER_ID]).await;
    check(Role::Viewer, &[COMPANY, OTHER_COMPANY], "", &[ID, OTHER_ID]).await;
    check(Role::Viewer, &[], "", &[]).await;
    check(Role::Viewer, &[COMPANY], &format!("?companyId={OTHER_COMPANY}"), &[]).await;
    check(Role::Viewer, &[COMPANY], &format!("?productionUnitId={UNIT}"), &[ID]).await;
    check(Role::Admin, &[], &format!("?companyId={OTHER_COMPANY}"), &[OTHER_ID]).await;
}

#[tokio::test]
async fn the_pages_of_several_companies_are_put_together_in_order() {
    let world = crate::common::world();
    world.database.delete(ID);
    for n in 0..30 {
        let mut row = forecast(n);
        row["forecastDate"] = json!(format!("2026-01-{:02}T00:00:00.000Z", n % 10 + 1));
        row["companyId"] = json!([COMPANY, OTHER_COMPANY, UNIT][n as usize % 3]);
        world.database.set(&format!("0b0a1c60-0000-4000-8000-0000000001{n:02}"), row);
    }
    let both = bearer(Role::Viewer, &[COMPANY, OTHER_COMPANY]);
    let page = async |query: &str| {
        let answer = world.send("GET", &format!("/api/forecasts{query}"), &[("authorization", &both)], "").await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        answer.json()
    };
    let all = page("?take=500").await;
    assert_eq!((&all["total"], all["items"].as_array().unwrap().len()), (&json!(20), 20));
    let place = |item: &Value| {
        (item["forecastDate"].as_str().unwrap().to_owned(), std::cmp::Reverse(item["id"].as_str().unwrap().to_owned()))
    };
    assert!(all["items"].as_array().unwrap().is_sorted_by(|a, b| place(a) > place(b)));
    let mut paged = Vec::new();
    for skip in (0..20).step_by(7) {
        paged.extend(page(&format!("?skip={skip}&take=7")).await["items"].as_array().unwrap().clone());
    }
    assert_eq!(Value::Array(paged), all["items"]);
    let deep = page("?skip=5000").await;
    assert_eq!(deep, json!({"total": 20, "items": []}));
    // Kept as one list, until something in any of the companies changes.
    let level = async || {
        let list = world.send("GET", "/api/forecasts?take=500", &[("authorization", &both)], "").await;
        list.header("x-cache-level").map(str::to_owned)
    };
    assert_eq!(level().await.as_deref(), Some("L2"));
    let theirs = all["items"].as_array().unwrap().iter().rfind(|item| item["companyId"] == OTHER_COMPANY).unwrap();
    let path = format!("/api/forecasts/{}", theirs["id"].as_str().unwrap());
    let admin = bearer(Role::Admin, &[]);
    let deleted = world.send("DELETE", &path, &[("authorization", &admin)], "").await;
    assert_eq!(deleted.status.as_u16(), 204);
    assert_eq!(level().await.as_deref(), Some("L4"));
    assert_eq!(page("?take=500").await["total"], 19);
}

#[tokio::test]
async fn a_batch_gives_what_is_the_callers_and_names_the_rest_missing() {
    let world = two_companies();
    let unknown = "0b0a1c60-0000-4000-8000-0000000000ff";
    let ask = async |authorization: String, body: Value| {
        let headers = [JSON, ("authorization", authorization.as_str())];
        world.send("POST", "/api/forecasts/query", &headers, body.to_string()).await
    };
    let ids = json!({"ids": [OTHER_ID, unknown, ID.to_uppercase(), ID]});
    let mine = ask(bearer(Role::Viewer, &[COMPANY]), ids.clone()).await.json();
    assert_eq!((mine["items"].as_array().unwrap().len(), &mine["missing"]), (1, &json!([OTHER_ID, unknown])));
    assert_eq!(mine["items"][0]["id"], ID);
    let all = ask(bearer(Role::Admin, &[]), ids).await.json();
    assert_eq!((&all["items"][0]["id"], &all["items"][1]["id"]), (&json!(OTHER_ID), &json!(ID)));
    for (body, field, error) in [
        (json!([]), "", "must be a JSON object"),
        (json!({}), "ids", "must be a list of UUIDs"),
        (json!({"ids": []}), "ids", "must be 1 to 500 UUIDs"),
        (json!({"ids": vec!["x"; 501]}), "ids", "must be 1 to 500 UUIDs"),
        (json!({"ids": [ID, "x"]}), "ids/1", "must be a UUID"),
        (json!({"ids": [ID], "x": 1}), "x", "is not a known member"),
    ] {
        let refused = ask(bearer(Role::Admin, &[]), body.clone()).await;
        assert_eq!(refused.status.as_u16(), 400, "{body}");
        assert_eq!(refused.json()["fields"][0], json!({"field": field, "error": error}), "{body}");
    }
}
