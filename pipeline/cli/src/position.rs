//! `smartpulse position` and `resnapshot`: how far sources have come, and having them start over.
//!
//! Where a source is stands in a ledger: of an embedded database in the data folder, of SQL Server in the database itself.
//! All ledgers that the settings lead to are looked at.

use crate::args::{PositionCommand, SettingsArgs};
use crate::failure::Failure;
use crate::home::Home;
use crate::setup::{self, Session};
use crate::style::{Paint, Side, Table, counted, duration, print};
use anyhow::{Context, anyhow};
use smartpulse_clients::database::SharedDatabase;
use smartpulse_clients::ledger::{LedgerEntry, SharedLedger, StoreLedger};
use smartpulse_config::nearest;
use smartpulse_pipeline::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A ledger, and where it is.
struct Place {
    /// The database resource; none for the data folder.
    database: Option<String>,
    ledger: SharedLedger,
}

/// An entry of a ledger.
struct Found {
    place: usize,
    entry: LedgerEntry,
}

/// All ledgers with all that they hold.
pub struct Ledgers {
    places: Vec<Place>,
    found: Vec<Found>,
    /// Kept as long as its store is worked with.
    home: Option<Home>,
}

pub fn position(args: &SettingsArgs, command: &PositionCommand) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    runtime.block_on(async {
        match command {
            PositionCommand::Show => {
                let home = Home::existing(&session).await;
                show(&Ledgers::open(&session, home).await?).await
            }
            PositionCommand::Reset { id } => {
                let home = Home::existing_alone(&session).await.map_err(|failure| match failure {
                    Failure::Run(error) => Failure::Run(error.context(
                        "positions are reset while no graph runs on the folder\n\
                         to scan tables again beside a running one: smartpulse resnapshot",
                    )),
                    other => other,
                });
                reset(&Ledgers::open(&session, home).await?, id).await
            }
        }
    })
}

pub fn resnapshot(args: &SettingsArgs, id: &str) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    runtime.block_on(async {
        let home = Home::existing(&session).await;
        let ledgers = Ledgers::open(&session, home).await?;
        let mut tables = 0;
        for place in &ledgers.places {
            tables += smartpulse_sources::request_resnapshot(place.ledger.as_ref(), id).await?;
        }
        if tables == 0 {
            return Err(unknown(id, &ledgers.ids(|_| true), "no capture source has run as"));
        }
        print(&format!(
            "{id} ({}) will be scanned again: within a second or so by a running graph, else at its next start\n",
            counted(tables as u64, "table")
        ))?;
        Ok(())
    })
}

impl Ledgers {
    /// Opens what there is. A data folder on which nothing ran is no problem where a database keeps the positions.
    ///
    /// # Errors
    /// When a ledger cannot be read, or there is none.
    pub async fn open(session: &Session, home: Result<Home, Failure>) -> Result<Self, Failure> {
        let mut places = Vec::new();
        for (name, _) in session.declared.kinds.iter().filter(|(_, kind)| **kind == "database") {
            let database: SharedDatabase = session.resources.get(name).await?;
            if let Some(ledger) = database.ledger() {
                places.push(Place { database: Some(name.clone()), ledger });
            }
        }
        let home = match home {
            Ok(home) => Some(home),
            Err(failure) if places.is_empty() => return Err(failure),
            // Somebody runs on it, or it is not there: the databases can be looked at all the same.
            Err(_) => None,
        };
        if let Some(home) = &home {
            places.insert(0, Place { database: None, ledger: Arc::new(StoreLedger::new(home.store.clone())) });
        }
        let mut found = Vec::new();
        for (at, place) in places.iter().enumerate() {
            let entries = place.ledger.entries().await.with_context(|| {
                let place = place.database.as_deref().unwrap_or("the data folder");
                format!("the positions in {place} cannot be read")
            });
            found.extend(entries?.into_iter().map(|entry| Found { place: at, entry }));
        }
        Ok(Self { places, found, home })
    }

    /// All that is kept.
    pub fn entries(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.found.iter().map(|found| &found.entry)
    }

    /// The ids of entries, and of the sources above them.
    fn ids(&self, of: impl Fn(&LedgerEntry) -> bool) -> BTreeSet<&str> {
        let tables: Vec<&str> =
            self.found.iter().filter(|found| of(&found.entry)).map(|found| found.entry.id.as_str()).collect();
        let sources = tables.iter().filter_map(|id| id.rsplit_once('/')).map(|(source, _)| source);
        tables.iter().copied().chain(sources).collect()
    }
}

async fn show(ledgers: &Ledgers) -> Result<(), Failure> {
    let left = |text| (text, Side::Left);
    let mut table =
        Table::new(&[left("source"), left("position"), left("committed"), ("epoch", Side::Right), left("")]);
    let now = Timestamp::now();
    let requests = match &ledgers.home {
        Some(home) => home.store.positions().await?,
        None => Vec::new(),
    };
    for Found { place, entry } in &ledgers.found {
        let place = &ledgers.places[*place];
        let mut notes = Vec::new();
        if let Some(database) = &place.database {
            // Of an embedded database only one instance can be the holder.
            notes.push(match &entry.holder {
                Some(holder) => format!("in {database}, held by {holder}"),
                None => format!("in {database}, held by nobody"),
            });
        }
        if requests.iter().any(|stored| stored.id.strip_suffix("#resnapshot") == Some(&entry.id)) {
            notes.push("resnapshot requested".to_owned());
        }
        let age = Duration::from_millis(now.millis_since(entry.updated_at));
        table.row(vec![
            entry.id.clone(),
            entry.position.as_ref().map_or_else(|| "none yet".to_owned(), ToString::to_string),
            format!("{} ago", duration(age)),
            entry.epoch.to_string(),
            notes.join(", "),
        ]);
    }
    if ledgers.found.is_empty() {
        print("no source has committed a position yet\n")?;
    } else {
        print(&table.render(Paint::stdout()))?;
    }
    Ok(())
}

async fn reset(ledgers: &Ledgers, id: &str) -> Result<(), Failure> {
    let below = format!("{id}/");
    for Found { place, entry } in &ledgers.found {
        let named = entry.id == id || entry.id.starts_with(&below);
        if let (true, Some(database), Some(holder)) = (named, &ledgers.places[*place].database, &entry.holder) {
            return Err(anyhow!(
                "{} is being captured by {holder}, says {database}: it would only write its position again\n\
                 stop it first (a crashed one lets go when its lease ends), or scan beside it: smartpulse resnapshot {id}",
                entry.id
            )
            .into());
        }
    }
    let mut forgotten = 0;
    for place in &ledgers.places {
        forgotten += place.ledger.reset(id).await.context("the position could not be reset")?;
    }
    if forgotten == 0 {
        let known = ledgers.ids(|entry| entry.position.is_some());
        return Err(unknown(id, &known, "there is no position of"));
    }
    let what = counted(forgotten as u64, "position");
    print(&format!("{what} forgotten: {id} starts over when the graph is started\n"))?;
    Ok(())
}

fn unknown(id: &str, known: &BTreeSet<&str>, what: &str) -> Failure {
    let help = match nearest(id, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "none has run on this data folder yet".to_owned(),
        None => format!("there are: {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    anyhow!("{what} {id}\n{help}").into()
}
