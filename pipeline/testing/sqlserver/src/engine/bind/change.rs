//! UPDATE and DELETE as queries for the rows that they touch, and OUTPUT.

use super::super::ast::{Assignment, Cte, Expr, From, Item};
use super::super::catalog::{Table, same};
use super::super::errors::{Result, fault, unknown_column, unknown_object, unsupported};
use super::{Binder, Bound, BoundQuery, Source, SourceColumn, coerce};
use crate::value::SqlType;
use std::sync::Arc;

/// The rows to change: `rid`, the columns of the table in their order, then the new values.
pub(crate) struct BoundChange {
    pub sql: String,
    pub table: Arc<Table>,
    /// For each new value: the column's place in the table and the value's type.
    pub sets: Vec<(usize, SqlType)>,
    /// Variables that take the last row's values, behind the new values.
    pub variables: Vec<String>,
}

fn names(from: &From, target: &str) -> bool {
    match from {
        From::Table { name, alias, .. } => same(alias.as_deref().unwrap_or(name.last()), target),
        From::Variable { name, alias } => same(alias.as_deref().unwrap_or(name), target),
        From::Join { left, right, .. } => names(left, target) || names(right, target),
        _ => false,
    }
}

impl Binder<'_> {
    pub(crate) fn change(
        &mut self,
        ctes: &[Cte],
        top: Option<&Expr>,
        target: &From,
        from: &[From],
        filter: Option<&Expr>,
        sets: &[Assignment],
    ) -> Result<BoundChange> {
        let with = self.with(ctes)?;
        let alias = match target {
            From::Table { name, .. } => name.last().to_owned(),
            From::Variable { name, .. } => name.clone(),
            _ => return Err(unsupported("this target of a change")),
        };
        let mut list = from.to_vec();
        if !from.iter().any(|from| names(from, &alias)) {
            list.insert(0, target.clone());
        }
        self.push_scope(Vec::new());
        let text = self.sources(&list)?;
        let source =
            self.scopes.last().and_then(|scope| scope.iter().find(|source| same(&source.alias, &alias))).cloned();
        let source = source.ok_or_else(|| unknown_object(&alias))?;
        let Some(table) = source.table.clone() else {
            return Err(unsupported(format!("changing '{alias}', which is no table")));
        };
        let mut cells = vec![format!("{}.rid", source.handle)];
        cells.extend(table.columns.iter().map(|column| format!("{}.c{}", source.handle, column.id)));
        let (mut places, mut variables, mut assigned) = (Vec::new(), Vec::new(), Vec::new());
        for set in sets {
            if let Some(name) = &set.column {
                let place = table
                    .columns
                    .iter()
                    .position(|column| same(&column.name, name))
                    .ok_or_else(|| unknown_column(name))?;
                let column = &table.columns[place];
                if column.identity.is_some() {
                    return Err(fault(8102, 16, format!("Cannot update identity column '{name}'.")));
                }
                if places.iter().any(|(known, _)| *known == place) {
                    return Err(fault(
                        264,
                        16,
                        format!(
                            "The column name '{name}' is specified more than once in the SET clause or column list of an INSERT."
                        ),
                    ));
                }
                let value = self.assigned(set, &source.columns[place], table.columns[place].default.as_ref())?;
                cells.push(value.sql.clone());
                places.push((place, if value.untyped { column.sql_type } else { value.sql_type }));
                if let Some(variable) = &set.variable {
                    variables.push(variable.clone());
                    assigned.push(value.sql);
                }
            } else if let Some(variable) = &set.variable {
                let Some(to) = self.env.variables.get(variable).copied() else {
                    return Err(super::query::undeclared(variable));
                };
                let value = self.value(&set.expr)?;
                variables.push(variable.clone());
                assigned.push(coerce(&value, to));
            }
        }
        cells.extend(assigned);
        let filter = match filter {
            Some(filter) => format!(" WHERE {}", self.predicate(filter)?),
            None => String::new(),
        };
        let limit = match top {
            Some(top) => {
                let top = self.value(top)?;
                format!(" LIMIT toprows({})", coerce(&top, SqlType::BigInt))
            }
            None => String::new(),
        };
        self.scopes.pop();
        let sql = format!("{with}SELECT {} FROM {text}{filter}{limit}", cells.join(", "));
        Ok(BoundChange { sql, table, sets: places, variables })
    }

    fn assigned(
        &mut self,
        set: &Assignment,
        column: &SourceColumn,
        default: Option<&super::super::catalog::Default_>,
    ) -> Result<Bound> {
        if set.expr == Expr::Default {
            return match default {
                Some(default) => {
                    let expr = super::super::parser::parse_expr(&default.text, self.env.ids)?;
                    self.value(&expr)
                }
                None => self.value(&Expr::Null),
            };
        }
        let value = self.value(&set.expr)?;
        match set.op {
            None => Ok(value),
            Some(op) => {
                let old = Bound::new(column.sql.clone(), column.sql_type, column.nullable);
                super::operators::arithmetic(op, &old, &value)
            }
        }
    }

    /// Finds the row with the `rid` of the last parameter when it does not satisfy a check. NULL satisfies it.
    pub(crate) fn row_check(&mut self, table: &Arc<Table>, check: &Expr) -> Result<String> {
        let name = super::super::ast::Name(vec![table.schema.clone(), table.name.clone()]);
        self.push_scope(Vec::new());
        let text = self.sources(&[From::Table { name, alias: None, hints: Vec::new() }])?;
        let handle =
            self.scopes.last().and_then(|scope| scope.first()).map_or_else(String::new, |source| source.handle.clone());
        let condition = self.predicate(check)?;
        self.scopes.pop();
        Ok(format!("SELECT 1 FROM {text} WHERE {handle}.rid = ?{} AND NOT {condition}", self.parameters.len() + 1))
    }

    /// The condition of a filtered index, over bare columns.
    pub(crate) fn index_filter(&mut self, table: &Table, filter: &Expr) -> Result<String> {
        let columns = table
            .columns
            .iter()
            .map(|column| SourceColumn {
                name: column.name.clone(),
                sql: format!("c{}", column.id),
                sql_type: column.sql_type,
                nullable: column.nullable,
                identity: false,
            })
            .collect();
        self.push_scope(vec![Source {
            alias: table.name.clone(),
            handle: String::new(),
            schema: None,
            columns,
            table: None,
        }]);
        let condition = self.predicate(filter)?;
        self.scopes.pop();
        Ok(condition)
    }

    /// `OUTPUT inserted.a, deleted.b, ...` over the tables that hold what was inserted and deleted, row by row.
    pub(crate) fn output(
        &mut self,
        items: &[Item],
        table: &Arc<Table>,
        inserted: Option<&str>,
        deleted: Option<&str>,
    ) -> Result<BoundQuery> {
        let mut sources = Vec::new();
        let mut texts = Vec::new();
        for (alias, physical) in [("inserted", inserted), ("deleted", deleted)] {
            let Some(physical) = physical else { continue };
            let handle = self.handle();
            let columns = table
                .columns
                .iter()
                .map(|column| SourceColumn {
                    name: column.name.clone(),
                    sql: format!("{handle}.c{}", column.id),
                    sql_type: column.sql_type,
                    nullable: column.nullable,
                    identity: column.identity.is_some(),
                })
                .collect();
            texts.push(format!("{physical} AS {handle}"));
            sources.push(Source { alias: alias.to_owned(), handle, schema: None, columns, table: None });
        }
        let text = match (texts.as_slice(), sources.as_slice()) {
            ([one], _) => one.clone(),
            ([one, two], [a, b]) => format!("{one} LEFT JOIN {two} ON {}.rid = {}.rid", a.handle, b.handle),
            _ => return Err(unsupported("OUTPUT here")),
        };
        let order = sources.first().map(|source| format!(" ORDER BY {}.rid", source.handle)).unwrap_or_default();
        self.push_scope(sources);
        let bound = self.items(items, &text);
        self.scopes.pop();
        let mut bound = bound?;
        bound.sql.push_str(&order);
        Ok(bound)
    }
}
