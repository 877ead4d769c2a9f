//! `smartpulse explain`: where one entity stands, from the database to the instances.
//!
//! Nothing is written and no subscription stays. The topics are read from their beginning, as far as the time allows.

use crate::args::{ExplainArgs, SettingsArgs};
use crate::explain_notification;
use crate::failure::Failure;
use crate::home::Home;
use crate::http;
use crate::position::Ledgers;
use crate::serve;
use crate::setup::{self, Session};
use crate::style::{Paint, Side, Table, clip, duration, print};
use crate::token::DEMO_USER;
use futures::future::{join, join_all};
use serde_json::Value;
use smartpulse_api::{DevelopmentToken, Role, development_token};
use smartpulse_clients::bus::{InitialPosition, SharedBus, Subscribe, SubscriptionType};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::documents::Shared;
use smartpulse_clients::pubsub::SharedPubSub;
use smartpulse_pipeline::error::Result;
use smartpulse_pipeline::message::decode_change;
use smartpulse_pipeline::{Key, Operation, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

/// What is explained: the cached table.
const TABLE: &str = "Forecasts";
const SECTION: &str = "forecast";

/// Where a change goes, in this order.
const TOPICS: [&str; 3] = ["cdc:forecasts", "forecast:updated", "forecast:invalidation"];

/// How many changes are shown.
const CHANGES_MAX: usize = 5;

/// A topic that says nothing for so long has been read.
const QUIET: Duration = Duration::from_secs(1);

/// How long a topic is read at most: beyond it the newest changes may be missing, which is said.
const READ_MAX: Duration = Duration::from_secs(15);

/// Messages taken at once.
const MESSAGES: usize = 500;

/// How long the token is good that instances are asked with.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// How long a shared document may be old.
const AGE_MAX: Duration = Duration::from_secs(3_600);

/// The longest text of a change.
const CHANGE_WIDTH: usize = 60;

pub fn explain(args: &SettingsArgs, explain: &ExplainArgs) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    runtime.block_on(async {
        if let Some(id) = explain.notification {
            return explain_notification::explain(&session, id).await;
        }
        // Without a folder there is nothing embedded to look into, and none is made.
        let home = Home::existing(&session).await;
        let asked =
            Asked { session: &session, key: explain.key.as_deref().unwrap_or_default().into(), embedded: home.is_ok() };
        let mut text = format!("{SECTION} {}\n", asked.key);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<26}{value}");
        };
        line("database", &asked.database().await);
        for (name, value) in captured(&session, home).await {
            line(&name, &value);
        }
        line("shared", &asked.shared().await);
        let own = [session.settings.api.listen.to_string()];
        let instances = if explain.instances.is_empty() { &own[..] } else { &explain.instances };
        for (address, answer) in asked.instances(instances).await {
            line(&address, &answer);
        }
        print(&text)?;
        print(&asked.changes().await)?;
        Ok(())
    })
}

/// Where capture is in the table.
async fn captured(session: &Session, home: Result<Home, Failure>) -> Vec<(String, String)> {
    let Ok(ledgers) = Ledgers::open(session, home).await else {
        return vec![("capture".to_owned(), "nobody has captured here".to_owned())];
    };
    let of_table = ledgers.entries().filter(|entry| entry.id.rsplit('/').next() == Some(TABLE));
    let told = of_table.map(|entry| {
        let age = duration(Duration::from_millis(Timestamp::now().millis_since(entry.updated_at)));
        let position = entry.position.as_ref().map_or_else(|| "none yet".to_owned(), ToString::to_string);
        let holder = entry.holder.as_deref().unwrap_or("nobody");
        (entry.id.clone(), format!("{position}, {age} ago, epoch {}, held by {holder}", entry.epoch))
    });
    told.collect()
}

/// The entity that is explained.
struct Asked<'a> {
    session: &'a Session,
    key: Key,
    /// Whether there is a data folder.
    embedded: bool,
}

/// A change, as it was seen on its way.
#[derive(Default)]
struct Seen {
    committed: Option<Timestamp>,
    operation: Option<Operation>,
    /// By topic, when it was published there.
    published: [Option<Timestamp>; TOPICS.len()],
    changes: String,
}

impl Asked<'_> {
    async fn database(&self) -> String {
        let found = async {
            let database: SharedDatabase = self.session.resources.get(serve::DATABASE).await?;
            database.get(TABLE, std::slice::from_ref(&self.key)).await
        };
        match found.await {
            Ok(rows) => rows.first().map_or_else(|| "no such row".to_owned(), |row| format!("version {}", row.version)),
            Err(error) => error.chain(),
        }
    }

    /// The counter and the document beside it; nothing where instances share none.
    async fn in_common(&self) -> Result<Option<(Option<i64>, Shared)>> {
        let pubsub: SharedPubSub = self.session.resources.get(serve::PUBSUB).await?;
        let Some(documents) = pubsub.documents() else { return Ok(None) };
        let counters = documents.counters(SECTION, std::slice::from_ref(&self.key)).await?;
        let document = documents.get(SECTION, &self.key, AGE_MAX).await?;
        Ok(Some((counters.into_iter().next().flatten(), document)))
    }

    async fn shared(&self) -> String {
        let (counter, document) = match self.in_common().await {
            Ok(Some(found)) => found,
            Ok(None) => return "nothing is shared: one instance has all".to_owned(),
            Err(error) => return error.chain(),
        };
        let document = match document {
            Shared::Document { .. } => "with its document",
            Shared::Gone { .. } => "deleted",
            Shared::Nothing => "without a document",
        };
        counter.map_or_else(|| "unknown".to_owned(), |counter| format!("version {counter}, {document}"))
    }

    /// What each instance answers.
    async fn instances(&self, addresses: &[String]) -> Vec<(String, String)> {
        let settings = &self.session.settings;
        let token = DevelopmentToken { user: DEMO_USER, role: Role::Admin, companies: Vec::new(), ttl: TOKEN_LIFE };
        let token = development_token(&settings.api.auth, &settings.environment, &token);
        join_all(addresses.iter().map(async |address| {
            let address = address.trim_start_matches("http://").trim_end_matches('/');
            let told = match &token {
                Ok(token) => self.instance(address, token).await,
                Err(error) => format!("cannot be asked: {}", error.chain()),
            };
            (address.to_owned(), told)
        }))
        .await
    }

    async fn instance(&self, address: &str, token: &str) -> String {
        match http::get(address, &format!("/api/forecasts/{}", self.key), Some(token)).await {
            Ok(answer) if answer.status == 200 => {
                let document: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let stale = if answer.header("x-cache-stale").is_empty() { "" } else { ", perhaps stale" };
                format!("version {} from {}{stale}", document["versionId"], answer.header("x-cache-level"))
            }
            Ok(answer) if answer.status == 404 => "no such forecast".to_owned(),
            Ok(answer) => format!("answers {}", answer.status),
            Err(error) => format!("does not answer: {error:#}"),
        }
    }

    /// The last changes, and when they were where.
    async fn changes(&self) -> String {
        if !self.embedded
            && self.session.settings.resources.get(serve::BUS).is_some_and(|bus| bus.type_name == EMBEDDED)
        {
            return String::new();
        }
        let bus: SharedBus = match self.session.resources.get(serve::BUS).await {
            Ok(bus) => bus,
            Err(error) => return format!("\nno changes: {}\n", error.chain()),
        };
        let [captured, updated, invalidated] = TOPICS.map(|topic| self.read(&bus, topic));
        let (captured, (updated, invalidated)) = join(captured, join(updated, invalidated)).await;
        let mut seen: BTreeMap<i64, Seen> = BTreeMap::new();
        let mut notes = String::new();
        for (at, read) in [captured, updated, invalidated].into_iter().enumerate() {
            match read {
                Ok((messages, note)) => {
                    notes += note;
                    for (published, payload) in messages {
                        note_message(&mut seen, at, published, &payload);
                    }
                }
                Err(error) => notes += &format!("{}: {}\n", TOPICS[at], error.chain()),
            }
        }
        format!("\n{}{notes}", table(&seen))
    }

    /// The last messages of the key on a topic, with the time of their publication, and what is to be said of it.
    async fn read(&self, bus: &SharedBus, topic: &str) -> Result<(VecDeque<(Timestamp, Vec<u8>)>, &'static str)> {
        let subscribe = Subscribe {
            topic: topic.to_owned(),
            subscription: format!("explain-{}", Uuid::new_v4()),
            kind: SubscriptionType::Exclusive,
            initial: InitialPosition::Earliest,
            durable: false,
        };
        let mut consumer = bus.subscribe(subscribe).await?;
        let (began, end) = (Timestamp::now(), Instant::now() + READ_MAX);
        let mut last = VecDeque::new();
        loop {
            let messages = match timeout_at(end, timeout(QUIET, consumer.receive(MESSAGES))).await {
                Ok(Ok(messages)) => messages?,
                Ok(Err(_)) => return Ok((last, "")),
                Err(_) => {
                    return Ok((last, "a topic is too long to be read to its end: newer changes may be missing\n"));
                }
            };
            // What comes after the question is not asked for.
            let caught_up = messages.last().is_some_and(|message| message.publish_time > began);
            let ids: Vec<_> = messages.iter().map(|message| message.id.clone()).collect();
            for message in messages.into_iter().filter(|message| message.key.as_deref() == Some(&self.key)) {
                last.push_back((message.publish_time, message.payload.to_vec()));
                if last.len() > CHANGES_MAX {
                    last.pop_front();
                }
            }
            if caught_up {
                return Ok((last, ""));
            }
            // The next ones come when there is room for them.
            consumer.acker().ack(&ids).await?;
        }
    }
}

/// The type of a bus in the data folder.
const EMBEDDED: &str = "embedded_bus";

/// Takes a message of topic `at` into what was seen.
fn note_message(seen: &mut BTreeMap<i64, Seen>, at: usize, published: Timestamp, payload: &[u8]) {
    if at == 0 {
        let Ok(event) = decode_change(&payload.to_vec().into()) else { return };
        let entry = seen.entry(event.version).or_default();
        (entry.committed, entry.operation) = (event.commit_time, Some(event.operation));
        entry.published[at].get_or_insert(published);
        return;
    }
    let Ok(message) = serde_json::from_slice::<Value>(payload) else { return };
    let version = [&message["versionId"], &message["data"]["currentVersionId"]].into_iter().find_map(Value::as_i64);
    let Some(entry) = version.and_then(|version| seen.get_mut(&version)) else { return };
    entry.published[at].get_or_insert(published);
    let changes = message["data"]["changes"].as_array().into_iter().flatten();
    let told = changes.map(|change| {
        let field = change["field"].as_str().unwrap_or_default();
        format!("{field} {} \u{2192} {}", change["oldValue"], change["newValue"])
    });
    let told: Vec<String> = told.collect();
    if !told.is_empty() {
        entry.changes = told.join(", ");
    }
}

/// The newest first; each topic with the time since the commit.
fn table(seen: &BTreeMap<i64, Seen>) -> String {
    if seen.is_empty() {
        return "no change of it is on the bus\n".to_owned();
    }
    let mut table = Table::new(&[
        ("version", Side::Right),
        ("", Side::Left),
        ("committed", Side::Left),
        (TOPICS[0], Side::Right),
        (TOPICS[1], Side::Right),
        (TOPICS[2], Side::Right),
        ("changes", Side::Left),
    ]);
    for (version, change) in seen.iter().rev().take(CHANGES_MAX) {
        let since = |published: &Option<Timestamp>| match (published, change.committed) {
            (Some(published), Some(committed)) => {
                format!("+{}", duration(Duration::from_millis(published.millis_since(committed))))
            }
            (Some(published), None) => published.to_string(),
            (None, _) => "-".to_owned(),
        };
        let operation = change.operation.map(|operation| format!("{operation:?}").to_lowercase());
        let mut cells = vec![version.to_string(), operation.unwrap_or_default()];
        cells.push(change.committed.map_or_else(|| "-".to_owned(), |time| time.to_string()));
        cells.extend(change.published.iter().map(since));
        cells.push(clip(&change.changes, CHANGE_WIDTH));
        table.row(cells);
    }
    table.render(Paint::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_with_where_it_was_when() {
        let mut seen = BTreeMap::new();
        let at = |millis: i64| Timestamp::from_millis(1_700_000_000_000 + millis);
        let captured = r#"{"Timestamp":"2023-11-14T22:13:20.000Z","VersionId":7,"Operation":"UPDATE","EntityId":"k",
            "Data":{"id":"k"},"Section":"forecast"}"#;
        let updated = r#"{"data":{"currentVersionId":7,"changes":[{"field":"demand","oldValue":1.0,"newValue":2.0}]}}"#;
        note_message(&mut seen, 0, at(5), captured.as_bytes());
        note_message(&mut seen, 0, at(500), captured.as_bytes());
        note_message(&mut seen, 1, at(42), updated.as_bytes());
        note_message(&mut seen, 2, at(43), br#"{"versionId":6}"#);
        let text = table(&seen);
        let row = text.lines().nth(1).unwrap();
        for cell in ["7", "update", "2023-11-14T22:13:20.000Z", "+5.0 ms", "+42 ms", "demand 1.0 \u{2192} 2.0"] {
            assert!(row.contains(cell), "{cell} is not in {row}");
        }
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(table(&BTreeMap::new()), "no change of it is on the bus\n");
    }
}
