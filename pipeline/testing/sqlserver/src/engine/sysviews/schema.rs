//! Tables, columns, keys, modules.

use super::super::catalog::{ModuleKind, Table};
use super::super::errors::Result;
use super::super::types;
use super::{COLLATION, ColumnOf, Look, NAME, TYPES, View, WORD, count, flag, number, text};
use crate::value::SqlType::{Bit, Char, DateTime, Int, NVarChar, SmallInt, TinyInt};
use rusqlite::Connection;
use rusqlite::types::Value as Cell;

type Rows = Result<Vec<Vec<Cell>>>;

pub(super) const fn view(
    name: &'static str,
    physical: &'static str,
    object_id: i64,
    columns: &'static [ColumnOf],
    rows: fn(&Look<'_>, &Connection) -> Rows,
) -> View {
    View { database: None, schema: "sys", name, physical, object_id, columns, rows, permission: None, grows: None }
}

pub(super) const fn information(
    name: &'static str,
    physical: &'static str,
    object_id: i64,
    columns: &'static [ColumnOf],
    rows: fn(&Look<'_>, &Connection) -> Rows,
) -> View {
    View {
        database: None,
        schema: "INFORMATION_SCHEMA",
        name,
        physical,
        object_id,
        columns,
        rows,
        permission: None,
        grows: None,
    }
}

/// The columns of objects.
const OBJECT: [ColumnOf; 9] = [
    ("name", NAME, false),
    ("object_id", Int, false),
    ("schema_id", Int, false),
    ("parent_object_id", Int, false),
    ("type", Char(2), false),
    ("type_desc", WORD, true),
    ("create_date", DateTime, false),
    ("modify_date", DateTime, false),
    ("is_ms_shipped", Bit, false),
];

/// The columns of objects and those of one kind of them, `N` in all.
pub(super) const fn object_and<const N: usize>(own: &[ColumnOf]) -> [ColumnOf; N] {
    let mut columns = [OBJECT[0]; N];
    let mut at = 1;
    while at < N {
        columns[at] = if at < OBJECT.len() { OBJECT[at] } else { own[at - OBJECT.len()] };
        at += 1;
    }
    columns
}

const TABLE: &[ColumnOf] = &object_and::<13>(&[
    ("is_tracked_by_cdc", Bit, true),
    ("is_memory_optimized", Bit, true),
    ("temporal_type", TinyInt, true),
    ("lob_data_space_id", Int, false),
]);

/// What a table is among the objects.
const USER_TABLE: (&str, &str) = ("U", "USER_TABLE");

pub(super) const VIEWS: &[View] = &[
    view(
        "schemas",
        "sv_schemas",
        -101,
        &[("name", NAME, false), ("schema_id", Int, false), ("principal_id", Int, true)],
        |look, _| Ok(look.catalog.schemas.iter().map(|(id, name)| vec![text(name), number(*id), number(1)]).collect()),
    ),
    view("objects", "sv_objects", -102, &OBJECT, |look, _| Ok(objects(look))),
    view("all_objects", "sv_all_objects", -103, &OBJECT, |look, _| Ok(objects(look))),
    view("tables", "sv_tables", -104, TABLE, |look, _| {
        Ok(look
            .catalog
            .tables
            .values()
            .map(|table| {
                let mut row = Object::of_table(table, &table.name, table.id, 0, USER_TABLE).row(look);
                row.extend([flag(!table.instances.is_empty()), flag(false), number(0), number(0)]);
                row
            })
            .collect())
    }),
    view("views", "sv_views", -105, &OBJECT, |look, _| Ok(modules(look, ModuleKind::View))),
    view("procedures", "sv_procedures", -106, &OBJECT, |look, _| Ok(modules(look, ModuleKind::Procedure))),
    view(
        "triggers",
        "sv_triggers",
        -107,
        &[
            ("name", NAME, false),
            ("object_id", Int, false),
            ("parent_class", TinyInt, false),
            ("parent_class_desc", WORD, true),
            ("parent_id", Int, false),
            ("type", Char(2), false),
            ("type_desc", WORD, true),
            ("create_date", DateTime, false),
            ("modify_date", DateTime, false),
            ("is_ms_shipped", Bit, false),
            ("is_disabled", Bit, false),
            ("is_not_for_replication", Bit, false),
            ("is_instead_of_trigger", Bit, false),
        ],
        |look, _| {
            let triggers = look.catalog.modules.values().filter(|module| module.kind == ModuleKind::Trigger);
            Ok(triggers
                .map(|module| {
                    vec![
                        text(&module.name),
                        number(module.id),
                        number(1),
                        text("OBJECT_OR_COLUMN"),
                        number(module.table),
                        text("TR"),
                        text("SQL_TRIGGER"),
                        number(module.created),
                        number(module.modified),
                        flag(false),
                        flag(module.disabled),
                        flag(false),
                        flag(false),
                    ]
                })
                .collect())
        },
    ),
    view(
        "trigger_events",
        "sv_trigger_events",
        -108,
        &[("object_id", Int, false), ("type", Int, false), ("type_desc", WORD, true)],
        |look, _| {
            let mut rows = Vec::new();
            for module in look.catalog.modules.values().filter(|module| module.kind == ModuleKind::Trigger) {
                for (at, name) in ["INSERT", "UPDATE", "DELETE"].iter().enumerate().filter(|(at, _)| module.events[*at])
                {
                    rows.push(vec![number(module.id), count(at + 1), text(*name)]);
                }
            }
            Ok(rows)
        },
    ),
    view(
        "sql_modules",
        "sv_sql_modules",
        -109,
        &[("object_id", Int, false), ("definition", NVarChar(None), true)],
        |look, _| Ok(look.catalog.modules.values().map(|module| vec![number(module.id), text(&module.text)]).collect()),
    ),
    view(
        "columns",
        "sv_columns",
        -110,
        &[
            ("object_id", Int, false),
            ("name", NAME, true),
            ("column_id", Int, false),
            ("system_type_id", TinyInt, false),
            ("user_type_id", Int, false),
            ("max_length", SmallInt, false),
            ("precision", TinyInt, false),
            ("scale", TinyInt, false),
            ("collation_name", NAME, true),
            ("is_nullable", Bit, true),
            ("is_rowguidcol", Bit, false),
            ("is_identity", Bit, false),
            ("is_computed", Bit, false),
            ("default_object_id", Int, false),
            ("is_column_set", Bit, true),
            ("is_sparse", Bit, true),
            ("is_hidden", Bit, true),
            ("generated_always_type", TinyInt, true),
        ],
        |look, _| Ok(columns(look)),
    ),
    view(
        "types",
        "sv_types",
        -111,
        &[
            ("name", NAME, false),
            ("system_type_id", TinyInt, false),
            ("user_type_id", Int, false),
            ("schema_id", Int, false),
            ("is_user_defined", Bit, false),
            ("is_nullable", Bit, true),
        ],
        |_, _| {
            Ok(TYPES
                .iter()
                .map(|(name, system, user)| {
                    vec![text(*name), number(*system), number(*user), number(4), flag(false), flag(true)]
                })
                .collect())
        },
    ),
];

/// A row of `sys.objects`, which other views continue.
pub(super) struct Object<'a> {
    pub name: &'a str,
    pub id: i64,
    pub schema: &'a str,
    pub parent: i64,
    /// `type` and `type_desc`.
    pub kind: (&'a str, &'a str),
    pub created: i64,
    pub modified: i64,
    pub shipped: bool,
}

impl<'a> Object<'a> {
    /// A table, or what belongs to it.
    pub fn of_table(table: &'a Table, name: &'a str, id: i64, parent: i64, kind: (&'a str, &'a str)) -> Self {
        let Table { schema, created, modified, shipped, .. } = table;
        Self { name, id, schema, parent, kind, created: *created, modified: *modified, shipped: *shipped }
    }

    pub fn row(&self, look: &Look<'_>) -> Vec<Cell> {
        let schema = look.catalog.schema(self.schema).map_or(1, |(id, _)| id);
        vec![
            text(self.name),
            number(self.id),
            number(schema),
            number(self.parent),
            text(format!("{:<2}", self.kind.0)),
            text(self.kind.1),
            number(self.created),
            number(self.modified),
            flag(self.shipped),
        ]
    }
}

fn modules(look: &Look<'_>, kind: ModuleKind) -> Vec<Vec<Cell>> {
    look.catalog
        .modules
        .values()
        .filter(|module| module.kind == kind)
        .map(|module| {
            let kind = match kind {
                ModuleKind::View => ("V", "VIEW"),
                ModuleKind::Procedure => ("P", "SQL_STORED_PROCEDURE"),
                ModuleKind::Trigger => ("TR", "SQL_TRIGGER"),
            };
            let object = Object {
                name: &module.name,
                id: module.id,
                schema: &module.schema,
                parent: module.table,
                kind,
                created: module.created,
                modified: module.modified,
                shipped: false,
            };
            object.row(look)
        })
        .collect()
}

fn objects(look: &Look<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for table in look.catalog.tables.values() {
        let mut add = |name: &str, id: i64, parent: i64, kind: (&str, &str)| {
            rows.push(Object::of_table(table, name, id, parent, kind).row(look));
        };
        add(&table.name, table.id, 0, USER_TABLE);
        for index in &table.indexes {
            let Some(id) = index.constraint else { continue };
            add(&index.name, id, table.id, index.constraint_kind());
        }
        for foreign in &table.foreign {
            add(&foreign.name, foreign.id, table.id, ("F", "FOREIGN_KEY_CONSTRAINT"));
        }
        for check in &table.checks {
            add(&check.name, check.id, table.id, ("C", "CHECK_CONSTRAINT"));
        }
        for default in table.columns.iter().filter_map(|column| column.default.as_ref()) {
            add(&default.name, default.id, table.id, ("D", "DEFAULT_CONSTRAINT"));
        }
    }
    for kind in [ModuleKind::View, ModuleKind::Procedure, ModuleKind::Trigger] {
        rows.extend(modules(look, kind));
    }
    rows
}

fn columns(look: &Look<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for table in look.catalog.tables.values() {
        for column in &table.columns {
            let kind = super::system_type(column.sql_type);
            let collation = if types::is_text(column.sql_type) { text(COLLATION) } else { Cell::Null };
            rows.push(vec![
                number(table.id),
                text(&column.name),
                number(column.id),
                number(kind),
                number(kind),
                number(super::max_length(column.sql_type)),
                number(super::precision(column.sql_type)),
                number(super::scale(column.sql_type)),
                collation,
                flag(column.nullable),
                flag(false),
                flag(column.identity.is_some()),
                flag(false),
                number(column.default.as_ref().map_or(0, |default| default.id)),
                flag(false),
                flag(false),
                flag(false),
                number(0),
            ]);
        }
    }
    rows
}
