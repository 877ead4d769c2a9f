//! What capture and the ledger send, for the golden file.

use super::super::{capture, health, ledger};
use crate::capture::instances::{Captured, InstanceShape};
use crate::catalogue::TableInfo;
use crate::catalogue::tests::{forecasts, orders};

/// Texts in these statements: names of properties, rights and jobs, and the markers of the server's own columns.
pub const NAMES: &[&str] = &[
    "EngineEdition",
    "ProductVersion",
    "Edition",
    "DATABASE",
    "OBJECT",
    "SCHEMA",
    "SELECT",
    "INSERT",
    "UPDATE",
    "U",
    "D",
    "VIEW DATABASE STATE",
    "VIEW SERVER STATE",
    "VIEW CHANGE TRACKING",
    "db_owner",
    "msdb.dbo.cdc_jobs",
    "msdb.dbo.sysjobs",
    "msdb.dbo.sysjobactivity",
    "capture",
    "2024-01-01T00:00:00",
    "[dbo].[SmartPulseCapture]",
    "[dbo].[SmartPulseWatermark]",
    "[dbo].[Tombstones]",
];

fn numbered(mut table: TableInfo) -> TableInfo {
    for (column, id) in table.columns.iter_mut().zip(1..) {
        column.id = id;
    }
    table
}

fn instance(table: &TableInfo, partial: &str, computed: &str) -> InstanceShape {
    let columns = table.columns.iter().map(|column| Captured {
        name: column.name.clone(),
        column: column.id,
        ordinal: column.id,
        computed: column.name == computed,
        partial: column.name == partial,
    });
    InstanceShape::new(table, &format!("dbo_{}", table.table.name), columns.collect()).unwrap()
}

/// The statements with their names.
pub fn all() -> Vec<(&'static str, String)> {
    use capture::{CtPage, cdc_beyond, cdc_page, cdc_state, ct_page, ct_state};
    let (mut table, mut orders) = (numbered(forecasts()), numbered(orders()));
    (table.snapshot_isolation, table.table.tombstones) = (true, true);
    orders.snapshot_isolation = false;
    let shape = instance(&table, "", "");
    let odd = instance(&orders, "Price[EUR]", "");
    let page = CtPage { azure: false, commit_times: true, resumed: false };
    vec![
        ("capture: the server", capture::SERVER.to_owned()),
        ("change tracking: idle poll", ct_state(false)),
        ("change tracking: idle poll on Azure SQL", ct_state(true)),
        ("change tracking: first page", ct_page(&table, page)),
        ("change tracking: first page on Azure SQL", ct_page(&table, CtPage { azure: true, ..page })),
        ("change tracking: page", ct_page(&table, CtPage { resumed: true, ..page })),
        (
            "change tracking: page of a key of two columns, without SNAPSHOT, tombstones or the right to commit times",
            ct_page(&orders, CtPage { resumed: true, commit_times: false, ..page }),
        ),
        ("change data capture: idle poll", cdc_state(false)),
        ("change data capture: idle poll on Azure SQL", cdc_state(true)),
        ("change data capture: captured columns", capture::CDC_COLUMNS.to_owned()),
        ("change data capture: triggers", capture::TRIGGERED.to_owned()),
        ("change data capture: page behind a transaction", cdc_page(&table, &shape, false)),
        ("change data capture: page inside a transaction", cdc_page(&table, &shape, true)),
        ("change data capture: page of a table with a max type", cdc_page(&orders, &odd, false)),
        (
            "change data capture: page of a table with a computed column",
            cdc_page(&orders, &instance(&orders, "", "Price[EUR]"), false),
        ),
        ("change data capture: rest of a transaction", cdc_beyond(&table, &shape, 2)),
        (
            "change data capture: rest of a transaction, of a key of two columns, one of them varchar",
            cdc_beyond(&orders, &odd, 2),
        ),
        ("change data capture: mark of a moment", capture::MARK.to_owned()),
        ("change data capture: whether the job has come past it", capture::MARKED.to_owned()),
        ("health: retention of change tracking", health::CT_RETENTION.to_owned()),
        ("health: age of a version", health::CT_AGE.to_owned()),
        ("health: age of an LSN", health::CDC_AGE.to_owned()),
        ("health: jobs", health::CDC_JOBS.to_owned()),
        ("health: activity of the capture job", health::CDC_ACTIVITY.to_owned()),
        ("health: scans of the log", health::CDC_SCANS.to_owned()),
        ("plan: server", health::PLAN_SERVER.to_owned()),
        ("plan: table", health::PLAN_TABLE.to_owned()),
        ("plan: capture instances", health::PLAN_INSTANCES.to_owned()),
        ("plan: absent columns", health::PLAN_ABSENT.to_owned()),
        ("ledger: take", ledger::TAKE.to_owned()),
        ("ledger: renew", ledger::RENEW.to_owned()),
        ("ledger: release", ledger::RELEASE.to_owned()),
        ("ledger: request", ledger::REQUEST.to_owned()),
        ("ledger: forget", ledger::FORGET.to_owned()),
        ("ledger: reset", ledger::RESET.to_owned()),
        ("ledger: entries", ledger::ENTRIES.to_owned()),
    ]
}
