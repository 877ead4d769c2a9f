//! What is asked about the capture job and the age of a position, and for the plan. Nothing here writes.
//!
//! What needs a right beyond reading the data, or a view that Azure SQL Database lacks, is within an EXEC that runs only with
//! the right: the server then resolves its names only where they are. The answer is NULL, or no row, where it is not known.

/// Change tracking of the database: the retention in minutes, whether it is cleaned at all, and the server's time.
pub const CT_RETENTION: &str = "\
SELECT CASE d.retention_period_units
        WHEN 1 THEN d.retention_period WHEN 2 THEN d.retention_period * 60 ELSE d.retention_period * 1440 END AS RetentionMinutes,
    d.is_auto_cleanup_on AS Cleaned, SYSDATETIMEOFFSET() AS ServerTime
FROM sys.change_tracking_databases AS d
WHERE d.database_id = DB_ID()";

/// When the first transaction after version `@P1` was committed, in local time.
pub const CT_AGE: &str = "\
SELECT TOP (1) m.commit_time AS CommitTime
FROM sys.dm_tran_commit_table AS m
WHERE m.commit_ts > @P1
ORDER BY m.commit_ts";

/// When the first transaction after LSN `@P1` was committed, when the newest one was, both in local time, and the server's
/// time.
pub const CDC_AGE: &str = "\
SELECT (SELECT TOP (1) m.tran_end_time FROM cdc.lsn_time_mapping AS m
        WHERE m.start_lsn > CAST(@P1 AS binary(10)) ORDER BY m.start_lsn) AS FirstTime,
    (SELECT TOP (1) m.tran_end_time FROM cdc.lsn_time_mapping AS m ORDER BY m.start_lsn DESC) AS NewestTime,
    SYSDATETIMEOFFSET() AS ServerTime";

/// The jobs of change data capture: type, retention in minutes, polling interval in seconds, transactions per scan, scans
/// per interval, and whether it runs without end. Azure SQL Database has them in the database itself.
pub const CDC_JOBS: &str = "\
IF OBJECT_ID(N'[cdc].[cdc_jobs]', N'U') IS NOT NULL AND HAS_PERMS_BY_NAME(N'[cdc].[cdc_jobs]', N'OBJECT', N'SELECT') = 1
    EXEC(N'SELECT j.job_type AS JobType, j.retention AS RetentionMinutes, j.pollinginterval AS PollingSeconds,
        j.maxtrans AS TransactionsMax, j.maxscans AS ScansMax, j.continuous AS Endless
        FROM cdc.cdc_jobs AS j WHERE j.database_id = DB_ID() ORDER BY j.job_type');
ELSE IF HAS_PERMS_BY_NAME(N'msdb.dbo.cdc_jobs', N'OBJECT', N'SELECT') = 1
    EXEC(N'SELECT j.job_type AS JobType, j.retention AS RetentionMinutes, j.pollinginterval AS PollingSeconds,
        j.maxtrans AS TransactionsMax, j.maxscans AS ScansMax, j.continuous AS Endless
        FROM msdb.dbo.cdc_jobs AS j WHERE j.database_id = DB_ID() ORDER BY j.job_type');";

/// When the capture job was started and stopped last, and whether it is enabled.
pub const CDC_ACTIVITY: &str = "\
IF HAS_PERMS_BY_NAME(N'msdb.dbo.cdc_jobs', N'OBJECT', N'SELECT') = 1
    AND HAS_PERMS_BY_NAME(N'msdb.dbo.sysjobactivity', N'OBJECT', N'SELECT') = 1
    AND HAS_PERMS_BY_NAME(N'msdb.dbo.sysjobs', N'OBJECT', N'SELECT') = 1
    EXEC(N'SELECT TOP (1) s.enabled AS Enabled, a.start_execution_date AS Started, a.stop_execution_date AS Stopped
        FROM msdb.dbo.cdc_jobs AS j
        JOIN msdb.dbo.sysjobs AS s ON s.job_id = j.job_id
        LEFT JOIN msdb.dbo.sysjobactivity AS a ON a.job_id = j.job_id
        WHERE j.database_id = DB_ID() AND j.job_type = N''capture''
        ORDER BY a.session_id DESC');";

/// When the log was scanned last, in local time. The row 0 sums up all sessions.
pub const CDC_SCANS: &str = "\
IF HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') = 1
    EXEC(N'SELECT MAX(COALESCE(s.end_time, GETDATE())) AS LastScan
        FROM sys.dm_cdc_log_scan_sessions AS s WHERE s.session_id <> 0');";

/// For the plan: what kind of server it is, and what the database and the login have.
pub const PLAN_SERVER: &str = "\
SELECT CAST(SERVERPROPERTY(N'ProductVersion') AS nvarchar(128)) AS ProductVersion,
    CAST(SERVERPROPERTY(N'Edition') AS nvarchar(128)) AS Edition,
    CAST(SERVERPROPERTY(N'EngineEdition') AS int) AS EngineEdition,
    DB_NAME() AS DatabaseName, USER_NAME() AS UserName,
    d.snapshot_isolation_state AS SnapshotState, d.is_cdc_enabled AS CdcEnabled,
    CASE WHEN EXISTS (SELECT 1 FROM sys.change_tracking_databases AS c WHERE c.database_id = DB_ID()) THEN 1 ELSE 0 END AS Tracked,
    HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') AS MayViewState,
    IS_MEMBER(N'db_owner') AS IsOwner,
    CASE WHEN OBJECT_ID(N'[dbo].[SmartPulseCapture]', N'U') IS NULL THEN 0 ELSE 1 END AS HasLedger,
    CASE WHEN HAS_PERMS_BY_NAME(N'[dbo].[SmartPulseCapture]', N'OBJECT', N'SELECT') = 1
        AND HAS_PERMS_BY_NAME(N'[dbo].[SmartPulseCapture]', N'OBJECT', N'INSERT') = 1
        AND HAS_PERMS_BY_NAME(N'[dbo].[SmartPulseCapture]', N'OBJECT', N'UPDATE') = 1 THEN 1 ELSE 0 END AS MayKeepLedger,
    HAS_PERMS_BY_NAME(N'cdc', N'SCHEMA', N'SELECT') AS MayReadCdc,
    CASE WHEN OBJECT_ID(N'[dbo].[Tombstones]', N'U') IS NULL THEN 0 ELSE 1 END AS HasTombstones,
    HAS_PERMS_BY_NAME(N'[dbo].[Tombstones]', N'OBJECT', N'SELECT') AS MayReadTombstones,
    CASE WHEN EXISTS (SELECT 1 FROM sys.tables AS w
        WHERE w.object_id = OBJECT_ID(N'[dbo].[SmartPulseWatermark]', N'U') AND w.is_tracked_by_cdc = 1) THEN 1 ELSE 0 END AS HasWatermark,
    HAS_PERMS_BY_NAME(N'[dbo].[SmartPulseWatermark]', N'OBJECT', N'UPDATE') AS MayMark,
    HAS_PERMS_BY_NAME(NULL, NULL, N'VIEW SERVER STATE') AS MayViewServer
FROM sys.databases AS d
WHERE d.database_id = DB_ID()";

/// For the plan: the table with the number `@P1`, named `@P2` with its schema, as names are quoted.
pub const PLAN_TABLE: &str = "\
SELECT HAS_PERMS_BY_NAME(@P2, N'OBJECT', N'SELECT') AS MayRead,
    HAS_PERMS_BY_NAME(@P2, N'OBJECT', N'VIEW CHANGE TRACKING') AS MayTrack,
    g.name AS TriggerName, g.is_disabled AS Disabled
FROM (SELECT 1 AS One) AS o
LEFT JOIN sys.triggers AS g ON g.parent_id = @P1
ORDER BY g.name";

/// For the plan: columns of the table with the number `@P1` that none of its capture instances has.
pub const PLAN_ABSENT: &str = "\
SELECT c.name AS ColumnName
FROM sys.columns AS c
WHERE c.object_id = @P1
    AND NOT EXISTS (SELECT 1 FROM cdc.captured_columns AS k
        JOIN cdc.change_tables AS t ON t.object_id = k.object_id
        WHERE t.source_object_id = c.object_id AND k.column_id = c.column_id)
ORDER BY c.column_id";

/// For the plan: all capture instances, those of the table with the number `@P1` marked, by when they were made.
pub const PLAN_INSTANCES: &str = "\
SELECT t.capture_instance AS InstanceName, CASE WHEN t.source_object_id = @P1 THEN 1 ELSE 0 END AS Own
FROM cdc.change_tables AS t
ORDER BY t.create_date, t.object_id";
