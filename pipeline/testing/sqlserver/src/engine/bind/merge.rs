//! MERGE as queries: each row of the source with the row of the target that it meets, and rows of the target that no row of
//! the source meets.

use super::super::ast::{Expr, From, Merge, MergeAction, MergeCase, MergeWhen};
use super::super::catalog::{Table, same};
use super::super::errors::{Result, unknown_column, unknown_object};
use super::Binder;
use crate::value::SqlType;
use std::sync::Arc;

/// One of the two queries: `rid`, the target's columns, the condition of each clause, then the values of each.
pub(crate) struct BoundMerge {
    pub sql: String,
    pub table: Arc<Table>,
    pub clauses: Vec<BoundClause>,
}

/// A clause: where its values go, and their types.
pub(crate) struct BoundClause {
    pub case: MergeCase,
    pub targets: Vec<(usize, SqlType)>,
    pub kind: ClauseKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClauseKind {
    Insert,
    Update,
    Delete,
}

impl Binder<'_> {
    /// The query for the clauses that look at the source, or for those of rows that the source lacks.
    pub(crate) fn merge(&mut self, merge: &Merge, by_source: bool) -> Result<BoundMerge> {
        let with = self.with(&merge.ctes)?;
        let alias = match &merge.target {
            From::Table { name, alias, .. } => alias.clone().unwrap_or_else(|| name.last().to_owned()),
            From::Variable { name, alias } => alias.clone().unwrap_or_else(|| name.clone()),
            _ => String::new(),
        };
        self.push_scope(Vec::new());
        let (source, target) = if by_source {
            let target = self.sources(std::slice::from_ref(&merge.target))?;
            (String::new(), target)
        } else {
            let source = self.sources(std::slice::from_ref(&merge.source))?;
            (source, self.sources(std::slice::from_ref(&merge.target))?)
        };
        let found =
            self.scopes.last().and_then(|scope| scope.iter().find(|source| same(&source.alias, &alias))).cloned();
        let found = found.ok_or_else(|| unknown_object(&alias))?;
        let table = found.table.clone().ok_or_else(|| unknown_object(&alias))?;
        let from = if by_source {
            self.push_scope(Vec::new());
            let source = self.sources(std::slice::from_ref(&merge.source))?;
            let on = self.predicate(&merge.on)?;
            self.scopes.pop();
            format!("{target} WHERE NOT EXISTS (SELECT 1 FROM {source} WHERE {on})")
        } else {
            format!("{source} LEFT JOIN {target} ON {}", self.predicate(&merge.on)?)
        };
        let mut cells = vec![format!("{}.rid", found.handle)];
        cells.extend(table.columns.iter().map(|column| format!("{}.c{}", found.handle, column.id)));
        let wanted: Vec<&MergeWhen> =
            merge.whens.iter().filter(|when| (when.case == MergeCase::NotMatchedBySource) == by_source).collect();
        for when in &wanted {
            cells.push(match &when.condition {
                Some(condition) => self.predicate(condition)?,
                None => "1".to_owned(),
            });
        }
        let mut clauses = Vec::new();
        for when in wanted {
            let (kind, values) = action(&when.action, &table)?;
            let mut targets = Vec::new();
            for (place, expr) in values {
                let bound = self.value(&expr)?;
                targets.push((place, if bound.untyped { table.columns[place].sql_type } else { bound.sql_type }));
                cells.push(bound.sql);
            }
            clauses.push(BoundClause { case: when.case, targets, kind });
        }
        self.scopes.pop();
        Ok(BoundMerge { sql: format!("{with}SELECT {} FROM {from}", cells.join(", ")), table, clauses })
    }
}

fn action(action: &MergeAction, table: &Table) -> Result<(ClauseKind, Vec<(usize, Expr)>)> {
    let place = |name: &str| {
        table.columns.iter().position(|column| same(&column.name, name)).ok_or_else(|| unknown_column(name))
    };
    match action {
        MergeAction::Delete => Ok((ClauseKind::Delete, Vec::new())),
        MergeAction::Update(sets) => {
            let mut values = Vec::new();
            for set in sets {
                let name = set.column.as_deref().unwrap_or_default();
                let expr = match set.op {
                    Some(op) => {
                        let column = Expr::Column(super::super::ast::Name(vec![name.to_owned()]));
                        Expr::Arithmetic(op, Box::new(column), Box::new(set.expr.clone()))
                    }
                    None => set.expr.clone(),
                };
                values.push((place(name)?, expr));
            }
            Ok((ClauseKind::Update, values))
        }
        MergeAction::Insert { columns, values } => {
            let places = if columns.is_empty() {
                (0..table.columns.len()).filter(|at| table.columns[*at].identity.is_none()).collect()
            } else {
                columns.iter().map(|name| place(name)).collect::<Result<Vec<_>>>()?
            };
            Ok((ClauseKind::Insert, places.into_iter().zip(values.iter().cloned()).collect()))
        }
    }
}
