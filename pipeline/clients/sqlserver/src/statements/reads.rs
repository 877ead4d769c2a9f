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
    let mut next = 1;
    let conditions: Vec<String> = filters
        .iter()
        .map(|filter| {
            let first = next;
            next += filter.parameters();
            filter.condition(first)
        })
        .collect();
    let filter = if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) };
    let (skip, take) = (next, next + 1);
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
    /// Of any of so many companies.
    Companies(usize),
    /// Of a unit.
    Unit,
    /// At or after a time.
    From,
    /// Before a time.
    To,
}

impl ForecastFilter {
    fn parameters(self) -> usize {
        match self {
            Self::Companies(count) => count,
            Self::Unit | Self::From | Self::To => 1,
        }
    }

    /// With its parameters from `@P{first}` on.
    fn condition(self, first: usize) -> String {
        match self {
            Self::Companies(count) => {
                format!("[CompanyId] IN ({})", list(first..first + count, |number| format!("@P{number}")))
            }
            Self::Unit => format!("[ProductionUnitId] = @P{first}"),
            Self::From => format!("[ForecastDate] >= @P{first}"),
            Self::To => format!("[ForecastDate] < @P{first}"),
        }
    }
}

/// Lines of `dbo.Logs`, newest first: at most `@P1`, of `levels` levels in the parameters that follow, then since a time and
/// of a component where these are asked for.
#[must_use]
pub fn logs(table: &TableInfo, levels: usize, since: bool, component: bool) -> String {
    let mut next = levels + 2;
    let mut filter = format!("[Level] IN ({})", list(2..next, |number| format!("@P{number}")));
    for (condition, wanted) in [("[CreatedAt] >=", since), ("[Component] =", component)] {
        if wanted {
            filter.push_str(&format!(" AND {condition} @P{next}"));
            next += 1;
        }
    }
    let (columns, name) = (table.columns_sql(""), &table.sql_name);
    format!("SELECT TOP (@P1) {columns}\nFROM {name}\nWHERE {filter}\nORDER BY [CreatedAt] DESC, [Seq] DESC")
}

/// When the newest line of `dbo.Logs` was logged that is beyond the newest `@P1`.
pub const LOGS_BEYOND: &str = "\
SELECT CreatedAt
FROM [dbo].[Logs]
ORDER BY CreatedAt DESC
OFFSET @P1 ROWS FETCH NEXT 1 ROWS ONLY";

/// Removes the oldest `@P1` lines of `dbo.Logs` of `@P2` and earlier.
pub const PRUNE_LOGS: &str = "\
DELETE FROM [dbo].[Logs]
WHERE Id IN (SELECT TOP (@P1) Id FROM [dbo].[Logs] WHERE CreatedAt <= @P2 ORDER BY CreatedAt);
SELECT @@ROWCOUNT AS Removed;";

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
