//! `smartpulse explain --notification`: what one person was told by one channel, and what became of each attempt.
//!
//! It reads the ledger, the inbox and the mail queue of the main database. Nothing is written.

use crate::failure::Failure;
use crate::serve;
use crate::setup::Session;
use crate::style::{Paint, Side, Table, clip, counted, print};
use anyhow::{Context, anyhow};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use smartpulse_clients::database::{Database, Row, SharedDatabase};
use smartpulse_clients::deliveries::DELIVERIES;
use smartpulse_clients::notifications::{Audience, DeliveryQuery, SharedNotifications};
use std::fmt::Write as _;
use uuid::Uuid;

/// Attempts that are shown: more are only those of a mail or device that is tried again and again.
const ATTEMPTS_MAX: u32 = 50;

/// The longest detail.
const DETAIL_WIDTH: usize = 80;

/// An attempt, as the ledger has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    id: Uuid,
    delivery_id: Uuid,
    channel: String,
    user_id: Uuid,
    rule: String,
    entity: String,
    version: String,
    outcome: String,
    detail: Option<String>,
    created_at: String,
}

/// What an inbox row tells of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice {
    title: String,
    read_at: Option<String>,
}

/// What a queued mail tells of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    to_address: String,
    status: String,
    attempts: u64,
    last_error: Option<String>,
    sent_at: Option<String>,
    not_before: Option<String>,
}

/// Explains the delivery with this id, or the one that an attempt with this id was of.
pub async fn explain(session: &Session, id: Uuid) -> Result<(), Failure> {
    let database: SharedDatabase = session.resources.get(serve::DATABASE).await?;
    let people =
        database.notifications().ok_or_else(|| anyhow!("the database `{}` keeps no notifications", serve::DATABASE))?;
    let mut attempts = attempts(&people, id).await?;
    if attempts.is_empty()
        && let Some(one) = row::<Attempt>(&*database, DELIVERIES, id).await?
    {
        attempts = self::attempts(&people, one.delivery_id).await?;
    }
    let Some(first) = attempts.first() else {
        return Err(anyhow!(
            "no attempt at {id} is in the ledger: nobody was told by this id, or the sinks of its channel have no `ledger`"
        )
        .into());
    };
    let users = people.users(&Audience::User(first.user_id), None, 1).await?;
    let user = users.first().map_or_else(
        || format!("user {}, who is not there any more", first.user_id),
        |user| format!("{} <{}>, user {}", user.display_name, user.email, user.id),
    );
    let inbox = row::<Notice>(&*database, "Notifications", first.delivery_id).await?;
    let mail = row::<Mail>(&*database, "NheaMailQueue", first.delivery_id).await?;
    print(&told(&attempts, &user, inbox.as_ref(), mail.as_ref(), Paint::stdout()))?;
    Ok(())
}

/// The attempts at a delivery, the oldest first.
async fn attempts(people: &SharedNotifications, delivery: Uuid) -> Result<Vec<Attempt>, Failure> {
    let query = DeliveryQuery { delivery: Some(delivery), take: ATTEMPTS_MAX, ..DeliveryQuery::default() };
    let rows = people.deliveries(&query).await?;
    rows.iter().rev().map(read).collect()
}

async fn row<T: DeserializeOwned>(database: &dyn Database, table: &str, id: Uuid) -> Result<Option<T>, Failure> {
    let rows = database.get(table, &[id.to_string().into()]).await?;
    rows.first().map(read).transpose()
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<T, Failure> {
    Ok(serde_json::from_slice(&row.document).context("a table of notifications is not as config/sql makes it")?)
}

/// All of it, for people.
fn told(attempts: &[Attempt], user: &str, inbox: Option<&Notice>, mail: Option<&Mail>, paint: Paint) -> String {
    let Some(first) = attempts.first() else { return String::new() };
    let mut text = format!("notification {}\n", first.delivery_id);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<12}{value}");
    };
    line("rule", &first.rule);
    line("about", &format!("{}, version {}", first.entity, first.version));
    line("to", user);
    line("by", &first.channel);
    if let Some(notice) = inbox {
        let read = notice.read_at.as_ref().map_or_else(|| "not read yet".to_owned(), |time| format!("read {time}"));
        line("inbox", &format!("\u{201c}{}\u{201d}, {read}", clip(&notice.title, DETAIL_WIDTH)));
    }
    if let Some(mail) = mail {
        line("mail", &queued(mail));
    }
    let ended = attempts.iter().find(|attempt| attempt.id == attempt.delivery_id);
    line(
        "told",
        &ended.map_or_else(|| "not yet".to_owned(), |attempt| format!("{}; it is not told again", attempt.outcome)),
    );
    let mut table = Table::new(&[("attempt", Side::Left), ("outcome", Side::Left), ("detail", Side::Left)]);
    for attempt in attempts {
        let detail = attempt.detail.as_deref().unwrap_or_default();
        table.row(vec![attempt.created_at.clone(), attempt.outcome.clone(), clip(detail, DETAIL_WIDTH)]);
    }
    text + "\n" + &table.render(paint)
}

fn queued(mail: &Mail) -> String {
    let mut text = format!("{} to {}", mail.status, mail.to_address);
    if let Some(time) = &mail.sent_at {
        let _ = write!(text, " at {time}");
    }
    let _ = write!(text, ", {}", counted(mail.attempts, "attempt"));
    if let Some(time) = mail.not_before.as_ref().filter(|_| mail.status == "Queued" && mail.attempts > 0) {
        let _ = write!(text, ", again at {time}");
    }
    if let Some(error) = &mail.last_error {
        let _ = write!(text, "; last error: {}", clip(error, DETAIL_WIDTH));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(id: u128, outcome: &str, detail: Option<&str>) -> Attempt {
        Attempt {
            id: Uuid::from_u128(id),
            delivery_id: Uuid::from_u128(1),
            channel: "Email".to_owned(),
            user_id: Uuid::from_u128(7),
            rule: "demand-dropped".to_owned(),
            entity: "f1".to_owned(),
            version: "101".to_owned(),
            outcome: outcome.to_owned(),
            detail: detail.map(str::to_owned),
            created_at: format!("2026-01-02T03:04:0{id}.000Z"),
        }
    }

    #[test]
    fn a_delivery_is_told_with_its_attempts_and_its_mail() {
        let attempts =
            [attempt(1, "queued", None), attempt(2, "failed", Some("451\ncome again")), attempt(3, "sent", None)];
        let mail = Mail {
            to_address: "anna@example.com".to_owned(),
            status: "Sent".to_owned(),
            attempts: 2,
            last_error: Some("451 come again".to_owned()),
            sent_at: Some("2026-01-02T03:04:03.000Z".to_owned()),
            not_before: None,
        };
        let text = told(&attempts, "Anna <anna@example.com>", None, Some(&mail), Paint::none());
        assert_eq!(
            text,
            "notification 00000000-0000-0000-0000-000000000001\n\
             \x20 rule        demand-dropped\n\
             \x20 about       f1, version 101\n\
             \x20 to          Anna <anna@example.com>\n\
             \x20 by          Email\n\
             \x20 mail        Sent to anna@example.com at 2026-01-02T03:04:03.000Z, 2 attempts; last error: 451 come again\n\
             \x20 told        queued; it is not told again\n\
             \n\
             attempt                   outcome  detail\n\
             2026-01-02T03:04:01.000Z  queued\n\
             2026-01-02T03:04:02.000Z  failed   451 come again\n\
             2026-01-02T03:04:03.000Z  sent\n"
        );
    }
}
