//! Creating what is missing of the schema, triggers, procedures and capture: the scripts of `config/sql/sqlserver`.

use crate::catalogue::Kind;
use crate::config::is_identifier;
use crate::connection::Connection;
use crate::database::Context;
use crate::errors::{Failure, Outcome};
use crate::rows;
use crate::statements::{self, CapturedTable};
use smartpulse_pipeline::error::{Error, ErrorKind};
use std::time::Duration;

/// How long one batch may take: switching SNAPSHOT isolation on waits for the transactions that are open.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);

/// That something exists already (an object, an index, change tracking of the database and of a table, a capture
/// instance): another instance made it between our look and our attempt. Looking again finds it.
const MADE_MEANWHILE: [u32; 5] = [2714, 1913, 5088, 4996, 22926];

/// Runs the scripts. Safe to run again, and by several at once: each batch makes what is missing, or replaces a trigger or a
/// procedure by its like. Where change data capture cannot be had, what enables it is left out: change tracking works alone.
pub(crate) async fn create(cx: &Context, connection: &mut Connection) -> Outcome<()> {
    connection.set_command_timeout(BATCH_TIMEOUT);
    // Tables first: what a captured table's own scripts need is read from the catalogue.
    let may = connection.rows("creating the schema", statements::MAY_ENABLE_CDC, &[]).await?;
    let cdc = may.first().and_then(|row| rows::integer(row, 0)) == Some(1);
    if !cdc {
        tracing::warn!(
            "change data capture cannot be enabled by this login, or not on this edition: tables are enabled for change \
             tracking alone; `smartpulse plan` prints what enables it"
        );
    }
    let wanted = |batch: &String| cdc || !statements::is_cdc(batch);
    for batch in statements::schema_batches().into_iter().filter(wanted) {
        run(connection, &batch).await?;
    }
    for (name, section) in &cx.config.captured_tables {
        cx.catalogue.forget(name);
        let info = cx.catalogue.get(connection, name).await.map_err(|failure| {
            let kind = if failure.kind() == ErrorKind::Rejected { ErrorKind::Fatal } else { failure.kind() };
            failure.kind_of(kind)
        })?;
        let keys = info.keys();
        let Some(key) = keys.first() else { continue };
        // The templates quote names and cannot escape them.
        if let Some(odd) = keys.iter().find(|key| !is_identifier(&key.name)) {
            let text = format!("table {name} cannot be captured: its key {:?} is no plain name", odd.name);
            return Err(Failure::from(Error::fatal(text)));
        }
        let versions = keys.len() == 1 && key.kind == Kind::Uuid && info.shape.is_versioned();
        if !versions {
            tracing::warn!(
                table = name,
                "its key is not one uniqueidentifier or it has no VersionId: no triggers keep its versions"
            );
        }
        let table = CapturedTable { schema: &info.schema, table: name, key: &key.name, section, versions };
        for batch in statements::table_batches(&table).into_iter().filter(wanted) {
            run(connection, &batch).await?;
        }
        cx.catalogue.forget(name);
    }
    Ok(())
}

async fn run(connection: &mut Connection, batch: &str) -> Outcome<()> {
    match connection.batch("creating the schema", batch).await {
        Ok(_) => Ok(()),
        Err(failure) => {
            let line = batch.lines().find(|line| !line.trim().is_empty() && !line.trim().starts_with("--"));
            let line = line.unwrap_or_default().trim();
            if failure.number().is_some_and(|number| MADE_MEANWHILE.contains(&number)) {
                return Err(failure.worth_another_try());
            }
            Err(match failure.kind() {
                ErrorKind::Fatal | ErrorKind::Rejected => {
                    let text =
                        format!("the batch beginning with {line:?} failed; `smartpulse plan` says what a DBA must run");
                    failure.context(text).kind_of(ErrorKind::Fatal)
                }
                _ => failure,
            })
        }
    }
}
