-- The rules of VersionId for one captured table, kept by triggers, whoever writes. A template: {schema}, {table},
-- {key} and {section} are names.
--
-- An UPDATE that leaves VersionId alone is bumped by one, and one that sets it to anything but the next is refused. A DELETE
-- leaves a tombstone with the last version + 1. An INSERT of a key with a tombstone goes on behind it, or higher where it
-- says so. All of it is set-based, and a nested UPDATE of no rows ends at once, so that RECURSIVE_TRIGGERS does no harm.

CREATE OR ALTER TRIGGER [{schema}].[{table}_versions_insert] ON [{schema}].[{table}] AFTER INSERT AS
BEGIN
    SET NOCOUNT ON;
    IF NOT EXISTS (SELECT 1 FROM inserted AS i
                   JOIN dbo.Tombstones AS b ON b.Section = N'{section}' AND b.Id = i.[{key}]
                   WHERE i.VersionId <= b.VersionId)
        RETURN;
    UPDATE t SET VersionId = b.VersionId + 1
        FROM [{schema}].[{table}] AS t
        JOIN inserted AS i ON i.[{key}] = t.[{key}]
        JOIN dbo.Tombstones AS b ON b.Section = N'{section}' AND b.Id = t.[{key}]
        WHERE t.VersionId <= b.VersionId;
END;
GO
CREATE OR ALTER TRIGGER [{schema}].[{table}_versions_update] ON [{schema}].[{table}] AFTER UPDATE AS
BEGIN
    SET NOCOUNT ON;
    IF NOT EXISTS (SELECT 1 FROM inserted)
        RETURN;
    IF EXISTS (SELECT 1 FROM inserted AS i WHERE NOT EXISTS (SELECT 1 FROM deleted AS d WHERE d.[{key}] = i.[{key}]))
        THROW 50001, N'the {key} of a row of {table} cannot change: delete the row and insert another', 1;
    -- Only the trigger above leaves versions out.
    IF COALESCE(TRIGGER_NESTLEVEL(OBJECT_ID(N'[{schema}].[{table}_versions_insert]'), 'AFTER', 'DML'), 0) = 0
        AND EXISTS (SELECT 1 FROM inserted AS i
                    JOIN deleted AS d ON d.[{key}] = i.[{key}]
                    WHERE i.VersionId <> d.VersionId AND i.VersionId <> d.VersionId + 1)
        THROW 50002, N'VersionId of {table} rises by exactly 1: leave it out, or set it to VersionId + 1', 1;
    UPDATE t SET VersionId = t.VersionId + 1
        FROM [{schema}].[{table}] AS t
        JOIN inserted AS i ON i.[{key}] = t.[{key}]
        JOIN deleted AS d ON d.[{key}] = t.[{key}]
        WHERE i.VersionId = d.VersionId;
END;
GO
CREATE OR ALTER TRIGGER [{schema}].[{table}_versions_delete] ON [{schema}].[{table}] AFTER DELETE AS
BEGIN
    SET NOCOUNT ON;
    IF NOT EXISTS (SELECT 1 FROM deleted)
        RETURN;
    UPDATE b SET VersionId = d.VersionId + 1, DeletedAt = SYSUTCDATETIME()
        FROM dbo.Tombstones AS b
        JOIN deleted AS d ON d.[{key}] = b.Id
        WHERE b.Section = N'{section}';
    INSERT INTO dbo.Tombstones (Section, Id, VersionId, DeletedAt)
        SELECT N'{section}', d.[{key}], d.VersionId + 1, SYSUTCDATETIME()
        FROM deleted AS d
        WHERE NOT EXISTS (SELECT 1 FROM dbo.Tombstones AS b WHERE b.Section = N'{section}' AND b.Id = d.[{key}]);
END;
GO
-- TRUNCATE TABLE fires no trigger, so it would leave no tombstones: a table that a foreign key refers to refuses it
-- (error 4712). DELETE does the same work and tells of it.
IF OBJECT_ID(N'[{schema}].[{table}_truncate_guard]', N'U') IS NULL
CREATE TABLE [{schema}].[{table}_truncate_guard] (
    Id  uniqueidentifier NULL CONSTRAINT [FK_{table}_truncate_guard] REFERENCES [{schema}].[{table}] ([{key}])
);
