//! CREATE, ALTER and DROP of tables, and options of the database.

use super::super::ast::{ColumnDef, ConstraintDef, DropKind, Kind, Name, TableDef, TypeName};
use super::super::catalog::{Check, Column, Default_, Foreign, Index, Table, same};
use super::super::errors::{Result, fault, unknown_column, unsupported};
use super::super::{clock, track};
use super::apply::definition;
use super::indexes::NewIndex;
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

    pub(super) fn add_column(&self, table: &mut Table, definition: &ColumnDef, next: &mut i64) -> Result<()> {
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

    pub(super) fn add_constraint(&self, table: &mut Table, constraint: &ConstraintDef, next: &mut i64) -> Result<()> {
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
                let new = NewIndex {
                    name: &name,
                    columns,
                    unique: true,
                    clustered,
                    constraint: Some(*next),
                    primary: *primary,
                };
                let index = self.index(table, &new)?;
                table.indexes.push(index);
            }
            ConstraintDef::Index { name, unique, columns } => {
                let new = NewIndex { name, columns, unique: *unique, ..NewIndex::default() };
                let index = self.index(table, &new)?;
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
