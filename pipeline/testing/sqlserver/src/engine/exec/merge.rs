//! MERGE: what happens to each row is decided first, then insertions, updates and deletions are applied, each with its
//! triggers.

use super::super::ast::{Event, Merge, MergeCase};
use super::super::bind::{BoundMerge, ClauseKind};
use super::super::errors::{Result, fault};
use super::apply::Change;
use super::{EngineSession, Out};
use rusqlite::types::Value as Cell;
use std::collections::HashSet;
use std::sync::Arc;

impl EngineSession {
    pub(super) fn merge(&mut self, merge: &Merge, out: &mut Out<'_>) -> Result<()> {
        self.refresh();
        let table = self.target(&merge.target)?;
        self.refuse_output(&table, merge.output.as_ref(), Event::Update)?;
        let count = self.changing(&table, out, |session, out| {
            let (mut inserts, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
            let (mut updated, mut seen) = (Vec::new(), HashSet::new());
            for by_source in [false, true] {
                let (bound, to) = session.bind(|binder| binder.merge(merge, by_source))?;
                if bound.clauses.is_empty() {
                    continue;
                }
                session.prepare_to_read(&to)?;
                let defaults = session.defaults_of(&table)?;
                for cells in session.rows(&bound.sql, &to)? {
                    let Some(mut change) = decide(&bound, cells, &defaults)? else { continue };
                    match change.kind {
                        ClauseKind::Insert => inserts.push(change.change),
                        kind => {
                            if !seen.insert(change.change.rid) {
                                return Err(fault(
                                    8672,
                                    16,
                                    "The MERGE statement attempted to UPDATE or DELETE the same row more than once. This happens when a \
                                     target row matches more than one source row.",
                                ));
                            }
                            if kind == ClauseKind::Delete {
                                deletes.push(change.change);
                            } else {
                                updated.append(&mut change.columns);
                                updates.push(change.change);
                            }
                        }
                    }
                }
            }
            updated.sort_unstable();
            updated.dedup();
            let table = Arc::clone(&table);
            let mut changes = session.apply(&table, inserts, Event::Insert, &[], out)?;
            changes.extend(session.apply(&table, updates, Event::Update, &updated, out)?);
            changes.extend(session.apply(&table, deletes, Event::Delete, &[], out)?);
            session.give_output(merge.output.as_ref(), &table, &changes, out)?;
            Ok(changes.len())
        })?;
        self.done(i64::try_from(count).unwrap_or(0), out)
    }
}

struct Decided {
    kind: ClauseKind,
    change: Change,
    /// The columns that are set.
    columns: Vec<i64>,
}

/// The first clause that fits a row.
fn decide(bound: &BoundMerge, mut cells: Vec<Cell>, defaults: &[Cell]) -> Result<Option<Decided>> {
    let width = bound.table.columns.len();
    let mut values = cells.split_off(1 + width);
    let mut values_of = values.split_off(bound.clauses.len());
    let rid = match cells.remove(0) {
        Cell::Integer(rid) => Some(rid),
        _ => None,
    };
    for (clause, holds) in bound.clauses.iter().zip(&values) {
        let rest = values_of.split_off(clause.targets.len());
        let own = std::mem::replace(&mut values_of, rest);
        let fits = match clause.case {
            MergeCase::Matched | MergeCase::NotMatchedBySource => rid.is_some(),
            MergeCase::NotMatchedByTarget => rid.is_none(),
        };
        if !fits || !matches!(holds, Cell::Integer(truth) if *truth != 0) {
            continue;
        }
        if clause.kind == ClauseKind::Delete {
            let change = Change { rid: rid.unwrap_or(0), old: Some(cells), new: None };
            return Ok(Some(Decided { kind: clause.kind, change, columns: Vec::new() }));
        }
        let insert = clause.kind == ClauseKind::Insert;
        let mut new = if insert { defaults.to_vec() } else { cells.clone() };
        for (cell, (place, from)) in own.into_iter().zip(&clause.targets) {
            new[*place] = super::dml::fit(cell, *from, &bound.table, *place)?;
        }
        let columns = clause.targets.iter().map(|(place, _)| bound.table.columns[*place].id).collect();
        let change = Change { rid: rid.unwrap_or(0), old: (!insert).then_some(cells), new: Some(new) };
        return Ok(Some(Decided { kind: clause.kind, change, columns }));
    }
    Ok(None)
}
