//! What reads send.

use super::{after_key, key_is, key_list};
use crate::catalogue::{TableInfo, list, quote};

/// Rows by ascending key: at most `@P1`, those after the key in the parameters that follow where there is one.
#[must_use]
pub fn scan(table: &TableInfo, after: bool) -> String {
    let from = if after { format!("\nWHERE {}", after_key(table, "", 2)) } else { String::new() };
    format!(
        "SELECT TOP (@P1) {}\nFROM {}{from}\nORDER BY {}",
        table.columns_sql(""),
        table.sql_name,
        key_list(table, "")
    )
}

/// The rows of `count` keys.
#[must_use]
pub fn get(table: &TableInfo, count: usize) -> String {
    let keys = table.keys();
    let condition = match keys.as_slice() {
        [key] => {
            let holes = list(1..=count, |number| key.typed(&format!("@P{number}")));
            format!("{} IN ({holes})", quote(&key.name))
        }
        several => {
            let one = |place: usize| format!("({})", key_is(table, "", 1 + place * several.len()));
            (0..count).map(one).collect::<Vec<_>>().join(" OR ")
        }
    };
    format!("SELECT {}\nFROM {}\nWHERE {condition}", table.columns_sql(""), table.sql_name)
}

/// A page of forecasts with the number of all that match, of one moment where the database allows SNAPSHOT. The
/// parameters are those of the filters, then how many to pass over and how many to give.
#[must_use]
pub fn list_forecasts(table: &TableInfo, filters: &[ForecastFilter]) -> String {
    let conditions: Vec<String> =
        filters.iter().enumerate().map(|(i, filter)| format!("{} @P{}", filter.condition(), i + 1)).collect();
    let filter = if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) };
    let (skip, take) = (filters.len() + 1, filters.len() + 2);
    let (columns, name) = (table.columns_sql(""), &table.sql_name);
    let body = format!(
        "SELECT COUNT_BIG(*) AS Total\nFROM {name}{filter};\n\
         SELECT {columns}\nFROM {name}{filter}\nORDER BY [ForecastDate] DESC, [Id]\n\
         OFFSET @P{skip} ROWS FETCH NEXT @P{take} ROWS ONLY;"
    );
    if table.snapshot_isolation { in_snapshot(&body) } else { body }
}

/// A filter of the list of forecasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForecastFilter {
    /// Of a company.
    Company,
    /// Of a unit.
    Unit,
    /// At or after a time.
    From,
    /// Before a time.
    To,
}

impl ForecastFilter {
    fn condition(self) -> &'static str {
        match self {
            Self::Company => "[CompanyId] =",
            Self::Unit => "[ProductionUnitId] =",
            Self::From => "[ForecastDate] >=",
            Self::To => "[ForecastDate] <",
        }
    }
}

/// The tombstones of section `@P2` by ascending id, at most `@P1`, those after `@P3` where there is one.
#[must_use]
pub fn tombstones(after: bool) -> String {
    let from = if after { " AND Id > @P3" } else { "" };
    format!(
        "SELECT TOP (@P1) Id, VersionId, DeletedAt\nFROM [dbo].[Tombstones]\nWHERE Section = @P2{from}\nORDER BY Id"
    )
}

/// Reads in one SNAPSHOT transaction. The batch puts the isolation level back: a connection may be used by others after.
#[must_use]
pub fn in_snapshot(body: &str) -> String {
    format!(
        "SET TRANSACTION ISOLATION LEVEL SNAPSHOT;\nBEGIN TRANSACTION;\n{body}\nCOMMIT;\n\
         SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
    )
}
