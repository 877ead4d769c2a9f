-- Both capture modes of one table. A template: {schema} and {table} are names.

IF NOT EXISTS (SELECT 1 FROM sys.change_tracking_tables WHERE object_id = OBJECT_ID(N'[{schema}].[{table}]'))
    ALTER TABLE [{schema}].[{table}] ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);
GO
IF NOT EXISTS (SELECT 1 FROM cdc.change_tables WHERE source_object_id = OBJECT_ID(N'[{schema}].[{table}]'))
    EXEC sys.sp_cdc_enable_table
        @source_schema = N'{schema}', @source_name = N'{table}', @role_name = NULL, @supports_net_changes = 0;
