//! What there is: schemas, tables, columns, keys, modules, and the options of the database. Kept as one document in
//! SQLite, so that it is part of the transaction that changes it.

use super::types;
use crate::value::SqlType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The databases that answer. Only the last one holds data.
pub(crate) const DATABASES: [(&str, i64); 4] = [("master", 1), ("tempdb", 2), ("msdb", 4), (DATABASE, 5)];
/// The database that holds the data.
pub(crate) const DATABASE: &str = "smartpulse";

pub(crate) fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!a.is_ascii() && a.to_lowercase() == b.to_lowercase())
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Catalog {
    /// Unique for each state within the engine; not kept.
    #[serde(skip)]
    pub version: u64,
    pub next_id: i64,
    pub schemas: Vec<(i64, String)>,
    pub tables: BTreeMap<i64, Arc<Table>>,
    pub modules: BTreeMap<i64, Arc<Module>>,
    pub types: Vec<UserType>,
    pub options: Options,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UserType {
    pub schema: String,
    pub name: String,
    #[serde(with = "type_code")]
    pub base: SqlType,
}

/// Options of the database.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Options {
    pub change_tracking: bool,
    pub retention: i64,
    /// 1 minutes, 2 hours, 3 days.
    pub retention_units: u8,
    pub auto_cleanup: bool,
    pub snapshot_isolation: bool,
    pub read_committed_snapshot: bool,
    pub recursive_triggers: bool,
    pub cdc: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Table {
    pub id: i64,
    pub schema: String,
    pub name: String,
    /// Its name in SQLite.
    pub physical: String,
    pub columns: Vec<Column>,
    pub next_column: i64,
    pub indexes: Vec<Index>,
    pub foreign: Vec<Foreign>,
    pub checks: Vec<Check>,
    pub created: i64,
    pub modified: i64,
    /// Made by the system: the tables of change data capture.
    pub shipped: bool,
    pub change_tracking: bool,
    /// Capture instances, oldest first.
    pub instances: Vec<Instance>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Column {
    pub id: i64,
    pub name: String,
    #[serde(with = "type_code")]
    pub sql_type: SqlType,
    pub nullable: bool,
    pub identity: Option<(i64, i64)>,
    pub default: Option<Default_>,
    pub rowversion: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Default_ {
    pub id: i64,
    pub name: String,
    pub text: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Its number within the table: 1 is the clustered one.
    pub id: i64,
    pub name: String,
    /// Its name in SQLite.
    pub physical: String,
    /// Columns by their number, and whether they descend.
    pub columns: Vec<(i64, bool)>,
    pub included: Vec<i64>,
    pub unique: bool,
    pub clustered: bool,
    pub filter: Option<String>,
    /// The constraint's number when it is a primary key or a unique constraint.
    pub constraint: Option<i64>,
    pub primary: bool,
}

impl Index {
    /// The type of its constraint, short and in words.
    pub fn constraint_kind(&self) -> (&'static str, &'static str) {
        if self.primary { ("PK", "PRIMARY_KEY_CONSTRAINT") } else { ("UQ", "UNIQUE_CONSTRAINT") }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Foreign {
    pub id: i64,
    pub name: String,
    pub columns: Vec<i64>,
    pub table: i64,
    pub referenced: Vec<i64>,
    pub cascade: bool,
    pub disabled: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    pub id: i64,
    pub name: String,
    pub text: String,
    pub disabled: bool,
}

/// A capture instance, as writers need it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub name: String,
    /// The change table.
    pub table: i64,
    /// Where commits put the images until the capture job takes them.
    pub log: String,
    /// The captured columns of the source by number, in order. One that is gone stays, and is NULL.
    pub columns: Vec<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ModuleKind {
    View,
    Procedure,
    Trigger,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Module {
    pub id: i64,
    pub schema: String,
    pub name: String,
    pub kind: ModuleKind,
    /// The body; of a procedure without its parameters.
    pub text: String,
    /// Parameters as `sp_executesql` declares them, for a procedure; columns for a view.
    pub header: String,
    /// The table of a trigger.
    pub table: i64,
    /// Insert, update, delete.
    pub events: [bool; 3],
    pub disabled: bool,
    pub created: i64,
    pub modified: i64,
    /// The first line of the body in what was sent, so that errors name the right line.
    pub line: u32,
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| same(&column.name, name))
    }

    pub(crate) fn column_by_id(&self, id: i64) -> Option<&Column> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// Where the column stands among the columns.
    pub(crate) fn place(&self, id: i64) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    pub(crate) fn primary_key(&self) -> Option<&Index> {
        self.indexes.iter().find(|index| index.primary)
    }

    pub(crate) fn identity(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.identity.is_some())
    }

    pub(crate) fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

impl Catalog {
    pub(crate) fn new() -> Self {
        let schemas = [(1, "dbo"), (2, "guest"), (3, "INFORMATION_SCHEMA"), (4, "sys")];
        Self {
            next_id: 245_575_913,
            schemas: schemas.map(|(id, name)| (id, name.to_owned())).to_vec(),
            options: Options { retention: 2, retention_units: 3, auto_cleanup: true, ..Options::default() },
            ..Self::default()
        }
    }

    /// A number for a new object.
    pub(crate) fn new_id(&mut self) -> i64 {
        self.next_id += 16;
        self.next_id
    }

    pub(crate) fn schema(&self, name: &str) -> Option<(i64, &str)> {
        self.schemas.iter().find(|(_, schema)| same(schema, name)).map(|(id, name)| (*id, name.as_str()))
    }

    pub(crate) fn table(&self, schema: &str, name: &str) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| same(&table.name, name) && same(&table.schema, schema))
    }

    pub(crate) fn module(&self, schema: &str, name: &str) -> Option<&Arc<Module>> {
        self.modules.values().find(|module| same(&module.name, name) && same(&module.schema, schema))
    }

    pub(crate) fn triggers(&self, table: i64) -> impl Iterator<Item = &Arc<Module>> {
        self.modules.values().filter(move |module| module.kind == ModuleKind::Trigger && module.table == table)
    }

    /// A table to change, in place.
    pub(crate) fn table_mut(&mut self, id: i64) -> Option<&mut Table> {
        self.tables.get_mut(&id).map(Arc::make_mut)
    }

    /// Any object's number by its name.
    pub(crate) fn object_id(&self, schema: &str, name: &str) -> Option<(i64, &'static str)> {
        if let Some(table) = self.table(schema, name) {
            return Some((table.id, "U"));
        }
        if let Some(module) = self.module(schema, name) {
            return Some((
                module.id,
                match module.kind {
                    ModuleKind::View => "V",
                    ModuleKind::Procedure => "P",
                    ModuleKind::Trigger => "TR",
                },
            ));
        }
        self.tables.values().filter(|table| same(&table.schema, schema)).find_map(|table| {
            let keys = table.indexes.iter().filter_map(|index| {
                Some((index.constraint?, index.name.as_str(), if index.primary { "PK" } else { "UQ" }))
            });
            let foreign = table.foreign.iter().map(|foreign| (foreign.id, foreign.name.as_str(), "F"));
            let checks = table.checks.iter().map(|check| (check.id, check.name.as_str(), "C"));
            let defaults = table
                .columns
                .iter()
                .filter_map(|column| column.default.as_ref())
                .map(|default| (default.id, default.name.as_str(), "D"));
            keys.chain(foreign)
                .chain(checks)
                .chain(defaults)
                .find(|(_, found, _)| same(found, name))
                .map(|(id, _, kind)| (id, kind))
        })
    }

    /// An object's schema and name by its number.
    pub(crate) fn object_name(&self, id: i64) -> Option<(&str, &str)> {
        if let Some(table) = self.tables.get(&id) {
            return Some((&table.schema, &table.name));
        }
        if let Some(module) = self.modules.get(&id) {
            return Some((&module.schema, &module.name));
        }
        self.tables.values().find_map(|table| {
            let keys = table.indexes.iter().find(|index| index.constraint == Some(id)).map(|index| index.name.as_str());
            let foreign = table.foreign.iter().find(|foreign| foreign.id == id).map(|foreign| foreign.name.as_str());
            let check = table.checks.iter().find(|check| check.id == id).map(|check| check.name.as_str());
            keys.or(foreign).or(check).map(|name| (table.schema.as_str(), name))
        })
    }
}

/// Types are kept as their number.
mod type_code {
    use super::{SqlType, types};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sql_type: &SqlType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(types::code(*sql_type))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SqlType, D::Error> {
        i64::deserialize(deserializer).map(types::decode)
    }
}
