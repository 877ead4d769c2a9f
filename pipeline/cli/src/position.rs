//! `smartpulse position` and `resnapshot`: how far sources have come, and having them start over.

use crate::args::{PositionCommand, SettingsArgs};
use crate::failure::Failure;
use crate::home::Home;
use crate::setup;
use crate::style::{Paint, Side, Table, counted, duration, print};
use anyhow::{Context, anyhow};
use smartpulse_config::nearest;
use smartpulse_pipeline::Timestamp;
use smartpulse_pipeline::state::{Store, StoredPosition};
use std::collections::BTreeSet;
use std::time::Duration;

/// What capture sources keep beside their positions: the number of their lease, and a request for a snapshot.
const EPOCH: &str = "epoch";
const RESNAPSHOT: &str = "resnapshot";

pub fn position(args: &SettingsArgs, command: &PositionCommand) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    runtime.block_on(async {
        match command {
            PositionCommand::Show => show(Home::existing(&session).await?.store.as_ref()).await,
            PositionCommand::Reset { id } => {
                let home = Home::existing_alone(&session).await.map_err(|failure| match failure {
                    Failure::Run(error) => Failure::Run(error.context(
                        "positions are reset while no graph runs on the folder\n\
                         to scan tables again beside a running one: smartpulse resnapshot",
                    )),
                    other => other,
                })?;
                reset(home.store.as_ref(), id).await
            }
        }
    })
}

pub fn resnapshot(args: &SettingsArgs, id: &str) -> Result<(), Failure> {
    let (session, runtime) = setup::for_tools(args)?;
    runtime.block_on(async {
        let home = Home::existing(&session).await?;
        let positions = home.store.positions().await?;
        let captured = positions.iter().filter(|stored| smartpulse_sources::is_capture_position(&stored.position));
        let tables: Vec<&str> = captured.map(|stored| stored.id.as_str()).collect();
        let sources = tables.iter().filter_map(|id| id.rsplit_once('/')).map(|(source, _)| source);
        let known: BTreeSet<&str> = tables.iter().copied().chain(sources).collect();
        if !known.contains(id) {
            return Err(unknown(id, &known, "no capture source has run as"));
        }
        smartpulse_sources::request_resnapshot(home.store.as_ref(), id).await?;
        print(&format!("{id} will be scanned again: within a second by a running graph, else at its next start\n"))?;
        Ok(())
    })
}

async fn show(store: &dyn Store) -> Result<(), Failure> {
    let positions = store.positions().await?;
    let mut table =
        Table::new(&[("source", Side::Left), ("position", Side::Left), ("committed", Side::Left), ("", Side::Left)]);
    let now = Timestamp::now();
    let noted = |id: &str, what: &str| positions.iter().find(|stored| stored.id.strip_suffix(what) == Some(id));
    let mut shown = 0;
    for stored in positions.iter().filter(|stored| !stored.id.contains('#')) {
        shown += 1;
        let age = Duration::from_millis(now.millis_since(stored.updated_at));
        let (source, table_name) = stored.id.rsplit_once('/').unwrap_or_default();
        let mut notes = Vec::new();
        let lease = |id: &str| id.strip_prefix("epoch#").is_some_and(|id| id.ends_with(&format!("/{table_name}")));
        if let Some(epoch) = positions.iter().find(|other| lease(&other.id)) {
            notes.push(format!("{EPOCH} {}", epoch.position));
        }
        if noted(source, "#resnapshot").or_else(|| noted(&stored.id, "#resnapshot")).is_some() {
            notes.push(format!("{RESNAPSHOT} requested"));
        }
        table.row(vec![
            stored.id.clone(),
            stored.position.to_string(),
            format!("{} ago", duration(age)),
            notes.join(", "),
        ]);
    }
    if shown == 0 {
        print("no source has committed a position yet\n")?;
    } else {
        print(&table.render(Paint::stdout()))?;
    }
    Ok(())
}

async fn reset(store: &dyn Store, id: &str) -> Result<(), Failure> {
    let forgotten = store.reset_position(id).await.context("the position could not be reset")?;
    if forgotten == 0 {
        let positions = store.positions().await?;
        let known: BTreeSet<&str> = ids(&positions).collect();
        return Err(unknown(id, &known, "there is no position of"));
    }
    let what = counted(forgotten as u64, "position");
    print(&format!("{what} forgotten: {id} starts over when the graph is started\n"))?;
    Ok(())
}

/// The ids that can be reset: those stored, and the sources above tables.
fn ids(positions: &[StoredPosition]) -> impl Iterator<Item = &str> {
    positions.iter().map(|stored| stored.id.as_str()).filter(|id| !id.contains('#'))
}

fn unknown(id: &str, known: &BTreeSet<&str>, what: &str) -> Failure {
    let help = match nearest(id, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "none has run on this data folder yet".to_owned(),
        None => format!("there are: {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    anyhow!("{what} {id}\n{help}").into()
}
