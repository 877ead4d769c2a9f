//! WITH, UNION and its like, VALUES.

use super::super::ast::{Expr, Query, SetExpr};
use super::super::errors::{Result, fault};
use super::super::types;
use super::query::{BoundQuery, OutColumn};
use super::{Binder, Bound, VisibleCte, coerce};
use crate::value::SqlType;

pub(super) fn named(columns: &[OutColumn], names: &[String]) -> Vec<OutColumn> {
    let mut columns = columns.to_vec();
    for (column, name) in columns.iter_mut().zip(names) {
        column.name.clone_from(name);
    }
    columns
}

/// A part of a set operation, its columns as the types of the whole.
pub(super) fn cast(part: &BoundQuery, columns: &[OutColumn]) -> String {
    let bounds: Vec<_> = part
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| Bound {
            untyped: column.untyped,
            ..Bound::new(format!("k{}", at + 1), column.sql_type, true)
        })
        .collect();
    let casts: Vec<_> = bounds.iter().zip(columns).map(|(bound, column)| coerce(bound, column.sql_type)).collect();
    let text = columns.iter().any(|column| types::is_text(column.sql_type));
    if !text && casts.iter().zip(&bounds).all(|(cast, bound)| *cast == bound.sql) {
        return part.sql.clone();
    }
    let list = casts
        .iter()
        .zip(columns)
        .enumerate()
        .map(|(at, (cast, column))| {
            let collate = if types::is_text(column.sql_type) { " COLLATE CI" } else { "" };
            format!("{cast}{collate} AS k{}", at + 1)
        })
        .collect::<Vec<_>>()
        .join(", ");
    format!("SELECT {list} FROM ({})", part.sql)
}

/// The two parts of a recursive CTE.
pub(super) fn anchor(query: &Query) -> Option<(&SetExpr, &SetExpr, &'static str)> {
    match &query.body {
        SetExpr::Operation { op, left, right } if *op == "UNION ALL" => Some((left, right, op)),
        _ => None,
    }
}

pub(super) fn mentions(query: &Query, name: &str) -> bool {
    // The tree's own rendering is enough to see whether the name is used as a table.
    let text = format!("{:?}", query.body).to_lowercase();
    text.contains(&format!("name([\"{}\"])", name.to_lowercase()))
}

impl Binder<'_> {
    /// `WITH RECURSIVE ...`; the CTEs stay in sight until the caller takes them away.
    pub(crate) fn with(&mut self, ctes: &[super::super::ast::Cte]) -> Result<String> {
        let mut parts = Vec::new();
        for cte in ctes {
            let handle = format!("w{}", self.handle());
            let recursive = anchor(&cte.query);
            let scopes = std::mem::take(&mut self.scopes);
            let bound = if let Some((left, right, op)) = recursive.filter(|_| mentions(&cte.query, &cte.name)) {
                // The first part says what the columns are.
                let first = self.set_expr(left)?;
                let columns = named(&first.columns, &cte.columns);
                self.ctes.push(VisibleCte { name: cte.name.clone(), handle: handle.clone(), columns });
                let second = self.set_expr(right);
                self.ctes.pop();
                let second = second?;
                Ok(BoundQuery {
                    sql: format!("{} {op} {}", first.sql, second.sql),
                    columns: first.columns,
                    assigns: Vec::new(),
                })
            } else {
                self.query(&cte.query)
            };
            self.scopes = scopes;
            let bound = bound?;
            let columns = named(&bound.columns, &cte.columns);
            let list = (1..=columns.len()).map(|at| format!("k{at}")).collect::<Vec<_>>().join(", ");
            parts.push(format!("{handle}({list}) AS ({})", bound.sql));
            self.ctes.push(VisibleCte { name: cte.name.clone(), handle, columns });
        }
        Ok(if parts.is_empty() { String::new() } else { format!("WITH RECURSIVE {} ", parts.join(", ")) })
    }

    pub(super) fn set_expr(&mut self, body: &SetExpr) -> Result<BoundQuery> {
        match body {
            SetExpr::Select(select) => {
                let empty = Query {
                    ctes: Vec::new(),
                    body: SetExpr::Values(Vec::new()),
                    order: Vec::new(),
                    offset: None,
                    fetch: None,
                };
                let bound = self.select(select, &[], &empty)?;
                Ok(if select.top.is_some() {
                    BoundQuery { sql: format!("SELECT * FROM ({})", bound.sql), ..bound }
                } else {
                    bound
                })
            }
            SetExpr::Nested(query) => {
                let bound = self.query(query)?;
                Ok(BoundQuery { sql: format!("SELECT * FROM ({})", bound.sql), ..bound })
            }
            SetExpr::Values(rows) => self.values(rows),
            SetExpr::Operation { op, left, right } => {
                let left = self.set_expr(left)?;
                let right = self.set_expr(right)?;
                if left.columns.len() != right.columns.len() {
                    return Err(fault(
                        205,
                        16,
                        "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of \
                         expressions in their target lists.",
                    ));
                }
                let columns: Vec<OutColumn> = left
                    .columns
                    .iter()
                    .zip(&right.columns)
                    .map(|(a, b)| OutColumn {
                        name: a.name.clone(),
                        sql_type: if a.untyped {
                            b.sql_type
                        } else if b.untyped {
                            a.sql_type
                        } else {
                            types::common(a.sql_type, b.sql_type)
                        },
                        nullable: a.nullable || b.nullable,
                        identity: false,
                        untyped: a.untyped && b.untyped,
                    })
                    .collect();
                let sql = format!("{} {op} {}", cast(&left, &columns), cast(&right, &columns));
                // SQLite reads set operations from left to right without precedence: INTERSECT is kept in its place by a
                // derived table.
                Ok(BoundQuery { sql: format!("SELECT * FROM ({sql})"), columns, assigns: Vec::new() })
            }
        }
    }

    pub(super) fn values(&mut self, rows: &[Vec<Expr>]) -> Result<BoundQuery> {
        let mut bound_rows = Vec::with_capacity(rows.len());
        for row in rows {
            bound_rows.push(row.iter().map(|expr| self.value(expr)).collect::<Result<Vec<_>>>()?);
        }
        let width = bound_rows.first().map_or(0, Vec::len);
        if bound_rows.iter().any(|row| row.len() != width) {
            return Err(fault(
                10709,
                16,
                "The number of columns for each row in a table value constructor must be the same.",
            ));
        }
        let mut columns = Vec::with_capacity(width);
        for at in 0..width {
            let typed = bound_rows.iter().map(|row| &row[at]).filter(|bound| !bound.untyped);
            let sql_type = typed.map(|bound| bound.sql_type).reduce(types::common);
            columns.push(OutColumn {
                name: String::new(),
                sql_type: sql_type.unwrap_or(SqlType::Int),
                nullable: bound_rows.iter().any(|row| row[at].nullable),
                identity: false,
                untyped: sql_type.is_none(),
            });
        }
        let lines: Vec<String> = bound_rows
            .iter()
            .enumerate()
            .map(|(line, row)| {
                let cells = row.iter().zip(&columns).enumerate().map(|(at, (bound, column))| {
                    let sql = coerce(bound, column.sql_type);
                    if line == 0 { format!("{sql} AS k{}", at + 1) } else { sql }
                });
                format!("SELECT {}", cells.collect::<Vec<_>>().join(", "))
            })
            .collect();
        Ok(BoundQuery { sql: lines.join(" UNION ALL "), columns, assigns: Vec::new() })
    }
}
