//! Functions with a schema: those of change data capture, and tables that functions give.

use super::super::ast::{Expr, Name};
use super::super::catalog::same;
use super::super::errors::{Result, fault, unknown_object};
use super::super::types;
use super::{Binder, Bound, Source, SourceColumn, coerce};
use crate::value::SqlType;

const LSN: SqlType = SqlType::Binary(10);

impl Binder<'_> {
    /// `sys.fn_cdc_...(...)`
    pub(super) fn schema_function(&mut self, name: &Name, upper: &str, args: &[Expr]) -> Result<Bound> {
        let unknown = || {
            fault(4121, 16, format!("Cannot find either column \"{}\" or the user-defined function or aggregate \"{name}\", or the name is ambiguous.", name.0[0]))
                .reaching(super::super::errors::Reach::Batch)
        };
        if !name.schema().is_some_and(|schema| same(schema, "sys")) {
            return Err(unknown());
        }
        let need = |count: usize| -> Result<()> {
            if args.len() == count {
                Ok(())
            } else {
                Err(fault(
                    313,
                    16,
                    format!(
                        "An insufficient number of arguments were supplied for the procedure or function {name} ..."
                    ),
                )
                .state(3))
            }
        };
        self.reads_database = true;
        let mapping = self.env.catalog.table("cdc", "lsn_time_mapping").map(|table| table.physical.clone());
        let tables = self.env.catalog.table("cdc", "change_tables").cloned();
        Ok(match upper {
            "FN_CDC_GET_MAX_LSN" => {
                need(0)?;
                let Some(mapping) = mapping else { return Ok(Bound::new("NULL", LSN, true)) };
                Bound::new(format!("(SELECT max(c1) FROM {mapping})"), LSN, true)
            }
            "FN_CDC_GET_MIN_LSN" => {
                need(1)?;
                let instance = self.text(&args[0])?;
                let zero = "x'00000000000000000000'";
                let Some(tables) = tables else { return Ok(Bound::new(zero, LSN, true)) };
                let column = |name: &str| tables.column(name).map_or(0, |column| column.id);
                Bound::new(
                    format!(
                        "ifnull((SELECT c{} FROM {} WHERE c{} COLLATE CI = {instance} AND may_read_cdc({instance})), {zero})",
                        column("start_lsn"),
                        tables.physical,
                        column("capture_instance")
                    ),
                    LSN,
                    true,
                )
            }
            "FN_CDC_INCREMENT_LSN" | "FN_CDC_DECREMENT_LSN" => {
                need(1)?;
                let lsn = self.value(&args[0])?;
                let function = if upper.contains("INCREMENT") { "lsn_increment" } else { "lsn_decrement" };
                Bound::new(format!("{function}({})", coerce(&lsn, LSN)), LSN, true)
            }
            "FN_CDC_MAP_LSN_TO_TIME" => {
                need(1)?;
                let lsn = self.value(&args[0])?;
                let Some(mapping) = mapping else { return Ok(Bound::new("NULL", SqlType::DateTime, true)) };
                Bound::new(
                    format!("(SELECT c3 FROM {mapping} WHERE c1 = {})", coerce(&lsn, LSN)),
                    SqlType::DateTime,
                    true,
                )
            }
            "FN_CDC_MAP_TIME_TO_LSN" => {
                need(2)?;
                let (operator, time) = (&args[0], self.value(&args[1])?);
                let Some(mapping) = mapping else { return Ok(Bound::new("NULL", LSN, true)) };
                let Expr::Text { text, .. } = operator else { return Err(unknown()) };
                let (function, sign) = match text.to_lowercase().as_str() {
                    "largest less than" => ("max", "<"),
                    "largest less than or equal" => ("max", "<="),
                    "smallest greater than" => ("min", ">"),
                    "smallest greater than or equal" => ("min", ">="),
                    _ => return Err(unknown()),
                };
                let time = coerce(&time, SqlType::DateTime);
                Bound::new(format!("(SELECT {function}(c1) FROM {mapping} WHERE c3 {sign} {time})"), LSN, true)
            }
            "FN_CDC_IS_BIT_SET" => {
                need(2)?;
                let (position, mask) = (self.value(&args[0])?, self.value(&args[1])?);
                let mask = coerce(&mask, SqlType::VarBinary(Some(128)));
                Bound::new(format!("cdc_bit({}, {mask})", coerce(&position, SqlType::Int)), SqlType::Bit, true)
            }
            "FN_CDC_HAS_COLUMN_CHANGED" => {
                need(3)?;
                let (instance, column) = (self.text(&args[0])?, self.text(&args[1])?);
                let mask = self.value(&args[2])?;
                let mask = coerce(&mask, SqlType::VarBinary(Some(128)));
                Bound::new(format!("cdc_bit(cdc_ordinal({instance}, {column}), {mask})"), SqlType::Bit, true)
            }
            "FN_CDC_GET_COLUMN_ORDINAL" => {
                need(2)?;
                let (instance, column) = (self.text(&args[0])?, self.text(&args[1])?);
                Bound::new(format!("cdc_ordinal({instance}, {column})"), SqlType::Int, true)
            }
            "FN_VARBINTOHEXSTR" => {
                need(1)?;
                let bytes = self.value(&args[0])?;
                let sql = format!(
                    "lower(cv({}, {}, {}, 1))",
                    bytes.sql,
                    types::code(bytes.sql_type),
                    types::code(SqlType::NVarChar(None))
                );
                Bound::new(sql, SqlType::NVarChar(None), true)
            }
            _ => return Err(unknown()),
        })
    }

    /// `cdc.fn_cdc_get_all_changes_x(...)`, `STRING_SPLIT`, `GENERATE_SERIES`.
    pub(super) fn table_function(
        &mut self,
        name: &Name,
        args: &[Expr],
        alias: Option<&str>,
        names: &[String],
    ) -> Result<(String, Source)> {
        let lower = name.last().to_lowercase();
        let unknown = || fault(208, 16, format!("Invalid object name '{name}'."));
        if name.0.len() == 1 && (lower == "string_split" || lower == "generate_series") && args.len() >= 2 {
            let handle = self.handle();
            let (text, sql_type) = if lower == "string_split" {
                let (text, separator) = (self.text(&args[0])?, self.text(&args[1])?);
                (
                    format!(
                        "(WITH RECURSIVE p(rest, v) AS (SELECT {text} || {separator}, NULL UNION ALL SELECT substr(rest, instr(rest, \
                         {separator}) + length({separator})), substr(rest, 1, instr(rest, {separator}) - 1) FROM p WHERE rest <> '') \
                         SELECT v AS k1 FROM p WHERE v IS NOT NULL) AS {handle}"
                    ),
                    SqlType::NVarChar(Some(4000)),
                )
            } else {
                let (from, to) = (self.value(&args[0])?, self.value(&args[1])?);
                let (from, to) = (coerce(&from, SqlType::BigInt), coerce(&to, SqlType::BigInt));
                (
                    format!(
                        "(WITH RECURSIVE p(v) AS (SELECT {from} WHERE {from} <= {to} UNION ALL SELECT v + 1 FROM p WHERE v < {to}) \
                         SELECT v AS k1 FROM p) AS {handle}"
                    ),
                    SqlType::BigInt,
                )
            };
            let columns = vec![SourceColumn {
                name: "value".to_owned(),
                sql: format!("{handle}.k1"),
                sql_type,
                nullable: true,
                identity: false,
            }];
            let source =
                Source { alias: alias.unwrap_or(name.last()).to_owned(), handle, schema: None, columns, table: None };
            return Ok((text, source));
        }
        let instance = lower
            .strip_prefix("fn_cdc_get_all_changes_")
            .filter(|_| name.schema().is_some_and(|schema| same(schema, "cdc")));
        let Some(instance) = instance else { return Err(unknown()) };
        let table = self
            .env
            .catalog
            .table("cdc", &format!("{instance}_CT"))
            .cloned()
            .ok_or_else(|| unknown_object(&name.to_string()))?;
        if args.len() != 3 {
            return Err(fault(
                313,
                16,
                format!("An insufficient number of arguments were supplied for the procedure or function {name} ..."),
            )
            .state(3));
        }
        self.reads_database = true;
        let (from, to, option) = (self.value(&args[0])?, self.value(&args[1])?, self.text(&args[2])?);
        let (from, to) = (coerce(&from, LSN), coerce(&to, LSN));
        let handle = self.handle();
        let shown: Vec<_> = table
            .columns
            .iter()
            .filter(|column| !matches!(column.name.as_str(), "__$end_lsn" | "__$command_id"))
            .collect();
        let id = |name: &str| table.column(name).map_or(0, |column| column.id);
        let list = shown.iter().map(|column| format!("c{}", column.id)).collect::<Vec<_>>().join(", ");
        let operation = id("__$operation");
        let physical =
            |name: &str| self.env.catalog.table("cdc", name).map_or_else(String::new, |table| table.physical.clone());
        let tables = self.env.catalog.table("cdc", "change_tables");
        let column = |name: &str| tables.and_then(|table| table.column(name)).map_or(0, |column| column.id);
        let least = format!(
            "(SELECT c{} FROM {} WHERE c{} COLLATE CI = {})",
            column("start_lsn"),
            physical("change_tables"),
            column("capture_instance"),
            super::quote(instance)
        );
        let most = format!("(SELECT max(c1) FROM {})", physical("lsn_time_mapping"));
        // A range outside of what the instance holds is refused with error 313.
        let text = format!(
            "(SELECT {list} FROM {} WHERE cdc_range({from}, {to}, {least}, {most}) AND c{start} >= {from} AND c{start} <= {to} AND (c{operation} <> 3 \
             OR {option} COLLATE CI = 'all update old')) AS {handle}",
            table.physical,
            start = id("__$start_lsn"),
        );
        let mut columns: Vec<_> = shown
            .iter()
            .map(|column| SourceColumn {
                name: column.name.clone(),
                sql: format!("{handle}.c{}", column.id),
                sql_type: column.sql_type,
                nullable: true,
                identity: false,
            })
            .collect();
        for (column, name) in columns.iter_mut().zip(names) {
            column.name.clone_from(name);
        }
        let source =
            Source { alias: alias.unwrap_or(name.last()).to_owned(), handle, schema: None, columns, table: None };
        Ok((text, source))
    }
}
