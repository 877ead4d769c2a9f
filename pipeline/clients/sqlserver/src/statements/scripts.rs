//! The scripts of `config/sql/sqlserver`, as batches.

/// The scripts that create the schema and do not depend on a captured table, cut at their GO lines: GO is an order to SQL
/// Server's own tools and never sent.
#[must_use]
pub fn schema_batches() -> Vec<String> {
    [SCHEMA, DATABASE, PROCEDURES].into_iter().flat_map(split_go).collect()
}

/// Whether the schema makes a captured table of this name.
#[must_use]
pub fn makes(table: &str) -> bool {
    let begin = format!("CREATE TABLE dbo.{table} (");
    split_go(SCHEMA).iter().any(|batch| batch.contains(&begin) && batch.contains(" VersionId "))
}

/// Whether change data capture is on, or this login can switch it on: not on the editions that lack it.
pub const MAY_ENABLE_CDC: &str = "\
SELECT CASE
    WHEN d.is_cdc_enabled = 1 THEN 1
    WHEN CAST(SERVERPROPERTY(N'EngineEdition') AS int) = 4 THEN 0
    WHEN CAST(SERVERPROPERTY(N'EngineEdition') AS int) <> 5 THEN IS_SRVROLEMEMBER(N'sysadmin')
    WHEN CAST(DATABASEPROPERTYEX(DB_NAME(), N'ServiceObjective') AS nvarchar(64)) IN (N'Basic', N'S0', N'S1', N'S2') THEN 0
    ELSE IS_MEMBER(N'db_owner') END AS MayEnable
FROM sys.databases AS d
WHERE d.database_id = DB_ID()";

/// Whether a batch enables change data capture.
#[must_use]
pub fn is_cdc(batch: &str) -> bool {
    batch.contains("sys.sp_cdc_enable_")
}

/// The scripts of a captured table, with its names filled in.
#[must_use]
pub fn table_batches(table: &CapturedTable<'_>) -> Vec<String> {
    let fill = |template: &str| {
        let filled = template.replace("{schema}", table.schema).replace("{table}", table.table);
        split_go(&filled.replace("{key}", table.key).replace("{section}", table.section))
    };
    let versions = if table.versions { fill(VERSIONS) } else { Vec::new() };
    versions.into_iter().chain(fill(CAPTURE)).collect()
}

/// The names that the scripts of a captured table need.
#[derive(Debug, Clone, Copy)]
pub struct CapturedTable<'a> {
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub table: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Its section.
    pub section: &'a str,
    /// Whether its versions are kept by our triggers: its key must be one `uniqueidentifier`, as tombstones have it.
    pub versions: bool,
}

const SCHEMA: &str = include_str!("../../../../../config/sql/sqlserver/schema.sql");
const DATABASE: &str = include_str!("../../../../../config/sql/sqlserver/database.sql");
const VERSIONS: &str = include_str!("../../../../../config/sql/sqlserver/versions.sql");
const CAPTURE: &str = include_str!("../../../../../config/sql/sqlserver/capture.sql");
const PROCEDURES: &str = include_str!("../../../../../config/sql/sqlserver/procedures.sql");

/// The batches of a script.
fn split_go(script: &str) -> Vec<String> {
    let mut batches = vec![String::new()];
    for line in script.lines() {
        if line.trim().eq_ignore_ascii_case("go") {
            batches.push(String::new());
        } else if let Some(batch) = batches.last_mut() {
            batch.push_str(line);
            batch.push('\n');
        }
    }
    let says = |batch: &String| batch.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with("--"));
    batches.into_iter().filter(says).map(|batch| batch.trim_end().to_owned()).collect()
}
