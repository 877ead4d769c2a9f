//! Tables as the server's catalogue knows them.
//!
//! A table is named without its schema: `dbo` is looked at first, then the one other schema that has it. Names of tables
//! come from YAML and are plain (`is_identifier`); columns may have any name and are quoted.
//!
//! What was read is kept for `KEPT`, and read again at once when a statement meets a name that is gone, or when capture comes
//! to another instance. So a new column is in documents within half a minute, in those of a capture instance that has it
//! and of a snapshot behind it at once, and a dropped one never stops reads for longer than one retry.

pub(crate) use crate::columns::list;
pub use crate::columns::{ColumnInfo, Kind, literal, quote};

use crate::config::{SqlServerConfig, is_identifier};
use crate::connection::{Connection, Param};
use crate::errors::{Failure, Outcome};
use crate::rows::{self, Shape, parse_key, to_param};
use crate::statements;
use serde_json::{Map, Value};
use smartpulse_clients::database::{CaptureMode, Column, Table};
use smartpulse_pipeline::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the shape of a table is believed.
const KEPT: Duration = Duration::from_secs(30);

/// A table.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// As the contract knows it.
    pub table: Table,
    /// Its schema, mostly `dbo`.
    pub schema: String,
    /// Its name as T-SQL takes it: `[dbo].[Forecasts]`.
    pub sql_name: String,
    /// Its number. Another one under the same name is another table.
    pub object_id: i32,
    /// The section of its entities, as tombstones name it.
    pub section: String,
    /// Its columns in order; computed ones are among them.
    pub columns: Vec<ColumnInfo>,
    /// Which columns are the key, in the key's order.
    pub key: Vec<usize>,
    /// What its rows become.
    pub shape: Shape,
    /// Whether a SNAPSHOT transaction may be used in this database.
    pub snapshot_isolation: bool,
}

impl TableInfo {
    /// A table made up of its parts.
    ///
    /// # Errors
    /// Rejected when it has no key, or one that has no spelling.
    pub fn new(schema: &str, name: &str, section: &str, columns: Vec<ColumnInfo>, key: Vec<usize>) -> Result<Self> {
        let keys: Vec<&ColumnInfo> = key.iter().filter_map(|place| columns.get(*place)).collect();
        if keys.is_empty() {
            return Err(Error::rejected(format!("table {name} has no primary key; one is needed")));
        }
        if let Some(odd) = keys.iter().find(|c| !c.kind.may_be_key()) {
            let (column, sql_type) = (&odd.name, &odd.sql_type);
            let text = format!(
                "{column}, of the key of {name}, is {sql_type}: only ids, integers and texts have one spelling"
            );
            return Err(Error::rejected(text));
        }
        let names: Vec<&str> = keys.iter().map(|c| c.name.as_str()).collect();
        let shape = Shape::new(name, &columns, &names)?;
        let described = |c: &ColumnInfo| Column {
            name: c.name.clone(),
            member: c.member.clone(),
            declared_type: c.sql_type.clone(),
            nullable: c.nullable,
        };
        let table = Table {
            name: name.to_owned(),
            columns: columns.iter().map(described).collect(),
            capture: Vec::new(),
            tombstones: false,
        };
        Ok(Self {
            table,
            sql_name: format!("{}.{}", quote(schema), quote(name)),
            schema: schema.to_owned(),
            object_id: 0,
            section: section.to_owned(),
            columns,
            key,
            shape,
            snapshot_isolation: false,
        })
    }

    /// The columns of the key, in its order.
    #[must_use]
    pub fn keys(&self) -> Vec<&ColumnInfo> {
        self.key.iter().filter_map(|place| self.columns.get(*place)).collect()
    }

    /// All columns as a list for SELECT, each behind `alias` (such as `t.`; empty for none).
    #[must_use]
    pub fn columns_sql(&self, alias: &str) -> String {
        list(&self.columns, |column| column.selected(alias))
    }

    /// The parameters that a key stands for; nothing when no row can have it.
    #[must_use]
    pub fn key_params(&self, key: &str) -> Option<Vec<Param>> {
        parse_key(&self.keys(), key)
    }

    /// The columns and parameters of JSON members.
    ///
    /// # Errors
    /// Rejected for a member that is no column (the nearest is named) or a value that the column cannot hold.
    pub fn values(&self, members: &Map<String, Value>) -> Result<Vec<(&ColumnInfo, Param)>> {
        members
            .iter()
            .map(|(member, value)| {
                let column = self.columns.iter().find(|c| c.member == *member);
                let column = column.ok_or_else(|| self.unknown_member(member))?;
                let param = to_param(column, value).ok_or_else(|| {
                    let shown: String = value.to_string().chars().take(60).collect();
                    Error::rejected(format!("{member} is {} and cannot be {shown}", column.sql_type))
                })?;
                Ok((column, param))
            })
            .collect()
    }

    fn unknown_member(&self, member: &str) -> Error {
        if self.table.name == "Forecasts" && member == "variance" {
            return Error::rejected("variance is computed from supply and demand and cannot be set");
        }
        let members = self.columns.iter().map(|c| c.member.as_str());
        let likeness = |name: &str| strsim::jaro_winkler(name, member);
        let near = members.clone().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = match near {
            Some(near) if likeness(near) > 0.8 => format!("did you mean {near}?"),
            _ => format!("it has {}", members.collect::<Vec<_>>().join(", ")),
        };
        Error::rejected(format!("{} has no member {member:?}; {hint}", self.table.name))
    }
}

/// The tables that were looked at, and what the settings say of them.
#[derive(Debug)]
pub struct Catalogue {
    /// Sections by table.
    sections: BTreeMap<String, String>,
    tables: Mutex<HashMap<String, (Instant, Arc<TableInfo>)>>,
}

impl Catalogue {
    /// An empty one with the sections of the settings.
    #[must_use]
    pub fn new(config: &SqlServerConfig) -> Self {
        Self { sections: config.captured_tables.clone(), tables: Mutex::default() }
    }

    /// The table named so.
    ///
    /// # Errors
    /// Rejected when the name is none, or no table has it: the error lists the tables there are.
    pub async fn get(&self, connection: &mut Connection, name: &str) -> Outcome<Arc<TableInfo>> {
        let known = self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((at, info)) = known
            && at.elapsed() < KEPT
        {
            return Ok(info);
        }
        let info = Arc::new(self.load(connection, name).await?);
        // Bounded by the tables that exist: an unknown name is an error above.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(name.to_owned(), (Instant::now(), Arc::clone(&info)));
        Ok(info)
    }

    /// Forgets a table: its shape has changed, or a statement about it met a name that is gone.
    pub fn forget(&self, name: &str) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Forgets the table when a failure says that what is known of it is out of date; the failure may then be
    /// met again with what is new.
    #[must_use]
    pub fn learn(&self, name: &str, failure: Failure) -> Failure {
        if !failure.stale_catalogue() {
            return failure;
        }
        let known = self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        // What was read just now would be the same again.
        match known {
            Some((at, _)) if at.elapsed() > Duration::from_millis(100) => failure.worth_another_try(),
            _ => failure,
        }
    }

    async fn load(&self, connection: &mut Connection, name: &str) -> Outcome<TableInfo> {
        if !is_identifier(name) {
            let text = format!("{name:?} is no table name: letters, digits and _ only, 128 at most");
            return Err(Failure::from(Error::rejected(text)));
        }
        let section = self.sections.get(name).map_or(name, String::as_str);
        let params = [Param::text(name), Param::text(statements::tombstones_of(section))];
        let found = connection.rows("looking up a table", statements::TABLE, &params).await?;
        // A case-insensitive server finds other spellings too.
        let found: Vec<_> = found.iter().filter(|row| rows::text(row, 2) == Some(name)).collect();
        let row = match found.as_slice() {
            [] => return Err(Failure::from(self.unknown(connection, name).await?)),
            [row] => row,
            several => match several.iter().find(|row| rows::text(row, 1) == Some("dbo")) {
                Some(row) => row,
                None => {
                    let text = format!("several schemas have a table {name}, and dbo is not among them");
                    return Err(Failure::from(Error::rejected(text)));
                }
            },
        };
        let is = |place: usize| rows::integer(row, place).is_some_and(|flag| flag != 0);
        let (id, schema) = (rows::integer(row, 0).unwrap_or_default(), rows::text(row, 1).unwrap_or("dbo"));
        let object_id = i32::try_from(id).unwrap_or_default();
        let columns = connection.rows("looking up columns", statements::COLUMNS, &[Param::int(object_id)]).await?;
        let mut key: Vec<(i64, usize)> = Vec::new();
        let mut infos = Vec::with_capacity(columns.len());
        for (place, column) in columns.iter().enumerate() {
            let number = |place: usize| rows::integer(column, place).unwrap_or_default();
            let type_name = rows::text(column, 2).unwrap_or_default();
            let mut info =
                ColumnInfo::new(rows::text(column, 0).unwrap_or_default(), type_name, number(3), number(4), number(5));
            info.id = i32::try_from(number(1)).unwrap_or_default();
            info.nullable = number(6) != 0;
            info.collation = rows::text(column, 7).map(str::to_owned);
            if number(8) > 0 {
                key.push((number(8), place));
            }
            infos.push(info);
        }
        key.sort_unstable();
        let key = key.into_iter().map(|(_, place)| place).collect();
        let mut info = TableInfo::new(schema, name, section, infos, key)?;
        info.object_id = object_id;
        for (enabled, mode) in [(is(3), CaptureMode::ChangeTracking), (is(4), CaptureMode::Cdc)] {
            if enabled {
                info.table.capture.push(mode);
            }
        }
        info.table.tombstones = is(5) && is(6);
        info.snapshot_isolation = rows::integer(row, 7) == Some(1);
        Ok(info)
    }

    async fn unknown(&self, connection: &mut Connection, name: &str) -> Outcome<Error> {
        let tables = connection.rows("listing tables", statements::TABLES, &[]).await?;
        let own = |table: &str| table.starts_with("SmartPulse") || table.ends_with("_truncate_guard");
        let tables: Vec<&str> = tables.iter().filter_map(|row| rows::text(row, 0)).filter(|t| !own(t)).collect();
        let known = if tables.is_empty() {
            "none that this login can see: create its schema, or ask `smartpulse plan`".to_owned()
        } else {
            tables.join(", ")
        };
        Ok(Error::rejected(format!("no table {name}; the database has {known}")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `Forecasts`, as the scripts create it.
    pub(crate) fn forecasts() -> TableInfo {
        let columns = [
            ("Id", "uniqueidentifier", 16, false),
            ("CompanyId", "uniqueidentifier", 16, false),
            ("ProductionUnitId", "uniqueidentifier", 16, false),
            ("ForecastDate", "datetime2", 7, false),
            ("Demand", "float", 8, false),
            ("Supply", "float", 8, true),
            ("ConfidenceLevel", "float", 8, false),
            ("Status", "nvarchar", 64, false),
            ("CreatedAt", "datetime2", 7, false),
            ("UpdatedAt", "datetime2", 7, false),
            ("UpdatedBy", "uniqueidentifier", 16, true),
            ("UpdatedVia", "nvarchar", 128, true),
            ("VersionId", "bigint", 8, false),
        ];
        let columns = columns
            .map(|(name, kind, length, nullable)| ColumnInfo { nullable, ..ColumnInfo::new(name, kind, length, 0, 3) });
        let mut info = TableInfo::new("dbo", "Forecasts", "forecast", columns.into(), vec![0]).unwrap();
        info.table.capture = vec![CaptureMode::ChangeTracking, CaptureMode::Cdc];
        info.table.tombstones = true;
        info.snapshot_isolation = true;
        info
    }

    /// `Logs`, as the scripts create it.
    pub(crate) fn logs() -> TableInfo {
        let columns = [
            ("Id", "uniqueidentifier", 16),
            ("CreatedAt", "datetime2", 7),
            ("Level", "nvarchar", 16),
            ("Instance", "uniqueidentifier", 16),
            ("Seq", "bigint", 8),
            ("Component", "nvarchar", 400),
            ("Message", "nvarchar", 8_000),
            ("Fields", "nvarchar", -1),
        ];
        let columns = columns.map(|(name, kind, length)| ColumnInfo::new(name, kind, length, 0, 3));
        TableInfo::new("dbo", "Logs", "Logs", columns.into(), vec![0]).unwrap()
    }

    pub(crate) fn inboxes() -> TableInfo {
        let columns =
            [("Id", "uniqueidentifier", 16), ("UserId", "uniqueidentifier", 16), ("CreatedAt", "datetime2", 7)];
        let columns = columns.map(|(name, kind, length)| ColumnInfo::new(name, kind, length, 0, 3));
        TableInfo::new("dbo", "Notifications", "Notifications", columns.into(), vec![0]).unwrap()
    }

    /// A table with odd names, a key of two columns and a `varchar` among them.
    pub(crate) fn orders() -> TableInfo {
        let region = ColumnInfo {
            nullable: false,
            collation: Some("Latin1_General_100_CI_AS".to_owned()),
            ..ColumnInfo::new("Re]gion #1", "varchar", 20, 0, 0)
        };
        let number = ColumnInfo { nullable: false, ..ColumnInfo::new("Order No", "int", 4, 10, 0) };
        let price = ColumnInfo::new("Price[EUR]", "decimal", 9, 19, 4);
        TableInfo::new("dbo", "Orders", "Orders", vec![region, number, price], vec![0, 1]).unwrap()
    }

    #[test]
    fn a_varchar_key_is_compared_as_varchar_of_its_own_code_page() {
        let orders = orders();
        let sql = statements::after_key(&orders, "", 2);
        assert_eq!(
            sql,
            "([Re]]gion #1] > CAST(@P2 COLLATE Latin1_General_100_CI_AS AS varchar(20)) OR ([Re]]gion #1] = \
             CAST(@P2 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND [Order No] > @P3))"
        );
    }

    #[test]
    fn a_key_that_has_no_spelling_is_refused() {
        let table =
            |key: Vec<usize>| TableInfo::new("dbo", "T", "T", vec![ColumnInfo::new("At", "datetime2", 8, 0, 7)], key);
        assert!(table(vec![]).unwrap_err().chain().contains("no primary key"));
        assert!(table(vec![0]).unwrap_err().chain().contains("datetime2(7)"));
    }

    #[test]
    fn members_become_parameters_or_are_refused_with_the_nearest_name() {
        let forecasts = forecasts();
        let members = |json: Value| json.as_object().cloned().unwrap();
        let values = forecasts.values(&members(serde_json::json!({ "demand": 5, "supply": null }))).unwrap();
        assert_eq!(values.iter().map(|(c, _)| c.name.as_str()).collect::<Vec<_>>(), ["Demand", "Supply"]);
        for (member, hint) in [("demnad", "did you mean demand?"), ("variance", "computed"), ("qqq", "forecastDate")] {
            let error = forecasts.values(&members(serde_json::json!({ member: 1.0 }))).unwrap_err().chain();
            assert!(error.contains(hint), "{error}");
        }
        let error = forecasts.values(&members(serde_json::json!({ "demand": "x" }))).unwrap_err().chain();
        assert_eq!(error, "demand is float and cannot be \"x\"");
    }
}
