//! Expressions and conditions.

use super::super::ast::{Expr, Name, TypeName};
use super::super::catalog::same;
use super::super::errors::{Result, fault, syntax, unknown_column, unsupported};
use super::super::types;
use super::operators::{arithmetic, compare, decimal_literal, float_literal};
use super::query::undeclared;
use super::{Binder, Bound, Parameter, SourceColumn, coerce, comparable, quote};
use crate::value::SqlType;

impl Binder<'_> {
    /// An expression that is a value.
    pub(crate) fn value(&mut self, expr: &Expr) -> Result<Bound> {
        let before = self.ungrouped.len();
        let bound = self.any(expr)?;
        if bound.condition {
            return Err(syntax("="));
        }
        if self.grouped.contains(&bound.sql) {
            self.ungrouped.truncate(before);
        }
        Ok(bound)
    }

    /// An expression that is a condition, as SQLite's truth value.
    pub(crate) fn predicate(&mut self, expr: &Expr) -> Result<String> {
        let bound = self.any(expr)?;
        if !bound.condition {
            return Err(fault(
                4145,
                15,
                "An expression of non-boolean type specified in a context where a condition is expected.",
            )
            .reaching(super::super::errors::Reach::Batch));
        }
        Ok(bound.sql)
    }

    // One arm for each kind of expression.
    fn any(&mut self, expr: &Expr) -> Result<Bound> {
        Ok(match expr {
            Expr::Null => Bound { untyped: true, ..Bound::new("NULL", SqlType::Int, true) },
            Expr::Default => return Err(syntax("DEFAULT")),
            Expr::Integer(digits) => match digits.parse::<i64>() {
                Ok(number) if i32::try_from(number).is_ok() => Bound::new(digits.clone(), SqlType::Int, false),
                _ => decimal_literal(digits)?,
            },
            Expr::Number(digits) => decimal_literal(digits)?,
            Expr::Float(number) => Bound::new(float_literal(*number), SqlType::Float, false),
            Expr::Text { text, national } => {
                let length = u16::try_from(text.encode_utf16().count().max(1)).unwrap_or(u16::MAX);
                let sql_type = if *national {
                    SqlType::NVarChar((length <= 4000).then_some(length))
                } else {
                    SqlType::VarChar((length <= 8000).then_some(length))
                };
                Bound::new(quote(text), sql_type, false)
            }
            Expr::Bytes(bytes) => {
                let length = u16::try_from(bytes.len().max(1)).ok().filter(|length| *length <= 8000);
                Bound::new(format!("x'{}'", super::super::convert::hex(bytes)), SqlType::VarBinary(length), false)
            }
            Expr::Variable(name) => self.variable(name)?,
            Expr::Column(name) => self.column(name)?,
            Expr::Negate(inner) => self.negate(inner)?,
            Expr::BitNot(inner) => {
                let inner = self.value(inner)?;
                if !types::is_integer(inner.sql_type) {
                    return Err(fault(
                        8117,
                        16,
                        format!("Operand data type {} is invalid for '~' operator.", types::name(inner.sql_type)),
                    ));
                }
                if inner.sql_type == SqlType::Bit {
                    Bound { sql: format!("(1 - {})", inner.sql), ..inner }
                } else {
                    Bound { sql: format!("(~{})", inner.sql), ..inner }
                }
            }
            Expr::Arithmetic(op, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                arithmetic(*op, &left, &right)?
            }
            Expr::Compare(op, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                Bound::condition(compare(op, &left, &right)?)
            }
            Expr::And(left, right) => {
                Bound::condition(format!("({} AND {})", self.predicate(left)?, self.predicate(right)?))
            }
            Expr::Or(left, right) => {
                Bound::condition(format!("({} OR {})", self.predicate(left)?, self.predicate(right)?))
            }
            Expr::Not(inner) => Bound::condition(format!("(NOT {})", self.predicate(inner)?)),
            Expr::IsNull(inner, not) => {
                let inner = self.value(inner)?;
                Bound::condition(format!("({} IS {}NULL)", inner.sql, if *not { "NOT " } else { "" }))
            }
            Expr::Between { value, low, high, not } => {
                let (value, low, high) = (self.value(value)?, self.value(low)?, self.value(high)?);
                let text = format!("({} AND {})", compare(">=", &value, &low)?, compare("<=", &value, &high)?);
                Bound::condition(if *not { format!("(NOT {text})") } else { text })
            }
            Expr::In { value, list, not } => self.in_list(value, list, *not)?,
            Expr::InQuery { value, query, not } => {
                let value = self.value(value)?;
                let query = self.query(query)?;
                let column = one_column(&query.columns)?;
                let common = types::common(value.sql_type, column);
                let inner = coerce(&Bound::new("k1", column, true), common);
                let inner = if inner == "k1" { query.sql } else { format!("SELECT {inner} FROM ({})", query.sql) };
                let value = comparable(coerce(&value, common), common);
                Bound::condition(format!("({value} {}IN ({inner}))", if *not { "NOT " } else { "" }))
            }
            Expr::Exists(query) => {
                let query = self.query(query)?;
                Bound::condition(format!("EXISTS ({})", query.sql))
            }
            Expr::Quantified { op, value, all, query } => self.quantified(op, value, *all, query)?,
            Expr::Like { value, pattern, escape, not } => {
                let (value, pattern) = (self.text(value)?, self.text(pattern)?);
                let escape = match escape {
                    Some(escape) => self.text(escape)?,
                    None => "NULL".to_owned(),
                };
                Bound::condition(format!("({}tlike({value}, {pattern}, {escape}))", if *not { "NOT " } else { "" }))
            }
            Expr::Case { operand, whens, otherwise } => self.case(operand.as_deref(), whens, otherwise.as_deref())?,
            Expr::Cast { value, to, style, attempt } => self.cast(value, to, style.as_deref(), *attempt)?,
            Expr::Call { name, args, star, distinct, within, over } => {
                self.call(name, args, *star, *distinct, within, over.as_ref())?
            }
            Expr::Updated(column) => {
                let Some(trigger) = self.env.trigger else {
                    return Err(fault(154, 15, "A UPDATE function can only be used in a CREATE TRIGGER statement."));
                };
                let column = trigger.table.column(column).ok_or_else(|| unknown_column(column))?;
                Bound::condition(if trigger.updated.contains(&column.id) { "(1 = 1)" } else { "(1 = 0)" }.to_owned())
            }
            Expr::Query(query) => {
                let query = self.query(query)?;
                let sql_type = one_column(&query.columns)?;
                Bound::new(format!("({})", query.sql), sql_type, true)
            }
            Expr::Collate(inner, collation) => {
                let inner = self.value(inner)?;
                let upper = collation.to_uppercase();
                if upper.contains("_BIN") || upper.contains("_CS") {
                    return Err(unsupported(format!("the collation {collation}: text compares without case here")));
                }
                inner
            }
        })
    }

    /// An expression as text.
    pub(super) fn text(&mut self, expr: &Expr) -> Result<String> {
        let bound = self.value(expr)?;
        let to = if types::is_text(bound.sql_type) { bound.sql_type } else { SqlType::NVarChar(None) };
        Ok(coerce(&bound, to))
    }

    fn variable(&mut self, name: &str) -> Result<Bound> {
        if let Some(global) = name.strip_prefix("@@") {
            return self.global(global);
        }
        let Some(sql_type) = self.env.variables.get(name).copied() else {
            return Err(undeclared(name));
        };
        let sql = self.parameter(Parameter::Variable(name.to_owned()), sql_type);
        Ok(Bound::new(sql, sql_type, true))
    }

    /// A value of the session.
    pub(super) fn system(&mut self, name: &'static str, sql_type: SqlType, nullable: bool) -> Bound {
        let sql = self.parameter(Parameter::System(name), sql_type);
        Bound::new(sql, sql_type, nullable)
    }

    fn global(&mut self, name: &str) -> Result<Bound> {
        let found = match name {
            "rowcount" => ("ROWCOUNT", SqlType::Int),
            "trancount" => ("TRANCOUNT", SqlType::Int),
            "error" => ("ERROR", SqlType::Int),
            "identity" => ("IDENTITY", SqlType::Decimal(38, 0)),
            "spid" => ("SPID", SqlType::SmallInt),
            "version" => ("VERSION", SqlType::NVarChar(Some(300))),
            "servername" => ("SERVERNAME", SqlType::NVarChar(Some(128))),
            "servicename" => ("SERVICENAME", SqlType::NVarChar(Some(128))),
            "lock_timeout" => ("LOCK_TIMEOUT", SqlType::Int),
            "nestlevel" => ("NESTLEVEL", SqlType::Int),
            "procid" => ("PROCID", SqlType::Int),
            "options" => ("OPTIONS", SqlType::Int),
            "datefirst" => ("DATEFIRST", SqlType::TinyInt),
            "max_precision" => ("MAX_PRECISION", SqlType::TinyInt),
            "microsoftversion" => ("MICROSOFTVERSION", SqlType::Int),
            "language" => ("LANGUAGE", SqlType::NVarChar(Some(128))),
            "textsize" => ("TEXTSIZE", SqlType::Int),
            "fetch_status" => ("FETCH_STATUS", SqlType::Int),
            "dbts" => ("DBTS", SqlType::VarBinary(Some(8))),
            _ => return Err(undeclared(&format!("@@{name}"))),
        };
        Ok(self.system(found.0, found.1, false))
    }

    pub(super) fn column(&mut self, name: &Name) -> Result<Bound> {
        let qualifier = (name.0.len() > 1).then(|| &name.0[name.0.len() - 2]);
        let depth = self.scopes.len();
        for (level, scope) in self.scopes.iter().enumerate().rev() {
            let mut found: Option<(&SourceColumn, &str)> = None;
            let mut known_source = false;
            for source in scope {
                if let Some(qualifier) = qualifier {
                    let schema = name.0.len().checked_sub(3).map(|at| name.0[at].as_str());
                    if !same(&source.alias, qualifier)
                        || schema.is_some_and(|schema| source.schema.as_deref().is_none_or(|own| !same(own, schema)))
                    {
                        continue;
                    }
                    known_source = true;
                }
                for column in source.columns.iter().filter(|column| same(&column.name, name.last())) {
                    if found.is_some() {
                        return Err(fault(209, 16, format!("Ambiguous column name '{}'.", name.last())));
                    }
                    found = Some((column, &source.alias));
                }
            }
            if let Some((column, alias)) = found {
                let bound = Bound {
                    identity: column.identity,
                    ..Bound::new(column.sql.clone(), column.sql_type, column.nullable)
                };
                if level + 1 == depth && !self.in_aggregate && !self.grouped.contains(&bound.sql) {
                    let shown = format!("{alias}.{}", column.name);
                    self.ungrouped.push((depth, shown));
                }
                return Ok(bound);
            }
            if known_source {
                return Err(unknown_column(name.last()));
            }
        }
        if qualifier.is_some() {
            return Err(fault(4104, 16, format!("The multi-part identifier \"{name}\" could not be bound.")));
        }
        Err(unknown_column(name.last()))
    }

    fn negate(&mut self, inner: &Expr) -> Result<Bound> {
        if let Expr::Integer(digits) | Expr::Number(digits) = inner
            && (matches!(inner, Expr::Number(_)) || digits.parse::<i32>().is_err())
        {
            return decimal_literal(&format!("-{digits}"));
        }
        let bound = self.value(inner)?;
        if types::decimal(bound.sql_type).is_some() {
            return Ok(Bound { sql: format!("decneg({})", bound.sql), ..bound });
        }
        if !types::is_integer(bound.sql_type) && !types::is_float(bound.sql_type) {
            return Err(fault(
                8117,
                16,
                format!("Operand data type {} is invalid for minus operator.", types::name(bound.sql_type)),
            ));
        }
        Ok(Bound { sql: format!("(-{})", bound.sql), identity: false, ..bound })
    }

    fn in_list(&mut self, value: &Expr, list: &[Expr], not: bool) -> Result<Bound> {
        let value = self.value(value)?;
        let list = list.iter().map(|item| self.value(item)).collect::<Result<Vec<_>>>()?;
        let typed = list.iter().filter(|item| !item.untyped).map(|item| item.sql_type);
        let common = typed.fold(value.sql_type, types::common);
        let items = list.iter().map(|item| coerce(item, common)).collect::<Vec<_>>().join(", ");
        let value = comparable(coerce(&value, common), common);
        let items = if matches!(common, SqlType::DateTimeOffset(_)) {
            list.iter().map(|item| comparable(coerce(item, common), common)).collect::<Vec<_>>().join(", ")
        } else {
            items
        };
        Ok(Bound::condition(format!("({value} {}IN ({items}))", if not { "NOT " } else { "" })))
    }

    fn quantified(
        &mut self,
        op: &'static str,
        value: &Expr,
        all: bool,
        query: &super::super::ast::Query,
    ) -> Result<Bound> {
        let value = self.value(value)?;
        let query = self.query(query)?;
        let column = one_column(&query.columns)?;
        let inner = Bound::new("q.k1", column, true);
        let test = compare(op, &value, &inner)?;
        Ok(Bound::condition(if all {
            format!("(NOT EXISTS (SELECT 1 FROM ({}) AS q WHERE NOT {test}))", query.sql)
        } else {
            format!("EXISTS (SELECT 1 FROM ({}) AS q WHERE {test})", query.sql)
        }))
    }

    fn case(&mut self, operand: Option<&Expr>, whens: &[(Expr, Expr)], otherwise: Option<&Expr>) -> Result<Bound> {
        let operand = operand.map(|operand| self.value(operand)).transpose()?;
        let mut branches = Vec::new();
        for (when, then) in whens {
            let condition = match &operand {
                Some(operand) => {
                    let when = self.value(when)?;
                    compare("=", operand, &when)?
                }
                None => self.predicate(when)?,
            };
            branches.push((condition, self.value(then)?));
        }
        let otherwise = otherwise.map(|otherwise| self.value(otherwise)).transpose()?;
        let results = branches.iter().map(|(_, then)| then).chain(otherwise.as_ref());
        let Some(sql_type) =
            results.clone().filter(|then| !then.untyped).map(|then| then.sql_type).reduce(types::common)
        else {
            return Err(fault(
                8133,
                16,
                "At least one of the result expressions in a CASE specification must be an expression other than the NULL constant.",
            ));
        };
        let nullable = otherwise.is_none() || results.clone().any(|then| then.nullable);
        let mut text = String::from("(CASE");
        for (condition, then) in &branches {
            text.push_str(&format!(" WHEN {condition} THEN {}", coerce(then, sql_type)));
        }
        if let Some(otherwise) = &otherwise {
            text.push_str(&format!(" ELSE {}", coerce(otherwise, sql_type)));
        }
        text.push_str(" END)");
        Ok(Bound::new(text, sql_type, nullable))
    }

    /// The type of a name: of the system, or the user's own.
    pub(crate) fn resolve_type(&self, name: &TypeName) -> Result<SqlType> {
        resolve_type(self.env.catalog, name)
    }

    fn cast(&mut self, value: &Expr, to: &TypeName, style: Option<&Expr>, attempt: bool) -> Result<Bound> {
        // In a cast a length that is not said is 30.
        let to = match (self.resolve_type(to)?, to) {
            (SqlType::VarChar(Some(1)), TypeName::Known(_)) => SqlType::VarChar(Some(30)),
            (SqlType::NVarChar(Some(1)), TypeName::Known(_)) => SqlType::NVarChar(Some(30)),
            (SqlType::VarBinary(Some(1)), TypeName::Known(_)) => SqlType::VarBinary(Some(30)),
            (to, _) => to,
        };
        let bound = self.value(value)?;
        let style = match style {
            Some(style) => {
                let style = self.value(style)?;
                coerce(&style, SqlType::Int)
            }
            None => "0".to_owned(),
        };
        if bound.untyped {
            return Ok(Bound::new("NULL", to, true));
        }
        let function = if attempt { "tcv" } else { "cv" };
        let sql = if bound.sql_type == to && style == "0" {
            bound.sql
        } else {
            format!("{function}({}, {}, {}, {style})", bound.sql, types::code(bound.sql_type), types::code(to))
        };
        Ok(Bound::new(sql, to, bound.nullable || attempt))
    }
}

/// `rowversion`, a number that every write of a row makes greater.
pub(crate) fn is_rowversion(name: &Name) -> bool {
    same(name.last(), "rowversion") || same(name.last(), "timestamp")
}

pub(crate) fn resolve_type(catalog: &super::Catalog, name: &TypeName) -> Result<SqlType> {
    match name {
        TypeName::Known(sql_type) => Ok(*sql_type),
        TypeName::Named(name) if is_rowversion(name) => Ok(SqlType::Binary(8)),
        TypeName::Named(name) => catalog
            .types
            .iter()
            .find(|known| {
                same(&known.name, name.last()) && name.schema().is_none_or(|schema| same(schema, &known.schema))
            })
            .map(|known| known.base)
            .ok_or_else(|| {
                fault(2715, 16, format!("Column, parameter, or variable #1: Cannot find data type {name}."))
            }),
    }
}

fn one_column(columns: &[super::query::OutColumn]) -> Result<SqlType> {
    match columns {
        [column] => Ok(column.sql_type),
        _ => Err(fault(
            116,
            16,
            "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
        )),
    }
}
