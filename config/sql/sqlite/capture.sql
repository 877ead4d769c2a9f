-- Change capture of one table, kept by triggers, so that it holds for any program that writes the file. A
-- template: {table}, {section} and {key} are names; {columns}, {new}, {old} are lists generated from the catalogue
-- ({old} with the tombstone's version in the place of VersionId).
--
-- "ct_{table}" remembers, for every key ever seen, its latest version and operation: the net changes. Each
-- committed write of a row gets exactly one row of "cdc_{table}_CT", numbered by __seq, with the full image after it
-- (of a DELETE: the last image). SQLite has one writer at a time, so numbers become visible in their order.
--
-- The rules: a row's VersionId is always the one in "ct_{table}". Whatever makes it one more is logged,
-- exactly once. An UPDATE that leaves it alone is bumped by a second, nested UPDATE, and that one is logged.
--
-- Nested statements must not conflict: under an outer INSERT OR REPLACE / OR IGNORE they inherit that policy. So
-- rows of "ct_{table}" and Tombstones are updated, or inserted where absent, never upserted. There is no BEFORE INSERT
-- trigger: it would also fire for rows that an OR IGNORE or an upsert then does not insert.
--
-- Only functions of SQLite 3.8 and later, because the writing program brings its own SQLite.

CREATE TABLE IF NOT EXISTS "ct_{table}" (
    "{key}"        {key_type}  NOT NULL PRIMARY KEY,
    VersionId      bigint      NOT NULL,
    __operation    TEXT        NOT NULL,    -- INSERT, UPDATE or DELETE
    __seq          bigint      NOT NULL,    -- of the latest change; 0 for a row older than its capture
    __created_seq  bigint      NOT NULL,    -- of the latest INSERT
    __commit_time  TEXT        NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS "ct_{table}_seq" ON "ct_{table}" (__seq);

CREATE TABLE IF NOT EXISTS "cdc_{table}_CT" (
    __seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    __operation    TEXT NOT NULL,
    __commit_time  TEXT NOT NULL,
    {definitions}
);

-- What was there before its capture: its first captured change goes on from its version.
INSERT INTO "ct_{table}" ("{key}", VersionId, __operation, __seq, __created_seq, __commit_time)
    SELECT "{key}", VersionId, 'INSERT', 0, 0, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM "{table}"
    WHERE "{key}" NOT IN (SELECT "{key}" FROM "ct_{table}");
INSERT INTO "ct_{table}" ("{key}", VersionId, __operation, __seq, __created_seq, __commit_time)
    SELECT Id, VersionId, 'DELETE', 0, 0, DeletedAt FROM Tombstones
    WHERE Section = '{section}' AND Id NOT IN (SELECT "{key}" FROM "ct_{table}");

DROP TRIGGER IF EXISTS "{table}_key_guard";
CREATE TRIGGER "{table}_key_guard" BEFORE UPDATE ON "{table}"
WHEN NEW."{key}" IS NOT OLD."{key}"
BEGIN
    SELECT RAISE(ABORT, 'the {key} of a row of {table} cannot change: delete the row and insert another');
END;

DROP TRIGGER IF EXISTS "{table}_version_guard";
CREATE TRIGGER "{table}_version_guard" BEFORE UPDATE ON "{table}"
WHEN NEW.VersionId NOT IN (OLD.VersionId, (SELECT VersionId + 1 FROM "ct_{table}" WHERE "{key}" = OLD."{key}"))
BEGIN
    SELECT RAISE(ABORT, 'VersionId of {table} rises by exactly 1: leave it out, or set it to VersionId + 1');
END;

DROP TRIGGER IF EXISTS "{table}_bump";
CREATE TRIGGER "{table}_bump" AFTER UPDATE ON "{table}"
WHEN NEW.VersionId = OLD.VersionId
BEGIN
    UPDATE "{table}" SET VersionId = VersionId + 1 WHERE "{key}" = NEW."{key}";
END;

DROP TRIGGER IF EXISTS "{table}_log_update";
CREATE TRIGGER "{table}_log_update" AFTER UPDATE ON "{table}"
WHEN NEW.VersionId = (SELECT VersionId + 1 FROM "ct_{table}" WHERE "{key}" = NEW."{key}")
BEGIN
    INSERT INTO "cdc_{table}_CT" (__operation, __commit_time, {columns})
        SELECT CASE __operation WHEN 'DELETE' THEN 'INSERT' ELSE 'UPDATE' END,
               strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), {new}
        FROM "ct_{table}" WHERE "{key}" = NEW."{key}";
    UPDATE "ct_{table}" SET
        VersionId = NEW.VersionId,
        __created_seq = CASE __operation WHEN 'DELETE' THEN last_insert_rowid() ELSE __created_seq END,
        __operation = CASE __operation WHEN 'DELETE' THEN 'INSERT' ELSE 'UPDATE' END,
        __seq = last_insert_rowid(),
        __commit_time = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE "{key}" = NEW."{key}";
END;

-- A key never seen counts as deleted just before its first version. A row whose version is not the next one
-- (re-created, or put by REPLACE over a live row, whose deletion fires no trigger unless recursive_triggers is on) is
-- renumbered, and logged by "{table}_log_update"; the last two statements then find it logged already.
DROP TRIGGER IF EXISTS "{table}_log_insert";
CREATE TRIGGER "{table}_log_insert" AFTER INSERT ON "{table}"
BEGIN
    INSERT INTO "ct_{table}" ("{key}", VersionId, __operation, __seq, __created_seq, __commit_time)
        SELECT NEW."{key}", NEW.VersionId - 1, 'DELETE', 0, 0, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE NOT EXISTS (SELECT 1 FROM "ct_{table}" WHERE "{key}" = NEW."{key}");
    UPDATE "{table}" SET VersionId = (SELECT VersionId + 1 FROM "ct_{table}" WHERE "{key}" = NEW."{key}")
        WHERE "{key}" = NEW."{key}"
        AND VersionId <> (SELECT VersionId + 1 FROM "ct_{table}" WHERE "{key}" = NEW."{key}");
    INSERT INTO "cdc_{table}_CT" (__operation, __commit_time, {columns})
        SELECT CASE __operation WHEN 'DELETE' THEN 'INSERT' ELSE 'UPDATE' END,
               strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), {new}
        FROM "ct_{table}" WHERE "{key}" = NEW."{key}"
        AND VersionId + 1 = (SELECT VersionId FROM "{table}" WHERE "{key}" = NEW."{key}");
    UPDATE "ct_{table}" SET
        VersionId = NEW.VersionId,
        __created_seq = CASE __operation WHEN 'DELETE' THEN last_insert_rowid() ELSE __created_seq END,
        __operation = CASE __operation WHEN 'DELETE' THEN 'INSERT' ELSE 'UPDATE' END,
        __seq = last_insert_rowid(),
        __commit_time = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE "{key}" = NEW."{key}"
        AND VersionId + 1 = (SELECT VersionId FROM "{table}" WHERE "{key}" = NEW."{key}");
END;

DROP TRIGGER IF EXISTS "{table}_log_delete";
CREATE TRIGGER "{table}_log_delete" AFTER DELETE ON "{table}"
BEGIN
    INSERT INTO "cdc_{table}_CT" (__operation, __commit_time, {columns})
        SELECT 'DELETE', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), {old}
        FROM "ct_{table}" AS ct WHERE ct."{key}" = OLD."{key}";
    UPDATE "ct_{table}" SET
        VersionId = VersionId + 1,
        __operation = 'DELETE',
        __seq = last_insert_rowid(),
        __commit_time = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE "{key}" = OLD."{key}";
    UPDATE Tombstones SET
        VersionId = (SELECT VersionId FROM "ct_{table}" WHERE "{key}" = OLD."{key}"),
        DeletedAt = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE Section = '{section}' AND Id = OLD."{key}";
    INSERT INTO Tombstones (Section, Id, VersionId, DeletedAt)
        SELECT '{section}', OLD."{key}", VersionId, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM "ct_{table}" WHERE "{key}" = OLD."{key}"
        AND NOT EXISTS (SELECT 1 FROM Tombstones WHERE Section = '{section}' AND Id = OLD."{key}");
END;
