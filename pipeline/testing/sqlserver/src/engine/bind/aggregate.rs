//! Aggregates and window functions.

use super::super::ast::{Expr, Order, Window};
use super::super::errors::{Result, fault, unsupported};
use super::super::types;
use super::{Binder, Bound, coerce, comparable};
use crate::value::SqlType;

const AGGREGATES: &[&str] = &["COUNT", "COUNT_BIG", "SUM", "AVG", "MIN", "MAX", "STRING_AGG"];
const RANKING: &[&str] = &["ROW_NUMBER", "RANK", "DENSE_RANK", "NTILE", "LAG", "LEAD", "FIRST_VALUE", "LAST_VALUE"];

/// Whether a function of that name sums up rows.
pub(super) fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name)
}

pub(super) fn is_ranking(name: &str) -> bool {
    RANKING.contains(&name)
}

impl Binder<'_> {
    /// An aggregate, in a group or over a window.
    pub(super) fn aggregate(
        &mut self,
        name: &str,
        args: &[Expr],
        star: bool,
        distinct: bool,
        within: &[Order],
        over: Option<&Window>,
    ) -> Result<Bound> {
        let windowed = over.is_some();
        if !windowed {
            if self.in_aggregate {
                return Err(fault(
                    130,
                    16,
                    "Cannot perform an aggregate function on an expression containing an aggregate or a subquery.",
                ));
            }
            self.aggregates += 1;
            self.in_aggregate = true;
        }
        let bound = self.aggregate_of(name, args, star, distinct, within);
        if !windowed {
            self.in_aggregate = false;
        }
        let mut bound = bound?;
        if let Some(over) = over {
            let window = self.window(over)?;
            // The function is the outermost call of the text.
            bound.sql = match bound.sql.strip_prefix("CAST(").and_then(|rest| rest.strip_suffix(" AS INTEGER)")) {
                Some(_) => return Err(unsupported("AVG of integers over a window")),
                None => format!("{} OVER {window}", bound.sql),
            };
        }
        Ok(bound)
    }

    fn aggregate_of(
        &mut self,
        name: &str,
        args: &[Expr],
        star: bool,
        distinct: bool,
        within: &[Order],
    ) -> Result<Bound> {
        if star {
            let sql_type = if name == "COUNT_BIG" { SqlType::BigInt } else { SqlType::Int };
            return Ok(Bound::new("count(*)", sql_type, false));
        }
        let Some(arg) = args.first() else {
            return Err(fault(174, 15, format!("The {} function requires 1 argument(s).", name.to_lowercase())));
        };
        let arg = self.value(arg)?;
        let word = if distinct { "DISTINCT " } else { "" };
        let sql = comparable(arg.sql.clone(), arg.sql_type);
        let invalid = || {
            fault(
                8117,
                16,
                format!(
                    "Operand data type {} is invalid for {} operator.",
                    types::name(arg.sql_type),
                    name.to_lowercase()
                ),
            )
        };
        Ok(match name {
            "COUNT" => Bound::new(format!("count({word}{sql})"), SqlType::Int, false),
            "COUNT_BIG" => Bound::new(format!("count({word}{sql})"), SqlType::BigInt, false),
            "MIN" | "MAX" => {
                Bound::new(format!("{}({})", name.to_lowercase(), comparable_whole(&arg)), arg.sql_type, true)
            }
            "STRING_AGG" => {
                let separator =
                    args.get(1).ok_or_else(|| fault(174, 15, "The string_agg function requires 2 argument(s)."))?;
                let separator = self.text(separator)?;
                let text = coerce(
                    &arg,
                    if types::is_text(arg.sql_type) { arg.sql_type } else { SqlType::NVarChar(Some(4000)) },
                );
                let mut order = String::new();
                for item in within {
                    let by = self.value(&item.expr)?;
                    order.push_str(if order.is_empty() { " ORDER BY " } else { ", " });
                    order.push_str(&comparable(by.sql, by.sql_type));
                    order.push_str(if item.descending { " DESC" } else { "" });
                }
                let sql_type =
                    if types::is_max(arg.sql_type) { SqlType::NVarChar(None) } else { SqlType::NVarChar(Some(4000)) };
                Bound::new(format!("group_concat({text}, {separator}{order})"), sql_type, true)
            }
            "SUM" | "AVG" => match arg.sql_type {
                SqlType::Float | SqlType::Real => {
                    Bound::new(format!("{}({word}{sql})", name.to_lowercase()), SqlType::Float, true)
                }
                SqlType::BigInt | SqlType::Int | SqlType::SmallInt | SqlType::TinyInt => {
                    let sql_type = if arg.sql_type == SqlType::BigInt { SqlType::BigInt } else { SqlType::Int };
                    let sql = if name == "SUM" {
                        format!("sum({word}{sql})")
                    } else {
                        format!("CAST(sum({word}{sql}) / count({word}{sql}) AS INTEGER)")
                    };
                    Bound::new(sql, sql_type, true)
                }
                sql_type => {
                    let Some((_, scale)) = types::decimal(sql_type) else { return Err(invalid()) };
                    let out = if matches!(sql_type, SqlType::Money) {
                        SqlType::Money
                    } else if name == "SUM" {
                        SqlType::Decimal(38, scale)
                    } else {
                        SqlType::Decimal(38, scale.max(6))
                    };
                    let function = if name == "SUM" { "decsum" } else { "decavg" };
                    Bound::new(format!("{function}({word}{sql}, {scale}, {})", types::code(out)), out, true)
                }
            },
            _ => return Err(unsupported(format!("the aggregate {name}"))),
        })
    }

    fn window(&mut self, window: &Window) -> Result<String> {
        let mut parts = Vec::new();
        if !window.partition.is_empty() {
            let mut list = Vec::new();
            for expr in &window.partition {
                let bound = self.value(expr)?;
                list.push(comparable(bound.sql, bound.sql_type));
            }
            parts.push(format!("PARTITION BY {}", list.join(", ")));
        }
        if !window.order.is_empty() {
            let mut list = Vec::new();
            for item in &window.order {
                let bound = self.value(&item.expr)?;
                list.push(format!(
                    "{}{}",
                    comparable(bound.sql, bound.sql_type),
                    if item.descending { " DESC" } else { "" }
                ));
            }
            parts.push(format!("ORDER BY {}", list.join(", ")));
        }
        if let Some(frame) = &window.frame {
            parts.push(frame.clone());
        }
        Ok(format!("({})", parts.join(" ")))
    }

    /// `ROW_NUMBER() OVER (...)` and its like.
    pub(super) fn ranking(&mut self, name: &str, args: &[Expr], over: Option<&Window>) -> Result<Bound> {
        let Some(over) = over else {
            return Err(fault(10753, 15, format!("The function '{name}' must have an OVER clause.")));
        };
        if over.order.is_empty() {
            return Err(fault(4112, 15, format!("The function '{name}' must have an OVER clause with ORDER BY.")));
        }
        let window = self.window(over)?;
        let function = name.to_lowercase();
        match name {
            "ROW_NUMBER" | "RANK" | "DENSE_RANK" => {
                Ok(Bound::new(format!("{function}() OVER {window}"), SqlType::BigInt, true))
            }
            _ => {
                let bounds = args.iter().map(|arg| self.value(arg)).collect::<Result<Vec<_>>>()?;
                let list = bounds.iter().map(|bound| bound.sql.clone()).collect::<Vec<_>>().join(", ");
                let sql_type = match bounds.first() {
                    Some(first) if name != "NTILE" => first.sql_type,
                    _ => SqlType::BigInt,
                };
                Ok(Bound::new(format!("{function}({list}) OVER {window}"), sql_type, true))
            }
        }
    }
}

/// For MIN and MAX: the collation decides for text; other types compare as they are kept.
fn comparable_whole(bound: &Bound) -> String {
    if types::is_text(bound.sql_type) { format!("{} COLLATE CI", bound.sql) } else { bound.sql.clone() }
}
