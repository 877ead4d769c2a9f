//! `smartpulse dlq`: events that were set aside. All of it works beside a running graph.

use crate::args::{DlqCommand, LettersOf, SettingsArgs};
use crate::failure::Failure;
use crate::home::Home;
use crate::setup::{self, Session};
use crate::style::{Paint, Side, Table, clip, columns, counted, duration, print};
use anyhow::{Context, anyhow};
use smartpulse_clients::bus::{Outgoing, SharedBus};
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::state::{DeadLetterFilter, Origin, Store, StoredDeadLetter};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

/// Letters removed in one transaction, so that a running graph is not held up.
const DISCARD_AT_ONCE: usize = 1_000;

/// The narrowest that a reason is shown on a terminal.
const REASON_MIN: usize = 24;

pub fn dlq(args: &SettingsArgs, command: &DlqCommand) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    runtime.block_on(async {
        let home = Home::existing(&session).await?;
        let store = home.store.as_ref();
        match command {
            DlqCommand::List { of, limit, json } => {
                list(store, of, *limit, if *json { Form::Json } else { Form::Table }).await
            }
            DlqCommand::Show { id } => show(store, *id).await,
            DlqCommand::Replay { ids } => replay(&session, store, ids).await,
            DlqCommand::Discard { ids, all, of } => {
                let ids = if *all { all_ids(store, of).await? } else { ids.clone() };
                discard(store, &ids).await
            }
        }
    })
}

enum Form {
    Table,
    Json,
}

fn filter(of: &LettersOf, limit: usize) -> DeadLetterFilter {
    DeadLetterFilter { pipeline: of.pipeline.clone(), component: of.component.clone(), limit }
}

async fn list(store: &dyn Store, of: &LettersOf, limit: usize, form: Form) -> Result<(), Failure> {
    // One more than is shown tells whether there are more.
    let mut letters = store.dead_letters(&filter(of, limit.saturating_add(1))).await?;
    let more = letters.len() > limit;
    letters.truncate(limit);
    if let Form::Json = form {
        let mut lines = String::new();
        for letter in &letters {
            lines.push_str(&serde_json::to_string(letter).context("a dead letter has no JSON form")?);
            lines.push('\n');
        }
        print(&lines)?;
        return Ok(());
    }
    if letters.is_empty() {
        print("no dead letters\n")?;
        return Ok(());
    }
    print(&table(&letters, Paint::stdout()))?;
    if more {
        eprintln!("there are more; --limit shows them");
    }
    Ok(())
}

fn table(letters: &[StoredDeadLetter], paint: Paint) -> String {
    let now = Timestamp::now();
    let heading = [
        ("id", Side::Right),
        ("age", Side::Right),
        ("component", Side::Left),
        ("key", Side::Left),
        ("version", Side::Right),
        ("reason", Side::Left),
    ];
    let mut table = Table::new(&heading);
    let rows: Vec<[String; 6]> = letters
        .iter()
        .map(|stored| {
            let letter = &stored.letter;
            let reason = clip(&letter.reason, usize::MAX);
            [
                stored.id.to_string(),
                duration(Duration::from_millis(now.millis_since(letter.time))),
                format!("{}/{}", letter.pipeline, letter.component),
                letter.key.as_deref().map_or_else(|| "-".to_owned(), |key| clip(key, 36)),
                letter.version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
                if stored.replay_requested { format!("(replay requested) {reason}") } else { reason },
            ]
        })
        .collect();
    // On a terminal a reason takes what is left of the line; elsewhere it is whole.
    let room = std::io::stdout().is_terminal().then(|| {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([heading[column].0.len()]).max().unwrap_or(0)
        };
        let taken: usize = (0..5).map(|column| width(column) + 2).sum();
        columns().saturating_sub(taken).max(REASON_MIN)
    });
    for [id, age, component, key, version, reason] in rows {
        let reason = room.map_or_else(|| reason.clone(), |room| clip(&reason, room));
        table.row(vec![id, age, component, key, version, reason]);
    }
    table.render(paint)
}

async fn one(store: &dyn Store, id: i64) -> Result<StoredDeadLetter, Failure> {
    let found = store.dead_letter(id).await?;
    found.ok_or_else(|| anyhow!("there is no dead letter {id}; `smartpulse dlq list` prints their numbers").into())
}

async fn show(store: &dyn Store, id: i64) -> Result<(), Failure> {
    let stored = one(store, id).await?;
    let letter = &stored.letter;
    let paint = Paint::stdout();
    let none = || "-".to_owned();
    let fields = [
        ("id", stored.id.to_string()),
        ("time", letter.time.to_string()),
        ("component", format!("{}/{}", letter.pipeline, letter.component)),
        ("reason", letter.reason.clone()),
        ("attempts", letter.attempts.to_string()),
        ("section", letter.section.clone().unwrap_or_else(none)),
        ("key", letter.key.clone().unwrap_or_else(none)),
        ("version", letter.version.map_or_else(none, |version| version.to_string())),
        ("operation", letter.operation.map_or_else(none, |operation| format!("{operation:?}").to_lowercase())),
        ("from", origin(&letter.origin)),
        ("to hand in", way_back(id, &letter.origin)),
    ];
    let mut text = String::new();
    for (name, value) in fields {
        let _ = writeln!(text, "{}  {value}", paint.dim(format!("{name:<10}")));
    }
    let _ = writeln!(text, "{}", paint.dim(format!("payload     {}", counted(letter.payload.len() as u64, "byte"))));
    match serde_json::from_slice::<serde_json::Value>(&letter.payload) {
        Ok(value) => {
            let _ = writeln!(text, "{value:#}");
        }
        Err(_) => {
            let _ = writeln!(text, "{}", printable(&letter.payload));
        }
    }
    print(&text)?;
    Ok(())
}

/// Text that cannot move the cursor of who looks at it.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Sink => "a sink that could not write it".to_owned(),
        Origin::Operator => "an operator that could not handle it".to_owned(),
        Origin::Run => "a bounded run, which has ended".to_owned(),
        Origin::Topic { bus, topic } => format!("topic {topic} of {bus}"),
        Origin::File(file) => format!("file {file}"),
        Origin::Channel(channel) => format!("channel {channel}"),
    }
}

fn way_back(id: i64, origin: &Origin) -> String {
    match refusal(origin) {
        None => format!("smartpulse dlq replay {id}"),
        Some(instead) => instead,
    }
}

/// What to do about a letter that cannot be replayed.
fn refusal(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Sink | Origin::Topic { .. } => None,
        Origin::Run => Some("mend what was wrong and run it again; then smartpulse dlq discard".to_owned()),
        Origin::Operator => Some(
            "mend the pipeline, then have the source give it again: smartpulse resnapshot PIPELINE/SOURCE".to_owned(),
        ),
        Origin::File(file) => Some(format!("mend {file} and run again; then smartpulse dlq discard")),
        Origin::Channel(channel) => Some(format!(
            "{channel} keeps nothing: the key's next version brings it up to date; smartpulse dlq discard"
        )),
    }
}

async fn replay(session: &Session, store: &dyn Store, ids: &[i64]) -> Result<(), Failure> {
    let mut refused = Vec::new();
    let mut topics: BTreeMap<(String, String), Vec<StoredDeadLetter>> = BTreeMap::new();
    let mut requested = 0;
    for &id in ids {
        let stored = match store.dead_letter(id).await? {
            Some(stored) => stored,
            None => {
                refused.push(format!("{id}: there is no such dead letter"));
                continue;
            }
        };
        match (&stored.letter.origin, refusal(&stored.letter.origin)) {
            (_, Some(instead)) => refused.push(format!("{id}: {instead}")),
            (Origin::Topic { bus, topic }, None) => {
                topics.entry((bus.clone(), topic.clone())).or_default().push(stored);
            }
            (_, None) => {
                store.request_replay(id).await?;
                requested += 1;
            }
        }
    }
    if requested > 0 {
        let letters = counted(requested, "dead letter");
        print(&format!(
            "{letters} handed to the sinks: a running graph takes them within a second, else its next start\n"
        ))?;
    }
    for ((bus, topic), letters) in topics {
        publish(session, store, &bus, &topic, letters).await?;
    }
    refuse(&refused, "cannot be replayed")
}

/// Gives letters back to the topic that they came from.
async fn publish(
    session: &Session,
    store: &dyn Store,
    bus: &str,
    topic: &str,
    letters: Vec<StoredDeadLetter>,
) -> Result<(), Failure> {
    let shared: SharedBus =
        session.resources.get(bus).await.with_context(|| format!("`{bus}`, the bus of {topic}, cannot be reached"))?;
    let ids: Vec<i64> = letters.iter().map(|stored| stored.id).collect();
    // Withdrawn when a running graph refuses a message again before we come to remove its letter, which then stays.
    for &id in &ids {
        store.request_replay(id).await?;
    }
    let message = |stored: StoredDeadLetter| Outgoing {
        key: stored.letter.key,
        payload: stored.letter.payload,
        properties: BTreeMap::new(),
    };
    // Removed after it is durable in the topic: a crash in between delivers twice and loses nothing.
    shared.publish(topic, letters.into_iter().map(message).collect()).await?;
    store.remove_replayed(&ids).await?;
    print(&format!("{} published to {topic} again\n", counted(ids.len() as u64, "dead letter")))?;
    Ok(())
}

async fn all_ids(store: &dyn Store, of: &LettersOf) -> Result<Vec<i64>, Failure> {
    let letters = store.dead_letters(&filter(of, usize::MAX)).await?;
    Ok(letters.iter().map(|stored| stored.id).collect())
}

async fn discard(store: &dyn Store, ids: &[i64]) -> Result<(), Failure> {
    let mut removed = 0;
    for ids in ids.chunks(DISCARD_AT_ONCE) {
        removed += store.remove_dead_letters(ids).await?;
    }
    print(&format!("{} discarded\n", counted(removed as u64, "dead letter")))?;
    let missing = ids.len() - removed;
    if missing > 0 {
        return Err(
            anyhow!("{missing} of {} do not exist; `smartpulse dlq list` prints their numbers", ids.len()).into()
        );
    }
    Ok(())
}

fn refuse(refused: &[String], what: &str) -> Result<(), Failure> {
    if refused.is_empty() {
        return Ok(());
    }
    Err(anyhow!("{} {what}\n{}", counted(refused.len() as u64, "dead letter"), refused.join("\n")).into())
}
