//! Procedures of the system: change data capture, renaming, application locks, and a few that clients call.

use super::super::capture;
use super::super::catalog::{Column, Index, Instance, Table, same};
use super::super::errors::{Reach, Result, fault, unsupported};
use super::super::functions::lock;
use super::super::{clock, parser, track, types};
use super::procedures::{Given, Ran};
use super::{EngineSession, Flow, Out};
use crate::session::{Column as Shown, Output};
use crate::value::{SqlType, Value};
use rusqlite::types::Value as Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LSN: SqlType = SqlType::Binary(10);
const NAME: SqlType = SqlType::NVarChar(Some(128));

/// The tables of change data capture: name, columns, how many of them make the key.
type SystemTable = (&'static str, &'static [(&'static str, SqlType)], usize);

const CDC_TABLES: &[SystemTable] = &[
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

impl EngineSession {
    /// Runs a procedure of the system; none when there is no such one.
    pub(super) fn run_system(&mut self, name: &str, given: &[Given], out: &mut Out<'_>) -> Result<Option<Ran>> {
        let mut status = 0;
        match name {
            "sp_cdc_enable_db" => self.writing(out, |session, _| session.enable_cdc())?,
            "sp_cdc_disable_db" => self.writing(out, |session, _| session.disable_cdc())?,
            "sp_cdc_enable_table" => self.writing(out, |session, _| session.enable_instance(given))?,
            "sp_cdc_disable_table" => self.writing(out, |session, _| session.disable_instance(given))?,
            "sp_cdc_change_job" => self.writing(out, |session, _| session.change_job(given))?,
            "sp_cdc_start_job" | "sp_cdc_stop_job" => {
                self.need_cdc()?;
                let kind =
                    argument(given, 0, "@job_type").and_then(Given::text).unwrap_or_else(|| "capture".to_owned());
                if same(kind.trim(), "capture") {
                    self.core.run_capture_job(name == "sp_cdc_start_job");
                }
            }
            "sp_cdc_cleanup_change_table" => self.cleanup_change_table(given, out)?,
            "sp_cdc_add_job" | "sp_cdc_drop_job" => self.need_cdc()?,
            "sp_cdc_scan" => {
                // One scan by hand; it may not run inside of a transaction.
                if self.transaction.open {
                    return Err(fault(
                        22903,
                        16,
                        "Another connection is already running 'sp_replcmds' for Change Data Capture in the current database.",
                    ));
                }
                capture::scan(&self.core, true)?;
            }
            "sp_cdc_help_change_data_capture" => self.help_cdc(out)?,
            "sp_rename" => {
                self.writing(out, |session, _| session.rename(given))?;
                self.info(
                    "Caution: Changing any part of an object name could break scripts and stored procedures.",
                    15477,
                    out,
                )?;
            }
            "sp_getapplock" => status = self.get_lock(given, out)?,
            "sp_releaseapplock" => status = self.release_lock(given)?,
            "sp_flush_ct_internal_table_on_demand" => {
                if self.transaction.open {
                    return Err(unsupported("sp_flush_CT_internal_table_on_demand inside of a transaction"));
                }
                capture::clean_up_ct(&self.core, None)?;
            }
            "sp_reset_connection" => {
                crate::session::Session::reset(self);
                self.frames.push(super::Frame::default());
            }
            "sp_help_job" | "sp_helptext" | "sp_who" | "sp_lock" | "sp_databases" => {
                return Err(unsupported(format!("the procedure {name}")));
            }
            "sp_recompile"
            | "sp_updatestats"
            | "sp_addrolemember"
            | "sp_refreshview"
            | "sp_set_session_context"
            | "sp_configure" => {}
            _ => return Ok(None),
        }
        Ok(Some(Ran { flow: Flow::Next, status, outputs: Vec::new() }))
    }

    fn need_cdc(&self) -> Result<()> {
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

    /// A table of the system, with the numbers of its columns in their order.
    fn system_table(&mut self, name: &str, columns: &[(&str, SqlType)], keys: usize) -> Result<Arc<Table>> {
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

    fn enable_cdc(&mut self) -> Result<()> {
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

    fn disable_cdc(&mut self) -> Result<()> {
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

    fn enable_instance(&mut self, given: &[Given]) -> Result<()> {
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

    fn local_now(&self) -> Cell {
        let ticks = clock::local_ticks(self.core.offset_minutes());
        let value = Value::DateTime(super::repr::from_ticks(ticks));
        super::convert(value, SqlType::DateTime2(7), SqlType::DateTime, 0, super::Excess::Cut)
            .map_or(Cell::Null, super::repr::encode)
    }

    /// Inserts into a table of change data capture.
    fn insert_system(&self, name: &str, values: &[Cell]) -> Result<()> {
        let Some(table) = self.catalog.table("cdc", name) else { return Ok(()) };
        let columns = (1..=values.len()).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        let marks = (1..=values.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        self.connection
            .prepare_cached(&format!("INSERT INTO {} ({columns}) VALUES ({marks})", table.physical))?
            .execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }

    fn disable_instance(&mut self, given: &[Given]) -> Result<()> {
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

    fn change_job(&mut self, given: &[Given]) -> Result<()> {
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

    fn cleanup_change_table(&mut self, given: &[Given], out: &mut Out<'_>) -> Result<()> {
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

    fn help_cdc(&mut self, out: &mut Out<'_>) -> Result<()> {
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

    fn rename(&mut self, given: &[Given]) -> Result<()> {
        let text = |place, name| argument(given, place, name).and_then(Given::text);
        let (Some(old), Some(new)) = (text(0, "@objname"), text(1, "@newname")) else {
            return Err(fault(
                201,
                16,
                "Procedure or function 'sp_rename' expects parameter '@objname', which was not supplied.",
            ));
        };
        let kind = text(2, "@objtype").unwrap_or_default().to_uppercase();
        let no_item = || {
            fault(
                15225,
                11,
                format!(
                    "No item by the name of '{old}' could be found in the current database '{}', given that @itemtype was input as '{kind}'.",
                    super::DATABASE
                ),
            )
        };
        let mut name = parser::parse_name(&old).ok_or_else(no_item)?;
        if kind == "COLUMN" || kind == "INDEX" {
            let part = name.0.pop().ok_or_else(no_item)?;
            let (table, _) = self.bind(|binder| binder.table(&name)).map_err(|_| no_item())?;
            if kind == "INDEX" {
                return self.change_table(table.id, |table| {
                    for index in table.indexes.iter_mut().filter(|index| same(&index.name, &part)) {
                        index.name.clone_from(&new);
                    }
                });
            }
            let id = table.column(&part).map(|column| column.id).ok_or_else(|| {
                fault(
                    15248,
                    11,
                    format!("Either the parameter @objname is ambiguous or the claimed @objtype ({kind}) is wrong."),
                )
            })?;
            self.record_ddl(&table, &format!("EXEC sp_rename '{old}', '{new}', 'COLUMN'"))?;
            return self.change_table(table.id, |table| {
                for column in table.columns.iter_mut().filter(|column| column.id == id) {
                    column.name.clone_from(&new);
                }
            });
        }
        let schema = name.schema().unwrap_or("dbo").to_owned();
        let Some((id, _)) = self.catalog.object_id(&schema, name.last()) else { return Err(no_item()) };
        if self.catalog.object_id(&schema, &new).is_some() {
            return Err(fault(
                15335,
                11,
                format!(
                    "Error: The new name '{new}' is already in use as a object name and would cause a duplicate that is not permitted."
                ),
            ));
        }
        if let Some(table) = self.catalog.tables.get(&id).cloned() {
            self.record_ddl(&table, &format!("EXEC sp_rename '{old}', '{new}'"))?;
            return self.change_table(id, |table| table.name.clone_from(&new));
        }
        self.change_catalog(|catalog| {
            if let Some(module) = catalog.modules.get_mut(&id) {
                Arc::make_mut(module).name.clone_from(&new);
            }
            Ok(())
        })
    }

    /// `sp_getapplock`: 0 granted, 1 after waiting, -1 timed out, -999 wrong.
    fn get_lock(&mut self, given: &[Given], out: &mut Out<'_>) -> Result<i64> {
        let text = |place, name| argument(given, place, name).and_then(Given::text);
        let Some(resource) = text(0, "@resource") else { return Ok(-999) };
        let mode = text(1, "@lockmode").unwrap_or_else(|| "Exclusive".to_owned()).to_lowercase();
        let transaction = !text(2, "@lockowner").is_some_and(|owner| same(&owner, "session"));
        if transaction && self.transaction.count == 0 {
            return Err(fault(
                1204,
                16,
                "The statement or function must be executed in the context of a user transaction.",
            )
            .reaching(Reach::Statement));
        }
        let patience = argument(given, 3, "@locktimeout").and_then(Given::number).unwrap_or(self.options.lock_timeout);
        let start = Instant::now();
        let mut waited = false;
        let core = Arc::clone(&self.core);
        let mut locks = lock(&core.locks);
        loop {
            let holders = locks.entry(resource.clone()).or_default();
            let free =
                holders.iter().all(|(holder, held, _)| *holder == self.id || (mode == "shared" && held == "shared"));
            if free {
                holders.push((self.id, mode, transaction));
                return Ok(i64::from(waited));
            }
            if let Ok(patience) = u64::try_from(patience)
                && start.elapsed() >= Duration::from_millis(patience)
            {
                return Ok(-1);
            }
            out.check()?;
            waited = true;
            locks = match core.locks_free.wait_timeout(locks, Duration::from_millis(20)) {
                Ok((locks, _)) => locks,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn release_lock(&mut self, given: &[Given]) -> Result<i64> {
        let Some(resource) = argument(given, 0, "@resource").and_then(Given::text) else { return Ok(-999) };
        let mut locks = lock(&self.core.locks);
        let Some(holders) = locks.get_mut(&resource) else { return Ok(-999) };
        let Some(at) = holders.iter().rposition(|(holder, _, _)| *holder == self.id) else { return Ok(-999) };
        holders.remove(at);
        drop(locks);
        self.core.locks_free.notify_all();
        Ok(0)
    }
}

/// An argument by its name, or by its place among those without one.
fn argument<'g>(given: &'g [Given], place: usize, name: &str) -> Option<&'g Given> {
    given
        .iter()
        .find(|given| given.name.as_deref() == Some(name))
        .or_else(|| given.get(place).filter(|given| given.name.is_none()))
}
