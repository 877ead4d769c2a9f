//! Indexes, keys, constraints.

use super::super::catalog::Table;
use super::schema::{Object, object_and, view};
use super::{ColumnOf, Look, NAME, View, WORD, count, flag, number, text};
use crate::value::SqlType;
use crate::value::SqlType::{Bit, Int, NVarChar, TinyInt};
use rusqlite::types::Value as Cell;
use std::sync::Arc;

const KEY: &[ColumnOf] = &object_and::<11>(&[("unique_index_id", Int, true), ("is_system_named", Bit, false)]);

pub(super) const VIEWS: &[View] = &[
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
    view("key_constraints", "sv_key_constraints", -114, KEY, |look, _| {
        let mut rows = Vec::new();
        for table in look.catalog.tables.values() {
            for index in &table.indexes {
                let Some(id) = index.constraint else { continue };
                let object = Object::of_table(table, &index.name, id, table.id, index.constraint_kind());
                let mut row = Object { shipped: false, ..object }.row(look);
                row.extend([number(index.id), flag(index.name.contains("__"))]);
                rows.push(row);
            }
        }
        Ok(rows)
    }),
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
];

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
