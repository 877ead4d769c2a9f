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
GO
-- The list query: newest ForecastDate first, then by Id.
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Forecasts') AND name = N'IX_Forecasts_Company')
    CREATE INDEX IX_Forecasts_Company ON dbo.Forecasts (CompanyId, ForecastDate DESC, Id);
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Forecasts') AND name = N'IX_Forecasts_Unit')
    CREATE INDEX IX_Forecasts_Unit ON dbo.Forecasts (ProductionUnitId, ForecastDate DESC, Id);
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Forecasts') AND name = N'IX_Forecasts_Date')
    CREATE INDEX IX_Forecasts_Date ON dbo.Forecasts (ForecastDate DESC, Id);
GO
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
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.ProductionUnits') AND name = N'IX_ProductionUnits_Company')
    CREATE INDEX IX_ProductionUnits_Company ON dbo.ProductionUnits (CompanyId, Id);
GO
-- The last version of what was deleted, plus one. A row stays when its entity is created again.
IF OBJECT_ID(N'dbo.Tombstones', N'U') IS NULL
CREATE TABLE dbo.Tombstones (
    Section    nvarchar(64)     NOT NULL,
    Id         uniqueidentifier NOT NULL,
    VersionId  bigint           NOT NULL,
    DeletedAt  datetime2(3)     NOT NULL,
    CONSTRAINT PK_Tombstones PRIMARY KEY (Section, Id)
);
GO
IF OBJECT_ID(N'dbo.SysUser', N'U') IS NULL
CREATE TABLE dbo.SysUser (
    Id           uniqueidentifier NOT NULL CONSTRAINT PK_SysUser PRIMARY KEY,
    CompanyId    uniqueidentifier NOT NULL,
    Email        nvarchar(320)    NOT NULL,
    DisplayName  nvarchar(200)    NOT NULL,
    Role         nvarchar(32)     NOT NULL
);
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.SysUser') AND name = N'IX_SysUser_Company')
    CREATE INDEX IX_SysUser_Company ON dbo.SysUser (CompanyId, Id);
GO
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
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.SysUserDeviceInfo') AND name = N'IX_SysUserDeviceInfo_User')
    CREATE INDEX IX_SysUserDeviceInfo_User ON dbo.SysUserDeviceInfo (UserId);
GO
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
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Notifications') AND name = N'IX_Notifications_User')
    CREATE INDEX IX_Notifications_User ON dbo.Notifications (UserId, CreatedAt DESC, Id);
GO
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
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NheaMailQueue') AND name = N'IX_NheaMailQueue_Status')
    CREATE INDEX IX_NheaMailQueue_Status ON dbo.NheaMailQueue (Status, CreatedAt, Id);
GO
-- Until when a mail rests: while it is being sent the end of the sender's claim, and then the wait before another try.
IF COL_LENGTH(N'dbo.NheaMailQueue', N'NotBefore') IS NULL
    ALTER TABLE dbo.NheaMailQueue ADD NotBefore datetime2(3) NULL;
GO
-- The link by which the recipient switches such mails off.
IF COL_LENGTH(N'dbo.NheaMailQueue', N'UnsubscribeUrl') IS NULL
    ALTER TABLE dbo.NheaMailQueue ADD UnsubscribeUrl nvarchar(2000) NULL;
GO
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
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.Logs') AND name = N'IX_Logs_CreatedAt')
    CREATE INDEX IX_Logs_CreatedAt ON dbo.Logs (CreatedAt DESC, Seq DESC);
GO
-- The channels that a user has switched off, or on again.
IF OBJECT_ID(N'dbo.NotificationPreferences', N'U') IS NULL
CREATE TABLE dbo.NotificationPreferences (
    UserId     uniqueidentifier NOT NULL,
    Channel    nvarchar(32)     NOT NULL,
    Enabled    bit              NOT NULL,
    UpdatedAt  datetime2(3)     NOT NULL CONSTRAINT DF_NotificationPreferences_UpdatedAt DEFAULT SYSUTCDATETIME(),
    CONSTRAINT PK_NotificationPreferences PRIMARY KEY (UserId, Channel)
);
GO
-- Until when a rule leaves a user alone, and the event that it told last.
IF OBJECT_ID(N'dbo.NotificationQuiet', N'U') IS NULL
CREATE TABLE dbo.NotificationQuiet (
    UserId      uniqueidentifier NOT NULL,
    [Rule]      nvarchar(200)    NOT NULL,
    LastEvent   nvarchar(200)    NOT NULL,
    QuietUntil  datetime2(3)     NOT NULL,
    CONSTRAINT PK_NotificationQuiet PRIMARY KEY (UserId, [Rule])
);
GO
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
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_Delivery')
    CREATE INDEX IX_NotificationDeliveries_Delivery ON dbo.NotificationDeliveries (DeliveryId);
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_User')
    CREATE INDEX IX_NotificationDeliveries_User ON dbo.NotificationDeliveries (UserId, CreatedAt DESC, Id);
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_Entity')
    CREATE INDEX IX_NotificationDeliveries_Entity ON dbo.NotificationDeliveries (Entity, CreatedAt DESC, Id);
GO
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.NotificationDeliveries') AND name = N'IX_NotificationDeliveries_CreatedAt')
    CREATE INDEX IX_NotificationDeliveries_CreatedAt ON dbo.NotificationDeliveries (CreatedAt DESC, Id);
GO
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
GO
-- One row that capture in mode cdc writes while it takes a snapshot: behind each page, to learn from its change table when
-- the capture job has come to what was committed before.
IF OBJECT_ID(N'dbo.SmartPulseWatermark', N'U') IS NULL
CREATE TABLE dbo.SmartPulseWatermark (
    Id    int               NOT NULL CONSTRAINT PK_SmartPulseWatermark PRIMARY KEY,
    Mark  uniqueidentifier  NOT NULL,
    CONSTRAINT CK_SmartPulseWatermark_Id CHECK (Id = 1)
);
GO
IF NOT EXISTS (SELECT 1 FROM dbo.SmartPulseWatermark)
    INSERT INTO dbo.SmartPulseWatermark (Id, Mark) VALUES (1, NEWID());
