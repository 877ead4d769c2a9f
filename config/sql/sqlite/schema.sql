-- The embedded database up to version 2 (PRAGMA user_version); mail.sql leads to version 3, unsubscribe.sql to 6. Safe to run again: a file of
-- version 1 gets what it lacks (version 2 brought what notifications need). Names are those of SQL Server's schema; declared
-- types too, and they keep their meaning here: SQLite gives `uniqueidentifier` and `datetime2(3)` numeric
-- affinity, under which a text with dashes stays text; `float` becomes REAL; `nvarchar` TEXT; `bigint` INTEGER.
--
-- The CHECKs hold what SQL Server's types would: ids are lower-case UUID text, times are RFC 3339 UTC with
-- milliseconds (so that they sort as text), floats are finite, lengths are kept. Their names are the message
-- that a writer sees.
--
-- WITHOUT ROWID: rows lie in key order, which is what scans follow, and REPLACE can then only ever replace the row of
-- the same id.

CREATE TABLE IF NOT EXISTS Forecasts (
    Id                uniqueidentifier NOT NULL PRIMARY KEY,
    CompanyId         uniqueidentifier NOT NULL,
    ProductionUnitId  uniqueidentifier NOT NULL,
    ForecastDate      datetime2(3)     NOT NULL,
    Demand            float            NOT NULL,
    Supply            float            NULL,
    ConfidenceLevel   float            NOT NULL DEFAULT 1.0,
    Status            nvarchar(32)     NOT NULL DEFAULT 'Draft',
    CreatedAt         datetime2(3)     NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UpdatedAt         datetime2(3)     NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UpdatedBy         uniqueidentifier NULL,
    UpdatedVia        nvarchar(64)     NULL,
    VersionId         bigint           NOT NULL DEFAULT 1,
    CONSTRAINT Id_must_be_lower_case_uuid_text CHECK (
        typeof(Id) = 'text' AND length(Id) = 36 AND Id GLOB '????????-????-????-????-????????????'
        AND replace(Id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT CompanyId_must_be_lower_case_uuid_text CHECK (
        typeof(CompanyId) = 'text' AND length(CompanyId) = 36 AND replace(CompanyId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT ProductionUnitId_must_be_lower_case_uuid_text CHECK (
        typeof(ProductionUnitId) = 'text' AND length(ProductionUnitId) = 36
        AND replace(ProductionUnitId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT UpdatedBy_must_be_lower_case_uuid_text CHECK (
        UpdatedBy IS NULL OR (typeof(UpdatedBy) = 'text' AND length(UpdatedBy) = 36
        AND replace(UpdatedBy, '-', '') NOT GLOB '*[^0-9a-f]*')),
    CONSTRAINT ForecastDate_must_be_rfc3339_utc_with_milliseconds CHECK (
        typeof(ForecastDate) = 'text' AND ForecastDate GLOB
        '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9]Z'),
    CONSTRAINT CreatedAt_must_be_rfc3339_utc_with_milliseconds CHECK (
        typeof(CreatedAt) = 'text' AND CreatedAt GLOB
        '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9]Z'),
    CONSTRAINT UpdatedAt_must_be_rfc3339_utc_with_milliseconds CHECK (
        typeof(UpdatedAt) = 'text' AND UpdatedAt GLOB
        '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9]Z'),
    CONSTRAINT Demand_must_be_a_finite_number CHECK (typeof(Demand) = 'real' AND abs(Demand) < 9e999),
    CONSTRAINT Supply_must_be_a_finite_number CHECK (
        Supply IS NULL OR (typeof(Supply) = 'real' AND abs(Supply) < 9e999)),
    CONSTRAINT ConfidenceLevel_must_be_a_finite_number CHECK (
        typeof(ConfidenceLevel) = 'real' AND abs(ConfidenceLevel) < 9e999),
    CONSTRAINT Status_must_be_1_to_32_characters CHECK (typeof(Status) = 'text' AND length(Status) BETWEEN 1 AND 32),
    CONSTRAINT UpdatedVia_must_be_at_most_64_characters CHECK (
        UpdatedVia IS NULL OR (typeof(UpdatedVia) = 'text' AND length(UpdatedVia) <= 64)),
    CONSTRAINT VersionId_must_be_at_least_1 CHECK (typeof(VersionId) = 'integer' AND VersionId >= 1)
) WITHOUT ROWID;

-- The list query: newest ForecastDate first, then by id (the key ends every index of this table by itself).
CREATE INDEX IF NOT EXISTS IX_Forecasts_Company ON Forecasts (CompanyId, ForecastDate DESC, Id);
CREATE INDEX IF NOT EXISTS IX_Forecasts_Unit ON Forecasts (ProductionUnitId, ForecastDate DESC, Id);
CREATE INDEX IF NOT EXISTS IX_Forecasts_Date ON Forecasts (ForecastDate DESC, Id);

CREATE TABLE IF NOT EXISTS ProductionUnits (
    Id          uniqueidentifier NOT NULL PRIMARY KEY,
    CompanyId   uniqueidentifier NOT NULL,
    ProviderId  uniqueidentifier NOT NULL,
    Name        nvarchar(200)    NOT NULL,
    Kind        nvarchar(64)     NOT NULL,
    CapacityMw  float            NOT NULL,
    VersionId   bigint           NOT NULL DEFAULT 1,
    CONSTRAINT Id_must_be_lower_case_uuid_text CHECK (
        typeof(Id) = 'text' AND length(Id) = 36 AND Id GLOB '????????-????-????-????-????????????'
        AND replace(Id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT CompanyId_must_be_lower_case_uuid_text CHECK (
        typeof(CompanyId) = 'text' AND length(CompanyId) = 36 AND replace(CompanyId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT ProviderId_must_be_lower_case_uuid_text CHECK (
        typeof(ProviderId) = 'text' AND length(ProviderId) = 36
        AND replace(ProviderId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT Name_must_be_at_most_200_characters CHECK (typeof(Name) = 'text' AND length(Name) <= 200),
    CONSTRAINT Kind_must_be_at_most_64_characters CHECK (typeof(Kind) = 'text' AND length(Kind) <= 64),
    CONSTRAINT CapacityMw_must_be_a_finite_number CHECK (typeof(CapacityMw) = 'real' AND abs(CapacityMw) < 9e999),
    CONSTRAINT VersionId_must_be_at_least_1 CHECK (typeof(VersionId) = 'integer' AND VersionId >= 1)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS IX_ProductionUnits_Company ON ProductionUnits (CompanyId, Id);

-- The last version of what was deleted, plus one. A row stays when its entity is created again.
CREATE TABLE IF NOT EXISTS Tombstones (
    Section    nvarchar(64)     NOT NULL,
    Id         uniqueidentifier NOT NULL,
    VersionId  bigint           NOT NULL,
    DeletedAt  datetime2(3)     NOT NULL,
    PRIMARY KEY (Section, Id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS SysUser (
    Id           uniqueidentifier NOT NULL PRIMARY KEY,
    CompanyId    uniqueidentifier NOT NULL,
    Email        nvarchar(320)    NOT NULL,
    DisplayName  nvarchar(200)    NOT NULL,
    Role         nvarchar(32)     NOT NULL,
    CONSTRAINT Id_must_be_lower_case_uuid_text CHECK (
        typeof(Id) = 'text' AND length(Id) = 36 AND Id GLOB '????????-????-????-????-????????????'
        AND replace(Id, '-', '') NOT GLOB '*[^0-9a-f]*')
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS IX_SysUser_Company ON SysUser (CompanyId, Id);

-- IntegrationType: 0 Web Push, 1 FCM.
CREATE TABLE IF NOT EXISTS SysUserDeviceInfo (
    Id                uniqueidentifier NOT NULL PRIMARY KEY,
    UserId            uniqueidentifier NOT NULL,
    IntegrationType   int              NOT NULL,
    Token             nvarchar(4000)   NULL,
    SubscriptionJson  "nvarchar(max)"  NULL,
    OSVersion         nvarchar(64)     NULL,
    CONSTRAINT Id_must_be_lower_case_uuid_text CHECK (
        typeof(Id) = 'text' AND length(Id) = 36 AND Id GLOB '????????-????-????-????-????????????'
        AND replace(Id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT UserId_must_be_lower_case_uuid_text CHECK (
        typeof(UserId) = 'text' AND length(UserId) = 36 AND replace(UserId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT IntegrationType_must_be_0_or_1 CHECK (IntegrationType IN (0, 1)),
    CONSTRAINT Token_must_be_at_most_4000_characters CHECK (Token IS NULL OR (typeof(Token) = 'text' AND length(Token) <= 4000)),
    CONSTRAINT OSVersion_must_be_at_most_64_characters CHECK (OSVersion IS NULL OR (typeof(OSVersion) = 'text' AND length(OSVersion) <= 64))
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS IX_SysUserDeviceInfo_User ON SysUserDeviceInfo (UserId);

CREATE TABLE IF NOT EXISTS Notifications (
    Id         uniqueidentifier NOT NULL PRIMARY KEY,
    UserId     uniqueidentifier NOT NULL,
    Title      nvarchar(200)    NOT NULL,
    Body       nvarchar(4000)   NOT NULL,
    Type       nvarchar(64)     NOT NULL,
    ReadAt     datetime2(3)     NULL,
    CreatedAt  datetime2(3)     NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    CONSTRAINT Id_must_be_lower_case_uuid_text CHECK (
        typeof(Id) = 'text' AND length(Id) = 36 AND Id GLOB '????????-????-????-????-????????????'
        AND replace(Id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT UserId_must_be_lower_case_uuid_text CHECK (
        typeof(UserId) = 'text' AND length(UserId) = 36 AND replace(UserId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT Title_must_be_at_most_200_characters CHECK (typeof(Title) = 'text' AND length(Title) <= 200),
    CONSTRAINT Body_must_be_at_most_4000_characters CHECK (typeof(Body) = 'text' AND length(Body) <= 4000),
    CONSTRAINT Type_must_be_at_most_64_characters CHECK (typeof(Type) = 'text' AND length(Type) <= 64)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS IX_Notifications_User ON Notifications (UserId, CreatedAt DESC, Id);

CREATE TABLE IF NOT EXISTS NheaMailQueue (
    Id           uniqueidentifier NOT NULL PRIMARY KEY,
    ToAddress    nvarchar(320)    NOT NULL,
    Subject      nvarchar(998)    NOT NULL,
    BodyHtml     "nvarchar(max)"  NULL,
    BodyText     "nvarchar(max)"  NULL,
    Attachments  "nvarchar(max)"  NULL,
    Status       nvarchar(32)     NOT NULL DEFAULT 'Queued',
    Attempts     int              NOT NULL DEFAULT 0,
    LastError    nvarchar(4000)   NULL,
    CreatedAt    datetime2(3)     NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    SentAt       datetime2(3)     NULL,
    CONSTRAINT Id_must_be_lower_case_uuid_text CHECK (
        typeof(Id) = 'text' AND length(Id) = 36 AND Id GLOB '????????-????-????-????-????????????'
        AND replace(Id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT ToAddress_must_be_at_most_320_characters CHECK (typeof(ToAddress) = 'text' AND length(ToAddress) <= 320),
    CONSTRAINT Subject_must_be_at_most_998_characters CHECK (typeof(Subject) = 'text' AND length(Subject) <= 998),
    CONSTRAINT Status_must_be_at_most_32_characters CHECK (typeof(Status) = 'text' AND length(Status) <= 32),
    CONSTRAINT LastError_must_be_at_most_4000_characters CHECK (LastError IS NULL OR (typeof(LastError) = 'text' AND length(LastError) <= 4000))
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS IX_NheaMailQueue_Status ON NheaMailQueue (Status, CreatedAt, Id);

-- What instances have logged, at or above log.table.level. Seq counts an instance's lines; Fields is a JSON object.
CREATE TABLE IF NOT EXISTS Logs (
    Id         uniqueidentifier NOT NULL PRIMARY KEY,
    CreatedAt  datetime2(3)     NOT NULL,
    Level      nvarchar(8)      NOT NULL,
    Instance   uniqueidentifier NOT NULL,
    Seq        bigint           NOT NULL,
    Component  nvarchar(200)    NOT NULL,
    Message    nvarchar(4000)   NOT NULL,
    Fields     "nvarchar(max)"  NULL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS IX_Logs_CreatedAt ON Logs (CreatedAt DESC, Seq DESC);

-- The channels that a user has switched off, or on again.
CREATE TABLE IF NOT EXISTS NotificationPreferences (
    UserId     uniqueidentifier NOT NULL,
    Channel    nvarchar(32)     NOT NULL,
    Enabled    bit              NOT NULL,
    UpdatedAt  datetime2(3)     NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (UserId, Channel),
    CONSTRAINT UserId_must_be_lower_case_uuid_text CHECK (
        typeof(UserId) = 'text' AND length(UserId) = 36 AND replace(UserId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT Channel_must_be_at_most_32_characters CHECK (typeof(Channel) = 'text' AND length(Channel) <= 32),
    CONSTRAINT Enabled_must_be_0_or_1 CHECK (Enabled IN (0, 1))
) WITHOUT ROWID;

-- Until when a rule leaves a user alone, and the event that it told last.
CREATE TABLE IF NOT EXISTS NotificationQuiet (
    UserId      uniqueidentifier NOT NULL,
    Rule        nvarchar(200)    NOT NULL,
    LastEvent   nvarchar(200)    NOT NULL,
    QuietUntil  datetime2(3)     NOT NULL,
    PRIMARY KEY (UserId, Rule),
    CONSTRAINT UserId_must_be_lower_case_uuid_text CHECK (
        typeof(UserId) = 'text' AND length(UserId) = 36 AND replace(UserId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT Rule_must_be_at_most_200_characters CHECK (typeof(Rule) = 'text' AND length(Rule) <= 200),
    CONSTRAINT LastEvent_must_be_at_most_200_characters CHECK (typeof(LastEvent) = 'text' AND length(LastEvent) <= 200)
) WITHOUT ROWID;

-- A row per attempt to tell somebody something, never changed. Of what was told Id is DeliveryId.
CREATE TABLE IF NOT EXISTS NotificationDeliveries (
    Id          uniqueidentifier NOT NULL PRIMARY KEY,
    DeliveryId  uniqueidentifier NOT NULL,
    Channel     nvarchar(32)     NOT NULL,
    UserId      uniqueidentifier NOT NULL,
    Rule        nvarchar(200)    NOT NULL,
    Entity      nvarchar(200)    NOT NULL,
    Version     nvarchar(64)     NOT NULL,
    Outcome     nvarchar(32)     NOT NULL,
    Detail      nvarchar(4000)   NULL,
    CreatedAt   datetime2(3)     NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    CONSTRAINT Id_must_be_lower_case_uuid_text CHECK (
        typeof(Id) = 'text' AND length(Id) = 36 AND Id GLOB '????????-????-????-????-????????????'
        AND replace(Id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT DeliveryId_must_be_lower_case_uuid_text CHECK (
        typeof(DeliveryId) = 'text' AND length(DeliveryId) = 36 AND replace(DeliveryId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT UserId_must_be_lower_case_uuid_text CHECK (
        typeof(UserId) = 'text' AND length(UserId) = 36 AND replace(UserId, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT Channel_must_be_at_most_32_characters CHECK (typeof(Channel) = 'text' AND length(Channel) <= 32),
    CONSTRAINT Rule_must_be_at_most_200_characters CHECK (typeof(Rule) = 'text' AND length(Rule) <= 200),
    CONSTRAINT Entity_must_be_at_most_200_characters CHECK (typeof(Entity) = 'text' AND length(Entity) <= 200),
    CONSTRAINT Version_must_be_at_most_64_characters CHECK (typeof(Version) = 'text' AND length(Version) <= 64),
    CONSTRAINT Outcome_must_be_at_most_32_characters CHECK (typeof(Outcome) = 'text' AND length(Outcome) <= 32),
    CONSTRAINT Detail_must_be_at_most_4000_characters CHECK (Detail IS NULL OR (typeof(Detail) = 'text' AND length(Detail) <= 4000))
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS IX_NotificationDeliveries_Delivery ON NotificationDeliveries (DeliveryId);
CREATE INDEX IF NOT EXISTS IX_NotificationDeliveries_User ON NotificationDeliveries (UserId, CreatedAt DESC, Id);
CREATE INDEX IF NOT EXISTS IX_NotificationDeliveries_Entity ON NotificationDeliveries (Entity, CreatedAt DESC, Id);
CREATE INDEX IF NOT EXISTS IX_NotificationDeliveries_CreatedAt ON NotificationDeliveries (CreatedAt DESC, Id);

-- Which database this is: a position taken in another one, or in this one before it was replaced, is refused.
CREATE TABLE IF NOT EXISTS smartpulse_database (
    Incarnation  TEXT NOT NULL
);
INSERT INTO smartpulse_database (Incarnation)
    SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM smartpulse_database);

-- Which tables are captured, the text of their triggers (they are made anew when it differs), and up to which
-- sequence number the full-image log was cleaned.
CREATE TABLE IF NOT EXISTS smartpulse_capture (
    TableName   TEXT   NOT NULL PRIMARY KEY,
    Triggers    TEXT   NOT NULL,
    PrunedTo    bigint NOT NULL DEFAULT 0
) WITHOUT ROWID;
