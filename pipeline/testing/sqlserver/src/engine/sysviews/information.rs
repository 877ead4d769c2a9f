//! INFORMATION_SCHEMA.

use super::super::catalog::ModuleKind;
use super::super::types;
use super::schema::information;
use super::{COLLATION, Look, NAME, View, count, number, text};
use crate::value::SqlType;
use crate::value::SqlType::{Bit, Int, NVarChar, SmallInt, TinyInt};
use rusqlite::types::Value as Cell;

pub(super) const VIEWS: &[View] = &[
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
