//! Calls of functions.

use super::super::ast::{Expr, Name, Order, Window};
use super::super::catalog::same;
use super::super::errors::{Result, fault, unsupported};
use super::super::types;
use super::{Binder, Bound, aggregate, coerce};
use crate::value::SqlType;

/// What an argument is converted to.
#[derive(Clone, Copy)]
enum Arg {
    Text,
    Int,
    BigInt,
    Float,
    /// As it is.
    Any,
}

use Arg::{Any, BigInt, Float, Int, Text};

/// What a function gives.
#[derive(Clone, Copy)]
enum Gives {
    Is(SqlType),
    /// The type of its first argument; text becomes `varchar` or `nvarchar` of that length.
    First,
    /// Text of the same family, as long as can be.
    Long,
}

use Gives::{First, Is, Long};

const NAME: SqlType = SqlType::NVarChar(Some(128));

/// Functions whose arguments are converted and passed on. The last number is how many arguments are needed at least.
const PLAIN: &[(&str, &str, &[Arg], Gives, usize)] = &[
    ("LEN", "t_len", &[Text], Is(SqlType::Int), 1),
    ("SUBSTRING", "t_substring", &[Any, BigInt, BigInt], First, 3),
    ("LEFT", "t_left", &[Text, BigInt], First, 2),
    ("RIGHT", "t_right", &[Text, BigInt], First, 2),
    ("UPPER", "t_upper", &[Text], First, 1),
    ("LOWER", "t_lower", &[Text], First, 1),
    ("LTRIM", "t_ltrim", &[Text], First, 1),
    ("RTRIM", "t_rtrim", &[Text], First, 1),
    ("TRIM", "t_trim", &[Text], First, 1),
    ("REVERSE", "t_reverse", &[Text], First, 1),
    ("REPLACE", "t_replace", &[Text, Text, Text], Long, 3),
    ("REPLICATE", "t_replicate", &[Text, BigInt], Long, 2),
    ("SPACE", "t_space", &[BigInt], Is(SqlType::VarChar(Some(8000))), 1),
    ("STUFF", "t_stuff", &[Text, BigInt, BigInt, Text], Long, 4),
    ("CHARINDEX", "t_charindex", &[Text, Text, BigInt], Is(SqlType::Int), 2),
    ("PATINDEX", "t_patindex", &[Text, Text], Is(SqlType::Int), 2),
    ("QUOTENAME", "t_quotename", &[Text, Text], Is(SqlType::NVarChar(Some(258))), 1),
    ("ASCII", "t_unicode", &[Text], Is(SqlType::Int), 1),
    ("UNICODE", "t_unicode", &[Text], Is(SqlType::Int), 1),
    ("CHAR", "t_char", &[BigInt], Is(SqlType::Char(1)), 1),
    ("NCHAR", "t_char", &[BigInt], Is(SqlType::NChar(1)), 1),
    ("STR", "t_str", &[Float, BigInt, BigInt], Is(SqlType::VarChar(Some(30))), 1),
    ("ISNUMERIC", "t_isnumeric", &[Text], Is(SqlType::Int), 1),
    ("SQRT", "m_sqrt", &[Float], Is(SqlType::Float), 1),
    ("EXP", "m_exp", &[Float], Is(SqlType::Float), 1),
    ("LOG", "m_log", &[Float], Is(SqlType::Float), 1),
    ("LOG10", "m_log10", &[Float], Is(SqlType::Float), 1),
    ("SIN", "m_sin", &[Float], Is(SqlType::Float), 1),
    ("COS", "m_cos", &[Float], Is(SqlType::Float), 1),
    ("PI", "m_pi", &[], Is(SqlType::Float), 0),
    ("CHECKSUM", "t_checksum", &[Text], Is(SqlType::Int), 1),
    ("OBJECT_ID", "object_id", &[Text, Text], Is(SqlType::Int), 1),
    ("OBJECT_NAME", "object_name", &[Int, Int], Is(NAME), 1),
    ("OBJECT_SCHEMA_NAME", "object_schema_name", &[Int, Int], Is(NAME), 1),
    ("OBJECT_DEFINITION", "object_definition", &[Int], Is(SqlType::NVarChar(None)), 1),
    ("SCHEMA_NAME", "schema_name", &[Int], Is(NAME), 0),
    ("SCHEMA_ID", "schema_id", &[Text], Is(SqlType::Int), 0),
    ("DB_ID", "db_id", &[Text], Is(SqlType::SmallInt), 0),
    ("DB_NAME", "db_name", &[Int], Is(NAME), 0),
    ("TYPE_NAME", "type_name", &[Int], Is(NAME), 1),
    ("TYPE_ID", "type_id", &[Text], Is(SqlType::Int), 1),
    ("COL_NAME", "col_name", &[Int, Int], Is(NAME), 2),
    ("COL_LENGTH", "col_length", &[Text, Text], Is(SqlType::SmallInt), 2),
    ("COLUMNPROPERTY", "columnproperty", &[Int, Text, Text], Is(SqlType::Int), 3),
    ("OBJECTPROPERTY", "objectproperty", &[Int, Text], Is(SqlType::Int), 2),
    ("OBJECTPROPERTYEX", "objectproperty", &[Int, Text], Is(SqlType::Int), 2),
    ("SERVERPROPERTY", "serverproperty", &[Text], Is(NAME), 1),
    ("DATABASEPROPERTYEX", "databasepropertyex", &[Text, Text], Is(NAME), 2),
    ("HAS_PERMS_BY_NAME", "has_perms_by_name", &[Text, Text, Text], Is(SqlType::Int), 3),
    ("HAS_DBACCESS", "has_dbaccess", &[Text], Is(SqlType::Int), 1),
    ("IS_MEMBER", "is_member", &[Text], Is(SqlType::Int), 1),
    ("IS_ROLEMEMBER", "is_member", &[Text, Text], Is(SqlType::Int), 1),
    ("IS_SRVROLEMEMBER", "is_member", &[Text, Text], Is(SqlType::Int), 1),
    ("SUSER_SNAME", "suser_sname", &[Any], Is(NAME), 0),
    ("SUSER_NAME", "suser_sname", &[Any], Is(NAME), 0),
    ("SUSER_ID", "one", &[], Is(SqlType::Int), 0),
    ("USER_NAME", "user_name", &[Any], Is(NAME), 0),
    ("USER_ID", "one", &[], Is(SqlType::Int), 0),
    ("HOST_NAME", "host_name", &[], Is(NAME), 0),
    ("APP_NAME", "app_name", &[], Is(NAME), 0),
    ("NEWID", "newid", &[], Is(SqlType::UniqueIdentifier), 0),
    ("NEWSEQUENTIALID", "newid", &[], Is(SqlType::UniqueIdentifier), 0),
    ("RAND", "m_rand", &[], Is(SqlType::Float), 0),
    ("ISDATE", "t_isdate", &[Text], Is(SqlType::Int), 1),
];

/// Values of the session that look like functions.
const SYSTEM: &[(&str, &str, SqlType)] = &[
    ("GETDATE", "GETDATE", SqlType::DateTime),
    ("CURRENT_TIMESTAMP", "GETDATE", SqlType::DateTime),
    ("GETUTCDATE", "GETUTCDATE", SqlType::DateTime),
    ("SYSDATETIME", "SYSDATETIME", SqlType::DateTime2(7)),
    ("SYSUTCDATETIME", "SYSUTCDATETIME", SqlType::DateTime2(7)),
    ("SYSDATETIMEOFFSET", "SYSDATETIMEOFFSET", SqlType::DateTimeOffset(7)),
    ("SCOPE_IDENTITY", "SCOPE_IDENTITY", SqlType::Decimal(38, 0)),
    ("XACT_STATE", "XACT_STATE", SqlType::SmallInt),
    ("ERROR_NUMBER", "ERROR_NUMBER", SqlType::Int),
    ("ERROR_MESSAGE", "ERROR_MESSAGE", SqlType::NVarChar(Some(4000))),
    ("ERROR_SEVERITY", "ERROR_SEVERITY", SqlType::Int),
    ("ERROR_STATE", "ERROR_STATE", SqlType::Int),
    ("ERROR_LINE", "ERROR_LINE", SqlType::Int),
    ("ERROR_PROCEDURE", "ERROR_PROCEDURE", NAME),
    ("TRIGGER_NESTLEVEL", "TRIGGER_NESTLEVEL", SqlType::Int),
    ("ROWCOUNT_BIG", "ROWCOUNT", SqlType::BigInt),
    ("CURRENT_TRANSACTION_ID", "TRANSACTION_ID", SqlType::BigInt),
    ("CONTEXT_INFO", "CONTEXT_INFO", SqlType::VarBinary(Some(128))),
    ("ORIGINAL_LOGIN", "LOGIN", NAME),
    ("SYSTEM_USER", "LOGIN", NAME),
    ("CURRENT_USER", "USER", NAME),
    ("SESSION_USER", "USER", NAME),
    ("USER", "USER", NAME),
];

impl Binder<'_> {
    pub(super) fn call(
        &mut self,
        name: &Name,
        args: &[Expr],
        star: bool,
        distinct: bool,
        within: &[Order],
        over: Option<&Window>,
    ) -> Result<Bound> {
        let upper = name.last().to_uppercase();
        if name.0.len() > 1 {
            return self.schema_function(name, &upper, args);
        }
        if aggregate::is_aggregate(&upper) {
            return self.aggregate(&upper, args, star, distinct, within, over);
        }
        if aggregate::is_ranking(&upper) {
            return self.ranking(&upper, args, over);
        }
        if upper == "TRIGGER_NESTLEVEL" && !args.is_empty() {
            return self.special(&upper, args);
        }
        if let Some((_, system, sql_type)) = SYSTEM.iter().find(|(known, ..)| *known == upper) {
            return Ok(self.system(system, *sql_type, true));
        }
        if let Some((_, function, kinds, gives, least)) = PLAIN.iter().find(|(known, ..)| *known == upper) {
            return self.plain(&upper, function, kinds, *gives, *least, args);
        }
        self.special(&upper, args)
    }

    fn plain(
        &mut self,
        name: &str,
        function: &str,
        kinds: &[Arg],
        gives: Gives,
        least: usize,
        args: &[Expr],
    ) -> Result<Bound> {
        if args.len() < least || args.len() > kinds.len() {
            return Err(fault(
                174,
                15,
                format!("The {} function requires {} argument(s).", name.to_lowercase(), kinds.len()),
            ));
        }
        let mut texts = Vec::new();
        let mut first = None;
        for (kind, arg) in kinds.iter().zip(args) {
            let bound = self.value(arg)?;
            let text = match kind {
                Text if types::is_text(bound.sql_type) => bound.sql.clone(),
                Text => coerce(&bound, SqlType::NVarChar(None)),
                Int => coerce(&bound, SqlType::Int),
                BigInt => coerce(&bound, SqlType::BigInt),
                Float => coerce(&bound, SqlType::Float),
                Any if types::is_text(bound.sql_type) || types::is_binary(bound.sql_type) => bound.sql.clone(),
                Any => coerce(&bound, SqlType::NVarChar(None)),
            };
            texts.push(text);
            first.get_or_insert(bound.sql_type);
        }
        let of_first = |long: bool| match first {
            Some(sql_type) if types::is_binary(sql_type) => SqlType::VarBinary(types::length(sql_type)),
            Some(sql_type) => {
                let national = types::is_national(sql_type) || !types::is_text(sql_type);
                let length = if types::is_max(sql_type) {
                    None
                } else if long {
                    Some(if national { 4000 } else { 8000 })
                } else {
                    types::length(sql_type)
                };
                if national { SqlType::NVarChar(length) } else { SqlType::VarChar(length) }
            }
            None => SqlType::NVarChar(None),
        };
        let sql_type = match gives {
            Is(sql_type) => sql_type,
            First => of_first(false),
            Long => of_first(true),
        };
        Ok(Bound::new(format!("{function}({})", texts.join(", ")), sql_type, true))
    }

    // One arm for each function whose type depends on its arguments.
    fn special(&mut self, name: &str, args: &[Expr]) -> Result<Bound> {
        let need = |count: usize| -> Result<()> {
            if args.len() == count {
                Ok(())
            } else {
                Err(fault(174, 15, format!("The {} function requires {count} argument(s).", name.to_lowercase())))
            }
        };
        Ok(match name {
            "ISNULL" => {
                need(2)?;
                let (value, other) = (self.value(&args[0])?, self.value(&args[1])?);
                let sql_type = if value.untyped { other.sql_type } else { value.sql_type };
                let nullable = value.nullable && other.nullable;
                Bound::new(format!("ifnull({}, {})", value.sql, coerce(&other, sql_type)), sql_type, nullable)
            }
            "COALESCE" => {
                let values = args.iter().map(|arg| self.value(arg)).collect::<Result<Vec<_>>>()?;
                let typed = values.iter().filter(|value| !value.untyped).map(|value| value.sql_type);
                let Some(sql_type) = typed.reduce(types::common) else {
                    return Err(fault(
                        4127,
                        16,
                        "At least one of the arguments to COALESCE must be an expression that is not the NULL constant.",
                    ));
                };
                let list = values.iter().map(|value| coerce(value, sql_type)).collect::<Vec<_>>().join(", ");
                let nullable = values.iter().all(|value| value.nullable);
                let sql = if values.len() == 1 { list } else { format!("coalesce({list})") };
                Bound::new(sql, sql_type, nullable)
            }
            // Of one trigger. Its type and category are known by its number.
            "TRIGGER_NESTLEVEL" => {
                let trigger = coerce(&self.value(&args[0])?, SqlType::Int);
                let running = self.system("TRIGGERS_RUNNING", SqlType::NVarChar(None), false).sql;
                let sql = format!("(SELECT count(*) FROM json_each({running}) WHERE value = {trigger})");
                Bound::new(sql, SqlType::Int, false)
            }
            "NULLIF" => {
                need(2)?;
                let (value, other) = (self.value(&args[0])?, self.value(&args[1])?);
                let test = super::operators::compare("=", &value, &other)?;
                Bound::new(format!("(CASE WHEN {test} THEN NULL ELSE {} END)", value.sql), value.sql_type, true)
            }
            "DATALENGTH" => {
                need(1)?;
                let value = self.value(&args[0])?;
                let sql_type = if types::is_max(value.sql_type) { SqlType::BigInt } else { SqlType::Int };
                Bound::new(
                    format!("t_datalength({}, {})", value.sql, types::code(value.sql_type)),
                    sql_type,
                    value.nullable,
                )
            }
            "CONCAT" | "CONCAT_WS" => {
                let mut national = false;
                let mut max = false;
                let mut list = Vec::new();
                for arg in args {
                    let value = self.value(arg)?;
                    national |= types::is_national(value.sql_type);
                    max |= types::is_max(value.sql_type);
                    list.push(coerce(
                        &value,
                        if types::is_text(value.sql_type) { value.sql_type } else { SqlType::NVarChar(Some(4000)) },
                    ));
                }
                let sql_type = match (national, max) {
                    (true, true) => SqlType::NVarChar(None),
                    (true, false) => SqlType::NVarChar(Some(4000)),
                    (false, true) => SqlType::VarChar(None),
                    (false, false) => SqlType::VarChar(Some(8000)),
                };
                let function = if name == "CONCAT" { "t_concat" } else { "t_concat_ws" };
                Bound::new(format!("{function}({})", list.join(", ")), sql_type, false)
            }
            "ABS" | "SIGN" | "CEILING" | "FLOOR" => {
                need(1)?;
                let value = self.value(&args[0])?;
                let sql_type = match value.sql_type {
                    SqlType::Decimal(precision, _) if name == "CEILING" || name == "FLOOR" => {
                        SqlType::Decimal(precision, 0)
                    }
                    SqlType::Bit | SqlType::TinyInt | SqlType::SmallInt => SqlType::Int,
                    SqlType::Real => SqlType::Float,
                    sql_type if types::is_text(sql_type) => SqlType::Float,
                    sql_type => sql_type,
                };
                let sql =
                    coerce(&value, if types::decimal(value.sql_type).is_some() { value.sql_type } else { sql_type });
                Bound::new(format!("m_{}({sql}, {})", name.to_lowercase(), types::code(value.sql_type)), sql_type, true)
            }
            "ROUND" => {
                let value = self.value(&args[0])?;
                let places = args.get(1).map(|arg| self.value(arg)).transpose()?;
                let places = places.map_or_else(|| "0".to_owned(), |places| coerce(&places, SqlType::Int));
                let cut = args.get(2).map(|arg| self.value(arg)).transpose()?;
                let cut = cut.map_or_else(|| "0".to_owned(), |cut| coerce(&cut, SqlType::Int));
                let sql_type = if types::is_text(value.sql_type) { SqlType::Float } else { value.sql_type };
                Bound::new(
                    format!("m_round({}, {places}, {cut}, {})", coerce(&value, sql_type), types::code(sql_type)),
                    sql_type,
                    true,
                )
            }
            "POWER" => {
                need(2)?;
                let (base, exponent) = (self.value(&args[0])?, self.value(&args[1])?);
                let sql = format!("m_power({}, {})", coerce(&base, SqlType::Float), coerce(&exponent, SqlType::Float));
                let power = Bound::new(sql, SqlType::Float, true);
                Bound::new(coerce(&power, base.sql_type), base.sql_type, true)
            }
            "DATEADD" => {
                need(3)?;
                let (part, count, time) = (self.value(&args[0])?, self.value(&args[1])?, self.value(&args[2])?);
                let sql_type = if types::is_time(time.sql_type) { time.sql_type } else { SqlType::DateTime };
                let sql = format!(
                    "d_add({}, {}, {}, {})",
                    part.sql,
                    coerce(&count, SqlType::BigInt),
                    coerce(&time, sql_type),
                    types::code(sql_type)
                );
                Bound::new(sql, sql_type, count.nullable || time.nullable)
            }
            "DATEDIFF" | "DATEDIFF_BIG" => {
                need(3)?;
                let (part, from, to) = (self.value(&args[0])?, self.value(&args[1])?, self.value(&args[2])?);
                let sql_type = if name == "DATEDIFF" { SqlType::Int } else { SqlType::BigInt };
                let (from, to) = (ticks(&from), ticks(&to));
                Bound::new(format!("d_diff({}, {from}, {to}, {})", part.sql, types::code(sql_type)), sql_type, true)
            }
            "DATEPART" | "DATENAME" => {
                need(2)?;
                let (part, time) = (self.value(&args[0])?, self.value(&args[1])?);
                let (function, sql_type) =
                    if name == "DATEPART" { ("d_part", SqlType::Int) } else { ("d_name", SqlType::NVarChar(Some(30))) };
                Bound::new(format!("{function}({}, {})", part.sql, ticks(&time)), sql_type, true)
            }
            "YEAR" | "MONTH" | "DAY" => {
                need(1)?;
                let time = self.value(&args[0])?;
                Bound::new(format!("d_part('{}', {})", name.to_lowercase(), ticks(&time)), SqlType::Int, true)
            }
            "EOMONTH" => {
                let time = self.value(&args[0])?;
                Bound::new(format!("d_eomonth({})", ticks(&time)), SqlType::Date, true)
            }
            "DATEFROMPARTS" => {
                need(3)?;
                let mut list = Vec::new();
                for arg in args {
                    let bound = self.value(arg)?;
                    list.push(coerce(&bound, SqlType::Int));
                }
                Bound::new(format!("d_fromparts({})", list.join(", ")), SqlType::Date, true)
            }
            "TODATETIMEOFFSET" | "SWITCHOFFSET" => {
                need(2)?;
                let (time, offset) = (self.value(&args[0])?, self.value(&args[1])?);
                let to = if name == "SWITCHOFFSET" { SqlType::DateTimeOffset(7) } else { SqlType::DateTime2(7) };
                let function = if name == "SWITCHOFFSET" { "d_switchoffset" } else { "d_tooffset" };
                let offset = coerce(&offset, SqlType::NVarChar(Some(10)));
                Bound::new(format!("{function}({}, {offset})", coerce(&time, to)), SqlType::DateTimeOffset(7), true)
            }
            "FORMAT" => {
                let (value, format) = (self.value(&args[0])?, self.text(&args[1])?);
                Bound::new(
                    format!("t_format({}, {}, {format})", value.sql, types::code(value.sql_type)),
                    SqlType::NVarChar(Some(4000)),
                    true,
                )
            }
            "CHOOSE" => {
                let at = self.value(&args[0])?;
                let values = args[1..].iter().map(|arg| self.value(arg)).collect::<Result<Vec<_>>>()?;
                let sql_type = values.iter().map(|value| value.sql_type).reduce(types::common).unwrap_or(SqlType::Int);
                let mut sql = format!("(CASE {}", coerce(&at, SqlType::Int));
                for (place, value) in values.iter().enumerate() {
                    sql.push_str(&format!(" WHEN {} THEN {}", place + 1, coerce(value, sql_type)));
                }
                Bound::new(format!("{sql} END)"), sql_type, true)
            }
            "IDENT_CURRENT" => {
                need(1)?;
                let table = self.text(&args[0])?;
                let sql = format!("(SELECT last FROM sp_identity WHERE object_id = object_id({table}))");
                let bound = Bound::new(sql, SqlType::BigInt, true);
                Bound::new(coerce(&bound, SqlType::Decimal(38, 0)), SqlType::Decimal(38, 0), true)
            }
            "CHANGE_TRACKING_CURRENT_VERSION" => {
                need(0)?;
                self.reads_database = true;
                if !self.env.catalog.options.change_tracking
                    || !same(self.env.database, super::super::catalog::DATABASE)
                {
                    return Ok(Bound::new("NULL", SqlType::BigInt, true));
                }
                Bound::new("(SELECT value FROM sp_state WHERE name = 'ct_version')", SqlType::BigInt, true)
            }
            "CHANGE_TRACKING_MIN_VALID_VERSION" => {
                need(1)?;
                self.reads_database = true;
                let table = self.value(&args[0])?;
                let sql = format!(
                    "(SELECT min_valid FROM sp_ct_table WHERE object_id = {0} AND may_view_ct({0}))",
                    coerce(&table, SqlType::Int)
                );
                Bound::new(sql, SqlType::BigInt, true)
            }
            "CHANGE_TRACKING_IS_COLUMN_IN_MASK" => Bound::new("1", SqlType::Int, true),
            "HASHBYTES" => return Err(unsupported("HASHBYTES")),
            _ => {
                return Err(fault(195, 15, format!("'{name}' is not a recognized built-in function name."))
                    .reaching(super::super::errors::Reach::Batch));
            }
        })
    }
}

/// A moment as units of 100 ns; a `datetimeoffset` as UTC, whose differences are the same.
fn ticks(bound: &Bound) -> String {
    match bound.sql_type {
        SqlType::DateTimeOffset(_) => {
            format!("cv({}, {}, {}, 0)", bound.sql, types::code(bound.sql_type), types::code(SqlType::DateTime2(7)))
        }
        sql_type if types::is_time(sql_type) => bound.sql.clone(),
        SqlType::Int => coerce(bound, SqlType::DateTime),
        _ => coerce(bound, SqlType::DateTime2(7)),
    }
}
