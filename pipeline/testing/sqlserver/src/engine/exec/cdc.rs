//! Change data capture of the database: its tables, switching it on and off.

use super::super::catalog::{Column, Index, Table, same};
use super::super::clock;
use super::super::errors::{Result, fault};
use super::super::functions::lock;
use super::EngineSession;
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

/// The tables of change data capture: name, columns, how many of them make the key.
type SystemTable = (&'static str, &'static [(&'static str, SqlType)], usize);

pub(super) const CDC_TABLES: &[SystemTable] = &[
    (
        "change_tables",
        &[
            ("object_id", SqlType::Int),
            ("version", SqlType::Int),
            ("source_object_id", SqlType::Int),
            ("capture_instance", NAME),
            ("start_lsn", LSN),
            ("end_lsn", LSN),
            ("supports_net_changes", SqlType::Bit),
            ("has_drop_pending", SqlType::Bit),
            ("role_name", NAME),
            ("index_name", NAME),
            ("filegroup_name", NAME),
            ("create_date", SqlType::DateTime),
            ("partition_switch", SqlType::Bit),
        ],
        1,
    ),
    (
        "captured_columns",
        &[
            ("object_id", SqlType::Int),
            ("column_name", NAME),
            ("column_id", SqlType::Int),
            ("column_type", NAME),
            ("column_ordinal", SqlType::Int),
            ("is_computed", SqlType::Bit),
        ],
        0,
    ),
    (
        "index_columns",
        &[
            ("object_id", SqlType::Int),
            ("column_name", NAME),
            ("index_ordinal", SqlType::TinyInt),
            ("column_id", SqlType::Int),
        ],
        0,
    ),
    (
        "lsn_time_mapping",
        &[
            ("start_lsn", LSN),
            ("tran_begin_time", SqlType::DateTime),
            ("tran_end_time", SqlType::DateTime),
            ("tran_id", SqlType::VarBinary(Some(10))),
            ("tran_begin_lsn", LSN),
        ],
        1,
    ),
    (
        "ddl_history",
        &[
            ("source_object_id", SqlType::Int),
            ("object_id", SqlType::Int),
            ("required_column_update", SqlType::Bit),
            ("ddl_command", SqlType::NVarChar(None)),
            ("ddl_lsn", LSN),
            ("ddl_time", SqlType::DateTime),
        ],
        0,
    ),
];

pub(super) const LSN: SqlType = SqlType::Binary(10);

pub(super) const NAME: SqlType = SqlType::NVarChar(Some(128));

impl EngineSession {
    /// A table of the system, with the numbers of its columns in their order.
    pub(super) fn system_table(&mut self, name: &str, columns: &[(&str, SqlType)], keys: usize) -> Result<Arc<Table>> {
        let now = clock::local_ticks(self.core.offset_minutes());
        let id = self.change_catalog(|catalog| Ok(catalog.new_id()))?;
        let mut table = Table {
            id,
            schema: "cdc".to_owned(),
            name: name.to_owned(),
            physical: format!("t{id}"),
            columns: Vec::new(),
            next_column: i64::try_from(columns.len()).unwrap_or(0) + 1,
            indexes: Vec::new(),
            foreign: Vec::new(),
            checks: Vec::new(),
            created: now,
            modified: now,
            shipped: true,
            change_tracking: false,
            instances: Vec::new(),
        };
        for (place, (name, sql_type)) in columns.iter().enumerate() {
            table.columns.push(Column {
                id: i64::try_from(place).unwrap_or(0) + 1,
                name: (*name).to_owned(),
                sql_type: *sql_type,
                nullable: place >= keys,
                identity: None,
                default: None,
                rowversion: false,
            });
        }
        if keys > 0 {
            table.indexes.push(Index {
                id: 1,
                name: format!("{name}_clustered_idx"),
                physical: format!("i1_t{id}"),
                columns: (1..=keys).map(|column| (i64::try_from(column).unwrap_or(0), false)).collect(),
                included: Vec::new(),
                unique: true,
                clustered: true,
                filter: None,
                constraint: None,
                primary: false,
            });
        }
        self.make_physical(&table)?;
        let table = Arc::new(table);
        self.change_catalog(|catalog| {
            catalog.tables.insert(id, Arc::clone(&table));
            Ok(())
        })?;
        Ok(table)
    }

    pub(super) fn enable_cdc(&mut self) -> Result<()> {
        if self.catalog.options.cdc {
            return Err(fault(
                22902,
                16,
                "Database is already enabled for Change Data Capture. Ensure that the correct database context is set, and retry the operation.",
            ));
        }
        if lock(&self.state).denies("SYSADMIN", "") {
            return Err(fault(
                22832,
                16,
                "Could not update the metadata that indicates the database is enabled for Change Data Capture: only members of the sysadmin fixed server role can perform this operation.",
            ));
        }
        if self.catalog.schema("cdc").is_none() {
            self.change_catalog(|catalog| {
                let id = catalog.schemas.iter().map(|(id, _)| *id).max().unwrap_or(4) + 1;
                catalog.schemas.push((id, "cdc".to_owned()));
                Ok(())
            })?;
        }
        for (name, columns, keys) in CDC_TABLES {
            self.system_table(name, columns, *keys)?;
        }
        self.connection.execute_batch(
            "INSERT OR REPLACE INTO sp_job VALUES ('capture', 0, 0, 5, 500, 10, 1); \
             INSERT OR REPLACE INTO sp_job VALUES ('cleanup', 4320, 5000, 0, 0, 0, 0);",
        )?;
        self.change_catalog(|catalog| {
            catalog.options.cdc = true;
            Ok(())
        })
    }

    pub(super) fn disable_cdc(&mut self) -> Result<()> {
        self.need_cdc()?;
        let instances: Vec<(i64, String)> = self
            .catalog
            .tables
            .values()
            .flat_map(|table| table.instances.iter().map(|instance| (table.id, instance.name.clone())))
            .collect();
        for (table, name) in instances {
            self.drop_instance(table, &name)?;
        }
        let tables: Vec<Arc<Table>> =
            self.catalog.tables.values().filter(|table| same(&table.schema, "cdc")).cloned().collect();
        for table in &tables {
            self.connection.execute_batch(&format!("DROP TABLE {}", table.physical))?;
        }
        self.connection.execute_batch("DELETE FROM sp_job; DELETE FROM sp_log_tx")?;
        self.change_catalog(|catalog| {
            catalog.options.cdc = false;
            catalog.tables.retain(|_, table| !same(&table.schema, "cdc"));
            catalog.schemas.retain(|(_, name)| name != "cdc");
            Ok(())
        })
    }

    pub(super) fn local_now(&self) -> Cell {
        let ticks = clock::local_ticks(self.core.offset_minutes());
        let value = Value::DateTime(super::repr::from_ticks(ticks));
        super::convert(value, SqlType::DateTime2(7), SqlType::DateTime, 0, super::Excess::Cut)
            .map_or(Cell::Null, super::repr::encode)
    }

    /// Inserts into a table of change data capture.
    pub(super) fn insert_system(&self, name: &str, values: &[Cell]) -> Result<()> {
        let Some(table) = self.catalog.table("cdc", name) else { return Ok(()) };
        let columns = (1..=values.len()).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        let marks = (1..=values.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        self.connection
            .prepare_cached(&format!("INSERT INTO {} ({columns}) VALUES ({marks})", table.physical))?
            .execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }

    pub(super) fn need_cdc(&self) -> Result<()> {
        if self.catalog.options.cdc {
            return Ok(());
        }
        Err(fault(
            22901,
            16,
            format!(
                "The database '{}' is not enabled for Change Data Capture. Ensure that the correct database context is set and retry the operation. To report on the databases enabled for Change Data Capture, query the is_cdc_enabled column in the sys.databases catalog view.",
                super::DATABASE
            ),
        ))
    }
}
