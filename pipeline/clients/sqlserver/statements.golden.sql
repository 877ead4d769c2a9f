-- All T-SQL that the client sends, as it is sent for Forecasts. Written by its tests: UPDATE_GOLDEN=1.

-- ping
SELECT 1 AS Alive

-- session
SET NOCOUNT ON; SET XACT_ABORT ON; SET LOCK_TIMEOUT 4000; SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- table
SELECT t.object_id AS ObjectId, s.name AS SchemaName, t.name AS TableName,
    CASE WHEN EXISTS (SELECT 1 FROM sys.change_tracking_tables AS ct WHERE ct.object_id = t.object_id) THEN 1 ELSE 0 END AS Tracking,
    t.is_tracked_by_cdc AS Cdc,
    CASE WHEN EXISTS (SELECT 1 FROM sys.triggers AS g WHERE g.parent_id = t.object_id
        AND g.name = t.name + N'_versions_delete' AND g.is_disabled = 0
        AND COALESCE(CHARINDEX(@P2, OBJECT_DEFINITION(g.object_id)), 1) > 0) THEN 1 ELSE 0 END AS DeleteTrigger,
    CASE WHEN EXISTS (SELECT 1 FROM sys.tables AS f WHERE f.schema_id = t.schema_id
        AND f.name = t.name + N'_truncate_guard') THEN 1 ELSE 0 END AS TruncateGuard,
    (SELECT d.snapshot_isolation_state FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS SnapshotState
FROM sys.tables AS t
JOIN sys.schemas AS s ON s.schema_id = t.schema_id
WHERE t.name = @P1 AND s.name <> N'cdc'
ORDER BY s.name

-- columns
SELECT c.name AS ColumnName, c.column_id AS ColumnId, y.name AS TypeName, c.max_length AS MaxLength,
    c.[precision] AS NumericPrecision, c.scale AS NumericScale, c.is_nullable AS Nullable,
    c.collation_name AS Collation, k.key_ordinal AS KeyOrdinal
FROM sys.columns AS c
JOIN sys.types AS y
    ON y.user_type_id = CASE WHEN c.system_type_id = 240 THEN c.user_type_id ELSE c.system_type_id END
LEFT JOIN sys.indexes AS i ON i.object_id = c.object_id AND i.is_primary_key = 1
LEFT JOIN sys.index_columns AS k
    ON k.object_id = i.object_id AND k.index_id = i.index_id AND k.column_id = c.column_id
WHERE c.object_id = @P1
ORDER BY c.column_id

-- tables
SELECT t.name AS TableName
FROM sys.tables AS t
JOIN sys.schemas AS s ON s.schema_id = t.schema_id
WHERE t.is_ms_shipped = 0 AND s.name <> N'cdc'
ORDER BY t.name

-- schema: whether change data capture can be had
SELECT CASE
    WHEN d.is_cdc_enabled = 1 THEN 1
    WHEN CAST(SERVERPROPERTY(N'EngineEdition') AS int) = 4 THEN 0
    WHEN CAST(SERVERPROPERTY(N'EngineEdition') AS int) <> 5 THEN IS_SRVROLEMEMBER(N'sysadmin')
    WHEN CAST(DATABASEPROPERTYEX(DB_NAME(), N'ServiceObjective') AS nvarchar(64)) IN (N'Basic', N'S0', N'S1', N'S2') THEN 0
    ELSE IS_MEMBER(N'db_owner') END AS MayEnable
FROM sys.databases AS d
WHERE d.database_id = DB_ID()

-- scan from the beginning
SELECT TOP (@P1) [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
ORDER BY [Id]

-- scan
SELECT TOP (@P1) [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
WHERE [Id] > @P2
ORDER BY [Id]

-- scan of a table with a key of two columns, one of them varchar
SELECT TOP (@P1) CAST([Re]]gion #1] AS nvarchar(20)), [Order No], [Price[EUR]]]
FROM [dbo].[Orders]
WHERE ([Re]]gion #1] > CAST(@P2 COLLATE Latin1_General_100_CI_AS AS varchar(20)) OR ([Re]]gion #1] = CAST(@P2 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND [Order No] > @P3))
ORDER BY [Re]]gion #1], [Order No]

-- get
SELECT [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
WHERE [Id] IN (@P1, @P2, @P3, @P4)

-- get from a table with a key of two columns
SELECT CAST([Re]]gion #1] AS nvarchar(20)), [Order No], [Price[EUR]]]
FROM [dbo].[Orders]
WHERE ([Re]]gion #1] = CAST(@P1 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND [Order No] = @P2) OR ([Re]]gion #1] = CAST(@P3 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND [Order No] = @P4)

-- list of forecasts
SET TRANSACTION ISOLATION LEVEL SNAPSHOT;
BEGIN TRANSACTION;
SELECT COUNT_BIG(*) AS Total
FROM [dbo].[Forecasts]
WHERE [CompanyId] IN (@P1) AND [ProductionUnitId] = @P2 AND [ForecastDate] >= @P3 AND [ForecastDate] < @P4;
SELECT [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
WHERE [CompanyId] IN (@P1) AND [ProductionUnitId] = @P2 AND [ForecastDate] >= @P3 AND [ForecastDate] < @P4
ORDER BY [ForecastDate] DESC, [Id]
OFFSET @P5 ROWS FETCH NEXT @P6 ROWS ONLY;
COMMIT;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- list of the forecasts of three or four companies
SET TRANSACTION ISOLATION LEVEL SNAPSHOT;
BEGIN TRANSACTION;
SELECT COUNT_BIG(*) AS Total
FROM [dbo].[Forecasts]
WHERE [CompanyId] IN (@P1, @P2, @P3, @P4) AND [ForecastDate] >= @P5;
SELECT [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
WHERE [CompanyId] IN (@P1, @P2, @P3, @P4) AND [ForecastDate] >= @P5
ORDER BY [ForecastDate] DESC, [Id]
OFFSET @P6 ROWS FETCH NEXT @P7 ROWS ONLY;
COMMIT;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- logs of a component since a time
SELECT TOP (@P1) [Id], [CreatedAt], [Level], [Instance], [Seq], [Component], [Message], [Fields]
FROM [dbo].[Logs]
WHERE [Level] IN (@P2, @P3) AND [CreatedAt] >= @P4 AND [Component] = @P5
ORDER BY [CreatedAt] DESC, [Seq] DESC

-- logs: where those beyond a number of lines begin
SELECT CreatedAt
FROM [dbo].[Logs]
ORDER BY CreatedAt DESC
OFFSET @P1 ROWS FETCH NEXT 1 ROWS ONLY

-- logs: removing the oldest
DELETE FROM [dbo].[Logs]
WHERE Id IN (SELECT TOP (@P1) Id FROM [dbo].[Logs] WHERE CreatedAt <= @P2 ORDER BY CreatedAt);
SELECT @@ROWCOUNT AS Removed;

-- tombstones
SELECT TOP (@P1) Id, VersionId, DeletedAt
FROM [dbo].[Tombstones]
WHERE Section = @P2 AND Id > @P3
ORDER BY Id

-- tombstones from the beginning
SELECT TOP (@P1) Id, VersionId, DeletedAt
FROM [dbo].[Tombstones]
WHERE Section = @P2
ORDER BY Id

-- begin of a write that takes several calls
BEGIN TRANSACTION

-- end of a write that takes several calls
COMMIT

-- write: insert
DECLARE @n int;
BEGIN TRANSACTION;
INSERT INTO [dbo].[Forecasts] ([Id], [Demand], [UpdatedVia])
SELECT @P1, @P2, @P3
WHERE NOT EXISTS (SELECT 1 FROM [dbo].[Forecasts] WITH (UPDLOCK, HOLDLOCK) WHERE [Id] = @P4);
SET @n = @@ROWCOUNT;
SELECT @n AS Changed, [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
WHERE [Id] = @P4;
COMMIT;

-- write: update
DECLARE @n int;
BEGIN TRANSACTION;
UPDATE [dbo].[Forecasts] SET [Demand] = @P1, [UpdatedVia] = @P2
WHERE [Id] = @P3;
SET @n = @@ROWCOUNT;
SELECT @n AS Changed, [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
WHERE [Id] = @P3;
COMMIT;

-- write: update if a version is expected
DECLARE @n int;
BEGIN TRANSACTION;
UPDATE [dbo].[Forecasts] SET [Demand] = @P1
WHERE [Id] = @P2 AND [VersionId] = @P3;
SET @n = @@ROWCOUNT;
SELECT @n AS Changed, [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts]
WHERE [Id] = @P2;
COMMIT;

-- write: update that sets nothing
DECLARE @n int;
BEGIN TRANSACTION;
SELECT 1 AS Changed, [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts] WITH (UPDLOCK)
WHERE [Id] = @P1;
COMMIT;

-- write: delete
DECLARE @n int;
BEGIN TRANSACTION;
SELECT [Id], [CompanyId], [ProductionUnitId], [ForecastDate], [Demand], [Supply], [ConfidenceLevel], [Status], [CreatedAt], [UpdatedAt], [UpdatedBy], [UpdatedVia], [VersionId]
FROM [dbo].[Forecasts] WITH (UPDLOCK, HOLDLOCK)
WHERE [Id] = @P1;
DELETE FROM [dbo].[Forecasts]
WHERE [Id] = @P1 AND [VersionId] = @P2;
SET @n = @@ROWCOUNT;
SELECT @n AS Changed, (SELECT b.VersionId FROM [dbo].[Tombstones] AS b WHERE b.Section = @P3 AND b.Id = @P1) AS Tombstone;
COMMIT;

-- write: delete from a table without tombstones
DECLARE @n int;
BEGIN TRANSACTION;
SELECT CAST([Re]]gion #1] AS nvarchar(20)), [Order No], [Price[EUR]]]
FROM [dbo].[Orders] WITH (UPDLOCK, HOLDLOCK)
WHERE [Re]]gion #1] = CAST(@P1 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND [Order No] = @P2;
DELETE FROM [dbo].[Orders]
WHERE [Re]]gion #1] = CAST(@P1 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND [Order No] = @P2;
SET @n = @@ROWCOUNT;
SELECT @n AS Changed, CAST(NULL AS bigint) AS Tombstone;
COMMIT;

-- insert of a few rows where absent
DECLARE @n bigint = 0;
BEGIN TRANSACTION;
INSERT INTO [dbo].[Forecasts] ([Id], [Demand], [UpdatedVia])
SELECT @P1, @P2, @P3
WHERE NOT EXISTS (SELECT 1 FROM [dbo].[Forecasts] WITH (UPDLOCK, HOLDLOCK) WHERE [Id] = @P4);
SET @n = @n + @@ROWCOUNT;
COMMIT;
SELECT @n AS Inserted;

-- staging table of a bulk insert
BEGIN TRANSACTION;
CREATE TABLE #staging (n int NOT NULL, g int NOT NULL, c0 uniqueidentifier NULL, c1 float NULL, c2 nvarchar(64) NULL);

-- insert of what was loaded
DECLARE @n bigint = 0;
INSERT INTO [dbo].[Forecasts] ([Id], [Demand], [UpdatedVia])
SELECT s.c0, s.c1, s.c2
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY c0 ORDER BY n) AS r FROM #staging) AS s
WHERE s.r = 1 AND s.g = 0
AND NOT EXISTS (SELECT 1 FROM [dbo].[Forecasts] AS t WITH (UPDLOCK, HOLDLOCK) WHERE t.[Id] = s.c0)
ORDER BY s.n;
SET @n = @n + @@ROWCOUNT;
INSERT INTO [dbo].[Forecasts] ([Id], [Demand])
SELECT s.c0, s.c1
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY c0 ORDER BY n) AS r FROM #staging) AS s
WHERE s.r = 1 AND s.g = 1
AND NOT EXISTS (SELECT 1 FROM [dbo].[Forecasts] AS t WITH (UPDLOCK, HOLDLOCK) WHERE t.[Id] = s.c0)
ORDER BY s.n;
SET @n = @n + @@ROWCOUNT;
DROP TABLE #staging;
SELECT @n AS Inserted;
COMMIT;

-- the same, of a table with a varchar in its key
BEGIN TRANSACTION;
CREATE TABLE #staging (n int NOT NULL, g int NOT NULL, c0 nvarchar(max) COLLATE Latin1_General_100_CI_AS NULL, c1 bigint NULL, c2 nvarchar(max) NULL);
DECLARE @n bigint = 0;
INSERT INTO [dbo].[Orders] ([Re]]gion #1], [Order No], [Price[EUR]]])
SELECT s.c0, s.c1, CAST(s.c2 AS decimal(19,4))
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY c0, c1 ORDER BY n) AS r FROM #staging) AS s
WHERE s.r = 1 AND s.g = 0
AND NOT EXISTS (SELECT 1 FROM [dbo].[Orders] AS t WITH (UPDLOCK, HOLDLOCK) WHERE t.[Re]]gion #1] = CAST(s.c0 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND t.[Order No] = s.c1)
ORDER BY s.n;
SET @n = @n + @@ROWCOUNT;
DROP TABLE #staging;
SELECT @n AS Inserted;
COMMIT;

-- devices of a user
EXEC dbo.GetUserDevices @UserId = @P1

-- device removed
DELETE FROM [dbo].[SysUserDeviceInfo] OUTPUT deleted.Id WHERE Id = @P1

-- mails claimed
UPDATE [dbo].[NheaMailQueue]
SET Status = N'Sending', Attempts = Attempts + 1, NotBefore = DATEADD(millisecond, @P2, SYSUTCDATETIME())
OUTPUT inserted.Id, inserted.ToAddress, inserted.Subject, inserted.BodyHtml, inserted.BodyText, inserted.Attachments,
    inserted.Attempts, inserted.UnsubscribeUrl
WHERE Id IN (
    SELECT TOP (@P1) Id
    FROM [dbo].[NheaMailQueue] WITH (UPDLOCK, READPAST, ROWLOCK)
    WHERE Status IN (N'Queued', N'Sending') AND (NotBefore IS NULL OR NotBefore <= SYSUTCDATETIME())
    ORDER BY CreatedAt, Id)

-- mails settled
DECLARE @held int = 0;
BEGIN TRANSACTION;
UPDATE [dbo].[NheaMailQueue]
SET Status = @P3, LastError = COALESCE(@P4, LastError), Attempts = Attempts + @P6,
    NotBefore = DATEADD(millisecond, @P5, SYSUTCDATETIME()),
    SentAt = CASE WHEN @P3 = N'Sent' THEN SYSUTCDATETIME() ELSE NULL END
WHERE Id = @P1 AND Attempts = @P2 AND Status = N'Sending';
SET @held = @held + @@ROWCOUNT;
UPDATE [dbo].[NheaMailQueue]
SET Status = @P9, LastError = COALESCE(@P10, LastError), Attempts = Attempts + @P12,
    NotBefore = DATEADD(millisecond, @P11, SYSUTCDATETIME()),
    SentAt = CASE WHEN @P9 = N'Sent' THEN SYSUTCDATETIME() ELSE NULL END
WHERE Id = @P7 AND Attempts = @P8 AND Status = N'Sending';
SET @held = @held + @@ROWCOUNT;
COMMIT;
SELECT @held AS Held;

-- users: one
SELECT TOP (@P1) Id, CompanyId, Email, DisplayName, [Role]
FROM [dbo].[SysUser]
WHERE Id = @P2
ORDER BY Id

-- users of a company, a further page
SELECT TOP (@P1) Id, CompanyId, Email, DisplayName, [Role]
FROM [dbo].[SysUser]
WHERE CompanyId = @P2 AND Id > @P3
ORDER BY Id

-- users with a role
SELECT TOP (@P1) Id, CompanyId, Email, DisplayName, [Role]
FROM [dbo].[SysUser]
WHERE [Role] = @P2
ORDER BY Id

-- users with a role in a company, a further page
SELECT TOP (@P1) Id, CompanyId, Email, DisplayName, [Role]
FROM [dbo].[SysUser]
WHERE [Role] = @P2 AND CompanyId = @P3 AND Id > @P4
ORDER BY Id

-- users of the company of a forecast
SELECT TOP (@P1) Id, CompanyId, Email, DisplayName, [Role]
FROM [dbo].[SysUser]
WHERE CompanyId = (SELECT CompanyId FROM [dbo].[Forecasts] WHERE Id = @P2)
ORDER BY Id

-- channels switched off
SELECT UserId, Channel
FROM [dbo].[NotificationPreferences]
WHERE Enabled = 0 AND UserId IN (@P1, @P2)

-- channel switched
BEGIN TRANSACTION;
INSERT INTO [dbo].[NotificationPreferences] (UserId, Channel, Enabled, UpdatedAt)
SELECT @P1, @P2, @P3, SYSUTCDATETIME()
WHERE NOT EXISTS (SELECT 1 FROM [dbo].[NotificationPreferences] WITH (UPDLOCK, HOLDLOCK)
    WHERE UserId = @P1 AND Channel = @P2);
UPDATE [dbo].[NotificationPreferences]
SET Enabled = @P3, UpdatedAt = SYSUTCDATETIME()
WHERE UserId = @P1 AND Channel = @P2 AND Enabled <> @P3;
COMMIT;

-- quiet periods opened
DECLARE @now datetime2(3) = SYSUTCDATETIME();
DECLARE @until datetime2(3) = DATEADD(millisecond, @P4, DATEADD(second, @P3, @now));
BEGIN TRANSACTION;
INSERT INTO [dbo].[NotificationQuiet] (UserId, [Rule], LastEvent, QuietUntil)
SELECT DISTINCT u.Id, @P1, @P2, @until
FROM (VALUES (@P5), (@P6)) AS u(Id)
WHERE NOT EXISTS (SELECT 1 FROM [dbo].[NotificationQuiet] AS q WITH (UPDLOCK, HOLDLOCK)
    WHERE q.UserId = u.Id AND q.[Rule] = @P1);
UPDATE [dbo].[NotificationQuiet]
SET LastEvent = @P2, QuietUntil = @until
WHERE [Rule] = @P1 AND UserId IN (@P5, @P6) AND (LastEvent = @P2 OR QuietUntil <= @now);
COMMIT;
SELECT UserId
FROM [dbo].[NotificationQuiet]
WHERE [Rule] = @P1 AND UserId IN (@P5, @P6) AND LastEvent = @P2;

-- notifications of a user
SELECT COUNT_BIG(*) AS Total
FROM [dbo].[Notifications]
WHERE UserId = @P1;
SELECT [Id], [UserId], [CreatedAt]
FROM [dbo].[Notifications]
WHERE UserId = @P1
ORDER BY CreatedAt DESC, Id
OFFSET @P2 ROWS FETCH NEXT @P3 ROWS ONLY;

-- notifications of a user behind a time and an id
SELECT TOP (@P1) [Id], [UserId], [CreatedAt]
FROM [dbo].[Notifications]
WHERE UserId = @P2 AND CreatedAt >= @P3 AND (CreatedAt > @P3 OR Id > @P4)
ORDER BY CreatedAt, Id

-- notifications not read
SELECT COUNT_BIG(*) AS Unread FROM [dbo].[Notifications] WHERE UserId = @P1 AND ReadAt IS NULL

-- notification marked as read
UPDATE [dbo].[Notifications]
SET ReadAt = COALESCE(ReadAt, SYSUTCDATETIME())
OUTPUT inserted.Id
WHERE Id = @P1 AND UserId = @P2

-- device registered
DECLARE @known int, @owned int;
BEGIN TRANSACTION;
SELECT @owned = COUNT(*) FROM [dbo].[SysUserDeviceInfo] WITH (UPDLOCK, HOLDLOCK) WHERE UserId = @P2;
SELECT @known = COUNT(*) FROM [dbo].[SysUserDeviceInfo] WITH (UPDLOCK, HOLDLOCK) WHERE Id = @P1 AND UserId = @P2;
INSERT INTO [dbo].[SysUserDeviceInfo] (Id, UserId, IntegrationType, Token, SubscriptionJson, OSVersion)
SELECT @P1, @P2, @P3, @P4, @P5, @P6
WHERE @owned < @P7
    AND NOT EXISTS (SELECT 1 FROM [dbo].[SysUserDeviceInfo] WITH (UPDLOCK, HOLDLOCK) WHERE Id = @P1);
UPDATE [dbo].[SysUserDeviceInfo]
SET UserId = @P2, IntegrationType = @P3, Token = @P4, SubscriptionJson = @P5, OSVersion = @P6
WHERE Id = @P1 AND (@known = 1 OR @owned < @P7);
COMMIT;
SELECT @known AS Known, @owned AS Owned;

-- device removed by its owner
DELETE FROM [dbo].[SysUserDeviceInfo] OUTPUT deleted.Id WHERE Id = @P1 AND UserId = @P2

-- deliveries
SELECT [Id], [UserId], [CreatedAt]
FROM [dbo].[Notifications]
ORDER BY CreatedAt DESC, Id
OFFSET @P1 ROWS FETCH NEXT @P2 ROWS ONLY

-- deliveries to a user with an outcome
SELECT [Id], [UserId], [CreatedAt]
FROM [dbo].[Notifications]
WHERE [UserId] = @P3 AND [Outcome] = @P4
ORDER BY CreatedAt DESC, Id
OFFSET @P1 ROWS FETCH NEXT @P2 ROWS ONLY

-- capture: the server
SELECT CAST(SERVERPROPERTY(N'EngineEdition') AS int) AS EngineEdition,
    HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') AS MayViewState

-- change tracking: idle poll
SELECT CHANGE_TRACKING_CURRENT_VERSION() AS CurrentVersion,
    CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,
    SYSDATETIMEOFFSET() AS ServerTime,
    (SELECT r.recovery_fork_guid FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID()) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid

-- change tracking: idle poll on Azure SQL
SELECT CHANGE_TRACKING_CURRENT_VERSION() AS CurrentVersion,
    CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,
    SYSDATETIMEOFFSET() AS ServerTime,
    CAST(NULL AS uniqueidentifier) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid

-- change tracking: first page
SET TRANSACTION ISOLATION LEVEL SNAPSHOT;
BEGIN TRANSACTION;
DECLARE @v bigint = CHANGE_TRACKING_CURRENT_VERSION();
SELECT @v AS CurrentVersion, CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,
    SYSDATETIMEOFFSET() AS ServerTime,
    (SELECT r.recovery_fork_guid FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID()) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid;
SELECT TOP (@P2) ct.SYS_CHANGE_VERSION, ct.SYS_CHANGE_CREATION_VERSION, ct.SYS_CHANGE_OPERATION,
    b.VersionId AS Tombstone, m.commit_time AS CommitTime,
    ct.[Id],
    t.[Id], t.[CompanyId], t.[ProductionUnitId], t.[ForecastDate], t.[Demand], t.[Supply], t.[ConfidenceLevel], t.[Status], t.[CreatedAt], t.[UpdatedAt], t.[UpdatedBy], t.[UpdatedVia], t.[VersionId]
FROM CHANGETABLE(CHANGES [dbo].[Forecasts], @P3) AS ct
LEFT JOIN [dbo].[Forecasts] AS t ON t.[Id] = ct.[Id]
LEFT JOIN [dbo].[Tombstones] AS b
    ON b.Section = @P4 AND b.Id = ct.[Id] AND ct.SYS_CHANGE_OPERATION = N'D'
LEFT JOIN sys.dm_tran_commit_table AS m ON m.commit_ts = ct.SYS_CHANGE_VERSION
WHERE ct.SYS_CHANGE_VERSION <= @v
ORDER BY ct.SYS_CHANGE_VERSION, ct.[Id];
SELECT CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid;
COMMIT;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- change tracking: first page on Azure SQL
SET TRANSACTION ISOLATION LEVEL SNAPSHOT;
BEGIN TRANSACTION;
DECLARE @v bigint = CHANGE_TRACKING_CURRENT_VERSION();
SELECT @v AS CurrentVersion, CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,
    SYSDATETIMEOFFSET() AS ServerTime,
    CAST(NULL AS uniqueidentifier) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid;
SELECT TOP (@P2) ct.SYS_CHANGE_VERSION, ct.SYS_CHANGE_CREATION_VERSION, ct.SYS_CHANGE_OPERATION,
    b.VersionId AS Tombstone, m.commit_time AS CommitTime,
    ct.[Id],
    t.[Id], t.[CompanyId], t.[ProductionUnitId], t.[ForecastDate], t.[Demand], t.[Supply], t.[ConfidenceLevel], t.[Status], t.[CreatedAt], t.[UpdatedAt], t.[UpdatedBy], t.[UpdatedVia], t.[VersionId]
FROM CHANGETABLE(CHANGES [dbo].[Forecasts], @P3) AS ct
LEFT JOIN [dbo].[Forecasts] AS t ON t.[Id] = ct.[Id]
LEFT JOIN [dbo].[Tombstones] AS b
    ON b.Section = @P4 AND b.Id = ct.[Id] AND ct.SYS_CHANGE_OPERATION = N'D'
LEFT JOIN sys.dm_tran_commit_table AS m ON m.commit_ts = ct.SYS_CHANGE_VERSION
WHERE ct.SYS_CHANGE_VERSION <= @v
ORDER BY ct.SYS_CHANGE_VERSION, ct.[Id];
SELECT CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid;
COMMIT;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- change tracking: page
SET TRANSACTION ISOLATION LEVEL SNAPSHOT;
BEGIN TRANSACTION;
DECLARE @v bigint = CHANGE_TRACKING_CURRENT_VERSION();
SELECT @v AS CurrentVersion, CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,
    SYSDATETIMEOFFSET() AS ServerTime,
    (SELECT r.recovery_fork_guid FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID()) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid;
SELECT TOP (@P2) ct.SYS_CHANGE_VERSION, ct.SYS_CHANGE_CREATION_VERSION, ct.SYS_CHANGE_OPERATION,
    b.VersionId AS Tombstone, m.commit_time AS CommitTime,
    ct.[Id],
    t.[Id], t.[CompanyId], t.[ProductionUnitId], t.[ForecastDate], t.[Demand], t.[Supply], t.[ConfidenceLevel], t.[Status], t.[CreatedAt], t.[UpdatedAt], t.[UpdatedBy], t.[UpdatedVia], t.[VersionId]
FROM CHANGETABLE(CHANGES [dbo].[Forecasts], @P3) AS ct
LEFT JOIN [dbo].[Forecasts] AS t ON t.[Id] = ct.[Id]
LEFT JOIN [dbo].[Tombstones] AS b
    ON b.Section = @P4 AND b.Id = ct.[Id] AND ct.SYS_CHANGE_OPERATION = N'D'
LEFT JOIN sys.dm_tran_commit_table AS m ON m.commit_ts = ct.SYS_CHANGE_VERSION
WHERE ct.SYS_CHANGE_VERSION <= @P5
    AND (ct.SYS_CHANGE_VERSION > @P6 OR (ct.SYS_CHANGE_VERSION = @P6 AND ct.[Id] > @P7))
ORDER BY ct.SYS_CHANGE_VERSION, ct.[Id];
SELECT CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid;
COMMIT;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- change tracking: page of a key of two columns, without SNAPSHOT, tombstones or the right to commit times
DECLARE @v bigint = CHANGE_TRACKING_CURRENT_VERSION();
SELECT @v AS CurrentVersion, CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid,
    SYSDATETIMEOFFSET() AS ServerTime,
    (SELECT r.recovery_fork_guid FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID()) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid;
SELECT TOP (@P2) ct.SYS_CHANGE_VERSION, ct.SYS_CHANGE_CREATION_VERSION, ct.SYS_CHANGE_OPERATION,
    CAST(NULL AS bigint) AS Tombstone, CAST(NULL AS datetime) AS CommitTime,
    CAST(ct.[Re]]gion #1] AS nvarchar(20)), ct.[Order No],
    CAST(t.[Re]]gion #1] AS nvarchar(20)), t.[Order No], t.[Price[EUR]]]
FROM CHANGETABLE(CHANGES [dbo].[Orders], @P3) AS ct
LEFT JOIN [dbo].[Orders] AS t ON t.[Re]]gion #1] = ct.[Re]]gion #1] AND t.[Order No] = ct.[Order No]
WHERE ct.SYS_CHANGE_VERSION <= @P5
    AND (ct.SYS_CHANGE_VERSION > @P6 OR (ct.SYS_CHANGE_VERSION = @P6 AND (ct.[Re]]gion #1] > CAST(@P7 COLLATE Latin1_General_100_CI_AS AS varchar(20)) OR (ct.[Re]]gion #1] = CAST(@P7 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND ct.[Order No] > @P8))))
ORDER BY ct.SYS_CHANGE_VERSION, ct.[Re]]gion #1], ct.[Order No];
SELECT CHANGE_TRACKING_MIN_VALID_VERSION(@P1) AS MinValid;

-- change data capture: idle poll
SELECT sys.fn_cdc_get_max_lsn() AS MaxLsn, sys.fn_cdc_get_min_lsn(c.capture_instance) AS MinLsn,
    c.start_lsn AS StartLsn, c.object_id AS ObjectId, c.create_date AS Created,
    c.capture_instance AS InstanceName,
    SYSDATETIMEOFFSET() AS ServerTime,
    (SELECT r.recovery_fork_guid FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID()) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid
FROM cdc.change_tables AS c
WHERE c.source_object_id = @P1
ORDER BY c.create_date, c.object_id

-- change data capture: idle poll on Azure SQL
SELECT sys.fn_cdc_get_max_lsn() AS MaxLsn, sys.fn_cdc_get_min_lsn(c.capture_instance) AS MinLsn,
    c.start_lsn AS StartLsn, c.object_id AS ObjectId, c.create_date AS Created,
    c.capture_instance AS InstanceName,
    SYSDATETIMEOFFSET() AS ServerTime,
    CAST(NULL AS uniqueidentifier) AS RecoveryFork,
    (SELECT d.service_broker_guid FROM sys.databases AS d WHERE d.database_id = DB_ID()) AS BrokerGuid
FROM cdc.change_tables AS c
WHERE c.source_object_id = @P1
ORDER BY c.create_date, c.object_id

-- change data capture: captured columns
SELECT k.column_name AS ColumnName, k.column_id AS ColumnId, k.column_ordinal AS Ordinal,
    k.is_computed AS Computed
FROM cdc.captured_columns AS k
WHERE k.object_id = @P1
ORDER BY k.column_ordinal

-- change data capture: triggers
SELECT COUNT_BIG(*) AS Triggers FROM sys.triggers AS g WHERE g.parent_id = @P1 AND g.is_disabled = 0

-- change data capture: page behind a transaction
SET TRANSACTION ISOLATION LEVEL SNAPSHOT;
BEGIN TRANSACTION;
SELECT TOP (@P1) x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],
    m.tran_end_time AS CommitTime, p.[VersionId] AS Before, b.VersionId AS Tombstone, CASE WHEN l.[Id] IS NULL THEN 0 ELSE 1 END AS RowExists,
    x.[Id], x.[CompanyId], x.[ProductionUnitId], x.[ForecastDate], x.[Demand], x.[Supply], x.[ConfidenceLevel], x.[Status], x.[CreatedAt], x.[UpdatedAt], x.[UpdatedBy], x.[UpdatedVia], x.[VersionId]
FROM [cdc].[dbo_Forecasts_CT] AS x
LEFT JOIN cdc.lsn_time_mapping AS m ON m.start_lsn = x.[__$start_lsn]
LEFT JOIN [cdc].[dbo_Forecasts_CT] AS p
    ON p.[__$start_lsn] = x.[__$start_lsn] AND p.[__$command_id] = x.[__$command_id]
    AND p.[__$seqval] = x.[__$seqval] AND p.[__$operation] = 3 AND x.[__$operation] = 4
LEFT JOIN [dbo].[Tombstones] AS b
    ON b.Section = @P4 AND b.Id = x.[Id] AND x.[__$operation] IN (1, 2)
LEFT JOIN [dbo].[Forecasts] AS l ON l.[Id] = x.[Id] AND x.[__$operation] = 1
WHERE x.[__$start_lsn] > CAST(@P2 AS binary(10)) AND x.[__$start_lsn] <= CAST(@P3 AS binary(10)) AND x.[__$operation] <> 3
ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation];
SELECT sys.fn_cdc_get_min_lsn(@P5) AS MinLsn;
COMMIT;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- change data capture: page inside a transaction
SET TRANSACTION ISOLATION LEVEL SNAPSHOT;
BEGIN TRANSACTION;
SELECT TOP (@P1) x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],
    m.tran_end_time AS CommitTime, p.[VersionId] AS Before, b.VersionId AS Tombstone, CASE WHEN l.[Id] IS NULL THEN 0 ELSE 1 END AS RowExists,
    x.[Id], x.[CompanyId], x.[ProductionUnitId], x.[ForecastDate], x.[Demand], x.[Supply], x.[ConfidenceLevel], x.[Status], x.[CreatedAt], x.[UpdatedAt], x.[UpdatedBy], x.[UpdatedVia], x.[VersionId]
FROM [cdc].[dbo_Forecasts_CT] AS x
LEFT JOIN cdc.lsn_time_mapping AS m ON m.start_lsn = x.[__$start_lsn]
LEFT JOIN [cdc].[dbo_Forecasts_CT] AS p
    ON p.[__$start_lsn] = x.[__$start_lsn] AND p.[__$command_id] = x.[__$command_id]
    AND p.[__$seqval] = x.[__$seqval] AND p.[__$operation] = 3 AND x.[__$operation] = 4
LEFT JOIN [dbo].[Tombstones] AS b
    ON b.Section = @P4 AND b.Id = x.[Id] AND x.[__$operation] IN (1, 2)
LEFT JOIN [dbo].[Forecasts] AS l ON l.[Id] = x.[Id] AND x.[__$operation] = 1
WHERE x.[__$start_lsn] >= CAST(@P2 AS binary(10))
    AND (x.[__$start_lsn] > CAST(@P2 AS binary(10)) OR (x.[__$start_lsn] = CAST(@P2 AS binary(10))
    AND (x.[__$command_id] > @P6 OR (x.[__$command_id] = @P6
    AND (x.[__$seqval] > CAST(@P7 AS binary(10)) OR (x.[__$seqval] = CAST(@P7 AS binary(10)) AND x.[__$operation] > @P8)))))) AND x.[__$start_lsn] <= CAST(@P3 AS binary(10)) AND x.[__$operation] <> 3
ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation];
SELECT sys.fn_cdc_get_min_lsn(@P5) AS MinLsn;
COMMIT;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;

-- change data capture: page of a table with a max type
SELECT TOP (@P1) x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],
    m.tran_end_time AS CommitTime, CAST(NULL AS bigint) AS Before, CAST(NULL AS bigint) AS Tombstone, CASE WHEN l.[Re]]gion #1] IS NULL THEN 0 ELSE 1 END AS RowExists,
    CAST(x.[Re]]gion #1] AS nvarchar(20)), x.[Order No], CASE WHEN x.[__$operation] = 4 AND sys.fn_cdc_is_bit_set(3, x.[__$update_mask]) = 0
        THEN l.[Price[EUR]]] ELSE x.[Price[EUR]]] END AS [Price[EUR]]]
FROM [cdc].[dbo_Orders_CT] AS x
LEFT JOIN cdc.lsn_time_mapping AS m ON m.start_lsn = x.[__$start_lsn]
LEFT JOIN [dbo].[Orders] AS l ON l.[Re]]gion #1] = x.[Re]]gion #1] AND l.[Order No] = x.[Order No] AND x.[__$operation] IN (1, 2, 4)
WHERE x.[__$start_lsn] > CAST(@P2 AS binary(10)) AND x.[__$start_lsn] <= CAST(@P3 AS binary(10)) AND x.[__$operation] <> 3
ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation];
SELECT sys.fn_cdc_get_min_lsn(@P5) AS MinLsn;

-- change data capture: page of a table with a computed column
SELECT TOP (@P1) x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],
    m.tran_end_time AS CommitTime, CAST(NULL AS bigint) AS Before, CAST(NULL AS bigint) AS Tombstone, CASE WHEN l.[Re]]gion #1] IS NULL THEN 0 ELSE 1 END AS RowExists,
    CAST(x.[Re]]gion #1] AS nvarchar(20)), x.[Order No], l.[Price[EUR]]] AS [Price[EUR]]]
FROM [cdc].[dbo_Orders_CT] AS x
LEFT JOIN cdc.lsn_time_mapping AS m ON m.start_lsn = x.[__$start_lsn]
LEFT JOIN [dbo].[Orders] AS l ON l.[Re]]gion #1] = x.[Re]]gion #1] AND l.[Order No] = x.[Order No] AND x.[__$operation] IN (1, 2, 4)
WHERE x.[__$start_lsn] > CAST(@P2 AS binary(10)) AND x.[__$start_lsn] <= CAST(@P3 AS binary(10)) AND x.[__$operation] <> 3
ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation];
SELECT sys.fn_cdc_get_min_lsn(@P5) AS MinLsn;

-- change data capture: rest of a transaction
SELECT x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],
    CAST(NULL AS datetime) AS CommitTime, p.[VersionId] AS Before, b.VersionId AS Tombstone, 1 AS RowExists,
    x.[Id], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, x.[VersionId]
FROM [cdc].[dbo_Forecasts_CT] AS x
LEFT JOIN [cdc].[dbo_Forecasts_CT] AS p
    ON p.[__$start_lsn] = x.[__$start_lsn] AND p.[__$command_id] = x.[__$command_id]
    AND p.[__$seqval] = x.[__$seqval] AND p.[__$operation] = 3 AND x.[__$operation] = 4
LEFT JOIN [dbo].[Tombstones] AS b
    ON b.Section = @P4 AND b.Id = x.[Id] AND x.[__$operation] IN (1, 2)
WHERE x.[__$start_lsn] = CAST(@P1 AS binary(10)) AND x.[__$operation] <> 3
    AND (x.[__$command_id] > @P2 OR (x.[__$command_id] = @P2 AND (x.[__$seqval] > CAST(@P3 AS binary(10)) OR (x.[__$seqval] = CAST(@P3 AS binary(10)) AND x.[__$operation] > @P5))))
    AND ((x.[Id] = @P6)
    OR (x.[Id] = @P7))
ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation]

-- change data capture: rest of a transaction, of a key of two columns, one of them varchar
SELECT x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation],
    CAST(NULL AS datetime) AS CommitTime, CAST(NULL AS bigint) AS Before, CAST(NULL AS bigint) AS Tombstone, 1 AS RowExists,
    CAST(x.[Re]]gion #1] AS nvarchar(20)), x.[Order No], NULL
FROM [cdc].[dbo_Orders_CT] AS x
WHERE x.[__$start_lsn] = CAST(@P1 AS binary(10)) AND x.[__$operation] <> 3
    AND (x.[__$command_id] > @P2 OR (x.[__$command_id] = @P2 AND (x.[__$seqval] > CAST(@P3 AS binary(10)) OR (x.[__$seqval] = CAST(@P3 AS binary(10)) AND x.[__$operation] > @P5))))
    AND ((x.[Re]]gion #1] = CAST(@P6 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND x.[Order No] = @P7)
    OR (x.[Re]]gion #1] = CAST(@P8 COLLATE Latin1_General_100_CI_AS AS varchar(20)) AND x.[Order No] = @P9))
ORDER BY x.[__$start_lsn], x.[__$command_id], x.[__$seqval], x.[__$operation]

-- change data capture: mark of a moment
DECLARE @max binary(10) = sys.fn_cdc_get_max_lsn();
UPDATE [dbo].[SmartPulseWatermark] SET Mark = @P1;
SELECT @max AS MaxLsn, @@ROWCOUNT AS Marked;

-- change data capture: whether the job has come past it
SELECT TOP (1) x.[__$start_lsn]
FROM [cdc].[dbo_SmartPulseWatermark_CT] AS x
WHERE x.[__$start_lsn] > CAST(@P2 AS binary(10)) AND x.Mark = @P1

-- health: retention of change tracking
SELECT CASE d.retention_period_units
        WHEN 1 THEN d.retention_period WHEN 2 THEN d.retention_period * 60 ELSE d.retention_period * 1440 END AS RetentionMinutes,
    d.is_auto_cleanup_on AS Cleaned, SYSDATETIMEOFFSET() AS ServerTime
FROM sys.change_tracking_databases AS d
WHERE d.database_id = DB_ID()

-- health: age of a version
SELECT TOP (1) m.commit_time AS CommitTime
FROM sys.dm_tran_commit_table AS m
WHERE m.commit_ts > @P1
ORDER BY m.commit_ts

-- health: age of an LSN
SELECT (SELECT TOP (1) m.tran_end_time FROM cdc.lsn_time_mapping AS m
        WHERE m.start_lsn > CAST(@P1 AS binary(10)) ORDER BY m.start_lsn) AS FirstTime,
    (SELECT TOP (1) m.tran_end_time FROM cdc.lsn_time_mapping AS m ORDER BY m.start_lsn DESC) AS NewestTime,
    SYSDATETIMEOFFSET() AS ServerTime

-- health: jobs
IF OBJECT_ID(N'[cdc].[cdc_jobs]', N'U') IS NOT NULL AND HAS_PERMS_BY_NAME(N'[cdc].[cdc_jobs]', N'OBJECT', N'SELECT') = 1
    EXEC(N'SELECT j.job_type AS JobType, j.retention AS RetentionMinutes, j.pollinginterval AS PollingSeconds,
        j.maxtrans AS TransactionsMax, j.maxscans AS ScansMax, j.continuous AS Endless
        FROM cdc.cdc_jobs AS j WHERE j.database_id = DB_ID() ORDER BY j.job_type');
ELSE IF HAS_PERMS_BY_NAME(N'msdb.dbo.cdc_jobs', N'OBJECT', N'SELECT') = 1
    EXEC(N'SELECT j.job_type AS JobType, j.retention AS RetentionMinutes, j.pollinginterval AS PollingSeconds,
        j.maxtrans AS TransactionsMax, j.maxscans AS ScansMax, j.continuous AS Endless
        FROM msdb.dbo.cdc_jobs AS j WHERE j.database_id = DB_ID() ORDER BY j.job_type');

-- health: activity of the capture job
IF HAS_PERMS_BY_NAME(N'msdb.dbo.cdc_jobs', N'OBJECT', N'SELECT') = 1
    AND HAS_PERMS_BY_NAME(N'msdb.dbo.sysjobactivity', N'OBJECT', N'SELECT') = 1
    AND HAS_PERMS_BY_NAME(N'msdb.dbo.sysjobs', N'OBJECT', N'SELECT') = 1
    EXEC(N'SELECT TOP (1) s.enabled AS Enabled, a.start_execution_date AS Started, a.stop_execution_date AS Stopped
        FROM msdb.dbo.cdc_jobs AS j
        JOIN msdb.dbo.sysjobs AS s ON s.job_id = j.job_id
        LEFT JOIN msdb.dbo.sysjobactivity AS a ON a.job_id = j.job_id
        WHERE j.database_id = DB_ID() AND j.job_type = N''capture''
        ORDER BY a.session_id DESC');

-- health: scans of the log
IF HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') = 1
    EXEC(N'SELECT MAX(COALESCE(s.end_time, GETDATE())) AS LastScan
        FROM sys.dm_cdc_log_scan_sessions AS s WHERE s.session_id <> 0');

-- plan: server
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
WHERE d.database_id = DB_ID()

-- plan: table
SELECT HAS_PERMS_BY_NAME(@P2, N'OBJECT', N'SELECT') AS MayRead,
    HAS_PERMS_BY_NAME(@P2, N'OBJECT', N'VIEW CHANGE TRACKING') AS MayTrack,
    g.name AS TriggerName, g.is_disabled AS Disabled
FROM (SELECT 1 AS One) AS o
LEFT JOIN sys.triggers AS g ON g.parent_id = @P1
ORDER BY g.name

-- plan: capture instances
SELECT t.capture_instance AS InstanceName, CASE WHEN t.source_object_id = @P1 THEN 1 ELSE 0 END AS Own
FROM cdc.change_tables AS t
ORDER BY t.create_date, t.object_id

-- plan: absent columns
SELECT c.name AS ColumnName
FROM sys.columns AS c
WHERE c.object_id = @P1
    AND NOT EXISTS (SELECT 1 FROM cdc.captured_columns AS k
        JOIN cdc.change_tables AS t ON t.object_id = k.object_id
        WHERE t.source_object_id = c.object_id AND k.column_id = c.column_id)
ORDER BY c.column_id

-- ledger: take
DECLARE @now datetime2(3) = SYSUTCDATETIME();
DECLARE @floor bigint = DATEDIFF_BIG(second, CAST('2024-01-01T00:00:00' AS datetime2(3)), @now);
INSERT INTO [dbo].[SmartPulseCapture] (Id, Epoch, Holder, LeaseUntil, Position, SnapshotRequest, UpdatedAt)
SELECT @P1, 0, NULL, @now, NULL, NULL, @now
WHERE NOT EXISTS (SELECT 1 FROM [dbo].[SmartPulseCapture] WITH (UPDLOCK, HOLDLOCK) WHERE Id = @P1);
UPDATE [dbo].[SmartPulseCapture]
SET Epoch = CASE WHEN Epoch + 1 > @floor THEN Epoch + 1 ELSE @floor END,
    Holder = @P2, LeaseUntil = DATEADD(millisecond, @P3, @now), UpdatedAt = @now
OUTPUT inserted.Epoch, inserted.Position
WHERE Id = @P1 AND (Holder IS NULL OR Holder = @P2 OR LeaseUntil <= @now);
SELECT Holder, DATEDIFF_BIG(millisecond, @now, LeaseUntil) AS Remaining
FROM [dbo].[SmartPulseCapture]
WHERE Id = @P1;

-- ledger: renew
DECLARE @now datetime2(3) = SYSUTCDATETIME();
UPDATE [dbo].[SmartPulseCapture]
SET LeaseUntil = DATEADD(millisecond, @P3, @now), Position = COALESCE(@P4, Position), UpdatedAt = @now
OUTPUT inserted.SnapshotRequest
WHERE Id = @P1 AND Epoch = @P2 AND Holder IS NOT NULL;

-- ledger: release
UPDATE [dbo].[SmartPulseCapture]
SET Holder = NULL, LeaseUntil = SYSUTCDATETIME(), UpdatedAt = SYSUTCDATETIME()
WHERE Id = @P1 AND Epoch = @P2 AND Holder IS NOT NULL;

-- ledger: request
UPDATE [dbo].[SmartPulseCapture]
SET SnapshotRequest = @P2
OUTPUT inserted.Id
WHERE Id = @P1;

-- ledger: forget
UPDATE [dbo].[SmartPulseCapture]
SET SnapshotRequest = NULL
WHERE Id = @P1 AND SnapshotRequest = @P2;

-- ledger: reset
UPDATE [dbo].[SmartPulseCapture]
SET Position = NULL, UpdatedAt = SYSUTCDATETIME()
OUTPUT inserted.Id
WHERE Position IS NOT NULL AND (Id = @P1 OR LEFT(Id, LEN(@P2)) = @P2);

-- ledger: entries
SELECT Id, Epoch, CASE WHEN LeaseUntil > SYSUTCDATETIME() THEN Holder ELSE NULL END AS Holder, Position, UpdatedAt
FROM [dbo].[SmartPulseCapture]
ORDER BY Id;

-- schema
-- The database on SQL Server 2017 and later, and on Azure SQL. Safe to run again: tables, indexes and capture are made where
-- they are missing; triggers and procedures are replaced by these. `smartpulse dev database` runs these files (GO
-- separates batches), without change data capture where it cannot be had; `smartpulse plan` prints what is missing, for
-- somebody who may.
--
-- Order: schema.sql, database.sql, then versions.sql and capture.sql for each captured table, procedures.sql.

IF OBJECT_ID(N'dbo.Forecasts', N'U') IS NULL
CREATE TABLE dbo.Forecasts (
    Id                uniqueidentifier NOT NULL CONSTRAINT PK_Forecasts PRIMARY KEY,
    CompanyId         uniqueidentifier NOT NULL,
    ProductionUnitId  uniqueidentifier NOT NULL,
    ForecastDate      datetime2(3)     NOT NULL,
    Demand            float            NOT NULL,
    Supply            float            NULL,
    ConfidenceLevel   float            NOT NULL CONSTRAINT DF_Forecasts_ConfidenceLevel DEFAULT 1.0,
    Status            nvarchar(32)     NOT NULL CONSTRAINT DF_Forecasts_Status DEFAULT N'Draft',
    CreatedAt         datetime2(3)     NOT NULL CONSTRAINT DF_Forecasts_CreatedAt DEFAULT SYSUTCDATETIME(),
    UpdatedAt         datetime2(3)     NOT NULL CONSTRAINT DF_Forecasts_UpdatedAt DEFAULT SYSUTCDATETIME(),
    UpdatedBy         uniqueidentifier NULL,
    UpdatedVia        nvarchar(64)     NULL,
    VersionId         bigint           NOT NULL CONSTRAINT DF_Forecasts_VersionId DEFAULT 1,
    CONSTRAINT CK_Forecasts_Status CHECK (LEN(Status) >= 1),
    CONSTRAINT CK_Forecasts_VersionId CHECK (VersionId >= 1)
);

-- schema
-- The list query: newest ForecastDate first, then by Id.
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Forecasts') AND name = N'IX_Forecasts_Company')
    CREATE INDEX IX_Forecasts_Company ON dbo.Forecasts (CompanyId, ForecastDate DESC, Id);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Forecasts') AND name = N'IX_Forecasts_Unit')
    CREATE INDEX IX_Forecasts_Unit ON dbo.Forecasts (ProductionUnitId, ForecastDate DESC, Id);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Forecasts') AND name = N'IX_Forecasts_Date')
    CREATE INDEX IX_Forecasts_Date ON dbo.Forecasts (ForecastDate DESC, Id);

-- schema
IF OBJECT_ID(N'dbo.ProductionUnits', N'U') IS NULL
CREATE TABLE dbo.ProductionUnits (
    Id          uniqueidentifier NOT NULL CONSTRAINT PK_ProductionUnits PRIMARY KEY,
    CompanyId   uniqueidentifier NOT NULL,
    ProviderId  uniqueidentifier NOT NULL,
    Name        nvarchar(200)    NOT NULL,
    Kind        nvarchar(64)     NOT NULL,
    CapacityMw  float            NOT NULL,
    VersionId   bigint           NOT NULL CONSTRAINT DF_ProductionUnits_VersionId DEFAULT 1,
    CONSTRAINT CK_ProductionUnits_VersionId CHECK (VersionId >= 1)
);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.ProductionUnits') AND name = N'IX_ProductionUnits_Company')
    CREATE INDEX IX_ProductionUnits_Company ON dbo.ProductionUnits (CompanyId, Id);

-- schema
-- The last version of what was deleted, plus one. A row stays when its entity is created again.
IF OBJECT_ID(N'dbo.Tombstones', N'U') IS NULL
CREATE TABLE dbo.Tombstones (
    Section    nvarchar(64)     NOT NULL,
    Id         uniqueidentifier NOT NULL,
    VersionId  bigint           NOT NULL,
    DeletedAt  datetime2(3)     NOT NULL,
    CONSTRAINT PK_Tombstones PRIMARY KEY (Section, Id)
);

-- schema
IF OBJECT_ID(N'dbo.SysUser', N'U') IS NULL
CREATE TABLE dbo.SysUser (
    Id           uniqueidentifier NOT NULL CONSTRAINT PK_SysUser PRIMARY KEY,
    CompanyId    uniqueidentifier NOT NULL,
    Email        nvarchar(320)    NOT NULL,
    DisplayName  nvarchar(200)    NOT NULL,
    Role         nvarchar(32)     NOT NULL
);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.SysUser') AND name = N'IX_SysUser_Company')
    CREATE INDEX IX_SysUser_Company ON dbo.SysUser (CompanyId, Id);

-- schema
-- IntegrationType: 0 Web Push, 1 FCM.
IF OBJECT_ID(N'dbo.SysUserDeviceInfo', N'U') IS NULL
CREATE TABLE dbo.SysUserDeviceInfo (
    Id                uniqueidentifier NOT NULL CONSTRAINT PK_SysUserDeviceInfo PRIMARY KEY,
    UserId            uniqueidentifier NOT NULL,
    IntegrationType   int              NOT NULL,
    Token             nvarchar(4000)   NULL,
    SubscriptionJson  nvarchar(max)    NULL,
    OSVersion         nvarchar(64)     NULL,
    CONSTRAINT CK_SysUserDeviceInfo_IntegrationType CHECK (IntegrationType IN (0, 1))
);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.SysUserDeviceInfo') AND name = N'IX_SysUserDeviceInfo_User')
    CREATE INDEX IX_SysUserDeviceInfo_User ON dbo.SysUserDeviceInfo (UserId);

-- schema
IF OBJECT_ID(N'dbo.Notifications', N'U') IS NULL
CREATE TABLE dbo.Notifications (
    Id         uniqueidentifier NOT NULL CONSTRAINT PK_Notifications PRIMARY KEY,
    UserId     uniqueidentifier NOT NULL,
    Title      nvarchar(200)    NOT NULL,
    Body       nvarchar(4000)   NOT NULL,
    Type       nvarchar(64)     NOT NULL,
    ReadAt     datetime2(3)     NULL,
    CreatedAt  datetime2(3)     NOT NULL CONSTRAINT DF_Notifications_CreatedAt DEFAULT SYSUTCDATETIME()
);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Notifications') AND name = N'IX_Notifications_User')
    CREATE INDEX IX_Notifications_User ON dbo.Notifications (UserId, CreatedAt DESC, Id);

-- schema
IF OBJECT_ID(N'dbo.NheaMailQueue', N'U') IS NULL
CREATE TABLE dbo.NheaMailQueue (
    Id           uniqueidentifier NOT NULL CONSTRAINT PK_NheaMailQueue PRIMARY KEY,
    ToAddress    nvarchar(320)    NOT NULL,
    Subject      nvarchar(998)    NOT NULL,
    BodyHtml     nvarchar(max)    NULL,
    BodyText     nvarchar(max)    NULL,
    Attachments  nvarchar(max)    NULL,
    Status       nvarchar(32)     NOT NULL CONSTRAINT DF_NheaMailQueue_Status DEFAULT N'Queued',
    Attempts     int              NOT NULL CONSTRAINT DF_NheaMailQueue_Attempts DEFAULT 0,
    LastError    nvarchar(4000)   NULL,
    CreatedAt    datetime2(3)     NOT NULL CONSTRAINT DF_NheaMailQueue_CreatedAt DEFAULT SYSUTCDATETIME(),
    SentAt       datetime2(3)     NULL
);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NheaMailQueue') AND name = N'IX_NheaMailQueue_Status')
    CREATE INDEX IX_NheaMailQueue_Status ON dbo.NheaMailQueue (Status, CreatedAt, Id);

-- schema
-- Until when a mail rests: while it is being sent the end of the sender's claim, and then the wait before another try.
IF COL_LENGTH(N'dbo.NheaMailQueue', N'NotBefore') IS NULL
    ALTER TABLE dbo.NheaMailQueue ADD NotBefore datetime2(3) NULL;

-- schema
-- The link by which the recipient switches such mails off.
IF COL_LENGTH(N'dbo.NheaMailQueue', N'UnsubscribeUrl') IS NULL
    ALTER TABLE dbo.NheaMailQueue ADD UnsubscribeUrl nvarchar(2000) NULL;

-- schema
-- What instances have logged, at or above log.table.level. Seq counts an instance's lines; Fields is a JSON object.
IF OBJECT_ID(N'dbo.Logs', N'U') IS NULL
CREATE TABLE dbo.Logs (
    Id         uniqueidentifier NOT NULL CONSTRAINT PK_Logs PRIMARY KEY,
    CreatedAt  datetime2(3)     NOT NULL,
    Level      nvarchar(8)      NOT NULL,
    Instance   uniqueidentifier NOT NULL,
    Seq        bigint           NOT NULL,
    Component  nvarchar(200)    NOT NULL,
    Message    nvarchar(4000)   NOT NULL,
    Fields     nvarchar(max)    NULL
);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Logs') AND name = N'IX_Logs_CreatedAt')
    CREATE INDEX IX_Logs_CreatedAt ON dbo.Logs (CreatedAt DESC, Seq DESC);

-- schema
-- The channels that a user has switched off, or on again.
IF OBJECT_ID(N'dbo.NotificationPreferences', N'U') IS NULL
CREATE TABLE dbo.NotificationPreferences (
    UserId     uniqueidentifier NOT NULL,
    Channel    nvarchar(32)     NOT NULL,
    Enabled    bit              NOT NULL,
    UpdatedAt  datetime2(3)     NOT NULL CONSTRAINT DF_NotificationPreferences_UpdatedAt DEFAULT SYSUTCDATETIME(),
    CONSTRAINT PK_NotificationPreferences PRIMARY KEY (UserId, Channel)
);

-- schema
-- Until when a rule leaves a user alone, and the event that it told last.
IF OBJECT_ID(N'dbo.NotificationQuiet', N'U') IS NULL
CREATE TABLE dbo.NotificationQuiet (
    UserId      uniqueidentifier NOT NULL,
    [Rule]      nvarchar(200)    NOT NULL,
    LastEvent   nvarchar(200)    NOT NULL,
    QuietUntil  datetime2(3)     NOT NULL,
    CONSTRAINT PK_NotificationQuiet PRIMARY KEY (UserId, [Rule])
);

-- schema
-- A row per attempt to tell somebody something, never changed. Of what was told Id is DeliveryId.
IF OBJECT_ID(N'dbo.NotificationDeliveries', N'U') IS NULL
CREATE TABLE dbo.NotificationDeliveries (
    Id          uniqueidentifier NOT NULL CONSTRAINT PK_NotificationDeliveries PRIMARY KEY,
    DeliveryId  uniqueidentifier NOT NULL,
    Channel     nvarchar(32)     NOT NULL,
    UserId      uniqueidentifier NOT NULL,
    [Rule]      nvarchar(200)    NOT NULL,
    Entity      nvarchar(200)    NOT NULL,
    Version     nvarchar(64)     NOT NULL,
    Outcome     nvarchar(32)     NOT NULL,
    Detail      nvarchar(4000)   NULL,
    CreatedAt   datetime2(3)     NOT NULL CONSTRAINT DF_NotificationDeliveries_CreatedAt DEFAULT SYSUTCDATETIME()
);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_Delivery')
    CREATE INDEX IX_NotificationDeliveries_Delivery ON dbo.NotificationDeliveries (DeliveryId);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_User')
    CREATE INDEX IX_NotificationDeliveries_User ON dbo.NotificationDeliveries (UserId, CreatedAt DESC, Id);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_Entity')
    CREATE INDEX IX_NotificationDeliveries_Entity ON dbo.NotificationDeliveries (Entity, CreatedAt DESC, Id);

-- schema
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_CreatedAt')
    CREATE INDEX IX_NotificationDeliveries_CreatedAt ON dbo.NotificationDeliveries (CreatedAt DESC, Id);

-- schema
-- Where capture is, and who may move it: the row is the lease. A position is written only together with the epoch that
-- it was captured under.
IF OBJECT_ID(N'dbo.SmartPulseCapture', N'U') IS NULL
CREATE TABLE dbo.SmartPulseCapture (
    Id               nvarchar(400)  NOT NULL CONSTRAINT PK_SmartPulseCapture PRIMARY KEY,
    Epoch            bigint         NOT NULL,
    Holder           nvarchar(200)  NULL,
    LeaseUntil       datetime2(3)   NOT NULL,
    Position         varbinary(4000) NULL,
    SnapshotRequest  nvarchar(64)   NULL,
    UpdatedAt        datetime2(3)   NOT NULL
);

-- schema
-- One row that capture in mode cdc writes while it takes a snapshot: behind each page, to learn from its change table when
-- the capture job has come to what was committed before.
IF OBJECT_ID(N'dbo.SmartPulseWatermark', N'U') IS NULL
CREATE TABLE dbo.SmartPulseWatermark (
    Id    int               NOT NULL CONSTRAINT PK_SmartPulseWatermark PRIMARY KEY,
    Mark  uniqueidentifier  NOT NULL,
    CONSTRAINT CK_SmartPulseWatermark_Id CHECK (Id = 1)
);

-- schema
IF NOT EXISTS (SELECT 1 FROM dbo.SmartPulseWatermark)
    INSERT INTO dbo.SmartPulseWatermark (Id, Mark) VALUES (1, NEWID());

-- schema
-- What the captured database as a whole needs: change tracking with two days of history, SNAPSHOT isolation (a poll then
-- reads changes and rows of one moment and blocks nobody), change data capture, also of the watermark. Needs db_owner
-- (CDC: sysadmin, but for Azure SQL).

IF NOT EXISTS (SELECT 1 FROM sys.change_tracking_databases WHERE database_id = DB_ID())
    ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON);

-- schema
IF EXISTS (SELECT 1 FROM sys.databases WHERE database_id = DB_ID() AND snapshot_isolation_state = 0)
    ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON;

-- schema
IF EXISTS (SELECT 1 FROM sys.databases WHERE database_id = DB_ID() AND is_cdc_enabled = 0)
    EXEC sys.sp_cdc_enable_db;

-- schema
IF NOT EXISTS (SELECT 1 FROM cdc.change_tables WHERE source_object_id = OBJECT_ID(N'dbo.SmartPulseWatermark'))
    EXEC sys.sp_cdc_enable_table
        @source_schema = N'dbo', @source_name = N'SmartPulseWatermark', @role_name = NULL, @supports_net_changes = 0;

-- schema
-- The procedures of notifications.

CREATE OR ALTER PROCEDURE dbo.InsertNotification
    @Id uniqueidentifier, @UserId uniqueidentifier, @Title nvarchar(200), @Body nvarchar(4000), @Type nvarchar(64),
    @CreatedAt datetime2(3) = NULL
AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbo.Notifications (Id, UserId, Title, Body, Type, ReadAt, CreatedAt)
        SELECT @Id, @UserId, @Title, @Body, @Type, NULL, COALESCE(@CreatedAt, SYSUTCDATETIME())
        WHERE NOT EXISTS (SELECT 1 FROM dbo.Notifications WITH (UPDLOCK, HOLDLOCK) WHERE Id = @Id);
    SELECT @@ROWCOUNT AS Inserted;
END;

-- schema
CREATE OR ALTER PROCEDURE dbo.GetNotifications
    @UserId uniqueidentifier, @Skip int, @Take int
AS
BEGIN
    SET NOCOUNT ON;
    SELECT COUNT_BIG(*) AS Total FROM dbo.Notifications WHERE UserId = @UserId;
    SELECT Id, UserId, Title, Body, Type, ReadAt, CreatedAt
        FROM dbo.Notifications
        WHERE UserId = @UserId
        ORDER BY CreatedAt DESC, Id
        OFFSET @Skip ROWS FETCH NEXT @Take ROWS ONLY;
END;

-- schema
CREATE OR ALTER PROCEDURE dbo.GetUserDevices
    @UserId uniqueidentifier
AS
BEGIN
    SET NOCOUNT ON;
    SELECT Id, UserId, IntegrationType, Token, SubscriptionJson, OSVersion
        FROM dbo.SysUserDeviceInfo
        WHERE UserId = @UserId
        ORDER BY Id;
END;

-- schema of a captured table
-- The rules of VersionId for one captured table, kept by triggers, whoever writes. A template: dbo, Forecasts,
-- Id and forecast are names.
--
-- An UPDATE that leaves VersionId alone is bumped by one, and one that sets it to anything but the next is refused. A DELETE
-- leaves a tombstone with the last version + 1. An INSERT of a key with a tombstone goes on behind it, or higher where it
-- says so. All of it is set-based, and a nested UPDATE of no rows ends at once, so that RECURSIVE_TRIGGERS does no harm.

CREATE OR ALTER TRIGGER [dbo].[Forecasts_versions_insert] ON [dbo].[Forecasts] AFTER INSERT AS
BEGIN
    SET NOCOUNT ON;
    IF NOT EXISTS (SELECT 1 FROM inserted AS i
                   JOIN dbo.Tombstones AS b ON b.Section = N'forecast' AND b.Id = i.[Id]
                   WHERE i.VersionId <= b.VersionId)
        RETURN;
    UPDATE t SET VersionId = b.VersionId + 1
        FROM [dbo].[Forecasts] AS t
        JOIN inserted AS i ON i.[Id] = t.[Id]
        JOIN dbo.Tombstones AS b ON b.Section = N'forecast' AND b.Id = t.[Id]
        WHERE t.VersionId <= b.VersionId;
END;

-- schema of a captured table
CREATE OR ALTER TRIGGER [dbo].[Forecasts_versions_update] ON [dbo].[Forecasts] AFTER UPDATE AS
BEGIN
    SET NOCOUNT ON;
    IF NOT EXISTS (SELECT 1 FROM inserted)
        RETURN;
    IF EXISTS (SELECT 1 FROM inserted AS i WHERE NOT EXISTS (SELECT 1 FROM deleted AS d WHERE d.[Id] = i.[Id]))
        THROW 50001, N'the Id of a row of Forecasts cannot change: delete the row and insert another', 1;
    -- Only the trigger above leaves versions out.
    IF COALESCE(TRIGGER_NESTLEVEL(OBJECT_ID(N'[dbo].[Forecasts_versions_insert]'), 'AFTER', 'DML'), 0) = 0
        AND EXISTS (SELECT 1 FROM inserted AS i
                    JOIN deleted AS d ON d.[Id] = i.[Id]
                    WHERE i.VersionId <> d.VersionId AND i.VersionId <> d.VersionId + 1)
        THROW 50002, N'VersionId of Forecasts rises by exactly 1: leave it out, or set it to VersionId + 1', 1;
    UPDATE t SET VersionId = t.VersionId + 1
        FROM [dbo].[Forecasts] AS t
        JOIN inserted AS i ON i.[Id] = t.[Id]
        JOIN deleted AS d ON d.[Id] = t.[Id]
        WHERE i.VersionId = d.VersionId;
END;

-- schema of a captured table
CREATE OR ALTER TRIGGER [dbo].[Forecasts_versions_delete] ON [dbo].[Forecasts] AFTER DELETE AS
BEGIN
    SET NOCOUNT ON;
    IF NOT EXISTS (SELECT 1 FROM deleted)
        RETURN;
    UPDATE b SET VersionId = d.VersionId + 1, DeletedAt = SYSUTCDATETIME()
        FROM dbo.Tombstones AS b
        JOIN deleted AS d ON d.[Id] = b.Id
        WHERE b.Section = N'forecast';
    INSERT INTO dbo.Tombstones (Section, Id, VersionId, DeletedAt)
        SELECT N'forecast', d.[Id], d.VersionId + 1, SYSUTCDATETIME()
        FROM deleted AS d
        WHERE NOT EXISTS (SELECT 1 FROM dbo.Tombstones AS b WHERE b.Section = N'forecast' AND b.Id = d.[Id]);
END;

-- schema of a captured table
-- TRUNCATE TABLE fires no trigger, so it would leave no tombstones: a table that a foreign key refers to refuses it
-- (error 4712). DELETE does the same work and tells of it.
IF OBJECT_ID(N'[dbo].[Forecasts_truncate_guard]', N'U') IS NULL
CREATE TABLE [dbo].[Forecasts_truncate_guard] (
    Id  uniqueidentifier NULL CONSTRAINT [FK_Forecasts_truncate_guard] REFERENCES [dbo].[Forecasts] ([Id])
);

-- schema of a captured table
-- Both capture modes of one table. A template: dbo and Forecasts are names.

IF NOT EXISTS (SELECT 1 FROM sys.change_tracking_tables WHERE object_id = OBJECT_ID(N'[dbo].[Forecasts]'))
    ALTER TABLE [dbo].[Forecasts] ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);

-- schema of a captured table
IF NOT EXISTS (SELECT 1 FROM cdc.change_tables WHERE source_object_id = OBJECT_ID(N'[dbo].[Forecasts]'))
    EXEC sys.sp_cdc_enable_table
        @source_schema = N'dbo', @source_name = N'Forecasts', @role_name = NULL, @supports_net_changes = 0;
