//! FROM: tables, views, derived tables, joins, CHANGETABLE.

use super::super::ast::{From, JoinKind, Name};
use super::super::catalog::{ModuleKind, Table, same};
use super::super::errors::{Result, fault, unknown_column, unknown_object, unsupported};
use super::super::parser;
use super::{Binder, Source, SourceColumn, coerce, system_view};
use crate::value::SqlType;
use std::sync::Arc;

impl Binder<'_> {
    /// The text behind FROM; the sources go to the innermost scope.
    pub(super) fn sources(&mut self, list: &[From]) -> Result<String> {
        let mut text = Vec::new();
        for from in list {
            text.push(self.joined(from)?);
        }
        Ok(text.join(" CROSS JOIN "))
    }

    fn joined(&mut self, from: &From) -> Result<String> {
        match from {
            From::Join { kind, left, right, on } => self.join(*kind, left, right, on.as_ref()),
            _ => {
                let (text, source) = self.source(from)?;
                self.add(source)?;
                Ok(text)
            }
        }
    }

    fn add(&mut self, source: Source) -> Result<()> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        if scope.iter().any(|other| same(&other.alias, &source.alias) && other.schema == source.schema) {
            return Err(fault(
                1013,
                16,
                format!(
                    "The objects \"{0}\" and \"{0}\" in the FROM clause have the same exposed names. Use correlation names to \
                     distinguish them.",
                    source.alias
                ),
            ));
        }
        scope.push(source);
        Ok(())
    }

    fn join(
        &mut self,
        kind: JoinKind,
        left: &From,
        right: &From,
        on: Option<&super::super::ast::Expr>,
    ) -> Result<String> {
        let before = self.scopes.last().map_or(0, Vec::len);
        let left_text = self.joined(left)?;
        let middle = self.scopes.last().map_or(0, Vec::len);
        if matches!(kind, JoinKind::CrossApply | JoinKind::OuterApply) {
            return self.apply(kind, &left_text, right);
        }
        let right_text = self.joined(right)?;
        let right_text = if matches!(right, From::Join { .. }) { format!("({right_text})") } else { right_text };
        let end = self.scopes.last().map_or(0, Vec::len);
        let on = match on {
            Some(on) => format!(" ON {}", self.predicate(on)?),
            None => String::new(),
        };
        let word = match kind {
            JoinKind::Inner => "JOIN",
            JoinKind::Left => "LEFT JOIN",
            JoinKind::Right => "RIGHT JOIN",
            JoinKind::Full => "FULL JOIN",
            _ => "CROSS JOIN",
        };
        if let Some(scope) = self.scopes.last_mut() {
            if matches!(kind, JoinKind::Left | JoinKind::Full) {
                nullable(&mut scope[middle..end]);
            }
            if matches!(kind, JoinKind::Right | JoinKind::Full) {
                nullable(&mut scope[before..middle]);
            }
        }
        Ok(format!("{left_text} {word} {right_text}{on}"))
    }

    /// APPLY of `CHANGETABLE(VERSION ...)` is a join by key; of a derived table that looks at nothing outside, a cross join.
    fn apply(&mut self, kind: JoinKind, left: &str, right: &From) -> Result<String> {
        if let From::Version { table, keys, values, alias, columns } = right {
            let (text, source, tracked) = self.version_source(table, alias.as_deref(), columns)?;
            let conditions = keys
                .iter()
                .zip(values)
                .map(|(key, value)| {
                    let column = tracked.column(key).ok_or_else(|| unknown_column(key))?;
                    let value = self.value(value)?;
                    Ok(format!(
                        "{}.k{} = {}",
                        source.handle,
                        column.id,
                        super::comparable(coerce(&value, column.sql_type), column.sql_type)
                    ))
                })
                .collect::<Result<Vec<_>>>()?;
            let on = conditions.join(" AND ");
            let text = format!("{left} LEFT JOIN {text} ON {on}");
            self.add(source)?;
            return Ok(text);
        }
        let (text, source) = self.source(right)?;
        self.add(source)?;
        let word = if kind == JoinKind::CrossApply { "CROSS JOIN" } else { "LEFT JOIN" };
        Ok(format!("{left} {word} {text}"))
    }

    /// One source: its text with its handle, and what it shows.
    fn source(&mut self, from: &From) -> Result<(String, Source)> {
        match from {
            From::Table { name, alias, hints } => {
                if hints.iter().any(|hint| {
                    matches!(
                        hint.as_str(),
                        "UPDLOCK" | "HOLDLOCK" | "XLOCK" | "SERIALIZABLE" | "TABLOCKX" | "REPEATABLEREAD"
                    )
                }) {
                    self.locks = true;
                }
                self.named(name, alias.as_deref())
            }
            From::Variable { name, alias } => {
                let table = self
                    .env
                    .table_variables
                    .get(name)
                    .cloned()
                    .ok_or_else(|| fault(1087, 15, format!("Must declare the table variable \"{name}\".")))?;
                Ok(self.physical(&table, alias.as_deref().unwrap_or(name), None, &table.physical.clone()))
            }
            From::Derived { query, alias, columns } => {
                // A derived table sees what is outside of the whole query, not its neighbours.
                let hidden = self.scopes.pop().unwrap_or_default();
                let bound = self.query(query);
                self.scopes.push(hidden);
                let bound = bound?;
                let handle = self.handle();
                let source = derived(&handle, alias, &bound.columns, columns)?;
                Ok((format!("({}) AS {handle}", bound.sql), source))
            }
            From::Changes { table, since, alias, columns } => self.changes(table, since, alias.as_deref(), columns),
            From::Version { table, keys, values, alias, columns } => {
                let (text, source, tracked) = self.version_source(table, alias.as_deref(), columns)?;
                let mut conditions = Vec::new();
                for (key, value) in keys.iter().zip(values) {
                    let column = tracked.column(key).ok_or_else(|| unknown_column(key))?;
                    let value = self.value(value)?;
                    let value = super::comparable(coerce(&value, column.sql_type), column.sql_type);
                    conditions.push(format!("k{} = {value}", column.id));
                }
                let inner = text.rsplit_once(" AS ").map_or(text.as_str(), |(inner, _)| inner);
                let picks: Vec<_> = source.columns.iter().filter_map(|column| column.sql.split('.').nth(1)).collect();
                Ok((
                    format!(
                        "(SELECT {} FROM (SELECT 1) LEFT JOIN {inner} ON {}) AS {}",
                        picks.join(", "),
                        conditions.join(" AND "),
                        source.handle
                    ),
                    source,
                ))
            }
            From::Function { name, args, alias, columns } => self.table_function(name, args, alias.as_deref(), columns),
            From::Join { .. } => Err(unsupported("a join in this place")),
        }
    }

    fn named(&mut self, name: &Name, alias: Option<&str>) -> Result<(String, Source)> {
        let shown = alias.unwrap_or(name.last());
        if name.0.len() == 1 {
            if let Some(trigger) = self.env.trigger {
                for (word, physical) in [("inserted", &trigger.inserted), ("deleted", &trigger.deleted)] {
                    if same(name.last(), word) {
                        return Ok(self.physical(&trigger.table, shown, None, physical));
                    }
                }
            }
            if let Some(cte) = self.ctes.iter().rev().find(|cte| same(&cte.name, name.last())).cloned() {
                let handle = self.handle();
                let source = derived(&handle, shown, &cte.columns, &[])?;
                return Ok((format!("{} AS {handle}", cte.handle), source));
            }
        }
        let schema = alias.is_none().then(|| name.schema().unwrap_or("dbo").to_owned());
        if let Some(view) = system_view(self.env, name) {
            self.views.insert(view.physical);
            let handle = self.handle();
            let columns = view
                .columns
                .iter()
                .enumerate()
                .map(|(at, (name, sql_type, nullable))| SourceColumn {
                    name: (*name).to_owned(),
                    sql: format!("{handle}.c{}", at + 1),
                    sql_type: *sql_type,
                    nullable: *nullable,
                    identity: false,
                })
                .collect();
            let source = Source { alias: shown.to_owned(), handle: handle.clone(), schema, columns, table: None };
            return Ok((format!("temp.{} AS {handle}", view.physical), source));
        }
        if let Ok(table) = self.table(name) {
            if !name.last().starts_with('#') {
                self.reads_database = true;
            }
            let physical = table.physical.clone();
            return Ok(self.physical(&table, shown, schema, &physical));
        }
        self.view(name, shown, schema)
    }

    fn physical(
        &mut self,
        table: &Arc<Table>,
        alias: &str,
        schema: Option<String>,
        physical: &str,
    ) -> (String, Source) {
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
        let source =
            Source { alias: alias.to_owned(), handle: handle.clone(), schema, columns, table: Some(Arc::clone(table)) };
        (format!("{physical} AS {handle}"), source)
    }

    fn view(&mut self, name: &Name, shown: &str, schema: Option<String>) -> Result<(String, Source)> {
        let unknown = || unknown_object(&name.to_string());
        if name.database().is_some_and(|database| !same(database, super::super::catalog::DATABASE)) {
            return Err(unknown());
        }
        let module = self.env.catalog.module(name.schema().unwrap_or("dbo"), name.last()).cloned();
        let module = module.filter(|module| module.kind == ModuleKind::View).ok_or_else(unknown)?;
        self.depth += 1;
        if self.depth > 32 {
            return Err(fault(
                217,
                16,
                "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
            ));
        }
        let query = parser::parse_query(&module.text, self.env.ids)?;
        let scopes = std::mem::take(&mut self.scopes);
        let ctes = std::mem::take(&mut self.ctes);
        let bound = self.query(&query);
        self.scopes = scopes;
        self.ctes = ctes;
        self.depth -= 1;
        let bound = bound?;
        let handle = self.handle();
        let names: Vec<String> =
            module.header.split('\u{1f}').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mut source = derived(&handle, shown, &bound.columns, &names)?;
        source.schema = schema;
        Ok((format!("({}) AS {handle}", bound.sql), source))
    }

    fn tracked(&self, name: &Name) -> Result<Arc<Table>> {
        let table = self.table(name)?;
        if !table.change_tracking {
            return Err(fault(22105, 16, format!("Change tracking is not enabled on table '{name}'.")));
        }
        Ok(table)
    }

    /// `CHANGETABLE(CHANGES t, @since)`: one row for each key, its operation relative to `since`. A key whose first change
    /// after it is an insertion was not there before.
    fn changes(
        &mut self,
        name: &Name,
        since: &super::super::ast::Expr,
        alias: Option<&str>,
        columns: &[String],
    ) -> Result<(String, Source)> {
        let table = self.tracked(name)?;
        let Some(alias) = alias else {
            return Err(fault(22106, 16, "The CHANGETABLE function must be aliased."));
        };
        self.reads_database = true;
        let since = self.value(since)?;
        let since = coerce(&since, SqlType::BigInt);
        let keys: Vec<i64> =
            table.primary_key().map(|key| key.columns.iter().map(|(id, _)| *id).collect()).unwrap_or_default();
        let listed = |prefix: &str| keys.iter().map(|id| format!("{prefix}k{id}")).collect::<Vec<_>>().join(", ");
        // With the plus sign SQLite groups what the index of versions gives, instead of reading all keys in their order.
        let (key_list, group) = (listed(""), listed("+"));
        let handle = self.handle();
        // `seq` carries the operation in its last two bits: 0 insertion, 1 update, 2 deletion.
        let text = format!(
            "(SELECT {key_list}, v AS version, CASE WHEN op = 'I' THEN created END AS creation, op FROM (SELECT {key_list}, \
             max(version) AS v, max(CASE seq & 3 WHEN 0 THEN version END) AS created, CASE WHEN max(seq) & 3 = 2 THEN 'D' WHEN \
             min(seq) & 3 = 0 AND NOT ctnet(max(seq) & 3) THEN 'I' ELSE 'U' END AS op FROM ct{} WHERE version > ifnull({since}, -1) \
             GROUP BY {group})) AS {handle}",
            table.id
        );
        let fixed = |name: &str, column: &str, sql_type, nullable| SourceColumn {
            name: name.to_owned(),
            sql: if column == "NULL" { "NULL".to_owned() } else { format!("{handle}.{column}") },
            sql_type,
            nullable,
            identity: false,
        };
        let mut shown = vec![
            fixed("SYS_CHANGE_VERSION", "version", SqlType::BigInt, true),
            fixed("SYS_CHANGE_CREATION_VERSION", "creation", SqlType::BigInt, true),
            fixed("SYS_CHANGE_OPERATION", "op", SqlType::NChar(1), true),
            fixed("SYS_CHANGE_COLUMNS", "NULL", SqlType::VarBinary(Some(4100)), true),
            fixed("SYS_CHANGE_CONTEXT", "NULL", SqlType::VarBinary(Some(128)), true),
        ];
        shown.extend(key_columns(&table, &keys, &handle));
        rename(&mut shown, columns)?;
        let source = Source { alias: alias.to_owned(), handle, schema: None, columns: shown, table: None };
        Ok((text, source))
    }

    /// `CHANGETABLE(VERSION t, ...)` before its keys are compared: the latest version of each key.
    fn version_source(
        &mut self,
        name: &Name,
        alias: Option<&str>,
        columns: &[String],
    ) -> Result<(String, Source, Arc<Table>)> {
        let table = self.tracked(name)?;
        self.reads_database = true;
        let Some(alias) = alias else {
            return Err(fault(22106, 16, "The CHANGETABLE function must be aliased."));
        };
        let keys: Vec<i64> =
            table.primary_key().map(|key| key.columns.iter().map(|(id, _)| *id).collect()).unwrap_or_default();
        let key_list = keys.iter().map(|id| format!("k{id}")).collect::<Vec<_>>().join(", ");
        let handle = self.handle();
        let text = format!(
            "(SELECT {key_list}, max(version) AS version, NULL AS context FROM ct{} GROUP BY {key_list}) AS {handle}",
            table.id
        );
        let fixed = |name: &str, column: &str, sql_type| SourceColumn {
            name: name.to_owned(),
            sql: format!("{handle}.{column}"),
            sql_type,
            nullable: true,
            identity: false,
        };
        let mut shown = vec![
            fixed("SYS_CHANGE_VERSION", "version", SqlType::BigInt),
            fixed("SYS_CHANGE_CONTEXT", "context", SqlType::VarBinary(Some(128))),
        ];
        shown.extend(key_columns(&table, &keys, &handle));
        rename(&mut shown, columns)?;
        let source = Source { alias: alias.to_owned(), handle, schema: None, columns: shown, table: None };
        Ok((text, source, table))
    }
}

fn key_columns(table: &Table, keys: &[i64], handle: &str) -> Vec<SourceColumn> {
    keys.iter()
        .filter_map(|id| {
            let column = table.column_by_id(*id)?;
            Some(SourceColumn {
                name: column.name.clone(),
                sql: format!("{handle}.k{id}"),
                sql_type: column.sql_type,
                nullable: false,
                identity: false,
            })
        })
        .collect()
}

fn rename(columns: &mut [SourceColumn], names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    if names.len() != columns.len() {
        return Err(fault(
            8159,
            16,
            "The derived table has a different number of columns than were specified in the column list.",
        ));
    }
    for (column, name) in columns.iter_mut().zip(names) {
        column.name.clone_from(name);
    }
    Ok(())
}

fn nullable(sources: &mut [Source]) {
    for column in sources.iter_mut().flat_map(|source| &mut source.columns) {
        column.nullable = true;
        column.identity = false;
    }
}

/// A query as a source: its columns are `k1`, `k2`, ...
pub(super) fn derived(
    handle: &str,
    alias: &str,
    columns: &[super::query::OutColumn],
    names: &[String],
) -> Result<Source> {
    let mut shown: Vec<SourceColumn> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| SourceColumn {
            name: column.name.clone(),
            sql: format!("{handle}.k{}", at + 1),
            sql_type: column.sql_type,
            nullable: column.nullable,
            identity: false,
        })
        .collect();
    rename(&mut shown, names)?;
    if let Some(at) = shown.iter().position(|column| column.name.is_empty()) {
        return Err(fault(8155, 16, format!("No column name was specified for column {} of '{alias}'.", at + 1)));
    }
    Ok(Source { alias: alias.to_owned(), handle: handle.to_owned(), schema: None, columns: shown, table: None })
}
