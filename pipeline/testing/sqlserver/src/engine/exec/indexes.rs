//! Indexes.

use super::super::ast::{IndexDef, Name};
use super::super::catalog::{Index, Table, same};
use super::super::errors::{Result, fault, unknown_column};
use super::super::parser;
use super::EngineSession;

/// What an index is to be.
#[derive(Default)]
pub(super) struct NewIndex<'a> {
    pub name: &'a str,
    /// By name, and whether in descending order.
    pub columns: &'a [(String, bool)],
    pub unique: bool,
    pub clustered: bool,
    /// The number of the constraint that it serves.
    pub constraint: Option<i64>,
    pub primary: bool,
}

impl EngineSession {
    pub(super) fn index(&self, table: &Table, new: &NewIndex<'_>) -> Result<Index> {
        let ids = new
            .columns
            .iter()
            .map(|(name, descending)| {
                table.column(name).map(|column| (column.id, *descending)).ok_or_else(|| {
                    fault(1911, 16, format!("Column name '{name}' does not exist in the target table or view."))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        // Number 1 is the clustered index's alone.
        let id =
            if new.clustered { 1 } else { table.indexes.iter().map(|index| index.id).max().unwrap_or(1).max(1) + 1 };
        let bare = table.physical.rsplit('.').next().unwrap_or_default();
        let prefix = if table.physical.starts_with("temp.") { "temp." } else { "" };
        let number = table.indexes.len() + 1;
        let stamp = self.core.next_version();
        Ok(Index {
            id,
            name: new.name.to_owned(),
            physical: format!("{prefix}i{number}_{stamp}_{bare}"),
            columns: ids,
            included: Vec::new(),
            unique: new.unique,
            clustered: new.clustered,
            filter: None,
            constraint: new.constraint,
            primary: new.primary,
        })
    }

    pub(super) fn make_index(&self, table: &Table, index: &Index) -> Result<()> {
        let columns: Vec<String> = index
            .columns
            .iter()
            .map(|(id, descending)| {
                let nullable = index.unique
                    && index.filter.is_none()
                    && table.column_by_id(*id).is_some_and(|column| column.nullable);
                // Here NULL equals NULL, which it does not in an index of SQLite.
                let column = if nullable { format!("ifnull(c{id}, x'00')") } else { format!("c{id}") };
                format!("{column}{}", if *descending { " DESC" } else { "" })
            })
            .collect();
        let bare = table.physical.rsplit('.').next().unwrap_or_default();
        let unique = if index.unique { "UNIQUE " } else { "" };
        let filter = match &index.filter {
            Some(filter) => {
                let expr = parser::parse_expr(filter, &self.core.ids)?;
                let (sql, _) = self.bind(|binder| binder.index_filter(table, &expr))?;
                format!(" WHERE {sql}")
            }
            None => String::new(),
        };
        self.connection
            .execute_batch(&format!("CREATE {unique}INDEX {} ON {bare} ({}){filter}", index.physical, columns.join(", ")))
            .map_err(|error| {
                if error.to_string().contains("UNIQUE constraint failed") {
                    fault(
                        1505,
                        16,
                        format!(
                            "The CREATE UNIQUE INDEX statement terminated because a duplicate key was found for the object name '{}' and the \
                             index name '{}'.",
                            table.qualified(),
                            index.name
                        ),
                    )
                } else {
                    error.into()
                }
            })
    }

    pub(super) fn create_index(&mut self, definition: &IndexDef) -> Result<()> {
        let (table, _) = self.bind(|binder| binder.table(&definition.table)).map_err(|_| {
            fault(
                1088,
                16,
                format!(
                    "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                    definition.table
                ),
            )
        })?;
        if let Some(old) = table.indexes.iter().find(|index| same(&index.name, &definition.name)) {
            if !definition.drop_existing {
                return Err(fault(
                    1913,
                    16,
                    format!(
                        "The operation failed because an index or statistics with name '{}' already exists on table '{}'.",
                        definition.name, definition.table
                    ),
                ));
            }
            let name = old.name.clone();
            self.drop_index(&name, &definition.table, false)?;
        }
        let (table, _) = self.bind(|binder| binder.table(&definition.table))?;
        let new = NewIndex {
            name: &definition.name,
            columns: &definition.columns,
            unique: definition.unique,
            clustered: definition.clustered,
            ..NewIndex::default()
        };
        let mut index = self.index(&table, &new)?;
        index.filter.clone_from(&definition.filter);
        for name in &definition.included {
            index.included.push(table.column(name).ok_or_else(|| unknown_column(name))?.id);
        }
        self.make_index(&table, &index)?;
        self.replace(&table, |table| table.indexes.push(index))
    }

    pub(super) fn drop_index(&mut self, name: &str, table: &Name, if_exists: bool) -> Result<()> {
        let found = self.bind(|binder| binder.table(table)).ok().and_then(|(table, _)| {
            let index = table.indexes.iter().find(|index| same(&index.name, name))?.clone();
            Some((table, index))
        });
        let Some((table, index)) = found else {
            if if_exists {
                return Ok(());
            }
            return Err(fault(
                3701,
                11,
                format!(
                    "Cannot drop the index '{table}.{name}', because it does not exist or you do not have permission."
                ),
            )
            .state(7));
        };
        if index.constraint.is_some() {
            return Err(fault(
                3723,
                16,
                format!(
                    "An explicit DROP INDEX is not allowed on index '{table}.{name}'. It is being used for a constraint enforcement.",
                    table = table.name
                ),
            ));
        }
        self.connection.execute_batch(&format!("DROP INDEX {}", index.physical))?;
        self.replace(&table, |table| table.indexes.retain(|known| known.id != index.id))
    }

    /// Changes a table in the catalogue, or a temporary one.
    fn replace(&mut self, table: &Table, change: impl FnOnce(&mut Table)) -> Result<()> {
        if !table.physical.starts_with("temp.") {
            return self.change_table(table.id, change);
        }
        let key = table.name.to_lowercase();
        if let Some(found) = self.temporary.get_mut(&key) {
            change(std::sync::Arc::make_mut(found));
        }
        Ok(())
    }
}
