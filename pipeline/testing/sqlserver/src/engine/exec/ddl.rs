//! CREATE, ALTER and DROP of tables, and options of the database.

use super::super::ast::{
    AlterTable, ColumnDef, ConstraintDef, DatabaseOption, DropKind, Kind, Name, TableDef, TypeName,
};
use super::super::catalog::{Catalog, Check, Column, Default_, Foreign, Index, Table, same};
use super::super::errors::{Result, fault, unknown_column, unsupported};
use super::super::{clock, track, types};
use super::apply::definition;
use super::{EngineSession, Out};
use std::sync::Arc;

fn exists(name: &str) -> Box<super::Fault> {
    fault(2714, 16, format!("There is already an object named '{name}' in the database.")).state(6)
}

impl EngineSession {
    pub(super) fn define(&mut self, kind: &Kind, line: u32, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        match kind {
            Kind::CreateTable { name, table } => self.create_table(name, table, out).map(|_| ()),
            Kind::Drop { kind: DropKind::Table, names, if_exists } => {
                names.iter().try_for_each(|name| self.drop_table(name, *if_exists, out))
            }
            Kind::AlterDatabase { name, options } => self.alter_database(name.as_deref(), options, out),
            Kind::AlterTable { name, action } => self.writing(out, |session, _| session.alter_table(name, action)),
            other => self.writing(out, |session, _| session.define_rest(other, line)),
        }
    }

    /// The schema of a name, as the catalogue spells it.
    pub(super) fn schema_of(&self, name: &Name) -> Result<String> {
        if let Some(database) = name.database()
            && !same(database, super::DATABASE)
        {
            return Err(unsupported(format!("objects in the database {database}: only {} holds any", super::DATABASE)));
        }
        let schema = name.schema().unwrap_or("dbo");
        match self.catalog.schema(schema) {
            Some((_, schema)) => Ok(schema.to_owned()),
            None => Err(fault(
                2760,
                16,
                format!(
                    "The specified schema name \"{schema}\" either does not exist or you do not have permission to use it."
                ),
            )),
        }
    }

    pub(super) fn create_table(&mut self, name: &Name, definition: &TableDef, out: &mut Out<'_>) -> Result<Arc<Table>> {
        if name.last().starts_with('#') {
            return self.writing_temporary(out, |session, _| session.create_temporary(name.last(), definition));
        }
        self.writing(out, |session, _| {
            let schema = session.schema_of(name)?;
            if session.catalog.object_id(&schema, name.last()).is_some() {
                return Err(exists(name.last()));
            }
            let id = session.change_catalog(|catalog| Ok(catalog.new_id()))?;
            let table = session.table_from(id, schema, name.last(), format!("t{id}"), definition)?;
            session.make_physical(&table)?;
            let table = Arc::new(table);
            session.change_catalog(|catalog| {
                catalog.next_id = catalog.next_id.max(table.id + 16 * 64);
                catalog.tables.insert(id, Arc::clone(&table));
                Ok(())
            })?;
            Ok(table)
        })
    }

    fn create_temporary(&mut self, name: &str, definition: &TableDef) -> Result<Arc<Table>> {
        let key = name.to_lowercase();
        if self.temporary.contains_key(&key) {
            return Err(exists(name));
        }
        self.next_temporary += 1;
        let number = i64::try_from(self.next_temporary).unwrap_or(0);
        let table = self.table_from(-number * 1_000_000, String::new(), name, format!("temp.x{number}"), definition)?;
        self.make_physical(&table)?;
        let table = Arc::new(table);
        self.temporary.insert(key.clone(), Arc::clone(&table));
        self.frame_mut().temporary.push(key);
        Ok(table)
    }

    pub(super) fn declare_table(&mut self, name: &str, definition: &TableDef, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        self.next_temporary += 1;
        let number = i64::try_from(self.next_temporary).unwrap_or(0);
        let table = self.table_from(-number * 1_000_000, String::new(), name, format!("temp.v{number}"), definition)?;
        self.writing_temporary(out, |session, _| session.make_physical(&table))?;
        self.frame_mut().tables.insert(name.to_owned(), Arc::new(table));
        Ok(())
    }

    /// The table of a definition. Constraints get the numbers that follow the table's.
    fn table_from(
        &self,
        id: i64,
        schema: String,
        name: &str,
        physical: String,
        definition: &TableDef,
    ) -> Result<Table> {
        let now = clock::local_ticks(self.core.offset_minutes());
        let mut table = Table {
            id,
            schema,
            name: name.to_owned(),
            physical,
            columns: Vec::new(),
            next_column: 1,
            indexes: Vec::new(),
            foreign: Vec::new(),
            checks: Vec::new(),
            created: now,
            modified: now,
            shipped: false,
            change_tracking: false,
            instances: Vec::new(),
        };
        let mut next = id;
        for column in &definition.columns {
            self.add_column(&mut table, column, &mut next)?;
        }
        for constraint in &definition.constraints {
            self.add_constraint(&mut table, constraint, &mut next)?;
        }
        Ok(table)
    }

    fn add_column(&self, table: &mut Table, definition: &ColumnDef, next: &mut i64) -> Result<()> {
        if table.column(&definition.name).is_some() {
            return Err(fault(
                2705,
                16,
                format!(
                    "Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.",
                    definition.name, table.name
                ),
            )
            .state(3));
        }
        let sql_type = super::super::bind::resolve_type(&self.catalog, &definition.sql_type)?;
        let default = definition.default.as_ref().map(|(name, text)| {
            *next += 16;
            Default_ {
                id: *next,
                name: name.clone().unwrap_or_else(|| generated("DF", &table.name, Some(&definition.name), *next)),
                text: text.clone(),
            }
        });
        let rowversion =
            matches!(&definition.sql_type, TypeName::Named(name) if super::super::bind::is_rowversion(name));
        table.columns.push(Column {
            id: table.next_column,
            name: definition.name.clone(),
            sql_type,
            nullable: definition.nullable.unwrap_or(definition.identity.is_none()),
            identity: definition.identity,
            default,
            rowversion,
        });
        table.next_column += 1;
        Ok(())
    }

    fn add_constraint(&self, table: &mut Table, constraint: &ConstraintDef, next: &mut i64) -> Result<()> {
        *next += 16;
        match constraint {
            ConstraintDef::Key { name, primary, clustered, columns } => {
                let prefix = if *primary { "PK" } else { "UQ" };
                let name = name.clone().unwrap_or_else(|| generated(prefix, &table.name, None, *next));
                if *primary {
                    if let Some(other) = table.primary_key() {
                        return Err(fault(
                            1779,
                            16,
                            format!(
                                "Table '{}' already has a primary key defined on it ('{}').",
                                table.name, other.name
                            ),
                        ));
                    }
                    for (column, _) in columns {
                        let column = table
                            .columns
                            .iter_mut()
                            .find(|known| same(&known.name, column))
                            .ok_or_else(|| unknown_column(column))?;
                        column.nullable = false;
                    }
                }
                let clustered = clustered.unwrap_or(*primary) && !table.indexes.iter().any(|index| index.clustered);
                let index = self.index(table, &name, columns, true, clustered, Some(*next), *primary)?;
                table.indexes.push(index);
            }
            ConstraintDef::Index { name, unique, columns } => {
                let index = self.index(table, name, columns, *unique, false, None, false)?;
                table.indexes.push(index);
            }
            ConstraintDef::Check { name, text } => {
                let name = name.clone().unwrap_or_else(|| generated("CK", &table.name, None, *next));
                table.checks.push(Check { id: *next, name, text: text.clone(), disabled: false });
            }
            ConstraintDef::Default { name, text, column } => {
                let name = name.clone().unwrap_or_else(|| generated("DF", &table.name, Some(column), *next));
                let found = table
                    .columns
                    .iter_mut()
                    .find(|known| same(&known.name, column))
                    .ok_or_else(|| unknown_column(column))?;
                if found.default.is_some() {
                    return Err(fault(1781, 16, "Column already has a DEFAULT bound to it."));
                }
                found.default = Some(Default_ { id: *next, name, text: text.clone() });
            }
            ConstraintDef::Foreign { name, columns, table: parent, referenced, cascade } => {
                let name = name.clone().unwrap_or_else(|| generated("FK", &table.name, None, *next));
                let own = same(parent.last(), &table.name) && same(parent.schema().unwrap_or("dbo"), &table.schema);
                let (parent, _) = if own {
                    (Arc::new(table.clone()), ())
                } else {
                    let found = self.bind(|binder| binder.table(parent)).map_err(|_| {
                        fault(1767, 16, format!("Foreign key '{name}' references invalid table '{parent}'."))
                    })?;
                    (found.0, ())
                };
                let ids = |table: &Table, names: &[String]| {
                    names
                        .iter()
                        .map(|name| table.column(name).map(|column| column.id).ok_or_else(|| unknown_column(name)))
                        .collect::<Result<Vec<_>>>()
                };
                let referenced = if referenced.is_empty() {
                    parent.primary_key().map(|key| key.columns.iter().map(|(id, _)| *id).collect()).unwrap_or_default()
                } else {
                    ids(&parent, referenced)?
                };
                let is_key = |index: &&Index| {
                    index.unique
                        && index.filter.is_none()
                        && index.columns.len() == referenced.len()
                        && index.columns.iter().all(|(id, _)| referenced.contains(id))
                };
                if !parent.indexes.iter().any(|index| is_key(&index)) {
                    return Err(fault(
                        1776,
                        16,
                        format!(
                            "There are no primary or candidate keys in the referenced table '{}' that match the referencing column list in the foreign key '{name}'.",
                            parent.qualified()
                        ),
                    ));
                }
                let columns = ids(table, columns)?;
                table.foreign.push(Foreign {
                    id: *next,
                    name,
                    columns,
                    table: parent.id,
                    referenced,
                    cascade: *cascade,
                    disabled: false,
                });
            }
        }
        Ok(())
    }

    /// Makes the table and its indexes in SQLite.
    pub(super) fn make_physical(&mut self, table: &Table) -> Result<()> {
        let columns = table.columns.iter().map(definition).collect::<Vec<_>>().join(", ");
        self.connection
            .execute_batch(&format!("CREATE TABLE {} (rid INTEGER PRIMARY KEY, {columns})", table.physical))?;
        for index in &table.indexes {
            self.make_index(table, index)?;
        }
        Ok(())
    }

    pub(super) fn drop_table(&mut self, name: &Name, if_exists: bool, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        let table = match self.bind(|binder| binder.table(name)) {
            Ok((table, _)) => table,
            Err(_) if if_exists => return Ok(()),
            Err(_) => {
                return Err(fault(
                    3701,
                    11,
                    format!("Cannot drop the table '{name}', because it does not exist or you do not have permission."),
                )
                .state(5));
            }
        };
        let physical = table.physical.clone();
        if physical.starts_with("temp.") {
            return self.writing_temporary(out, |session, _| {
                session.connection.execute_batch(&format!("DROP TABLE {physical}"))?;
                session.temporary.remove(&name.last().to_lowercase());
                Ok(())
            });
        }
        let referring = self
            .catalog
            .tables
            .values()
            .find(|other| other.id != table.id && other.foreign.iter().any(|foreign| foreign.table == table.id));
        if referring.is_some() {
            return Err(fault(
                3726,
                16,
                format!("Could not drop object '{name}' because it is referenced by a FOREIGN KEY constraint."),
            ));
        }
        self.writing(out, |session, _| {
            for instance in &table.instances {
                session.drop_instance(table.id, &instance.name)?;
            }
            if table.change_tracking {
                track::disable(&session.connection, table.id)?;
            }
            session.connection.execute_batch(&format!("DROP TABLE {physical}"))?;
            session.connection.execute("DELETE FROM sp_identity WHERE object_id = ?1", [table.id])?;
            session.change_catalog(|catalog| {
                catalog.tables.remove(&table.id);
                catalog.modules.retain(|_, module| module.table != table.id);
                Ok(())
            })
        })
    }

    fn alter_table(&mut self, name: &Name, action: &AlterTable) -> Result<()> {
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

    fn alter_add(&mut self, table: &Arc<Table>, definition: &TableDef) -> Result<()> {
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
    fn validate(&mut self, changed: &Table, before: &Table) -> Result<()> {
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

    fn alter_drop_columns(&mut self, table: &Arc<Table>, names: &[String], if_exists: bool) -> Result<()> {
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

    fn alter_drop_constraints(&mut self, table: &Arc<Table>, names: &[String], if_exists: bool) -> Result<()> {
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

    fn alter_column(&mut self, table: &Arc<Table>, definition: &ColumnDef) -> Result<()> {
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

    fn enable_change_tracking(&mut self, table: &Arc<Table>) -> Result<()> {
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

    fn alter_database(&mut self, name: Option<&str>, options: &[DatabaseOption], out: &mut Out<'_>) -> Result<()> {
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
                        session.alter_change_tracking(*on, *retention, *cleanup)?
                    }
                    DatabaseOption::Ignored => {}
                }
            }
            Ok(())
        })
    }

    fn alter_change_tracking(
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

    /// `SELECT .. INTO t`: a table of the query's columns, then its rows.
    pub(super) fn select_into(
        &mut self,
        query: &super::super::ast::Query,
        into: &Name,
        out: &mut Out<'_>,
    ) -> Result<()> {
        let (bound, to) = self.bind(|binder| binder.query(query))?;
        let mut definition = TableDef { columns: Vec::new(), constraints: Vec::new() };
        for (at, column) in bound.columns.iter().enumerate() {
            if column.name.is_empty() {
                return Err(fault(
                    1038,
                    15,
                    format!(
                        "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name (column {}).",
                        at + 1
                    ),
                ));
            }
            definition.columns.push(ColumnDef {
                name: column.name.clone(),
                sql_type: TypeName::Known(column.sql_type),
                nullable: Some(column.nullable),
                identity: column.identity.then_some((1, 1)),
                default: None,
                collation: None,
                computed: None,
            });
        }
        self.prepare_to_read(&to)?;
        let rows = self.rows(&bound.sql, &to)?;
        let table = self.create_table(into, &definition, out)?;
        let count = rows.len();
        let explicit = self.options.identity_insert.replace(table.id);
        let result = self.changing(&table, out, |session, out| {
            let changes =
                rows.into_iter().map(|row| super::apply::Change { rid: 0, old: None, new: Some(row) }).collect();
            session.apply(&table, changes, super::super::ast::Event::Insert, &[], out)
        });
        self.options.identity_insert = explicit;
        result?;
        self.done(i64::try_from(count).unwrap_or(0), out)
    }
}

/// The name of a constraint that has none, as SQL Server makes it.
fn generated(prefix: &str, table: &str, column: Option<&str>, id: i64) -> String {
    let short: String = table.chars().take(9).collect();
    match column {
        Some(column) => format!("{prefix}__{short}__{}__{id:08X}", column.chars().take(5).collect::<String>()),
        None => format!("{prefix}__{short}__{id:016X}"),
    }
}
