//! The plan of a table that is not there.

use super::product;
use crate::connection::Connection;
use crate::database::Context;
use crate::errors::Outcome;
use crate::rows;
use crate::statements::{self, CapturedTable, schema_batches, table_batches};
use smartpulse_clients::database::{CaptureMode, CapturePlan, Kept, ModePlan};

/// What the schema makes is made by all of it.
pub(super) async fn plan(context: &Context, connection: &mut Connection, table: &str) -> Outcome<CapturePlan> {
    let server = super::facts::server(connection).await?;
    let text = |place| rows::text(&server, place).unwrap_or_default();
    let section = context.config.section(table);
    let captured = CapturedTable { schema: "dbo", table, key: "Id", section, versions: true };
    let all: Vec<String> = schema_batches().into_iter().chain(table_batches(&captured)).collect();
    let unknown = "known when the table is there";
    let mode = |mode, statements| ModePlan {
        mode,
        enabled: false,
        latency_floor: unknown.to_owned(),
        retention: Kept::Unknown,
        loses: unknown.to_owned(),
        missing_rights: Vec::new(),
        statements,
    };
    let net = all.iter().filter(|batch| !statements::is_cdc(batch)).cloned().collect();
    Ok(CapturePlan {
        table: table.to_owned(),
        server: format!("{} {}, {}", product(rows::integer(&server, 2)), text(0), text(1)),
        modes: vec![mode(CaptureMode::ChangeTracking, net), mode(CaptureMode::Cdc, all)],
        notes: vec![format!(
            "{table} is not there: the statements make it and all it needs; then ask for the plan again"
        )],
    })
}
