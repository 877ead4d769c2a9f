//! SELECT.

use super::super::ast::{Expr, Item, Order, Query, Select, SetExpr};
use super::super::catalog::same;
use super::super::errors::{Result, fault};
use super::super::types;
use super::{Binder, Bound, Source, SourceColumn, coerce, comparable};
use crate::value::SqlType;

/// A column of a query.
#[derive(Debug, Clone)]
pub(crate) struct OutColumn {
    pub name: String,
    pub sql_type: SqlType,
    pub nullable: bool,
    pub identity: bool,
    pub(super) untyped: bool,
}

/// A query in SQLite's language; its columns are named `k1`, `k2`, ...
#[derive(Debug, Clone)]
pub(crate) struct BoundQuery {
    pub sql: String,
    pub columns: Vec<OutColumn>,
    /// For `SELECT @v = ...`: the variable of each column.
    pub assigns: Vec<String>,
}

impl Binder<'_> {
    /// A query with its CTEs, order and limit.
    pub(crate) fn query(&mut self, query: &Query) -> Result<BoundQuery> {
        let ctes_before = self.ctes.len();
        let with = self.with(&query.ctes)?;
        let mut bound = match &query.body {
            SetExpr::Select(select) => self.select(select, &query.order, query)?,
            body => {
                let mut bound = self.set_expr(body)?;
                let order = self.set_order(&query.order, &bound)?;
                let limit = self.limit(query, None)?;
                if !order.is_empty() || !limit.is_empty() {
                    bound.sql = format!("SELECT * FROM ({}){order}{limit}", bound.sql);
                }
                bound
            }
        };
        self.ctes.truncate(ctes_before);
        if !with.is_empty() {
            bound.sql = format!("{with}{}", bound.sql);
        }
        Ok(bound)
    }

    // The clauses of a SELECT, in the order in which SQL binds them.
    pub(super) fn select(&mut self, select: &Select, order: &[Order], query: &Query) -> Result<BoundQuery> {
        self.scopes.push(Vec::new());
        let saved = (
            std::mem::take(&mut self.ungrouped),
            std::mem::take(&mut self.grouped),
            std::mem::replace(&mut self.aggregates, 0),
            std::mem::replace(&mut self.in_aggregate, false),
        );
        let result = self.select_in_scope(select, order, query);
        (self.ungrouped, self.grouped, self.aggregates, self.in_aggregate) = saved;
        self.scopes.pop();
        result
    }

    fn select_in_scope(&mut self, select: &Select, order: &[Order], query: &Query) -> Result<BoundQuery> {
        let from =
            if select.from.is_empty() { String::new() } else { format!(" FROM {}", self.sources(&select.from)?) };
        let filter = match &select.filter {
            Some(filter) => format!(" WHERE {}", self.predicate(filter)?),
            None => String::new(),
        };
        if self.aggregates > 0 {
            return Err(fault(147, 15, "An aggregate may not appear in the WHERE clause."));
        }
        let mut group = Vec::new();
        for expr in &select.group {
            let bound = self.value(expr)?;
            self.grouped.push(bound.sql.clone());
            group.push(comparable(bound.sql, bound.sql_type));
        }
        self.ungrouped.clear();
        let mut columns = Vec::new();
        let mut cells: Vec<(String, SqlType)> = Vec::new();
        let mut assigns = Vec::new();
        for item in &select.items {
            match item {
                Item::Star => {
                    if select.from.is_empty() {
                        return Err(fault(263, 16, "Must specify table to select from."));
                    }
                    let sources = self.scopes.last().cloned().unwrap_or_default();
                    for source in &sources {
                        self.star(source, &mut columns, &mut cells);
                    }
                }
                Item::QualifiedStar(name) => {
                    let source = self
                        .scopes
                        .last()
                        .and_then(|scope| scope.iter().find(|source| same(&source.alias, name.last())));
                    let Some(source) = source.cloned() else {
                        return Err(fault(
                            107,
                            15,
                            format!(
                                "The column prefix '{name}' does not match with a table name or alias name used in the query."
                            ),
                        ));
                    };
                    self.star(&source, &mut columns, &mut cells);
                }
                Item::Expr { expr, alias } => {
                    let bound = self.value(expr)?;
                    let name = match (alias, expr) {
                        (Some(alias), _) => alias.clone(),
                        (None, Expr::Column(name)) => self.column_name(name),
                        _ => String::new(),
                    };
                    columns.push(out(name, &bound));
                    cells.push((bound.sql, bound.sql_type));
                }
                Item::Assign { variable, op, expr } => {
                    let Some(to) = self.env.variables.get(variable).copied() else {
                        return Err(undeclared(variable));
                    };
                    let bound = match op {
                        Some(op) => {
                            let whole = Expr::Arithmetic(
                                *op,
                                Box::new(Expr::Variable(variable.clone())),
                                Box::new(expr.clone()),
                            );
                            self.value(&whole)?
                        }
                        None => self.value(expr)?,
                    };
                    columns.push(OutColumn { sql_type: to, ..out(String::new(), &bound) });
                    cells.push((coerce(&bound, to), to));
                    assigns.push(variable.clone());
                }
            }
        }
        if !assigns.is_empty() && assigns.len() != columns.len() {
            return Err(fault(
                141,
                15,
                "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.",
            ));
        }
        let having = match &select.having {
            Some(having) => format!(" HAVING {}", self.predicate(having)?),
            None => String::new(),
        };
        let distinct = if select.distinct { "DISTINCT " } else { "" };
        let order = self.order(order, &columns, &cells)?;
        if (self.aggregates > 0 || !group.is_empty())
            && let Some((_, name)) = self.ungrouped.first()
        {
            return Err(fault(
                8120,
                16,
                format!(
                    "Column '{name}' is invalid in the select list because it is not contained in either an aggregate \
                     function or the GROUP BY clause."
                ),
            ));
        }
        let list = cells
            .iter()
            .enumerate()
            .map(|(at, (sql, sql_type))| {
                let sql = if select.distinct && types::is_text(*sql_type) {
                    format!("{sql} COLLATE CI")
                } else {
                    sql.clone()
                };
                format!("{sql} AS k{}", at + 1)
            })
            .collect::<Vec<_>>()
            .join(", ");
        let group = if group.is_empty() { String::new() } else { format!(" GROUP BY {}", group.join(", ")) };
        let limit = self.limit(query, select.top.as_ref())?;
        let sql = format!("SELECT {distinct}{list}{from}{filter}{group}{having}{order}{limit}");
        Ok(BoundQuery { sql, columns, assigns })
    }

    /// A list of items over sources that are in scope already.
    pub(super) fn items(&mut self, items: &[Item], from: &str) -> Result<BoundQuery> {
        let (mut columns, mut cells) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::QualifiedStar(name) => {
                    let source = self
                        .scopes
                        .last()
                        .and_then(|scope| scope.iter().find(|source| same(&source.alias, name.last())));
                    let Some(source) = source.cloned() else { return Err(super::super::errors::syntax("*")) };
                    self.star(&source, &mut columns, &mut cells);
                }
                Item::Expr { expr, alias } => {
                    let bound = self.value(expr)?;
                    let name = match (alias, expr) {
                        (Some(alias), _) => alias.clone(),
                        (None, Expr::Column(name)) => self.column_name(name),
                        _ => String::new(),
                    };
                    columns.push(out(name, &bound));
                    cells.push((bound.sql, bound.sql_type));
                }
                Item::Star | Item::Assign { .. } => return Err(super::super::errors::syntax("*")),
            }
        }
        let list = cells
            .iter()
            .enumerate()
            .map(|(at, (sql, _))| format!("{sql} AS k{}", at + 1))
            .collect::<Vec<_>>()
            .join(", ");
        Ok(BoundQuery { sql: format!("SELECT {list} FROM {from}"), columns, assigns: Vec::new() })
    }

    fn star(&mut self, source: &Source, columns: &mut Vec<OutColumn>, cells: &mut Vec<(String, SqlType)>) {
        for column in &source.columns {
            columns.push(OutColumn {
                name: column.name.clone(),
                sql_type: column.sql_type,
                nullable: column.nullable,
                identity: column.identity,
                untyped: false,
            });
            if !self.grouped.contains(&column.sql) {
                self.ungrouped.push((self.scopes.len(), format!("{}.{}", source.alias, column.name)));
            }
            cells.push((column.sql.clone(), column.sql_type));
        }
    }

    /// The name as the catalogue spells it.
    fn column_name(&self, name: &super::super::ast::Name) -> String {
        self.scopes
            .iter()
            .rev()
            .flatten()
            .flat_map(|source| &source.columns)
            .find(|column| same(&column.name, name.last()))
            .map_or_else(|| name.last().to_owned(), |column| column.name.clone())
    }

    fn order(&mut self, order: &[Order], columns: &[OutColumn], cells: &[(String, SqlType)]) -> Result<String> {
        let mut parts = Vec::new();
        for item in order {
            let alias = match &item.expr {
                Expr::Column(name) if name.0.len() == 1 => {
                    columns.iter().position(|column| same(&column.name, name.last()))
                }
                Expr::Integer(digits) => match digits.parse::<usize>() {
                    Ok(place) if (1..=columns.len()).contains(&place) => Some(place - 1),
                    _ => {
                        return Err(fault(
                            108,
                            15,
                            format!(
                                "The ORDER BY position number {digits} is out of range of the number of items in the select list."
                            ),
                        ));
                    }
                },
                _ => None,
            };
            let (sql, sql_type) = match alias {
                Some(at) => cells[at].clone(),
                None => {
                    let bound = self.value(&item.expr)?;
                    (bound.sql, bound.sql_type)
                }
            };
            // A constant would be read as a place in the list.
            let constant = sql.starts_with('?') || sql.parse::<f64>().is_ok();
            let sql = if constant { format!("({sql} + 0)") } else { comparable_order(sql, sql_type) };
            parts.push(if item.descending { format!("{sql} DESC") } else { sql });
        }
        Ok(if parts.is_empty() { String::new() } else { format!(" ORDER BY {}", parts.join(", ")) })
    }

    /// The order of a set operation: by its columns only.
    fn set_order(&mut self, order: &[Order], bound: &BoundQuery) -> Result<String> {
        let cells: Vec<_> =
            bound.columns.iter().enumerate().map(|(at, column)| (format!("k{}", at + 1), column.sql_type)).collect();
        let columns = bound
            .columns
            .iter()
            .zip(&cells)
            .map(|(column, (sql, sql_type))| SourceColumn {
                name: column.name.clone(),
                sql: sql.clone(),
                sql_type: *sql_type,
                nullable: column.nullable,
                identity: false,
            })
            .collect();
        let source = Source { alias: String::new(), handle: String::new(), schema: None, columns, table: None };
        self.scopes.push(vec![source]);
        let text = self.order(order, &bound.columns, &cells);
        self.scopes.pop();
        text
    }

    fn limit(&mut self, query: &Query, top: Option<&Expr>) -> Result<String> {
        let mut count = |expr: &Expr| -> Result<String> {
            let bound = self.value(expr)?;
            Ok(format!("toprows({})", coerce(&bound, SqlType::BigInt)))
        };
        let limit = match (top, &query.fetch) {
            (Some(top), _) => Some(count(top)?),
            (None, Some(fetch)) => Some(count(fetch)?),
            (None, None) => None,
        };
        let offset = query.offset.as_ref().map(&mut count).transpose()?;
        Ok(match (limit, offset) {
            (None, None) => String::new(),
            (Some(limit), None) => format!(" LIMIT {limit}"),
            (limit, Some(offset)) => format!(" LIMIT {} OFFSET {offset}", limit.unwrap_or_else(|| "-1".to_owned())),
        })
    }
}

fn comparable_order(sql: String, sql_type: SqlType) -> String {
    if types::is_text(sql_type) { format!("{sql} COLLATE CI") } else { sql }
}

pub(super) fn undeclared(variable: &str) -> Box<super::super::errors::Fault> {
    fault(137, 15, format!("Must declare the scalar variable \"{variable}\".")).state(2)
}

fn out(name: String, bound: &Bound) -> OutColumn {
    OutColumn {
        name,
        sql_type: bound.sql_type,
        nullable: bound.nullable,
        identity: bound.identity,
        untyped: bound.untyped,
    }
}
