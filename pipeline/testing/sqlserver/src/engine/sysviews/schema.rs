//! Tables, columns, keys, modules.

use super::super::catalog::{ModuleKind, Table};
use super::super::errors::Result;
use super::super::types;
use super::{COLLATION, ColumnOf, Look, NAME, TYPES, View, WORD, count, flag, number, text};
use crate::value::SqlType;
use crate::value::SqlType::{Bit, Char, DateTime, Int, NVarChar, SmallInt, TinyInt};
use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use std::sync::Arc;

type Rows = Result<Vec<Vec<Cell>>>;

const fn view(
    name: &'static str,
    physical: &'static str,
    object_id: i64,
    columns: &'static [ColumnOf],
    rows: fn(&Look<'_>, &Connection) -> Rows,
) -> View {
    View { database: None, schema: "sys", name, physical, object_id, columns, rows, permission: None }
}

const fn information(
    name: &'static str,
    physical: &'static str,
    object_id: i64,
    columns: &'static [ColumnOf],
    rows: fn(&Look<'_>, &Connection) -> Rows,
) -> View {
    View { database: None, schema: "INFORMATION_SCHEMA", name, physical, object_id, columns, rows, permission: None }
}

const OBJECT: &[ColumnOf] = &[
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

pub(super) const VIEWS: &[View] = &[
    view(
        "schemas",
        "sv_schemas",
        -101,
        &[("name", NAME, false), ("schema_id", Int, false), ("principal_id", Int, true)],
        |look, _| Ok(look.catalog.schemas.iter().map(|(id, name)| vec![text(name), number(*id), number(1)]).collect()),
    ),
    view("objects", "sv_objects", -102, OBJECT, |look, _| Ok(objects(look))),
    view("all_objects", "sv_all_objects", -103, OBJECT, |look, _| Ok(objects(look))),
    view(
        "tables",
        "sv_tables",
        -104,
        &[
            ("name", NAME, false),
            ("object_id", Int, false),
            ("schema_id", Int, false),
            ("parent_object_id", Int, false),
            ("type", Char(2), false),
            ("type_desc", WORD, true),
            ("create_date", DateTime, false),
            ("modify_date", DateTime, false),
            ("is_ms_shipped", Bit, false),
            ("is_tracked_by_cdc", Bit, true),
            ("is_memory_optimized", Bit, true),
            ("temporal_type", TinyInt, true),
            ("lob_data_space_id", Int, false),
        ],
        |look, _| {
            Ok(look
                .catalog
                .tables
                .values()
                .map(|table| {
                    let mut row = object(
                        look,
                        &table.name,
                        table.id,
                        &table.schema,
                        0,
                        "U",
                        "USER_TABLE",
                        table.created,
                        table.modified,
                        table.shipped,
                    );
                    row.extend([flag(!table.instances.is_empty()), flag(false), number(0), number(0)]);
                    row
                })
                .collect())
        },
    ),
    view("views", "sv_views", -105, OBJECT, |look, _| Ok(modules(look, ModuleKind::View))),
    view("procedures", "sv_procedures", -106, OBJECT, |look, _| Ok(modules(look, ModuleKind::Procedure))),
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
    view(
        "indexes",
        "sv_indexes",
        -112,
        &[
            ("object_id", Int, false),
            ("name", NAME, true),
            ("index_id", Int, false),
            ("type", TinyInt, false),
            ("type_desc", WORD, true),
            ("is_unique", Bit, true),
            ("is_primary_key", Bit, true),
            ("is_unique_constraint", Bit, true),
            ("is_disabled", Bit, true),
            ("has_filter", Bit, true),
            ("filter_definition", NVarChar(None), true),
            ("is_hypothetical", Bit, true),
        ],
        |look, _| Ok(indexes(look)),
    ),
    view(
        "index_columns",
        "sv_index_columns",
        -113,
        &[
            ("object_id", Int, false),
            ("index_id", Int, false),
            ("index_column_id", Int, false),
            ("column_id", Int, false),
            ("key_ordinal", TinyInt, false),
            ("partition_ordinal", TinyInt, false),
            ("is_descending_key", Bit, true),
            ("is_included_column", Bit, true),
        ],
        |look, _| Ok(index_columns(look)),
    ),
    view(
        "key_constraints",
        "sv_key_constraints",
        -114,
        &[
            ("name", NAME, false),
            ("object_id", Int, false),
            ("schema_id", Int, false),
            ("parent_object_id", Int, false),
            ("type", Char(2), false),
            ("type_desc", WORD, true),
            ("create_date", DateTime, false),
            ("modify_date", DateTime, false),
            ("is_ms_shipped", Bit, false),
            ("unique_index_id", Int, true),
            ("is_system_named", Bit, false),
        ],
        |look, _| {
            let mut rows = Vec::new();
            for table in look.catalog.tables.values() {
                for index in &table.indexes {
                    let Some(id) = index.constraint else { continue };
                    let (kind, desc) =
                        if index.primary { ("PK", "PRIMARY_KEY_CONSTRAINT") } else { ("UQ", "UNIQUE_CONSTRAINT") };
                    let mut row = object(
                        look,
                        &index.name,
                        id,
                        &table.schema,
                        table.id,
                        kind,
                        desc,
                        table.created,
                        table.modified,
                        false,
                    );
                    row.extend([number(index.id), flag(index.name.contains("__"))]);
                    rows.push(row);
                }
            }
            Ok(rows)
        },
    ),
    view(
        "foreign_keys",
        "sv_foreign_keys",
        -115,
        &[
            ("name", NAME, false),
            ("object_id", Int, false),
            ("parent_object_id", Int, true),
            ("referenced_object_id", Int, true),
            ("is_disabled", Bit, false),
            ("delete_referential_action", TinyInt, true),
            ("delete_referential_action_desc", WORD, true),
        ],
        |look, _| {
            let mut rows = Vec::new();
            for (table, foreign) in
                look.catalog.tables.values().flat_map(|table| table.foreign.iter().map(move |foreign| (table, foreign)))
            {
                let action = if foreign.cascade { "CASCADE" } else { "NO_ACTION" };
                rows.push(vec![
                    text(&foreign.name),
                    number(foreign.id),
                    number(table.id),
                    number(foreign.table),
                    flag(foreign.disabled),
                    flag(foreign.cascade),
                    text(action),
                ]);
            }
            Ok(rows)
        },
    ),
    view(
        "foreign_key_columns",
        "sv_foreign_key_columns",
        -116,
        &[
            ("constraint_object_id", Int, false),
            ("constraint_column_id", Int, false),
            ("parent_object_id", Int, false),
            ("parent_column_id", Int, false),
            ("referenced_object_id", Int, false),
            ("referenced_column_id", Int, false),
        ],
        |look, _| {
            let mut rows = Vec::new();
            for (table, foreign) in
                look.catalog.tables.values().flat_map(|table| table.foreign.iter().map(move |foreign| (table, foreign)))
            {
                for (at, (own, other)) in foreign.columns.iter().zip(&foreign.referenced).enumerate() {
                    rows.push(vec![
                        number(foreign.id),
                        count(at + 1),
                        number(table.id),
                        number(*own),
                        number(foreign.table),
                        number(*other),
                    ]);
                }
            }
            Ok(rows)
        },
    ),
    view(
        "check_constraints",
        "sv_check_constraints",
        -117,
        &[
            ("name", NAME, false),
            ("object_id", Int, false),
            ("parent_object_id", Int, false),
            ("definition", NVarChar(None), true),
            ("is_disabled", Bit, false),
        ],
        |look, _| {
            let checks =
                look.catalog.tables.values().flat_map(|table| table.checks.iter().map(move |check| (table, check)));
            Ok(checks
                .map(|(table, check)| {
                    vec![
                        text(&check.name),
                        number(check.id),
                        number(table.id),
                        text(format!("({})", check.text)),
                        flag(check.disabled),
                    ]
                })
                .collect())
        },
    ),
    view(
        "default_constraints",
        "sv_default_constraints",
        -118,
        &[
            ("name", NAME, false),
            ("object_id", Int, false),
            ("parent_object_id", Int, false),
            ("parent_column_id", Int, false),
            ("definition", NVarChar(None), true),
        ],
        |look, _| {
            let mut rows = Vec::new();
            for table in look.catalog.tables.values() {
                for column in &table.columns {
                    if let Some(default) = &column.default {
                        rows.push(vec![
                            text(&default.name),
                            number(default.id),
                            number(table.id),
                            number(column.id),
                            text(format!("({})", default.text)),
                        ]);
                    }
                }
            }
            Ok(rows)
        },
    ),
    view(
        "identity_columns",
        "sv_identity_columns",
        -119,
        &[
            ("object_id", Int, false),
            ("name", NAME, true),
            ("column_id", Int, false),
            ("seed_value", SqlType::BigInt, true),
            ("increment_value", SqlType::BigInt, true),
        ],
        |look, _| {
            let mut rows = Vec::new();
            for table in look.catalog.tables.values() {
                for column in &table.columns {
                    if let Some((seed, step)) = column.identity {
                        rows.push(vec![
                            number(table.id),
                            text(&column.name),
                            number(column.id),
                            number(seed),
                            number(step),
                        ]);
                    }
                }
            }
            Ok(rows)
        },
    ),
    view(
        "partitions",
        "sv_partitions",
        -120,
        &[
            ("object_id", Int, false),
            ("index_id", Int, false),
            ("partition_number", Int, false),
            ("rows", SqlType::BigInt, true),
        ],
        |look, connection| {
            let mut rows = Vec::new();
            for table in look.catalog.tables.values() {
                let kept: i64 =
                    connection.query_row(&format!("SELECT count(*) FROM {}", table.physical), [], |row| row.get(0))?;
                let heap = !table.indexes.iter().any(|index| index.clustered);
                let ids = table.indexes.iter().map(|index| index.id).chain(heap.then_some(0));
                rows.extend(ids.map(|id| vec![number(table.id), number(id), number(1), number(kept)]));
            }
            Ok(rows)
        },
    ),
    information(
        "TABLES",
        "sv_is_tables",
        -121,
        &[
            ("TABLE_CATALOG", NAME, true),
            ("TABLE_SCHEMA", NAME, true),
            ("TABLE_NAME", NAME, false),
            ("TABLE_TYPE", SqlType::VarChar(Some(10)), true),
        ],
        |look, _| {
            let tables = look.catalog.tables.values().map(|table| (&table.schema, &table.name, "BASE TABLE"));
            let views = look
                .catalog
                .modules
                .values()
                .filter(|module| module.kind == ModuleKind::View)
                .map(|view| (&view.schema, &view.name, "VIEW"));
            Ok(tables
                .chain(views)
                .map(|(schema, name, kind)| vec![text(super::DATABASE), text(schema), text(name), text(kind)])
                .collect())
        },
    ),
    information(
        "COLUMNS",
        "sv_is_columns",
        -122,
        &[
            ("TABLE_CATALOG", NAME, true),
            ("TABLE_SCHEMA", NAME, true),
            ("TABLE_NAME", NAME, false),
            ("COLUMN_NAME", NAME, true),
            ("ORDINAL_POSITION", Int, true),
            ("COLUMN_DEFAULT", NVarChar(Some(4000)), true),
            ("IS_NULLABLE", SqlType::VarChar(Some(3)), true),
            ("DATA_TYPE", NAME, true),
            ("CHARACTER_MAXIMUM_LENGTH", Int, true),
            ("CHARACTER_OCTET_LENGTH", Int, true),
            ("NUMERIC_PRECISION", TinyInt, true),
            ("NUMERIC_SCALE", Int, true),
            ("DATETIME_PRECISION", SmallInt, true),
            ("COLLATION_NAME", NAME, true),
        ],
        |look, _| Ok(information_columns(look)),
    ),
];

#[allow(clippy::too_many_arguments)] // The columns of an object.
fn object(
    look: &Look<'_>,
    name: &str,
    id: i64,
    schema: &str,
    parent: i64,
    kind: &str,
    desc: &str,
    created: i64,
    modified: i64,
    shipped: bool,
) -> Vec<Cell> {
    let schema = look.catalog.schema(schema).map_or(1, |(id, _)| id);
    vec![
        text(name),
        number(id),
        number(schema),
        number(parent),
        text(format!("{kind:<2}")),
        text(desc),
        number(created),
        number(modified),
        flag(shipped),
    ]
}

fn modules(look: &Look<'_>, kind: ModuleKind) -> Vec<Vec<Cell>> {
    look.catalog
        .modules
        .values()
        .filter(|module| module.kind == kind)
        .map(|module| {
            let (short, desc) = match kind {
                ModuleKind::View => ("V", "VIEW"),
                ModuleKind::Procedure => ("P", "SQL_STORED_PROCEDURE"),
                ModuleKind::Trigger => ("TR", "SQL_TRIGGER"),
            };
            object(
                look,
                &module.name,
                module.id,
                &module.schema,
                module.table,
                short,
                desc,
                module.created,
                module.modified,
                false,
            )
        })
        .collect()
}

fn objects(look: &Look<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for table in look.catalog.tables.values() {
        let mut add = |name: &str, id: i64, parent: i64, kind: &str, desc: &str| {
            rows.push(object(
                look,
                name,
                id,
                &table.schema,
                parent,
                kind,
                desc,
                table.created,
                table.modified,
                table.shipped,
            ));
        };
        add(&table.name, table.id, 0, "U", "USER_TABLE");
        for index in &table.indexes {
            let Some(id) = index.constraint else { continue };
            let (kind, desc) =
                if index.primary { ("PK", "PRIMARY_KEY_CONSTRAINT") } else { ("UQ", "UNIQUE_CONSTRAINT") };
            add(&index.name, id, table.id, kind, desc);
        }
        for foreign in &table.foreign {
            add(&foreign.name, foreign.id, table.id, "F", "FOREIGN_KEY_CONSTRAINT");
        }
        for check in &table.checks {
            add(&check.name, check.id, table.id, "C", "CHECK_CONSTRAINT");
        }
        for default in table.columns.iter().filter_map(|column| column.default.as_ref()) {
            add(&default.name, default.id, table.id, "D", "DEFAULT_CONSTRAINT");
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

fn heap(table: &Arc<Table>) -> bool {
    !table.indexes.iter().any(|index| index.clustered)
}

fn indexes(look: &Look<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for table in look.catalog.tables.values() {
        if heap(table) {
            let no = || flag(false);
            rows.push(vec![
                number(table.id),
                Cell::Null,
                number(0),
                number(0),
                text("HEAP"),
                no(),
                no(),
                no(),
                no(),
                no(),
                Cell::Null,
                no(),
            ]);
        }
        for index in &table.indexes {
            let (kind, desc) = if index.clustered { (1, "CLUSTERED") } else { (2, "NONCLUSTERED") };
            rows.push(vec![
                number(table.id),
                text(&index.name),
                number(index.id),
                number(kind),
                text(desc),
                flag(index.unique),
                flag(index.primary),
                flag(index.constraint.is_some() && !index.primary),
                flag(false),
                flag(index.filter.is_some()),
                index.filter.clone().map_or(Cell::Null, |filter| text(format!("({filter})"))),
                flag(false),
            ]);
        }
    }
    rows
}

fn index_columns(look: &Look<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for table in look.catalog.tables.values() {
        for index in &table.indexes {
            for (at, (column, descending)) in index.columns.iter().enumerate() {
                rows.push(vec![
                    number(table.id),
                    number(index.id),
                    count(at + 1),
                    number(*column),
                    count(at + 1),
                    number(0),
                    flag(*descending),
                    flag(false),
                ]);
            }
            for (at, column) in index.included.iter().enumerate() {
                let place = count(index.columns.len() + at + 1);
                rows.push(vec![
                    number(table.id),
                    number(index.id),
                    place,
                    number(*column),
                    number(0),
                    number(0),
                    flag(false),
                    flag(true),
                ]);
            }
        }
    }
    rows
}

fn information_columns(look: &Look<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for table in look.catalog.tables.values() {
        for (at, column) in table.columns.iter().enumerate() {
            let sql_type = column.sql_type;
            let sized = types::is_text(sql_type) || types::is_binary(sql_type);
            let when = |condition: bool, cell: Cell| if condition { cell } else { Cell::Null };
            let numeric = types::is_integer(sql_type) && sql_type != Bit
                || types::is_float(sql_type)
                || types::decimal(sql_type).is_some();
            rows.push(vec![
                text(super::DATABASE),
                text(&table.schema),
                text(&table.name),
                text(&column.name),
                count(at + 1),
                column.default.as_ref().map_or(Cell::Null, |default| text(format!("({})", default.text))),
                text(if column.nullable { "YES" } else { "NO" }),
                text(types::name(sql_type)),
                when(sized, number(super::characters(sql_type))),
                when(sized, number(super::max_length(sql_type))),
                when(numeric, number(super::precision(sql_type))),
                when(numeric && !types::is_float(sql_type), number(super::scale(sql_type))),
                when(types::is_time(sql_type), number(super::scale(sql_type))),
                when(types::is_text(sql_type), text(COLLATION)),
            ]);
        }
    }
    rows
}
