-- What the captured database as a whole needs: change tracking with two days of history, SNAPSHOT isolation (a poll then
-- reads changes and rows of one moment and blocks nobody), change data capture, also of the watermark. Needs db_owner
-- (CDC: sysadmin, but for Azure SQL).

IF NOT EXISTS (SELECT 1 FROM sys.change_tracking_databases WHERE database_id = DB_ID())
    ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON);
GO
IF EXISTS (SELECT 1 FROM sys.databases WHERE database_id = DB_ID() AND snapshot_isolation_state = 0)
    ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON;
GO
IF EXISTS (SELECT 1 FROM sys.databases WHERE database_id = DB_ID() AND is_cdc_enabled = 0)
    EXEC sys.sp_cdc_enable_db;
GO
IF NOT EXISTS (SELECT 1 FROM cdc.change_tables WHERE source_object_id = OBJECT_ID(N'dbo.SmartPulseWatermark'))
    EXEC sys.sp_cdc_enable_table
        @source_schema = N'dbo', @source_name = N'SmartPulseWatermark', @role_name = NULL, @supports_net_changes = 0;
