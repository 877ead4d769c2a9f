//! Capture instances, and the procedures of change data capture about them.

use super::super::capture;
use super::super::catalog::{Column, Instance, Table, same};
use super::super::errors::{Result, fault, unsupported};
use super::super::{clock, track, types};
use super::cdc::{LSN, NAME};
use super::procedures::Given;
use super::system_procedures::argument;
use super::{EngineSession, Out};
use crate::session::{Column as Shown, Output};
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

impl EngineSession {
    pub(super) fn enable_instance(&mut self, given: &[Given]) -> Result<()> {
        self.need_cdc()?;
        let text = |place, name| argument(given, place, name).and_then(Given::text);
        let number = |place, name| argument(given, place, name).and_then(Given::number);
        let schema = text(0, "@source_schema").unwrap_or_else(|| "dbo".to_owned());
        let name = text(1, "@source_name").unwrap_or_default();
        let Some(source) = self.catalog.table(&schema, &name).cloned().filter(|table| !table.shipped) else {
            return Err(fault(
                22931,
                16,
                format!(
                    "Source table '{schema}.{name}' does not exist in the current database. Ensure that the correct database context is set. Specify a valid schema and table name for the database."
                ),
            ));
        };
        let role = text(2, "@role_name");
        let instance = text(3, "@capture_instance").unwrap_or_else(|| format!("{}_{}", source.schema, source.name));
        let net = number(4, "@supports_net_changes").unwrap_or(0) != 0;
        let index_name = text(5, "@index_name");
        let list = text(6, "@captured_column_list");
        if self.catalog.tables.values().flat_map(|table| &table.instances).any(|known| same(&known.name, &instance)) {
            return Err(fault(
                22926,
                16,
                format!(
                    "Could not create a capture instance because the capture instance name '{instance}' already exists in the current database. Specify an explicit unique name for the parameter @capture_instance."
                ),
            ));
        }
        if source.instances.len() >= 2 {
            return Err(fault(
                22962,
                16,
                format!(
                    "Two capture instances already exist for source table '{}'. A table can have at most two capture instances. If the current tracking options are not appropriate, disable change tracking for the obsolete instance by using sys.sp_cdc_disable_table and retry the operation.",
                    source.qualified()
                ),
            ));
        }
        if net && source.primary_key().is_none() && index_name.is_none() {
            return Err(fault(
                22939,
                16,
                "The parameter @supports_net_changes is set to 1, but the source table does not have a primary key defined and no alternate unique index has been specified.",
            ));
        }
        let wanted: Option<Vec<String>> =
            list.map(|list| list.split(',').map(|name| name.trim().trim_matches(['[', ']']).to_owned()).collect());
        let captured: Vec<Column> = source
            .columns
            .iter()
            .filter(|column| wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|name| same(name, &column.name))))
            .cloned()
            .collect();
        let mut columns: Vec<(&str, SqlType)> = vec![
            ("__$start_lsn", LSN),
            ("__$end_lsn", LSN),
            ("__$seqval", LSN),
            ("__$operation", SqlType::Int),
            ("__$update_mask", SqlType::VarBinary(Some(128))),
        ];
        columns.extend(captured.iter().map(|column| (column.name.as_str(), column.sql_type)));
        columns.push(("__$command_id", SqlType::Int));
        let table = self.system_table(&format!("{instance}_CT"), &columns, 0)?;
        let command = columns.len();
        let log = format!("log{}", table.id);
        let bare = (1..=columns.len()).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        self.connection.execute_batch(&format!(
            "CREATE INDEX i0_t{0} ON t{0} (c1, c{command}, c3, c4); CREATE TABLE {log} (lsn INTEGER NOT NULL, {bare}); \
             CREATE INDEX {log}_lsn ON {log} (lsn)",
            table.id
        ))?;
        let now = self.local_now();
        let values = [
            Cell::Integer(table.id),
            Cell::Integer(0),
            Cell::Integer(source.id),
            Cell::Text(instance.clone()),
            Cell::Null,
            Cell::Null,
            Cell::Integer(i64::from(net)),
            Cell::Integer(0),
            role.map_or(Cell::Null, Cell::Text),
            source.primary_key().map_or(Cell::Null, |key| Cell::Text(key.name.clone())),
            Cell::Null,
            now,
            Cell::Integer(1),
        ];
        self.insert_system("change_tables", &values)?;
        for (place, column) in captured.iter().enumerate() {
            let ordinal = i64::try_from(place).unwrap_or(0) + 1;
            let values = [
                Cell::Integer(table.id),
                Cell::Text(column.name.clone()),
                Cell::Integer(column.id),
                Cell::Text(types::name(column.sql_type).to_owned()),
                Cell::Integer(ordinal),
                Cell::Integer(0),
            ];
            self.insert_system("captured_columns", &values)?;
        }
        if let Some(key) = source.primary_key() {
            for (place, (id, _)) in key.columns.iter().enumerate() {
                let ordinal = i64::try_from(place).unwrap_or(0) + 1;
                let name = source.column_by_id(*id).map_or_else(String::new, |column| column.name.clone());
                self.insert_system(
                    "index_columns",
                    &[Cell::Integer(table.id), Cell::Text(name), Cell::Integer(ordinal), Cell::Integer(*id)],
                )?;
            }
        }
        // The scan that reads this record establishes where the instance begins: until then min_lsn is not set. Instances
        // made in one transaction begin at one LSN.
        let lsn = self.transaction.tracking.instance_lsn(&self.connection)?;
        self.connection.execute(
            "INSERT INTO sp_log_tx (lsn, began, ended, commands) VALUES (?1, ?2, ?2, ?3)",
            rusqlite::params![lsn, clock::utc_ticks(), -table.id],
        )?;
        let instance = Instance {
            name: instance,
            table: table.id,
            log,
            columns: captured.iter().map(|column| column.id).collect(),
        };
        self.change_table(source.id, |source| source.instances.push(instance))
    }

    pub(super) fn disable_instance(&mut self, given: &[Given]) -> Result<()> {
        self.need_cdc()?;
        let text = |place, name| argument(given, place, name).and_then(Given::text);
        let schema = text(0, "@source_schema").unwrap_or_else(|| "dbo".to_owned());
        let name = text(1, "@source_name").unwrap_or_default();
        let instance = text(2, "@capture_instance").unwrap_or_default();
        let Some(source) = self.catalog.table(&schema, &name).cloned() else {
            return Err(fault(
                22931,
                16,
                format!("Source table '{schema}.{name}' does not exist in the current database."),
            ));
        };
        let all = same(&instance, "all");
        let names: Vec<String> = source
            .instances
            .iter()
            .filter(|known| all || same(&known.name, &instance))
            .map(|known| known.name.clone())
            .collect();
        if names.is_empty() {
            return Err(fault(
                22960,
                16,
                format!(
                    "Change data capture instance '{instance}' has not been enabled for the source table '{schema}.{name}'. Use sys.sp_cdc_help_change_data_capture to verify the capture instance name and retry the operation."
                ),
            ));
        }
        names.iter().try_for_each(|name| self.drop_instance(source.id, name))
    }

    pub(super) fn drop_instance(&mut self, source: i64, name: &str) -> Result<()> {
        let Some(instance) = self
            .catalog
            .tables
            .get(&source)
            .and_then(|table| table.instances.iter().find(|known| known.name == name))
            .cloned()
        else {
            return Ok(());
        };
        self.connection.execute_batch(&format!("DROP TABLE t{}; DROP TABLE {}", instance.table, instance.log))?;
        self.connection.execute("DELETE FROM sp_log_tx WHERE commands = ?1", [-instance.table])?;
        for (table, column) in [("change_tables", 1), ("captured_columns", 1), ("index_columns", 1), ("ddl_history", 2)]
        {
            if let Some(table) = self.catalog.table("cdc", table) {
                self.connection
                    .execute(&format!("DELETE FROM {} WHERE c{column} = ?1", table.physical), [instance.table])?;
            }
        }
        self.change_catalog(|catalog| {
            catalog.tables.remove(&instance.table);
            if let Some(table) = catalog.table_mut(source) {
                table.instances.retain(|known| known.name != instance.name);
            }
            Ok(())
        })
    }

    /// What DDL on a captured table leaves.
    pub(super) fn record_ddl(&mut self, table: &Table, command: &str) -> Result<()> {
        for instance in &table.instances {
            let lsn = track::next_lsn(&self.connection)?;
            let values = [
                Cell::Integer(table.id),
                Cell::Integer(instance.table),
                Cell::Integer(0),
                Cell::Text(command.to_owned()),
                Cell::Blob(track::lsn_bytes(lsn).to_vec()),
                self.local_now(),
            ];
            self.insert_system("ddl_history", &values)?;
        }
        Ok(())
    }

    pub(super) fn change_job(&mut self, given: &[Given]) -> Result<()> {
        self.need_cdc()?;
        let kind = argument(given, 0, "@job_type").and_then(Given::text).unwrap_or_else(|| "capture".to_owned());
        for (place, name, column) in [
            (1, "@maxtrans", "maxtrans"),
            (2, "@maxscans", "maxscans"),
            (3, "@continuous", "continuous"),
            (4, "@pollinginterval", "polling"),
            (5, "@retention", "retention"),
            (6, "@threshold", "threshold"),
        ] {
            if let Some(number) = argument(given, place, name).and_then(Given::number) {
                self.connection.execute(
                    &format!("UPDATE sp_job SET {column} = ?1 WHERE name = ?2"),
                    rusqlite::params![number, kind.to_lowercase()],
                )?;
            }
        }
        Ok(())
    }

    pub(super) fn cleanup_change_table(&mut self, given: &[Given], out: &mut Out<'_>) -> Result<()> {
        self.need_cdc()?;
        let instance = argument(given, 0, "@capture_instance").and_then(Given::text).unwrap_or_default();
        let Some(Ok(lsn)) = argument(given, 1, "@low_water_mark").and_then(Given::bytes).map(<[u8; 10]>::try_from)
        else {
            return Err(unsupported("sp_cdc_cleanup_change_table without an LSN"));
        };
        if !self.catalog.tables.values().flat_map(|table| &table.instances).any(|known| same(&known.name, &instance)) {
            return Err(fault(
                22837,
                16,
                format!(
                    "Could not delete change table entries made obsolete: the capture instance '{instance}' does not exist."
                ),
            ));
        }
        let core = Arc::clone(&self.core);
        self.writing(out, |session, _| capture::clean_up_instances(&core, &session.connection, Some(&instance), &lsn))
    }

    pub(super) fn help_cdc(&mut self, out: &mut Out<'_>) -> Result<()> {
        self.need_cdc()?;
        let columns: Arc<[Shown]> = ["source_schema", "source_table", "capture_instance"]
            .map(|name| Shown { name: name.to_owned(), sql_type: NAME, nullable: true, identity: false })
            .to_vec()
            .into();
        out.put(Output::Columns(columns))?;
        let catalog = Arc::clone(&self.catalog);
        let mut rows = 0;
        for table in catalog.tables.values() {
            for instance in &table.instances {
                rows += 1;
                out.put(Output::Row(
                    [&table.schema, &table.name, &instance.name].map(|text| Value::Text(text.clone())).to_vec(),
                ))?;
            }
        }
        self.done(rows, out)
    }
}
