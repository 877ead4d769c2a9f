//! ALTER TABLE and ALTER DATABASE.

use super::super::ast::{AlterTable, ColumnDef, DatabaseOption, Name, TableDef};
use super::super::catalog::{Catalog, Table, same};
use super::super::errors::{Result, fault, unknown_column, unsupported};
use super::super::{clock, track, types};
use super::{EngineSession, Out};
use std::sync::Arc;

impl EngineSession {
    pub(super) fn alter_table(&mut self, name: &Name, action: &AlterTable) -> Result<()> {
        let unknown = || {
            fault(
                4902,
                16,
                format!("Cannot find the object \"{name}\" because it does not exist or you do not have permissions."),
            )
        };
        let (table, _) = self.bind(|binder| binder.table(name)).map_err(|_| unknown())?;
        if table.physical.starts_with("temp.") {
            return Err(unsupported("ALTER TABLE of temporary tables"));
        }
        let id = table.id;
        match action {
            AlterTable::ChangeTracking(true) => self.enable_change_tracking(&table),
            AlterTable::ChangeTracking(false) => {
                if !table.change_tracking {
                    return Err(fault(
                        4996,
                        16,
                        format!("Change tracking is already disabled on table '{}'.", table.name),
                    ));
                }
                track::disable(&self.connection, id)?;
                self.change_table(id, |table| table.change_tracking = false)
            }
            AlterTable::Trigger { names, enable } => self.change_catalog(|catalog| {
                for module in catalog.modules.values_mut().filter(|module| module.table == id) {
                    if names.is_empty() || names.iter().any(|name| same(name, &module.name)) {
                        Arc::make_mut(module).disabled = !enable;
                    }
                }
                Ok(())
            }),
            AlterTable::Check { names, enable } => self.change_table(id, |table| {
                let meant = |name: &str| names.is_empty() || names.iter().any(|known| same(known, name));
                table.checks.iter_mut().filter(|check| meant(&check.name)).for_each(|check| check.disabled = !enable);
                table
                    .foreign
                    .iter_mut()
                    .filter(|foreign| meant(&foreign.name))
                    .for_each(|foreign| foreign.disabled = !enable);
            }),
            AlterTable::Ignored => Ok(()),
            AlterTable::Add(definition) => self.alter_add(&table, definition),
            AlterTable::DropColumns { names, if_exists } => self.alter_drop_columns(&table, names, *if_exists),
            AlterTable::DropConstraints { names, if_exists } => self.alter_drop_constraints(&table, names, *if_exists),
            AlterTable::AlterColumn(column) => self.alter_column(&table, column),
        }
    }

    pub(super) fn change_table(&mut self, id: i64, change: impl FnOnce(&mut Table)) -> Result<()> {
        let now = clock::local_ticks(self.core.offset_minutes());
        self.change_catalog(|catalog: &mut Catalog| {
            if let Some(table) = catalog.table_mut(id) {
                change(table);
                table.modified = now;
            }
            Ok(())
        })
    }

    pub(super) fn alter_add(&mut self, table: &Arc<Table>, definition: &TableDef) -> Result<()> {
        let mut changed = Table::clone(table);
        let mut next = self.change_catalog(|catalog| {
            catalog.next_id += 16 * 64;
            Ok(catalog.next_id - 16 * 63)
        })?;
        let rows: bool =
            self.connection
                .query_row(&format!("SELECT EXISTS (SELECT 1 FROM {})", table.physical), [], |row| row.get(0))?;
        for column in &definition.columns {
            self.add_column(&mut changed, column, &mut next)?;
            let Some(added) = changed.columns.last().cloned() else { continue };
            if rows && !added.nullable && added.default.is_none() && added.identity.is_none() {
                return Err(fault(
                    4901,
                    16,
                    format!(
                        "ALTER TABLE only allows columns to be added that can contain nulls, or have a DEFAULT definition specified. Column \
                         '{}' cannot be added to non-empty table '{}' because it does not satisfy these conditions.",
                        added.name, table.name
                    ),
                ));
            }
            self.connection.execute_batch(&format!(
                "ALTER TABLE {} ADD COLUMN {}",
                table.physical,
                super::apply::definition(&added)
            ))?;
            if let Some(default) = added.default.as_ref().filter(|_| !added.nullable) {
                let expr = super::super::parser::parse_expr(&default.text, &self.core.ids)?;
                let value = self.evaluate(&expr, added.sql_type)?;
                self.connection.execute(&format!("UPDATE {} SET c{} = ?1", table.physical, added.id), [value])?;
            }
            self.record_ddl(
                table,
                &format!(
                    "ALTER TABLE [{}].[{}] ADD [{}] {}",
                    table.schema,
                    table.name,
                    added.name,
                    types::declared(added.sql_type)
                ),
            )?;
        }
        for constraint in &definition.constraints {
            let before = changed.indexes.len();
            self.add_constraint(&mut changed, constraint, &mut next)?;
            for index in &changed.indexes[before..] {
                self.make_index(&changed, index)?;
            }
        }
        self.validate(&changed, table)?;
        let id = table.id;
        self.change_table(id, |table| *table = changed)
    }

    /// New constraints hold for the rows that are there.
    pub(super) fn validate(&mut self, changed: &Table, before: &Table) -> Result<()> {
        for foreign in changed.foreign.iter().filter(|foreign| !before.foreign.iter().any(|old| old.id == foreign.id)) {
            let Some(parent) = self.catalog.tables.get(&foreign.table) else { continue };
            let pairs = foreign.columns.iter().zip(&foreign.referenced);
            let on = pairs.map(|(own, other)| format!("p.c{other} = x.c{own}")).collect::<Vec<_>>().join(" AND ");
            let set =
                foreign.columns.iter().map(|own| format!("x.c{own} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM {} AS x WHERE {set} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {on}))",
                changed.physical, parent.physical
            );
            let broken: bool = self.connection.query_row(&sql, [], |row| row.get(0))?;
            if broken {
                return Err(fault(
                    547,
                    16,
                    format!(
                        "The ALTER TABLE statement conflicted with the FOREIGN KEY constraint \"{}\".",
                        foreign.name
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn alter_drop_columns(&mut self, table: &Arc<Table>, names: &[String], if_exists: bool) -> Result<()> {
        for name in names {
            let Some(column) = table.column(name).cloned() else {
                if if_exists {
                    continue;
                }
                return Err(fault(
                    4924,
                    16,
                    format!(
                        "ALTER TABLE DROP COLUMN failed because column '{name}' does not exist in table '{}'.",
                        table.name
                    ),
                ));
            };
            let used = table.indexes.iter().any(|index| index.columns.iter().any(|(id, _)| *id == column.id))
                || table.foreign.iter().any(|foreign| foreign.columns.contains(&column.id))
                || column.default.is_some();
            if used {
                return Err(fault(
                    4922,
                    16,
                    format!("ALTER TABLE DROP COLUMN {name} failed because one or more objects access this column."),
                )
                .state(9));
            }
            // SQLite keeps the column's bytes until the rows are written again; what matters is that nobody sees them.
            self.connection.execute_batch(&format!("ALTER TABLE {} DROP COLUMN c{}", table.physical, column.id))?;
            self.record_ddl(
                table,
                &format!("ALTER TABLE [{}].[{}] DROP COLUMN [{}]", table.schema, table.name, column.name),
            )?;
            self.change_table(table.id, |table| table.columns.retain(|known| known.id != column.id))?;
        }
        Ok(())
    }

    pub(super) fn alter_drop_constraints(
        &mut self,
        table: &Arc<Table>,
        names: &[String],
        if_exists: bool,
    ) -> Result<()> {
        for name in names {
            let index =
                table.indexes.iter().find(|index| index.constraint.is_some() && same(&index.name, name)).cloned();
            let other = table.checks.iter().any(|check| same(&check.name, name))
                || table.foreign.iter().any(|foreign| same(&foreign.name, name))
                || table
                    .columns
                    .iter()
                    .any(|column| column.default.as_ref().is_some_and(|default| same(&default.name, name)));
            if index.is_none() && !other {
                if if_exists {
                    continue;
                }
                return Err(fault(3728, 16, format!("'{name}' is not a constraint.")));
            }
            if let Some(index) = &index {
                if index.primary && table.change_tracking {
                    return Err(fault(
                        4997,
                        16,
                        format!(
                            "The primary key constraint on table '{}' cannot be dropped because change tracking is enabled on the table.",
                            table.name
                        ),
                    ));
                }
                self.connection.execute_batch(&format!("DROP INDEX {}", index.physical))?;
            }
            self.change_table(table.id, |table| {
                table.indexes.retain(|index| index.constraint.is_none() || !same(&index.name, name));
                table.checks.retain(|check| !same(&check.name, name));
                table.foreign.retain(|foreign| !same(&foreign.name, name));
                for column in &mut table.columns {
                    if column.default.as_ref().is_some_and(|default| same(&default.name, name)) {
                        column.default = None;
                    }
                }
            })?;
        }
        Ok(())
    }

    pub(super) fn alter_column(&mut self, table: &Arc<Table>, definition: &ColumnDef) -> Result<()> {
        let place = table
            .columns
            .iter()
            .position(|column| same(&column.name, &definition.name))
            .ok_or_else(|| unknown_column(&definition.name))?;
        let to = super::super::bind::resolve_type(&self.catalog, &definition.sql_type)?;
        let column = table.columns[place].clone();
        let mut changed = Table::clone(table);
        changed.columns[place].sql_type = to;
        changed.columns[place].nullable = definition.nullable.unwrap_or(true);
        let mut rows: Vec<(i64, super::Cell)> = Vec::new();
        {
            let mut statement =
                self.connection.prepare(&format!("SELECT rid, c{} FROM {}", column.id, table.physical))?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                rows.push((row.get(0)?, super::repr::cell(row.get_ref(1)?)));
            }
        }
        for (rid, cell) in rows {
            if cell == super::Cell::Null && !changed.columns[place].nullable {
                return Err(fault(
                    515,
                    16,
                    format!(
                        "Cannot insert the value NULL into column '{}', table '{}'; column does not allow nulls. UPDATE fails.",
                        column.name,
                        Self::shown(table)
                    ),
                ));
            }
            let cell = super::dml::fit(cell, column.sql_type, &changed, place)?;
            self.connection
                .prepare_cached(&format!("UPDATE {} SET c{} = ?1 WHERE rid = ?2", table.physical, column.id))?
                .execute(rusqlite::params![cell, rid])?;
        }
        self.record_ddl(
            table,
            &format!(
                "ALTER TABLE [{}].[{}] ALTER COLUMN [{}] {}",
                table.schema,
                table.name,
                column.name,
                types::declared(to)
            ),
        )?;
        self.change_table(table.id, |table| *table = changed)
    }

    pub(super) fn enable_change_tracking(&mut self, table: &Arc<Table>) -> Result<()> {
        if !self.catalog.options.change_tracking {
            return Err(fault(
                4994,
                16,
                format!(
                    "Change tracking must be enabled on database '{}' before it can be enabled on table '{}'.",
                    super::DATABASE,
                    table.name
                ),
            ));
        }
        if table.change_tracking {
            return Err(fault(4996, 16, format!("Change tracking is already enabled for table '{}'.", table.name)));
        }
        let Some(key) = table.primary_key() else {
            return Err(fault(
                4997,
                16,
                format!(
                    "Cannot enable change tracking on table '{}'. Change tracking requires a primary key on the table.",
                    table.name
                ),
            ));
        };
        track::enable(&self.connection, table, key)?;
        self.change_table(table.id, |table| table.change_tracking = true)
    }

    pub(super) fn alter_database(
        &mut self,
        name: Option<&str>,
        options: &[DatabaseOption],
        out: &mut Out<'_>,
    ) -> Result<()> {
        if self.transaction.count > 0 {
            return Err(fault(226, 16, "ALTER DATABASE statement not allowed within multi-statement transaction."));
        }
        let name = name.unwrap_or(&self.database).to_owned();
        if !same(&name, super::DATABASE) {
            return Err(unsupported(format!("options of the database {name}")));
        }
        self.writing(out, |session, _| {
            for option in options {
                match option {
                    DatabaseOption::SnapshotIsolation(on) => session.change_catalog(|catalog| {
                        catalog.options.snapshot_isolation = *on;
                        Ok(())
                    })?,
                    DatabaseOption::ReadCommittedSnapshot(on) => session.change_catalog(|catalog| {
                        catalog.options.read_committed_snapshot = *on;
                        Ok(())
                    })?,
                    DatabaseOption::RecursiveTriggers(on) => session.change_catalog(|catalog| {
                        catalog.options.recursive_triggers = *on;
                        Ok(())
                    })?,
                    DatabaseOption::ChangeTracking { on, retention, cleanup } => {
                        session.alter_change_tracking(*on, *retention, *cleanup)?;
                    }
                    DatabaseOption::Ignored => {}
                }
            }
            Ok(())
        })
    }

    pub(super) fn alter_change_tracking(
        &mut self,
        on: Option<bool>,
        retention: Option<(i64, u8)>,
        cleanup: Option<bool>,
    ) -> Result<()> {
        let was = self.catalog.options.change_tracking;
        if on == Some(true) && was {
            return Err(fault(
                5088,
                16,
                format!("Change tracking is already enabled for database '{}'.", super::DATABASE),
            ));
        }
        if on == Some(false) && self.catalog.tables.values().any(|table| table.change_tracking) {
            return Err(fault(
                22115,
                16,
                "Change tracking is enabled for one or more tables in the database. Disable change tracking on each table before disabling \
                 it for the database.",
            ));
        }
        self.change_catalog(|catalog| {
            let options = &mut catalog.options;
            if let Some(on) = on {
                options.change_tracking = on;
                if on {
                    (options.retention, options.retention_units, options.auto_cleanup) = (2, 3, true);
                }
            }
            if let Some((count, units)) = retention {
                (options.retention, options.retention_units) = (count, units);
            }
            if let Some(cleanup) = cleanup {
                options.auto_cleanup = cleanup;
            }
            Ok(())
        })
    }
}
